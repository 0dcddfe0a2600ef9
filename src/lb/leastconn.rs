//! Least connections: the server with the fewest connections for its weight.
//!
//! Up to [`EXACT_MAX`] servers the choice is exact: every counter is looked at, loads are compared
//! as active / weight by cross multiplication, and servers of equal load take turns in the smooth
//! weighted sequence, so that short connections over idle servers spread by weight instead of all
//! going to the first. The winner's counter is taken with one compare-and-exchange from the very
//! value that was compared; if it has moved, everything is looked at once more. Shards that pick at
//! the same moment therefore don't pile onto one server.
//!
//! Above, looking at every counter (a cache line each) costs more than exactness is worth: two
//! servers are drawn by weight and the one with the lower load is taken, which keeps the longest
//! backlog within O(log log N) of the mean. When neither draw has room every server is looked at.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::random;
use super::table::{Entry, Table};
use crate::base::ids::ServerId;

/// Most servers for the exact choice: a set of them fits one word, and their counters take about 64
/// cache misses, 5 microseconds at worst.
pub(super) const EXACT_MAX: usize = 64;

const _: () = assert!(
    EXACT_MAX <= u64::BITS as usize,
    "a word holds a set of servers"
);

/// Times the servers are looked at anew because another shard was quicker, before any with room is
/// taken: each time means that somebody else got a connection. As long as there are looks left no
/// server gets more than one above the least loaded of equal weight.
pub(super) const LOOKS_MAX: usize = 64;

/// Draws above the exact bound.
const DRAWS: u32 = 2;

/// Turns looked ahead for one of the servers of equal load, before their order in the table
/// decides: twice the number of servers finds one at once unless the weights differ a lot.
const TURNS_AHEAD_MAX: u64 = 2 * EXACT_MAX as u64;

/// Takes a connection of the least loaded server; `None` when all are full (but for `avoid`).
pub(super) fn choose(
    table: &Table,
    cursor: &AtomicU64,
    seed: u64,
    avoid: Option<ServerId>,
) -> Option<usize> {
    if table.entries.len() > EXACT_MAX {
        return random::choose(table, cursor, seed, DRAWS, avoid);
    }
    for _ in 0..LOOKS_MAX {
        let least = Least::of(table, avoid)?;
        // A turn claimed by another shard and a counter that moved are the same to us: look again.
        if let Some(index) = rotate(least.tied, table, cursor)
            && table.entries[index].server.take_seeing(least.seen[index])
        {
            return Some(index);
        }
    }
    take_any(table, 0, avoid)
}

/// The servers with the lowest load, at one look.
struct Least {
    /// Connections each server had.
    seen: [u32; EXACT_MAX],
    /// Set of the servers with the lowest load; never empty.
    tied: u64,
}

impl Least {
    fn of(table: &Table, avoid: Option<ServerId>) -> Option<Least> {
        let mut least = Least {
            seen: [0; EXACT_MAX],
            tied: 0,
        };
        let mut best: Option<(u32, u32)> = None;
        for (index, entry) in table.entries.iter().enumerate() {
            let Some(active) = room(entry, avoid) else {
                continue;
            };
            least.seen[index] = active;
            let load = (active, entry.share);
            if best.is_none_or(|best| lower(load, best)) {
                best = Some(load);
                least.tied = 1 << index;
            } else if best.is_some_and(|best| !lower(best, load)) {
                least.tied |= 1 << index;
            }
        }
        best.map(|_| least)
    }
}

/// The one of some tied servers, a set that isn't empty, whose turn comes next. Among several the
/// turn is claimed by moving the cursor past it; `None` if another shard moved it first.
pub(super) fn rotate(tied: u64, table: &Table, cursor: &AtomicU64) -> Option<usize> {
    if tied.is_power_of_two() {
        return Some(tied.trailing_zeros() as usize);
    }
    let now = cursor.load(Relaxed);
    let mut turns = (0..TURNS_AHEAD_MAX).map(|ahead| (ahead, table.turn(now + ahead)));
    let is_tied = |(_, index): &(u64, usize)| tied >> index & 1 == 1;
    let (ahead, index) = turns.find(is_tied).unwrap_or_else(|| {
        let from = table.turn(now) as u32;
        let index = (tied.rotate_right(from).trailing_zeros() + from) % u64::BITS;
        (0, index as usize)
    });
    let claimed = cursor.compare_exchange(now, now + ahead + 1, Relaxed, Relaxed);
    claimed.ok().map(|_| index)
}

