//! A fixed histogram of about 40 logarithmic buckets, written by shards and read by the control thread.

use super::counters::ShardCounters;
use super::ids::ShardId;

/// Number of buckets.
pub const BUCKETS: usize = 40;

/// Counts of values by magnitude.
#[derive(Debug)]
pub struct Histogram {
    counters: ShardCounters<BUCKETS>,
}

impl Histogram {
    /// An empty histogram for `shards` writers.
    pub fn new(shards: usize) -> Self {
        Histogram { counters: ShardCounters::new(shards) }
    }

    /// Counts `value` once.
    pub fn record(&self, shard: ShardId, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.counters.add(shard, bucket.min(BUCKETS - 1), 1);
    }
}
