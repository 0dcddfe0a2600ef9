//! Bytes that must be in an answer, or must not.

use std::fmt::Write;

use memchr::memmem;

use super::{Failed, Judgement, Passed};
use crate::config::plan::{Content, Pattern};

/// Judges the bytes so far; `who` says in HAProxy's manner what kind of check it is.
pub(super) fn judge(who: &str, wanted: &Content, bytes: &[u8], last: bool) -> Judgement {
    // What is shorter than what it must hold is not complete.
    let least = match &wanted.pattern {
        Pattern::Text(text) => text.len(),
        Pattern::Binary(pattern) => pattern.len(),
        Pattern::Regex(_) | Pattern::BinaryRegex(_) => 0,
    };
    let bytes_min = wanted.bytes_min.unwrap_or(0);
    let least = least.max(usize::try_from(bytes_min).unwrap_or(usize::MAX));
    if !last && (bytes.len() < least || bytes.is_empty()) {
        return Judgement::More;
    }
    let found = match &wanted.pattern {
        Pattern::Text(text) => contains(bytes, text.as_bytes()),
        Pattern::Binary(pattern) => contains(bytes, pattern),
        Pattern::Regex(expression) => expression.is_match(bytes),
        Pattern::BinaryRegex(expression) => expression.is_match(digits(bytes).as_bytes()),
    };
    if !found && !last && wanted.bytes_min.is_none() {
        return Judgement::More;
    }
    if found != wanted.negated {
        return Judgement::Passed(Passed::default());
    }
    let what = match &wanted.pattern {
        Pattern::Text(text) => format!("'{text}'"),
        Pattern::Binary(_) => "(binary)".to_owned(),
        Pattern::Regex(_) => "(regex)".to_owned(),
        Pattern::BinaryRegex(_) => "(binary regex)".to_owned(),
    };
    let verb = if wanted.negated {
        "matched unwanted content"
    } else {
        "did not match content"
    };
    Judgement::Failed(Failed {
        text: format!("{who} {verb} {what}"),
        ..Failed::default()
    })
}

/// Whether the pattern is in there, in time linear in both: a server chooses its answer.
pub(super) fn contains(bytes: &[u8], pattern: &[u8]) -> bool {
    memmem::find(bytes, pattern).is_some()
}

/// Bytes in hexadecimal digits, the letters in capitals.
pub(in crate::health) fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}
