//! Hashing: what a connection is decides its server.
//!
//! - `map-based`: the hash modulo the number of turns of HAProxy's map over the usable servers.
//!   Exactly weighted, but when a server goes or comes nearly all clients move.
//! - `consistent`: a ring of points. When a server goes only its own clients move.
//! - `maglev`: a table that the servers fill in turns: more even, and a few others move as well.
//!
//! All keep a client at its server also when that is full: it waits for this one. A retry that
//! avoids the server takes the next other one on the map, the ring or in the table that has room.
//! With a bound of the load (`bound`) a client's server is the next one below its bound.

use super::bound::Bound;
use super::table::{Places, Table};
use crate::base::ids::ServerId;

/// Steps along the map, the ring or the table in search of another server, before the rest is
/// looked at in order.
const STEPS_MAX: u64 = 256;

/// Times a server below its bound is looked for anew because another shard was quicker: each time
/// means that somebody else got a connection.
const LOOKS_MAX: usize = 16;

/// Index of the server that a connection belongs to. The table is not empty.
pub(super) fn home(table: &Table, place: u64, bound: Option<&Bound>) -> usize {
    let walk = Walk::new(table, place);
    let Some(bound) = bound else {
        return walk.at(0);
    };
    let allowed = |index: &usize| bound.allows(table, &table.entries[*index]);
    let along = (0..STEPS_MAX).map(|step| walk.at(step)).find(allowed);
    let any = || (0..table.entries.len()).find(allowed);
    along.or_else(any).unwrap_or_else(|| walk.at(0))
}

/// Takes a connection of the server that a connection belongs to, or says which one to wait for.
pub(super) fn take_home(
    table: &Table,
    place: u64,
    bound: Option<&Bound>,
) -> Result<usize, ServerId> {
    let mut index = home(table, place, bound);
    if let Some(bound) = bound {
        for _ in 0..LOOKS_MAX {
            let entry = &table.entries[index];
            let Some(seen) = entry.server.room() else {
                return Err(entry.server.id);
            };
            if seen < bound.limit(table, entry) && entry.server.take_seeing(seen) {
                return Ok(index);
            }
            index = home(table, place, Some(bound));
        }
    }
    let server = &table.entries[index].server;
    if server.take() {
        Ok(index)
    } else {
        Err(server.id)
    }
}

/// Takes a connection of the first server from a place on that has room and isn't `avoid`; with a
/// bound the first below it, if there is one.
pub(super) fn choose_other(
    table: &Table,
    place: u64,
    avoid: Option<ServerId>,
    bound: Option<&Bound>,
) -> Option<usize> {
    let walk = Walk::new(table, place);
    let search = |bound: Option<&Bound>| {
        let take = |index: &usize| {
            let entry = &table.entries[*index];
            Some(entry.server.id) != avoid
                && bound.is_none_or(|bound| bound.allows(table, entry))
                && entry.server.take()
        };
        let along = (0..STEPS_MAX).map(|step| walk.at(step)).find(take);
        along.or_else(|| (0..table.entries.len()).find(take))
    };
    search(bound).or_else(|| bound.and_then(|_| search(None)))
}

/// The way from a place on.
struct Walk<'a> {
    table: &'a Table,
    first: u64,
}

