//! What agents say, put in force: state, weight and `maxconn` first, then whether the server is up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::apply::{self, NOTICE};
use super::probe::AgentResult;
use super::{Shared, admin, lines};
use crate::base::ids::ServerId;
use crate::config::change::AdminState;
use crate::health::{Answer, Witness};
use crate::lb::{Admin, Backend, Server};

/// What was found last of each agent, for statistics.
#[derive(Debug, Default)]
pub(super) struct Agents {
    reports: Mutex<HashMap<ServerId, AgentReport>>,
    failures: AtomicU64,
}

/// What was found last of an agent.
#[derive(Clone, Debug)]
pub(super) struct AgentReport {
    /// `L7OK`, `L7STS`, `CHECKED`, `L7RSP`, `L7TOUT`, `L4TOUT`, `L4CON`, `SOCKERR`, `INI`.
    pub(super) status: &'static str,
    /// How long the last question took.
    pub(super) duration_ms: u64,
    /// Text of the last answer or failure.
    pub(super) description: String,
    /// Whether it says that the server is up; so it is taken until it says otherwise.
    pub(super) is_up: bool,
}

impl Default for AgentReport {
    fn default() -> AgentReport {
        AgentReport {
            status: "INI",
            duration_ms: 0,
            description: String::new(),
            is_up: true,
        }
    }
}

impl Agents {
    /// What was found last of a server's agent.
    pub(super) fn of(&self, server: ServerId) -> AgentReport {
        self.locked().get(&server).cloned().unwrap_or_default()
    }

    /// Forgets what was found of a server's agent: it has another one, or none.
    pub(super) fn forget(&self, server: ServerId) {
        self.locked().remove(&server);
    }

    /// Questions without an answer, of all agents.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// The same for a server that may have no agent.
    pub(super) fn force_if_known(&self, server: ServerId, is_up: bool) {
        if let Some(report) = self.locked().get_mut(&server) {
            report.is_up = is_up;
        }
    }

    /// Takes an operator's word for what the agent says.
    pub(super) fn force(&self, server: ServerId, is_up: bool) {
        self.locked().entry(server).or_default().is_up = is_up;
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<ServerId, AgentReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a result: whether its status is another than before, and whether the agent says, now
    /// or last, that the server is up.
    fn note(&self, server: ServerId, result: &AgentResult) -> (bool, bool) {
        if result.answer.is_none() {
            self.failures.fetch_add(1, Relaxed);
        }
        let mut reports = self.locked();
        let report = reports.entry(server).or_default();
        let is_news = report.status != result.status;
        report.status = result.status;
        report.duration_ms = result.duration_ms;
        report.description.clone_from(&result.description);
        let says_up = result.answer.as_ref().and_then(|answer| answer.says_up);
        report.is_up = says_up.unwrap_or(report.is_up);
        (is_news, report.is_up)
    }
}

/// Applies what asking an agent has brought.
pub(super) fn agent_result(shared: &Shared, result: &AgentResult) {
    let world = shared.world();
    let Some((backend, server)) = world.server_of(result.server) else {
        return;
    };
    if server.tuned.agent_stopped() || server.plan.watch.agent.is_none() {
        return;
    }
    if let Some(answer) = &result.answer {
        if let Some(state) = answer.admin {
            admin::set_own(shared, backend, server, admin_of(state));
        }
        set_numbers(shared, backend, server, answer);
    }
    let (is_news, is_up) = shared.agents.note(server.id, result);
    let logs_checks = apply::logs_checks(backend);
    if is_news && logs_checks && result.status != "CHECKED" {
        let subject = apply::subject(backend, server);
        apply::say(
            shared,
            backend,
            NOTICE,
            lines::agent(subject, result, is_up),
        );
    }
    let Some(says_up) = result.answer.as_ref().and_then(|answer| answer.says_up) else {
        return;
    };
    if let Some(change) = apply::hear(shared, backend, server, Witness::Agent, says_up) {
        let reason = if logs_checks {
            String::new()
        } else {
            lines::agent_reason(result)
        };
        apply::report_change(shared, backend, server, change, &reason);
    }
}

fn admin_of(state: AdminState) -> Admin {
    match state {
        AdminState::Ready => Admin::Ready,
        AdminState::Drain => Admin::Drain,
        AdminState::Maintenance => Admin::Maintenance,
    }
}

/// Weight and `maxconn`; what is so already leaves the table as it is.
fn set_numbers(shared: &Shared, backend: &Backend, server: &Server, answer: &Answer) {
    let weight = answer.weight.map(|weight| weight.of(server.plan.weight));
    let weight = weight.filter(|weight| *weight != server.weight());
    let unlimited = |maxconn| if maxconn == 0 { u32::MAX } else { maxconn };
    let maxconn = answer.maxconn.filter(|n| unlimited(*n) != server.maxconn());
    if weight.is_none() && maxconn.is_none() {
        return;
    }
    if let Some(weight) = weight {
        server.set_weight(weight);
    }
    if let Some(maxconn) = maxconn {
        server.set_maxconn(maxconn);
    }
    apply::publish(shared, backend);
}
