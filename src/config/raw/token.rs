//! From one line to its words: quotes, escapes, comments and environment variables.
//!
//! The rules are HAProxy's: `#` outside quotes begins a comment anywhere, `'` takes everything
//! literally, `"` expands variables, a backslash escapes a short list of characters and stays as it
//! is before any other. The time is linear in the line and its expansions, and both are bounded.
//! Nothing here knows what a word means.

use std::iter::Peekable;
use std::slice::Iter;

use super::fault::{Fault, FaultKind};

/// Longest line, before and after expansion.
pub(in crate::config) const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most words on a line, the keyword included; HAProxy's bound.
pub(in crate::config) const WORDS_MAX: usize = 64;

/// A word of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// The text with quotes and escapes resolved.
    pub text: String,
    /// Byte offset in the line, from 0.
    pub column: u32,
    /// How many lines below the statement's first line; not 0 only where the format lets a
    /// statement have several.
    pub lines_below: u32,
}

/// Where variables come from. The closure knows the pseudo-variables too.
pub(in crate::config) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Variables that the line reader makes up; there are no others that begin with a dot.
pub(in crate::config) const PSEUDO_VARIABLES: [&str; 3] = [".FILE", ".LINE", ".SECTION"];

/// What a text is split into.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Words, up to a comment.
    Words,
    /// One word and then the rest up to a comment, blanks included: conditional directives.
    WordAndRest,
    /// Everything is one word: a condition of the command line.
    One,
}

/// Splits a line, given without its line feed, into words.
pub(in crate::config) fn split(line: &[u8], lookup: Lookup<'_>) -> Result<Vec<Word>, Fault> {
    run(line, Shape::Words, lookup)
}

/// Splits off a line's first word; what follows it is one word, which may be empty.
pub(in crate::config) fn split_first(line: &[u8], lookup: Lookup<'_>) -> Result<Vec<Word>, Fault> {
    run(line, Shape::WordAndRest, lookup)
}

/// Resolves quotes, escapes and variables of a text that is no line of a file.
pub(in crate::config) fn unquote(text: &str, lookup: Lookup<'_>) -> Result<String, Fault> {
    let words = run(text.as_bytes(), Shape::One, lookup)?;
    Ok(words
        .into_iter()
        .next()
        .map_or_else(String::new, |word| word.text))
}

fn run(line: &[u8], shape: Shape, lookup: Lookup<'_>) -> Result<Vec<Word>, Fault> {
    if line.len() > LINE_BYTES_MAX {
        return Err(Fault {
            kind: FaultKind::TooLong,
            column: LINE_BYTES_MAX,
        });
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut splitter = Splitter {
        line,
        bytes: line.iter().peekable(),
        at: 0,
        shape,
        lookup,
        words: Vec::new(),
        word: None,
        expanded: 0,
    };
    splitter.run()?;
    Ok(splitter.words)
}

struct Splitter<'a> {
    line: &'a [u8],
    bytes: Peekable<Iter<'a, u8>>,
    at: usize,
    shape: Shape,
    lookup: Lookup<'a>,
    words: Vec<Word>,
    /// The word being built and where it began.
    word: Option<(usize, Vec<u8>)>,
    /// Bytes that came out of variables so far.
    expanded: usize,
}

