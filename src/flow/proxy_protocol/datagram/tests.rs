//! Tests of headers of datagrams.

use super::super::{PROXY, TCP4, TCP6, UNIX_STREAM, crc32c, tlv};
use super::*;
use crate::base::send_proxy::Version;

const MAX: usize = 1024;
const FOUR: [u8; PAIR_V4] = [10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 53];
const SIX: [u8; PAIR_V6] = {
    let mut bytes = [0; PAIR_V6];
    (bytes[0], bytes[1], bytes[15]) = (0x20, 0x01, 1);
    (bytes[16], bytes[17], bytes[31]) = (0x20, 0x01, 2);
    (bytes[33], bytes[35]) = (7, 9);
    bytes
};
const ALL: SendProxy = SendProxy {
    checksum: true,
    unique_id: true,
    authority: true,
    tls: true,
    ..SendProxy::of(Version::Two)
};

fn bytes(command: u8, family: u8, addresses: &[u8], extra: &[u8]) -> Vec<u8> {
    let room = u16::try_from(addresses.len() + extra.len()).unwrap();
    let fixed = [&SIGNATURE[..], &[command, family], &room.to_be_bytes()].concat();
    [&fixed, addresses, extra].concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

fn pair(from: &str, to: &str) -> Addresses {
    Some((from.parse().unwrap(), to.parse().unwrap()))
}

/// Headers without payload, and what they say.
fn valid() -> Vec<(Vec<u8>, Addresses)> {
    let mapped: Vec<u8> = {
        let ip = |last| [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, last]].concat();
        [&ip(1)[..], &ip(2), &FOUR[8..]].concat()
    };
    let v4 = pair("10.0.0.1:4660", "10.0.0.2:53");
    let v6 = pair("[2001::1]:7", "[2001::2]:9");
    let fields = Fields {
        unique_id: b"id",
        authority: b"host.example",
    };
    let noop = field(tlv::NOOP, b"padding");
    vec![
        (bytes(PROXY, UDP4, &FOUR, &[]), v4),
        (bytes(PROXY, UDP4, &FOUR, &noop), v4),
        (bytes(PROXY, UDP6, &SIX, &field(0xe4, b"custom")), v6),
        (
            bytes(PROXY, UDP6, &mapped, &[]),
            pair("192.0.2.1:4660", "192.0.2.2:53"),
        ),
        (header(ALL, v4, fields).as_bytes().to_vec(), v4),
        (header(ALL, v6, fields).as_bytes().to_vec(), v6),
        (header(ALL, None, fields).as_bytes().to_vec(), None),
        (bytes(LOCAL, UDP4, &FOUR, b"ignored"), None),
        (bytes(LOCAL, TCP4, &[], b"ignored"), None),
        (bytes(PROXY, UNSPECIFIED, &[], b"ignored"), None),
        (bytes(PROXY, UNIX_DATAGRAM, &[b'x'; PAIR_UNIX], &[]), None),
    ]
}

#[test]
fn a_header_says_who_and_where_the_payload_begins() {
    for (header, addresses) in valid() {
        for payload in [&b""[..], b"x", b"PROXY TCP4", &SIGNATURE, &[0; 1400]] {
            let datagram = [&header[..], payload].concat();
            let read = read(&datagram, MAX).unwrap();
            assert_eq!(read.addresses, addresses);
            assert_eq!(&datagram[read.payload_at..], payload);
        }
    }
}

/// What is cut off does not come: no beginning of a header is one.
#[test]
fn a_header_that_is_cut_anywhere_is_refused() {
    for (header, _) in valid() {
        for length in 0..header.len() {
            let fault = match length {
                0..12 => Fault::NotProxy,
                _ => Fault::Invalid,
            };
            assert_eq!(read(&header[..length], MAX), Err(fault), "{length}");
        }
    }
}

#[test]
fn headers_of_streams_and_other_faults_are_refused() {
    let with = |extra: &[u8]| bytes(PROXY, UDP4, &FOUR, extra);
    let damaged = |at: usize| {
        let header = header(ALL, pair("[::1]:1", "[::2]:2"), Fields::default());
        let mut bytes = header.as_bytes().to_vec();
        bytes[FIXED_LENGTH + at] ^= 1;
        bytes
    };
    let invalid = [
        bytes(PROXY, TCP4, &FOUR, &[]),
        bytes(PROXY, TCP6, &SIX, &[]),
        bytes(PROXY, UNIX_STREAM, &[0; PAIR_UNIX], &[]),
        bytes(PROXY, 0x10, &FOUR, &[]),
        bytes(PROXY, 0x13, &FOUR, &[]),
        bytes(PROXY, 0x42, &FOUR, &[]),
        bytes(0x22, UDP4, &FOUR, &[]),
        bytes(PROXY, UDP4, &FOUR[..11], &[]),
        bytes(PROXY, UDP6, &SIX[..35], &[]),
        bytes(PROXY, UNIX_DATAGRAM, &[0; PAIR_UNIX - 1], &[]),
        with(&[tlv::NOOP]),
        with(&[tlv::NOOP, 0, 1]),
        with(&field(tlv::CRC32C, &[0; 4])),
        with(&field(tlv::CRC32C, &[0; 3])),
        with(&field(tlv::UNIQUE_ID, &[0; tlv::UNIQUE_ID_MAX + 1])),
        with(&field(tlv::AUTHORITY, &[0; tlv::AUTHORITY_MAX + 1])),
        damaged(PAIR_V6 - 1),
        damaged(PAIR_V6 + tlv::HEAD),
    ];
    for header in invalid {
        let datagram = [&header[..], b"payload"].concat();
        assert_eq!(read(&datagram, MAX), Err(Fault::Invalid), "{header:?}");
    }
    let others: [&[u8]; 4] = [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UNKNOWN\r\n",
        b"d1:ad2:id20:",
        &bytes(0x11, UDP4, &FOUR, &[]),
    ];
    for datagram in others {
        assert_eq!(read(datagram, MAX), Err(Fault::NotProxy), "{datagram:?}");
    }
}

