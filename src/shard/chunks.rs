//! Where private memory lies: chunks of five sizes in pages of their own.
//!
//! A slot of 64 KiB holds chunks of one size. A freed chunk's pages stay for reuse up to a bound
//! per size, beyond it they go back to the system one by one: so what is resident is what is in use
//! and that bound, whatever the order in which chunks come and go.

use crate::sys::{PAGE, Pages};

/// Sizes of chunks: the smallest that takes what is to be kept wastes less than a half of itself,
/// above one page.
pub(super) const SIZES: [usize; 5] = [PAGE, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// Freed chunks of each size whose pages are kept: 256 KiB of each of the first four sizes and
/// 512 KiB of the last, 1.5 MiB a shard.
const KEPT_MAX: [usize; 5] = [64, 32, 16, 8, 8];

const SLOT: usize = 64 << 10;
/// Slots mapped at once: 4 MiB of addresses, which take no memory by themselves.
const REGION_SLOTS: usize = 64;
/// Chunks of the smallest size in a slot.
const UNITS: u32 = 16;

/// The smallest size that takes `length` bytes, as an index of [`SIZES`]; else the largest.
pub(super) fn class_of(length: usize) -> usize {
    let fits = SIZES.iter().position(|size| *size >= length);
    fits.unwrap_or(SIZES.len() - 1)
}

/// A chunk: its slot and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(u32);

/// A slot of one size.
#[derive(Clone, Copy, Debug)]
struct Slot {
    class: u8,
    /// Chunks nobody has, a bit each.
    free: u16,
    /// Those of them whose pages the system has back.
    given_back: u16,
    /// Where it stands among the slots of its size that have a free chunk.
    listed_at: u32,
}

/// All chunks of a shard.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    regions: Vec<Pages>,
    slots: Vec<Slot>,
    /// Slots of no size.
    unused: Vec<u32>,
    /// Slots with a free chunk, by size.
    open: [Vec<u32>; SIZES.len()],
    /// Free chunks that have their pages, by size.
    kept: [usize; SIZES.len()],
}

/// All chunks of a slot.
fn all(class: usize) -> u16 {
    let count = SLOT / SIZES[class];
    u16::MAX >> (16 - count)
}

impl Chunks {
    /// A chunk of a size.
    pub(super) fn take(&mut self, class: usize) -> Place {
        let number = match self.open[class].last() {
            Some(number) => *number,
            None => self.open_slot(class),
        };
        let slot = &mut self.slots[number as usize];
        let kept = slot.free & !slot.given_back;
        let from = if kept == 0 { slot.free } else { kept };
        let unit = from.trailing_zeros();
        if kept != 0 {
            self.kept[class] -= 1;
        }
        slot.free &= !(1 << unit);
        slot.given_back &= !(1 << unit);
        if slot.free == 0 {
            self.open[class].pop();
        }
        Place(number * UNITS + unit)
    }

    /// Gives a chunk back.
    pub(super) fn give(&mut self, place: Place) {
        let (number, unit) = (place.0 / UNITS, place.0 % UNITS);
        let slot = &mut self.slots[number as usize];
        let class = usize::from(slot.class);
        debug_assert!(slot.free & (1 << unit) == 0, "a chunk was given back twice");
        if slot.free == 0 {
            slot.listed_at = count(self.open[class].len());
            self.open[class].push(number);
        }
        slot.free |= 1 << unit;
        if self.kept[class] < KEPT_MAX[class] {
            self.kept[class] += 1;
            return;
        }
        slot.given_back |= 1 << unit;
        let is_unused = slot.given_back == all(class);
        let (region, start) = at(place, class);
        self.regions[region].give_back(start, SIZES[class]);
        if is_unused {
            self.close_slot(number, class);
        }
    }

    /// What is in a chunk.
    pub(super) fn bytes(&self, place: Place, class: usize) -> &[u8] {
        let (region, start) = at(place, class);
        self.regions[region].bytes(start, SIZES[class])
    }

    /// The same to write to.
    pub(super) fn bytes_mut(&mut self, place: Place, class: usize) -> &mut [u8] {
        let (region, start) = at(place, class);
        self.regions[region].bytes_mut(start, SIZES[class])
    }

    /// Bytes that are resident for reuse.
    pub(super) fn kept_bytes(&self) -> u64 {
        let each = self.kept.iter().zip(SIZES);
        each.map(|(count, size)| (count * size) as u64).sum()
    }

