//! The scripted peers: clients and servers that do what a seed says, and check every byte they get.

use super::announcement::Announcement;
use super::header::Header;
use tidegate::base::hash;
use tidegate::base::time::Moment;
use tidegate::ring::scripted::{Network, Random, Read, SocketId};

/// When a peer does something drastic.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point {
    /// After it has sent so many bytes.
    Sent(u64),
    /// After it has received so many bytes.
    Received(u64),
    /// So many microseconds after its start.
    Time(u64),
}

/// How a peer behaves.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Bytes to send; an echo sends at most as many as it has received.
    pub(crate) total: u64,
    pub(crate) echo: bool,
    pub(crate) burst_max: u64,
    pub(crate) send_pause_us: u64,
    /// Sends only after so many bytes were received.
    pub(crate) send_after: u64,
    pub(crate) reads: bool,
    pub(crate) read_max: u64,
    pub(crate) read_pause_us: u64,
    pub(crate) read_from_us: u64,
    /// Its FIN waits for the other's.
    pub(crate) finish_last: bool,
    /// How long it waits for the other to do its part, before it goes on without.
    pub(crate) patience_us: u64,
    pub(crate) resets: Option<Point>,
    pub(crate) closes: Option<Point>,
    /// Its PROXY header is a wrong one: nobody serves it.
    pub(crate) bad_header: bool,
}

impl Script {
    /// The behaviour of a client or a server.
    pub(crate) fn new(random: &mut Random, bytes_max: u64, client: bool) -> Script {
        let total = match random.below(6) {
            0 => 0,
            1 => random.below(100),
            2 | 3 => random.below(bytes_max / 16 + 1),
            _ => random.below(bytes_max + 1),
        };
        let point = |random: &mut Random| match random.below(3) {
            0 => Point::Sent(random.below(total + 1)),
            1 => Point::Received(random.below(bytes_max / 4 + 1)),
            _ => {
                let most = random.pick(&[0, 1_000, 3_000_000]);
                Point::Time(random.below(most + 1))
            }
        };
        let mut script = Script {
            total,
            echo: !client && random.chance(300),
            burst_max: random.pick(&[1, 100, 5_000, 70_000, 1_000_000]),
            send_pause_us: random.pick(&[0, 0, 50, 2_000]),
            send_after: if random.chance(400) {
                random.below(2_000)
            } else {
                0
            },
            reads: true,
            read_max: random.pick(&[100, 4_000, 100_000, 1_000_000]),
            read_pause_us: random.pick(&[0, 0, 100, 1_000]),
            read_from_us: if random.chance(200) {
                random.below(5_000_000)
            } else {
                0
            },
            finish_last: random.chance(400),
            patience_us: random.between(100_000, 8_000_000),
            resets: None,
            closes: None,
            bad_header: false,
        };
        // Bytes one by one take too many turns.
        if script.total / script.burst_max > 200 {
            script.burst_max = script.total / 200;
        }
        match random.below(12) {
            0 => script.resets = Some(point(random)),
            1 => script.closes = Some(point(random)),
            2 => {
                script.reads = false;
                let end = Some(Point::Time(random.between(1_000, 20_000_000)));
                if random.chance(500) {
                    script.resets = end;
                } else {
                    script.closes = end;
                }
            }
            _ => {}
        }
        script
    }

    /// Whether it sends all, reads all and breaks nothing off.
    pub(crate) fn clean(&self) -> bool {
        self.reads && self.resets.is_none() && self.closes.is_none() && !self.bad_header
    }
}

/// A peer and what it has seen.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) number: u32,
    pub(crate) client: bool,
    pub(crate) script: Script,
    /// What it sends before everything else.
    pub(crate) header: Option<Header>,
    pub(crate) socket: Option<SocketId>,
    /// What a server gets before the client's bytes.
    pub(crate) announcement: Option<Announcement>,
    started_at: Moment,
    read_at: Moment,
    send_at: Moment,
    timer_at: Moment,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Its FIN is out, after everything.
    pub(crate) finished: bool,
    /// It has read the end of the stream.
    pub(crate) ended: bool,
    /// The error it has seen.
    pub(crate) error: Option<i32>,
    /// It has reset, or closed before its time.
    pub(crate) aborted: bool,
    pub(crate) done: bool,
}

