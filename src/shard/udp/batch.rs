//! What leaves at the end of a turn. Datagrams of one flow and direction that one call can send
//! are one message; nothing is sent before all arrivals of the turn have been seen, and nothing is
//! kept for another turn in the hope of more.
//!
//! Messages to servers are sent in the order in which they were begun, those to the clients of a
//! listener too, and a flow only ever adds to its last one: so the order within a flow and
//! direction is that of arrival.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};

use crate::base::ids::SessionKey;
use crate::ring::{Fd, Payload};

/// Segments that one call may send: UDP_MAX_SEGMENTS before Linux 6.9.
const SEGMENTS_MAX: u32 = 64;
/// Bytes that one call may send: IPv4 takes 65,507, and this leaves room for options.
const BYTES_MAX: u32 = 65_000;
/// Longest datagram that is merged with others: what an Ethernet frame takes after IPv4 and UDP.
const SEGMENT_MAX_V4: u32 = 1472;
/// The same after IPv6.
const SEGMENT_MAX_V6: u32 = 1452;
/// Slices of a call: as many parts as segments, and a PROXY header.
pub(super) const SLICES_MAX: usize = SEGMENTS_MAX as usize + 1;

/// No part.
const NONE: u32 = u32::MAX;

/// At which end of its flow a message arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Towards {
    /// At the server, from that socket.
    Server { upstream: u32, socket: SessionKey },
    /// At the client of a listener.
    Client { listener: u32, upstream: u32 },
}

/// How a message gets there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Route {
    /// The socket it leaves from.
    pub(super) fd: Fd,
    /// To whom; `None` on a connected socket.
    pub(super) to: Option<SocketAddr>,
    /// The address it leaves from, where the socket has none.
    pub(super) from: Option<IpAddr>,
    pub(super) towards: Towards,
    /// The slot of its flow.
    pub(super) flow: u32,
    /// Whether that way can be sent several at once.
    pub(super) merges: bool,
    /// Longest datagram of those.
    pub(super) segment_max: u32,
}

impl Route {
    /// Longest datagram that is merged on the way to an address.
    pub(super) fn segment_max(to: SocketAddr) -> u32 {
        if to.is_ipv4() {
            SEGMENT_MAX_V4
        } else {
            SEGMENT_MAX_V6
        }
    }
}

/// The message that a flow has added to last in one direction. One of an earlier turn may be a
/// message of somebody else by now, which its route tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Open(u16);

impl Default for Open {
    /// None: the first message of a turn may be that of a flow which had the same place before, and
    /// others may stand behind it.
    fn default() -> Open {
        Open(u16::MAX)
    }
}

/// One call's worth of datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) route: Route,
    pub(super) traffic_class: u8,
    /// Length of each datagram but the last.
    pub(super) segment: u32,
    pub(super) datagrams: u32,
    pub(super) bytes: u32,
    /// Nothing can be added.
    closed: bool,
    first: u32,
    last: u32,
    parts: u32,
}

impl Message {
    /// Whether it is one datagram with nothing beside it.
    fn is_plain(&self) -> bool {
        self.parts == 1
            && self.datagrams == 1
            && self.route.from.is_none()
            && self.traffic_class == 0
    }
}

