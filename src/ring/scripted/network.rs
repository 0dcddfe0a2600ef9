//! The virtual network: sockets, listeners, descriptors, the clock and what happens when.
//!
//! One network serves every shard of a simulation and the scripted peers at its other ends. Nothing happens
//! by itself: the simulation takes the next event, or lets a shard run. All chance comes from the seed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::random::Random;
use super::socket::{Read, Socket, SocketId};
use crate::base::time::Moment;

/// First descriptor: above those of the process itself, so that the two can't be mixed up.
const DESCRIPTOR_FIRST: usize = 100_000;
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

/// Descriptors.
impl Network {
    /// Opens a listener and gives its descriptor.
    pub fn listen(&mut self, address: SocketAddr) -> i32 {
        self.listeners.push(Listener {
            address,
            queue: VecDeque::new(),
            open: true,
        });
        let target = Target::Listener(self.listeners.len() - 1);
        self.open_descriptor(target).expect("a descriptor")
    }

    /// Descriptors open now: sockets and listeners.
    pub fn descriptors(&self) -> [usize; 2] {
        let count = |listener: bool| {
            let open = self.descriptors.iter().flatten();
            open.filter(|d| matches!(d.target, Target::Listener(_)) == listener)
                .count()
        };
        [count(false), count(true)]
    }

    fn open_descriptor(&mut self, target: Target) -> Option<i32> {
        let open = self.descriptors.iter().flatten().count();
        if open >= self.settings.descriptors_max {
            return None;
        }
        let descriptor = Some(Descriptor { target, busy: 0 });
        // The lowest free one, as the kernel does: a stale number soon names another socket.
        let place = self.descriptors.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.descriptors.push(None);
            self.descriptors.len() - 1
        });
        self.descriptors[place] = descriptor;
        Some(i32::try_from(DESCRIPTOR_FIRST + place).expect("few descriptors"))
    }

    fn descriptor(&mut self, fd: i32) -> &mut Descriptor {
        let place = usize::try_from(fd).ok();
        place
            .and_then(|fd| fd.checked_sub(DESCRIPTOR_FIRST))
            .and_then(|place| self.descriptors.get_mut(place)?.as_mut())
            .unwrap_or_else(|| panic!("descriptor {fd} is not open"))
    }

    /// The stream socket of a descriptor.
    pub(super) fn stream(&mut self, fd: i32) -> SocketId {
        match self.descriptor(fd).target {
            Target::Stream(id) => id,
            Target::Listener(_) => panic!("descriptor {fd} is a listener"),
        }
    }

    pub(super) fn at(&self, id: SocketId) -> &Socket {
        &self.sockets[id.0 as usize]
    }

    /// Counts an operation on a descriptor.
    pub(super) fn hold(&mut self, fd: i32) {
        self.descriptor(fd).busy += 1;
    }

    /// An operation on a descriptor has ended.
    pub(super) fn let_go(&mut self, fd: i32) {
        self.descriptor(fd).busy -= 1;
    }

    /// Closes a descriptor.
    pub(super) fn close_descriptor(&mut self, fd: i32, reset: bool) {
        let descriptor = *self.descriptor(fd);
        assert!(
            descriptor.busy == 0,
            "descriptor {fd} is closed with {} operations outstanding",
            descriptor.busy
        );
        let place = usize::try_from(fd).expect("open") - DESCRIPTOR_FIRST;
        self.descriptors[place] = None;
        match descriptor.target {
            Target::Stream(id) => self.close(id, reset),
            Target::Listener(index) => {
                self.listeners[index].open = false;
                for id in std::mem::take(&mut self.listeners[index].queue) {
                    self.close(id, true);
                }
            }
        }
    }

    /// Whether a listener has a connection.
    pub(super) fn has_queued(&mut self, fd: i32) -> bool {
        match self.descriptor(fd).target {
            Target::Listener(index) => !self.listeners[index].queue.is_empty(),
            Target::Stream(_) => panic!("descriptor {fd} does not listen"),
        }
    }

    /// Accepts a connection.
    pub(super) fn accept(&mut self, fd: i32) -> Result<i32, i32> {
        let Target::Listener(index) = self.descriptor(fd).target else {
            panic!("descriptor {fd} does not listen");
        };
        let Some(id) = self.listeners[index].queue.front().copied() else {
            return Err(libc::EAGAIN);
        };
        if self.random.chance(self.settings.accept_error) {
            return Err(self.random.pick(&[libc::ECONNABORTED, libc::EMFILE]));
        }
        let accepted = self.open_descriptor(Target::Stream(id));
        let Some(accepted) = accepted else {
            return Err(libc::EMFILE);
        };
        self.listeners[index].queue.pop_front();
        self.note(|| format!("accepted {id:?} as {accepted}"));
        Ok(accepted)
    }
}

