//! What all shards and the control thread share: the live frontends and backends, limits, ports.
//!
//! A world never changes but for its counters. A reload makes the next one of it: what the new plan
//! has as it was is the same in both, what lives on (counts, statistics, health) is shared, and
//! what the plan has no more is there until nothing is left of it, marked as removed. Numbers mean
//! the same in all worlds; one is used again when no shard has a world in which it meant another.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst,
};

use super::control_port::ControlPort;
use super::listener_counters::{self, ListenerCounters};
use super::port::ShardPort;
use super::record::LogQueue;
use super::refusals::Refusals;
use super::spread::Serving;
use crate::base::counters::ShardCounters;
use crate::base::hash;
use crate::base::ids::{ListenerId, ProxyId, ServerId};
use crate::base::limits::{LimitId, LimitKey, LimitTable, ShardSet};
use crate::base::rate::Rate;
use crate::base::source_counts::SourceCounts;
use crate::config::plan::{Endpoint, Front, Listener, Plan, Proxy};
use crate::lb::{self, Backend, Destination, Seeds, Server};
use crate::limits;

/// Counters of a frontend, indices of [`Frontend::counters`]. A backend has the same ones, in
/// [`World::back_counters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum FrontCounter {
    /// Connections accepted (`conn_tot`).
    Connections,
    /// Sessions (`stot`).
    Sessions,
    /// Sessions open now (added on start, subtracted on end, modulo 2^64).
    Active,
    /// Bytes from clients.
    BytesIn,
    /// Bytes to clients.
    BytesOut,
    /// Failed requests: the client left before any data (`ereq`).
    RequestErrors,
    /// Connect errors after all retries (`econ`).
    ConnectErrors,
    /// Broken by the server (`eresp`).
    ResponseErrors,
    /// Retries.
    Retries,
    /// Redispatches.
    Redispatches,
    /// Sessions ended by the client's abort.
    ClientAborts,
    /// Sessions ended by the server's abort.
    ServerAborts,
    /// Connections closed at once because of a resource (descriptors, memory).
    ResourceErrors,
    /// Sum of connect times, microseconds.
    ConnectTimeUs,
    /// Sum of queue times, microseconds.
    QueueTimeUs,
    /// Sum of session times, milliseconds.
    SessionTimeMs,
    /// Datagrams from clients.
    DatagramsIn,
    /// Datagrams to clients.
    DatagramsOut,
}

impl FrontCounter {
    /// How many there are.
    pub const COUNT: usize = 18;
}

/// Counters of a proxy by shard.
pub type ProxyCounters = ShardCounters<{ FrontCounter::COUNT }>;

/// A frontend's live state.
#[derive(Debug)]
pub struct Frontend {
    /// What the config says of it.
    pub proxy: Arc<Proxy>,
    /// The configuration has it no more: it is there until its last session has ended.
    pub is_removed: bool,
    /// Its limit in [`World::limits`] (always present; unlimited when `maxconn` is 0). Its
    /// `current` is the number of open sessions, its `peak` the most there ever were.
    pub limit: LimitId,
    /// What operators say of it.
    state: Arc<AtomicU8>,
    /// `rate-limit sessions`.
    pub rate: Arc<Rate>,
    /// `udp-source-flows`: what each client address has, where there is a bound.
    pub(super) flow_sources: Option<Arc<SourceCounts>>,
    /// Counters.
    pub counters: Arc<ProxyCounters>,
    /// Clients that were closed for their PROXY header.
    pub refusals: Arc<Refusals>,
}

/// What operators say of a frontend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrontState {
    /// Clients may come.
    Open = 0,
    /// Clients wait in the queues of its sockets.
    Paused = 1,
    /// Its sockets are closed for good; its sessions go on.
    Shut = 2,
}

impl Frontend {
    /// What operators say of it.
    pub fn state(&self) -> FrontState {
        match self.state.load(SeqCst) {
            0 => FrontState::Open,
            1 => FrontState::Paused,
            _ => FrontState::Shut,
        }
    }

