//! What has come: found by its flow, and laid with what leaves at the end of the turn.

use super::batch::{Route, Singles, Towards, datagrams_in};
use super::counts::DatagramCount;
use super::flow_data::FlowData;
use super::listener::Receiving;
use super::socket::Owner;
use super::{Rest, Shard, Udp};
use crate::base::ids::SessionKey;
use crate::flow::udp::{After, FlowId, FlowKey, Reply};
use crate::ring::{Arrival, Completion, Inbox, Kernel, Payload};
use crate::shard::listener_counters::ListenerCounter;
use crate::shard::world::FrontCounter;

impl<K: Kernel> Shard<K> {
    /// A receive has brought something, or has ended.
    pub(in crate::shard) fn on_datagrams(&mut self, inbox: Inbox, completion: Completion) {
        let Some(mut udp) = self.udp.take() else {
            debug_assert!(false, "datagrams without a listener");
            return;
        };
        match inbox {
            Inbox::Clients => self.on_client(&mut udp, completion),
            Inbox::Servers => self.on_server(&mut udp, completion),
        }
        self.udp = Some(udp);
    }

    fn on_client(&mut self, udp: &mut Udp, completion: Completion) {
        let index = completion.token.index() as usize;
        let arrival = self.kernel.arrival(Inbox::Clients, &completion);
        if let Some(arrival) = &arrival {
            udp.used.push((Inbox::Clients, arrival.payload.buffer));
            self.relay_request(udp, index, arrival);
        }
        if !completion.more {
            let rest = self.rest_after(&completion, arrival.is_some());
            self.listener_rests(udp, index, rest);
        }
    }

    fn on_server(&mut self, udp: &mut Udp, completion: Completion) {
        let key = completion.token.key();
        let arrival = self.kernel.arrival(Inbox::Servers, &completion);
        debug_assert!(udp.sockets.get(key).is_some(), "a socket closed too early");
        if let Some(arrival) = &arrival {
            udp.used.push((Inbox::Servers, arrival.payload.buffer));
            self.relay_reply(udp, key, arrival);
        }
        if !completion.more {
            let rest = self.rest_after(&completion, arrival.is_some());
            if completion.result < 0 && rest == Rest::None {
                self.read_undelivered(udp, key);
            }
            self.socket_rests(udp, key, rest);
        }
    }

    /// Why a receive has ended.
    fn rest_after(&self, completion: &Completion, has_arrival: bool) -> Rest {
        match -completion.result {
            _ if has_arrival => Rest::None,
            ..=0 | libc::ECANCELED => Rest::None,
            libc::ENOBUFS => Rest::NoBuffer,
            // What an earlier datagram has met.
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENETDOWN
            | libc::ENONET
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EPROTO
            | libc::EACCES
            | libc::EMSGSIZE
            | libc::EAGAIN
            | libc::EINTR => Rest::None,
            errno => {
                self.unexpected("recvmsg", crate::ring::Errno(errno));
                Rest::Failed
            }
        }
    }

    /// Counts what nothing can be done with; whether that is all.
    fn is_lost(udp: &mut Udp, arrival: &Arrival, datagrams: u32) -> bool {
        if arrival.truncated {
            udp.counts.add(DatagramCount::Truncated, datagrams);
        } else if arrival.payload.length == 0 {
            udp.counts.one(DatagramCount::Empty);
        }
        arrival.truncated
    }

    /// Datagrams of a client.
    fn relay_request(&mut self, udp: &mut Udp, index: usize, arrival: &Arrival) {
        let datagrams = datagrams_in(arrival.payload.length, arrival.segment);
        udp.counts.add(DatagramCount::FromClients, datagrams);
        if Self::is_lost(udp, arrival, datagrams) {
            return;
        }
        let listener = &udp.listeners[index];
        let number = u16::try_from(index).expect("few listeners");
        let local = listener.local_of(arrival);
        let bytes = u64::from(arrival.payload.length);
        let counters = &listener.frontend.counters;
        let count = |counter: FrontCounter, n: u64| counters.add(self.id, counter as usize, n);
        count(FrontCounter::DatagramsIn, datagrams.into());
        count(FrontCounter::BytesIn, bytes);
        listener.count(self.id, ListenerCounter::DatagramsIn, datagrams.into());
        listener.count(self.id, ListenerCounter::BytesIn, bytes);
        let key = FlowKey::new(number, arrival.from, local, None);
        let segment = arrival.segment.unwrap_or(0).into();
        if listener.accepts_proxy {
            for single in Singles::new(arrival.payload, segment) {
                self.relay_announced(udp, &key, arrival, single);
            }
            return;
        }
        if listener.names_servers {
            for single in Singles::new(arrival.payload, segment) {
                self.relay_single(udp, &key, arrival, single, None);
            }
            return;
        }
        let mut left = Some(arrival.payload);
        while let Some(payload) = left {
            // What came together with it says nothing of the first one's server.
            let (first, _) = split(payload, arrival.segment, 1);
            let Some(id) = self.flow_of(udp, &key, first, None) else {
                // What refuses one refuses all of its kind.
                let refused = datagrams_in(payload.length, arrival.segment);
                udp.counts.add(DatagramCount::Refused, refused);
                return;
            };
            let most = udp
                .flows
                .get(id)
                .map_or(0, |flow| flow.requests_left())
                .max(1);
            let (taken, rest) = split(payload, arrival.segment, most);
            left = rest;
            self.request(udp, id, arrival, taken);
        }
    }

