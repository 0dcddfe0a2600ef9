//! Changes to shared state, applied by the control thread alone.
//!
//! A probe's result becomes the server's report, and on a transition its health: the backend's
//! table is published anew, waiting sessions that can now be served are told, the line is written,
//! and what follows from it is done. What is found at the same time is published together.

use std::sync::{Arc, MutexGuard};

use super::lines::{self, Effect, Subject};
use super::messages::Severity;
use super::probe::{Finding, ProbeResult};
use super::{Shared, admin, agent, batch, followers, operator, steps};
use crate::config::plan::ProxyKind;
use crate::health::{Transition, Witness};
use crate::lb::{Admin, Backend, CheckReport, Grant, Health, Server};
use crate::shard::Message;
use crate::sys::clock;

/// Syslog levels of the lines.
const EMERGENCY: u8 = 0;
pub(super) const ALERT: u8 = 1;
pub(super) const NOTICE: u8 = 5;

/// Applies what the probe thread has found, and takes it.
pub(super) fn findings(shared: &Shared, found: &mut Vec<Finding>) {
    let is_first = |finding: &&Finding| matches!(finding, Finding::First);
    let firsts = found.iter().filter(is_first).count();
    batch::together(shared, || {
        found
            .drain(..)
            .for_each(|finding| apply_finding(shared, finding));
    });
    // Clients may come when all of it is in force.
    (0..firsts).for_each(|_| shared.first_checks.one_is_over());
}

pub(super) fn apply_finding(shared: &Shared, finding: Finding) {
    match finding {
        Finding::Probe(result) => probe_result(shared, result),
        Finding::Agent(result) => agent::agent_result(shared, &result),
        Finding::First => {}
    }
}

/// Applies one probe result.
fn probe_result(shared: &Shared, mut result: ProbeResult) {
    let world = shared.world();
    let Some((backend, server)) = world.server_of(result.server) else {
        return;
    };
    let Some(check) = &server.plan.check else {
        return;
    };
    let is_stale = result.restarts != server.restarts();
    if is_stale || server.admin() == Admin::Maintenance || server.tuned.checks_stopped() {
        return;
    }
    // It may be from before a reload that has changed the counts.
    result.rules = result.rules.carried_to(check.rise, check.fall);
    let result = &result;
    let changed = note_result(server, result);
    let logs_checks = logs_checks(backend);
    if changed && logs_checks {
        report_check(shared, backend, server, result);
    }
    if let Some(change) = hear(
        shared,
        backend,
        server,
        Witness::Check,
        result.rules.is_up(),
    ) {
        let reason = if logs_checks {
            String::new()
        } else {
            lines::reason(result)
        };
        report_change(shared, backend, server, change, &reason);
    } else if result.passed() && result.rules.is_up() {
        operator::goes_on(shared, backend, server, result);
    }
}

/// Whether `option log-health-checks` says why servers change in lines of its own.
pub(super) fn logs_checks(backend: &Backend) -> bool {
    let back = backend.proxy.back.as_ref();
    back.is_some_and(|back| back.log_health_checks)
}

/// Applies what a server's traffic, or a probe on its behalf, says of it.
pub(super) fn traffic(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    says: Transition,
    reason: &str,
) {
    let up = says == Transition::Up;
    if let Some(change) = hear(shared, backend, server, Witness::Traffic, up) {
        report_change(shared, backend, server, change, reason);
    }
}

/// A change of a server that is in force.
pub(super) struct Applied {
    pub(super) to: Transition,
    /// Waiting sessions that were given to it, or that no longer wait for it alone.
    pub(super) requeued: usize,
    /// The backend's last server is gone.
    pub(super) was_last: bool,
}

/// Takes a witness's word about a server. If that makes it go up or down, the balancer knows when
/// this returns, or when the batch ends. What happens to a server in maintenance shows when it
/// leaves it.
pub(super) fn hear(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    witness: Witness,
    says_up: bool,
) -> Option<Applied> {
    let to = shared.verdicts_of(server.id, |verdicts| verdicts.hear(witness, says_up))?;
    let health = match to {
        Transition::Up => Health::Up,
        Transition::Down => Health::Down,
    };
    if server.admin() == Admin::Maintenance {
        server.set_health(health);
        return None;
    }
    Some(put_in_force(shared, backend, server, to, |server| {
        server.set_health(health);
    }))
}

/// Changes a server's state, and has the balancer and the statistics know of it.
pub(super) fn put_in_force(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    to: Transition,
    change: impl FnOnce(&Server),
) -> Applied {
    let now_s = clock::unix_ms() / 1000;
    let bound = backend.queued_for(server.id);
    let had_servers = !backend.usable_servers().is_none();
    let served = serves(server);
    change(server);
    if !server.usable() {
        steps::stop(shared, backend, server);
    }
    note_change(server, served, now_s);
    let grants = if batch::defers(shared, backend, Some(server)) {
        Vec::new()
    } else {
        backend.publish()
    };
    backend.note_availability(now_s);
    let requeued = match to {
        Transition::Down => bound,
        Transition::Up => {
            let to_it = |grant: &&Grant| Arc::ptr_eq(&grant.server, server);
            grants.iter().filter(to_it).count()
        }
    };
    send_grants(shared, grants);
    Applied {
        to,
        requeued,
        was_last: had_servers && backend.usable_servers().is_none(),
    }
}

