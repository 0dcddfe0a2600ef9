//! `show flows [all|<backend>]`: the flows of datagrams, one per line.
//!
//! The command is ours. Each shard is asked for its flows a page at a time, as for sessions: an
//! answer of any length takes little memory, and no shard is held up by it.

use std::fmt::Write;

use super::command::{Answer, Call, Command, Run, Waiting};
use super::session_text::{SessionId, duration};
use super::subject::is_called;
use crate::base::ids::ShardId;
use crate::base::time::Moment;
use crate::config::plan::Level;
use crate::shard::{self, FlowRow, Question};
use crate::sys::clock;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "flows"], level: Level::Operator,
        usage: "show flows [all|<backend>]",
        help: "report the list of current flows of datagrams", run: Run::Wait(show) },
];

fn show<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let shared = call.shared;
        let wanted = match call.words {
            [] | ["all"] => None,
            [name] => {
                let world = shared.world();
                let mut backends = world.backends.iter().flatten();
                match backends.find(|known| is_called(&known.proxy, name)) {
                    Some(backend) => Some(backend.proxy.proxy_id),
                    None => return Ok(Answer::error("No such backend.")),
                }
            }
            _ => return Ok(Answer::error("Usage: show flows [all|<backend>]")),
        };
        let is_wanted =
            |row: &&FlowRow| wanted.is_none_or(|proxy_id| row.backend.proxy.proxy_id == proxy_id);
        for port in &shared.world().ports {
            let mut from = Some(0);
            while let Some(slot) = from {
                let answer = match port.ask(Question::Flows(slot)) {
                    Some(answer) => answer.await.ok(),
                    None => None,
                };
                let Some(shard::Answer::Flows(rows, next)) = answer else {
                    // It has ended, and its flows with it.
                    break;
                };
                let now = clock::now();
                let mut text = String::new();
                for row in rows.iter().filter(is_wanted) {
                    line(&mut text, port.shard, row, now);
                }
                if !text.is_empty() {
                    call.write(&text).await?;
                }
                from = next;
            }
        }
        Ok(Answer::Nothing)
    })
}

fn line(text: &mut String, shard: ShardId, row: &FlowRow, now: Moment) {
    let key = row.key;
    let id = SessionId { shard, key }.number();
    let state = match (row.is_spent, row.is_confirmed) {
        (true, _) => "replies",
        (false, true) => "open",
        (false, false) => "new",
    };
    let local = row.local.map_or("-".to_owned(), |local| local.to_string());
    let _ = writeln!(
        text,
        "{id:#x}: proto={} src={} dst={local} fe={} be={} srv={} addr={} age={} idle={} \
         state={state} in={} out={} bin={} bout={}",
        if row.client.is_ipv4() {
            "udpv4"
        } else {
            "udpv6"
        },
        row.client,
        row.frontend.proxy.name,
        row.backend.proxy.name,
        row.server.plan.name,
        row.server_address,
        span(now, row.started),
        span(now, row.last),
        row.requests.0,
        row.replies.0,
        row.requests.1,
        row.replies.1,
    );
}

/// Less than a second in milliseconds: most flows are short.
fn span(now: Moment, from: Moment) -> String {
    match now.ms_since(from) {
        ms if ms < 1000 => format!("{ms}ms"),
        ms => duration(ms),
    }
}
