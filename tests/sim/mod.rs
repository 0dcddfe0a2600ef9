//! A simulation: shards over the scripted ring, peers at both ends, one seed.

mod announcement;
mod checks;
mod header;
mod peer;
mod plan;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::clockwork::{self, Clockwork, Simulated};
use announcement::Announcement;
use header::Header;
use peer::{Peer, Script};
use plan::Scenario;
use tidegate::base::address::Address;
use tidegate::base::ids::ListenerId;
use tidegate::base::receive::ReceiveStep;
use tidegate::base::spin::Spin;
use tidegate::config::plan::{Endpoint, Target};
use tidegate::flow::transform::Transform;
use tidegate::flow::{Direction, Who};
use tidegate::lb::{Admin, Backend, Grant, Health, ServerCounter, TICK_MS};
use tidegate::ring::Fd;
use tidegate::ring::scripted::{Network, Notice, Random, Scripted, SocketId};
use tidegate::shard::{Bounds, FrontCounter, Gauges, Message, SessionRecord, Shard};

/// Turns of all shards together, at most.
const TURNS_MAX: u64 = 400_000;
/// Timers of the simulation's own.
const TIMER_DRAIN: u32 = u32::MAX;
const TIMER_STOP: u32 = u32::MAX - 1;
const TIMER_ADMIN: u32 = u32::MAX - 2;
const TIMER_READY: u32 = u32::MAX - 3;
const TIMER_RAMP: u32 = u32::MAX - 4;

/// What a run was, for statistics.
#[derive(Default, Debug)]
pub(crate) struct Summary {
    pub(crate) seeds: u64,
    pub(crate) turns: u64,
    pub(crate) bytes: u64,
    pub(crate) sessions: u64,
    pub(crate) complete: u64,
    /// Sessions behind a PROXY header, and connections refused for want of one.
    pub(crate) proxied: u64,
    pub(crate) refused: u64,
    /// Connections that another shard served than the one that accepted them.
    pub(crate) handed_over: u64,
    /// Bytes that were spliced, directions that went over to splicing and back, and those that got
    /// no pipe or couldn't be spliced.
    pub(crate) spliced: u64,
    pub(crate) promotions: u64,
    pub(crate) demotions: u64,
    pub(crate) unpiped: u64,
    pub(crate) unfit: u64,
    /// Connects from a port that was chosen, and those that got none.
    pub(crate) ported: u64,
    pub(crate) portless: u64,
    /// Directions that went over because their shard was busy, and nobody had asked for it.
    pub(crate) adaptive: u64,
}

impl Summary {
    /// Adds another run.
    pub(crate) fn add(&mut self, other: &Summary) {
        self.seeds += other.seeds;
        self.turns += other.turns;
        self.bytes += other.bytes;
        self.sessions += other.sessions;
        self.complete += other.complete;
        self.proxied += other.proxied;
        self.refused += other.refused;
        self.handed_over += other.handed_over;
        self.spliced += other.spliced;
        self.promotions += other.promotions;
        self.demotions += other.demotions;
        self.unpiped += other.unpiped;
        self.unfit += other.unfit;
        self.ported += other.ported;
        self.portless += other.portless;
        self.adaptive += other.adaptive;
    }
}

/// A running simulation.
pub(crate) struct Simulation {
    scenario: Scenario,
    works: Clockwork,
    peers: Vec<Peer>,
    by_socket: BTreeMap<SocketId, usize>,
    records: BTreeMap<SocketAddr, SessionRecord>,
    /// A server is on its way, and the timer runs that takes it further.
    ramps: bool,
    /// Directions are frozen and thawed now and then.
    refreezes: bool,
    /// Directions change their engine now and then, whatever the policy says.
    switches: bool,
}

/// A transform that changes nothing: all bytes take its way through private memory.
#[derive(Debug)]
struct Unchanged;

impl Transform for Unchanged {
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>) {
        output.extend_from_slice(input);
    }

    fn finish(&mut self, _output: &mut Vec<u8>) {}
}

/// The receive step of a seed. Neighbouring seeds differ in what else a seed decides, so that each
/// step meets all of it.
pub(crate) fn step(seed: u64) -> ReceiveStep {
    let steps = ReceiveStep::ALL;
    steps[usize::try_from(seed / 8 % steps.len() as u64).expect("a small number")]
}

