//! What stands in words: addresses, numbers with units, sets of threads and CPUs.

pub(super) mod address;
pub(super) mod guid;
pub(super) mod server_address;
pub mod threads;
pub(super) mod units;
