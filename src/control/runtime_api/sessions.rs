//! `show sess` and `shutdown session(s)`.
//!
//! Each shard is asked for its sessions, a page at a time, and what it says is written before the
//! next page is asked for: an answer of any length takes little memory, and a client that reads
//! slowly waits for nobody but itself. A session's id is its place in its shard, with a number that
//! changes when the place is given to another one.

use std::fmt::Write;
use std::io;

use super::command::{Answer, Call, Command, Run, Waiting};
use super::session_text::{SessionId, line, long};
use super::subject;
use crate::base::ids::ShardId;
use crate::base::time::Moment;
use crate::config::plan::Level;
use crate::config::time_ms;
use crate::control::{Shared, followers};
use crate::flow::Who;
use crate::shard::{self, Question, SessionRow};
use crate::sys::clock;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "sess"], level: Level::Operator, usage: "show sess [<id>|all|help] [<filter>]*",
        help: "report the list of current sessions or dump one of them", run: Run::Wait(show) },
    Command { words: &["shutdown", "session"], level: Level::Admin, usage: "shutdown session <id>",
        help: "kill a specific session", run: Run::Wait(shut_down_one) },
    Command { words: &["shutdown", "sessions", "server"], level: Level::Admin, usage: "shutdown sessions server <bk>/<srv>",
        help: "kill the sessions of a server", run: Run::Now(shut_down_all) },
];

const HELP: &str = "Usage: show sess [<id>|all|help] [<options>*]\n\
    Lists sessions. What may follow:\n\
    \x20  <id>             show only this one, with details\n\
    \x20  all              show all of them with details\n\
    \x20  backend <b>      only those of this backend\n\
    \x20  frontend <f>     only those of this frontend\n\
    \x20  server <b/s>     only those of this server\n\
    \x20  older <age>      only those of at least this age\n";

/// What is wanted of all sessions.
#[derive(Debug, Default)]
struct Wanted {
    long: bool,
    one: Option<SessionId>,
    frontend: Option<String>,
    backend: Option<String>,
    server: Option<(String, String)>,
    older_ms: u64,
}

impl Wanted {
    /// What the words of the command say; a text for people if they say something else.
    fn parse(shared: &Shared, words: &[&str]) -> Result<Wanted, Answer> {
        let mut wanted = Wanted::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "help" => return Err(Answer::info(HELP)),
                "all" => wanted.long = true,
                "frontend" => {
                    let frontend = subject::frontend(shared, words.next())?;
                    wanted.frontend = Some(frontend.proxy.name.to_string());
                }
                "backend" => {
                    let name = words.next().copied().unwrap_or("");
                    let world = shared.world();
                    let mut backends = world.backends.iter().flatten();
                    let found = backends.find(|known| subject::is_called(&known.proxy, name));
                    let found = found.ok_or_else(|| Answer::error("No such backend."))?;
                    wanted.backend = Some(found.proxy.name.to_string());
                }
                "server" => {
                    let (backend, server) = subject::server(shared, words.next())?;
                    let server = server.plan.name.to_string();
                    wanted.server = Some((backend.proxy.name.to_string(), server));
                }
                "older" => {
                    let word = words.next().copied().unwrap_or("");
                    // As everywhere in HAProxy's commands, seconds where no unit stands.
                    let ms = match word.parse::<u64>() {
                        Ok(seconds) => seconds.saturating_mul(1_000),
                        Err(_) => time_ms(word).map_err(invalid_age)?.into(),
                    };
                    wanted.older_ms = ms;
                }
                id => match SessionId::parse(id) {
                    Some(id) => (wanted.one, wanted.long) = (Some(id), true),
                    None => return Err(Answer::error(HELP)),
                },
            }
        }
        Ok(wanted)
    }

    fn has(&self, row: &SessionRow, now: Moment) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| name == Some(wanted))
        };
        let backend = row.backend.as_ref().map(|backend| &*backend.proxy.name);
        let server = row.server.as_ref().map(|server| &*server.plan.name);
        let of_server = |(of, name): &(String, String)| {
            backend == Some(of.as_str()) && server == Some(name.as_str())
        };
        is(&self.frontend, Some(&row.frontend.proxy.name))
            && is(&self.backend, backend)
            && self.server.as_ref().is_none_or(of_server)
            && now.ms_since(row.accepted_at) >= self.older_ms
    }
}

fn invalid_age(fault: String) -> Answer {
    Answer::error(format!("Invalid age: {fault}."))
}

fn show<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let wanted = match Wanted::parse(call.shared, call.words) {
            Ok(wanted) => wanted,
            Err(answer) => return Ok(answer),
        };
        match wanted.one {
            Some(id) => show_one(call, id).await,
            None => show_all(call, &wanted).await,
        }
    })
}

async fn show_one(call: &mut Call<'_>, id: SessionId) -> io::Result<Answer> {
    let question = Question::Session(id.key);
    if let Some(shard::Answer::Sessions(rows, _)) = ask(call.shared, id.shard, question).await
        && let Some(row) = rows.first()
    {
        return Ok(Answer::Text(long(call.shared, id.shard, row, clock::now())));
    }
    Ok(Answer::error("Session not found."))
}

async fn show_all(call: &mut Call<'_>, wanted: &Wanted) -> io::Result<Answer> {
    for index in 0..call.shared.world().ports.len() {
        let shard = ShardId(u16::try_from(index).unwrap_or(u16::MAX));
        let mut from = Some(0);
        while let Some(slot) = from {
            let answer = ask(call.shared, shard, Question::Sessions(slot)).await;
            let Some(shard::Answer::Sessions(rows, next)) = answer else {
                // It has ended, and its sessions with it.
                break;
            };
            let now = clock::now();
            let mut text = String::new();
            for row in rows.iter().filter(|row| wanted.has(row, now)) {
                match wanted.long {
                    true => text.push_str(&long(call.shared, shard, row, now)),
                    false => {
                        let _ = writeln!(text, "{}", line(shard, row, now));
                    }
                }
            }
            if !text.is_empty() {
                call.write(&text).await?;
            }
            from = next;
        }
    }
    Ok(Answer::Nothing)
}

/// Asks a shard; `None` if it has ended, or isn't there.
async fn ask(shared: &Shared, shard: ShardId, question: Question) -> Option<shard::Answer> {
    let world = shared.world();
    let port = world.ports.get(usize::from(shard.0))?;
    port.ask(question)?.await.ok()
}

fn shut_down_one<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let id = call.words.first().and_then(|word| SessionId::parse(word));
        let Some(id) = id else {
            return Ok(Answer::error("Session pointer expected (use 'show sess')."));
        };
        let answer = ask(call.shared, id.shard, Question::End(id.key)).await;
        Ok(match answer {
            Some(shard::Answer::Ended(true)) => Answer::Nothing,
            _ => Answer::error("No such session (use 'show sess')."),
        })
    })
}

fn shut_down_all(call: &mut Call<'_>) -> Answer {
    match subject::server(call.shared, call.words.first()) {
        Ok((_, server)) => {
            followers::end_sessions(call.shared, server.id, Who::Killed);
            Answer::Nothing
        }
        Err(answer) => answer,
    }
}
