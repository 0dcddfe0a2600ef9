//! Where connections to servers come from: address, ports, interface.

use std::fmt;
use std::net::IpAddr;

/// A name that the kernel holds in 16 bytes with its final NUL: an interface (IFNAMSIZ), a
/// congestion control (TCP_CA_NAME_MAX).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortName {
    bytes: [u8; 15],
    length: u8,
}

impl ShortName {
    /// The name; `None` if it is empty, too long or holds a NUL.
    pub fn new(name: &str) -> Option<ShortName> {
        let mut bytes = [0; 15];
        let valid = !name.is_empty() && name.len() <= bytes.len() && !name.contains('\0');
        if !valid {
            return None;
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let length = u8::try_from(name.len()).ok()?;
        Some(ShortName { bytes, length })
    }

    /// Its bytes, without a NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Debug for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

/// Where the connecting sockets of a server are bound before they connect.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Its address; `None` = the system's choice.
    pub ip: Option<IpAddr>,
    /// Its ports, the lowest and the highest; `None` = the system's choice.
    pub ports: Option<(u16, u16)>,
    /// The interface its packets leave by; `None` = as routed.
    pub interface: Option<ShortName>,
}

impl Source {
    /// The same with one port of its range.
    #[must_use]
    pub fn at(mut self, port: u16) -> Source {
        self.ports = Some((port, port));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_what_an_interface_may_be_called() {
        assert_eq!(ShortName::new("lo").unwrap().as_bytes(), b"lo");
        assert!(ShortName::new("fifteen-letters").is_some());
        assert!(ShortName::new("sixteen-letters!").is_none());
        assert!(ShortName::new("").is_none() && ShortName::new("a\0b").is_none());
    }
}
