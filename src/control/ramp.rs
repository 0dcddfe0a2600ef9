//! Servers that return: the control thread takes them through their slow start.
//!
//! There is a tick while a server is on its way, and nothing otherwise. What a server may have is
//! computed from the clock at each tick, so a late tick delays nothing but itself.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::apply::{report_arrival, send_grants};
use crate::base::time::Moment;
use crate::lb::{self, Admin, Backend, Server};
use crate::sys::clock;

/// Takes servers through their slow start until the process ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let all = shared.world.backends.iter().flatten();
    let slow: Vec<_> = all.filter(|b| b.has_slow_start()).cloned().collect();
    if slow.is_empty() {
        return;
    }
    loop {
        shared.returns.notified().await;
        while step(&shared, &slow, clock::now()) {
            tokio::time::sleep(Duration::from_millis(lb::TICK_MS)).await;
        }
    }
}

/// Takes all of them as far as they are; false when none is on its way any more.
fn step(shared: &Shared, backends: &[Arc<Backend>], now: Moment) -> bool {
    let mut goes_on = false;
    for backend in backends {
        let ramped = backend.ramp(now);
        goes_on |= ramped.goes_on;
        let granted = |server: &Arc<Server>| {
            let servers = ramped.grants.iter().map(|grant| &grant.server);
            servers.filter(|to| Arc::ptr_eq(to, server)).count()
        };
        let requeued: Vec<usize> = ramped.arrived.iter().map(granted).collect();
        if !ramped.grants.is_empty() {
            send_grants(shared, ramped.grants);
        }
        for (server, requeued) in ramped.arrived.iter().zip(requeued) {
            if server.admin() == Admin::Ready {
                report_arrival(shared, backend, server, requeued);
            }
        }
    }
    goes_on
}
