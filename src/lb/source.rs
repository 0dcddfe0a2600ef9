//! Source hashing: a client's address decides its server.
//!
//! - `map-based`: the hash modulo the number of turns of the smooth weighted sequence over the
//!   usable servers. Exactly weighted, but when a server goes or comes nearly all clients move.
//! - `consistent`: a ring of points, each server holding a number of them in proportion to its
//!   weight; a client belongs to the first point at or after its hash. When a server goes only its
//!   own clients move, and they return when it is back. Points are hashes of the server's address,
//!   so that two balancers agree whatever the names and the order of their servers.
//!
//! Both keep a client at its server also when that is full: it waits for this one. A retry that
//! avoids the server takes the next other one on the map or the ring that has room.

use std::net::IpAddr;

use super::table::{Entry, Table};
use crate::base::hash;
use crate::base::ids::ServerId;

/// Points of a backend's ring at its configured weights, at most (12 bytes each: 1.5 MiB).
const POINTS_MAX: u64 = 1 << 17;

/// Points per unit of weight, at most: the share of a server with n points is off by 1/sqrt(n)
/// typically, 4.4 % for 512.
const POINTS_PER_WEIGHT_MAX: u64 = 512;

/// Steps along the map or the ring in search of another server, before the rest is looked at in
/// order.
const STEPS_MAX: u64 = 256;

/// The hash of a client's address. An IPv4 client is the same one however it came.
pub(super) fn hash_client(seed: u64, client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => hash::hash_bytes(seed, &address.octets()),
        IpAddr::V6(address) => hash::hash_bytes(seed, &address.octets()),
    }
}

/// Index of the server that a hash belongs to. The table is not empty.
pub(super) fn home(table: &Table, hash: u64) -> usize {
    match &table.ring {
        Some(ring) => ring.owner(ring.first_at(hash)),
        None => table.sequence.at(hash),
    }
}

/// Takes a connection of the first server from a hash's place on that has room and isn't `avoid`.
pub(super) fn choose_other(table: &Table, hash: u64, avoid: Option<ServerId>) -> Option<usize> {
    let take = |index: usize| {
        let server = &table.entries[index].server;
        Some(server.id) != avoid && server.take()
    };
    let first = table.ring.as_ref().map_or(0, |ring| ring.first_at(hash));
    for step in 0..STEPS_MAX {
        let index = match &table.ring {
            Some(ring) => ring.owner(first + step as usize),
            None => table.sequence.at(hash % table.sequence.len() + step),
        };
        if take(index) {
            return Some(index);
        }
    }
    (0..table.entries.len()).find(|index| take(*index))
}

/// How a backend places its servers on rings. It depends on the config alone, not on who is up.
#[derive(Debug)]
pub(super) struct RingPlan {
    points_per_weight: u64,
}

impl RingPlan {
    /// For a backend with this sum of configured weights. Points per weight are a power of two, so
    /// that a server more or less in the config seldom changes them; fewer are a part of more, so
    /// that even then only some clients move.
    pub(super) fn new(weight: u64) -> RingPlan {
        let fitting = (POINTS_MAX / weight.max(1)).clamp(1, POINTS_PER_WEIGHT_MAX);
        RingPlan {
            points_per_weight: 1 << fitting.ilog2(),
        }
    }
}

/// The points of a table's servers in the order of their hashes.
#[derive(Debug)]
pub(super) struct Ring {
    hashes: Box<[u64]>,
    owners: Box<[u32]>,
}

impl Ring {
    /// The ring of the servers in a table; `identity` gives a hash of what makes a server itself.
    pub(super) fn new(
        plan: &RingPlan,
        entries: &[Entry],
        identity: impl Fn(ServerId) -> u64,
    ) -> Ring {
        let mut points = Vec::new();
        for (index, entry) in (0u32..).zip(entries) {
            let identity = identity(entry.server.id);
            let count = u64::from(entry.weight) * plan.points_per_weight;
            points.extend((0..count).map(|i| (hash::sequence(identity, i), identity, index)));
        }
        // Equal hashes go by identity, which doesn't depend on the order of the servers.
        points.sort_unstable();
        Ring {
            hashes: points.iter().map(|(hash, _, _)| *hash).collect(),
            owners: points.iter().map(|(_, _, index)| *index).collect(),
        }
    }

    /// The first point at or after a hash; past the last one, the first of all.
    fn first_at(&self, hash: u64) -> usize {
        self.hashes.partition_point(|point| *point < hash)
    }

    /// Index of the server that owns a point, counted round the ring.
    fn owner(&self, point: usize) -> usize {
        self.owners[point % self.owners.len()] as usize
    }
}

