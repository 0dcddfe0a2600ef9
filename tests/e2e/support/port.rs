//! Free ports, and who listens on them.
//!
//! Ports lie below the range that outgoing connections draw from: thousands of client sockets of
//! these tests would otherwise now and then sit on the port that a stopped server wants back.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::clock::wait_for;
use std::time::Duration;

/// First port that is handed out, and how many there are: above the well-known services, below
/// 32,768.
const FIRST: u32 = 10_240;
const COUNT: u32 = 22_000;

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port that nobody listens on, on any address, and that no other caller in this process gets.
pub(crate) fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes that run at the same time start at different places.
    let start = std::process::id().wrapping_mul(7_919);
    for step in 0..COUNT {
        let offset = start
            .wrapping_add(u32::try_from(given.len()).unwrap_or(0))
            .wrapping_add(step);
        let port = u16::try_from(FIRST + offset % COUNT).expect("below 65,536");
        if given.contains(&port) || !bindable(port) {
            continue;
        }
        given.insert(port);
        return port;
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

fn bindable(port: u16) -> bool {
    let four = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    if four.is_err() {
        return false;
    }
    drop(four);
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).is_ok()
}

/// How many listening sockets of the host have this port.
pub(crate) fn listeners_on(port: u16) -> usize {
    let mut count = 0;
    // Of the thread: it may be in a network namespace of its own.
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let Ok(text) = std::fs::read_to_string(table) else {
            continue;
        };
        let suffix = format!(":{port:04X}");
        for line in text.lines().skip(1) {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().unwrap_or("");
            let state = words.nth(1).unwrap_or("");
            // 0A is TCP_LISTEN.
            if state == "0A" && local.ends_with(&suffix) {
                count += 1;
            }
        }
    }
    count
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
