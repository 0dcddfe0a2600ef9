//! System calls that are not on a ring: sockets, addresses, process. With `ring` the only unsafe code.

mod eventfd;
pub mod stream;

pub use eventfd::EventFd;
