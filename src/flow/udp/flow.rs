//! One flow: what it keeps to, what it has counted, and how it ends.

use super::lists::Links;
use super::{FlowKey, PairAt};
use crate::base::time::Moment;

/// What a flow keeps to, from its frontend and its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Time without a datagram after which a flow ends.
    pub idle_ms: u32,
    /// The same while no reply has come, if that is less.
    pub unconfirmed_ms: u32,
    /// Datagrams of the client that a flow takes; the next one begins a new flow.
    pub requests_max: Option<u32>,
    /// Replies to each datagram of the client: with the last one that is due the flow ends. Counted
    /// for each, or of two questions that a resolver asks at once the second would stay without an
    /// answer. 0 = the flow ends with its first datagram.
    pub responses_max: Option<u32>,
}

/// What a flow begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening {
    /// Its server, as the caller numbers them.
    pub upstream: u32,
    /// From where the server is spoken to; `None` = from a socket of its own.
    pub pair: Option<PairAt>,
    /// What it keeps to.
    pub rules: Rules,
}

/// What is left of a flow after a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum After {
    /// It goes on.
    Stays,
    /// It goes on for its replies; the client's next datagram begins a new one.
    Spent,
    /// It is to be closed, for this reason, when what was received has been sent.
    Ends(Reason),
}

/// Why a flow ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// Nothing came for its idle time.
    Idle,
    /// The same, before any reply.
    Unconfirmed,
    /// All replies that were due have come, or none is expected.
    Responses,
    /// It took as many datagrams as it may, and nothing came for its idle time since.
    Requests,
    /// It made room for another, before any reply.
    Evicted,
    /// Its server is down, or gone.
    ServerDown,
    /// Its socket is lost.
    SocketLost,
    /// The shard stops.
    Shutdown,
    /// It could not begin.
    Refused,
}

/// A flow.
#[derive(Debug)]
pub struct Flow<D> {
    pub(super) key: FlowKey,
    pub(super) confirmed: bool,
    /// The key does not lead to it (any more): it is there for replies.
    pub(super) spent: bool,
    /// Whether a PROXY header has gone to its present server.
    pub header_sent: bool,
    pub(super) upstream: u32,
    pub(super) pair: Option<PairAt>,
    pub(super) requests_left: u32,
    pub(super) responses_max: u32,
    pub(super) idle_ms: u32,
    pub(super) unconfirmed_ms: u32,
    pub(super) started: Moment,
    pub(super) last: Moment,
    pub(super) requests: u64,
    pub(super) replies: u64,
    pub(super) request_bytes: u64,
    pub(super) reply_bytes: u64,
    pub(super) by_upstream: Links,
    pub(super) by_age: Links,
    /// What the caller keeps with it.
    pub data: D,
}

impl<D> Flow<D> {
    /// Its key.
    pub fn key(&self) -> &FlowKey {
        &self.key
    }
    /// Its server.
    pub fn upstream(&self) -> u32 {
        self.upstream
    }
    /// From where its server is spoken to.
    pub fn pair(&self) -> Option<PairAt> {
        self.pair
    }
    /// Whether a reply has come.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }
    /// Whether it is there for replies only.
    pub fn is_spent(&self) -> bool {
        self.spent
    }
    /// When it began.
    pub fn started(&self) -> Moment {
        self.started
    }
    /// When the last datagram came, either way.
    pub fn last(&self) -> Moment {
        self.last
    }
    /// Datagrams of the client, and their bytes.
    pub fn requests(&self) -> (u64, u64) {
        (self.requests, self.request_bytes)
    }
    /// Datagrams of its servers, and their bytes.
    pub fn replies(&self) -> (u64, u64) {
        (self.replies, self.reply_bytes)
    }
    /// How many more datagrams of the client it takes.
    pub fn requests_left(&self) -> u32 {
        if self.spent { 0 } else { self.requests_left }
    }
    /// How many more replies it takes.
    pub fn responses_left(&self) -> u64 {
        if self.responses_max == UNLIMITED {
            return u64::MAX;
        }
        let each = u64::from(self.responses_max);
        // Of a flow that its server began one passes in any case.
        let due = match self.requests {
            0 => each.max(1),
            requests => requests.saturating_mul(each),
        };
        due.saturating_sub(self.replies)
    }
}

/// As many as come.
pub(super) const UNLIMITED: u32 = u32::MAX;

/// A flow that has ended: what has to be given back, and what is told of it.
#[derive(Debug)]
pub struct Closed<D> {
    /// The flow as it was.
    pub flow: Flow<D>,
    /// Why.
    pub reason: Reason,
}
