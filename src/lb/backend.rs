//! A backend: its servers, the published table, `pick`, `release` and the queue of waiting
//! sessions.
//!
//! A connection of a server is a unit that is taken by `pick` or comes with a `Grant`, and is given
//! back by `release`, exactly once. Taking compares with `maxconn` in the same atomic step, so the
//! bound holds whichever shards pick.
//!
//! While sessions wait, new ones wait behind them: a pick looks at their number first, and a
//! release hands its unit to the one that has waited longest without giving it back in between, so
//! nobody can overtake. The queue says why no waiting session is forgotten.

use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use super::leastconn;
use super::queue::{Locked, QUEUE_MAX, Queue};
use super::ramp::Occupancy;
use super::roundrobin;
use super::server::Server;
use super::sets::{self, Cursors, Set, Usable};
use super::source::{self, Ring, RingPlan};
use super::table::{Entry, Phase, Table};
use crate::base::ids::{ServerId, SessionKey, ShardId};
use crate::config::plan::{Balance, HashType, Proxy};

/// What a pick depends on.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest {
    /// The client's address; `None` for Unix clients.
    pub client: Option<IpAddr>,
    /// A retry after this server failed: chosen again only if no other is usable, and the
    /// round-robin cursor is not advanced.
    pub avoid: Option<ServerId>,
}

/// What a pick says.
#[derive(Clone, Debug)]
pub enum Pick {
    /// Connect to this server; its count has been taken and must be released exactly once.
    Server(Arc<Server>),
    /// Every usable server is at its `maxconn`: wait in the queue (see [`Backend::enqueue`]).
    Wait {
        /// The only server that will do (hash choices), if there is one.
        only: Option<ServerId>,
    },
    /// No server is usable, or the queue is full.
    Refuse,
}

/// How an attempt ended, for passive health.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The connect failed (refused, unreachable, timed out).
    ConnectFailed,
    /// Given up before it was decided (client gone, proxy stopping), or for a lack on this side.
    Abandoned,
    /// The session ran and ended without the server's fault.
    Completed,
    /// The server reset or timed out an established session.
    ServerAborted,
}

/// A session waiting for a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Its shard.
    pub shard: ShardId,
    /// Its key there.
    pub session: SessionKey,
    /// The only server that will do, if there is one.
    pub only: Option<ServerId>,
}

/// A server handed to a waiting session: its count is already taken. The shard that finds the
/// session gone releases it again.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who gets it.
    pub waiter: Waiter,
    /// What it gets.
    pub server: Arc<Server>,
}

/// A backend's live state.
#[derive(Debug)]
pub struct Backend {
    /// What the config says of it.
    pub proxy: Arc<Proxy>,
    /// Its servers, in the order of the config.
    pub servers: Vec<Arc<Server>>,
    balance: Balance,
    hash_seed: u64,
    /// For consistent hashing: how many points servers get, and each server's identity.
    ring_plan: RingPlan,
    identities: HashMap<ServerId, u64>,
    table: ArcSwap<Table>,
    published: Mutex<Published>,
    /// Turns, by set.
    cursors: [Cursors; Set::COUNT],
    /// How full it is, where a server's limit depends on it.
    occupancy: Option<Arc<Occupancy>>,
    /// Sessions at which its servers reach their `maxconn`.
    fullconn: u32,
    queue: Queue,
    availability: Mutex<Availability>,
}

/// Whether a backend has servers, for statistics; shards never touch it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Availability {
    /// Whether it has none at present.
    pub is_down: bool,
    /// How often it lost its last server (`chkdown`).
    pub downs: u64,
    /// Unix time, seconds, of the last change; 0 = none yet.
    pub changed_at_s: u64,
    /// Seconds spent without a server before the present state.
    pub downtime_s: u64,
}

/// What publishing leaves behind. Its lock keeps publishers apart.
#[derive(Debug, Default)]
struct Published {
    /// Tables that a pick may still be reading: freed by a later `publish`, never by a shard.
    retired: Vec<Arc<Table>>,
    /// Where the last table of each set stood.
    phases: [Option<Phase>; Set::COUNT],
}

