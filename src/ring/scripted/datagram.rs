//! Datagrams on the scripted ring, written into buffers as the kernel writes them.
//!
//! It panics where a shard breaks the contract: a buffer held over a turn, a completion whose
//! buffer nobody has taken over, a buffer given back twice, an inbox that was not prepared.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use super::receive::Provided;
use super::{Kind, Scripted};
use crate::ring::arrival::{self, CONTROL, NAME};
use crate::ring::buffers::{BufferLayout, Piece};
use crate::ring::datagram::{
    Arrival, DatagramKernel, DatagramOptions, EACH_MAX, INBOXES, Inbox, Outgoing, Payload, Single,
    Undelivered,
};
use crate::ring::scripted::network::Received;
use crate::ring::{Completion, Errno, Fd, Op, Token};
use crate::sys::datagram::control::Control;

/// Bytes of a buffer, as the real ring has them.
const SIZE: u32 = 65_792;

/// Both inboxes and what a shard has of them.
#[derive(Debug)]
pub(super) struct Inboxes {
    rings: [Provided; 2],
    /// Buffers of gathered completions that `arrival` has not seen.
    unseen: usize,
    /// Buffers lent to the shard.
    lent: usize,
}

impl Inboxes {
    pub(super) fn publish(&mut self) {
        for ring in &mut self.rings {
            ring.publish();
        }
    }

    /// A turn begins: nothing is held over it.
    pub(super) fn check_nothing_is_held(&self) {
        assert_eq!(self.lent, 0, "buffers of datagrams held over a turn");
        assert_eq!(self.unseen, 0, "completions whose buffers nobody has");
    }

    fn ring(&mut self, inbox: Inbox) -> &mut Provided {
        match inbox {
            Inbox::Clients => &mut self.rings[0],
            Inbox::Servers => &mut self.rings[1],
        }
    }
}

impl Scripted {
    /// Buffers that `prepare_datagrams` makes for each inbox.
    pub fn limit_inboxes(&mut self, buffers: u16) {
        assert!(self.inboxes.is_none(), "before they are made");
        self.inbox_buffers = buffers;
    }

    /// Lets a receive of datagrams take what is there.
    pub(super) fn receive_datagrams_some(&mut self, index: usize, inbox: Inbox) {
        let fd = self.active[index].fd.0;
        loop {
            // The kernel picks a buffer before it looks for a datagram: a dry ring fails either
            // way.
            let inboxes = self.inboxes.as_mut().expect("inboxes are prepared");
            if inboxes.ring(inbox).is_dry() {
                return self.post(index, -libc::ENOBUFS, false, None);
            }
            if let Kind::Datagrams { issued, .. } = &mut self.active[index].kind {
                *issued = true;
            }
            if !self.network.borrow_mut().has_datagram(fd) {
                return;
            }
            let (received, destination) = {
                let mut network = self.network.borrow_mut();
                let destination = network.tells_destination(fd);
                (network.receive_datagram(fd), destination)
            };
            let received = match received {
                None => return,
                Some(Err(errno)) => return self.post(index, -errno, false, None),
                Some(Ok(received)) => received,
            };
            let bytes = written(&received, destination);
            let inboxes = self.inboxes.as_mut().expect("inboxes are prepared");
            let used = inboxes.ring(inbox).fill(&bytes);
            let length = i32::try_from(bytes.len()).expect("a buffer's worth");
            // An empty datagram looks like an end.
            let more = !received.datagram.bytes.is_empty() && !self.overflow();
            self.post(index, length, more, Some(used));
            if !more || self.chance(|settings| settings.late) {
                return;
            }
        }
    }

    /// A completion is taken from the queue.
    pub(super) fn datagram_is_seen(&mut self, completion: &Completion) {
        let op = completion.token.op();
        let datagrams = matches!(op, Some(Op::DatagramsOfClients | Op::DatagramsOfServers));
        if let (true, Some(_), Some(inboxes)) = (datagrams, completion.buffer, &mut self.inboxes) {
            inboxes.unseen += 1;
        }
    }
}