    /// One datagram of an arrival. `announced` is the same with the header that it came with.
    pub(super) fn relay_single(
        &mut self,
        udp: &mut Udp,
        key: &FlowKey,
        arrival: &Arrival,
        payload: Payload,
        announced: Option<Payload>,
    ) {
        if let Some(id) = self.flow_of(udp, key, payload, announced) {
            let single = Arrival {
                segment: None,
                ..*arrival
            };
            self.request(udp, id, &single, payload);
        } else {
            udp.counts.one(DatagramCount::Refused);
        }
    }

    /// The flow of a datagram: the one there is, with a server that serves, or a new one.
    fn flow_of(
        &mut self,
        udp: &mut Udp,
        key: &FlowKey,
        payload: Payload,
        announced: Option<Payload>,
    ) -> Option<FlowId> {
        let Some(id) = udp.flows.find(key) else {
            return self.open_flow(udp, key, payload, announced);
        };
        let place = udp.upstreams.at(udp.upstream_of(id));
        if !place.serves() {
            self.leave_server(udp, id, payload);
        } else if udp.listeners[usize::from(key.listener())].names_servers {
            let named = place
                .backend
                .server_of_datagram(self.kernel.payload(payload));
            if let Some(named) = named
                && named.id != place.server.id
            {
                let named = named.id;
                self.go_to_server(udp, id, payload, named);
            }
        }
        Some(id)
    }

    fn request(&mut self, udp: &mut Udp, id: FlowId, arrival: &Arrival, payload: Payload) {
        let segment = arrival.segment;
        let datagrams = datagrams_in(payload.length, segment);
        let Some(flow) = udp.flows.get_mut(id) else {
            return;
        };
        let upstream = flow.upstream();
        let is_last = flow.requests_left() <= datagrams;
        let alone = flow.pair().is_none();
        let place = udp.upstreams.at(upstream);
        let Some(socket) = udp.sockets.get(flow.data.socket) else {
            debug_assert!(false, "a flow without its socket");
            return;
        };
        let route = Route {
            fd: socket.fd,
            to: (!alone).then_some(place.address),
            from: None,
            towards: Towards::Server {
                upstream,
                socket: flow.data.socket,
            },
            flow: id.slot,
            merges: place.merges,
            segment_max: Route::segment_max(place.address),
        };
        let class = arrival.traffic_class;
        match place.server.plan.send_proxy {
            None => {
                let open = &mut flow.data.up;
                udp.batches.add(open, &route, class, payload, segment, &[]);
            }
            Some(wanted) => self.add_announced(udp, id, &route, arrival, payload, wanted),
        }
        let bytes = payload.length.into();
        match udp.flows.on_request(id, datagrams, bytes, self.now) {
            After::Stays | After::Spent => {}
            // The client's next datagram is another flow's.
            After::Ends(reason) if is_last => {
                self.end_flow(udp, id, reason, super::end::who(reason));
            }
            After::Ends(reason) => udp.ending.push((id, reason)),
        }
    }

    /// Datagrams of a server.
    fn relay_reply(&mut self, udp: &mut Udp, key: SessionKey, arrival: &Arrival) {
        let datagrams = datagrams_in(arrival.payload.length, arrival.segment);
        udp.counts.add(DatagramCount::FromServers, datagrams);
        if Self::is_lost(udp, arrival, datagrams) {
            return;
        }
        let Some(id) = self.flow_of_reply(udp, key, arrival) else {
            udp.counts.add(DatagramCount::Unknown, datagrams);
            return;
        };
        let Some(flow) = udp.flows.get_mut(id) else {
            return;
        };
        let left = u32::try_from(flow.responses_left()).unwrap_or(u32::MAX);
        let (payload, rest) = split(arrival.payload, arrival.segment, left);
        if left == 0 {
            udp.counts.add(DatagramCount::Unknown, datagrams);
            return;
        }
        let datagrams = datagrams_in(payload.length, arrival.segment);
        let more = rest.map_or(0, |rest| datagrams_in(rest.length, arrival.segment));
        udp.counts.add(DatagramCount::Unknown, more);
        let listener = &udp.listeners[usize::from(flow.key().listener())];
        let client = flow.key().client();
        let upstream = flow.upstream();
        let route = Route {
            fd: listener.fd,
            to: Some(client),
            from: flow.key().local(),
            towards: Towards::Client {
                listener: flow.key().listener().into(),
                upstream,
            },
            flow: id.slot,
            merges: flow.data.merges,
            segment_max: Route::segment_max(client),
        };
        let (class, segment) = (arrival.traffic_class, arrival.segment);
        udp.batches
            .add(&mut flow.data.down, &route, class, payload, segment, &[]);
        // Every reply ends a row of errors, not only a flow's first: flows live long.
        let server = &udp.upstreams.at(upstream).server;
        server.observed.succeeded();
        // Of a flow that has had another server, or that its server began, there is no such time.
        let is_first = !flow.is_confirmed() && !flow.data.moved && flow.requests().0 > 0;
        if is_first {
            let us = self.now.us_since(flow.started());
            server.timings.first_byte_us.record(self.id, us);
        }
        let bytes = payload.length.into();
        match udp.flows.on_reply(id, datagrams, bytes, self.now) {
            After::Stays | After::Spent => {}
            After::Ends(reason) => udp.ending.push((id, reason)),
        }
    }

