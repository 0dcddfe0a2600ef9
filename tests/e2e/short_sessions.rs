//! Many short sessions with every kind of ending, and nothing left of them.
//!
//! `TIDEGATE_SHORT_SESSIONS=1000000` has a million of them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use socket2::SockRef;

use crate::support::balancer::skip;
use crate::support::client::{self, End, read_end, try_connect};
use crate::support::port::{free_port, free_ports};
use crate::support::server::{listen, reset};
use crate::support::{Balancer, Stopwatch, turn};

/// Sessions of an ordinary run.
const SESSIONS: u64 = 50_000;
/// Sessions after which the program has the memory that it needs for these.
const WARM_UP: u64 = 5_000;
/// What it may grow by afterwards, however many sessions there are: the C library's heap gives a
/// page more to one thread and takes it from another.
const GROWTH_MAX_KIB: u64 = 2_048;
/// Clients at a time, and the threads that answer them. More of these: a server may still wait for
/// the end of a session that its client has left.
const CLIENTS: u64 = 12;
const WORKERS: usize = 24;
/// Ports that connections to the last server come from. Every one is used again and again.
const SOURCE_PORTS: u16 = 64;

/// How a session goes; the client's first byte tells the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// The client ends first, then the server.
    ClientFirst,
    /// The server ends first, then the client.
    ServerFirst,
    /// The client resets.
    ClientReset,
    /// The server resets.
    ServerReset,
    /// The client half-closes, and the server answers afterwards.
    ClientHalf,
    /// The server half-closes, and the client goes on.
    ServerHalf,
    /// Not a byte.
    Silent,
    /// No server listens.
    Refused,
    /// The server ends first; its connection comes from a port of a range.
    FromRange,
    /// The server resets such a connection.
    FromRangeReset,
}

const ENDINGS: [Ending; 10] = [
    Ending::ClientFirst,
    Ending::ServerFirst,
    Ending::ClientReset,
    Ending::ServerReset,
    Ending::ClientHalf,
    Ending::ServerHalf,
    Ending::Silent,
    Ending::Refused,
    Ending::FromRange,
    Ending::FromRangeReset,
];

/// The ports of the three listeners.
#[derive(Clone, Copy)]
struct Ports {
    ordinary: u16,
    refused: u16,
    ranged: u16,
}

impl Ports {
    fn of(&self, ending: Ending) -> u16 {
        match ending {
            Ending::Refused => self.refused,
            Ending::FromRange | Ending::FromRangeReset => self.ranged,
            _ => self.ordinary,
        }
    }
}

/// One session of a client.
fn session(ending: Ending, address: SocketAddr) -> Result<(), String> {
    let mut stream = try_connect(address).map_err(|error| format!("connect: {error}"))?;
    let first = [u8::try_from(ending as usize).expect("few endings")];
    if !matches!(ending, Ending::Silent | Ending::Refused) {
        let sent = stream.write_all(&first);
        sent.map_err(|error| format!("first byte: {error}"))?;
    }
    let expect = |bytes: &[u8], end: End| match read_end(&stream) {
        found if found == (bytes.to_vec(), end) => Ok(()),
        found => Err(format!("{found:?}")),
    };
    match ending {
        Ending::ClientFirst | Ending::ClientReset => {
            let mut answer = [0];
            let read = (&stream).read_exact(&mut answer);
            read.map_err(|error| format!("answer: {error}"))?;
            if ending == Ending::ClientReset {
                client::reset(stream);
            }
            Ok(())
        }
        Ending::ServerFirst | Ending::FromRange => expect(&first, End::Fin),
        Ending::ServerReset | Ending::FromRangeReset => expect(b"", End::Reset),
        Ending::ClientHalf => {
            let shut = stream.shutdown(Shutdown::Write);
            shut.map_err(|error| format!("half-close: {error}"))?;
            expect(&first, End::Fin)
        }
        Ending::ServerHalf => {
            expect(&first, End::Fin)?;
            let sent = (&stream).write_all(b"more");
            sent.map_err(|error| format!("after the half-close: {error}"))
        }
        Ending::Silent => Ok(()),
        Ending::Refused => expect(b"", End::Fin),
    }
}

/// The server's side of it.
fn answer(mut stream: TcpStream) {
    let mut first = [0];
    // Nothing, or an end before the first byte, is the silent client's.
    if !matches!(stream.read(&mut first), Ok(1)) {
        return;
    }
    let mut rest = Vec::new();
    match ENDINGS.get(usize::from(first[0])) {
        Some(Ending::ServerReset | Ending::FromRangeReset) => reset(stream),
        Some(Ending::ServerFirst | Ending::FromRange) => drop(stream.write_all(&first)),
        Some(Ending::ClientHalf) => {
            let _ = stream.read_to_end(&mut rest);
            let _ = stream.write_all(&first);
        }
        Some(Ending::ServerHalf) => {
            let _ = stream.write_all(&first);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut rest);
        }
        _ => {
            let _ = stream.write_all(&first);
            let _ = stream.read_to_end(&mut rest);
        }
    }
}

/// Accepts and answers until the socket is shut down.
fn work(listener: &TcpListener, accepted: &AtomicU64) {
    while let Ok((stream, _)) = listener.accept() {
        accepted.fetch_add(1, Relaxed);
        let patience = Some(client::PATIENCE);
        let prepared = stream.set_nodelay(true);
        prepared
            .and_then(|()| stream.set_read_timeout(patience))
            .expect("socket options");
        answer(stream);
    }
}