    /// Sets it. The caller has the shards look at their acceptors afterwards
    /// ([`ShardPort::look_at_acceptors`](super::ShardPort::look_at_acceptors)).
    pub fn set_state(&self, state: FrontState) {
        self.state.store(state as u8, SeqCst);
    }

    /// Client addresses that have flows now, where `udp-source-flows` bounds them (simulation).
    pub fn sources(&self) -> usize {
        let sources = self.flow_sources.as_ref();
        sources.map_or(0, |sources| sources.addresses())
    }
}

/// The bounds of rates of the process, as they are shown.
#[derive(Debug, Default)]
pub struct RateLimits {
    /// `maxconnrate`.
    pub connections: AtomicU32,
    /// `maxsessrate`.
    pub sessions: AtomicU32,
}

impl RateLimits {
    /// The lower one, 0 = no bound: a connection is a session here.
    pub fn lowest(&self) -> u32 {
        let rates = [&self.connections, &self.sessions].map(|rate| rate.load(Relaxed));
        let set = rates.into_iter().filter(|rate| *rate > 0);
        set.min().unwrap_or(0)
    }
}

/// A listener and who serves it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// What the config says of it.
    pub plan: Arc<Listener>,
    /// Its shards.
    pub(super) serving: Arc<Serving>,
    /// Its statistics, where its frontend wants them.
    pub counters: Option<Arc<ListenerCounters>>,
    /// The configuration has it no more: it is there until its last session has ended.
    pub is_removed: bool,
}

/// What the process may use, as it was computed at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Connections.
    pub maxconn: u32,
    /// Bytes of private relay memory.
    pub memory_max: u64,
    /// Pipes.
    pub pipes_max: u32,
}

/// Everything shared between threads, as one configuration has it.
#[derive(Debug)]
pub struct World {
    /// Which one of the process, from 0 on.
    pub generation: u64,
    /// The configuration in force. Behind its proxies are those that it has no more, see
    /// [`World::configured`].
    pub plan: Arc<Plan>,
    /// How many proxies of the plan are configured.
    configured: usize,
    /// By `ProxyId`; `None` for pure backends.
    pub frontends: Vec<Option<Arc<Frontend>>>,
    /// By `ProxyId`; `None` for pure frontends.
    pub backends: Vec<Option<Arc<Backend>>>,
    /// Counters of backends, by `ProxyId`.
    pub back_counters: Vec<Arc<ProxyCounters>>,
    /// Where each server is, by `ServerId`.
    places: Vec<Option<(ProxyId, usize)>>,
    /// By `ListenerId`.
    pub listeners: Vec<Option<Listening>>,
    /// Connection limits: process, frontends, listeners.
    pub limits: LimitTable,
    /// The process's own slot in `limits`; its bound is the effective `maxconn`.
    pub process_limit: LimitId,
    /// Flows of the process in `limits`.
    pub flows_limit: LimitId,
    /// Sockets towards servers that flows may have, of all shards.
    pub flow_sockets_max: u32,
    /// `maxconnrate` and `maxsessrate`, whichever is lower: a connection is a session here.
    pub process_rate: Arc<Rate>,
    /// Each of them, 0 = no bound.
    pub rate_limits: Arc<RateLimits>,
    /// One port per shard.
    pub ports: Vec<Arc<ShardPort>>,
    /// What shards tell the control thread of servers.
    pub control: Arc<ControlPort>,
    /// Session records on their way to the log thread.
    pub log_queue: Arc<LogQueue>,
    /// Unix time in milliseconds at monotonic zero: shards make wall-clock stamps from it.
    pub unix_ms_at_zero: Arc<AtomicU64>,
    /// A successor has been given the listening sockets that it can be given.
    pub handed_over: Arc<AtomicBool>,
    /// A process that drains has found another one with sockets of its own on an address that
    /// datagrams come to.
    pub replaced: Arc<AtomicBool>,
    /// Where ports towards servers are chosen here.
    pub destinations: Vec<Arc<Destination>>,
    /// Connections that the process was made for.
    pub capacity: u32,
    /// Pipes the process may have, of all shards.
    pub pipes_max: u32,
    /// Pipes the process has, of all shards, lent and in pools.
    pub pipes_made: Arc<AtomicU32>,
    /// Bytes of private relay memory the process may use.
    pub memory_max: u64,
    /// Bytes of private relay memory reserved now, of all shards.
    pub memory_reserved: Arc<AtomicU64>,
}

