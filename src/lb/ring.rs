//! The ring of consistent hashing: points of servers in the order of their hashes.
//!
//! Each server holds a number of points in proportion to its weight; a client belongs to the first
//! point at or after its hash. When a server goes only its own clients move, spread over all
//! others, and they return when it is back. Points are hashes of what a server is known by
//! (`hash-key`), so that two balancers agree whatever the names and the order of their servers.

use super::slow_start::WHOLE;
use crate::base::hash;

/// Points of a backend's ring at its configured weights, at most (12 bytes each: 1.5 MiB).
const POINTS_MAX: u64 = 1 << 17;

/// Points per unit of weight, at most: the share of a server with n points is off by 1/sqrt(n)
/// typically, 4.4 % for 512.
const POINTS_PER_WEIGHT_MAX: u64 = 512;

/// How a backend places its servers on rings. It depends on the config alone, not on who is up.
#[derive(Debug)]
pub(super) struct RingPlan {
    points_per_weight: u64,
}

impl RingPlan {
    /// For a backend with this sum of configured weights. Points per weight are a power of two, so
    /// that a server more or less in the config seldom changes them; fewer are a part of more, so
    /// that even then only some clients move.
    pub(super) fn new(weight: u64) -> RingPlan {
        let fitting = (POINTS_MAX / weight.max(1)).clamp(1, POINTS_PER_WEIGHT_MAX);
        RingPlan {
            points_per_weight: 1 << fitting.ilog2(),
        }
    }
}

/// The points of a table's servers in the order of their hashes.
#[derive(Debug)]
pub(super) struct Ring {
    hashes: Box<[u64]>,
    owners: Box<[u32]>,
}

impl Ring {
    /// The ring of some servers, each with its identity and its share in percent of a unit.
    pub(super) fn new(plan: &RingPlan, servers: &[(u64, u32)]) -> Ring {
        let mut points = Vec::new();
        for (index, (identity, share)) in (0u32..).zip(servers) {
            let whole = u64::from(*share) * plan.points_per_weight;
            let count = (whole / u64::from(WHOLE)).max(1);
            points.extend((0..count).map(|i| (hash::sequence(*identity, i), *identity, index)));
        }
        // Equal hashes go by identity, which doesn't depend on the order of the servers.
        points.sort_unstable();
        Ring {
            hashes: points.iter().map(|(hash, _, _)| *hash).collect(),
            owners: points.iter().map(|(_, _, index)| *index).collect(),
        }
    }

    /// The first point at or after a hash; past the last one, the first of all.
    pub(super) fn first_at(&self, hash: u64) -> u64 {
        self.hashes.partition_point(|point| *point < hash) as u64
    }

    /// How many points there are.
    pub(super) fn len(&self) -> u64 {
        self.owners.len() as u64
    }

    /// Index of the server that owns a point, counted round the ring.
    pub(super) fn owner(&self, point: u64) -> usize {
        self.owners[(point % self.owners.len() as u64) as usize] as usize
    }

    /// The part of all hashes that belongs to each of so many servers.
    #[cfg(test)]
    pub(super) fn shares(&self, servers: usize) -> Vec<f64> {
        let mut shares = vec![0.0; servers];
        let last = self.hashes.last().copied().unwrap_or(0);
        let mut before = last;
        for (hash, owner) in self.hashes.iter().zip(&self.owners) {
            shares[*owner as usize] += hash.wrapping_sub(before) as f64 / 2f64.powi(64);
            before = *hash;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_at_any_weight() {
        for weight in [1, 3, 300, 20_000, 1 << 24] {
            let points = weight * RingPlan::new(weight).points_per_weight;
            assert!(points <= POINTS_MAX.max(weight), "{weight}: {points}");
        }
        assert_eq!(RingPlan::new(3).points_per_weight, POINTS_PER_WEIGHT_MAX);
    }
}
