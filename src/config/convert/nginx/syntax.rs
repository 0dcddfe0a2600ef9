//! nginx's syntax: words, `;`, blocks, quotes and comments, to a tree of directives with lines.
//!
//! Knows no directive. The depth is bounded, so no input can make a walk over the tree too deep.

use crate::config::raw::token::LINE_BYTES_MAX;

/// Deepest nesting of blocks.
const DEPTH_MAX: usize = 32;

/// A directive with its arguments, and the directives of its block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Directive {
    /// The line it begins on, from 1.
    pub(super) line: u32,
    /// The name and the arguments; never empty.
    pub(super) words: Vec<String>,
    /// What stands in its `{}`.
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        &self.words[0]
    }

    pub(super) fn args(&self) -> &[String] {
        &self.words[1..]
    }

    /// The text of argument `index`, empty where there is none.
    pub(super) fn arg(&self, index: usize) -> &str {
        self.words.get(index + 1).map_or("", String::as_str)
    }

    /// The directives of its block.
    pub(super) fn inside(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// A file in its directives.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) directives: Vec<Directive>,
    /// Lines that hold a comment.
    pub(super) comments: u32,
}

/// Why a file can't be read, with its line.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) line: u32,
    pub(super) text: String,
}

enum Token {
    Word(String),
    End,
    Open,
    Close,
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Tree, Fault> {
    let mut lexer = Lexer {
        rest: text,
        line: 1,
        comments: 0,
    };
    // What is open, the innermost last, each with what it holds so far.
    let mut open: Vec<Directive> = Vec::new();
    let mut done = vec![Vec::new()];
    let mut current: Option<Directive> = None;
    let fault = |line, text: &str| {
        Err(Fault {
            line,
            text: text.to_owned(),
        })
    };
    while let Some(token) = lexer.next()? {
        let line = lexer.line;
        match token {
            Token::Word(word) => match &mut current {
                Some(directive) => directive.words.push(word),
                None => {
                    current = Some(Directive {
                        line,
                        words: vec![word],
                        block: None,
                    })
                }
            },
            Token::End => match current.take() {
                Some(directive) => push(&mut done, directive),
                None => return fault(line, "unexpected ';'."),
            },
            Token::Open => match current.take() {
                Some(_) if open.len() == DEPTH_MAX => {
                    return fault(line, "blocks are nested too deep.");
                }
                Some(directive) => {
                    open.push(directive);
                    done.push(Vec::new());
                }
                None => return fault(line, "unexpected '{'."),
            },
            Token::Close => {
                let (Some(mut directive), None) = (open.pop(), &current) else {
                    return fault(line, "unexpected '}'.");
                };
                directive.block = done.pop();
                push(&mut done, directive);
            }
        }
    }
    let expected = match (&current, open.last()) {
        (Some(directive), _) => format!("';' is missing after '{}'.", directive.name()),
        (None, Some(directive)) => {
            let (name, line) = (directive.name(), directive.line);
            format!("'}}' is missing, '{name}' of line {line} is open.")
        }
        (None, None) => {
            let directives = done.pop().unwrap_or_default();
            return Ok(Tree {
                directives,
                comments: lexer.comments,
            });
        }
    };
    Err(Fault {
        line: lexer.line,
        text: format!("unexpected end of file: {expected}"),
    })
}

fn push(done: &mut [Vec<Directive>], directive: Directive) {
    if let Some(block) = done.last_mut() {
        block.push(directive);
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    comments: u32,
}

impl Lexer<'_> {
    fn next_char(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line = self.line.saturating_add(u32::from(c == '\n'));
        Some(c)
    }

    fn next(&mut self) -> Result<Option<Token>, Fault> {
        loop {
            let Some(c) = self.next_char() else {
                return Ok(None);
            };
            return Ok(Some(match c {
                c if c.is_ascii_whitespace() => continue,
                '#' => {
                    self.comments += 1;
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                    continue;
                }
                ';' => Token::End,
                '{' => Token::Open,
                '}' => Token::Close,
                quote @ ('"' | '\'') => Token::Word(self.quoted(quote)?),
                first => Token::Word(self.plain(first)?),
            }));
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, Fault> {
        let begin = self.line;
        let mut word = String::new();
        loop {
            match self.next_char() {
                None => {
                    let text = format!("unexpected end of file: a {quote} is not closed.");
                    return Err(Fault { line: begin, text });
                }
                Some('\\') => self.escape(&mut word),
                Some(c) if c == quote => return self.bounded(word),
                Some(c) => word.push(c),
            }
        }
    }

    /// A word without quotes: up to a blank, `;` or `{`, except in `${name}`.
    fn plain(&mut self, first: char) -> Result<String, Fault> {
        let mut word = String::new();
        if first == '\\' {
            self.escape(&mut word);
        } else {
            word.push(first);
        }
        while let Some(c) = self.rest.chars().next() {
            let variable = c == '{' && word.ends_with('$');
            if c.is_ascii_whitespace() || c == ';' || (c == '{' && !variable) {
                break;
            }
            self.next_char();
            match c {
                '\\' => self.escape(&mut word),
                _ => word.push(c),
            }
        }
        self.bounded(word)
    }

    /// What follows a backslash; before any other character it stays.
    fn escape(&mut self, word: &mut String) {
        match self.next_char() {
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => word.extend(['\\', c]),
            None => word.push('\\'),
        }
    }

    fn bounded(&self, word: String) -> Result<String, Fault> {
        if word.len() > LINE_BYTES_MAX || word.contains('\0') {
            let text = format!("a word is longer than {LINE_BYTES_MAX} bytes or has a NUL in it.");
            return Err(Fault {
                line: self.line,
                text,
            });
        }
        Ok(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        let tree = parse(text).unwrap_or_else(|fault| panic!("{fault:?}"));
        tree.directives
            .into_iter()
            .map(|directive| directive.words)
            .collect()
    }

    #[test]
    fn words_quotes_and_comments() {
        let text = "a b; # c;\nd 'e f' \"g\\\"h\" i#j;k ${l}m n\\ o;";
        let expected: [&[&str]; 3] = [
            &["a", "b"],
            &["d", "e f", "g\"h", "i#j"],
            &["k", "${l}m", "n\\ o"],
        ];
        assert_eq!(words(text), expected);
    }

    #[test]
    fn blocks_and_lines() {
        let tree = parse("a {\n b;\n c d { e; }\n}\n\nf;").unwrap();
        let [a, f] = tree.directives.as_slice() else {
            panic!("{tree:?}")
        };
        assert_eq!((a.line, f.line, a.inside().len()), (1, 6, 2));
        assert_eq!((a.inside()[1].line, a.inside()[1].arg(0)), (3, "d"));
        assert_eq!(a.inside()[1].inside()[0].words, ["e"]);
    }

    #[test]
    fn faults_have_their_lines() {
        let fault = |text: &str| parse(text).map(|_| ()).unwrap_err();
        let table = [
            (
                "a\nb",
                2,
                "unexpected end of file: ';' is missing after 'a'.",
            ),
            (
                "a {\n",
                2,
                "unexpected end of file: '}' is missing, 'a' of line 1 is open.",
            ),
            ("\n}", 2, "unexpected '}'."),
            ("a { b }", 1, "unexpected '}'."),
            (";", 1, "unexpected ';'."),
            ("{", 1, "unexpected '{'."),
            (
                "a;\nb 'c\n;",
                2,
                "unexpected end of file: a ' is not closed.",
            ),
        ];
        for (text, line, message) in table {
            assert_eq!(
                fault(text),
                Fault {
                    line,
                    text: message.to_owned()
                },
                "{text}"
            );
        }
        assert_eq!(
            fault(&"a{".repeat(100_000)).text,
            "blocks are nested too deep."
        );
    }
}
