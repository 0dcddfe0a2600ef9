//! What must hold in every simulation: per turn, of every pair of peers, and at rest.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::Simulation;
use super::peer::Peer;
use super::plan;
use tidegate::base::address::Address;
use tidegate::base::receive::ReceiveStep;
use tidegate::config::plan::Target;
use tidegate::lb::{Backend, Server};
use tidegate::shard::{FrontCounter, Gauges, ProxyCounters, SessionRecord};

impl Simulation {
    /// After every turn.
    pub(super) fn check_turn(&mut self) {
        let shards = self.works.shards.iter_mut();
        let unseen: usize = shards
            .map(|shard| shard.kernel_mut().accepted_unseen())
            .sum();
        let gauges = self.works.world.ports.iter().map(|port| &port.gauges);
        let held: u64 = gauges
            .map(|gauges| gauges.private_taken_bytes.load(Relaxed))
            .sum();
        let most = self.works.world.memory_max + self.late_max();
        assert!(held <= most, "{held} private bytes of {most}");
        let pipes = self.works.network.borrow().pipes_open();
        let most = self.scenario.pipes_max as usize;
        assert!(pipes <= most, "{pipes} pipes of {most}");
        let made = self.works.world.pipes_made.load(Relaxed) as usize;
        assert_eq!(pipes, made, "pipes are counted");
        let reserved = self.works.world.memory_reserved.load(Relaxed);
        assert!(
            reserved <= self.works.world.memory_max,
            "{reserved} reserved"
        );
        let network = self.works.network.borrow();
        for backend in self.works.world.backends.iter().flatten() {
            for server in &backend.servers {
                let Target::Fixed(Address::Ip(address)) = server.plan.address else {
                    panic!("all servers have addresses");
                };
                let open = network.connections(address)[1];
                let most = server.maxconn();
                assert!(open <= most as usize, "{open} connections of {most}");
                // Who serves changes only where servers are changed.
                let serves = !self.scenario.admin_us.is_empty() || serves(backend, server);
                assert!(serves || open == 0, "{} serves", server.plan.name);
            }
        }
        // Those parked are held back, not let in.
        let gauges = self.works.world.ports.iter().map(|port| &port.gauges);
        let parked: u64 = gauges.map(|gauges| gauges.parked.load(Relaxed)).sum();
        let open = network.connections(self.scenario.listeners[0])[0] as u64;
        let most = u64::from(self.scenario.maxconn);
        assert!(
            open <= most + parked + unseen as u64,
            "{open} sessions of {most}"
        );
    }

    /// What may be held above the bound: a bundle may bring what its ring holds, once a direction.
    fn late_max(&self) -> u64 {
        if self.scenario.step != ReceiveStep::Bundle {
            return 0;
        }
        let rings = self.scenario.layouts.iter();
        let bytes = rings.map(|ring| u64::from(ring.count) * u64::from(ring.size));
        2 * u64::from(self.scenario.maxconn) * bytes.max().unwrap_or(0)
    }

    /// What the peers have seen, once nothing happens any more.
    pub(super) fn check_peers(&self) {
        for peer in &self.peers {
            assert!(peer.done, "a peer waits for ever: {peer:?}");
        }
        for client in self.peers.iter().filter(|peer| peer.client) {
            match self.counterpart(client) {
                Some(server) => self.check_pair(client, server),
                None => self.check_refused(client),
            }
        }
        for server in self.peers.iter().filter(|peer| !peer.client) {
            let Some(client) = self.counterpart(server) else {
                // Its header did not leave whole, so it got nothing of the client.
                assert!(
                    server.announcement.is_some() && server.received == 0,
                    "{server:?}"
                );
                continue;
            };
            assert!(client.client, "a server's counterpart is a client");
        }
        self.check_announcements();
    }

