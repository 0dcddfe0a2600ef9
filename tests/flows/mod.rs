//! A simulation of datagrams: shards over the scripted ring, clients and servers, one seed.

mod checks;
mod peers;
mod plan;
mod watch;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::clockwork::{self, Clockwork, Simulated};
use peers::{Action, Peers};
use plan::Scenario;
use tidegate::base::receive::ReceiveStep;
use tidegate::base::spin::Spin;
use tidegate::config::plan::Endpoint;
use tidegate::flow::Who;
use tidegate::lb::{Admin, Backend, Health, ServerCounter};
use tidegate::ring::scripted::{Network, Notice, Random, Scripted};
use tidegate::ring::{Fd, Op};
use tidegate::shard::{Bounds, DatagramCount, Message, SessionRecord, Shard};
use watch::{Seen, Watch};

/// Turns of all shards together, at most.
const TURNS_MAX: u64 = 200_000;
/// Messages that may wait for a shard.
const MESSAGES_MAX: usize = 256;
/// A shard is held up for no longer, or answers would come when nobody waits for them any more.
const HELD_UP_MAX_US: u64 = 10_000;

/// What runs were, for statistics, and so that none of it is missing.
#[derive(Default, Debug)]
pub(crate) struct Summary {
    turns: u64,
    flows: u64,
    /// Datagrams of which a shard was told that a router had dropped them for their length.
    told_too_large: u64,
    counts: Counts,
}

/// Gauges of datagrams, of all shards.
#[derive(Default, Debug)]
struct Counts([u64; DatagramCount::COUNT]);

impl Summary {
    /// Adds another run.
    pub(crate) fn add(&mut self, other: &Summary) {
        self.turns += other.turns;
        self.flows += other.flows;
        self.told_too_large += other.told_too_large;
        for (sum, count) in self.counts.0.iter_mut().zip(other.counts.0) {
            *sum += count;
        }
    }

    /// What should have happened in so many runs and has not, or hardly.
    pub(crate) fn missing(&self, seeds: u64) -> Vec<DatagramCount> {
        use DatagramCount::*;
        let seldom = [
            Truncated,
            Unsent,
            TooLarge,
            Undeliverable,
            Unknown,
            Refused,
            Refusals,
            SegmentsRefused,
            InboxesExhausted,
            Evicted,
            Moved,
            Reopened,
            RefusedLimit,
            RefusedSource,
            RefusedRate,
            RefusedServer,
            RefusedSocket,
            RefusedDraining,
        ];
        let often = [
            FromClients,
            ToServers,
            FromServers,
            ToClients,
            Merged,
            Empty,
        ];
        let few = |count: &DatagramCount| {
            let all = self.counts.0[*count as usize];
            let least = match count {
                // By a router, and by the balancer itself.
                TooLarge => self.told_too_large.min(all - self.told_too_large),
                _ => all,
            };
            least < seeds / 32
        };
        let many = |count: &DatagramCount| self.counts.0[*count as usize] < 2 * seeds;
        seldom
            .into_iter()
            .filter(few)
            .chain(often.into_iter().filter(many))
            .collect()
    }
}

/// A running simulation.
struct Simulation {
    scenario: Scenario,
    works: Clockwork,
    peers: Peers,
    watch: Watch,
    records: Vec<SessionRecord>,
}

/// Runs a seed; `None` if anything is wrong, which has then been printed.
pub(crate) fn run(seed: u64, traced: bool) -> Option<Summary> {
    let mut simulation = Simulation::new(seed, traced);
    simulation.holds(seed).then(|| simulation.summary())
}

