//! Datagrams on real sockets of the loopback interface, through a real ring.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{
    Arrival, Caps, Completion, DatagramKernel, DatagramOptions, Errno, Fd, INBOXES, Inbox, Kernel,
    Op, Outgoing, Token, UndeliveredReason, Uring, Wait, Wanted,
};
use crate::sys::datagram::{self, DatagramListenOptions, control, listen, steering};

/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(5);

fn caps() -> Caps {
    let wanted = Wanted {
        forced: None,
        without: Vec::new(),
        buffers: 2,
    };
    Caps::probe(&wanted).unwrap()
}

/// A ring with its inboxes, and what a shard would know of them.
struct Ring {
    kernel: Uring,
    ended: Vec<Completion>,
}

impl Ring {
    fn new() -> Ring {
        Ring::with(&caps())
    }

    fn with(caps: &Caps) -> Ring {
        let mut kernel = Uring::with_entries(caps, 8, 64).unwrap();
        kernel.prepare_datagrams().unwrap();
        kernel.turn(Wait::No).unwrap();
        Ring {
            kernel,
            ended: Vec::new(),
        }
    }

    fn arm(&mut self, fd: Fd, inbox: Inbox) -> Token {
        let op = match inbox {
            Inbox::Clients => Op::DatagramsOfClients,
            Inbox::Servers => Op::DatagramsOfServers,
        };
        let token = Token::plain(op, fd.0.unsigned_abs());
        self.kernel.receive_datagrams(fd, inbox, token);
        self.kernel.turn(Wait::No).unwrap();
        token
    }

    /// What a turn brings, with its bytes; the buffers are given back. Ended operations are kept.
    fn turn(&mut self, wait: Wait) -> Vec<(Arrival, Vec<u8>)> {
        self.kernel.turn(wait).unwrap();
        let mut arrivals = Vec::new();
        while let Some(completion) = self.kernel.next_completion() {
            let inbox = match completion.token.op() {
                Some(Op::DatagramsOfClients) => Inbox::Clients,
                _ => Inbox::Servers,
            };
            if let Some(arrival) = self.kernel.arrival(inbox, &completion) {
                let bytes = self.kernel.payload(arrival.payload).to_vec();
                self.kernel.return_buffer(inbox, arrival.payload.buffer);
                arrivals.push((arrival, bytes));
            }
            if !completion.more {
                self.ended.push(completion);
            }
        }
        arrivals
    }

    /// Turns until `count` arrivals are there.
    fn arrivals(&mut self, count: usize) -> Vec<(Arrival, Vec<u8>)> {
        let until = Instant::now() + PATIENCE;
        let mut arrivals = Vec::new();
        while arrivals.len() < count {
            assert!(Instant::now() < until, "{} of {count} came", arrivals.len());
            arrivals.extend(self.turn(Wait::For(Duration::from_millis(50))));
        }
        arrivals
    }

    fn arrival(&mut self) -> (Arrival, Vec<u8>) {
        let mut arrivals = self.arrivals(1);
        assert_eq!(arrivals.len(), 1, "{arrivals:?}");
        arrivals.remove(0)
    }

    /// Turns until an operation has ended.
    fn end(&mut self) -> Completion {
        let until = Instant::now() + PATIENCE;
        while self.ended.is_empty() {
            assert!(Instant::now() < until, "no operation has ended");
            self.turn(Wait::For(Duration::from_millis(50)));
        }
        self.ended.remove(0)
    }

    fn send(&self, fd: Fd, outgoing: &Outgoing<'_>) -> Result<(), Errno> {
        self.kernel.send_datagrams(fd, outgoing)
    }
}

fn options() -> DatagramListenOptions {
    DatagramListenOptions {
        v6only: None,
        interface: None,
        transparent: false,
        fragment: true,
        gro: true,
        steering: true,
        rcvbuf: None,
        sndbuf: None,
    }
}

/// A listener alone.
fn listener(address: &str, options: &DatagramListenOptions) -> (OwnedFd, Fd, SocketAddr) {
    let listening = listen::listen(address.parse().unwrap(), options, 1).unwrap();
    let socket = listening.sockets.into_iter().next().unwrap();
    let address = socket2::SockRef::from(&socket).local_addr().unwrap();
    let fd = Fd(socket.as_raw_fd());
    (socket, fd, address.as_socket().unwrap())
}

fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn read(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, from)
}

fn to<'a>(to: SocketAddr, parts: &'a [IoSlice<'a>]) -> Outgoing<'a> {
    Outgoing {
        to: Some(to),
        from: None,
        segment: None,
        traffic_class: 0,
        parts,
    }
}

fn pool(ipv6: bool) -> DatagramOptions {
    DatagramOptions {
        ipv6,
        source: None,
        connected: None,
        fragment: true,
    }
}

#[test]
fn datagrams_come_and_go_in_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut ring = Ring::new();
        let (_socket, fd, at) = listener(address, &options());
        ring.arm(fd, Inbox::Clients);
        let client = client(address);
        client.send_to(b"question", at).unwrap();
        let (arrival, bytes) = ring.arrival();
        assert_eq!(
            (arrival.from, &*bytes),
            (client.local_addr().unwrap(), &b"question"[..])
        );
        assert_eq!(
            (arrival.to, arrival.segment, arrival.truncated),
            (None, None, false)
        );
        let parts = [IoSlice::new(b"ans"), IoSlice::new(b"wer")];
        ring.send(fd, &to(arrival.from, &parts)).unwrap();
        assert_eq!(read(&client), (b"answer".to_vec(), at));
        assert!(ring.ended.is_empty());
        assert_eq!(ring.kernel.inbox_available(Inbox::Clients), 128);
    }
}

#[test]
fn a_wildcard_listener_replies_from_the_address_it_was_asked_at() {
    for (address, asked, family) in [
        ("0.0.0.0:0", "127.0.0.2", "127.0.0.1:0"),
        ("[::]:0", "127.0.0.2", "127.0.0.1:0"),
        ("[::]:0", "::1", "[::1]:0"),
    ] {
        let mut ring = Ring::new();
        let dual = DatagramListenOptions {
            v6only: Some(false),
            ..options()
        };
        let (_socket, fd, at) = listener(address, &dual);
        ring.arm(fd, Inbox::Clients);
        let client = client(family);
        let asked: IpAddr = asked.parse().unwrap();
        let at = SocketAddr::new(asked, at.port());
        client.send_to(b"question", at).unwrap();
        let (arrival, _) = ring.arrival();
        assert_eq!(
            (arrival.from, arrival.to),
            (client.local_addr().unwrap(), Some(asked))
        );
        for class in [0, 0x2e << 2 | 1] {
            let parts = [IoSlice::new(b"answer")];
            let reply = Outgoing {
                from: arrival.to,
                traffic_class: class,
                ..to(arrival.from, &parts)
            };
            ring.send(fd, &reply).unwrap();
            assert_eq!(read(&client), (b"answer".to_vec(), at));
        }
    }
}
