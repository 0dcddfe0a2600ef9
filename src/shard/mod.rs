//! The data plane: one thread, one core, one ring per shard.
//!
//! A session's life is `accept -> prelude -> pick -> connect -> relay -> close`, one file per step.
//! What other layers may use is exported here; the steps are private. A shard never opens a file,
//! resolves a name or formats text, and takes no lock and no allocation per packet.
//!
//! A turn is: gather completions and handle them; messages; timers; flush every touched direction;
//! finish ended sessions; arm what waits for buffers or for its share of the bulk budget; report.

mod accept;
mod chunks;
mod close;
mod connect;
mod control_port;
mod frozen;
mod hand_over;
mod lines;
mod listener_counters;
mod observe;
mod origin;
mod pick;
mod pieces;
mod pipes;
mod port;
mod prelude;
mod private;
mod query;
mod record;
mod refusals;
mod relay_copy;
mod relay_splice;
mod renew;
mod session;
mod sleep;
mod source_port;
mod spread;
mod timers;
mod udp;
mod world;

pub use control_port::{ControlPort, Observation};
pub use frozen::FrozenDirection;
pub use listener_counters::{ListenerCounter, ListenerCounters};
pub use port::{Gauges, Message, Renewal, ShardPort};
pub use query::{Answer, DirectionRow, Question, SessionRow, SessionStage};
pub use record::{Beyond, FlowPart, LogQueue, Refusal, SessionRecord};
pub use refusals::{LastRefusal, Refusals};
pub use udp::{DatagramCount, FlowRow};
pub use world::{
    Bounds, FrontCounter, FrontState, Frontend, Listening, ProxyCounters, RateLimits, World,
};

use std::collections::VecDeque;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::base::ids::{ListenerId, ShardId};
use crate::base::limits::ShardSet;
use crate::base::slab::Slab;
use crate::base::spin::{Spin, Spinner};
use crate::base::time::Moment;
use crate::base::wheel::Wheel;
use crate::config::plan::Endpoint;
use crate::flow;
use crate::flow::proxy_protocol::UniqueIds;
use crate::flow::splice::Load;
use crate::flow::transform::Transform;
use crate::flow::{Cause, Close, Direction, Limits, Phase, Side, Who};
use crate::lb::{Backend, Grant};
use crate::ring::{
    Caps, Completion, Errno, Fd, GROUPS, Group, Inbox, Interest, Kernel, Op, Piece, Token, Uring,
    Wait,
};
use accept::Acceptor;
use pieces::Pieces;
use pipes::Pipes;
use private::{Budget, PrivateMemory};
use session::Session;
use spread::Churn;

/// Completions handled per turn: bounds the time to the next flush, and so latency under load.
const COMPLETIONS_PER_TURN: usize = 4096;
/// Bytes of bulk receives armed per turn: the latency knob (reference figures: 512 KiB gives small
/// exchanges beside bulk a p99 of a sixth of haproxy's; more costs latency, less costs throughput).
const BULK_PER_TURN: u32 = 512 << 10;
/// A bulk receive: a whole buffer of the bulk ring.
const BULK_RECEIVE: u32 = 256 << 10;
/// A bulk receive while nothing else is going on.
const BULK_ALONE: u32 = 1 << 20;
/// A small receive, and the memory each direction owns unreserved, where the budget allows: a whole
/// buffer of the small ring.
const SMALL_RECEIVE_MAX: u32 = 32 << 10;
/// The same at the least: one page of data.
const SMALL_RECEIVE_MIN: u32 = 4 << 10;
/// A direction that holds more than this receives no more: half a bulk receive, so that a receive
/// overlaps the sending of the rest.
const HELD_MAX: u32 = 128 << 10;

/// A listening socket handed to a shard.
#[derive(Debug)]
pub struct ShardListener {
    /// Which listener of the plan.
    pub listener_id: ListenerId,
    /// The socket: one member of a reuseport group of this shard's own, or a duplicate of a socket
    /// that several shards share. Non-blocking, listening.
    pub socket: OwnedFd,
    /// Whether other shards accept from it too.
    pub shared: bool,
}