impl Backend {
    /// The live state of a planned backend; `hash_seed` is the plan's public seed, `fullconn` the
    /// effective number of sessions that fill it. Its first table is published. A proxy without a
    /// connecting side has no servers and refuses every pick.
    pub fn new(proxy: Arc<Proxy>, shards: usize, hash_seed: u64, fullconn: u32) -> Backend {
        let plans = proxy.back.as_ref().map_or(&[][..], |back| &back.servers);
        let ramps = plans.iter().any(|plan| plan.minconn > 0);
        let occupancy = ramps.then(|| Arc::new(Occupancy::new(fullconn)));
        let server = |plan| {
            Arc::new(Server::new(
                Arc::clone(plan),
                Arc::clone(&proxy.name),
                shards,
                occupancy.clone(),
            ))
        };
        let servers: Vec<_> = plans.iter().map(server).collect();
        let mut occurrences = HashMap::new();
        let mut identities = HashMap::new();
        for server in &servers {
            let address = server.plan.address.to_string();
            let occurrence = occurrences.entry(address.clone()).or_insert(0u64);
            identities.insert(
                server.id,
                source::identity(hash_seed, &address, *occurrence),
            );
            *occurrence += 1;
        }
        let weight = plans.iter().map(|plan| u64::from(plan.weight)).sum();
        let backend = Backend {
            balance: proxy
                .back
                .as_ref()
                .map_or(Balance::RoundRobin, |back| back.balance),
            hash_seed,
            ring_plan: RingPlan::new(weight),
            identities,
            table: ArcSwap::from_pointee(Table::new(Set::Active, Vec::new(), None, None, 0)),
            published: Mutex::default(),
            cursors: Default::default(),
            occupancy,
            fullconn,
            queue: Queue::default(),
            availability: Mutex::default(),
            servers,
            proxy,
        };
        backend.begin();
        backend
    }

    /// Publishes the first table: again where servers were given their states before anybody came.
    pub fn begin(&self) {
        let grants = self.publish();
        debug_assert!(grants.is_empty(), "nobody waits yet");
        // To begin without a server is not to lose one.
        self.availability_locked().is_down = self.usable_servers().is_none();
    }

    /// A session came: called once before its first `pick`.
    pub fn enter(&self) {
        if let Some(occupancy) = &self.occupancy {
            occupancy.enter();
        }
    }

    /// A session that came has ended: called once, before the last `release`, so that this finds
    /// the limits of those that stay.
    pub fn leave(&self) {
        if let Some(occupancy) = &self.occupancy {
            occupancy.leave();
        }
    }

    /// Chooses a server and takes its count.
    pub fn pick(&self, request: PickRequest) -> Pick {
        let table = self.table.load();
        if table.entries.is_empty() {
            return Pick::Refuse;
        }
        if self.queue.len() > 0
            && let Some(only) = self.behind_others(&table, request)
        {
            return self.wait(only);
        }
        match self.choose(&table, request) {
            Ok(index) => Pick::Server(Arc::clone(&table.entries[index].server)),
            Err(only) => self.wait(only),
        }
    }

    /// Gives a server's count back, or hands it to the session that has waited longest for it. The
    /// outcome is for passive health, which nothing here depends on.
    #[must_use]
    pub fn release(&self, server: &Arc<Server>, _outcome: Outcome) -> Option<Grant> {
        if self.queue.len() > 0 && server.may_hand_on() {
            // The unit stays taken on its way to the next session: no pick can get it in between.
            if let Some(waiter) = self.queue.lock().pop_for(server.id) {
                return Some(Grant {
                    waiter,
                    server: Arc::clone(server),
                });
            }
        }
        server.give();
        if self.queue.len() == 0 {
            return None;
        }
        // A session may have entered after the first look, and found the unit still taken.
        self.serve(&mut self.queue.lock(), server)
    }