/// Connecting.
impl Network {
    /// A scripted client connects to a listener. Gives its end of the connection.
    pub fn connect_client(&mut self, to: SocketAddr) -> SocketId {
        self.clients_made += 1;
        let [a, b, c, d] = (0xc0a8_0000 + self.clients_made).to_be_bytes();
        let from = SocketAddr::from(([a, b, c, d], 40_000));
        let client = self.make_socket(from, to);
        self.socket(client).scripted = true;
        self.socket(client).connecting = true;
        let latency = self.latency();
        self.schedule(latency, Event::Arrive(client));
        client
    }

    fn arrive(&mut self, client: SocketId) {
        if !self.at(client).connecting {
            return;
        }
        let (from, to) = (self.at(client).local, self.at(client).remote);
        let listens = |listener: &Listener| listener.open && listener.address == to;
        let group: Vec<usize> = (0..self.listeners.len())
            .filter(|index| listens(&self.listeners[*index]))
            .collect();
        if group.is_empty() {
            self.note(|| format!("{client:?} finds nobody listening"));
            self.socket(client).kill(libc::ECONNREFUSED);
            return self.tell(client);
        }
        let index = self.random.pick(&group);
        if self.listeners[index].queue.len() >= self.settings.backlog {
            // The SYN is dropped and sent again a second later.
            return self.schedule(1_000_000, Event::Arrive(client));
        }
        let accepted = self.make_socket(to, from);
        self.socket(accepted).peer = Some(client);
        self.socket(client).peer = Some(accepted);
        self.socket(client).connecting = false;
        self.listeners[index].queue.push_back(accepted);
        self.tell(client);
    }

    /// A shard connects to a server.
    pub(super) fn connect(&mut self, to: SocketAddr) -> Result<(i32, bool), i32> {
        let settings = self.settings.clone();
        if self.random.chance(settings.connect_error) {
            let errors = [libc::EMFILE, libc::EADDRNOTAVAIL, libc::ENETUNREACH];
            return Err(self.random.pick(&errors));
        }
        let from = SocketAddr::from(([10, 9, 9, 9], 1));
        let id = self.make_socket(from, to);
        let Some(fd) = self.open_descriptor(Target::Stream(id)) else {
            return Err(libc::EMFILE);
        };
        self.note(|| format!("connecting {id:?} as {fd} to {to}"));
        self.socket(id).connecting = true;
        let immediate = self.random.chance(settings.connect_immediate);
        if immediate {
            let notice = self.connect_done(id);
            self.schedule(0, Event::Tell(notice));
            return Ok((fd, true));
        }
        let latency = self.latency();
        if self.random.chance(settings.connect_never) {
            // The kernel itself gives up after about 127 seconds (tcp(7), tcp_syn_retries).
            self.schedule(127_000_000, Event::ConnectFailed(id, libc::ETIMEDOUT));
        } else if self.random.chance(settings.connect_refused) {
            let error = self.random.pick(&[libc::ECONNREFUSED, libc::EHOSTUNREACH]);
            self.schedule(latency, Event::ConnectFailed(id, error));
        } else {
            self.schedule(latency, Event::ConnectDone(id));
        }
        Ok((fd, false))
    }

    fn connect_done(&mut self, id: SocketId) -> Notice {
        if !self.at(id).connecting {
            return Notice::Nothing;
        }
        let (local, remote) = (self.at(id).local, self.at(id).remote);
        let server = self.make_socket(remote, local);
        self.socket(server).scripted = true;
        self.socket(server).peer = Some(id);
        let socket = self.socket(id);
        socket.peer = Some(server);
        socket.connecting = false;
        socket.wakes += 1;
        Notice::Connected(server)
    }