/// Runs a shard on the calling thread until it was told to stop, or has drained. The ring belongs
/// to the thread that calls this.
pub fn run(
    shard: ShardId,
    world: Arc<World>,
    listeners: Vec<ShardListener>,
    caps: &Caps,
    spin: Spin,
) -> io::Result<()> {
    let kernel = Uring::new(caps)?;
    let mut shard = Shard::new(shard, world, kernel);
    shard.spin_by(spin);
    for listener in listeners {
        shard.add_listener(listener)?;
    }
    shard.start();
    while !shard.has_ended() {
        shard.turn()?;
    }
    shard.retire();
    Ok(())
}

/// Makes the transform of a direction.
pub type MakeTransform = fn(Direction) -> Box<dyn Transform>;

/// Who moved data lately, for the bulk bound.
#[derive(Debug)]
struct Activity {
    /// Last small receive.
    small_at: Moment,
    /// The bulk direction seen last: slot and direction.
    bulk: u32,
    /// When that changed.
    bulk_changed_at: Moment,
}

/// A shard, over the kernel's ring or the scripted one.
#[derive(Debug)]
pub struct Shard<K> {
    id: ShardId,
    world: Arc<World>,
    kernel: K,
    now: Moment,
    sessions: Slab<Session>,
    wheel: Wheel,
    acceptors: Vec<Acceptor>,
    /// Which of them is a listener's, by `ListenerId`.
    acceptor_of: Vec<usize>,
    /// When a resting acceptor tries again.
    accept_rest_until: Moment,
    /// An acceptor is to be looked after at the end of the turn.
    accept_idle: bool,
    /// Connections held back by a limit.
    parked: usize,
    /// Shards that were handed connections in this turn.
    handed_to: Vec<ShardId>,
    /// Where the next look for a less loaded shard begins.
    look_from: usize,
    /// How many sessions have ended lately.
    churn: Churn,
    private: PrivateMemory,
    budget: Budget,
    /// What the budget leaves for reservations: the rest is what directions own unreserved.
    reservable: u64,
    pieces: Pieces,
    pipes: Pipes,
    load: Load,
    limits: Limits,
    bulk_per_turn: u32,
    bulk_alone_limit: u32,
    /// Rest after which a direction counts as bulk no more, 0 = never.
    idle_timer_ms: u32,
    activity: Activity,
    /// Whether it looks for work before it sleeps.
    spinner: Spinner,
    /// Directions to flush in this turn.
    dirty: Vec<(u32, Direction)>,
    /// Directions that found no buffer.
    starved: VecDeque<(u32, Direction)>,
    /// Bulk directions waiting for their share of a turn.
    bulk_queue: VecDeque<(u32, Direction)>,
    /// Sessions to finish in this turn.
    ended: Vec<crate::base::ids::SessionKey>,
    /// Servers granted to sessions of this shard by its own releases.
    grants: VecDeque<Grant>,
    /// First session of each server, by `ServerId`.
    server_heads: Vec<u32>,
    /// Scratch: pieces of one completion.
    taken: Vec<Piece>,
    /// Scratch: what a transform made of a piece.
    transformed: Vec<u8>,
    /// Makes the transforms of new sessions; none until something asks for bytes to be changed.
    transforms: Option<MakeTransform>,
    /// Scratch: timers that are due.
    due: Vec<u32>,
    /// Flows of datagrams, where a listener takes them.
    udp: Option<Box<udp::Udp>>,
    /// Scratch: a PROXY header.
    header_bytes: Box<[u8]>,
    /// Ids of sessions for servers that want them.
    unique_ids: UniqueIds,
    /// Worlds that are taken up at the end of the turn.
    renewals: VecDeque<Box<Renewal>>,
    completions: u64,
    logged: bool,
    draining: bool,
    stopping: bool,
}

