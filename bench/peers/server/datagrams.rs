//! The end points of UDP: echo servers, or one that counts what arrives.
//!
//! One thread and event loop for all of them, and a further socket that tells what has arrived.

use std::io::{self, Write};
use std::net::{Ipv4Addr, UdpSocket};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::EVENTS;
use crate::load::one_way::{Arrived, DATAGRAM_BYTES, FLOWS};
use crate::load::{bulk, long_message, message_bytes, message_sequence, stamp};
use crate::sys::{self, Batch};

/// Datagrams of one call.
const BATCH: usize = 64;
/// Room of a datagram of an echo, and of what came in one piece; neither a power of two, so that
/// the slots do not share the sets of a cache.
const SLOT_BYTES: usize = 8_256;
const SLOT_BYTES_JOINED: usize = 65_856;
/// Receive buffer: what a sender at full rate fills while it has the CPU.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Event data of the socket that tells.
const CONTROL: u64 = u64::MAX;

/// What the end points do with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Ends {
    /// Send it back.
    Echo,
    /// Count it.
    Sink,
    /// Count it, and take what came as a train in one piece.
    JoiningSink,
}

/// Prints the ports, that of the telling socket last, and serves.
pub(super) fn serve(ends: Ends, count: usize) -> io::Result<()> {
    let mut sockets = Vec::new();
    let mut ports = Vec::new();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for index in 0..count {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sys::enlarge_receive_buffer(&socket, RECEIVE_BUFFER)?;
        if ends == Ends::JoiningSink {
            sys::join_receives(&socket)?;
        }
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        ports.push(socket.local_addr()?.port().to_string());
        sockets.push(socket);
    }
    let control = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    epoll.add(&control, EpollEvent::new(EpollFlags::EPOLLIN, CONTROL))?;
    ports.push(control.local_addr()?.port().to_string());
    println!("{}", ports.join(" "));
    io::stdout().flush()?;
    let slot_bytes = match ends {
        Ends::Echo | Ends::Sink => SLOT_BYTES,
        Ends::JoiningSink => SLOT_BYTES_JOINED,
    };
    let mut batch = Batch::new(BATCH, slot_bytes);
    let mut counter = Counter::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            outcome => outcome?,
        };
        for event in &events[..ready] {
            if event.data() == CONTROL {
                let (_, from) = control.recv_from(&mut [0])?;
                control.send_to(&counter.arrived.to_bytes(), from)?;
                continue;
            }
            let socket = &sockets[event.data() as usize];
            let received = batch.receive(socket)?;
            if ends == Ends::Echo {
                // The names of what was received are where it goes; what there is no room for is
                // missed by who asked.
                batch.send(socket, received)?;
                continue;
            }
            for slot in 0..received {
                counter.take(batch.bytes(slot));
            }
        }
    }
}

/// Compares and counts what arrives.
struct Counter {
    arrived: Arrived,
    /// What each flow sends, but for the number.
    templates: Vec<Vec<u8>>,
}

impl Counter {
    fn new() -> Counter {
        let pattern = bulk::pattern();
        let template = |flow| long_message(flow, DATAGRAM_BYTES, &pattern);
        Counter {
            arrived: Arrived::default(),
            templates: (0..FLOWS).map(template).collect(),
        }
    }

    /// Takes one datagram, or several that came in one piece.
    fn take(&mut self, bytes: &[u8]) {
        for datagram in bytes.chunks(DATAGRAM_BYTES) {
            if self.is_right(datagram) {
                self.arrived.datagrams += 1;
            } else {
                self.arrived.wrong += 1;
            }
        }
    }

    fn is_right(&mut self, datagram: &[u8]) -> bool {
        let Some(sequence) = message_sequence(datagram) else {
            return false;
        };
        // A datagram does not say by its address whose it is: the balancer's is on it.
        let flow = crate::load::message_connection(datagram);
        let Some(template) = self.templates.get_mut(flow as usize) else {
            return false;
        };
        stamp(template, sequence);
        message_bytes(datagram) == DATAGRAM_BYTES && datagram == template
    }
}
