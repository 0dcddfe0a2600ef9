//! The Maglev table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016): a prime number of slots that the servers fill in turns.
//!
//! Each server has an order of its own over all slots, made of what it is known by (`hash-key`); in
//! its turn it takes the first slot of its order that is free. So shares differ by hardly more than
//! a slot, far less than on a ring; when a server goes its slots go to all others, and a few slots
//! of the others change hands as well (`shares` has the figures).
//!
//! The j-th turn of a server of weight w is at time j / w, whoever else there is: a change of one
//! weight moves the turns of one server only. Neither names nor the order of the config matter.
//!
//! It is built on the control thread when a table is published, in at most 10 ms for up to 655
//! servers and 140 ms above (a debug build on one core: 3 ms for 3 servers, 7 for 655, 90 for
//! 1,000, 140 for 6,553). A slow start therefore moves it by tenths (`slow_start`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::hash;

/// Slots of a backend of up to `SERVERS_FEW` servers: 256 KiB.
const SLOTS_FEW: u64 = 65_537;
/// Slots of one of more: 2.5 MiB.
const SLOTS_MANY: u64 = 655_373;
/// A hundred slots for a server, so that a share is off by one percent at most. Above 6,553 servers
/// it may be more.
const SERVERS_FEW: usize = (SLOTS_FEW / 100) as usize;

/// How many slots a backend's tables have. It depends on the config alone, not on who is up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots(u64);

impl Slots {
    /// For a backend of so many servers.
    pub(super) fn new(servers: usize) -> Slots {
        Slots(if servers > SERVERS_FEW {
            SLOTS_MANY
        } else {
            SLOTS_FEW
        })
    }
}

/// Who has each slot.
#[derive(Debug)]
pub(super) struct Maglev {
    owners: Box<[u32]>,
}

/// No owner yet.
const FREE: u32 = u32::MAX;

impl Maglev {
    /// The table of some servers, each with its identity and its weight.
    pub(super) fn new(slots: Slots, servers: &[(u64, u32)]) -> Maglev {
        let Slots(slots) = slots;
        let mut orders: Vec<Order> = Vec::with_capacity(servers.len());
        let mut turns = BinaryHeap::with_capacity(servers.len());
        for (index, (identity, weight)) in servers.iter().enumerate() {
            orders.push(Order::new(*identity, slots));
            turns.push(Reverse((time(1, *weight), *identity, index, 1)));
        }
        let mut owners = vec![FREE; slots as usize].into_boxed_slice();
        for _ in 0..slots {
            let Some(Reverse((_, identity, index, turn))) = turns.pop() else {
                break;
            };
            // There is a free slot, and an order visits all of them.
            let free = orders[index].find(|slot| owners[*slot] == FREE);
            owners[free.expect("a free slot")] = index as u32;
            let next = time(turn + 1, servers[index].1);
            turns.push(Reverse((next, identity, index, turn + 1)));
        }
        Maglev { owners }
    }

    /// The slot of a hash.
    pub(super) fn first_at(&self, hash: u64) -> u64 {
        hash % self.owners.len() as u64
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> u64 {
        self.owners.len() as u64
    }

    /// Index of the server that has a slot, counted round the table.
    pub(super) fn owner(&self, slot: u64) -> usize {
        self.owners[(slot % self.owners.len() as u64) as usize] as usize
    }
}

/// When a server of some weight has its n-th turn. There are fewer than 2^20 turns, and a share is
/// below 2^15: no two times that differ become equal.
fn time(turn: u64, weight: u32) -> u64 {
    (turn << 32) / u64::from(weight.max(1))
}

/// A server's order over the slots.
#[derive(Debug)]
struct Order {
    next: u64,
    skip: u64,
    slots: u64,
    left: u64,
}

impl Order {
    fn new(identity: u64, slots: u64) -> Order {
        Order {
            next: hash::sequence(identity, 0) % slots,
            // Slots are a prime number: any step but 0 comes by all of them.
            skip: 1 + hash::sequence(identity, 1) % (slots - 1),
            slots,
            left: slots,
        }
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let slot = self.next;
        self.next = (self.next + self.skip) % self.slots;
        Some(slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(weights: &[u32]) -> Vec<(u64, u32)> {
        let identity = |index| hash::sequence(9, index);
        let weights = (0u64..).zip(weights);
        weights.map(|(i, weight)| (identity(i), *weight)).collect()
    }

    fn counts(maglev: &Maglev, servers: usize) -> Vec<u64> {
        let mut counts = vec![0; servers];
        for owner in &maglev.owners {
            counts[*owner as usize] += 1;
        }
        counts
    }

    #[test]
    fn slots_are_prime_numbers() {
        for Slots(slots) in [Slots::new(3), Slots::new(2_000)] {
            let root = slots.isqrt();
            assert!((2..=root).all(|divisor| !slots.is_multiple_of(divisor)));
        }
    }

    #[test]
    fn shares_are_weights_but_for_a_slot_or_two() {
        for weights in [&[1; 3][..], &[1; 100], &[1, 2, 3, 4, 10], &[256, 1, 17]] {
            let maglev = Maglev::new(Slots::new(weights.len()), &servers(weights));
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts(&maglev, weights.len()).iter().zip(weights) {
                let share = SLOTS_FEW as f64 * f64::from(*weight) / f64::from(total);
                assert!((*count as f64 - share).abs() < 2.0, "{weight}: {count}");
            }
        }
    }

    #[test]
    fn many_servers_have_a_larger_table() {
        let maglev = Maglev::new(Slots::new(1_000), &servers(&[1; 1_000]));
        let counts = counts(&maglev, 1_000);
        assert!(counts.iter().all(|count| (655..=656).contains(count)));
    }
}
