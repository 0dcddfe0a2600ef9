//! What is counted of a listener whose frontend has `option socket-stats`.
//!
//! A listener without the option has no counters at all: where they would be written there is one
//! look at what the acceptor holds. How many sessions a listener has, and had at most, its limit
//! knows in any case.

use std::sync::Arc;

use crate::base::counters::ShardCounters;
use crate::config::plan::Listener;

/// Counters of a listener, indices of [`ListenerCounters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum ListenerCounter {
    /// Connections accepted, or flows begun (`stot`).
    Connections,
    /// Bytes from clients.
    BytesIn,
    /// Bytes to clients.
    BytesOut,
    /// Clients that left before any data, or whose request was wrong (`ereq`).
    RequestErrors,
    /// Connections closed for want of something (`eint`).
    ResourceErrors,
    /// Datagrams from clients.
    DatagramsIn,
    /// Datagrams to clients.
    DatagramsOut,
}

impl ListenerCounter {
    /// How many there are.
    pub const COUNT: usize = 7;
}

/// Counters of a listener by shard.
pub type ListenerCounters = ShardCounters<{ ListenerCounter::COUNT }>;

/// The counters of a listener as a plan has it: those it had before go on.
pub(super) fn of(
    plan: &Listener,
    before: Option<&Arc<ListenerCounters>>,
    shards: usize,
) -> Option<Arc<ListenerCounters>> {
    let new = || Arc::new(ListenerCounters::new(shards));
    plan.has_stats.then(|| before.map_or_else(new, Arc::clone))
}
