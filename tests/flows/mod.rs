//! A simulation of datagrams: shards over the scripted ring, clients and servers, one seed.

mod checks;
mod peers;
mod plan;
mod watch;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use peers::{Action, Peers};
use plan::Scenario;
use tidegate::base::ids::ShardId;
use tidegate::base::receive::ReceiveStep;
use tidegate::base::spin::Spin;
use tidegate::base::time::Moment;
use tidegate::config::plan::Endpoint;
use tidegate::flow::Who;
use tidegate::lb::{Admin, Backend, Health, ServerCounter};
use tidegate::ring::scripted::{Network, Notice, Random, Scripted};
use tidegate::ring::{Fd, Op};
use tidegate::shard::{
    Bounds, ControlPort, DatagramCount, LogQueue, Message, SessionRecord, Shard, ShardPort, World,
};
use watch::Watch;

/// Turns of all shards together, at most.
const TURNS_MAX: u64 = 200_000;
/// Virtual time a simulation may take.
const TIME_MAX_MS: u64 = 3_600_000;
/// Turns in a row that find nothing: a few happen when timers come late.
const IDLE_TURNS_MAX: u32 = 50;
/// A shard is held up for no longer, or answers would come when nobody waits for them any more.
const HELD_UP_MAX_US: u64 = 10_000;

/// What runs were, for statistics, and so that none of it is missing.
#[derive(Default, Debug)]
pub(crate) struct Summary {
    turns: u64,
    flows: u64,
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
        let few = |count: &DatagramCount| self.counts.0[*count as usize] < seeds / 32;
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
    random: Random,
    network: Rc<RefCell<Network>>,
    world: Arc<World>,
    shards: Vec<Shard<Scripted>>,
    peers: Peers,
    watch: Watch,
    records: Vec<SessionRecord>,
    turns: u64,
    /// Turns without a completion since time last went on, by shard.
    idle_turns: Vec<u32>,
    /// Shards were told to drain or to stop.
    told: bool,
    traced: bool,
}

/// Runs a seed; `None` if anything is wrong, which has then been printed.
pub(crate) fn run(seed: u64, traced: bool) -> Option<Summary> {
    let mut simulation = Simulation::new(seed, traced);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulation.run()));
    if result.is_ok() {
        let mut counts = Counts::default();
        for port in &simulation.world.ports {
            for (sum, gauge) in counts.0.iter_mut().zip(&port.gauges.datagrams) {
                *sum += gauge.load(Relaxed);
            }
        }
        return Some(Summary {
            turns: simulation.turns,
            flows: simulation.records.len() as u64,
            counts,
        });
    }
    simulation.print_trace();
    let scenario = &simulation.scenario;
    eprintln!(
        "seed {seed} fails; TIDEGATE_SIM_SEED={seed} repeats it\n{}{:?}\n{:?}\nshards {} clean {}",
        scenario.text, scenario.settings, scenario.datagrams, scenario.shards, scenario.clean
    );
    for port in &simulation.world.ports {
        eprintln!("{:?}", port.gauges.datagrams);
    }
    None
}

