//! The slow start of servers that return: how far one is, and what it may take until then.
//!
//! A server that comes up after it was down or in maintenance begins with a small part of its
//! weight and its limits and gets to the whole in `slowstart`, in proportion to the time that has
//! passed or in the steps of `slowstart-steps`. Every part is computed from the moment at which it
//! returned, so nothing drifts, and the last one is the whole. While it lasts, `slowstart-connrate`
//! also bounds the new connections per second, whatever the algorithm: an allowance is filled up
//! every tick, and holds no more than one tick's part, so that any second has at most the rate and
//! one filling.
//!
//! The control thread drives it: it calls [`Backend::ramp`] every [`TICK_MS`] while a server is on
//! its way, with the moment of the call. A session that finds all allowances used up waits in the
//! queue; every call looks for room for those that wait, and the last one lifts the allowance, so
//! none is forgotten.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use super::backend::{Backend, Grant};
use super::server::Server;
use crate::base::time::Moment;
use crate::config::plan::{self, Balance, HashKind};

/// Time between two calls of [`Backend::ramp`].
pub const TICK_MS: u64 = 1_000 / TICKS_PER_SECOND as u64;

const TICKS_PER_SECOND: u32 = 10;

/// The whole, in percent. Tables count weights in percent of a unit, so that every percentage of
/// every weight is a whole number.
pub(super) const WHOLE: u32 = 100;

/// Where a slow start without steps begins: with a sixteenth, as HAProxy's.
const FIRST_PERCENT: u32 = 6;

/// A server's way back.
#[derive(Debug)]
pub(super) struct SlowStart {
    plan: plan::SlowStart,
    /// Its present part; the whole when it is not on its way.
    percent: AtomicU32,
    /// The control thread's own.
    progress: Mutex<Progress>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    /// Not on its way.
    Rests,
    /// It has come up since the last call.
    Begins,
    /// On its way since `began`, with so many connections allowed since then.
    Since { began: Moment, allowed: u64 },
}

/// What a call found out about a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It is not on its way.
    Rests,
    /// It has this part, and may take so many new connections more.
    GoesOn { percent: u32, more: u32 },
    /// It has the whole.
    Arrives,
}

/// What a call of [`Backend::ramp`] did.
#[derive(Debug, Default)]
pub struct Ramped {
    /// Waiting sessions that were given a server.
    pub grants: Vec<Grant>,
    /// Servers that have reached the whole.
    pub arrived: Vec<Arc<Server>>,
    /// Whether a server is still on its way.
    pub goes_on: bool,
}

impl SlowStart {
    /// Of a server that is not on its way.
    pub(super) fn new(plan: plan::SlowStart) -> SlowStart {
        SlowStart {
            plan,
            percent: AtomicU32::new(WHOLE),
            progress: Mutex::new(Progress::Rests),
        }
    }

    /// The server comes up: its first part, and the connections that it may take at once.
    pub(super) fn begin(&self) -> (u32, Option<u32>) {
        *self.progress() = Progress::Begins;
        let percent = self.percent_at(0);
        self.percent.store(percent, Relaxed);
        let bounded = self.plan.connections_per_second > 0;
        (percent, bounded.then(|| self.filling()))
    }

    /// The server goes out of service: if it was on its way, it will begin anew.
    pub(super) fn stop(&self) {
        *self.progress() = Progress::Rests;
        self.percent.store(WHOLE, Relaxed);
    }

    /// Takes it as far as it is at this moment. The time counts from the first call.
    pub(super) fn step(&self, now: Moment) -> Step {
        let mut progress = self.progress();
        let (began, allowed) = match *progress {
            Progress::Rests => return Step::Rests,
            Progress::Begins => (now, 0),
            Progress::Since { began, allowed } => (began, allowed),
        };
        let elapsed_ms = now.ms_since(began);
        if elapsed_ms >= u64::from(self.plan.duration_ms) {
            *progress = Progress::Rests;
            self.percent.store(WHOLE, Relaxed);
            return Step::Arrives;
        }
        let percent = self.percent_at(elapsed_ms);
        self.percent.store(percent, Relaxed);
        let in_all = u64::from(self.plan.connections_per_second) * elapsed_ms / 1_000;
        let more = in_all.saturating_sub(allowed);
        *progress = Progress::Since {
            began,
            allowed: in_all,
        };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        Step::GoesOn { percent, more }
    }

