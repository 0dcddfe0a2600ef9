//! What must hold after every turn, and at rest.

use std::sync::atomic::Ordering::Relaxed;

use super::Simulation;
use super::watch::Seen;
use tidegate::base::limits::LimitKey;
use tidegate::flow::udp::Reason;
use tidegate::lb::ServerCounter;
use tidegate::ring::{DatagramKernel, INBOXES};
use tidegate::shard::{DatagramCount, FrontCounter, ProxyCounters};

impl Simulation {
    fn count(&self, shard: usize, count: DatagramCount) -> u64 {
        self.works.world.ports[shard].gauges.datagrams[count as usize].load(Relaxed)
    }

    fn sum(&self, count: DatagramCount) -> u64 {
        (0..self.works.shards.len())
            .map(|shard| self.count(shard, count))
            .sum()
    }

    /// After every turn of a shard.
    pub(super) fn check_turn(&mut self, shard: usize) {
        use DatagramCount::*;
        let of = |count| self.count(shard, count);
        let seen = self.watch.seen(shard);
        assert_eq!(of(ToServers), seen.to_servers, "sent to servers");
        assert_eq!(of(ToClients), seen.to_clients, "sent to clients");
        assert!(of(FromClients) <= seen.from_clients, "came of clients");
        assert!(of(FromServers) <= seen.from_servers, "came of servers");
        let dropped = [
            Truncated,
            Unsent,
            TooLarge,
            Undeliverable,
            Unknown,
            HeadersMalformed,
            Refused,
        ];
        let dropped: u64 = dropped.into_iter().map(of).sum();
        assert_eq!(
            of(FromClients) + of(FromServers),
            of(ToServers) + of(ToClients) + dropped - seen.told_too_large,
            "what came has left or is counted as dropped"
        );
        if self.works.shards[shard].is_stopping() {
            assert_eq!(of(Flows), 0, "flows of a stopped shard");
        }
        let limits = &self.works.world.limits;
        let flows: u64 = self.sum(Flows);
        let most = limits.max(self.works.world.flows_limit);
        assert!(flows <= u64::from(most), "{flows} flows of {most}");
        let sockets = self.sum(Sockets);
        let most = self.works.world.flow_sockets_max;
        assert!(sockets <= u64::from(most), "{sockets} sockets of {most}");
        for backend in self.works.world.backends.iter().flatten() {
            for server in &backend.servers {
                let (active, most) = (server.active(), server.maxconn());
                assert!(active <= most, "{active} flows of {most}");
            }
        }
    }

    /// A shard goes to sleep: all that could bring it something is armed.
    pub(super) fn check_sleep(&mut self, shard: usize) {
        let [listeners, sockets] = self.receives(shard);
        let open = self.count(shard, DatagramCount::Sockets);
        assert_eq!(sockets as u64, open, "a socket that nobody looks at");
        let all = self.works.world.plan.listeners.len();
        let is_armed = self.works.told || listeners == all;
        assert!(is_armed, "{listeners} of {all} listeners are looked at");
    }

    /// When nothing happens any more.
    pub(super) fn check_quiet(&mut self) {
        let listeners = self.works.world.plan.listeners.len();
        let mut running = 0;
        for index in 0..self.works.shards.len() {
            let seen = self.watch.seen(index);
            let shard = &mut self.works.shards[index];
            if !shard.has_ended() {
                running += 1;
                for inbox in INBOXES {
                    let buffers = usize::from(self.scenario.inbox_buffers);
                    let available = shard.kernel_mut().inbox_available(inbox);
                    assert_eq!(available, buffers, "buffers");
                }
                let operations = self.works.world.ports[index]
                    .gauges
                    .operations
                    .load(Relaxed);
                assert_eq!(operations, listeners as u64 + 1, "operations");
            }
            let came = [DatagramCount::FromClients, DatagramCount::FromServers];
            let came = came.map(|count| self.count(index, count));
            assert_eq!(came, [seen.from_clients, seen.from_servers], "came");
            assert_eq!(self.receives(index)[1], 0, "receives");
        }
        let network = self.works.network.borrow();
        assert_eq!(
            network.datagram_sockets(),
            [0, running * listeners],
            "sockets"
        );
        assert_eq!(network.datagrams_waiting(), 0, "datagrams wait");
        drop(network);
        self.check_counts();
        self.check_clean();
    }

    fn check_counts(&self) {
        for index in 0..self.works.shards.len() {
            use DatagramCount::*;
            let held = [Flows, Sockets, Mappings].map(|count| self.count(index, count));
            assert_eq!(held, [0; 3], "flows, sockets, mappings");
            let gauges = &self.works.world.ports[index].gauges;
            assert_eq!(gauges.errors_unexpected.load(Relaxed), 0, "errors");
        }
        let limits = &self.works.world.limits;
        assert_eq!(
            limits.current(self.works.world.flows_limit),
            0,
            "flows limit"
        );
        assert_eq!(
            limits.current(self.works.world.process_limit),
            0,
            "process limit"
        );
        for listener in &self.works.world.plan.listeners {
            let id = limits.find(LimitKey::Listener(listener.listener_id));
            let id = id.expect("every listener has one");
            assert_eq!(limits.current(id), 0, "listener limit");
            assert!(limits.peak(id) <= limits.max(id), "listener limit");
        }
        for frontend in self.works.world.frontends.iter().flatten() {
            assert_eq!(limits.current(frontend.limit), 0, "frontend limit");
            let (peak, most) = (limits.peak(frontend.limit), limits.max(frontend.limit));
            assert!(peak <= most, "a frontend has had {peak} of {most}");
            assert_eq!(frontend.sources(), 0, "sources");
        }
        for backend in self.works.world.backends.iter().flatten() {
            assert_eq!((backend.active(), backend.queued()), (0, 0), "a backend");
            let active = backend.servers.iter().map(|server| server.active());
            assert_eq!(active.sum::<u32>(), 0, "servers");
        }
        assert_eq!(self.works.world.log_queue.dropped(), 0);
        self.check_statistics();
    }

