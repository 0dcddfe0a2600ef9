//! Private memory of a shard: where bytes wait that a sink doesn't take yet.
//!
//! Chunks in lists, one list per direction. What may be held at all is decided before data is asked
//! for, through [`Budget`], in bytes of chunks: `flow::taken_at_most` bounds them.

use super::chunks::{Chunks, Place, SIZES, class_of};
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// No chunk.
pub(super) const NONE: u32 = u32::MAX;

/// A list of chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkList {
    head: u32,
    tail: u32,
    /// Bytes of its chunks, used or not.
    pub(super) taken: u32,
}

impl ChunkList {
    /// The empty list.
    pub(super) const EMPTY: ChunkList = ChunkList {
        head: NONE,
        tail: NONE,
        taken: 0,
    };
}

#[derive(Debug)]
struct Chunk {
    place: Place,
    /// Its size, an index of [`SIZES`].
    class: u8,
    start: u32,
    end: u32,
    next: u32,
}

/// All chunks of a shard.
#[derive(Debug, Default)]
pub(super) struct PrivateMemory {
    space: Chunks,
    chunks: Vec<Chunk>,
    /// Slots of `chunks` without memory.
    vacant: Vec<u32>,
    /// Bytes of data held.
    held: u64,
    /// Bytes of the chunks that hold it.
    taken: u64,
}

impl PrivateMemory {
    /// Appends `bytes` to a list.
    pub(super) fn append(&mut self, list: &mut ChunkList, mut bytes: &[u8]) {
        self.held += bytes.len() as u64;
        while !bytes.is_empty() {
            if list.tail == NONE || self.chunks[list.tail as usize].room() == 0 {
                let fresh = self.take(bytes.len());
                if list.tail == NONE {
                    list.head = fresh;
                } else {
                    self.chunks[list.tail as usize].next = fresh;
                }
                list.tail = fresh;
                list.taken += self.chunks[fresh as usize].size();
            }
            let chunk = &mut self.chunks[list.tail as usize];
            let length = bytes.len().min(chunk.room() as usize);
            let to = self.space.bytes_mut(chunk.place, usize::from(chunk.class));
            to[chunk.end as usize..][..length].copy_from_slice(&bytes[..length]);
            chunk.end += u32::try_from(length).expect("a chunk is small");
            bytes = &bytes[length..];
        }
    }

    /// Puts the list's stretches into `parts`, oldest first, as many as fit; returns how many.
    pub(super) fn slices<'a>(&'a self, list: ChunkList, parts: &mut [IoSlice<'a>]) -> usize {
        let mut at = list.head;
        let mut count = 0;
        while at != NONE && count < parts.len() {
            let chunk = &self.chunks[at as usize];
            let bytes = self.space.bytes(chunk.place, usize::from(chunk.class));
            parts[count] = IoSlice::new(&bytes[chunk.start as usize..chunk.end as usize]);
            count += 1;
            at = chunk.next;
        }
        count
    }

    /// Takes `count` bytes off the front; returns how many the list did not have.
    pub(super) fn consume(&mut self, list: &mut ChunkList, mut count: usize) -> usize {
        while count > 0 && list.head != NONE {
            let index = list.head;
            let chunk = &mut self.chunks[index as usize];
            let held = chunk.end - chunk.start;
            let length = u32::try_from(count).map_or(held, |count| count.min(held));
            chunk.start += length;
            count -= length as usize;
            self.held -= u64::from(length);
            if chunk.start == chunk.end {
                list.head = chunk.next;
                list.taken -= chunk.size();
                if list.head == NONE {
                    list.tail = NONE;
                }
                self.give(index);
            }
        }
        count
    }

    /// Bytes of data held.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Bytes of the chunks that hold data.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes of memory kept for reuse.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.space.kept_bytes()
    }

    /// A chunk that takes up to `length` bytes at once.
    fn take(&mut self, length: usize) -> u32 {
        let class = class_of(length);
        let chunk = Chunk {
            place: self.space.take(class),
            class: u8::try_from(class).expect("few sizes"),
            start: 0,
            end: 0,
            next: NONE,
        };
        self.taken += u64::from(chunk.size());
        match self.vacant.pop() {
            Some(index) => {
                self.chunks[index as usize] = chunk;
                index
            }
            None => {
                self.chunks.push(chunk);
                u32::try_from(self.chunks.len() - 1).expect("fewer chunks than bytes of a budget")
            }
        }
    }

    fn give(&mut self, index: u32) {
        let chunk = &self.chunks[index as usize];
        self.taken -= u64::from(chunk.size());
        self.space.give(chunk.place);
        self.vacant.push(index);
    }
}