impl<K: Kernel> Shard<K> {
    /// A shard without listeners.
    pub fn new(id: ShardId, world: Arc<World>, kernel: K) -> Shard<K> {
        let now = kernel.now();
        let capacity = world.capacity;
        let bytes = |group: Group| {
            let layout = kernel.buffers_ref(group).layout();
            u32::from(layout.count) * layout.size
        };
        // What all directions may take unreserved, 2 per session, is half of the budget, or more
        // where that would be less than a page for each. A receive may take twice its bytes.
        let directions = 2 * u64::from(capacity.max(1));
        let share = world.memory_max / 2 / directions / 2;
        let share = u32::try_from(share).unwrap_or(u32::MAX) & !(SMALL_RECEIVE_MIN - 1);
        let small = share
            .clamp(SMALL_RECEIVE_MIN, SMALL_RECEIVE_MAX)
            .min(bytes(Group::Small) / 2);
        let owned = directions * u64::from(flow::taken_at_most(small));
        let bulk_per_turn = BULK_PER_TURN.min(bytes(Group::Bulk) / 2);
        let bulk = BULK_RECEIVE.min(bulk_per_turn);
        Shard {
            id,
            now,
            sessions: Slab::new(capacity),
            wheel: Wheel::new(now),
            acceptors: Vec::new(),
            acceptor_of: Vec::new(),
            accept_rest_until: Moment::NEVER,
            accept_idle: false,
            parked: 0,
            handed_to: Vec::new(),
            look_from: usize::from(id.0),
            churn: Churn::new(now),
            private: PrivateMemory::default(),
            budget: Budget::default(),
            reservable: world.memory_max.saturating_sub(owned),
            pieces: Pieces::default(),
            pipes: Pipes::new(world.plan.global.pipe_size, world.pipes_max),
            load: Load::new(now.0, kernel.worked_ns()),
            limits: Limits {
                small,
                bulk,
                held_max: HELD_MAX,
            },
            bulk_per_turn,
            idle_timer_ms: world.plan.global.idle_timer_ms,
            bulk_alone_limit: BULK_ALONE.min(bytes(Group::Bulk) / 2).max(bulk),
            activity: Activity {
                small_at: now,
                bulk: u32::MAX,
                bulk_changed_at: now,
            },
            spinner: Spinner::new(Spin::Never),
            dirty: Vec::new(),
            starved: VecDeque::new(),
            bulk_queue: VecDeque::new(),
            ended: Vec::new(),
            grants: VecDeque::new(),
            server_heads: Vec::new(),
            taken: Vec::new(),
            transformed: Vec::new(),
            transforms: None,
            due: Vec::new(),
            udp: None,
            header_bytes: vec![0; crate::limits::PROXY_HEADER_MAX].into(),
            unique_ids: UniqueIds::new(
                world.unix_ms_at_zero.load(Relaxed) + now.0 / 1_000_000,
                std::process::id(),
                id.0,
            ),
            renewals: VecDeque::new(),
            completions: 0,
            logged: false,
            draining: false,
            stopping: false,
            world,
            kernel,
        }
    }

    /// Adds a listener by its bare descriptor (simulation).
    pub fn listen(&mut self, listener_id: ListenerId, fd: Fd) {
        let added = self.add_listener_fd(listener_id, fd, false);
        added.expect("the kernel has memory");
    }

    /// Takes a listening socket over.
    fn add_listener(&mut self, listener: ShardListener) -> io::Result<()> {
        let fd = Fd(listener.socket.into_raw_fd());
        self.add_listener_fd(listener.listener_id, fd, listener.shared)
    }

    fn add_listener_fd(&mut self, id: ListenerId, fd: Fd, shared: bool) -> io::Result<()> {
        let listener = self.world.listener(id).expect("a socket has a listener");
        match listener.endpoint {
            Endpoint::Datagram(_) => self.add_datagram_listener(id, fd),
            Endpoint::Address(_) | Endpoint::Descriptor(_) => {
                self.add_acceptor_fd(id, fd, shared);
                Ok(())
            }
        }
    }

    /// Has every new session's bytes transformed.
    pub fn transform_by(&mut self, make: MakeTransform) {
        self.transforms = Some(make);
    }

    /// Has it look for work before it sleeps.
    pub fn spin_by(&mut self, spin: Spin) {
        self.spinner = Spinner::new(spin);
    }

    /// Arms the listeners and the wake-up poll.
    pub fn start(&mut self) {
        self.watch_wake();
        self.start_accepting();
        self.start_receiving();
        self.report();
    }

