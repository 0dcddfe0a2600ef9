//! Request and answer on kept connections: one 64-byte message in flight per connection.
//!
//! Every answer is compared with its request. Also opens the idle connections of `idle9000`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{MESSAGE_BYTES, connect, latency_histogram, message, wait};
use crate::sample::{Context, Void};
use crate::sys;

struct Connection {
    stream: TcpStream,
    sequence: u64,
    request: [u8; MESSAGE_BYTES],
    answer: [u8; MESSAGE_BYTES],
    received: usize,
    sent_at: Instant,
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
    /// Connects and sends the first request on every connection.
    pub(crate) fn open(address: SocketAddr, count: u32) -> Result<Exchange, Void> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
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
                request: message(index, 0),
                answer: [0; MESSAGE_BYTES],
                received: 0,
                sent_at: Instant::now(),
            };
            connection.ask(Instant::now())?;
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
                let Some(asked_at) = connection.hear()? else {
                    continue;
                };
                let now = Instant::now();
                self.latency
                    .saturating_record((now - asked_at).as_nanos() as u64);
                self.done += 1;
                connection.ask(now)?;
            }
        }
        Ok(())
    }
}

impl Exchange {
    /// Sends `per_second` requests a second, evenly by the millisecond, on whichever connections
    /// are free; latency counts from the sending.
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

impl Connection {
    fn ask(&mut self, now: Instant) -> Result<(), Void> {
        self.sequence += 1;
        self.request[..8].copy_from_slice(&self.sequence.to_le_bytes());
        self.sent_at = now;
        sys::send_whole(&self.stream, &self.request).context("send a request")
    }

    /// Takes what has come; the time of the request once its answer is whole and right.
    fn hear(&mut self) -> Result<Option<Instant>, Void> {
        match sys::receive(&self.stream, &mut self.answer[self.received..]) {
            Ok(0) => return Err(Void("a kept connection was closed".to_owned())),
            Ok(received) => self.received += received,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno).context("receive an answer"),
        }
        if self.received < MESSAGE_BYTES {
            return Ok(None);
        }
        self.received = 0;
        if self.answer != self.request {
            return Err(Void("an answer differs from its request".to_owned()));
        }
        Ok(Some(self.sent_at))
    }
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
