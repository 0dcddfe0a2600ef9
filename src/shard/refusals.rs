//! The last connection of each frontend that was closed for what it sent in place of a PROXY
//! header, for `show errors`. A shard writes it without waiting; the last one stands.

use crossbeam::queue::ArrayQueue;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::record::Refusal;
use crate::base::ids::ListenerId;

/// What was closed.
#[derive(Clone, Copy, Debug)]
pub struct LastRefusal {
    /// When, Unix time in milliseconds.
    pub unix_ms: u64,
    /// Where it came in.
    pub listener_id: ListenerId,
    /// The client; `None` for Unix clients.
    pub client: Option<SocketAddr>,
    /// Why.
    pub why: Refusal,
}

/// One per frontend.
#[derive(Debug)]
pub struct Refusals {
    count: AtomicU64,
    last: ArrayQueue<LastRefusal>,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals {
            count: AtomicU64::new(0),
            last: ArrayQueue::new(1),
        }
    }
}

impl Refusals {
    pub(super) fn note(&self, refusal: LastRefusal) {
        self.count.fetch_add(1, Relaxed);
        self.last.force_push(refusal);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// The last one. For one reader at a time.
    pub fn last(&self) -> Option<LastRefusal> {
        let last = self.last.pop()?;
        // If there is a newer one already, that one stays.
        let _ = self.last.push(last);
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_stands_however_often_it_is_read() {
        let refusals = Refusals::default();
        assert!(refusals.last().is_none());
        for unix_ms in 1..=3 {
            refusals.note(LastRefusal {
                unix_ms,
                listener_id: ListenerId(0),
                client: None,
                why: Refusal::Invalid,
            });
        }
        for _ in 0..2 {
            assert_eq!(refusals.last().map(|last| last.unix_ms), Some(3));
        }
        assert_eq!(refusals.count(), 3);
    }
}
