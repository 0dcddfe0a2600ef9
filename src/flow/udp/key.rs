//! What tells flows apart, packed: 59 bytes instead of 84.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Listener, client, and where they count the address it wrote to and the one that a PROXY header
/// has named.
///
/// Packed, because a shard has one for each flow; as bytes, because it is hashed and compared
/// whole. An IPv4 address stands as its IPv4-mapped one, which is unambiguous as no address comes
/// in that form ([`normalised`]).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FlowKey([u8; LENGTH]);

const CLIENT_IP: usize = 0;
const CLIENT_PORT: usize = 16;
const CLIENT_SCOPE: usize = 18;
const LISTENER: usize = 22;
const FLAGS: usize = 24;
const LOCAL_IP: usize = 25;
const NAMED_IP: usize = 41;
const NAMED_PORT: usize = 57;
const LENGTH: usize = 59;

const HAS_LOCAL: u8 = 1;
const HAS_NAMED: u8 = 2;

impl FlowKey {
    /// The flow of `client` at `listener`; `local` is the address it wrote to where the listener
    /// has no single one, `named` is the client that a PROXY header has named.
    pub fn new(
        listener: u16,
        client: SocketAddr,
        local: Option<IpAddr>,
        named: Option<SocketAddr>,
    ) -> FlowKey {
        let client = normalised(client);
        let mut bytes = [0; LENGTH];
        put(&mut bytes, CLIENT_IP, octets(client.ip()));
        put(&mut bytes, CLIENT_PORT, client.port().to_be_bytes());
        if let SocketAddr::V6(v6) = client {
            put(&mut bytes, CLIENT_SCOPE, v6.scope_id().to_be_bytes());
        }
        put(&mut bytes, LISTENER, listener.to_be_bytes());
        if let Some(local) = local {
            bytes[FLAGS] |= HAS_LOCAL;
            put(&mut bytes, LOCAL_IP, octets(local));
        }
        if let Some(named) = named {
            bytes[FLAGS] |= HAS_NAMED;
            put(&mut bytes, NAMED_IP, octets(named.ip()));
            put(&mut bytes, NAMED_PORT, named.port().to_be_bytes());
        }
        FlowKey(bytes)
    }

    /// The listener, as its owner numbers them.
    pub fn listener(&self) -> u16 {
        u16::from_be_bytes(self.part(LISTENER))
    }

    /// Who sends the datagrams and gets the replies.
    pub fn client(&self) -> SocketAddr {
        let port = u16::from_be_bytes(self.part(CLIENT_PORT));
        let scope = u32::from_be_bytes(self.part(CLIENT_SCOPE));
        match ip(self.part(CLIENT_IP)) {
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
            IpAddr::V4(ip) => (ip, port).into(),
        }
    }

    /// The address the client wrote to, where that counts.
    pub fn local(&self) -> Option<IpAddr> {
        (self.0[FLAGS] & HAS_LOCAL != 0).then(|| ip(self.part(LOCAL_IP)))
    }

    /// The client that a PROXY header has named.
    pub fn named(&self) -> Option<SocketAddr> {
        let port = u16::from_be_bytes(self.part(NAMED_PORT));
        let named = || SocketAddr::new(ip(self.part(NAMED_IP)), port);
        (self.0[FLAGS] & HAS_NAMED != 0).then(named)
    }

    /// Whom the flow counts for, with limits, hashes and logs: the named client, else the sender.
    pub fn source(&self) -> SocketAddr {
        self.named().unwrap_or_else(|| self.client())
    }

    /// All that differs between two keys, without what is unused in this one.
    pub(super) fn bytes(&self) -> &[u8] {
        // Whether the rest counts stands in the part that always does.
        let length = if self.0[FLAGS] == 0 { LOCAL_IP } else { LENGTH };
        &self.0[..length]
    }

    fn part<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut part = [0; N];
        part.copy_from_slice(&self.0[at..at + N]);
        part
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowKey")
            .field("listener", &self.listener())
            .field("client", &self.client())
            .field("local", &self.local())
            .field("named", &self.named())
            .finish()
    }
}

/// An address with an IPv4 one as such, and without a flow label.
pub fn normalised(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => (ip, v6.port()).into(),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
        SocketAddr::V4(_) => address,
    }
}

fn put<const N: usize>(bytes: &mut [u8; LENGTH], at: usize, part: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&part);
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn ip(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        let link: SocketAddr = SocketAddrV6::new("fe80::7".parse().unwrap(), 9, 0, 3).into();
        let addresses = ["192.0.2.1:6881", "[2001:db8::1]:53", "0.0.0.0:0"];
        let addresses = addresses.map(|text| text.parse::<SocketAddr>().unwrap());
        let mut keys = Vec::new();
        for client in addresses.into_iter().chain([link]) {
            for local in [None, Some(addresses[0].ip()), Some(addresses[2].ip())] {
                for named in [None, Some(addresses[1]), Some(addresses[2])] {
                    let key = FlowKey::new(513, client, local, named);
                    assert_eq!((key.listener(), key.client()), (513, client));
                    assert_eq!((key.local(), key.named()), (local, named));
                    assert_eq!(key.source(), named.unwrap_or(client));
                    keys.push(key);
                }
            }
        }
        for (index, key) in keys.iter().enumerate() {
            assert!(
                keys[..index]
                    .iter()
                    .all(|other| other.bytes() != key.bytes())
            );
        }
    }

    #[test]
    fn one_client_is_one_however_it_is_written() {
        let plain = "192.0.2.1:53".parse().unwrap();
        let mapped = SocketAddrV6::new("::ffff:192.0.2.1".parse().unwrap(), 53, 7, 0);
        assert_eq!(normalised(mapped.into()), plain);
        let key = FlowKey::new(0, mapped.into(), None, None);
        assert_eq!(key, FlowKey::new(0, plain, None, None));
        assert_ne!(key, FlowKey::new(1, plain, None, None));
        assert_eq!(size_of::<FlowKey>(), 59);
    }
}
