//! A slab: values in numbered slots, each slot with a generation, so that a stale key finds
//! nothing.
//!
//! A completion or a message may name a session that has ended since, and whose slot already holds
//! another one. Every key therefore carries the generation of its slot, which changes when the slot
//! is emptied. Slot and generation are packed together into 64-bit tokens of the ring, which leaves
//! 24 bits for each; a key is mistaken only if the same slot is reused exactly 2^24 - 1 times
//! meanwhile.
//!
//! Memory comes in chunks as it is used for the first time and is never given back or moved: a
//! shard pays for the most sessions it has had, not for the most it may have. The slot that was
//! emptied last is used first, because its memory is the likeliest to be in the cache.
//!
//! A slab belongs to one thread and knows nothing of what it holds.

use super::ids::SessionKey;

/// Most slots of a slab: 24 bits.
pub const SLOTS_MAX: u32 = 1 << 24;

/// Generations count from 1 to this and then start again. 0 is never used, so that an all-zero
/// token names nothing.
pub const GENERATION_MAX: u32 = (1 << 24) - 1;

/// Slots per chunk: with about 1 KiB per session a chunk is 256 KiB, small against a busy shard and
/// few enough allocations (a hundred for 25,600 sessions).
const CHUNK: usize = 256;

/// The end of the free list.
const NONE: u32 = u32::MAX;

/// Values in slots.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Vec<Entry<T>>>,
    /// Slots that have ever been used; the chunks hold exactly these.
    touched: u32,
    /// The slot emptied last, or `NONE`.
    free: u32,
    len: u32,
    capacity: u32,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Used(T),
    Free { next: u32 },
}

