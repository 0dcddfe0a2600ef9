//! What becomes of keys, compared with a running haproxy where that has them.

use super::*;
use crate::config::plan::{Balance, HashMethod};

fn value(expression: &[Converter], fetch: Fetch, client: &str) -> Option<Value<'static>> {
    let mut all = Expression::new(fetch);
    for converter in expression {
        assert!(all.add(*converter));
    }
    let request = PickRequest {
        client: Some(client.parse().unwrap()),
        ..PickRequest::default()
    };
    evaluate(&all, &request)
}

/// What haproxy 2.6 gives for a client 127.0.0.1:38803 or 49683.
#[test]
fn converters_calculate_as_haproxy_does() {
    use Calculation::{Add, And, Div, Mod, Mul, Or, Sub, Xor};
    use Converter::*;
    let largest = i64::MAX;
    let calculate = Calculate;
    for (converters, expected) in [
        (&[calculate(Add, largest)][..], largest),
        (&[Negate, calculate(Sub, largest)], i64::MIN),
        (&[calculate(Mul, largest)], largest),
        (&[Negate, calculate(Mul, largest)], i64::MIN),
        (&[calculate(Div, 0)], largest),
        (&[calculate(Mod, 0)], 0),
        (&[Negate, calculate(Mod, 7)], -2),
        (&[Negate, calculate(Div, 3)], -12_934),
        (&[Negate, Odd], 1),
        (&[Negate, Even], 0),
        (&[Odd, Not], 0),
        (&[calculate(And, 0), Not], 1),
        (&[Bool], 1),
        (&[Negate, calculate(And, 255)], 109),
        (&[Complement], -38_804),
        (&[calculate(And, 15), calculate(Or, 64)], 67),
        (&[calculate(Xor, 255)], 38_803 ^ 255),
        (&[Digest(super::Digest::Crc32, false)], 841_220_426),
    ] {
        let found = value(converters, Fetch::SourcePort, "127.0.0.1:38803");
        assert_eq!(found, Some(Value::Number(expected)), "{converters:?}");
    }
    for (converter, expected) in [
        (Xxh32(0), 20_952_046),
        (Xxh32(1), 1_685_672_468),
        (Xxh32(u32::MAX), 1_902_642_690),
        (Xxh64(0), -8_779_178_544_921_075_562),
        (Xxh64(1), 4_475_036_039_257_762_638),
        (Xxh64(u64::MAX), -5_918_641_665_067_930_986),
        (calculate(Add, 1), 2_130_706_434),
        (Digest(super::Digest::Crc32c, true), 240_433_822),
    ] {
        let found = value(&[converter], Fetch::Source, "127.0.0.1:49683");
        assert_eq!(found, Some(Value::Number(expected)), "{converter:?}");
    }
}

#[test]
fn masks_keep_networks() {
    let mask = |v6| Converter::Mask {
        v4: 0xffff_ff00,
        v6,
    };
    let masked = |client, v6| value(&[mask(v6)], Fetch::Source, client);
    let v4 = Some(Value::V4([192, 0, 2, 0]));
    assert_eq!(masked("192.0.2.77:1", None), v4);
    assert_eq!(masked("[::ffff:192.0.2.77]:1", None), v4);
    let v6 = |text: &str| Some(Value::from(text.parse::<IpAddr>().unwrap()));
    let client = "[2001:db8:1:2:3:4:5:6]:1";
    assert_eq!(masked(client, Some(48)), v6("2001:db8:1::"));
    assert_eq!(masked(client, Some(0)), v6("::"));
    assert_eq!(masked(client, Some(128)), v6("2001:db8:1:2:3:4:5:6"));
    assert_eq!(masked(client, None), None);
}

#[test]
fn what_is_missing_makes_no_key() {
    assert_eq!(value(&[Converter::Odd], Fetch::Source, "[::1]:80"), None);
    assert_eq!(value(&[], Fetch::DestinationPort, "127.0.0.1:80"), None);
    let mut request = PickRequest::default();
    let source = Expression::new(Fetch::Source);
    assert_eq!(evaluate(&source, &request), None);
    request.local = Some("127.0.0.1:443".parse().unwrap());
    let port = Expression::new(Fetch::DestinationPort);
    assert_eq!(evaluate(&port, &request), Some(Value::Number(443)));
}

/// As `balance source` of HAProxy: the words of an address together, then the mixing step.
#[test]
fn the_map_takes_a_source_as_it_is() {
    let place = |client: &str, avalanche| {
        let hash = Hash {
            key: HashKey::Source,
            method: HashMethod {
                avalanche,
                ..HashMethod::default()
            },
            factor: 0,
        };
        let request = PickRequest {
            client: Some(client.parse().unwrap()),
            ..PickRequest::default()
        };
        super::place(&hash, 7, &request)
    };
    assert_eq!(place("127.0.0.1:5", false), Some(0x7f00_0001));
    let mixed = digest::avalanche(0x7f00_0001);
    assert_eq!(place("127.0.0.1:5", true), Some(u64::from(mixed)));
    assert_eq!(place("[1:2:30:40:500:600::8000]:5", false), {
        Some(0x0001_0002 ^ 0x0030_0040 ^ 0x0500_0600 ^ 0x8000)
    });
}

