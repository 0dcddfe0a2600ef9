//! A server as the running process knows it: state, limits, counts. Its slot outlives every table.
//!
//! A [`Server`] is a server as one configuration has it. What outlasts a reload is its [`Lasting`]
//! part, which the servers of all configurations share: a session that began before a reload gives
//! its connection back to the same count that sessions of after it take theirs from.

use crossbeam::utils::CachePadded;
use std::ops::Deref;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, OnceLock};

use super::destination::Destination;
use super::load::Load;
use super::observed::Observed;
use super::peak_ewma::Latency;
use super::ramp::Occupancy;
use super::slow_start::{self, SlowStart, Step};
use super::timings::Timings;
use super::tuning::Tuned;
use crate::base::counters::ShardCounters;
use crate::base::ids::ServerId;
use crate::base::ports::Ports;
use crate::base::time::Moment;
use crate::config::plan::{self, ServerOrigin};

/// Counters of a server, indices of `Server::counters`.
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
    /// Datagrams to the server.
    DatagramsIn,
    /// Datagrams from the server.
    DatagramsOut,
    /// Longest wait of a session that it served, microseconds.
    QueueTimeMaxUs,
}

impl ServerCounter {
    /// How many there are.
    pub const COUNT: usize = 19;
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
    /// Up, and to get no new connections, until a check finds it well.
    Stopping = 3,
}

/// What the operator says of a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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

/// A server as one configuration has it.
#[derive(Debug)]
pub struct Server {
    /// Its slot.
    pub id: ServerId,
    /// What the config says of it.
    pub plan: Arc<plan::Server>,
    /// Name of its backend.
    pub backend_name: Arc<str>,
    slow_start: Option<Arc<SlowStart>>,
    /// The ports of its `source`, where that has several.
    source_ports: Option<Arc<Ports>>,
    /// Where ports towards it are chosen by the balancer.
    destination: OnceLock<Arc<Destination>>,
    /// A later configuration has it otherwise.
    superseded: AtomicBool,
    lasting: Arc<Lasting>,
}

/// What of a server outlasts a reload.
#[derive(Debug)]
pub struct Lasting {
    load: CachePadded<Load>,
    /// Most connections it may have, slow start aside; `u32::MAX` = unlimited.
    maxconn: AtomicU32,
    /// Its connect times, for `balance peak-ewma`. Every connect writes it there.
    pub(super) latency: CachePadded<Latency>,
    /// Whether it is in the table that picks read.
    in_use: AtomicBool,
    weight: AtomicU32,
    health: AtomicU8,
    admin: AtomicU8,
    /// The configuration has it no more: it keeps what it has and gets nothing new.
    removed: AtomicBool,
    /// How often its checks have begun anew.
    restarts: AtomicU32,
    /// The position that they began from, plus 1; 0 = where the configuration says.
    restarted_at: AtomicU32,
    /// What operators have changed of its checks and its agent.
    pub tuned: Tuned,
    /// The part of its weight that an operator lets it have, percent.
    part: AtomicU32,
    /// Counters by shard.
    pub counters: ShardCounters<{ ServerCounter::COUNT }>,
    /// How long things take with it.
    pub timings: Arc<Timings>,
    /// Unix time, milliseconds, of the last session; 0 = none. Padded: every session writes it, and
    /// the fields around it are read by every connect.
    pub last_session_ms: CachePadded<AtomicU64>,
    /// What sessions have seen of it.
    pub observed: Observed,
    /// What probes found.
    pub check: Mutex<CheckReport>,
}

impl Deref for Server {
    type Target = Lasting;

    fn deref(&self) -> &Lasting {
        &self.lasting
    }
}

impl Server {
    /// The live state of a planned server, before any connection or probe. `begun` = how often its
    /// checks count as begun, so that nobody takes another server's probes for its own.
    pub(super) fn new(
        plan: Arc<plan::Server>,
        backend_name: Arc<str>,
        shards: usize,
        occupancy: &Arc<Occupancy>,
        timings: Arc<Timings>,
        begun: u32,
    ) -> Server {
        let health = match &plan.check {
            Some(check) if check.init_state.is_up() => Health::Up,
            Some(_) => Health::Down,
            None => Health::NotChecked,
        };
        let added = match plan.origin {
            ServerOrigin::Files => None,
            ServerOrigin::Command { enabled } => Some(enabled),
        };
        let admin = match plan.disabled || added == Some(false) {
            true => Admin::Maintenance,
            false => Admin::Ready,
        };
        let tuned = Tuned::default();
        if added.is_some() {
            tuned.change(|tuning| (tuning.checks_stopped, tuning.agent_stopped) = (true, true));
        }
        let lasting = Lasting {
            load: CachePadded::new(Load::new(
                plan.minconn,
                unlimited_if_zero(plan.maxconn),
                Arc::clone(occupancy),
            )),
            maxconn: AtomicU32::new(unlimited_if_zero(plan.maxconn)),
            latency: CachePadded::default(),
            in_use: AtomicBool::new(false),
            weight: AtomicU32::new(u32::from(plan.weight)),
            health: AtomicU8::new(health as u8),
            admin: AtomicU8::new(admin as u8),
            removed: AtomicBool::new(false),
            restarts: AtomicU32::new(begun),
            restarted_at: AtomicU32::new(0),
            tuned,
            part: AtomicU32::new(slow_start::WHOLE),
            counters: ShardCounters::new(shards),
            timings,
            last_session_ms: CachePadded::new(AtomicU64::new(0)),
            observed: Observed::new(&plan.passive),
            check: Mutex::new(CheckReport::default()),
        };
        let slow_start = plan.slow_start.clone().map(SlowStart::new);
        Server {
            id: plan.server_id,
            backend_name,
            slow_start: slow_start.map(Arc::new),
            source_ports: range_of(&plan).map(|(low, high)| Arc::new(Ports::new(low, high))),
            destination: OnceLock::new(),
            superseded: AtomicBool::new(false),
            lasting: Arc::new(lasting),
            plan,
        }
    }