impl<T> Slab<T> {
    /// An empty slab that will hold at most `capacity` values (and never more than [`SLOTS_MAX`]).
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.min(SLOTS_MAX);
        Slab {
            chunks: Vec::new(),
            touched: 0,
            free: NONE,
            len: 0,
            capacity,
        }
    }

    /// Puts a value into a free slot, or gives it back if the slab is full.
    pub fn insert(&mut self, value: T) -> Result<SessionKey, T> {
        match self.vacant_key() {
            Some(key) => {
                self.fill(key, value);
                Ok(key)
            }
            None => Err(value),
        }
    }

    /// The key that the next insert will return, for values that hold their own key; `None` when
    /// full.
    pub fn vacant_key(&self) -> Option<SessionKey> {
        if self.free != NONE {
            let generation = self.entry(self.free).map_or(1, |entry| entry.generation);
            return Some(SessionKey {
                slot: self.free,
                generation,
            });
        }
        (self.touched < self.capacity).then_some(SessionKey {
            slot: self.touched,
            generation: 1,
        })
    }

    /// The value of a key, unless it is gone.
    #[inline]
    pub fn get(&self, key: SessionKey) -> Option<&T> {
        match self.entry(key.slot)? {
            Entry {
                generation,
                state: State::Used(value),
            } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The value of a key, unless it is gone.
    #[inline]
    pub fn get_mut(&mut self, key: SessionKey) -> Option<&mut T> {
        match self.entry_mut(key.slot)? {
            Entry {
                generation,
                state: State::Used(value),
            } if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Whatever is in a slot now, for callers that know the slot to be theirs (timers, lists).
    #[inline]
    pub fn at(&self, slot: u32) -> Option<&T> {
        match &self.entry(slot)?.state {
            State::Used(value) => Some(value),
            State::Free { .. } => None,
        }
    }

    /// Whatever is in a slot now.
    #[inline]
    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        match &mut self.entry_mut(slot)?.state {
            State::Used(value) => Some(value),
            State::Free { .. } => None,
        }
    }

    /// The key of whatever is in a slot now.
    pub fn key_at(&self, slot: u32) -> Option<SessionKey> {
        match self.entry(slot)? {
            Entry {
                generation,
                state: State::Used(_),
            } => Some(SessionKey {
                slot,
                generation: *generation,
            }),
            Entry {
                state: State::Free { .. },
                ..
            } => None,
        }
    }

    /// Empties a slot and returns what was in it, unless it is gone already.
    pub fn remove(&mut self, key: SessionKey) -> Option<T> {
        self.get(key)?;
        let next = self.free;
        let entry = self.entry_mut(key.slot)?;
        entry.generation = if entry.generation < GENERATION_MAX {
            entry.generation + 1
        } else {
            1
        };
        let State::Used(value) = std::mem::replace(&mut entry.state, State::Free { next }) else {
            return None;
        };
        self.free = key.slot;
        self.len -= 1;
        Some(value)
    }

    /// Values held now.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the next insert will give its value back.
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Most values it will hold.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// All values with their keys, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (SessionKey, &T)> {
        let entries = (0u32..).zip(self.chunks.iter().flatten());
        entries.filter_map(|(slot, entry)| match &entry.state {
            State::Used(value) => Some((
                SessionKey {
                    slot,
                    generation: entry.generation,
                },
                value,
            )),
            State::Free { .. } => None,
        })
    }

    /// All values with their keys, by slot.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SessionKey, &mut T)> {
        let entries = (0u32..).zip(self.chunks.iter_mut().flatten());
        entries.filter_map(|(slot, entry)| match &mut entry.state {
            State::Used(value) => Some((
                SessionKey {
                    slot,
                    generation: entry.generation,
                },
                value,
            )),
            State::Free { .. } => None,
        })
    }

    /// Stores a value under the key that `vacant_key` gave.
    fn fill(&mut self, key: SessionKey, value: T) {
        if key.slot == self.touched {
            if self.touched as usize == self.chunks.len() * CHUNK {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            let chunk = self
                .chunks
                .last_mut()
                .expect("a chunk was just made sure of");
            chunk.push(Entry {
                generation: key.generation,
                state: State::Used(value),
            });
            self.touched += 1;
        } else {
            let entry = self
                .entry_mut(key.slot)
                .expect("a slot of the free list exists");
            let State::Free { next } = entry.state else {
                unreachable!("a slot of the free list is free");
            };
            entry.state = State::Used(value);
            self.free = next;
        }
        self.len += 1;
    }

    #[inline]
    fn entry(&self, slot: u32) -> Option<&Entry<T>> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)
    }

    #[inline]
    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new(4);
        let old = slab.insert("old").unwrap();
        assert_eq!(
            old,
            SessionKey {
                slot: 0,
                generation: 1
            }
        );
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new").unwrap();
        assert_eq!(
            new,
            SessionKey {
                slot: 0,
                generation: 2
            }
        );
        assert_eq!(slab.get(old), None);
        assert_eq!(slab.get_mut(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!((slab.get(new), slab.at(0)), (Some(&"new"), Some(&"new")));
        assert_eq!(
            (slab.at(1), slab.key_at(1), slab.key_at(0)),
            (None, None, Some(new))
        );
    }

    #[test]
    fn a_full_slab_gives_the_value_back() {
        let mut slab = Slab::new(2);
        let first = slab.insert(1).unwrap();
        slab.insert(2).unwrap();
        assert!(slab.is_full());
        assert_eq!(slab.vacant_key(), None);
        assert_eq!(slab.insert(3), Err(3));
        assert_eq!(slab.remove(first), Some(1));
        assert_eq!(slab.vacant_key(), Some(slab.insert(3).unwrap()));
        assert_eq!(Slab::<u8>::new(0).insert(9), Err(9));
    }

    #[test]
    fn the_generation_wraps_past_zero() {
        let mut slab = Slab::new(1);
        let key = slab.insert(()).unwrap();
        slab.entry_mut(0).unwrap().generation = GENERATION_MAX;
        let last = SessionKey {
            generation: GENERATION_MAX,
            ..key
        };
        slab.remove(last).unwrap();
        assert_eq!(slab.insert(()).unwrap().generation, 1);
    }

    #[test]
    fn agrees_with_a_map_and_reuses_the_last_slot_first() {
        let mut random = 0x1234_5678_9abc_def1_u64;
        let mut slab = Slab::new(1000);
        let mut model = HashMap::new();
        let mut dead = Vec::new();
        let mut last_freed = Vec::new();
        for step in 0..200_000u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 100 < 52 {
                match slab.insert(step) {
                    Ok(key) => {
                        assert_eq!(last_freed.pop().unwrap_or(key.slot), key.slot);
                        assert!(model.insert(key, step).is_none());
                    }
                    Err(back) => {
                        assert_eq!(back, step);
                        assert_eq!(model.len(), 1000);
                    }
                }
            } else if let Some(key) = slab.key_at((random >> 32) as u32 % 1000) {
                assert_eq!(slab.remove(key), model.remove(&key));
                last_freed.push(key.slot);
                dead.push(key);
            }
            assert_eq!(slab.len(), model.len());
        }
        assert_eq!(slab.iter().count(), model.len());
        assert_eq!(slab.iter_mut().count(), model.len());
        assert!(
            slab.iter()
                .all(|(key, value)| model.get(&key) == Some(value))
        );
        assert!(dead.iter().all(|key| slab.get(*key).is_none()));
    }
}
