//! What a command is, what it is called with and what it answers.
//!
//! The files beside this one hold the commands, each file a table of them; `commands` puts the
//! tables together. A command that has its answer at once returns it; one that waits for others,
//! or that writes while it goes on, is a future on the control thread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use super::{Client, Session, session};
use crate::config::plan::Level;
pub(super) use crate::config::plan::SeverityOutput;
use crate::control::Shared;

/// A command.
pub(super) struct Command {
    /// The words it begins with. Of commands that fit, the one with most words is meant.
    pub(super) words: &'static [&'static str],
    /// Who may use it.
    pub(super) level: Level,
    /// Its shape, in `help`.
    pub(super) usage: &'static str,
    /// What it does, in `help`.
    pub(super) help: &'static str,
    /// What does it.
    pub(super) run: Run,
}

/// What runs a command.
pub(super) enum Run {
    /// It has its answer at once.
    Now(fn(&mut Call<'_>) -> Answer),
    /// It waits, or writes while it goes on.
    Wait(for<'c> fn(&'c mut Call<'_>) -> Waiting<'c>),
}

/// An answer to come; an error is one of the connection, and ends it.
pub(super) type Waiting<'c> = Pin<Box<dyn Future<Output = io::Result<Answer>> + 'c>>;

/// One use of a command.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) session: &'a mut Session,
    /// The words behind those of the command.
    pub(super) words: &'a [&'a str],
    /// The lines behind `<<`, without the one that ends them.
    pub(super) payload: Option<&'a str>,
    pub(super) client: &'a mut dyn Client,
}

impl Call<'_> {
    /// Sends a part of an answer; what the command returns is sent behind it.
    pub(super) async fn write(&mut self, text: &str) -> io::Result<()> {
        session::write(self.client, text.as_bytes(), self.session.timeout).await
    }
}

/// An answer, without the empty line after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Done, and nothing to say.
    Nothing,
    /// What was asked for: lines for programs, never marked.
    Text(String),
    /// Words for people, marked with their severity where the client wants that.
    Message(Severity, String),
}

impl Answer {
    /// It went wrong.
    pub(super) fn error(text: impl Into<String>) -> Answer {
        Answer::Message(Severity::Error, text.into())
    }

    /// It went well, or is only to be known.
    pub(super) fn info(text: impl Into<String>) -> Answer {
        Answer::Message(Severity::Info, text.into())
    }

    /// Its words alone.
    pub(super) fn into_text(self) -> String {
        match self {
            Answer::Nothing => String::new(),
            Answer::Text(text) | Answer::Message(_, text) => text,
        }
    }

    /// As it is sent, with the empty line.
    pub(super) fn framed(self, output: SeverityOutput) -> String {
        let mut text = match self {
            Answer::Nothing => String::new(),
            Answer::Text(text) => text,
            Answer::Message(severity, text) => format!("{}{text}", mark(output, severity)),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push('\n');
        text
    }
}

/// How grave a message is, by syslog's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Severity {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// What stands before a message.
fn mark(output: SeverityOutput, severity: Severity) -> String {
    let name = match severity {
        Severity::Error => "err",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    match output {
        SeverityOutput::None => String::new(),
        SeverityOutput::Number => format!("[{}]: ", severity as u8),
        SeverityOutput::Name => format!("[{name}]: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_one_empty_line() {
        let framed = |answer: Answer| answer.framed(SeverityOutput::None);
        assert_eq!(framed(Answer::Nothing), "\n");
        assert_eq!(framed(Answer::Text("a\n".to_owned())), "a\n\n");
        assert_eq!(
            framed(Answer::error("No such server.")),
            "No such server.\n\n"
        );
    }

    #[test]
    fn messages_are_marked_and_texts_are_not() {
        let error = || Answer::error("no");
        assert_eq!(error().framed(SeverityOutput::Number), "[3]: no\n\n");
        assert_eq!(error().framed(SeverityOutput::Name), "[err]: no\n\n");
        let info = Answer::info("yes");
        assert_eq!(info.framed(SeverityOutput::Name), "[info]: yes\n\n");
        let text = Answer::Text("1\n".to_owned());
        assert_eq!(text.framed(SeverityOutput::Name), "1\n\n");
    }
}
