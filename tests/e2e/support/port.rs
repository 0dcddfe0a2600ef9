//! Free ports, and who listens on them.
//!
//! Ports lie outside of the range that outgoing connections draw from: thousands of client sockets
//! of these tests would otherwise now and then sit on the port that a stopped server wants back.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::sync::{LazyLock, Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

use super::clock::wait_for;
use std::time::Duration;

/// Below are services of the host.
const LOWEST: u16 = 10_240;
/// Ports that are enough for a run of all tests.
const ENOUGH: usize = 2_000;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// The ports that are handed out.
static ALL: LazyLock<Vec<u16>> = LazyLock::new(|| {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    let outgoing = match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) => low..=high,
        _ => panic!("{path}: {text:?}"),
    };
    let outside: Vec<u16> = (LOWEST..=u16::MAX)
        .filter(|port| !outgoing.contains(port))
        .collect();
    if outside.len() >= ENOUGH {
        return outside;
    }
    // Where the range leaves too few, below the services then, or all there are.
    let lower: Vec<u16> = (1_100..=u16::MAX)
        .filter(|port| !outgoing.contains(port))
        .collect();
    if lower.len() >= ENOUGH {
        return lower;
    }
    (LOWEST..=u16::MAX).collect()
});

/// A port that nobody listens on, on any address, that no socket of UDP has, and that no other
/// caller in this process gets.
pub(crate) fn free_port() -> u16 {
    *free_ports(1).start()
}

/// So many of them in a row.
pub(crate) fn free_ports(count: u16) -> RangeInclusive<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let all = &*ALL;
    // Processes that run at the same time start at different places.
    let start = usize::try_from(std::process::id()).expect("a number") * 7_919 + given.len();
    for step in 0..all.len() {
        let first = all[(start + step) % all.len()];
        let Some(last) = first.checked_add(count - 1) else {
            continue;
        };
        let is_free = |port: u16| {
            let unused = all.binary_search(&port).is_ok() && !given.contains(&port);
            // Looked up: a copy of a socket of UDP that a process has which another test is just
            // starting would keep the port, as there is no listening.
            unused && bindable(port) && datagram_sockets_on(port) == 0
        };
        if (first..=last).all(is_free) {
            given.extend(first..=last);
            return first..=last;
        }
    }
    panic!("no {count} free ports among {}", all.len());
}

/// Whether somebody else has the port. The socket that finds out never listens: the copy of it that
/// a process has which another test is just starting would keep the port from being listened on.
fn bindable(port: u16) -> bool {
    let bind = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())
    };
    bind((Ipv4Addr::UNSPECIFIED, port).into()).is_ok()
        && bind((Ipv6Addr::UNSPECIFIED, port).into()).is_ok()
}

/// How many listening sockets of the host have this port.
pub(crate) fn listeners_on(port: u16) -> usize {
    // 0A is TCP_LISTEN.
    sockets_on(["tcp", "tcp6"], port, |state| state == "0A")
}

/// How many sockets of UDP of the host have this port.
pub(crate) fn datagram_sockets_on(port: u16) -> usize {
    sockets_on(["udp", "udp6"], port, |_| true)
}

/// How many sockets in these tables have this port and such a state.
fn sockets_on(tables: [&str; 2], port: u16, wanted: impl Fn(&str) -> bool) -> usize {
    let mut count = 0;
    for table in tables {
        // Of the thread: it may be in a network namespace of its own.
        let Ok(text) = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")) else {
            continue;
        };
        let suffix = format!(":{port:04X}");
        for line in text.lines().skip(1) {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().unwrap_or("");
            let state = words.nth(1).unwrap_or("");
            if wanted(state) && local.ends_with(&suffix) {
                count += 1;
            }
        }
    }
    count
}

/// Waits until somebody has a socket of UDP on the port.
pub(crate) fn wait_datagrams(port: u16, bound: Duration) -> bool {
    wait_for(bound, || (datagram_sockets_on(port) > 0).then_some(())).is_some()
}

/// Waits until somebody listens on the port, without connecting to it: a connection would be
/// counted.
pub(crate) fn wait_listening(port: u16, bound: Duration) -> bool {
    wait_for(bound, || (listeners_on(port) > 0).then_some(())).is_some()
}

/// Bytes of a socket of 127.0.0.1 that its peer's host has not acknowledged (tx_queue).
pub(crate) fn unsent(stream: &TcpStream) -> u64 {
    let port = |address: std::io::Result<SocketAddr>| address.map_or(0, |a| a.port());
    let (local, peer) = (port(stream.local_addr()), port(stream.peer_addr()));
    let (local, peer) = (format!(":{local:04X}"), format!(":{peer:04X}"));
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let line = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.len() > 4 && words[1].ends_with(&local) && words[2].ends_with(&peer));
    let queue = line.and_then(|words| words[4].split(':').next().map(str::to_owned));
    queue
        .and_then(|hex| u64::from_str_radix(&hex, 16).ok())
        .unwrap_or(0)
}

#[test]
fn a_free_port_is_free_while_processes_start() {
    let _turn = super::turn::shared();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let starting = || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let status = std::process::Command::new("true").status();
                assert!(status.expect("run true").success());
            }
        };
        scope.spawn(starting);
        scope.spawn(starting);
        let _stop = super::StopOnDrop(&done);
        let port = free_port();
        let address = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
        for _ in 0..5_000 {
            assert!(bindable(port));
            let socket = super::server::listen(address, 1);
            // At once, whoever has a copy.
            let _ = socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both);
        }
    });
}