/// The least loaded of any number of servers; the turn decides where the look begins, and so who
/// wins among equals.
pub(super) fn scan(table: &Table, cursor: &AtomicU64, avoid: Option<ServerId>) -> Option<usize> {
    let from = table.turn(cursor.fetch_add(1, Relaxed));
    let count = table.entries.len();
    for _ in 0..LOOKS_MAX {
        let mut best: Option<(usize, (u32, u32))> = None;
        for index in (from..from + count).map(|index| index % count) {
            let entry = &table.entries[index];
            let Some(active) = room(entry, avoid) else {
                continue;
            };
            if best.is_none_or(|(_, best)| lower((active, entry.share), best)) {
                best = Some((index, (active, entry.share)));
            }
        }
        let (index, (seen, _)) = best?;
        if table.entries[index].server.take_seeing(seen) {
            return Some(index);
        }
    }
    take_any(table, from, avoid)
}

/// The first server with room.
pub(super) fn take_any(table: &Table, from: usize, avoid: Option<ServerId>) -> Option<usize> {
    let count = table.entries.len();
    (from..from + count)
        .map(|index| index % count)
        .find(|index| {
            let server = &table.entries[*index].server;
            Some(server.id) != avoid && server.take()
        })
}

/// Connections of a server that may be taken.
pub(super) fn room(entry: &Entry, avoid: Option<ServerId>) -> Option<u32> {
    entry
        .server
        .room()
        .filter(|_| Some(entry.server.id) != avoid)
}

