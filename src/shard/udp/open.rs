//! New flows: what they count in, their server, the socket it is spoken to from. And flows that
//! find their server out of service, or a server that finds its client again.
//!
//! What is taken is given back where a later step refuses, in the reverse order. There is no queue:
//! a datagram that finds no room is dropped and counted, and its client will ask again.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::batch::Open;
use super::counts::DatagramCount;
use super::end::who;
use super::flow_data::FlowData;
use super::listener::Receiving;
use super::origin::Ends;
use super::{Shard, Udp};
use crate::base::ids::ServerId;
use crate::base::source_counts::Taken;
use crate::config::plan::{UdpBack, UdpFront};
use crate::flow::udp::{FlowId, FlowKey, Opening, PairAt, Reason, Rules};
use crate::lb::{Backend, Outcome, Pick, PickRequest, Server, ServerCounter};
use crate::ring::{Kernel, Payload};
use crate::shard::listener_counters::ListenerCounter;
use crate::shard::world::{FrontCounter, FrontState, Frontend, ProxyCounters};

impl<K: Kernel> Shard<K> {
    /// Begins a flow for its first datagram; `None`, counted, where that is refused.
    pub(super) fn open_flow(
        &mut self,
        udp: &mut Udp,
        key: &FlowKey,
        payload: Payload,
        announced: Option<Payload>,
    ) -> Option<FlowId> {
        let listener = usize::from(key.listener());
        let backend = udp.listeners[listener].backend.clone();
        let origin = self.origin_of(announced);
        let ends = udp.ends(key, origin.as_ref());
        let id = self.let_in(udp, &ends)?;
        let chosen = backend.and_then(|backend| {
            let (upstream, server) = self.pick_upstream(udp, &backend, &ends, payload, None)?;
            Some((backend, upstream, server))
        });
        let Some((backend, upstream, server)) = chosen else {
            udp.counts.one(DatagramCount::RefusedServer);
            self.count_refused(udp, listener);
            self.log_refused(udp, &ends, payload.length);
            self.let_out(udp, &ends);
            return None;
        };
        let Some((socket, pair)) = self.take_socket(udp, upstream, &ends, id) else {
            self.release_server(&backend, &server, Outcome::Abandoned);
            self.let_out(udp, &ends);
            return None;
        };
        let data = FlowData::new(socket, origin);
        let opened = self.begin_flow(udp, key, upstream, pair, data);
        debug_assert_eq!(opened, Some(id));
        opened
    }

    /// A server speaks first, to the client of a mapping that is still there: its flow is opened
    /// again, on the pair that the server knows.
    pub(super) fn reopen_flow(
        &mut self,
        udp: &mut Udp,
        key: &FlowKey,
        upstream: u32,
        pair: PairAt,
        data: FlowData,
    ) -> Option<FlowId> {
        let place = udp.upstreams.at(upstream);
        if !place.serves() {
            return None;
        }
        let (backend, server) = (Arc::clone(&place.backend), Arc::clone(&place.server));
        let ends = udp.ends(key, None);
        let id = self.let_in(udp, &ends)?;
        if !backend.take(&server) {
            udp.counts.one(DatagramCount::RefusedServer);
            self.let_out(udp, &ends);
            return None;
        }
        let resumed = udp.pools[usize::from(pair.pool)].pool.resume(pair, id);
        if !resumed {
            // Another flow of the client has just taken it.
            self.release_server(&backend, &server, Outcome::Abandoned);
            self.let_out(udp, &ends);
            return None;
        }
        udp.counts.one(DatagramCount::Reopened);
        self.begin_flow(udp, key, upstream, Some(pair), data)
    }

    /// Gives a flow whose server is out of service another one, if there is any. What the old one
    /// still answers comes from a pair that is nobody's.
    pub(super) fn leave_server(&mut self, udp: &mut Udp, id: FlowId, payload: Payload) {
        let place = udp.upstreams.at(udp.upstream_of(id));
        let (backend, left) = (Arc::clone(&place.backend), Arc::clone(&place.server));
        if self.move_flow(udp, id, payload, Some(left.id), None) {
            let counters = self.world.counters_of(&backend);
            counters.add(self.id, FrontCounter::Redispatches as usize, 1);
            let moved = ServerCounter::Redispatches as usize;
            left.counters.add(self.id, moved, 1);
        }
    }

    /// Gives a flow the server that its datagram names, if that has room.
    pub(super) fn go_to_server(
        &mut self,
        udp: &mut Udp,
        id: FlowId,
        payload: Payload,
        named: ServerId,
    ) {
        self.move_flow(udp, id, payload, None, Some(named));
    }

