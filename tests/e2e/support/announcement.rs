//! The receiving end of the PROXY protocol in mock servers: strict, and nothing of the balancer's.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Kinds of fields.
pub(crate) const AUTHORITY: u8 = 0x02;
pub(crate) const CRC32C: u8 = 0x03;
pub(crate) const UNIQUE_ID: u8 = 0x05;
pub(crate) const TLS: u8 = 0x20;

/// What a header said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProxyHeader {
    pub(crate) version: u8,
    /// Source and destination; `None` = UNKNOWN or LOCAL.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    pub(crate) fields: Vec<(u8, Vec<u8>)>,
}

impl ProxyHeader {
    /// The source, of a client that has one.
    pub(crate) fn source(&self) -> SocketAddr {
        self.addresses.expect("addresses").0
    }

    /// A field.
    pub(crate) fn field(&self, kind: u8) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(found, _)| *found == kind)?;
        Some(value)
    }
}

/// Reads the header that a connection begins with, and not a byte more. Fails the test if it isn't
/// one; a connection that ends before is an error.
pub(crate) fn read_header(stream: &TcpStream) -> io::Result<ProxyHeader> {
    let mut stream = stream;
    let mut bytes = vec![0; 6];
    stream.read_exact(&mut bytes)?;
    if bytes == b"PROXY " {
        while !bytes.ends_with(b"\r\n") {
            assert!(bytes.len() < 107, "no end of line in {bytes:?}");
            let mut next = [0];
            stream.read_exact(&mut next)?;
            bytes.extend(next);
        }
        return Ok(line(&bytes));
    }
    bytes.resize(16, 0);
    stream.read_exact(&mut bytes[6..])?;
    assert_eq!(bytes[..12], SIGNATURE, "no header: {bytes:?}");
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    bytes.resize(16 + length, 0);
    stream.read_exact(&mut bytes[16..])?;
    Ok(binary(&bytes))
}

fn line(bytes: &[u8]) -> ProxyHeader {
    let text = std::str::from_utf8(bytes).expect("ASCII");
    let text = text.strip_suffix("\r\n").expect("a line");
    let words: Vec<&str> = text.split(' ').collect();
    let addresses = match words[..] {
        ["PROXY", "UNKNOWN"] => None,
        [
            "PROXY",
            family @ ("TCP4" | "TCP6"),
            from,
            to,
            from_port,
            to_port,
        ] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().expect("an address");
                assert_eq!(ip.is_ipv4(), family == "TCP4", "{text}");
                SocketAddr::new(ip, port.parse().expect("a port"))
            };
            Some((address(from, from_port), address(to, to_port)))
        }
        _ => panic!("no line of the PROXY protocol: {text}"),
    };
    ProxyHeader {
        version: 1,
        addresses,
        fields: Vec::new(),
    }
}

fn binary(bytes: &[u8]) -> ProxyHeader {
    let body = &bytes[16..];
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let v4 = |at: usize| {
        let ip: [u8; 4] = body[at..at + 4].try_into().expect("four bytes");
        IpAddr::from(ip)
    };
    let v6 = |at: usize| {
        let ip: [u8; 16] = body[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::from(ip)
    };
    let (addresses, fields_at) = match (bytes[12], bytes[13]) {
        (0x20, 0x00) => (None, 0),
        (0x21, 0x11) => {
            let from = SocketAddr::new(v4(0), port(8));
            (Some((from, SocketAddr::new(v4(4), port(10)))), 12)
        }
        (0x21, 0x21) => {
            let from = SocketAddr::new(v6(0), port(32));
            (Some((from, SocketAddr::new(v6(16), port(34)))), 36)
        }
        other => panic!("no command and family: {other:?}"),
    };
    let (mut fields, mut at) = (Vec::new(), 16 + fields_at);
    while at < bytes.len() {
        let length = usize::from(u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]));
        let value = bytes[at + 3..at + 3 + length].to_vec();
        if bytes[at] == CRC32C {
            let mut zeroed = bytes.to_vec();
            zeroed[at + 3..at + 7].fill(0);
            assert_eq!(value, crc32c(&zeroed).to_be_bytes(), "a wrong checksum");
        }
        fields.push((bytes[at], value));
        at += 3 + length;
    }
    ProxyHeader {
        version: 2,
        addresses,
        fields,
    }
}

/// The checksum bit by bit, as its definition has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ ((sum & 1) * 0x82f6_3b78);
        }
    }
    !sum
}