/// A server's identity on the ring: its address, and for servers of the same address which of them
/// it is.
pub(super) fn identity(seed: u64, address: &str, occurrence: u64) -> u64 {
    hash::sequence(hash::hash_bytes(seed, address.as_bytes()), occurrence)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, address, backend, backend_of, planned, server};
    use super::super::{Backend, Health, Pick, PickRequest};
    use super::*;
    use crate::config::plan::{Balance, HashType};

    const MAP: Balance = Balance::Source(HashType::MapBased);
    const RING: Balance = Balance::Source(HashType::Consistent);

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
        for balance in [MAP, RING] {
            let backend = backend(balance, &[server(1, 0); 5]);
            assert_eq!(homes(&backend, 1000), homes(&backend, 1000));
        }
    }

    #[test]
    fn an_ipv4_client_is_the_same_however_it_came() {
        let plain: IpAddr = "192.0.2.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(hash_client(5, plain), hash_client(5, mapped));
        assert_ne!(hash_client(5, plain), hash_client(6, plain));
    }

    #[test]
    fn the_map_is_the_hash_modulo_the_weight() {
        let backend = backend(MAP, &[server(3, 0), server(2, 0), server(1, 0)]);
        for (n, home) in (0..1000).zip(homes(&backend, 1000)) {
            let turn = hash_client(0, address(n).unwrap()) % 6;
            assert_eq!(home.0, [0, 1, 0, 2, 1, 0][turn as usize]);
        }
    }

    /// Chi-square over the clients of five servers on the map: 4 degrees of freedom exceed 23.5
    /// once in 10,000 seeds, and this seed is fixed.
    #[test]
    fn the_map_spreads_clients_by_weight() {
        let weights = [1u16, 2, 3, 4, 10];
        let backend = backend(MAP, &weights.map(|weight| server(weight, 0)));
        let mut chi_square = 0.0;
        let homes = homes(&backend, 1_000_000);
        for (id, weight) in (0..).zip(weights) {
            let expected = 1e6 * f64::from(weight) / 20.0;
            let count = homes.iter().filter(|home| home.0 == id).count() as f64;
            chi_square += (count - expected).powi(2) / expected;
        }
        assert!(chi_square < 23.5, "{chi_square}");
    }

    #[test]
    fn the_ring_spreads_clients_by_weight() {
        let weights = [1u16, 2, 3, 4];
        let backend = backend(RING, &weights.map(|weight| server(weight, 0)));
        let homes = homes(&backend, 100_000);
        for (id, weight) in (0..).zip(weights) {
            let share = homes.iter().filter(|home| home.0 == id).count() as f64 / 1e5;
            let expected = f64::from(weight) / 10.0;
            // 512 points per unit of weight: three standard deviations are 13 %.
            assert!(
                (share / expected - 1.0).abs() < 0.13,
                "server {id}: {share}"
            );
        }
    }

    #[test]
    fn when_a_server_goes_only_its_clients_move_and_they_come_back() {
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
    fn more_weight_only_draws_clients_to_itself() {
        let backend = backend(RING, &[server(4, 0); 4]);
        let before = homes(&backend, 20_000);
        backend.servers[2].set_weight(6);
        assert!(backend.publish().is_empty());
        let after = homes(&backend, 20_000);
        let moved: Vec<_> = before
            .iter()
            .zip(&after)
            .filter(|(one, other)| one != other)
            .collect();
        assert!(moved.iter().all(|(_, after)| after.0 == 2));
        // From 4 of 16 to 6 of 18: a twelfth of all.
        assert!((1200..2200).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn two_balancers_agree_whatever_the_order_of_their_servers() {
        let there = (0..6).map(|i| planned(i, i, server(1, 0))).collect();
        let here = (0..6).map(|i| planned(i, 5 - i, server(1, 0))).collect();
        let there = backend_of(RING, there, 42);
        let here = backend_of(RING, here, 42);
        for (there, here) in homes(&there, 5000).into_iter().zip(homes(&here, 5000)) {
            assert_eq!(there.0, 5 - here.0);
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
        for balance in [MAP, RING] {
            let backend = backend(balance, &[server(1, 1), server(1, 1), server(1, 1)]);
            let client = address(9);
            let Pick::Server(home) = backend.pick(PickRequest {
                client,
                avoid: None,
            }) else {
                panic!("room");
            };
            let again = backend.pick(PickRequest {
                client,
                avoid: None,
            });
            assert!(matches!(again, Pick::Wait { only: Some(id) } if id == home.id));
            let retry = PickRequest {
                client,
                avoid: Some(home.id),
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
        for balance in [MAP, RING] {
            let backend = backend(balance, &[server(1, 0); 3]);
            let ids: Vec<_> = (0..6)
                .map(|_| testing::picked(&testing::pick_and_release(&backend, None)).unwrap())
                .collect();
            assert_eq!(ids, [0, 1, 2, 0, 1, 2]);
        }
    }

    #[test]
    fn the_ring_is_bounded_at_any_weight() {
        for weight in [1, 3, 300, 20_000, 1 << 24] {
            let points = weight * RingPlan::new(weight).points_per_weight;
            assert!(points <= POINTS_MAX.max(weight), "{weight}: {points}");
        }
        assert_eq!(RingPlan::new(3).points_per_weight, POINTS_PER_WEIGHT_MAX);
    }
}
