//! The balancer's table: what a pick reads. It is immutable and published whole.

use std::sync::Arc;

use super::sequence::Sequence;
use super::server::Server;
use super::sets::Set;
use super::source::Ring;
use crate::base::ids::ServerId;

/// The servers that may be chosen and how to choose among them.
#[derive(Debug)]
pub(super) struct Table {
    /// The set that its servers are of.
    pub(super) set: Set,
    /// Usable servers in the order of the config.
    pub(super) entries: Box<[Entry]>,
    /// Turns over `entries`.
    pub(super) sequence: Sequence,
    /// Added to a cursor to get a position in the sequence: carries the phase from table to table.
    offset: u64,
    /// Points over `entries`, for consistent hashing only.
    pub(super) ring: Option<Ring>,
}

/// A server that may be chosen.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) server: Arc<Server>,
    /// Its weight when the table was built, never 0.
    pub(super) weight: u32,
}

impl Table {
    /// The table of some servers, which takes up the sequence where `before`, an earlier table of
    /// the set, stands at `cursor`.
    pub(super) fn new(
        set: Set,
        entries: Vec<Entry>,
        ring: Option<Ring>,
        before: Option<Phase>,
        cursor: u64,
    ) -> Table {
        let weights: Vec<u32> = entries.iter().map(|entry| entry.weight).collect();
        let sequence = Sequence::new(&weights);
        let offset = before.map_or(0, |before| before.offset_for(&sequence, cursor));
        Table {
            set,
            entries: entries.into_boxed_slice(),
            sequence,
            offset,
            ring,
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

    /// Sum of the weights.
    pub(super) fn weight(&self) -> u32 {
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
