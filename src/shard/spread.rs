//! Which shard serves a connection: how loaded each one is, and when it is worth handing over.
//!
//! The kernel spreads connections over the sockets of a group by a hash, which gives one of two
//! shards six of eight streams. So whoever accepts one compares. What is cheap to leave as it is
//! stays: small differences between many sessions, and those that go away by themselves because
//! sessions are short.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::base::ids::ShardId;
use crate::base::time::Moment;

/// Shards that are looked at for a connection, besides the own one: each look may cost a cache
/// miss. Where a listener has more of them, others are looked at every time.
const LOOKS_MAX: usize = 8;
/// A difference of this part of the least load is left as it is.
const TOLERANCE_DIVISOR: u32 = 8;
/// The bit of a load that says that nothing more may come.
const CLOSED: u32 = 1 << 31;
/// How far back ended sessions are looked at, milliseconds: up to twice as far.
const CHURN_WINDOW_MS: u64 = 256;
/// Sessions that have ended in a window, for each of which a difference of one more is left. With
/// so few, a hand-over of every connection would cost nothing that can be measured.
const CHURN_DIVISOR: u32 = 64;

/// A shard's open sessions and what is on its way to it. Counted up by the owner and by whoever
/// hands over, on a cache line of its own. All that is asked of it is that every count is seen once
/// in the order of its changes, which an atomic has in any ordering.
#[derive(Debug, Default)]
pub(super) struct Load(CachePadded<AtomicU32>);

impl Load {
    /// The owner lets a connection in.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The same if the load is what was seen: nobody has handed anything over since.
    #[must_use]
    pub(super) fn add_to(&self, seen: u32) -> bool {
        let exchanged = self.0.compare_exchange(seen, seen + 1, Relaxed, Relaxed);
        exchanged.is_ok()
    }

    /// Somebody else announces one; false if nothing more may come.
    #[must_use]
    pub(super) fn announce(&self) -> bool {
        let more = |load| (load & CLOSED == 0).then_some(load + 1);
        self.0.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// A session has ended, or what was announced doesn't come.
    pub(super) fn subtract(&self) {
        let before = self.0.fetch_sub(1, Relaxed);
        debug_assert!(before & !CLOSED > 0, "a load was given back twice");
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.0.load(Relaxed) & !CLOSED
    }

    /// The same, unless nothing more may come.
    fn open_count(&self) -> Option<u32> {
        let load = self.0.load(Relaxed);
        (load & CLOSED == 0).then_some(load)
    }

    /// The owner takes nothing more from others. What was announced before still comes.
    pub(super) fn close(&self) {
        self.0.fetch_or(CLOSED, Relaxed);
    }
}

/// The shards that serve a listener.
#[derive(Debug)]
pub(super) struct Serving {
    shards: Vec<ShardId>,
    /// Who is next, where they take turns.
    next: CachePadded<AtomicUsize>,
    /// Every shard knows the listener.
    is_open: AtomicBool,
    /// Shards that have not closed their socket, or where somebody waits for room.
    left: AtomicUsize,
    /// Shards that have a flow of it, of a listener of datagrams that is taken away.
    with_flows: AtomicUsize,
}

impl Serving {
    /// These shards.
    pub(super) fn new(shards: Vec<ShardId>) -> Serving {
        Serving {
            next: CachePadded::default(),
            is_open: AtomicBool::new(false),
            left: AtomicUsize::new(shards.len()),
            with_flows: AtomicUsize::new(shards.len()),
            shards,
        }
    }

    /// No shard, but a thread that has so many sockets of it: frontends of pages.
    pub(super) fn of_sockets(count: u16) -> Serving {
        Serving {
            left: AtomicUsize::new(count.into()),
            ..Serving::new(Vec::new())
        }
    }

    /// Every shard knows the listener from now on: connections may be handed over.
    pub(super) fn open(&self) {
        self.is_open.store(true, Release);
    }

    /// Whether there is anybody to hand a connection over to.
    pub(super) fn is_shared(&self) -> bool {
        self.shards.len() > 1 && self.is_open.load(Acquire)
    }

    /// A shard, or a socket that no shard has, will bring no connection of the listener any more.
    pub(super) fn one_has_ended(&self) {
        self.left.fetch_sub(1, Release);
    }

    /// A shard has no flow of the listener any more, and will have none.
    pub(super) fn one_is_quiet(&self) {
        self.with_flows.fetch_sub(1, Release);
    }

    /// It has no socket, and so brings nothing.
    pub(super) fn has_none(&self) {
        self.left.store(0, Release);
        self.with_flows.store(0, Release);
    }

    /// Whether no shard has a flow of it any more. Before that no socket of the group is closed:
    /// the others would get other numbers, and clients be led to other shards.
    pub(super) fn is_quiet(&self) -> bool {
        self.with_flows.load(Acquire) == 0
    }

    /// Whether no shard brings any more.
    pub(super) fn has_ended(&self) -> bool {
        self.left.load(Acquire) == 0
    }

    /// The next one in turn.
    pub(super) fn in_turn(&self) -> ShardId {
        self.shards[self.next.fetch_add(1, Relaxed) % self.shards.len()]
    }

    /// The least loaded shard of those looked at beside `own`, with its load. `from` goes on with
    /// every call, so that equals and those beyond the bound get their turn.
    pub(super) fn least_loaded<'a>(
        &self,
        own: ShardId,
        from: &mut usize,
        load_of: impl Fn(ShardId) -> &'a Load,
    ) -> Option<(ShardId, u32)> {
        let shards = self.shards.len();
        // The own one is among them.
        let looks = shards.min(LOOKS_MAX + 1);
        let first = *from % shards.max(1);
        *from = if looks < shards {
            first + looks
        } else {
            first + 1
        };
        let looked_at = (first..first + looks).map(|place| self.shards[place % shards]);
        looked_at
            .filter(|shard| *shard != own)
            .filter_map(|shard| Some((shard, load_of(shard).open_count()?)))
            .min_by_key(|(_, load)| *load)
    }
}