    /// Flows that have begun are those accounted for, with all their datagrams.
    fn check_statistics(&self) {
        let sum = |counters: &ProxyCounters, counter: FrontCounter| counters.sum(counter as usize);
        let fronts = || self.works.world.frontends.iter().flatten();
        let backs = || {
            let backends = self.works.world.backends.iter().flatten();
            backends.map(|backend| self.works.world.counters_of(backend))
        };
        let of_fronts = |c| fronts().map(|front| sum(&front.counters, c)).sum::<u64>();
        let of_backs = |c| backs().map(|counters| sum(counters, c)).sum::<u64>();
        let of_servers = |counter: ServerCounter| {
            let backends = self.works.world.backends.iter().flatten();
            let servers = backends.flat_map(|backend| &backend.servers);
            servers
                .map(|server| server.counters.sum(counter as usize))
                .sum::<u64>()
        };
        let active = [FrontCounter::Active].map(|c| (of_fronts(c), of_backs(c)));
        assert_eq!(active, [(0, 0)], "flows are counted that are over");
        let flows = self.records.iter().filter_map(|record| record.flow);
        let flows: Vec<_> = flows.filter(|f| f.reason != Reason::Refused).collect();
        let begun = of_fronts(FrontCounter::Sessions);
        assert_eq!(begun, flows.len() as u64, "flows");
        assert_eq!(of_backs(FrontCounter::Sessions), begun, "flows");
        let moved = self.sum(DatagramCount::Moved);
        assert_eq!(of_servers(ServerCounter::Sessions), begun + moved, "flows");
        let of_all = |of: fn(&Seen) -> u64| -> u64 { self.seen().map(|seen| of(&seen)).sum() };
        let in_and_out = [
            (
                of_servers(ServerCounter::DatagramsIn),
                of_all(|seen| seen.to_servers),
            ),
            (
                of_servers(ServerCounter::BytesIn),
                of_all(|seen| seen.bytes_to_servers),
            ),
            (
                of_servers(ServerCounter::DatagramsOut),
                of_all(|seen| seen.to_clients),
            ),
            (
                of_fronts(FrontCounter::BytesOut),
                of_all(|seen| seen.bytes_to_clients),
            ),
        ];
        for (counted, passed) in in_and_out {
            assert_eq!(counted, passed, "datagrams or bytes of servers");
        }
        let received = of_fronts(FrontCounter::DatagramsIn);
        let refused = self.sum(DatagramCount::Refused);
        let requests: u64 = flows.iter().map(|flow| flow.requests).sum();
        assert_eq!(received, requests + refused, "requests");
        let evicted = flows.iter().filter(|flow| flow.reason == Reason::Evicted);
        let confirmed = evicted.clone().filter(|flow| flow.replies > 0).count();
        assert_eq!(confirmed, 0, "flows with an answer have made room");
        let evicted = evicted.count() as u64;
        self.check_evicted();
        assert_eq!(evicted, self.sum(DatagramCount::Evicted), "evicted");
    }

    /// Nobody makes room at a limit that doesn't count him.
    fn check_evicted(&self) {
        let limits = &self.works.world.limits;
        if limits.peak(self.works.world.flows_limit) >= limits.max(self.works.world.flows_limit) {
            return;
        }
        for record in &self.records {
            let evicted = record.flow.is_some_and(|f| f.reason == Reason::Evicted);
            let name = &record.frontend.proxy.name;
            let mut proxies = self.scenario.proxies.iter().enumerate();
            let limited = proxies.any(|(n, proxy)| proxy.limited && **name == *format!("l{n}"));
            assert!(!evicted || limited, "{name} makes room for others");
        }
    }

    /// Where nothing goes wrong, everything arrives.
    fn check_clean(&self) {
        if !self.scenario.clean {
            return;
        }
        use DatagramCount::*;
        let [from, to] = [FromClients, ToServers].map(|count| self.sum(count));
        assert_eq!(from, to, "requests are dropped");
        let [from, to] = [FromServers, ToClients].map(|count| self.sum(count));
        assert_eq!(from, to, "answers are dropped");
        assert_eq!(
            [FromClients, FromServers].map(|count| self.sum(count)),
            [self.peers.requests, self.peers.answers],
            "not all has come"
        );
        assert_eq!([Evicted, Moved].map(|count| self.sum(count)), [0; 2]);
    }

    /// After the shards have ended.
    pub(super) fn check_ended(&mut self) {
        assert_eq!(self.works.network.borrow().datagram_sockets(), [0, 0]);
        for port in &self.works.world.ports {
            assert_eq!(port.gauges.operations.load(Relaxed), 0, "operations");
        }
        self.check_counts();
    }
}