#[test]
fn an_ipv4_client_is_the_same_however_it_came() {
    for kind in [HashKind::MapBased, HashKind::Consistent, HashKind::Maglev] {
        let place = |client: &str, seed| {
            let Balance::Hash(hash) = Balance::source(kind) else {
                unreachable!("it hashes");
            };
            let request = PickRequest {
                client: Some(client.parse().unwrap()),
                ..PickRequest::default()
            };
            super::place(&hash, seed, &request).unwrap()
        };
        let plain = place("192.0.2.7:1", 5);
        assert_eq!(plain, place("[::ffff:192.0.2.7]:2", 5));
        // The seed is that of places; the map has none.
        let is_map = kind == HashKind::MapBased;
        assert_eq!(plain == place("192.0.2.7:1", 6), is_map);
    }
}

/// The bytes of a datagram that a key has, or how it is not one.
#[test]
fn keys_of_datagrams_are_their_bytes() {
    let payload = |offset, length| Fetch::UdpPayload { offset, length };
    let cid = |length| Fetch::QuicCid { length };
    let ping = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    let initial = b"\xc0\0\0\0\x01\x04abcd\0\0\0\0";
    for (fetch, datagram, expected) in [
        (payload(0, 4), &b"abcdef"[..], Some(&b"abcd"[..])),
        (payload(2, 4), b"abcdef", Some(b"cdef")),
        (payload(2, 0), b"abcdef", Some(b"cdef")),
        (payload(3, 4), b"abcdef", None),
        (payload(6, 0), b"abcdef", None),
        (payload(7, 0), b"abcdef", None),
        (payload(u16::MAX, u16::MAX), b"abcdef", None),
        (payload(0, 0), b"", None),
        (Fetch::DhtTarget, ping, Some(b"abcdefghij0123456789")),
        (Fetch::DhtTarget, b"d1:y1:qe", None),
        (cid(8), initial, Some(b"abcd")),
        (cid(3), b"\x40abcdef", Some(b"abc")),
        (cid(7), b"\x40abcdef", None),
        (cid(0), b"\x40abcdef", None),
        (cid(8), b"\xc0\0\0\0\x01\0\0\0\0", None),
    ] {
        let request = PickRequest {
            datagram: Some(datagram),
            ..PickRequest::default()
        };
        let found = evaluate(&Expression::new(fetch), &request);
        assert_eq!(found, expected.map(Value::Bytes), "{fetch:?}");
        // A stream has none of them.
        assert_eq!(
            evaluate(&Expression::new(fetch), &PickRequest::default()),
            None
        );
    }
}

#[test]
fn bytes_are_no_numbers_and_no_networks() {
    let request = PickRequest {
        datagram: Some(b"abcdefgh"),
        client: Some("192.0.2.7:53".parse().unwrap()),
        ..PickRequest::default()
    };
    let payload = Fetch::UdpPayload {
        offset: 0,
        length: 4,
    };
    for fetch in [payload, Fetch::SourceAndPort] {
        for converter in [
            Converter::Odd,
            Converter::Calculate(Calculation::Add, 1),
            Converter::Mask { v4: 0, v6: None },
        ] {
            let mut expression = Expression::new(fetch);
            assert!(expression.add(converter));
            assert_eq!(evaluate(&expression, &request), None);
        }
        let mut expression = Expression::new(fetch);
        assert!(expression.add(Converter::Digest(Digest::Crc32, false)));
        let bytes: &[u8] = match fetch {
            Fetch::SourceAndPort => &[192, 0, 2, 7, 0, 53],
            _ => b"abcd",
        };
        let crc = Value::Number(i64::from(digest::crc32(bytes)));
        assert_eq!(evaluate(&expression, &request), Some(crc));
    }
}

/// As it is: the words of the bytes together, the last one filled up in front.
#[test]
fn bytes_without_a_function_are_words() {
    for (bytes, word) in [
        (&[1, 2, 3, 4][..], 0x0102_0304),
        (&[1, 2, 3, 4, 5], 0x0102_0304 ^ 5),
        (&[1, 2, 3, 4, 5, 6, 7, 8], 0x0102_0304 ^ 0x0506_0708),
        (&[9], 9),
    ] {
        assert_eq!(Value::Bytes(bytes).word(), word);
        let request = PickRequest {
            datagram: Some(bytes),
            ..PickRequest::default()
        };
        let hash = Hash {
            key: HashKey::Expression(Expression::new(Fetch::UdpPayload {
                offset: 0,
                length: 0,
            })),
            method: HashMethod {
                function: HashFunction::None,
                ..HashMethod::default()
            },
            factor: 0,
        };
        assert_eq!(super::place(&hash, 7, &request), Some(u64::from(word)));
    }
    assert_eq!(Value::Number(-1).word(), u32::MAX);
}