    /// Puts a session into the queue. A server may have been released since its `pick`: then it is
    /// granted at once and the session is not queued. `None` and queued otherwise. Where its coming
    /// raises a server's limit, the grant is for the one that has waited longest, and the session
    /// itself is queued unless this is the same.
    #[must_use]
    pub fn enqueue(&self, waiter: Waiter) -> Option<Grant> {
        let mut queue = self.queue.lock();
        // Loaded under the lock: a table published later finds the session in the queue.
        let table = self.table.load();
        let only = waiter.only.filter(|id| table.index_of(*id).is_some());
        let first = !only.map_or(queue.has_any(), |id| queue.waits_for(id));
        let bound_before = queue.has_bound();
        queue.push(waiter, only);
        if !first {
            // What becomes free is for those before: whoever releases it finds them. Room that
            // comes by a higher limit has no one else to find it.
            let raised = self.occupancy.is_some();
            return raised.then(|| self.serve_one(&mut queue, &table)).flatten();
        }
        let index = match only {
            Some(id) => table
                .index_of(id)
                .filter(|index| table.entries[*index].server.take()),
            None if !bound_before => self.choose_any(&table),
            None => (0..table.entries.len()).find(|index| {
                let server = &table.entries[*index].server;
                queue.bound_to(server.id) == 0 && server.take()
            }),
        }?;
        queue.remove(waiter);
        Some(Grant {
            waiter,
            server: Arc::clone(&table.entries[index].server),
        })
    }

    /// Takes a session out of the queue (timeout, abort); false if it had been granted meanwhile.
    pub fn dequeue(&self, waiter: Waiter) -> bool {
        self.queue.lock().remove(waiter)
    }

    /// Sessions in the queue now.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Most sessions that ever were in the queue at once (`qmax`).
    pub fn queued_peak(&self) -> usize {
        self.queue.peak()
    }

    /// Sessions in the queue that wait for this server alone (`qcur` of the server).
    pub fn queued_for(&self, server: ServerId) -> usize {
        if self.queue.len() == 0 {
            0
        } else {
            self.queue.lock().bound_to(server)
        }
    }

    /// Builds the table anew from the servers' states and publishes it. Only the control thread
    /// calls it. Returns the waiting sessions that a server can take now; sessions whose servers
    /// are all gone are left to `timeout queue`. A session that was bound to a server that is gone,
    /// while others are left, waits for any from now on.
    #[must_use]
    pub fn publish(&self) -> Vec<Grant> {
        let mut published = self
            .published
            .lock()
            .expect("nothing panics while it publishes");
        let table = Arc::new(self.build(&published.phases));
        if let Some(phase) = table.phase() {
            published.phases[table.set as usize] = Some(phase);
        }
        let before = self.table.swap(Arc::clone(&table));
        let retired = &mut published.retired;
        retired.push(before);
        retired.retain(|table| Arc::strong_count(table) > 1);
        if self.queue.len() == 0 || table.entries.is_empty() {
            return Vec::new();
        }
        let mut queue = self.queue.lock();
        queue.unbind(|id| table.index_of(id).is_some());
        self.serve_all(&mut queue, &table)
    }

    /// Notes whether any server is usable now, at this Unix time in seconds. Only the control
    /// thread calls it, after `publish`.
    pub fn note_availability(&self, now_s: u64) {
        let is_down = self.usable_servers().is_none();
        let mut availability = self.availability_locked();
        if is_down == availability.is_down {
            return;
        }
        if is_down {
            availability.downs += 1;
        } else {
            availability.downtime_s += now_s.saturating_sub(availability.changed_at_s);
        }
        availability.is_down = is_down;
        availability.changed_at_s = now_s;
    }

    /// Whether it has servers, and since when.
    pub fn availability(&self) -> Availability {
        *self.availability_locked()
    }

