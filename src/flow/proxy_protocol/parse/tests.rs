//! Tests of the parser.

use super::*;

const MAX: usize = 1024;

fn read(bytes: &[u8]) -> Parsed {
    parse(bytes, MAX)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn addresses(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    match read(bytes) {
        Parsed::Header(header, length) => {
            assert_eq!(length, bytes.len());
            header.addresses
        }
        other => panic!("{other:?} of {bytes:?}"),
    }
}

/// A version 2 header.
fn header(command: u8, family: u8, addresses: &[u8], extra: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len() + extra.len()).unwrap();
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([addresses, extra].concat());
    bytes
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], value].concat()
}

const FOUR: [u8; 12] = [10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0, 80];

fn six() -> Vec<u8> {
    let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&ip("2001:db8::1")[..], &ip("2001:db8::2"), &FOUR[8..]].concat()
}

/// A header with fields of every kind and its checksum.
fn rich() -> Vec<u8> {
    let checksum = field(tlv::CRC32C, &[0; 4]);
    let fields = [
        field(tlv::AUTHORITY, b"example.org"),
        field(tlv::NOOP, &[0; 5]),
        field(tlv::UNIQUE_ID, &[7; tlv::UNIQUE_ID_MAX]),
        field(tlv::SSL, &[1, 0, 0, 0, 0, 0x21, 0, 1, b'3']),
        field(0xe4, b"custom"),
        checksum,
    ]
    .concat();
    let mut bytes = header(PROXY, TCP6, &six(), &fields);
    let crc = crc32c(&[&bytes]);
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn valid() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 5] = [
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        b"PROXY TCP6 2001:db8::1 ::2 0 443\r\n",
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ff:: anything \xc3\xa9 at all\r\n",
        b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
          ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
    all.extend([
        header(LOCAL, UNSPECIFIED, &[], &[]),
        header(LOCAL, TCP4, &FOUR, b"ignored"),
        header(PROXY, UNSPECIFIED, &[], b"ignored"),
        header(PROXY, TCP4, &FOUR, &[]),
        header(PROXY, TCP6, &six(), &field(tlv::NETNS, b"blue")),
        header(PROXY, UNIX_STREAM, &[b'x'; 216], &[]),
        rich(),
    ]);
    all
}