    fn connect_failed(&mut self, id: SocketId, error: i32) {
        if self.at(id).connecting {
            self.note(|| format!("connect of {id:?} fails with {error}"));
            self.socket(id).kill(error);
        }
    }
}

/// Moving bytes.
impl Network {
    /// Reads from a socket.
    pub fn read(&mut self, id: SocketId, length: usize) -> Read {
        let read = self.socket(id).read(length);
        if let (Read::Bytes(_), Some(peer)) = (&read, self.at(id).peer) {
            self.start_delivery(peer);
        }
        read
    }

    /// Sends on a socket; the count may be short.
    pub fn write(&mut self, id: SocketId, parts: &[&[u8]]) -> Result<usize, i32> {
        let mut most = usize::MAX;
        let short = self.settings.send_short;
        if !self.at(id).scripted && self.random.chance(short) {
            // Memory is short: the kernel takes a part, or nothing, and tells when it may take more.
            most = self.random.pick(&[0, 1, 100, 4096]);
            let soon = self.random.between(1, 3_000);
            self.schedule(soon, Event::Space(id));
        }
        let written = self.socket(id).write(parts, most);
        if written.is_ok() {
            self.start_delivery(id);
        }
        written
    }

    /// Sends a FIN after what was sent.
    pub fn finish(&mut self, id: SocketId) -> Result<(), i32> {
        let socket = self.socket(id);
        if socket.dead || socket.connecting {
            return Err(libc::ENOTCONN);
        }
        socket.finished = true;
        self.start_delivery(id);
        Ok(())
    }

    /// Closes a socket: by a FIN, or by a reset if that is asked for or bytes are unread (tcp_close).
    pub fn close(&mut self, id: SocketId, reset: bool) {
        let socket = self.socket(id);
        assert!(socket.open, "closed twice");
        socket.open = false;
        if socket.dead {
            return;
        }
        if socket.connecting {
            socket.dead = true;
            socket.connecting = false;
            return;
        }
        if !reset && socket.incoming.is_empty() {
            socket.finished = true;
            return self.start_delivery(id);
        }
        self.note(|| format!("{id:?} resets"));
        // Of what it has sent, some may be on its way already.
        let under_way = self.at(id).outgoing.len();
        let count = self.random.place(under_way + 1);
        self.socket(id).outgoing.truncate(count);
        self.deliver_bytes(id, count);
        let socket = self.socket(id);
        socket.dead = true;
        socket.outgoing.clear();
        if let Some(peer) = socket.peer {
            let latency = self.latency();
            self.schedule(latency, Event::Reset(peer));
        }
    }

    /// Bytes that were sent and have not arrived, a FIN counting as one.
    pub fn unacknowledged(&self, id: SocketId) -> usize {
        let socket = self.at(id);
        socket.outgoing.len() + usize::from(socket.finished && !socket.finish_arrived)
    }

    /// The pending error of a socket.
    pub(super) fn take_error(&mut self, id: SocketId) -> Option<i32> {
        self.socket(id).take_error()
    }

    /// Bytes that a socket's queue has room for.
    pub fn room(&self, id: SocketId) -> u64 {
        self.at(id).room() as u64
    }

    /// Bytes that the owner of a socket has sent.
    pub fn sent(&self, id: SocketId) -> u64 {
        self.at(id).sent
    }

    /// The other end of a connection.
    pub fn peer(&self, id: SocketId) -> Option<SocketId> {
        self.at(id).peer
    }

    /// A session of a shard has these two sockets.
    pub(super) fn link(&mut self, client: SocketId, server: SocketId) {
        self.links.insert(client, server);
        self.links.insert(server, client);
    }

    /// The shard's other socket of a session.
    pub fn linked(&self, id: SocketId) -> Option<SocketId> {
        self.links.get(&id).copied()
    }

    /// The scripted peer at the far end of the session that a scripted peer is at the near end of.
    pub fn counterpart(&self, id: SocketId) -> Option<SocketId> {
        self.peer(self.linked(self.peer(id)?)?)
    }