impl World {
    /// The live state of a plan, for `ports.len()` shards, within its bounds.
    pub fn new(
        plan: Arc<Plan>,
        ports: Vec<Arc<ShardPort>>,
        control: Arc<ControlPort>,
        log_queue: Arc<LogQueue>,
        bounds: Bounds,
        unix_ms_at_zero: u64,
    ) -> World {
        let Bounds {
            maxconn,
            memory_max,
            pipes_max,
        } = bounds;
        // The start has computed what the configuration leaves open.
        let flows_max = plan.global.udp_flows_max;
        let flows_max = flows_max.unwrap_or(limits::FLOWS_COMPUTED_MAX);
        let sockets_max = plan.global.udp_sockets_max;
        let flow_sockets_max = sockets_max.unwrap_or(limits::FLOW_SOCKETS_MIN);
        let limits = LimitTable::new(&[(LimitKey::Process, maxconn), (LimitKey::Flows, flows_max)]);
        let process_limit = limits.find(LimitKey::Process).expect("just entered");
        let flows_limit = limits.find(LimitKey::Flows).expect("just entered");
        let empty = World {
            generation: 0,
            plan: Arc::default(),
            configured: 0,
            frontends: Vec::new(),
            backends: Vec::new(),
            back_counters: Vec::new(),
            places: Vec::new(),
            listeners: Vec::new(),
            limits,
            process_limit,
            flows_limit,
            flow_sockets_max,
            process_rate: Arc::new(Rate::new(0)),
            rate_limits: Arc::default(),
            ports,
            control,
            log_queue,
            unix_ms_at_zero: Arc::new(AtomicU64::new(unix_ms_at_zero)),
            handed_over: Arc::default(),
            replaced: Arc::default(),
            destinations: Vec::new(),
            capacity: maxconn,
            pipes_max,
            pipes_made: Arc::default(),
            memory_max,
            memory_reserved: Arc::default(),
        };
        let (world, _) = empty.next(plan, maxconn);
        world.open_listeners();
        World {
            generation: 0,
            ..world
        }
    }

