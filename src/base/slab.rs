//! A slab: values in numbered slots, each slot with a generation, so that a stale key finds
//! nothing.
//!
//! A completion or a message may name a session that has ended since, and whose slot already holds
//! another one. Every key therefore carries the generation of its slot, which changes when the slot
//! is emptied. Slot and generation are packed together into 64-bit tokens of the ring, which leaves
//! 24 bits for each; a key is mistaken only if the same slot is reused exactly 2^24 - 1 times
//! meanwhile.
//!
//! Memory comes in chunks, and a chunk that is empty goes back, unless it is the only one that is:
//! a shard pays for the sessions it has. A new value goes into the first chunk that has room, so
//! that the others can run empty, and there into the slot that was emptied last, because its memory
//! is the likeliest to be in the cache. Values are never moved.
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
    chunks: Vec<Chunk<T>>,
    /// No chunk before this one has room.
    first_open: usize,
    /// Chunks that have memory and no value.
    spare: u32,
    len: u32,
    capacity: u32,
}

#[derive(Debug)]
struct Chunk<T> {
    /// As many as were ever used since the chunk has its memory.
    entries: Vec<Entry<T>>,
    /// The slot emptied last, or `NONE`.
    free: u32,
    /// Values in it.
    used: u32,
    /// What its slots begin with: above all that they had when its memory went.
    generation: u32,
}

impl<T> Chunk<T> {
    const EMPTY: Chunk<T> = Chunk {
        entries: Vec::new(),
        free: NONE,
        used: 0,
        generation: 1,
    };
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
            first_open: 0,
            spare: 0,
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
        if self.is_full() {
            return None;
        }
        let index = self.open_chunk();
        let first = index * CHUNK;
        let Some(chunk) = self.chunks.get(index) else {
            return Some(key(first, Chunk::<T>::EMPTY.generation));
        };
        if chunk.free == NONE {
            return Some(key(first + chunk.entries.len(), chunk.generation));
        }
        let generation = self.entry(chunk.free).map_or(1, |entry| entry.generation);
        Some(SessionKey {
            slot: chunk.free,
            generation,
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
        let index = key.slot as usize / CHUNK;
        let chunk = &mut self.chunks[index];
        let next = chunk.free;
        let entry = &mut chunk.entries[key.slot as usize % CHUNK];
        entry.generation = following(entry.generation);
        let State::Used(value) = std::mem::replace(&mut entry.state, State::Free { next }) else {
            return None;
        };
        chunk.free = key.slot;
        chunk.used -= 1;
        self.len -= 1;
        self.first_open = self.first_open.min(index);
        if self.chunks[index].used == 0 {
            self.run_empty(index);
        }
        Some(value)
    }

    /// A chunk has no value any more.
    fn run_empty(&mut self, index: usize) {
        if self.spare == 0 {
            self.spare = 1;
            return;
        }
        let chunk = &mut self.chunks[index];
        let generations = chunk.entries.iter().map(|entry| entry.generation);
        *chunk = Chunk {
            generation: generations.max().unwrap_or(1),
            ..Chunk::EMPTY
        };
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
        let chunks = self.chunks.iter().enumerate();
        let entries = chunks.flat_map(|(index, chunk)| {
            let slots = index * CHUNK..;
            slots.zip(&chunk.entries)
        });
        entries.filter_map(|(slot, entry)| match &entry.state {
            State::Used(value) => Some((key(slot, entry.generation), value)),
            State::Free { .. } => None,
        })
    }

    /// A part of the values with their keys: those in up to `slots` slots from one on, and the slot
    /// to go on from, `None` = that was the end. Chunks without a value cost next to nothing.
    pub fn page(
        &self,
        from: u32,
        slots: u32,
    ) -> (impl Iterator<Item = (SessionKey, &T)>, Option<u32>) {
        let (from, slots) = (from as usize, slots as usize);
        let used = |index: &usize| self.chunks[*index].used > 0;
        let found = (from / CHUNK..self.chunks.len()).find(used);
        let (index, start) = match found {
            Some(index) => (index, from.max(index * CHUNK)),
            None => (self.chunks.len(), 0),
        };
        let entries = self
            .chunks
            .get(index)
            .map_or(&[][..], |chunk| &chunk.entries);
        let first = (start % CHUNK).min(entries.len());
        let end = first.saturating_add(slots).min(entries.len());
        let slots = index * CHUNK + first..;
        let values = slots.zip(&entries[first..end]);
        // Behind the last entry of a chunk there is nothing before the next one.
        let next = index * CHUNK + if end < entries.len() { end } else { CHUNK };
        let next = (next < self.chunks.len() * CHUNK).then_some(next);
        let values = values.filter_map(|(slot, entry)| match &entry.state {
            State::Used(value) => Some((key(slot, entry.generation), value)),
            State::Free { .. } => None,
        });
        (values, next.and_then(|next| u32::try_from(next).ok()))
    }

    /// All values with their keys, by slot.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (SessionKey, &mut T)> {
        let chunks = self.chunks.iter_mut().enumerate();
        let entries = chunks.flat_map(|(index, chunk)| {
            let slots = index * CHUNK..;
            slots.zip(&mut chunk.entries)
        });
        entries.filter_map(|(slot, entry)| match &mut entry.state {
            State::Used(value) => Some((key(slot, entry.generation), value)),
            State::Free { .. } => None,
        })
    }

