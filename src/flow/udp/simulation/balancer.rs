//! What the engine does with table and pool, compared with a model at every step.

mod changes;
mod model;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::network::{Kind, ServerDatagram};
use super::{Random, Settings, Summary, client_address};
use crate::base::source_counts::{SourceCounts, Taken};
use crate::base::time::Moment;
use crate::flow::udp::{
    After, FlowId, FlowKey, FlowTable, Opening, PairAt, Pool, Reason, Reply, Rest, Take,
};

use model::{Model, Owner};

/// A server as the configuration has it.
#[derive(Clone, Copy, Debug)]
struct Upstream {
    address: SocketAddr,
    present: bool,
    up: bool,
}

#[derive(Debug)]
pub(super) struct Balancer {
    settings: Settings,
    table: FlowTable<u32>,
    pool: Pool,
    counts: SourceCounts,
    upstreams: Vec<Upstream>,
    /// Addresses that were ever those of a server that was removed.
    removed: HashSet<SocketAddr>,
    /// Which sockets there are, by their number in the pool.
    sockets: HashMap<u16, u32>,
    opened: u32,
    pairs: HashMap<(u32, SocketAddr), Owner>,
    /// By slot and generation.
    flows: BTreeMap<(u32, u32), Model>,
    ending: Vec<(FlowId, Reason)>,
    summary: Summary,
}

impl Balancer {
    pub(super) fn new(settings: Settings, random: &mut Random, now: Moment) -> Balancer {
        let mut balancer = Balancer {
            settings,
            table: FlowTable::new(settings.capacity, now),
            pool: Pool::new(3, settings.pool),
            counts: SourceCounts::new(settings.capacity),
            upstreams: Vec::new(),
            removed: HashSet::new(),
            sockets: HashMap::new(),
            opened: 0,
            pairs: HashMap::new(),
            flows: BTreeMap::new(),
            ending: Vec::new(),
            summary: Summary::default(),
        };
        for index in 0..random.one_of(&[1, 2, 5]) {
            // The second one is another backend's, and the same machine as the first.
            let port = if index == 1 { 6_880 } else { 6_880 + 2 * index };
            let address = SocketAddr::from(([192, 0, 2, 1], port));
            balancer.upstreams.push(Upstream {
                address,
                present: true,
                up: true,
            });
            assert!(balancer.pool.add_upstream(index.into(), address, now));
        }
        balancer
    }

    pub(super) fn begin_turn(&mut self) {
        self.pool.begin_turn();
    }

    /// Datagrams of a client; where they go.
    pub(super) fn on_request(
        &mut self,
        client: u32,
        mut datagrams: u32,
        random: &mut Random,
        now: Moment,
    ) -> Vec<(u32, SocketAddr)> {
        let listener = (client % 2) as u16;
        let key = FlowKey::new(listener, client_address(client), None, None);
        let mut sent = Vec::new();
        while datagrams > 0 {
            let found = self.table.find(&key);
            let Some(id) = found.or_else(|| self.open(client, &key, None, random, now)) else {
                break;
            };
            self.move_from_a_server_that_is_down(id, random, now);
            let flow = self.table.get(id).expect("just found");
            assert_eq!(flow.data, client, "the flow of another client");
            let passing = flow.requests_left().min(datagrams);
            assert!(passing > 0, "a flow that takes nothing was found");
            let pair = flow.pair().expect("all are of the pool");
            let server = self.upstreams[flow.upstream() as usize].address;
            datagrams -= passing;
            let model = self.model(id);
            model.requests += u64::from(passing);
            model.last = now;
            match self
                .table
                .on_request(id, passing, 10 * u64::from(passing), now)
            {
                After::Stays => {}
                After::Spent => {
                    assert_eq!(self.table.find(&key), None);
                    self.summary.spent += 1;
                }
                After::Ends(reason) => {
                    // With the turn: before that it takes what else comes.
                    self.ending.push((id, reason));
                    datagrams = 0;
                }
            }
            for _ in 0..passing {
                sent.push((self.sockets[&pair.socket], server));
            }
        }
        sent
    }

