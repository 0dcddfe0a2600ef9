//! Datagrams on the network: sockets with bounded queues, and what is lost, doubled, overtaken or
//! refused between them.
//!
//! The other ends are addresses at which the simulation says that somebody is. What is sent to an
//! address where nobody is may be refused (an ICMP message), which the sender's socket is told.

mod calls;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Event, Network, Notice, Target, US};
use crate::base::hash;
use crate::ring::datagram::{Undelivered, UndeliveredReason};

/// The largest datagram of IPv4 (udp(7)), and of what is sent as several.
const LENGTH_MAX: usize = 65_507;
/// Datagrams of one send that older kernels take.
const SEGMENTS_MAX: usize = 64;
/// First port of the system's choice.
const PORT_FIRST: u16 = 32_768;

/// How the network treats datagrams. Odds are per thousand.
#[derive(Clone, Debug)]
pub struct DatagramSettings {
    /// Lost on the way.
    pub lost: u32,
    /// Arriving twice.
    pub doubled: u32,
    /// Overtaken by later ones of the same sender and destination.
    pub overtaken: u32,
    /// Sends for which there is no room.
    pub full: u32,
    /// Sends that find no way to their destination.
    pub unreachable: u32,
    /// Sends of several that the path can't cut.
    pub segments_refused: u32,
    /// Sockets that can't be opened.
    pub open_refused: u32,
    /// Datagrams to nobody of which the sender is told.
    pub refusals_told: u32,
    /// Receives that bring several datagrams of one sender, where they could.
    pub joined: u32,
    /// Receives whose datagram doesn't fit.
    pub truncated: u32,
    /// Datagrams that wait in a socket; more are dropped.
    pub queue_max: usize,
    /// Bytes of the largest datagram that leaves without being fragmented.
    pub unfragmented_max: usize,
    /// The same for the routers behind: what is larger and mayn't be fragmented is dropped there,
    /// and the sender told as of refusals.
    pub path_max: usize,
}

impl Default for DatagramSettings {
    /// A network that does everything it should.
    fn default() -> Self {
        DatagramSettings {
            lost: 0,
            doubled: 0,
            overtaken: 0,
            full: 0,
            unreachable: 0,
            segments_refused: 0,
            open_refused: 0,
            refusals_told: 1_000,
            joined: 500,
            truncated: 0,
            queue_max: 1_024,
            unfragmented_max: 1_472,
            path_max: usize::MAX,
        }
    }
}

/// A datagram.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Who has sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Its DSCP and ECN bits.
    pub traffic_class: u8,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What a receive has brought.
pub(in super::super) struct Received {
    /// One datagram, or several joined.
    pub(in super::super) datagram: Datagram,
    /// Length of each of several.
    pub(in super::super) segment: Option<u16>,
    pub(in super::super) truncated: bool,
}

/// A datagram at a socket of a shard, for who watches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passed {
    /// At a listener; else at a socket towards servers.
    pub listens: bool,
    /// How it passed.
    pub way: Way,
    /// The datagram.
    pub datagram: Datagram,
}

/// Which way a datagram has passed a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It was received; whole, or cut.
    In {
        /// It did not fit.
        truncated: bool,
    },
    /// It was sent, or not for this error.
    Out(Result<(), i32>),
}

/// A shard's socket.
#[derive(Debug)]
struct Socket {
    bound: SocketAddr,
    connected: Option<SocketAddr>,
    fragment: bool,
    listens: bool,
    open: bool,
    queue: VecDeque<Datagram>,
    dropped: u32,
    /// The pending error.
    error: i32,
    undelivered: VecDeque<Undelivered>,
}

/// Everything of datagrams.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    settings: DatagramSettings,
    sockets: Vec<Socket>,
    /// Addresses of scripted peers, which no wildcard takes: whether one is there now.
    peers: BTreeMap<SocketAddr, bool>,
    /// What has come to them.
    arrived: Vec<Datagram>,
    /// What has passed sockets of shards, if somebody wants to know.
    passed: Option<Vec<Passed>>,
    /// Datagrams of which a shard has read that they were too large for their path.
    told_too_large: u64,
    /// On the way, by number.
    travelling: BTreeMap<u64, Datagram>,
    sent: u64,
    /// When the last one arrives, by sender and destination.
    last_at: BTreeMap<(SocketAddr, SocketAddr), u64>,
    ports_made: u16,
}

/// Its own address, for what is bound to a wildcard.
fn own_address(ipv6: bool) -> IpAddr {
    if ipv6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])
    } else {
        Ipv4Addr::new(10, 0, 0, 1).into()
    }
}

impl Socket {
    /// The address a datagram leaves from.
    fn leaves_from(&self, from: Option<IpAddr>, to: SocketAddr) -> SocketAddr {
        let own = self.bound.ip();
        let wildcard = own.is_unspecified();
        assert!(
            wildcard || from.is_none_or(|from| from == own),
            "sent from {from:?} by a socket on {own}"
        );
        let own = if wildcard {
            own_address(to.is_ipv6())
        } else {
            own
        };
        SocketAddr::new(from.unwrap_or(own), self.bound.port())
    }

