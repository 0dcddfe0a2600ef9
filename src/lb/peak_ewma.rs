//! Peak EWMA: the server with the lowest connect time for what it has to do.
//!
//! The idea and the name are of Twitter's Finagle (`PeakEwma` of its load balancers). Each server
//! has an exponentially weighted moving average of its connect times that jumps to a peak at once
//! and comes down slowly, by half in [`HALF_LIFE_TICKS`]; a server's load is this average times the
//! connections it would have, over its weight. What is slow or fails is so left alone at once.
//! Nothing keeps it there: while nobody connects to it, its average goes on falling, until it is
//! the lowest and somebody tries it again. A failed connect counts like one that took as long as
//! `timeout connect`. A server of which nothing is known counts as the fastest one, for one
//! connection more each time until its first answer.
//!
//! Up to [`EXACT_MAX`] servers all are compared and equals take turns, as under `leastconn`; above,
//! two are drawn by weight and the better one is taken.
//!
//! The averages are one word per server, so shards record without a lock. This layer sees no clock:
//! the time of the last record is the time at which averages are read.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::leastconn::{self, EXACT_MAX, LOOKS_MAX, room};
use super::server::Server;
use super::table::{Entry, Table};
use crate::base::hash;
use crate::base::ids::ServerId;
use crate::base::time::Moment;

/// The unit of time here.
const TICK_MS: u64 = 50;

/// Ticks in which an average without a new sample falls to its half: 5 s. (Finagle's falls to 1/e
/// in 10 s, which is half in 6.9 s.)
const HALF_LIFE_TICKS: u64 = 100;

/// An average is kept in parts of a microsecond, so that small differences don't get lost in
/// rounding.
const PARTS_PER_US: u64 = 256;

/// Bits of a word that hold the tick of its last change: it repeats after 155 days, and an average
/// that nobody touches is 0 after minutes.
const TICK_BITS: u32 = 28;
const TICK_MASK: u64 = (1 << TICK_BITS) - 1;

/// The largest average, 268 s.
const PARTS_MAX: u64 = (1 << (u64::BITS - TICK_BITS)) - 1;

/// What a failed connect counts where `timeout connect` is infinite.
const PENALTY_DEFAULT_MS: u64 = 5_000;

/// What a failed connect counts for under this `timeout connect`.
pub(super) fn penalty_us(timeout_connect_ms: u32) -> u64 {
    match u64::from(timeout_connect_ms) {
        0 => PENALTY_DEFAULT_MS * 1_000,
        ms => ms * 1_000,
    }
}

/// The average of a server's connect times: its parts and the tick of its last change in one word;
/// 0 = nothing is known.
#[derive(Debug, Default)]
pub(super) struct Latency(AtomicU64);

impl Latency {
    /// Takes a connect time into account. One that is above the average replaces it; one below
    /// counts the more, the longer ago the last one is, and several in one tick count as the first.
    fn record(&self, us: u64, tick: u64) {
        let sample = us.saturating_mul(PARTS_PER_US).clamp(1, PARTS_MAX);
        let next = |word| {
            if word == 0 {
                return Some(pack(sample, tick));
            }
            let since = ticks_since(word, tick);
            let fallen = after(word >> TICK_BITS, since);
            if sample >= fallen {
                return Some(pack(sample, tick));
            }
            let average = (fallen + sample - after(sample, since)).max(1);
            (since > 0).then(|| pack(average, tick))
        };
        // An error says that the tick has had its sample.
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    /// The average at a tick, 1 at least; `None` = nothing is known.
    fn read(&self, tick: u64) -> Option<u64> {
        match self.0.load(Relaxed) {
            0 => None,
            word => Some(after(word >> TICK_BITS, ticks_since(word, tick)).max(1)),
        }
    }

    /// Nothing is known of the server any more.
    pub(super) fn forget(&self) {
        self.0.store(0, Relaxed);
    }
}

fn pack(parts: u64, tick: u64) -> u64 {
    parts << TICK_BITS | tick & TICK_MASK
}

/// Ticks from a word's last change. Shards read the clock at different times: one that is behind
/// finds none.
fn ticks_since(word: u64, tick: u64) -> u64 {
    let since = tick.wrapping_sub(word) & TICK_MASK;
    if since > TICK_MASK / 2 { 0 } else { since }
}

/// What is left of an average after some ticks: half of it after each half-life, and in between on
/// a straight line.
fn after(parts: u64, ticks: u64) -> u64 {
    let (halvings, rest) = (ticks / HALF_LIFE_TICKS, ticks % HALF_LIFE_TICKS);
    if halvings >= u64::from(u64::BITS - TICK_BITS) {
        return 0;
    }
    // The product is below 2^36 * 200.
    (parts >> halvings) * (2 * HALF_LIFE_TICKS - rest) / (2 * HALF_LIFE_TICKS)
}

/// The time of a backend, as far as its shards have told: that of their last records.
#[derive(Debug, Default)]
pub(super) struct LatencyClock(CachePadded<AtomicU64>);

impl LatencyClock {
    /// Enters a connect time of a server.
    pub(super) fn note(&self, server: &Server, us: u64, now: Moment) {
        let tick = now.0 / 1_000_000 / TICK_MS;
        // Written once a tick, so that the line stays shared on the other CPUs.
        if self.0.load(Relaxed) < tick {
            self.0.fetch_max(tick, Relaxed);
        }
        server.latency.record(us, tick);
    }