    /// Servers were told who their clients are: where these came from, or what their own headers
    /// say. A client has one id for all servers, and nobody else has it.
    fn check_announcements(&self) {
        let mut clients = BTreeMap::new();
        for server in &self.peers {
            let announcement = server.announcement.as_ref();
            let Some(announcement) = announcement.filter(|found| found.is_complete()) else {
                continue;
            };
            let client = self.counterpart(server).expect("a server has a client");
            let network = self.works.network.borrow();
            let [own, to] = network.addresses(client.socket.expect("started"));
            let said = client.header.as_ref().and_then(|header| header.says);
            if let Some(id) = announcement.check([said.unwrap_or(own), to]) {
                let first = *clients.entry(id).or_insert(client.number);
                assert_eq!(first, client.number, "two clients with one id");
            }
        }
    }

    fn counterpart(&self, peer: &Peer) -> Option<&Peer> {
        let other = self.works.network.borrow().counterpart(peer.socket?)?;
        self.by_socket.get(&other).map(|index| &self.peers[*index])
    }

    /// A client that no server was found for.
    fn check_refused(&self, client: &Peer) {
        assert!(client.received == 0, "bytes from nowhere");
        let [address, _] = self
            .works
            .network
            .borrow()
            .addresses(client.socket.expect("started"));
        let record = self.records.get(&address);
        let refused = record.is_some_and(|record| record.refused.is_some());
        let header = client.header.as_ref();
        assert!(
            !refused || header.is_some(),
            "no header was due: {client:?}"
        );
        let record = self.record_of(client).filter(|_| !refused);
        let may_be_refused = self.scenario.connects_fail
            || !self.scenario.strict()
            || !self.scenario.admin_us.is_empty()
            || self.scenario.drain_us.is_some();
        // A client that ends its stream without a byte before the connect counts as gone.
        let left = client.sent == 0 && record.is_some_and(|r| r.termination[0] == b'C');
        assert!(
            may_be_refused || left || !client.script.clean(),
            "a client was not served: {client:?} {:?}",
            record.map(|record| record.termination)
        );
    }

    /// Whether the proxy may have ended a session by itself.
    fn may_decide(&self, letters: [u8; 2]) -> bool {
        let scenario = &self.scenario;
        match &letters {
            b"sC" | b"RC" => scenario.connects_fail || scenario.times_out,
            [b'K', _] => scenario.stop_us.is_some() || !scenario.admin_us.is_empty(),
            _ => !scenario.strict(),
        }
    }

    /// The account of a client's session: under the address that its header says.
    fn record_of(&self, client: &Peer) -> Option<&SessionRecord> {
        let [own, _] = self.works.network.borrow().addresses(client.socket?);
        let said = client.header.as_ref().and_then(|header| header.says);
        self.records.get(&said.unwrap_or(own))
    }

