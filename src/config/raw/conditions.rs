//! Conditions: what `.if`, `.elif` and `-cc` decide by.
//!
//! ```text
//! condition = conjunction { "||" conjunction }
//! conjunction = term { "&&" term }
//! term = { "!" } ( number | "(" condition ")" | predicate "(" arguments ")" )
//! ```
//!
//! The whole text has to be well formed, whichever part of it decides. Predicates change nothing,
//! so all of them are evaluated.

use super::arguments;
use super::features::{self, Version};
use super::variables::Variables;
use crate::config::keywords::{closest, did_you_mean};

/// Parentheses inside parentheses: the parser calls itself for each.
const NESTED_MAX: usize = 100;

/// Characters of the condition that a message repeats.
const SHOWN_MAX: usize = 40;

/// Why a condition can't be decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct Fault {
    /// What is wrong.
    pub(in crate::config) text: String,
    /// Byte offset in the condition.
    pub(in crate::config) column: usize,
}

type Predicate = fn(&Variables<'_>, &[String]) -> Result<bool, String>;

/// The predicates, with the number of their arguments.
const PREDICATES: &[(&str, usize, Predicate)] = &[
    ("awslc_api_atleast", 1, no_library),
    ("awslc_api_before", 1, no_library),
    ("defined", 1, |variables, args| {
        Ok(variables.get(&args[0]).is_some())
    }),
    ("enabled", 1, |_, args| enabled(&args[0])),
    ("feature", 1, |_, args| Ok(features::has(&args[0]))),
    ("openssl_version_atleast", 1, no_library),
    ("openssl_version_before", 1, no_library),
    ("ssllib_name_startswith", 1, no_library),
    ("streq", 2, |_, args| Ok(args[0] == args[1])),
    ("strneq", 2, |_, args| Ok(args[0] != args[1])),
    ("strstr", 2, |_, args| Ok(args[0].contains(&args[1]))),
    ("version_atleast", 1, |_, args| {
        Ok(Version::level() >= version(&args[0])?)
    }),
    ("version_before", 1, |_, args| {
        Ok(Version::level() < version(&args[0])?)
    }),
];

/// What asks about TLS libraries: there is none.
fn no_library(_: &Variables<'_>, _: &[String]) -> Result<bool, String> {
    Ok(false)
}

fn enabled(name: &str) -> Result<bool, String> {
    let known = features::SWITCHES
        .iter()
        .find(|(switch, _)| *switch == name);
    known.map(|(_, on)| *on).ok_or_else(|| {
        let names = features::SWITCHES.iter().map(|(switch, _)| *switch);
        let near = did_you_mean(closest(name, names));
        format!("unknown option '{name}'{near}")
    })
}

fn version(text: &str) -> Result<Version, String> {
    Version::parse(text).ok_or_else(|| format!("'{text}' is not a version"))
}

/// Decides a condition whose quotes and variables are resolved. An empty one is false.
pub(in crate::config) fn evaluate(text: &str, variables: &Variables<'_>) -> Result<bool, Fault> {
    if text.is_empty() {
        return Ok(false);
    }
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        variables,
    };
    let value = parser.condition()?;
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.fault(format!("unexpected '{}'", shown(parser.rest())))),
    }
}

/// The beginning of a text, for a message.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).collect()
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    variables: &'a Variables<'a>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fault(&self, text: String) -> Fault {
        let column = self.at;
        Fault { text, column }
    }

    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    /// Takes a mark if it is next.
    fn take(&mut self, mark: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(mark);
        self.at += if found { mark.len() } else { 0 };
        found
    }

    fn condition(&mut self) -> Result<bool, Fault> {
        let mut value = self.conjunction()?;
        while self.take("||") {
            value |= self.conjunction()?;
        }
        Ok(value)
    }

    fn conjunction(&mut self) -> Result<bool, Fault> {
        let mut value = self.term()?;
        while self.take("&&") {
            value &= self.term()?;
        }
        Ok(value)
    }

    fn term(&mut self) -> Result<bool, Fault> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let value = match self.peek() {
            Some('(') => self.parentheses()?,
            Some('0'..='9' | '+' | '-') => self.number()?,
            Some('a'..='z' | 'A'..='Z' | '_') => self.predicate()?,
            _ => {
                let before = match shown(self.rest()) {
                    rest if rest.is_empty() => "the end".to_owned(),
                    rest => format!("'{rest}'"),
                };
                let text = format!("a number, a predicate, '!' or '(' expected before {before}");
                return Err(self.fault(text));
            }
        };
        Ok(value != negated)
    }

    fn parentheses(&mut self) -> Result<bool, Fault> {
        let opened = self.at;
        let fault = |text: String| Fault {
            text,
            column: opened,
        };
        if self.depth == NESTED_MAX {
            return Err(fault(format!("more than {NESTED_MAX} nested parentheses")));
        }
        self.depth += 1;
        self.at += 1;
        let value = self.condition()?;
        if !self.take(")") {
            return Err(fault("this '(' has no matching ')'".to_owned()));
        }
        self.depth -= 1;
        Ok(value)
    }

    /// Whether a number is another than 0.
    fn number(&mut self) -> Result<bool, Fault> {
        let rest = self.rest();
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return Err(self.fault(format!("a digit expected after '{}'", &rest[..1])));
        }
        self.at += rest.len() - digits.len() + length;
        Ok(digits[..length].bytes().any(|digit| digit != b'0'))
    }

    fn predicate(&mut self) -> Result<bool, Fault> {
        let rest = self.rest();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
        let name = &rest[..length];
        let known = PREDICATES.iter().find(|(known, ..)| *known == name);
        let Some((_, count, decide)) = known else {
            let names = PREDICATES.iter().map(|(known, ..)| *known);
            let near = did_you_mean(closest(name, names));
            return Err(self.fault(format!("unknown predicate '{}'{near}", shown(name))));
        };
        let about = |what: String| format!("predicate '{name}' : {what}");
        let Some(list) = rest[length..].strip_prefix('(') else {
            return Err(self.fault(about("its arguments in parentheses are missing".to_owned())));
        };
        let begin = self.at + length + 1;
        let (args, taken) = arguments::list(list).map_err(|fault| match fault {
            arguments::Fault::Parenthesis => Fault {
                text: about("its ')' is missing".to_owned()),
                column: begin - 1,
            },
            arguments::Fault::Quote(at) => Fault {
                text: about("unmatched quote".to_owned()),
                column: begin + at,
            },
        })?;
        if args.len() != *count {
            let s = if *count == 1 { "" } else { "s" };
            let text = format!("expects {count} argument{s} (got {})", args.len());
            return Err(self.fault(about(text)));
        }
        let value = decide(self.variables, &args).map_err(|text| self.fault(about(text)))?;
        self.at = begin + taken;
        Ok(value)
    }
}
