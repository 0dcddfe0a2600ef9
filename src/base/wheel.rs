//! A hierarchical timer wheel: one timer per key, ticks of one millisecond.
//!
//! Eight levels of 64 slots. A slot of level L is 64^L ticks wide, so the levels together cover
//! 2^48 ms, more than a `Moment` can express (2^64 ns are about 2^44 ms): no deadline is too far
//! and none wraps. A timer stands on the level of the highest 6-bit group in which its deadline and
//! the wheel's own time differ; when the wheel's time reaches its slot, it moves down, at most once
//! per level (twice for deadlines within 4 minutes: 64^3 ms are 262 s). Arming and disarming are a
//! few loads and stores.
//!
//! Deadlines are rounded up to the tick: a timer never expires early and at most one tick late.
//!
//! Timers are nodes of doubly linked lists in a vector indexed by the key (24 bytes each), which
//! grows to the highest key ever armed; after that nothing allocates. The keys are session slots: a
//! shard has one wheel and each session one timer, armed for the nearest of its deadlines.
//!
//! The wheel reads no clock: the moment is passed in.

use super::time::Moment;

const NANOSECONDS_PER_TICK: u64 = 1_000_000;
const LEVELS: usize = 8;
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;

/// No node, or no place.
const NONE: u32 = u32::MAX;

/// Timers that may move down one level in an `expire`, for each that may be popped: a session
/// timeout moves down two or three times before it is due, so this keeps up with a steady flow of
/// timeouts.
const MOVES_PER_POP: usize = 4;

const _: () = assert!(
    SLOTS == u64::BITS as usize,
    "one word says which slots of a level are in use"
);
const _: () = assert!(u64::MAX / NANOSECONDS_PER_TICK < 1 << (LEVELS * SLOT_BITS));

/// Timers by key.
#[derive(Debug)]
pub struct Wheel {
    /// The wheel's own time: every timer due before this tick has been popped.
    elapsed: u64,
    nodes: Vec<Node>,
    /// First node of each slot's circular list, by place (level * 64 + slot).
    heads: Box<[u32]>,
    /// Which slots of each level hold anything.
    occupied: [u64; LEVELS],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    deadline: u64,
    next: u32,
    previous: u32,
    /// Place of the list it is in, or `NONE` when it is not armed.
    place: u32,
}

const DISARMED: Node = Node {
    deadline: 0,
    next: NONE,
    previous: NONE,
    place: NONE,
};

impl Wheel {
    /// An empty wheel whose time starts at `now`.
    pub fn new(now: Moment) -> Self {
        Wheel {
            elapsed: now.0 / NANOSECONDS_PER_TICK,
            nodes: Vec::new(),
            heads: vec![NONE; LEVELS * SLOTS].into_boxed_slice(),
            occupied: [0; LEVELS],
            len: 0,
        }
    }

