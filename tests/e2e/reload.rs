//! Reload in place: another configuration in the running process, with sessions open across it.
//!
//! Sessions go on whatever happens to their frontend, their backend or their server; new ones go by
//! the new configuration as soon as the reload has been answered.

use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::support::balancer::Setup;
use crate::support::client::{self, ask_name, connect, connect_port, local, read_bytes};
use crate::support::port::{free_port, listeners_on};
use crate::support::{Balancer, MockServer, eventually, is_tidegate, stream, turn};

/// Writes the file that a balancer was started with anew.
pub(crate) fn rewrite(balancer: &Balancer, setup: &Setup) {
    let dir = balancer.stats_path().parent().expect("a directory");
    std::fs::write(dir.join("balancer.cfg"), setup.text(dir)).expect("write the configuration");
}

/// Has it read its file again; the answer.
pub(crate) fn reload(balancer: &Balancer) -> String {
    balancer.stats("reload")
}

/// Puts another configuration in force.
pub(crate) fn change(balancer: &Balancer, body: &str) -> String {
    change_to(balancer, &Setup::new(body))
}

pub(crate) fn change_to(balancer: &Balancer, setup: &Setup) -> String {
    rewrite(balancer, setup);
    let answer = reload(balancer);
    assert!(answer.starts_with("Success=1\n--\n"), "{answer}");
    answer
}

/// A session with an echo server, whose bytes are checked over its whole life.
pub(crate) struct Long {
    stream: TcpStream,
    seed: u64,
    position: u64,
}

impl Long {
    pub(crate) fn begin(port: u16, seed: u64) -> Long {
        let stream = connect_port(port);
        let mut long = Long {
            stream,
            seed,
            position: 0,
        };
        long.go_on();
        long
    }

    /// Some more bytes there and back.
    pub(crate) fn go_on(&mut self) {
        for _ in 0..4 {
            let piece = stream::slice(self.seed, self.position, 30_000);
            client::write(&self.stream, piece);
            let back = read_bytes(&self.stream, piece.len());
            assert!(back == piece, "wrong bytes at {}", self.position);
            self.position += piece.len() as u64;
        }
    }
}

fn names(port: u16, count: usize) -> Vec<String> {
    let name = |_| ask_name(local(port)).expect("a server's name");
    (0..count).map(name).collect()
}

#[test]
fn servers_come_and_go_under_open_sessions() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (a, b) = (MockServer::echo(), MockServer::echo());
    let port = free_port();
    let front = format!("frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\n");
    let body = |servers: &str| format!("{front}backend b\n{servers}");
    let line =
        |name: &str, server: &MockServer| format!("    server {name} {}\n", server.address());
    let balancer = Balancer::start(body(&line("a", &a)));
    let mut long = Long::begin(port, 1);
    let answer = change(&balancer, &body(&(line("a", &a) + &line("b", &b))));
    assert!(answer.contains("1 object has changed"), "{answer}");
    long.go_on();
    // Round robin over both: the fourth has had its second turn.
    let mut more: Vec<Long> = (2..6).map(|seed| Long::begin(port, seed)).collect();
    assert!(b.accepted() >= 1, "the new server gets nothing");
    let stat = balancer.stat();
    assert_eq!(
        stat.number("b", "a", "stot") + stat.number("b", "b", "stot"),
        5
    );
    // The first one goes: its sessions stay, nothing new comes.
    let before = a.accepted();
    let answer = change(&balancer, &body(&line("b", &b)));
    let accepted = a.accepted();
    assert_eq!(accepted, before);
    assert!(
        balancer.stats("show reload").contains("server b/a removed"),
        "{answer}"
    );
    more.extend((6..10).map(|seed| Long::begin(port, seed)));
    assert_eq!(a.accepted(), accepted);
    long.go_on();
    more.iter_mut().for_each(Long::go_on);
    let stat = balancer.stat();
    assert_eq!(stat.text("b", "a", "status"), "DRAIN (removed)");
    let (open_a, open_b) = (stat.number("b", "a", "scur"), stat.number("b", "b", "scur"));
    assert_eq!((open_a, open_a + open_b), (accepted, 9));
    drop((long, more));
    // Then it is gone.
    eventually("the removed server is gone", || {
        !balancer.stats("show stat").contains("\nb,a,")
    });
    balancer.settle();
}