    fn move_flow(
        &mut self,
        udp: &mut Udp,
        id: FlowId,
        payload: Payload,
        avoid: Option<ServerId>,
        only: Option<ServerId>,
    ) -> bool {
        let Some(flow) = udp.flows.get(id) else {
            return false;
        };
        let (ends, before) = (udp.ends_of(flow), flow.upstream());
        let place = udp.upstreams.at(before);
        let (backend, left) = (Arc::clone(&place.backend), Arc::clone(&place.server));
        let rules = place.rules;
        let Some((upstream, server)) = self.pick_upstream(udp, &backend, &ends, payload, avoid)
        else {
            return false;
        };
        let is_other = upstream != before && only.is_none_or(|only| only == server.id);
        let socket = if is_other {
            self.take_socket(udp, upstream, &ends, id)
        } else {
            None
        };
        let (Some((socket, pair)), Some(flow)) = (socket, udp.flows.get_mut(id)) else {
            self.release_server(&backend, &server, Outcome::Abandoned);
            return false;
        };
        let last = flow.last();
        let old_socket = std::mem::replace(&mut flow.data.socket, socket);
        flow.data.up = Open::default();
        flow.data.moved = true;
        if let Some((_, old_pair)) = udp.flows.move_to(id, upstream, pair) {
            let rest = Udp::rest_of(&rules, &ends.key, before, last);
            self.leave_socket(udp, old_pair, old_socket, rest);
        }
        udp.counts.one(DatagramCount::Moved);
        self.count_on_server(&server);
        let outcome = match avoid {
            Some(_) => Outcome::ServerAborted,
            None => Outcome::Completed,
        };
        self.release_server(&backend, &left, outcome);
        true
    }

    /// Takes what a new flow counts in, and a place in the table.
    fn let_in(&mut self, udp: &mut Udp, ends: &Ends) -> Option<FlowId> {
        let listener = &udp.listeners[usize::from(ends.key.listener())];
        // What was read before a successor got the socket is nobody else's to serve.
        let is_last = listener.receiving == Receiving::Ending
            && self.world.handed_over.load(Relaxed)
            && !self.stopping;
        let is_open = listener.frontend.state() == FrontState::Open && !listener.leaves;
        if (self.draining && !is_last) || !is_open {
            udp.counts.one(DatagramCount::RefusedDraining);
            return None;
        }
        let frontend = Arc::clone(&listener.frontend);
        if !self.take_flow_rates(&frontend) {
            udp.counts.one(DatagramCount::RefusedRate);
            return None;
        }
        if !self.take_source(&frontend, ends) {
            udp.counts.one(DatagramCount::RefusedSource);
            self.give_flow_rates(&frontend);
            return None;
        }
        let taken = self.take_flow_limits(udp, usize::from(ends.key.listener()));
        let id = if taken { self.place(udp) } else { None };
        if id.is_none() {
            udp.counts.one(DatagramCount::RefusedLimit);
            if taken {
                self.give_flow_limits(udp.listeners[usize::from(ends.key.listener())].limits);
            }
            self.give_source(&frontend, ends);
            self.give_flow_rates(&frontend);
        }
        id
    }

    /// Gives it back: the flow did not begin.
    fn let_out(&mut self, udp: &Udp, ends: &Ends) {
        let listener = &udp.listeners[usize::from(ends.key.listener())];
        let (frontend, limits) = (Arc::clone(&listener.frontend), listener.limits);
        self.give_flow_limits(limits);
        self.give_source(&frontend, ends);
        self.give_flow_rates(&frontend);
    }

    fn take_flow_rates(&self, frontend: &Frontend) -> bool {
        if !frontend.rate.take(self.now) {
            return false;
        }
        let taken = self.world.process_rate.take(self.now);
        if !taken {
            frontend.rate.give(self.now);
        }
        taken
    }

    fn give_flow_rates(&self, frontend: &Frontend) {
        self.world.process_rate.give(self.now);
        frontend.rate.give(self.now);
    }

    fn take_source(&self, frontend: &Frontend, ends: &Ends) -> bool {
        let most = source_flows_max(frontend);
        let sources = frontend.flow_sources.as_ref();
        sources.is_none_or(|sources| sources.take(ends.client.ip(), most) == Taken::Taken)
    }

    pub(super) fn give_source(&self, frontend: &Frontend, ends: &Ends) {
        if let Some(sources) = &frontend.flow_sources {
            sources.give(ends.client.ip());
        }
    }

    /// Takes a unit of every limit. One that is reached gives up its oldest flow without a reply,
    /// of this shard: a flow with a reply never goes.
    fn take_flow_limits(&mut self, udp: &mut Udp, listener: usize) -> bool {
        let limits = udp.listeners[listener].limits;
        for (taken, id) in limits.into_iter().enumerate() {
            let has_room = self.world.limits.take(id)
                || (self.evict(udp, listener, taken) && self.world.limits.take(id));
            if !has_room {
                for id in limits[..taken].iter().rev() {
                    let woken = self.world.limits.give(*id);
                    self.wake_shards(woken);
                }
                return false;
            }
        }
        true
    }