    /// A datagram of a server.
    pub(super) fn on_reply(&mut self, datagram: &ServerDatagram, now: Moment) {
        let here = self
            .sockets
            .iter()
            .find(|(_, socket)| **socket == datagram.socket);
        let Some((&socket, _)) = here else { return };
        let owner = self.pairs.get(&(datagram.socket, datagram.from)).copied();
        let id = match self.pool.reply(socket, datagram.from, now) {
            Reply::Unknown => {
                self.summary.unknown += 1;
                assert!(
                    owner.is_none_or(|owner| owner.flow.is_none()),
                    "a flow was not found"
                );
                let kept = owner
                    .is_some_and(|owner| owner.client == datagram.client && now < owner.kept_until);
                let gone = self.removed.contains(&datagram.from);
                let lapsed = self.settings.mapping_ms.is_none() || gone;
                assert!(
                    !kept || lapsed || datagram.kind == Kind::Forged,
                    "a mapping was lost"
                );
                return;
            }
            Reply::Flow(slot) => self.table.id_at(slot).expect("a pair names a live flow"),
            Reply::Mapping {
                key,
                upstream,
                pair,
            } => {
                let owner = owner.expect("only pairs that had a flow remember one");
                assert!(now < owner.kept_until, "a mapping outlives its time");
                assert_eq!(key.client(), client_address(owner.client));
                let client = owner.client;
                let again = Some((upstream, pair));
                match self.open(client, &key, again, &mut Random::new(1), now) {
                    Some(id) => {
                        let flow = self.table.get(id).expect("live");
                        assert!(flow.responses_left() > 0, "a server could not speak");
                        id
                    }
                    None => return,
                }
            }
        };
        let flow = self.table.get(id).expect("live");
        assert_ne!(datagram.kind, Kind::Forged, "a forged reply got through");
        let server = self.upstreams[flow.upstream() as usize];
        assert_eq!(server.address, datagram.from, "a reply of another server");
        if flow.data != datagram.client {
            let hasty = owner.is_some_and(|owner| now < owner.hasty_until);
            assert!(
                hasty && datagram.kind == Kind::Answer || datagram.kind == Kind::Late,
                "{} got what is for {}",
                flow.data,
                datagram.client
            );
            self.summary.misdelivered += 1;
        }
        if flow.responses_left() == 0 {
            return;
        }
        self.summary.delivered += 1;
        let model = self.model(id);
        model.replies += 1;
        model.last = now;
        match self.table.on_reply(id, 1, 20, now) {
            After::Stays => {}
            After::Spent => panic!("a reply is no request"),
            After::Ends(reason) => self.close(id, reason, now),
        }
    }

    fn open(
        &mut self,
        client: u32,
        key: &FlowKey,
        again: Option<(u32, PairAt)>,
        random: &mut Random,
        now: Moment,
    ) -> Option<FlowId> {
        let upstream = match again {
            Some((upstream, _)) => upstream,
            None => self.pick(random)?,
        };
        let source: IpAddr = key.source().ip();
        if self.counts.take(source, self.settings.source_max) != Taken::Taken {
            self.summary.limited += 1;
            return None;
        }
        let made = self.make_flow(client, key, (upstream, again), random, now);
        if made.is_none() {
            self.counts.give(source);
        }
        made
    }

    fn make_flow(
        &mut self,
        client: u32,
        key: &FlowKey,
        (upstream, again): (u32, Option<(u32, PairAt)>),
        random: &mut Random,
        now: Moment,
    ) -> Option<FlowId> {
        if self.table.is_full() {
            let unconfirmed = self.flows.values().filter(|model| model.replies == 0);
            let first = unconfirmed.map(|model| model.started).min();
            let Some(oldest) = self.table.oldest_unconfirmed(|_| true) else {
                assert_eq!(first, None, "there was one to evict");
                self.summary.full += 1;
                return None;
            };
            let victim = self.flows[&key_of(oldest)];
            assert_eq!((victim.replies, Some(victim.started)), (0, first));
            self.close(oldest, Reason::Evicted, now);
            self.summary.evicted += 1;
        }
        let id = self.table.vacant()?;
        let pair = match again {
            Some((_, pair)) => {
                assert!(
                    self.pool.resume(pair, id),
                    "a mapping that was there a moment ago"
                );
                self.own(pair, upstream, client, id, true, now);
                self.summary.resumed += 1;
                pair
            }
            None => self.pair((upstream, client), key, id, random, now)?,
        };
        let opening = Opening {
            upstream,
            pair: Some(pair),
            rules: self.settings.rules,
        };
        let opened = self
            .table
            .open(*key, opening, client, now)
            .expect("there is room");
        assert_eq!(opened, id);
        self.summary.opened += 1;
        let model = Model {
            client,
            started: now,
            last: now,
            requests: 0,
            replies: 0,
        };
        self.flows.insert(key_of(id), model);
        Some(id)
    }

