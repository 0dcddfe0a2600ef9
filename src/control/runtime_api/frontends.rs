//! `disable`, `enable` and `shutdown frontend`.

use std::sync::PoisonError;

use super::command::{Answer, Call, Command, Run};
use super::subject;
use crate::config::plan::{Level, Proxy, ProxyKind};
use crate::control::Shared;
use crate::control::messages::Severity;
use crate::lb::Backend;
use crate::shard::{FrontCounter, FrontState, Frontend};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["disable", "frontend"], level: Level::Admin, usage: "disable frontend <frontend>",
        help: "let clients of a frontend wait outside", run: Run::Now(disable) },
    Command { words: &["enable", "frontend"], level: Level::Admin, usage: "enable frontend <frontend>",
        help: "let clients of a frontend in again", run: Run::Now(enable) },
    Command { words: &["shutdown", "frontend"], level: Level::Admin, usage: "shutdown frontend <frontend>",
        help: "close a frontend's sockets for good", run: Run::Now(shut_down) },
];

/// Syslog's level of the lines.
const WARNING: u8 = 4;

fn disable(call: &mut Call<'_>) -> Answer {
    let frontend = match subject::frontend(call.shared, call.words.first()) {
        Ok(frontend) => frontend,
        Err(answer) => return answer,
    };
    match frontend.state() {
        FrontState::Shut => {
            return Answer::error("Frontend was previously shut down, cannot disable.");
        }
        FrontState::Paused => return Answer::error("All sockets are already disabled."),
        FrontState::Open => {}
    }
    change(call.shared, &frontend, FrontState::Paused);
    say(
        call.shared,
        &frontend,
        format!("Paused {}.", named(&frontend.proxy)),
    );
    Answer::Nothing
}

fn enable(call: &mut Call<'_>) -> Answer {
    let frontend = match subject::frontend(call.shared, call.words.first()) {
        Ok(frontend) => frontend,
        Err(answer) => return answer,
    };
    match frontend.state() {
        FrontState::Shut => {
            return Answer::error("Frontend was previously shut down, cannot enable.");
        }
        FrontState::Open => return Answer::error("All sockets are already enabled."),
        FrontState::Paused => {}
    }
    change(call.shared, &frontend, FrontState::Open);
    say(
        call.shared,
        &frontend,
        format!("Resumed {}.", named(&frontend.proxy)),
    );
    Answer::Nothing
}

fn shut_down(call: &mut Call<'_>) -> Answer {
    let shared = call.shared;
    let frontend = match subject::frontend(shared, call.words.first()) {
        Ok(frontend) => frontend,
        Err(answer) => return answer,
    };
    if frontend.state() == FrontState::Shut {
        return Answer::error("Frontend was already shut down.");
    }
    if let Some(registry) = shared.registry.get() {
        let id = frontend.proxy.proxy_id;
        let world = shared.world();
        let is_its = |listener| {
            let listener = world.listener(listener);
            listener.is_some_and(|listener| listener.proxy_id == id)
        };
        let mut registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.release_some(is_its);
    }
    change(shared, &frontend, FrontState::Shut);
    let sum =
        |counters: &crate::shard::ProxyCounters| counters.sum_ever(FrontCounter::Sessions as usize);
    let world = shared.world();
    let backend = world.backend(frontend.proxy.proxy_id);
    let of_backend = |backend: &std::sync::Arc<Backend>| sum(world.counters_of(backend));
    let line = format!(
        "Proxy {} stopped (cumulated conns: FE: {}, BE: {}).",
        frontend.proxy.name,
        sum(&frontend.counters),
        backend.map_or(0, of_backend)
    );
    say(shared, &frontend, line);
    Answer::Nothing
}

fn change(shared: &Shared, frontend: &Frontend, state: FrontState) {
    frontend.set_state(state);
    for port in &shared.world().ports {
        port.look_at_acceptors();
    }
    shared.frontends_changed();
}

fn say(shared: &Shared, frontend: &Frontend, line: String) {
    let proxy = frontend.proxy.proxy_id;
    shared
        .messages
        .for_proxy(proxy, WARNING, Severity::Warning, line);
}

/// How HAProxy's lines call it.
fn named(proxy: &Proxy) -> String {
    let kind = match proxy.kind {
        ProxyKind::Listen => "proxy",
        ProxyKind::Frontend | ProxyKind::Backend => "frontend",
    };
    format!("{kind} {}", proxy.name)
}
