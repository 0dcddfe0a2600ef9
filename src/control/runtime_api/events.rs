//! `show events`: the last messages of the process, and those to come.

use tokio::io::AsyncReadExt;

use super::command::{Answer, Call, Command, Run, Severity, Waiting};
use crate::config::plan::Level;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "events"], level: Level::User,
        usage: "show events [<sink>] [-w] [-n] [-0]",
        help: "list what keeps messages, or the messages that one has kept",
        run: Run::Wait(show) },
];

/// HAProxy's name for what is kept in memory.
const SINK: &str = "buf0";

/// What follows a sink.
#[derive(Clone, Copy, Default)]
struct Options {
    /// `-w`: more is waited for.
    waits: bool,
    /// `-n`: what there is already is left out.
    only_new: bool,
    /// `-0`: a message ends with a NUL instead of a line feed.
    ends_with_nul: bool,
}

impl Options {
    /// Letters may stand together, as in `-wn`.
    fn read(words: &[&str]) -> Option<Options> {
        let mut options = Options::default();
        for word in words {
            let letters = word.strip_prefix('-').filter(|letters| !letters.is_empty());
            for letter in letters?.chars() {
                match letter {
                    'w' => options.waits = true,
                    'n' => options.only_new = true,
                    '0' => options.ends_with_nul = true,
                    _ => return None,
                }
            }
        }
        Some(options)
    }
}

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
        let Some(options) = Options::read(options) else {
            let text = "Only '-w', '-n' and '-0' may follow a sink.";
            return Ok(Answer::error(text));
        };
        let shared = call.shared;
        let recent = &shared.messages.recent;
        let mut from = if options.only_new { recent.next() } else { 0 };
        loop {
            let (mut text, next) = recent.since(from);
            from = next;
            if options.ends_with_nul {
                text = text.replace('\n', "\0");
            }
            if !options.waits {
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