#[test]
fn what_was_counted_and_set_stays() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (a, b) = (MockServer::named("a"), MockServer::named("b"));
    let port = free_port();
    let body = |weight: u32, more: &str| {
        format!(
            "listen l\n    bind 127.0.0.1:{port}\n{more}    server a {} weight {weight}\n    \
             server b {}\n",
            a.address(),
            b.address()
        )
    };
    let balancer = Balancer::start(body(1, ""));
    assert_eq!(names(port, 4).iter().filter(|name| *name == "a").count(), 2);
    let answer = change(&balancer, &body(3, "    timeout client 7s\n"));
    assert!(answer.contains("2 objects have changed"), "{answer}");
    let text = balancer.stats("show reload");
    assert!(text.contains("server l/a changed: weight 1 -> 3"), "{text}");
    assert!(text.contains("listen l changed: timeout client"), "{text}");
    assert_eq!(names(port, 8).iter().filter(|name| *name == "a").count(), 6);
    balancer.settle();
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "FRONTEND", "stot"), 12);
    assert_eq!(stat.number("l", "BACKEND", "stot"), 12);
    assert_eq!(
        (
            stat.number("l", "a", "stot"),
            stat.number("l", "a", "weight")
        ),
        (8, 3)
    );
    // The same file again changes nothing at all.
    let answer = reload(&balancer);
    assert!(answer.contains("nothing has changed"), "{answer}");
    balancer.settle();
}

#[test]
fn a_broken_file_changes_nothing() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let server = MockServer::echo();
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server a {}\n",
        server.address()
    );
    let balancer = Balancer::start(body.as_str());
    let mut long = Long::begin(port, 1);
    rewrite(
        &balancer,
        &Setup::new(format!("{body}    sevrer b 127.0.0.1:1\n")),
    );
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=0\n--\n"), "{answer}");
    assert!(answer.contains("unknown keyword 'sevrer'"), "{answer}");
    let text = balancer.stats("show reload");
    assert!(text.contains("reload 1 by reload"), "{text}");
    assert!(
        text.contains(": failed, ") && text.contains("'sevrer'"),
        "{text}"
    );
    eventually("the error is on standard error", || {
        balancer.stderr().contains("nothing was changed")
    });
    long.go_on();
    Long::begin(port, 2).go_on();
    assert_eq!(listeners_on(port), 2);
    change(&balancer, &body);
    long.go_on();
    drop(long);
    balancer.settle();
}

#[test]
fn listeners_come_and_go() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let server = MockServer::echo();
    let [one, two, third] = [(); 3].map(|()| free_port());
    let listen = |name: &str, port: u16| {
        let address = server.address();
        format!("listen {name}\n    bind 127.0.0.1:{port}\n    server s {address}\n")
    };
    let balancer = Balancer::start(listen("l", one));
    let mut first = Long::begin(one, 1);
    change(&balancer, &(listen("l", one) + &listen("m", two)));
    let mut second = Long::begin(two, 2);
    let answer = change(&balancer, &(listen("l", one) + &listen("n", third)));
    assert!(answer.contains("objects have changed"), "{answer}");
    assert_eq!(balancer.stat().text("m", "FRONTEND", "status"), "STOP");
    eventually("nobody listens there any more", || listeners_on(two) == 0);
    assert!(client::try_connect(local(two)).is_err());
    let mut last = Long::begin(third, 3);
    for long in [&mut first, &mut second, &mut last] {
        long.go_on();
    }
    let stat = balancer.stat();
    assert_eq!(stat.number("m", "FRONTEND", "scur"), 1);
    assert_eq!(stat.number("m", "s", "scur"), 1);
    drop(second);
    eventually("the removed proxy is gone", || {
        !balancer.stats("show stat").contains("\nm,")
    });
    // The address of one frontend becomes another's, without a client being refused.
    let waiting: Vec<TcpStream> = (0..3).map(|_| connect(local(one))).collect();
    change(&balancer, &listen("o", one));
    Long::begin(one, 4).go_on();
    first.go_on();
    last.go_on();
    assert!(balancer.stat().number("o", "FRONTEND", "stot") >= 1);
    drop((first, last, waiting));
    eventually("the removed proxies are gone", || {
        let text = balancer.stats("show stat");
        !text.contains("\nl,") && !text.contains("\nn,")
    });
    change(&balancer, &listen("l", one));
    Long::begin(one, 5).go_on();
    balancer.settle();
}

