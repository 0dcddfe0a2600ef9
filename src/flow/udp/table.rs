//! The flows of one shard: found by key, kept in numbered slots, listed by server and by age.
//!
//! A touch stores a moment and nothing else. The timer of a flow stands where it was put, and is
//! moved on when it comes up for a flow that was active meanwhile (`expiry`).
//!
//! The table decides nothing that others see: whoever has it asks, carries out and closes.

use super::flow::{After, Closed, Flow, Opening, Reason, UNLIMITED};
use super::index::Index;
use super::lists::{Links, List};
use super::{EXPIRED_PER_TURN, FlowId, FlowKey, PairAt};
use crate::base::slab::Slab;
use crate::base::time::Moment;
use crate::base::wheel::Wheel;

/// The flows of one shard.
#[derive(Debug)]
pub struct FlowTable<D> {
    pub(super) flows: Slab<Flow<D>>,
    index: Index,
    pub(super) wheel: Wheel,
    /// Scratch of `expire`.
    pub(super) due: Vec<u32>,
    /// By server.
    upstreams: Vec<List>,
    /// Unconfirmed ones by listener, the oldest first.
    unconfirmed: Vec<List>,
}

impl<D> FlowTable<D> {
    /// A table of at most `capacity` flows.
    pub fn new(capacity: u32, now: Moment) -> FlowTable<D> {
        FlowTable {
            flows: Slab::new(capacity),
            index: Index::new(),
            wheel: Wheel::new(now),
            due: Vec::with_capacity(EXPIRED_PER_TURN),
            upstreams: Vec::new(),
            unconfirmed: Vec::new(),
        }
    }

    /// The flow that a datagram with this key belongs to.
    #[inline]
    pub fn find(&self, key: &FlowKey) -> Option<FlowId> {
        let slot = self.find_slot(self.index.hash(key.bytes()), key)?;
        self.flows.key_at(slot)
    }

    /// The name of the flow that is opened next; `None` if there is no room.
    pub fn vacant(&self) -> Option<FlowId> {
        self.flows.vacant_key()
    }

    /// Begins a flow, or gives `data` back if there is no room. Where another flow has the key
    /// already, the new one is for replies only (of a server that speaks first).
    pub fn open(
        &mut self,
        key: FlowKey,
        opening: Opening,
        data: D,
        now: Moment,
    ) -> Result<FlowId, D> {
        let Some(id) = self.flows.vacant_key() else {
            return Err(data);
        };
        let hash = self.index.hash(key.bytes());
        let spent = self.find_slot(hash, &key).is_some();
        let rules = opening.rules;
        let flow = Flow {
            key,
            confirmed: false,
            spent,
            header_sent: false,
            upstream: opening.upstream,
            pair: opening.pair,
            requests_left: rules.requests_max.unwrap_or(UNLIMITED),
            responses_max: rules.responses_max.unwrap_or(UNLIMITED),
            idle_ms: rules.idle_ms,
            unconfirmed_ms: rules.unconfirmed_ms.min(rules.idle_ms),
            started: now,
            last: now,
            requests: 0,
            replies: 0,
            request_bytes: 0,
            reply_bytes: 0,
            by_upstream: Links::UNLINKED,
            by_age: Links::UNLINKED,
            data,
        };
        let deadline = flow.deadline();
        self.flows.insert(flow).map_err(|flow| flow.data)?;
        if !spent {
            self.index.insert(hash, id.slot);
        }
        at(&mut self.upstreams, opening.upstream).push(&mut self.flows, id.slot, upstream_links);
        let listener = u32::from(key.listener());
        at(&mut self.unconfirmed, listener).push(&mut self.flows, id.slot, age_links);
        self.wheel.arm(id.slot, deadline);
        Ok(id)
    }

    /// A flow, unless it has ended.
    #[inline]
    pub fn get(&self, id: FlowId) -> Option<&Flow<D>> {
        self.flows.get(id)
    }

