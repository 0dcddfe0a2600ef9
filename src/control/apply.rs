//! Changes to shared state, applied by the control thread alone.
//!
//! A probe's result becomes the server's report, and on a transition its health: the backend's
//! table is published anew, waiting sessions that can now be served are told, and the line is
//! written.

use std::sync::Arc;

use super::Shared;
use super::lines::{self, Effect, Subject};
use super::messages::Severity;
use super::probe::ProbeResult;
use crate::config::plan::ProxyKind;
use crate::health::{Transition, Witness};
use crate::lb::{Backend, Grant, Health, Server};
use crate::shard::Message;
use crate::sys::clock;

/// Syslog levels of the lines.
const EMERGENCY: u8 = 0;
const ALERT: u8 = 1;
const NOTICE: u8 = 5;

/// Applies one probe result.
pub(super) fn probe_result(shared: &Shared, result: &ProbeResult) {
    let Some(backend) = shared.world.backend(result.proxy) else {
        return;
    };
    let Some(server) = backend.servers.get(result.server_index) else {
        return;
    };
    let changed = note_result(server, result);
    let logs_checks = backend
        .proxy
        .back
        .as_ref()
        .is_some_and(|back| back.log_health_checks);
    if changed && logs_checks {
        report_check(shared, backend, server, result);
    }
    if let Some(health) = result.transition {
        let up = health != Health::Down;
        if let Some(change) = hear(shared, backend, server, Witness::Check, up) {
            let reason = if logs_checks {
                String::new()
            } else {
                lines::reason(result)
            };
            report_change(shared, backend, server, change, &reason);
        }
    }
}

/// A change of a server that is in force.
struct Applied {
    to: Transition,
    /// Waiting sessions that were given to it, or that no longer wait for it alone.
    requeued: usize,
}

/// Takes a witness's word about a server. If that makes it go up or down, the balancer knows when
/// this returns.
fn hear(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    witness: Witness,
    says_up: bool,
) -> Option<Applied> {
    let to = shared.verdicts_of(server.id, |verdicts| verdicts.hear(witness, says_up))?;
    let bound = backend.queued_for(server.id);
    server.set_health(match to {
        Transition::Up => Health::Up,
        Transition::Down => Health::Down,
    });
    let grants = backend.publish();
    backend.note_availability(clock::unix_ms() / 1000);
    let requeued = match to {
        Transition::Down => bound,
        Transition::Up => {
            let to_it = |grant: &&Grant| Arc::ptr_eq(&grant.server, server);
            grants.iter().filter(to_it).count()
        }
    };
    send_grants(shared, grants);
    Some(Applied { to, requeued })
}

/// Enters a result into the server's report; true if it is news: another status than the last one,
/// or another position between up and down.
fn note_result(server: &Server, result: &ProbeResult) -> bool {
    let now_s = clock::unix_ms() / 1000;
    let mut report = server
        .check
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let changed = report.status != result.status || report.health != result.health;
    report.status = result.status;
    report.code = result.code;
    report.duration_ms = result.duration_ms;
    report.description.clone_from(&result.description);
    report.health = result.health;
    report.failures += u64::from(result.counted_failure);
    match result.transition {
        Some(Health::Down) => {
            report.downs += 1;
            report.changed_at_s = now_s;
        }
        Some(_) => {
            let since = if report.changed_at_s > 0 {
                report.changed_at_s
            } else {
                now_s
            };
            report.downtime_s += now_s.saturating_sub(since);
            report.changed_at_s = now_s;
        }
        None => {}
    }
    changed
}

/// Hands servers to the sessions that wait for them.
fn send_grants(shared: &Shared, grants: Vec<Grant>) {
    for grant in grants {
        let shard = usize::from(grant.waiter.shard.0);
        let Some(port) = shared.world.ports.get(shard) else {
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

fn subject<'a>(backend: &'a Backend, server: &'a Server) -> Subject<'a> {
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
    let proxy = backend.proxy.proxy_id;
    shared
        .messages
        .for_proxy(proxy, NOTICE, Severity::Warning, line);
}

/// Writes that a server went up or down; `reason` is empty or begins with a comma.
fn report_change(
    shared: &Shared,
    backend: &Backend,
    server: &Server,
    change: Applied,
    reason: &str,
) {
    let usable = backend.usable_servers();
    let effect = Effect {
        usable,
        sessions: server.active(),
        requeued: change.requeued,
        queued: backend.queued(),
    };
    let line = lines::transition(subject(backend, server), change.to, reason, effect);
    let proxy = backend.proxy.proxy_id;
    let level = if change.to == Transition::Down {
        ALERT
    } else {
        NOTICE
    };
    shared
        .messages
        .for_proxy(proxy, level, Severity::Warning, line);
    if change.to == Transition::Down && usable.is_none() {
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
}