    fn pair(
        &mut self,
        (upstream, client): (u32, u32),
        key: &FlowKey,
        flow: FlowId,
        random: &mut Random,
        now: Moment,
    ) -> Option<PairAt> {
        let mut may_grow = !random.once_in(self.settings.unopened);
        loop {
            match self.pool.take(upstream, key, flow, now, may_grow) {
                Take::Pair(pair) => {
                    self.own(pair, upstream, client, flow, may_grow, now);
                    return Some(pair);
                }
                Take::Grow => match self.pool.add_socket(now) {
                    Some(socket) => {
                        self.opened += 1;
                        assert_eq!(self.sockets.insert(socket, self.opened), None);
                    }
                    None => may_grow = false,
                },
                Take::Refused(why) => {
                    self.check_refusal(why, upstream, may_grow, now);
                    return None;
                }
            }
        }
    }

    fn pick(&self, random: &mut Random) -> Option<u32> {
        let present = |index: &u32| self.upstreams[*index as usize].present;
        let up = |index: &u32| self.upstreams[*index as usize].up;
        let all: Vec<u32> = (0..self.upstreams.len() as u32).filter(present).collect();
        let usable: Vec<u32> = all.into_iter().filter(up).collect();
        (!usable.is_empty()).then(|| random.one_of(&usable))
    }

    fn move_from_a_server_that_is_down(&mut self, id: FlowId, random: &mut Random, now: Moment) {
        let flow = self.table.get(id).expect("just found");
        let (key, client, last) = (*flow.key(), flow.data, flow.last());
        if self.upstreams[flow.upstream() as usize].up {
            return;
        }
        let Some(upstream) = self.pick(random) else {
            return;
        };
        let Some(pair) = self.pair((upstream, client), &key, id, random, now) else {
            return;
        };
        let before = self
            .table
            .move_to(id, upstream, Some(pair))
            .expect("just found");
        let before = (before.0, before.1.expect("all are of the pool"));
        self.release(before, &key, last, now);
        self.summary.moved += 1;
    }

    fn close(&mut self, id: FlowId, reason: Reason, now: Moment) {
        let closed = self.table.close(id, reason).expect("a flow ends once");
        let (flow, model) = (
            closed.flow,
            self.flows.remove(&key_of(id)).expect("it began"),
        );
        assert_eq!((flow.data, closed.reason), (model.client, reason));
        assert_eq!(flow.requests(), (model.requests, 10 * model.requests));
        assert_eq!(flow.replies(), (model.replies, 20 * model.replies));
        assert_eq!(
            (flow.last(), flow.is_confirmed()),
            (model.last, model.replies > 0)
        );
        let responses = self.settings.rules.responses_max.map(u64::from);
        let due = responses.is_none_or(|max| model.replies <= max * model.requests);
        assert!(due || model.requests == 0, "more replies than are due");
        let had = (flow.upstream(), flow.pair().expect("all are of the pool"));
        self.release(had, flow.key(), flow.last(), now);
        self.counts.give(flow.key().source().ip());
        assert!(self.table.get(id).is_none() && self.table.close(id, reason).is_none());
    }

    fn release(
        &mut self,
        (upstream, pair): (u32, PairAt),
        key: &FlowKey,
        last: Moment,
        now: Moment,
    ) {
        let server = self.upstreams[upstream as usize].address;
        let rest = match self.settings.mapping_ms {
            None => Rest::Quarantine,
            Some(lifetime_ms) => Rest::Mapping {
                key,
                upstream,
                last,
                lifetime_ms,
            },
        };
        self.pool.release(pair, rest, now);
        let Some(socket) = self.sockets.get(&pair.socket) else {
            return;
        };
        let owner = self
            .pairs
            .get_mut(&(*socket, server))
            .expect("it was given");
        owner.flow = None;
        owner.released = now;
        if let Some(lifetime_ms) = self.settings.mapping_ms {
            let quarantine = now.after_ms(self.settings.pool.quarantine_ms.into());
            owner.kept_until = last.after_ms(lifetime_ms.into()).max(quarantine);
        }
    }
}

fn key_of(id: FlowId) -> (u32, u32) {
    (id.slot, id.generation)
}
