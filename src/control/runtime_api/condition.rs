//! The part of a server's row in `show stat` that says how the server is: its status, and what
//! checks and agents have found.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::table::Row;
use crate::control::apply::report_of;
use crate::control::probe::status_text;
use crate::control::{Shared, followers};
use crate::lb::{Admin, Health, Server};
use crate::sys::clock;

pub(super) fn check_columns(row: &mut Row, shared: &Shared, server: &Server) {
    let report = report_of(server).clone();
    let since_s = since_change_s(shared, report.changed_at_s);
    row.set("lastchg", since_s);
    if let Some(tracked) = &server.plan.watch.tracks {
        row.set("tracked", &*tracked.name);
    }
    if server.plan.watch.agent.is_some() && !server.tuned.agent_stopped() {
        agent_columns(row, shared, server);
    }
    let passive = &server.plan.passive;
    if passive.observe.is_some() || passive.breaker.is_some() {
        row.set("hanafail", server.observed.analyzed.load(Relaxed));
    }
    let is_watched = passive.breaker.is_some() && !report.status.is_empty();
    let is_checked = server.plan.check.is_some() && !server.tuned.checks_stopped();
    if !is_checked && !is_watched {
        return;
    }
    let status = if report.status.is_empty() {
        "INI"
    } else {
        report.status
    };
    let is_down = server.health() == Health::Down || server.admin() == Admin::Maintenance;
    let down_now_s = if is_down { since_s } else { 0 };
    row.set("chkfail", report.failures);
    row.set("chkdown", report.downs);
    row.set("downtime", report.downtime_s + down_now_s);
    // In maintenance nobody looks, and what was found before says nothing.
    if server.admin() == Admin::Maintenance {
        return;
    }
    row.set("check_status", status);
    if let Some(code) = report.code {
        row.set("check_code", code);
    }
    // What traffic has shown took no time.
    if status != "HANA" {
        row.set("check_duration", report.duration_ms);
    }
    row.set("last_chk", &report.description);
    row.set("check_desc", status_text(status));
    let Some(check) = &server.plan.check else {
        return;
    };
    row.set("check_rise", check.rise);
    row.set("check_fall", check.fall);
    row.set("check_health", report.health);
}

fn agent_columns(row: &mut Row, shared: &Shared, server: &Server) {
    let report = shared.agents.of(server.id);
    row.set("agent_status", report.status);
    if matches!(report.status, "L7OK" | "L7STS") {
        row.set("agent_code", 0);
    }
    row.set("agent_duration", report.duration_ms);
    row.set("last_agt", &report.description);
    row.set("agent_desc", status_text(report.status));
    row.set("agent_rise", 1);
    row.set("agent_fall", 1);
    row.set("agent_health", u8::from(report.is_up));
}

/// Seconds since a change at a Unix time in seconds; since the start if there was none (0).
pub(super) fn since_change_s(shared: &Shared, changed_at_s: u64) -> u64 {
    match changed_at_s {
        0 => clock::now().ms_since(shared.facts.started) / 1000,
        changed_at_s => (clock::unix_ms() / 1000).saturating_sub(changed_at_s),
    }
}

/// The server's state as HAProxy words it: `UP 1/3` is up with failures, `DOWN 1/2` down with
/// passes. A server that tracks another shows how far that one is.
pub(super) fn server_status(shared: &Shared, server: &Arc<Server>) -> String {
    if server.is_removed() {
        return "DRAIN (removed)".to_owned();
    }
    if !server.resolved() {
        return "MAINT (resolution)".to_owned();
    }
    let world = shared.world();
    let root = followers::root_of(&world, server).unwrap_or(server);
    let agent = root.plan.watch.agent.as_ref();
    let agent = agent.map(|_| shared.agents.of(root.id));
    let is_down = server.health() == Health::Down;
    match server.admin() {
        Admin::Maintenance => {
            let standing = shared.standing_of(server.id, |standing| *standing);
            return match &server.plan.watch.tracks {
                Some(tracked) if standing.inherited == Admin::Maintenance => {
                    format!("MAINT (via {})", tracked.name)
                }
                _ => "MAINT".to_owned(),
            };
        }
        Admin::Drain if !is_down && agent.is_some() => return "DRAIN (agent)".to_owned(),
        Admin::Drain if !is_down => return "DRAIN".to_owned(),
        Admin::Drain | Admin::Ready => {}
    }
    if is_down && agent.is_some_and(|agent| !agent.is_up) {
        return "DOWN (agent)".to_owned();
    }
    let is_stopping = server.health() == Health::Stopping;
    let check = root.plan.check.as_ref();
    let Some(check) = check.filter(|_| !root.tuned.checks_stopped()) else {
        return match (is_down, is_stopping) {
            (true, _) => "DOWN",
            (false, true) => "NOLB",
            (false, false) => "no check",
        }
        .to_owned();
    };
    let health = report_of(root).health;
    let (rise, fall) = (check.rise.max(1), check.fall.max(1));
    let full = rise.saturating_add(fall) - 1;
    match is_down {
        true if health > 0 && health < rise => format!("DOWN {health}/{rise}"),
        true => "DOWN".to_owned(),
        false => {
            let word = if is_stopping { "NOLB" } else { "UP" };
            match health >= full || health < rise {
                true => word.to_owned(),
                false => format!("{word} {}/{fall}", health - rise + 1),
            }
        }
    }
}
