//! Shared connection limits: one fixed-capacity keyed table for the process.
//!
//! A limit is a current count, a bound and the set of shards that paused because of it. Taking and
//! giving are single atomic steps, so the bound holds exactly whichever shards accept.

use crossbeam::utils::CachePadded;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

use super::ids::{ListenerId, ProxyId, ShardId};

/// What a limit belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LimitKey {
    /// The whole process (`global maxconn`).
    Process,
    /// A frontend (`maxconn`).
    Frontend(ProxyId),
    /// A listener (`bind ... maxconn`).
    Listener(ListenerId),
    /// The flows of the whole process (`tune.udp.maxflows`).
    Flows,
}

/// A limit's slot in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitId(u32);

/// Shards that were waiting for a limit: a bit per shard, shards above 63 share the last bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShardSet(pub u64);

impl ShardSet {
    /// The bit of a shard.
    pub fn of(shard: ShardId) -> ShardSet {
        ShardSet(1 << u32::from(shard.0).min(63))
    }

    /// Whether a shard is in the set.
    pub fn has(self, shard: ShardId) -> bool {
        self.0 & ShardSet::of(shard).0 != 0
    }

    /// Whether no shard is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[derive(Debug, Default)]
struct Limit {
    current: AtomicU32,
    max: AtomicU32,
    /// Highest `current` seen.
    peak: AtomicU32,
    paused: AtomicU64,
}

/// The table. It never changes; a reload makes the next one of it, in which every key that stays
/// keeps its slot and its counts.
#[derive(Debug)]
pub struct LimitTable {
    /// By slot; `None` = nobody's.
    keys: Vec<Option<LimitKey>>,
    limits: Vec<Arc<CachePadded<Limit>>>,
}

impl LimitTable {
    /// A table with one limit per `(key, bound)`; a bound of 0 means unlimited.
    pub fn new(entries: &[(LimitKey, u32)]) -> Self {
        LimitTable {
            keys: entries.iter().map(|(key, _)| Some(*key)).collect(),
            limits: entries.iter().map(|(_, max)| Limit::new(*max)).collect(),
        }
    }

    /// The table of what there is after a change, and the shards to wake: keys that stay keep
    /// their slots and counts and have these bounds, others come into slots that are nobody's.
    #[must_use]
    pub fn next(&self, entries: &[(LimitKey, u32)]) -> (LimitTable, ShardSet) {
        let wanted: HashMap<LimitKey, u32> = entries.iter().copied().collect();
        let mut next = LimitTable {
            keys: self
                .keys
                .iter()
                .map(|key| key.filter(|key| wanted.contains_key(key)))
                .collect(),
            limits: self.limits.clone(),
        };
        let slots = self.keys.iter().enumerate();
        let known: HashMap<LimitKey, usize> = slots
            .filter_map(|(slot, key)| Some(((*key)?, slot)))
            .collect();
        let mut woken = ShardSet::default();
        let mut free = 0;
        for (key, max) in entries {
            if let Some(slot) = known.get(key) {
                let limit = &self.limits[*slot];
                if limit.max.load(Relaxed) != bound(*max) {
                    limit.max.store(bound(*max), SeqCst);
                    woken.0 |= limit.paused.swap(0, SeqCst);
                }
                continue;
            }
            while next.keys.get(free).is_some_and(Option::is_some) {
                free += 1;
            }
            if free == next.keys.len() {
                next.keys.push(None);
                next.limits.push(Limit::new(*max));
            }
            next.keys[free] = Some(*key);
            next.limits[free] = Limit::new(*max);
        }
        (next, woken)
    }

    /// The slot of a key.
    pub fn find(&self, key: LimitKey) -> Option<LimitId> {
        let index = self.keys.iter().position(|k| *k == Some(key))?;
        u32::try_from(index).ok().map(LimitId)
    }

