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
    /// A Unix stream socket by its abstract name.
    Abstract(AbstractName),
}

/// A name in the kernel's own namespace of Unix sockets, which leaves no file behind.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AbstractName {
    /// What follows the leading NUL of `sun_path`.
    bytes: Vec<u8>,
    padded: bool,
}

impl AbstractName {
    /// Longest name: `sun_path` is 108 bytes, the first of which is NUL.
    pub const LENGTH_MAX: usize = 107;

    /// A name, if it is not too long. A padded one (HAProxy's `abns@`) fills `sun_path` with NULs,
    /// which are part of the name for the kernel; the other (`abnsz@`) ends with its last letter,
    /// as most programs have it.
    pub fn new(name: &str, padded: bool) -> Option<AbstractName> {
        let mut bytes = name.as_bytes().to_vec();
        if bytes.is_empty() || bytes.len() > Self::LENGTH_MAX {
            return None;
        }
        if padded {
            bytes.resize(Self::LENGTH_MAX, 0);
        }
        Some(AbstractName { bytes, padded })
    }

    /// What follows the leading NUL of `sun_path`.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Display for AbstractName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.padded { "abns" } else { "abnsz" };
        let name = String::from_utf8_lossy(&self.bytes);
        write!(f, "{prefix}@{}", name.trim_end_matches('\0'))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix@{}", path.display()),
            Address::Abstract(name) => write!(f, "{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abstract_name_is_padded_as_haproxy_has_it() {
        let padded = AbstractName::new("web", true).unwrap();
        assert_eq!(padded.bytes().len(), AbstractName::LENGTH_MAX);
        assert_eq!(Address::Abstract(padded.clone()).to_string(), "abns@web");
        let plain = AbstractName::new("web", false).unwrap();
        assert_eq!(plain.bytes(), b"web");
        assert_eq!(plain.to_string(), "abnsz@web");
        assert_ne!(plain, padded);
        assert_eq!(AbstractName::new("", true), None);
        let long = "a".repeat(AbstractName::LENGTH_MAX + 1);
        assert_eq!(AbstractName::new(&long, false), None);
    }
}
