//! HAProxy's map: the order in which static round robin takes turns, and what a map-based hash is
//! an index of. Two balancers send a client to the same server only if their maps are the same, so
//! this is its order and not ours (`sequence`).
//!
//! In every step each server gets its weight as credit; the first in the order of the config with a
//! whole round's credit gets the turn, else the first that has no debt, and pays a round for it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Most turns of a map, not counting what rounding up to 1 adds: 4 MiB. More than 4,096 servers of
/// the highest weight are scaled down, unlike HAProxy's.
pub(super) const TURNS_MAX: u64 = 1 << 20;

/// The turns of servers with these weights, none of them 0, as indices. It takes O(W log N) where
/// looking at all servers in every step would take W * N.
pub(super) fn turns(weights: &[u64]) -> Box<[u32]> {
    let round: u64 = weights.iter().sum();
    // By what they have, in whole rounds: one more round first, of equals the first in order.
    let mut ready: BTreeSet<(Reverse<u64>, u32)> = BTreeSet::new();
    // The step at which a server has one round more than it has now.
    let mut rises = BinaryHeap::new();
    let mut levels: Vec<(u64, u64)> = Vec::with_capacity(weights.len());
    for (index, weight) in (0u32..).zip(weights) {
        // One round is what nobody owes: so debts are no negative numbers.
        levels.push((1, 1));
        ready.insert((Reverse(1), index));
        rises.push(Reverse((round.div_ceil(*weight), index)));
    }
    let turns = (1..=round).map(|step| {
        while let Some(Reverse((at, index))) = rises.peek().copied()
            && at <= step
        {
            rises.pop();
            let (level, risen) = &mut levels[index as usize];
            ready.remove(&(Reverse(*level), index));
            *level += 1;
            *risen += 1;
            ready.insert((Reverse(*level), index));
            let weight = weights[index as usize];
            rises.push(Reverse(((*risen * round).div_ceil(weight), index)));
        }
        let (_, index) = ready.pop_first().expect("every server is ready");
        let (level, _) = &mut levels[index as usize];
        // The credit of all is one round per step, so the best has at least as much as nothing.
        *level = level.saturating_sub(1);
        ready.insert((Reverse(*level), index));
        index
    });
    turns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash;

    /// The definition, step by step.
    fn plain(weights: &[u64]) -> Vec<u32> {
        let round: i64 = weights.iter().sum::<u64>() as i64;
        let mut credit = vec![0i64; weights.len()];
        let step = |_| {
            for (credit, weight) in credit.iter_mut().zip(weights) {
                *credit += *weight as i64;
            }
            let best = credit.iter().map(|c| (c + round) / round).max().unwrap();
            let index = credit.iter().position(|c| (c + round) / round == best);
            let index = index.unwrap();
            credit[index] -= round;
            index as u32
        };
        (0..round).map(step).collect()
    }

    /// Read off a running haproxy 2.6 with 40 neighbouring clients and `balance source`.
    #[test]
    fn is_the_map_of_haproxy() {
        for (weights, expected) in [
            (&[1, 1, 1][..], &[0, 1, 2][..]),
            (&[3, 2, 1], &[0, 0, 1, 0, 1, 2]),
            (&[2, 4], &[0, 1, 1, 0, 1, 1]),
            (&[7], &[0; 7]),
        ] {
            assert_eq!(&*turns(weights), expected, "{weights:?}");
        }
        assert!(turns(&[]).is_empty());
    }

    #[test]
    fn is_its_definition() {
        for seed in 0..300 {
            let count = 1 + hash::sequence(seed, 0) % 12;
            let weight = |index| 1 + hash::sequence(seed, index) % [4, 256][(seed % 2) as usize];
            let weights: Vec<u64> = (1..=count).map(weight).collect();
            assert_eq!(turns(&weights).to_vec(), plain(&weights), "{weights:?}");
        }
    }
}
