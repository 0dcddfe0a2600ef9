//! `wait`, between the commands of a chain, and `echo`.

use std::time::Duration;

use super::command::{Answer, Call, Command, Run, Waiting};
use super::subject;
use crate::config::plan::Level;
use crate::config::time_ms;
use crate::control::Shared;
use crate::lb::{Admin, Backend, Server};
use crate::sys::clock;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["echo"], level: Level::User, usage: "echo <text>",
        help: "print text to the output", run: Run::Now(|call| Answer::Text(format!("{}\n", call.words.join(" ")))) },
    Command { words: &["wait"], level: Level::User, usage: "wait {-h|<delay>} [<cond> [args...]]",
        help: "wait the delay or for the condition (-h for list)", run: Run::Wait(wait) },
];

const HELP: &str = "Usage: wait {-h|<delay>} [condition [args...]]\n\
    Wait the delay (in milliseconds where no unit stands), or until the condition holds.\n\
    Conditions:\n\
    \x20  - srv-removable <proxy>/<server> : the server has no sessions and may be deleted\n\
    \x20  - srv-unused <proxy>/<server>    : the same\n";

/// Time between two looks at a condition.
const LOOK_MS: u64 = 10;

fn wait<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let delay_ms = match call.words.first() {
            None => return Ok(Answer::error("Expects a duration in milliseconds.")),
            Some(&"-h") => return Ok(Answer::info(HELP)),
            Some(word) => match time_ms(word) {
                Ok(ms) => u64::from(ms),
                Err(_) => return Ok(Answer::error("Expects a duration in milliseconds.")),
            },
        };
        let server = match call.words.get(1).copied() {
            None => {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                return Ok(Answer::Nothing);
            }
            Some("srv-removable" | "srv-unused") => call.words.get(2),
            Some(_) => {
                return Ok(Answer::error(
                    "Unknown condition. Use 'wait -h' for the list.",
                ));
            }
        };
        let until = clock::now().after_ms(delay_ms);
        loop {
            // It may be gone meanwhile.
            let (backend, server) = match subject::server(call.shared, server) {
                Ok(found) => found,
                Err(answer) => return Ok(answer),
            };
            if let Some(obstacle) = obstacle(call.shared, &server) {
                return Ok(Answer::error(obstacle));
            }
            if is_unused(&backend, &server) {
                return Ok(Answer::info("Done."));
            }
            let now = clock::now();
            if now >= until {
                return Ok(Answer::error("Wait delay expired."));
            }
            let rest = (until - now).min(Duration::from_millis(LOOK_MS));
            tokio::time::sleep(rest).await;
        }
    })
}

/// What keeps a server from being deleted, however long one waits.
pub(super) fn obstacle(shared: &Shared, server: &Server) -> Option<&'static str> {
    if shared.is_followed(server.id) {
        return Some(
            "This server cannot be removed at runtime due to other configuration elements \
             pointing to it.",
        );
    }
    (server.admin() != Admin::Maintenance)
        .then_some("Only servers in maintenance mode can be deleted.")
}

/// Whether nobody is with a server or waits for it.
pub(super) fn is_unused(backend: &Backend, server: &Server) -> bool {
    server.active() == 0 && backend.queued_for(server.id) == 0
}
