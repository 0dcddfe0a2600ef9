//! Plain building blocks with no knowledge of sockets, config or proxies.

pub mod address;
pub mod bencode;
pub mod counters;
pub mod digest;
pub mod duration;
pub mod hash;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod ports;
pub mod rate;
pub mod receive;
pub mod send_proxy;
pub mod slab;
pub mod source;
pub mod source_counts;
pub mod spin;
pub mod text;
pub mod time;
pub mod wheel;
