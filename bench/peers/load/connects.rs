//! Connection rate: connect, 64-byte request, 64-byte answer, close; 64 of them at a time.
//!
//! Who closes first decides who keeps the TIME_WAIT entries, and with them what the run measures.
//! The client binds its source ports itself, least recently used first, out of 4 x 20,000 address
//! and port pairs. That is cheap, never collides with a port that the balancer takes (those come
//! from the kernel's range above), and a pair comes back later than the second that a TIME_WAIT
//! entry must be old before the kernel reuses it. With the balancer's 28,000 the entries stay below
//! the default bound of the TIME_WAIT table (131,072 on this kernel's size class).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{MESSAGE_BYTES, SILENCE_MAX, latency_histogram, message, wait};
use crate::sample::{Context, Void};
use crate::sys;

const SOURCE_ADDRESSES: u32 = 4;
const SOURCE_PORTS: u32 = 20_000;
const SOURCE_PORT_FIRST: u32 = 10_000;

/// Which end closes its side first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClosesFirst {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Connecting,
    Asked,
    /// The answer is whole; the server's end of the stream is still to come.
    Answered,
}

struct Attempt {
    socket: Socket,
    phase: Phase,
    started_at: Instant,
    received: usize,
    answer: [u8; MESSAGE_BYTES + 1],
    request: [u8; MESSAGE_BYTES],
}

/// One connection after the other in each of a number of places.
pub(crate) struct Connects {
    epoll: Epoll,
    address: SockAddr,
    closes_first: ClosesFirst,
    attempts: Vec<Attempt>,
    started: u64,
    pub(crate) done: u64,
    pub(crate) latency: Histogram<u64>,
}

impl Connects {
    pub(crate) fn open(
        address: SocketAddr,
        places: u32,
        closes_first: ClosesFirst,
    ) -> Result<Connects, Void> {
        let mut connects = Connects {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            address: address.into(),
            closes_first,
            attempts: Vec::new(),
            started: 0,
            done: 0,
            latency: latency_histogram(),
        };
        for place in 0..places {
            let attempt = connects.start(place)?;
            connects.attempts.push(attempt);
        }
        Ok(connects)
    }

    pub(crate) fn reset(&mut self) {
        self.done = 0;
        self.latency.reset();
    }

    /// Runs until the deadline or until `done` has reached a number.
    pub(crate) fn run_until(&mut self, deadline: Instant, done_max: u64) -> Result<(), Void> {
        let mut events = [EpollEvent::empty(); 256];
        while self.done < done_max && Instant::now() < deadline {
            let ready = wait(&self.epoll, &mut events, deadline);
            for event in
                ready.map_err(|Void(reason)| Void(format!("{reason}: {}", self.phases())))?
            {
                let place = event.data() as usize;
                if !self.attempts[place].step(event.events(), self.closes_first)? {
                    continue;
                }
                let lasted = self.attempts[place].started_at.elapsed();
                self.latency.saturating_record(lasted.as_nanos() as u64);
                self.done += 1;
                // Replacing the attempt closes its socket, which leaves the wait by that.
                self.attempts[place] = self.start(place as u32)?;
            }
        }
        Ok(())
    }

    /// Brings the open connections to their end without counting them: one that gets stuck is an
    /// error, however many others did not.
    pub(crate) fn finish(&mut self) -> Result<(), Void> {
        let deadline = Instant::now() + SILENCE_MAX;
        let mut events = [EpollEvent::empty(); 256];
        let mut open = vec![true; self.attempts.len()];
        while open.contains(&true) {
            if Instant::now() >= deadline {
                let stuck = open.iter().filter(|open| **open).count();
                return Err(Void(format!("{stuck} connections are stuck")));
            }
            for event in wait(&self.epoll, &mut events, deadline)? {
                let place = event.data() as usize;
                if open[place] && self.attempts[place].step(event.events(), self.closes_first)? {
                    open[place] = false;
                }
            }
        }
        Ok(())
    }

    /// How far the open connections are, for the message when they are stuck.
    fn phases(&self) -> String {
        let mut counts = [0; 3];
        for attempt in &self.attempts {
            counts[attempt.phase as usize] += 1;
        }
        let [connecting, asked, answered] = counts;
        format!("{connecting} connecting, {asked} without an answer, {answered} not closed")
    }

    fn start(&mut self, place: u32) -> Result<Attempt, Void> {
        let turn = (self.started % u64::from(SOURCE_ADDRESSES * SOURCE_PORTS)) as u32;
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 2)) + turn / SOURCE_PORTS);
        let port = (SOURCE_PORT_FIRST + turn % SOURCE_PORTS) as u16;
        let started_at = Instant::now();
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        socket
            .bind(&SocketAddr::from((source, port)).into())
            .context("bind a source port")?;
        match socket.connect(&self.address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error).context("connect"),
        }
        let edges = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        self.epoll
            .add(&socket, EpollEvent::new(edges, u64::from(place)))?;
        self.started += 1;
        Ok(Attempt {
            socket,
            phase: Phase::Connecting,
            started_at,
            received: 0,
            answer: [0; MESSAGE_BYTES + 1],
            request: message(place, self.started),
        })
    }
}

impl Attempt {
    /// Takes the events of one wait; true when the connection has done all it is for.
    fn step(&mut self, events: EpollFlags, closes_first: ClosesFirst) -> Result<bool, Void> {
        if matches!(self.phase, Phase::Connecting) {
            if !events
                .intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP)
            {
                return Ok(false);
            }
            if let Some(error) = self.socket.take_error()? {
                return Err(error).context("connect");
            }
            sys::send_whole(&self.socket, &self.request).context("send a request")?;
            self.phase = Phase::Asked;
        }
        // Edges: read on until the receive says that there is nothing more.
        while events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLERR)
        {
            match sys::receive(&self.socket, &mut self.answer[self.received..]) {
                Ok(0) if matches!(self.phase, Phase::Answered) => return Ok(true),
                Ok(0) => return Err(Void("closed before the answer was whole".to_owned())),
                Ok(received) => self.received += received,
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno).context("receive an answer"),
            }
            if self.received >= MESSAGE_BYTES {
                if self.received > MESSAGE_BYTES || self.answer[..MESSAGE_BYTES] != self.request {
                    return Err(Void("an answer differs from its request".to_owned()));
                }
                self.phase = Phase::Answered;
                if closes_first == ClosesFirst::Client {
                    return Ok(true);
                }
                if !events.contains(EpollFlags::EPOLLRDHUP) {
                    // The end of the stream comes with an edge of its own; no need to ask for it
                    // now.
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }
}

/// Whether the TIME_WAIT table of this namespace is large enough for the entries of a run.
pub(crate) fn time_wait_table_suffices() -> io::Result<bool> {
    let bound = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_max_tw_buckets")?;
    let bound: u32 = bound.trim().parse().map_err(io::Error::other)?;
    // The client's pairs and the balancer's default port range of 28,232.
    Ok(bound >= SOURCE_ADDRESSES * SOURCE_PORTS + 28_232)
}