/// Whether the first load, as (active, weight), is strictly lower than the second.
pub(super) fn lower(one: (u32, u32), other: (u32, u32)) -> bool {
    u64::from(one.0) * u64::from(other.1) < u64::from(other.0) * u64::from(one.1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, backend, picked, server};
    use super::super::{Outcome, Pick, PickRequest, Server};
    use super::*;
    use crate::config::plan::Balance;
    use std::sync::Arc;

    const FIRST: PickRequest = PickRequest::ANY;

    #[test]
    fn idle_servers_take_turns_by_weight() {
        let equal = backend(Balance::LeastConn, &[server(1, 0); 3]);
        assert_eq!(testing::spread(&equal, 100), [34, 33, 33]);
        let weighted = [server(3, 0), server(2, 0), server(1, 0)];
        let weighted = backend(Balance::LeastConn, &weighted);
        assert_eq!(testing::spread(&weighted, 100), [50, 33, 17]);
    }

    #[test]
    fn connections_that_stay_fill_up_by_weight() {
        let backend = backend(
            Balance::LeastConn,
            &[server(3, 0), server(2, 0), server(1, 0)],
        );
        for n in 1..=600 {
            assert!(picked(&backend.pick(FIRST)).is_some());
            if n % 6 == 0 {
                let active: Vec<_> = backend.servers.iter().map(|s| s.active()).collect();
                assert_eq!(active, [n / 2, n / 3, n / 6]);
            }
        }
    }

    #[test]
    fn two_equals_beside_a_busy_one_share_evenly() {
        let backend = backend(Balance::LeastConn, &[server(1, 0); 3]);
        assert_eq!(picked(&backend.pick(FIRST)), Some(0));
        assert_eq!(testing::spread(&backend, 100), [0, 50, 50]);
    }

    #[test]
    fn a_light_server_is_found_among_heavy_ones() {
        // Server 1 has one of 513 turns: the look ahead may end before it.
        let backend = backend(
            Balance::LeastConn,
            &[server(256, 1), server(1, 0), server(256, 1)],
        );
        let mut seen = [0; 3];
        for _ in 0..3 {
            seen[picked(&backend.pick(FIRST)).unwrap() as usize] += 1;
        }
        assert_eq!(seen, [1, 1, 1]);
        assert_eq!(picked(&backend.pick(FIRST)), Some(1));
    }

    /// Every choice is the minimum at its moment, against a plain model.
    #[test]
    fn chooses_the_least_loaded() {
        let mut random = testing::random(3);
        let weights: Vec<_> = (0..EXACT_MAX)
            .map(|_| server(1 + random(256) as u16, 0))
            .collect();
        let backend = backend(Balance::LeastConn, &weights);
        let mut open: Vec<Arc<Server>> = Vec::new();
        for _ in 0..20_000 {
            if random(100) < 55 || open.is_empty() {
                let loads = || backend.servers.iter().map(|s| (s.active(), s.weight()));
                let before: Vec<_> = loads().collect();
                let Pick::Server(server) = backend.pick(FIRST) else {
                    panic!("unlimited")
                };
                let chosen = before[server.id.0 as usize];
                assert!(before.iter().all(|load| !lower(*load, chosen)));
                open.push(server);
            } else {
                let server = open.swap_remove(random(open.len() as u64) as usize);
                assert!(backend.release(&server, Outcome::Completed).is_none());
            }
        }
    }

    #[test]
    fn eight_threads_leave_exact_counts() {
        for count in [3, EXACT_MAX, 100] {
            let backend = &backend(Balance::LeastConn, &vec![server(1, 0); count]);
            let held: Vec<Vec<Arc<Server>>> = std::thread::scope(|scope| {
                let hammer = |seed| {
                    move || {
                        let mut random = testing::random(seed);
                        let mut open: Vec<Arc<Server>> = Vec::new();
                        for _ in 0..20_000 {
                            if random(2) == 0 && !open.is_empty() {
                                let server = open.swap_remove(random(open.len() as u64) as usize);
                                assert!(backend.release(&server, Outcome::Completed).is_none());
                            } else if let Pick::Server(server) = backend.pick(FIRST) {
                                open.push(server);
                            }
                        }
                        open
                    }
                };
                let threads: Vec<_> = (0..8).map(|seed| scope.spawn(hammer(seed))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            for server in &backend.servers {
                let mine = held
                    .iter()
                    .flatten()
                    .filter(|held| held.id == server.id)
                    .count();
                assert_eq!(server.active() as usize, mine);
            }
            for server in held.iter().flatten() {
                assert!(backend.release(server, Outcome::Completed).is_none());
            }
            assert_eq!(backend.active(), 0);
        }
    }

    /// Connections that stay, opened by many threads at once: no server gets one too many.
    #[test]
    fn shards_do_not_pile_onto_one_server() {
        let backend = &backend(Balance::LeastConn, &[server(1, 0); 3]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    (0..3000).for_each(|_| assert!(picked(&backend.pick(FIRST)).is_some()))
                });
            }
        });
        let active: Vec<_> = backend
            .servers
            .iter()
            .map(|server| server.active())
            .collect();
        let spread = active.iter().max().unwrap() - active.iter().min().unwrap();
        assert_eq!(active.iter().sum::<u32>(), 24_000);
        assert!(spread <= 1, "{active:?}");
    }

    #[test]
    fn above_the_exact_bound_two_draws_stay_close_to_the_mean() {
        let mut servers = vec![server(1, 0); 200];
        servers.extend(vec![server(2, 0); 100]);
        let backend = backend(Balance::LeastConn, &servers);
        for _ in 0..40_000 {
            assert!(picked(&backend.pick(FIRST)).is_some());
        }
        // The mean is 100 connections per unit of weight.
        for server in &backend.servers {
            let load = server.active() / server.weight();
            assert!((90..=110).contains(&load), "{load}");
        }
    }

    #[test]
    fn above_the_exact_bound_the_last_room_is_found() {
        let backend = backend(Balance::LeastConn, &vec![server(1, 2); 100]);
        for _ in 0..200 {
            assert!(picked(&backend.pick(FIRST)).is_some());
        }
        assert!(matches!(backend.pick(FIRST), Pick::Wait { only: None }));
        assert!(
            backend
                .release(&backend.servers[77], Outcome::Completed)
                .is_none()
        );
        assert_eq!(picked(&backend.pick(FIRST)), Some(77));
    }
}