    /// The world of the next plan, whose numbers are those of this one, and the shards that wait
    /// for limits which have more room now. What changes for what lives on is in force when this
    /// returns; tables are published afterwards, and shards get the world last.
    #[must_use]
    pub fn next(&self, plan: Arc<Plan>, maxconn: u32) -> (World, ShardSet) {
        let mut plan = (*plan).clone();
        let configured = plan.proxies.len();
        let listeners = self.next_listeners(&plan);
        self.keep_removed(&mut plan, &listeners);
        let (limits, woken) = self
            .limits
            .next(&self.limit_entries(&plan, &listeners, maxconn));
        let count = plan
            .proxies
            .iter()
            .map(|proxy| usize::from(proxy.proxy_id.0) + 1);
        let count = count.max().unwrap_or(0).max(self.back_counters.len());
        let mut world = World {
            generation: self.generation + 1,
            configured,
            frontends: vec![None; count],
            backends: vec![None; count],
            back_counters: Vec::new(),
            places: vec![None; plan.servers_count as usize],
            listeners,
            limits,
            process_limit: self.process_limit,
            flows_limit: self.flows_limit,
            flow_sockets_max: self.flow_sockets_max,
            process_rate: Arc::clone(&self.process_rate),
            rate_limits: Arc::clone(&self.rate_limits),
            ports: self.ports.clone(),
            control: Arc::clone(&self.control),
            log_queue: Arc::clone(&self.log_queue),
            unix_ms_at_zero: Arc::clone(&self.unix_ms_at_zero),
            handed_over: Arc::clone(&self.handed_over),
            replaced: Arc::clone(&self.replaced),
            destinations: Vec::new(),
            capacity: self.capacity,
            pipes_max: self.pipes_max,
            pipes_made: Arc::clone(&self.pipes_made),
            memory_max: self.memory_max,
            memory_reserved: Arc::clone(&self.memory_reserved),
            plan: Arc::default(),
        };
        let (old, new) = (&self.plan.global, &plan.global);
        let rates = &world.rate_limits;
        if old.connection_rate != new.connection_rate {
            rates.connections.store(new.connection_rate, Relaxed);
        }
        if old.session_rate != new.session_rate {
            rates.sessions.store(new.session_rate, Relaxed);
        }
        world.process_rate.set_max(rates.lowest());
        for (position, proxy) in plan.proxies.iter().enumerate() {
            let (index, is_removed) = (usize::from(proxy.proxy_id.0), position >= configured);
            world.frontends[index] = self.next_frontend(&world, proxy, is_removed);
            let seed = plan.global.hash_seed;
            let fronts = &plan.proxies[..configured];
            world.backends[index] = self.next_backend(fronts, seed, maxconn, proxy, is_removed);
        }
        let counters = |index: usize| match self.back_counters.get(index) {
            Some(counters) if world.backends[index].is_some() => Arc::clone(counters),
            _ => Arc::new(ShardCounters::new(self.ports.len())),
        };
        world.back_counters = (0..count).map(counters).collect();
        for backend in world.backends.iter().flatten() {
            for (index, server) in backend.servers.iter().enumerate() {
                if let Some(place) = world.places.get_mut(server.id.0 as usize) {
                    *place = Some((backend.proxy.proxy_id, index));
                }
            }
        }
        let servers = world.backends.iter().flatten().flat_map(|b| &b.servers);
        let (source_ports, before) = (&plan.global.source_ports, &self.destinations);
        world.destinations = lb::destinations(source_ports, servers, before);
        world.plan = Arc::new(plan);
        (world, woken)
    }

    /// The listeners of a plan, and those of before that are still needed.
    fn next_listeners(&self, plan: &Plan) -> Vec<Option<Listening>> {
        let shards = u16::try_from(self.ports.len()).unwrap_or(u16::MAX);
        let mut listeners = self.listeners.clone();
        for listening in listeners.iter_mut().flatten() {
            listening.is_removed = true;
        }
        for plan_of in &plan.listeners {
            let index = usize::from(plan_of.listener_id.0);
            if listeners.len() <= index {
                listeners.resize(index + 1, None);
            }
            let before = listeners[index].as_ref();
            let counters = before.and_then(|before| before.counters.as_ref());
            let counters = listener_counters::of(plan_of, counters, self.ports.len());
            let serving = match before {
                Some(before) => Arc::clone(&before.serving),
                None => {
                    let (threads, sockets) = plan_of.spread(shards, &plan.global);
                    // A socket that datagrams come to is of one shard alone.
                    let most = match plan_of.endpoint {
                        Endpoint::Datagram(_) => sockets,
                        Endpoint::Address(_) | Endpoint::Descriptor(_) => threads.len(),
                    };
                    let serving = threads.iter().take(usize::from(most));
                    Arc::new(match plan.pages_of(plan_of) {
                        Some(_) => Serving::of_sockets(sockets),
                        None => Serving::new(serving.collect()),
                    })
                }
            };
            listeners[index] = Some(Listening {
                plan: Arc::clone(plan_of),
                serving,
                counters,
                is_removed: false,
            });
        }
        for listening in &mut listeners {
            let is_gone = |one: &Listening| one.is_removed && self.has_left(one);
            if listening.as_ref().is_some_and(is_gone) {
                *listening = None;
            }
        }
        listeners
    }

