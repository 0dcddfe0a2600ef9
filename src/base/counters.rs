//! Counters that many shards write and the control thread reads, without sharing a cache line.
//!
//! Every shard has its own padded block. A block has one writer, so an addition is a plain load and
//! store; readers sum the blocks and may see an addition a moment late, never half of one.
//!
//! Nobody but its shard writes a block, so counters are cleared by remembering what they were.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::ids::ShardId;

/// `N` counters for each of a fixed number of shards.
#[derive(Debug)]
pub struct ShardCounters<const N: usize> {
    blocks: Box<[CachePadded<[AtomicU64; N]>]>,
    /// What the sums were when they were cleared last.
    cleared: [AtomicU64; N],
}

impl<const N: usize> ShardCounters<N> {
    /// Counters for `shards` writers, all zero.
    pub fn new(shards: usize) -> Self {
        let block = || CachePadded::new([const { AtomicU64::new(0) }; N]);
        ShardCounters {
            blocks: (0..shards).map(|_| block()).collect(),
            cleared: [const { AtomicU64::new(0) }; N],
        }
    }

    /// Adds `n` to counter `index`. Only the thread of `shard` may call this for its block.
    #[inline]
    pub fn add(&self, shard: ShardId, index: usize, n: u64) {
        let cell = &self.blocks[usize::from(shard.0)][index];
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Raises counter `index` of `shard` to at least `n` (for maxima).
    #[inline]
    pub fn raise(&self, shard: ShardId, index: usize, n: u64) {
        let cell = &self.blocks[usize::from(shard.0)][index];
        if cell.load(Relaxed) < n {
            cell.store(n, Relaxed);
        }
    }

    /// The sum of counter `index` over all shards since it was cleared.
    pub fn sum(&self, index: usize) -> u64 {
        let cleared = self.cleared[index].load(Relaxed);
        self.sum_ever(index).wrapping_sub(cleared)
    }

    /// The same since the start.
    pub fn sum_ever(&self, index: usize) -> u64 {
        self.blocks.iter().fold(0u64, |sum, block| {
            sum.wrapping_add(block[index].load(Relaxed))
        })
    }

    /// The largest of counter `index` over all shards.
    pub fn max(&self, index: usize) -> u64 {
        self.blocks
            .iter()
            .map(|block| block[index].load(Relaxed))
            .max()
            .unwrap_or(0)
    }

    /// Has the sum of counter `index` begin at 0 again. One thread clears, readers are others.
    pub fn clear(&self, index: usize) {
        self.cleared[index].store(self.sum_ever(index), Relaxed);
    }

    /// Has a maximum begin at 0 again; what is raised at this moment may still count.
    pub fn clear_max(&self, index: usize) {
        for block in &self.blocks {
            block[index].store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_add_up() {
        let counters = ShardCounters::<2>::new(3);
        counters.add(ShardId(0), 0, 5);
        counters.add(ShardId(2), 0, 7);
        counters.add(ShardId(2), 0, 1u64.wrapping_neg());
        counters.raise(ShardId(1), 1, 9);
        counters.raise(ShardId(1), 1, 4);
        assert_eq!(
            (counters.sum(0), counters.max(0), counters.max(1)),
            (11, 6, 9)
        );
    }

    #[test]
    fn what_is_cleared_counts_from_then_on() {
        let counters = ShardCounters::<2>::new(2);
        counters.add(ShardId(0), 0, 5);
        counters.add(ShardId(1), 0, 7);
        counters.raise(ShardId(1), 1, 9);
        counters.clear(0);
        counters.clear_max(1);
        assert_eq!((counters.sum(0), counters.max(1)), (0, 0));
        counters.add(ShardId(1), 0, 2);
        counters.raise(ShardId(1), 1, 3);
        assert_eq!((counters.sum(0), counters.max(1)), (2, 3));
        assert_eq!(counters.sum_ever(0), 14);
    }
}
