//! Datagrams on real sockets of the loopback interface, through a real ring.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::{
    Arrival, Caps, Completion, DatagramKernel, DatagramOptions, Errno, Fd, INBOXES, Inbox, Kernel,
    Op, Outgoing, Token, Uring, Wait, Wanted,
};
use crate::sys::clock;
use crate::sys::datagram::{DatagramListenOptions, listen};

mod sockets;

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
        let mut kernel = Uring::with_entries(caps, 8, 512).unwrap();
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
        let until = clock::now() + PATIENCE;
        let mut arrivals = Vec::new();
        while arrivals.len() < count {
            assert!(clock::now() < until, "{} of {count} came", arrivals.len());
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
        let until = clock::now() + PATIENCE;
        while self.ended.is_empty() {
            assert!(clock::now() < until, "no operation has ended");
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
        rcvbuf: 4 << 20,
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

#[test]
fn a_train_goes_out_in_one_call_and_comes_in_with_one_receive() {
    for ipv6 in [false, true] {
        let address = if ipv6 { "[::1]:0" } else { "127.0.0.1:0" };
        let mut ring = Ring::new();
        let (_socket, fd, at) = listener(address, &options());
        ring.arm(fd, Inbox::Clients);
        let own = ring.kernel.open_datagram_socket(&pool(ipv6)).unwrap();
        // Nine datagrams of 1,200 bytes and a shorter one, in parts of other sizes.
        let train: Vec<u8> = (0..9 * 1_200 + 700)
            .map(|i: u32| i.to_le_bytes()[0] ^ 7)
            .collect();
        let parts: Vec<IoSlice<'_>> = train.chunks(1_000).map(IoSlice::new).collect();
        let outgoing = Outgoing {
            segment: Some(1_200),
            traffic_class: 2,
            ..to(at, &parts)
        };
        ring.send(own, &outgoing).unwrap();
        let (arrival, bytes) = ring.arrival();
        assert_eq!((arrival.segment, arrival.traffic_class), (Some(1_200), 2));
        assert!(bytes == train && !arrival.truncated, "{arrival:?}");

        // Whoever doesn't ask for it joined gets it in pieces.
        let plain = client(address);
        let at = plain.local_addr().unwrap();
        ring.send(
            own,
            &Outgoing {
                to: Some(at),
                ..outgoing
            },
        )
        .unwrap();
        for piece in train.chunks(1_200) {
            assert!(read(&plain).0 == piece);
        }
        ring.kernel.close(own);
    }
}

#[test]
fn without_gso_a_train_is_refused_and_without_gro_it_comes_in_pieces() {
    let mut caps = caps();
    (caps.gso, caps.gro) = (false, false);
    let mut ring = Ring::with(&caps);
    let own = ring.kernel.open_datagram_socket(&pool(false)).unwrap();
    let at = loopback(own);
    let parts = [IoSlice::new(&[1; 300])];
    let train = Outgoing {
        segment: Some(100),
        ..to(at, &parts)
    };
    assert_eq!(ring.send(own, &train), Err(Errno(libc::EINVAL)));
    ring.arm(own, Inbox::Servers);
    let other = Ring::new();
    other.send(own, &train).unwrap();
    for (arrival, bytes) in ring.arrivals(3) {
        assert_eq!((arrival.segment, bytes.len()), (None, 100));
    }
    ring.kernel.close(own);
}

/// Where a socket of the pool can be reached.
fn loopback(fd: Fd) -> SocketAddr {
    let address = crate::sys::stream::local_address(fd.0).unwrap();
    let loopback: IpAddr = match address {
        SocketAddr::V4(_) => [127, 0, 0, 1].into(),
        SocketAddr::V6(_) => "::1".parse().unwrap(),
    };
    SocketAddr::new(loopback, address.port())
}

#[test]
fn an_empty_datagram_comes_and_ends_the_operation() {
    let mut ring = Ring::new();
    let (_socket, fd, at) = listener("127.0.0.1:0", &options());
    let client = client("127.0.0.1:0");
    for _ in 0..3 {
        ring.arm(fd, Inbox::Clients);
        client.send_to(b"", at).unwrap();
        let (arrival, bytes) = ring.arrival();
        assert_eq!(
            (arrival.from, &*bytes),
            (client.local_addr().unwrap(), &b""[..])
        );
        let end = ring.end();
        assert!(end.result >= 0, "{end:?}");
    }
    assert_eq!(ring.kernel.inbox_available(Inbox::Clients), 128);
    ring.send(fd, &to(client.local_addr().unwrap(), &[IoSlice::new(b"")]))
        .unwrap();
    assert_eq!(read(&client), (Vec::new(), at));
}

#[test]
fn the_largest_datagram_is_not_cut() {
    for (address, length) in [("0.0.0.0:0", 65_507), ("[::]:0", 65_527)] {
        let mut ring = Ring::new();
        let (_socket, fd, at) = listener(address, &options());
        ring.arm(fd, Inbox::Clients);
        let client = client(address);
        let bytes: Vec<u8> = (0..length).map(|i: u32| (i % 251) as u8).collect();
        let at = SocketAddr::new(loopback(fd).ip(), at.port());
        client.send_to(&bytes, at).unwrap();
        let (arrival, received) = ring.arrival();
        assert!(received == bytes && !arrival.truncated, "{arrival:?}");
        let parts = [IoSlice::new(&received)];
        let reply = Outgoing {
            from: arrival.to,
            ..to(arrival.from, &parts)
        };
        ring.send(fd, &reply).unwrap();
        assert!(read(&client) == (bytes, at));
    }
}

#[test]
fn ecn_and_dscp_go_both_ways() {
    let cases = [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0"),
        ("[::]:0", "127.0.0.1:0"),
    ];
    for (address, family) in cases {
        let mut ring = Ring::new();
        let dual = DatagramListenOptions {
            v6only: Some(false),
            ..options()
        };
        let (_socket, fd, at) = listener(address, &dual);
        ring.arm(fd, Inbox::Clients);
        // A socket of the pool hears the replies, as it tells their class.
        let own = ring
            .kernel
            .open_datagram_socket(&pool(!family.starts_with('1')))
            .unwrap();
        ring.arm(own, Inbox::Servers);
        let at = SocketAddr::new(loopback(own).ip(), at.port());
        // Expedited forwarding, and each of the four ECN values.
        for class in (0..4).map(|ecn| 0x2e << 2 | ecn).chain(0..4) {
            let parts = [IoSlice::new(b"marked")];
            let outgoing = Outgoing {
                traffic_class: class,
                ..to(at, &parts)
            };
            ring.send(own, &outgoing).unwrap();
            let (arrival, _) = ring.arrival();
            assert_eq!(
                (arrival.payload.inbox, arrival.traffic_class),
                (Inbox::Clients, class)
            );
            let reply = Outgoing {
                to: Some(arrival.from),
                from: arrival.to,
                ..outgoing
            };
            ring.send(fd, &reply).unwrap();
            let (arrival, _) = ring.arrival();
            assert_eq!(
                (arrival.payload.inbox, arrival.traffic_class),
                (Inbox::Servers, class)
            );
        }
        ring.kernel.close(own);
    }
}

#[test]
fn a_dry_inbox_ends_the_operation_and_loses_nothing() {
    let mut ring = Ring::new();
    let (_socket, fd, at) = listener("127.0.0.1:0", &options());
    let client = client("127.0.0.1:0");
    for number in 0..300u32 {
        client.send_to(&number.to_le_bytes(), at).unwrap();
    }
    let token = ring.arm(fd, Inbox::Clients);
    let (mut numbers, mut lent, mut dry) = (Vec::new(), Vec::new(), 0);
    let until = clock::now() + PATIENCE;
    while numbers.len() < 300 {
        assert!(clock::now() < until, "{} came", numbers.len());
        ring.kernel
            .turn(Wait::For(Duration::from_millis(50)))
            .unwrap();
        while let Some(completion) = ring.kernel.next_completion() {
            if let Some(arrival) = ring.kernel.arrival(Inbox::Clients, &completion) {
                let bytes = ring.kernel.payload(arrival.payload);
                numbers.push(u32::from_le_bytes(bytes.try_into().unwrap()));
                lent.push(arrival.payload.buffer);
            }
            if completion.more {
                continue;
            }
            assert_eq!((completion.result, lent.len()), (-libc::ENOBUFS, 128));
            assert_eq!(ring.kernel.inbox_available(Inbox::Clients), 0);
            for buffer in lent.drain(..) {
                ring.kernel.return_buffer(Inbox::Clients, buffer);
            }
            ring.kernel.receive_datagrams(fd, Inbox::Clients, token);
            dry += 1;
        }
    }
    assert_eq!(dry, 2);
    assert!(numbers.into_iter().eq(0..300));
}

#[test]
fn inboxes_are_apart() {
    let mut ring = Ring::new();
    let (_socket, fd, at) = listener("127.0.0.1:0", &options());
    ring.arm(fd, Inbox::Clients);
    let client = client("127.0.0.1:0");
    client.send_to(b"question", at).unwrap();
    let (arrival, _) = ring.arrival();
    assert_eq!(arrival.payload.inbox, Inbox::Clients);
    for inbox in INBOXES {
        assert_eq!(ring.kernel.inbox_available(inbox), 128);
    }
    ring.kernel
        .cancel(Token::plain(Op::DatagramsOfClients, fd.0.unsigned_abs()));
    assert_eq!(ring.end().result, -libc::ECANCELED);
    assert_eq!(ring.kernel.operations(), 0);
}
