//! From a key to a slot, by a hash with a secret key: clients choose what is hashed.
//!
//! Open addressing with the hash beside the slot, so growing reads no keys: 100,000 entries move in
//! well under a millisecond. An entry that goes is closed up behind (no tombstones), so a table
//! through which millions have passed is as quick as a new one. Two thirds are used at the most:
//! 12 to 24 bytes for each entry.

use std::hash::{BuildHasher, Hasher, RandomState};

/// No entry.
const NONE: u32 = u32::MAX;
/// Places of an index that has held anything.
const PLACES_MIN: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u32,
    /// Slot of the entry, or `NONE`.
    slot: u32,
}

const EMPTY: Place = Place {
    hash: 0,
    slot: NONE,
};

/// Slots by the hashes of what is in them. What that is, the caller compares.
#[derive(Debug)]
pub(super) struct Index {
    places: Vec<Place>,
    len: usize,
    secret: RandomState,
}

impl Index {
    pub(super) fn new() -> Index {
        Index {
            places: Vec::new(),
            len: 0,
            secret: RandomState::new(),
        }
    }

    /// The hash of a key.
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u32 {
        let mut hasher = self.secret.build_hasher();
        hasher.write(key);
        hasher.finish() as u32
    }

    /// The slot with this hash that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let place = self.places[at];
            if place.slot == NONE {
                return None;
            }
            if place.hash == hash && is_it(place.slot) {
                return Some(place.slot);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a slot, which is not there yet.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        if (self.len + 1) * 3 > self.places.len() * 2 {
            self.grow();
        }
        self.place(Place { hash, slot });
        self.len += 1;
    }

    /// Takes a slot out; whether it was there.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) -> bool {
        let Some(mask) = self.places.len().checked_sub(1) else {
            return false;
        };
        let mut gap = hash as usize & mask;
        while self.places[gap].slot != slot {
            if self.places[gap].slot == NONE {
                return false;
            }
            gap = (gap + 1) & mask;
        }
        // What stands behind moves up, unless its own place is behind the gap.
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let place = self.places[at];
            if place.slot == NONE {
                break;
            }
            let from_home = at.wrapping_sub(place.hash as usize) & mask;
            let from_gap = at.wrapping_sub(gap) & mask;
            if from_home >= from_gap {
                self.places[gap] = place;
                gap = at;
            }
        }
        self.places[gap] = EMPTY;
        self.len -= 1;
        true
    }

    fn grow(&mut self) {
        let places = (self.places.len() * 2).max(PLACES_MIN);
        let old = std::mem::replace(&mut self.places, vec![EMPTY; places]);
        for place in old.into_iter().filter(|place| place.slot != NONE) {
            self.place(place);
        }
    }

    fn place(&mut self, place: Place) {
        let mask = self.places.len() - 1;
        let mut at = place.hash as usize & mask;
        while self.places[at].slot != NONE {
            at = (at + 1) & mask;
        }
        self.places[at] = place;
    }
}
