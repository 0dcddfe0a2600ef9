//! Which shard serves a connection: kept ones end evenly spread, short ones stay where they are,
//! and nothing is lost or counted twice on the way from one shard to another.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{self, connect_port, local, read_bytes, try_connect, write};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, skip, turn};

const OURS: &str = "shows the sessions of each shard";

/// A listener with parameters before a server.
fn one(bind: &str, server: &MockServer) -> (Setup, u16) {
    let (port, server) = (free_port(), server.address());
    let body = format!("listen l\n    bind 127.0.0.1:{port} {bind}\n    server s {server}\n");
    (Setup::new(body), port)
}

fn sessions(balancer: &Balancer) -> Vec<u64> {
    balancer.activity().of_each_shard("sessions")
}

fn handed_over(balancer: &Balancer) -> u64 {
    balancer.activity().number("handed_over").unwrap_or(0)
}

/// Opens connections one after the other and keeps them open.
fn hold(port: u16, count: usize) -> Vec<TcpStream> {
    let clients: Vec<TcpStream> = (0..count).map(|_| connect_port(port)).collect();
    clients
        .iter()
        .for_each(|client| client::echo(client, b"kept"));
    clients
}

/// Nothing is open any more, so that the next round begins anew.
fn empty(balancer: &Balancer) {
    eventually("all have ended", || {
        balancer.activity().number("load") == Some(0)
    });
}

/// Eight streams on two shards are four on each, on four shards two, whatever the kernel's hash
/// makes of their ports.
#[test]
fn kept_connections_are_spread_evenly() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    for (shards, expected) in [(2, vec![4; 2]), (4, vec![2; 4])] {
        let mut handed = 0;
        for _ in 0..3 {
            let server = MockServer::echo();
            let (setup, port) = one("", &server);
            let balancer = setup.shards(shards).start();
            for _ in 0..8 {
                let clients = hold(port, 8);
                assert_eq!(sessions(&balancer), expected);
                drop(clients);
                empty(&balancer);
            }
            handed += handed_over(&balancer);
            balancer.settle();
        }
        // The kernel's hash seldom has them even: here it had to be done.
        assert!(handed > 0, "{shards} shards");
    }
}

/// However a socket is shared, and only among those that serve it.
#[test]
fn every_kind_of_socket_is_spread_among_those_that_serve_it() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (server, dir) = (MockServer::echo(), TempDir::new());
    for (bind, expected) in [
        ("TCP shards 1", [2, 2, 2, 2]),
        ("TCP shards 2", [2, 2, 2, 2]),
        ("TCP thread 1,3", [4, 0, 4, 0]),
        ("TCP thread 2-4 shards 1 maxconn 100", [0, 3, 3, 2]),
        ("TCP thread 4", [0, 0, 0, 8]),
        ("UNIX", [2, 2, 2, 2]),
        ("UNIX thread 2,4", [0, 4, 0, 4]),
    ] {
        // One of its own: the kernel closes the sockets of a process that was killed a little later
        // than it lets others see its end, while operations on them are under way.
        let port = free_port();
        let path = dir.path().join(port.to_string());
        let bind = bind
            .replace("TCP", &format!("127.0.0.1:{port}"))
            .replace("UNIX", &path.display().to_string());
        let server = server.address();
        let body = format!("listen l\n    bind {bind}\n    server s {server}\n");
        let balancer = Setup::new(body).shards(4).start();
        let (mut tcp, mut local) = (Vec::new(), Vec::new());
        if bind.starts_with('/') {
            for _ in 0..8 {
                let mut client = UnixStream::connect(&path).unwrap();
                client.write_all(b"kept").unwrap();
                client.read_exact(&mut [0; 4]).unwrap();
                local.push(client);
            }
        } else {
            tcp = hold(port, 8);
        }
        let mut each = sessions(&balancer);
        if expected == [0, 3, 3, 2] {
            each[1..].sort_by(|a, b| b.cmp(a));
        }
        assert_eq!(each, expected, "{bind}");
        drop((tcp, local));
        balancer.settle();
    }
}

