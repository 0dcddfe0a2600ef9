//! The runtime socket: framing, commands, levels, and what they do to servers.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::spread::{count_sequential, named, sorted};
use crate::support::client::{self, End, connect_port, local, read_end};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, balancer::Setup, eventually, is_tidegate, skip, turn};

fn three() -> (Balancer, Vec<MockServer>, u16) {
    let (servers, lines) = named(&["", "", ""]);
    let port = free_port();
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}");
    (Balancer::start(body), servers, port)
}

fn open(balancer: &Balancer) -> UnixStream {
    let socket = UnixStream::connect(balancer.stats_path()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

#[test]
fn an_answer_ends_with_an_empty_line_and_the_connection() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let answer = balancer.stats("show info");
    assert!(answer.starts_with("Name: "), "{answer}");
    assert!(
        answer.ends_with("\n\n") && !answer.ends_with("\n\n\n"),
        "{answer:?}"
    );
    assert!(
        answer.contains(&format!("\nPid: {}\n", balancer.pid())),
        "{answer}"
    );
    assert!(answer.contains("\nNbthread: 2\n"), "{answer}");
    balancer.settle();
}

#[test]
fn a_chain_of_commands_gets_an_answer_each() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let answer = balancer.stats("get weight l/s1;get weight l/s2 ; show info");
    let parts: Vec<&str> = answer.trim_end().split("\n\n").collect();
    assert_eq!(parts.len(), 3, "{answer}");
    assert_eq!((parts[0], parts[1]), ("1 (initial 1)", "1 (initial 1)"));
    assert!(parts[2].starts_with("Name: "), "{answer}");
    balancer.settle();
}

#[test]
fn a_client_that_half_closes_gets_its_answer() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let mut socket = open(&balancer);
    socket.write_all(b"show stat\n").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("# pxname,svname,") && answer.ends_with("\n\n"),
        "{answer}"
    );
    balancer.settle();
}

#[test]
fn a_command_in_pieces_is_one_command() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let mut socket = open(&balancer);
    for piece in ["get ", "weight", " l/s1", "\n"] {
        socket.write_all(piece.as_bytes()).unwrap();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "1 (initial 1)\n\n");
    balancer.settle();
}

#[test]
fn an_unknown_command_lists_the_known_ones() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let answer = balancer.stats("frobnicate");
    // HAProxy 2.6 leaves the name out and lists only those that look alike.
    let named = answer.starts_with("Unknown command: 'frobnicate'");
    assert!(
        named || (!is_tidegate() && answer.starts_with("Unknown command")),
        "{answer}"
    );
    assert!(answer.lines().count() > 3, "{answer}");
    assert!(answer.ends_with("\n\n"), "{answer:?}");
    balancer.settle();
}

#[test]
fn the_prompt_keeps_the_connection() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let mut socket = open(&balancer);
    socket.write_all(b"prompt\n").unwrap();
    let mut text = String::new();
    let mut read_until = |socket: &mut UnixStream, end: &str| {
        let mut buffer = [0; 4096];
        while !text.ends_with(end) {
            let count = socket.read(&mut buffer).expect("an answer");
            assert_ne!(count, 0, "closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        std::mem::take(&mut text)
    };
    read_until(&mut socket, "> ");
    socket.write_all(b"get weight l/s1\n").unwrap();
    assert!(read_until(&mut socket, "> ").starts_with("1 (initial 1)"));
    socket.write_all(b"quit\n").unwrap();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).unwrap();
    balancer.settle();
}

#[test]
fn several_clients_are_served_at_once() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let idle: Vec<UnixStream> = (0..5).map(|_| open(&balancer)).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert!(balancer.stats("show info").starts_with("Name: "));
                }
            });
        }
    });
    drop(idle);
    balancer.settle();
}

#[test]
fn a_reader_may_not_change_anything() {
    let _turn = turn::shared();
    let (servers, lines) = named(&["", ""]);
    let port = free_port();
    let dir = crate::support::balancer::TempDir::new();
    let reader = dir.path().join("reader");
    let balancer = Setup::new(format!("listen l\n    bind 127.0.0.1:{port}\n{lines}"))
        .global(format!("stats socket {} level user", reader.display()))
        .start();
    let mut socket = UnixStream::connect(&reader).unwrap();
    socket.write_all(b"disable server l/s1\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("Permission denied") || answer.contains("Unknown command"),
        "{answer}"
    );
    assert_eq!(balancer.stat().text("l", "s1", "status"), "no check");
    drop(servers);
    balancer.settle();
}

