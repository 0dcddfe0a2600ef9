//! A virtual socket: what Linux TCP lets its owner see, without sequence numbers and windows.
//!
//! Bytes wait in the sender's queue until the network delivers them to the receiver's; both are
//! bounded. The order in which errors, ends and bytes are told is that of tcp_recvmsg, tcp_sendmsg
//! and tcp_poll (net/ipv4/tcp.c): queued bytes first, then an end that was received, then the
//! error, once, and afterwards an end.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::ring::Interest;

/// A socket's number; never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SocketId(pub u32);

/// What a read finds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Empty,
    /// The end of the stream.
    End,
    /// An error, which is then off the socket.
    Error(i32),
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) peer: Option<SocketId>,
    /// Address of the other end.
    pub(super) remote: SocketAddr,
    /// Its own address.
    pub(super) local: SocketAddr,
    /// Belongs to a scripted peer, not to the shard.
    pub(super) scripted: bool,
    pub(super) connecting: bool,
    /// A shard has made it, to connect.
    pub(super) connects: bool,
    /// Somebody holds a descriptor of it.
    pub(super) open: bool,
    /// Reset, refused or timed out: nothing moves any more.
    pub(super) dead: bool,
    /// The pending error.
    pub(super) error: i32,
    pub(super) outgoing: VecDeque<u8>,
    pub(super) outgoing_max: usize,
    pub(super) incoming: VecDeque<u8>,
    pub(super) incoming_max: usize,
    /// Our FIN is queued behind the outgoing bytes.
    pub(super) finished: bool,
    /// Our FIN is with the peer.
    pub(super) finish_arrived: bool,
    /// The peer's FIN is here.
    pub(super) end_received: bool,
    /// A send or a poll found it full: a wake-up is owed when there is room.
    pub(super) wants_space: bool,
    /// Wake-ups so far: a poll fires when the number has changed.
    pub(super) wakes: u64,
    /// The same by bytes that have arrived, which only polls for reading look at.
    pub(super) arrivals: u64,
    /// A delivery is scheduled.
    pub(super) delivering: bool,
    /// Its scripted owner is to be told.
    pub(super) told: bool,
    /// Bytes its owner has sent.
    pub(super) sent: u64,
}

impl Socket {
    /// A socket that is open and connected to nothing.
    pub(super) fn new(local: SocketAddr, remote: SocketAddr, sizes: [usize; 2]) -> Socket {
        Socket {
            peer: None,
            remote,
            local,
            scripted: false,
            connecting: false,
            connects: false,
            open: true,
            dead: false,
            error: 0,
            outgoing: VecDeque::new(),
            outgoing_max: sizes[0],
            incoming: VecDeque::new(),
            incoming_max: sizes[1],
            finished: false,
            finish_arrived: false,
            end_received: false,
            wants_space: false,
            wakes: 0,
            arrivals: 0,
            delivering: false,
            told: false,
            sent: 0,
        }
    }

    /// Whether a read finds anything but `Empty`.
    pub(super) fn readable(&self) -> bool {
        !self.incoming.is_empty() || self.end_received || self.error != 0 || self.dead
    }

    /// Takes at most `length` bytes, or what there is instead of bytes.
    pub(super) fn read(&mut self, length: usize) -> Read {
        if !self.incoming.is_empty() {
            let length = length.min(self.incoming.len());
            return Read::Bytes(self.incoming.drain(..length).collect());
        }
        // tcp_recvmsg looks at SOCK_DONE, which a FIN sets and a reset doesn't, before the error.
        if self.end_received {
            return Read::End;
        }
        if let Some(error) = self.take_error() {
            return Read::Error(error);
        }
        if self.dead { Read::End } else { Read::Empty }
    }

    /// Queues bytes: how many, or the error.
    pub(super) fn write(&mut self, parts: &[&[u8]], most: usize) -> Result<usize, i32> {
        if let Some(error) = self.take_error() {
            return Err(error);
        }
        if self.dead || self.finished {
            return Err(libc::EPIPE);
        }
        let offered: usize = parts.iter().map(|part| part.len()).sum();
        let room = if self.connecting { 0 } else { self.room() };
        let mut left = offered.min(room).min(most);
        let count = left;
        if count < offered {
            self.wants_space = true;
        }
        if count == 0 && offered > 0 {
            return Err(libc::EAGAIN);
        }
        for part in parts {
            let length = left.min(part.len());
            self.outgoing.extend(&part[..length]);
            left -= length;
        }
        self.sent += count as u64;
        Ok(count)
    }

    /// Bytes of its queue that are free.
    pub(super) fn room(&self) -> usize {
        self.outgoing_max.saturating_sub(self.outgoing.len())
    }

    /// Whether a poll says writable: a third of the queue is free (sk_stream_is_writable).
    pub(super) fn writable(&self) -> bool {
        !self.connecting && (self.dead || self.finished || self.room() * 3 >= self.outgoing_max)
    }

    /// The same without taking it off.
    pub(super) fn peek(&mut self, length: usize) -> Read {
        if self.incoming.is_empty() {
            return self.read(length);
        }
        Read::Bytes(self.incoming.iter().copied().take(length).collect())
    }

    /// Wake-ups that a poll is told of.
    pub(super) fn wakes(&self, interest: Interest) -> u64 {
        match interest {
            Interest::Write => self.wakes,
            Interest::Read => self.wakes + self.arrivals,
        }
    }

    /// The poll mask, tcp_poll.
    pub(super) fn mask(&self, interest: Interest) -> i16 {
        let mut mask = 0;
        match interest {
            Interest::Write if self.writable() => mask |= libc::POLLOUT,
            Interest::Read if self.readable() => mask |= libc::POLLIN,
            Interest::Write | Interest::Read => {}
        }
        if self.error != 0 {
            mask |= libc::POLLERR;
        }
        if self.dead || (self.finished && self.end_received) {
            mask |= libc::POLLHUP;
        }
        if self.dead || self.end_received {
            mask |= libc::POLLRDHUP;
        }
        mask
    }

    /// The pending error, taken off.
    pub(super) fn take_error(&mut self) -> Option<i32> {
        let error = std::mem::take(&mut self.error);
        (error != 0).then_some(error)
    }

    /// Kills it with an error for its owner.
    pub(super) fn kill(&mut self, error: i32) {
        self.dead = true;
        self.connecting = false;
        self.error = error;
        self.outgoing.clear();
        self.wakes += 1;
    }
}
