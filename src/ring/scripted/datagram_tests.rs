//! The scripted datagrams, by the contract that shards are written against.

use std::cell::RefCell;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;

use super::{Datagram, Network, Notice, Scripted, Settings};
use crate::base::receive::ReceiveStep;
use crate::ring::{
    Arrival, Completion, DatagramKernel, DatagramOptions, Errno, Fd, Inbox, Kernel, Op, Outgoing,
    Token, UndeliveredReason, Wait,
};

const SERVER: &str = "192.0.2.1:53";
const CLIENT: &str = "198.51.100.7:4711";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A network on which streams have nothing to fear; what datagrams have, each test says.
fn network(seed: u64) -> Rc<RefCell<Network>> {
    let settings = Settings {
        latency_max_us: 100,
        queue: [4_096, 65_536],
        descriptors_max: 16,
        backlog: 8,
        connect_immediate: 0,
        connect_refused: 0,
        connect_never: 0,
        connect_error: 0,
        port_taken: 0,
        accept_error: 0,
        send_short: 0,
        late: 0,
        overflow: 0,
        spurious: 0,
        cancel_max_us: 0,
        pipe_refused: 0,
        splice_unfit: false,
        load_max: 0,
    };
    let mut network = Network::new(seed, settings);
    network.datagram_peer(address(SERVER), true);
    network.datagram_peer(address(CLIENT), true);
    Rc::new(RefCell::new(network))
}

struct Shard {
    network: Rc<RefCell<Network>>,
    kernel: Scripted,
    ended: Vec<Completion>,
}

impl Shard {
    fn new(network: &Rc<RefCell<Network>>, buffers: u16) -> Shard {
        let step = ReceiveStep::Limit;
        let layouts = Scripted::layouts(step, 2);
        let mut kernel = Scripted::new(Rc::clone(network), step, layouts, 64);
        kernel.limit_inboxes(buffers);
        kernel.prepare_datagrams().unwrap();
        Shard {
            network: Rc::clone(network),
            kernel,
            ended: Vec::new(),
        }
    }

    /// Everything that is on the way arrives.
    fn settle(&self) {
        while self.network.borrow_mut().step() != Notice::Nothing
            || self.network.borrow().next_at().is_some()
        {}
    }

    fn arm(&mut self, fd: i32, inbox: Inbox) -> Token {
        let op = match inbox {
            Inbox::Clients => Op::DatagramsOfClients,
            Inbox::Servers => Op::DatagramsOfServers,
        };
        let token = Token::plain(op, fd.unsigned_abs());
        self.kernel.receive_datagrams(Fd(fd), inbox, token);
        token
    }