    /// Arms the timer of `key`, or moves it if it was armed. A deadline that has passed is due at
    /// once; [`Moment::NEVER`] disarms.
    pub fn arm(&mut self, key: u32, deadline: Moment) {
        debug_assert!(key != NONE, "the key is a session slot");
        if deadline == Moment::NEVER {
            self.disarm(key);
            return;
        }
        let index = key as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, DISARMED);
        }
        let deadline = deadline.0.div_ceil(NANOSECONDS_PER_TICK);
        let node = &mut self.nodes[index];
        if node.place != NONE {
            // Timeouts are often pushed on within one tick: then there is nothing to move.
            if node.deadline == deadline {
                return;
            }
            self.unlink(key);
        }
        self.nodes[index].deadline = deadline;
        self.link(key);
    }

    /// Disarms the timer of `key`; nothing happens if it isn't armed.
    pub fn disarm(&mut self, key: u32) {
        if self.is_armed(key) {
            self.unlink(key);
        }
    }

    /// Whether the timer of `key` is armed.
    pub fn is_armed(&self, key: u32) -> bool {
        self.nodes
            .get(key as usize)
            .is_some_and(|node| node.place != NONE)
    }

    /// Timers armed now.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When `expire` has something to do next: never later than the first deadline (rounded up to
    /// its tick), and earlier when timers have to move down a level first. `None` without timers.
    pub fn next_deadline(&self) -> Option<Moment> {
        let (tick, _) = self.next_slot()?;
        Some(Moment(tick.saturating_mul(NANOSECONDS_PER_TICK)))
    }

    /// Pops timers that are due at `now`, at most `keys_max`, and appends their keys to `keys`,
    /// roughly in the order of their deadlines. The work is bounded: it may stop before everything
    /// due was popped, even with fewer than `keys_max` keys; `next_deadline` is then not later than
    /// `now`.
    pub fn expire(&mut self, now: Moment, keys: &mut Vec<u32>, keys_max: usize) {
        let now = now.0 / NANOSECONDS_PER_TICK;
        let mut pops = keys_max;
        let mut moves = keys_max.saturating_mul(MOVES_PER_POP);
        while let Some((tick, place)) = self.next_slot().filter(|(tick, _)| *tick <= now) {
            // A slot that an earlier call left half emptied begins before the wheel's time.
            self.elapsed = self.elapsed.max(tick);
            let budget = if place < SLOTS { &mut pops } else { &mut moves };
            if *budget == 0 {
                return;
            }
            *budget -= 1;
            let key = self.heads[place];
            self.unlink(key);
            if place < SLOTS {
                keys.push(key);
            } else {
                self.link(key);
            }
        }
        // Nothing is due up to `now`: no slot between is occupied, so the time may jump.
        self.elapsed = self.elapsed.max(now);
    }

    /// The first tick and the place of the slot that comes next.
    fn next_slot(&self) -> Option<(u64, usize)> {
        let mut first: Option<(u64, usize)> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            // All timers of a level agree with the wheel's time above its group, and none stands in
            // a slot before the time's own: the first occupied slot is the next one.
            let slot = self.occupied[level].trailing_zeros() as usize;
            let shift = level * SLOT_BITS;
            let base = self.elapsed >> shift >> SLOT_BITS << SLOT_BITS << shift;
            let tick = base | (slot as u64) << shift;
            // On equal ticks the higher level goes first: what it holds may be due at that tick
            // too.
            if first.is_none_or(|(earliest, _)| tick <= earliest) {
                first = Some((tick, level * SLOTS + slot));
            }
        }
        first
    }

    /// Appends an unlinked node to the list of the slot that its deadline and the wheel's time say.
    fn link(&mut self, key: u32) {
        let deadline = self.nodes[key as usize].deadline.max(self.elapsed);
        let differing = (deadline ^ self.elapsed) | (SLOTS as u64 - 1);
        let level = differing.ilog2() as usize / SLOT_BITS;
        let slot = (deadline >> (level * SLOT_BITS)) as usize % SLOTS;
        let place = level * SLOTS + slot;
        let head = self.heads[place];
        let (next, previous) = if head == NONE {
            self.heads[place] = key;
            self.occupied[level] |= 1 << slot;
            (key, key)
        } else {
            let last = self.nodes[head as usize].previous;
            self.nodes[head as usize].previous = key;
            self.nodes[last as usize].next = key;
            (head, last)
        };
        let node = &mut self.nodes[key as usize];
        node.next = next;
        node.previous = previous;
        node.place = place as u32;
        self.len += 1;
    }

    /// Takes an armed node out of its list.
    fn unlink(&mut self, key: u32) {
        let node = self.nodes[key as usize];
        let place = node.place as usize;
        if node.next == key {
            self.heads[place] = NONE;
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        } else {
            self.nodes[node.previous as usize].next = node.next;
            self.nodes[node.next as usize].previous = node.previous;
            if self.heads[place] == key {
                self.heads[place] = node.next;
            }
        }
        self.nodes[key as usize].place = NONE;
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    const MS: u64 = NANOSECONDS_PER_TICK;

    fn expire(wheel: &mut Wheel, now: Moment) -> Vec<u32> {
        let mut keys = Vec::new();
        wheel.expire(now, &mut keys, usize::MAX / MOVES_PER_POP);
        keys
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(Moment(5 * MS + 7));
        wheel.arm(3, Moment(9 * MS + 1));
        assert_eq!(wheel.next_deadline(), Some(Moment(10 * MS)));
        assert!(expire(&mut wheel, Moment(10 * MS - 1)).is_empty());
        assert_eq!(expire(&mut wheel, Moment(10 * MS)), [3]);
        assert_eq!((wheel.len(), wheel.next_deadline()), (0, None));
    }

    #[test]
    fn a_passed_deadline_is_due_at_once_and_never_disarms() {
        let mut wheel = Wheel::new(Moment(1000 * MS));
        wheel.arm(0, Moment(1));
        wheel.arm(1, Moment(1));
        wheel.arm(1, Moment::NEVER);
        wheel.disarm(7);
        assert_eq!(wheel.len(), 1);
        assert!(wheel.is_armed(0) && !wheel.is_armed(1) && !wheel.is_armed(99));
        assert_eq!(expire(&mut wheel, Moment(1000 * MS)), [0]);
        // The clock does not go back, and a caller that claims so changes nothing.
        assert!(expire(&mut wheel, Moment(0)).is_empty());
    }

    #[test]
    fn the_farthest_deadline_fits() {
        let mut wheel = Wheel::new(Moment(0));
        wheel.arm(0, Moment(u64::MAX - 1));
        wheel.arm(1, Moment(0).after_ms(1 << 31));
        assert_eq!(expire(&mut wheel, Moment(0).after_ms(1 << 31)), [1]);
        assert!(expire(&mut wheel, Moment(u64::MAX - MS)).is_empty());
        assert!(
            wheel
                .next_deadline()
                .is_some_and(|at| at > Moment(u64::MAX - 2 * MS))
        );
    }

    #[test]
    fn work_is_bounded_and_goes_on_where_it_stopped() {
        let mut wheel = Wheel::new(Moment(0));
        // All in one slot of the third level: they have to move down before they are due.
        for key in 0..10_000 {
            wheel.arm(key, Moment(0).after_ms(5000));
        }
        let now = Moment(0).after_ms(6000);
        let mut popped = Vec::new();
        let mut calls = 0;
        while wheel.next_deadline().is_some_and(|at| at <= now) {
            let mut keys = Vec::new();
            wheel.expire(now, &mut keys, 100);
            assert!(keys.len() <= 100);
            popped.extend(keys);
            calls += 1;
            // Armed while the wheel lags behind the clock: still not early.
            wheel.arm(20_000, now.after_ms(1));
        }
        assert!((100..=160).contains(&calls), "{calls}");
        popped.sort_unstable();
        assert!(popped.iter().copied().eq(0..10_000));
        assert_eq!(expire(&mut wheel, now.after_ms(1)), [20_000]);
    }

    /// Random operations against an ordered map, with steps of time from nothing to days.
    #[test]
    fn agrees_with_an_ordered_map() {
        for seed in 1..=16u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let mut now = Moment(random() >> 8);
            let mut wheel = Wheel::new(now);
            let mut deadlines: BTreeMap<u32, u64> = BTreeMap::new();
            for _ in 0..20_000 {
                let key = (random() % 300) as u32;
                match random() % 8 {
                    0..4 => {
                        let range = 1 << (random() % 32);
                        let deadline = Moment(now.0 + random() % (range * MS));
                        wheel.arm(key, deadline);
                        deadlines.insert(key, deadline.0.div_ceil(MS));
                    }
                    4 => {
                        wheel.disarm(key);
                        deadlines.remove(&key);
                    }
                    _ => {
                        let range = 1 << (random() % if random() % 50 == 0 { 32 } else { 12 });
                        now = Moment(now.0 + random() % (range * MS));
                        let keys_max = 1 + (random() % 40) as usize;
                        let mut keys = Vec::new();
                        wheel.expire(now, &mut keys, keys_max);
                        assert!(keys.len() <= keys_max);
                        for key in &keys {
                            let deadline = deadlines.remove(key).expect("armed");
                            assert!(deadline <= now.0 / MS, "early, seed {seed}");
                        }
                        let first = deadlines.values().min().copied();
                        if wheel.next_deadline().is_none_or(|at| at > now) {
                            assert!(first.is_none_or(|first| first > now.0 / MS), "lost, {seed}");
                        }
                    }
                }
                assert_eq!(wheel.len(), deadlines.len());
                let first = deadlines.values().min().map(|first| Moment(first * MS));
                assert_eq!(wheel.next_deadline().is_some(), first.is_some());
                if let (Some(next), Some(first)) = (wheel.next_deadline(), first) {
                    assert!(next <= first, "late, seed {seed}");
                }
            }
            let rest: BTreeSet<u32> = expire(&mut wheel, Moment(u64::MAX)).into_iter().collect();
            assert!(rest.iter().eq(deadlines.keys()), "seed {seed}");
        }
    }

    #[test]
    fn following_next_deadline_reaches_every_timer() {
        let mut wheel = Wheel::new(Moment(123_456 * MS));
        let deadline = Moment(123_456 * MS).after_ms(987_654_321);
        wheel.arm(0, deadline);
        let mut wakes = 0;
        while let Some(at) = wheel.next_deadline() {
            wakes += 1;
            let keys = expire(&mut wheel, at);
            assert_eq!(keys.is_empty(), at < deadline);
        }
        assert!(wakes <= LEVELS, "{wakes} wake-ups for one timer");
    }
}
