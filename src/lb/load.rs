//! What a server has and may have: connections, their limit, and the allowance of new ones while
//! the server returns. One cache line, which every pick and release touches.
//!
//! A connection is taken in one step that compares with the limit. Before it, one of the allowance
//! is spent where there is one; a connection that isn't taken after all refunds it. The order is
//! sequentially consistent throughout: the argument that no waiting session is forgotten rests on
//! it (see `queue`). Who raises a limit or an allowance looks at the queue afterwards.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use super::ramp::Occupancy;

/// The allowance of a server that takes as many new connections as come.
const ANY_NUMBER: u32 = u32::MAX;

/// A server's connections and their bounds.
#[derive(Debug)]
pub(super) struct Load {
    /// Connections it has now, of all shards; written by `pick` and `release` only.
    active: AtomicU32,
    /// Most connections it ever had.
    peak: AtomicU32,
    /// Most connections it may have at present; `u32::MAX` = unlimited.
    maxconn: AtomicU32,
    /// What that shrinks to while the backend has few sessions.
    minconn: AtomicU32,
    /// New connections it may still take until it is given more.
    allowance: AtomicU32,
    /// How full the backend is: with a `minconn` the limit depends on it.
    occupancy: Arc<Occupancy>,
}

impl Load {
    /// Without connections; `maxconn` is `u32::MAX` where there is no bound.
    pub(super) fn new(minconn: u32, maxconn: u32, occupancy: Arc<Occupancy>) -> Load {
        Load {
            active: AtomicU32::new(0),
            peak: AtomicU32::new(0),
            maxconn: AtomicU32::new(maxconn),
            minconn: AtomicU32::new(minconn),
            allowance: AtomicU32::new(ANY_NUMBER),
            occupancy,
        }
    }

    /// Connections there are now.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Most connections there ever were.
    pub(super) fn peak(&self) -> u32 {
        self.peak.load(Relaxed)
    }

    /// Has the most there ever were begin anew, with those there are.
    pub(super) fn clear_peak(&self) {
        self.peak.store(self.active(), Relaxed);
    }

    /// Sets the bounds. Connections above a lower bound are left alone.
    pub(super) fn set_limits(&self, minconn: u32, maxconn: u32) {
        self.minconn.store(minconn, SeqCst);
        self.maxconn.store(maxconn, SeqCst);
    }

    /// Connections there may be at this moment: `maxconn`, or with `minconn` a part of it.
    fn limit(&self) -> u32 {
        let maxconn = self.maxconn.load(SeqCst);
        match self.minconn.load(SeqCst) {
            0 => maxconn,
            minconn => self.occupancy.limit(minconn, maxconn),
        }
    }

    /// Connections there are now, if one more may be taken.
    pub(super) fn room(&self) -> Option<u32> {
        let active = self.active.load(SeqCst);
        (active < self.limit() && self.allowance.load(SeqCst) > 0).then_some(active)
    }

