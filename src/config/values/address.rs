//! Addresses as they are written: `1.2.3.4:80`, `[::1]:80`, `:80`, `name:80`, `/path`,
//! `unix@/path`, `abns@name`, `fd@3`, `udp@1.2.3.4:80`.
//!
//! Splits a text into its parts and checks their form; what a keyword accepts of it (a port, a
//! range, a descriptor) is the keyword's business. Names are resolved on request, through the
//! environment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::base::address::AbstractName;
use crate::config::draft::Mode;
use crate::config::environment::Resolver;

/// Longest path of a Unix socket: `sun_path` is 108 bytes with its final NUL.
const UNIX_PATH_MAX: usize = 107;

/// A written address in its parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) enum Written {
    /// A Unix stream socket.
    Unix(PathBuf),
    /// A Unix stream socket in the abstract namespace.
    Abstract(AbstractName),
    /// An inherited descriptor.
    Descriptor(i32),
    /// A host and what stood for its port.
    Ip(Host, Port),
}

/// The host part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) enum Host {
    /// Empty or `*`: all addresses of the family.
    Any(Family),
    /// A literal address.
    Address(IpAddr),
    /// A name.
    Name(String, Option<Family>),
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Family {
    V4,
    V6,
}

/// The port part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Port {
    None,
    One(u16),
    Range(u16, u16),
    /// `+n` or `-n`: counted from the client's port.
    Relative(i32),
}

/// What a prefix says that an address is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Stream,
    Datagram,
}

/// Prefixes of HAProxy that are known and not implemented.
const PREFIXES_REFUSED: &[&str] = &[
    "sockpair", "mptcp", "mptcp4", "mptcp6", "quic4", "quic6", "uxdg", "rhttp",
];

impl Written {
    /// Splits the address of a stream. The fault is a message without the text's keyword.
    pub(in crate::config) fn parse(text: &str) -> Result<Written, String> {
        Written::parse_for(text, Mode::Tcp)
    }

    /// Splits the address of what a proxy of a mode listens on or sends to.
    pub(in crate::config) fn parse_for(text: &str, mode: Mode) -> Result<Written, String> {
        let (written, transport) = Written::split(text)?;
        let is_ip = matches!(written, Written::Ip(..));
        match (mode, transport) {
            (Mode::Udp, Some(Transport::Stream)) => Err(format!(
                "address '{text}' is one of streams, and 'mode udp' carries datagrams"
            )),
            (Mode::Udp, _) if !is_ip => Err(format!(
                "address '{text}': 'mode udp' needs an IP address and a port"
            )),
            (Mode::Tcp | Mode::Http, Some(Transport::Datagram)) => Err(format!(
                "address '{text}' is one of datagrams, which needs 'mode udp'"
            )),
            _ => Ok(written),
        }
    }

    /// The parts, and what the prefix says of streams and datagrams, if anything.
    fn split(text: &str) -> Result<(Written, Option<Transport>), String> {
        let mut rest = text;
        let mut family = None;
        let mut transport = None;
        if let Some((prefix, after)) = text.split_once('@')
            && !prefix.contains('/')
        {
            rest = after;
            let (kind, bare) = match prefix.split_once('+') {
                Some(("stream", bare)) => (Some(Transport::Stream), bare),
                Some(("dgram", bare @ ("ip" | "ipv4" | "ipv6"))) => {
                    (Some(Transport::Datagram), bare)
                }
                _ => (None, prefix),
            };
            transport = match bare {
                "tcp" | "tcp4" | "tcp6" => Some(Transport::Stream),
                "udp" | "udp4" | "udp6" => Some(Transport::Datagram),
                _ => kind,
            };
            match bare {
                "ipv4" | "tcp4" | "udp4" => family = Some(Family::V4),
                "ipv6" | "tcp6" | "udp6" => family = Some(Family::V6),
                "ip" | "tcp" | "udp" => {}
                "unix" | "uxst" => return unix(after).map(|unix| (unix, transport)),
                "abns" | "abnsz" => {
                    let name = AbstractName::new(after, prefix == "abns");
                    let name = name.map(|name| (Written::Abstract(name), transport));
                    return name.ok_or_else(|| {
                        let most = AbstractName::LENGTH_MAX;
                        format!(
                            "abstract socket name '{after}' is empty or longer than {most} bytes"
                        )
                    });
                }
                "fd" => {
                    let number = after.parse().ok().filter(|number| *number >= 0);
                    let number = number.map(|number| (Written::Descriptor(number), transport));
                    return number.ok_or_else(|| {
                        format!("file descriptor '{after}' is not a valid integer in '{text}'")
                    });
                }
                _ if PREFIXES_REFUSED.contains(&prefix) || prefix.contains('+') => {
                    return Err(format!(
                        "address '{text}': '{prefix}@' is not implemented yet"
                    ));
                }
                _ => return Err(format!("unknown address prefix '{prefix}@' in '{text}'")),
            }
        }
        if rest.starts_with('/') {
            return unix(rest).map(|unix| (unix, transport));
        }
        let (host, port) = split_port(rest);
        let port = parse_port(port)?;
        let host = parse_host(host, family)
            .ok_or_else(|| format!("invalid address: '{host}' in '{text}'"))?;
        Ok((Written::Ip(host, port), transport))
    }
}

