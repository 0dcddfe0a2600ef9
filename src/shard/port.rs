//! A shard's port: how other threads speak to it and what they may read of it.

use crossbeam::queue::ArrayQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};

use super::ShardListener;
use super::query::Query;
use super::spread::Load;
use super::udp::DatagramCount;
use super::world::World;
use crate::base::ids::{ListenerId, ServerId, ShardId};
use crate::base::time::Moment;
use crate::flow::Who;
use crate::lb::Grant;
use crate::ring::Fd;
use crate::sys::EventFd;

/// What a shard can be told.
#[derive(Debug)]
pub enum Message {
    /// A server for a waiting session.
    Grant(Grant),
    /// Stop accepting: close the listeners after accepting what is queued on them.
    Drain,
    /// End every session and the thread.
    Stop,
    /// End the sessions of a server (kill, mark-down); who wants it.
    EndSessions(ServerId, Who),
    /// Serve a connection that another shard has accepted.
    Serve(Handed),
    /// Say what there is.
    Ask(Box<Query>),
    /// The world has changed.
    Renew(Box<Renewal>),
}

/// The next world, for a shard.
#[derive(Debug)]
pub struct Renewal {
    /// The world.
    pub world: Arc<World>,
    /// Its sockets of the listeners that are new.
    pub listeners: Vec<ShardListener>,
}

/// A connection on its way to the shard that serves it. It has been let in: limits and load count
/// it.
#[derive(Debug)]
pub struct Handed {
    /// Where it came in.
    pub(super) listener_id: ListenerId,
    pub(super) client: Fd,
    pub(super) accepted_at: Moment,
}

/// Numbers a shard writes once per turn for `show activity`.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Open sessions.
    pub sessions: AtomicU64,
    /// Bytes of private memory holding data.
    pub private_bytes: AtomicU64,
    /// Bytes of the private chunks that hold it.
    pub private_taken_bytes: AtomicU64,
    /// Times a direction was not received from, or less, as the bound of private memory was
    /// reached.
    pub memory_refusals: AtomicU64,
    /// Private chunks kept for reuse, bytes.
    pub private_cached_bytes: AtomicU64,
    /// Buffers of both rings that the kernel has.
    pub buffers_free: AtomicU64,
    /// Buffers of both rings.
    pub buffers_total: AtomicU64,
    /// Timers armed.
    pub timers: AtomicU64,
    /// Operations in the kernel (accepts and the wake-up poll of an idle shard included).
    pub operations: AtomicU64,
    /// Connections accepted but held back by a limit.
    pub parked: AtomicU64,
    /// Loop turns.
    pub turns: AtomicU64,
    /// Completions handled.
    pub completions: AtomicU64,
    /// Receives refused for lack of buffers (ENOBUFS).
    pub buffers_exhausted: AtomicU64,
    /// Bytes copied out to private memory.
    pub copied_out_bytes: AtomicU64,
    /// Short or refused sends.
    pub sends_short: AtomicU64,
    /// Open sessions, and connections on their way here from other shards.
    pub load: AtomicU64,
    /// Connections accepted here and handed to another shard.
    pub handed_over: AtomicU64,
    /// Connections taken over from other shards.
    pub taken_over: AtomicU64,
    /// Accepts refused for lack of descriptors.
    pub accepts_refused: AtomicU64,
    /// Times accepting paused at a limit.
    pub accept_pauses: AtomicU64,
    /// Connects given up because the client's destination gave no address or port.
    pub destinations_missing: AtomicU64,
    /// Connects given up because a client without an IP address has none for `usesrc`.
    pub client_addresses_missing: AtomicU64,
    /// Connects given up because that address is of another family than the server's.
    pub client_families_other: AtomicU64,
    /// PROXY headers that a new connection to a server did not take whole.
    pub headers_unsent: AtomicU64,
    /// Connects that found no free port or no such address for their `source`.
    pub sources_exhausted: AtomicU64,
    /// Connects from a port that was chosen here, without one that the `source` names.
    pub sources_chosen: AtomicU64,
    /// Ports that turned out to be in use when they were tried, of both kinds.
    pub sources_in_use: AtomicU64,
    /// Connects left to the system because no port to choose was free.
    pub sources_left: AtomicU64,
    /// Clients refused for a PROXY header that isn't one, or a wrong one.
    pub proxy_headers_malformed: AtomicU64,
    /// Clients refused because their PROXY header didn't come in time.
    pub proxy_headers_timed_out: AtomicU64,
    /// Clients that left before their PROXY header was whole.
    pub proxy_headers_closed: AtomicU64,
    /// Pipes with bytes of a direction in them.
    pub pipes_used: AtomicU64,
    /// Empty pipes kept for reuse.
    pub pipes_free: AtomicU64,
    /// Directions that were to be spliced and got no pipe.
    pub pipes_refused: AtomicU64,
    /// Bytes sent out of pipes.
    pub spliced_bytes: AtomicU64,
    /// Times a direction went over from copying to splicing.
    pub splice_promotions: AtomicU64,
    /// Times one went back.
    pub splice_demotions: AtomicU64,
    /// Directions that can't be spliced, and are copied for good.
    pub splice_unfit: AtomicU64,
    /// Nanoseconds in which the shard has worked since its start, as it looks every few
    /// milliseconds.
    pub worked_ns: AtomicU64,
    /// Share of time in which the shard works, thousandths: a recent average.
    pub busy_permille: AtomicU64,
    /// Errors that no table names.
    pub errors_unexpected: AtomicU64,
    /// Looks before a sleep that found work.
    pub spins_found: AtomicU64,
    /// Looks that found none.
    pub spins_vain: AtomicU64,
    /// Times the shard went to sleep.
    pub sleeps: AtomicU64,
    /// Longest turn, microseconds, since start.
    pub turn_max_us: AtomicU64,
    /// Completion-queue overflows.
    pub cq_overflows: AtomicU64,
    /// Flows and datagrams, by [`DatagramCount`].
    pub datagrams: [AtomicU64; DatagramCount::COUNT],
}

