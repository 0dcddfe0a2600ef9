//! Private memory of a shard: where bytes wait that a sink doesn't take yet.
//!
//! Chunks of three sizes in lists, one list per direction. Freed chunks are kept for reuse up to a
//! bound, the rest goes back to the allocator, so that a burst's memory is given back. What may be
//! held at all is decided before data is asked for, through [`Budget`].

use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// No chunk.
pub(super) const NONE: u32 = u32::MAX;

/// Chunk sizes, bytes: the smallest that takes what is to be copied wastes at most three quarters.
const SIZES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];
/// Freed chunks kept per size: 64 x (4 + 16 + 64) KiB = 5.25 MiB a shard at most.
const CACHED_MAX: usize = 64;

/// A list of chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkList {
    head: u32,
    tail: u32,
}

impl ChunkList {
    /// The empty list.
    pub(super) const EMPTY: ChunkList = ChunkList {
        head: NONE,
        tail: NONE,
    };
}

#[derive(Debug)]
struct Chunk {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    next: u32,
}

/// All chunks of a shard.
#[derive(Debug, Default)]
pub(super) struct PrivateMemory {
    chunks: Vec<Chunk>,
    /// Slots of `chunks` without memory.
    vacant: Vec<u32>,
    cached: [Vec<Box<[u8]>>; 3],
    /// Bytes of data held.
    held: u64,
    cached_bytes: u64,
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
            }
            let chunk = &mut self.chunks[list.tail as usize];
            let length = bytes.len().min(chunk.room());
            chunk.memory[chunk.end..chunk.end + length].copy_from_slice(&bytes[..length]);
            chunk.end += length;
            bytes = &bytes[length..];
        }
    }

    /// Puts the list's stretches into `parts`, oldest first, as many as fit; returns how many.
    pub(super) fn slices<'a>(&'a self, list: ChunkList, parts: &mut [IoSlice<'a>]) -> usize {
        let mut at = list.head;
        let mut count = 0;
        while at != NONE && count < parts.len() {
            let chunk = &self.chunks[at as usize];
            parts[count] = IoSlice::new(&chunk.memory[chunk.start..chunk.end]);
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
            let length = count.min(chunk.end - chunk.start);
            chunk.start += length;
            count -= length;
            self.held -= length as u64;
            if chunk.start == chunk.end {
                list.head = chunk.next;
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

    /// Bytes of memory kept for reuse.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// A chunk that takes up to `length` bytes at once.
    fn take(&mut self, length: usize) -> u32 {
        let class = SIZES
            .iter()
            .position(|size| *size >= length)
            .unwrap_or(SIZES.len() - 1);
        let memory = match self.cached[class].pop() {
            Some(memory) => {
                self.cached_bytes -= memory.len() as u64;
                memory
            }
            None => vec![0; SIZES[class]].into_boxed_slice(),
        };
        let chunk = Chunk {
            memory,
            start: 0,
            end: 0,
            next: NONE,
        };
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
        let memory = std::mem::take(&mut self.chunks[index as usize].memory);
        let class = SIZES
            .iter()
            .position(|size| *size == memory.len())
            .expect("one of the sizes");
        if self.cached[class].len() < CACHED_MAX {
            self.cached_bytes += memory.len() as u64;
            self.cached[class].push(memory);
        }
        self.vacant.push(index);
    }
}

impl Chunk {
    fn room(&self) -> usize {
        self.memory.len() - self.end
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
    fn freed_chunks_are_reused_and_bounded() {
        let mut memory = PrivateMemory::default();
        let mut lists = [ChunkList::EMPTY; 100];
        for list in &mut lists {
            memory.append(list, &[1; 100]);
        }
        for list in &mut lists {
            memory.consume(list, 100);
        }
        assert_eq!(memory.cached_bytes(), (CACHED_MAX * SIZES[0]) as u64);
        memory.append(&mut lists[0], &[2; 10]);
        assert_eq!(memory.cached_bytes(), ((CACHED_MAX - 1) * SIZES[0]) as u64);
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
