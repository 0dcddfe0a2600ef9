//! Round robin: every first pick takes the next turn of the smooth weighted sequence.
//!
//! The turn is one addition to a cursor that all shards share, so consecutive picks get consecutive
//! turns whichever threads make them. A server at its `maxconn` is passed over and its turn is
//! spent, as in HAProxy: the others then share on in their own proportion.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::table::Table;
use crate::base::ids::ServerId;

/// Turns tried before all servers are looked at in a row: enough to keep the proportion while a few
/// servers are full, and a bound on the additions to the shared cursor when nearly all are.
const TURNS_TRIED_MAX: u64 = 64;

/// Takes a connection of the server whose turn it is; `None` when all are full (but for `avoid`).
pub(super) fn choose(table: &Table, cursor: &AtomicU64, avoid: Option<ServerId>) -> Option<usize> {
    let take = |index: usize| {
        let server = &table.entries[index].server;
        Some(server.id) != avoid && server.take()
    };
    let mut last = 0;
    for _ in 0..table.sequence.len().min(TURNS_TRIED_MAX) {
        last = table.turn(cursor.fetch_add(1, Relaxed));
        if take(last) {
            return Some(last);
        }
    }
    let count = table.entries.len();
    (last + 1..last + 1 + count)
        .map(|index| index % count)
        .find(|index| take(*index))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, backend, picked, server};
    use super::super::{Health, Outcome, Pick, PickRequest};
    use super::*;
    use crate::config::plan::Balance;
    use std::sync::Mutex;

    fn first() -> PickRequest<'static> {
        PickRequest::ANY
    }

    #[test]
    fn a_hundred_connections_spread_by_weight() {
        let equal = backend(Balance::RoundRobin, &[server(1, 0); 3]);
        assert_eq!(testing::spread(&equal, 100), [34, 33, 33]);
        let weighted = [server(3, 0), server(2, 0), server(1, 0)];
        let weighted = backend(Balance::RoundRobin, &weighted);
        assert_eq!(testing::spread(&weighted, 100), [50, 33, 17]);
    }

    #[test]
    fn many_threads_share_the_turns_exactly() {
        let backend = backend(Balance::RoundRobin, &[server(1, 0); 3]);
        let counts = Mutex::new([0; 3]);
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let id = picked(&backend.pick(first())).unwrap();
                        counts.lock().unwrap()[id as usize] += 1;
                    }
                });
            }
        });
        assert_eq!(counts.into_inner().unwrap(), [34, 33, 33]);
    }

    #[test]
    fn retries_do_not_take_turns_from_first_picks() {
        let backend = backend(Balance::RoundRobin, &[server(1, 0); 3]);
        let mut order = Vec::new();
        for n in 0..9 {
            order.push(picked(&backend.pick(first())).unwrap());
            let avoid = Some(ServerId(n % 3));
            assert_ne!(
                picked(&backend.pick(PickRequest { avoid, ..first() })),
                Some(n % 3)
            );
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_full_server_is_passed_over_and_the_others_share_evenly() {
        let backend = backend(
            Balance::RoundRobin,
            &[server(1, 1), server(1, 0), server(1, 0)],
        );
        let Pick::Server(full) = backend.pick(first()) else {
            panic!("room")
        };
        assert_eq!(testing::spread(&backend, 100), [0, 50, 50]);
        assert!(backend.release(&full, Outcome::Completed).is_none());
        assert_eq!(testing::spread(&backend, 99), [33, 33, 33]);
    }

    #[test]
    fn the_last_server_with_room_is_found_among_many() {
        let mut servers = vec![server(1, 1); 500];
        servers[321] = server(1, 2);
        let backend = backend(Balance::RoundRobin, &servers);
        for _ in 0..501 {
            assert!(picked(&backend.pick(first())).is_some());
        }
        assert!(matches!(backend.pick(first()), Pick::Wait { only: None }));
        assert!(
            backend
                .servers
                .iter()
                .all(|server| server.active() == server.maxconn())
        );
    }

    #[test]
    fn publishing_keeps_the_phase() {
        let backend = backend(Balance::RoundRobin, &[server(1, 0); 4]);
        let mut order = Vec::new();
        for n in 0..12 {
            order.push(picked(&backend.pick(first())).unwrap());
            assert!(backend.publish().is_empty());
            if n == 5 {
                backend.servers[0].set_health(Health::Down);
                assert!(backend.publish().is_empty());
            }
        }
        // After server 1 of round two, halfway through, the three others go on halfway through.
        assert_eq!(order[..6], [0, 1, 2, 3, 0, 1]);
        assert_eq!(order[6..], [2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn a_million_picks_match_the_weights() {
        let weights = [1, 7, 30, 100, 256];
        let backend = backend(
            Balance::RoundRobin,
            &weights.map(|weight| server(weight, 0)),
        );
        let total: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
        for (count, weight) in testing::spread(&backend, 1_000_000).iter().zip(weights) {
            let share = 1e6 * f64::from(weight) / f64::from(total);
            assert!((f64::from(*count) - share).abs() < 2.0, "{weight}: {count}");
        }
    }
}
