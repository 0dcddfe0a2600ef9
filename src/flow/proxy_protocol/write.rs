//! Writing a PROXY header: the first bytes that a server gets, before those of the client.
//!
//! Into a buffer of fixed size, whatever the header holds. What does not go into it is left out
//! whole, never cut: a field that came from a client is not worth a connection.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use super::{FIXED_LENGTH, LOCAL, PROXY, SIGNATURE, TCP4, TCP6, TEXT_LENGTH_MAX, UNSPECIFIED};
use super::{crc32c, tlv};
use crate::base::send_proxy::{SendProxy, Version};

/// No TLS (none of the client's bits), so no verified certificate (0).
const NO_TLS: [u8; 5] = [0; 5];
/// The longest header: addresses of IPv6, checksum, name, id, and that there is no TLS. It is
/// longer than any line of version 1.
pub const HEADER_MAX: usize = FIXED_LENGTH
    + 36
    + (tlv::HEAD + 4)
    + (tlv::HEAD + tlv::AUTHORITY_MAX)
    + (tlv::HEAD + tlv::UNIQUE_ID_MAX)
    + (tlv::HEAD + NO_TLS.len());
const _: () = assert!(HEADER_MAX >= TEXT_LENGTH_MAX);

/// Source and destination of a client's connection; `None` where they aren't known or aren't IP.
pub type Addresses = Option<(SocketAddr, SocketAddr)>;

/// What a header of version 2 may hold beside addresses; empty = it isn't known.
#[derive(Clone, Copy, Default, Debug)]
pub struct Fields<'a> {
    /// The id of the connection.
    pub unique_id: &'a [u8],
    /// The name of the host that the client wants.
    pub authority: &'a [u8],
}

/// Bytes of a bounded number.
#[derive(Clone, Copy, Debug)]
pub struct Bounded<const MAX: usize> {
    bytes: [u8; MAX],
    length: usize,
}

/// A header.
pub type HeaderBytes = Bounded<HEADER_MAX>;

impl<const MAX: usize> Bounded<MAX> {
    /// None yet.
    pub(super) const EMPTY: Self = Bounded {
        bytes: [0; MAX],
        length: 0,
    };

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends, if all of it fits.
    fn push(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    fn push_ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.push(&ip.octets()),
            IpAddr::V6(ip) => self.push(&ip.octets()),
        }
    }

    /// Appends a field; one that is longer than it may be is left out.
    fn push_field(&mut self, kind: u8, value: &[u8], longest: usize) {
        if let Ok(length) = u16::try_from(value.len())
            && value.len() <= longest
        {
            self.push(&[kind]);
            self.push(&length.to_be_bytes());
            self.push(value);
        }
    }
}

impl<const MAX: usize> Write for Bounded<MAX> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// The header that a server wants, about a client with such addresses.
pub fn header(wanted: SendProxy, addresses: Addresses, fields: Fields<'_>) -> HeaderBytes {
    let addresses = addresses.map(of_one_family);
    match wanted.version {
        Version::One => line(addresses),
        Version::Two => binary(wanted, addresses, [TCP4, TCP6], fields),
    }
}

/// Both addresses as those of one family: IPv4 where both can be.
pub(super) fn of_one_family((from, to): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let (from_ip, to_ip) = (from.ip().to_canonical(), to.ip().to_canonical());
    let widened = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(ip) => IpAddr::V6(ip),
    };
    let (from_ip, to_ip) = match (from_ip, to_ip) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (from_ip, to_ip),
        _ => (widened(from_ip), widened(to_ip)),
    };
    ((from_ip, from.port()).into(), (to_ip, to.port()).into())
}

fn line(addresses: Addresses) -> HeaderBytes {
    let mut line = HeaderBytes::EMPTY;
    let Some((from, to)) = addresses else {
        line.push(b"PROXY UNKNOWN\r\n");
        return line;
    };
    let family = if from.is_ipv4() { 4 } else { 6 };
    let (from_ip, to_ip, from, to) = (from.ip(), to.ip(), from.port(), to.port());
    // Into a buffer: it never fails, and holds the longest line.
    let _ = write!(line, "PROXY TCP{family} {from_ip} {to_ip} {from} {to}\r\n");
    line
}

