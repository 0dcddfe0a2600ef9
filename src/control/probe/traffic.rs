//! Errors of a server's traffic, as its checks take them (`observe` with `on-error`).
//!
//! They come while a server waits for its next probe, or while it is being probed. What follows
//! from them follows at once; a probe that was under way when they took the server down doesn't
//! speak for it any more.

use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, Sender};

use super::Target;
use super::result::{Finding, ProbeResult};
use crate::base::time::Moment;
use crate::config::plan::{Check, OnError};
use crate::control::passive::errors_text;
use crate::health::{Rules, Transition};
use crate::lb::{Admin, Server};
use crate::sys::clock;

/// What errors cut short.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Whatever they do.
    Always,
    /// If they take the server down.
    WhenDown,
}

/// Errors of one server's traffic.
pub(super) struct Errors {
    /// One message for each `error-limit` errors in a row; `None` = nobody observes.
    told: Option<Receiver<()>>,
    server: Arc<Server>,
    findings: Sender<Finding>,
}

impl Errors {
    /// Those of a target.
    pub(super) fn of(
        target: &Target<Check>,
        told: Option<Receiver<()>>,
        findings: &Sender<Finding>,
    ) -> Errors {
        Errors {
            told,
            server: Arc::clone(&target.server),
            findings: findings.clone(),
        }
    }

    /// Waits for `work` and acts on errors meanwhile: on the rules, and on the start of the next
    /// probe. `None` = they cut it short.
    pub(super) async fn during<T>(
        &mut self,
        work: impl Future<Output = T>,
        rules: &mut Rules,
        due: &mut Moment,
        cut: Cut,
    ) -> Option<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = next(&mut self.told) => {}
            }
            let went_down = self.act(rules, due).await;
            if went_down || cut == Cut::Always {
                return None;
            }
        }
    }

    /// Does what `on-error` says; true if that took the server down.
    async fn act(&self, rules: &mut Rules, due: &mut Moment) -> bool {
        let plan = &self.server.plan;
        let (Some(observe), Some(check)) = (plan.passive.observe, &plan.check) else {
            return false;
        };
        if self.server.admin() == Admin::Maintenance {
            return false;
        }
        let soon = clock::now().after_ms(u64::from(check.fast_inter_ms));
        *due = soon.min(*due);
        if observe.on_error == OnError::FastInter {
            return false;
        }
        let counted_failure = rules.counts_failure();
        let transition = rules.on_error(observe.on_error);
        let result = ProbeResult {
            server: self.server.id,
            status: "HANA",
            code: None,
            duration_ms: 0,
            description: errors_text(observe),
            counted_failure,
            rules: *rules,
            restarts: self.server.restarts(),
        };
        // The control thread goes only with the process.
        let _ = self.findings.send(Finding::Probe(result)).await;
        transition == Some(Transition::Down)
    }
}

async fn next(told: &mut Option<Receiver<()>>) {
    if let Some(errors) = told {
        if errors.recv().await.is_some() {
            return;
        }
        *told = None;
    }
    std::future::pending().await
}
