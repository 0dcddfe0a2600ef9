//! What a message of BitTorrent's DHT is about: KRPC (BEP 5), a bencoded dictionary in a datagram.
//!
//! A query about an info hash or a target belongs where that is stored; a query without one and a
//! response belong to the node that sends them. Keys are expected in any order, though bencode
//! sorts them: not all nodes do.

use crate::base::bencode::{Entry, Reader};

/// Bytes of node ids, info hashes and targets.
pub const ID_LENGTH: usize = 20;

/// Longest message that is read. Nodes stay below an Ethernet frame, as a message is one packet;
/// the largest values that they store (BEP 44) have 1,000 bytes.
pub const MESSAGE_MAX: usize = 4_096;

/// What servers are chosen by: the `info_hash` of a query, else its `target`, else the `id` of its
/// sender; of a response the `id` of its sender. `None` = this is no such message: cut off,
/// malformed, an error message, an id of another length.
pub fn key(datagram: &[u8]) -> Option<&[u8; ID_LENGTH]> {
    if datagram.len() > MESSAGE_MAX {
        return None;
    }
    let mut reader = Reader::new(datagram);
    let mut kind = None;
    let (mut query, mut response) = (Body::default(), Body::default());
    reader.begin_dictionary()?;
    while let Entry::Named(name) = reader.entry()? {
        match name {
            b"y" => kind = kind.or(Some(reader.string()?)),
            b"a" => query = Body::read(&mut reader)?,
            b"r" => response = Body::read(&mut reader)?,
            _ => reader.pass_over()?,
        }
    }
    if !reader.is_at_end() {
        return None;
    }
    let key = match kind? {
        b"q" => query.info_hash.or(query.target).or(query.id),
        b"r" => response.id,
        _ => None,
    };
    key?.try_into().ok()
}

/// The parts of a query's arguments or of a response's values that are of interest here.
#[derive(Default)]
struct Body<'a> {
    info_hash: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
}

