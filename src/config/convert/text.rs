//! HAProxy's language as a text: its statements with nothing left out, and back.
//!
//! What is written is read back as the same words.

use std::sync::Arc;

use super::{Notes, texts};
use crate::config::diagnostics::{Report, Severity};
use crate::config::raw::variables::Variables;
use crate::config::raw::{self, Statement};

/// Reads a file's bytes into statements.
pub(super) fn read(
    file: &Arc<str>,
    bytes: &[u8],
    variables: &mut Variables<'_>,
    report: &mut Report,
    notes: &mut Notes,
) -> Vec<Statement> {
    let comments = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| has_comment(line))
        .count();
    if comments > 0 {
        let text = format!("comments are not carried over; lines that have one: {comments}.");
        notes.add(Severity::Notice, None, text);
    }
    let whole = raw::read_whole(file, bytes, variables, report);
    if whole.directives > 0 {
        let text = format!(
            "directives are not carried over, branches are as they turn out now; lines of them: {}.",
            whole.directives
        );
        notes.add(Severity::Warning, None, text);
    }
    whole.statements
}

/// Whether a line has a comment that says something.
fn has_comment(line: &[u8]) -> bool {
    let (mut quote, mut escaped) = (None, false);
    for (index, byte) in line.iter().enumerate() {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (None | Some(b'"'), b'\\') => escaped = true,
            (None, b'#') => return line[index..].iter().any(u8::is_ascii_alphanumeric),
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    false
}

/// The statements as a text.
pub(super) fn write(statements: &[Statement]) -> String {
    let mut text = String::new();
    for statement in statements {
        if !statement.header {
            text.push_str("    ");
        } else if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&line(&texts(statement)));
        text.push('\n');
    }
    text
}

/// Words as a line that is read as the same words.
pub(super) fn line(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// A word, in quotes where it needs them.
fn quoted(word: &str) -> String {
    let special = |c: char| c.is_ascii_whitespace() || c.is_control() || "#'\"\\".contains(c);
    if !word.contains(special) {
        return word.to_owned();
    }
    if !word.contains(|c: char| c == '\'' || c.is_control()) {
        return format!("'{word}'");
    }
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' | '$' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::token;

    #[test]
    fn quoted_words_are_read_back() {
        let words = [
            "plain", "a b", "it's", "\"", "\\", "a\\.b", "#", "a'b\"c$d", "\t", "\u{b}", "\r",
            "\n", "ä ö", "${X}", "\u{7f}x", "\u{85}",
        ];
        for word in words {
            let written = quoted(word);
            let read = token::split(written.as_bytes(), &|_| None);
            let read = read.unwrap_or_else(|fault| panic!("{written}: {fault:?}"));
            assert_eq!(read.len(), 1, "{written}");
            assert_eq!(read[0].text, word, "{written}");
        }
    }

    #[test]
    fn comments_are_seen() {
        let table = [
            ("a # b", true),
            ("# b", true),
            ("a '#b'", false),
            ("a \"#b\"", false),
            ("a \\#b", false),
            ("a 'b' # c", true),
            ("####", false),
        ];
        for (line, expected) in table {
            assert_eq!(has_comment(line.as_bytes()), expected, "{line}");
        }
    }
}
