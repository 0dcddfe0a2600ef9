//! The balancer's table: what a pick reads. It is immutable and published whole.

use std::sync::Arc;

use super::backend::Policy;
use super::maglev::Maglev;
use super::ring::Ring;
use super::sequence::Sequence;
use super::server::Server;
use super::sets::Set;
use super::slow_start::{self, WHOLE};
use crate::base::ids::ServerId;
use crate::config::plan::Balance;

/// The servers that may be chosen and how to choose among them.
#[derive(Debug)]
pub(super) struct Table {
    /// How one of them is chosen.
    pub(super) policy: Arc<Policy>,
    /// The set that its servers are of.
    pub(super) set: Set,
    /// Usable servers in the order of the config; for `first` in that of their numbers.
    pub(super) entries: Box<[Entry]>,
    /// Turns over `entries`.
    pub(super) sequence: Sequence,
    /// Added to a cursor to get a position in the sequence: carries the phase from table to table.
    offset: u64,
    /// Where hashes lead.
    pub(super) places: Places,
    /// Sum of the shares.
    shares: u64,
}

/// Where the hashes of a table lead.
#[derive(Debug)]
pub(super) enum Places {
    /// To the turns of the sequence.
    Turns,
    /// To points of a ring.
    Ring(Ring),
    /// To slots of a Maglev table.
    Maglev(Maglev),
}

/// A server that may be chosen.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) server: Arc<Server>,
    /// Its weight when the table was built, never 0.
    pub(super) weight: u32,
    /// The part of it that counts, in percent of a unit: less than the whole in a slow start.
    pub(super) share: u32,
}

impl Entry {
    /// A server as it is now. Another thread may have set its weight to 0: the next table knows.
    pub(super) fn new(server: &Arc<Server>, balance: Balance) -> Entry {
        let weight = if balance.is_static() {
            u32::from(server.plan.weight)
        } else {
            server.weight()
        };
        let weight = weight.max(1);
        Entry {
            server: Arc::clone(server),
            weight,
            share: weight * slow_start::weight_percent(server, balance).unwrap_or(WHOLE),
        }
    }
}

impl Table {
    /// The table of some servers and their turns, which takes up the sequence where `before`, an
    /// earlier table of the set, stands at `cursor`.
    pub(super) fn new(
        policy: &Arc<Policy>,
        set: Set,
        entries: Vec<Entry>,
        sequence: Sequence,
        places: Places,
        before: Option<Phase>,
        cursor: u64,
    ) -> Table {
        let offset = before.map_or(0, |before| before.offset_for(&sequence, cursor));
        Table {
            policy: Arc::clone(policy),
            set,
            shares: entries.iter().map(|entry| u64::from(entry.share)).sum(),
            entries: entries.into_boxed_slice(),
            sequence,
            offset,
            places,
        }
    }

    /// Index of the server whose turn it is at a cursor's value.
    #[inline]
    pub(super) fn turn(&self, cursor: u64) -> usize {
        self.sequence.at(cursor.wrapping_add(self.offset))
    }

    /// Index of a server, if it may be chosen.
    pub(super) fn index_of(&self, id: ServerId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.server.id == id)
    }

    /// Sum of the weights that count, rounded up.
    pub(super) fn weight(&self) -> u32 {
        let shares = self.shares.div_ceil(u64::from(WHOLE));
        u32::try_from(shares).unwrap_or(u32::MAX)
    }

    /// Sum of the shares, in percent of a unit of weight.
    pub(super) fn shares(&self) -> u64 {
        self.shares
    }

    /// Sum of the weights, slow starts aside.
    pub(super) fn user_weight(&self) -> u32 {
        self.entries.iter().map(|entry| entry.weight).sum()
    }

    /// Where it stands, for the next table of its set; `None` if it has no turns.
    pub(super) fn phase(&self) -> Option<Phase> {
        let (len, offset) = (self.sequence.len(), self.offset);
        (len > 0).then_some(Phase { len, offset })
    }
}

/// What the next table of a set has to know of the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    len: u64,
    offset: u64,
}

impl Phase {
    /// The offset with which the sequence `next` goes on at the same part of its round. A sequence
    /// of the same length goes on at the same turn exactly, also if `cursor` has moved meanwhile.
    fn offset_for(&self, next: &Sequence, cursor: u64) -> u64 {
        let (len, next_len) = (self.len, next.len());
        if len == next_len {
            return self.offset;
        }
        if next_len == 0 {
            return 0;
        }
        let position = cursor.wrapping_add(self.offset) % len * next_len / len;
        (position + next_len - cursor % next_len) % next_len
    }
}
