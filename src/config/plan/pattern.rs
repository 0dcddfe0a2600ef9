//! What a check looks for in an answer.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Memory of one compiled regular expression, and of what matching it keeps.
const EXPRESSION_BYTES_MAX: usize = 1 << 20;

/// Bytes that must be there, or must not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// What is looked for.
    pub pattern: Pattern,
    /// Whether it must be absent.
    pub negated: bool,
    /// `min-recv`: nothing is said before so many bytes are there, and what isn't found then is
    /// absent. Without it, more bytes may always come.
    pub bytes_min: Option<u32>,
}

/// A pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// `string`
    Text(String),
    /// `binary`
    Binary(Vec<u8>),
    /// `rstring`
    Regex(RegularExpression),
    /// `rbinary`: matches the answer written in hexadecimal digits, the letters in capitals.
    BinaryRegex(RegularExpression),
}

/// What an HTTP response must be, or must not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// What is looked at.
    pub wanted: HttpWanted,
    /// Whether it must be absent.
    pub negated: bool,
}

/// The part of a response that decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpWanted {
    /// `status`: ranges of codes, both ends included.
    Statuses(Vec<(u16, u16)>),
    /// `rstatus`
    StatusRegex(RegularExpression),
    /// `string`: in the body.
    Text(String),
    /// `rstring`: in the body.
    Regex(RegularExpression),
}

/// A regular expression over bytes; the time of a match is linear in them.
#[derive(Clone)]
pub struct RegularExpression {
    text: String,
    regex: Regex,
}

impl RegularExpression {
    /// Compiles it; the error says what is wrong in one line.
    pub fn new(text: &str) -> Result<RegularExpression, String> {
        let mut builder = RegexBuilder::new(text);
        // Answers are bytes in any encoding, or in none.
        builder.unicode(false);
        builder.size_limit(EXPRESSION_BYTES_MAX);
        builder.dfa_size_limit(EXPRESSION_BYTES_MAX);
        let regex = builder.build().map_err(|error| {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        })?;
        let text = text.to_owned();
        Ok(RegularExpression { text, regex })
    }

    /// Whether it is in there.
    pub fn is_match(&self, bytes: &[u8]) -> bool {
        self.regex.is_match(bytes)
    }
}

impl PartialEq for RegularExpression {
    fn eq(&self, other: &RegularExpression) -> bool {
        self.text == other.text
    }
}

impl Eq for RegularExpression {}

impl fmt::Debug for RegularExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_over_bytes_and_bounded() {
        let matches =
            |text: &str, bytes: &[u8]| RegularExpression::new(text).unwrap().is_match(bytes);
        assert!(matches("^a.c$", b"a\xffc"));
        assert!(!matches("^a.c$", b"a\nc"));
        assert!(matches("(?i)ready", b"I am READY"));
        assert!(matches(r"\xff\x00", b"a\xff\x00"));
        let fault = |text: &str| RegularExpression::new(text).unwrap_err();
        assert_eq!(fault("("), "unclosed group");
        assert!(fault("a{1000}{1000}").contains("size limit"));
        assert!(fault(r"(a)\1").contains("backreferences are not supported"));
        assert!(fault("(?=a)").contains("look-around"));
    }
}