    /// Takes a connection if there is room.
    pub(super) fn take(&self) -> bool {
        if !self.spend() {
            return false;
        }
        let limit = self.limit();
        if limit == u32::MAX {
            // Without a bound there is nothing to compare: one addition instead of a loop.
            self.note_peak(self.active.fetch_add(1, SeqCst) + 1);
            return true;
        }
        let taken = self
            .active
            .fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1));
        match taken {
            Ok(before) => self.note_peak(before + 1),
            Err(_) => self.refund(),
        }
        taken.is_ok()
    }

    /// Takes a connection if there still are exactly `seen` and there is room.
    pub(super) fn take_seeing(&self, seen: u32) -> bool {
        if seen >= self.limit() || !self.spend() {
            return false;
        }
        let taken = self
            .active
            .compare_exchange(seen, seen + 1, SeqCst, Relaxed)
            .is_ok();
        if taken {
            self.note_peak(seen + 1);
        } else {
            self.refund();
        }
        taken
    }

    /// Gives a connection back.
    pub(super) fn give(&self) {
        let before = self.active.fetch_sub(1, SeqCst);
        assert!(before > 0, "a server was released more often than picked");
    }

    /// Whether there are more connections than may be: the limit was lowered.
    pub(super) fn is_above_limit(&self) -> bool {
        self.active.load(Relaxed) > self.limit()
    }

    /// Uses the allowance for one new connection, where there is one.
    pub(super) fn spend(&self) -> bool {
        // A server that is not returning costs this look and no more. Whoever finds the server in a
        // table of after its return also finds its allowance.
        if self.allowance.load(Relaxed) == ANY_NUMBER {
            return true;
        }
        let one_less = |left| match left {
            ANY_NUMBER | 0 => None,
            left => Some(left - 1),
        };
        match self.allowance.fetch_update(SeqCst, SeqCst, one_less) {
            Ok(_) => true,
            Err(left) => left == ANY_NUMBER,
        }
    }

    /// The new connection was not made. Whoever was turned away meanwhile is looked for when the
    /// allowance is filled up the next time.
    fn refund(&self) {
        self.fill(1, ANY_NUMBER - 1);
    }

    /// Allows `more` new connections, `most` in all. Without an allowance there is nothing to fill.
    pub(super) fn fill(&self, more: u32, most: u32) {
        let filled = |left: u32| match left {
            ANY_NUMBER => None,
            left => Some(left.saturating_add(more).min(most)),
        };
        // An error says that any number is allowed, which is no less.
        let _ = self.allowance.fetch_update(SeqCst, SeqCst, filled);
    }

    /// From now on only so many new connections until there are more; `None` = any number.
    pub(super) fn allow(&self, connections: Option<u32>) {
        let allowance = connections.map_or(ANY_NUMBER, |n| n.min(ANY_NUMBER - 1));
        self.allowance.store(allowance, SeqCst);
    }

    fn note_peak(&self, active: u32) {
        // The peak is seldom reached: a load keeps the line shared on the other CPUs.
        if self.peak.load(Relaxed) < active {
            self.peak.fetch_max(active, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Arc<Occupancy> {
        Arc::new(Occupancy::new(1))
    }

    #[test]
    fn an_allowance_bounds_what_is_new_and_not_what_is_there() {
        let load = Load::new(0, u32::MAX, empty());
        assert!((0..5).all(|_| load.take()));
        load.allow(Some(2));
        assert_eq!(load.room(), Some(5));
        assert!(load.take() && load.take_seeing(6));
        assert!(!load.take() && !load.take_seeing(7));
        assert_eq!((load.room(), load.active()), (None, 7));
        // What ends makes no room for what is new.
        load.give();
        assert!(!load.take());
        load.fill(5, 3);
        assert!((0..3).all(|_| load.take()) && !load.take());
        load.allow(None);
        assert!((0..100).all(|_| load.take()));
        load.fill(1, 1);
        assert!(load.take() && load.take());
    }

    #[test]
    fn what_is_not_taken_after_all_is_refunded() {
        let load = Load::new(0, 2, empty());
        load.allow(Some(3));
        assert!(load.take() && load.take());
        assert!((0..10).all(|_| !load.take()), "full");
        load.give();
        assert!(!load.take_seeing(0), "another number is there");
        assert!(load.take_seeing(1), "the third of three");
        load.give();
        assert!(!load.take(), "spent");
    }

    /// Whatever way the threads interleave, no more is taken than was allowed.
    #[test]
    fn threads_share_an_allowance_exactly() {
        let load = Load::new(0, 3, empty());
        load.allow(Some(0));
        let allowed = 5_000;
        let taken: u32 = std::thread::scope(|scope| {
            let take = |_| {
                scope.spawn(|| {
                    let mut taken = 0;
                    for turn in 0..20_000 {
                        let got = match turn % 2 {
                            0 => load.take(),
                            _ => load.room().is_some_and(|seen| load.take_seeing(seen)),
                        };
                        if got {
                            taken += 1;
                            load.give();
                        }
                    }
                    taken
                })
            };
            let threads: Vec<_> = (0..4).map(take).collect();
            for _ in 0..allowed {
                load.fill(1, u32::MAX - 1);
            }
            threads
                .into_iter()
                .map(|t| t.join().expect("a count"))
                .sum()
        });
        let rest = (0..).take_while(|_| load.spend()).count();
        assert_eq!(taken as usize + rest, allowed);
        assert_eq!(load.active(), 0);
    }
}
