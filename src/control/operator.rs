//! What operators say of servers, put in force: health, weight, limits, what checks and agents do.
//!
//! Drain and maintenance are in `admin`; which words lead here, in `runtime_api`. A word about
//! health is taken as that of the witness in whose name it is said, who may contradict later.

use std::sync::Arc;

use super::apply::{self, NOTICE};
use super::probe::ProbeResult;
use super::{Shared, admin, followers, lines};
use crate::health::{Rules, Transition, Witness};
use crate::lb::{Admin, Backend, Health, Server};

/// Why a server has changed, in lines.
const REASON: &str = ", changed from CLI";

/// What an operator says of a server's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// It is well, whoever says something else.
    Up,
    /// It gets no new connections until a check finds it well.
    Stopping,
    /// It is down until its checks say otherwise.
    Down,
}

/// Takes an operator's word about the health of a server that tracks no other.
pub(super) fn set_health(shared: &Shared, backend: &Backend, server: &Arc<Server>, said: Said) {
    if let Some(check) = &server.plan.check {
        let rules = Rules::of(check);
        let position = match said {
            Said::Up => rules.top(),
            Said::Stopping => rules.rise(),
            Said::Down => 0,
        };
        server.restart_checks_at(position);
        apply::report_of(server).health = position;
    }
    match said {
        Said::Up => come_up(shared, backend, server),
        Said::Stopping => {
            acquit(shared, server);
            stop(shared, backend, server, REASON);
        }
        Said::Down => {
            if let Some(change) = apply::hear(shared, backend, server, Witness::Check, false) {
                apply::report_change(shared, backend, server, change, REASON);
            }
        }
    }
}

/// Whoever has said that it is down is not heard until he says it again.
fn come_up(shared: &Shared, backend: &Backend, server: &Arc<Server>) {
    let was_up = acquit(shared, server) && server.health() != Health::Stopping;
    if server.admin() == Admin::Maintenance {
        server.set_health(Health::Up);
    } else if !was_up {
        resume(shared, backend, server, REASON);
    }
}

/// Takes back what its checks, its agent and its traffic have said; whether it was up before.
fn acquit(shared: &Shared, server: &Server) -> bool {
    shared.agents.force_if_known(server.id, true);
    shared.verdicts_of(server.id, |verdicts| {
        let was_up = verdicts.is_up();
        for witness in [Witness::Check, Witness::Agent, Witness::Traffic] {
            verdicts.hear(witness, true);
        }
        was_up
    })
}

/// A server takes new connections again.
pub(super) fn resume(shared: &Shared, backend: &Backend, server: &Arc<Server>, reason: &str) {
    let up = |server: &Server| server.set_health(Health::Up);
    let change = apply::put_in_force(shared, backend, server, Transition::Up, up);
    apply::report_change(shared, backend, server, change, reason);
}

/// A server whose tracked one is stopping does so too, unless it is down by itself.
pub(super) fn stop_too(shared: &Shared, backend: &Backend, server: &Arc<Server>, reason: &str) {
    let is_up = shared.verdicts_of(server.id, |verdicts| {
        verdicts.hear(Witness::Tracked, true);
        verdicts.is_up()
    });
    if is_up {
        stop(shared, backend, server, reason);
    }
}

/// A server gets no new connections, and is there for those that it has.
pub(super) fn stop(shared: &Shared, backend: &Backend, server: &Arc<Server>, reason: &str) {
    if server.admin() == Admin::Maintenance || server.health() == Health::Stopping {
        return;
    }
    let stopping = |server: &Server| server.set_health(Health::Stopping);
    let change = apply::put_in_force(shared, backend, server, Transition::Up, stopping);
    let effect = apply::effect(backend, server, &change);
    let line = lines::stopping(apply::subject(backend, server), reason, effect);
    apply::say(shared, backend, NOTICE, line);
    admin::remind_of_drain(shared, backend, server);
    apply::report_last(shared, backend, &change);
    followers::follow(shared, server);
}

/// A check has found a server well: it is not stopping any more, if it was.
pub(super) fn goes_on(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    result: &ProbeResult,
) {
    if server.health() == Health::Stopping {
        let logs_checks = apply::logs_checks(backend);
        let reason = match logs_checks {
            true => String::new(),
            false => lines::reason(result),
        };
        resume(shared, backend, server, &reason);
    }
}

/// Takes an operator's word for that of a server's agent.
pub(super) fn set_agent(shared: &Shared, backend: &Backend, server: &Arc<Server>, is_up: bool) {
    shared.agents.force(server.id, is_up);
    if let Some(change) = apply::hear(shared, backend, server, Witness::Agent, is_up) {
        apply::report_change(shared, backend, server, change, REASON);
    }
}

/// Sets a server's weight.
pub(super) fn set_weight(shared: &Shared, backend: &Backend, server: &Server, weight: u32) {
    if weight != server.weight() {
        server.set_weight(weight);
        apply::publish(shared, backend);
    }
}

/// Sets the part of its weight that a server has, percent.
pub(super) fn set_part(shared: &Shared, backend: &Backend, server: &Server, percent: u32) {
    if percent != server.part() {
        server.set_part(percent);
        apply::publish(shared, backend);
    }
}

/// Sets a server's `maxconn`, 0 = unlimited. Sessions that wait get what room there is then.
pub(super) fn set_maxconn(shared: &Shared, backend: &Backend, server: &Server, maxconn: u32) {
    server.set_maxconn(maxconn);
    apply::publish(shared, backend);
}