    /// Whether nothing of a removed listener is left.
    fn has_left(&self, listening: &Listening) -> bool {
        let key = LimitKey::Listener(listening.plan.listener_id);
        let id = self.limits.find(key);
        listening.serving.has_ended() && id.is_none_or(|id| self.limits.current(id) == 0)
    }

    /// Puts those proxies behind the planned ones that are planned no more and still needed.
    fn keep_removed(&self, plan: &mut Plan, listeners: &[Option<Listening>]) {
        let planned: HashSet<ProxyId> = plan.proxies.iter().map(|p| p.proxy_id).collect();
        let gone = self.plan.proxies.iter();
        let gone: Vec<_> = gone.filter(|p| !planned.contains(&p.proxy_id)).collect();
        let serves = |proxy: &Proxy| {
            let mut listeners = listeners.iter().flatten();
            let listens = listeners.any(|one| one.plan.proxy_id == proxy.proxy_id);
            let front = self.frontends[usize::from(proxy.proxy_id.0)].as_ref();
            listens || front.is_some_and(|front| self.limits.current(front.limit) > 0)
        };
        let works = |proxy: &Proxy| {
            let index = usize::from(proxy.proxy_id.0);
            let active = self.back_counters[index].sum(FrontCounter::Active as usize);
            let backend = self.backends[index].as_ref();
            // A shard may be about to choose one of its servers: not in the same step.
            backend.is_some_and(|backend| !backend.is_removed || active > 0 || !backend.is_idle())
        };
        // A session whose header has not come yet asks for its frontend's backend later.
        let leading: Vec<_> = gone.iter().filter(|proxy| serves(proxy)).collect();
        let leads = |proxy: &Proxy| {
            let mut fronts = leading.iter().filter_map(|front| front.front.as_ref());
            fronts.any(|front| front.default_backend == Some(proxy.proxy_id))
        };
        for proxy in &gone {
            if serves(proxy) || works(proxy) || leads(proxy) {
                let mut kept = (***proxy).clone();
                if let Some(front) = &mut kept.front {
                    front.listeners.clear();
                }
                plan.proxies.push(Arc::new(kept));
            }
        }
    }

    fn limit_entries(
        &self,
        plan: &Plan,
        listeners: &[Option<Listening>],
        maxconn: u32,
    ) -> Vec<(LimitKey, u32)> {
        // What was set at run time stays where the configuration says the same as before.
        let bound = |key, before: Option<u32>, after: u32| match self.limits.find(key) {
            Some(id) if before == Some(after) => (key, self.limits.max(id)),
            _ => (key, after),
        };
        let mut entries = vec![
            (LimitKey::Process, maxconn),
            (LimitKey::Flows, self.limits.max(self.flows_limit)),
        ];
        for proxy in &plan.proxies {
            let Some(front) = &proxy.front else { continue };
            let before = self.frontend(proxy.proxy_id);
            let before = before.and_then(|before| before.proxy.front.as_ref());
            let key = LimitKey::Frontend(proxy.proxy_id);
            entries.push(bound(
                key,
                before.map(|before| before.maxconn),
                front.maxconn,
            ));
        }
        for listening in listeners.iter().flatten() {
            let id = listening.plan.listener_id;
            let before = self.listener(id).map(|before| before.maxconn);
            let key = LimitKey::Listener(id);
            entries.push(bound(key, before, listening.plan.maxconn));
        }
        entries
    }