    fn check_pair(&self, client: &Peer, server: &Peer) {
        let network = self.works.network.borrow();
        let ends = |peer: &Peer| peer.socket.expect("started");
        let record = self.record_of(client);
        let record = record.unwrap_or_else(|| panic!("no account of {client:?}"));
        let header = client.header.as_ref();
        assert!(
            header.is_none_or(|header| header.good),
            "served: {client:?}"
        );
        let letters = record.termination;
        // The proxy's own decision: a timeout, or the end of the process.
        let decided = matches!(letters[0], b'c' | b's' | b'K' | b'P' | b'R');
        assert!(
            !decided || self.may_decide(letters),
            "{} though nothing times out: {client:?} {server:?}",
            String::from_utf8_lossy(&letters)
        );
        // A client that ends its stream without a byte before the connect counts as gone.
        let left = matches!(&letters, b"CC" | b"CQ") && client.sent == 0;
        // So does one that every try to connect has failed for, the last one after it was accepted.
        let failed = matches!(&letters, b"SC" | b"RC") && client.received == 0;
        let decided = decided || left || failed;
        for (from, to) in [(client, server), (server, client)] {
            let sent = network.sent(ends(from));
            let finished = network.finished(ends(from));
            let complete = to.ended && to.received == sent;
            assert!(
                !to.ended || decided || (finished && complete),
                "a truncated stream looks complete: {from:?} -> {to:?}"
            );
            let proxy = network.peer(ends(from)).expect("connected");
            let arrived = finished && network.end_received(proxy);
            // Whoever resets after its end may still break what it has sent; a server may not.
            let kept = arrived && (from.script.clean() || !from.client);
            // A peer that went away, or was torn off by the other's abort, need not have got all.
            let due = kept && to.script.clean() && !decided && (from.script.clean() || to.client);
            assert!(
                !due || complete,
                "a stream is lost: {from:?} -> {to:?} {}",
                String::from_utf8_lossy(&letters)
            );
        }
        // What had been received before a reset goes out before the reset is passed on. A server
        // that takes nothing for a while isn't waited for.
        let ended_by_us = self.may_decide(*b"K-") || decided;
        let in_data = letters[1] == b'D' && !ended_by_us;
        let ways = [
            (client, server, record.bytes_in),
            (server, client, record.bytes_out),
        ];
        for (from, to, bytes) in ways {
            let waited_for = to.client || to.script.read_from_us == 0;
            if in_data && from.aborted && to.script.clean() && waited_for {
                assert_eq!(to.received, bytes, "not flushed: {from:?} -> {to:?}");
            }
        }
        if client.script.clean() && server.script.clean() && !decided {
            assert!(client.ended && server.ended, "{client:?} {server:?}");
            assert_eq!(letters, *b"--", "{client:?} {server:?}");
            assert_eq!(record.bytes_in, server.received);
            assert_eq!(record.bytes_out, client.received);
        }
    }