    /// A flow, unless it has ended.
    #[inline]
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow<D>> {
        self.flows.get_mut(id)
    }

    /// The flow in a slot now.
    #[inline]
    pub fn id_at(&self, slot: u32) -> Option<FlowId> {
        self.flows.key_at(slot)
    }

    /// Notes datagrams of the client that go on. No more than `requests_left` may: of several that
    /// came at once the others begin a new flow.
    pub fn on_request(&mut self, id: FlowId, datagrams: u32, bytes: u64, now: Moment) -> After {
        let Some(flow) = self.flows.get_mut(id) else {
            return After::Stays;
        };
        flow.last = flow.last.max(now);
        flow.requests += u64::from(datagrams);
        flow.request_bytes += bytes;
        if flow.responses_max == 0 {
            return After::Ends(Reason::Responses);
        }
        if flow.requests_left == UNLIMITED || flow.spent {
            return After::Stays;
        }
        flow.requests_left = flow.requests_left.saturating_sub(datagrams);
        if flow.requests_left > 0 {
            return After::Stays;
        }
        self.detach(id.slot);
        After::Spent
    }

    /// Notes replies that go on. No more than `responses_left` may.
    pub fn on_reply(&mut self, id: FlowId, datagrams: u32, bytes: u64, now: Moment) -> After {
        let Some(flow) = self.flows.get_mut(id) else {
            return After::Stays;
        };
        flow.last = flow.last.max(now);
        flow.replies += u64::from(datagrams);
        flow.reply_bytes += bytes;
        let ends = flow.responses_left() == 0;
        if !std::mem::replace(&mut flow.confirmed, true) {
            let listener = u32::from(flow.key.listener());
            at(&mut self.unconfirmed, listener).unlink(&mut self.flows, id.slot, age_links);
        }
        if ends {
            After::Ends(Reason::Responses)
        } else {
            After::Stays
        }
    }

    /// Gives a flow another server, whose first datagram may need a header again. What it had
    /// before is returned.
    pub fn move_to(
        &mut self,
        id: FlowId,
        upstream: u32,
        pair: Option<PairAt>,
    ) -> Option<(u32, Option<PairAt>)> {
        let flow = self.flows.get_mut(id)?;
        let before = (flow.upstream, flow.pair);
        flow.upstream = upstream;
        flow.pair = pair;
        flow.header_sent = false;
        at(&mut self.upstreams, before.0).unlink(&mut self.flows, id.slot, upstream_links);
        at(&mut self.upstreams, upstream).push(&mut self.flows, id.slot, upstream_links);
        Some(before)
    }

    /// Ends a flow; `None` if it has ended already.
    pub fn close(&mut self, id: FlowId, reason: Reason) -> Option<Closed<D>> {
        self.detach(self.flows.get(id).map(|_| id.slot)?);
        let flow = self.flows.get(id)?;
        let (upstream, listener) = (flow.upstream, u32::from(flow.key.listener()));
        if !flow.confirmed {
            at(&mut self.unconfirmed, listener).unlink(&mut self.flows, id.slot, age_links);
        }
        at(&mut self.upstreams, upstream).unlink(&mut self.flows, id.slot, upstream_links);
        self.wheel.disarm(id.slot);
        let flow = self.flows.remove(id)?;
        Some(Closed { flow, reason })
    }

    /// Whoever makes room at a limit: the oldest flow without a reply among those of the listeners
    /// that the limit counts (`of_limit`). A flow with a reply never does.
    pub fn oldest_unconfirmed(&self, of_limit: impl Fn(u16) -> bool) -> Option<FlowId> {
        let listeners = (0..=u16::MAX).zip(&self.unconfirmed);
        let heads = listeners
            .filter(|(listener, list)| list.len() > 0 && of_limit(*listener))
            .filter_map(|(_, list)| Some((self.flows.at(list.head)?.started, list.head)));
        let (_, oldest) = heads.min()?;
        self.flows.key_at(oldest)
    }