impl<'a> Body<'a> {
    fn read(reader: &mut Reader<'a>) -> Option<Body<'a>> {
        let mut body = Body::default();
        reader.begin_dictionary()?;
        while let Entry::Named(name) = reader.entry()? {
            match name {
                b"info_hash" => body.info_hash = Some(reader.string()?),
                b"target" => body.target = Some(reader.string()?),
                b"id" => body.id = Some(reader.string()?),
                _ => reader.pass_over()?,
            }
        }
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing;
    use super::*;
    use crate::base::bencode::DEPTH_MAX;

    /// The examples of BEP 5, in its order, and the keys that they have.
    const EXAMPLES: [(&[u8], Option<&[u8]>); 10] = [
        (b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee", None),
        (
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",
            Some(b"abcdefghij0123456789"),
        ),
        (
            b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
            Some(b"mnopqrstuvwxyz123456"),
        ),
        (
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node\
              1:t2:aa1:y1:qe",
            Some(b"mnopqrstuvwxyz123456"),
        ),
        (
            b"d1:rd2:id20:0123456789abcdefghij5:nodes9:def456...e1:t2:aa1:y1:re",
            Some(b"0123456789abcdefghij"),
        ),
        (
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e\
              1:q9:get_peers1:t2:aa1:y1:qe",
            Some(b"mnopqrstuvwxyz123456"),
        ),
        (
            b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee\
              1:t2:aa1:y1:re",
            Some(b"abcdefghij0123456789"),
        ),
        (
            b"d1:rd2:id20:abcdefghij01234567895:nodes9:def456...5:token8:aoeusnthe1:t2:aa1:y1:re",
            Some(b"abcdefghij0123456789"),
        ),
        (
            b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz123456\
              4:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe",
            Some(b"mnopqrstuvwxyz123456"),
        ),
        (
            b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re",
            Some(b"mnopqrstuvwxyz123456"),
        ),
    ];

    fn found(message: &[u8]) -> Option<&[u8]> {
        key(message).map(|key| key.as_slice())
    }

    #[test]
    fn messages_of_the_specification_have_their_keys() {
        for (message, expected) in EXAMPLES {
            assert_eq!(found(message), expected, "{}", message.escape_ascii());
        }
    }

    /// Stored values (BEP 44), read-only nodes (BEP 43), versions, external addresses (BEP 42).
    #[test]
    fn messages_of_later_specifications_have_keys_too() {
        let get = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q3:get\
            2:roi1e1:t2:aa1:v4:LT\x01\x021:y1:qe";
        assert_eq!(found(get), Some(&b"mnopqrstuvwxyz123456"[..]));
        // A stored value may be anything: strings that look like keys, lists, dictionaries.
        let put = b"d1:ad2:id20:abcdefghij01234567895:token1:x1:vd6:target20:mnopqrstuvwxyz123456\
            1:xlli-7ei0eedeeee1:q3:put1:t2:aa1:y1:qe";
        assert_eq!(found(put), Some(&b"abcdefghij0123456789"[..]));
        let answer = b"d2:ip6:abcdef1:rd2:id20:mnopqrstuvwxyz1234561:pi6881ee1:t2:aa1:y1:re";
        assert_eq!(found(answer), Some(&b"mnopqrstuvwxyz123456"[..]));
    }

    #[test]
    fn keys_may_stand_in_any_order() {
        let message = b"d1:y1:q1:t2:aa1:q9:get_peers1:ad6:target20:AAAAAAAAAAAAAAAAAAAA\
            9:info_hash20:mnopqrstuvwxyz1234562:id20:abcdefghij0123456789ee";
        assert_eq!(found(message), Some(&b"mnopqrstuvwxyz123456"[..]));
    }

    #[test]
    fn what_is_no_message_has_no_key() {
        let long = format!("d1:ad2:id20:abcdefghij0123456789e1:t{MESSAGE_MAX}:");
        let mut long = long.into_bytes();
        long.resize(long.len() + MESSAGE_MAX, b'x');
        long.extend_from_slice(b"1:y1:qe");
        let deep = |depth: usize| {
            let (open, close) = ("l".repeat(depth), "e".repeat(depth));
            format!("d1:ad2:id20:abcdefghij01234567891:v{open}{close}e1:y1:qe").into_bytes()
        };
        assert!(key(&deep(DEPTH_MAX)).is_some());
        assert!(key(&deep(DEPTH_MAX + 1)).is_none());
        for message in [
            &b""[..],
            b"d",
            b"de",
            b"le",
            b"d1:y1:qe",
            b"d1:y1:xe",
            // Ids of another length, and of another kind.
            b"d1:ad2:id19:abcdefghij012345678e1:y1:qe",
            b"d1:ad2:id21:abcdefghij0123456789Xe1:y1:qe",
            b"d1:ad2:id20:abcdefghij01234567899:info_hash4:mnope1:y1:qe",
            b"d1:ad2:id20:abcdefghij01234567896:targeti5ee1:y1:qe",
            b"d1:al2:id20:abcdefghij0123456789e1:y1:qe",
            // What a response has is no query's.
            b"d1:rd2:id20:abcdefghij0123456789e1:y1:qe",
            // Something before or after it.
            b" d1:ad2:id20:abcdefghij0123456789e1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:y1:qe ",
            // Numbers that are none, and lengths that lead out of it.
            b"d1:ad2:id020:abcdefghij0123456789e1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:t99999:aa1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:t18446744073709551620:aa1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:ti-e1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:ti000000000000000000001e1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789e1:y1:qei1e",
            // A name without a value, a value without a name.
            b"d1:ad2:id20:abcdefghij0123456789e1:te1:y1:qe",
            b"d1:ad2:id20:abcdefghij0123456789ei1e1:y1:qe",
            &long,
        ] {
            assert_eq!(found(message), None, "{}", message.escape_ascii());
        }
    }

    /// A message that is cut off anywhere is none.
    #[test]
    fn no_beginning_of_a_message_has_a_key() {
        for (message, _) in EXAMPLES {
            for end in 0..message.len() {
                assert_eq!(found(&message[..end]), None, "{end}");
            }
        }
    }

    /// Whatever is changed, what is found is a part of the message, and the whole of it is read:
    /// nothing that is cut off or that follows changes unnoticed.
    #[test]
    fn changed_messages_are_read_within_bounds() {
        let mut random = testing::random(5);
        let (mut found_some, mut found_none) = (0, 0);
        for round in 0..200_000 {
            let (message, _) = EXAMPLES[round % EXAMPLES.len()];
            let mut bytes = message.to_vec();
            for _ in 0..=random(3) {
                let place = random(bytes.len() as u64) as usize;
                let alphabet = b"deil0123456789:-aqryt";
                match random(4) {
                    0 => bytes[place] = alphabet[random(alphabet.len() as u64) as usize],
                    1 => bytes[place] = random(256) as u8,
                    2 => bytes.insert(place, alphabet[random(alphabet.len() as u64) as usize]),
                    _ => drop(bytes.remove(place)),
                }
            }
            let Some(key) = key(&bytes) else {
                found_none += 1;
                continue;
            };
            found_some += 1;
            assert!(bytes.windows(ID_LENGTH).any(|window| window == key));
            assert_eq!(found(&bytes[..bytes.len() - 1]), None);
            bytes.push(b'e');
            assert_eq!(found(&bytes), None);
        }
        assert!(found_some > 20_000 && found_none > 20_000, "{found_some}");
    }
}
