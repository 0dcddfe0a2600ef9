//! Probes of servers that failed connections have taken out: one each time it is ordered, to the
//! server's own address, whether it has checks or not.
//!
//! A probe waits for its moment as long as the backend has other servers. Once it has lost the last
//! one, all that are out are probed every second: however long `fail-timeout` is, clients needn't
//! be refused for longer than the servers are gone. All of them and not the first alone, so that it
//! doesn't have to carry the load of the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender};

use super::attempt::Outcome;
use super::{ProbeResult, attempt, in_words};
use crate::base::ids::ServerId;
use crate::base::time::Moment;
use crate::health::Rules;
use crate::lb::{Admin, Backend, Server};
use crate::sys::clock;

/// Time between probes while a backend has no server.
const NONE_LEFT: Duration = Duration::from_secs(1);

/// What the probe thread is told of traffic, and where it tells what it has found.
#[derive(Debug)]
pub struct FromTraffic {
    /// Errors of the servers that are observed.
    pub errors: HashMap<ServerId, Receiver<()>>,
    /// Servers to probe, one order at a time for each.
    pub orders: Receiver<Order>,
    /// What is found.
    pub found: Sender<ProbeResult>,
}

/// A probe that is wanted.
#[derive(Debug)]
pub struct Order {
    /// The backend.
    pub backend: Arc<Backend>,
    /// The server.
    pub server: Arc<Server>,
    /// When.
    pub due: Moment,
}

/// Carries out orders until the control thread is gone.
pub(super) async fn serve(mut orders: Receiver<Order>, found: Sender<ProbeResult>) {
    while let Some(order) = orders.recv().await {
        let found = found.clone();
        tokio_uring::spawn(async move {
            if let Some(result) = carry_out(order).await {
                let _ = found.send(result).await;
            }
        });
    }
}

async fn carry_out(order: Order) -> Option<ProbeResult> {
    let server = &order.server;
    let breaker = server.plan.passive.breaker.as_ref()?;
    let mut due = order.due;
    let (outcome, began) = loop {
        wait(&order.backend, due).await;
        let began = clock::now();
        if server.admin() == Admin::Maintenance {
            due = began.after_ms(u64::from(breaker.fail_timeout_ms));
            continue;
        }
        match attempt(&breaker.probe, server.source_ports()).await {
            // At once, but through the scheduler: whoever else is late gets its turn first.
            (Outcome::Late, _) => tokio::task::yield_now().await,
            (outcome, _) => break (outcome, began),
        }
    };
    let duration_ms = clock::now().ms_since(began);
    let (status, code, description) = in_words(outcome);
    Some(ProbeResult {
        server: server.id,
        status,
        code,
        duration_ms,
        description,
        counted_failure: false,
        rules: Rules::new(1, 1).at(u16::from(status == "L4OK")),
        restarts: 0,
    })
}

/// Waits until a probe is due: at its moment, or sooner where the backend has no server, or loses
/// the last one meanwhile.
async fn wait(backend: &Backend, due: Moment) {
    let before = backend.availability();
    loop {
        let rest = due - clock::now();
        tokio::time::sleep(rest.min(NONE_LEFT)).await;
        let lost_last = before.is_down || backend.availability().downs > before.downs;
        if rest <= NONE_LEFT || lost_last {
            return;
        }
    }
}