/// Bytes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bytes {
    Received(Payload),
    /// In the store of headers.
    Header {
        offset: u32,
        length: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Part {
    bytes: Bytes,
    next: u32,
}

/// The messages of a turn.
#[derive(Debug, Default)]
pub(super) struct Batches {
    messages: Vec<Message>,
    parts: Vec<Part>,
    headers: Vec<u8>,
    /// Indices of the messages in the order of sending.
    order: Vec<u32>,
}

/// Datagrams in so many bytes of such a segment.
pub(super) fn datagrams_in(length: u32, segment: Option<u16>) -> u32 {
    match segment {
        Some(segment) if segment > 0 => length.div_ceil(u32::from(segment)).max(1),
        Some(_) | None => 1,
    }
}

impl Batches {
    /// Adds what has arrived for a flow, a datagram or several of one length, the last of which may
    /// be shorter. `header` goes before it, which is then a single one.
    pub(super) fn add(
        &mut self,
        open: &mut Open,
        route: &Route,
        traffic_class: u8,
        payload: Payload,
        segment: Option<u16>,
        header: &[u8],
    ) {
        let datagrams = datagrams_in(payload.length, segment);
        if !header.is_empty() {
            debug_assert_eq!(datagrams, 1, "a header goes before one datagram");
            let offset = u32::try_from(self.headers.len()).expect("headers of a turn");
            let length = u32::try_from(header.len()).expect("a header of some KiB");
            self.headers.extend_from_slice(header);
            let bytes = [Bytes::Header { offset, length }, Bytes::Received(payload)];
            return self.begin(open, route, traffic_class, 0, 1, &bytes);
        }
        let length = match segment {
            Some(segment) if datagrams > 1 => u32::from(segment),
            Some(_) | None => payload.length,
        };
        let mergeable = route.merges && (1..=route.segment_max).contains(&length);
        if datagrams > 1 && (!mergeable || datagrams > SEGMENTS_MAX || payload.length > BYTES_MAX) {
            // No call takes them together.
            for single in Singles::new(payload, length) {
                let bytes = [Bytes::Received(single)];
                self.begin(open, route, traffic_class, 0, 1, &bytes);
            }
            return;
        }
        if mergeable && self.append(open, route, traffic_class, payload, length, datagrams) {
            return;
        }
        // Only a whole one can be followed by others.
        let segment = if mergeable { length } else { 0 };
        let bytes = [Bytes::Received(payload)];
        self.begin(open, route, traffic_class, segment, datagrams, &bytes);
    }

    /// Adds to the flow's last message, if that is possible.
    fn append(
        &mut self,
        open: &Open,
        route: &Route,
        traffic_class: u8,
        payload: Payload,
        length: u32,
        datagrams: u32,
    ) -> bool {
        let Some(message) = self.messages.get_mut(usize::from(open.0)) else {
            return false;
        };
        let fits = !message.closed
            && message.route == *route
            && message.traffic_class == traffic_class
            && message.datagrams + datagrams <= SEGMENTS_MAX
            && message.bytes + payload.length <= BYTES_MAX
            && (length == message.segment || (datagrams == 1 && length < message.segment));
        if !fits {
            return false;
        }
        message.datagrams += datagrams;
        message.bytes += payload.length;
        message.closed = !payload.length.is_multiple_of(message.segment);
        message.parts += 1;
        let index = u32::try_from(self.parts.len()).expect("parts of a turn");
        let last = std::mem::replace(&mut message.last, index);
        self.parts[last as usize].next = index;
        self.parts.push(Part {
            bytes: Bytes::Received(payload),
            next: NONE,
        });
        true
    }

    /// Begins a message; with a segment of 0 nothing is added to it.
    fn begin(
        &mut self,
        open: &mut Open,
        route: &Route,
        traffic_class: u8,
        segment: u32,
        datagrams: u32,
        bytes: &[Bytes],
    ) {
        let first = u32::try_from(self.parts.len()).expect("parts of a turn");
        let parts = u32::try_from(bytes.len()).expect("one or two");
        for (index, bytes) in (first + 1..).zip(bytes) {
            let is_last = index == first + parts;
            let next = if is_last { NONE } else { index };
            self.parts.push(Part {
                bytes: *bytes,
                next,
            });
        }
        let length = bytes.iter().map(|bytes| match bytes {
            Bytes::Received(payload) => payload.length,
            Bytes::Header { .. } => 0,
        });
        let length = length.sum();
        // One of more than that is another's, or alone.
        *open = Open(u16::try_from(self.messages.len()).unwrap_or(u16::MAX));
        self.messages.push(Message {
            route: *route,
            traffic_class,
            segment,
            datagrams,
            bytes: length,
            closed: segment == 0 || !length.is_multiple_of(segment),
            first,
            last: first + parts - 1,
            parts,
        });
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Settles the order of sending: to servers as it came, so that what a client sends stays in
    /// order over its flows too, then to the clients of each listener, by few calls.
    pub(super) fn sort(&mut self) {
        let messages = &self.messages;
        let count = u32::try_from(messages.len()).expect("messages of a turn");
        self.order.clear();
        self.order.extend(0..count);
        let key = |index: &u32| match messages[*index as usize].route.towards {
            Towards::Server { .. } => (0, *index),
            Towards::Client { listener, .. } => (1 + listener, *index),
        };
        self.order.sort_unstable_by_key(key);
    }

    /// One of them, in the order of sending.
    pub(super) fn message(&self, at: usize) -> Message {
        self.messages[self.order[at] as usize]
    }

    /// How many messages from this one on leave from its socket and are plain datagrams, none of
    /// them in need of anything but its address.
    pub(super) fn plain_from(&self, at: usize, most: usize) -> usize {
        let fd = self.message(at).route.fd;
        let end = self.order.len().min(at + most);
        let rest = self.order[at..end].iter();
        let plain = rest.map(|index| &self.messages[*index as usize]);
        plain
            .take_while(|message| message.route.fd == fd && message.is_plain())
            .count()
    }

    /// The bytes of a plain message.
    pub(super) fn payload(&self, message: &Message) -> Option<Payload> {
        match self.parts.get(message.first as usize)?.bytes {
            Bytes::Received(payload) => Some(payload),
            Bytes::Header { .. } => None,
        }
    }

    /// The bytes of a message, as a call takes them; `bytes_of` finds what was received.
    pub(super) fn slices<'a>(
        &'a self,
        message: &Message,
        slices: &mut [IoSlice<'a>; SLICES_MAX],
        bytes_of: impl Fn(Payload) -> &'a [u8],
    ) -> usize {
        let mut count = 0;
        let mut index = message.first;
        while let Some(part) = self.parts.get(index as usize)
            && count < SLICES_MAX
        {
            let bytes = match part.bytes {
                Bytes::Received(payload) => bytes_of(payload),
                Bytes::Header { offset, length } => {
                    &self.headers[offset as usize..(offset + length) as usize]
                }
            };
            slices[count] = IoSlice::new(bytes);
            count += 1;
            index = part.next;
        }
        debug_assert_eq!(count, message.parts as usize);
        count
    }

    /// Its datagrams one by one, for a way that doesn't take them together. Parts begin and end
    /// with a datagram.
    pub(super) fn singles(&self, message: &Message) -> impl Iterator<Item = Payload> {
        let segment = message.segment;
        let first = self.parts.get(message.first as usize);
        let parts = std::iter::successors(first, |part| self.parts.get(part.next as usize));
        let received = parts.filter_map(|part| match part.bytes {
            Bytes::Received(payload) => Some(payload),
            Bytes::Header { .. } => None,
        });
        received.flat_map(move |payload| Singles::new(payload, segment))
    }

    /// Forgets what was sent.
    pub(super) fn end_turn(&mut self) {
        self.messages.clear();
        self.parts.clear();
        self.headers.clear();
    }
}

/// The datagrams in the bytes of an arrival.
#[derive(Debug)]
pub(super) struct Singles {
    left: Option<Payload>,
    segment: u32,
}

impl Singles {
    /// Of such a length each, the last of which may be shorter; 0 = it is one.
    pub(super) fn new(payload: Payload, segment: u32) -> Singles {
        Singles {
            left: Some(payload),
            segment,
        }
    }
}

impl Iterator for Singles {
    type Item = Payload;

    fn next(&mut self) -> Option<Payload> {
        let left = self.left?;
        if self.segment == 0 || left.length <= self.segment {
            self.left = None;
            return Some(left);
        }
        self.left = Some(Payload {
            offset: left.offset + self.segment,
            length: left.length - self.segment,
            ..left
        });
        Some(Payload {
            length: self.segment,
            ..left
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Inbox;

    const ROUTE: Route = Route {
        fd: Fd(7),
        to: None,
        from: None,
        towards: Towards::Client {
            listener: 0,
            upstream: 0,
        },
        flow: 1,
        merges: true,
        segment_max: SEGMENT_MAX_V4,
    };

    fn of(buffer: u16, length: u32) -> Payload {
        Payload {
            inbox: Inbox::Clients,
            buffer,
            offset: 64,
            length,
        }
    }

    /// Datagrams and bytes of each message.
    fn messages(batches: &Batches) -> Vec<(u32, u32)> {
        let messages = batches.messages.iter();
        messages.map(|m| (m.datagrams, m.bytes)).collect()
    }

    fn added(route: &Route, lengths: &[u32]) -> Vec<(u32, u32)> {
        let (mut batches, mut open) = (Batches::default(), Open::default());
        for (buffer, length) in (0..).zip(lengths) {
            batches.add(&mut open, route, 0, of(buffer, *length), None, &[]);
        }
        messages(&batches)
    }

    #[test]
    fn equal_lengths_are_merged_and_a_shorter_one_is_the_last() {
        assert_eq!(added(&ROUTE, &[100, 100, 100]), [(3, 300)]);
        assert_eq!(
            added(&ROUTE, &[100, 100, 40, 40, 100]),
            [(3, 240), (1, 40), (1, 100)]
        );
        assert_eq!(added(&ROUTE, &[40, 100]), [(1, 40), (1, 100)]);
        assert_eq!(added(&ROUTE, &[100, 0, 100]), [(1, 100), (1, 0), (1, 100)]);
        assert_eq!(added(&ROUTE, &[1472, 1472]), [(2, 2944)]);
        assert_eq!(added(&ROUTE, &[1473, 1473]), [(1, 1473), (1, 1473)]);
        let single = Route {
            merges: false,
            ..ROUTE
        };
        assert_eq!(added(&single, &[9, 9]), [(1, 9), (1, 9)]);
    }

    #[test]
    fn a_message_has_its_bounds() {
        let many = added(&ROUTE, &[10; 130]);
        assert_eq!(many, [(64, 640), (64, 640), (2, 20)]);
        let large = added(&ROUTE, &[1472; 50]);
        assert_eq!(large, [(44, 64_768), (6, 8_832)]);
    }

    #[test]
    fn what_arrived_together_leaves_together_unless_it_may_not() {
        let (mut batches, mut open) = (Batches::default(), Open::default());
        batches.add(&mut open, &ROUTE, 0, of(0, 250), Some(100), &[]);
        batches.add(&mut open, &ROUTE, 0, of(1, 200), Some(100), &[]);
        batches.add(&mut open, &ROUTE, 0, of(2, 50), None, &[]);
        // Another class is another message.
        batches.add(&mut open, &ROUTE, 4, of(3, 50), None, &[]);
        assert_eq!(messages(&batches), [(3, 250), (3, 250), (1, 50)]);
        batches.sort();
        let message = batches.message(0);
        let singles: Vec<_> = batches.singles(&message).collect();
        let at = |offset, length| Payload {
            offset,
            ..of(0, length)
        };
        assert_eq!(singles, [at(64, 100), at(164, 100), at(264, 50)]);
        batches.end_turn();
        // Segments that no frame takes go one by one.
        batches.add(&mut open, &ROUTE, 0, of(0, 5_000), Some(2_000), &[]);
        assert_eq!(messages(&batches), [(1, 2_000), (1, 2_000), (1, 1_000)]);
    }

    #[test]
    fn a_header_goes_before_one_datagram_and_nothing_joins_it() {
        let (mut batches, mut open) = (Batches::default(), Open::default());
        let store = [b'x'; 100];
        batches.add(&mut open, &ROUTE, 0, of(0, 10), None, b"HEAD");
        batches.add(&mut open, &ROUTE, 0, of(0, 10), None, &[]);
        batches.add(&mut open, &ROUTE, 0, of(0, 10), None, &[]);
        assert_eq!(messages(&batches), [(1, 10), (2, 20)]);
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        batches.sort();
        let message = batches.message(0);
        let count = batches.slices(&message, &mut slices, |payload| {
            &store[..payload.length as usize]
        });
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(bytes, b"HEADxxxxxxxxxx");
    }

    #[test]
    fn plain_datagrams_of_a_socket_leave_together() {
        let mut batches = Batches::default();
        let mut add = |flow: u32, listener: u32, class: u8, length: u32| {
            let (fd, upstream) = (Fd(7 + i32::try_from(listener).unwrap()), 0);
            let towards = Towards::Client { listener, upstream };
            let route = Route {
                flow,
                fd,
                towards,
                ..ROUTE
            };
            let mut open = Open(u16::MAX);
            batches.add(&mut open, &route, class, of(0, length), None, &[]);
        };
        add(1, 2, 0, 1);
        add(2, 0, 0, 2);
        add(3, 2, 0, 3);
        add(4, 2, 4, 4);
        add(5, 2, 0, 0);
        add(6, 0, 0, 6);
        batches.sort();
        let flows: Vec<u32> = (0..6).map(|at| batches.message(at).route.flow).collect();
        assert_eq!(flows, [2, 6, 1, 3, 4, 5]);
        let runs: Vec<usize> = (0..6).map(|at| batches.plain_from(at, 64)).collect();
        assert_eq!(runs, [2, 1, 2, 1, 0, 1]);
        assert_eq!(batches.plain_from(0, 1), 1);
        assert_eq!(batches.payload(&batches.message(2)), Some(of(0, 1)));
    }

    #[test]
    fn nothing_is_added_to_a_message_of_another_turn() {
        let (mut batches, mut open) = (Batches::default(), Open::default());
        batches.add(&mut open, &ROUTE, 0, of(0, 10), None, &[]);
        batches.end_turn();
        let other = Route { flow: 2, ..ROUTE };
        let mut open_of_other = Open::default();
        batches.add(&mut open_of_other, &other, 0, of(0, 10), None, &[]);
        batches.add(&mut open, &ROUTE, 0, of(0, 10), None, &[]);
        assert_eq!(messages(&batches), [(1, 10), (1, 10)]);
    }
}