    /// Takes one unit, or says that the limit is reached.
    #[must_use]
    pub fn take(&self, id: LimitId) -> bool {
        let limit = self.at(id);
        let max = limit.max.load(Relaxed);
        let taken = limit
            .current
            .fetch_update(SeqCst, Relaxed, |n| (n < max).then_some(n + 1));
        match taken {
            Ok(before) => {
                if limit.peak.load(Relaxed) <= before {
                    limit.peak.fetch_max(before + 1, Relaxed);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Gives one unit back and returns the shards to wake.
    pub fn give(&self, id: LimitId) -> ShardSet {
        let limit = self.at(id);
        let before = limit.current.fetch_sub(1, SeqCst);
        debug_assert!(before > 0, "a limit was given back more often than taken");
        if limit.paused.load(SeqCst) == 0 {
            return ShardSet(0);
        }
        ShardSet(limit.paused.swap(0, SeqCst))
    }

    /// Units still free.
    pub fn free(&self, id: LimitId) -> u32 {
        let limit = self.at(id);
        limit
            .max
            .load(Relaxed)
            .saturating_sub(limit.current.load(SeqCst))
    }

    /// Notes that `shard` waits for this limit. The caller must look at `free` once more
    /// afterwards: a unit given back in between would otherwise wake nobody.
    pub fn pause(&self, id: LimitId, shard: ShardId) {
        self.at(id).paused.fetch_or(ShardSet::of(shard).0, SeqCst);
    }

    /// Units taken now.
    pub fn current(&self, id: LimitId) -> u32 {
        self.at(id).current.load(Relaxed)
    }

    /// Most units ever taken at once.
    pub fn peak(&self, id: LimitId) -> u32 {
        self.at(id).peak.load(Relaxed)
    }

    /// Has the most units ever taken at once begin anew, with those taken now.
    pub fn clear_peak(&self, id: LimitId) {
        let limit = self.at(id);
        limit.peak.store(limit.current.load(SeqCst), Relaxed);
    }

    /// The bound; `u32::MAX` = unlimited.
    pub fn max(&self, id: LimitId) -> u32 {
        self.at(id).max.load(Relaxed)
    }

    /// Changes the bound (0 = unlimited) and returns the shards to wake.
    pub fn set_max(&self, id: LimitId, max: u32) -> ShardSet {
        let limit = self.at(id);
        limit.max.store(bound(max), SeqCst);
        ShardSet(limit.paused.swap(0, SeqCst))
    }

    fn at(&self, id: LimitId) -> &Limit {
        &self.limits[id.0 as usize]
    }
}

impl Limit {
    fn new(max: u32) -> Arc<CachePadded<Limit>> {
        Arc::new(CachePadded::new(Limit {
            max: AtomicU32::new(bound(max)),
            ..Limit::default()
        }))
    }
}

/// 0 stands for no bound.
fn bound(max: u32) -> u32 {
    if max == 0 { u32::MAX } else { max }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_its_bound_and_wakes_the_paused() {
        let table = LimitTable::new(&[
            (LimitKey::Process, 2),
            (LimitKey::Listener(ListenerId(1)), 0),
        ]);
        let id = table.find(LimitKey::Process).unwrap();
        assert!(table.take(id) && table.take(id));
        assert!(!table.take(id));
        assert_eq!(table.free(id), 0);
        table.pause(id, ShardId(3));
        let woken = table.give(id);
        assert!(woken.has(ShardId(3)) && !woken.has(ShardId(0)));
        assert!(table.give(id).is_empty());
        assert_eq!((table.current(id), table.peak(id)), (0, 2));
        table.clear_peak(id);
        assert_eq!(table.peak(id), 0);
        let open = table.find(LimitKey::Listener(ListenerId(1))).unwrap();
        assert_eq!(table.max(open), u32::MAX);
        assert!(table.find(LimitKey::Frontend(ProxyId(9))).is_none());
    }

    #[test]
    fn what_stays_keeps_its_slot_and_its_counts() {
        let [a, b, c] = [0, 1, 2].map(|n| LimitKey::Frontend(ProxyId(n)));
        let table = LimitTable::new(&[(LimitKey::Process, 9), (a, 5), (b, 1)]);
        let id = |table: &LimitTable, key| table.find(key).unwrap();
        let (slot_of_a, slot_of_b) = (id(&table, a), id(&table, b));
        assert!(table.take(slot_of_b) && !table.take(slot_of_b));
        table.pause(slot_of_b, ShardId(2));
        let (next, woken) = table.next(&[(b, 2), (c, 3), (LimitKey::Process, 9)]);
        assert!(woken.has(ShardId(2)) && !woken.has(ShardId(0)));
        assert_eq!(id(&next, b), slot_of_b);
        assert_eq!(id(&next, c), slot_of_a, "the slot of who is gone");
        assert!(next.find(a).is_none());
        assert_eq!((next.current(slot_of_b), next.max(slot_of_b)), (1, 2));
        // Whoever still has the table of before counts in the same place.
        assert!(table.take(slot_of_b) && !next.take(slot_of_b));
        let _ = next.give(slot_of_b);
        assert_eq!((table.current(slot_of_b), next.current(slot_of_b)), (1, 1));
        assert_eq!(next.current(id(&next, c)), 0);
        let (more, _) = next.next(&[(LimitKey::Process, 9), (a, 1), (b, 2), (c, 3)]);
        assert_ne!(id(&more, a), id(&more, c));
        assert_eq!(id(&more, b), slot_of_b);
    }
}
