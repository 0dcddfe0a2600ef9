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

use arc_swap::{ArcSwap, Guard};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::bound::Bound;
use super::builder::Builder;
use super::datagram::quic_lb::ServerIds;
use super::peak_ewma::{self, LatencyClock};
use super::queue::{Locked, QUEUE_MAX, Queue};
use super::ramp::Occupancy;
use super::server::Server;
use super::sets::{Cursors, Set, Usable};
use super::table::{Entry, Phase, Table};
use super::timings::Timings;
use crate::base::ids::{ServerId, SessionKey, ShardId};
use crate::base::time::Moment;
use crate::config::plan::{self, Balance, HashKey, HashKind, Proxy};

/// What a pick depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickRequest<'a> {
    /// The client's address; `None` for Unix clients, and where nothing asks for it.
    pub client: Option<SocketAddr>,
    /// The address that the client connected to; `None` as above.
    pub local: Option<SocketAddr>,
    /// The client's datagram that asks for a server; `None` of streams. It is read only where the
    /// backend's choice depends on it.
    pub datagram: Option<&'a [u8]>,
    /// A retry after this server failed: chosen again only if no other is usable, and the
    /// round-robin cursor is not advanced.
    pub avoid: Option<ServerId>,
}

impl PickRequest<'_> {
    /// Of a connection about which nothing is known.
    pub(super) const ANY: PickRequest<'static> = PickRequest {
        client: None,
        local: None,
        datagram: None,
        avoid: None,
    };
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

/// A backend as one configuration has it. What outlasts a reload is its `Lasting` part, and with
/// it the table that is published: whoever still holds a backend of an earlier configuration picks
/// by the present one, waits in the same queue and gives back to the same counts.
#[derive(Debug)]
pub struct Backend {
    /// What the config says of it.
    pub proxy: Arc<Proxy>,
    /// Its servers, in the order of the config; behind them those that the config has no more, as
    /// long as they have connections.
    pub servers: Vec<Arc<Server>>,
    /// The configuration has it no more: it is there until its last session has ended.
    pub is_removed: bool,
    pub(super) policy: Arc<Policy>,
    /// Whether its sessions count in the occupancy: a server's limit depends on it.
    counts_sessions: bool,
    /// Sessions at which its servers reach their `maxconn`.
    fullconn: u32,
    /// Its servers by what connection IDs name them.
    server_ids: Option<ServerIds>,
    pub(super) lasting: Arc<Lasting>,
}

/// How servers are chosen, as one configuration has it.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) balance: Balance,
    pub(super) seeds: Seeds,
    builder: Builder,
    /// What a server may have of all connections, where a hash is bounded.
    pub(super) bound: Option<Bound>,
}

/// What of a backend outlasts a reload.
#[derive(Debug)]
pub(super) struct Lasting {
    table: ArcSwap<Table>,
    published: Mutex<Published>,
    /// Turns, by set.
    pub(super) cursors: [Cursors; Set::COUNT],
    /// How late it is, as far as connect times tell.
    pub(super) latency_clock: LatencyClock,
    /// How full it is.
    occupancy: Arc<Occupancy>,
    pub(super) queue: Queue,
    availability: Mutex<Availability>,
}

