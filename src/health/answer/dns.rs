//! DNS (RFC 1035): a query, and what a server says to it.
//!
//! That it answers is what counts, not what it knows: a name that there isn't is an answer too. A
//! server that says that it failed, or that it won't, is none to send clients to.

use std::str::FromStr;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};

use super::Judgement;

/// A query for the address of a name, without its last dot (empty = the root); `None` if it is no
/// name.
pub(in crate::health) fn query(name: &str, id: u16) -> Option<Vec<u8>> {
    let name = match name {
        "" => Name::root(),
        name => Name::<Vec<u8>>::from_str(name).ok()?,
    };
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    // What a client of a resolver asks for; an authoritative server doesn't mind.
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((name, Rtype::A, Class::IN)).ok()?;
    Some(question.finish())
}

/// What a datagram says to a query; `More` if it isn't its answer.
pub(in crate::health) fn judge(query: &[u8], bytes: &[u8]) -> Judgement {
    let messages = (Message::from_octets(query), Message::from_octets(bytes));
    let (Ok(query), Ok(answer)) = messages else {
        return Judgement::More;
    };
    let header = answer.header();
    let code = header.rcode();
    // Who couldn't read the question needn't repeat it.
    let unread = code != Rcode::NOERROR
        && header.qr()
        && header.id() == query.header().id()
        && answer.header_counts().qdcount() == 0;
    if !unread && !answer.is_answer(&query) {
        return Judgement::More;
    }
    let number = Some(u16::from(code.to_int()));
    match code {
        Rcode::NOERROR | Rcode::NXDOMAIN => Judgement::passed(0, number, code.to_string()),
        _ => Judgement::refused(number, code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1035, section 4.1: id, flags, counts, then the name in labels, type and class.
    const QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";

    fn answer(flags: [u8; 2]) -> Vec<u8> {
        let mut bytes = QUERY.to_vec();
        bytes[2..4].copy_from_slice(&flags);
        bytes
    }

    fn verdict(bytes: &[u8]) -> String {
        match judge(QUERY, bytes) {
            Judgement::More => "another".to_owned(),
            Judgement::Passed(passed) => format!("ok {} {}", passed.code.unwrap(), passed.text),
            Judgement::Failed(failed) => format!("bad {} {}", failed.code.unwrap(), failed.text),
        }
    }

    #[test]
    fn a_query_is_that_of_the_specification() {
        assert_eq!(query("example.org", 0x1234).unwrap(), QUERY);
        let root = b"\xff\xff\x01\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01";
        assert_eq!(query("", 0xffff).unwrap(), root);
        assert_eq!(query("a..b", 1), None);
        assert_eq!(query(&"a".repeat(64), 1), None);
    }

    #[test]
    fn an_answer_is_known_by_its_id_and_question() {
        assert_eq!(verdict(&answer([0x81, 0x80])), "ok 0 NOERROR");
        assert_eq!(verdict(&answer([0x85, 0x83])), "ok 3 NXDOMAIN");
        // Cut short: it can be asked over TCP.
        assert_eq!(verdict(&answer([0x83, 0x80])), "ok 0 NOERROR");
        assert_eq!(verdict(&answer([0x81, 0x82])), "bad 2 SERVFAIL");
        assert_eq!(verdict(&answer([0x81, 0x85])), "bad 5 REFUSED");
        let mut other = answer([0x81, 0x80]);
        other[12 + 1..12 + 8].copy_from_slice(b"EXAMPLE");
        assert_eq!(verdict(&other), "ok 0 NOERROR", "case is none of its own");
        other[12 + 1] = b'x';
        assert_eq!(verdict(&other), "another");
        let mut other = answer([0x81, 0x80]);
        other[1] ^= 1;
        assert_eq!(verdict(&other), "another");
        assert_eq!(verdict(QUERY), "another", "an echo is no answer");
        let unread = b"\x12\x34\x80\x01\0\0\0\0\0\0\0\0";
        assert_eq!(verdict(unread), "bad 1 FORMERR");
        assert_eq!(verdict(b"\x12\x34\x80\0\0\0\0\0\0\0\0\0"), "another");
    }

    #[test]
    fn no_bytes_are_harm() {
        let whole = answer([0x81, 0x80]);
        for length in 0..whole.len() {
            assert_eq!(verdict(&whole[..length]), "another", "{length}");
        }
        // A name that leads back to itself.
        let circle = [&whole[..12], b"\xc0\x0c\0\x01\0\x01"].concat();
        assert_eq!(verdict(&circle), "another");
        for at in 0..whole.len() {
            for value in [0, 1, 0x3f, 0x40, 0x7f, 0xc0, 0xff] {
                let mut corrupt = whole.clone();
                corrupt[at] = value;
                verdict(&corrupt);
            }
        }
    }
}