/// One per shard.
#[derive(Debug)]
pub struct ShardPort {
    /// Whose it is.
    pub shard: ShardId,
    /// What the shard reports.
    pub gauges: Gauges,
    /// What others compare before they hand a connection over.
    pub(super) load: Load,
    messages: ArrayQueue<Message>,
    /// A limit was freed: look at paused listeners.
    limit_freed: AtomicBool,
    /// Nobody receives messages any more.
    ended: AtomicBool,
    /// The world that the shard has.
    generation: AtomicU64,
    wake: EventFd,
}

impl ShardPort {
    /// A port whose queue holds `capacity` messages: at least the process's sessions plus a few for
    /// control, so that a grant always fits: a connection is handed over before it can be granted
    /// anything, so each has one message at most.
    pub fn new(shard: ShardId, capacity: usize) -> std::io::Result<ShardPort> {
        Ok(ShardPort {
            shard,
            gauges: Gauges::default(),
            load: Load::default(),
            messages: ArrayQueue::new(capacity),
            limit_freed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            wake: EventFd::new()?,
        })
    }

    /// Sends a message; gives it back if the queue is full.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        self.messages.push(message)?;
        self.wake.notify();
        Ok(())
    }

    /// Queues a connection without waking the shard; false if the queue is full.
    pub(super) fn push(&self, handed: Handed) -> bool {
        self.messages.push(Message::Serve(handed)).is_ok()
    }

    /// Wakes the shard for what was queued.
    pub(super) fn notify(&self) {
        self.wake.notify();
    }

    /// Tells the shard that a limit it paused for has room again.
    pub fn limit_freed(&self) {
        self.limit_freed.store(true, SeqCst);
        self.wake.notify();
    }

    /// The shard ends: what was sent is dropped, and whoever waits for an answer hears of it.
    pub(super) fn end(&self) {
        self.ended.store(true, SeqCst);
        while self.messages.pop().is_some() {}
    }

    /// Whether the shard has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// Has the shard look at what each acceptor may do: a frontend was disabled, enabled or shut
    /// down, or a bound was lowered.
    pub fn look_at_acceptors(&self) {
        self.limit_freed();
    }

    /// The number of the world that the shard has: it has nothing of an earlier one any more.
    pub fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    /// The shard has this world now.
    pub(super) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, SeqCst);
    }

    /// Next message, for the shard itself.
    pub(super) fn receive(&self) -> Option<Message> {
        self.messages.pop()
    }

    /// Whether a limit was freed since the last call.
    pub(super) fn take_limit_freed(&self) -> bool {
        self.limit_freed.swap(false, SeqCst)
    }

    /// The descriptor that becomes readable when something was sent.
    pub(super) fn wake(&self) -> &EventFd {
        &self.wake
    }
}
