//! Reloads under load, and nobody notices: connections all the time, long streams, flows.
//!
//! The ordinary run is short and looks at what must never happen. The whole storm, with figures,
//! is asked for: `cargo test --release --test e2e reload_storm -- --include-ignored --nocapture`.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::support::balancer::TempDir;
use crate::support::client::{self, local};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_ports;
use crate::support::stream::slice;
use crate::support::{
    Balancer, MockServer, StopOnDrop, Stopwatch, eventually, skip, turn, variant,
};

/// Servers of each kind. The last ones come and go.
const SERVERS: usize = 4;
/// Bytes of an exchange on a long stream, and of a datagram.
const PULSE: u64 = 4 << 10;
const DATAGRAM: usize = 200;
/// Flows that have a datagram on its way at a time: few enough for any socket's buffer.
const TOGETHER: usize = 16;
/// Threads that connect all the time, and threads that keep the streams going.
const CONNECTORS: usize = 2;
const PULSERS: usize = 2;
/// What a file is made wrong with.
const BROKEN: &str = "backend broken\n    balance nonsense\n";

/// How much of everything.
#[derive(Clone, Copy)]
struct Storm {
    streams: usize,
    flows: u32,
    reloads: usize,
    /// Milliseconds after which a new connection counts as failed.
    slow_ms: Option<u64>,
}

/// The servers, and where the balancer listens.
struct Stage {
    tcp: Vec<MockServer>,
    udp: Vec<DatagramServer>,
    /// A listener that stays, one that comes and goes, one for datagrams.
    ports: [u16; 3],
    stats: PathBuf,
}

impl Stage {
    fn new(dir: &Path) -> Stage {
        let mut ports = free_ports(3);
        Stage {
            tcp: (0..SERVERS).map(|_| MockServer::echo()).collect(),
            udp: (0..SERVERS)
                .map(|_| DatagramServer::counting_echo())
                .collect(),
            ports: [(); 3].map(|()| ports.next().expect("three ports")),
            stats: dir.join("stats"),
        }
    }

    /// The configuration after so many reloads: other servers, weights, balancers and listeners
    /// each time; the one after none has all servers and no further listener.
    fn text(&self, number: usize) -> String {
        let [stays, comes, datagrams] = self.ports;
        let mut text = format!(
            "global\n    stats socket {} level admin\n    nbthread 2\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    \
             timeout server 60s\n\
             frontend tcp\n    bind 127.0.0.1:{stays}\n",
            self.stats.display()
        );
        if number % 4 == 1 || number % 4 == 2 {
            let _ = writeln!(text, "    bind 127.0.0.1:{comes}");
        }
        let balance = ["roundrobin", "leastconn", "source", "random"][number / 3 % 4];
        let _ = write!(
            text,
            "    default_backend tcp_servers\nbackend tcp_servers\n    balance {balance}\n"
        );
        let addresses = self.tcp.iter().map(MockServer::address);
        servers(&mut text, number, addresses);
        let _ = write!(
            text,
            "listen udp\n    mode udp\n    bind udp@127.0.0.1:{datagrams}\n    \
             timeout client 5s\n    timeout server 5s\n    balance {balance}\n"
        );
        let addresses = self.udp.iter().map(DatagramServer::address);
        servers(&mut text, number, addresses);
        if number % 10 == 9 {
            text.push_str(BROKEN);
        }
        variant::apply(&text)
    }
}

/// Lines of servers: the first two are always there.
fn servers(
    text: &mut String,
    number: usize,
    addresses: impl Iterator<Item = std::net::SocketAddr>,
) {
    for (index, address) in addresses.enumerate() {
        let comes_and_goes = index >= SERVERS / 2;
        if comes_and_goes && number % 3 == index % 3 && number > 0 {
            continue;
        }
        let weight = 1 + (number + index) % 7;
        let check = if index == 1 { " check inter 200ms" } else { "" };
        let _ = writeln!(text, "    server s{index} {address} weight {weight}{check}");
    }
}

/// A stream that lasts: what is sent comes back, and is compared.
struct Lasting {
    stream: TcpStream,
    seed: u64,
    position: u64,
}

impl Lasting {
    fn pulse(&mut self, buffer: &mut [u8]) {
        let piece = slice(self.seed, self.position, PULSE);
        self.stream.write_all(piece).expect("a stream lasts");
        let received = &mut buffer[..piece.len()];
        self.stream.read_exact(received).expect("a stream lasts");
        assert!(received == piece, "wrong bytes on stream {}", self.seed);
        self.position += piece.len() as u64;
    }
}

/// What the load has seen.
#[derive(Default)]
struct Seen {
    connections: AtomicU64,
    slowest_us: AtomicU64,
    bytes: AtomicU64,
    datagrams: AtomicU64,
}

fn connect_all_the_time(port: u16, seed: u64, storm: Storm, seen: &Seen, done: &AtomicBool) {
    let mut seed = seed << 32;
    while !done.load(Relaxed) {
        seed += 1;
        let begun = Stopwatch::start();
        let stream = client::try_connect(local(port)).expect("a connection");
        client::echo(&stream, slice(seed, 0, 64));
        let took = begun.elapsed();
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        seen.slowest_us.fetch_max(us, Relaxed);
        if let Some(slow_ms) = storm.slow_ms {
            assert!(took < Duration::from_millis(slow_ms), "slow: {took:?}");
        }
        seen.connections.fetch_add(1, Relaxed);
    }
}

