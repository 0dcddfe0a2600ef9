//! PROXY headers as clients send them.

use std::net::SocketAddr;

use tidegate::flow::proxy_protocol::{PROXY, SIGNATURE, crc32c, tlv};

/// Families of version 2.
pub(crate) const TCP4: u8 = 0x11;
pub(crate) const TCP6: u8 = 0x21;

/// Version 1, from a client to `192.0.2.80:443` or `2001:db8::80`.
pub(crate) fn text(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let (protocol, to) = match client {
        SocketAddr::V4(_) => ("TCP4", "192.0.2.80"),
        SocketAddr::V6(_) => ("TCP6", "2001:db8::80"),
    };
    let (ip, port) = (client.ip(), client.port());
    format!("PROXY {protocol} {ip} {to} {port} 443\r\n").into_bytes()
}

/// Version 2 of any kind.
pub(crate) fn raw(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

/// The addresses and ports of version 2.
pub(crate) fn addresses(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().expect("an address");
    let mut body = match client {
        SocketAddr::V4(client) => [client.ip().octets(), [192, 0, 2, 80]].concat(),
        SocketAddr::V6(client) => [client.ip().octets(), [1; 16]].concat(),
    };
    body.extend(client.port().to_be_bytes());
    body.extend(443_u16.to_be_bytes());
    body
}

/// Version 2 with fields.
pub(crate) fn binary(client: &str, fields: &[u8]) -> Vec<u8> {
    let family = if client.starts_with('[') { TCP6 } else { TCP4 };
    raw(PROXY, family, &[&addresses(client), fields].concat())
}

/// A field of version 2.
pub(crate) fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short").to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// The same with a checksum at its end; `mask` makes it wrong.
pub(crate) fn checked(client: &str, fields: &[u8], mask: u8) -> Vec<u8> {
    let fields = [fields, &field(tlv::CRC32C, &[0; 4])].concat();
    let mut header = binary(client, &fields);
    let mut crc = crc32c(&[&header]).to_be_bytes();
    crc[2] ^= mask;
    let at = header.len() - crc.len();
    header[at..].copy_from_slice(&crc);
    header
}
