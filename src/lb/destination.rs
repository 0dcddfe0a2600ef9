//! Ports for the connections to one destination, where the balancer chooses them itself.
//!
//! A port is free or not towards a destination, so servers with one address share theirs. Without a
//! `source` the system chooses until connections that we have closed first are in its way: each
//! keeps its port for as long as TIME_WAIT lasts, and connect(2) has to look at all of them when
//! the ports that it tries first are used up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use super::server::Server;
use crate::base::address::Address;
use crate::base::ports::Ports;
use crate::base::source::Source;
use crate::base::time::Moment;
use crate::config::plan::{PortChoice, PortReuse, SourcePorts, Target};

/// How long a port of a connection that has ended is in the way: TIME_WAIT, and the shortest
/// one that the system uses again.
const TIME_WAIT_MS: u32 = 60_000;
const REUSED_AFTER_MS: u32 = 1_000;
/// Ports stay chosen until so long after they were last needed: by then the system has back what
/// was chosen for it.
const QUIET_MS: u64 = TIME_WAIT_MS as u64;
/// How long the system chooses after no port of ours was free, so that a range which others use
/// doesn't cost every connection all its attempts.
const REST_MS: u64 = 100;

/// From where, and where to.
type Key = (Option<Source>, SocketAddr);

/// The ports towards one destination, from one source.
#[derive(Debug)]
pub struct Destination {
    key: Key,
    ports: Ports,
    /// What is chosen is all there is: without a port there is no connection.
    strict: bool,
    /// It is on whatever the system has to search: a source is set, or it was asked for.
    constant: bool,
    /// Above so many connections in the way the system's search is too long.
    on_above: u32,
    /// How long each of them is in the way.
    lifetime_ms: u32,
    on: AtomicBool,
    /// No port was free: until when not to look for one.
    rests_until: AtomicU64,
    /// For how long it hasn't been needed, for the control thread.
    quiet_ms: AtomicU64,
    /// Estimate of the connections in the way. Most sessions write it at their end.
    ended: CachePadded<AtomicU32>,
}

impl Destination {
    fn new(plan: &SourcePorts, source: Option<Source>, to: SocketAddr) -> Destination {
        let (low, high) = plan.slice();
        // From the port that it wants to reach a socket can come to be connected to itself.
        let left_out = plan.left_out().chain([to.port()]);
        let reused = match plan.system.reuse {
            PortReuse::Always => true,
            PortReuse::Loopback => to.ip().to_canonical().is_loopback(),
            PortReuse::Never => false,
        };
        let strict = plan.choice == PortChoice::Always;
        // The system tries the ports of one parity first. When half of these are in the way, it
        // looks at two for each one it finds, and from there on quickly at more.
        let on_above = plan.system.count() / 4;
        let constant = strict || source.is_some_and(|source| source.ip.is_some());
        Destination {
            key: (source, to),
            ports: Ports::new(low, high).without(left_out),
            strict,
            constant,
            on_above,
            lifetime_ms: if reused {
                REUSED_AFTER_MS
            } else {
                TIME_WAIT_MS
            },
            on: AtomicBool::new(constant),
            rests_until: AtomicU64::new(0),
            quiet_ms: AtomicU64::new(0),
            ended: CachePadded::default(),
        }
    }

    /// The ports to choose one of; `None` = the system chooses now.
    pub fn ports(&self, now: Moment) -> Option<&Ports> {
        let on = self.is_on() && now.0 >= self.rests_until.load(Relaxed);
        on.then_some(&self.ports)
    }

    /// No port was free; true if the system may choose one.
    pub fn exhausted(&self, now: Moment) -> bool {
        if !self.strict {
            self.rests_until.store(now.after_ms(REST_MS).0, Relaxed);
        }
        !self.strict
    }

    /// From now on ports are chosen: the system has none left, but those that it holds back because
    /// of connections that have ended can be had by who asks for them.
    pub fn switch_on(&self) {
        self.on.store(true, Relaxed);
    }

    /// Gives a port back.
    pub fn give(&self, port: u16) {
        self.ports.give(port);
    }

    /// A connection has ended, and it was our end that was closed first.
    pub fn closed_first(&self) {
        if self.constant {
            return;
        }
        let ended = self.ended.fetch_add(1, Relaxed).saturating_add(1);
        if ended > self.on_above && !self.is_on() {
            self.on.store(true, Relaxed);
        }
    }