    /// The first chunk that has room; one that isn't there yet if none has.
    fn open_chunk(&self) -> usize {
        let mut index = self.first_open;
        while let Some(chunk) = self.chunks.get(index)
            && chunk.free == NONE
            && chunk.entries.len() == CHUNK
        {
            index += 1;
        }
        index
    }

    /// Stores a value under the key that `vacant_key` gave.
    fn fill(&mut self, key: SessionKey, value: T) {
        let index = key.slot as usize / CHUNK;
        if index == self.chunks.len() {
            self.chunks.push(Chunk::EMPTY);
        }
        self.first_open = index;
        let chunk = &mut self.chunks[index];
        let (generation, state) = (key.generation, State::Used(value));
        if chunk.entries.is_empty() {
            chunk.entries.reserve_exact(CHUNK);
        } else if chunk.used == 0 {
            self.spare -= 1;
        }
        if chunk.free == NONE {
            chunk.entries.push(Entry { generation, state });
        } else {
            let entry = &mut chunk.entries[key.slot as usize % CHUNK];
            let State::Free { next } = std::mem::replace(&mut entry.state, state) else {
                unreachable!("a slot of the free list is free");
            };
            chunk.free = next;
        }
        chunk.used += 1;
        self.len += 1;
    }

    #[inline]
    fn entry(&self, slot: u32) -> Option<&Entry<T>> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.entries.get(slot % CHUNK)
    }

    #[inline]
    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        let slot = slot as usize;
        self.chunks
            .get_mut(slot / CHUNK)?
            .entries
            .get_mut(slot % CHUNK)
    }
}

/// The key of a slot.
fn key(slot: usize, generation: u32) -> SessionKey {
    SessionKey {
        slot: u32::try_from(slot).expect("there are fewer than 2^24 slots"),
        generation,
    }
}

/// The generation after another one.
fn following(generation: u32) -> u32 {
    if generation < GENERATION_MAX {
        generation + 1
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn pages_have_every_value_once() {
        let mut slab = Slab::new(2_000);
        let keys: Vec<_> = (0..1_500).map(|n| slab.insert(n).unwrap()).collect();
        // Whole chunks without a value, and gaps in others.
        for key in keys
            .iter()
            .filter(|key| key.slot / 300 == 2 || key.slot % 7 == 0)
        {
            slab.remove(*key);
        }
        let expected: Vec<_> = slab.iter().map(|(key, value)| (key, *value)).collect();
        for slots in [1, 100, 256, 5_000] {
            let (mut found, mut from) = (Vec::new(), Some(0));
            while let Some(slot) = from {
                let (values, next) = slab.page(slot, slots);
                let values: Vec<_> = values.map(|(key, value)| (key, *value)).collect();
                assert!(values.len() <= slots as usize);
                found.extend(values);
                assert!(next.is_none_or(|next| next > slot));
                from = next;
            }
            assert_eq!(found, expected, "{slots}");
        }
        assert_eq!(slab.page(u32::MAX, 10).1, None);
        let mut few = Slab::new(2_000);
        let _ = few.insert(1).unwrap();
        let (values, next) = few.page(0, 1);
        assert_eq!((values.count(), next), (1, None));
        assert_eq!(Slab::<i32>::new(4).page(0, 10).0.count(), 0);
    }

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
    fn agrees_with_a_map_and_reuses_the_last_slot_of_a_chunk_first() {
        let mut random = 0x1234_5678_9abc_def1_u64;
        let mut slab = Slab::new(1000);
        let mut model = HashMap::new();
        let mut dead = Vec::new();
        let mut last_freed: Vec<u32> = Vec::new();
        for step in 0..200_000u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 100 < 52 {
                match slab.insert(step) {
                    Ok(key) => {
                        let chunk = |slot: u32| slot as usize / CHUNK;
                        let mut same = last_freed.iter();
                        let last = same.rposition(|slot| chunk(*slot) == chunk(key.slot));
                        if let Some(at) = last {
                            assert_eq!(last_freed.remove(at), key.slot);
                        }
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

    #[test]
    fn a_burst_is_given_back_and_its_keys_stay_stale() {
        let mut slab = Slab::new(u32::MAX);
        let keys: Vec<SessionKey> = (0..10 * CHUNK).map(|n| slab.insert(n).unwrap()).collect();
        let has_memory = |slab: &Slab<usize>| {
            let chunks = slab.chunks.iter();
            chunks.filter(|c| c.entries.capacity() > 0).count()
        };
        assert_eq!(has_memory(&slab), 10);
        // One stays, in the middle.
        let stays = keys[5 * CHUNK];
        for key in keys.iter().filter(|key| **key != stays) {
            slab.remove(*key);
        }
        assert_eq!((has_memory(&slab), slab.len()), (2, 1));
        assert_eq!(slab.get(stays), Some(&(5 * CHUNK)));
        // The next burst finds the same slots, and no old key is good there.
        let again: Vec<SessionKey> = (0..9 * CHUNK).map(|n| slab.insert(n).unwrap()).collect();
        assert!(again.iter().all(|key| key.slot < 10 * CHUNK as u32));
        let stale = keys.iter().filter(|key| **key != stays);
        assert!(stale.clone().all(|key| slab.get(*key).is_none()));
        assert_eq!(slab.iter().count(), slab.len());
    }
}