    /// The same server as a later configuration has it. What that changes is in force for both
    /// when this returns, tables aside; what was changed at run time stays where the configuration
    /// says the same as before.
    pub(super) fn next(&self, plan: Arc<plan::Server>) -> Server {
        let before = &self.plan;
        let slow_start = match before.slow_start == plan.slow_start {
            true => self.slow_start.clone(),
            false => {
                // On its way by rules that don't hold any more: it has arrived.
                self.load.allow(None);
                plan.slow_start.clone().map(SlowStart::new).map(Arc::new)
            }
        };
        let source_ports = match before.source == plan.source {
            true => self.source_ports.clone(),
            false => range_of(&plan).map(|(low, high)| Arc::new(Ports::new(low, high))),
        };
        if before.address != plan.address {
            self.latency.forget();
        }
        self.observed.follow(&plan.passive);
        self.removed.store(false, Relaxed);
        let (weight, maxconn) = (before.weight != plan.weight, before.maxconn != plan.maxconn);
        let next = Server {
            id: self.id,
            backend_name: Arc::clone(&self.backend_name),
            slow_start,
            source_ports,
            destination: OnceLock::new(),
            superseded: AtomicBool::new(false),
            lasting: Arc::clone(&self.lasting),
            plan,
        };
        if weight {
            next.set_weight(u32::from(next.plan.weight));
        }
        if maxconn {
            next.maxconn
                .store(unlimited_if_zero(next.plan.maxconn), Relaxed);
        }
        next.renew_limits();
        self.superseded.store(true, Relaxed);
        next
    }

    /// Whether both are the same server, as two configurations have it.
    pub fn is_same(&self, other: &Server) -> bool {
        Arc::ptr_eq(&self.lasting, &other.lasting)
    }