    /// Ends the oldest flow without a reply among those that a limit counts: the process's, the
    /// listener's or the frontend's, by its place.
    fn evict(&mut self, udp: &mut Udp, listener: usize, limit: usize) -> bool {
        let frontend = Arc::clone(&udp.listeners[listener].frontend);
        let listeners = &udp.listeners;
        let oldest = udp.flows.oldest_unconfirmed(|number| match limit {
            0 => true,
            1 => usize::from(number) == listener,
            _ => listeners[usize::from(number)].frontend.limit == frontend.limit,
        });
        let Some(oldest) = oldest else {
            return false;
        };
        udp.counts.one(DatagramCount::Evicted);
        let reason = Reason::Evicted;
        self.end_flow(udp, oldest, reason, who(reason));
        true
    }

    /// The table's next place; it holds as many as the process may have.
    fn place(&mut self, udp: &mut Udp) -> Option<FlowId> {
        if udp.flows.is_full() && !self.evict(udp, 0, 0) {
            return None;
        }
        udp.flows.vacant()
    }

    /// A server for a datagram, with a count of it.
    fn pick_upstream(
        &mut self,
        udp: &Udp,
        backend: &Arc<Backend>,
        ends: &Ends,
        payload: Payload,
        avoid: Option<ServerId>,
    ) -> Option<(u32, Arc<Server>)> {
        let request = PickRequest {
            client: Some(ends.client),
            local: ends.local,
            datagram: Some(self.kernel.payload(payload)),
            avoid,
        };
        // There is no queue: who would have to wait is refused.
        let Pick::Server(server) = backend.pick(request) else {
            return None;
        };
        match udp.upstreams.of_server(server.id) {
            Some(upstream) => Some((upstream, server)),
            None => {
                super::add_one(&self.gauges().destinations_missing);
                self.release_server(backend, &server, Outcome::Abandoned);
                None
            }
        }
    }

    /// Everything is there.
    fn begin_flow(
        &mut self,
        udp: &mut Udp,
        key: &FlowKey,
        upstream: u32,
        pair: Option<PairAt>,
        data: FlowData,
    ) -> Option<FlowId> {
        let listener = &udp.listeners[usize::from(key.listener())];
        let place = udp.upstreams.at(upstream);
        let opening = Opening {
            upstream,
            pair,
            rules: rules_of(&listener.rules, &place.rules, pair.is_none()),
        };
        let (backend, server) = (Arc::clone(&place.backend), Arc::clone(&place.server));
        let front: &ProxyCounters = &listener.frontend.counters;
        let back = self.world.counters_of(&backend);
        for counters in [front, back] {
            for counter in [
                FrontCounter::Connections,
                FrontCounter::Sessions,
                FrontCounter::Active,
            ] {
                counters.add(self.id, counter as usize, 1);
            }
        }
        listener.count(self.id, ListenerCounter::Connections, 1);
        backend.enter();
        self.count_on_server(&server);
        udp.listeners[usize::from(key.listener())].flows += 1;
        match udp.flows.open(*key, opening, data, self.now) {
            Ok(id) => Some(id),
            Err(_) => {
                debug_assert!(false, "its place was vacant");
                None
            }
        }
    }

    fn count_on_server(&self, server: &Server) {
        for counter in [
            ServerCounter::Chosen,
            ServerCounter::Connects,
            ServerCounter::Sessions,
        ] {
            server.counters.add(self.id, counter as usize, 1);
        }
        server.last_session_ms.store(self.unix_ms(), Relaxed);
    }

    fn count_refused(&self, udp: &Udp, listener: usize) {
        let listener = &udp.listeners[listener];
        let errors = FrontCounter::ConnectErrors as usize;
        listener.frontend.counters.add(self.id, errors, 1);
        if let Some(backend) = &listener.backend {
            self.world.counters_of(backend).add(self.id, errors, 1);
        }
    }
}

fn source_flows_max(frontend: &Frontend) -> u32 {
    let front = frontend.proxy.front.as_ref();
    let most = front
        .and_then(|front| front.udp)
        .map_or(0, |udp| udp.source_flows_max);
    // A bound that was lifted leaves the counts behind.
    if most == 0 { u32::MAX } else { most }
}

/// What a flow keeps to. `alone` = it has a socket of its own, by which a server may speak first
/// only while the flow is there.
fn rules_of(front: &UdpFront, back: &UdpBack, alone: bool) -> Rules {
    let idle_ms = match (front.idle_ms, back.idle_ms) {
        (0, 0) => UdpFront::IDLE_DEFAULT_MS,
        (0, ms) | (ms, 0) => ms,
        (front, back) => front.min(back),
    };
    let kept_ms = back.mapping_ms.filter(|_| alone).unwrap_or(0);
    Rules {
        idle_ms: idle_ms.max(kept_ms),
        unconfirmed_ms: front.unconfirmed_ms,
        requests_max: front.requests_max,
        responses_max: front.responses_max,
    }
}
