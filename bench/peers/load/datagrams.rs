//! Request and answer over UDP: flows with a number of datagrams in flight each.
//!
//! A flow is a socket of its own. Every answer must have the bytes of its request, come to the
//! socket that asked, from the address that was asked, and once; anything else voids the run. One
//! that has not come after a second is lost: it is counted, and its place is asked anew.

use std::collections::{HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{SILENCE_MAX, bulk, latency_histogram, long_message, message_sequence, stamp, wait};
use crate::sample::{Context, Void};
use crate::sys::{self, Batch};

/// When an answer is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// How often that is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Datagrams of one call.
const BATCH: usize = 32;
/// Flows that begin at once, and the time to the next ones.
const FLOWS_TOGETHER: usize = 32;
const BETWEEN_FLOWS: Duration = Duration::from_millis(2);
/// Receive buffer of a flow: all that it has in flight.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What a load consists of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) flows: u32,
    /// Datagrams in flight on each flow that has its turn.
    pub(crate) in_flight: u32,
    pub(crate) bytes: usize,
    /// How many flows ask at a time, each once in its turn; `None` = all of them, always.
    pub(crate) at_a_time: Option<u32>,
}

/// A place for a datagram in flight.
#[derive(Clone, Copy)]
struct Place {
    sequence: u64,
    asked_at: Option<Instant>,
}

struct Flow {
    socket: UdpSocket,
    /// What it asks, but for the number.
    template: Vec<u8>,
    places: Vec<Place>,
}

/// Ping-pong on a number of flows.
pub(crate) struct Datagrams {
    epoll: Epoll,
    address: SocketAddrV4,
    flows: Vec<Flow>,
    /// Flows that wait for their turn.
    resting: VecDeque<usize>,
    takes_turns: bool,
    received: Batch,
    asked: Batch,
    /// Flow and number of what is taken for lost, to tell a late answer from a second one.
    missing: HashSet<(usize, u64)>,
    looked_at: Instant,
    pub(crate) done: u64,
    pub(crate) lost: u64,
    pub(crate) latency: Histogram<u64>,
}

