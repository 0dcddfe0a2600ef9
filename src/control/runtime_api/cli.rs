//! Commands about the client's own session: `help`, `prompt`, levels, its timeout, `quit`.

use std::time::Duration;

use super::command::{Answer, Call, Command, Run, SeverityOutput};
use super::commands;
use super::session::Mode;
use super::show::endpoint_text;
use crate::config;
use crate::config::plan::Level;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["experimental-mode"], level: Level::Admin, usage: "experimental-mode [on|off]",
        help: "for scripts that say it: no command needs it",
        run: Run::Now(|call| mode(call.words, "experimental-mode", &mut call.session.is_experimental)) },
    Command { words: &["expert-mode"], level: Level::Admin, usage: "expert-mode [on|off]",
        help: "for scripts that say it: no command needs it",
        run: Run::Now(|call| mode(call.words, "expert-mode", &mut call.session.is_expert)) },
    Command { words: &["help"], level: Level::User, usage: "help [<command>]",
        help: "list matching or all commands",
        run: Run::Now(|call| commands::help(call.session.level, call.words)) },
    Command { words: &["operator"], level: Level::Operator, usage: "operator",
        help: "lower the level of this connection to operator",
        run: Run::Now(|call| lower(call, Level::Operator)) },
    Command { words: &["prompt"], level: Level::User, usage: "prompt [help|n|i|p|timed]*",
        help: "keep the connection, with a prompt or without, or stop doing so",
        run: Run::Now(prompt) },
    Command { words: &["quit"], level: Level::User, usage: "quit",
        help: "disconnect", run: Run::Now(|call| { call.session.ended = true; Answer::Nothing }) },
    Command { words: &["set", "severity-output"], level: Level::User,
        usage: "set severity-output none|number|string",
        help: "how messages are marked with their severity", run: Run::Now(set_severity_output) },
    Command { words: &["set", "timeout"], level: Level::User, usage: "set timeout cli <seconds>",
        help: "how long this connection may be idle", run: Run::Now(set_timeout) },
    Command { words: &["show", "cli", "level"], level: Level::User, usage: "show cli level",
        help: "report the level of this connection",
        run: Run::Now(|call| Answer::info(level_name(call.session.level))) },
    Command { words: &["show", "cli", "sockets"], level: Level::User, usage: "show cli sockets",
        help: "list the runtime sockets with their levels", run: Run::Now(show_sockets) },
    Command { words: &["user"], level: Level::User, usage: "user",
        help: "lower the level of this connection to user",
        run: Run::Now(|call| lower(call, Level::User)) },
];

/// What `prompt help` says.
const PROMPT_HELP: &str = "\
prompt        : with a prompt from now on, or as at the beginning if there is one
prompt n      : the connection ends after a line
prompt i      : the connection stays, without a prompt
prompt p      : the connection stays, with a prompt
prompt timed  : the prompt says how long the process has run, or stops doing so
";

fn prompt(call: &mut Call<'_>) -> Answer {
    let session = &mut *call.session;
    if call.words.is_empty() {
        session.mode = match session.mode {
            Mode::Once => Mode::Prompted,
            Mode::Kept | Mode::Prompted => Mode::Once,
        };
    }
    let (mut mode, mut is_timed) = (session.mode, session.is_timed);
    for word in call.words {
        match *word {
            "n" => mode = Mode::Once,
            "i" => mode = Mode::Kept,
            "p" => mode = Mode::Prompted,
            "timed" => is_timed = !is_timed,
            "help" => return Answer::info(PROMPT_HELP),
            _ => return Answer::error(format!("Unknown mode.\n{PROMPT_HELP}")),
        }
    }
    (session.mode, session.is_timed) = (mode, is_timed);
    Answer::Nothing
}

fn mode(words: &[&str], name: &str, is_on: &mut bool) -> Answer {
    match words.first() {
        Some(&"on") => *is_on = true,
        Some(&"off") => *is_on = false,
        _ => {
            let state = if *is_on { "ON" } else { "OFF" };
            return Answer::Text(format!("{name} is {state}\n"));
        }
    }
    Answer::Nothing
}

fn lower(call: &mut Call<'_>, level: Level) -> Answer {
    call.session.level = level;
    Answer::Nothing
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::User => "user",
        Level::Operator => "operator",
        Level::Admin => "admin",
    }
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

fn set_timeout(call: &mut Call<'_>) -> Answer {
    let (Some(&"cli"), value) = (call.words.first(), call.words.get(1)) else {
        return Answer::error("'set timeout' only supports 'cli'.");
    };
    let Some(value) = value else {
        return Answer::error("Expects an integer value.");
    };
    match config::seconds(value).filter(|seconds| *seconds > 0) {
        Some(seconds) => call.session.timeout = Duration::from_secs(seconds.into()),
        None => return Answer::error("Invalid timeout value."),
    }
    Answer::Nothing
}

fn show_sockets(call: &mut Call<'_>) -> Answer {
    let mut text = "# socket lvl processes\n".to_owned();
    for socket in &call.shared.world().plan.global.stats_sockets {
        let (endpoint, level) = (endpoint_text(&socket.endpoint), level_name(socket.level));
        text.push_str(&format!("{endpoint} {level} all\n"));
    }
    Answer::Text(text)
}