/// Has the balancer know of weights and bounds that were changed.
pub(super) fn publish(shared: &Shared, backend: &Backend) {
    if !batch::defers(shared, backend, None) {
        publish_now(shared, backend);
    }
}

/// Publishes the table of servers as they are.
pub(super) fn publish_now(shared: &Shared, backend: &Backend) {
    let grants = backend.publish();
    backend.note_availability(clock::unix_ms() / 1000);
    send_grants(shared, grants);
}

/// Whether a server counts as there; one in drain does.
fn serves(server: &Server) -> bool {
    server.health() != Health::Down && server.admin() != Admin::Maintenance
}

/// Enters a change into the server's report. `served` is how it was before.
fn note_change(server: &Server, served: bool, now_s: u64) {
    let mut report = report_of(server);
    if !served && report.changed_at_s > 0 {
        report.downtime_s += now_s.saturating_sub(report.changed_at_s);
    }
    report.downs += u64::from(served && !serves(server));
    report.changed_at_s = now_s;
}

/// A server's report, locked.
pub(super) fn report_of(server: &Server) -> MutexGuard<'_, CheckReport> {
    server
        .check
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Enters a result into the server's report; true if it is news: another status than the last one,
/// or another position between up and down.
fn note_result(server: &Server, result: &ProbeResult) -> bool {
    let mut report = report_of(server);
    let changed = report.status != result.status || report.health != result.rules.health();
    report.status = result.status;
    report.code = result.code;
    report.duration_ms = result.duration_ms;
    report.description.clone_from(&result.description);
    report.health = result.rules.health();
    report.failures += u64::from(result.counted_failure);
    changed
}

/// Ends every change: hands servers to the sessions that wait for them, and lets a server that came
/// up begin its slow start.
pub(super) fn send_grants(shared: &Shared, grants: Vec<Grant>) {
    shared.returns.notify_one();
    let world = shared.world();
    for grant in grants {
        let shard = usize::from(grant.waiter.shard.0);
        let Some(port) = world.ports.get(shard) else {
            continue;
        };
        // A port has room for a grant per session of the process, so this goes at the first
        // attempt.
        let mut unsent = port.send(Message::Grant(grant));
        while let Err(back) = unsent {
            std::thread::yield_now();
            unsent = port.send(back);
        }
    }
}

pub(super) fn subject<'a>(backend: &'a Backend, server: &'a Server) -> Subject<'a> {
    Subject {
        backend: &backend.proxy.name,
        server: &server.plan.name,
        is_backup: server.plan.backup,
    }
}

fn report_check(shared: &Shared, backend: &Backend, server: &Server, result: &ProbeResult) {
    let Some(check) = &server.plan.check else {
        return;
    };
    let line = lines::check(subject(backend, server), result, check, server.weight());
    say(shared, backend, NOTICE, line);
}

/// A server has reached its whole weight. HAProxy says of it that it is up, once more.
pub(super) fn report_arrival(shared: &Shared, backend: &Backend, server: &Server, requeued: usize) {
    let change = Applied {
        to: Transition::Up,
        requeued,
        was_last: false,
    };
    let effect = effect(backend, server, &change);
    let line = lines::transition(subject(backend, server), change.to, "", effect);
    say(shared, backend, NOTICE, line);
}

/// Writes that a server went up or down, and lets follow what follows from it; `reason` is empty or
/// begins with what parts it from the line.
pub(super) fn report_change(
    shared: &Shared,
    backend: &Backend,
    server: &Server,
    change: Applied,
    reason: &str,
) {
    let line = lines::transition(
        subject(backend, server),
        change.to,
        reason,
        effect(backend, server, &change),
    );
    // A server that gets no connections anyway is nobody's alarm.
    let is_alarm = change.to == Transition::Down && server.admin() == Admin::Ready;
    let level = if is_alarm { ALERT } else { NOTICE };
    say(shared, backend, level, line);
    admin::remind_of_drain(shared, backend, server);
    report_last(shared, backend, &change);
    followers::after_change(shared, backend, server, change.to);
}

/// What a change that is in force means to sessions.
pub(super) fn effect(backend: &Backend, server: &Server, change: &Applied) -> Effect {
    Effect {
        usable: backend.usable_servers(),
        sessions: server.active(),
        requeued: change.requeued,
        queued: backend.queued(),
    }
}

/// Writes a line about a server.
pub(super) fn say(shared: &Shared, backend: &Backend, level: u8, line: String) {
    let proxy = backend.proxy.proxy_id;
    shared
        .messages
        .for_proxy(proxy, level, Severity::Warning, line);
}

/// Writes that the last server is gone, if it is.
pub(super) fn report_last(shared: &Shared, backend: &Backend, change: &Applied) {
    if !change.was_last {
        return;
    }
    let proxy = backend.proxy.proxy_id;
    let kind = match backend.proxy.kind {
        ProxyKind::Listen => "proxy",
        ProxyKind::Backend | ProxyKind::Frontend => "backend",
    };
    let name = &backend.proxy.name;
    // HAProxy quotes the name for people and not for log tools.
    let line = format!("{kind} {name} has no server available!");
    shared.messages.for_logs(proxy, EMERGENCY, line);
    let line = format!("{kind} '{name}' has no server available!");
    shared.messages.console(Severity::Alert, &line);
}