    /// One turn of the loop.
    pub fn turn(&mut self) -> io::Result<()> {
        self.sleep()?;
        self.measure_load();
        let before = self.completions;
        for _ in 0..COMPLETIONS_PER_TURN {
            let Some(completion) = self.kernel.next_completion() else {
                break;
            };
            self.completions += 1;
            self.dispatch(completion);
        }
        self.spinner.gathered(self.completions - before);
        self.turn_datagrams();
        self.expire_timers();
        if self.accept_rest_until <= self.now {
            self.resume_accepting();
        }
        if self.accept_idle {
            self.start_accepting();
        }
        self.wake_handed();
        loop {
            self.flush_dirty();
            self.finish_ended();
            let Some(grant) = self.grants.pop_front() else {
                break;
            };
            self.on_grant(grant);
        }
        self.arm_starved();
        self.arm_bulk();
        self.look_through_pipes();
        self.renew();
        if std::mem::take(&mut self.logged) {
            self.world.log_queue.notify();
        }
        self.report();
        Ok(())
    }

    /// Whether a drained or stopped shard has nothing left.
    pub fn has_ended(&self) -> bool {
        // The load counts also who is on the way here.
        self.draining
            && self.load().count() == 0
            && self.accepting_ended()
            && self.datagrams_ended()
    }

    fn datagrams_ended(&self) -> bool {
        self.udp.as_ref().is_none_or(|udp| udp.has_ended())
    }

    /// Whether it was told to end everything at once (simulation).
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Sessions open now.
    pub fn sessions_count(&self) -> usize {
        self.sessions.len()
    }

    /// The kernel (simulation).
    pub fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Gives back what is held at rest, before the thread ends.
    pub fn retire(&mut self) {
        self.pipes.retire(&self.kernel, &self.world.pipes_made);
        self.budget.settle(&self.world.memory_reserved);
        self.kernel.cancel(Token::plain(Op::Wake, 0));
        // The poll's last completion: so that nothing of the ring outlives the thread.
        let _ = self.kernel.turn(Wait::For(Duration::from_millis(10)));
        while self.kernel.next_completion().is_some() {}
        self.report();
        self.world.ports[usize::from(self.id.0)].end();
    }

    fn dispatch(&mut self, completion: Completion) {
        let token = completion.token;
        let op = token.op().expect("only our tokens come back");
        match op {
            Op::Cancel => return,
            Op::Wake => return self.on_wake(completion),
            Op::Accept => return self.on_accept(completion),
            Op::DatagramsOfClients => return self.on_datagrams(Inbox::Clients, completion),
            Op::DatagramsOfServers => return self.on_datagrams(Inbox::Servers, completion),
            Op::ReceiveClient
            | Op::ReceiveServer
            | Op::PollClient
            | Op::PollServer
            | Op::Connect
            | Op::Prelude => {}
        }
        let key = token.key();
        // A slot is not given to another session before its last completion.
        assert!(
            self.sessions.get(key).is_some(),
            "a completion without its session: {completion:?}"
        );
        match op {
            Op::ReceiveClient => self.on_receive(key.slot, Direction::Up, completion),
            Op::ReceiveServer => self.on_receive(key.slot, Direction::Down, completion),
            Op::PollClient => self.on_poll(key.slot, Side::Client, completion),
            Op::PollServer => self.on_poll(key.slot, Side::Server, completion),
            Op::Connect => self.on_connect(key.slot, completion),
            Op::Prelude => self.on_prelude(key.slot, completion),
            Op::Cancel
            | Op::Wake
            | Op::Accept
            | Op::DatagramsOfClients
            | Op::DatagramsOfServers => {}
        }
    }

    fn watch_wake(&mut self) {
        let fd = Fd(self.world.ports[usize::from(self.id.0)].wake().raw());
        self.kernel
            .poll(fd, Interest::Read, true, Token::plain(Op::Wake, 0));
    }

