//! `set maxconn` and `set rate-limit`.

use std::sync::atomic::Ordering::Relaxed;

use super::command::{Answer, Call, Command, Run};
use super::subject;
use crate::base::limits::{LimitId, LimitKey};
use crate::config::plan::Level;
use crate::control::{Shared, operator};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["set", "maxconn", "frontend"], level: Level::Admin, usage: "set maxconn frontend <frontend> <value>",
        help: "change a frontend's maxconn", run: Run::Now(of_frontend) },
    Command { words: &["set", "maxconn", "global"], level: Level::Admin, usage: "set maxconn global <value>",
        help: "change the maxconn of the process", run: Run::Now(of_process) },
    Command { words: &["set", "maxconn", "server"], level: Level::Admin, usage: "set maxconn server <bk>/<srv> <value>",
        help: "change a server's maxconn", run: Run::Now(of_server) },
    Command { words: &["set", "rate-limit"], level: Level::Admin, usage: "set rate-limit <setting> <value>",
        help: "change a rate of the process", run: Run::Now(rate_limit) },
];

const RANGE: &str = "Value out of range.";
const RATES: &str = "'set rate-limit' only supports :\n   - 'connections global' to set the \
                     per-process maximum connection rate\n   - 'sessions global' to set the \
                     per-process maximum session rate";

fn of_process(call: &mut Call<'_>) -> Answer {
    let world = &call.shared.world();
    let number = match call.words.first().map(|word| word.parse::<i64>()) {
        Some(Ok(number)) => number,
        Some(Err(_)) | None => return Answer::error("Expects an integer value."),
    };
    let hard = world.capacity;
    let maxconn = match u32::try_from(number) {
        // As HAProxy has it: all that there is room for.
        _ if number <= 0 => hard,
        Ok(maxconn) if maxconn <= hard => maxconn,
        _ => return Answer::error(RANGE),
    };
    set_limit(call.shared, world.process_limit, maxconn);
    Answer::Nothing
}

fn of_frontend(call: &mut Call<'_>) -> Answer {
    let frontend = match subject::frontend(call.shared, call.words.first()) {
        Ok(frontend) => frontend,
        Err(answer) => return answer,
    };
    let number = match call.words.get(1).map(|word| word.parse::<i64>()) {
        Some(Ok(number)) => number,
        Some(Err(_)) | None => return Answer::error("Integer value expected."),
    };
    let Ok(maxconn) = u32::try_from(number) else {
        return Answer::error(RANGE);
    };
    let key = LimitKey::Frontend(frontend.proxy.proxy_id);
    let limits = &call.shared.world().limits;
    set_limit(
        call.shared,
        limits.find(key).unwrap_or(frontend.limit),
        maxconn,
    );
    Answer::Nothing
}

/// Changes a bound. Who waits for room is let in, and accepts that count on more are taken back.
fn set_limit(shared: &Shared, limit: LimitId, max: u32) {
    let world = &shared.world();
    let _ = world.limits.set_max(limit, max);
    world.ports.iter().for_each(|port| port.look_at_acceptors());
}

fn of_server(call: &mut Call<'_>) -> Answer {
    let (backend, server) = match subject::server(call.shared, call.words.first()) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let Some(word) = call.words.get(1) else {
        return Answer::error("Require <maxconn>.");
    };
    let digits = word.trim_start_matches(['-', '+']);
    match digits.find(|c: char| !c.is_ascii_digit()) {
        None if !digits.is_empty() => {}
        None | Some(0) => return Answer::error("maxconn string empty or preceded by garbage"),
        Some(_) => return Answer::error("Trailing garbage in maxconn string"),
    }
    let Ok(maxconn) = word.parse::<u32>() else {
        return Answer::error(RANGE);
    };
    operator::set_maxconn(call.shared, &backend, &server, maxconn);
    Answer::Nothing
}

fn rate_limit(call: &mut Call<'_>) -> Answer {
    let world = &call.shared.world();
    let limit = match call.words {
        ["connections", "global", ..] => &world.rate_limits.connections,
        ["sessions", "global", ..] => &world.rate_limits.sessions,
        _ => return Answer::error(RATES),
    };
    let number = match call.words.get(2).map(|word| word.parse::<i64>()) {
        Some(Ok(number)) => number,
        Some(Err(_)) | None => return Answer::error("Expects an integer value."),
    };
    let Ok(rate) = u32::try_from(number) else {
        return Answer::error(RANGE);
    };
    limit.store(rate, Relaxed);
    world.process_rate.set_max(world.rate_limits.lowest());
    world.ports.iter().for_each(|port| port.look_at_acceptors());
    Answer::Nothing
}