#[test]
fn an_address_that_is_taken_changes_nothing() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, other) = (MockServer::echo(), MockServer::silent());
    let [one, two] = [(); 2].map(|()| free_port());
    let listen = |binds: &str| format!("listen l\n{binds}    server s {}\n", server.address());
    let bind = |port: u16| format!("    bind 127.0.0.1:{port}\n");
    let balancer = Balancer::start(listen(&bind(one)));
    let mut long = Long::begin(one, 1);
    let taken = other.address().port();
    rewrite(&balancer, &Setup::new(listen(&(bind(two) + &bind(taken)))));
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=0\n--\n"), "{answer}");
    assert!(
        answer.contains("cannot bind socket (Address already in use)"),
        "{answer}"
    );
    assert_eq!((listeners_on(one), listeners_on(two)), (2, 0));
    long.go_on();
    Long::begin(one, 2).go_on();
    drop(long);
    balancer.settle();
}

#[test]
fn another_balancer_is_for_new_sessions() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let servers = [MockServer::echo(), MockServer::echo()];
    let port = free_port();
    let body = |balance: &str| {
        format!(
            "listen l\n    bind 127.0.0.1:{port}\n    balance {balance}\n    server a {}\n    \
             server b {}\n",
            servers[0].address(),
            servers[1].address()
        )
    };
    let accepted = || [servers[0].accepted(), servers[1].accepted()];
    let balancer = Balancer::start(body("first"));
    let mut longs: Vec<Long> = (0..3).map(|seed| Long::begin(port, seed)).collect();
    assert_eq!(accepted(), [3, 0]);
    for balance in [
        "leastconn",
        "roundrobin",
        "source",
        "hash src\n    hash-type consistent\n    hash-balance-factor 125",
        "peak-ewma",
        "random(2)",
        "first",
    ] {
        change(&balancer, &body(balance));
        longs.extend((0..3).map(|seed| Long::begin(port, seed)));
        longs.iter_mut().for_each(Long::go_on);
        if balance == "leastconn" {
            // What was counted before counts.
            assert_eq!(accepted(), [3, 3]);
        }
        assert_eq!(
            accepted().iter().sum::<u64>(),
            longs.len() as u64,
            "{balance}"
        );
    }
    drop(longs);
    balancer.settle();
}

#[test]
fn signals_reload_and_those_that_wait_become_one() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (a, b) = (MockServer::named("a"), MockServer::named("b"));
    let port = free_port();
    let body = |server: &MockServer| {
        format!(
            "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
            server.address()
        )
    };
    let balancer = Balancer::start(body(&a));
    assert_eq!(names(port, 1), ["a"]);
    rewrite(&balancer, &Setup::new(body(&b)));
    balancer.signal(Signal::SIGHUP);
    balancer.signal(Signal::SIGUSR2);
    balancer.signal(Signal::SIGHUP);
    eventually("the new address is used", || names(port, 1) == ["b"]);
    let text = || balancer.stats("show reload");
    eventually("it is told of", || {
        text().contains("server l/s changed: address")
    });
    // One that drains is as it is. Its client is there, not on its way.
    let held = connect_port(port);
    assert_eq!(read_bytes(&held, 1), *b"b");
    balancer.signal(Signal::SIGUSR1);
    eventually("it drains", || listeners_on(port) == 0);
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=0\n--\n"), "{answer}");
    assert!(answer.contains("draining"), "{answer}");
    drop(held);
}
