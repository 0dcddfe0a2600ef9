//! Random: the least loaded of some servers that are drawn by weight.
//!
//! The best of two draws keeps the longest backlog within O(log log N) of the mean (Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing", 2001), at two cache misses however many
//! servers there are. When no draw has room every server is looked at.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::leastconn;
use super::table::Table;
use crate::base::hash;
use crate::base::ids::ServerId;
use crate::config::plan::Balance;

/// Times servers are drawn anew because another shard was quicker: each time means that somebody
/// else got a connection.
const LOOKS_MAX: usize = 16;

/// Takes a connection of the best of so many draws; `None` when all are full (but for `avoid`).
pub(super) fn choose(
    table: &Table,
    cursor: &AtomicU64,
    seed: u64,
    draws: u32,
    avoid: Option<ServerId>,
) -> Option<usize> {
    draw(table, cursor, seed, draws, avoid).or_else(|| leastconn::scan(table, cursor, avoid))
}

/// The best of so many draws; `None` if none of them has room.
pub(super) fn draw(
    table: &Table,
    cursor: &AtomicU64,
    seed: u64,
    draws: u32,
    avoid: Option<ServerId>,
) -> Option<usize> {
    for _ in 0..LOOKS_MAX {
        // The cursor makes the numbers of every pick others.
        let numbers = hash::sequence(seed, cursor.fetch_add(1, Relaxed));
        let mut best: Option<(usize, (u32, u32))> = None;
        for number in 0..draws.min(Balance::DRAWS_MAX) {
            let index = table
                .sequence
                .at(hash::sequence(numbers, u64::from(number)));
            let entry = &table.entries[index];
            let Some(active) = leastconn::room(entry, avoid) else {
                continue;
            };
            let load = (active, entry.share);
            if best.is_none_or(|(_, best)| leastconn::lower(load, best)) {
                best = Some((index, load));
            }
        }
        let (index, (seen, _)) = best?;
        if table.entries[index].server.take_seeing(seen) {
            return Some(index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::testing::{backend, picked, server};
    use super::super::{Outcome, Pick, PickRequest};
    use super::*;

    const ANY: PickRequest = PickRequest::ANY;

    /// Connections that stay, of a hundred servers with 100 each by their weights: how far the
    /// fullest is above, in percent.
    fn excess(draws: u32) -> u32 {
        let mut servers = vec![server(1, 0); 50];
        servers.extend(vec![server(3, 0); 50]);
        let backend = backend(Balance::Random { draws }, &servers);
        for _ in 0..20_000 {
            assert!(picked(&backend.pick(ANY)).is_some());
        }
        let load =
            |server: &std::sync::Arc<super::super::Server>| server.active() / server.weight();
        backend.servers.iter().map(load).max().unwrap() - 100
    }

    #[test]
    fn two_draws_are_far_better_than_one() {
        let (one, two, three) = (excess(1), excess(2), excess(3));
        assert!(one > 15 && two <= 5 && three <= two, "{one} {two} {three}");
    }

    #[test]
    fn the_last_room_is_found() {
        for draws in [1, 2, u32::MAX] {
            let backend = backend(Balance::Random { draws }, &vec![server(1, 1); 50]);
            for _ in 0..50 {
                assert!(picked(&backend.pick(ANY)).is_some());
            }
            assert!(matches!(backend.pick(ANY), Pick::Wait { only: None }));
            let freed = &backend.servers[31];
            assert!(backend.release(freed, Outcome::Completed).is_none());
            assert_eq!(picked(&backend.pick(ANY)), Some(31));
        }
    }
}
