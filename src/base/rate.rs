//! At most so many events per second, counted over all shards.
//!
//! What counts is the last second, estimated from the present second of the clock and the part of
//! the one before that is less than a second ago. One word holds both counts, so a rate is taken in
//! one atomic step.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::time::Moment;

/// Bits of a count.
const COUNT_BITS: u32 = 24;
/// The highest rate.
pub const RATE_MAX: u32 = (1 << COUNT_BITS) - 1;

/// A bound of events per second.
#[derive(Debug)]
pub struct Rate {
    /// 0 = no bound.
    max: AtomicU32,
    state: AtomicU64,
}

/// What the word holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Counts {
    /// The second of the clock, modulo 2^16.
    second: u16,
    /// Events of the second before.
    before: u32,
    /// Events of this second.
    now: u32,
}

impl Rate {
    /// At most `max` per second, 0 = any number.
    pub fn new(max: u32) -> Rate {
        let state = AtomicU64::new(0);
        Rate {
            max: AtomicU32::new(max.min(RATE_MAX)),
            state,
        }
    }

    /// The bound, 0 = none.
    pub fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }

    /// Changes the bound, 0 = none. Without one nothing was counted, so a new one begins with the
    /// second in which it is set.
    pub fn set_max(&self, max: u32) {
        self.max.store(max.min(RATE_MAX), Relaxed);
    }

    /// Whether there is a bound.
    pub fn is_bounded(&self) -> bool {
        self.max() > 0
    }

    /// Milliseconds after which it is worth looking again, 0 = there is room for an event now.
    pub fn wait_ms(&self, now: Moment) -> u64 {
        let max = self.max();
        if max == 0 {
            return 0;
        }
        Counts::of(self.state.load(Relaxed))
            .at(now)
            .wait_ms(now, max)
    }

    /// Counts an event if there is room for it.
    pub fn take(&self, now: Moment) -> bool {
        let max = self.max();
        if max == 0 {
            return true;
        }
        let counted = |state| {
            let mut counts = Counts::of(state).at(now);
            if counts.wait_ms(now, max) > 0 {
                return None;
            }
            counts.now += 1;
            Some(counts.word())
        };
        self.state.fetch_update(Relaxed, Relaxed, counted).is_ok()
    }

    /// Takes an event of just now back, which something else has prevented.
    pub fn give(&self, now: Moment) {
        let less = |state| {
            let mut counts = Counts::of(state).at(now);
            counts.now = counts.now.saturating_sub(1);
            Some(counts.word())
        };
        if self.is_bounded() {
            let _ = self.state.fetch_update(Relaxed, Relaxed, less);
        }
    }
}

impl Counts {
    fn of(word: u64) -> Counts {
        let count = |shift: u32| u32::try_from((word >> shift) & u64::from(RATE_MAX)).unwrap_or(0);
        Counts {
            second: u16::try_from(word >> (2 * COUNT_BITS)).unwrap_or(0),
            before: count(COUNT_BITS),
            now: count(0),
        }
    }

    fn word(self) -> u64 {
        (u64::from(self.second) << (2 * COUNT_BITS))
            | (u64::from(self.before) << COUNT_BITS)
            | u64::from(self.now)
    }

    /// The same at a moment that may lie in a later second. Shards read the clock at different
    /// times: one that is behind counts in the second that has begun.
    fn at(self, now: Moment) -> Counts {
        let second = (millis(now) / 1000 % (1 << 16)) as u16;
        match second.wrapping_sub(self.second) {
            0 | u16::MAX => self,
            1 => Counts {
                second,
                before: self.now,
                now: 0,
            },
            _ => Counts {
                second,
                before: 0,
                now: 0,
            },
        }
    }

    fn wait_ms(self, now: Moment, max: u32) -> u64 {
        let passed = millis(now) % 1000;
        let left = 1000 - passed;
        let room = u64::from(max.saturating_sub(self.now));
        if room == 0 {
            return left;
        }
        // The second before counts less with every millisecond: less than `room` of it has to be
        // left, so that a steady stream gets the whole rate.
        let counts_ms = match u64::from(self.before) {
            0 => left,
            before => (room * 1000).div_ceil(before) - 1,
        };
        left.saturating_sub(counts_ms)
    }
}

fn millis(moment: Moment) -> u64 {
    moment.0 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    #[test]
    fn no_bound_is_no_bound() {
        let rate = Rate::new(0);
        assert!(!rate.is_bounded() && (0..1000).all(|_| rate.take(at(1))));
        assert_eq!(rate.wait_ms(at(1)), 0);
    }

    #[test]
    fn a_bound_may_change() {
        let rate = Rate::new(0);
        assert!(rate.take(at(1)));
        rate.set_max(2);
        assert!(rate.take(at(2)) && rate.take(at(3)) && !rate.take(at(4)));
        rate.set_max(3);
        assert!(rate.take(at(5)) && !rate.take(at(6)));
        rate.set_max(u32::MAX);
        assert_eq!(rate.max(), RATE_MAX);
        rate.set_max(0);
        assert!(!rate.is_bounded() && rate.take(at(7)));
    }

    #[test]
    fn a_second_holds_no_more_than_the_bound() {
        let rate = Rate::new(10);
        let taken = |from: u64, to: u64| (from..to).filter(|ms| rate.take(at(*ms))).count();
        assert_eq!(taken(5_000, 5_900), 10);
        assert_eq!(taken(5_900, 6_000), 0);
        // The ten of the last second leave the window one by one.
        assert_eq!(taken(6_000, 6_501), 5);
        assert_eq!(taken(6_501, 7_000), 5);
        assert_eq!(taken(9_000, 9_001), 1, "a rest makes room");
    }

    #[test]
    fn who_waits_as_told_gets_the_whole_rate() {
        let rate = Rate::new(3);
        let mut now = 1_000;
        for _ in 0..50 {
            loop {
                match rate.wait_ms(at(now)) {
                    0 => break,
                    ms => now += ms,
                }
            }
            assert!(rate.take(at(now)), "{now}");
        }
        // Forty-seven more than the three of the first second, at three per second.
        assert!((15_000..18_000).contains(&now), "{now}");
    }

    #[test]
    fn a_new_bound_counts_what_was_there_before() {
        let rate = Rate::new(2);
        assert!(rate.take(at(10)) && rate.take(at(11)) && !rate.take(at(12)));
        rate.set_max(3);
        assert!(rate.take(at(13)) && !rate.take(at(14)));
        rate.set_max(0);
        assert!(!rate.is_bounded() && rate.take(at(15)));
    }

    #[test]
    fn what_is_given_back_was_not_taken() {
        let rate = Rate::new(1);
        assert!(rate.take(at(10)) && !rate.take(at(11)));
        rate.give(at(12));
        assert!(rate.take(at(13)));
    }

    #[test]
    fn a_word_holds_its_parts() {
        let counts = Counts {
            second: 65_535,
            before: RATE_MAX,
            now: RATE_MAX - 1,
        };
        assert_eq!(Counts::of(counts.word()), counts);
    }
}
