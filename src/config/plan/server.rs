//! Servers: where they are and how they are checked.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Check, Passive, ServerKey, SlowStart, Watch};
use crate::base::address::Address;
use crate::base::ids::ServerId;
use crate::base::send_proxy::SendProxy;
use crate::base::source::{ShortName, Source};

/// One `server`.
#[derive(Clone, PartialEq, Debug)]
pub struct Server {
    /// Its slot in the process.
    pub server_id: ServerId,
    /// HAProxy's numeric id (`sid`), from 1 on in each backend.
    pub sid: u32,
    /// Whether it was given by `id`.
    pub sid_given: bool,
    /// Name, unique in its backend.
    pub name: Arc<str>,
    /// Where to connect, resolved.
    pub address: Target,
    /// The address as it was written.
    pub address_text: String,
    /// `weight` 0..=256.
    pub weight: u16,
    /// `maxconn`, 0 = unlimited.
    pub maxconn: u32,
    /// `minconn`: what `maxconn` shrinks to while the backend has few sessions; 0 = it doesn't.
    /// Always below `maxconn`.
    pub minconn: u32,
    /// `maxqueue`: most sessions that wait for this server alone, 0 = unlimited.
    pub maxqueue: u32,
    /// `backup`: used only when no other server is usable.
    pub backup: bool,
    /// `disabled`: starts in maintenance.
    pub disabled: bool,
    /// `check` with its settings.
    pub check: Option<Check>,
    /// What else decides about its state.
    pub watch: Watch,
    /// `slowstart` with its settings.
    pub slow_start: Option<SlowStart>,
    /// What its sessions may say of it.
    pub passive: Passive,
    /// `tcp-ut`: TCP_USER_TIMEOUT in milliseconds, 0 = none.
    pub tcp_user_timeout_ms: u32,
    /// `cc`: its congestion control.
    pub congestion: Option<ShortName>,
    /// `source`, its own or its backend's.
    pub source: Option<Source>,
    /// `hash-key`: what its place under a consistent hash is made of.
    pub hash_key: ServerKey,
    /// `guid`: its identity over restarts, unique in the file; empty = none.
    pub guid: String,
    /// `quic-id`: what its connection IDs name it by, as many bytes as `quic-lb` says; empty =
    /// none.
    pub quic_id: Vec<u8>,
    /// `send-proxy`: the header it gets before a client's bytes.
    pub send_proxy: Option<SendProxy>,
    /// Whether it is in the files.
    pub origin: ServerOrigin,
    /// `file:line`, for messages.
    pub place: String,
}

impl Server {
    /// Whether both say the same, wherever that is written.
    pub fn is_same(&self, other: &Server) -> bool {
        let (place, origin) = (other.place.clone(), other.origin);
        *other
            == Server {
                place,
                origin,
                ..self.clone()
            }
    }
}

/// Where a server comes from, which decides how it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServerOrigin {
    /// It is in the files.
    #[default]
    Files,
    /// A runtime command has added it: it is not checked, nor is its agent asked, until that is
    /// enabled.
    Command {
        /// It begins in service (`enabled`), not in maintenance.
        enabled: bool,
    },
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// At one address.
    Fixed(Address),
    /// Where the client meant to go, in whole or in part: taken from the address and port that it
    /// connected to.
    OfClient {
        /// The server's address; `None` = the client's destination.
        ip: Option<IpAddr>,
        /// Its port.
        port: PortRule,
    },
    /// Nowhere: its name did not resolve, and its `init-addr` allows that. It stays in maintenance.
    Unresolved,
}

/// A port that may depend on the client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortRule {
    /// One port.
    Fixed(u16),
    /// The port that the client connected to, plus so many.
    Offset(i32),
}

impl Target {
    /// The address for a client that connected to `destination`; `None` if that gives no port.
    pub fn of_client(&self, destination: SocketAddr) -> Option<Address> {
        match self {
            Target::Fixed(address) => Some(address.clone()),
            Target::OfClient { ip, port } => {
                let port = port.of_client(destination.port())?;
                let ip = ip.unwrap_or(destination.ip());
                Some(Address::Ip((ip, port).into()))
            }
            Target::Unresolved => None,
        }
    }
}

impl PortRule {
    /// The port for a client that connected to `port`.
    fn of_client(self, port: u16) -> Option<u16> {
        let port = match self {
            PortRule::Fixed(port) => port,
            PortRule::Offset(offset) => u16::try_from(i32::from(port) + offset).ok()?,
        };
        (port > 0).then_some(port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Fixed(address) => address.fmt(f),
            Target::OfClient { ip, port } => {
                match ip {
                    None => f.write_str("*")?,
                    Some(IpAddr::V4(ip)) => ip.fmt(f)?,
                    Some(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
                }
                match port {
                    PortRule::Fixed(port) => write!(f, ":{port}"),
                    PortRule::Offset(offset) => write!(f, ":{offset:+}"),
                }
            }
            Target::Unresolved => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_targets_parts_come_from_the_clients_destination() {
        let client: SocketAddr = "192.0.2.7:8000".parse().unwrap();
        let of = |ip: Option<&str>, port| {
            let ip = ip.map(|ip| ip.parse().unwrap());
            let target = Target::OfClient { ip, port };
            let address = target.of_client(client).map(|address| address.to_string());
            (target.to_string(), address)
        };
        let found = |text: &str, address: &str| (text.to_owned(), Some(address.to_owned()));
        let none = |text: &str| (text.to_owned(), None);
        let (own, ip) = (PortRule::Offset(0), Some("10.0.0.1"));
        assert_eq!(of(None, own), found("*:+0", "192.0.2.7:8000"));
        assert_eq!(of(None, PortRule::Fixed(80)), found("*:80", "192.0.2.7:80"));
        assert_eq!(of(ip, own), found("10.0.0.1:+0", "10.0.0.1:8000"));
        let least = PortRule::Offset(-7999);
        assert_eq!(of(ip, least), found("10.0.0.1:-7999", "10.0.0.1:1"));
        assert_eq!(of(ip, PortRule::Offset(-8000)), none("10.0.0.1:-8000"));
        let most = PortRule::Offset(57_535);
        assert_eq!(of(Some("::1"), most), found("[::1]:+57535", "[::1]:65535"));
        assert_eq!(of(ip, PortRule::Offset(57_536)), none("10.0.0.1:+57536"));
        assert_eq!(Target::Unresolved.of_client(client), None);
    }
}
