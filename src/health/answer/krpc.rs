//! KRPC (BEP 5): a ping of a DHT node, and what it says to it.
//!
//! Only as much is looked at as says whether it is the answer: what is in the outermost dictionary.

use super::{Judgement, told};
use crate::base::bencode::{Entry, Reader};

/// The id that a check says it has. It is read-only (BEP 43), so that no node remembers it.
const ID: &[u8; 20] = b"tidegate dht checks.";

/// The query `ping` with a transaction's id.
pub(in crate::health) fn ping(transaction: [u8; 2]) -> Vec<u8> {
    let before = b"d1:ad2:id20:";
    let between = b"e1:q4:ping2:roi1e1:t2:";
    [before, &ID[..], between, &transaction, b"1:y1:qe"].concat()
}

/// What a datagram says to the ping of a transaction; `More` if it isn't its answer.
pub(in crate::health) fn judge(transaction: [u8; 2], bytes: &[u8]) -> Judgement {
    answer(transaction, bytes).unwrap_or(Judgement::More)
}

fn answer(transaction: [u8; 2], bytes: &[u8]) -> Option<Judgement> {
    let (mut is_ours, mut kind, mut error) = (false, None, None);
    let mut reader = Reader::new(bytes);
    reader.begin_dictionary()?;
    while let Entry::Named(name) = reader.entry()? {
        match name {
            b"t" => is_ours = reader.string()? == transaction,
            b"y" => kind = Some(reader.string()?),
            b"e" => {
                error = Some(reader);
                reader.pass_over()?;
            }
            _ => reader.pass_over()?,
        }
    }
    match kind? {
        b"r" if is_ours => Some(Judgement::passed(0, None, String::new())),
        b"e" if is_ours => {
            let (code, words) = error.and_then(error_of).unwrap_or_default();
            Some(Judgement::refused(code, words))
        }
        _ => None,
    }
}

/// Code and words of an error: a list of a number and a text.
fn error_of(mut reader: Reader<'_>) -> Option<(Option<u16>, String)> {
    reader.begin_list()?;
    let code = str::from_utf8(reader.integer()?).ok()?.parse().ok()?;
    Some((Some(code), told(reader.string()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bencode::DEPTH_MAX;

    fn verdict(bytes: &[u8]) -> String {
        match judge(*b"aa", bytes) {
            Judgement::More => "another".to_owned(),
            Judgement::Passed(_) => "ok".to_owned(),
            Judgement::Failed(failed) => format!("bad {:?} {}", failed.code, failed.text),
        }
    }

    #[test]
    fn a_ping_is_that_of_the_specification() {
        let expected = b"d1:ad2:id20:tidegate dht checks.e1:q4:ping2:roi1e1:t2:aa1:y1:qe";
        assert_eq!(ping(*b"aa"), expected);
        // It is no answer to itself.
        assert_eq!(verdict(expected), "another");
    }

    /// The first two are the examples of BEP 5.
    #[test]
    fn an_answer_is_known_by_its_transaction() {
        let cases: [(&[u8], &str); 12] = [
            (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re", "ok"),
            (
                b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
                "bad Some(201) A Generic Error Ocurred",
            ),
            // With a version, an address and what nobody knows; in whatever order.
            (
                b"d1:t2:aa1:y1:r2:ip6:123456x3:0001:rd2:ide1:v4:UT\x01\x02e",
                "another",
            ),
            (
                b"d2:ip6:1234561:rd1:xld1:yi-7eeee1:t2:aa1:v4:UT\x01\x021:y1:re",
                "ok",
            ),
            (b"d1:y1:r1:t2:aae", "ok"),
            (
                b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:ab1:y1:re",
                "another",
            ),
            (b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t1:a1:y1:re", "another"),
            (b"d1:e3:no!1:t2:aa1:y1:ee", "bad None "),
            (b"d1:t2:aa1:y1:re", "ok"),
            (b"d1:t2:aa1:y1:r", "another"),
            (b"", "another"),
            (b"de", "another"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(verdict(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn no_bytes_are_harm() {
        let whole = b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re";
        for length in 0..whole.len() {
            assert_eq!(verdict(&whole[..length]), "another", "{length}");
        }
        let deep = |depth: usize| {
            let (open, close) = ("l".repeat(depth), "e".repeat(depth));
            format!("d1:a{open}{close}1:t2:aa1:y1:re")
        };
        assert_eq!(verdict(deep(DEPTH_MAX).as_bytes()), "ok");
        assert_eq!(verdict(deep(DEPTH_MAX + 1).as_bytes()), "another");
        assert_eq!(verdict(deep(60_000).as_bytes()), "another");
        for hostile in [
            "d1:a99999999999999999999:x1:t2:aa1:y1:re",
            "d1:a18446744073709551615:x1:t2:aa1:y1:re",
            "d1:ai123456789012345678901234567890e1:t2:aa1:y1:re",
            "d-1:ae",
            "di1e1:ae",
        ] {
            assert_eq!(verdict(hostile.as_bytes()), "another", "{hostile}");
        }
        for at in 0..whole.len() {
            for value in [0, b'0', b'9', b':', b'd', b'e', b'i', b'l', 0xff] {
                let mut corrupt = whole.to_vec();
                corrupt[at] = value;
                verdict(&corrupt);
            }
        }
    }
}
