//! Which client a pair without a flow belongs to, while its server may still speak first.

use super::FlowKey;
use super::index::Index;
use crate::base::slab::{SLOTS_MAX, Slab};
use crate::base::time::Moment;

/// A client that a server may speak to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapping {
    pub(super) key: FlowKey,
    pub(super) socket: u16,
    pub(super) column: u16,
    /// The server that the client had there.
    pub(super) upstream: u32,
    /// Until when nobody else gets the pair.
    pub(super) until: Moment,
}

/// The mappings of a pool, also found by column and client.
#[derive(Debug)]
pub(super) struct Mappings {
    slots: Slab<Mapping>,
    index: Index,
}

impl Mappings {
    pub(super) fn new() -> Mappings {
        Mappings {
            slots: Slab::new(SLOTS_MAX),
            index: Index::new(),
        }
    }

    /// Notes one and returns its slot; `None` if there is no room.
    pub(super) fn insert(&mut self, mapping: Mapping) -> Option<u32> {
        let hash = self.hash(mapping.column, &mapping.key);
        let slot = self.slots.insert(mapping).ok()?.slot;
        self.index.insert(hash, slot);
        Some(slot)
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Mapping> {
        let mapping = self.slots.remove(self.slots.key_at(slot)?)?;
        let hash = self.hash(mapping.column, &mapping.key);
        self.index.remove(hash, slot);
        Some(mapping)
    }

    pub(super) fn at(&self, slot: u32) -> Option<&Mapping> {
        self.slots.at(slot)
    }

    /// A mapping of a client in a column.
    pub(super) fn find(&self, column: u16, key: &FlowKey) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let is_it = |slot| {
            let mapping = self.slots.at(slot);
            mapping.is_some_and(|mapping| mapping.column == column && mapping.key == *key)
        };
        self.index.find(self.hash(column, key), is_it)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn hash(&self, column: u16, key: &FlowKey) -> u32 {
        // The column is no secret and no choice of a client.
        self.index
            .hash(key.bytes())
            .wrapping_add(u32::from(column).wrapping_mul(0x9e37_79b1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many keys some twenty pairs have the same hash of 32 bits.
    #[test]
    fn mappings_with_equal_hashes_are_told_apart() {
        const MAPPINGS: u32 = 400_000;
        let mapping = |number: u32| {
            let ip = std::net::Ipv4Addr::from_bits(number);
            Mapping {
                key: FlowKey::new(0, (ip, 53).into(), None, None),
                socket: 0,
                column: (number % 3) as u16,
                upstream: 0,
                until: Moment(0),
            }
        };
        let mut mappings = Mappings::new();
        for number in 0..MAPPINGS {
            let new = mapping(number);
            assert_eq!(mappings.find(new.column, &new.key), None);
            assert_eq!(mappings.insert(new), Some(number));
        }
        for number in 0..MAPPINGS {
            let key = mapping(number).key;
            let found = [0, 1, 2].map(|column| mappings.find(column, &key));
            let own = |column| (u32::from(column) == number % 3).then_some(number);
            assert_eq!(found, [0u16, 1, 2].map(own));
        }
    }
}
