//! A server as the running process knows it: state, limits, counts. Its slot outlives every table.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex};

use super::ramp::Occupancy;
use crate::base::counters::ShardCounters;
use crate::base::histogram::Histogram;
use crate::base::ids::ServerId;
use crate::base::ports::Ports;
use crate::config::plan;

/// Counters of a server, indices of [`Server::counters`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum ServerCounter {
    /// Bytes from clients to the server.
    BytesIn,
    /// Bytes from the server to clients.
    BytesOut,
    /// Sessions established with the server (`stot`).
    Sessions,
    /// Connection attempts.
    Connects,
    /// Attempts that failed (`econ`).
    ConnectErrors,
    /// Connections the server broke after they were established (`eresp`).
    ResponseErrors,
    /// Attempts repeated on the same server (`wretr`).
    Retries,
    /// Attempts given to another server after this one failed (`wredis`).
    Redispatches,
    /// Times the balancer chose it (`lbtot`).
    Chosen,
    /// Sessions ended by the client's abort (`cli_abrt`).
    ClientAborts,
    /// Sessions ended by the server's abort (`srv_abrt`).
    ServerAborts,
    /// Sum of connect times, microseconds.
    ConnectTimeUs,
    /// Sum of queue times, microseconds.
    QueueTimeUs,
    /// Sum of session times, milliseconds.
    SessionTimeMs,
    /// Largest connect time, microseconds.
    ConnectTimeMaxUs,
    /// Largest session time, milliseconds.
    SessionTimeMaxMs,
}

impl ServerCounter {
    /// How many there are.
    pub const COUNT: usize = 16;
}

/// What probes say of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Health {
    /// No check is configured: taken as up.
    NotChecked = 0,
    /// Up.
    Up = 1,
    /// Down.
    Down = 2,
}

/// What the operator says of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Admin {
    /// In service.
    Ready = 0,
    /// No new connections; open ones go on.
    Drain = 1,
    /// Out of service, not probed.
    Maintenance = 2,
}

/// What the last probes found, for statistics; shards never touch it.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// `L4OK`, `L4TOUT`, `L7STS` and the like; empty before the first probe or without a
    /// check.
    pub status: &'static str,
    /// The server's own code in the answer to the last probe, where its protocol has one.
    pub code: Option<u16>,
    /// Duration of the last probe, milliseconds.
    pub duration_ms: u64,
    /// What there is to say of the last probe.
    pub description: String,
    /// Failed probes (`chkfail`).
    pub failures: u64,
    /// UP to DOWN transitions (`chkdown`).
    pub downs: u64,
    /// Unix time, seconds, of the last change of health.
    pub changed_at_s: u64,
    /// Seconds spent down before the present state.
    pub downtime_s: u64,
    /// Position of the rise/fall machine as HAProxy counts it (`check_health`, 0..rise+fall-1).
    pub health: u16,
}

/// What every pick and release touches, in a cache line of its own.
#[derive(Debug)]
struct Load {
    /// Connections it has now, of all shards; written by `pick` and `release` only.
    active: AtomicU32,
    /// Most connections it ever had.
    peak: AtomicU32,
    /// Most connections it may have; `u32::MAX` = unlimited.
    maxconn: AtomicU32,
    /// How full the backend is, if `minconn` makes the limit depend on it.
    occupancy: Option<Arc<Occupancy>>,
}

/// A server's live state.
#[derive(Debug)]
pub struct Server {
    /// Its slot.
    pub id: ServerId,
    /// What the config says of it.
    pub plan: Arc<plan::Server>,
    /// Name of its backend.
    pub backend_name: Arc<str>,
    load: CachePadded<Load>,
    /// Whether it is in the table that picks read.
    in_use: AtomicBool,
    weight: AtomicU32,
    health: AtomicU8,
    admin: AtomicU8,
    /// Counters by shard.
    pub counters: ShardCounters<{ ServerCounter::COUNT }>,
    /// Connect times, microseconds.
    pub connect_us: Histogram,
    /// Unix time, milliseconds, of the last session; 0 = none. Padded: every session writes it, and
    /// the fields around it are read by every connect.
    pub last_session_ms: CachePadded<AtomicU64>,
    /// What probes found.
    pub check: Mutex<CheckReport>,
    /// The ports of its `source`, where that has several.
    source_ports: Option<Ports>,
}

impl Server {
    /// The live state of a planned server, before any connection or probe.
    pub(super) fn new(
        plan: Arc<plan::Server>,
        backend_name: Arc<str>,
        shards: usize,
        occupancy: Option<Arc<Occupancy>>,
    ) -> Server {
        let health = if plan.check.is_some() {
            Health::Up
        } else {
            Health::NotChecked
        };
        let admin = if plan.disabled {
            Admin::Maintenance
        } else {
            Admin::Ready
        };
        Server {
            id: plan.server_id,
            backend_name,
            load: CachePadded::new(Load {
                active: AtomicU32::new(0),
                peak: AtomicU32::new(0),
                maxconn: AtomicU32::new(unlimited_if_zero(plan.maxconn)),
                occupancy: occupancy.filter(|_| plan.minconn > 0),
            }),
            in_use: AtomicBool::new(false),
            weight: AtomicU32::new(u32::from(plan.weight)),
            health: AtomicU8::new(health as u8),
            admin: AtomicU8::new(admin as u8),
            counters: ShardCounters::new(shards),
            connect_us: Histogram::new(shards),
            last_session_ms: CachePadded::new(AtomicU64::new(0)),
            check: Mutex::new(CheckReport::default()),
            source_ports: range_of(&plan).map(|(low, high)| Ports::new(low, high)),
            plan,
        }
    }