    fn on_wake(&mut self, completion: Completion) {
        let port = Arc::clone(&self.world.ports[usize::from(self.id.0)]);
        self.kernel.drain_wake(Fd(port.wake().raw()));
        if !completion.more {
            self.watch_wake();
        }
        if port.take_limit_freed() {
            // Later in this turn: see `on_accept`.
            self.accept_rest_until = self.now;
            self.leave_shut_listeners();
        }
        while let Some(message) = port.receive() {
            match message {
                Message::Grant(grant) => self.on_grant(grant),
                Message::Drain => {
                    self.drain_acceptors();
                    self.drain_datagrams();
                }
                Message::Stop => self.stop(),
                Message::EndSessions(server, who) => {
                    self.end_sessions_of(server, who);
                    self.end_flows_of(server, who);
                }
                Message::Serve(handed) => self.take_over(handed),
                Message::Ask(query) => self.answer(*query),
                Message::Renew(renewal) => self.renewals.push_back(renewal),
            }
        }
    }

    /// Ends everything at once.
    fn stop(&mut self) {
        self.stopping = true;
        self.drop_parked();
        self.drain_acceptors();
        self.stop_datagrams();
        let slots: Vec<u32> = self.sessions.iter().map(|(key, _)| key.slot).collect();
        for slot in slots {
            let (who, phase, cause) = (Who::Killed, Phase::Data, Cause::Aborted);
            self.begin_close(slot, Close { who, phase, cause });
        }
    }

    /// Wakes shards that wait for a limit.
    fn wake_shards(&mut self, set: ShardSet) {
        if set.is_empty() {
            return;
        }
        for port in &self.world.ports {
            if set.has(port.shard) {
                port.limit_freed();
            }
        }
    }

    /// Queues a log record; the log thread is woken once per turn.
    fn log(&mut self, record: SessionRecord) {
        self.world.log_queue.push(record);
        self.logged = true;
    }

    /// The wall clock, from the monotonic one.
    fn unix_ms(&self) -> u64 {
        self.world.unix_ms_at_zero.load(Relaxed) + self.now.0 / 1_000_000
    }

    fn gauges(&self) -> &Gauges {
        &self.world.ports[usize::from(self.id.0)].gauges
    }

    /// Counts and reports an error that no table names.
    fn unexpected(&self, operation: &str, errno: Errno) {
        self.gauges().errors_unexpected.fetch_add(1, Relaxed);
        log::warn!("unexpected error of {operation}: {errno:?}");
    }

    /// Writes the gauges.
    fn report(&mut self) {
        let operations = self.kernel.operations();
        let overflows = self.kernel.overflows();
        let mut free = 0;
        let mut total = 0;
        for group in GROUPS {
            let buffers = self.kernel.buffers_ref(group);
            free += buffers.available() as u64;
            total += u64::from(buffers.layout().count);
        }
        let ended_at = self.kernel.now();
        let [pipes_used, pipes_free] = self.pipes.counts();
        let gauges = self.gauges();
        let set = |gauge: &std::sync::atomic::AtomicU64, value: u64| gauge.store(value, Relaxed);
        set(&gauges.sessions, self.sessions.len() as u64);
        set(&gauges.private_bytes, self.private.held());
        set(&gauges.private_taken_bytes, self.private.taken());
        set(&gauges.private_cached_bytes, self.private.cached_bytes());
        set(&gauges.buffers_free, free);
        set(&gauges.buffers_total, total);
        set(&gauges.pipes_used, pipes_used);
        set(&gauges.pipes_free, pipes_free);
        set(&gauges.busy_permille, u64::from(self.load.permille()));
        set(&gauges.timers, self.wheel.len() as u64);
        set(&gauges.operations, operations);
        set(&gauges.parked, self.parked as u64);
        set(&gauges.load, u64::from(self.load().count()));
        set(&gauges.cq_overflows, overflows);
        set(&gauges.completions, self.completions);
        set(&gauges.turns, gauges.turns.load(Relaxed) + 1);
        let turn = ended_at.us_since(self.now);
        if gauges.turn_max_us.load(Relaxed) < turn {
            set(&gauges.turn_max_us, turn);
        }
    }
}

/// The backend a frontend's connections go to.
fn frontend_backend(world: &World, frontend: &Frontend) -> Option<Arc<Backend>> {
    // As it is now: a header may have been waited for while the frontend was given another one.
    let frontend = world.frontend(frontend.proxy.proxy_id)?;
    let front = frontend.proxy.front.as_ref()?;
    world.backend(front.default_backend?).cloned()
}