    /// Whether the owner of a socket has ended its stream properly, after all that it has sent.
    pub fn finished(&self, id: SocketId) -> bool {
        self.at(id).finished
    }

    /// Whether the peer's FIN has arrived at a socket.
    pub fn end_received(&self, id: SocketId) -> bool {
        self.at(id).end_received
    }

    /// Whether a connect has succeeded and the socket has not been reset.
    pub fn alive(&self, id: SocketId) -> bool {
        !self.at(id).connecting && !self.at(id).dead
    }

    /// The addresses of a socket: its own and the other end's.
    pub fn addresses(&self, id: SocketId) -> [SocketAddr; 2] {
        [self.at(id).local, self.at(id).remote]
    }

    fn start_delivery(&mut self, id: SocketId) {
        let socket = self.socket(id);
        let pending = !socket.outgoing.is_empty() || (socket.finished && !socket.finish_arrived);
        if socket.delivering || socket.dead || !pending || socket.peer.is_none() {
            return;
        }
        socket.delivering = true;
        let latency = self.latency();
        self.schedule(latency, Event::Deliver(id));
    }

    fn deliver(&mut self, id: SocketId) {
        self.socket(id).delivering = false;
        let socket = self.at(id);
        let Some(peer) = socket.peer.filter(|_| !socket.dead) else {
            return;
        };
        if !socket.outgoing.is_empty() && !self.at(peer).open && !self.at(peer).dead {
            // Data for a socket that its owner has closed: a reset comes back, and what that socket had
            // still to send is lost (tcp_rcv_state_process).
            self.note(|| format!("{id:?} sends to {peer:?}, which is closed"));
            self.socket(peer).kill(0);
            let latency = self.latency();
            return self.schedule(latency, Event::Reset(id));
        }
        if self.at(peer).dead {
            return;
        }
        let before = self.at(id).outgoing.len();
        let count = if self.random.chance(300) {
            1 + self.random.place(before.max(1))
        } else {
            before
        };
        self.deliver_bytes(id, count);
        self.tell_of_space(id);
        if self.at(id).outgoing.is_empty() {
            // The FIN travels with the last bytes, or after them.
            if self.at(id).finished && (before == 0 || self.random.chance(500)) {
                self.socket(id).finish_arrived = true;
                let peer_socket = self.socket(peer);
                peer_socket.end_received = true;
                peer_socket.wakes += 1;
                self.tell(peer);
            }
            self.start_delivery(id);
        } else if self.at(peer).incoming.len() < self.at(peer).incoming_max {
            self.start_delivery(id);
        }
    }

    fn deliver_bytes(&mut self, id: SocketId, count: usize) {
        let Some(peer) = self.at(id).peer else {
            return;
        };
        if self.at(peer).dead || !self.at(peer).open || count == 0 {
            return;
        }
        let to = self.at(peer);
        let room = to.incoming_max.saturating_sub(to.incoming.len());
        let count = count.min(room).min(self.at(id).outgoing.len());
        let bytes: Vec<u8> = self.socket(id).outgoing.drain(..count).collect();
        self.socket(peer).incoming.extend(bytes);
        if count > 0 {
            self.tell(peer);
        }
    }

    /// Wakes the polls of a socket that was full and has room now (sk_stream_write_space).
    fn tell_of_space(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.wants_space && socket.writable() {
            socket.wants_space = false;
            socket.wakes += 1;
            self.tell(id);
        }
    }

    fn space(&mut self, id: SocketId) {
        if !self.at(id).dead {
            self.socket(id).wants_space = true;
            self.tell_of_space(id);
        }
    }

    fn reset_arrives(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.dead {
            return;
        }
        // tcp_reset: a connection that had its end already breaks as a pipe does.
        let error = match (socket.open, socket.end_received) {
            (false, _) => 0,
            (true, true) => libc::EPIPE,
            (true, false) => libc::ECONNRESET,
        };
        socket.kill(error);
        self.note(|| format!("{id:?} is reset"));
        self.tell(id);
    }

    /// Tells a scripted owner that something happened.
    fn tell(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.scripted && socket.open && !socket.told {
            socket.told = true;
            self.schedule(0, Event::Tell(Notice::Activity(id)));
        }
    }
}
