//! `reload`, answered as HAProxy's master does, and `show reload`, which is ours.

use std::fmt::Write;

use super::command::{Answer, Call, Command, Run, Waiting};
use crate::config::plan::Level;
use crate::control::reload::{Entry, Wish};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["reload"], level: Level::Admin, usage: "reload",
        help: "read the configuration again and put it in force",
        run: Run::Wait(reload) },
    Command { words: &["show", "reload"], level: Level::Operator, usage: "show reload",
        help: "report the last reloads: what has changed, what could not",
        run: Run::Now(|call| Answer::Text(show(&call.shared.reload.history()))) },
];

fn reload<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let report = call.shared.reload.wait("reload", Wish::Files).await;
        let mut text = format!("Success={}\n--\n", u8::from(report.success));
        for message in &report.messages {
            let _ = writeln!(text, "{message}");
        }
        Ok(Answer::Text(text))
    })
}

/// The latest one first, each with its changes and its messages indented below it.
fn show(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "There was no reload yet.\n".to_owned();
    }
    let mut text = String::new();
    for entry in entries {
        let at = i64::try_from(entry.at_unix_ms).unwrap_or(0);
        let at = jiff::Timestamp::from_millisecond(at).unwrap_or_default();
        let result = if entry.success { "done" } else { "failed" };
        let Entry {
            number,
            by,
            took_ms,
            ..
        } = entry;
        let _ = writeln!(
            text,
            "reload {number} by {by} at {at:.3}: {result}, {took_ms} ms"
        );
        for line in entry.changes.iter().chain(&entry.messages) {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}