impl Peer {
    pub(crate) fn new(number: u32, client: bool, script: Script) -> Peer {
        Peer {
            number,
            client,
            script,
            header: None,
            socket: None,
            announcement: None,
            started_at: Moment(0),
            read_at: Moment(0),
            send_at: Moment(0),
            timer_at: Moment::NEVER,
            sent: 0,
            received: 0,
            finished: false,
            ended: false,
            error: None,
            aborted: false,
            done: false,
        }
    }

    /// Has it send a header first.
    pub(crate) fn send_before(&mut self, header: Header) {
        if !header.good {
            self.script.bad_header = true;
            self.script.total = 0;
        }
        self.header = Some(header);
    }

    /// Gives it its connection.
    pub(crate) fn start(&mut self, network: &mut Network, socket: SocketId) {
        self.socket = Some(socket);
        self.started_at = network.now();
        self.read_at = Moment(network.now().0 + self.script.read_from_us * 1_000);
        for point in [self.script.resets, self.script.closes] {
            if let Some(Point::Time(us)) = point {
                network.timer(us, self.number);
            }
        }
        network.timer(self.script.patience_us, self.number);
        self.run(network);
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, network: &mut Network) {
        let Some(socket) = self.socket.filter(|_| !self.done) else {
            return;
        };
        if network.now() >= self.timer_at {
            self.timer_at = Moment::NEVER;
        }
        self.receive(network, socket);
        self.send(network, socket);
        if self.is_due(network, self.script.resets) {
            self.aborted = true;
            return self.close(network, socket, true);
        }
        if self.is_due(network, self.script.closes) {
            self.aborted = true;
            return self.close(network, socket, false);
        }
        if self.error.is_some() {
            return self.close(network, socket, false);
        }
        let may_finish = !self.script.finish_last || self.ended || self.impatient(network);
        if !self.finished && self.has_sent_all(network) && may_finish {
            match network.finish(socket) {
                Ok(()) => self.finished = true,
                Err(libc::ENOTCONN) if !network.alive(socket) => {}
                Err(errno) => panic!("a FIN fails with {errno}"),
            }
        }
        if self.finished && self.ended {
            self.close(network, socket, false);
        }
    }

    fn close(&mut self, network: &mut Network, socket: SocketId, reset: bool) {
        network.note(|| format!("peer {} ends {socket:?}: {self:?}", self.number));
        self.done = true;
        network.close(socket, reset);
    }

    fn is_due(&self, network: &Network, point: Option<Point>) -> bool {
        match point {
            None => false,
            Some(Point::Sent(bytes)) => self.sent >= bytes && self.finished_or_can_send(network),
            Some(Point::Received(bytes)) => self.received >= bytes || self.ended,
            Some(Point::Time(us)) => network.now().us_since(self.started_at) >= us,
        }
    }

    fn finished_or_can_send(&self, network: &Network) -> bool {
        self.finished || self.socket.is_some_and(|socket| network.alive(socket))
    }

    fn impatient(&self, network: &Network) -> bool {
        network.now().us_since(self.started_at) >= self.script.patience_us
    }

    /// Bytes it may have sent by now.
    fn allowed(&self, network: &Network) -> u64 {
        let impatient = self.impatient(network) || self.ended;
        if self.script.echo {
            self.script.total.min(self.received)
        } else if self.received >= self.script.send_after || impatient {
            self.script.total
        } else {
            0
        }
    }

    fn has_sent_all(&self, network: &Network) -> bool {
        let impatient = self.impatient(network) || self.ended;
        let all = self.sent >= self.allowed(network) && !self.header_is_due();
        let waits = self.sent < self.script.total && !impatient;
        all && !waits
    }

