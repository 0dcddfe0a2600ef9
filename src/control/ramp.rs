//! Servers that return: the control thread takes them through their slow start.
//!
//! There is a tick while a server is on its way, and nothing otherwise. What a server may have is
//! computed from the clock at each tick, so a late tick delays nothing but itself.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::apply::{report_arrival, send_grants};
use crate::base::time::Moment;
use crate::lb::{self, Admin, Server};
use crate::sys::clock;

/// Takes servers through their slow start until the process ends.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.returns.notified().await;
        while step(&shared, clock::now()) {
            tokio::time::sleep(Duration::from_millis(lb::TICK_MS)).await;
        }
    }
}

/// Takes all of them as far as they are; false when none is on its way any more.
fn step(shared: &Shared, now: Moment) -> bool {
    let mut goes_on = false;
    let world = shared.world();
    let backends = world.backends.iter().flatten();
    for backend in backends.filter(|backend| backend.has_slow_start()) {
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
