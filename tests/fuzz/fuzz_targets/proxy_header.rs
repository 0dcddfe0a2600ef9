//! Any bytes as the beginning of a stream with a PROXY header: what a part of them says holds for
//! the whole, what is kept is well formed, and what is written is read back. The same bytes as a
//! datagram: what it has within its bounds, and no header of a stream is one of a datagram.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use tidegate::base::send_proxy::{SendProxy, Version};
use tidegate::flow::proxy_protocol::parse::{Parsed, parse};
use tidegate::flow::proxy_protocol::tlv::{self, Tlv, fields};
use tidegate::flow::proxy_protocol::{Addresses, Fields, SIGNATURE, datagram, header};
use tidegate::limits::PROXY_HEADER_MAX;

/// Bytes that say what is written: options, families and two addresses with their ports.
const WRITTEN_FROM: usize = 2 + 2 * (16 + 2);

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    write(bytes);
});

fn read(bytes: &[u8]) {
    // Half of the inputs begin as a header of version 2 does: chance alone seldom gets so far.
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let bytes = match first % 2 {
        0 => rest.to_vec(),
        _ => [&SIGNATURE[..], rest].concat(),
    };
    let whole = parse(&bytes, PROXY_HEADER_MAX);
    read_datagram(&bytes, &whole);
    if let Parsed::Header(header, length) = &whole {
        assert!(*length <= bytes.len() && *length <= PROXY_HEADER_MAX);
        assert_eq!(parse(&bytes[..*length], PROXY_HEADER_MAX), whole);
        let kept = header.tlvs.as_deref().unwrap_or_default();
        assert!(kept.len() < *length && fields(kept).all(|field| field.is_ok()));
        assert!(header.tlvs.is_none() || !kept.is_empty());
    }
    // A part is the beginning of a header, or says what the whole says.
    let step = (bytes.len() / 64).max(1);
    for length in (0..bytes.len()).step_by(step) {
        let part = parse(&bytes[..length], PROXY_HEADER_MAX);
        assert!(
            part == Parsed::More || part == whole,
            "{length} of {bytes:?}"
        );
    }
}

fn read_datagram(bytes: &[u8], as_stream: &Parsed) {
    let Ok(header) = datagram::read(bytes, PROXY_HEADER_MAX) else {
        return;
    };
    assert!((16..=bytes.len().min(PROXY_HEADER_MAX)).contains(&header.payload_at));
    assert!(fields(header.tlvs).all(|field| field.is_ok()));
    let kept = header.kept_tlvs().unwrap_or_default();
    assert!(kept.len() <= header.tlvs.len() && fields(&kept).all(|field| field.is_ok()));
    // Alone it is the same; cut anywhere it is none.
    let alone = datagram::read(&bytes[..header.payload_at], PROXY_HEADER_MAX);
    assert_eq!(alone, Ok(header));
    assert!(datagram::read(&bytes[..header.payload_at - 1], PROXY_HEADER_MAX).is_err());
    // Only what speaks of nobody is a header of both.
    if let Parsed::Header(stream, length) = as_stream {
        assert_eq!((stream.addresses, header.addresses), (None, None));
        assert_eq!(*length, header.payload_at);
    }
}

/// Whatever a header is made of, it is read back as what it says, to its last byte; and a kept
/// field that is written again is the same.
fn write(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<WRITTEN_FROM>() else {
        return;
    };
    let [options, families, both @ ..] = head;
    let (from, to) = both.split_at(16 + 2);
    let addresses = (families % 8 != 0).then(|| {
        (
            address(from, families & 8 == 0),
            address(to, families & 16 == 0),
        )
    });
    let bit = |at: u8| options >> at & 1 == 1;
    let version = if bit(0) { Version::One } else { Version::Two };
    let wanted = SendProxy {
        version,
        checksum: bit(1),
        unique_id: bit(2),
        authority: bit(3),
        tls: bit(4),
    };
    let (unique_id, authority) = rest.split_at(rest.len() / 3);
    let known = Fields {
        unique_id,
        authority,
    };
    let before = datagram::header(wanted, addresses, known);
    let sent = [before.as_bytes(), rest].concat();
    let read = datagram::read(&sent, PROXY_HEADER_MAX).expect("what was written");
    assert_eq!(read.payload_at, before.as_bytes().len());
    assert_eq!(read.addresses, addresses.map(canonical));
    let written = header(wanted, addresses, known);
    let stream = [written.as_bytes(), rest].concat();
    let Parsed::Header(read, length) = parse(&stream, PROXY_HEADER_MAX) else {
        panic!("{wanted:?} {addresses:?}: {written:?}");
    };
    assert_eq!(length, written.as_bytes().len());
    assert_eq!(read.addresses, addresses.map(canonical));
    if bit(0) || addresses.is_none() {
        assert_eq!(read.tlvs, None);
        return;
    }
    let kept = read.tlvs.as_deref().unwrap_or_default();
    let found = |kind| {
        let mut kept = fields(kept).map(|field| field.expect("well formed"));
        kept.find(|field| field.kind == kind)
            .map(|Tlv { value, .. }| value)
    };
    let goes = |asked, value: &[u8], longest| asked && (1..=longest).contains(&value.len());
    let goes_authority = goes(wanted.authority, authority, tlv::AUTHORITY_MAX);
    let goes_unique_id = goes(wanted.unique_id, unique_id, tlv::UNIQUE_ID_MAX);
    assert_eq!(found(tlv::AUTHORITY), goes_authority.then_some(authority));
    assert_eq!(found(tlv::UNIQUE_ID), goes_unique_id.then_some(unique_id));
    assert_eq!(found(tlv::CRC32C), None);
}

fn address(bytes: &[u8], is_v4: bool) -> SocketAddr {
    let (ip, port) = bytes.split_first_chunk::<16>().expect("as many");
    let [a, b, c, d, ..] = *ip;
    let ip = match is_v4 {
        true => IpAddr::from([a, b, c, d]),
        false => IpAddr::from(*ip),
    };
    SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]]))
}

fn canonical((from, to): (SocketAddr, SocketAddr)) -> <Addresses as IntoIterator>::Item {
    let of = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    (of(from), of(to))
}