    /// The present tick.
    pub(super) fn tick(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Takes a connection of the server with the lowest load; `None` when all are full (but for
/// `avoid`).
pub(super) fn choose(
    table: &Table,
    cursor: &AtomicU64,
    seed: u64,
    avoid: Option<ServerId>,
    tick: u64,
) -> Option<usize> {
    if table.entries.len() > EXACT_MAX {
        let drawn = draw(table, cursor, seed, avoid, tick);
        return drawn.or_else(|| leastconn::scan(table, cursor, avoid));
    }
    for _ in 0..LOOKS_MAX {
        let (seen, lowest) = lowest(table, avoid, tick)?;
        // A turn claimed by another shard and a counter that moved are the same to us: look again.
        if let Some(index) = leastconn::rotate(lowest, table, cursor)
            && table.entries[index].server.take_seeing(seen[index])
        {
            return Some(index);
        }
    }
    leastconn::take_any(table, 0, avoid)
}

/// The connections each server has and the set of those with the lowest load, which isn't empty;
/// `None` if none has room.
fn lowest(table: &Table, avoid: Option<ServerId>, tick: u64) -> Option<([u32; EXACT_MAX], u64)> {
    let (mut seen, mut averages) = ([0; EXACT_MAX], [None; EXACT_MAX]);
    let mut with_room = 0u64;
    let mut fastest = u64::MAX;
    for (index, entry) in table.entries.iter().enumerate() {
        let Some(active) = room(entry, avoid) else {
            continue;
        };
        with_room |= 1 << index;
        seen[index] = active;
        averages[index] = entry.server.latency.read(tick);
        fastest = fastest.min(averages[index].unwrap_or(u64::MAX));
    }
    let mut best: Option<(Load, u64)> = None;
    let mut rest = with_room;
    while rest != 0 {
        let index = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        let load = Load::of(
            averages[index].unwrap_or(fastest),
            seen[index],
            &table.entries[index],
        );
        best = match best {
            Some((lowest, _)) if load.is_below(lowest) => Some((load, 1 << index)),
            Some((lowest, tied)) if !lowest.is_below(load) => Some((lowest, tied | 1 << index)),
            None => Some((load, 1 << index)),
            best => best,
        };
    }
    best.map(|(_, tied)| (seen, tied))
}

/// The better of two servers drawn by weight; `None` if neither has room.
fn draw(
    table: &Table,
    cursor: &AtomicU64,
    seed: u64,
    avoid: Option<ServerId>,
    tick: u64,
) -> Option<usize> {
    for _ in 0..LOOKS_MAX {
        // The cursor makes every draw a different number; both halves of it draw a turn.
        let number = hash::sequence(seed, cursor.fetch_add(1, Relaxed));
        let pair = [number >> 32, number & 0xffff_ffff].map(|turn| table.turn(turn));
        let seen = pair.map(|index| room(&table.entries[index], avoid));
        let known = pair.map(|index| table.entries[index].server.latency.read(tick));
        let load = |which: usize| {
            let average = known[which].or(known[1 - which]).unwrap_or(1);
            seen[which].map(|active| Load::of(average, active, &table.entries[pair[which]]))
        };
        let which = match (load(0), load(1)) {
            (Some(one), Some(other)) => usize::from(other.is_below(one)),
            (Some(_), None) => 0,
            (None, Some(_)) => 1,
            (None, None) => return None,
        };
        if let Some(active) = seen[which]
            && table.entries[pair[which]].server.take_seeing(active)
        {
            return Some(pair[which]);
        }
    }
    None
}

/// A server's load as a fraction.
#[derive(Clone, Copy)]
struct Load {
    cost: u128,
    share: u128,
}

impl Load {
    fn of(average: u64, active: u32, entry: &Entry) -> Load {
        Load {
            cost: u128::from(average) * (u128::from(active) + 1),
            share: u128::from(entry.share),
        }
    }

    /// Whether it is strictly lower. An average has 36 bits (64 where nothing is known of any), a
    /// number of connections 33, a share 15: nothing overflows.
    fn is_below(self, other: Load) -> bool {
        self.cost * other.share < other.cost * self.share
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, backend, picked, server};
    use super::super::{Admin, Backend, Outcome, Pick, PickRequest};
    use super::*;
    use crate::config::plan::Balance;
    use std::collections::VecDeque;
    use std::sync::Arc;

    const FIRST: PickRequest = PickRequest::ANY;

    fn at(ms: u64) -> Moment {
        Moment(1_000_000_000_000 + ms * 1_000_000)
    }

    fn pick(backend: &Backend) -> Arc<Server> {
        match backend.pick(FIRST) {
            Pick::Server(server) => server,
            other => panic!("{other:?}"),
        }
    }

    /// A connection every millisecond, each open for `open_ms`, connect times as given: how many
    /// each server got from a moment on.
    fn shares(
        backend: &Backend,
        from_ms: u64,
        connections: u64,
        open_ms: u64,
        mut us: impl FnMut(usize) -> u64,
    ) -> Vec<u32> {
        let mut counts = vec![0; backend.servers.len()];
        let mut open: VecDeque<(u64, Arc<Server>)> = VecDeque::new();
        for now in from_ms..from_ms + connections {
            while open.front().is_some_and(|(until, _)| *until <= now) {
                let (_, server) = open.pop_front().expect("just seen");
                assert!(backend.release(&server, Outcome::Completed).is_none());
            }
            let server = pick(backend);
            let index = server.id.0 as usize;
            counts[index] += 1;
            backend.note_connect(&server, us(index), at(now));
            open.push_back((now + open_ms, server));
        }
        for (_, server) in open {
            assert!(backend.release(&server, Outcome::Completed).is_none());
        }
        counts
    }

    #[test]
    fn an_average_jumps_up_and_comes_down_by_half_lives() {
        let latency = Latency::default();
        let us = |tick| latency.read(tick).map(|parts| parts / PARTS_PER_US);
        assert_eq!(us(7), None);
        latency.record(100, 1_000);
        assert_eq!(us(1_000), Some(100));
        latency.record(5_000, 1_001);
        assert_eq!(us(1_001), Some(5_000), "a peak counts at once");
        latency.record(100, 1_001);
        assert_eq!(us(1_001), Some(5_000), "in the same tick");
        let half = HALF_LIFE_TICKS;
        assert_eq!(us(1_001 + half), Some(2_500));
        assert_eq!(us(1_001 + half / 2), Some(3_750));
        assert_eq!(us(1_001 + 3 * half), Some(625));
        assert_eq!(latency.read(1_001 + 60 * half), Some(1), "known, and not 0");
        // With a sample after each half-life: half of the way to it.
        latency.record(100, 1_001 + half);
        assert_eq!(us(1_001 + half), Some(2_550));
        // A shard whose clock is behind.
        assert_eq!(us(1_000), Some(2_550));
        latency.record(u64::MAX, 1_001 + half);
        assert_eq!(latency.read(1_001 + half), Some(PARTS_MAX));
        latency.forget();
        assert_eq!(us(2_000), None);
    }

    /// Samples in every tick lead to their value from above, however small the steps are.
    #[test]
    fn an_average_reaches_what_is_measured() {
        let latency = Latency::default();
        latency.record(1_000, 0);
        for tick in 1..=20 * HALF_LIFE_TICKS {
            latency.record(30, tick);
        }
        let us = latency.read(20 * HALF_LIFE_TICKS).unwrap() / PARTS_PER_US;
        assert!((30..=31).contains(&us), "{us}");
    }

    #[test]
    fn the_tick_may_repeat() {
        let latency = Latency::default();
        latency.record(100, TICK_MASK);
        assert_eq!(
            latency.read(TICK_MASK + HALF_LIFE_TICKS),
            Some(50 * PARTS_PER_US)
        );
    }

    #[test]
    fn equals_share_equally() {
        for weights in [[1, 1, 1], [3, 2, 1]] {
            let total: u16 = weights.iter().sum();
            let backend = backend(Balance::PeakEwma, &weights.map(|w| server(w, 0)));
            let counts = shares(&backend, 0, 6_000, 60, |_| 200);
            for (count, weight) in counts.iter().zip(weights) {
                let fair = 6_000 * u32::from(weight) / u32::from(total);
                assert!(count.abs_diff(fair) <= fair / 20, "{weights:?}: {counts:?}");
            }
        }
    }

    /// Nothing is measured yet: that is `leastconn`.
    #[test]
    fn unknown_servers_take_turns() {
        let backend = backend(Balance::PeakEwma, &[server(1, 0); 3]);
        assert_eq!(testing::spread(&backend, 99), [33, 33, 33]);
    }

    /// Connect times that scatter at random round the same mean: nobody is left out.
    #[test]
    fn equals_whose_times_scatter_share_about_equally() {
        let backend = backend(Balance::PeakEwma, &[server(1, 0); 4]);
        let mut random = testing::random(11);
        let counts = shares(&backend, 0, 20_000, 50, |_| 100 + random(200));
        assert!(
            counts.iter().all(|n| (4_000..=6_000).contains(n)),
            "{counts:?}"
        );
    }

    /// With connections that stay, each server has as many as its speed allows.
    #[test]
    fn ten_times_slower_is_a_tenth() {
        let backend = backend(Balance::PeakEwma, &[server(1, 0), server(1, 0)]);
        let us = |index| [100, 1_000][index];
        let counts = shares(&backend, 0, 20_000, 200, us);
        let part = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((8.0..=12.5).contains(&part), "{counts:?}");
    }

    #[test]
    fn who_was_slow_or_failed_recovers() {
        let backend = backend(Balance::PeakEwma, &[server(1, 0), server(1, 0)]);
        let both = |_| 100;
        shares(&backend, 0, 1_000, 20, both);
        backend.note_connect_failure(&backend.servers[0], at(1_000));
        let after = shares(&backend, 1_000, 10_000, 20, both);
        assert_eq!(after[0], 0, "5 s against 100 us");
        // 5 s have fallen to 2.1 ms, the load of the other's 21 connections, after some eleven
        // half-lives; from then on it gets more and more.
        let later = shares(&backend, 11_000, 70_000, 20, both);
        assert!(later[0] > 1_000, "{later:?}");
        let settled = shares(&backend, 200_000, 10_000, 20, both);
        assert!(settled[0].abs_diff(settled[1]) < 1_000, "{settled:?}");
    }

    #[test]
    fn a_server_of_which_nothing_is_known_is_tried_and_not_flooded() {
        let backend = backend(Balance::PeakEwma, &[server(1, 0); 3]);
        shares(&backend, 0, 1_000, 20, |_| 100);
        let fresh = &backend.servers[2];
        fresh.set_admin(Admin::Maintenance);
        assert!(backend.publish().is_empty());
        fresh.set_admin(Admin::Ready);
        assert!(backend.publish().is_empty());
        // It hangs: no connect is ever answered.
        let hung = (0..90).filter(|_| pick(&backend).id == fresh.id).count();
        assert!((25..=35).contains(&hung), "{hung} of 90");
    }

    #[test]
    fn a_full_server_is_left_to_the_others() {
        let backend = backend(Balance::PeakEwma, &[server(1, 1), server(1, 2)]);
        backend.note_connect(&backend.servers[0], 10, at(0));
        backend.note_connect(&backend.servers[1], 10_000, at(0));
        let got: Vec<_> = (0..4).map(|_| picked(&backend.pick(FIRST))).collect();
        assert_eq!(got, [Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn above_the_exact_bound_the_better_of_two_is_taken() {
        let count = EXACT_MAX + 36;
        let backend = backend(Balance::PeakEwma, &vec![server(1, 0); count]);
        let us = |index: usize| if index.is_multiple_of(2) { 100 } else { 1_000 };
        let counts = shares(&backend, 0, 50_000, 500, us);
        let sum = |odd| counts.iter().skip(odd).step_by(2).sum::<u32>();
        assert!(sum(0) > 2 * sum(1), "{} {}", sum(0), sum(1));
        let full = testing::backend(Balance::PeakEwma, &vec![server(1, 2); count]);
        let taken = (0..)
            .take_while(|_| picked(&full.pick(FIRST)).is_some())
            .count();
        assert_eq!(taken, 2 * count);
    }

    #[test]
    fn eight_threads_leave_exact_counts() {
        let backend = &backend(Balance::PeakEwma, &[server(1, 0); 3]);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for n in 0..5_000 {
                        let server = pick(backend);
                        backend.note_connect(&server, 50 + (n * 7 + thread) % 40, at(n / 8));
                        assert!(backend.release(&server, Outcome::Completed).is_none());
                    }
                });
            }
        });
        assert_eq!(backend.active(), 0);
        assert!(
            backend
                .servers
                .iter()
                .all(|server| server.active_peak() >= 1)
        );
    }
}