    /// So much time has passed. For the control thread, about every second.
    pub fn tick(&self, elapsed_ms: u64) {
        let before = self.ended.load(Relaxed);
        let part = u64::from(before) * elapsed_ms / u64::from(self.lifetime_ms);
        // The last few leave too.
        let gone = u32::try_from(part)
            .unwrap_or(before)
            .clamp(1, before.max(1));
        self.ended.fetch_sub(gone.min(before), Relaxed);
        if self.constant || !self.is_on() {
            return;
        }
        let quiet_ms = match before > self.on_above / 4 {
            true => 0,
            false => self.quiet_ms.load(Relaxed).saturating_add(elapsed_ms),
        };
        self.quiet_ms.store(quiet_ms, Relaxed);
        if quiet_ms >= QUIET_MS {
            self.quiet_ms.store(0, Relaxed);
            self.on.store(false, Relaxed);
        }
    }

    /// Whether ports are chosen here.
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// How many of its ports connections have now.
    pub fn held(&self) -> u64 {
        self.ports.held()
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(self) + self.ports.bytes() - size_of_val(&self.ports)
    }
}

/// Makes the destinations of the servers that have one of their own, and tells these.
///
/// Those of `before` are taken up again: their connections have ports of theirs.
pub fn destinations<'a>(
    plan: &SourcePorts,
    servers: impl Iterator<Item = &'a Arc<Server>>,
    before: &[Arc<Destination>],
) -> Vec<Arc<Destination>> {
    let before: HashMap<Key, &Arc<Destination>> = before.iter().map(|d| (d.key, d)).collect();
    let mut known: HashMap<Key, Arc<Destination>> = HashMap::new();
    if plan.choice == PortChoice::Off {
        return Vec::new();
    }
    for server in servers {
        let source = server.plan.source;
        // Who names a port or takes another's address has said all.
        let is_free = |source: Source| source.ports.is_none() && source.foreign.is_none();
        if let Target::Fixed(Address::Ip(to)) = server.plan.address
            && source.is_none_or(is_free)
        {
            let made = || match before.get(&(source, to)) {
                Some(destination) => Arc::clone(destination),
                None => Arc::new(Destination::new(plan, source, to)),
            };
            server.set_destination(known.entry((source, to)).or_insert_with(made));
        }
    }
    known.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{backend_of, planned};
    use super::*;
    use crate::config::plan::{self, Balance, LocalPorts};

    const NOW: Moment = Moment(1);

    fn plan(choice: PortChoice) -> SourcePorts {
        SourcePorts {
            choice,
            ..SourcePorts::default()
        }
    }

    fn source(ip: Option<&str>) -> Option<Source> {
        Some(Source {
            ip: ip.map(|ip| ip.parse().unwrap()),
            ports: None,
            interface: None,
            foreign: None,
        })
    }

    fn to(address: &str) -> Destination {
        Destination::new(&plan(PortChoice::Auto), None, address.parse().unwrap())
    }

    fn end(to: &Destination, count: u32) {
        (0..count).for_each(|_| to.closed_first());
    }

    #[test]
    fn ports_are_chosen_when_half_of_those_tried_first_are_in_the_way() {
        let far = to("192.0.2.1:80");
        end(&far, 7_058);
        assert!(!far.is_on() && far.ports(NOW).is_none());
        end(&far, 1);
        assert!(far.is_on() && far.ports(NOW).is_some());
    }

    #[test]
    fn connections_are_in_the_way_for_as_long_as_time_wait_lasts() {
        let second = |to: &Destination, count| {
            end(to, count);
            to.tick(1_000);
        };
        // 130 a second are 7,800 in a minute, and 110 are 6,600.
        for (rate, on) in [(130, true), (110, false)] {
            let far = to("192.0.2.1:80");
            (0..600).for_each(|_| second(&far, rate));
            assert_eq!(far.is_on(), on, "{rate} per second");
        }
        // On this machine they are in the way for a second.
        for address in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
            let near = to(address);
            (0..600).for_each(|_| second(&near, 7_000));
            assert!(!near.is_on(), "{address}");
            second(&near, 7_100);
            assert!(near.is_on(), "{address}");
        }
        for (reuse, on) in [(PortReuse::Never, true), (PortReuse::Always, false)] {
            let mut plan = plan(PortChoice::Auto);
            plan.system.reuse = reuse;
            for address in ["192.0.2.1:80", "127.0.0.1:80"] {
                let to = Destination::new(&plan, None, address.parse().unwrap());
                (0..600).for_each(|_| second(&to, 200));
                assert_eq!(to.is_on(), on, "{address} with {reuse:?}");
            }
        }
    }

    #[test]
    fn they_stay_chosen_until_a_minute_has_been_quiet() {
        let near = to("127.0.0.1:80");
        end(&near, 7_100);
        // A pause is no reason to change.
        for _ in 0..20 {
            near.tick(1_000);
            (0..50).for_each(|_| near.tick(1_000));
            assert!(near.is_on());
            end(&near, 1_800);
        }
        near.tick(1_000);
        (0..59).for_each(|_| near.tick(1_000));
        assert!(near.is_on());
        near.tick(1_000);
        assert!(!near.is_on());
        assert_eq!(near.ended.load(Relaxed), 0);
        // From then on as at the beginning.
        near.switch_on();
        (0..59).for_each(|_| near.tick(1_000));
        assert!(near.is_on());
        near.tick(1_000);
        assert!(!near.is_on());
    }

    #[test]
    fn what_is_left_to_the_system_is_for_a_while() {
        let far = to("192.0.2.1:80");
        far.switch_on();
        assert!(far.exhausted(NOW));
        assert!(far.ports(NOW.after_ms(REST_MS - 1)).is_none());
        assert!(far.ports(NOW.after_ms(REST_MS)).is_some());
        let address = "192.0.2.1:80".parse().unwrap();
        let strict = Destination::new(&plan(PortChoice::Always), None, address);
        assert!(strict.is_on() && !strict.exhausted(NOW));
        assert!(strict.ports(NOW).is_some(), "it is all there is");
        (0..100).for_each(|_| strict.tick(1_000));
        assert!(strict.is_on());
    }

    #[test]
    fn a_named_address_is_reason_enough() {
        let address = "192.0.2.1:80".parse().unwrap();
        let auto = plan(PortChoice::Auto);
        let named = Destination::new(&auto, source(Some("192.0.2.7")), address);
        assert!(named.is_on() && named.exhausted(NOW));
        assert!(!Destination::new(&auto, source(None), address).is_on());
    }

    #[test]
    fn neither_reserved_ports_nor_its_own_are_taken_to_reach_it() {
        let plan = SourcePorts {
            choice: PortChoice::Always,
            range: Some((50_000, 50_005)),
            system: LocalPorts {
                reserved: vec![(50_001, 50_002), (60_000, 60_001)],
                ..LocalPorts::default()
            },
        };
        let to = Destination::new(&plan, None, "127.0.0.1:50004".parse().unwrap());
        let ports = to.ports(NOW).unwrap();
        let next = || ports.find(|_| Some(())).map(|(port, ())| port);
        let all: Vec<u16> = std::iter::from_fn(next).collect();
        assert_eq!(all, [50_000, 50_003, 50_005]);
        to.give(50_003);
        assert_eq!(next(), Some(50_003));
    }

    #[test]
    fn servers_with_one_address_share() {
        let server = |id, host, source| {
            let server = planned(id, host, (1, 0));
            Arc::new(plan::Server {
                source,
                ..(*server).clone()
            })
        };
        let ranged = source(Some("192.0.2.7")).map(|source| source.at(7));
        let servers = vec![
            server(0, 1, None),
            server(1, 1, None),
            server(2, 1, source(Some("192.0.2.7"))),
            server(3, 2, None),
            server(4, 2, ranged),
        ];
        let backend = backend_of(Balance::RoundRobin, servers, 0);
        let made = |choice| destinations(&plan(choice), backend.servers.iter(), &[]);
        assert!(made(PortChoice::Off).is_empty());
        assert!(backend.servers.iter().all(|s| s.destination().is_none()));
        let all = made(PortChoice::Auto);
        assert_eq!(all.len(), 3);
        assert!(
            all.iter().all(|to| to.bytes() < 2_300),
            "{}",
            all[0].bytes()
        );
        let of = |index: usize| backend.servers[index].destination();
        let same = |a, b| std::ptr::eq(of(a).unwrap(), of(b).unwrap());
        assert!(same(0, 1) && !same(0, 2) && !same(0, 3));
        assert!(of(4).is_none(), "its source has a port already");
    }
}