/// Runs a seed; `None` if anything is wrong, which has then been printed.
pub(crate) fn run(seed: u64, traced: bool) -> Option<Summary> {
    let mut simulation = Simulation::new(seed, traced);
    simulation.holds(seed).then(|| simulation.summary())
}

impl Simulation {
    fn new(seed: u64, traced: bool) -> Simulation {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(&mut random, step(seed), seed % 8 == 3);
        let network = Network::new(random.number(), scenario.settings.clone());
        let bounds = Bounds {
            maxconn: scenario.maxconn,
            memory_max: scenario.memory_max,
            pipes_max: scenario.pipes_max,
        };
        let messages_max = scenario.maxconn as usize + 16;
        let world = clockwork::world(&scenario.plan, scenario.shards, messages_max, bounds);
        let mut works = Clockwork::new(random, network, world, TURNS_MAX, traced);
        for _ in 0..scenario.shards {
            let (step, layouts) = (scenario.step, scenario.layouts);
            let network = Rc::clone(&works.network);
            let kernel = Scripted::new(network, step, layouts, scenario.entries_max);
            let mut shard = Shard::new(works.next_shard(), Arc::clone(&works.world), kernel);
            for listener in &works.world.plan.listeners {
                let Endpoint::Address(Address::Ip(address)) = &listener.endpoint else {
                    panic!("all listeners are addresses");
                };
                let fd = works.network.borrow_mut().listen(*address);
                let ListenerId(number) = listener.listener_id;
                shard.listen(ListenerId(number), Fd(fd));
            }
            if seed % 8 == 5 {
                // Every byte then goes through private memory.
                shard.transform_by(|_| Box::new(Unchanged));
            }
            if seed % 2 == 1 {
                shard.spin_by(Spin::UpTo(50));
            }
            works.add_shard(shard);
        }
        Simulation {
            scenario,
            works,
            peers: Vec::new(),
            by_socket: BTreeMap::new(),
            records: BTreeMap::new(),
            ramps: false,
            refreezes: seed % 4 == 1,
            switches: seed % 3 == 1 && seed % 8 != 3,
        }
    }

    /// What it was, after its run.
    fn summary(&self) -> Summary {
        let peers = &self.peers;
        let records = self.records.values();
        let (refused, sessions): (Vec<_>, Vec<_>) =
            records.partition(|record| record.refused.is_some());
        let complete = sessions.iter().filter(|r| r.termination == *b"--");
        let ports = || self.works.world.ports.iter();
        let gauges = |gauge: fn(&Gauges) -> &AtomicU64| {
            ports().map(|port| gauge(&port.gauges).load(Relaxed)).sum()
        };
        let proxied = sessions.iter().filter(|r| header::is_made_up(r.client));
        let mut proxies = self.works.world.plan.proxies.iter();
        let asked = self.switches || proxies.any(|proxy| proxy.splice.any());
        let promotions = gauges(|gauges| &gauges.splice_promotions);
        Summary {
            seeds: 1,
            adaptive: if asked { 0 } else { promotions },
            spliced: gauges(|gauges| &gauges.spliced_bytes),
            promotions,
            demotions: gauges(|gauges| &gauges.splice_demotions),
            unpiped: gauges(|gauges| &gauges.pipes_refused),
            unfit: gauges(|gauges| &gauges.splice_unfit),
            ported: gauges(|gauges| &gauges.sources_chosen),
            portless: gauges(|gauges| &gauges.sources_exhausted),
            turns: self.works.turns,
            bytes: peers.iter().map(|peer| peer.received).sum(),
            sessions: sessions.len() as u64,
            complete: complete.count() as u64,
            proxied: proxied.count() as u64,
            refused: refused.len() as u64,
            handed_over: gauges(|gauges| &gauges.handed_over),
        }
    }

