//! Where connections to servers come from: address, ports, interface.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

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
    /// Whose address is taken instead of its own, which is then that of checks only.
    pub foreign: Option<Foreign>,
}

/// An address that need not be the machine's (`usesrc`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Foreign {
    /// The client's, and a port of the system's choice.
    ClientIp,
    /// The client's and its port.
    Client,
    /// This one; port 0 = the system's choice.
    Fixed(SocketAddr),
}

impl Source {
    /// The same for the connection of a client: `None` if that has no address to take.
    #[must_use]
    pub fn of_client(mut self, client: Option<SocketAddr>) -> Option<Source> {
        let taken = match self.foreign {
            None | Some(Foreign::Fixed(_)) => return Some(self),
            Some(Foreign::ClientIp) => SocketAddr::new(client?.ip(), 0),
            Some(Foreign::Client) => client?,
        };
        self.foreign = Some(Foreign::Fixed(taken));
        Some(self)
    }

    /// The same without anybody else's address.
    #[must_use]
    pub fn own(mut self) -> Source {
        self.foreign = None;
        self
    }

    /// Whether it asks for the client's address.
    pub fn is_of_client(&self) -> bool {
        matches!(self.foreign, Some(Foreign::ClientIp | Foreign::Client))
    }

    /// The address it names, its own or a foreign one.
    pub fn named_ip(&self) -> Option<IpAddr> {
        match self.foreign {
            None => self.ip,
            Some(Foreign::Fixed(address)) => Some(address.ip()),
            Some(Foreign::ClientIp | Foreign::Client) => None,
        }
    }

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

    #[test]
    fn a_source_takes_what_it_asks_for_of_a_client() {
        let client: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let source = |foreign| Source {
            ip: None,
            ports: None,
            interface: None,
            foreign,
        };
        let taken = |foreign, client| source(foreign).of_client(client);
        let fixed = Some(Foreign::Fixed("192.0.2.7:0".parse().unwrap()));
        assert_eq!(taken(None, None), Some(source(None)));
        assert_eq!(taken(fixed, None), Some(source(fixed)));
        let ip = Some(Foreign::ClientIp);
        assert_eq!(taken(ip, Some(client)), Some(source(fixed)));
        assert_eq!(taken(ip, None), None);
        let both = Some(Foreign::Client);
        let whole = Some(Foreign::Fixed(client));
        assert_eq!(taken(both, Some(client)), Some(source(whole)));
        assert_eq!(taken(both, None), None);
        assert_eq!(source(both).own(), source(None));
        assert!(source(both).is_of_client() && !source(fixed).is_of_client());
        assert_eq!(source(fixed).named_ip(), Some(client.ip()));
    }
}
