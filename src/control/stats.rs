//! Sessions per second and idle time, kept by the control thread's one-second tick.
//!
//! Shards only count. A rate is the difference of two readings over the time between them; the
//! highest is kept beside it. Peaks of a backend's open sessions are sampled here too, since no
//! limit counts them exactly.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard};

use crate::base::ids::{ProxyId, ServerId};
use crate::base::time::Moment;
use crate::lb::ServerCounter;
use crate::shard::{FrontCounter, World};

/// What a rate is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    /// Sessions of all frontends.
    Process,
    /// Bytes to clients of all frontends.
    BytesOut,
    /// Sessions of a frontend.
    Frontend(ProxyId),
    /// Sessions of a backend.
    Backend(ProxyId),
    /// Sessions of a server.
    Server(ServerId),
}

/// A rate per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// In the last second.
    pub current: u64,
    /// The highest of all seconds.
    pub max: u64,
    total: u64,
}

#[derive(Debug, Default)]
struct Table {
    at: Option<Moment>,
    rates: HashMap<Subject, Rate>,
    /// Most sessions a backend was seen with.
    peaks: HashMap<ProxyId, u64>,
    /// Nanoseconds in which all shards have worked, and percent of the last second.
    worked_ns: u64,
    worked_percent: u64,
}

/// The rates of everything.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Table>);

impl Rates {
    /// Reads the counters; called once a second.
    pub fn tick(&self, world: &World, now: Moment) {
        let mut table = self.table();
        let elapsed_ms = table.at.map_or(0, |at| now.ms_since(at));
        table.at = Some(now);
        let mut note = |subject, total: u64| {
            let rate = table.rates.entry(subject).or_default();
            if let Some(per_second) =
                (total.wrapping_sub(rate.total) * 1000 + elapsed_ms / 2).checked_div(elapsed_ms)
            {
                rate.current = per_second;
                rate.max = rate.max.max(per_second);
            }
            rate.total = total;
        };
        let (mut all, mut bytes) = (0, 0);
        for front in world.frontends.iter().flatten() {
            let total = front.counters.sum_ever(FrontCounter::Sessions as usize);
            all += total;
            bytes += front.counters.sum(FrontCounter::BytesOut as usize);
            note(Subject::Frontend(front.proxy.proxy_id), total);
        }
        note(Subject::Process, all);
        note(Subject::BytesOut, bytes);
        for backend in world.backends.iter().flatten() {
            let id = backend.proxy.proxy_id;
            let counters = &world.back_counters[usize::from(id.0)];
            note(
                Subject::Backend(id),
                counters.sum_ever(FrontCounter::Sessions as usize),
            );
            for server in &backend.servers {
                let total = server.counters.sum_ever(ServerCounter::Sessions as usize);
                note(Subject::Server(server.id), total);
            }
        }
        let worked = world.ports.iter().map(|port| &port.gauges.worked_ns);
        let worked_ns: u64 = worked.map(|worked_ns| worked_ns.load(Relaxed)).sum();
        let time_ns = elapsed_ms * 1_000_000 * world.ports.len() as u64;
        let in_it = worked_ns.saturating_sub(table.worked_ns);
        let percent = (100 * in_it).checked_div(time_ns).unwrap_or(0);
        (table.worked_ns, table.worked_percent) = (worked_ns, percent.min(100));
        for backend in world.backends.iter().flatten() {
            let id = backend.proxy.proxy_id;
            let active = backend_active(world, id);
            let peak = table.peaks.entry(id).or_default();
            *peak = (*peak).max(active);
        }
    }

    /// Forgets what a world doesn't have.
    pub fn keep(&self, world: &World) {
        let mut table = self.table();
        table.rates.retain(|subject, _| match subject {
            Subject::Process | Subject::BytesOut => true,
            Subject::Frontend(id) => world.frontend(*id).is_some(),
            Subject::Backend(id) => world.backend(*id).is_some(),
            Subject::Server(id) => world.server_of(*id).is_some(),
        });
        table.peaks.retain(|id, _| world.backend(*id).is_some());
    }

    /// The rate of a subject.
    pub fn of(&self, subject: Subject) -> Rate {
        self.table()
            .rates
            .get(&subject)
            .copied()
            .unwrap_or_default()
    }

    /// Percent of the last second in which the shards had nothing to do.
    pub fn idle_percent(&self) -> u64 {
        100 - self.table().worked_percent
    }

    /// Most sessions a backend was seen with.
    pub fn backend_peak(&self, world: &World, id: ProxyId) -> u64 {
        let active = backend_active(world, id);
        let mut table = self.table();
        let peak = table.peaks.entry(id).or_default();
        *peak = (*peak).max(active);
        *peak
    }

    /// Has the highest of everything begin anew.
    pub fn clear_maxima(&self) {
        let mut table = self.table();
        table.rates.values_mut().for_each(|rate| rate.max = 0);
        table.peaks.clear();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Sessions a backend has now.
pub fn backend_active(world: &World, id: ProxyId) -> u64 {
    world.back_counters[usize::from(id.0)].sum(FrontCounter::Active as usize)
}
