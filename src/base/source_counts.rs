//! How many of something each client address has, over all shards, without a lock.
//!
//! A word holds the mark of an address and its count. An address has two possible rows of eight
//! words (a cache line each), and a new one goes to the emptier row, so that rows practically never
//! run full while half of the words are free. Rows and mark come from hashes with a secret key:
//! nobody can choose addresses that meet. Two addresses that do meet in a row with equal marks of
//! 44 bits (one new address in 10^12) count together.
//!
//! **A full place**: both rows full of other addresses. The address is then refused
//! ([`Taken::NoRoom`]); counting it nowhere would break the bound. With twice as many words as
//! there can be addresses at once this is not to be expected, however large the table.
//!
//! **Races**: two threads that see a new address at once may each give it a word. What counts is
//! therefore the sum of its words, looked at once more after an addition: the bound is never
//! exceeded, and of two that come for the last place at the same moment both may be refused. What
//! was taken is always found again when it is given back.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Words of a row: a cache line.
const ROW: usize = 8;
/// Bits of a count.
const COUNT_BITS: u32 = 20;
/// The highest count.
pub const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;

/// Eight words that are read together.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Row([AtomicU64; ROW]);

/// Whether one more may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Taken {
    /// It is counted.
    Taken,
    /// The address has as many as it may have.
    Limit,
    /// There is no word for the address.
    NoRoom,
}

/// Counts by address, 16 to 32 bytes for each that there may be.
#[derive(Debug)]
pub struct SourceCounts {
    rows: Box<[Row]>,
    secret: RandomState,
}

/// Where an address is counted.
struct Place<'a> {
    rows: [&'a Row; 2],
    /// Its mark in the upper bits, never 0; no count.
    mark: u64,
}

/// The words of an address, as they were a moment ago.
struct Seen<'a> {
    /// The sum of its counts.
    count: u32,
    /// A word that is its own, and what was in it.
    own: Option<(&'a AtomicU64, u64)>,
    /// A word that is nobody's, in the row that has more of them.
    empty: Option<&'a AtomicU64>,
}

impl SourceCounts {
    /// For at most so many addresses at once.
    pub fn new(addresses_max: u32) -> SourceCounts {
        let words = (addresses_max as usize).saturating_mul(2);
        let rows = words.div_ceil(ROW).next_power_of_two().max(2);
        SourceCounts {
            rows: (0..rows).map(|_| Row::default()).collect(),
            secret: RandomState::new(),
        }
    }

    /// Counts one more of `address`, unless it has `max` (at most [`COUNT_MAX`]) already.
    pub fn take(&self, address: IpAddr, max: u32) -> Taken {
        let max = max.min(COUNT_MAX);
        let place = self.place(address);
        // Whoever has to look again has been overtaken by a thread that got on.
        loop {
            let seen = place.look();
            if seen.count >= max {
                return Taken::Limit;
            }
            let (word, before, after) = match (seen.own, seen.empty) {
                (Some((word, before)), _) => (word, before, before + 1),
                (None, Some(word)) => (word, 0, place.mark | 1),
                (None, None) => return Taken::NoRoom,
            };
            if exchange(word, before, after) {
                break;
            }
        }
        // Another thread may have given the address a second word, and counted there.
        if place.look().count > max {
            place.give();
            return Taken::Limit;
        }
        Taken::Taken
    }

    /// Counts one less of an address that one was taken of.
    pub fn give(&self, address: IpAddr) {
        self.place(address).give();
    }

    /// How many an address has.
    pub fn count(&self, address: IpAddr) -> u32 {
        self.place(address).look().count
    }

    /// Addresses that have any: a sum over the whole table.
    pub fn addresses(&self) -> usize {
        let words = self.rows.iter().flat_map(|row| &row.0);
        words.filter(|word| word.load(SeqCst) != 0).count()
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self) + size_of_val(&*self.rows)
    }

    fn place(&self, address: IpAddr) -> Place<'_> {
        let address = address.to_canonical();
        let hash = self.secret.hash_one(address);
        let mark = self.secret.hash_one((address, "mark")) >> COUNT_BITS << COUNT_BITS;
        let mask = self.rows.len() - 1;
        let first = hash as usize & mask;
        let second = (hash >> 32) as usize & mask;
        let second = if second == first { first ^ 1 } else { second };
        Place {
            rows: [&self.rows[first], &self.rows[second]],
            mark: mark.max(1 << COUNT_BITS),
        }
    }
}

impl<'a> Place<'a> {
    fn look(&self) -> Seen<'a> {
        let mut seen = Seen {
            count: 0,
            own: None,
            empty: None,
        };
        let mut empty_most = 0;
        for row in self.rows {
            let (mut empty, mut empty_here) = (0, None);
            for word in &row.0 {
                let value = word.load(SeqCst);
                if value == 0 {
                    empty += 1;
                    empty_here = empty_here.or(Some(word));
                } else if mark(value) == self.mark {
                    seen.count += count(value);
                    seen.own = seen.own.or(Some((word, value)));
                }
            }
            if empty > empty_most {
                empty_most = empty;
                seen.empty = empty_here;
            }
        }
        seen
    }

    /// One less. Nobody else takes away what this caller has counted, so it is there; but it may
    /// turn up in a word that was read before it came there.
    fn give(&self) {
        let mut looks = 0;
        loop {
            if let Some((word, before)) = self.look().own {
                let last = count(before) == 1;
                if exchange(word, before, if last { 0 } else { before - 1 }) {
                    return;
                }
            } else {
                looks += 1;
                debug_assert!(looks < LOOKS_MAX, "more is given back than was taken");
                if looks == LOOKS_MAX {
                    return;
                }
            }
        }
    }
}

