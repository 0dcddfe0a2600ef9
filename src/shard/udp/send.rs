//! The end of a turn: what is to leave leaves, and the buffers go back.
//!
//! A datagram that can't be sent is lost, as any router would lose it, and counted by its reason.
//! Nothing here waits, and nothing is tried more than twice.

use std::io::IoSlice;

use super::batch::{Message, SLICES_MAX, Towards};
use super::counts::DatagramCount;
use super::{Shard, Udp};
use crate::lb::ServerCounter;
use crate::ring::{EACH_MAX, Errno, Fd, Kernel, Outgoing, Payload, Single};
use crate::shard::listener_counters::ListenerCounter;
use crate::shard::world::{FrontCounter, ProxyCounters};

/// Why a datagram was not sent. A socket is told once, by the next call, what the network has said
/// of its earlier datagrams, and by the same numbers by which it refuses this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// No room, or no memory.
    Full,
    /// What an earlier datagram of the socket has met.
    Earlier,
    /// Too long for the path, or for any; or an earlier one was.
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

    /// Whether it may be about an earlier datagram.
    fn may_be_of_earlier(errno: Errno) -> bool {
        matches!(Fault::of(errno, false), Fault::Earlier | Fault::TooLarge)
    }
}

/// What has become of a message.
#[derive(Debug)]
struct Sent {
    result: Result<(), Fault>,
    /// The socket was told something, which is to be read.
    told: bool,
}

impl<K: Kernel> Shard<K> {
    /// Sends what the turn has gathered.
    pub(super) fn send_batches(&mut self, udp: &mut Udp) {
        udp.batches.sort();
        let mut at = 0;
        while at < udp.batches.len() {
            let plain = udp.batches.plain_from(at, EACH_MAX);
            let sent = match plain {
                0 | 1 => 0,
                several => self.send_each(udp, at, several),
            };
            at += sent;
            if sent < plain.max(1) {
                // One that goes alone, or that has met an error.
                let message = udp.batches.message(at);
                if let Err(fault) = self.send_message(udp, &message) {
                    self.send_failed(udp, &message, fault);
                }
                at += 1;
            }
        }
        udp.batches.end_turn();
    }

    /// Sends plain datagrams of one socket by one call; how many of them.
    fn send_each(&mut self, udp: &mut Udp, at: usize, several: usize) -> usize {
        let mut singles = [Single {
            to: None,
            bytes: &[],
        }; EACH_MAX];
        for (index, single) in singles[..several].iter_mut().enumerate() {
            let message = udp.batches.message(at + index);
            let payload = udp.batches.payload(&message);
            *single = Single {
                to: message.route.to,
                bytes: payload.map_or(&[], |payload| self.kernel.payload(payload)),
            };
        }
        let fd = udp.batches.message(at).route.fd;
        let sent = self.kernel.send_each(fd, &singles[..several]).unwrap_or(0);
        if sent > 0 {
            udp.counts.one(DatagramCount::Sends);
        }
        for at in at..at + sent {
            let message = udp.batches.message(at);
            self.account_datagrams(udp, &message, 1, message.bytes);
        }
        if sent < several {
            // What has ended it may be of an earlier one, and then the next call finds nothing.
            let towards = udp.batches.message(at + sent).route.towards;
            self.hear_network(udp, towards);
        }
        sent
    }

    /// Sends one message by one call, or two.
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
        let Sent { result, told } = self.twice(message.route.fd, &outgoing);
        if told {
            self.hear_network(udp, message.route.towards);
        }
        if result.is_ok() {
            udp.counts.one(DatagramCount::Sends);
            if message.datagrams > 1 {
                udp.counts.add(DatagramCount::Merged, message.datagrams);
            }
            self.account_datagrams(udp, message, message.datagrams, message.bytes);
        }
        result
    }

    /// One call, and a second one where the first may have met what an earlier datagram left
    /// behind: nothing else is lost for it.
    fn twice(&self, fd: Fd, outgoing: &Outgoing<'_>) -> Sent {
        let send = || self.kernel.send_datagrams(fd, outgoing);
        let mut sent = send();
        let told = matches!(sent, Err(errno) if Fault::may_be_of_earlier(errno));
        if told {
            sent = send();
        }
        let segments = outgoing.segment.is_some();
        Sent {
            result: sent.map_err(|errno| Fault::of(errno, segments)),
            told,
        }
    }

    /// Reads what the network has said of a socket's datagrams: it may name the server, and what
    /// is left in the socket takes room that answers need. Listeners are told nothing.
    fn hear_network(&mut self, udp: &mut Udp, towards: Towards) {
        if let Towards::Server { socket, .. } = towards {
            self.read_undelivered(udp, socket);
        }
    }

    fn send_failed(&mut self, udp: &mut Udp, message: &Message, fault: Fault) {
        if fault == Fault::Segments {
            udp.segments_refused(message);
            return self.send_singly(udp, message);
        }
        self.lose(udp, message.datagrams, fault);
    }

    /// Sends the datagrams of a message one by one: that way doesn't take them together.
    fn send_singly(&mut self, udp: &mut Udp, message: &Message) {
        let mut sent = (0, 0);
        let mut lost: Option<(Fault, u32)> = None;
        let mut told = false;
        for payload in udp.batches.singles(message) {
            let parts = [IoSlice::new(self.kernel.payload(payload))];
            let outgoing = Outgoing {
                to: message.route.to,
                from: message.route.from,
                segment: None,
                traffic_class: message.traffic_class,
                parts: &parts,
            };
            let one = self.twice(message.route.fd, &outgoing);
            told |= one.told;
            match one.result {
                Ok(()) => sent = (sent.0 + 1, sent.1 + payload.length),
                Err(fault) => lost = Some((fault, lost.map_or(1, |(_, before)| before + 1))),
            }
        }
        if told {
            self.hear_network(udp, message.route.towards);
        }
        if sent.0 > 0 {
            udp.counts.add(DatagramCount::Sends, sent.0);
            self.account_datagrams(udp, message, sent.0, sent.1);
        }
        if let Some((fault, datagrams)) = lost {
            self.lose(udp, datagrams, fault);
        }
    }

    fn lose(&mut self, udp: &mut Udp, datagrams: u32, fault: Fault) {
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
    }

    /// Counts what has left.
    fn account_datagrams(&self, udp: &mut Udp, message: &Message, datagrams: u32, bytes: u32) {
        let (n, bytes) = (u64::from(datagrams), u64::from(bytes));
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
                let listener = &udp.listeners[listener as usize];
                listener.count(id, ListenerCounter::DatagramsOut, n);
                listener.count(id, ListenerCounter::BytesOut, bytes);
                let front: &ProxyCounters = &listener.frontend.counters;
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
