//! Addresses of listeners and servers.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a stream socket listens or connects to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// An IPv4 or IPv6 address and port.
    Ip(SocketAddr),
    /// A Unix stream socket by its path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix@{}", path.display()),
        }
    }
}
