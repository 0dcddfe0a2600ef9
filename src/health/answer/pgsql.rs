//! What a PostgreSQL server says to a start-up message: messages of a letter, a length that counts
//! itself, and fields ("Message Formats" in its documentation).

use super::{Judgement, Passed, told};
use crate::config::plan::Ending;

/// Longest message that is looked at; its own bound for this phase is 30,000 bytes.
const MESSAGE_BYTES_MAX: usize = 8 * 1024;

/// `AuthenticationOk`: no password is asked for.
const AUTHENTICATED: u32 = 0;

pub(super) fn judge(bytes: &[u8]) -> Judgement {
    let Some((kind, rest)) = bytes.split_first() else {
        return Judgement::More;
    };
    if !matches!(kind, b'R' | b'E') {
        return Judgement::refused(None, "PostgreSQL unknown error");
    }
    let Some((length, body)) = rest.split_first_chunk() else {
        return Judgement::More;
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let least = if *kind == b'R' { 8 } else { 4 };
    if !(least..=MESSAGE_BYTES_MAX).contains(&length) {
        return Judgement::refused(None, "PostgreSQL unknown error");
    }
    let Some(body) = body.get(..length - 4) else {
        return Judgement::More;
    };
    if *kind == b'E' {
        return Judgement::invalid(error(body));
    }
    let asked = body.first_chunk().map(|asked| u32::from_be_bytes(*asked));
    Judgement::Passed(Passed {
        consumed: 1 + length,
        text: "PostgreSQL server is ok".to_owned(),
        // Where a password is asked for, only an end says that none will come without a complaint
        // in the server's log.
        ending: (asked != Some(AUTHENTICATED)).then_some(Ending::Close),
        ..Passed::default()
    })
}

/// Severity and text: the fields `S` and `M`, each ended by a NUL.
fn error(body: &[u8]) -> String {
    let field = |letter: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        fields.find_map(|field| field.strip_prefix(&[letter]))
    };
    match (field(b'S'), field(b'M')) {
        (Some(severity), Some(text)) => format!("{}: {}", told(severity), told(text)),
        (Some(only), None) | (None, Some(only)) => told(only),
        (None, None) => "PostgreSQL unknown error".to_owned(),
    }
}