#[test]
fn text_headers() {
    assert_eq!(
        addresses(b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 80\r\n"),
        Some((address("1.2.3.4:1111"), address("5.6.7.8:80")))
    );
    assert_eq!(
        addresses(b"PROXY TCP6 2001:DB8::1 ::1 0 65535\r\n"),
        Some((address("[2001:db8::1]:0"), address("[::1]:65535")))
    );
    // IPv4 in its IPv6 form is IPv4.
    assert_eq!(
        addresses(b"PROXY TCP6 ::ffff:1.2.3.4 ::ffff:5.6.7.8 1 2\r\n"),
        Some((address("1.2.3.4:1"), address("5.6.7.8:2")))
    );
    assert_eq!(addresses(b"PROXY UNKNOWN 1 2\r\n"), None);
}

#[test]
fn what_follows_a_header_is_left_alone() {
    for bytes in valid() {
        let alone = read(&bytes);
        assert!(matches!(&alone, Parsed::Header(_, length) if *length == bytes.len()));
        for payload in [&b"\r\n"[..], b"PROXY TCP4", &[0; 300]] {
            assert_eq!(read(&[&bytes, payload].concat()), alone);
        }
    }
}

#[test]
fn every_beginning_of_a_header_needs_more() {
    for bytes in valid() {
        for length in 0..bytes.len() {
            assert_eq!(
                read(&bytes[..length]),
                Parsed::More,
                "{length} of {bytes:?}"
            );
        }
    }
}

#[test]
fn faults_of_text_headers() {
    let invalid: [&[u8]; 18] = [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r \n",
        b"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        b"PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP6 fe80::1%lo ::2 1 2\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        b"PROXY UNKNOWN \xff\r\n",
    ];
    for bytes in invalid {
        assert_eq!(read(bytes), Parsed::Fault(Fault::Invalid), "{bytes:?}");
    }
    let protocols: [&[u8]; 5] = [
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY UNKNOWNs\r\n",
        b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY \r\n",
    ];
    for bytes in protocols {
        assert_eq!(read(bytes), Parsed::Fault(Fault::Protocol), "{bytes:?}");
    }
    let others: [&[u8]; 6] = [
        b"GET / HTTP/1.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PUT",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
        b"\r\n\r\nx",
        b"\0",
    ];
    for bytes in others {
        assert_eq!(read(bytes), Parsed::Fault(Fault::NotProxy), "{bytes:?}");
    }
}

#[test]
fn a_text_header_is_bounded() {
    let unknown = |filled: usize| {
        let head = b"PROXY UNKNOWN ";
        [&head[..], &vec![b'x'; filled - head.len()]].concat()
    };
    let longest = [&unknown(TEXT_LENGTH_MAX - 2)[..], b"\r\n"].concat();
    assert_eq!(addresses(&longest), None);
    let longer = [&unknown(TEXT_LENGTH_MAX - 1)[..], b"\r\n"].concat();
    for length in TEXT_LENGTH_MAX..=longer.len() {
        let fault = Parsed::Fault(Fault::Invalid);
        assert_eq!(read(&longer[..length]), fault, "{length}");
    }
    assert_eq!(read(&unknown(TEXT_LENGTH_MAX - 1)), Parsed::More);
    let endless = unknown(TEXT_LENGTH_MAX);
    assert_eq!(read(&endless), Parsed::Fault(Fault::Invalid));
}

#[test]
fn binary_headers() {
    assert_eq!(
        addresses(&header(PROXY, TCP4, &FOUR, &[])),
        Some((address("10.0.0.1:4660"), address("10.0.0.2:80")))
    );
    assert_eq!(
        addresses(&header(PROXY, TCP6, &six(), &[])),
        Some((address("[2001:db8::1]:4660"), address("[2001:db8::2]:80")))
    );
    let mapped = |ip: [u8; 4]| Ipv4Addr::from(ip).to_ipv6_mapped().octets();
    let ips = [mapped([10, 0, 0, 1]), mapped([10, 0, 0, 2])].concat();
    assert_eq!(
        addresses(&header(PROXY, TCP6, &[&ips, &FOUR[8..]].concat(), &[])),
        Some((address("10.0.0.1:4660"), address("10.0.0.2:80")))
    );
    for own in [
        header(LOCAL, TCP4, &FOUR, &field(tlv::NOOP, &[])),
        header(LOCAL, 0x55, &[], b"\x04\0\x05cut"),
        header(PROXY, UNSPECIFIED, &[], b"cut"),
        header(PROXY, UNIX_STREAM, &[0; 216], &[]),
    ] {
        assert_eq!(addresses(&own), None);
    }
}

#[test]
fn fields_are_kept_but_for_those_of_the_hop() {
    let Parsed::Header(header, _) = read(&rich()) else {
        panic!("refused");
    };
    let tlvs = header.tlvs.unwrap();
    let kinds: Vec<u8> = fields(&tlvs).map(|field| field.unwrap().kind).collect();
    assert_eq!(kinds, [tlv::AUTHORITY, tlv::UNIQUE_ID, tlv::SSL, 0xe4]);
    let authority = fields(&tlvs).next().unwrap().unwrap();
    assert_eq!(authority.value, b"example.org");
    let bare = [field(tlv::NOOP, &[0; 9]), field(tlv::NOOP, &[])].concat();
    let Parsed::Header(bare, _) = read(&self::header(PROXY, TCP4, &FOUR, &bare)) else {
        panic!("refused");
    };
    assert_eq!(bare.tlvs, None);
}

#[test]
fn faults_of_binary_headers() {
    let with = |extra: &[u8]| header(PROXY, TCP4, &FOUR, extra);
    let mut wrong_checksum = rich();
    *wrong_checksum.last_mut().unwrap() ^= 1;
    let mut wrong_port = rich();
    wrong_port[FIXED_LENGTH + 33] ^= 1;
    let invalid = [
        header(0x22, TCP4, &FOUR, &[]),
        header(PROXY, 0x12, &FOUR, &[]),
        header(PROXY, 0x22, &six(), &[]),
        header(PROXY, 0x32, &[0; 216], &[]),
        header(PROXY, 0x01, &FOUR, &[]),
        header(PROXY, 0x10, &FOUR, &[]),
        header(PROXY, 0x13, &FOUR, &[]),
        header(PROXY, 0x41, &FOUR, &[]),
        header(PROXY, TCP4, &FOUR[..11], &[]),
        header(PROXY, TCP6, &six()[..35], &[]),
        header(PROXY, UNIX_STREAM, &[0; 215], &[]),
        with(&[tlv::NOOP]),
        with(&[tlv::NOOP, 0]),
        with(&[tlv::NOOP, 0, 1]),
        with(&field(tlv::CRC32C, &[0; 4])),
        with(&field(tlv::CRC32C, &[0; 3])),
        with(&field(tlv::CRC32C, &[])),
        with(&field(tlv::UNIQUE_ID, &[0; tlv::UNIQUE_ID_MAX + 1])),
        with(&field(tlv::AUTHORITY, &[0; tlv::AUTHORITY_MAX + 1])),
        wrong_checksum,
        wrong_port,
    ];
    for bytes in invalid {
        assert_eq!(read(&bytes), Parsed::Fault(Fault::Invalid), "{bytes:?}");
    }
    for version in [0x11, 0x31, 0x00, 0xf1] {
        let bytes = header(version, TCP4, &FOUR, &[]);
        assert_eq!(read(&bytes), Parsed::Fault(Fault::NotProxy));
    }
    let with_authority = with(&field(tlv::AUTHORITY, &[b'a'; tlv::AUTHORITY_MAX]));
    assert!(addresses(&with_authority).is_some());
}

/// One that is too long is refused as soon as it says so.
#[test]
fn a_binary_header_is_bounded() {
    let filled = |length: usize| {
        let filling = vec![0; length - FIXED_LENGTH - FOUR.len() - tlv::HEAD];
        header(PROXY, TCP4, &FOUR, &field(0xe0, &filling))
    };
    assert!(addresses(&filled(MAX)).is_some());
    let longer = filled(MAX + 1);
    for length in FIXED_LENGTH..=longer.len() {
        assert_eq!(read(&longer[..length]), Parsed::Fault(Fault::Invalid));
    }
    let local = header(LOCAL, UNSPECIFIED, &[0; MAX], &[]);
    assert_eq!(read(&local), Parsed::Fault(Fault::Invalid));
}

/// Whatever a byte becomes: no panic, a length within the bytes, and once refused always refused.
#[test]
fn a_corrupt_byte_is_no_harm() {
    for bytes in valid() {
        for at in 0..bytes.len() {
            for value in [
                0, 1, b' ', b'\r', b'\n', b'0', b'9', 0x7f, 0x80, 0xff, !bytes[at],
            ] {
                let mut corrupt = bytes.clone();
                corrupt[at] = value;
                let mut settled: Option<Parsed> = None;
                for length in 0..=corrupt.len() {
                    let parsed = read(&corrupt[..length]);
                    if let Parsed::Header(_, used) = parsed {
                        assert!(used <= length);
                    }
                    if let Some(before) = &settled {
                        assert_eq!(parsed, *before, "{length} of {corrupt:?}");
                    } else if parsed != Parsed::More {
                        settled = Some(parsed);
                    }
                }
            }
        }
    }
}
