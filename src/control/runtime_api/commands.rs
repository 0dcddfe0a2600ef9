//! The tables of commands together: which one is meant, `help`, and who may use what.

use std::io;

use super::command::{Answer, Call, Command, Run};
use super::{
    balance, bounds, cli, counters, events, flows, frontends, info, ramp, reload, server_changes,
    servers, sessions, set_server, show, stat, wait,
};
use crate::config::plan::Level;

/// A table from each file of commands.
const TABLES: &[&[Command]] = &[
    balance::COMMANDS,
    bounds::COMMANDS,
    cli::COMMANDS,
    counters::COMMANDS,
    events::COMMANDS,
    flows::COMMANDS,
    frontends::COMMANDS,
    info::COMMANDS,
    ramp::COMMANDS,
    reload::COMMANDS,
    server_changes::COMMANDS,
    servers::COMMANDS,
    sessions::COMMANDS,
    set_server::COMMANDS,
    show::COMMANDS,
    stat::COMMANDS,
    wait::COMMANDS,
];

fn all() -> impl Iterator<Item = &'static Command> {
    TABLES.iter().copied().flatten()
}

/// Runs one command; the call has all of its words.
pub(super) async fn run(mut call: Call<'_>) -> io::Result<Answer> {
    let words = call.words;
    if words.is_empty() {
        return Ok(Answer::Nothing);
    }
    let fitting = all().filter(|command| words.starts_with(command.words));
    let Some(command) = fitting.max_by_key(|command| command.words.len()) else {
        return Ok(unknown(call.session.level, &words.join(" "), words));
    };
    if call.session.level < command.level {
        return Ok(Answer::error("Permission denied"));
    }
    let mut call = Call {
        words: &words[command.words.len()..],
        payload: call.payload.take(),
        shared: call.shared,
        session: call.session,
        client: call.client,
    };
    match command.run {
        Run::Now(run) => Ok(run(&mut call)),
        Run::Wait(run) => run(&mut call).await,
    }
}

fn lines(level: Level, wanted: impl Fn(&Command) -> bool) -> String {
    let allowed = all().filter(|command| command.level <= level && wanted(command));
    let mut allowed: Vec<&Command> = allowed.collect();
    allowed.sort_by_key(|command| command.usage);
    let line = |command: &&Command| format!("  {:<40}: {}\n", command.usage, command.help);
    allowed.iter().map(line).collect()
}

/// The answer to `help`: the commands of a level, or those of them that begin with some words.
pub(super) fn help(level: Level, words: &[&str]) -> Answer {
    let all = lines(level, |_| true);
    if words.is_empty() {
        return Answer::info(format!(
            "The following commands are valid at this level:\n{all}"
        ));
    }
    let text = lines(level, |command| begins(command.words, words));
    if text.is_empty() {
        return unknown(level, &words.join(" "), words);
    }
    Answer::info(format!("The following commands match:\n{text}"))
}

/// Whether a command's words begin as the given ones do, of which the last may be cut off.
fn begins(command: &[&str], words: &[&str]) -> bool {
    let pairs = command.iter().zip(words);
    let same = pairs
        .filter(|(whole, word)| whole.starts_with(*word))
        .count();
    same == words.len().min(command.len())
}

fn unknown(level: Level, text: &str, words: &[&str]) -> Answer {
    let near = lines(level, |command| command.words.first() == words.first());
    if near.is_empty() {
        let all = lines(level, |_| true);
        return Answer::error(format!(
            "Unknown command: '{text}'. Please enter one of the following commands only:\n{all}"
        ));
    }
    Answer::error(format!(
        "Unknown command: '{text}', but maybe one of the following ones is a better match:\n{near}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: Answer) -> String {
        match answer {
            Answer::Nothing => String::new(),
            Answer::Text(text) | Answer::Message(_, text) => text,
        }
    }

    #[test]
    fn help_is_sorted_and_knows_levels() {
        let user = text(help(Level::User, &[]));
        let usages: Vec<&str> = user.lines().skip(1).collect();
        assert!(usages.is_sorted(), "{user}");
        assert!(!user.contains("show activity"));
        assert!(text(help(Level::Operator, &[])).contains("show activity"));
        assert!(user.contains("\n  quit                                    : disconnect\n"));
    }

    #[test]
    fn help_of_a_word_has_what_begins_with_it() {
        let show = text(help(Level::Admin, &["show", "in"]));
        assert_eq!(show.lines().count(), 2, "{show}");
        assert!(show.contains("  show info"));
        assert!(text(help(Level::Admin, &["nothing"])).starts_with("Unknown command: 'nothing'"));
    }

    #[test]
    fn no_two_commands_have_the_same_words() {
        let mut words: Vec<_> = all().map(|command| command.words).collect();
        words.sort();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count);
    }

    #[test]
    fn a_shape_begins_with_the_words_and_fits_its_column() {
        for command in all() {
            let words = command.words.join(" ");
            assert!(
                command.usage.starts_with(&words),
                "{words}: {}",
                command.usage
            );
            assert!(command.usage.len() <= 40, "{}", command.usage);
        }
    }

    #[test]
    fn what_is_unknown_is_answered_with_what_is_near() {
        let near = text(unknown(Level::Admin, "show foo", &["show", "foo"]));
        assert!(near.starts_with("Unknown command: 'show foo', but maybe one of the following"));
        assert!(near.contains("  show stat") && !near.contains("  quit"));
        let all = text(unknown(Level::Admin, "foo", &["foo"]));
        assert!(all.starts_with("Unknown command: 'foo'. Please enter one of the following"));
        assert!(all.contains("  quit"));
    }
}
