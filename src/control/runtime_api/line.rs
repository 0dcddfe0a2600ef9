//! What clients send: lines of commands, and payloads behind them.
//!
//! A line has commands divided by `;`, and a command has words divided by blanks; a backslash takes
//! `;`, a blank or itself out of that. A line whose last word begins with `<<` has a payload: the
//! lines after it, up to an empty one, or to the one that stands behind `<<`.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits;

/// Bytes taken from a client at once.
const PIECE_BYTES: usize = 4096;

/// A line, or the reason why there is none.
#[derive(Debug)]
pub(super) enum Line {
    Whole(String),
    /// Without a line feed: the client has closed its side after it.
    Last(String),
    TooLong,
    /// The client has closed its side, or said nothing for too long.
    None,
}

/// What was received and not yet used.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    /// How far there is known to be no line feed.
    searched: usize,
}

impl Input {
    /// The next line without its line feed, of `length_max` bytes at most.
    pub(super) async fn line<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        timeout: Duration,
        length_max: usize,
    ) -> io::Result<Line> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(match line.len() > length_max {
                    true => Line::TooLong,
                    false => Line::Whole(line),
                });
            }
            if self.bytes.len() > length_max {
                return Ok(Line::TooLong);
            }
            let mut piece = [0u8; PIECE_BYTES];
            let Ok(count) = tokio::time::timeout(timeout, stream.read(&mut piece)).await else {
                return Ok(Line::None);
            };
            match count? {
                0 if self.bytes.is_empty() => return Ok(Line::None),
                0 => {
                    self.searched = 0;
                    let rest = std::mem::take(&mut self.bytes);
                    return Ok(Line::Last(text(&rest)));
                }
                count => self.bytes.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn take_line(&mut self) -> Option<String> {
        let found = memchr::memchr(b'\n', &self.bytes[self.searched..]);
        let Some(end) = found.map(|at| self.searched + at) else {
            self.searched = self.bytes.len();
            return None;
        };
        let line = text(&self.bytes[..end]);
        self.bytes.drain(..=end);
        self.searched = 0;
        Some(line)
    }
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\r').to_owned()
}

/// The commands of a line, and the line that ends their payload if they have one.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) commands: Vec<Vec<String>>,
    pub(super) payload_end: Option<String>,
}

/// What is wrong with a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct MarkTooLong;

/// Divides a line.
pub(super) fn request(line: &str) -> Result<Request, MarkTooLong> {
    let line = line.trim_end();
    let last = line.rsplit([' ', '\t', ';']).next().unwrap_or(line);
    let mark = last.strip_prefix("<<");
    if mark.is_some_and(|mark| mark.len() > limits::API_PAYLOAD_MARK_MAX) {
        return Err(MarkTooLong);
    }
    let line = match mark {
        Some(_) => &line[..line.len() - last.len()],
        None => line,
    };
    Ok(Request {
        commands: commands(line),
        payload_end: mark.map(str::to_owned),
    })
}

fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word = String::new();
    let mut characters = line.chars().peekable();
    let end_word = |word: &mut String, commands: &mut Vec<Vec<String>>| {
        if !word.is_empty()
            && let Some(command) = commands.last_mut()
        {
            command.push(std::mem::take(word));
        }
    };
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            (';', _) => {
                end_word(&mut word, &mut commands);
                commands.push(Vec::new());
            }
            ('\\', Some(escaped @ (';' | '\\' | ' ' | '\t'))) => {
                word.push(*escaped);
                characters.next();
            }
            (blank, _) if blank.is_whitespace() => end_word(&mut word, &mut commands),
            (character, _) => word.push(character),
        }
    }
    end_word(&mut word, &mut commands);
    // `show info;` ends with nothing: that is no command.
    if commands.len() > 1 && commands.last().is_some_and(Vec::is_empty) {
        commands.pop();
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        request(line).unwrap().commands
    }

    #[test]
    fn lines_are_divided_at_semicolons_and_blanks() {
        assert_eq!(
            words("show info;show  stat\tup"),
            [vec!["show", "info"], vec!["show", "stat", "up"]]
        );
        assert_eq!(words(r"a\;b\\;c\d;"), [[r"a;b\"], [r"c\d"]]);
        assert_eq!(words(r"key a\ b \"), [["key", "a b", r"\"]]);
        assert_eq!(words(""), [Vec::<String>::new()]);
        assert_eq!(words(" ; x")[0], Vec::<String>::new());
    }

    #[test]
    fn a_payload_is_announced_by_the_last_word() {
        let end = |line: &str| request(line).unwrap().payload_end;
        assert_eq!(end("add map x <<"), Some(String::new()));
        assert_eq!(end("add map x <<EOF  "), Some("EOF".to_owned()));
        assert_eq!(end("add map << x"), None);
        assert_eq!(end("add map x<<"), None);
        assert_eq!(words("a; b x <<EOF"), [vec!["a"], vec!["b", "x"]]);
        assert_eq!(
            request(&format!("a <<{}", "x".repeat(65))),
            Err(MarkTooLong)
        );
        assert!(request(&format!("a <<{}", "x".repeat(64))).is_ok());
    }
}