impl Datagrams {
    /// Opens the flows and asks on those whose turn it is.
    pub(crate) fn open(address: SocketAddrV4, shape: Shape) -> Result<Datagrams, Void> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let pattern = bulk::pattern();
        let mut flows = Vec::new();
        for index in 0..shape.flows {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            sys::enlarge_receive_buffer(&socket, RECEIVE_BUFFER)?;
            epoll.add(
                &socket,
                EpollEvent::new(EpollFlags::EPOLLIN, u64::from(index)),
            )?;
            // Numbers of a flow say their place: the rest of a division by the number of places.
            let place = |number: u32| Place {
                sequence: u64::from(number),
                asked_at: None,
            };
            flows.push(Flow {
                socket,
                template: long_message(index, shape.bytes, &pattern),
                places: (0..shape.in_flight).map(place).collect(),
            });
        }
        let turn = shape.at_a_time.unwrap_or(shape.flows).min(shape.flows) as usize;
        let mut load = Datagrams {
            epoll,
            address,
            resting: (turn..flows.len()).collect(),
            takes_turns: shape.at_a_time.is_some(),
            flows,
            received: Batch::new(BATCH, shape.bytes + 64),
            asked: Batch::new(BATCH, shape.bytes + 64),
            missing: HashSet::new(),
            looked_at: Instant::now(),
            done: 0,
            lost: 0,
            latency: latency_histogram(),
        };
        // Some at a time: all at once would be lost where a listener has a small buffer, and be
        // missing from the load for as long as it waits for what is lost.
        let places: Vec<usize> = (0..shape.in_flight as usize).collect();
        for flow in 0..turn {
            for places in places.chunks(BATCH) {
                load.ask(flow, places)?;
            }
            if (flow + 1) % FLOWS_TOGETHER == 0 {
                load.run_until(Instant::now() + BETWEEN_FLOWS)?;
            }
        }
        Ok(load)
    }

    pub(crate) fn reset(&mut self) {
        self.done = 0;
        self.lost = 0;
        self.latency.reset();
    }

    pub(crate) fn run_until(&mut self, deadline: Instant) -> Result<(), Void> {
        let mut events = [EpollEvent::empty(); 256];
        let mut free = Vec::with_capacity(BATCH);
        let mut heard_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(());
            }
            if now - heard_at > SILENCE_MAX {
                let seconds = SILENCE_MAX.as_secs();
                return Err(Void(format!("no answer for {seconds} s")));
            }
            if now - self.looked_at > LOOK_EVERY {
                self.ask_for_lost(now)?;
            }
            let step = deadline.min(now + LOOK_EVERY);
            for event in wait(&self.epoll, &mut events, step)? {
                let flow = event.data() as usize;
                free.clear();
                self.hear(flow, &mut free)?;
                if !free.is_empty() {
                    heard_at = now;
                }
                if !self.takes_turns {
                    self.ask(flow, &free)?;
                    continue;
                }
                for _ in 0..free.len() {
                    self.resting.push_back(flow);
                    let next = self.resting.pop_front().unwrap_or(flow);
                    self.ask(next, &[0])?;
                }
            }
        }
    }

    /// Takes the answers that are still to come; those that do not are lost.
    pub(crate) fn finish(&mut self) -> Result<(), Void> {
        let deadline = Instant::now() + LOST_AFTER;
        let mut events = [EpollEvent::empty(); 256];
        let mut free = Vec::new();
        loop {
            let places = self.flows.iter().flat_map(|flow| &flow.places);
            let asked = places.filter(|place| place.asked_at.is_some()).count();
            if asked == 0 || Instant::now() >= deadline {
                self.lost += asked as u64;
                return Ok(());
            }
            for event in wait(&self.epoll, &mut events, deadline)? {
                self.hear(event.data() as usize, &mut free)?;
            }
        }
    }

    /// Sends the next request in each of these places of a flow, at most a batch.
    fn ask(&mut self, flow: usize, places: &[usize]) -> Result<(), Void> {
        if places.is_empty() {
            return Ok(());
        }
        let Flow {
            socket,
            template,
            places: all,
        } = &mut self.flows[flow];
        let now = Instant::now();
        let step = all.len() as u64;
        for (slot, index) in places.iter().enumerate() {
            let place = &mut all[*index];
            place.sequence += step;
            place.asked_at = Some(now);
            stamp(template, place.sequence);
            let bytes = self.asked.set(slot, template.len(), self.address);
            bytes.copy_from_slice(template);
        }
        // What the socket has no room for is a lost one like others.
        self.asked
            .send(socket, places.len())
            .context("send a request")?;
        Ok(())
    }

    /// Takes what has come to a flow; the places that are free then go to `free`.
    fn hear(&mut self, flow: usize, free: &mut Vec<usize>) -> Result<(), Void> {
        let Flow {
            socket,
            template,
            places,
        } = &mut self.flows[flow];
        let count = self.received.receive(socket).context("receive an answer")?;
        let now = Instant::now();
        for slot in 0..count {
            let (bytes, from) = (self.received.bytes(slot), self.received.name(slot));
            if from != self.address {
                return Err(Void(format!("an answer came from {from}")));
            }
            let Some(sequence) = message_sequence(bytes) else {
                let length = bytes.len();
                return Err(Void(format!("an answer has {length} bytes")));
            };
            stamp(template, sequence);
            if bytes != template {
                return Err(Void("an answer differs from every request".to_owned()));
            }
            let index = (sequence % places.len() as u64) as usize;
            let place = &mut places[index];
            match place.asked_at {
                Some(asked_at) if place.sequence == sequence => {
                    place.asked_at = None;
                    let latency = (now - asked_at).as_nanos() as u64;
                    self.latency.saturating_record(latency);
                    self.done += 1;
                    free.push(index);
                }
                _ if self.missing.remove(&(flow, sequence)) => {}
                _ => return Err(Void("an answer came twice".to_owned())),
            }
        }
        Ok(())
    }

    /// Counts what has been lost and asks again in its place.
    fn ask_for_lost(&mut self, now: Instant) -> Result<(), Void> {
        self.looked_at = now;
        for flow in 0..self.flows.len() {
            let is_lost = |place: &Place| place.asked_at.is_some_and(|at| now - at > LOST_AFTER);
            let places = &self.flows[flow].places;
            let lost: Vec<usize> = (0..places.len())
                .filter(|index| is_lost(&places[*index]))
                .collect();
            for index in &lost {
                self.missing.insert((flow, places[*index].sequence));
            }
            self.lost += lost.len() as u64;
            for lost in lost.chunks(BATCH) {
                self.ask(flow, lost)?;
            }
        }
        Ok(())
    }
}

/// Addresses and ports that idle flows come from, below the range that a balancer draws from.
const SOURCE_ADDRESSES: u32 = 4;
const SOURCE_PORT_FIRST: u32 = 10_000;
const SOURCE_PORTS: u32 = 20_000;

/// Idle flows that there can be.
pub(crate) const IDLE_FLOWS_MAX: u32 = SOURCE_ADDRESSES * SOURCE_PORTS;

/// Makes one exchange on each of some flows, of those with the numbers `flows`. Their sockets are
/// closed again: a balancer does not see that.
pub(crate) fn exchange_once(
    address: SocketAddrV4,
    flows: std::ops::Range<u32>,
) -> Result<(), Void> {
    const TOGETHER: u32 = 64;
    let pattern = bulk::pattern();
    let bytes = super::MESSAGE_BYTES;
    let mut batch = Batch::new(1, bytes + 64);
    let mut from = flows.start;
    while from < flows.end {
        let some = from..flows.end.min(from + TOGETHER);
        let mut open = Vec::new();
        for index in some.clone() {
            let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 2)) + index / SOURCE_PORTS);
            let port = (SOURCE_PORT_FIRST + index % SOURCE_PORTS) as u16;
            let socket = UdpSocket::bind((ip, port)).context("bind a source port")?;
            socket.set_read_timeout(Some(LOST_AFTER))?;
            let request = long_message(index, bytes, &pattern);
            batch.set(0, bytes, address).copy_from_slice(&request);
            batch.send(&socket, 1).context("send a request")?;
            open.push((socket, request));
        }
        for (index, (socket, request)) in some.zip(open) {
            let mut answer = vec![0; bytes + 64];
            let (count, source) = socket
                .recv_from(&mut answer)
                .context(format!("answer on flow {index}"))?;
            if source != address.into() || answer[..count] != request[..] {
                return Err(Void("an answer differs from its request".to_owned()));
            }
        }
        from += TOGETHER;
    }
    Ok(())
}
