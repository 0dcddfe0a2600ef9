//! Commands about the client's own session: `help`, `prompt`, levels, its timeout, `quit`.

use super::command::{Answer, Call, Command, Run, SeverityOutput};
use super::commands;
use crate::config::plan::Level;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["help"], level: Level::User, usage: "help [<command>]",
        help: "list matching or all commands",
        run: Run::Now(|call| commands::help(call.session.level, call.words)) },
    Command { words: &["prompt"], level: Level::User, usage: "prompt [n|i]",
        help: "keep the connection and show a prompt, or stop doing so", run: Run::Now(prompt) },
    Command { words: &["quit"], level: Level::User, usage: "quit",
        help: "disconnect", run: Run::Now(|call| { call.session.ended = true; Answer::Nothing }) },
    Command { words: &["set", "severity-output"], level: Level::User,
        usage: "set severity-output none|number|string",
        help: "how messages are marked with their severity", run: Run::Now(set_severity_output) },
];

fn prompt(call: &mut Call<'_>) -> Answer {
    call.session.prompt = match call.words.first() {
        Some(&"n") => false,
        Some(_) => true,
        None => !call.session.prompt,
    };
    Answer::Nothing
}

fn set_severity_output(call: &mut Call<'_>) -> Answer {
    call.session.severity_output = match call.words.first() {
        Some(&"none") => SeverityOutput::None,
        Some(&"number") => SeverityOutput::Number,
        Some(&"string") => SeverityOutput::Name,
        _ => return Answer::error("one of 'none', 'number', 'string' is a required argument"),
    };
    Answer::Nothing
}