/// What a backend's choices begin from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// Of hashes: the plan's, which is public and the same in every process.
    pub hash: u64,
    /// Of draws: one of its own for every process, or all would draw alike.
    pub draws: u64,
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
    /// The live state of a planned backend; `fullconn` is the effective number of sessions that
    /// fill it, `begun` how often its servers' checks count as begun. Its first table is
    /// published. A proxy without a connecting side has no servers and refuses every pick.
    pub fn new(
        proxy: Arc<Proxy>,
        shards: usize,
        seeds: Seeds,
        fullconn: u32,
        begun: u32,
    ) -> Backend {
        let plans = proxy.back.as_ref().map_or(&[][..], |back| &back.servers);
        let occupancy = Arc::new(Occupancy::new(fullconn));
        let server = |(plan, timings): (&Arc<plan::Server>, _)| {
            let (plan, name) = (Arc::clone(plan), Arc::clone(&proxy.name));
            Arc::new(Server::new(plan, name, shards, &occupancy, timings, begun))
        };
        let timings = Timings::for_servers(plans.len(), shards);
        let servers: Vec<_> = plans.iter().zip(timings).map(server).collect();
        let balance = balance_of(&proxy);
        let bound = bound_percent(balance).and_then(Bound::new);
        let policy = Arc::new(Policy::new(&proxy, seeds, bound));
        let cursors = Default::default();
        let table = policy.table(&[], &Default::default(), &cursors);
        let lasting = Lasting {
            table: ArcSwap::from_pointee(table),
            published: Mutex::default(),
            cursors,
            latency_clock: LatencyClock::default(),
            occupancy,
            queue: Queue::default(),
            availability: Mutex::default(),
        };
        let backend = Backend::over(proxy, servers, policy, fullconn, Arc::new(lasting));
        backend.begin();
        backend
    }

    fn over(
        proxy: Arc<Proxy>,
        servers: Vec<Arc<Server>>,
        policy: Arc<Policy>,
        fullconn: u32,
        lasting: Arc<Lasting>,
    ) -> Backend {
        let back = proxy.back.as_ref();
        Backend {
            is_removed: false,
            policy,
            counts_sessions: servers.iter().any(|server| server.plan.minconn > 0),
            fullconn,
            server_ids: back.and_then(ServerIds::new),
            lasting,
            servers,
            proxy,
        }
    }

    /// The same backend as a later configuration has it; its table is that of before until it is
    /// published. Servers stay what they were where nothing changes for them. One that is not
    /// planned any more is removed: it is behind the others while it has connections. New servers'
    /// checks count as `begun` so often.
    pub fn next(
        &self,
        proxy: Arc<Proxy>,
        shards: usize,
        seeds: Seeds,
        fullconn: u32,
        begun: u32,
    ) -> Backend {
        let plans = proxy.back.as_ref().map_or(&[][..], |back| &back.servers);
        let known = self.servers.iter().map(|server| (server.id, server));
        let known: HashMap<ServerId, &Arc<Server>> = known.collect();
        let occupancy = &self.lasting.occupancy;
        occupancy.set_fullconn(fullconn);
        let server = |plan: &Arc<plan::Server>| match known.get(&plan.server_id) {
            Some(server) if server.plan.is_same(plan) && !server.is_removed() => Arc::clone(server),
            Some(server) => Arc::new(server.next(Arc::clone(plan))),
            None => {
                let (plan, name) = (Arc::clone(plan), Arc::clone(&proxy.name));
                let timings = self.timings_for_one_more(shards);
                Arc::new(Server::new(plan, name, shards, occupancy, timings, begun))
            }
        };
        let mut servers: Vec<_> = plans.iter().map(server).collect();
        let kept: HashSet<ServerId> = plans.iter().map(|plan| plan.server_id).collect();
        let gone = self.servers.iter();
        let gone = gone.filter(|server| !kept.contains(&server.id));
        servers.extend(gone.filter_map(removed));
        let connections = servers.iter().map(|server| server.active());
        let connections = connections.fold(0, u32::saturating_add);
        let before = self.policy.bound.as_ref();
        let bound = bound_percent(balance_of(&proxy))
            .and_then(|percent| Bound::next(percent, before, connections));
        let policy = Arc::new(Policy::new(&proxy, seeds, bound));
        let lasting = Arc::clone(&self.lasting);
        Backend::over(proxy, servers, policy, fullconn, lasting)
    }

    /// Histograms for a server that comes: those of all, where its servers have one between them.
    fn timings_for_one_more(&self, shards: usize) -> Arc<Timings> {
        let mut timings = self.servers.iter().map(|server| &server.timings);
        match timings.find(|timings| timings.is_shared) {
            Some(shared) => Arc::clone(shared),
            None => Timings::for_one(shards),
        }
    }

    /// The same backend, of which the configuration knows nothing any more. Its sessions go on and
    /// those that wait are served; nothing is checked.
    #[must_use]
    pub fn removed(&self) -> Backend {
        let mut proxy = (*self.proxy).clone();
        if let Some(back) = &mut proxy.back {
            for server in &mut back.servers {
                *server = Arc::new(unwatched(server));
            }
        }
        let next = self.next(Arc::new(proxy), 0, self.policy.seeds, self.fullconn, 0);
        Backend {
            is_removed: true,
            ..next
        }
    }

    /// Whether it is as planned, and its servers too.
    pub fn is_planned(&self, proxy: &Proxy, seeds: Seeds, fullconn: u32) -> bool {
        let same = (seeds, fullconn) == (self.policy.seeds, self.fullconn);
        let mut gone = self.servers.iter().filter(|server| server.is_removed());
        same && !self.is_removed
            && self.proxy.is_same(proxy)
            && gone.all(|server| server.active() > 0)
    }

    /// What its choices begin from.
    pub fn seeds(&self) -> Seeds {
        self.policy.seeds
    }

    /// Whether nothing of it is left: no session, none that waits, no connection.
    pub fn is_idle(&self) -> bool {
        self.queued() == 0 && self.servers.iter().all(|server| server.active() == 0)
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
        if self.counts_sessions {
            self.lasting.occupancy.enter();
        }
    }

    /// A session that came has ended: called once, before the last `release`, so that this finds
    /// the limits of those that stay.
    pub fn leave(&self) {
        if self.counts_sessions {
            self.lasting.occupancy.leave();
        }
    }

    /// Chooses a server and takes its count: the one that the datagram names (`quic-lb`), else one
    /// by the algorithm.
    pub fn pick(&self, request: PickRequest<'_>) -> Pick {
        let table = self.table();
        if let Some(server) = request.datagram.and_then(|d| self.server_of_datagram(d))
            && request.avoid != Some(server.id)
        {
            return if server.take() {
                Pick::Server(taken(&table, server))
            } else {
                // No other server knows the connection.
                self.wait(Some(server.id))
            };
        }
        if table.entries.is_empty() {
            return Pick::Refuse;
        }
        if self.queue().len() > 0
            && let Some(only) = self.behind_others(&table, request)
        {
            return self.wait(only);
        }
        match self.choose(&table, request) {
            Ok(index) => Pick::Server(taken(&table, &table.entries[index].server)),
            Err(only) => self.wait(only),
        }
    }

    /// The server that knows the connection of a datagram, as its connection ID says
    /// (`quic-lb`), in service, if only to be drained. `None` = nothing is known; the algorithm
    /// decides. No count is taken.
    pub fn server_of_datagram(&self, datagram: &[u8]) -> Option<&Arc<Server>> {
        let index = self.server_ids.as_ref()?.find(datagram)?;
        let server = &self.servers[index];
        (server.resolved() && server.in_service()).then_some(server)
    }

    /// Takes a count of a server that nobody has chosen: it speaks first. False if it has no room.
    #[must_use]
    pub fn take(&self, server: &Arc<Server>) -> bool {
        let has_room = server.take();
        if has_room && let Some(bound) = &self.table().policy.bound {
            bound.took();
        }
        has_room
    }

    /// Gives a server's count back, or hands it to the session that has waited longest for it. The
    /// outcome is for passive health, which nothing here depends on.
    #[must_use]
    pub fn release(&self, server: &Arc<Server>, _outcome: Outcome) -> Option<Grant> {
        if self.queue().len() > 0 && server.may_hand_on() {
            let mut queue = self.queue().lock();
            // The unit stays taken on its way to the next session: no pick can get it in between.
            if queue.waits_for(server.id)
                && server.spend_allowance()
                && let Some(waiter) = queue.pop_for(server.id)
            {
                return Some(Grant {
                    waiter,
                    server: present(&self.table(), server),
                });
            }
        }
        if let Some(bound) = &self.table().policy.bound {
            bound.gives();
        }
        server.give();
        if self.queue().len() == 0 {
            return None;
        }
        // A session may have entered after the first look, and found the unit still taken.
        self.serve(&mut self.queue().lock(), server)
    }

    /// Puts a session into the queue. A server may have been released since its `pick`: then it is
    /// granted at once and the session is not queued. `None` and queued otherwise. Where its coming
    /// raises a server's limit, the grant is for the one that has waited longest, and the session
    /// itself is queued unless this is the same.
    #[must_use]
    pub fn enqueue(&self, waiter: Waiter) -> Option<Grant> {
        let mut queue = self.queue().lock();
        // Loaded under the lock: a table published later finds the session in the queue.
        let table = self.table();
        let only = waiter.only.filter(|id| table.index_of(*id).is_some());
        let first = !only.map_or(queue.has_any(), |id| queue.waits_for(id));
        let bound_before = queue.has_bound();
        queue.push(waiter, only);
        if !first {
            // What becomes free is for those before: whoever releases it finds them. Room that
            // comes by a higher limit has no one else to find it.
            let raised = self.counts_sessions;
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
            server: taken(&table, &table.entries[index].server),
        })
    }

    /// Takes a session out of the queue (timeout, abort); false if it had been granted meanwhile.
    pub fn dequeue(&self, waiter: Waiter) -> bool {
        self.queue().lock().remove(waiter)
    }

    /// Sessions in the queue now.
    pub fn queued(&self) -> usize {
        self.queue().len()
    }

    /// Most sessions that ever were in the queue at once (`qmax`).
    pub fn queued_peak(&self) -> usize {
        self.queue().peak()
    }

    /// Has the most sessions that ever waited begin anew, with those that wait.
    pub fn clear_queued_peak(&self) {
        self.queue().clear_peak();
    }

    /// Sessions in the queue that wait for this server alone (`qcur` of the server).
    pub fn queued_for(&self, server: ServerId) -> usize {
        if self.queue().len() == 0 {
            0
        } else {
            self.queue().lock().bound_to(server)
        }
    }

    /// Builds the table anew from the servers' states and publishes it. Only the control thread
    /// calls it. Returns the waiting sessions that a server can take now; sessions whose servers
    /// are all gone are left to `timeout queue`. A session that was bound to a server that is gone,
    /// while others are left, waits for any from now on.
    #[must_use]
    pub fn publish(&self) -> Vec<Grant> {
        let mut published = self
            .lasting
            .published
            .lock()
            .expect("nothing panics while it publishes");
        let cursors = &self.lasting.cursors;
        let table = self.policy.table(&self.servers, &published.phases, cursors);
        let table = Arc::new(table);
        if let Some(phase) = table.phase() {
            published.phases[table.set as usize] = Some(phase);
        }
        let before = self.lasting.table.swap(Arc::clone(&table));
        let retired = &mut published.retired;
        retired.push(before);
        retired.retain(|table| Arc::strong_count(table) > 1);
        if self.queue().len() == 0 || table.entries.is_empty() {
            return Vec::new();
        }
        let mut queue = self.queue().lock();
        queue.unbind(|id| table.index_of(id).is_some());
        self.serve_all(&mut queue, &table)
    }

    /// Gives all the room there is to waiting sessions, where no more than limits and allowances
    /// has changed since the table was published. Only the control thread calls it.
    pub(super) fn serve_waiting(&self) -> Vec<Grant> {
        let table = self.table();
        if self.queue().len() == 0 || table.entries.is_empty() {
            return Vec::new();
        }
        self.serve_all(&mut self.queue().lock(), &table)
    }

    /// Whether the published table has other weights than the servers.
    pub(super) fn weights_have_changed(&self) -> bool {
        let table = self.table();
        let mut entries = table.entries.iter();
        entries.any(|entry| entry.share != Entry::new(&entry.server, self.policy.balance).share)
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

    /// Has its losses of the last server counted anew.
    pub fn clear_downs(&self) {
        self.availability_locked().downs = 0;
    }

    /// Whether its weights are those of the file, whatever is set while it runs, 0 aside.
    pub fn is_static(&self) -> bool {
        self.policy.balance.is_static()
    }

    /// Whether it has servers, and since when.
    pub fn availability(&self) -> Availability {
        *self.availability_locked()
    }

    fn availability_locked(&self) -> std::sync::MutexGuard<'_, Availability> {
        self.lasting
            .availability
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The word for the algorithm in statistics (`algo`).
    pub fn algorithm(&self) -> &'static str {
        match self.policy.balance {
            Balance::RoundRobin => "roundrobin",
            Balance::StaticRr => "static-rr",
            Balance::LeastConn => "leastconn",
            Balance::PeakEwma => "peak-ewma",
            Balance::First => "first",
            Balance::Random { .. } => "random",
            Balance::Hash(hash) => match hash.key {
                HashKey::Source => "source",
                HashKey::Expression(_) => "hash",
            },
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
        self.table().weight()
    }

    /// The same, slow starts aside (`uweight` of the backend).
    pub fn usable_user_weight(&self) -> u32 {
        self.table().user_weight()
    }

    /// A session was connected to a server, in so many microseconds.
    pub fn note_connect(&self, server: &Server, us: u64, now: Moment) {
        if self.policy.balance == Balance::PeakEwma {
            self.lasting.latency_clock.note(server, us, now);
        }
    }

    /// A connect to a server has failed.
    pub fn note_connect_failure(&self, server: &Server, now: Moment) {
        let back = self.proxy.back.as_ref();
        let timeout_ms = back.map_or(0, |back| back.timeout_connect_ms);
        self.note_connect(server, peak_ewma::penalty_us(timeout_ms), now);
    }

    fn wait(&self, only: Option<ServerId>) -> Pick {
        if self.queue().len() >= QUEUE_MAX {
            Pick::Refuse
        } else {
            Pick::Wait { only }
        }
    }

    /// Gives one connection of a server to the session that has waited longest for it, if it has
    /// room.
    fn serve(&self, queue: &mut Locked, server: &Arc<Server>) -> Option<Grant> {
        if !queue.waits_for(server.id) || !server.may_serve() || !server.take() {
            return None;
        }
        let waiter = queue.pop_for(server.id)?;
        let table = self.table();
        Some(Grant {
            waiter,
            server: taken(&table, &present(&table, server)),
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
            server: taken(table, &table.entries[index].server),
        })
    }

    /// The table in force.
    pub(super) fn table(&self) -> Guard<Arc<Table>> {
        self.lasting.table.load()
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.lasting.queue
    }
}