    fn next_frontend(
        &self,
        world: &World,
        proxy: &Arc<Proxy>,
        is_removed: bool,
    ) -> Option<Arc<Frontend>> {
        let front = proxy.front.as_ref()?;
        let key = LimitKey::Frontend(proxy.proxy_id);
        let limit = world.limits.find(key).expect("just entered");
        let flows_max = self.limits.max(self.flows_limit);
        let Some(before) = self.frontend(proxy.proxy_id) else {
            return Some(Arc::new(Frontend {
                proxy: Arc::clone(proxy),
                is_removed,
                limit,
                state: Arc::new(AtomicU8::new(FrontState::Open as u8)),
                rate: Arc::new(Rate::new(front.session_rate)),
                flow_sources: flow_sources(front, flows_max).map(Arc::new),
                counters: Arc::new(ShardCounters::new(self.ports.len())),
                refusals: Arc::default(),
            }));
        };
        if before.is_removed == is_removed && before.proxy.is_same(proxy) {
            return Some(Arc::clone(before));
        }
        let planned = before.proxy.front.as_ref();
        if planned.is_none_or(|planned| planned.session_rate != front.session_rate) {
            before.rate.set_max(front.session_rate);
        }
        Some(Arc::new(Frontend {
            proxy: Arc::clone(proxy),
            is_removed,
            limit,
            state: Arc::clone(&before.state),
            rate: Arc::clone(&before.rate),
            flow_sources: before.flow_sources.clone(),
            counters: Arc::clone(&before.counters),
            refusals: Arc::clone(&before.refusals),
        }))
    }

    fn next_backend(
        &self,
        configured: &[Arc<Proxy>],
        hash: u64,
        maxconn: u32,
        proxy: &Arc<Proxy>,
        is_removed: bool,
    ) -> Option<Arc<Backend>> {
        let back = proxy.back.as_ref()?;
        let fullconn = match back.fullconn {
            0 => default_fullconn(configured, proxy.proxy_id, maxconn),
            fullconn => fullconn,
        };
        let shards = self.ports.len();
        let Some(before) = self.backend(proxy.proxy_id) else {
            let seeds = Seeds {
                hash,
                // No two processes begin at the same millisecond on the same machine.
                draws: hash::sequence(
                    self.unix_ms_at_zero.load(Relaxed),
                    u64::from(proxy.proxy_id.0),
                ),
            };
            let proxy = Arc::clone(proxy);
            let backend = Backend::new(proxy, shards, seeds, fullconn, self.begun());
            return Some(Arc::new(backend));
        };
        let seeds = Seeds {
            hash,
            ..before.seeds()
        };
        Some(match is_removed {
            true if before.is_removed => Arc::clone(before),
            true => Arc::new(before.removed()),
            false if before.is_planned(proxy, seeds, fullconn) => Arc::clone(before),
            false => {
                let proxy = Arc::clone(proxy);
                Arc::new(before.next(proxy, shards, seeds, fullconn, self.begun()))
            }
        })
    }

    /// How often checks of servers that are new count as begun: in each world another number, and
    /// far from what the checks of others have come to.
    fn begun(&self) -> u32 {
        let worlds = u32::try_from(self.generation % (1 << 16)).unwrap_or(0);
        worlds << 16
    }

    /// Whether something that was removed has nothing left: the next world is without it.
    pub fn is_stale(&self) -> bool {
        let gone = |one: &Listening| one.is_removed && self.has_left(one);
        if self.listeners.iter().flatten().any(gone) {
            return true;
        }
        let idle = |backend: &Arc<Backend>| {
            let mut removed = backend.servers.iter().filter(|server| server.is_removed());
            removed.any(|server| server.active() == 0)
        };
        if self.backends.iter().flatten().any(idle) {
            return true;
        }
        let kept = self.plan.proxies.len() - self.configured;
        if kept == 0 {
            return false;
        }
        let mut plan = self.configured();
        self.keep_removed(&mut plan, &self.listeners);
        plan.proxies.len() - self.configured < kept
    }