/// Whether a shard is clearly above the least loaded one. `ended` is how many of its sessions have
/// ended lately.
pub(super) fn is_clearly_above(own: u32, least: u32, ended: u32) -> bool {
    let left_as_it_is = least / TOLERANCE_DIVISOR + ended / CHURN_DIVISOR;
    own > least.saturating_add(left_as_it_is)
}

/// How many sessions of a shard have ended lately.
#[derive(Debug)]
pub(super) struct Churn {
    window_at: Moment,
    now: u32,
    before: u32,
}

impl Churn {
    /// None yet.
    pub(super) fn new(now: Moment) -> Churn {
        Churn {
            window_at: now,
            now: 0,
            before: 0,
        }
    }

    /// A session has ended.
    pub(super) fn add(&mut self, now: Moment) {
        self.turn_to(now);
        self.now = self.now.saturating_add(1);
    }

    /// Sessions that have ended in this window or the one before, whichever had more.
    pub(super) fn lately(&mut self, now: Moment) -> u32 {
        self.turn_to(now);
        self.now.max(self.before)
    }

    fn turn_to(&mut self, now: Moment) {
        let windows = now.ms_since(self.window_at) / CHURN_WINDOW_MS;
        if windows == 0 {
            return;
        }
        self.before = if windows == 1 { self.now } else { 0 };
        self.now = 0;
        self.window_at = self.window_at.after_ms(windows * CHURN_WINDOW_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(shards: u16) -> (Serving, Vec<Load>) {
        let loads = (0..shards).map(|_| Load::default()).collect();
        (Serving::new((0..shards).map(ShardId).collect()), loads)
    }

    /// Connections that all stay, accepted by whom `accepts` says; the loads at the end and how
    /// many were handed over.
    fn spread(shards: u16, total: u32, accepts: impl Fn(u32) -> u16) -> (Vec<u32>, u32) {
        let (serving, loads) = serving(shards);
        let at = |shard: ShardId| &loads[usize::from(shard.0)];
        let (mut from, mut handed_over) = (0, 0);
        for number in 0..total {
            let own = ShardId(accepts(number));
            let least = serving.least_loaded(own, &mut from, at);
            match least.filter(|(_, least)| is_clearly_above(at(own).count(), *least, 0)) {
                Some((target, seen)) => {
                    assert!(at(target).add_to(seen));
                    handed_over += 1;
                }
                None => at(own).add(),
            }
        }
        (loads.iter().map(Load::count).collect(), handed_over)
    }

    #[test]
    fn few_are_spread_exactly_whoever_accepts_them() {
        for shards in 2..=4 {
            let all_on_one = spread(shards, u32::from(shards) * 4, |_| 0).0;
            assert!(all_on_one.iter().all(|load| *load == 4), "{all_on_one:?}");
            for pattern in 0..256_u16 {
                let accepts = |number| (pattern >> (number % 8) & 1) % shards;
                let each = spread(shards, u32::from(shards) * 2, accepts).0;
                assert!(each.iter().all(|load| *load == 2), "{pattern:b}: {each:?}");
            }
        }
    }

    #[test]
    fn many_are_handed_over_seldom_and_stay_within_the_tolerance() {
        let hash = |number: u32| {
            let mixed = number.wrapping_mul(0x9e37_79b9).rotate_left(13);
            u16::try_from((mixed.wrapping_mul(0x85eb_ca6b) >> 16) % 4).unwrap()
        };
        let (each, handed_over) = spread(4, 40_000, hash);
        assert!(handed_over < 40_000 / 50, "{handed_over}");
        let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
        assert!(*most <= least + least / 8 + 1, "{each:?}");
    }

    #[test]
    fn with_many_shards_some_are_looked_at_and_all_get_their_turn() {
        let (each, _) = spread(64, 64 * 100, |_| 0);
        let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
        assert!(*least > 80 && *most < 130, "{each:?}");
    }

    #[test]
    fn nothing_is_announced_to_a_closed_shard_and_what_was_still_comes() {
        let (serving, loads) = serving(2);
        let at = |shard: ShardId| &loads[usize::from(shard.0)];
        assert!(loads[1].announce());
        loads[1].close();
        assert!(!loads[1].announce());
        assert_eq!(loads[1].count(), 1);
        assert_eq!(serving.least_loaded(ShardId(0), &mut 0, at), None);
        loads[1].subtract();
        assert_eq!(loads[1].count(), 0);
    }

    #[test]
    fn short_sessions_need_no_hand_over() {
        let mut churn = Churn::new(Moment(0));
        assert!(is_clearly_above(6, 4, churn.lately(Moment(0))));
        for ms in 0..100 {
            for _ in 0..5 {
                churn.add(Moment(0).after_ms(ms));
            }
        }
        let at = |ms| Moment(0).after_ms(ms);
        assert!(!is_clearly_above(6, 4, churn.lately(at(100))));
        assert!(is_clearly_above(16, 4, churn.lately(at(100))));
        // The window before counts, and nothing older.
        assert_eq!(churn.lately(at(300)), 500);
        assert_eq!(churn.lately(at(600)), 0);
    }

    #[test]
    fn turns_are_taken_by_all() {
        let (serving, _) = serving(3);
        let turns: Vec<u16> = (0..6).map(|_| serving.in_turn().0).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }
}
