//! Which server a connection would get, and why: what operators ask when one is not where they
//! expect it. Nothing is taken, and no turn is used up.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::backend::{Backend, PickRequest};
use super::server::Server;
use super::sets::Set;
use super::table::{Places, Table};
use super::{hashed, key, leastconn};
use crate::config::plan::Balance;

/// How a backend would choose now.
#[derive(Debug)]
pub struct Explanation {
    /// Whether the servers are backup servers.
    pub on_backup: bool,
    /// Turns, points or slots of the table.
    pub places: (PlaceKind, u64),
    /// The servers that may be chosen.
    pub servers: Vec<Candidate>,
    /// Where the connection belongs, if it has a key.
    pub home: Option<Home>,
    /// Index of the server that the next connection without a key gets, where no draw decides.
    pub next: Option<usize>,
}

/// What hashes lead to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceKind {
    /// Turns of a sequence.
    Turns,
    /// Points of a ring.
    Points,
    /// Slots of a Maglev table.
    Slots,
}

/// A server that may be chosen.
#[derive(Debug)]
pub struct Candidate {
    /// The server.
    pub server: Arc<Server>,
    /// Its weight.
    pub weight: u32,
    /// Its part of all connections, in thousandths.
    pub permille: u64,
    /// Most connections that a bounded load lets it have now.
    pub bound: Option<u32>,
}

/// Where a key leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home {
    /// The hash.
    pub hash: u64,
    /// The turn, point or slot that it leads to.
    pub place: u64,
    /// Index of the server that has it.
    pub owner: usize,
    /// Index of the server that gets the connection: another one where the bound of the load keeps
    /// it from its owner.
    pub chosen: usize,
}

impl Backend {
    /// Explains what it would do with a connection, or with one of which nothing is known.
    pub fn explain(&self, request: &PickRequest<'_>) -> Explanation {
        let table = self.table();
        let shares = table.shares().max(1);
        let candidates = table.entries.iter().map(|entry| Candidate {
            server: Arc::clone(&entry.server),
            weight: entry.weight,
            permille: u64::from(entry.share) * 1000 / shares,
            bound: self
                .policy
                .bound
                .as_ref()
                .map(|bound| bound.limit(&table, entry)),
        });
        let hash = self.policy.balance.hash();
        let hash = hash.and_then(|hash| key::place(hash, self.seeds().hash, request));
        let hash = hash.filter(|_| !table.entries.is_empty());
        Explanation {
            on_backup: table.set == Set::Backup,
            places: places(&table),
            servers: candidates.collect(),
            home: hash.map(|hash| self.home(&table, hash)),
            next: self.next_index(&table),
        }
    }

    fn home(&self, table: &Table, hash: u64) -> Home {
        let (_, count) = places(table);
        let place = match &table.places {
            Places::Turns => hash % count.max(1),
            // Past the last point comes the first.
            Places::Ring(ring) => ring.first_at(hash) % count.max(1),
            Places::Maglev(maglev) => maglev.first_at(hash),
        };
        Home {
            hash,
            place,
            owner: hashed::home(table, hash, None),
            chosen: hashed::home(table, hash, self.policy.bound.as_ref()),
        }
    }

    fn next_index(&self, table: &Table) -> Option<usize> {
        if table.entries.is_empty() {
            return None;
        }
        let cursor = self.lasting.cursors[table.set as usize].first.load(Relaxed);
        match self.policy.balance {
            Balance::RoundRobin | Balance::StaticRr | Balance::Hash(_) => Some(table.turn(cursor)),
            Balance::First => table.entries.iter().position(|e| e.server.room().is_some()),
            Balance::LeastConn => {
                let load = |index: &usize| {
                    let entry = &table.entries[*index];
                    leastconn::room(entry, None).map(|active| (active, entry.weight))
                };
                let open =
                    (0..table.entries.len()).filter_map(|index| Some((index, load(&index)?)));
                let least = open.reduce(|best, other| match leastconn::lower(other.1, best.1) {
                    true => other,
                    false => best,
                });
                least.map(|(index, _)| index)
            }
            // A draw decides.
            Balance::PeakEwma | Balance::Random { .. } => None,
        }
    }
}

fn places(table: &Table) -> (PlaceKind, u64) {
    match &table.places {
        Places::Turns => (PlaceKind::Turns, table.sequence.len()),
        Places::Ring(ring) => (PlaceKind::Points, ring.len()),
        Places::Maglev(maglev) => (PlaceKind::Slots, maglev.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, MAGLEV, MAP, RING, address, backend, picked, server};
    use super::super::{Health, Pick};
    use super::*;

    fn ask(n: u32) -> PickRequest<'static> {
        PickRequest {
            client: address(n),
            ..PickRequest::ANY
        }
    }

    #[test]
    fn a_key_gets_the_server_that_it_was_said_to_get() {
        for balance in [MAP, RING, MAGLEV] {
            let backend = backend(balance, &[server(3, 0), server(2, 0), server(1, 0)]);
            backend.servers[1].set_health(Health::Down);
            assert!(backend.publish().is_empty());
            for n in 0..200 {
                let said = backend.explain(&ask(n));
                let home = said.home.expect("it has a key");
                assert_eq!(home.owner, home.chosen);
                assert!(home.place < said.places.1, "{home:?} {:?}", said.places);
                let picked = picked(&testing::pick_and_release(&backend, address(n)));
                assert_eq!(picked, Some(said.servers[home.chosen].server.id.0));
            }
        }
    }

    #[test]
    fn the_next_turn_is_told_and_not_taken() {
        let backend = backend(Balance::RoundRobin, &[server(3, 0), server(1, 0)]);
        for _ in 0..12 {
            let said = backend.explain(&PickRequest::ANY);
            assert_eq!(said.servers[0].permille, 750);
            let again = backend.explain(&PickRequest::ANY);
            assert_eq!(said.next, again.next);
            let picked = picked(&testing::pick_and_release(&backend, None)).unwrap();
            let next = said.next.expect("turns");
            assert_eq!(picked, said.servers[next].server.id.0);
        }
    }

    #[test]
    fn the_least_loaded_and_the_first_with_room_are_told() {
        for (balance, after) in [(Balance::LeastConn, 1), (Balance::First, 1)] {
            let backend = backend(balance, &[server(1, 1), server(1, 0)]);
            let Pick::Server(held) = backend.pick(PickRequest::ANY) else {
                panic!("room");
            };
            let said = backend.explain(&PickRequest::ANY);
            let other = usize::from(held.id.0 == 0);
            assert_eq!(said.next, Some(other), "{balance:?}");
            assert!(balance != Balance::First || other == after);
        }
        let backend = backend(Balance::Random { draws: 2 }, &[server(1, 0); 2]);
        assert_eq!(backend.explain(&PickRequest::ANY).next, None);
    }

    #[test]
    fn nothing_is_chosen_of_nothing() {
        let backend = backend(MAP, &[server(1, 0)]);
        backend.servers[0].set_health(Health::Down);
        assert!(backend.publish().is_empty());
        let said = backend.explain(&ask(1));
        assert!(said.servers.is_empty() && said.home.is_none() && said.next.is_none());
    }
}
