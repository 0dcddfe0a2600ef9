//! Why a line can't be split into words, and how that is shown: the text with a caret below it.

use super::token::{LINE_BYTES_MAX, WORDS_MAX};

/// How much of a line a message shows.
const SHOWN_BYTES_MAX: usize = 160;

/// Why a line can't be split.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct Fault {
    /// What is wrong.
    pub(in crate::config) kind: FaultKind,
    /// Byte offset in the line.
    pub(in crate::config) column: usize,
}

/// The kinds of `Fault`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) enum FaultKind {
    /// A quote is opened and not closed.
    Quote,
    /// `${` without its `}`.
    Brace,
    /// `[` after a variable's name that doesn't go on as `[*]`.
    Spread,
    /// A variable's name begins with something else than a letter or `_`, or there is no
    /// pseudo-variable of this name.
    VariableName,
    /// `\x` without two hexadecimal digits, or NUL written that way.
    Hexadecimal,
    /// A carriage return with something behind it.
    CarriageReturn,
    /// More than `WORDS_MAX` words; the last one that is allowed.
    TooManyWords(String),
    /// An empty word; its number, the keyword being 0.
    EmptyWord(usize),
    /// The line or its expansion is longer than `LINE_BYTES_MAX`.
    TooLong,
    /// A word is not UTF-8.
    Encoding,
}

impl FaultKind {
    /// Whether a word is empty.
    pub(in crate::config) fn is_empty_word(&self) -> bool {
        matches!(self, FaultKind::EmptyWord(_))
    }

    /// The message, with the position from 1 and, where the place in the line helps, the line with
    /// a caret below it.
    pub(in crate::config) fn message(&self, column: usize, line: &[u8]) -> String {
        let position = column + 1;
        let caret = |what: &str| {
            let shown = with_caret(line, column);
            format!("{what} at position {position}:\n{shown}")
        };
        match self {
            FaultKind::Quote => caret("unmatched quote"),
            FaultKind::Brace => caret("unmatched brace in environment variable name"),
            FaultKind::Spread => caret("truncated or invalid word expansion sequence"),
            FaultKind::VariableName => caret("forbidden first char in environment variable name"),
            FaultKind::Hexadecimal => caret("truncated or invalid hexadecimal sequence"),
            FaultKind::CarriageReturn => caret("Stray carriage return"),
            FaultKind::EmptyWord(number) => {
                let shown = with_caret(line, column);
                format!(
                    "argument number {number} at position {position} is empty and marks the end \
                     of the argument list:\n{shown}"
                )
            }
            FaultKind::TooManyWords(word) => format!(
                "too many words, truncating after word {WORDS_MAX}, position {position}: <{word}>."
            ),
            FaultKind::TooLong => format!("line is longer than {LINE_BYTES_MAX} bytes."),
            FaultKind::Encoding => format!("word at position {position} is not valid UTF-8."),
        }
    }
}

/// Two lines: a text as it can be printed, cut to the surroundings of `column`, and a caret below
/// the column.
pub(in crate::config) fn with_caret(text: &[u8], column: usize) -> String {
    let blanks = text.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let column = column.clamp(blanks, text.len().max(blanks));
    let from = if text.len() - blanks > SHOWN_BYTES_MAX {
        column.saturating_sub(SHOWN_BYTES_MAX / 2).max(blanks)
    } else {
        blanks
    };
    let until = text.len().min(from + SHOWN_BYTES_MAX);
    // What a terminal would obey is not shown, and a tab moves the caret as far as the text.
    let shown = printable(&text[from..until]);
    let before = printable(&text[from..column]);
    let pad: String = before
        .chars()
        .map(|c| if c == '\t' { c } else { ' ' })
        .collect();
    format!("  {}\n  {pad}^", shown.trim_end())
}

fn printable(bytes: &[u8]) -> String {
    let shown = |c: char| if c.is_control() && c != '\t' { '?' } else { c };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::with_caret;

    #[test]
    fn the_caret_is_below_its_column() {
        assert_eq!(with_caret(b"  abc def", 6), "  abc def\n      ^");
        assert_eq!(with_caret(b"\ta\tb", 3), "  a\tb\n   \t^");
        assert_eq!(with_caret("é x".as_bytes(), 3), "  é x\n    ^");
        assert_eq!(with_caret(b"a\x1b[2J", 5), "  a?[2J\n       ^");
        assert_eq!(with_caret(b"", 0), "  \n  ^");
        assert_eq!(with_caret(b"  ", 9), "  \n  ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_column() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = with_caret(line.as_bytes(), 500);
        let (text, caret) = shown.split_once('\n').unwrap();
        assert_eq!(text.find('X'), caret.find('^'));
        assert!(text.len() < 200 && text.contains("aX") && text.contains("Xb"));
        let shown = with_caret(line.as_bytes(), 1001);
        let (text, caret) = shown.split_once('\n').unwrap();
        assert_eq!(text.len(), caret.find('^').unwrap());
    }
}