#[test]
fn a_server_is_taken_out_and_put_back() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    assert_eq!(balancer.stats("disable server l/s1").trim(), "");
    assert_eq!(balancer.stat().text("l", "s1", "status"), "MAINT");
    let counts = count_sequential(port, 20);
    assert!(!counts.contains_key("s1"), "{counts:?}");
    assert_eq!(sorted(&counts), [10, 10]);
    assert_eq!(balancer.stats("enable server l/s1").trim(), "");
    assert_eq!(sorted(&count_sequential(port, 30)), [10, 10, 10]);
    balancer.settle();
}

#[test]
fn a_drained_server_keeps_its_sessions_and_gets_no_new_ones() {
    let _turn = turn::shared();
    let servers: Vec<MockServer> = (0..2).map(|_| MockServer::echo()).collect();
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {}\n    server s2 {}\n",
        servers[0].address(),
        servers[1].address()
    ));
    let clients = [connect_port(port), connect_port(port)];
    clients
        .iter()
        .for_each(|client| client::echo(client, b"before"));
    balancer.stats("set server l/s1 state drain");
    for _ in 0..10 {
        client::echo(&connect_port(port), b"new");
    }
    assert_eq!((servers[0].accepted(), servers[1].accepted()), (1, 11));
    clients
        .iter()
        .for_each(|client| client::echo(client, b"after"));
    assert!(
        balancer
            .stat()
            .text("l", "s1", "status")
            .starts_with("DRAIN")
    );
    balancer.stats("set server l/s1 state ready");
    drop(clients);
    eventually("s1 is used again", || {
        client::echo(&connect_port(port), b"new");
        servers[0].accepted() > 1
    });
    balancer.settle();
}

#[test]
fn a_weight_can_be_changed() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    balancer.stats("set weight l/s1 2; set weight l/s2 0");
    assert_eq!(balancer.stats("get weight l/s1").trim(), "2 (initial 1)");
    let counts = count_sequential(port, 30);
    assert_eq!(
        (counts["s1"], counts.get("s2"), counts["s3"]),
        (20, None, 10)
    );
    let answer = balancer.stats("set weight l/s1 300");
    assert!(!answer.trim().is_empty(), "a weight above 256 is refused");
    balancer.settle();
}

#[test]
fn maxconn_of_a_server_can_be_raised_for_those_who_wait() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {} maxconn 1\n",
        server.address()
    ));
    let clients: Vec<_> = (0..5).map(|_| connect_port(port)).collect();
    eventually("four wait", || {
        balancer.stat().number("l", "BACKEND", "qcur") == 4
    });
    balancer.stats("set maxconn server l/s 5");
    eventually("nobody waits", || server.accepted() == 5);
    drop((clients, server));
    balancer.settle();
}

#[test]
fn sessions_of_a_server_can_be_ended() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    ));
    let clients: Vec<_> = (0..5).map(|_| connect_port(port)).collect();
    clients
        .iter()
        .for_each(|client| client::echo(client, b"open"));
    balancer.stats("shutdown sessions server l/s");
    for client in &clients {
        assert_ne!(read_end(client).1, End::None);
    }
    drop(clients);
    balancer.settle();
}

#[test]
fn wrong_names_are_refused_in_words() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    for (command, words) in [
        ("disable server l/nobody", "No such server."),
        ("disable server nowhere/s1", "No such backend."),
        ("disable server l", "Require 'backend/server'."),
    ] {
        let answer = balancer.stats(command);
        // HAProxy 2.6 says "No such server." for an unknown backend too, newer ones tell them apart.
        let accepted = answer.contains(words) || (answer.contains("No such ") && skip("its words"));
        assert!(accepted, "{command}: {answer}");
    }
    balancer.settle();
}

/// The table is what tools read: every row has a cell per column of the header.
#[test]
fn show_stat_has_a_cell_per_column() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    count_sequential(port, 3);
    balancer.settle();
    let text = balancer.stats("show stat");
    let mut lines = text.trim_end().lines();
    let columns = lines.next().unwrap().matches(',').count();
    let rows: Vec<&str> = lines.collect();
    assert_eq!(rows.len(), 5, "{text}");
    assert!(
        rows.iter().all(|row| row.matches(',').count() == columns),
        "{text}"
    );
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "FRONTEND", "status"), "OPEN");
    assert_eq!(stat.text("l", "BACKEND", "status"), "UP");
    assert_eq!(
        (
            stat.number("l", "BACKEND", "act"),
            stat.text("l", "BACKEND", "mode")
        ),
        (3, "tcp")
    );
    assert_eq!(stat.number("l", "FRONTEND", "conn_tot"), 3);
    assert_eq!(
        crate::support::client::ask_name(local(port)).unwrap().len(),
        2
    );
}