/// A filled buffer, as the kernel writes it.
fn written(received: &Received, destination: bool) -> Vec<u8> {
    let datagram = &received.datagram;
    let mut control = Control::new();
    if let Some(size) = received.segment {
        let size = i32::from(size).to_ne_bytes();
        control.push(libc::SOL_UDP, libc::UDP_GRO, &size);
    }
    let class = datagram.traffic_class;
    match datagram.to.ip() {
        IpAddr::V4(ip) => {
            control.push(libc::IPPROTO_IP, libc::IP_TOS, &[class]);
            if destination {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
        }
        IpAddr::V6(ip) => {
            let class = i32::from(class).to_ne_bytes();
            control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class);
            if destination {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }
    let name = name_of(datagram.from);
    let flags = match received.truncated {
        true => libc::MSG_TRUNC.unsigned_abs() as usize,
        false => 0,
    };
    let lengths = [
        name.len(),
        control.bytes().len(),
        datagram.bytes.len(),
        flags,
    ];
    let mut bytes: Vec<u8> = lengths
        .iter()
        .flat_map(|length| u32::try_from(*length).expect("short").to_ne_bytes())
        .collect();
    let header = bytes.len();
    bytes.extend(&name);
    bytes.resize(header + NAME, 0);
    bytes.extend(control.bytes());
    bytes.resize(header + NAME + CONTROL, 0);
    bytes.extend(&datagram.bytes);
    bytes
}

/// An address as the kernel writes it.
fn name_of(address: SocketAddr) -> Vec<u8> {
    let family = match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let family = u16::try_from(family).expect("a small number");
    let mut name = family.to_ne_bytes().to_vec();
    name.extend(address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            name.extend(address.ip().octets());
            name.extend([0; 8]);
        }
        SocketAddr::V6(address) => {
            name.extend([0; 4]);
            name.extend(address.ip().octets());
            name.extend(address.scope_id().to_ne_bytes());
        }
    }
    name
}

impl DatagramKernel for Scripted {
    fn prepare_datagrams(&mut self) -> io::Result<()> {
        if self.inboxes.is_none() {
            let ring = |_: Inbox| {
                Provided::new(BufferLayout {
                    count: self.inbox_buffers,
                    size: SIZE,
                    incremental: false,
                })
            };
            self.inboxes = Some(Inboxes {
                rings: INBOXES.map(ring),
                unseen: 0,
                lent: 0,
            });
        }
        Ok(())
    }

    fn receive_datagrams(&mut self, fd: Fd, inbox: Inbox, token: Token) {
        assert!(self.inboxes.is_some(), "inboxes are prepared before");
        self.push(
            token,
            fd,
            Kind::Datagrams {
                inbox,
                issued: false,
            },
        );
    }

    fn arrival(&mut self, inbox: Inbox, completion: &Completion) -> Option<Arrival> {
        completion.buffer?;
        let inboxes = self.inboxes.as_mut()?;
        inboxes.unseen -= 1;
        let arrival = arrival::take(&mut inboxes.ring(inbox).buffers, inbox, completion);
        inboxes.lent += usize::from(arrival.is_some());
        arrival
    }

    fn payload(&self, payload: Payload) -> &[u8] {
        if payload.length == 0 {
            return &[];
        }
        let inboxes = self.inboxes.as_ref().expect("an arrival came from it");
        let place = usize::from(payload.inbox == Inbox::Servers);
        inboxes.rings[place].buffers.bytes(Piece {
            buffer: payload.buffer,
            offset: payload.offset,
            length: payload.length,
        })
    }

    fn return_buffer(&mut self, inbox: Inbox, buffer: u16) {
        let inboxes = self.inboxes.as_mut().expect("an arrival came from it");
        inboxes.ring(inbox).buffers.release_all(buffer);
        inboxes.lent -= 1;
    }

    fn inbox_available(&self, inbox: Inbox) -> usize {
        let place = usize::from(inbox == Inbox::Servers);
        let inboxes = self.inboxes.as_ref();
        inboxes.map_or(0, |inboxes| inboxes.rings[place].buffers.available())
    }

    fn send_datagrams(&self, fd: Fd, outgoing: &Outgoing<'_>) -> Result<(), Errno> {
        let mut network = self.network.borrow_mut();
        let sent = network.send_datagrams(fd.0, outgoing);
        network.note(|| format!("  datagrams by {fd:?} to {:?}: {sent:?}", outgoing.to));
        sent.map_err(Errno)
    }

    fn send_each(&self, fd: Fd, singles: &[Single<'_>]) -> Result<usize, Errno> {
        for (sent, single) in singles.iter().take(EACH_MAX).enumerate() {
            let outgoing = Outgoing {
                to: single.to,
                from: None,
                segment: None,
                traffic_class: 0,
                parts: &[IoSlice::new(single.bytes)],
            };
            match self.send_datagrams(fd, &outgoing) {
                Ok(()) => {}
                Err(errno) if sent == 0 => return Err(errno),
                Err(_) => return Ok(sent),
            }
        }
        Ok(singles.len().min(EACH_MAX))
    }

    fn open_datagram_socket(&self, options: &DatagramOptions) -> Result<Fd, Errno> {
        let opened = self.network.borrow_mut().open_datagrams(options);
        opened.map(Fd).map_err(Errno)
    }

    fn undelivered(&self, fd: Fd) -> Option<Undelivered> {
        self.network.borrow_mut().next_undelivered(fd.0)
    }

    fn datagrams_dropped(&self, fd: Fd) -> u32 {
        self.network.borrow_mut().datagrams_dropped(fd.0)
    }
}
