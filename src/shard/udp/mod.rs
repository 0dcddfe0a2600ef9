//! Relaying datagrams: receive, flow, pick, pair, send, reply, expire.
//!
//! A flow is the datagrams of one client at one listener, and is for its server what a connection
//! is. Its datagrams go through a socket that no other flow has towards the same server at the
//! time, so a reply is recognised by where it arrives and where it comes from; anything else is
//! nobody's.
//!
//! A turn: what has come is found by its flow and laid into messages (`receive`, `batch`), flows
//! begin, move and are marked for their end (`open`), messages leave (`send`), flows whose time
//! has come end (`end`), sockets that nobody needs are closed (`socket`), the buffers go back and
//! receives that have ended are armed again. A shard without a listener of datagrams has none of
//! this. What comes in a turn is bounded by the buffers of the two inboxes.

mod batch;
mod counts;
mod end;
mod flow_data;
mod listener;
mod open;
mod origin;
mod receive;
mod rows;
mod send;
mod socket;
mod stop;
mod upstreams;

pub use counts::DatagramCount;
pub use rows::FlowRow;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Shard;
use super::world::World;
use crate::base::ids::{SessionKey, ShardId};
use crate::base::slab::Slab;
use crate::base::time::Moment;
use crate::flow::udp::{FlowId, FlowTable, Reason};
use crate::ring::{Fd, Inbox, Kernel};
use batch::Batches;
use counts::Counts;
use flow_data::FlowData;
use listener::Listener;
use socket::{Shared, Socket};
use upstreams::Upstreams;

/// Before a receive is tried again that has failed for a reason nobody knows.
const REST_MS: u64 = 100;

/// Flows that a shard has room for: slots are 24 bits wide.
const FLOWS_PER_SHARD_MAX: u32 = 1 << 23;

/// Why a receive has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    /// For nothing that lasts: an empty datagram, something the network has told.
    None,
    /// There was no buffer.
    NoBuffer,
    /// For a reason nobody knows.
    Failed,
}

/// What a shard keeps for datagrams.
#[derive(Debug)]
pub(super) struct Udp {
    listeners: Vec<Listener>,
    upstreams: Upstreams,
    flows: FlowTable<FlowData>,
    pools: Vec<Shared>,
    /// Sockets that each of them may have.
    pool_sockets_max: u16,
    sockets: Slab<Socket>,
    batches: Batches,
    counts: Counts,
    /// Buffers that hold what came in this turn.
    used: Vec<(Inbox, u16)>,
    /// Flows that end when what came has been sent.
    ending: Vec<(FlowId, Reason)>,
    /// Listeners and sockets whose receive has ended.
    idle_listeners: Vec<usize>,
    idle_sockets: VecDeque<SessionKey>,
    /// The same for want of a buffer.
    starved_sockets: VecDeque<SessionKey>,
    /// Sockets to be closed.
    closing: Vec<SessionKey>,
    /// When listeners that rest are tried again.
    rest_until: Moment,
    /// When the kernel is next asked for what it has dropped.
    drops_at: Moment,
    /// When pools are next looked at for sockets that nobody needs.
    shrink_at: Moment,
    turn: u64,
}

impl Udp {
    /// The state of a shard that has no listener yet.
    fn new(shard: ShardId, world: &World, now: Moment) -> Udp {
        let shards = u32::try_from(world.ports.len()).unwrap_or(u32::MAX).max(1);
        // The remainder goes to the first shards.
        let own = world.flow_sockets_max / shards
            + u32::from(u32::from(shard.0) < world.flow_sockets_max % shards);
        let sockets_max = u16::try_from(own).unwrap_or(u16::MAX);
        let flows_max = world.limits.max(world.flows_limit);
        let mut udp = Udp {
            listeners: Vec::new(),
            upstreams: Upstreams::new(),
            flows: FlowTable::new(flows_max.min(FLOWS_PER_SHARD_MAX), now),
            pools: Vec::new(),
            pool_sockets_max: sockets_max,
            sockets: Slab::new(own),
            batches: Batches::default(),
            counts: Counts::default(),
            used: Vec::new(),
            ending: Vec::new(),
            idle_listeners: Vec::new(),
            idle_sockets: VecDeque::new(),
            starved_sockets: VecDeque::new(),
            closing: Vec::new(),
            rest_until: Moment::NEVER,
            drops_at: now,
            shrink_at: Moment::NEVER,
            turn: 0,
        };
        udp.renew_upstreams(world, now);
        udp
    }

    /// Whether the next turn has something to do that nothing will wake it for.
    pub(super) fn is_busy(&self) -> bool {
        !self.starved_sockets.is_empty() || !self.closing.is_empty() || !self.ending.is_empty()
    }

    /// Whether all its sockets are closed.
    pub(super) fn has_ended(&self) -> bool {
        self.sockets.is_empty() && self.listeners.iter().all(|l| l.fd == Fd::NONE)
    }

    /// When there is something to do if nothing comes.
    pub(super) fn next_deadline(&self) -> Moment {
        let flows = self.flows.next_deadline().unwrap_or(Moment::NEVER);
        flows.min(self.rest_until).min(self.shrink_at)
    }
}

impl<K: Kernel> Shard<K> {
    /// The end of a turn, for datagrams.
    pub(super) fn turn_datagrams(&mut self) {
        let Some(mut udp) = self.udp.take() else {
            return;
        };
        udp.turn += 1;
        self.send_batches(&mut udp);
        self.end_due(&mut udp);
        self.close_left(&mut udp);
        self.shrink_pools(&mut udp);
        self.close_sockets(&mut udp);
        self.give_up_sockets(&mut udp);
        self.look_at_drops(&mut udp);
        self.receive_again(&mut udp);
        self.report_datagrams(&mut udp);
        self.udp = Some(udp);
    }

    fn report_datagrams(&self, udp: &mut Udp) {
        udp.counts.set(DatagramCount::Flows, udp.flows.len());
        udp.counts.set(DatagramCount::Sockets, udp.sockets.len());
        let mappings = udp.pools.iter().map(|shared| shared.pool.mappings()).sum();
        udp.counts.set(DatagramCount::Mappings, mappings);
        let gauges = &self.gauges().datagrams;
        for (gauge, count) in gauges.iter().zip(udp.counts.all()) {
            gauge.store(*count, Relaxed);
        }
    }
}

/// Adds to a gauge that only this thread writes.
fn add_one(gauge: &AtomicU64) {
    gauge.store(gauge.load(Relaxed) + 1, Relaxed);
}