    fn availability_locked(&self) -> std::sync::MutexGuard<'_, Availability> {
        self.availability
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The word for the algorithm in statistics (`algo`).
    pub fn algorithm(&self) -> &'static str {
        match self.balance {
            Balance::RoundRobin => "roundrobin",
            Balance::LeastConn => "leastconn",
            Balance::Source(HashType::MapBased | HashType::Consistent) => "source",
        }
    }

    /// Connections of all servers now.
    pub fn active(&self) -> u64 {
        self.servers
            .iter()
            .map(|server| u64::from(server.active()))
            .sum()
    }

    /// Sessions that fill it (`slim` of the backend).
    pub fn fullconn(&self) -> u32 {
        self.fullconn
    }

    /// How many servers may be chosen at present, of either set.
    pub fn usable_servers(&self) -> Usable {
        Usable::of(&self.servers)
    }

    /// Sum of the weights of those in use (`weight` of the backend).
    pub fn usable_weight(&self) -> u32 {
        self.table.load().weight()
    }

    fn wait(&self, only: Option<ServerId>) -> Pick {
        if self.queue.len() >= QUEUE_MAX {
            Pick::Refuse
        } else {
            Pick::Wait { only }
        }
    }

    /// Takes a connection by the backend's algorithm: the index of the server, or the only server
    /// to wait for, if there is one.
    fn choose(&self, table: &Table, request: PickRequest) -> Result<usize, Option<ServerId>> {
        let PickRequest { client, avoid } = request;
        let cursors = &self.cursors[table.set as usize];
        let cursor = if avoid.is_none() {
            &cursors.first
        } else {
            &cursors.retry
        };
        let index = match (self.balance, client) {
            (Balance::LeastConn, _) => leastconn::choose(table, cursor, avoid),
            (Balance::Source(_), Some(client)) => {
                let hash = source::hash_client(self.hash_seed, client);
                if avoid.is_none() {
                    let home = source::home(table, hash);
                    let server = &table.entries[home].server;
                    if !self.has_full_queue(server) {
                        return if server.take() {
                            Ok(home)
                        } else {
                            Err(Some(server.id))
                        };
                    }
                    // Enough wait for it: any other is better than to wait longer.
                    return source::choose_other(table, hash, Some(server.id)).ok_or(None);
                }
                source::choose_other(table, hash, avoid)
            }
            // A client without an address has nothing to hash.
            (Balance::RoundRobin, _) | (Balance::Source(_), None) => {
                roundrobin::choose(table, cursor, avoid)
            }
        };
        // The server that failed is better than none.
        let avoided = || {
            table
                .index_of(avoid?)
                .filter(|index| table.entries[*index].server.take())
        };
        index.or_else(avoided).ok_or(None)
    }

    /// Takes a connection of any server.
    fn choose_any(&self, table: &Table) -> Option<usize> {
        self.choose(
            table,
            PickRequest {
                client: None,
                avoid: None,
            },
        )
        .ok()
    }

    /// Whether a new session has to wait because others already do, and for which server.
    fn behind_others(&self, table: &Table, request: PickRequest) -> Option<Option<ServerId>> {
        match (self.balance, request) {
            (
                Balance::Source(_),
                PickRequest {
                    client: Some(client),
                    avoid: None,
                },
            ) => {
                // The others may all be waiting for servers that this one has nothing to do with.
                let hash = source::hash_client(self.hash_seed, client);
                let home = &table.entries[source::home(table, hash)].server;
                if self.has_full_queue(home) {
                    return self.queue.lock().has_any().then_some(None);
                }
                self.queue
                    .lock()
                    .waits_for(home.id)
                    .then_some(Some(home.id))
            }
            (Balance::RoundRobin | Balance::LeastConn | Balance::Source(_), _) => Some(None),
        }
    }

    /// Whether as many sessions wait for this server alone as may (`maxqueue`).
    fn has_full_queue(&self, server: &Server) -> bool {
        let most = server.plan.maxqueue as usize;
        most > 0 && self.queued_for(server.id) >= most
    }

    /// Gives one connection of a server to the session that has waited longest for it, if it has
    /// room.
    fn serve(&self, queue: &mut Locked, server: &Arc<Server>) -> Option<Grant> {
        if !queue.waits_for(server.id) || !server.may_serve() || !server.take() {
            return None;
        }
        let waiter = queue.pop_for(server.id)?;
        Some(Grant {
            waiter,
            server: Arc::clone(server),
        })
    }

    /// Gives all the room there is to the sessions that have waited longest.
    fn serve_all(&self, queue: &mut Locked, table: &Table) -> Vec<Grant> {
        let mut grants = Vec::new();
        // While sessions wait for certain servers, each server in turn serves the first that it
        // may.
        while queue.has_bound() {
            let before = grants.len();
            let servers = table.entries.iter().map(|entry| &entry.server);
            grants.extend(servers.filter_map(|server| self.serve(queue, server)));
            if grants.len() == before {
                break;
            }
        }
        if !queue.has_bound() {
            grants.extend(std::iter::from_fn(|| self.serve_any(queue, table)));
        }
        grants
    }

    /// Gives room to one session that waits, of those that have waited longest for a server.
    fn serve_one(&self, queue: &mut Locked, table: &Table) -> Option<Grant> {
        if !queue.has_bound() {
            return self.serve_any(queue, table);
        }
        let mut servers = table.entries.iter().map(|entry| &entry.server);
        servers.find_map(|server| self.serve(queue, server))
    }

    /// Gives room to the session that has waited longest, if any server will do for it: the
    /// algorithm spreads them. Nobody waits for certain servers.
    fn serve_any(&self, queue: &mut Locked, table: &Table) -> Option<Grant> {
        if !queue.has_any() {
            return None;
        }
        let index = self.choose_any(table)?;
        let waiter = queue.pop_any().expect("a session waits for any server");
        Some(Grant {
            waiter,
            server: Arc::clone(&table.entries[index].server),
        })
    }

    /// The table of the servers that may be chosen now; each set goes on at its phase.
    fn build(&self, phases: &[Option<Phase>; Set::COUNT]) -> Table {
        let back = self.proxy.back.as_ref();
        let allbackups = back.is_some_and(|back| back.allbackups);
        let (set, servers) = sets::in_use(&self.servers, allbackups);
        let entry = |server: Arc<Server>| Entry {
            // Another thread may set the weight to 0 just now: the next table knows.
            weight: server.weight().max(1),
            server,
        };
        let entries: Vec<Entry> = servers.into_iter().map(entry).collect();
        let ring = (self.balance == Balance::Source(HashType::Consistent))
            .then(|| Ring::new(&self.ring_plan, &entries, |id| self.identities[&id]));
        let cursor = self.cursors[set as usize].first.load(Relaxed);
        Table::new(set, entries, ring, phases[set as usize], cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, address, backend, key, picked, server};
    use super::super::{Admin, Health};
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    const ANY: PickRequest = PickRequest {
        client: None,
        avoid: None,
    };

    fn waiter(slot: u32, only: Option<ServerId>) -> Waiter {
        Waiter {
            shard: ShardId(0),
            session: key(slot),
            only,
        }
    }

    fn granted(grant: &Option<Grant>) -> Option<(u32, u32)> {
        grant
            .as_ref()
            .map(|grant| (grant.waiter.session.slot, grant.server.id.0))
    }

    #[test]
    fn refuses_without_a_usable_server() {
        let backend = backend(Balance::RoundRobin, &[server(1, 0), server(0, 0)]);
        let usable = backend.usable_servers();
        assert_eq!((usable.active, backend.usable_weight()), (1, 1));
        assert!(matches!(backend.pick(ANY), Pick::Server(_)));
        for take_down in [
            (|s: &Server| s.set_admin(Admin::Drain)) as fn(&Server),
            |s| s.set_admin(Admin::Maintenance),
            |s| s.set_health(Health::Down),
            |s| s.set_weight(0),
        ] {
            take_down(&backend.servers[0]);
            assert!(backend.publish().is_empty());
            assert!(matches!(backend.pick(ANY), Pick::Refuse));
            backend.servers[0].set_admin(Admin::Ready);
            backend.servers[0].set_health(Health::Up);
            backend.servers[0].set_weight(1);
            assert!(backend.publish().is_empty());
            assert!(matches!(backend.pick(ANY), Pick::Server(_)));
        }
        assert_eq!((backend.active(), backend.servers[0].active_peak()), (5, 5));
    }

    #[test]
    fn the_failed_server_is_better_than_none() {
        for balance in testing::ALL {
            let backend = backend(balance, &[server(1, 1), server(1, 2)]);
            let retry = PickRequest {
                client: address(1),
                avoid: Some(ServerId(0)),
            };
            let picks: Vec<_> = (0..3).map(|_| picked(&backend.pick(retry))).collect();
            assert_eq!(picks, [Some(1), Some(1), Some(0)], "{balance:?}");
            assert!(
                matches!(backend.pick(retry), Pick::Wait { only: None }),
                "{balance:?}"
            );
        }
    }

    #[test]
    fn a_release_hands_on_in_order_and_nobody_overtakes() {
        let backend = backend(Balance::RoundRobin, &[server(1, 1)]);
        let Pick::Server(only) = backend.pick(ANY) else {
            panic!("room for one")
        };
        assert!(matches!(backend.pick(ANY), Pick::Wait { only: None }));
        for slot in 1..=3 {
            assert!(backend.enqueue(waiter(slot, None)).is_none());
        }
        assert_eq!((backend.queued(), backend.queued_peak()), (3, 3));
        assert!(backend.dequeue(waiter(2, None)) && !backend.dequeue(waiter(2, None)));
        let first = backend.release(&only, Outcome::Completed);
        assert_eq!(granted(&first), Some((1, 0)));
        assert_eq!(only.active(), 1);
        assert!(matches!(backend.pick(ANY), Pick::Wait { .. }));
        assert_eq!(
            granted(&backend.release(&only, Outcome::Abandoned)),
            Some((3, 0))
        );
        assert!(backend.release(&only, Outcome::ConnectFailed).is_none());
        assert_eq!((only.active(), backend.queued()), (0, 0));
    }

    #[test]
    fn entering_the_queue_looks_for_room_once_more() {
        let backend = backend(Balance::LeastConn, &[server(1, 1), server(1, 1)]);
        let servers: Vec<_> = (0..2)
            .map(|_| picked(&backend.pick(ANY)).unwrap())
            .collect();
        assert!(matches!(backend.pick(ANY), Pick::Wait { .. }));
        let freed = &backend.servers[servers[0] as usize];
        assert!(backend.release(freed, Outcome::Completed).is_none());
        assert_eq!(
            granted(&backend.enqueue(waiter(1, None))),
            Some((1, servers[0]))
        );
        assert_eq!((backend.queued(), freed.active()), (0, 1));
    }

    #[test]
    fn a_server_in_drain_gets_nobody_and_publish_serves_the_rest() {
        let backend = backend(Balance::RoundRobin, &[server(1, 1), server(1, 1)]);
        for _ in 0..2 {
            assert!(matches!(backend.pick(ANY), Pick::Server(_)));
        }
        for slot in 0..5 {
            assert!(backend.enqueue(waiter(slot, None)).is_none());
        }
        backend.servers[0].set_admin(Admin::Drain);
        assert!(backend.publish().is_empty());
        assert!(
            backend
                .release(&backend.servers[0], Outcome::Completed)
                .is_none()
        );
        assert_eq!(backend.servers[0].active(), 0);
        backend.servers[1].set_maxconn(3);
        let grants: Vec<_> = backend
            .publish()
            .into_iter()
            .map(|g| granted(&Some(g)))
            .collect();
        assert_eq!(grants, [Some((0, 1)), Some((1, 1))]);
        backend.servers[0].set_admin(Admin::Ready);
        let grants: Vec<_> = backend
            .publish()
            .into_iter()
            .map(|g| granted(&Some(g)))
            .collect();
        assert_eq!(grants, [Some((2, 0))]);
        // A lower bound: what is above it goes without being handed on.
        backend.servers[1].set_maxconn(1);
        assert!(backend.publish().is_empty());
        assert!(
            backend
                .release(&backend.servers[1], Outcome::Completed)
                .is_none()
        );
        assert!(
            backend
                .release(&backend.servers[1], Outcome::Completed)
                .is_none()
        );
        let grant = backend.release(&backend.servers[1], Outcome::Completed);
        assert_eq!(
            (granted(&grant), backend.servers[1].active()),
            (Some((3, 1)), 1)
        );
        assert_eq!(backend.queued(), 1);
    }

    #[test]
    fn hashed_sessions_wait_for_their_server_alone() {
        let backend = backend(
            Balance::Source(HashType::Consistent),
            &[server(1, 1), server(1, 1)],
        );
        let client_of = |id: u32| {
            let home =
                |n: &u32| picked(&testing::pick_and_release(&backend, address(*n))) == Some(id);
            address((0..100).find(home).unwrap())
        };
        let (of_0, of_1) = (client_of(0), client_of(1));
        let pick = |client| {
            backend.pick(PickRequest {
                client,
                avoid: None,
            })
        };
        assert_eq!(picked(&pick(of_0)), Some(0));
        assert!(matches!(
            pick(of_0),
            Pick::Wait {
                only: Some(ServerId(0))
            }
        ));
        assert!(backend.enqueue(waiter(1, Some(ServerId(0)))).is_none());
        assert_eq!(backend.queued_for(ServerId(0)), 1);
        // The other server's clients don't wait behind it.
        assert_eq!(picked(&pick(of_1)), Some(1));
        assert!(backend.enqueue(waiter(2, Some(ServerId(1)))).is_none());
        assert!(backend.enqueue(waiter(3, Some(ServerId(0)))).is_none());
        let grant = backend.release(&backend.servers[1], Outcome::Completed);
        assert_eq!(granted(&grant), Some((2, 1)));
        assert!(
            backend
                .release(&backend.servers[1], Outcome::Completed)
                .is_none()
        );
        // When its server goes, a bound session takes any.
        backend.servers[0].set_health(Health::Down);
        let grants: Vec<_> = backend
            .publish()
            .into_iter()
            .map(|g| granted(&Some(g)))
            .collect();
        assert_eq!(grants, [Some((1, 1))]);
        assert_eq!((backend.queued(), backend.queued_for(ServerId(0))), (1, 0));
        let grant = backend.release(&backend.servers[1], Outcome::Completed);
        assert_eq!(granted(&grant), Some((3, 1)));
    }

    #[test]
    fn publishing_frees_the_tables_nobody_reads() {
        let backend = backend(Balance::RoundRobin, &[server(1, 0)]);
        for _ in 0..10 {
            assert!(backend.publish().is_empty());
        }
        assert!(backend.published.lock().unwrap().retired.len() <= 1);
    }

    /// One shard releases the only unit at the moment when another one enters the queue: in each
    /// round the newcomer gets it, whichever way the two interleave.
    #[test]
    fn a_release_and_an_arrival_never_miss_each_other() {
        const ROUNDS: usize = 100_000;
        let backend = &backend(Balance::RoundRobin, &[server(1, 1)]);
        let (begun, ended) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
        let queued = &AtomicBool::new(false);
        let mut forgotten = 0;
        let reach = |counter: &AtomicUsize, round| {
            let mut looks = 0u32;
            while counter.load(SeqCst) < round {
                looks += 1;
                // Both threads have to be quick to meet, but there may be one CPU only.
                if looks.is_multiple_of(256) {
                    std::thread::yield_now()
                } else {
                    std::hint::spin_loop()
                }
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    reach(begun, round);
                    let waiter = waiter(round as u32, None);
                    let got = match backend.pick(ANY) {
                        Pick::Server(server) => Some(server),
                        Pick::Wait { .. } => backend.enqueue(waiter).map(|grant| grant.server),
                        Pick::Refuse => panic!("the server is usable"),
                    };
                    queued.store(got.is_none(), SeqCst);
                    if let Some(server) = got {
                        assert!(backend.release(&server, Outcome::Completed).is_none());
                    }
                    ended.store(round, SeqCst);
                }
            });
            for round in 1..=ROUNDS {
                let Pick::Server(server) = backend.pick(ANY) else {
                    panic!("round {round}")
                };
                begun.store(round, SeqCst);
                // Try all the ways to meet: from before the other's pick to after its entering.
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                let grant = backend.release(&server, Outcome::Completed);
                reach(ended, round);
                forgotten += usize::from(queued.load(SeqCst) && grant.is_none());
                for grant in grant.into_iter().chain(backend.publish()) {
                    assert!(backend.release(&grant.server, Outcome::Completed).is_none());
                }
            }
        });
        assert_eq!(forgotten, 0, "of {ROUNDS} newcomers");
    }
}
