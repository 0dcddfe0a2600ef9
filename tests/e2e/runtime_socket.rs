//! The runtime socket: framing, levels, and the table of `show stat`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::spread::{count_sequential, named};
use crate::support::client::local;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, balancer::Setup, is_tidegate, skip, turn};

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
    let answer = balancer.stats("show info;show stat ; show info");
    let parts: Vec<&str> = answer.trim_end().split("\n\n").collect();
    assert_eq!(parts.len(), 3, "{answer}");
    assert!(
        parts[0].starts_with("Name: ") && parts[2].starts_with("Name: "),
        "{answer}"
    );
    assert!(parts[1].starts_with("# pxname,svname,"), "{answer}");
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

/// The page has every line of the answer, and no other.
#[test]
fn every_line_of_show_activity_is_documented() {
    let _turn = turn::shared();
    if skip("its lines are its own") {
        return;
    }
    let (balancer, _servers, _port) = three();
    let text = balancer.stats("show activity");
    let shown: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name)
        .collect();
    let page = include_str!("../../docs/activity.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.map(|row| row.split(" |").next().expect("a cell"));
    let documented: BTreeSet<&str> = names
        .flat_map(|cell| cell.split("`, `"))
        .map(|name| name.trim_end_matches('`'))
        .collect();
    assert!(shown.len() > 60, "{text}");
    let differences: Vec<_> = shown.symmetric_difference(&documented).collect();
    assert!(differences.is_empty(), "{differences:?}");
    balancer.settle();
}

#[test]
fn a_command_in_pieces_is_one_command() {
    let _turn = turn::shared();
    if skip("2.6 now and then never answers a command in pieces") {
        return;
    }
    let (balancer, _servers, _port) = three();
    let mut socket = open(&balancer);
    for piece in ["show ", "in", "fo", "\n"] {
        socket.write_all(piece.as_bytes()).unwrap();
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("Name: ") && answer.ends_with("\n\n"),
        "{answer}"
    );
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
    for _ in 0..2 {
        socket.write_all(b"show info\n").unwrap();
        assert!(read_until(&mut socket, "> ").starts_with("Name: "));
    }
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