/// The other way round: those of datagrams don't come as a stream.
#[test]
fn a_stream_with_a_header_of_datagrams_is_refused() {
    for (header, addresses) in valid() {
        if addresses.is_some() {
            let read = parse::parse(&header, MAX);
            assert_eq!(read, parse::Parsed::Fault(Fault::Invalid));
        }
    }
}

#[test]
fn a_header_is_bounded() {
    let filled = |length: usize| {
        let filling = vec![0; length - FIXED_LENGTH - FOUR.len() - tlv::HEAD];
        bytes(PROXY, UDP4, &FOUR, &field(0xe0, &filling))
    };
    assert!(read(&filled(MAX), MAX).is_ok());
    assert_eq!(read(&filled(MAX + 1), MAX), Err(Fault::Invalid));
    let local = bytes(LOCAL, UNSPECIFIED, &[0; MAX], &[]);
    assert_eq!(read(&local, MAX), Err(Fault::Invalid));
}

#[test]
fn fields_are_found_and_those_of_the_hop_are_not_kept() {
    let fields = Fields {
        unique_id: b"id",
        authority: b"host.example",
    };
    let addresses = pair("192.0.2.1:1", "[2001:db8::2]:65535");
    let header = header(ALL, addresses, fields);
    let read = read(header.as_bytes(), MAX).unwrap();
    // Both are written as one family, and read as what they are.
    assert_eq!(read.addresses, addresses);
    assert_eq!(read.payload_at, header.as_bytes().len());
    assert_eq!(tlv::value(read.tlvs, tlv::UNIQUE_ID), b"id");
    assert_eq!(tlv::value(read.tlvs, tlv::AUTHORITY), b"host.example");
    let kept = read.kept_tlvs().unwrap();
    assert_eq!(tlv::value(&kept, tlv::UNIQUE_ID), b"id");
    assert!(tlv::value(&kept, tlv::CRC32C).is_empty());
    assert!(!tlv::value(read.tlvs, tlv::CRC32C).is_empty());
    let bare = bytes(PROXY, UDP4, &FOUR, &field(tlv::NOOP, b"x"));
    assert_eq!(super::read(&bare, MAX).unwrap().kept_tlvs(), None);
}

/// A datagram has no header of version 1, whatever is asked for.
#[test]
fn what_is_written_is_of_version_two_and_of_udp() {
    let v4 = pair("127.0.0.1:43876", "127.0.0.1:21011");
    let one = header(SendProxy::of(Version::One), v4, Fields::default());
    let expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x7f\0\0\x01\x7f\0\0\x01\xab\x64\x52\x13";
    assert_eq!(one.as_bytes(), expected);
    let v6 = pair("[::1]:1", "127.0.0.1:2");
    let six = header(SendProxy::of(Version::Two), v6, Fields::default());
    assert_eq!(six.as_bytes()[12..16], [PROXY, UDP6, 0, 36]);
    let none = header(SendProxy::of(Version::Two), None, Fields::default());
    assert_eq!(none.as_bytes()[12..], [LOCAL, UNSPECIFIED, 0, 0]);
    let checked = header(ALL, v4, Fields::default());
    let mut zeroed = checked.as_bytes().to_vec();
    let at = FIXED_LENGTH + PAIR_V4 + tlv::HEAD;
    zeroed[at..at + 4].fill(0);
    let sum = crc32c(&[&zeroed]).to_be_bytes();
    assert_eq!(checked.as_bytes()[at..at + 4], sum);
}

/// Whatever a byte becomes: no panic, and a payload within the datagram.
#[test]
fn a_corrupt_byte_is_no_harm() {
    for (header, _) in valid() {
        let whole = [&header[..], b"payload"].concat();
        for at in 0..header.len() {
            for value in [0, 1, 0x11, 0x20, 0x21, 0x7f, 0x80, 0xff, !whole[at]] {
                let mut corrupt = whole.clone();
                corrupt[at] = value;
                for length in 0..=corrupt.len() {
                    if let Ok(read) = read(&corrupt[..length], MAX) {
                        assert!(read.payload_at <= length);
                    }
                }
            }
        }
    }
}
