//! Replies of SMTP, RFC 5321 section 4.2: lines of three digits and a text, all but the last with a
//! hyphen between them.

use super::{Judgement, line, told};

pub(super) fn judge(bytes: &[u8], last: bool) -> Judgement {
    let mut at = 0;
    let mut first = None;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let (line, length) = match line(rest) {
            Some(line) => line,
            // Who closes may leave out the end of the last line.
            None if last => (rest, rest.len()),
            None => return Judgement::More,
        };
        let Some((code, text, is_last)) = reply_line(line) else {
            return Judgement::invalid(told(line));
        };
        at += length;
        // The text of the first line says what it is about.
        let (code, text) = *first.get_or_insert((code, text));
        if is_last && (200..300).contains(&code) {
            return Judgement::passed(at, Some(code), told(text));
        } else if is_last {
            return Judgement::refused(Some(code), told(text));
        }
    }
}

/// Code, text, and whether it is the last line of its reply.
fn reply_line(line: &[u8]) -> Option<(u16, &[u8], bool)> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code = digits.iter().try_fold(0u16, |code, digit| {
        digit
            .is_ascii_digit()
            .then(|| code * 10 + u16::from(digit - b'0'))
    })?;
    match rest {
        [] => Some((code, rest, true)),
        [b' ', text @ ..] => Some((code, text, true)),
        [b'-', text @ ..] => Some((code, text, false)),
        _ => None,
    }
}