    fn turn(&mut self) -> Vec<(Arrival, Vec<u8>)> {
        self.kernel.turn(Wait::No).unwrap();
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

    fn inject(&self, from: &str, to: SocketAddr, bytes: &[u8]) {
        self.network.borrow_mut().send_datagram(Datagram {
            from: address(from),
            to,
            traffic_class: 3,
            bytes: bytes.to_vec(),
        });
    }

    fn pool(&self) -> (Fd, SocketAddr) {
        let options = DatagramOptions {
            ipv6: false,
            source: None,
            connected: None,
            fragment: true,
        };
        let fd = self.kernel.open_datagram_socket(&options).unwrap();
        let port = self.kernel.local_address(fd).unwrap().port();
        (fd, SocketAddr::new([10, 0, 0, 1].into(), port))
    }

    fn send(&self, fd: Fd, to: &str, segment: Option<u16>, bytes: &[u8]) -> Result<(), Errno> {
        let outgoing = Outgoing {
            to: Some(address(to)),
            from: None,
            segment,
            traffic_class: 0,
            parts: &[IoSlice::new(bytes)],
        };
        self.kernel.send_datagrams(fd, &outgoing)
    }
}

#[test]
fn a_client_and_a_server_are_relayed_to_each_other() {
    let network = network(1);
    let mut shard = Shard::new(&network, 4);
    let at = address("0.0.0.0:53");
    let listener = network.borrow_mut().listen_for_datagrams(at);
    shard.arm(listener, Inbox::Clients);
    shard.inject(CLIENT, address("10.0.0.9:53"), b"question");
    shard.settle();
    let arrivals = shard.turn();
    let (arrival, bytes) = &arrivals[0];
    assert_eq!(
        (arrival.from, &**bytes),
        (address(CLIENT), &b"question"[..])
    );
    assert_eq!(arrival.to, Some([10, 0, 0, 9].into()));
    assert_eq!(
        (arrivals.len(), arrival.traffic_class, arrival.truncated),
        (1, 3, false)
    );
    let reply = Outgoing {
        to: Some(arrival.from),
        from: arrival.to,
        segment: Some(3),
        traffic_class: 1,
        parts: &[IoSlice::new(b"ans"), IoSlice::new(b"wer!")],
    };
    shard.kernel.send_datagrams(Fd(listener), &reply).unwrap();
    shard.settle();
    let sent = network.borrow_mut().take_datagrams();
    let texts: Vec<&[u8]> = sent.iter().map(|datagram| &*datagram.bytes).collect();
    assert_eq!(texts, [&b"ans"[..], b"wer", b"!"]);
    let expected = (address("10.0.0.9:53"), address(CLIENT), 1);
    assert!(
        sent.iter()
            .all(|d| (d.from, d.to, d.traffic_class) == expected)
    );

    let (fd, own) = shard.pool();
    shard.arm(fd.0, Inbox::Servers);
    shard.send(fd, SERVER, None, b"question").unwrap();
    shard.settle();
    assert_eq!(network.borrow_mut().take_datagrams()[0].from, own);
    shard.inject(SERVER, own, b"answer");
    shard.settle();
    let (arrival, bytes) = shard.turn().remove(0);
    assert_eq!(
        (arrival.from, arrival.to, &*bytes),
        (address(SERVER), None, &b"answer"[..])
    );
    assert_eq!(network.borrow().datagram_sockets(), [1, 1]);
}

#[test]
fn an_operation_ends_by_an_empty_datagram_a_dry_inbox_and_a_refusal() {
    let network = network(2);
    network.borrow_mut().datagrams().joined = 0;
    let mut shard = Shard::new(&network, 2);
    let (fd, own) = shard.pool();
    let results = |shard: &mut Shard| -> Vec<i32> {
        let ended = std::mem::take(&mut shard.ended);
        ended
            .into_iter()
            .map(|completion| completion.result)
            .collect()
    };
    shard.arm(fd.0, Inbox::Servers);
    shard.inject(SERVER, own, b"");
    shard.settle();
    assert_eq!(shard.turn()[0].1, b"");
    assert_eq!(results(&mut shard).len(), 1);

    shard.arm(fd.0, Inbox::Servers);
    for number in 0..5 {
        shard.inject(SERVER, own, &[number]);
    }
    shard.settle();
    let mut numbers = Vec::new();
    for dry in [true, true, false] {
        numbers.extend(shard.turn().into_iter().map(|(_, bytes)| bytes[0]));
        if dry {
            assert_eq!(results(&mut shard), [-libc::ENOBUFS]);
            shard.arm(fd.0, Inbox::Servers);
        }
    }
    assert_eq!(numbers, [0, 1, 2, 3, 4]);

    network.borrow_mut().datagram_peer(address(SERVER), false);
    shard.send(fd, SERVER, None, b"question").unwrap();
    shard.settle();
    shard.turn();
    assert_eq!(results(&mut shard), [-libc::ECONNREFUSED]);
    let told = shard.kernel.undelivered(fd).unwrap();
    assert_eq!(
        (told.to, told.reason),
        (address(SERVER), UndeliveredReason::Refused)
    );
    // Without a receive the next send is told, and not sent.
    shard.send(fd, SERVER, None, b"question").unwrap();
    shard.settle();
    let told = shard.send(fd, CLIENT, None, b"innocent");
    assert_eq!(told, Err(Errno(libc::ECONNREFUSED)));
    shard.send(fd, CLIENT, None, b"innocent").unwrap();
    shard.settle();
    assert_eq!(network.borrow_mut().take_datagrams().len(), 1);
    shard.kernel.close(fd);
    assert_eq!(network.borrow().datagram_sockets(), [0, 0]);
}

#[test]
fn what_the_network_does_to_datagrams_is_bounded_and_counted() {
    let network = network(3);
    *network.borrow_mut().datagrams() = super::DatagramSettings {
        lost: 200,
        doubled: 200,
        overtaken: 300,
        full: 100,
        segments_refused: 300,
        queue_max: 10,
        ..super::DatagramSettings::default()
    };
    let mut shard = Shard::new(&network, 4);
    let (fd, own) = shard.pool();
    let (mut full, mut uncut, mut sent) = (0, 0, 0);
    for number in 0..1_000u32 {
        let bytes = [number.to_le_bytes(), number.to_le_bytes()].concat();
        let segment = (number % 2 == 0).then_some(4);
        match shard.send(fd, SERVER, segment, &bytes) {
            Ok(()) => sent += 1 + usize::from(segment.is_some()),
            Err(Errno(libc::EAGAIN | libc::ENOBUFS)) => full += 1,
            Err(Errno(libc::EINVAL | libc::EIO | libc::EMSGSIZE)) => uncut += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(
        (50..150).contains(&full) && (70..200).contains(&uncut),
        "{full} {uncut}"
    );
    shard.settle();
    let came = network.borrow_mut().take_datagrams();
    assert!(
        came.len() < sent * 11 / 10 && came.len() > sent * 8 / 10,
        "{} of {sent}",
        came.len()
    );
    let numbers: Vec<_> = came.iter().map(|d| d.bytes[..4].to_vec()).collect();
    let numbers = numbers
        .iter()
        .map(|b| u32::from_le_bytes(b[..4].try_into().unwrap()));
    assert!(!numbers.is_sorted(), "some are overtaken");
    let too_large = shard.send(fd, SERVER, None, &[0; 65_508]);
    assert!([libc::EMSGSIZE, libc::EAGAIN, libc::ENOBUFS].contains(&too_large.unwrap_err().0));

    network.borrow_mut().datagrams().lost = 0;
    network.borrow_mut().datagrams().doubled = 0;
    for number in 0..15 {
        shard.inject(SERVER, own, &[number]);
    }
    shard.settle();
    assert_eq!(shard.kernel.datagrams_dropped(fd), 5);
    shard.arm(fd.0, Inbox::Servers);
    let mut bytes = 0;
    for _ in 0..10 {
        bytes += shard
            .turn()
            .iter()
            .map(|(_, bytes)| bytes.len())
            .sum::<usize>();
        if shard.ended.pop().is_some() {
            shard.arm(fd.0, Inbox::Servers);
        }
    }
    assert_eq!(bytes, 10);
}

#[test]
fn a_client_has_one_socket_of_a_group() {
    let network = network(4);
    let mut shard = Shard::new(&network, 4);
    let at = address("10.0.0.5:53");
    let listeners = [0; 3].map(|_| network.borrow_mut().listen_for_datagrams(at));
    for listener in listeners {
        shard.arm(listener, Inbox::Clients);
    }
    let mut counts = [0; 3];
    for client in 0..30 {
        let from = format!("198.51.100.{client}:4711");
        let mut places = Vec::new();
        for _ in 0..3 {
            shard.inject(&from, at, b"hello");
            shard.settle();
            let before: Vec<_> = shard.kernel.outstanding().collect();
            shard.kernel.turn(Wait::No).unwrap();
            let completion = shard.kernel.next_completion().unwrap();
            let arrival = shard.kernel.arrival(Inbox::Clients, &completion).unwrap();
            shard
                .kernel
                .return_buffer(Inbox::Clients, arrival.payload.buffer);
            assert!(completion.more && before.len() == 3);
            let fd = |fd: &i32| fd.unsigned_abs() == completion.token.index();
            places.push(listeners.iter().position(fd).unwrap());
        }
        assert!(places.iter().all(|place| *place == places[0]));
        counts[places[0]] += 1;
    }
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
}

#[test]
#[should_panic(expected = "held over a turn")]
fn a_buffer_held_over_a_turn_is_a_fault() {
    let network = network(5);
    let mut shard = Shard::new(&network, 4);
    let (fd, own) = shard.pool();
    shard.arm(fd.0, Inbox::Servers);
    shard.inject(SERVER, own, b"held");
    shard.settle();
    shard.kernel.turn(Wait::No).unwrap();
    let completion = shard.kernel.next_completion().unwrap();
    shard.kernel.arrival(Inbox::Servers, &completion).unwrap();
    let _ = shard.kernel.turn(Wait::No);
}

#[test]
#[should_panic(expected = "operations outstanding")]
fn a_socket_closed_under_its_operation_is_a_fault() {
    let network = network(6);
    let mut shard = Shard::new(&network, 4);
    let (fd, _) = shard.pool();
    shard.arm(fd.0, Inbox::Servers);
    shard.kernel.close(fd);
}