    /// Whether what is sent to `to` is for it; a wildcard IPv6 listener hears IPv4 too.
    fn is_at(&self, to: SocketAddr) -> bool {
        let bound = self.bound;
        let family = bound.is_ipv6() == to.is_ipv6() || (self.listens && bound.is_ipv6());
        let ip = bound.ip() == to.ip() || (bound.ip().is_unspecified() && family);
        self.open && bound.port() == to.port() && ip
    }
}

impl Network {
    /// How datagrams are treated; may be changed under way.
    pub fn datagrams(&mut self) -> &mut DatagramSettings {
        &mut self.datagrams.settings
    }

    /// Opens a listener for datagrams and gives its descriptor. Those on one address share the
    /// clients among them, by the client's address and port.
    pub fn listen_for_datagrams(&mut self, address: SocketAddr) -> i32 {
        let target = self.add_datagram_socket(Socket {
            bound: address,
            connected: None,
            fragment: true,
            listens: true,
            open: true,
            queue: VecDeque::new(),
            dropped: 0,
            error: 0,
            undelivered: VecDeque::new(),
        });
        self.open_descriptor(target).expect("a descriptor")
    }

    fn add_datagram_socket(&mut self, socket: Socket) -> Target {
        self.datagrams.sockets.push(socket);
        Target::Datagrams(self.datagrams.sockets.len() - 1)
    }

    /// Datagram sockets open now: those towards servers, and listeners.
    pub fn datagram_sockets(&self) -> [usize; 2] {
        let open = |listens: bool| {
            let sockets = self.datagrams.sockets.iter();
            sockets.filter(|s| s.open && s.listens == listens).count()
        };
        [open(false), open(true)]
    }

    /// Datagrams that wait in open sockets.
    pub fn datagrams_waiting(&self) -> usize {
        let open = self.datagrams.sockets.iter().filter(|s| s.open);
        open.map(|socket| socket.queue.len()).sum()
    }

    /// From now on what passes sockets of shards is noted.
    pub fn watch_datagrams(&mut self) {
        self.datagrams.passed = Some(Vec::new());
    }

    /// What has passed since the last call, in its order.
    pub fn take_passed(&mut self) -> Vec<Passed> {
        self.datagrams
            .passed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Of how many datagrams shards have read since the last call that they were too large for
    /// their path: they had left before.
    pub fn take_told_too_large(&mut self) -> u64 {
        std::mem::take(&mut self.datagrams.told_too_large)
    }

    fn note_passed(&mut self, listens: bool, way: Way, datagram: &Datagram) {
        if let Some(passed) = &mut self.datagrams.passed {
            let datagram = datagram.clone();
            passed.push(Passed {
                listens,
                way,
                datagram,
            });
        }
    }

    /// From now on somebody is at an address, or nobody.
    pub fn datagram_peer(&mut self, address: SocketAddr, is_there: bool) {
        self.datagrams.peers.insert(address, is_there);
    }

    /// A scripted peer sends.
    pub fn send_datagram(&mut self, datagram: Datagram) {
        self.send_on_its_way(datagram);
    }

    /// What has come to scripted peers, in its order.
    pub fn take_datagrams(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.datagrams.arrived)
    }

    /// Datagrams on the way.
    pub fn datagrams_travelling(&self) -> usize {
        self.datagrams.travelling.len()
    }

    fn send_on_its_way(&mut self, datagram: Datagram) {
        let settings = self.datagrams.settings.clone();
        if self.random.chance(settings.lost) {
            self.note(|| format!("lost: {datagram:?}"));
            return;
        }
        if self.random.chance(settings.doubled) {
            self.travel(datagram.clone(), &settings);
        }
        self.travel(datagram, &settings);
    }

    fn travel(&mut self, datagram: Datagram, settings: &DatagramSettings) {
        let mut at = self.now.0 + self.latency() * US;
        let path = (datagram.from, datagram.to);
        let last = self.datagrams.last_at.get(&path).copied().unwrap_or(0);
        if !self.random.chance(settings.overtaken) {
            at = at.max(last);
        }
        self.datagrams.last_at.insert(path, at.max(last));
        self.datagrams.sent += 1;
        let number = self.datagrams.sent;
        self.datagrams.travelling.insert(number, datagram);
        let us = at.saturating_sub(self.now.0).div_ceil(US);
        self.schedule(us, Event::Datagram(number));
    }

    /// A datagram arrives.
    pub(super) fn datagram_arrives(&mut self, number: u64) -> Notice {
        let datagram = self.datagrams.travelling.remove(&number);
        let datagram = datagram.expect("it was on its way");
        self.note(|| format!("arrives: {datagram:?}"));
        let peer = self.datagrams.peers.get(&datagram.to).copied();
        if peer == Some(true) {
            self.datagrams.arrived.push(datagram);
            return Notice::Datagrams;
        }
        let found = self.datagram_socket_for(&datagram);
        if let (None, Some(index)) = (peer, found) {
            let queue_max = self.datagrams.settings.queue_max;
            let socket = &mut self.datagrams.sockets[index];
            if socket.queue.len() < queue_max {
                socket.queue.push_back(datagram);
            } else {
                socket.dropped = socket.dropped.wrapping_add(1);
            }
            return Notice::Nothing;
        }
        self.tell_sender(&datagram, libc::ECONNREFUSED, UndeliveredReason::Refused);
        Notice::Nothing
    }

