//! The smooth weighted sequence: which server's turn it is, computed once per table.
//!
//! A server of weight w out of a total W has w of W turns, spread as evenly as whole turns allow:
//! its k-th turn may not come before step k * W / w, and among the servers whose turn may come the
//! one whose next turn is due first goes first (earliest (k + 1) * W / w; of equals the lighter
//! one, which may have waited longer, then the one configured first). After any number of turns
//! each server has had its exact share but for a part of one turn (the test looks at every prefix).
//! For weights 3, 2, 1 this is A B A C B A, as in HAProxy and nginx.
//!
//! Building takes O(W log N): the weights are reduced by their greatest common divisor first, and
//! above [`TURNS_MAX`] turns they are scaled down, each to 1 at least. Up to 256 servers that
//! happens only while one of them is in its slow start (256 * 256 = 65,536 otherwise); a share is
//! then off by at most one turn in 65,536.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::map;

/// Most turns of a sequence, not counting what rounding up to 1 adds (one turn per server): 256
/// KiB.
pub(super) const TURNS_MAX: u64 = 1 << 16;

/// Turns by position; the numbers are indices of the weights it was built from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sequence {
    turns: Box<[u32]>,
}

impl Sequence {
    /// The sequence for some weights, none of them 0.
    pub(super) fn new(weights: &[u32]) -> Sequence {
        let weights = reduce(weights, TURNS_MAX);
        let total: u64 = weights.iter().sum();
        let mut ready = BinaryHeap::with_capacity(weights.len());
        let mut early = BinaryHeap::with_capacity(weights.len());
        for (index, weight) in (0u32..).zip(weights) {
            ready.push(Reverse(Share {
                had: 0,
                weight,
                index,
            }));
        }
        let turns = (0..total).map(|step| {
            while let Some(Reverse((from, _))) = early.peek()
                && *from <= step
            {
                ready.extend(early.pop().map(|Reverse((_, share))| Reverse(share)));
            }
            // The shares of all servers add up to the steps, so one of them is not ahead of its
            // own.
            let Reverse(mut share) = ready.pop().expect("a server is due at every step");
            share.had += 1;
            early.push(Reverse(((share.had * total).div_ceil(share.weight), share)));
            share.index
        });
        Sequence {
            turns: turns.collect(),
        }
    }

    /// The same turns in the order of HAProxy's map (see `map`).
    pub(super) fn as_map(weights: &[u32]) -> Sequence {
        let turns = map::turns(&reduce(weights, map::TURNS_MAX));
        Sequence { turns }
    }

    /// How many turns there are before it repeats.
    pub(super) fn len(&self) -> u64 {
        self.turns.len() as u64
    }

    /// Whose turn it is at a position, however large.
    #[inline]
    pub(super) fn at(&self, position: u64) -> usize {
        self.turns[(position % self.turns.len() as u64) as usize] as usize
    }
}

/// A server's progress through the sequence, ordered by when its next turn is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Share {
    had: u64,
    weight: u64,
    index: u32,
}

impl Ord for Share {
    fn cmp(&self, other: &Share) -> Ordering {
        // (had + 1) / weight, compared by cross multiplication: both factors are below 2^17.
        let due = ((self.had + 1) * other.weight).cmp(&((other.had + 1) * self.weight));
        due.then(self.weight.cmp(&other.weight))
            .then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Share) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The weights divided by their greatest common divisor, and scaled down to a bound of turns.
fn reduce(weights: &[u32], turns_max: u64) -> Vec<u64> {
    let divisor = weights
        .iter()
        .fold(0, |divisor, weight| gcd(divisor, u64::from(*weight)));
    let mut weights: Vec<u64> = weights
        .iter()
        .map(|weight| u64::from(*weight) / divisor)
        .collect();
    let total: u64 = weights.iter().sum();
    if total > turns_max {
        for weight in &mut weights {
            *weight = ((*weight * turns_max + total / 2) / total).max(1);
        }
    }
    weights
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash;

    fn turns(weights: &[u32]) -> Vec<u32> {
        Sequence::new(weights).turns.into_vec()
    }

    #[test]
    fn is_smooth_as_in_haproxy_and_nginx() {
        assert_eq!(turns(&[3, 2, 1]), [0, 1, 0, 2, 1, 0]);
        assert_eq!(turns(&[5, 1, 1]), [0, 1, 0, 0, 2, 0, 0]);
        assert_eq!(turns(&[256, 256, 256]), [0, 1, 2]);
        assert_eq!(turns(&[7]), [0]);
        assert!(turns(&[]).is_empty());
    }

    /// After every step, what each server has had differs from its exact share by less than one
    /// turn.
    #[test]
    fn every_prefix_is_fair() {
        let mut worst = 0.0f64;
        for seed in 0..200 {
            let count = 1 + hash::sequence(seed, 0) % 20;
            let weights: Vec<u32> = (1..=count)
                .map(|i| 1 + (hash::sequence(seed, i) % 256) as u32)
                .collect();
            let reduced = reduce(&weights, TURNS_MAX);
            let total: u64 = reduced.iter().sum();
            let mut had = vec![0u64; weights.len()];
            for (step, turn) in (1u64..).zip(turns(&weights)) {
                had[turn as usize] += 1;
                for (had, weight) in had.iter().zip(&reduced) {
                    let share = (step * weight) as f64 / total as f64;
                    worst = worst.max((*had as f64 - share).abs());
                }
            }
            assert_eq!(had, reduced, "seed {seed}");
        }
        assert!(worst < 1.0, "{worst}");
    }

    #[test]
    fn the_length_is_bounded() {
        let weights: Vec<u32> = (0..2000).map(|i| 1 + i % 256).collect();
        let turns = turns(&weights);
        assert!(turns.len() as u64 <= TURNS_MAX + 2000);
        let heaviest = turns.iter().filter(|turn| **turn == 255).count();
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let share = 256 * TURNS_MAX / total;
        assert!(
            (share - 1..=share + 1).contains(&(heaviest as u64)),
            "{heaviest} of {share}"
        );
        assert!((0..2000).all(|index| turns.contains(&index)));
    }
}