impl Policy {
    fn new(proxy: &Proxy, seeds: Seeds, bound: Option<Bound>) -> Policy {
        Policy {
            balance: balance_of(proxy),
            seeds,
            builder: Builder::new(proxy.back.as_ref(), seeds.hash),
            bound,
        }
    }

    fn table(
        self: &Arc<Policy>,
        servers: &[Arc<Server>],
        phases: &[Option<Phase>; Set::COUNT],
        cursors: &[Cursors; Set::COUNT],
    ) -> Table {
        self.builder.build(self, servers, phases, cursors)
    }
}

/// A server of which a connection has just been taken.
fn taken(table: &Table, server: &Arc<Server>) -> Arc<Server> {
    if let Some(bound) = &table.policy.bound {
        bound.took();
    }
    Arc::clone(server)
}

/// A server as the configuration in force has it: a session may hold an earlier one.
fn present(table: &Table, server: &Arc<Server>) -> Arc<Server> {
    let superseded = server.is_superseded();
    let index = superseded.then(|| table.index_of(server.id)).flatten();
    let server = index.map_or(server, |index| &table.entries[index].server);
    Arc::clone(server)
}

/// A server that is not planned any more, while it has connections.
fn removed(server: &Arc<Server>) -> Option<Arc<Server>> {
    if server.is_removed() {
        return (server.active() > 0).then(|| Arc::clone(server));
    }
    let next = server.next(Arc::new(unwatched(&server.plan)));
    next.remove();
    Some(Arc::new(next))
}

/// A server about which nobody asks any more.
fn unwatched(plan: &plan::Server) -> plan::Server {
    plan::Server {
        check: None,
        watch: plan::Watch::default(),
        passive: plan::Passive::default(),
        ..plan.clone()
    }
}

fn balance_of(proxy: &Proxy) -> Balance {
    let back = proxy.back.as_ref();
    back.map_or(Balance::RoundRobin, |back| back.balance)
}

/// The map has no places to go on to, and HAProxy bounds none of its servers.
fn bound_percent(balance: Balance) -> Option<u32> {
    match balance {
        Balance::Hash(hash) if hash.method.kind != HashKind::MapBased => Some(hash.factor),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