impl Chunk {
    fn size(&self) -> u32 {
        // The largest is 64 KiB.
        SIZES[usize::from(self.class)] as u32
    }

    fn room(&self) -> u32 {
        self.size() - self.end
    }
}

/// A shard's share of the process-wide budget, taken and given back in grains so that the shared
/// counter is touched rarely.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Taken from the process and not handed on.
    spare: u64,
}

/// Bytes taken from the process at once.
const GRAIN: u64 = 256 << 10;

impl Budget {
    /// Reserves `bytes`, or says that the process has no more to give.
    pub(super) fn reserve(&mut self, bytes: u64, reserved: &AtomicU64, max: u64) -> bool {
        if self.spare < bytes {
            let grain = bytes.max(GRAIN);
            let taken = reserved.fetch_update(Relaxed, Relaxed, |n| {
                (n + grain <= max).then_some(n + grain)
            });
            if taken.is_err() {
                return false;
            }
            self.spare += grain;
        }
        self.spare -= bytes;
        true
    }

    /// Gives `bytes` back.
    pub(super) fn release(&mut self, bytes: u64, reserved: &AtomicU64) {
        self.spare += bytes;
        if self.spare > 4 * GRAIN {
            let back = self.spare - GRAIN;
            reserved.fetch_sub(back, Relaxed);
            self.spare -= back;
        }
    }

    /// Gives everything spare back (at rest).
    pub(super) fn settle(&mut self, reserved: &AtomicU64) {
        reserved.fetch_sub(self.spare, Relaxed);
        self.spare = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(memory: &PrivateMemory, list: ChunkList) -> Vec<u8> {
        let mut parts = [IoSlice::new(&[]); 1_000];
        let count = memory.slices(list, &mut parts);
        parts[..count]
            .iter()
            .flat_map(|part| part.to_vec())
            .collect()
    }

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut memory = PrivateMemory::default();
        let mut list = ChunkList::EMPTY;
        let mut expected = Vec::new();
        for round in 0..200u32 {
            let bytes: Vec<u8> = (0..round * 37 % 9_000)
                .map(|i| (i + round).to_le_bytes()[0])
                .collect();
            memory.append(&mut list, &bytes);
            expected.extend_from_slice(&bytes);
            let take = expected.len() / 3;
            assert_eq!(memory.consume(&mut list, take), 0);
            expected.drain(..take);
            assert_eq!(memory.held(), expected.len() as u64);
        }
        assert_eq!(content(&memory, list), expected);
        assert_eq!(memory.consume(&mut list, expected.len() + 5), 5);
        assert_eq!((memory.held(), list.head, list.tail), (0, NONE, NONE));
    }

    #[test]
    fn chunks_take_no_more_than_flow_says() {
        let mut random = 0x1234_5678_9abc_def1_u64;
        let mut next = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let bytes = vec![7; 256 << 10];
        for _ in 0..2_000 {
            let (mut memory, mut list) = (PrivateMemory::default(), ChunkList::EMPTY);
            // Something is there, of which a part is gone.
            memory.append(&mut list, &bytes[..next(100 << 10) as usize]);
            let held = memory.held();
            memory.consume(&mut list, next(held + 1) as usize);
            let before = list.taken;
            let limit = 1 + next(256 << 10) as usize;
            let mut left = limit;
            while left > 0 {
                let piece = 1 + next(left as u64) as usize;
                memory.append(&mut list, &bytes[..piece]);
                left -= piece;
            }
            let most = before + crate::flow::taken_at_most(limit as u32);
            assert!(list.taken <= most, "{} for {limit} on {before}", list.taken);
            assert_eq!(u64::from(list.taken), memory.taken());
            memory.consume(&mut list, usize::MAX);
            assert_eq!((list.taken, memory.taken(), memory.held()), (0, 0, 0));
        }
    }

    #[test]
    fn the_budget_is_never_exceeded() {
        let reserved = AtomicU64::new(0);
        let mut budgets = [Budget::default(), Budget::default()];
        let max = 3 * GRAIN;
        assert!(budgets[0].reserve(GRAIN, &reserved, max));
        assert!(budgets[1].reserve(2 * GRAIN, &reserved, max));
        assert!(!budgets[0].reserve(1, &reserved, max));
        budgets[1].release(2 * GRAIN, &reserved);
        budgets[1].settle(&reserved);
        assert!(budgets[0].reserve(1, &reserved, max));
        budgets[0].release(GRAIN + 1, &reserved);
        budgets[0].settle(&reserved);
        assert_eq!(reserved.load(Relaxed), 0);
    }
}
