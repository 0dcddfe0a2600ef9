//! The directives between the lines: `.if` and what belongs to it, `.notice` and its like.
//!
//! What stands in a branch that isn't taken is split into words, so that a quote without an end is
//! found, and then forgotten. A condition there isn't looked at.

use super::token::Word;
use crate::config::diagnostics::Severity;
use crate::config::keywords::{closest, did_you_mean};

/// `.if` inside `.if`; HAProxy's bound.
const NESTED_MAX: usize = 100;

/// All directives.
const DIRECTIVES: [&str; 8] = [
    ".alert", ".diag", ".elif", ".else", ".endif", ".if", ".notice", ".warning",
];

/// Whether a line's directive takes the rest of the line as a condition.
pub(in crate::config) fn takes_condition(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    let rest = line.strip_prefix(b".if").or(line.strip_prefix(b".elif"));
    rest.is_some_and(|rest| {
        rest.first()
            .is_none_or(|byte| byte.is_ascii_whitespace() || *byte == b'#')
    })
}

/// What a line that begins with a dot turned out to be.
pub(in crate::config) enum Directive {
    /// It began, continued or ended a branch.
    Branch,
    /// Something is to be said.
    Message(Severity, String),
    /// It stands in a branch that isn't taken.
    Skipped,
}

/// One `.if` that is open.
struct Branch {
    /// The line of the `.if`.
    line: u32,
    state: State,
    /// Whether its `.else` was there.
    has_else: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The lines at hand are read.
    Taken,
    /// They are skipped; `.elif` or `.else` may change that.
    Waiting,
    /// They are skipped up to `.endif`.
    Closed,
}

/// The `.if`s around the line at hand, the innermost last.
#[derive(Default)]
pub(in crate::config) struct Branches {
    open: Vec<Branch>,
}

impl Branches {
    /// Whether the line at hand is in a branch that isn't taken.
    pub(in crate::config) fn is_skipping(&self) -> bool {
        self.open
            .last()
            .is_some_and(|branch| branch.state != State::Taken)
    }

    /// The line of the innermost `.if` that is open.
    pub(in crate::config) fn opened_at(&self) -> Option<u32> {
        self.open.last().map(|branch| branch.line)
    }

    /// Follows a directive. A complaint doesn't keep it from having its effect, as far as it is
    /// clear what that is.
    pub(in crate::config) fn follow(
        &mut self,
        words: &[Word],
        line: u32,
        decide: &dyn Fn(&str) -> Result<bool, String>,
    ) -> Result<Directive, String> {
        let text = |index: usize| words.get(index).map_or("", |word| word.text.as_str());
        match text(0) {
            ".if" => self.begin(text(1), line, decide)?,
            ".elif" => self.alternative(text(1), decide)?,
            ".else" => {
                self.otherwise()?;
                no_more(words, 1)?;
            }
            ".endif" => {
                self.open.pop().ok_or("'.endif' has no matching '.if'.")?;
                no_more(words, 1)?;
            }
            _ if self.is_skipping() => return Ok(Directive::Skipped),
            name => {
                let severity = severity(name)?;
                let more = "; a message of several words needs quotes.";
                no_more(words, 2).map_err(|text| text.trim_end_matches('.').to_owned() + more)?;
                return Ok(Directive::Message(severity, format!("'{}'.", text(1))));
            }
        }
        Ok(Directive::Branch)
    }

    fn begin(
        &mut self,
        condition: &str,
        line: u32,
        decide: &dyn Fn(&str) -> Result<bool, String>,
    ) -> Result<(), String> {
        let (state, complaint) = if self.open.len() >= NESTED_MAX {
            let text = format!("too many nested '.if', at most {NESTED_MAX} are allowed.");
            (State::Closed, Err(text))
        } else if self.is_skipping() {
            (State::Closed, Ok(()))
        } else {
            decided(decide(condition))
        };
        // It is open whatever was said, so that its '.endif' isn't one too many.
        self.open.push(Branch {
            line,
            state,
            has_else: false,
        });
        complaint
    }

    fn alternative(
        &mut self,
        condition: &str,
        decide: &dyn Fn(&str) -> Result<bool, String>,
    ) -> Result<(), String> {
        let branch = self
            .open
            .last_mut()
            .ok_or("'.elif' has no matching '.if'.")?;
        let (state, complaint) = if branch.has_else {
            (
                State::Closed,
                Err("'.elif' can't come after '.else'.".to_owned()),
            )
        } else if branch.state == State::Waiting {
            decided(decide(condition))
        } else {
            (State::Closed, Ok(()))
        };
        branch.state = state;
        complaint
    }

    fn otherwise(&mut self) -> Result<(), String> {
        let branch = self
            .open
            .last_mut()
            .ok_or("'.else' has no matching '.if'.")?;
        if std::mem::replace(&mut branch.has_else, true) {
            branch.state = State::Closed;
            return Err("'.else' can't come after '.else'.".to_owned());
        }
        branch.state = match branch.state {
            State::Waiting => State::Taken,
            State::Taken | State::Closed => State::Closed,
        };
        Ok(())
    }
}

/// A branch whose condition can't be decided is skipped with all its alternatives.
fn decided(decision: Result<bool, String>) -> (State, Result<(), String>) {
    match decision {
        Ok(true) => (State::Taken, Ok(())),
        Ok(false) => (State::Waiting, Ok(())),
        Err(text) => (State::Closed, Err(text)),
    }
}

fn severity(name: &str) -> Result<Severity, String> {
    match name {
        ".alert" => Ok(Severity::Alert),
        ".warning" => Ok(Severity::Warning),
        ".notice" => Ok(Severity::Notice),
        ".diag" => Ok(Severity::Diag),
        _ => {
            let near = did_you_mean(closest(name, DIRECTIVES.into_iter()));
            let end = if near.is_empty() { "." } else { near.as_str() };
            Err(format!("unknown directive '{name}'{end}"))
        }
    }
}

fn no_more(words: &[Word], most: usize) -> Result<(), String> {
    match (words.first(), words.get(most)) {
        (Some(name), Some(word)) => Err(format!(
            "'{}' cannot handle unexpected argument '{}'.",
            name.text, word.text
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::takes_condition;

    #[test]
    fn lines_with_a_condition() {
        for line in [".if", " \t.if 1", ".elif x", ".if#", ".if\r"] {
            assert!(takes_condition(line.as_bytes()), "{line}");
        }
        for line in ["", ".iff", ".else", "if", "x .if", ".if\"1\"", ".endif"] {
            assert!(!takes_condition(line.as_bytes()), "{line}");
        }
    }
}
