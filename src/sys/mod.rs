//! System calls that are not on a ring: sockets, addresses, process. With `ring` the only unsafe
//! code.

mod accept_queue;
mod awaited;
pub mod capabilities;
pub mod cgroup;
pub mod clock;
pub mod datagram;
mod eventfd;
pub mod interrupt;
pub mod lines;
mod pages;
pub mod pipe;
mod probe_socket;
pub mod process;
pub mod socket;
pub mod stream;

pub use accept_queue::AcceptQueue;
pub use awaited::Awaited;
pub use eventfd::EventFd;
pub use pages::{PAGE, Pages};
pub use probe_socket::connect_datagrams;
