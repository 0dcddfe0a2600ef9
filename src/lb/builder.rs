//! From the servers' states to the table that picks read.
//!
//! What depends on the config alone is made once: how many points or slots there are, and what each
//! server is known by. So the tables of two processes agree, and a server is where it was when it
//! comes back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::backend::Policy;
use super::maglev::{Maglev, Slots};
use super::ring::{Ring, RingPlan};
use super::sequence::Sequence;
use super::server::Server;
use super::sets::{self, Cursors, Set};
use super::slow_start::WHOLE;
use super::table::{Entry, Phase, Places, Table};
use crate::base::address::Address;
use crate::base::hash;
use crate::base::ids::ServerId;
use crate::config::plan::{self, Back, Balance, HashKind, ServerKey, Target};

/// Makes the tables of a backend.
#[derive(Debug)]
pub(super) struct Builder {
    balance: Balance,
    allbackups: bool,
    points: RingPlan,
    slots: Slots,
    /// What each server is known by, hashed.
    identities: HashMap<ServerId, u64>,
}

impl Builder {
    /// For a backend, with the plan's public seed; `None` = a proxy without servers.
    pub(super) fn new(back: Option<&Back>, seed: u64) -> Builder {
        let servers = back.map_or(&[][..], |back| &back.servers);
        let weight = servers.iter().map(|server| u64::from(server.weight)).sum();
        // Servers that are known by the same are told apart by their order.
        let mut occurrences: HashMap<String, u64> = HashMap::new();
        let mut identities = HashMap::new();
        for server in servers {
            let name = known_by(server);
            let identity = hash::hash_bytes(seed, name.as_bytes());
            let occurrence = occurrences.entry(name).or_default();
            identities.insert(server.server_id, hash::sequence(identity, *occurrence));
            *occurrence += 1;
        }
        Builder {
            balance: back.map_or(Balance::RoundRobin, |back| back.balance),
            allbackups: back.is_some_and(|back| back.allbackups),
            points: RingPlan::new(weight),
            slots: Slots::new(servers.len()),
            identities,
        }
    }

    /// The table of the servers that may be chosen now; each set goes on at its phase.
    pub(super) fn build(
        &self,
        policy: &Arc<Policy>,
        servers: &[Arc<Server>],
        phases: &[Option<Phase>; Set::COUNT],
        cursors: &[Cursors; Set::COUNT],
    ) -> Table {
        let (set, servers) = sets::in_use(servers, self.allbackups);
        let entry = |server: &Arc<Server>| Entry::new(server, self.balance);
        let mut entries: Vec<Entry> = servers.iter().map(entry).collect();
        if self.balance == Balance::First {
            entries.sort_by_key(|entry| entry.server.plan.sid);
        }
        let shares: Vec<u32> = entries.iter().map(|entry| entry.share).collect();
        let sequence = if self.balance.is_static() {
            Sequence::as_map(&shares)
        } else {
            Sequence::new(&shares)
        };
        let places = self.places(&entries);
        let cursor = cursors[set as usize].first.load(Relaxed);
        let before = phases[set as usize];
        Table::new(policy, set, entries, sequence, places, before, cursor)
    }

    fn kind(&self) -> Option<HashKind> {
        self.balance.hash().map(|hash| hash.method.kind)
    }

    fn places(&self, entries: &[Entry]) -> Places {
        // While all of them return, the one that is farthest counts as whole: the clients of a ring
        // would otherwise move with every point that is added to each of them.
        let farthest = entries.iter().map(|entry| entry.share / entry.weight).max();
        let percent = farthest.unwrap_or(WHOLE).max(1);
        let share = |entry: &Entry| entry.share * WHOLE / percent;
        let known = |entry: &Entry| (self.identities[&entry.server.id], share(entry));
        let servers = || entries.iter().map(known).collect::<Vec<_>>();
        match self.kind() {
            Some(HashKind::Consistent) => Places::Ring(Ring::new(&self.points, &servers())),
            Some(HashKind::Maglev) => Places::Maglev(Maglev::new(self.slots, &servers())),
            Some(HashKind::MapBased) | None => Places::Turns,
        }
    }
}

/// What a server is known by on rings and in tables (`hash-key`).
fn known_by(server: &plan::Server) -> String {
    match (server.hash_key, &server.address) {
        (ServerKey::Id, _) => format!("id {}", server.sid),
        (ServerKey::Guid, _) if !server.guid.is_empty() => format!("guid {}", server.guid),
        (ServerKey::Address, Target::Fixed(Address::Ip(address))) => address.ip().to_string(),
        (ServerKey::Address | ServerKey::AddressPort | ServerKey::Guid, address) => {
            address.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        MAGLEV, RING, address, backend_of, pick_and_release, picked, planned, server,
    };
    use super::*;

    /// Which server each of some clients gets from three servers, as they are changed.
    fn homes(balance: Balance, change: impl Fn(&mut plan::Server)) -> Vec<u32> {
        let server = |id| {
            let mut server = (*planned(id, id, server(1, 0))).clone();
            change(&mut server);
            Arc::new(server)
        };
        let backend = backend_of(balance, (0..3).map(server).collect(), 0);
        let home = |n| picked(&pick_and_release(&backend, address(n))).unwrap();
        (0..500).map(home).collect()
    }

    fn at_port(server: &mut plan::Server, port: u16) {
        let host = u8::try_from(server.server_id.0).unwrap();
        server.address = Target::Fixed(Address::Ip(([10, 0, 0, host], port).into()));
    }

    fn moved_to(server: &mut plan::Server, key: ServerKey) {
        server.hash_key = key;
        at_port(server, 81);
    }

    #[test]
    fn a_place_is_that_of_what_a_server_is_known_by() {
        for balance in [RING, MAGLEV] {
            let homes = |change: fn(&mut plan::Server)| homes(balance, change);
            let as_it_is = homes(|_| {});
            // By default another port makes it another server.
            assert_ne!(homes(|server| at_port(server, 81)), as_it_is);
            let by_address = homes(|server| server.hash_key = ServerKey::Address);
            assert_ne!(by_address, as_it_is);
            let moved = homes(|server| moved_to(server, ServerKey::Address));
            assert_eq!(moved, by_address);
            let by_id = homes(|server| server.hash_key = ServerKey::Id);
            assert_ne!(by_id, as_it_is);
            assert_eq!(homes(|server| moved_to(server, ServerKey::Id)), by_id);
            let other_ids = homes(|server| {
                server.hash_key = ServerKey::Id;
                server.sid += 10;
            });
            assert_ne!(other_ids, by_id);
            // Without a guid it is known by its address and port.
            let nameless = homes(|server| server.hash_key = ServerKey::Guid);
            assert_eq!(nameless, as_it_is);
            let by_guid = homes(|server| {
                server.hash_key = ServerKey::Guid;
                server.guid = format!("server-{}", server.server_id.0);
            });
            assert_ne!(by_guid, as_it_is);
            let moved = homes(|server| {
                moved_to(server, ServerKey::Guid);
                server.guid = format!("server-{}", server.server_id.0);
            });
            assert_eq!(moved, by_guid);
        }
    }
}