impl Walk<'_> {
    fn new(table: &Table, place: u64) -> Walk<'_> {
        let first = match &table.places {
            Places::Turns => place % table.sequence.len(),
            Places::Ring(ring) => ring.first_at(place),
            Places::Maglev(maglev) => maglev.first_at(place),
        };
        Walk { table, first }
    }

    /// The server so many steps on.
    fn at(&self, step: u64) -> usize {
        match &self.table.places {
            Places::Turns => self.table.sequence.at(self.first + step),
            Places::Ring(ring) => ring.owner(self.first + step),
            Places::Maglev(maglev) => maglev.owner(self.first + step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        self, MAGLEV, MAP, RING, address, backend, backend_of, planned, server,
    };
    use super::super::{Backend, Health, Pick, PickRequest};
    use super::*;

    /// The server of each of some clients.
    fn homes(backend: &Backend, clients: u32) -> Vec<ServerId> {
        let home = |n| match testing::pick_and_release(backend, address(n)) {
            Pick::Server(server) => server.id,
            other => panic!("{other:?}"),
        };
        (0..clients).map(home).collect()
    }

    fn set_health(backend: &Backend, id: usize, health: Health) {
        backend.servers[id].set_health(health);
        assert!(backend.publish().is_empty());
    }

    #[test]
    fn a_client_stays_with_its_server() {
        for balance in [MAP, RING, MAGLEV] {
            let backend = backend(balance, &[server(1, 0); 5]);
            assert_eq!(homes(&backend, 1000), homes(&backend, 1000));
        }
    }

    #[test]
    fn the_map_is_the_hash_modulo_the_weight() {
        let backend = backend(MAP, &[server(3, 0), server(2, 0), server(1, 0)]);
        for (n, home) in (0..1000).zip(homes(&backend, 1000)) {
            let turn = (0xc612_0000u32 + n) % 6;
            assert_eq!(home.0, [0, 0, 1, 0, 1, 2][turn as usize]);
        }
    }

    #[test]
    fn on_a_ring_only_the_clients_of_a_server_move_and_they_come_back() {
        for count in [3, 10] {
            let backend = backend(RING, &vec![server(1, 0); count]);
            let before = homes(&backend, 20_000);
            for gone in 0..count {
                set_health(&backend, gone, Health::Down);
                let during = homes(&backend, 20_000);
                let mut heirs = vec![0u32; count];
                for (before, during) in before.iter().zip(&during) {
                    if before.0 as usize == gone {
                        heirs[during.0 as usize] += 1;
                    } else {
                        assert_eq!(before, during);
                    }
                }
                // They spread over all the others.
                assert_eq!(heirs.iter().filter(|heir| **heir > 0).count(), count - 1);
                set_health(&backend, gone, Health::Up);
                assert_eq!(homes(&backend, 20_000), before);
            }
        }
    }

    #[test]
    fn servers_of_one_address_both_get_clients() {
        let twins = (0..2).map(|id| planned(id, 7, server(1, 0))).collect();
        let homes = homes(&backend_of(RING, twins, 0), 1000);
        assert!((350..650).contains(&homes.iter().filter(|home| home.0 == 0).count()));
    }

    #[test]
    fn a_full_home_is_waited_for_and_a_retry_goes_on_to_the_next() {
        for balance in [MAP, RING, MAGLEV] {
            let backend = backend(balance, &[server(1, 1), server(1, 1), server(1, 1)]);
            let client = address(9);
            let Pick::Server(home) = backend.pick(PickRequest {
                client,
                ..PickRequest::ANY
            }) else {
                panic!("room");
            };
            let again = backend.pick(PickRequest {
                client,
                ..PickRequest::ANY
            });
            assert!(matches!(again, Pick::Wait { only: Some(id) } if id == home.id));
            let retry = PickRequest {
                client,
                avoid: Some(home.id),
                ..PickRequest::ANY
            };
            let Pick::Server(second) = backend.pick(retry) else {
                panic!("room")
            };
            let Pick::Server(third) = backend.pick(retry) else {
                panic!("room")
            };
            assert!(second.id != home.id && third.id != home.id && second.id != third.id);
            assert!(matches!(backend.pick(retry), Pick::Wait { only: None }));
        }
    }

    #[test]
    fn clients_without_an_address_take_turns() {
        for balance in [MAP, RING, MAGLEV] {
            let backend = backend(balance, &[server(1, 0); 3]);
            let ids: Vec<_> = (0..6)
                .map(|_| testing::picked(&testing::pick_and_release(&backend, None)).unwrap())
                .collect();
            assert_eq!(ids, [0, 1, 2, 0, 1, 2]);
        }
    }
}