/// `fair` takes turns, `off` leaves it to the kernel.
#[test]
fn multi_queue_decides() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let server = MockServer::echo();
    let (setup, port) = one("", &server);
    let fair = setup
        .shards(4)
        .global("tune.listener.multi-queue fair")
        .start();
    let clients = hold(port, 40);
    assert_eq!(sessions(&fair), [10; 4]);
    drop(clients);
    fair.settle();
    let (setup, port) = one("", &server);
    let off = setup
        .shards(4)
        .global("tune.listener.multi-queue off")
        .start();
    let clients = hold(port, 64);
    assert_eq!(sessions(&off).iter().sum::<u64>(), 64);
    assert_eq!(handed_over(&off), 0);
    drop(clients);
    off.settle();
}

/// Sessions that are over at once need no spreading: what it costs stays rare.
#[test]
fn short_connections_stay_where_they_are() {
    const CLIENTS: u64 = 8;
    const EACH: u64 = 2_500;
    let _turn = turn::alone();
    if skip(OURS) {
        return;
    }
    let server = MockServer::hold();
    let (setup, port) = one("", &server);
    let balancer = setup.start();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..CLIENTS * EACH).for_each(|_| drop(server.next())));
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    client::read_end(&connect_port(port));
                }
            });
        }
    });
    let (handed, total) = (handed_over(&balancer), CLIENTS * EACH);
    eprintln!("{handed} of {total} handed over");
    // A shard that is held up for a moment is rightly helped.
    assert!(handed < total / 4, "{handed} of {total}");
    balancer.settle();
    assert_eq!(balancer.stat().number("l", "FRONTEND", "stot"), total);
}

/// Who takes connections over also waits for their PROXY headers, and logs the time since the
/// accept.
#[test]
fn headers_are_awaited_where_the_connection_went() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let server = MockServer::echo();
    let (setup, port) = one("accept-proxy", &server);
    let balancer = setup
        .shards(4)
        .global("tune.listener.multi-queue fair")
        .start();
    let clients: Vec<TcpStream> = (0..16).map(|_| connect_port(port)).collect();
    eventually("all are in", || sessions(&balancer) == [4; 4]);
    for client in &clients {
        write(client, b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\nafter");
        assert_eq!(read_bytes(client, 5), b"after");
    }
    // Whose turn it is has nothing to do with who accepts: of 16, some always go elsewhere.
    assert!(handed_over(&balancer) > 0);
    drop(clients);
    balancer.settle();
}

/// What happened to the clients of a stress.
#[derive(Default)]
struct Outcome {
    served: AtomicU64,
    refused: AtomicU64,
}

/// Connects `count` times: some leave or reset at once, some half-way, the others want an echo.
/// A client that waits for an answer without end fails.
fn stress(port: u16, seed: usize, count: usize, outcome: &Outcome) {
    for number in 0..count {
        let Ok(mut client) = try_connect(local(port)) else {
            outcome.refused.fetch_add(1, Relaxed);
            continue;
        };
        match (number * 7 + seed) % 10 {
            0 => client::reset(client),
            1 => drop(client),
            2 => {
                let _ = client.write_all(b"half");
                client::reset(client);
            }
            _ => {
                let mut bytes = [0; 4];
                let sent = client.write_all(b"ping");
                match sent.and_then(|()| client.read_exact(&mut bytes)) {
                    Ok(()) => {
                        assert_eq!(&bytes, b"ping");
                        outcome.served.fetch_add(1, Relaxed);
                    }
                    Err(error) => {
                        let waited = std::io::ErrorKind::WouldBlock;
                        assert_ne!(error.kind(), waited, "nobody answers");
                        outcome.refused.fetch_add(1, Relaxed);
                    }
                }
            }
        }
    }
}