impl Splitter<'_> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.next().copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn peek(&mut self) -> Option<u8> {
        self.bytes.peek().map(|b| **b)
    }

    fn push(&mut self, start: usize, bytes: &[u8]) {
        self.word
            .get_or_insert_with(|| (start, Vec::new()))
            .1
            .extend_from_slice(bytes);
    }

    fn run(&mut self) -> Result<(), Fault> {
        loop {
            let start = self.at;
            match self.next() {
                None => return self.end_word(),
                Some(b'#') if self.shape != Shape::One => return self.end_word(),
                Some(b'\r') => self.carriage_return(start)?,
                Some(byte) if is_blank(byte) && self.in_rest() => self.push(start, &[byte]),
                Some(byte) if is_blank(byte) => self.end_word()?,
                Some(b'\'') => self.strong(start)?,
                Some(b'"') => self.weak(start)?,
                Some(b'\\') => self.escape(start, false)?,
                Some(byte) => self.push(start, &[byte]),
            }
        }
    }

    /// Whether blanks belong to the word.
    fn in_rest(&self) -> bool {
        match self.shape {
            Shape::Words => false,
            Shape::WordAndRest => !self.words.is_empty() && self.word.is_some(),
            Shape::One => true,
        }
    }

    /// HAProxy ends the line at any carriage return; here what it would drop in silence is an
    /// error.
    fn carriage_return(&mut self, start: usize) -> Result<(), Fault> {
        while self
            .peek()
            .is_some_and(|byte| is_blank(byte) || byte == b'\r')
        {
            self.next();
        }
        if self.peek().is_some() {
            return Err(Fault {
                kind: FaultKind::CarriageReturn,
                column: start,
            });
        }
        Ok(())
    }

    /// `'...'`: everything is literal.
    fn strong(&mut self, start: usize) -> Result<(), Fault> {
        self.push(start, b"");
        loop {
            let at = self.at;
            match self.next() {
                None => {
                    return Err(Fault {
                        kind: FaultKind::Quote,
                        column: start,
                    });
                }
                Some(b'\r') => self.carriage_return(at)?,
                Some(b'\'') => return Ok(()),
                Some(byte) => self.push(start, &[byte]),
            }
        }
    }

    /// `"..."`: variables and escapes count, blanks and `#` don't.
    fn weak(&mut self, start: usize) -> Result<(), Fault> {
        let opened = self.word.is_some();
        self.push(start, b"");
        loop {
            let at = self.at;
            match self.next() {
                None => {
                    return Err(Fault {
                        kind: FaultKind::Quote,
                        column: start,
                    });
                }
                Some(b'\r') => self.carriage_return(at)?,
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape(at, true)?,
                Some(b'$') => self.variable(at, start, opened)?,
                Some(byte) => self.push(start, &[byte]),
            }
        }
    }

    /// What follows a backslash. Any character not listed keeps its backslash.
    fn escape(&mut self, start: usize, quoted: bool) -> Result<(), Fault> {
        let literal = match self.peek() {
            Some(b'x') => {
                self.next();
                let digits = [self.next(), self.next()];
                let value = digits.iter().try_fold(0u8, |value, digit| {
                    let digit = char::from((*digit)?).to_digit(16)?;
                    Some(value << 4 | u8::try_from(digit).ok()?)
                });
                // NUL would cut the word in HAProxy; here it would reach paths and names.
                let Some(value) = value.filter(|value| *value != 0) else {
                    return Err(Fault {
                        kind: FaultKind::Hexadecimal,
                        column: start,
                    });
                };
                self.push(start, &[value]);
                return Ok(());
            }
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(byte @ (b' ' | b'\\' | b'#' | b'\'' | b'"')) => byte,
            Some(b'$') if quoted => b'$',
            _ => {
                self.push(start, b"\\");
                return Ok(());
            }
        };
        self.next();
        self.push(start, &[literal]);
        Ok(())
    }

    /// `$NAME`, `${NAME}`, `${NAME-default}` or `${NAME[*]}` inside weak quotes.
    fn variable(&mut self, start: usize, quote: usize, opened: bool) -> Result<(), Fault> {
        let braces = self.peek() == Some(b'{');
        if braces {
            self.next();
        }
        let name_start = self.at;
        match self.peek() {
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' || byte == b'.' => {}
            _ => {
                return Err(Fault {
                    kind: FaultKind::VariableName,
                    column: name_start,
                });
            }
        }
        self.next();
        while self
            .peek()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            self.next();
        }
        let name = String::from_utf8_lossy(&self.line[name_start..self.at]).into_owned();
        let mut default = None;
        let mut spread = false;
        if name.starts_with('.') && !PSEUDO_VARIABLES.contains(&name.as_str()) {
            return Err(Fault {
                kind: FaultKind::VariableName,
                column: name_start,
            });
        }
        if braces {
            if self.peek() == Some(b'[') {
                if !self.line[self.at..].starts_with(b"[*]") {
                    return Err(Fault {
                        kind: FaultKind::Spread,
                        column: self.at,
                    });
                }
                for _ in 0..3 {
                    self.next();
                }
                // Where blanks part no words, there is nothing to spread over.
                spread = self.shape == Shape::Words;
            }
            if self.peek() == Some(b'-') {
                self.next();
                let default_start = self.at;
                while self.peek().is_some_and(|byte| byte != b'}') {
                    self.next();
                }
                default = Some(self.line[default_start..self.at].to_vec());
            }
            if self.next() != Some(b'}') {
                return Err(Fault {
                    kind: FaultKind::Brace,
                    column: start + 1,
                });
            }
        }
        let value = (self.lookup)(&name)
            .map(String::into_bytes)
            .or(default)
            .unwrap_or_default();
        self.expanded += value.len();
        if self.expanded > LINE_BYTES_MAX {
            return Err(Fault {
                kind: FaultKind::TooLong,
                column: start,
            });
        }
        if !spread {
            self.push(quote, &value);
            return Ok(());
        }
        let mut pieces = value
            .split(u8::is_ascii_whitespace)
            .filter(|piece| !piece.is_empty());
        match pieces.next() {
            Some(piece) => self.push(quote, piece),
            // A word that consists of an empty list alone is no word at all.
            None if !opened && self.word.as_ref().is_some_and(|(_, word)| word.is_empty()) => {
                self.word = None;
            }
            None => {}
        }
        for piece in pieces {
            self.end_word()?;
            self.push(quote, piece);
        }
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), Fault> {
        let Some((column, bytes)) = self.word.take() else {
            return Ok(());
        };
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(Fault {
                kind: FaultKind::Encoding,
                column,
            });
        };
        let condition = self.shape != Shape::Words;
        if text.is_empty() && !condition {
            return Err(Fault {
                kind: FaultKind::EmptyWord(self.words.len()),
                column,
            });
        }
        if self.words.len() == WORDS_MAX {
            let last = &self.words[WORDS_MAX - 1];
            let text = last.text.chars().take(40).collect();
            return Err(Fault {
                kind: FaultKind::TooManyWords(text),
                column: last.column as usize,
            });
        }
        let column = u32::try_from(column).unwrap_or(u32::MAX);
        self.words.push(Word {
            text,
            column,
            lines_below: 0,
        });
        Ok(())
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c)
}
