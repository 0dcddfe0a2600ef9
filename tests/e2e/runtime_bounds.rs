//! Bounds, frontends and counters that operators change, with clients that wait for it.

use std::net::TcpStream;

use crate::spread::{count_sequential, named};
use crate::support::balancer::Setup;
use crate::support::client::{self, End, connect_port, local, read_end, try_connect};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Stopwatch, Syslog, eventually, skip, turn};

fn echoing(settings: &str, server_settings: &str) -> (Balancer, MockServer, u16) {
    let (setup, server, port) = setup(settings, server_settings);
    (setup.start(), server, port)
}

fn setup(settings: &str, server_settings: &str) -> (Setup, MockServer, u16) {
    let (server, port) = (MockServer::echo(), free_port());
    let setup = Setup::new(format!(
        "frontend f\n    bind 127.0.0.1:{port}\n{settings}    default_backend b\nbackend b\n    \
         server s {} {server_settings}\n",
        server.address()
    ));
    (setup, server, port)
}

fn open(port: u16, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect_port(port)).collect()
}

fn is_done(balancer: &Balancer, command: &str) {
    assert_eq!(balancer.stats(command), "\n", "{command}");
}

#[test]
fn maxconn_of_a_server_can_be_raised_for_those_who_wait() {
    let _turn = turn::shared();
    let (balancer, server, port) = echoing("", "maxconn 1");
    let clients = open(port, 5);
    let queued = || balancer.stat().number("b", "BACKEND", "qcur");
    eventually("four wait", || queued() == 4);
    is_done(&balancer, "set maxconn server b/s 3");
    eventually("two wait", || queued() == 2 && server.accepted() == 3);
    assert_eq!(balancer.stat().number("b", "s", "slim"), 3);
    is_done(&balancer, "set maxconn server b/s 5");
    clients.iter().for_each(|client| client::echo(client, b"x"));
    assert_eq!(
        (queued(), server.accepted()),
        (0, 5),
        "all have their answers"
    );
    drop(clients);
    balancer.settle();
}

#[test]
fn maxconn_of_a_frontend_lets_in_who_waits_outside() {
    let _turn = turn::shared();
    if skip("2.6 ends at the command while clients wait") {
        return;
    }
    let (setup, server, port) = setup("    maxconn 2\n    backlog 100\n", "");
    // Of one shard alone it is known who is first.
    let balancer = setup.shards(1).start();
    let mut clients = open(port, 5);
    let current = || balancer.stat().number("f", "FRONTEND", "scur");
    eventually("two are in", || current() == 2 && server.accepted() == 2);
    is_done(&balancer, "set maxconn frontend f 4");
    eventually("four are in", || current() == 4 && server.accepted() == 4);
    assert_eq!(balancer.stat().number("f", "FRONTEND", "slim"), 4);
    // Those above a lower bound stay, and leave no room for others.
    is_done(&balancer, "set maxconn frontend f 1");
    for client in &clients[..4] {
        client::echo(client, b"still there");
    }
    clients.drain(..3).for_each(drop);
    eventually("one is left", || current() == 1);
    assert_eq!(server.accepted(), 4);
    is_done(&balancer, "set maxconn frontend f 100");
    client::echo(&clients[1], b"at last");
    drop(clients);
    balancer.settle();
}

#[test]
fn maxconn_of_the_process_is_bounded_by_its_start() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body).global("maxconn 50").start();
    is_done(&balancer, "set maxconn global 2");
    assert_eq!(
        (balancer.info("Maxconn"), balancer.info("Hard_maxconn")),
        (2, 50)
    );
    let clients = open(port, 4);
    let current = || balancer.stat().number("l", "FRONTEND", "scur");
    eventually("two are in", || current() == 2 && server.accepted() == 2);
    assert_eq!(
        balancer.stats("set maxconn global 51").trim(),
        "Value out of range."
    );
    // All that there is room for.
    is_done(&balancer, "set maxconn global 0");
    assert_eq!(balancer.info("Maxconn"), 50);
    clients.iter().for_each(|client| client::echo(client, b"x"));
    drop(clients);
    balancer.settle();
}