    /// Has a slot hold chunks of a size.
    fn open_slot(&mut self, class: usize) -> u32 {
        if self.unused.is_empty() {
            self.regions.push(Pages::new(REGION_SLOTS * SLOT));
            let (first, end) = (self.slots.len(), self.slots.len() + REGION_SLOTS);
            let closed = Slot {
                class: 0,
                free: 0,
                given_back: 0,
                listed_at: 0,
            };
            self.slots.resize(end, closed);
            self.unused.extend((first..end).rev().map(count));
        }
        let number = self.unused.pop().expect("a region was just made sure of");
        self.slots[number as usize] = Slot {
            class: u8::try_from(class).expect("few sizes"),
            free: all(class),
            given_back: all(class),
            listed_at: count(self.open[class].len()),
        };
        self.open[class].push(number);
        number
    }

    /// A slot whose pages are all with the system may hold another size next.
    fn close_slot(&mut self, number: u32, class: usize) {
        let listed_at = self.slots[number as usize].listed_at;
        self.open[class].swap_remove(listed_at as usize);
        if let Some(moved) = self.open[class].get(listed_at as usize) {
            self.slots[*moved as usize].listed_at = listed_at;
        }
        self.unused.push(number);
    }
}

/// Region of a chunk, and where it begins there.
fn at(place: Place, class: usize) -> (usize, usize) {
    let (number, unit) = (place.0 / UNITS, place.0 % UNITS);
    let (region, slot) = (
        number as usize / REGION_SLOTS,
        number as usize % REGION_SLOTS,
    );
    (region, slot * SLOT + unit as usize * SIZES[class])
}

/// There are fewer slots than 2^28: their bytes would be 16 TiB.
fn count(number: usize) -> u32 {
    u32::try_from(number).expect("fewer slots than bytes of a budget")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn chunks_never_overlap_and_keep_what_is_in_them() {
        let mut random = 0x1234_5678_9abc_def1_u64;
        let mut chunks = Chunks::default();
        let mut model: HashMap<u32, (Place, usize, u8)> = HashMap::new();
        for step in 0..60_000u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Waves: they fill and drain.
            let filling = step / 4_000 % 2 == 0;
            if random % 100 < if filling { 60 } else { 40 } {
                let class = (random >> 40) as usize % SIZES.len();
                let place = chunks.take(class);
                let bytes = chunks.bytes_mut(place, class);
                let (first, mark) = (bytes[0], step.to_le_bytes()[0]);
                bytes[0] = mark;
                bytes[SIZES[class] - 1] = mark ^ first ^ first;
                assert!(model.insert(place.0, (place, class, mark)).is_none());
            } else if let Some(key) = model.keys().next().copied() {
                let (place, class, mark) = model.remove(&key).unwrap();
                let bytes = chunks.bytes(place, class);
                assert_eq!((bytes[0], bytes[SIZES[class] - 1]), (mark, mark));
                chunks.give(place);
            }
            let most = KEPT_MAX.iter().zip(SIZES).map(|(n, size)| n * size);
            assert!(chunks.kept_bytes() <= most.sum::<usize>() as u64);
        }
        for (place, _, _) in model.into_values() {
            chunks.give(place);
        }
        for (class, size) in SIZES.iter().enumerate() {
            let open = chunks.open[class].len();
            assert!(open <= KEPT_MAX[class], "{open} slots of {size}");
        }
    }

    #[test]
    fn the_chunk_freed_last_is_used_first() {
        let mut chunks = Chunks::default();
        let places: Vec<Place> = (0..40).map(|_| chunks.take(0)).collect();
        chunks.give(places[3]);
        chunks.give(places[30]);
        assert_eq!(chunks.take(0), places[30]);
        assert_eq!(chunks.kept_bytes(), PAGE as u64);
    }

    #[test]
    fn a_burst_is_given_back() {
        let mut chunks = Chunks::default();
        let resident = |chunks: &Chunks| {
            let given = chunks.slots.iter().map(|slot| slot.given_back.count_ones());
            given.sum::<u32>()
        };
        let places: Vec<Place> = (0..1_000).map(|_| chunks.take(0)).collect();
        let open = resident(&chunks);
        for place in places {
            chunks.give(place);
        }
        assert!(resident(&chunks) >= open + 1_000 - 64);
        assert_eq!(chunks.kept_bytes(), 64 * PAGE as u64);
        assert!(chunks.unused.len() >= REGION_SLOTS - 6);
    }
}
