//! The answer to an anonymous bind, RFC 4511 sections 4.1.1, 4.1.9 and 4.2.2, in the encoding of
//! section 5.1: a tag, a definite length, the contents.

use super::{Judgement, told};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const ENUMERATED: u8 = 0x0a;
const OCTETS: u8 = 0x04;
/// `[APPLICATION 1]`
const BIND_RESPONSE: u8 = 0x61;
/// `[APPLICATION 24]`: with the message id 0 it says that the server ends the connection.
const EXTENDED_RESPONSE: u8 = 0x78;

/// Longest message that is looked at; a bind response has some 20 bytes and a text.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

pub(super) fn judge(bytes: &[u8]) -> Judgement {
    let invalid = || Judgement::invalid("Not LDAPv3 protocol");
    match bytes.first() {
        None => return Judgement::More,
        Some(&SEQUENCE) => {}
        Some(_) => return invalid(),
    }
    let Some(head) = bytes.get(1..).map(length) else {
        return Judgement::More;
    };
    let (contents, length_bytes) = match head {
        Length::More => return Judgement::More,
        Length::Of(contents, bytes) if contents <= MESSAGE_BYTES_MAX => (contents, bytes),
        Length::Of(..) | Length::Invalid => return invalid(),
    };
    let begin = 1 + length_bytes;
    let Some(message) = bytes.get(begin..begin + contents) else {
        return Judgement::More;
    };
    let Some((code, text)) = result(message) else {
        return invalid();
    };
    if code == 0 {
        return Judgement::passed(begin + contents, None, "");
    }
    let said = told(text);
    let colon = if said.is_empty() { "" } else { ": " };
    Judgement::refused(Some(code), format!("LDAP result {code}{colon}{said}"))
}

/// Code and text of a result.
fn result(message: &[u8]) -> Option<(u16, &[u8])> {
    let (_id, rest) = element(message, INTEGER)?;
    let tag = *rest.first()?;
    if !matches!(tag, BIND_RESPONSE | EXTENDED_RESPONSE) {
        return None;
    }
    let (response, _) = element(rest, tag)?;
    let (code, rest) = element(response, ENUMERATED)?;
    let [code] = code else { return None };
    let (_matched, rest) = element(rest, OCTETS)?;
    let (text, _) = element(rest, OCTETS)?;
    // Whoever ends the connection hasn't taken the bind, whatever the code.
    let code = match (tag, *code) {
        (EXTENDED_RESPONSE, 0) => return None,
        (_, code) => u16::from(code),
    };
    Some((code, text))
}

/// The contents of the element of a tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let Length::Of(contents, length_bytes) = length(rest) else {
        return None;
    };
    rest.get(length_bytes..)?.split_at_checked(contents)
}

enum Length {
    /// Its end isn't there yet.
    More,
    /// Of so many bytes, in so many bytes itself.
    Of(usize, usize),
    /// Indefinite, or longer than anything is.
    Invalid,
}

fn length(bytes: &[u8]) -> Length {
    match bytes {
        [] => Length::More,
        [short @ 0..=0x7f, ..] => Length::Of(usize::from(*short), 1),
        [long @ 0x81..=0x84, rest @ ..] => {
            let count = usize::from(long & 0x7f);
            let Some(digits) = rest.get(..count) else {
                return Length::More;
            };
            let fold = |value: usize, digit: &u8| value << 8 | usize::from(*digit);
            Length::Of(digits.iter().fold(0, fold), 1 + count)
        }
        _ => Length::Invalid,
    }
}