    /// Whether a listener of datagrams waits for its shards to close it.
    pub fn has_quiet_listeners(&self) -> bool {
        let is_shut = |one: &Listening| {
            let frontend = self.frontend(one.plan.proxy_id);
            frontend.is_some_and(|frontend| frontend.state() == FrontState::Shut)
        };
        let listeners = self.listeners.iter().flatten();
        let mut leaving = listeners.filter(|one| one.is_removed || is_shut(one));
        leaving.any(|one| one.serving.is_quiet() && !one.serving.has_ended())
    }

    /// Every shard has it: connections to its new listeners may be handed over from now on.
    pub fn open_listeners(&self) {
        for listening in self.listeners.iter().flatten() {
            listening.serving.open();
        }
    }

    /// A socket of a listener of pages is closed: its thread brings no client of it any more.
    pub fn page_socket_closed(&self, id: ListenerId) {
        let listening = self.listeners.get(usize::from(id.0));
        if let Some(listening) = listening.and_then(Option::as_ref) {
            listening.serving.one_has_ended();
        }
    }

    /// A new listener has no socket: an operator has shut its frontend down.
    pub fn has_no_socket(&self, id: ListenerId) {
        let listening = self.listeners.get(usize::from(id.0));
        if let Some(listening) = listening.and_then(Option::as_ref) {
            listening.serving.has_none();
        }
    }

    /// The configuration in force alone. What files have said of servers was for the time at which
    /// those came.
    pub fn configured(&self) -> Plan {
        let mut plan = (*self.plan).clone();
        plan.proxies.truncate(self.configured);
        plan.saved.clear();
        plan
    }

    /// The counters of a backend.
    pub fn counters_of(&self, backend: &Backend) -> &ProxyCounters {
        &self.back_counters[usize::from(backend.proxy.proxy_id.0)]
    }

    /// A server by its place, with its backend.
    pub fn server(&self, proxy: ProxyId, index: usize) -> Option<(&Arc<Backend>, &Arc<Server>)> {
        let backend = self.backend(proxy)?;
        Some((backend, backend.servers.get(index)?))
    }

    /// A server by its number, with its backend.
    pub fn server_of(&self, id: ServerId) -> Option<(&Arc<Backend>, &Arc<Server>)> {
        let (proxy, index) = (*self.places.get(id.0 as usize)?)?;
        self.server(proxy, index)
    }

    /// The frontend of a proxy.
    pub fn frontend(&self, proxy: ProxyId) -> Option<&Arc<Frontend>> {
        self.frontends.get(usize::from(proxy.0))?.as_ref()
    }

    /// The backend of a proxy.
    pub fn backend(&self, proxy: ProxyId) -> Option<&Arc<Backend>> {
        self.backends.get(usize::from(proxy.0))?.as_ref()
    }

    /// What the config says of a listener, or did while it had it.
    pub fn listener(&self, id: ListenerId) -> Option<&Arc<Listener>> {
        let listening = self.listeners.get(usize::from(id.0))?.as_ref()?;
        Some(&listening.plan)
    }
}

/// The counts of a frontend that bounds what one client address may have.
fn flow_sources(front: &Front, flows_max: u32) -> Option<SourceCounts> {
    let bounded = front.udp.is_some_and(|udp| udp.source_flows_max > 0);
    let most = match front.maxconn {
        0 => flows_max,
        maxconn => maxconn.min(flows_max),
    };
    bounded.then(|| SourceCounts::new(most))
}

/// `fullconn` where it isn't set: a tenth of the connections that the frontends which lead to a
/// backend may have, `process_max` each where they have no bound of their own; 1 at least.
fn default_fullconn(proxies: &[Arc<Proxy>], backend: ProxyId, process_max: u32) -> u32 {
    let fronts = proxies.iter().filter_map(|proxy| proxy.front.as_ref());
    let leads = fronts.filter(|front| front.default_backend == Some(backend));
    let most = leads.map(|front| match front.maxconn {
        0 => process_max,
        maxconn => maxconn,
    });
    most.fold(0, u32::saturating_add).div_ceil(10).max(1)
}