    /// The first flow of a server, the one it has had longest.
    pub fn first_of(&self, upstream: u32) -> Option<FlowId> {
        let list = self.upstreams.get(upstream as usize)?;
        self.flows.key_at(list.head)
    }

    /// The flow of the same server behind another one.
    pub fn next_of(&self, id: FlowId) -> Option<FlowId> {
        self.flows.key_at(self.flows.get(id)?.by_upstream.next)
    }

    /// All flows of a server.
    pub fn of_upstream(&self, upstream: u32) -> impl Iterator<Item = FlowId> {
        std::iter::successors(self.first_of(upstream), |id| self.next_of(*id))
    }

    /// How many flows a server has.
    pub fn count_of(&self, upstream: u32) -> u32 {
        let list = self.upstreams.get(upstream as usize);
        list.map_or(0, List::len)
    }

    /// All flows, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &Flow<D>)> {
        self.flows.iter()
    }

    /// Some of them, by slot: those in up to `slots` slots from one on, and the slot to go on from.
    pub fn page(
        &self,
        from: u32,
        slots: u32,
    ) -> (impl Iterator<Item = (FlowId, &Flow<D>)>, Option<u32>) {
        self.flows.page(from, slots)
    }

    /// Flows there are.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.flows.is_full()
    }

    /// Flows without a reply.
    pub fn unconfirmed(&self) -> u32 {
        self.unconfirmed.iter().map(List::len).sum()
    }

    fn find_slot(&self, hash: u32, key: &FlowKey) -> Option<u32> {
        let is_it = |slot| self.flows.at(slot).is_some_and(|flow| flow.key == *key);
        self.index.find(hash, is_it)
    }

    /// The key does not lead to the flow any more.
    fn detach(&mut self, slot: u32) {
        if let Some(flow) = self.flows.at_mut(slot)
            && !std::mem::replace(&mut flow.spent, true)
        {
            let hash = self.index.hash(flow.key.bytes());
            self.index.remove(hash, slot);
        }
    }
}

fn upstream_links<D>(flows: &mut Slab<Flow<D>>, slot: u32) -> Option<&mut Links> {
    Some(&mut flows.at_mut(slot)?.by_upstream)
}

fn age_links<D>(flows: &mut Slab<Flow<D>>, slot: u32) -> Option<&mut Links> {
    Some(&mut flows.at_mut(slot)?.by_age)
}

/// The list with a number; the first use makes it.
fn at(lists: &mut Vec<List>, number: u32) -> &mut List {
    let index = number as usize;
    if lists.len() <= index {
        lists.resize(index + 1, List::EMPTY);
    }
    &mut lists[index]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::udp::{Opening, Rules};

    /// Of so many keys some twenty pairs have the same hash of 32 bits.
    #[test]
    fn flows_with_equal_hashes_are_told_apart() {
        const FLOWS: u32 = 400_000;
        let key = |number: u32| {
            let ip = std::net::Ipv4Addr::from_bits(number);
            FlowKey::new(0, (ip, 53).into(), None, None)
        };
        let opening = Opening {
            upstream: 0,
            pair: None,
            rules: Rules {
                idle_ms: 1000,
                unconfirmed_ms: 1000,
                requests_max: None,
                responses_max: None,
            },
        };
        let mut table = FlowTable::new(FLOWS, Moment(0));
        let mut ids = Vec::new();
        for number in 0..FLOWS {
            assert_eq!(table.find(&key(number)), None);
            ids.push(table.open(key(number), opening, (), Moment(0)).unwrap());
        }
        for (number, id) in (0..).zip(&ids) {
            assert_eq!(table.find(&key(number)), Some(*id));
        }
        for (number, id) in (0..).zip(&ids) {
            assert!(table.close(*id, Reason::Shutdown).is_some());
            assert_eq!(table.find(&key(number)), None);
        }
    }
}