/// A header of version 2 about addresses of one family, which has these names.
pub(super) fn binary(
    wanted: SendProxy,
    addresses: Addresses,
    [family_v4, family_v6]: [u8; 2],
    fields: Fields<'_>,
) -> HeaderBytes {
    let mut header = HeaderBytes::EMPTY;
    header.push(&SIGNATURE);
    let (command, family) = match addresses {
        None => (LOCAL, UNSPECIFIED),
        Some((from, _)) if from.is_ipv4() => (PROXY, family_v4),
        Some(_) => (PROXY, family_v6),
    };
    header.push(&[command, family]);
    let length_at = header.length;
    header.push(&[0; 2]);
    let body_at = header.length;
    if let Some((from, to)) = addresses {
        header.push_ip(from.ip());
        header.push_ip(to.ip());
        header.push(&from.port().to_be_bytes());
        header.push(&to.port().to_be_bytes());
    }
    let checksum_at = header.length + tlv::HEAD;
    if wanted.checksum {
        header.push_field(tlv::CRC32C, &[0; 4], 4);
    }
    if wanted.authority && !fields.authority.is_empty() {
        header.push_field(tlv::AUTHORITY, fields.authority, tlv::AUTHORITY_MAX);
    }
    if wanted.unique_id && !fields.unique_id.is_empty() {
        header.push_field(tlv::UNIQUE_ID, fields.unique_id, tlv::UNIQUE_ID_MAX);
    }
    if wanted.tls {
        header.push_field(tlv::SSL, &NO_TLS, NO_TLS.len());
    }
    let length = u16::try_from(header.length - body_at).expect("bounded by HEADER_MAX");
    header.bytes[length_at..body_at].copy_from_slice(&length.to_be_bytes());
    if wanted.checksum {
        // Over everything, itself as zeroes.
        let sum = crc32c(&[header.as_bytes()]);
        header.bytes[checksum_at..checksum_at + 4].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Parsed, parse};
    use super::*;

    const V1: SendProxy = SendProxy::of(Version::One);
    const V2: SendProxy = SendProxy::of(Version::Two);

    fn addresses(from: &str, to: &str) -> Addresses {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    fn text(addresses: Addresses) -> String {
        let header = header(V1, addresses, Fields::default());
        String::from_utf8(header.as_bytes().to_vec()).unwrap()
    }

    fn hex(wanted: SendProxy, addresses: Addresses, fields: Fields<'_>) -> String {
        let header = header(wanted, addresses, fields);
        let bytes = header.as_bytes().iter();
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// What haproxy sends was read off its wire.
    #[test]
    fn lines_are_haproxys() {
        assert_eq!(
            text(addresses("127.0.0.1:43666", "127.0.0.1:21001")),
            "PROXY TCP4 127.0.0.1 127.0.0.1 43666 21001\r\n"
        );
        assert_eq!(
            text(addresses("[::1]:56230", "[::1]:21002")),
            "PROXY TCP6 ::1 ::1 56230 21002\r\n"
        );
        assert_eq!(
            text(addresses("9.8.7.6:55076", "[::1]:21005")),
            "PROXY TCP6 ::ffff:9.8.7.6 ::1 55076 21005\r\n"
        );
        assert_eq!(
            text(addresses("[2001:db8::1]:49412", "1.2.3.4:21004")),
            "PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 49412 21004\r\n"
        );
        assert_eq!(text(None), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn mapped_addresses_are_those_they_stand_for() {
        let mapped = addresses("[::ffff:1.2.3.4]:1", "[::ffff:5.6.7.8]:2");
        assert_eq!(text(mapped), "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n");
        let one = addresses("[::ffff:1.2.3.4]:1", "5.6.7.8:2");
        assert_eq!(text(one), "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n");
    }

    #[test]
    fn binary_headers_are_haproxys() {
        let head = "0d0a0d0a000d0a515549540a";
        let none = Fields::default();
        let v4 = addresses("127.0.0.1:43876", "127.0.0.1:21011");
        assert_eq!(
            hex(V2, v4, none),
            format!("{head}2111000c7f0000017f000001ab645213")
        );
        let v6 = addresses("[::1]:48258", "[::1]:21012");
        assert_eq!(
            hex(V2, v6, none),
            format!("{head}21210024{0:0>31}1{0:0>31}1bc825214", "")
        );
        let mixed = addresses("[2001:db8::1]:42932", "127.0.0.1:21014");
        assert_eq!(
            hex(V2, mixed, none),
            format!(
                "{head}2121002420010db8{:0>23}100000000000000000000ffff7f000001a7b45216",
                ""
            )
        );
        assert_eq!(hex(V2, None, none), format!("{head}20000000"));
        let tls = SendProxy { tls: true, ..V2 };
        let v4 = addresses("127.0.0.1:57750", "127.0.0.1:21030");
        assert_eq!(
            hex(tls, v4, none),
            format!("{head}211100147f0000017f000001e19652262000050000000000")
        );
        let checksum = SendProxy {
            checksum: true,
            ..V2
        };
        assert_eq!(
            hex(checksum, None, none),
            format!("{head}20000007030004a9b87e8f")
        );
    }

    #[test]
    fn fields_are_what_is_asked_for_and_known() {
        let wanted = SendProxy {
            checksum: true,
            unique_id: true,
            authority: true,
            tls: true,
            ..V2
        };
        let fields = Fields {
            unique_id: b"id",
            authority: b"host.example",
        };
        let length = |wanted, fields| header(wanted, None, fields).as_bytes().len();
        assert_eq!(length(wanted, fields), 16 + 7 + (3 + 12) + (3 + 2) + 8);
        assert_eq!(length(V2, fields), 16, "not asked for");
        assert_eq!(length(wanted, Fields::default()), 16 + 7 + 8, "not known");
        let whole = header(wanted, None, fields);
        let bytes = whole.as_bytes();
        assert_eq!(
            bytes[23..],
            *b"\x02\0\x0chost.example\x05\0\x02id\x20\0\x05\0\0\0\0\0"
        );
        let mut zeroed = bytes.to_vec();
        zeroed[19..23].fill(0);
        assert_eq!(bytes[19..23], crc32c(&[&zeroed]).to_be_bytes());
    }

    /// What is written is read back as it was meant.
    #[test]
    fn headers_are_read_as_they_are_written() {
        let wanted = SendProxy {
            checksum: true,
            unique_id: true,
            authority: true,
            tls: true,
            ..V2
        };
        let fields = Fields {
            unique_id: b"id",
            authority: b"host.example",
        };
        let v4 = addresses("192.0.2.1:1", "192.0.2.2:65535");
        let v6 = addresses("[2001:db8::1]:1", "[2001:db8::2]:65535");
        for addresses in [v4, v6, None] {
            for wanted in [V1, V2, wanted] {
                let header = header(wanted, addresses, fields);
                let bytes = [header.as_bytes(), b"after it"].concat();
                let Parsed::Header(read, length) = parse(&bytes, HEADER_MAX) else {
                    panic!("{wanted:?} {addresses:?}");
                };
                assert_eq!((read.addresses, length), (addresses, bytes.len() - 8));
                // LOCAL speaks of nobody: its fields are not kept.
                let has_fields = wanted.unique_id && addresses.is_some();
                assert_eq!(read.tlvs.is_some(), has_fields);
            }
        }
    }

    #[test]
    fn the_longest_header_fits_and_longer_fields_are_left_out() {
        let wanted = SendProxy {
            checksum: true,
            unique_id: true,
            authority: true,
            tls: true,
            ..V2
        };
        let v6 = addresses("[::1]:1", "[::1]:2");
        let long = [b'a'; tlv::AUTHORITY_MAX + 1];
        let fields = |id, name| Fields {
            unique_id: &long[..id],
            authority: &long[..name],
        };
        let length = |fields| header(wanted, v6, fields).as_bytes().len();
        assert_eq!(
            length(fields(tlv::UNIQUE_ID_MAX, tlv::AUTHORITY_MAX)),
            HEADER_MAX
        );
        let without = HEADER_MAX - tlv::UNIQUE_ID_MAX - tlv::AUTHORITY_MAX - 2 * tlv::HEAD;
        let most = fields(tlv::UNIQUE_ID_MAX + 1, tlv::AUTHORITY_MAX + 1);
        assert_eq!(length(most), without);
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("[{longest}]:65535");
        assert_eq!(text(addresses(&longest, &longest)).len(), 104);
    }
}
