//! A server as the running process knows it: state, limits, counts. Its slot outlives every table.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::base::counters::ShardCounters;
use crate::base::histogram::Histogram;
use crate::base::ids::ServerId;
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
    /// `L4OK`, `L4TOUT`, `L4CON`, `SOCKERR`, `INI`; empty before the first probe or without a check.
    pub status: &'static str,
    /// Duration of the last probe, milliseconds.
    pub duration_ms: u64,
    /// Text of the last failure, empty after a success.
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

/// A server's live state.
#[derive(Debug)]
pub struct Server {
    /// Its slot.
    pub id: ServerId,
    /// What the config says of it.
    pub plan: Arc<plan::Server>,
    /// Name of its backend.
    pub backend_name: Arc<str>,
    /// Connections it has now, of all shards; written by `pick` and `release` only.
    pub(super) active: CachePadded<AtomicU32>,
    /// Most connections it ever had.
    pub(super) active_peak: AtomicU32,
    pub(super) maxconn: AtomicU32,
    pub(super) weight: AtomicU32,
    pub(super) health: AtomicU8,
    pub(super) admin: AtomicU8,
    /// Counters by shard.
    pub counters: ShardCounters<{ ServerCounter::COUNT }>,
    /// Connect times, microseconds.
    pub connect_us: Histogram,
    /// Unix time, milliseconds, of the last session; 0 = none.
    pub last_session_ms: AtomicU64,
    /// What probes found.
    pub check: Mutex<CheckReport>,
}

impl Server {
    /// The live state of a planned server, before any connection or probe.
    pub fn new(plan: Arc<plan::Server>, backend_name: Arc<str>, shards: usize) -> Server {
        let health = if plan.check.is_some() { Health::Up } else { Health::NotChecked };
        let admin = if plan.disabled { Admin::Maintenance } else { Admin::Ready };
        Server {
            id: plan.server_id,
            backend_name,
            active: CachePadded::new(AtomicU32::new(0)),
            active_peak: AtomicU32::new(0),
            maxconn: AtomicU32::new(if plan.maxconn == 0 { u32::MAX } else { plan.maxconn }),
            weight: AtomicU32::new(u32::from(plan.weight)),
            health: AtomicU8::new(health as u8),
            admin: AtomicU8::new(admin as u8),
            counters: ShardCounters::new(shards),
            connect_us: Histogram::new(shards),
            last_session_ms: AtomicU64::new(0),
            check: Mutex::new(CheckReport::default()),
            plan,
        }
    }

    /// Connections it has now.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Most connections it ever had at once.
    pub fn active_peak(&self) -> u32 {
        self.active_peak.load(Relaxed)
    }

    /// Present weight, 0..=256.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Present `maxconn`; `u32::MAX` = unlimited.
    pub fn maxconn(&self) -> u32 {
        self.maxconn.load(Relaxed)
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

    /// Whether new connections may go to it (weight aside).
    pub fn usable(&self) -> bool {
        self.admin() == Admin::Ready && self.health() != Health::Down
    }
}