#[test]
fn a_rate_of_the_process_can_be_set() {
    let _turn = turn::shared();
    if skip("2.6 doesn't apply the new rate to clients that it has let in already") {
        return;
    }
    let (balancer, _server, port) = echoing("", "");
    // So that accepts of many at once are under way.
    open(port, 3)
        .iter()
        .for_each(|client| client::echo(client, b"x"));
    is_done(&balancer, "set rate-limit connections global 5");
    assert_eq!(balancer.info("ConnRateLimit"), 5);
    let stopwatch = Stopwatch::start();
    for client in open(port, 11) {
        client::echo(&client, b"x");
    }
    // Five in a second, and the second after, and one more: however slow the machine is, it can't
    // be faster.
    assert!(stopwatch.ms() >= 900, "{} ms", stopwatch.ms());
    is_done(&balancer, "set rate-limit sessions global 3");
    is_done(&balancer, "set rate-limit connections global 0");
    assert_eq!(balancer.info("SessRateLimit"), 3);
    is_done(&balancer, "set rate-limit sessions global 0");
    for client in open(port, 100) {
        client::echo(&client, b"x");
    }
    balancer.settle();
}

#[test]
fn clients_of_a_disabled_frontend_wait_outside() {
    let _turn = turn::shared();
    if skip("its sockets are closed to clients") {
        return;
    }
    let syslog = Syslog::start();
    let settings = format!("    log {} local0\n", syslog.address());
    let (balancer, server, port) = echoing(&settings, "");
    let old = connect_port(port);
    client::echo(&old, b"x");
    is_done(&balancer, "disable frontend f");
    let status = || balancer.stat().text("f", "FRONTEND", "status").to_owned();
    assert_eq!(status(), "PAUSED");
    syslog.wait_line("Paused frontend f.");
    let answer = balancer.stats("disable frontend f");
    assert_eq!(answer.trim(), "All sockets are already disabled.");
    // An accept that was under way may still let one in on each shard.
    let queued = || {
        let listeners = balancer.stats("show listeners");
        let rows = listeners.lines().filter(|line| line.starts_with("f "));
        let cells = rows.filter_map(|row| row.split(' ').nth(5)?.parse::<usize>().ok());
        cells.sum::<usize>()
    };
    let mut clients = Vec::new();
    eventually("some wait", || {
        clients.push(connect_port(port));
        queued() >= 4
    });
    let inside = || balancer.stat().number("f", "FRONTEND", "scur") as usize;
    assert_eq!(queued() + inside(), clients.len() + 1);
    client::echo(&old, b"goes on");
    is_done(&balancer, "enable frontend f");
    assert_eq!(status(), "OPEN");
    syslog.wait_line("Resumed frontend f.");
    clients.iter().for_each(|client| client::echo(client, b"x"));
    assert_eq!(server.accepted(), clients.len() as u64 + 1);
    let answer = balancer.stats("enable frontend f");
    assert_eq!(answer.trim(), "All sockets are already enabled.");
    drop((old, clients));
    balancer.settle();
}

#[test]
fn a_frontend_that_is_shut_down_keeps_its_sessions() {
    let _turn = turn::shared();
    let (server, port, other) = (MockServer::echo(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\nfrontend g\n    bind \
         127.0.0.1:{other}\n    default_backend b\nbackend b\n    server s {}\n",
        server.address()
    ));
    let old = connect_port(port);
    client::echo(&old, b"x");
    is_done(&balancer, "shutdown frontend f");
    eventually("its port is free", || try_connect(local(port)).is_err());
    client::echo(&old, b"goes on");
    client::echo(&connect_port(other), b"others too");
    assert_eq!(balancer.stat().text("f", "FRONTEND", "status"), "STOP");
    for (command, words) in [
        ("shutdown frontend f", "Frontend was already shut down."),
        (
            "enable frontend f",
            "Frontend was previously shut down, cannot enable.",
        ),
        (
            "disable frontend f",
            "Frontend was previously shut down, cannot disable.",
        ),
        ("shutdown frontend", "A frontend name is expected."),
        ("shutdown frontend b", "No such frontend."),
        ("enable frontend nobody", "No such frontend."),
        ("disable frontend", "A frontend name is expected."),
    ] {
        assert_eq!(balancer.stats(command).trim_end(), words, "{command}");
    }
    drop(old);
    eventually("all has ended", || {
        balancer.stat().total_sessions_open() == 0 && server.running() == 0
    });
}

