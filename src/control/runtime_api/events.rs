//! `show events`: the last messages of the process, and those to come.

use tokio::io::AsyncReadExt;

use super::command::{Answer, Call, Command, Run, Severity, Waiting};
use crate::config::plan::Level;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "events"], level: Level::User,
        usage: "show events [<sink>] [-w] [-n]",
        help: "list what keeps messages, or the messages that one has kept",
        run: Run::Wait(show) },
];

/// HAProxy's name for what is kept in memory.
const SINK: &str = "buf0";

fn show<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let Some((sink, options)) = call.words.split_first() else {
            let list = format!(
                "Sinks of events. -w waits for more, -n leaves out what there is; any key ends it.\n    \
                 {SINK:<10} : type=buffer, 0 dropped, the last messages of the process\n"
            );
            return Ok(Answer::Message(Severity::Warning, list));
        };
        if call.session.level < Level::Operator {
            return Ok(Answer::error("Permission denied"));
        }
        if *sink != SINK {
            return Ok(Answer::error("No such event sink"));
        }
        let (mut waits, mut only_new) = (false, false);
        for option in options {
            match option.strip_prefix('-') {
                Some("w") => waits = true,
                Some("n") => only_new = true,
                Some("wn" | "nw") => (waits, only_new) = (true, true),
                _ => return Ok(Answer::error("Only '-w' and '-n' may follow a sink.")),
            }
        }
        let shared = call.shared;
        let recent = &shared.messages.recent;
        let mut from = if only_new { recent.next() } else { 0 };
        loop {
            let (text, next) = recent.since(from);
            from = next;
            if !waits {
                return Ok(Answer::Text(text));
            }
            call.write(&text).await?;
            let mut key = [0u8; 1];
            tokio::select! {
                () = recent.wait_for(from) => {}
                // Whatever it sends ends it, and its end does.
                read = call.client.read(&mut key) => {
                    return read.map(|_| Answer::Nothing);
                }
            }
        }
    })
}
