//! Ports of a range, each for one connection at a time, over all shards.
//!
//! Which of them are ours is known here, so a range in use costs no attempt per port. What the
//! system doesn't let us have (somebody else's, or a connection that has just ended) shows in the
//! attempt: then the next one is tried, a few times.
//!
//! The search goes round: it begins behind the port that was found last, so a port's turn comes
//! when all others have had theirs, and one that failed isn't tried again soon. Only of a port that
//! comes back shortly before its turn the last use may be recent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Ports that are tried for one connection. Each costs system calls, so this bounds what a range
/// that others use costs the rest of a shard's connections.
const TRIED_MAX: u64 = 16;

/// A range of ports: a bit for each, 8 KiB for all there are.
#[derive(Debug)]
pub struct Ports {
    low: u16,
    count: u64,
    /// A bit for each port that a connection has, or that is nobody's.
    taken: Box<[AtomicU64]>,
    /// How many of these bits are of ports that nobody gets.
    left_out: u64,
    /// Where the search begins, counted on from round to round: it never goes back, whichever
    /// thread is late.
    next: AtomicU64,
}

impl Ports {
    /// The ports from `low` to `high`.
    pub fn new(low: u16, high: u16) -> Ports {
        let count = u64::from(high.saturating_sub(low)) + 1;
        let words = count.div_ceil(BITS);
        let past_the_end = |word| match word {
            last if last + 1 == words && count % BITS > 0 => u64::MAX << (count % BITS),
            _ => 0,
        };
        Ports {
            low,
            count,
            taken: (0..words)
                .map(|word| AtomicU64::new(past_the_end(word)))
                .collect(),
            left_out: words * BITS - count,
            next: AtomicU64::new(0),
        }
    }

    /// The same without some, which nobody gets.
    #[must_use]
    pub fn without(mut self, ports: impl IntoIterator<Item = u16>) -> Ports {
        for port in ports {
            if let Some((word, bit)) = self.place(port) {
                word.fetch_or(bit, Relaxed);
            }
        }
        self.left_out = self.set();
        self
    }

    /// Tries free ports in turn until an attempt has a result; `None` says that its port is in use.
    /// The port is the caller's to give back.
    pub fn find<R>(&self, mut attempt: impl FnMut(u16) -> Option<R>) -> Option<(u16, R)> {
        for _ in 0..TRIED_MAX.min(self.count) {
            let port = self.take()?;
            if let Some(result) = attempt(port) {
                return Some((port, result));
            }
            self.give(port);
        }
        None
    }

    /// Gives a port back.
    pub fn give(&self, port: u16) {
        if let Some((word, bit)) = self.place(port) {
            word.fetch_and(!bit, Relaxed);
        }
    }

    /// How many connections have now.
    pub fn held(&self) -> u64 {
        self.set().saturating_sub(self.left_out)
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self) + size_of_val(&*self.taken)
    }

    fn take(&self) -> Option<u16> {
        let begin = self.next.load(Relaxed);
        let words = self.count.div_ceil(BITS);
        let (first, skipped) = (begin % self.count / BITS, begin % self.count % BITS);
        // The first word comes twice: what is behind the beginning, and at last what is before it.
        for step in 0..=words {
            let index = (first + step) % words;
            let asked = match step {
                0 => u64::MAX << skipped,
                last if last == words => !(u64::MAX << skipped),
                _ => u64::MAX,
            };
            let Some(bit) = claim(&self.taken[usize::try_from(index).ok()?], asked) else {
                continue;
            };
            let found = index * BITS + bit;
            let ahead = (found + self.count - begin % self.count) % self.count;
            self.next.fetch_max(begin + ahead + 1, Relaxed);
            return u16::try_from(u64::from(self.low) + found).ok();
        }
        None
    }

    fn set(&self) -> u64 {
        let words = self.taken.iter();
        words
            .map(|word| u64::from(word.load(Relaxed).count_ones()))
            .sum()
    }

    fn place(&self, port: u16) -> Option<(&AtomicU64, u64)> {
        let index = u64::from(port.checked_sub(self.low)?);
        let word = usize::try_from(index / BITS).ok()?;
        let word = self.taken.get(word).filter(|_| index < self.count)?;
        Some((word, 1 << (index % BITS)))
    }
}

/// Bits of a word.
const BITS: u64 = u64::BITS as u64;

