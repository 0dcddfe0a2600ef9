//! Bounded load (`hash-balance-factor`): a client goes to the next server on the ring or in the
//! table while its own has more than some percent of its share (Mirrokni, Thorup and Zadimoghaddam,
//! "Consistent Hashing with Bounded Loads", 2018).
//!
//! The share is that of all connections of the backend, the new one included, rounded up. It
//! bounds what is chosen. Sessions that wait for a server at its `maxconn` get what becomes free,
//! and a retry takes a server above its bound before it takes the one that failed.

use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::table::{Entry, Table};

/// The bound of a backend's servers.
#[derive(Debug)]
pub(super) struct Bound {
    percent: u32,
    /// Connections of the backend. One is noted after it was taken and forgotten before it is
    /// given back, so that no moment shows more than there are. Where the bound comes while there
    /// are connections, those that come or go in that moment may be missed: it is off by so many
    /// until there is none.
    total: Arc<CachePadded<AtomicU32>>,
}

impl Bound {
    /// The bound of a factor; 0 = there is none.
    pub(super) fn new(percent: u32) -> Option<Bound> {
        (percent > 0).then(|| Bound {
            percent,
            total: Arc::default(),
        })
    }

    /// The bound of this factor from now on, where the one of `before` was in force, if there was
    /// one, and servers have so many connections.
    pub(super) fn next(percent: u32, before: Option<&Bound>, connections: u32) -> Option<Bound> {
        let mut next = Bound::new(percent)?;
        match before {
            Some(before) => next.total = Arc::clone(&before.total),
            None => next.total.store(connections, SeqCst),
        }
        Some(next)
    }

    /// A connection was taken.
    pub(super) fn took(&self) {
        self.total.fetch_add(1, SeqCst);
    }

    /// A connection is about to be given back.
    pub(super) fn gives(&self) {
        let less = |total: u32| total.checked_sub(1);
        let _ = self.total.fetch_update(SeqCst, SeqCst, less);
    }

    /// Most connections that a server may have once it has the next one.
    pub(super) fn limit(&self, table: &Table, entry: &Entry) -> u32 {
        let all = u64::from(self.total.load(SeqCst)) + 1;
        // 2^32 connections times 2^16 percent times a share of 2^15 are below 2^64.
        let share = all * u64::from(self.percent) * u64::from(entry.share);
        let limit = share.div_ceil(100 * table.shares().max(1));
        u32::try_from(limit).unwrap_or(u32::MAX)
    }

    /// Whether a server may have one more.
    pub(super) fn allows(&self, table: &Table, entry: &Entry) -> bool {
        entry.server.active() < self.limit(table, entry)
    }
}
