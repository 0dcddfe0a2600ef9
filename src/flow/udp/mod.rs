//! The pure part of relaying datagrams: whose flow one is, and from which socket it goes on.
//!
//! No descriptor, no clock, no ring: addresses and moments come in as values; listeners, servers
//! ("upstreams") and sockets are plain indices of whoever calls. Everything here belongs to one
//! shard; what is counted over all shards is in `base`.
//!
//! A flow costs at most about 300 bytes, the caller's own `D` included if that is up to 64: its
//! entry in the slab is 168 (`Flow<()>` and its generation), its timer 24, its place in the index
//! 12 to 24, and its pair 8. A pair that remembers a client has about 100 for that.

mod answers;
mod expiry;
mod flow;
mod index;
mod key;
mod lists;
mod mappings;
mod pairs;
mod pool;
mod table;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use answers::{PoolLimits, Refusal, Reply, Rest, Take};
pub use expiry::EXPIRED_PER_TURN;
pub use flow::{After, Closed, Flow, Opening, Reason, Rules};
pub use key::{FlowKey, normalised};
pub use pool::Pool;
pub use table::FlowTable;

/// A flow: its slot and generation, so that a stale one never reaches a newer flow.
pub type FlowId = crate::base::ids::SessionKey;

/// The pair of a pool's socket and a server's address, which has at most one flow at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairAt {
    /// The pool, as its owner numbers them.
    pub pool: u16,
    /// The socket in that pool.
    pub socket: u16,
    /// The address, as the pool numbers them.
    pub column: u16,
}
