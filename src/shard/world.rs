//! What all shards and the control thread share: the live frontends and backends, limits, ports.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst,
};

use super::control_port::ControlPort;
use super::port::ShardPort;
use super::record::LogQueue;
use super::spread::Serving;
use crate::base::counters::ShardCounters;
use crate::base::hash;
use crate::base::ids::ProxyId;
use crate::base::limits::{LimitId, LimitKey, LimitTable};
use crate::base::rate::Rate;
use crate::base::source_counts::SourceCounts;
use crate::config::plan::{Front, Plan, Proxy};
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
    /// Its limit in [`World::limits`] (always present; unlimited when `maxconn` is 0). Its
    /// `current` is the number of open sessions, its `peak` the most there ever were.
    pub limit: LimitId,
    /// What operators say of it.
    state: AtomicU8,
    /// `rate-limit sessions`.
    pub rate: Rate,
    /// `udp-source-flows`: what each client address has, where there is a bound.
    pub(super) flow_sources: Option<SourceCounts>,
    /// Counters.
    pub counters: ProxyCounters,
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
        sources.map_or(0, SourceCounts::addresses)
    }
}

/// The bounds of rates of the process, as they are shown.
#[derive(Debug)]
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

/// Everything shared between threads. Built once by `process`; reload will publish parts of it
/// anew.
#[derive(Debug)]
pub struct World {
    /// The configuration in force.
    pub plan: Arc<Plan>,
    /// By `ProxyId`; `None` for pure backends.
    pub frontends: Vec<Option<Arc<Frontend>>>,
    /// By `ProxyId`; `None` for pure frontends.
    pub backends: Vec<Option<Arc<Backend>>>,
    /// Counters of backends, by `ProxyId`.
    pub back_counters: Vec<ProxyCounters>,
    /// Connection limits: process, frontends, listeners.
    pub limits: LimitTable,
    /// The process's own slot in `limits`; its bound is the effective `maxconn`.
    pub process_limit: LimitId,
    /// Connections that the process was made for.
    pub capacity: u32,
    /// Flows of the process in `limits`.
    pub flows_limit: LimitId,
    /// Sockets towards servers that flows may have, of all shards.
    pub flow_sockets_max: u32,
    /// `maxconnrate` and `maxsessrate`, whichever is lower: a connection is a session here.
    pub process_rate: Rate,
    /// Each of them, 0 = no bound.
    pub rate_limits: RateLimits,
    /// Which shards serve each listener, by `ListenerId`.
    pub(super) serving: Vec<Serving>,
    /// One port per shard.
    pub ports: Vec<Arc<ShardPort>>,
    /// What shards tell the control thread of servers.
    pub control: Arc<ControlPort>,
    /// Session records on their way to the log thread.
    pub log_queue: Arc<LogQueue>,
    /// Unix time in milliseconds at monotonic zero: shards make wall-clock stamps from it.
    pub unix_ms_at_zero: AtomicU64,
    /// A successor has been given the listening sockets that it can be given.
    pub handed_over: AtomicBool,
    /// A process that drains has found another one with sockets of its own on an address that
    /// datagrams come to.
    pub replaced: AtomicBool,
    /// Where ports towards servers are chosen here.
    pub destinations: Vec<Arc<Destination>>,
    /// Pipes the process may have, of all shards.
    pub pipes_max: u32,
    /// Pipes the process has, of all shards, lent and in pools.
    pub pipes_made: AtomicU32,
    /// Bytes of private relay memory the process may use.
    pub memory_max: u64,
    /// Bytes of private relay memory reserved now, of all shards.
    pub memory_reserved: AtomicU64,
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
        let shards = ports.len();
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
        let mut entries = vec![(LimitKey::Process, maxconn), (LimitKey::Flows, flows_max)];
        for proxy in &plan.proxies {
            if let Some(front) = &proxy.front {
                entries.push((LimitKey::Frontend(proxy.proxy_id), front.maxconn));
            }
        }
        for listener in &plan.listeners {
            entries.push((LimitKey::Listener(listener.listener_id), listener.maxconn));
        }
        let limits = LimitTable::new(&entries);
        let process_limit = limits.find(LimitKey::Process).expect("just entered");
        let flows_limit = limits.find(LimitKey::Flows).expect("just entered");
        let frontend = |proxy: &Arc<Proxy>| {
            let front = proxy.front.as_ref()?;
            let limit = limits
                .find(LimitKey::Frontend(proxy.proxy_id))
                .expect("just entered");
            Some(Arc::new(Frontend {
                proxy: Arc::clone(proxy),
                limit,
                state: AtomicU8::new(FrontState::Open as u8),
                rate: Rate::new(front.session_rate),
                flow_sources: flow_sources(front, flows_max),
                counters: ShardCounters::new(shards),
            }))
        };
        let backend = |proxy: &Arc<Proxy>| {
            let back = proxy.back.as_ref()?;
            let fullconn = match back.fullconn {
                0 => default_fullconn(&plan, proxy.proxy_id, maxconn),
                configured => configured,
            };
            Some(Arc::new(Backend::new(
                Arc::clone(proxy),
                shards,
                Seeds {
                    hash: plan.global.hash_seed,
                    // No two processes begin at the same millisecond on the same machine.
                    draws: hash::sequence(unix_ms_at_zero, u64::from(proxy.proxy_id.0)),
                },
                fullconn,
            )))
        };
        let backends: Vec<_> = plan.proxies.iter().map(backend).collect();
        let servers = backends.iter().flatten().flat_map(|b| &b.servers);
        let destinations = lb::destinations(&plan.global.source_ports, servers);
        let shard_count = u16::try_from(shards).unwrap_or(u16::MAX);
        let serving = plan.listeners.iter().map(|listener| {
            let (threads, _) = listener.spread(shard_count, &plan.global);
            Serving::new(threads.iter().collect())
        });
        let serving = serving.collect();
        let rate_limits = RateLimits {
            connections: AtomicU32::new(plan.global.connection_rate),
            sessions: AtomicU32::new(plan.global.session_rate),
        };
        World {
            serving,
            frontends: plan.proxies.iter().map(frontend).collect(),
            backends,
            destinations,
            back_counters: plan
                .proxies
                .iter()
                .map(|_| ShardCounters::new(shards))
                .collect(),
            process_limit,
            capacity: maxconn,
            flows_limit,
            flow_sockets_max,
            process_rate: Rate::new(rate_limits.lowest()),
            rate_limits,
            limits,
            ports,
            control,
            log_queue,
            unix_ms_at_zero: AtomicU64::new(unix_ms_at_zero),
            handed_over: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            pipes_max,
            pipes_made: AtomicU32::new(0),
            memory_max,
            memory_reserved: AtomicU64::new(0),
            plan,
        }
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

    /// The backend of a proxy.
    pub fn backend(&self, proxy: ProxyId) -> Option<&Arc<Backend>> {
        self.backends.get(usize::from(proxy.0))?.as_ref()
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
fn default_fullconn(plan: &Plan, backend: ProxyId, process_max: u32) -> u32 {
    let fronts = plan.proxies.iter().filter_map(|proxy| proxy.front.as_ref());
    let leads = fronts.filter(|front| front.default_backend == Some(backend));
    let most = leads.map(|front| match front.maxconn {
        0 => process_max,
        maxconn => maxconn,
    });
    most.fold(0, u32::saturating_add).div_ceil(10).max(1)
}
