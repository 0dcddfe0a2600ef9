//! Any bytes as a message of BitTorrent's DHT: what is found is a part of it, only whole messages
//! have a key, and in one that is written here the key is the one that was written, whatever is
//! around it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::lb::datagram::krpc::{ID_LENGTH, MESSAGE_MAX, key};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    write(bytes);
});

fn read(bytes: &[u8]) {
    let Some(found) = key(bytes) else {
        return;
    };
    assert!(bytes.len() <= MESSAGE_MAX);
    assert!(bytes.windows(ID_LENGTH).any(|window| window == found));
    let step = (bytes.len() / 64).max(1);
    for length in (0..bytes.len()).step_by(step) {
        assert_eq!(key(&bytes[..length]), None, "{length} of {bytes:?}");
    }
    assert_eq!(key(&[bytes, b"e"].concat()), None);
}

/// A message of values that are any strings, in an order that the first byte says.
fn write(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<{ 1 + 3 * ID_LENGTH }>() else {
        return;
    };
    let (order, ids) = (head[0], &head[1..]);
    let mut ids = ids.chunks(ID_LENGTH);
    let mut id = || ids.next().expect("three of them");
    let (info_hash, target, node) = (id(), id(), id());
    let (has_info_hash, has_target, is_query) = (order & 1 == 1, order & 2 == 2, order & 4 == 4);
    let mut arguments = vec![(&b"id"[..], string(node)), (b"token", string(rest))];
    if has_info_hash {
        arguments.push((b"info_hash", string(info_hash)));
    }
    if has_target {
        arguments.push((b"target", string(target)));
    }
    let turns = usize::from(order >> 3);
    let count = arguments.len();
    arguments.rotate_left(turns % count);
    let (kind, body) = if is_query { (b"q", b"a") } else { (b"r", b"r") };
    let mut all = vec![
        (&b"y"[..], string(kind)),
        (body, dictionary(&arguments)),
        (b"t", string(rest)),
    ];
    all.rotate_left(turns % 3);
    let message = dictionary(&all);
    let expected = match (is_query, has_info_hash, has_target) {
        (true, true, _) => info_hash,
        (true, false, true) => target,
        _ => node,
    };
    let is_short = message.len() <= MESSAGE_MAX;
    let found = key(&message).map(|key| key.as_slice());
    assert_eq!(found, is_short.then_some(expected), "{message:?}");
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

fn dictionary(entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let mut all = b"d".to_vec();
    for (name, value) in entries {
        all.extend_from_slice(&string(name));
        all.extend_from_slice(value);
    }
    all.push(b'e');
    all
}