    fn send_clients(&mut self) {
        let mut network = self.works.network.borrow_mut();
        for number in 0..self.scenario.clients {
            let script = Script::new(&mut self.works.random, self.scenario.bytes_max, true);
            self.peers.push(Peer::new(number, true, script));
            let at = self.works.random.below(self.scenario.arrivals_us + 1);
            network.timer(at, number);
        }
        for us in &self.scenario.admin_us {
            network.timer(*us, TIMER_ADMIN);
        }
        if let Some(us) = self.scenario.admin_us.iter().max() {
            network.timer(us + 2_000_000, TIMER_READY);
        }
        if let Some(us) = self.scenario.drain_us {
            network.timer(us, TIMER_DRAIN);
        }
        if let Some(us) = self.scenario.stop_us {
            network.timer(us, TIMER_STOP);
        }
    }

    /// Connections let in so far, by frontend.
    fn accepted(&self) -> Vec<u64> {
        let fronts = self.works.world.frontends.iter().flatten();
        let accepted = FrontCounter::Connections as usize;
        fronts.map(|front| front.counters.sum(accepted)).collect()
    }

    /// Connects begun so far to servers that get none at present.
    fn connects_to_unusable(&self) -> u64 {
        let backends = self.works.world.backends.iter().flatten();
        let servers = backends.flat_map(|backend| &backend.servers);
        servers
            .filter(|server| !server.usable())
            .map(|server| server.counters.sum(ServerCounter::Connects as usize))
            .sum()
    }

    /// The header that the server of a new connection expects.
    fn announcement_at(&self, socket: SocketId) -> Option<Announcement> {
        let [address, _] = self.works.network.borrow().addresses(socket);
        let mut servers = self.works.world.backends.iter().flatten();
        let server = servers.find_map(|backend| {
            let target = Target::Fixed(Address::Ip(address));
            let mut servers = backend.servers.iter();
            servers.find(|server| server.plan.address == target)
        });
        let server = server.expect("connections are to servers");
        server.plan.send_proxy.map(Announcement::new)
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
            2 => server.set_health(Health::Down),
            3 => server.set_health(Health::Up),
            _ => server.set_admin(Admin::Ready),
        }
        if self.works.random.chance(400) {
            for port in &self.works.world.ports {
                port.send(Message::EndSessions(server.id, Who::Killed))
                    .expect("room");
            }
        }
        self.publish(backend);
        // Sometimes another change follows before anybody has heard of this one.
        if self.works.random.chance(300) {
            self.change_a_server();
        }
    }

    fn publish(&mut self, backend: &Backend) {
        self.send(backend.publish());
        if !self.ramps {
            self.ramp();
        }
    }

    /// What the control thread does for servers on their way; it may be late.
    fn ramp(&mut self) {
        let now = self.works.network.borrow().now();
        self.ramps = false;
        let world = Arc::clone(&self.works.world);
        for backend in world.backends.iter().flatten() {
            let ramped = backend.ramp(now);
            self.ramps |= ramped.goes_on;
            self.send(ramped.grants);
        }
        if self.ramps {
            let late_us = self.works.random.below(2) * self.works.random.below(200_000);
            let us = TICK_MS * 1_000 + late_us;
            self.works.network.borrow_mut().timer(us, TIMER_RAMP);
        }
    }

    fn send(&self, grants: Vec<Grant>) {
        for grant in grants {
            let port = &self.works.world.ports[usize::from(grant.waiter.shard.0)];
            port.send(Message::Grant(grant)).expect("room");
        }
    }
}

impl Simulated for Simulation {
    fn works(&mut self) -> &mut Clockwork {
        &mut self.works
    }

    fn run(&mut self) {
        self.send_clients();
        self.until_quiet();
        self.check_peers();
        self.check_quiet();
        self.end_shards();
        self.check_ended();
    }