    fn receive(&mut self, network: &mut Network, socket: SocketId) {
        if self.ended && !network.alive(socket) {
            self.error = Some(libc::EPIPE);
        }
        if !self.script.reads || self.ended || self.error.is_some() {
            return;
        }
        if network.now() < self.read_at {
            return self.timer(network, self.read_at);
        }
        let most = network.random.between(1, self.script.read_max);
        match network.read(socket, usize::try_from(most).expect("a length")) {
            Read::Bytes(bytes) => {
                let bytes = match &mut self.announcement {
                    Some(announcement) => announcement.take(&bytes),
                    None => &bytes,
                };
                self.check(network, socket, bytes);
                let pause = network.random.below(self.script.read_pause_us + 1);
                self.read_at = Moment(network.now().0 + pause * 1_000);
                self.timer(network, self.read_at);
            }
            Read::Empty => {}
            // After a reset whose error a send has taken, a read finds an end as well.
            Read::End if !network.end_received(socket) => self.error = Some(libc::ECONNRESET),
            Read::End => {
                let announcement = self.announcement.as_ref();
                let complete = announcement.is_none_or(Announcement::is_complete);
                assert!(complete, "a stream without a header looks complete");
                self.ended = true;
                if !network.alive(socket) {
                    self.error = Some(libc::EPIPE);
                }
            }
            Read::Error(errno) => self.error = Some(errno),
        }
    }

    fn check(&mut self, network: &mut Network, socket: SocketId, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let source = network.counterpart(socket);
        let source = source.unwrap_or_else(|| panic!("peer {} gets bytes of nobody", self.number));
        for byte in bytes {
            let expected = content(source, self.received);
            assert!(
                *byte == expected,
                "peer {} gets a wrong byte at {}",
                self.number,
                self.received
            );
            self.received += 1;
        }
        assert!(
            self.received <= network.sent(source),
            "more bytes than were sent"
        );
    }

    fn header_is_due(&self) -> bool {
        let header = self.header.as_ref();
        header.is_some_and(|header| !header.left.is_empty())
    }

    /// Sends the next piece of its header.
    fn send_header(&mut self, network: &mut Network, socket: SocketId) {
        if self.finished || self.error.is_some() {
            return;
        }
        if network.now() < self.send_at {
            return self.timer(network, self.send_at);
        }
        let Some(header) = &mut self.header else {
            return;
        };
        let length = 1 + network.random.place(header.left.len());
        match network.write(socket, &[&header.left[..length]]) {
            Ok(count) => {
                header.left.drain(..count);
                let pause = network.random.below(header.pause_us + 1);
                self.send_at = Moment(network.now().0 + pause * 1_000);
                self.timer(network, self.send_at);
                network.forget_sent(socket);
            }
            Err(libc::EAGAIN) => {}
            Err(errno) => {
                self.error = Some(errno);
                self.script.total = 0;
                header.left.clear();
            }
        }
    }

    fn send(&mut self, network: &mut Network, socket: SocketId) {
        if self.header_is_due() {
            return self.send_header(network, socket);
        }
        let allowed = self.allowed(network);
        if self.finished || self.error.is_some() || self.sent >= allowed {
            return;
        }
        if network.now() < self.send_at {
            return self.timer(network, self.send_at);
        }
        let burst = network.random.between(1, self.script.burst_max);
        let length = burst.min(allowed - self.sent);
        // One byte more than there is room for finds the socket full as well as many more do.
        let length = length.min(network.room(socket) + 1);
        let bytes: Vec<u8> = (self.sent..self.sent + length)
            .map(|at| content(socket, at))
            .collect();
        match network.write(socket, &[&bytes]) {
            Ok(count) => {
                self.sent += count as u64;
                let pause = network.random.below(self.script.send_pause_us + 1);
                self.send_at = Moment(network.now().0 + pause * 1_000);
                if count as u64 == length {
                    self.timer(network, self.send_at);
                }
            }
            Err(libc::EAGAIN) => {}
            Err(errno) => {
                // What has arrived is read before it gives up.
                if !self.script.reads || !matches!(errno, libc::EPIPE | libc::ECONNRESET) {
                    self.error = Some(errno);
                }
                self.script.total = self.sent;
                self.aborted |= self.sent < allowed;
            }
        }
    }

    fn timer(&mut self, network: &mut Network, at: Moment) {
        if at < self.timer_at {
            self.timer_at = at;
            // Rounded up: a timer that comes early would have to be set again.
            let us = (at.0.saturating_sub(network.now().0)).div_ceil(1_000);
            network.timer(us, self.number);
        }
    }
}

/// The byte at a place of the stream that a socket sends.
pub(crate) fn content(source: SocketId, at: u64) -> u8 {
    let word = hash::mix((u64::from(source.0) << 40) | (at / 8));
    word.to_le_bytes()[(at % 8) as usize]
}
