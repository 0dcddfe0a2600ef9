//! Counters that many shards write and the control thread reads, without sharing a cache line.
//!
//! Every shard has its own padded block. A block has one writer, so an addition is a plain load and
//! store; readers sum the blocks and may see an addition a moment late, never half of one.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::ids::ShardId;

/// `N` counters for each of a fixed number of shards.
#[derive(Debug)]
pub struct ShardCounters<const N: usize> {
    blocks: Box<[CachePadded<[AtomicU64; N]>]>,
}

impl<const N: usize> ShardCounters<N> {
    /// Counters for `shards` writers, all zero.
    pub fn new(shards: usize) -> Self {
        let block = || CachePadded::new([const { AtomicU64::new(0) }; N]);
        ShardCounters {
            blocks: (0..shards).map(|_| block()).collect(),
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

    /// The sum of counter `index` over all shards.
    pub fn sum(&self, index: usize) -> u64 {
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
}

/// Samples a [`SlidingAverage`] looks back on, as in HAProxy's `qtime`, `ctime`, `rtime`, `ttime`.
const AVERAGE_SAMPLES: u64 = 1024;

/// The average of about the last 1,024 samples, for statistics.
///
/// The word holds 1,024 times the average: each sample takes one 1,024th away and adds itself. Load
/// and store are separate steps, so of two samples that shards add at the same moment one may be
/// lost; the word itself is always one that some order of samples has produced.
#[derive(Debug, Default)]
pub struct SlidingAverage {
    sum: AtomicU64,
}

impl SlidingAverage {
    /// Adds a sample.
    #[inline]
    pub fn add(&self, sample: u64) {
        let sum = self.sum.load(Relaxed);
        self.sum.store(
            (sum - sum.div_ceil(AVERAGE_SAMPLES)).saturating_add(sample),
            Relaxed,
        );
    }

    /// The average, rounded up; 0 before the first sample.
    pub fn get(&self) -> u64 {
        self.sum.load(Relaxed).div_ceil(AVERAGE_SAMPLES)
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
    fn the_average_follows_the_samples() {
        let average = SlidingAverage::default();
        assert_eq!(average.get(), 0);
        for _ in 0..20_000 {
            average.add(500);
        }
        assert_eq!(average.get(), 500);
        // After 1,024 samples of another value 1/e of the old one is left.
        for _ in 0..1024 {
            average.add(0);
        }
        assert!((180..=186).contains(&average.get()), "{}", average.get());
        average.add(u64::MAX);
        average.add(u64::MAX);
    }
}
