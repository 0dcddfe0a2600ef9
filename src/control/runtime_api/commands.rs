//! The commands as a table: words, level, usage and help line, and what runs them.
//!
//! `help`, the rights and the answer to an unknown command come from the table.

use super::{Session, activity, info, listening, stat};
use crate::config::plan::Level;
use crate::control::Shared;

/// A command.
struct Command {
    words: &'static [&'static str],
    level: Level,
    usage: &'static str,
    help: &'static str,
    run: fn(&Shared, &mut Session, &[&str]) -> String,
}

#[rustfmt::skip]
const COMMANDS: &[Command] = &[
    Command { words: &["help"], level: Level::User, usage: "help",
        help: "list the commands of this level", run: |_, session, _| help(session.level) },
    Command { words: &["prompt"], level: Level::User, usage: "prompt [n|i]",
        help: "keep the connection and show a prompt, or stop doing so", run: prompt },
    Command { words: &["quit"], level: Level::User, usage: "quit",
        help: "disconnect", run: |_, session, _| { session.ended = true; String::new() } },
    Command { words: &["show", "activity"], level: Level::Operator, usage: "show activity",
        help: "what the shards and the process hold and do", run: |shared, _, _| activity::show(shared) },
    Command { words: &["show", "info"], level: Level::User, usage: "show info",
        help: "report information about the running process", run: |shared, _, rest| info::show(shared, rest) },
    Command { words: &["show", "listeners"], level: Level::Operator, usage: "show listeners",
        help: "list the listening sockets with their queues and drops", run: |shared, _, _| listening::show(shared) },
    Command { words: &["show", "proc"], level: Level::User, usage: "show proc",
        help: "list the processes: this one, in the roles of HAProxy's master and worker", run: |shared, _, _| info::processes(shared) },
    Command { words: &["show", "stat"], level: Level::User, usage: "show stat [up|no-maint] [{<iid>|<proxy>} <type> <sid>]",
        help: "report counters for each proxy and server", run: |shared, session, rest| stat::show(shared, session.level, rest) },
    Command { words: &["show", "version"], level: Level::User, usage: "show version",
        help: "report the version of this program", run: |_, _, _| format!("{}\n", env!("CARGO_PKG_VERSION")) },
];

/// Runs one command and returns its answer, without the empty line after it.
pub(super) fn run(shared: &Shared, session: &mut Session, text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return String::new();
    }
    let Some(command) = COMMANDS
        .iter()
        .find(|command| words.starts_with(command.words))
    else {
        return unknown(session.level, text.trim(), &words);
    };
    if session.level < command.level {
        return "Permission denied\n".to_owned();
    }
    (command.run)(shared, session, &words[command.words.len()..])
}

fn prompt(_: &Shared, session: &mut Session, rest: &[&str]) -> String {
    session.prompt = match rest.first() {
        Some(&"n") => false,
        Some(_) => true,
        None => !session.prompt,
    };
    String::new()
}

fn lines(level: Level, wanted: impl Fn(&Command) -> bool) -> String {
    COMMANDS
        .iter()
        .filter(|command| command.level <= level && wanted(command))
        .map(|command| format!("  {:<40} : {}\n", command.usage, command.help))
        .collect()
}

fn help(level: Level) -> String {
    format!(
        "The following commands are valid at this level:\n{}",
        lines(level, |_| true)
    )
}

fn unknown(level: Level, text: &str, words: &[&str]) -> String {
    let near = lines(level, |command| command.words.first() == words.first());
    if near.is_empty() {
        let all = lines(level, |_| true);
        return format!(
            "Unknown command: '{text}'. Please enter one of the following commands only:\n{all}"
        );
    }
    format!(
        "Unknown command: '{text}', but maybe one of the following ones is a better match:\n{near}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_sorted_and_knows_levels() {
        let text = help(Level::User);
        let usages: Vec<&str> = text.lines().skip(1).collect();
        assert!(usages.is_sorted(), "{text}");
        assert!(!text.contains("show activity"));
        assert!(help(Level::Operator).contains("show activity"));
        assert!(text.contains("\n  quit                                     : disconnect\n"));
    }

    #[test]
    fn what_is_unknown_is_answered_with_what_is_near() {
        let near = unknown(Level::Admin, "show foo", &["show", "foo"]);
        assert!(near.starts_with("Unknown command: 'show foo', but maybe one of the following"));
        assert!(near.contains("  show stat") && !near.contains("  quit"));
        let all = unknown(Level::Admin, "foo", &["foo"]);
        assert!(all.starts_with("Unknown command: 'foo'. Please enter one of the following"));
        assert!(all.contains("  quit"));
    }
}
