//! Statistics that begin anew, by the word of an operator.
//!
//! What says how things are (open sessions, states, times of changes) is no statistic and stays.
//! Rates and the totals of `show info` go on.

use std::sync::atomic::Ordering::Relaxed;

use super::{Shared, apply};
use crate::base::limits::LimitKey;
use crate::lb::{Server, ServerCounter};
use crate::shard::{FrontCounter, ListenerCounter, ProxyCounters};

/// Maxima among a server's counters.
const MAXIMA: [ServerCounter; 3] = [
    ServerCounter::QueueTimeMaxUs,
    ServerCounter::ConnectTimeMaxUs,
    ServerCounter::SessionTimeMaxMs,
];

/// What was highest.
pub(super) fn maxima(shared: &Shared) {
    let world = &shared.world();
    let limits = &world.limits;
    limits.clear_peak(world.process_limit);
    limits.clear_peak(world.flows_limit);
    for frontend in world.frontends.iter().flatten() {
        limits.clear_peak(frontend.limit);
    }
    for listener in &world.plan.listeners {
        if let Some(id) = limits.find(LimitKey::Listener(listener.listener_id)) {
            limits.clear_peak(id);
        }
    }
    for backend in world.backends.iter().flatten() {
        backend.clear_queued_peak();
        for server in &backend.servers {
            server.clear_peak();
            for counter in MAXIMA {
                server.counters.clear_max(counter as usize);
            }
        }
    }
    shared.rates.clear_maxima();
}

/// All counts of proxies and servers.
pub(super) fn counters(shared: &Shared) {
    let world = &shared.world();
    for frontend in world.frontends.iter().flatten() {
        clear_proxy(&frontend.counters);
    }
    for listening in world.listeners.iter().flatten() {
        if let Some(counters) = &listening.counters {
            (0..ListenerCounter::COUNT).for_each(|index| counters.clear(index));
        }
    }
    world
        .back_counters
        .iter()
        .for_each(|counters| clear_proxy(counters));
    for backend in world.backends.iter().flatten() {
        backend.clear_downs();
        for server in &backend.servers {
            clear_server(server);
        }
    }
}

fn clear_proxy(counters: &ProxyCounters) {
    for index in 0..FrontCounter::COUNT {
        // How many there are is no statistic.
        if index != FrontCounter::Active as usize {
            counters.clear(index);
        }
    }
}

fn clear_server(server: &Server) {
    for index in 0..ServerCounter::COUNT {
        if !MAXIMA.iter().any(|counter| *counter as usize == index) {
            server.counters.clear(index);
        }
    }
    server.observed.analyzed.store(0, Relaxed);
    let mut report = apply::report_of(server);
    report.failures = 0;
    report.downs = 0;
}
