//! How long things take with a server: to connect, until its first byte, until the end.
//!
//! Three histograms, which cost [`BYTES_PER_SHARD`] for each shard. As long as all of them fit into
//! [`BYTES_MAX`], each server has its own; the servers of a backend beyond that have one between
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::base::histogram::{self, Histogram};

/// Bytes of a server's histograms for each shard: three of 384.
pub const BYTES_PER_SHARD: usize = 3 * histogram::BYTES_PER_SHARD;

/// Bytes of all histograms: those of 1,000 servers on 56 shards.
pub const BYTES_MAX: usize = 64 << 20;

/// What all of them take now.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The histograms of a server, or of all servers of a backend.
#[derive(Debug)]
pub struct Timings {
    /// Times to connect, microseconds.
    pub connect_us: Histogram,
    /// Times from there to the server's first byte, microseconds; of flows of datagrams those from
    /// the client's first datagram to the server's.
    pub first_byte_us: Histogram,
    /// Lengths of sessions with it, milliseconds.
    pub session_ms: Histogram,
    /// They are of all servers of the backend.
    pub is_shared: bool,
    bytes: usize,
}

impl Timings {
    fn new(shards: usize, is_shared: bool) -> Timings {
        let bytes = shards * BYTES_PER_SHARD;
        TAKEN.fetch_add(bytes, Relaxed);
        Timings {
            connect_us: Histogram::new(shards),
            first_byte_us: Histogram::new(shards),
            session_ms: Histogram::new(shards),
            is_shared,
            bytes,
        }
    }

    /// Of one shard.
    #[cfg(test)]
    pub fn for_test() -> Timings {
        Timings::new(1, false)
    }

    /// For a server that comes while the program runs.
    pub(super) fn for_one(shards: usize) -> Arc<Timings> {
        let is_shared = !fits(TAKEN.load(Relaxed), shards * BYTES_PER_SHARD);
        Arc::new(Timings::new(shards, is_shared))
    }

    /// For `servers` servers of one backend.
    pub(super) fn for_servers(servers: usize, shards: usize) -> Vec<Arc<Timings>> {
        let bytes = servers * shards * BYTES_PER_SHARD;
        if fits(TAKEN.load(Relaxed), bytes) {
            let each = (0..servers).map(|_| Arc::new(Timings::new(shards, false)));
            return each.collect();
        }
        let shared = Arc::new(Timings::new(shards, true));
        (0..servers).map(|_| Arc::clone(&shared)).collect()
    }
}

fn fits(taken: usize, bytes: usize) -> bool {
    taken.saturating_add(bytes) <= BYTES_MAX
}

impl Drop for Timings {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_their_own_until_memory_says_no() {
        assert!(fits(0, BYTES_MAX) && fits(BYTES_MAX, 0) && !fits(1, BYTES_MAX));
        let few = Timings::for_servers(3, 2);
        assert!(few.len() == 3 && few.iter().all(|timings| !timings.is_shared));
        assert!(!Arc::ptr_eq(&few[0], &few[1]));
        let most = BYTES_MAX / BYTES_PER_SHARD + 1;
        let many = Timings::for_servers(most, 1);
        assert!(many.len() == most && many.iter().all(|timings| timings.is_shared));
        assert!(Arc::ptr_eq(&many[0], &many[most - 1]));
    }

    #[test]
    fn the_sizes_are_what_is_said() {
        assert_eq!(BYTES_PER_SHARD, 1_152);
    }
}