    /// Connections it has now.
    pub fn active(&self) -> u32 {
        self.load.active.load(Relaxed)
    }

    /// Most connections it ever had at once.
    pub fn active_peak(&self) -> u32 {
        self.load.peak.load(Relaxed)
    }

    /// Present weight, 0..=256.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Present `maxconn`; `u32::MAX` = unlimited.
    pub fn maxconn(&self) -> u32 {
        self.load.maxconn.load(Relaxed)
    }

    /// What probes say.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::NotChecked,
            1 => Health::Up,
            _ => Health::Down,
        }
    }

    /// What the operator says.
    pub fn admin(&self) -> Admin {
        match self.admin.load(Relaxed) {
            0 => Admin::Ready,
            1 => Admin::Drain,
            _ => Admin::Maintenance,
        }
    }

    /// Sets what probes say. The caller publishes the backend's table afterwards.
    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Relaxed);
    }

    /// Sets what the operator says. The caller publishes the backend's table afterwards.
    pub fn set_admin(&self, admin: Admin) {
        self.admin.store(admin as u8, Relaxed);
    }

    /// Sets the weight, at most 256. The caller publishes the backend's table afterwards.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.min(WEIGHT_MAX), Relaxed);
    }

    /// Sets `maxconn`, 0 = unlimited. The caller publishes the backend's table afterwards, so that
    /// waiting sessions get what room there is now. Connections above a lower bound are left alone.
    pub fn set_maxconn(&self, maxconn: u32) {
        self.load.maxconn.store(unlimited_if_zero(maxconn), SeqCst);
    }

    /// The ports of its `source`, where that has several: each connection takes one of them.
    pub fn source_ports(&self) -> Option<&Ports> {
        self.source_ports.as_ref()
    }

    /// Whether it has an address.
    pub fn resolved(&self) -> bool {
        self.plan.address != plan::Target::Unresolved
    }

    /// Whether new connections may go to it (weight aside).
    pub fn usable(&self) -> bool {
        self.resolved() && self.admin() == Admin::Ready && self.health() != Health::Down
    }

    /// Whether the balancer may choose it, `maxconn` aside.
    pub(super) fn eligible(&self) -> bool {
        self.usable() && self.weight() > 0
    }

    /// Whether it is in the table that picks read.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Relaxed)
    }

    /// Notes whether it is in the table about to be published. Whoever is told late that it is
    /// leaves what it gives up to `publish`, which looks for room in the queue's lock.
    pub(super) fn set_in_use(&self, in_use: bool) {
        self.in_use.store(in_use, Relaxed);
    }

    /// Connections it may have at this moment: `maxconn`, or with `minconn` a part of it.
    fn limit(&self) -> u32 {
        let maxconn = self.load.maxconn.load(SeqCst);
        match &self.load.occupancy {
            None => maxconn,
            Some(occupancy) => occupancy.limit(self.plan.minconn, maxconn),
        }
    }

    /// Connections it has now if there is room for one more.
    pub(super) fn room(&self) -> Option<u32> {
        let active = self.load.active.load(Relaxed);
        (active < self.limit()).then_some(active)
    }

    /// Takes a connection if there is room. The order is sequentially consistent: the queue's
    /// argument that no waiting session is forgotten rests on it (see `queue`).
    pub(super) fn take(&self) -> bool {
        let limit = self.limit();
        if limit == u32::MAX {
            // Without a bound there is nothing to compare: one addition instead of a loop.
            self.note_peak(self.load.active.fetch_add(1, SeqCst) + 1);
            return true;
        }
        let active = &self.load.active;
        let taken = active.fetch_update(SeqCst, SeqCst, |n| (n < limit).then_some(n + 1));
        if let Ok(before) = taken {
            self.note_peak(before + 1);
        }
        taken.is_ok()
    }

    /// Takes a connection if the server still has exactly `seen` and there is room.
    pub(super) fn take_seeing(&self, seen: u32) -> bool {
        let active = &self.load.active;
        let taken = seen < self.limit()
            && active
                .compare_exchange(seen, seen + 1, SeqCst, Relaxed)
                .is_ok();
        if taken {
            self.note_peak(seen + 1);
        }
        taken
    }

    /// Gives a connection back.
    pub(super) fn give(&self) {
        let before = self.load.active.fetch_sub(1, SeqCst);
        assert!(before > 0, "a server was released more often than picked");
    }

    /// Whether a connection that ends may be handed on instead of given back: the server still
    /// takes connections, and its limit was not lowered below what it has.
    pub(super) fn may_hand_on(&self) -> bool {
        self.may_serve() && self.load.active.load(Relaxed) <= self.limit()
    }

    /// Whether a session that waits may be given to it, room aside.
    pub(super) fn may_serve(&self) -> bool {
        self.is_in_use() && self.eligible()
    }

    fn note_peak(&self, active: u32) {
        // The peak is seldom reached: a load keeps the line shared on the other CPUs.
        if self.load.peak.load(Relaxed) < active {
            self.load.peak.fetch_max(active, Relaxed);
        }
    }
}

fn range_of(plan: &plan::Server) -> Option<(u16, u16)> {
    plan.source?.ports.filter(|(low, high)| low < high)
}

/// Highest weight, as in HAProxy.
const WEIGHT_MAX: u32 = 256;

fn unlimited_if_zero(maxconn: u32) -> u32 {
    if maxconn == 0 { u32::MAX } else { maxconn }
}
