//! Servers begin as a state file says: in the place of an operator who repeats what was said before
//! the end of the last process, before anybody probes and any client comes.

use std::sync::Arc;

use super::apply::{self, report_of};
use super::operator::{self, Said};
use super::{Shared, admin, batch};
use crate::config::plan::{SavedHealth, SavedService, SavedState};
use crate::health::{Rules, Witness};
use crate::lb::{Admin, Backend, Health, Server};
use crate::sys::clock;

/// Why servers change, in lines.
const REASON: &str = ", changed from server-state after a reload";

/// HAProxy's numbers of what checks find, from 5 on; those before are of no check.
const STATUSES: [&str; 16] = [
    "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "", "L7OK",
    "L7OKC", "L7STS", "PROCERR", "PROCTOUT", "PROCOK",
];
const STATUS_FIRST: u8 = 5;

/// Gives the plan's servers the state that files say they had; those that have come before keep
/// the state they have.
pub(super) fn begin(shared: &Shared, is_new: impl Fn(&Server) -> bool) {
    let world = shared.world();
    let states = &world.plan.saved;
    let of = |state: &SavedState| {
        let server = world.server(state.proxy_id, state.index);
        server.filter(|(_, server)| is_new(server))
    };
    batch::together(shared, || {
        for state in states {
            if let Some((backend, server)) = of(state) {
                restore(shared, backend, server, state);
            }
        }
    });
    // What follows from others' states may have come in between.
    let now_s = clock::unix_ms() / 1000;
    for state in states {
        if let Some((_, server)) = of(state) {
            let mut report = report_of(server);
            report.changed_at_s = now_s.saturating_sub(state.changed_ago_s).max(1);
            // They happened to another process.
            report.downs = 0;
            report.downtime_s = 0;
        }
    }
}

fn restore(shared: &Shared, backend: &Backend, server: &Arc<Server>, state: &SavedState) {
    if let Some(weight) = state.weight {
        operator::set_weight(shared, backend, server, u32::from(weight));
    }
    let own = match state.service {
        SavedService::Ready => Admin::Ready,
        SavedService::Drain => Admin::Drain,
        SavedService::Maintenance => Admin::Maintenance,
    };
    admin::set_own(shared, backend, server, own);
    if state.checks_stopped || state.agent_stopped {
        server.tuned.change(|tuning| {
            tuning.checks_stopped = state.checks_stopped;
            tuning.agent_stopped = state.agent_stopped;
        });
    }
    if let Some(health) = state.health {
        let said = match health {
            SavedHealth::Up => Said::Up,
            SavedHealth::Stopping => Said::Stopping,
            SavedHealth::Down => Said::Down,
        };
        restore_health(shared, backend, server, state, said);
    }
}

fn restore_health(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    state: &SavedState,
    said: Said,
) {
    if let Some(check) = &server.plan.check {
        let rules = Rules::of(check);
        // `rise` and `fall` may be others than they were.
        let position = match said {
            Said::Down => state.check_position.min(rules.rise() - 1),
            Said::Up | Said::Stopping => state.check_position.clamp(rules.rise(), rules.top()),
        };
        server.restart_checks_at(position);
        let mut report = report_of(server);
        report.health = position;
        report.status = status(state.check_status);
    }
    match said {
        Said::Stopping => operator::stop(shared, backend, server, REASON),
        Said::Up if server.health() != Health::Down => {}
        Said::Up | Said::Down => {
            let is_up = said == Said::Up;
            if let Some(change) = apply::hear(shared, backend, server, Witness::Check, is_up) {
                apply::report_change(shared, backend, server, change, REASON);
            }
        }
    }
}

/// What a check has found, by its number; empty if nothing.
fn status(number: u8) -> &'static str {
    let index = number.checked_sub(STATUS_FIRST).map(usize::from);
    index
        .and_then(|index| STATUSES.get(index))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_haproxy() {
        let known = [(0, ""), (1, ""), (6, "L4OK"), (8, "L4CON"), (15, "L7OK")];
        for (number, name) in known.into_iter().chain([(17, "L7STS"), (20, "PROCOK")]) {
            assert_eq!(status(number), name, "{number}");
        }
        assert_eq!((status(21), status(255)), ("", ""));
    }
}