    /// What the shards hold at rest.
    pub(super) fn check_quiet(&mut self) {
        let running = self
            .works
            .shards
            .iter()
            .filter(|shard| !shard.has_ended())
            .count();
        let listeners = running * self.scenario.listeners.len();
        assert_eq!(self.works.network.borrow().descriptors(), [0, listeners]);
        for (index, shard) in self.works.shards.iter_mut().enumerate() {
            assert_eq!(shard.sessions_count(), 0, "sessions");
            let gauges = &self.works.world.ports[index].gauges;
            let get = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Relaxed);
            assert_eq!(get(&gauges.sessions), 0, "sessions");
            assert_eq!(get(&gauges.private_bytes), 0, "private bytes");
            assert_eq!(get(&gauges.timers), 0, "timers");
            assert_eq!(get(&gauges.pipes_used), 0, "pipes");
            // A shard that has ended has no turn left to rest in.
            let given_back = shard.has_ended() || get(&gauges.pipes_free) == 0;
            assert!(given_back, "pipes at rest");
            assert_eq!(get(&gauges.parked), 0, "parked");
            assert_eq!(get(&gauges.load), 0, "load");
            assert_eq!(
                get(&gauges.buffers_free),
                get(&gauges.buffers_total),
                "buffers"
            );
            let accepts = if shard.has_ended() {
                0
            } else {
                self.scenario.listeners.len() as u64
            };
            assert_eq!(get(&gauges.operations), accepts + 1, "operations");
            assert_eq!(get(&gauges.errors_unexpected), 0, "errors");
        }
        let sum = |of: fn(&Gauges) -> &std::sync::atomic::AtomicU64| -> u64 {
            let ports = self.works.world.ports.iter();
            ports.map(|port| of(&port.gauges).load(Relaxed)).sum()
        };
        assert_eq!(
            sum(|g| &g.handed_over),
            sum(|g| &g.taken_over),
            "on the way"
        );
        self.check_counts();
    }

    /// Sessions that have begun are those accounted for, and have all ended; whoever never was one
    /// counts among the refused.
    fn check_statistics(&self) {
        let sum = |counters: &ProxyCounters, counter: FrontCounter| counters.sum(counter as usize);
        let (mut begun, mut active) = (0, 0);
        for frontend in self.works.world.frontends.iter().flatten() {
            begun += sum(&frontend.counters, FrontCounter::Sessions);
            active |= sum(&frontend.counters, FrontCounter::Active);
        }
        for backend in self.works.world.backends.iter().flatten() {
            active |= sum(self.works.world.counters_of(backend), FrontCounter::Active);
        }
        assert_eq!(active, 0, "sessions are counted that are over");
        let is_refused = |record: &&SessionRecord| record.refused.is_some();
        let refused = self.records.values().filter(is_refused).count() as u64;
        assert_eq!(begun, self.records.len() as u64 - refused, "sessions");
        let gauges = self.works.world.ports.iter().map(|port| &port.gauges);
        let counted = gauges.map(|gauges| {
            gauges.proxy_headers_malformed.load(Relaxed)
                + gauges.proxy_headers_timed_out.load(Relaxed)
                + gauges.proxy_headers_closed.load(Relaxed)
        });
        assert_eq!(counted.sum::<u64>(), refused, "refused");
        // Something that is missed may be found when a timeout looks for it.
        let mut lasted = self.records.values().map(|record| record.total_ms);
        let is_soon = |ms: i64| ms < plan::LONG_MS;
        assert!(!self.scenario.strict() || lasted.all(is_soon), "stalled");
    }

    fn check_counts(&self) {
        for backend in self.works.world.backends.iter().flatten() {
            assert_eq!((backend.active(), backend.queued()), (0, 0), "a backend");
        }
        let limits = &self.works.world.limits;
        assert_eq!(
            limits.current(self.works.world.process_limit),
            0,
            "process limit"
        );
        for frontend in self.works.world.frontends.iter().flatten() {
            assert_eq!(limits.current(frontend.limit), 0, "frontend limit");
        }
        for listener in &self.works.world.plan.listeners {
            let key = tidegate::base::limits::LimitKey::Listener(listener.listener_id);
            let id = limits.find(key).expect("every listener has one");
            assert_eq!(limits.current(id), 0, "listener limit");
            // Each frontend has one listener.
            let frontend = &self.works.world.frontends[usize::from(listener.proxy_id.0)];
            let peak = limits.peak(frontend.as_ref().expect("a frontend").limit);
            let most = limits
                .max(id)
                .min(limits.max(self.works.world.process_limit));
            assert!(peak <= most, "a frontend has had {peak} of {most}");
        }
        let servers = self.works.world.backends.iter().flatten();
        let ranges = servers.flat_map(|backend| &backend.servers);
        let ranges = ranges.filter_map(|server| server.source_ports());
        let chosen = self.works.world.destinations.iter().map(|to| to.held());
        let held: u64 = chosen.chain(ranges.map(|ports| ports.held())).sum();
        assert_eq!(held, 0, "ports");
        assert_eq!(self.works.world.log_queue.dropped(), 0);
        self.check_statistics();
    }

    /// After the shards have ended.
    pub(super) fn check_ended(&mut self) {
        assert_eq!(self.works.network.borrow().pipes_open(), 0, "pipes");
        assert_eq!(self.works.network.borrow().descriptors(), [0, 0]);
        assert_eq!(
            self.works.world.memory_reserved.load(Relaxed),
            0,
            "reserved"
        );
        for port in &self.works.world.ports {
            assert_eq!(port.gauges.operations.load(Relaxed), 0, "operations");
        }
        self.check_counts();
    }
}

/// Whether a server gets connections while all are well: a backup only where all are, and then the
/// first or every one.
fn serves(backend: &Backend, server: &Server) -> bool {
    let all_are_backups = backend.servers.iter().all(|server| server.plan.backup);
    let back = backend.proxy.back.as_ref().expect("a backend");
    let first = backend.servers[0].id == server.id;
    !server.plan.backup || (all_are_backups && (back.allbackups || first))
}
