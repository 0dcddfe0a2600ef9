//! What a pool is told, and what it answers.

use super::pairs::SOCKETS_MAX;
use super::{FlowKey, PairAt};
use crate::base::time::Moment;

/// How large a pool may become, and how long its pairs rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolLimits {
    /// Sockets at once.
    pub sockets_max: u16,
    /// Sockets that are added in one turn: each costs three to four microseconds. As many as there
    /// are buffers for clients' datagrams, so that a burst of new clients finds one each.
    pub growth_max: u16,
    /// How long a pair rests after a flow.
    pub quarantine_ms: u32,
    /// How long all pairs of the last socket have been free when it is closed.
    pub spare_ms: u32,
}

impl PoolLimits {
    /// The usual ones, with so many sockets.
    pub fn of(sockets_max: u16) -> PoolLimits {
        PoolLimits {
            sockets_max: sockets_max.min(SOCKETS_MAX),
            growth_max: 128,
            quarantine_ms: 1_000,
            spare_ms: 60_000,
        }
    }
}

/// What a new flow gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// This pair, which is the flow's now.
    Pair(PairAt),
    /// A socket has to be opened for it: then `add_socket`, and ask again. If it can't be opened,
    /// ask again with `may_grow == false`.
    Grow,
    /// Nothing.
    Refused(Refusal),
}

/// Why a flow gets no pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// All sockets there may be have a flow with this server.
    Full,
    /// The same, and some of the pairs are kept for servers that may speak first.
    Mapped,
    /// As many sockets as may be were opened in this turn.
    Growth,
    /// The pool does not know the server.
    Unknown,
}

/// How a pair rests after its flow.
#[derive(Clone, Copy, Debug)]
pub enum Rest<'a> {
    /// For the quarantine.
    Quarantine,
    /// As a mapping: for so long after the last datagram its server may speak to the client.
    Mapping {
        /// The client's flow.
        key: &'a FlowKey,
        /// The flow's server.
        upstream: u32,
        /// When its last datagram came or went.
        last: Moment,
        /// How long the mapping lives after that.
        lifetime_ms: u32,
    },
}

/// Whom a datagram of a server is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The flow in this slot.
    Flow(u32),
    /// The client of a mapping: a flow can be opened for it on this pair, which then `resume` gives
    /// it.
    Mapping {
        /// The client's flow as it was.
        key: FlowKey,
        /// The server that speaks.
        upstream: u32,
        /// The pair.
        pair: PairAt,
    },
    /// Nobody.
    Unknown,
}
