//! The virtual network: sockets, listeners, descriptors, the clock and what happens when.
//!
//! One network serves every shard of a simulation and the scripted peers at its other ends. Nothing
//! happens by itself: the simulation takes the next event, or lets a shard run. All chance comes
//! from the seed.

mod connecting;
mod datagrams;
mod descriptors;
mod moving;
mod pipes;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::random::Random;
use super::socket::{Socket, SocketId};
use crate::base::time::Moment;
use datagrams::Datagrams;
pub(super) use datagrams::Received;
pub use datagrams::{Datagram, DatagramSettings, Passed, Way};
use pipes::VirtualPipe;

/// Nanoseconds in a microsecond.
const US: u64 = 1_000;

/// How the network behaves. Odds are per thousand.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest time from one end to the other, microseconds.
    pub latency_max_us: u64,
    /// Smallest and largest queue of a socket, bytes.
    pub queue: [u64; 2],
    /// Descriptors that may be open at once.
    pub descriptors_max: usize,
    /// Connections that wait on a listener.
    pub backlog: usize,
    /// Connects that are there at once.
    pub connect_immediate: u32,
    /// Connects that are refused.
    pub connect_refused: u32,
    /// Connects that nobody answers.
    pub connect_never: u32,
    /// Connects for which there is no descriptor, no port or no route.
    pub connect_error: u32,
    /// Ports that shards name for a connect and that are somebody else's.
    pub port_taken: u32,
    /// Accepts that fail.
    pub accept_error: u32,
    /// Sends that take less than there is room for.
    pub send_short: u32,
    /// Steps of an operation put off to a later turn.
    pub late: u32,
    /// Multishot operations that end by themselves, as on a full completion queue.
    pub overflow: u32,
    /// Polls that fire for nothing, and receives that find nothing after all.
    pub spurious: u32,
    /// Longest time a cancellation takes, microseconds.
    pub cancel_max_us: u64,
    /// Pipes that are refused, or given little room.
    pub pipe_refused: u32,
    /// Some sockets can't be spliced.
    pub splice_unfit: bool,
    /// Busiest a shard may be, thousandths of the time.
    pub load_max: u64,
}

/// What the simulation has to do something about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A timer of the simulation's own.
    Timer(u32),
    /// Something happened to a scripted peer's socket.
    Activity(SocketId),
    /// A shard has connected: the server's end of the new connection.
    Connected(SocketId),
    /// Datagrams have come to scripted peers.
    Datagrams,
    /// Nothing.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Deliver(SocketId),
    Reset(SocketId),
    Arrive(SocketId),
    ConnectDone(SocketId),
    ConnectFailed(SocketId, i32),
    Space(SocketId),
    Datagram(u64),
    Tell(Notice),
}

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    queue: VecDeque<SocketId>,
    open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    Stream(SocketId),
    Listener(usize),
    Datagrams(usize),
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    target: Target,
    /// Operations outstanding on it.
    busy: u32,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    /// Everything that chance decides.
    pub random: Random,
    /// How it behaves; may be changed under way.
    pub settings: Settings,
    /// What happened, if somebody wants to know.
    pub trace: Option<Vec<String>>,
    now: Moment,
    events: BTreeMap<(u64, u64), Event>,
    events_made: u64,
    sockets: Vec<Socket>,
    listeners: Vec<Listener>,
    descriptors: Vec<Option<Descriptor>>,
    pipes: Vec<Option<VirtualPipe>>,
    datagrams: Datagrams,
    clients_made: u32,
    /// Sockets that belong to one session of a shard, each to the other.
    links: BTreeMap<SocketId, SocketId>,
}

impl Network {
    /// An empty network.
    pub fn new(seed: u64, settings: Settings) -> Network {
        Network {
            random: Random::new(seed),
            settings,
            trace: None,
            now: Moment(1_000_000_000),
            events: BTreeMap::new(),
            events_made: 0,
            sockets: Vec::new(),
            listeners: Vec::new(),
            descriptors: Vec::new(),
            pipes: Vec::new(),
            datagrams: Datagrams::default(),
            clients_made: 0,
            links: BTreeMap::new(),
        }
    }

    /// The virtual clock.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// Sets the clock forward.
    pub fn pass(&mut self, to: Moment) {
        self.now = self.now.max(to);
    }

    /// When the next event is due.
    pub fn next_at(&self) -> Option<Moment> {
        self.events.keys().next().map(|(at, _)| Moment(*at))
    }

    /// Lets the next event happen, at its time or now if that is later.
    pub fn step(&mut self) -> Notice {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return Notice::Nothing;
        };
        self.pass(Moment(at));
        match event {
            Event::Deliver(id) => self.deliver(id),
            Event::Reset(id) => self.reset_arrives(id),
            Event::Arrive(id) => self.arrive(id),
            Event::ConnectDone(id) => return self.connect_done(id),
            Event::ConnectFailed(id, error) => self.connect_failed(id, error),
            Event::Space(id) => self.space(id),
            Event::Datagram(number) => return self.datagram_arrives(number),
            Event::Tell(notice) => {
                if let Notice::Activity(id) = notice {
                    self.socket(id).told = false;
                }
                return notice;
            }
        }
        Notice::Nothing
    }

    /// A timer of the simulation's own, `us` microseconds from now.
    pub fn timer(&mut self, us: u64, number: u32) {
        self.schedule(us, Event::Tell(Notice::Timer(number)));
    }

    /// Lets time reach a moment without anything happening then.
    pub(super) fn wake_at(&mut self, us: u64) {
        self.schedule(us, Event::Tell(Notice::Nothing));
    }

    /// Writes down what happens.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now.0 / US;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>12} {}", text()));
        }
    }

    fn schedule(&mut self, us: u64, event: Event) {
        let at = self.now.0 + us * US;
        self.events_made += 1;
        self.events.insert((at, self.events_made), event);
    }

    fn latency(&mut self) -> u64 {
        let most = self.settings.latency_max_us;
        if self.random.chance(20) {
            return most * 8;
        }
        self.random.below(most + 1)
    }

    fn socket(&mut self, id: SocketId) -> &mut Socket {
        &mut self.sockets[id.0 as usize]
    }

    fn make_socket(&mut self, local: SocketAddr, remote: SocketAddr) -> SocketId {
        let [low, high] = self.settings.queue;
        let mut size = || usize::try_from(self.random.between(low, high)).expect("a size");
        let sizes = [size(), size()];
        self.sockets.push(Socket::new(local, remote, sizes));
        SocketId(u32::try_from(self.sockets.len() - 1).expect("few sockets"))
    }
}