/// Looks in vain after which what is given back is taken to be not there.
const LOOKS_MAX: u32 = 1000;

fn exchange(word: &AtomicU64, before: u64, after: u64) -> bool {
    word.compare_exchange(before, after, SeqCst, SeqCst).is_ok()
}

fn mark(value: u64) -> u64 {
    value & !u64::from(COUNT_MAX)
}

fn count(value: u64) -> u32 {
    (value & u64::from(COUNT_MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::sync::atomic::AtomicU32;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn an_address_has_its_maximum_and_no_more() {
        let counts = SourceCounts::new(100);
        for _ in 0..3 {
            assert_eq!(counts.take(address(1), 3), Taken::Taken);
        }
        assert_eq!(counts.take(address(1), 3), Taken::Limit);
        assert_eq!(counts.take(address(2), 3), Taken::Taken);
        let mapped: Ipv6Addr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!((counts.count(mapped.into()), counts.addresses()), (3, 2));
        counts.give(address(1));
        assert_eq!(counts.take(mapped.into(), 3), Taken::Taken);
        for _ in 0..3 {
            counts.give(address(1));
        }
        counts.give(address(2));
        assert_eq!((counts.count(address(1)), counts.addresses()), (0, 0));
        assert_eq!(counts.take(address(1), 0), Taken::Limit);
    }

    #[test]
    fn a_count_never_runs_into_the_mark() {
        let counts = SourceCounts::new(1);
        for _ in 0..COUNT_MAX {
            assert_eq!(counts.take(address(1), u32::MAX), Taken::Taken);
        }
        assert_eq!(counts.take(address(1), u32::MAX), Taken::Limit);
        assert_eq!(
            (counts.count(address(1)), counts.addresses()),
            (COUNT_MAX, 1)
        );
    }

    #[test]
    fn it_takes_as_many_addresses_as_it_says() {
        for addresses in [1, 10, 1000, 100_000] {
            let counts = SourceCounts::new(addresses);
            for number in 0..addresses {
                assert_eq!(
                    counts.take(address(number), 1),
                    Taken::Taken,
                    "of {addresses}"
                );
            }
            assert_eq!(counts.addresses(), addresses as usize);
            assert!((0..addresses).all(|number| counts.count(address(number)) == 1));
            let bytes = 128.max(32 * addresses as usize);
            assert!(counts.bytes() <= bytes + size_of::<SourceCounts>());
        }
    }

    /// What two threads may leave that see a new address at once.
    #[test]
    fn an_address_with_two_words_has_the_sum_of_them() {
        let counts = SourceCounts::new(1);
        let place = counts.place(address(1));
        place.rows[0].0[3].store(place.mark | 1, SeqCst);
        place.rows[1].0[5].store(place.mark | 1, SeqCst);
        assert_eq!(counts.count(address(1)), 2);
        assert_eq!(counts.take(address(1), 2), Taken::Limit);
        assert_eq!(counts.take(address(1), 3), Taken::Taken);
        for left in [2, 1, 0] {
            counts.give(address(1));
            assert_eq!(counts.count(address(1)), left);
        }
        assert_eq!(counts.addresses(), 0);
    }

    #[test]
    fn without_room_an_address_is_refused_and_the_others_stay() {
        let counts = SourceCounts::new(1);
        for number in 0..2 * ROW as u32 {
            assert_eq!(counts.take(address(number), 5), Taken::Taken);
        }
        assert_eq!(counts.take(address(99), 5), Taken::NoRoom);
        assert_eq!(counts.take(address(3), 5), Taken::Taken);
        for number in 0..2 * ROW as u32 {
            counts.give(address(number));
        }
        assert_eq!(counts.take(address(99), 5), Taken::Taken);
    }

    /// Threads take and give few addresses, which come and go all the time. What they hold is
    /// counted aside: that is what must never exceed the bound.
    #[test]
    fn no_bound_is_exceeded_by_eight_threads() {
        const ADDRESSES: u32 = 6;
        for max in [1, 2, 5] {
            // Two rows, so every address may stand in any word.
            let counts = &SourceCounts::new(8);
            let held: &[AtomicU32; ADDRESSES as usize] = &Default::default();
            let refused = &AtomicU32::new(0);
            std::thread::scope(|scope| {
                for thread in 0..8u32 {
                    scope.spawn(move || {
                        let mut mine: Vec<u32> = Vec::new();
                        for step in 0..30_000u32 {
                            let number = (step.wrapping_mul(7 + thread) >> 2) % ADDRESSES;
                            // Now few, now more than there can be: alone it meets the bound too.
                            let many = (step / 50 + 3 * thread) % (ADDRESSES * max + 4);
                            if mine.len() > many as usize {
                                let Some(number) = mine.pop() else { continue };
                                held[number as usize].fetch_sub(1, SeqCst);
                                counts.give(address(number));
                            } else if counts.take(address(number), max) == Taken::Taken {
                                let before = held[number as usize].fetch_add(1, SeqCst);
                                assert!(before < max, "{before} of {max} before one more");
                                mine.push(number);
                            } else {
                                refused.fetch_add(1, SeqCst);
                            }
                        }
                        for number in mine {
                            held[number as usize].fetch_sub(1, SeqCst);
                            counts.give(address(number));
                        }
                    });
                }
            });
            assert!(refused.load(SeqCst) > 100, "the bound was never reached");
            assert_eq!(counts.addresses(), 0);
        }
    }
}
