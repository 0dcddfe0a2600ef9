//! Before a connection is accepted: the kernel's queue and its drops, and who is deferred.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{self, connect_port, local, read_bytes, write};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Stopwatch, eventually, skip, turn, wait_for};

/// Begins connections whose end nobody waits for.
fn begin(port: u16, count: usize) -> Vec<Socket> {
    let to: SocketAddr = local(port);
    let begin = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&to.into());
        socket
    };
    (0..count).map(begin).collect()
}

/// The lines of `show listeners`, as words.
fn listeners(balancer: &Balancer) -> Vec<Vec<String>> {
    let text = balancer.stats("show listeners");
    let lines = text.lines().filter(|line| !line.is_empty());
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    let mut lines = lines.map(words);
    let header: Vec<String> = lines.next().expect("a header");
    assert_eq!(
        header.join(" "),
        "# proxy id name socket threads queued limit drops address"
    );
    lines.collect()
}

#[test]
fn a_full_queue_and_its_drops_are_shown() {
    let _turn = turn::shared();
    if skip("it has no 'show listeners'") {
        return;
    }
    let (server, port) = (MockServer::hold(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} name web backlog 2 maxconn 1 thread 2\n    \
         server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body).shards(2).start();
    let address = format!("127.0.0.1:{port}");
    let quiet = ["l", "1", "web", "1", "2", "0", "2", "0", &address];
    assert_eq!(listeners(&balancer), [quiet]);
    let first = connect_port(port);
    let held = server.next();
    let waiting = begin(port, 12);
    eventually("the queue is full", || {
        let line = listeners(&balancer).remove(0);
        let number = |at: usize| line[at].parse::<u64>().unwrap();
        // The kernel lets one more wait than it says.
        number(5) == 3 && number(6) == 2 && number(7) > 0
    });
    let activity = balancer.activity();
    assert_eq!(activity.number("accept_queued"), Some(3));
    assert!(activity.number("accept_dropped") > Some(0));
    drop((first, held, waiting, server));
    balancer.settle();
    assert_eq!(balancer.activity().number("accept_queued"), Some(0));
}

#[test]
fn every_socket_has_its_line() {
    let _turn = turn::shared();
    if skip("it has no 'show listeners'") {
        return;
    }
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let path = format!("unix@{}", dir.path().join("listener").display());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} shards 2\n    bind {path} id 7 thread 1,3-4\n    \
         server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body).shards(4).start();
    let address = format!("127.0.0.1:{port}");
    let lines = listeners(&balancer);
    let shown = |line: &[String]| [&line[1], &line[3], &line[4], &line[8]].map(String::clone);
    let expected = [
        ["1", "1", "1,3", &address],
        ["1", "2", "2,4", &address],
        ["7", "1", "1,3-4", &path],
    ];
    let lines: Vec<[String; 4]> = lines.iter().map(|line| shown(line)).collect();
    assert_eq!(lines, expected.map(|line| line.map(str::to_owned)));
    balancer.settle();
}

/// A client that says nothing isn't there for us; it is when it has sent something.
#[test]
fn a_deferred_client_is_accepted_with_its_first_bytes() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} defer-accept\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    let watch = Stopwatch::start();
    let silent = connect_port(port);
    let accepted = || balancer.stat().number("l", "FRONTEND", "stot") > 0;
    let early = wait_for(Duration::from_millis(500), || accepted().then_some(()));
    assert!(early.is_none(), "a silent client is accepted");
    write(&silent, b"now");
    assert_eq!(read_bytes(&silent, 3), b"now");
    assert!(watch.ms() >= 500);
    assert!(accepted());
    for _ in 0..20 {
        client::echo(&connect_port(port), b"at once");
    }
    drop(silent);
    balancer.settle();
}

/// Where servers speak first, a silent client waits for the kernel to give up waiting.
#[test]
fn a_deferred_client_that_waits_for_a_greeting_gets_it_late() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::named("greeting"), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} defer-accept\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    let watch = Stopwatch::start();
    let client = connect_port(port);
    assert_eq!(client::read_name(&client).as_deref(), Ok("greeting"));
    eprintln!("greeted after {} ms", watch.ms());
    watch.assert_within(700, 8_000, "a greeting to a deferred client");
    drop(client);
    balancer.settle();
}