/// Thousands of connections over several shards with limits, many of which leave at once: all
/// others are served, and nothing is left.
#[test]
fn nothing_is_lost_or_left_under_limits_and_aborts() {
    let _turn = turn::alone();
    if skip(OURS) {
        return;
    }
    for (shards, how, global, bind, front) in [
        (2, "on", "", "", ""),
        (4, "fair", "maxconn 9", "", ""),
        (3, "fair", "", "maxconn 5", ""),
        (4, "on", "maxconn 60", "shards 1 maxconn 30", "maxconn 12"),
        (4, "fair", "noreuseport", "", "maxconn 7"),
        (
            2,
            "fair",
            "tune.maxaccept 1",
            "",
            "rate-limit sessions 2000",
        ),
    ] {
        let (server, port) = (MockServer::echo(), free_port());
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port} backlog 4096 {bind}\n    {front}\n    \
             server s {}\n",
            server.address()
        );
        let setup = Setup::new(body).shards(shards).global(global);
        let balancer = setup
            .global(format!("tune.listener.multi-queue {how}"))
            .start();
        let outcome = Outcome::default();
        std::thread::scope(|scope| {
            for seed in 0..16 {
                let outcome = &outcome;
                scope.spawn(move || stress(port, seed, 100, outcome));
            }
        });
        let what = format!("{shards} {how} {global} {bind} {front}");
        assert_eq!(outcome.refused.load(Relaxed), 0, "{what}");
        assert_eq!(outcome.served.load(Relaxed), 16 * 70, "{what}");
        assert!(how == "on" || handed_over(&balancer) > 500, "{what}");
        balancer.settle();
        assert_eq!(
            balancer.stat().number("l", "FRONTEND", "conn_tot"),
            1_600,
            "{what}"
        );
    }
}

/// A drain in the middle of it: whoever is on the way between shards is served by one that has
/// already been told, and the process ends with the last.
#[test]
fn a_drain_loses_nobody_on_the_way() {
    let _turn = turn::alone();
    if skip(OURS) {
        return;
    }
    for round in 0..4 {
        let shards = 2 + round % 3;
        let server = MockServer::echo();
        let (setup, port) = one("backlog 4096", &server);
        let mut balancer = setup
            .shards(shards)
            .global("tune.listener.multi-queue fair")
            .start();
        let kept = hold(port, 8);
        let outcome = Outcome::default();
        let cut_off = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while let Ok(mut client) = try_connect(local(port)) {
                        let mut bytes = [0; 4];
                        let sent = client.write_all(b"ping");
                        match sent.and_then(|()| client.read_exact(&mut bytes)) {
                            Ok(()) => outcome.served.fetch_add(1, Relaxed),
                            Err(error) => {
                                let waited = std::io::ErrorKind::WouldBlock;
                                assert_ne!(error.kind(), waited, "nobody answers");
                                cut_off.fetch_add(1, Relaxed)
                            }
                        };
                    }
                });
            }
            eventually("it is under load", || outcome.served.load(Relaxed) > 500);
            balancer.signal(Signal::SIGUSR1);
        });
        // A connection whose handshake ends while a listener closes is the kernel's to lose: one
        // per shard and client thread at most.
        let cut_off = cut_off.load(Relaxed);
        assert!(cut_off <= 8, "{cut_off} cut off");
        kept.iter()
            .for_each(|client| client::echo(client, b"still here"));
        drop(kept);
        let status = balancer.wait_exit(Duration::from_secs(5));
        assert!(status.success(), "{status}");
    }
}

/// A stop in the middle of it ends everybody and the process.
#[test]
fn a_stop_ends_whoever_is_on_the_way() {
    let _turn = turn::alone();
    if skip(OURS) {
        return;
    }
    let server = MockServer::echo();
    let (setup, port) = one("backlog 4096", &server);
    let mut balancer = setup
        .shards(4)
        .global("tune.listener.multi-queue fair")
        .start();
    let outcome = Outcome::default();
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let outcome = &outcome;
            scope.spawn(move || stress(port, seed, 500, outcome));
        }
        eventually("it is under load", || outcome.served.load(Relaxed) > 500);
        balancer.signal(Signal::SIGTERM);
    });
    let status = balancer.wait_exit(Duration::from_secs(3));
    assert!(status.success(), "{status}");
}