    /// Whether a later configuration has it otherwise.
    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.load(Relaxed)
    }

    /// Connections it has now.
    pub fn active(&self) -> u32 {
        self.load.active()
    }

    /// Has the most connections it ever had begin anew, with those it has.
    pub fn clear_peak(&self) {
        self.load.clear_peak();
    }

    /// Most connections it ever had at once.
    pub fn active_peak(&self) -> u32 {
        self.load.peak()
    }

    /// Its weight, 0..=256, slow start aside.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Its `maxconn`, slow start aside; `u32::MAX` = unlimited.
    pub fn maxconn(&self) -> u32 {
        self.maxconn.load(Relaxed)
    }

    /// What probes say.
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::NotChecked,
            1 => Health::Up,
            3 => Health::Stopping,
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
        self.change(|| self.health.store(health as u8, Relaxed));
    }

    /// Sets what the operator says. The caller publishes the backend's table afterwards.
    pub fn set_admin(&self, admin: Admin) {
        self.change(|| self.admin.store(admin as u8, Relaxed));
    }

    /// Changes its state. A server that comes into service begins its slow start, and nothing is
    /// known of its connect times.
    fn change(&self, set: impl FnOnce()) {
        let before = self.in_service();
        set();
        match (before, self.in_service()) {
            (false, true) => {
                self.latency.forget();
                if let Some(slow_start) = &self.slow_start {
                    let (percent, allowance) = slow_start.begin();
                    self.set_limits(percent);
                    self.load.allow(allowance);
                }
            }
            (true, false) => self.slow_start.iter().for_each(|way| way.stop()),
            (true, true) | (false, false) => {}
        }
    }

    /// Takes its slow start as far as it is at this moment. The caller publishes the table or
    /// serves the queue afterwards.
    pub(super) fn ramp(&self, now: Moment) -> Step {
        let Some(slow_start) = &self.slow_start else {
            return Step::Rests;
        };
        let step = slow_start.step(now);
        match step {
            Step::Rests => {}
            Step::GoesOn { percent, more } => {
                self.set_limits(percent);
                self.load.fill(more, slow_start.filling());
            }
            Step::Arrives => {
                self.set_limits(slow_start::WHOLE);
                self.load.allow(None);
            }
        }
        step
    }

    fn set_limits(&self, percent: u32) {
        let minconn = slow_start::part_of(self.plan.minconn, percent);
        self.load
            .set_limits(minconn, slow_start::part_of(self.maxconn(), percent));
    }

    /// Its slow start, while it is on its way.
    pub(super) fn slow_start(&self) -> Option<&SlowStart> {
        self.slow_start
            .as_deref()
            .filter(|slow_start| slow_start.is_on_its_way())
    }

    /// How often its checks have begun anew: a probe of an earlier time says nothing any more.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Acquire)
    }

    /// Has its checks begin anew, as at the start.
    pub fn restart_checks(&self) {
        self.restarted_at.store(0, Relaxed);
        self.restarts.fetch_add(1, Release);
    }

    /// Has them begin anew from a position between up and down.
    pub fn restart_checks_at(&self, position: u16) {
        self.restarted_at.store(u32::from(position) + 1, Relaxed);
        self.restarts.fetch_add(1, Release);
    }

    /// The position from which they have begun; `None` = where the configuration says. To be read
    /// after `restarts`.
    pub fn restarted_at(&self) -> Option<u16> {
        let position = self.restarted_at.load(Relaxed).checked_sub(1)?;
        u16::try_from(position).ok()
    }

    /// The part of its weight that an operator lets it have, percent.
    pub fn part(&self) -> u32 {
        self.part.load(Relaxed)
    }

    /// Sets it, 1 to 100. The caller publishes the backend's table afterwards.
    pub fn set_part(&self, percent: u32) {
        self.part
            .store(percent.clamp(1, slow_start::WHOLE), Relaxed);
    }

    /// Sets the weight, at most 256. The caller publishes the backend's table afterwards.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.min(WEIGHT_MAX), Relaxed);
    }

    /// Sets `maxconn`, 0 = unlimited. The caller publishes the backend's table afterwards, so that
    /// waiting sessions get what room there is now. Connections above a lower bound are left alone.
    pub fn set_maxconn(&self, maxconn: u32) {
        self.maxconn.store(unlimited_if_zero(maxconn), Relaxed);
        self.renew_limits();
    }

    fn renew_limits(&self) {
        let percent = self.slow_start.as_ref().map(|way| way.percent());
        self.set_limits(percent.unwrap_or(slow_start::WHOLE));
    }

    /// The ports of its `source`, where that has several: each connection takes one of them.
    pub fn source_ports(&self) -> Option<&Ports> {
        self.source_ports.as_deref()
    }

    /// Where ports towards it are chosen by the balancer; `None` = nowhere.
    pub fn destination(&self) -> Option<&Destination> {
        self.destination.get().map(|destination| &**destination)
    }

    /// Has the ports towards it chosen there. At the start, once.
    pub(super) fn set_destination(&self, destination: &Arc<Destination>) {
        self.destination.get_or_init(|| Arc::clone(destination));
    }

    /// Whether it has an address.
    pub fn resolved(&self) -> bool {
        self.plan.address != plan::Target::Unresolved
    }

    /// Whether what it has goes on: also while it is drained.
    pub fn in_service(&self) -> bool {
        self.health() != Health::Down && self.admin() != Admin::Maintenance
    }

    /// Whether new connections may go to it (weight aside).
    pub fn usable(&self) -> bool {
        let takes_clients = matches!(self.health(), Health::NotChecked | Health::Up);
        let admitted = self.admin() == Admin::Ready && !self.is_removed();
        self.resolved() && admitted && takes_clients
    }

    /// Whether the configuration has it no more: it is there until its last connection has ended.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    /// The configuration has it no more. The caller publishes the backend's table afterwards.
    pub(super) fn remove(&self) {
        self.removed.store(true, Relaxed);
        self.set_in_use(false);
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

    /// Connections it has now if there is room for one more.
    pub(super) fn room(&self) -> Option<u32> {
        self.load.room()
    }

    /// Takes a connection if there is room.
    pub(super) fn take(&self) -> bool {
        self.load.take()
    }

    /// Takes a connection if the server still has exactly `seen` and there is room.
    pub(super) fn take_seeing(&self, seen: u32) -> bool {
        self.load.take_seeing(seen)
    }

    /// Gives a connection back.
    pub(super) fn give(&self) {
        self.load.give();
    }

    /// Whether a connection that ends may be handed on instead of given back: the server still
    /// takes connections, and its limit was not lowered below what it has.
    pub(super) fn may_hand_on(&self) -> bool {
        self.may_serve() && !self.load.is_above_limit()
    }

    /// Uses its allowance of new connections for one on a unit that is taken already; false if
    /// there is none left. A server that isn't returning needs no allowance.
    pub fn spend_allowance(&self) -> bool {
        self.load.spend()
    }

    /// Whether a session that waits may be given to it, room aside.
    pub(super) fn may_serve(&self) -> bool {
        self.is_in_use() && self.eligible()
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