#[test]
fn who_waits_outside_is_served_when_a_frontend_is_shut_down() {
    let _turn = turn::shared();
    if skip("its clients don't wait") {
        return;
    }
    let (balancer, _server, port) = echoing("", "");
    is_done(&balancer, "disable frontend f");
    let clients = open(port, 20);
    is_done(&balancer, "shutdown frontend f");
    clients.iter().for_each(|client| client::echo(client, b"x"));
    eventually("its port is free", || try_connect(local(port)).is_err());
    drop(clients);
    eventually("all has ended", || {
        balancer.stat().total_sessions_open() == 0
    });
}

#[test]
fn counters_begin_anew() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", ""]);
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}"
    ));
    count_sequential(port, 10);
    balancer.settle();
    let rows = ["FRONTEND", "s1", "s2", "BACKEND"];
    let cells = |column: &str| rows.map(|row| balancer.stat().number("l", row, column));
    assert_eq!(cells("stot"), [10, 5, 5, 10]);
    // That of a backend is looked at now and then.
    assert!(cells("smax")[..3].iter().all(|most| *most > 0));
    is_done(&balancer, "clear counters");
    assert_eq!((cells("smax"), cells("rate_max")), ([0; 4], [0; 4]));
    assert_eq!(cells("stot"), [10, 5, 5, 10]);
    is_done(&balancer, "clear counters all");
    for column in ["stot", "bin", "bout", "smax", "lbtot", "ttime_max"] {
        assert_eq!(cells(column), [0; 4], "{column}");
    }
    let before = balancer.info("CumConns");
    count_sequential(port, 4);
    balancer.settle();
    assert_eq!(cells("stot"), [4, 2, 2, 4]);
    assert_eq!(cells("bout"), [8, 4, 4, 8], "two letters each");
    assert!(balancer.info("CumConns") >= before + 4);
}

#[test]
fn what_is_open_is_still_counted_after_a_clear() {
    let _turn = turn::shared();
    let (balancer, _server, port) = echoing("", "");
    let clients = open(port, 3);
    clients.iter().for_each(|client| client::echo(client, b"x"));
    is_done(&balancer, "clear counters all");
    let stat = balancer.stat();
    for (proxy, row) in [("f", "FRONTEND"), ("b", "s"), ("b", "BACKEND")] {
        assert_eq!(stat.number(proxy, row, "scur"), 3, "{row}");
    }
    drop(clients);
    balancer.settle();
}

#[test]
fn wrong_bounds_are_answered_as_haproxy_does() {
    let _turn = turn::shared();
    let (balancer, _server, _port) = echoing("", "");
    for (command, words) in [
        ("set maxconn frontend", "A frontend name is expected."),
        ("set maxconn frontend nobody 5", "No such frontend."),
        ("set maxconn frontend f", "Integer value expected."),
        ("set maxconn frontend f -1", "Value out of range."),
        ("set maxconn global", "Expects an integer value."),
        ("set maxconn server", "Require 'backend/server'."),
        ("set maxconn server b/s", "Require <maxconn>."),
        (
            "set maxconn server b/s x",
            "maxconn string empty or preceded by garbage",
        ),
        (
            "set rate-limit connections global",
            "Expects an integer value.",
        ),
        (
            "set rate-limit connections global -1",
            "Value out of range.",
        ),
    ] {
        assert_eq!(balancer.stats(command).trim_end(), words, "{command}");
    }
    let answer = balancer.stats("set rate-limit rain global 1");
    assert!(answer.starts_with("'set rate-limit' only supports :\n   - 'connections global'"));
    balancer.settle();
}

/// A client that is refused knows it at once.
#[test]
fn sessions_ended_by_a_shutdown_of_their_server_are_told() {
    let _turn = turn::shared();
    let (balancer, _server, port) = echoing("", "maxconn 2");
    let clients = open(port, 4);
    let queued = || balancer.stat().number("b", "BACKEND", "qcur");
    eventually("two wait", || queued() == 2);
    is_done(&balancer, "shutdown sessions server b/s");
    // Those who have waited are served in their place.
    eventually("nobody waits", || queued() == 0);
    let ends = clients.iter().filter(|client| {
        client.set_nonblocking(true).expect("a socket");
        read_end(client).1 != End::None
    });
    let mut ended = 0;
    eventually("two have ended", || {
        ended = ends.clone().count();
        ended >= 2
    });
    assert_eq!(ended, 2);
    drop(clients);
    balancer.settle();
}