    /// Whom a datagram of a server is for: nobody but the flow of its pair, and the client of a
    /// mapping.
    fn flow_of_reply(
        &mut self,
        udp: &mut Udp,
        key: SessionKey,
        arrival: &Arrival,
    ) -> Option<FlowId> {
        let socket = udp.sockets.get(key)?;
        let (pool, number) = match socket.owner {
            Owner::Nobody => return None,
            Owner::Flow(id) => {
                let flow = udp.flows.get(id).filter(|flow| flow.data.socket == key)?;
                let server = udp.upstreams.at(flow.upstream()).address;
                return (arrival.from == server).then_some(id);
            }
            Owner::Pool { pool, socket } => (pool, socket),
        };
        let shared = &udp.pools[usize::from(pool)].pool;
        match shared.reply(number, arrival.from, self.now) {
            Reply::Flow(slot) => udp.flows.id_at(slot),
            Reply::Unknown => None,
            Reply::Mapping {
                key: client,
                upstream,
                pair,
            } => {
                // The server's number may be another one's by now.
                let from = crate::flow::udp::normalised(arrival.from);
                let is_its = udp.upstreams.at(upstream).address == from;
                let data = FlowData::new(key, None);
                is_its
                    .then(|| self.reopen_flow(udp, &client, upstream, pair, data))
                    .flatten()
            }
        }
    }

    /// Gives the buffers of the turn back, and arms again what has stopped receiving. Receives that
    /// found no buffer wait until there are some, and share them.
    pub(super) fn receive_again(&mut self, udp: &mut Udp) {
        for (inbox, buffer) in udp.used.drain(..) {
            self.kernel.return_buffer(inbox, buffer);
        }
        while let Some(index) = udp.idle_listeners.pop() {
            self.arm_listener(udp, index);
        }
        if udp.rest_until <= self.now {
            udp.rest_until = crate::base::time::Moment::NEVER;
            for index in 0..udp.listeners.len() {
                self.arm_listener(udp, index);
            }
        }
        while let Some(key) = udp.idle_sockets.pop_front() {
            self.arm_socket(udp, key);
        }
        let available = self.kernel.inbox_available(Inbox::Servers);
        for _ in 0..(available / STARVED_SHARE).max(1) {
            let Some(key) = udp.starved_sockets.pop_front() else {
                break;
            };
            self.arm_socket(udp, key);
        }
    }

    fn arm_socket(&mut self, udp: &mut Udp, key: SessionKey) {
        if let Some(socket) = udp.sockets.get_mut(key)
            && socket.receiving == Receiving::Idle
            && socket.owner != Owner::Nobody
        {
            socket.receiving = Receiving::Armed;
            let fd = socket.fd;
            self.receive_on(fd, key);
        }
    }
}

/// Of the free buffers of an inbox one socket in so many is armed again after it had run dry: or a
/// thousand sockets would wake up for a hundred buffers, in vain and again.
const STARVED_SHARE: usize = 8;

/// The first `most` datagrams of an arrival, and the others.
fn split(payload: Payload, segment: Option<u16>, most: u32) -> (Payload, Option<Payload>) {
    let datagrams = datagrams_in(payload.length, segment);
    let taken = match segment {
        Some(segment) if datagrams > most => most * u32::from(segment),
        Some(_) | None => payload.length,
    };
    let rest = Payload {
        offset: payload.offset + taken,
        length: payload.length - taken,
        ..payload
    };
    let first = Payload {
        length: taken,
        ..payload
    };
    (first, (rest.length > 0).then_some(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(offset: u32, length: u32) -> Payload {
        Payload {
            inbox: Inbox::Clients,
            buffer: 3,
            offset,
            length,
        }
    }

    #[test]
    fn an_arrival_is_cut_between_datagrams() {
        let whole = of(10, 250);
        assert_eq!(split(whole, Some(100), 2), (of(10, 200), Some(of(210, 50))));
        assert_eq!(split(whole, Some(100), 3), (whole, None));
        assert_eq!(split(whole, None, 1), (whole, None));
        assert_eq!(split(of(10, 0), None, 1), (of(10, 0), None));
        assert_eq!(split(whole, Some(100), u32::MAX), (whole, None));
    }
}