impl Simulation {
    fn new(seed: u64, traced: bool) -> Simulation {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random, seed % 5 == 2);
        let mut network = Network::new(random.number(), scenario.settings.clone());
        *network.datagrams() = scenario.datagrams.clone();
        network.watch_datagrams();
        if traced {
            network.trace = Some(Vec::new());
        }
        let ports: Vec<_> = (0..scenario.shards)
            .map(|id| Arc::new(ShardPort::new(ShardId(id), 256).expect("an eventfd")))
            .collect();
        let world = Arc::new(World::new(
            Arc::new(scenario.plan.clone()),
            ports,
            Arc::new(ControlPort::new(4096).expect("an eventfd")),
            Arc::new(LogQueue::new(4096).expect("an eventfd")),
            Bounds {
                maxconn: 16,
                memory_max: 1 << 20,
                pipes_max: 0,
            },
            0,
        ));
        let network = Rc::new(RefCell::new(network));
        let mut shards = Vec::new();
        for id in 0..scenario.shards {
            let step = ReceiveStep::Limit;
            let layouts = Scripted::layouts(step, 2);
            let mut kernel =
                Scripted::new(Rc::clone(&network), step, layouts, scenario.entries_max);
            kernel.limit_inboxes(scenario.inbox_buffers);
            let mut shard = Shard::new(ShardId(id), Arc::clone(&world), kernel);
            for listener in &world.plan.listeners {
                let Endpoint::Datagram(address) = listener.endpoint else {
                    panic!("all listeners take datagrams");
                };
                let fd = network.borrow_mut().listen_for_datagrams(address);
                shard.listen(listener.listener_id, Fd(fd));
            }
            if seed % 2 == 1 {
                shard.spin_by(Spin::UpTo(50));
            }
            shard.start();
            shards.push(shard);
        }
        Simulation {
            idle_turns: vec![0; shards.len()],
            peers: Peers::default(),
            watch: Watch::default(),
            scenario,
            random,
            network,
            world,
            shards,
            records: Vec::new(),
            turns: 0,
            told: false,
            traced,
        }
    }

    fn run(&mut self) {
        self.begin();
        self.until_quiet();
        self.check_quiet();
        {
            let mut network = self.network.borrow_mut();
            network.settings.cancel_max_us = 0;
            network.settings.late = 0;
        }
        self.tell_all(|| Message::Drain);
        self.until_quiet();
        for shard in &mut self.shards {
            assert!(shard.has_ended(), "a drained shard has not ended");
            shard.retire();
        }
        self.check_ended();
    }

    /// Lets shards and network take turns until nothing is left to happen.
    fn until_quiet(&mut self) {
        loop {
            let (now, next_at) = {
                let network = self.network.borrow();
                (network.now(), network.next_at().unwrap_or(Moment::NEVER))
            };
            assert!(now.ms_since(Moment(0)) < TIME_MAX_MS, "not quiet in time");
            let can_run: Vec<usize> = (0..self.shards.len())
                .filter(|index| self.can_run(*index, now))
                .collect();
            let due = next_at <= now;
            if !can_run.is_empty() && (!due || self.random.chance(500)) {
                // Seldom a shard is held up: time passes although it has something to do.
                let soon = next_at.0 < now.0 + HELD_UP_MAX_US * 1_000;
                if due || !soon || !self.random.chance(20) {
                    let index = self.random.pick(&can_run);
                    self.turn(index);
                    continue;
                }
            }
            let sleeps = self.shards.iter_mut().filter(|shard| !shard.has_ended());
            let until = sleeps
                .filter_map(|shard| shard.kernel_mut().sleeps_until())
                .min()
                .unwrap_or(Moment::NEVER);
            if next_at == Moment::NEVER && until == Moment::NEVER {
                return;
            }
            if until < next_at {
                // A sleeper wakes at its time or a little later.
                let late = self.random.below(2) * self.random.below(3_000_000);
                self.network.borrow_mut().pass(Moment(until.0 + late));
            } else {
                let notice = self.network.borrow_mut().step();
                self.handle(notice);
            }
        }
    }

    fn can_run(&mut self, index: usize, now: Moment) -> bool {
        let shard = &mut self.shards[index];
        if shard.has_ended() {
            return false;
        }
        let kernel = shard.kernel_mut();
        kernel.sleeps_until().is_none_or(|until| until <= now) || kernel.is_ready()
    }

    fn turn(&mut self, index: usize) {
        self.turns += 1;
        assert!(self.turns < TURNS_MAX, "too many turns");
        let completions = |world: &World| world.ports[index].gauges.completions.load(Relaxed);
        let before = completions(&self.world);
        let begun = self.begun_on_unusable();
        let result = self.shards[index].turn();
        assert_eq!(
            self.begun_on_unusable(),
            begun,
            "a flow begins on a server that is out of service"
        );
        let idle = result.is_ok() && completions(&self.world) == before;
        let in_a_row = &mut self.idle_turns[index];
        *in_a_row = if idle { *in_a_row + 1 } else { 0 };
        assert!(*in_a_row < IDLE_TURNS_MAX, "a shard runs hot");
        if self.traced {
            let text = match &result {
                Ok(()) => format!("shard {index} has run"),
                Err(_) => format!("shard {index} sleeps"),
            };
            self.network.borrow_mut().note(|| text);
            self.print_trace();
        }
        let passed = self.network.borrow_mut().take_passed();
        self.watch.look(index, passed, &self.peers, &self.scenario);
        {
            let mut network = self.network.borrow_mut();
            let passed = network.random.below(20_000);
            let to = Moment(network.now().0 + passed);
            network.pass(to);
        }
        match result {
            Ok(()) => self.check_turn(index),
            Err(_) => self.check_sleep(index),
        }
        while let Some(record) = self.world.log_queue.pop() {
            self.records.push(record);
        }
    }

    /// Flows begun so far on servers that get none at present.
    fn begun_on_unusable(&self) -> u64 {
        let backends = self.world.backends.iter().flatten();
        let servers = backends.flat_map(|backend| &backend.servers);
        servers
            .filter(|server| !server.in_service())
            .map(|server| server.counters.sum(ServerCounter::Connects as usize))
            .sum()
    }

    /// Receives that a shard has in the kernel: at listeners, and at sockets towards servers.
    fn receives(&mut self, index: usize) -> [usize; 2] {
        let tokens = self.shards[index].kernel_mut().outstanding();
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

    fn handle(&mut self, notice: Notice) {
        match notice {
            Notice::Timer(number) => {
                let action = self.peers.actions[number as usize].clone();
                self.act(action);
            }
            Notice::Datagrams => {
                let arrived = self.network.borrow_mut().take_datagrams();
                for datagram in arrived {
                    self.arrive(datagram);
                }
            }
            Notice::Nothing => {}
            Notice::Activity(_) | Notice::Connected(_) => panic!("nobody has a connection"),
        }
        self.print_trace();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send(client) => self.client_sends(client),
            Action::Answer(answer) => self.server_sends(answer),
            Action::Change => self.change_a_server(),
            Action::Restore => {
                let world = Arc::clone(&self.world);
                for backend in world.backends.iter().flatten() {
                    for server in &backend.servers {
                        server.set_admin(Admin::Ready);
                        server.set_health(Health::Up);
                    }
                    self.publish(backend);
                }
            }
            Action::There(address, is_there) => {
                self.network.borrow_mut().datagram_peer(address, is_there);
            }
            Action::Drain => {
                let handed_over = self.scenario.handed_over;
                self.world.handed_over.store(handed_over, Relaxed);
                self.tell_all(|| Message::Drain);
            }
            Action::Stop => self.tell_all(|| Message::Stop),
        }
    }

    /// What an operator or a probe may do to a server.
    fn change_a_server(&mut self) {
        let world = Arc::clone(&self.world);
        let backends: Vec<_> = world.backends.iter().flatten().collect();
        let backend = backends[self.random.place(backends.len())];
        let server = &backend.servers[self.random.place(backend.servers.len())];
        match self.random.below(6) {
            0 => server.set_admin(Admin::Drain),
            1 => server.set_admin(Admin::Maintenance),
            2 | 3 => server.set_health(Health::Down),
            4 => server.set_health(Health::Up),
            _ => server.set_admin(Admin::Ready),
        }
        if self.random.chance(200) {
            let who = self.random.pick(&[Who::Killed, Who::MarkedDown]);
            for port in &self.world.ports {
                port.send(Message::EndSessions(server.id, who))
                    .expect("room");
            }
        }
        self.publish(backend);
    }

    fn publish(&mut self, backend: &Backend) {
        assert!(backend.publish().is_empty(), "nobody waits for a server");
    }

    fn tell_all(&mut self, message: impl Fn() -> Message) {
        self.told = true;
        for port in &self.world.ports {
            port.send(message()).expect("room for a message");
        }
    }

    fn print_trace(&mut self) {
        if let Some(trace) = &mut self.network.borrow_mut().trace {
            for line in trace.drain(..) {
                eprintln!("{line}");
            }
        }
    }
}
