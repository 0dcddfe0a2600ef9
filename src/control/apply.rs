//! Changes to shared state, applied by the control thread alone.
//!
//! A probe's result becomes the server's report, and on a transition its health: the backend's
//! table is published anew, waiting sessions that can now be served are told, and the line is
//! written.

use std::sync::Arc;

use super::Shared;
use super::messages::Severity;
use super::probe::ProbeResult;
use crate::config::plan::ProxyKind;
use crate::lb::{Backend, Grant, Health};
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
    let now_s = clock::unix_ms() / 1000;
    {
        let mut report = server
            .check
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        report.status = result.status;
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
    }
    if let Some(health) = result.transition {
        server.set_health(health);
        send_grants(shared, backend.publish());
        report_transition(shared, backend, result, health);
    }
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

fn report_transition(shared: &Shared, backend: &Arc<Backend>, result: &ProbeResult, to: Health) {
    let usable = backend.usable_servers();
    let Some(server) = backend.servers.get(result.server_index) else {
        return;
    };
    let line = transition_line(
        &backend.proxy.name,
        &server.plan.name,
        result,
        usable,
        server.active(),
        backend.queued(),
    );
    let proxy = backend.proxy.proxy_id;
    let level = if to == Health::Down { ALERT } else { NOTICE };
    shared
        .messages
        .for_proxy(proxy, level, Severity::Warning, line);
    if to == Health::Down && usable == 0 {
        let kind = match backend.proxy.kind {
            ProxyKind::Listen => "proxy",
            ProxyKind::Backend | ProxyKind::Frontend => "backend",
        };
        let line = format!("{kind} '{}' has no server available!", backend.proxy.name);
        shared
            .messages
            .for_proxy(proxy, EMERGENCY, Severity::Alert, line);
    }
}

/// The line in HAProxy's words.
fn transition_line(
    backend: &str,
    server: &str,
    result: &ProbeResult,
    usable: usize,
    sessions: u32,
    queued: usize,
) -> String {
    let reason = result.reason();
    let info = match result.description.as_str() {
        "" => String::new(),
        text => format!(", info: \"{text}\""),
    };
    let duration = result.duration_ms;
    let head = |word: &str| {
        format!(
            "Server {backend}/{server} is {word}, reason: {reason}{info}, check duration: \
             {duration}ms. {usable} active and 0 backup servers"
        )
    };
    match result.transition {
        Some(Health::Down) => format!(
            "{} left. {sessions} sessions active, 0 requeued, {queued} remaining in queue.",
            head("DOWN")
        ),
        _ => format!(
            "{} online. 0 sessions requeued, {queued} total in queue.",
            head("UP")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ProxyId;

    #[test]
    fn lines_are_as_haproxy_has_them() {
        let mut result = ProbeResult {
            proxy: ProxyId(0),
            server_index: 0,
            status: "L4CON",
            duration_ms: 0,
            description: "Connection refused".to_owned(),
            counted_failure: true,
            health: 0,
            transition: Some(Health::Down),
        };
        assert_eq!(
            transition_line("bk", "s1", &result, 1, 0, 0),
            "Server bk/s1 is DOWN, reason: Layer4 connection problem, info: \"Connection \
             refused\", check duration: 0ms. 1 active and 0 backup servers left. 0 sessions \
             active, 0 requeued, 0 remaining in queue."
        );
        result.status = "L4OK";
        result.description.clear();
        result.transition = Some(Health::Up);
        assert_eq!(
            transition_line("bk", "s1", &result, 2, 0, 0),
            "Server bk/s1 is UP, reason: Layer4 check passed, check duration: 0ms. 2 active and \
             0 backup servers online. 0 sessions requeued, 0 total in queue."
        );
    }
}