    /// Most connections that the allowance holds: one tick's part of the rate, 1 at least.
    pub(super) fn filling(&self) -> u32 {
        let rate = self.plan.connections_per_second;
        rate.div_ceil(TICKS_PER_SECOND).max(1)
    }

    /// Whether the server is on its way.
    pub(super) fn is_on_its_way(&self) -> bool {
        *self.progress() != Progress::Rests
    }

    /// Its present part of connection limits.
    pub(super) fn percent(&self) -> u32 {
        self.percent.load(Relaxed)
    }

    /// Its present part of the weight where the weight follows in steps of `granularity` percent;
    /// steps of the configuration are taken as they are.
    pub(super) fn percent_in(&self, granularity: u32) -> u32 {
        let percent = self.percent();
        if self.plan.steps.is_empty() {
            (percent / granularity * granularity).max(granularity)
        } else {
            percent
        }
    }

    fn percent_at(&self, elapsed_ms: u64) -> u32 {
        let (steps, duration_ms) = (&self.plan.steps, u64::from(self.plan.duration_ms.max(1)));
        let elapsed_ms = elapsed_ms.min(duration_ms);
        if steps.is_empty() {
            let rest = u64::from(WHOLE - FIRST_PERCENT) * elapsed_ms / duration_ms;
            return FIRST_PERCENT + u32::try_from(rest).unwrap_or(WHOLE);
        }
        // The steps are equally long.
        let index = elapsed_ms * steps.len() as u64 / duration_ms;
        let step = usize::try_from(index).ok().and_then(|i| steps.get(i));
        step.map_or(WHOLE, |percent| u32::from(*percent))
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How finely an algorithm lets weights follow a slow start, in percent; `None` = its weights never
/// change by themselves. A change of a ring's or a map's weights moves clients and takes longest to
/// compute, so those follow in coarser steps.
pub(super) fn granularity(balance: Balance) -> Option<u32> {
    match balance {
        Balance::RoundRobin | Balance::LeastConn | Balance::PeakEwma | Balance::Random { .. } => {
            Some(1)
        }
        Balance::StaticRr | Balance::First => None,
        Balance::Hash(hash) => match hash.method.kind {
            HashKind::Consistent => Some(5),
            HashKind::Maglev => Some(10),
            HashKind::MapBased => None,
        },
    }
}

/// The percentage of its weight that a server has on its way, or by an operator's word (`ramp`);
/// `None` = it has the whole.
pub(super) fn weight_percent(server: &Server, balance: Balance) -> Option<u32> {
    let (part, slow_start) = (server.part(), server.slow_start());
    if part == WHOLE && slow_start.is_none() {
        return None;
    }
    let percent = granularity(balance).map(|granularity| {
        let percent = slow_start.map_or(WHOLE, |slow_start| slow_start.percent_in(granularity));
        (percent * part / WHOLE).max(1)
    });
    Some(percent.unwrap_or(WHOLE))
}

/// A part of a limit: 1 at least, and all of none.
pub(super) fn part_of(limit: u32, percent: u32) -> u32 {
    if limit == u32::MAX || limit == 0 {
        return limit;
    }
    let part = u64::from(limit) * u64::from(percent) / u64::from(WHOLE);
    // A part is no larger than the whole.
    u32::try_from(part).unwrap_or(limit).max(1)
}

impl Backend {
    /// Whether any of its servers has a slow start.
    pub fn has_slow_start(&self) -> bool {
        self.servers
            .iter()
            .any(|server| server.plan.slow_start.is_some())
    }

    /// Whether its algorithm lets servers have parts of their weights.
    pub fn follows_parts(&self) -> bool {
        granularity(self.policy.balance).is_some()
    }

    /// The part of its weight that a server has, in percent, while it is on its way to the whole
    /// (`throttle`).
    pub fn throttle(&self, server: &Server) -> Option<u32> {
        weight_percent(server, self.policy.balance)
    }

    /// The weight that a server has at present (`weight` in statistics), rounded up.
    pub fn present_weight(&self, server: &Server) -> u32 {
        let percent = weight_percent(server, self.policy.balance).unwrap_or(WHOLE);
        (server.weight() * percent).div_ceil(WHOLE)
    }

    /// Takes the servers that return as far as they are at this moment. Only the control thread
    /// calls it: after a server came up, and again every [`TICK_MS`] as long as it goes on.
    pub fn ramp(&self, now: Moment) -> Ramped {
        let mut ramped = Ramped::default();
        for server in &self.servers {
            match server.ramp(now) {
                Step::Rests => {}
                Step::GoesOn { .. } => ramped.goes_on = true,
                Step::Arrives => ramped.arrived.push(Arc::clone(server)),
            }
        }
        if ramped.goes_on || !ramped.arrived.is_empty() {
            ramped.grants = if self.weights_have_changed() {
                self.publish()
            } else {
                self.serve_waiting()
            };
        }
        ramped
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        MAGLEV, MAP, RING, address, key, pick_and_release, picked, random, server, spread,
        starting_slowly,
    };
    use super::super::{Admin, Health, Outcome, Pick, PickRequest, Waiter};
    use super::*;
    use crate::base::ids::{ServerId, ShardId};
    use std::collections::VecDeque;

    const ANY: PickRequest = PickRequest::ANY;

    fn plan(duration_ms: u32, steps: &[u8], connections_per_second: u32) -> plan::SlowStart {
        plan::SlowStart {
            duration_ms,
            steps: steps.to_vec(),
            connections_per_second,
        }
    }

    fn at(ms: u64) -> Moment {
        Moment((1_000_000 + ms) * 1_000_000)
    }

    /// The first server goes down and comes up at a moment.
    fn returns_at(backend: &Backend, ms: u64) {
        for health in [Health::Down, Health::Up] {
            backend.servers[0].set_health(health);
            assert!(backend.publish().is_empty());
        }
        let ramped = backend.ramp(at(ms));
        assert!(ramped.goes_on && ramped.arrived.is_empty() && ramped.grants.is_empty());
    }

    /// The part at each of some moments, to the moment at which it arrives.
    fn parts(plan: plan::SlowStart, every_ms: u64) -> Vec<u32> {
        let slow_start = SlowStart::new(plan);
        assert_eq!(slow_start.step(at(7)), Step::Rests);
        let first = slow_start.begin().0;
        assert_eq!(slow_start.percent(), first);
        let mut parts = Vec::new();
        for n in 0.. {
            match slow_start.step(at(n * every_ms)) {
                Step::GoesOn { percent, .. } => parts.push(percent),
                Step::Arrives => break,
                Step::Rests => panic!("it has begun"),
            }
        }
        assert!(!slow_start.is_on_its_way());
        assert_eq!(slow_start.percent(), WHOLE);
        parts
    }

    #[test]
    fn the_part_grows_in_proportion_and_ends_at_the_whole() {
        assert_eq!(
            parts(plan(1_000, &[], 0), 100),
            [6, 15, 24, 34, 43, 53, 62, 71, 81, 90]
        );
        for (duration_ms, every_ms) in [(1, 1), (30_000, 7), (3_333, 250), (100, 1_000)] {
            let parts = parts(plan(duration_ms, &[], 0), every_ms);
            assert_eq!(
                parts.len() as u64,
                u64::from(duration_ms).div_ceil(every_ms)
            );
            assert!(
                parts.is_sorted() && parts[0] == FIRST_PERCENT && *parts.last().unwrap() < WHOLE
            );
            assert!(duration_ms < 10_000 || parts.windows(2).all(|pair| pair[1] - pair[0] <= 1));
        }
        // A month, looked at now and then: no overflow, no drift.
        assert_eq!(
            parts(plan(u32::MAX, &[], 0), u64::from(u32::MAX / 2)),
            [6, 52, 99]
        );
    }

    #[test]
    fn steps_are_equally_long() {
        let steps = [10, 25, 50, 75, 100];
        let parts = parts(plan(1_000, &steps, 0), 100);
        assert_eq!(parts, [10, 10, 25, 25, 50, 50, 75, 75, 100, 100]);
    }

    #[test]
    fn going_down_on_the_way_begins_anew() {
        let backend = starting_slowly(
            Balance::RoundRobin,
            &[server(10, 0), server(10, 0)],
            &plan(1_000, &[], 0),
        );
        let seen = || {
            let first = &backend.servers[0];
            (backend.throttle(first), backend.present_weight(first))
        };
        assert_eq!(seen(), (None, 10), "those that begin up begin whole");
        assert!(!backend.ramp(at(0)).goes_on);
        returns_at(&backend, 0);
        assert_eq!(seen(), (Some(6), 1));
        assert_eq!(
            (backend.usable_weight(), backend.usable_user_weight()),
            (11, 20)
        );
        assert!(backend.ramp(at(900)).goes_on);
        assert_eq!(seen(), (Some(90), 9));
        backend.servers[0].set_health(Health::Down);
        assert!(backend.publish().is_empty());
        assert_eq!(seen(), (None, 10));
        assert!(!backend.ramp(at(950)).goes_on);
        returns_at(&backend, 1_000);
        assert_eq!(seen(), (Some(6), 1));
        // Maintenance is one of the ways to be out of service; a drain is not.
        backend.servers[0].set_admin(Admin::Maintenance);
        backend.servers[0].set_admin(Admin::Ready);
        assert!(backend.ramp(at(1_900)).goes_on);
        assert_eq!(seen(), (Some(6), 1));
        backend.servers[0].set_admin(Admin::Drain);
        backend.servers[0].set_admin(Admin::Ready);
        assert!(backend.ramp(at(2_300)).goes_on);
        // The weight may change meanwhile.
        backend.servers[0].set_weight(200);
        assert!(backend.publish().is_empty());
        assert_eq!(seen(), (Some(43), 86));
        let arrived = backend.ramp(at(2_900)).arrived;
        assert_eq!(arrived.len(), 1);
        assert_eq!(seen(), (None, 200));
    }

    /// Round robin is exact at every part and goes on in phase.
    #[test]
    fn round_robin_gives_each_part_exactly() {
        let backend = starting_slowly(
            Balance::RoundRobin,
            &[server(1, 0); 3],
            &plan(1_000, &[10, 25, 50, 75, 100], 0),
        );
        assert_eq!(spread(&backend, 99), [33, 33, 33]);
        returns_at(&backend, 0);
        for (n, percent) in [10, 25, 50, 75, 100].into_iter().enumerate() {
            assert!(backend.ramp(at(n as u64 * 200 + 1)).goes_on);
            let counts = spread(&backend, 100 * (200 + percent));
            assert_eq!(counts, [percent * 100, 10_000, 10_000]);
        }
        assert!(!backend.ramp(at(1_000)).goes_on);
        let mut counts = spread(&backend, 100);
        counts.sort_unstable();
        assert_eq!(counts, [33, 33, 34]);
        let turns: Vec<_> = (0..6)
            .map(|_| picked(&pick_and_release(&backend, None)).unwrap())
            .collect();
        assert_eq!(turns[..3], turns[3..]);
        assert!((0..3).all(|id| turns[..3].contains(&id)));
    }

    #[test]
    fn open_connections_follow_the_part() {
        for balance in [Balance::LeastConn, Balance::PeakEwma] {
            let backend = starting_slowly(balance, &[server(1, 0); 3], &plan(1_000, &[], 0));
            returns_at(&backend, 0);
            assert!(backend.ramp(at(500)).goes_on);
            (0..253).for_each(|_| assert!(picked(&backend.pick(ANY)).is_some()));
            let active = backend.servers[0].active();
            assert!(
                (52..=54).contains(&active),
                "{balance:?}: {active} of 253 at 53 %"
            );
        }
    }

    /// On a ring and in a Maglev table a server that returns takes its clients one after the other,
    /// and nobody else moves, or hardly anybody; on the map nothing happens slowly.
    #[test]
    fn hashes_move_the_clients_of_who_returns() {
        for (balance, granularity, others_max) in [(RING, 5, 0), (MAGLEV, 10, 90), (MAP, 100, 0)] {
            let backend = starting_slowly(balance, &[server(1, 0); 3], &plan(1_000, &[], 0));
            let homes = || -> Vec<u32> {
                let home = |n| picked(&pick_and_release(&backend, address(n))).unwrap();
                (0..3_000).map(home).collect()
            };
            let before = homes();
            returns_at(&backend, 0);
            let mut last = 0;
            for tick in 0..10 {
                assert!(backend.ramp(at(tick * 100)).goes_on);
                let percent = backend.throttle(&backend.servers[0]).unwrap();
                assert!(percent.is_multiple_of(granularity), "{percent}");
                let now = homes();
                let moved = before
                    .iter()
                    .zip(&now)
                    .filter(|(before, now)| before != now);
                let others = moved.clone().filter(|(before, _)| **before != 0).count();
                assert!(others <= others_max, "{others} at {percent} %");
                let at_home = now.iter().filter(|id| **id == 0).count();
                assert!(at_home >= last && (granularity == 100) == (moved.count() == 0));
                assert!(tick > 0 || granularity == 100 || at_home < 200, "{at_home}");
                last = at_home;
            }
            assert!(!backend.ramp(at(1_000)).goes_on);
            assert_eq!(homes(), before);
        }
    }

    /// The table of many servers stays bounded, whatever the parts.
    #[test]
    fn the_table_stays_bounded() {
        let servers: Vec<_> = (1..=256).map(|weight| server(weight, 0)).collect();
        let backend = starting_slowly(Balance::RoundRobin, &servers, &plan(1_000, &[], 0));
        returns_at(&backend, 0);
        for tick in 1..10 {
            assert!(backend.ramp(at(tick * 100)).goes_on);
            let counts = spread(&backend, 70_000);
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        }
    }

    #[test]
    fn the_limit_of_connections_grows_and_those_that_wait_get_the_room() {
        for balance in [Balance::RoundRobin, MAP] {
            let backend = starting_slowly(balance, &[server(1, 10)], &plan(1_000, &[], 0));
            let first = &backend.servers[0];
            returns_at(&backend, 0);
            let mut slot = 0;
            let mut come = || {
                slot += 1;
                let Pick::Wait { only: None } = backend.pick(ANY) else {
                    return true;
                };
                let waiter = Waiter {
                    shard: ShardId(0),
                    session: key(slot),
                    only: None,
                };
                backend.enqueue(waiter).is_some()
            };
            let served = (0..12).filter(|_| come()).count();
            assert_eq!((served, first.active(), first.maxconn()), (1, 1, 10));
            let mut active = Vec::new();
            for tick in 1..=10 {
                let ramped = backend.ramp(at(tick * 100));
                assert_eq!(ramped.goes_on, tick < 10);
                active.push(first.active());
            }
            assert_eq!(active, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
            assert_eq!(backend.queued(), 2);
            // A lower bound set on the way ramps too.
            returns_at_with_sessions(&backend, 2_000);
            first.set_maxconn(4);
            assert!(backend.ramp(at(2_500)).goes_on);
            let grant = (0..10).filter_map(|_| backend.release(first, Outcome::Completed));
            assert_eq!((grant.count(), first.active(), backend.queued()), (2, 2, 0));
        }
    }

    fn returns_at_with_sessions(backend: &Backend, ms: u64) {
        for health in [Health::Down, Health::Up] {
            backend.servers[0].set_health(health);
            assert!(backend.publish().is_empty());
        }
        assert!(backend.ramp(at(ms)).goes_on);
    }

    /// Sessions come and go at random and time goes on at random: in no second does the server that
    /// returns get more than its rate and one filling, whoever is beside it; who waits is served in
    /// turn, and in the end everybody has been.
    #[test]
    fn the_rate_of_new_connections_is_kept_and_nobody_is_forgotten() {
        for seed in 0..60 {
            let mut random = random(seed);
            let rate = [1, 7, 10, 45, 300][(seed % 5) as usize];
            let balance = [Balance::RoundRobin, Balance::LeastConn, Balance::PeakEwma];
            let balance = balance[(seed / 5 % 3) as usize];
            let alone = seed % 2 == 0;
            let limit = [0, 3][(seed / 15 % 2) as usize];
            let beside = if alone { vec![] } else { vec![server(1, 4)] };
            let servers = [vec![server(1, limit)], beside].concat();
            let backend = starting_slowly(balance, &servers, &plan(20_000, &[], rate));
            returns_at(&backend, 0);
            let mut simulation = Simulation {
                backend: &backend,
                waiting: VecDeque::new(),
                open: Vec::new(),
                begun: Vec::new(),
                now: 0,
            };
            let (mut slot, mut tick) = (0, TICK_MS);
            while simulation.now < 19_000 {
                simulation.now += random(30);
                if simulation.now >= tick {
                    // The control thread may be late.
                    tick = simulation.now + TICK_MS + random(2) * random(150);
                    let ramped = backend.ramp(at(simulation.now));
                    ramped
                        .grants
                        .into_iter()
                        .for_each(|grant| simulation.give(grant));
                }
                match random(5) {
                    0..3 => {
                        slot += 1;
                        simulation.come(slot);
                    }
                    3 => simulation.end(random(1_000)),
                    _ => simulation.give_up(random(1_000)),
                }
                simulation.nobody_waits_for_nothing();
            }
            simulation.check(rate);
            let last = backend.ramp(at(20_000));
            assert!(!last.goes_on);
            last.grants
                .into_iter()
                .for_each(|grant| simulation.give(grant));
            while !simulation.open.is_empty() {
                simulation.end(0);
            }
            assert!(
                simulation.waiting.is_empty(),
                "seed {seed}: somebody is forgotten"
            );
            assert_eq!((backend.queued(), backend.active()), (0, 0));
        }
    }

    struct Simulation<'a> {
        backend: &'a Backend,
        waiting: VecDeque<u32>,
        open: Vec<Arc<Server>>,
        /// When the server that returns got connections.
        begun: Vec<u64>,
        now: u64,
    }

    impl Simulation<'_> {
        fn take(&mut self, server: Arc<Server>) {
            if server.id == ServerId(0) {
                self.begun.push(self.now);
            }
            self.open.push(server);
        }

        fn give(&mut self, grant: Grant) {
            let first = self.waiting.pop_front();
            assert_eq!(first, Some(grant.waiter.session.slot), "in turn");
            self.take(grant.server);
        }

        fn come(&mut self, slot: u32) {
            let waiter = Waiter {
                shard: ShardId(0),
                session: key(slot),
                only: None,
            };
            match self.backend.pick(ANY) {
                Pick::Server(server) => self.take(server),
                Pick::Wait { .. } => {
                    self.waiting.push_back(slot);
                    if let Some(grant) = self.backend.enqueue(waiter) {
                        self.give(grant);
                    }
                }
                Pick::Refuse => panic!("a server is up"),
            }
        }

        fn end(&mut self, which: u64) {
            if self.open.is_empty() {
                return;
            }
            let index = which as usize % self.open.len();
            let server = self.open.swap_remove(index);
            if let Some(grant) = self.backend.release(&server, Outcome::Completed) {
                self.give(grant);
            }
        }

        fn give_up(&mut self, which: u64) {
            if self.waiting.is_empty() {
                return;
            }
            let index = which as usize % self.waiting.len();
            let slot = self.waiting.remove(index).expect("one of them");
            assert!(self.backend.dequeue(Waiter {
                shard: ShardId(0),
                session: key(slot),
                only: None,
            }));
        }

        /// While somebody waits no server has room.
        fn nobody_waits_for_nothing(&self) {
            let mut servers = self.backend.servers.iter();
            let full = servers.all(|server| server.room().is_none());
            assert!(full || self.waiting.is_empty(), "{:?}", self.waiting);
        }

        fn check(&self, rate: u32) {
            let most = (rate + rate.div_ceil(TICKS_PER_SECOND).max(1)) as usize;
            let mut fullest = 0;
            for (n, from) in self.begun.iter().enumerate() {
                let second = self.begun[n..].iter().take_while(|ms| **ms < from + 1_000);
                fullest = fullest.max(second.count());
            }
            assert!(fullest <= most, "{fullest} in a second, {most} allowed");
            // A bound that nobody comes near shows nothing. Late ticks cost a part of the rate.
            assert!(
                rate > 10 || 2 * fullest > rate as usize,
                "{fullest} of {rate}"
            );
        }
    }
}