impl Simulation {
    fn new(seed: u64, traced: bool) -> Simulation {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random, seed % 5 == 2);
        let mut network = Network::new(random.number(), scenario.settings.clone());
        *network.datagrams() = scenario.datagrams.clone();
        network.watch_datagrams();
        let bounds = Bounds {
            maxconn: 16,
            memory_max: 1 << 20,
            pipes_max: 0,
        };
        let world = clockwork::world(&scenario.plan, scenario.shards, MESSAGES_MAX, bounds);
        let mut works = Clockwork::new(random, network, world, TURNS_MAX, traced);
        works.held_up_max_us = HELD_UP_MAX_US;
        for _ in 0..scenario.shards {
            let step = ReceiveStep::Limit;
            let layouts = Scripted::layouts(step, 2);
            let network = Rc::clone(&works.network);
            let mut kernel = Scripted::new(network, step, layouts, scenario.entries_max);
            kernel.limit_inboxes(scenario.inbox_buffers);
            let mut shard = Shard::new(works.next_shard(), Arc::clone(&works.world), kernel);
            for listener in &works.world.plan.listeners {
                let Endpoint::Datagram(address) = listener.endpoint else {
                    panic!("all listeners take datagrams");
                };
                let fd = works.network.borrow_mut().listen_for_datagrams(address);
                shard.listen(listener.listener_id, Fd(fd));
            }
            if seed % 2 == 1 {
                shard.spin_by(Spin::UpTo(50));
            }
            works.add_shard(shard);
        }
        Simulation {
            scenario,
            works,
            peers: Peers::default(),
            watch: Watch::default(),
            records: Vec::new(),
        }
    }

    /// What it was, after its run.
    fn summary(&self) -> Summary {
        let mut counts = Counts::default();
        for port in &self.works.world.ports {
            for (sum, gauge) in counts.0.iter_mut().zip(&port.gauges.datagrams) {
                *sum += gauge.load(Relaxed);
            }
        }
        Summary {
            turns: self.works.turns,
            flows: self.records.len() as u64,
            told_too_large: self.seen().map(|seen| seen.told_too_large).sum(),
            counts,
        }
    }

    /// What has passed each shard so far.
    fn seen(&self) -> impl Iterator<Item = Seen> {
        (0..self.works.shards.len()).map(|shard| self.watch.seen(shard))
    }

    /// Flows begun so far on servers that get none at present.
    fn begun_on_unusable(&self) -> u64 {
        let backends = self.works.world.backends.iter().flatten();
        let servers = backends.flat_map(|backend| &backend.servers);
        servers
            .filter(|server| !server.in_service())
            .map(|server| server.counters.sum(ServerCounter::Connects as usize))
            .sum()
    }

    /// Receives that a shard has in the kernel: at listeners, and at sockets towards servers.
    fn receives(&mut self, index: usize) -> [usize; 2] {
        let tokens = self.works.shards[index].kernel_mut().outstanding();
        let mut counts = [0; 2];
        for token in tokens {
            match token.op() {
                Some(Op::DatagramsOfClients) => counts[0] += 1,
                Some(Op::DatagramsOfServers) => counts[1] += 1,
                _ => {}
            }
        }
        counts
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(client) => self.client_sends(client),
            Action::Answer(answer) => self.server_sends(answer),
            Action::Change => self.change_a_server(),
            Action::Restore => {
                let world = Arc::clone(&self.works.world);
                for backend in world.backends.iter().flatten() {
                    clockwork::make_ready(backend);
                    self.publish(backend);
                }
            }
            Action::There(address, is_there) => {
                self.works
                    .network
                    .borrow_mut()
                    .datagram_peer(address, is_there);
            }
            Action::Drain => {
                let handed_over = self.scenario.handed_over;
                self.works.world.handed_over.store(handed_over, Relaxed);
                self.works.tell_all(|| Message::Drain);
            }
            Action::Stop => self.works.tell_all(|| Message::Stop),
        }
    }

    /// What an operator or a probe may do to a server.
    fn change_a_server(&mut self) {
        let world = Arc::clone(&self.works.world);
        let backends: Vec<_> = world.backends.iter().flatten().collect();
        let backend = backends[self.works.random.place(backends.len())];
        let server = &backend.servers[self.works.random.place(backend.servers.len())];
        match self.works.random.below(6) {
            0 => server.set_admin(Admin::Drain),
            1 => server.set_admin(Admin::Maintenance),
            2 | 3 => server.set_health(Health::Down),
            4 => server.set_health(Health::Up),
            _ => server.set_admin(Admin::Ready),
        }
        if self.works.random.chance(200) {
            let who = self.works.random.pick(&[Who::Killed, Who::MarkedDown]);
            for port in &self.works.world.ports {
                port.send(Message::EndSessions(server.id, who))
                    .expect("room");
            }
        }
        self.publish(backend);
    }

    fn publish(&mut self, backend: &Backend) {
        assert!(backend.publish().is_empty(), "nobody waits for a server");
    }
}

impl Simulated for Simulation {
    fn works(&mut self) -> &mut Clockwork {
        &mut self.works
    }

    fn run(&mut self) {
        self.begin();
        self.until_quiet();
        self.check_quiet();
        self.end_shards();
        self.check_ended();
    }

    fn turn(&mut self, index: usize) {
        let begun = self.begun_on_unusable();
        let is_awake = self.works.turn(index);
        assert_eq!(
            self.begun_on_unusable(),
            begun,
            "a flow begins on a server that is out of service"
        );
        let (passed, told_too_large) = {
            let mut network = self.works.network.borrow_mut();
            (network.take_passed(), network.take_told_too_large())
        };
        self.watch.look(index, passed, &self.peers, &self.scenario);
        self.watch.told_too_large(index, told_too_large);
        if is_awake {
            self.check_turn(index);
        } else {
            self.check_sleep(index);
        }
        while let Some(record) = self.works.world.log_queue.pop() {
            self.records.push(record);
        }
    }

    fn handle(&mut self, notice: Notice) {
        match notice {
            Notice::Timer(number) => {
                let action = self.peers.actions[number as usize].clone();
                self.act(action);
            }
            Notice::Datagrams => {
                let arrived = self.works.network.borrow_mut().take_datagrams();
                for datagram in arrived {
                    self.arrive(datagram);
                }
            }
            Notice::Nothing => {}
            Notice::Activity(_) | Notice::Connected(_) => panic!("nobody has a connection"),
        }
    }

    fn state(&mut self) -> String {
        let scenario = &self.scenario;
        let mut text = format!(
            "{}{:?}\n{:?}\nshards {} clean {}\n",
            scenario.text, scenario.settings, scenario.datagrams, scenario.shards, scenario.clean
        );
        for port in &self.works.world.ports {
            text += &format!("{:?}\n", port.gauges.datagrams);
        }
        text
    }
}
