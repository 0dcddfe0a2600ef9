//! A fixed histogram of 40 logarithmic buckets, written by shards and read by the control thread.
//!
//! Bucket 0 counts the value 0; bucket i, from 1 on, the values of i binary digits: from 2^(i-1)
//! and below 2^i. The last bucket has no upper end. In microseconds its lower end, 2^38, is 76
//! hours, so the buckets cover every connect time, and a quantile is at most twice the true value.
//! Beside them is the sum of all values. Recording is two additions to the shard's own block.

use crossbeam::utils::CachePadded;

use super::counters::ShardCounters;
use super::ids::ShardId;

/// Number of buckets.
pub const BUCKETS: usize = 40;

/// Where the sum stands.
const SUM: usize = BUCKETS;

/// Memory for each shard: 41 numbers, on cache lines of their own.
pub const BYTES_PER_SHARD: usize = size_of::<CachePadded<[u64; BUCKETS + 1]>>();

/// Counts of values by magnitude.
#[derive(Debug)]
pub struct Histogram {
    counters: ShardCounters<{ BUCKETS + 1 }>,
}

impl Histogram {
    /// An empty histogram for `shards` writers.
    pub fn new(shards: usize) -> Self {
        Histogram {
            counters: ShardCounters::new(shards),
        }
    }

    /// Counts `value` once. Only the thread of `shard` may call this.
    pub fn record(&self, shard: ShardId, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counters.add(shard, bucket.min(BUCKETS - 1), 1);
        self.counters.add(shard, SUM, value);
    }

    /// The largest value of a bucket; `None` for the last one, which has no upper end.
    pub fn bound(bucket: usize) -> Option<u64> {
        (bucket < BUCKETS - 1).then(|| (1 << bucket) - 1)
    }

    /// The count of every bucket.
    pub fn buckets(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.counters.sum(bucket))
    }

    /// The sum of the values, modulo 2^64.
    pub fn sum(&self) -> u64 {
        self.counters.sum(SUM)
    }

    /// Values recorded.
    pub fn count(&self) -> u64 {
        self.buckets().iter().sum()
    }

    /// A value that the share `quantile` (0.0 to 1.0) of all recorded values does not exceed: the
    /// upper end of the bucket it falls into, `u64::MAX` in the last bucket. `None` when nothing
    /// was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let buckets = self.buckets();
        let count: u64 = buckets.iter().sum();
        if count == 0 {
            return None;
        }
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = buckets.iter().position(|n| {
            seen += n;
            seen >= rank
        });
        // Rounding may put the rank past the count beyond 2^53 values: then it is the last bucket.
        Some(bucket.and_then(Self::bound).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_between_the_bounds_of_their_bucket() {
        let histogram = Histogram::new(2);
        for value in [
            0,
            1,
            2,
            3,
            4,
            7,
            8,
            1 << 37,
            (1 << 38) - 1,
            1 << 38,
            u64::MAX,
        ] {
            let before = histogram.buckets();
            histogram.record(ShardId(1), value);
            let after = histogram.buckets();
            let bucket = (0..BUCKETS).find(|i| before[*i] != after[*i]).unwrap();
            assert!(Histogram::bound(bucket).is_none_or(|bound| value <= bound));
            assert!(bucket == 0 || Histogram::bound(bucket - 1).unwrap() < value);
        }
        assert_eq!(histogram.count(), 11);
    }

    #[test]
    fn quantiles_are_upper_bounds_within_a_factor_of_two() {
        let histogram = Histogram::new(1);
        assert_eq!(histogram.quantile(0.5), None);
        for value in 1..=1000 {
            histogram.record(ShardId(0), value);
        }
        assert_eq!((histogram.sum(), histogram.count()), (500_500, 1000));
        for (quantile, true_value) in [(0.0, 1), (0.5, 500), (0.9, 900), (0.99, 990), (1.0, 1000)] {
            let bound = histogram.quantile(quantile).unwrap();
            assert!(
                (true_value..=2 * true_value).contains(&bound),
                "{quantile}: {bound}"
            );
        }
        histogram.record(ShardId(0), u64::MAX);
        assert_eq!(histogram.quantile(1.0), Some(u64::MAX));
    }
}