/// Runs the sessions `from..to`, many at a time.
fn run(ports: Ports, from: u64, to: u64) {
    let next = AtomicU64::new(from);
    let client = |number: u64| {
        // An address each: none runs out of ports that are in TIME_WAIT.
        let last = u8::try_from(number + 1).expect("few clients");
        let ip = Ipv4Addr::new(127, 0, 0, last);
        loop {
            let index = next.fetch_add(1, Relaxed);
            if index >= to {
                return Ok(());
            }
            let ending = kind(index);
            let address = SocketAddr::from((ip, ports.of(ending)));
            session(ending, address).map_err(|text| format!("{index} {ending:?}: {text}"))?;
        }
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        let ends = clients
            .into_iter()
            .map(|thread| thread.join().expect("client"));
        ends.filter_map(Result::err).collect()
    });
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The ending of a session by its number.
fn kind(index: u64) -> Ending {
    let kinds = ENDINGS.len() as u64;
    ENDINGS[usize::try_from(index % kinds).expect("small")]
}

/// How many of the sessions `0..sessions` are of these kinds.
fn count(sessions: u64, kinds: &[Ending]) -> u64 {
    let each = ENDINGS.len() as u64;
    let rest = (0..sessions % each).filter(|index| kinds.contains(&kind(*index)));
    sessions / each * kinds.len() as u64 + rest.count() as u64
}

/// A number that is the same whenever nothing is open.
fn at_rest(balancer: &Balancer, name: &str) -> u64 {
    balancer.activity().number(name).expect("a number")
}

#[test]
fn many_short_sessions_leave_nothing() {
    let _turn = turn::alone();
    if skip("what is counted is Tidegate's") {
        return;
    }
    let sessions = std::env::var("TIDEGATE_SHORT_SESSIONS").map_or(SESSIONS, |text| {
        text.parse().expect("TIDEGATE_SHORT_SESSIONS is a number")
    });
    let warm_up = WARM_UP.min(sessions / 2);
    let service = free_port();
    let listener = listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, service)), 4_096);
    listener.set_nonblocking(false).expect("blocking");
    let ports = Ports {
        ordinary: free_port(),
        refused: free_port(),
        ranged: free_port(),
    };
    let sources = free_ports(SOURCE_PORTS);
    let mut body = format!("listen l\n    bind 0.0.0.0:{}\n", ports.ordinary);
    // An address each, so that no pair of addresses runs out of ports.
    for number in 1..=8 {
        body += &format!("    server s{number} 127.0.6.{number}:{service}\n");
    }
    body += &format!(
        "listen refused\n    bind 0.0.0.0:{}\n    retries 0\n    server s 127.0.0.1:{}\n",
        ports.refused,
        free_port()
    );
    body += &format!(
        "listen ranged\n    bind 0.0.0.0:{}\n    \
         server s 127.0.6.10:{service} source 127.0.6.9:{}-{}\n",
        ports.ranged,
        sources.start(),
        sources.end()
    );
    let balancer = Balancer::start(body);
    let operations = at_rest(&balancer, "operations");
    let accepted = AtomicU64::new(0);
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        let end = ShutOnDrop(&listener);
        for _ in 0..WORKERS {
            scope.spawn(|| work(&listener, &accepted));
        }
        run(ports, 0, warm_up);
        balancer.settle();
        let (resident, descriptors) = (balancer.resident_kib(), balancer.descriptors());
        run(ports, warm_up, sessions);
        balancer.settle();
        let (resident_after, descriptors_after) = (balancer.resident_kib(), balancer.descriptors());
        eprintln!(
            "{sessions} sessions in {} ms: resident {resident} KiB after {warm_up}, \
             {resident_after} KiB at the end; descriptors {descriptors}, {descriptors_after}; \
             operations {operations}, {}",
            watch.ms(),
            at_rest(&balancer, "operations"),
        );
        assert!(
            resident_after <= resident + GROWTH_MAX_KIB,
            "grew from {resident} KiB to {resident_after} KiB"
        );
        drop(end);
    });
    // Every session is accounted for once, and every connection to a server.
    let stat = balancer.stat();
    let of = |proxy: &str, row: &str, column: &str| stat.number(proxy, row, column);
    let refused = count(sessions, &[Ending::Refused]);
    let ranged = count(sessions, &[Ending::FromRange, Ending::FromRangeReset]);
    let silent = count(sessions, &[Ending::Silent]);
    let ordinary = sessions - refused - ranged;
    assert_eq!(of("l", "FRONTEND", "stot"), ordinary);
    assert_eq!(of("refused", "FRONTEND", "stot"), refused);
    assert_eq!(of("refused", "s", "econ"), refused);
    assert_eq!(of("ranged", "FRONTEND", "stot"), ranged);
    assert_eq!(of("ranged", "s", "econ"), 0);
    let econ: u64 = (1..=8)
        .map(|number| of("l", &format!("s{number}"), "econ"))
        .sum();
    assert_eq!(econ, 0);
    let accepted = accepted.load(Relaxed);
    let served = ordinary + ranged;
    assert!(
        (served - silent..=served).contains(&accepted),
        "{accepted} of {served}"
    );
    assert_eq!(at_rest(&balancer, "sources_exhausted"), 0);
    assert_eq!(at_rest(&balancer, "operations"), operations);
    balancer.settle();
}

/// Ends the threads that accept from a socket, also after a failed assertion.
struct ShutOnDrop<'a>(&'a TcpListener);

impl Drop for ShutOnDrop<'_> {
    fn drop(&mut self) {
        let _ = SockRef::from(self.0).shutdown(Shutdown::Both);
    }
}
