//! The end of a turn: what is to leave leaves, and the buffers go back.
//!
//! A datagram that can't be sent is lost, as any router would lose it, and counted by its reason.
//! Nothing here waits, and nothing is tried more than twice.

use std::io::IoSlice;

use super::batch::{Message, SLICES_MAX, Towards};
use super::counts::DatagramCount;
use super::{Shard, Udp};
use crate::lb::ServerCounter;
use crate::ring::{Errno, Fd, Kernel, Outgoing, Payload};
use crate::shard::world::FrontCounter;

/// Why a datagram was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// No room, or no memory.
    Full,
    /// What an earlier datagram of the socket has met.
    Earlier,
    /// Too long for the path, or for any.
    TooLarge,
    /// Not several at once on this way.
    Segments,
    /// Not in the table.
    Unexpected(Errno),
}

impl Fault {
    /// Decodes the error of a send, udp(7) and send(2).
    fn of(errno: Errno, segments: bool) -> Fault {
        match errno.0 {
            libc::EINVAL | libc::EMSGSIZE | libc::EIO if segments => Fault::Segments,
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EPERM => Fault::Full,
            libc::EMSGSIZE => Fault::TooLarge,
            libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::EHOSTDOWN
            | libc::ENETDOWN
            | libc::ENONET
            | libc::EPROTO
            | libc::EOPNOTSUPP
            | libc::ENOPROTOOPT
            | libc::EACCES
            | libc::EADDRNOTAVAIL => Fault::Earlier,
            _ => Fault::Unexpected(errno),
        }
    }
}

impl<K: Kernel> Shard<K> {
    /// Sends what the turn has gathered.
    pub(super) fn send_batches(&mut self, udp: &mut Udp) {
        for index in 0..udp.batches.len() {
            let message = udp.batches.message(index);
            if let Err(fault) = self.send_message(udp, &message) {
                self.send_failed(udp, &message, fault);
            }
        }
        udp.batches.end_turn();
    }

    /// One call, and a second one where the first has met what an earlier datagram left behind.
    fn send_message(&mut self, udp: &mut Udp, message: &Message) -> Result<(), Fault> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let kernel = &self.kernel;
        let bytes_of = |payload: Payload| kernel.payload(payload);
        let count = udp.batches.slices(message, &mut slices, bytes_of);
        let segment = u16::try_from(message.segment).ok();
        let outgoing = Outgoing {
            to: message.route.to,
            from: message.route.from,
            segment: segment.filter(|_| message.datagrams > 1),
            traffic_class: message.traffic_class,
            parts: &slices[..count],
        };
        let fd = message.route.fd;
        let sent = self.twice(fd, &outgoing);
        if sent.is_ok() {
            self.account_sent(udp, message, message.datagrams, message.bytes);
        }
        sent
    }

    fn twice(&self, fd: Fd, outgoing: &Outgoing<'_>) -> Result<(), Fault> {
        let segments = outgoing.segment.is_some();
        let send = || {
            let sent = self.kernel.send_datagrams(fd, outgoing);
            sent.map_err(|errno| Fault::of(errno, segments))
        };
        match send() {
            Err(Fault::Earlier) => send(),
            other => other,
        }
    }

    fn send_failed(&mut self, udp: &mut Udp, message: &Message, fault: Fault) {
        if fault == Fault::Segments {
            udp.segments_refused(message);
            return self.send_singly(udp, message);
        }
        self.lose(udp, message, message.datagrams, fault);
    }

    /// Sends the datagrams of a message one by one: that way doesn't take them together.
    fn send_singly(&mut self, udp: &mut Udp, message: &Message) {
        let mut sent = (0, 0);
        let mut lost: Option<(Fault, u32)> = None;
        for payload in udp.batches.singles(message) {
            let parts = [IoSlice::new(self.kernel.payload(payload))];
            let outgoing = Outgoing {
                to: message.route.to,
                from: message.route.from,
                segment: None,
                traffic_class: message.traffic_class,
                parts: &parts,
            };
            match self.twice(message.route.fd, &outgoing) {
                Ok(()) => sent = (sent.0 + 1, sent.1 + payload.length),
                Err(fault) => lost = Some((fault, lost.map_or(1, |(_, before)| before + 1))),
            }
        }
        if sent.0 > 0 {
            udp.counts.add(DatagramCount::Sends, sent.0 - 1);
            self.account_sent_singly(udp, message, sent.0, sent.1);
        }
        if let Some((fault, datagrams)) = lost {
            self.lose(udp, message, datagrams, fault);
        }
    }

    fn lose(&mut self, udp: &mut Udp, message: &Message, datagrams: u32, fault: Fault) {
        let count = match fault {
            Fault::Full => DatagramCount::Unsent,
            Fault::TooLarge => DatagramCount::TooLarge,
            Fault::Earlier | Fault::Segments => DatagramCount::Undeliverable,
            Fault::Unexpected(errno) => {
                self.unexpected("sendmsg", errno);
                DatagramCount::Undeliverable
            }
        };
        udp.counts.add(count, datagrams);
        if let (Fault::Earlier, Towards::Server { socket, .. }) = (fault, message.route.towards) {
            // What the network has said of it may name the server.
            self.read_undelivered(udp, socket);
        }
    }

    fn account_sent(&self, udp: &mut Udp, message: &Message, datagrams: u32, bytes: u32) {
        if datagrams > 1 {
            udp.counts.add(DatagramCount::Merged, datagrams);
        }
        self.account_sent_singly(udp, message, datagrams, bytes);
    }

    fn account_sent_singly(&self, udp: &mut Udp, message: &Message, datagrams: u32, bytes: u32) {
        let (n, bytes) = (u64::from(datagrams), u64::from(bytes));
        udp.counts.one(DatagramCount::Sends);
        let id = self.id;
        match message.route.towards {
            Towards::Server { upstream, .. } => {
                udp.counts.add(DatagramCount::ToServers, n);
                let place = udp.upstreams.at(upstream);
                let back = self.world.counters_of(&place.backend);
                back.add(id, FrontCounter::DatagramsIn as usize, n);
                back.add(id, FrontCounter::BytesIn as usize, bytes);
                let server = &place.server.counters;
                server.add(id, ServerCounter::DatagramsIn as usize, n);
                server.add(id, ServerCounter::BytesIn as usize, bytes);
            }
            Towards::Client { listener, upstream } => {
                udp.counts.add(DatagramCount::ToClients, n);
                let place = udp.upstreams.at(upstream);
                let back = self.world.counters_of(&place.backend);
                let front = &udp.listeners[listener as usize].frontend.counters;
                for counters in [front, back] {
                    counters.add(id, FrontCounter::DatagramsOut as usize, n);
                    counters.add(id, FrontCounter::BytesOut as usize, bytes);
                }
                let server = &place.server.counters;
                server.add(id, ServerCounter::DatagramsOut as usize, n);
                server.add(id, ServerCounter::BytesOut as usize, bytes);
            }
        }
    }
}
