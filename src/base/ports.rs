//! Ports of a range, each for one connection at a time, over all shards.
//!
//! Which of them are ours is known here, so a range in use costs no attempt per port. What the
//! system doesn't let us have (somebody else's, or a connection that has just ended) shows in the
//! attempt: then the next one is tried, a few times.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Ports that are tried for one connection. Each costs system calls, so this bounds what a range
/// that others use costs the rest of a shard's connections.
const TRIED_MAX: u32 = 16;

/// A range of ports.
#[derive(Debug)]
pub struct Ports {
    low: u16,
    count: u32,
    /// A bit for each port that a connection has.
    taken: Box<[AtomicU64]>,
    /// Where the search begins: behind the last one found.
    next: AtomicU32,
}

impl Ports {
    /// The ports from `low` to `high`.
    pub fn new(low: u16, high: u16) -> Ports {
        let count = u32::from(high.saturating_sub(low)) + 1;
        Ports {
            low,
            count,
            taken: (0..count.div_ceil(u64::BITS))
                .map(|_| AtomicU64::new(0))
                .collect(),
            next: AtomicU32::new(0),
        }
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
        let (word, bit) = place(u32::from(port.saturating_sub(self.low)));
        if let Some(word) = self.taken.get(word) {
            word.fetch_and(!bit, Relaxed);
        }
    }

    fn take(&self) -> Option<u16> {
        let begin = self.next.load(Relaxed) % self.count;
        let found = (begin..self.count).chain(0..begin).find(|index| {
            let (word, bit) = place(*index);
            // A look first: a port in use costs no write.
            self.taken[word].load(Relaxed) & bit == 0
                && self.taken[word].fetch_or(bit, Relaxed) & bit == 0
        })?;
        self.next.store(found + 1, Relaxed);
        u16::try_from(u32::from(self.low) + found).ok()
    }
}

fn place(index: u32) -> (usize, u64) {
    let word = usize::try_from(index / u64::BITS).unwrap_or(usize::MAX);
    (word, 1 << (index % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_for_one_and_they_come_in_turn() {
        let ports = Ports::new(65_400, u16::MAX);
        let next = || ports.find(|_| Some(())).map(|(port, ())| port);
        let all: Vec<_> = std::iter::from_fn(next).collect();
        assert_eq!(all, (65_400..=u16::MAX).collect::<Vec<_>>());
        for port in [65_410, 65_405] {
            ports.give(port);
        }
        assert_eq!([next(), next(), next()], [Some(65_405), Some(65_410), None]);
        ports.give(u16::MAX);
        ports.give(65_400);
        assert_eq!([next(), next()], [Some(u16::MAX), Some(65_400)]);
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
        let taken: u32 = ports
            .taken
            .iter()
            .map(|word| word.load(Relaxed).count_ones())
            .sum();
        assert_eq!(taken, 1);
    }
}