    fn turn(&mut self, index: usize) {
        if self.refreezes && self.works.random.below(8) == 0 {
            let direction = Direction::BOTH[usize::from(self.works.random.below(2) == 1)];
            let nth = usize::try_from(self.works.random.below(4)).expect("a small number");
            self.works.shards[index].refreeze(nth, direction);
        }
        if self.switches && self.works.random.below(8) == 0 {
            let direction = Direction::BOTH[usize::from(self.works.random.below(2) == 1)];
            let nth = usize::try_from(self.works.random.below(4)).expect("a small number");
            self.works.shards[index].switch_engine(nth, direction);
        }
        let accepted = self.accepted();
        let gauges = &self.works.world.ports[index].gauges;
        let parked = gauges.parked.load(Relaxed);
        let stopping = self.works.shards[index].is_stopping();
        let connects = self.connects_to_unusable();
        let is_awake = self.works.turn(index);
        let now = self.accepted();
        let new = now.iter().zip(&accepted).map(|(now, before)| now - before);
        // Each frontend has one listener.
        let new = new.max().unwrap_or(0);
        assert!(!stopping || new == 0, "a stopped shard lets somebody in");
        assert_eq!(
            self.connects_to_unusable(),
            connects,
            "a connect to a server that is out of service"
        );
        // A drain takes whoever waits.
        if !self.works.told
            && let Some(most) = self.works.world.plan.global.maxaccept
        {
            let most = u64::from(most) + parked;
            assert!(
                new <= most,
                "{new} connections accepted in a turn, {most} allowed"
            );
        }
        if is_awake {
            self.check_turn();
        }
        while let Some(record) = self.works.world.log_queue.pop() {
            let client = record.client.expect("an address");
            let before = self.records.insert(client, record);
            assert!(before.is_none(), "a session is accounted for twice");
        }
    }

    fn handle(&mut self, notice: Notice) {
        let network = Rc::clone(&self.works.network);
        match notice {
            Notice::Nothing | Notice::Datagrams => {}
            Notice::Timer(TIMER_DRAIN) => self.works.tell_all(|| Message::Drain),
            Notice::Timer(TIMER_STOP) => self.works.tell_all(|| Message::Stop),
            Notice::Timer(TIMER_ADMIN) => self.change_a_server(),
            Notice::Timer(TIMER_READY) => {
                let world = Arc::clone(&self.works.world);
                for backend in world.backends.iter().flatten() {
                    clockwork::make_ready(backend);
                    self.publish(backend);
                }
            }
            Notice::Timer(TIMER_RAMP) => self.ramp(),
            Notice::Timer(number) => {
                let index = number as usize;
                if self.peers[index].socket.is_none() {
                    let listener = self.works.random.pick(&self.scenario.listeners);
                    let socket = network.borrow_mut().connect_client(listener);
                    self.by_socket.insert(socket, index);
                    let [client, _] = network.borrow().addresses(socket);
                    if self.scenario.expects_header(client, listener) {
                        let most = self.scenario.settings.queue[0];
                        let ends = [client, listener];
                        let header = Header::new(&mut self.works.random, ends, most);
                        self.peers[index].send_before(header);
                    }
                    self.peers[index].start(&mut network.borrow_mut(), socket);
                } else {
                    self.peers[index].run(&mut network.borrow_mut());
                }
            }
            Notice::Activity(socket) => {
                if let Some(index) = self.by_socket.get(&socket) {
                    self.peers[*index].run(&mut network.borrow_mut());
                }
            }
            Notice::Connected(socket) => {
                let script = Script::new(&mut self.works.random, self.scenario.bytes_max, false);
                let number = u32::try_from(self.peers.len()).expect("few");
                let mut peer = Peer::new(number, false, script);
                peer.announcement = self.announcement_at(socket);
                peer.start(&mut network.borrow_mut(), socket);
                self.by_socket.insert(socket, self.peers.len());
                self.peers.push(peer);
            }
        }
    }

    fn state(&mut self) -> String {
        let mut text = format!(
            "{}{:?} {:?} SQ {} shards {} memory {} {:?}\n",
            self.scenario.text,
            self.scenario.step,
            self.scenario.layouts,
            self.scenario.entries_max,
            self.scenario.shards,
            self.scenario.memory_max,
            self.scenario.settings,
        );
        for peer in self.peers.iter().filter(|peer| !peer.done) {
            text += &format!("open: {peer:?}\n");
        }
        for port in &self.works.world.ports {
            text += &format!("{:?}\n", port.gauges);
        }
        for shard in &mut self.works.shards {
            let kernel = shard.kernel_mut();
            let sleeps = kernel.sleeps_until();
            let names: Vec<_> = kernel
                .outstanding()
                .map(|token| (token.op(), token.key()))
                .collect();
            text += &format!("sleeps until {sleeps:?}, outstanding {names:?}\n");
        }
        let reserved = self.works.world.memory_reserved.load(Relaxed);
        text + &format!("reserved {reserved}, turns {}\n", self.works.turns)
    }
}