    /// The socket a datagram is for: a connected one of its sender, else one of its address, else a
    /// wildcard's. Of a group its client has always the same.
    fn datagram_socket_for(&self, datagram: &Datagram) -> Option<usize> {
        let here = |socket: &&(usize, &Socket)| socket.1.is_at(datagram.to);
        let sockets: Vec<_> = self.datagrams.sockets.iter().enumerate().collect();
        let found: Vec<_> = sockets.iter().filter(here).collect();
        let connected = found
            .iter()
            .find(|(_, s)| s.connected == Some(datagram.from));
        if let Some((index, _)) = connected {
            return Some(*index);
        }
        let free = |exact: bool| {
            let free = found.iter().filter(move |(_, socket)| {
                let own = socket.bound.ip() == datagram.to.ip();
                socket.connected.is_none() && own == exact
            });
            free.map(|(index, _)| *index).collect::<Vec<_>>()
        };
        let exact = free(true);
        let group = if exact.is_empty() { free(false) } else { exact };
        let port = u64::from(datagram.from.port());
        let ip = match datagram.from.ip() {
            IpAddr::V4(ip) => u128::from(u32::from(ip)),
            IpAddr::V6(ip) => u128::from(ip),
        };
        let [low, high] = [ip as u64, (ip >> 64) as u64];
        let chosen = hash::mix(hash::mix(low ^ port << 48) ^ high);
        let place = chosen.checked_rem(group.len() as u64)?;
        group.get(usize::try_from(place).ok()?).copied()
    }

    /// Tells the sender's socket what has become of a datagram, if it is told; listeners don't ask
    /// for it.
    fn tell_sender(&mut self, datagram: &Datagram, error: i32, reason: UndeliveredReason) {
        let told = self.datagrams.settings.refusals_told;
        if !self.random.chance(told) {
            return;
        }
        let mut sockets = self.datagrams.sockets.iter_mut();
        let sender = sockets.find(|socket| !socket.listens && socket.is_at(datagram.from));
        if let Some(socket) = sender {
            let to = datagram.to;
            socket.error = error;
            socket.undelivered.push_back(Undelivered { to, reason });
        }
    }

    fn datagram_socket(&mut self, fd: i32) -> &mut Socket {
        match self.descriptor(fd).target {
            Target::Datagrams(index) => &mut self.datagrams.sockets[index],
            Target::Stream(_) | Target::Listener(_) => panic!("descriptor {fd} has no datagrams"),
        }
    }

    /// Whether a receive finds anything.
    pub(in super::super) fn has_datagram(&mut self, fd: i32) -> bool {
        let socket = self.datagram_socket(fd);
        socket.error != 0 || !socket.queue.is_empty()
    }

    /// The next datagram, or several joined, or the pending error.
    pub(in super::super) fn receive_datagram(&mut self, fd: i32) -> Option<Result<Received, i32>> {
        let odds = (
            self.datagrams.settings.joined,
            self.datagrams.settings.truncated,
        );
        let (join, truncated) = (self.random.chance(odds.0), self.random.chance(odds.1));
        let socket = self.datagram_socket(fd);
        let error = std::mem::take(&mut socket.error);
        if error != 0 {
            return Some(Err(error));
        }
        let listens = socket.listens;
        let mut first = socket.queue.pop_front()?;
        let mut taken = vec![first.clone()];
        let size = first.bytes.len();
        let mut segment = None;
        // Equal ones of one sender, of which the last may be shorter.
        while join && size > 0 && first.bytes.len() % size == 0 {
            let fits = |next: &mut Datagram| {
                let same = (next.from, next.to, next.traffic_class)
                    == (first.from, first.to, first.traffic_class);
                let (length, joined) = (next.bytes.len(), first.bytes.len());
                same && (1..=size).contains(&length)
                    && joined / size < SEGMENTS_MAX
                    && joined + length <= LENGTH_MAX
            };
            let Some(next) = socket.queue.pop_front_if(fits) else {
                break;
            };
            first.bytes.extend(&next.bytes);
            taken.push(next);
            segment = u16::try_from(size).ok();
        }
        for datagram in &taken {
            self.note_passed(listens, Way::In { truncated }, datagram);
        }
        Some(Ok(Received {
            datagram: first,
            segment,
            truncated,
        }))
    }

    /// Whether its socket tells the address that datagrams were sent to.
    pub(in super::super) fn tells_destination(&mut self, fd: i32) -> bool {
        let socket = self.datagram_socket(fd);
        socket.listens && socket.bound.ip().is_unspecified()
    }
}