/// Sets the lowest bit of those asked for that is not set, and says which it is.
fn claim(word: &AtomicU64, asked: u64) -> Option<u64> {
    // A look first: ports in use cost no write.
    let mut free = !word.load(Relaxed) & asked;
    while free != 0 {
        let bit = free & free.wrapping_neg();
        let before = word.fetch_or(bit, Relaxed);
        if before & bit == 0 {
            return Some(u64::from(bit.trailing_zeros()));
        }
        free = !before & asked;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn next(ports: &Ports) -> Option<u16> {
        ports.find(|_| Some(())).map(|(port, ())| port)
    }

    #[test]
    fn each_port_is_for_one_and_they_come_in_turn() {
        let ports = Ports::new(65_400, u16::MAX);
        let next = || next(&ports);
        let all: Vec<_> = std::iter::from_fn(next).collect();
        assert_eq!(all, (65_400..=u16::MAX).collect::<Vec<_>>());
        for port in [65_410, 65_405] {
            ports.give(port);
        }
        assert_eq!([next(), next(), next()], [Some(65_405), Some(65_410), None]);
        assert_eq!(ports.held(), 136);
        ports.give(u16::MAX);
        ports.give(65_400);
        assert_eq!(ports.held(), 134);
        assert_eq!([next(), next()], [Some(u16::MAX), Some(65_400)]);
    }

    #[test]
    fn a_port_comes_again_when_all_others_had_their_turn() {
        for count in [1, 2, 63, 64, 65, 200] {
            let ports = Ports::new(1000, 999 + count);
            for round in 0..3 {
                for port in 1000..1000 + count {
                    assert_eq!(next(&ports), Some(port), "{count} ports, round {round}");
                    ports.give(port);
                }
            }
        }
    }

    #[test]
    fn what_others_have_is_passed_over_and_stays_free() {
        let ports = Ports::new(1, 1000);
        let found = ports.find(|port| (port > 3).then_some("there"));
        assert_eq!(found, Some((4, "there")));
        let mut tried = Vec::new();
        let none = ports.find(|port| {
            tried.push(port);
            None::<()>
        });
        assert_eq!((none, tried.len()), (None, 16));
        assert_eq!(tried[0], 5);
        // What failed is not tried again before the others.
        assert_eq!(next(&ports), Some(21));
        let mut left: Vec<_> = std::iter::from_fn(|| next(&ports)).collect();
        left.sort_unstable();
        let others = (1..=1000).filter(|port| ![4, 21].contains(port));
        assert_eq!(left, others.collect::<Vec<_>>());
    }

    #[test]
    fn nobody_gets_a_port_that_is_left_out() {
        let ports = Ports::new(1000, 1099).without((1000..1098).chain([999, 1100, 0]));
        assert_eq!(ports.held(), 0);
        let all: Vec<_> = std::iter::from_fn(|| next(&ports)).collect();
        assert_eq!(all, [1098, 1099]);
        assert_eq!(ports.held(), 2);
        // Nor does giving back what is none of its own change anything.
        for port in [0, 999, 1100, 1127, 1128, u16::MAX] {
            ports.give(port);
        }
        assert_eq!(next(&ports), None);
        assert_eq!(next(&Ports::new(7, 8).without([7, 8])), None);
    }

    #[test]
    fn it_is_as_small_as_it_says() {
        assert_eq!(Ports::new(1, u16::MAX).taken.len() * 8, 8 << 10);
        assert!(Ports::new(46_884, 60_999).bytes() < 2000);
    }

    /// Threads take and give; a port that two have at once is seen by its flag.
    #[test]
    fn no_port_is_given_to_two_at_once() {
        for threads in [2, 4, 8] {
            // Few enough to be contended, not a whole number of words.
            let (low, count) = (2000u16, 70u16);
            let ports = &Ports::new(low, low + count - 1);
            let held: &Vec<AtomicBool> = &(0..count).map(|_| AtomicBool::new(false)).collect();
            let flag = |port: u16| &held[usize::from(port - low)];
            std::thread::scope(|scope| {
                for thread in 0..threads {
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        for step in 0..20_000usize {
                            // Now few, now more than its part.
                            let many = (step / 100 + thread) % 30;
                            if mine.len() <= many
                                && let Some(port) = next(ports)
                            {
                                assert!(!flag(port).swap(true, Relaxed), "{port} twice");
                                mine.push(port);
                            } else if let Some(port) = mine.pop() {
                                assert!(flag(port).swap(false, Relaxed));
                                ports.give(port);
                            }
                        }
                        for port in mine {
                            flag(port).store(false, Relaxed);
                            ports.give(port);
                        }
                    });
                }
            });
            let all = std::iter::from_fn(|| next(ports)).count();
            assert_eq!(all, usize::from(count), "{threads} threads");
        }
    }
}