fn unix(path: &str) -> Result<Written, String> {
    if path.is_empty() || path.len() > UNIX_PATH_MAX {
        return Err(format!(
            "socket path '{path}' is empty or longer than {UNIX_PATH_MAX} bytes"
        ));
    }
    Ok(Written::Unix(PathBuf::from(path)))
}

/// The host and the port after the last colon; inside brackets a colon is the host's.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(inner) = text.strip_prefix('[')
        && let Some((host, after)) = inner.split_once(']')
    {
        return match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

fn parse_port(port: Option<&str>) -> Result<Port, String> {
    let Some(port) = port.filter(|port| !port.is_empty()) else {
        return Ok(Port::None);
    };
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse::<u16>().ok();
        number
            .filter(|_| plain)
            .ok_or_else(|| format!("invalid port '{text}'"))
    };
    if let Some(offset) = port.strip_prefix('+') {
        return number(offset).map(|offset| Port::Relative(i32::from(offset)));
    }
    if let Some(offset) = port.strip_prefix('-') {
        return number(offset).map(|offset| Port::Relative(-i32::from(offset)));
    }
    match port.split_once('-') {
        None => number(port).map(Port::One),
        Some((low, high)) => {
            let (low, high) = (number(low)?, number(high)?);
            if low > high {
                return Err(format!("invalid port range '{port}'"));
            }
            Ok(Port::Range(low, high))
        }
    }
}

fn parse_host(host: &str, family: Option<Family>) -> Option<Host> {
    if host.is_empty() || host == "*" {
        return Some(Host::Any(family.unwrap_or(Family::V4)));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return family
            .is_none_or(|family| family.has(address))
            .then_some(Host::Address(address));
    }
    // A name made of digits and dots would be a mistyped address; no top-level domain is a number.
    let numeric = host
        .rsplit('.')
        .next()
        .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let valid = host.len() <= 253 && !numeric && host.bytes().all(allowed);
    valid.then(|| Host::Name(host.to_owned(), family))
}

impl Family {
    fn has(self, address: IpAddr) -> bool {
        (self == Family::V4) == address.is_ipv4()
    }
}

impl Host {
    /// The address to use: of a name the resolver's first one of the wanted family.
    pub(in crate::config) fn resolve(
        &self,
        resolver: &(impl Resolver + ?Sized),
    ) -> Result<IpAddr, String> {
        self.resolve_preferring(resolver, None)
    }

    /// The same; of a name that has several, one of the preferred family.
    pub(in crate::config) fn resolve_preferring(
        &self,
        resolver: &(impl Resolver + ?Sized),
        preferred: Option<Family>,
    ) -> Result<IpAddr, String> {
        match self {
            Host::Any(Family::V4) => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            Host::Any(Family::V6) => Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            Host::Address(address) => Ok(*address),
            Host::Name(name, family) => {
                let mut addresses = resolver
                    .resolve(name)
                    .map_err(|cause| format!("could not resolve address '{name}': {cause}"))?;
                addresses.retain(|address| family.is_none_or(|family| family.has(*address)));
                let liked = |a: &&IpAddr| preferred.is_none_or(|family| family.has(**a));
                let chosen = addresses.iter().find(liked).or(addresses.first());
                chosen
                    .copied()
                    .ok_or_else(|| format!("could not resolve address '{name}'"))
            }
        }
    }

    /// Whether it names no particular address.
    pub(in crate::config) fn is_any(&self) -> bool {
        match self {
            Host::Any(_) => true,
            Host::Address(address) => address.is_unspecified(),
            Host::Name(..) => false,
        }
    }
}