fn keep_streams(streams: &mut [Lasting], seen: &Seen, done: &AtomicBool) {
    let mut buffer = vec![0; PULSE as usize];
    while !done.load(Relaxed) {
        for stream in &mut *streams {
            stream.pulse(&mut buffer);
            seen.bytes.fetch_add(PULSE, Relaxed);
        }
    }
}

fn keep_flows(flows: &[DatagramClient], seen: &Seen, done: &AtomicBool) {
    let mut number = 1;
    while !done.load(Relaxed) {
        for some in flows.chunks(TOGETHER) {
            for flow in some {
                flow.send_payload(number, DATAGRAM);
            }
            for flow in some {
                flow.receive_payload(number, DATAGRAM);
            }
            seen.datagrams.fetch_add(some.len() as u64, Relaxed);
        }
        number += 1;
    }
}

/// Memory and descriptors of the balancer.
fn holds(balancer: &Balancer) -> (u64, usize) {
    (balancer.resident_kib(), balancer.descriptors())
}

fn rage(storm: Storm) {
    let _turn = turn::alone();
    if skip("it reloads in place") {
        return;
    }
    let dir = TempDir::new();
    let stage = Stage::new(dir.path());
    let file = dir.path().join("balancer.cfg");
    let balancer = Balancer::start_text(dir, &stage.text(0));
    let [stays, _, datagrams] = stage.ports;
    let mut streams: Vec<Lasting> = (0..storm.streams as u64)
        .map(|seed| Lasting {
            stream: client::connect_port(stays),
            seed,
            position: 0,
        })
        .collect();
    let flows: Vec<DatagramClient> = (0..storm.flows)
        .map(|flow| DatagramClient::new(local(datagrams), flow))
        .collect();
    for flow in &flows {
        flow.exchange(0, DATAGRAM);
    }
    let mut buffer = vec![0; PULSE as usize];
    for stream in &mut streams {
        stream.pulse(&mut buffer);
    }
    let (seen, done) = (Seen::default(), AtomicBool::new(false));
    let mut held = Vec::new();
    let mut slowest_ms = 0;
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        let (seen, done) = (&seen, &done);
        for seed in 0..CONNECTORS as u64 {
            scope.spawn(move || connect_all_the_time(stays, seed, storm, seen, done));
        }
        let each = streams.len().div_ceil(PULSERS).max(1);
        for some in streams.chunks_mut(each) {
            scope.spawn(move || keep_streams(some, seen, done));
        }
        let flows = &flows;
        scope.spawn(move || keep_flows(flows, seen, done));
        for number in 1..=storm.reloads {
            std::fs::write(&file, stage.text(number)).expect("write the configuration");
            let begun = Stopwatch::start();
            let answer = balancer.stats("reload");
            slowest_ms = begun.ms().max(slowest_ms);
            let is_broken = number % 10 == 9;
            assert_eq!(answer.contains("Success=1"), !is_broken, "{answer}");
            assert_eq!(
                answer.contains("balance only supports"),
                is_broken,
                "{answer}"
            );
            // Between two reloads every stream and every flow has its turn, and clients connect.
            let counts = [&seen.connections, &seen.bytes, &seen.datagrams];
            let least = [1, PULSE * storm.streams as u64, u64::from(storm.flows)];
            let before = counts.map(|count| count.load(Relaxed));
            eventually("all kinds of load go on", || {
                let now = counts.map(|count| count.load(Relaxed));
                (0..3).all(|kind| now[kind] >= before[kind] + least[kind])
            });
            if number % 10 == 0 {
                held.push(holds(&balancer));
            }
        }
    });
    std::fs::write(&file, stage.text(0)).expect("write the configuration");
    assert!(balancer.stats("reload").contains("Success=1"));
    let count = |counter: &AtomicU64| counter.load(Relaxed);
    eprintln!(
        "{} reloads ({slowest_ms} ms at most) beside {} streams and {} flows: {} connections, none \
         failed, slowest {} ms; {} MiB and {} datagrams, none wrong, none lost; KiB and \
         descriptors after every tenth: {held:?}",
        storm.reloads,
        storm.streams,
        storm.flows,
        count(&seen.connections),
        count(&seen.slowest_us) / 1_000,
        count(&seen.bytes) >> 20,
        count(&seen.datagrams),
    );
    drop((streams, flows));
    balancer.settle();
}

#[test]
fn nobody_notices_reloads() {
    rage(Storm {
        streams: 50,
        flows: 50,
        reloads: 20,
        slow_ms: None,
    });
}

#[test]
#[ignore = "the figures of the README: a machine to itself, and half a minute"]
fn nobody_notices_a_hundred_reloads() {
    rage(Storm {
        streams: 1_000,
        flows: 1_000,
        reloads: 100,
        slow_ms: Some(900),
    });
}
