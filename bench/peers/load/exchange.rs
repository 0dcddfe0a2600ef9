//! Request and answer on kept connections: one message in flight per connection.
//!
//! Every answer is compared with its request. Also opens the idle connections of `idle9000`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{
    MESSAGE_BYTES, SILENCE_MAX, bulk, connect, latency_histogram, long_message, message, stamp,
    wait,
};
use crate::sample::{Context, Void};
use crate::sys;

struct Connection {
    stream: TcpStream,
    sequence: u64,
    request: Vec<u8>,
    /// How much of the request is sent: the rest waits for room in the socket.
    sent: usize,
    waits_for_room: bool,
    answer: Vec<u8>,
    received: usize,
    sent_at: Instant,
    /// Whether an answer is still to come.
    asked: bool,
}

/// Ping-pong on a number of connections.
pub(crate) struct Exchange {
    epoll: Epoll,
    connections: Vec<Connection>,
    /// Connections without a request in flight, in paced runs.
    idle: VecDeque<usize>,
    pub(crate) done: u64,
    pub(crate) latency: Histogram<u64>,
}

impl Exchange {
    /// Connects and sends the first request, of `bytes`, on every connection.
    pub(crate) fn open(address: SocketAddr, count: u32, bytes: usize) -> Result<Exchange, Void> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let pattern = bulk::pattern();
        let mut connections = Vec::new();
        for index in 0..count {
            let stream = connect(address)?;
            epoll.add(
                &stream,
                EpollEvent::new(EpollFlags::EPOLLIN, u64::from(index)),
            )?;
            let mut connection = Connection {
                stream,
                sequence: 0,
                request: long_message(index, bytes, &pattern),
                sent: 0,
                waits_for_room: false,
                answer: vec![0; bytes],
                received: 0,
                sent_at: Instant::now(),
                asked: false,
            };
            connection.ask(Instant::now())?;
            watch_room(&epoll, &mut connection, u64::from(index))?;
            connections.push(connection);
        }
        Ok(Exchange {
            epoll,
            connections,
            idle: VecDeque::new(),
            done: 0,
            latency: latency_histogram(),
        })
    }

    pub(crate) fn reset(&mut self) {
        self.done = 0;
        self.latency.reset();
    }

    pub(crate) fn run_until(&mut self, deadline: Instant) -> Result<(), Void> {
        let mut events = [EpollEvent::empty(); 256];
        while Instant::now() < deadline {
            for event in wait(&self.epoll, &mut events, deadline)? {
                let connection = &mut self.connections[event.data() as usize];
                if event.events().contains(EpollFlags::EPOLLOUT) {
                    connection.send_on()?;
                }
                if let Some(asked_at) = connection.hear()? {
                    let now = Instant::now();
                    self.latency
                        .saturating_record((now - asked_at).as_nanos() as u64);
                    self.done += 1;
                    connection.ask(now)?;
                }
                watch_room(&self.epoll, connection, event.data())?;
            }
        }
        Ok(())
    }
}

impl Exchange {
    /// Sends `per_second` small requests a second, evenly by the millisecond, on whichever
    /// connections are free; latency counts from the sending.
    pub(crate) fn run_paced(&mut self, deadline: Instant, per_second: f64) -> Result<(), Void> {
        const STEP: Duration = Duration::from_millis(1);
        let mut events = [EpollEvent::empty(); 256];
        let begun = Instant::now();
        let mut asked = 0u64;
        loop {
            let now = Instant::now();
            if now >= deadline {
                return Ok(());
            }
            let due = ((now - begun).as_secs_f64() * per_second) as u64;
            while asked < due {
                let Some(index) = self.idle.pop_front() else {
                    break;
                };
                self.connections[index].ask(Instant::now())?;
                asked += 1;
            }
            for event in wait(&self.epoll, &mut events, deadline.min(now + STEP))? {
                let index = event.data() as usize;
                let Some(asked_at) = self.connections[index].hear()? else {
                    continue;
                };
                let latency = asked_at.elapsed().as_nanos() as u64;
                self.latency.saturating_record(latency);
                self.done += 1;
                self.idle.push_back(index);
            }
        }
    }
}

impl Exchange {
    /// Takes the answers that are still to come: one that never comes is an error, however many
    /// others came meanwhile.
    pub(crate) fn finish(&mut self) -> Result<(), Void> {
        let deadline = Instant::now() + SILENCE_MAX;
        let mut events = [EpollEvent::empty(); 256];
        loop {
            let missing = self.connections.iter().filter(|one| one.asked).count();
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Void(format!("{missing} requests were never answered")));
            }
            for event in wait(&self.epoll, &mut events, deadline)? {
                let connection = &mut self.connections[event.data() as usize];
                if event.events().contains(EpollFlags::EPOLLOUT) {
                    connection.send_on()?;
                }
                connection.hear()?;
                watch_room(&self.epoll, connection, event.data())?;
            }
        }
    }
}

impl Connection {
    fn ask(&mut self, now: Instant) -> Result<(), Void> {
        self.sequence += 1;
        stamp(&mut self.request, self.sequence);
        self.sent_at = now;
        self.asked = true;
        self.sent = 0;
        self.send_on()
    }

    /// Sends what there is room for.
    fn send_on(&mut self) -> Result<(), Void> {
        let rest = &self.request[self.sent..];
        self.sent += sys::send_some(&self.stream, rest).context("send a request")?;
        Ok(())
    }

    /// Takes what has come; the time of the request once its answer is whole and right.
    fn hear(&mut self) -> Result<Option<Instant>, Void> {
        match sys::receive(&self.stream, &mut self.answer[self.received..]) {
            Ok(0) => return Err(Void("a kept connection was closed".to_owned())),
            Ok(received) => self.received += received,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno).context("receive an answer"),
        }
        if self.received < self.answer.len() {
            return Ok(None);
        }
        self.received = 0;
        self.asked = false;
        if self.answer != self.request {
            return Err(Void("an answer differs from its request".to_owned()));
        }
        Ok(Some(self.sent_at))
    }
}

/// Lets the wait tell when there is room for the rest of a request, as long as there is a rest.
fn watch_room(epoll: &Epoll, connection: &mut Connection, data: u64) -> Result<(), Void> {
    let partial = connection.sent < connection.request.len();
    if partial == connection.waits_for_room {
        return Ok(());
    }
    connection.waits_for_room = partial;
    let mut events = EpollFlags::EPOLLIN;
    events.set(EpollFlags::EPOLLOUT, partial);
    epoll.modify(&connection.stream, &mut EpollEvent::new(events, data))?;
    Ok(())
}

/// Opens `count` connections, makes one exchange on each and leaves them open.
///
/// In batches, so that nobody's accept queue overflows and the exchanges of a batch overlap.
pub(crate) fn open_idle(address: SocketAddr, count: u32) -> Result<Vec<TcpStream>, Void> {
    const BATCH: u32 = 64;
    let mut open: Vec<TcpStream> = Vec::new();
    for first in (0..count).step_by(BATCH as usize) {
        let batch = first..count.min(first + BATCH);
        for index in batch.clone() {
            let mut stream = connect(address).context(format!("connection {index}"))?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            stream
                .write_all(&message(index, 1))
                .context("send a request")?;
            open.push(stream);
        }
        for index in batch {
            let mut answer = [0; MESSAGE_BYTES];
            let stream = &mut open[index as usize];
            stream
                .read_exact(&mut answer)
                .context(format!("answer on connection {index}"))?;
            if answer != message(index, 1) {
                return Err(Void("an answer differs from its request".to_owned()));
            }
        }
    }
    Ok(open)
}
