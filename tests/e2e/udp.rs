//! Datagrams through the balancer: who gets what, from which address, and what happens when a
//! server is not there.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer, LENGTH_MAX, refusing};
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, skip, turn};

/// A proxy on an address with one server; flows end soon, so that a test can wait for it.
fn listen(bind: &str, server: std::net::SocketAddr, more: &str) -> Balancer {
    Balancer::start(format!(
        "listen u\n    mode udp\n    balance roundrobin\n    \
         bind {bind}\n    timeout udp 2s\n{more}    \
         server s {server}\n"
    ))
}

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn an_echo_of_every_kind_of_length_in_both_families() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for address in ["127.0.0.1", "::1"] {
        let ip: std::net::IpAddr = address.parse().unwrap();
        let server = DatagramServer::echo_on(ip);
        let port = free_port();
        let target = std::net::SocketAddr::new(ip, port);
        let balancer = listen(&format!("udp@{target}"), server.address(), "");
        let client = DatagramClient::new(target, 7);
        let lengths = [0, 1, 2, 11, 12, 512, 1_472, 1_473, 9_000, LENGTH_MAX];
        for (number, length) in (0..).zip(lengths) {
            client.exchange(number, length);
        }
        assert_eq!(server.sources().len(), 1, "one flow, one address");
        let all = lengths.len() as u64;
        // Counted in the turn in which they leave, not before.
        for name in ["datagrams_from_clients", "datagrams_to_clients"] {
            eventually(name, || count(&balancer, name) == all);
        }
        assert_eq!(count(&balancer, "datagrams_empty"), 2);
        balancer.settle();
        let stat = balancer.stat();
        let bytes: usize = lengths.iter().sum();
        for (row, column) in [("FRONTEND", "bin"), ("s", "bin"), ("BACKEND", "bout")] {
            assert_eq!(
                stat.number("u", row, column),
                bytes as u64,
                "{row} {column}"
            );
        }
        for row in ["FRONTEND", "s", "BACKEND"] {
            assert_eq!(stat.number("u", row, "stot"), 1, "{row}");
        }
    }
}

#[test]
fn two_clients_are_two_flows() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = listen(&format!("127.0.0.1:{port}"), server.address(), "");
    let target = ([127, 0, 0, 1], port).into();
    let clients: Vec<_> = (0..2).map(|n| DatagramClient::new(target, n)).collect();
    for number in 0..20 {
        for client in &clients {
            client.send_payload(number, 100);
        }
        for client in &clients {
            client.receive_payload(number, 100);
        }
    }
    assert_eq!(server.sources().len(), 2);
    assert_eq!(count(&balancer, "flows"), 2);
    assert_eq!(count(&balancer, "server_active_total"), 2);
    balancer.settle();
    assert_eq!(balancer.stat().number("u", "s", "stot"), 2);
}

#[test]
fn a_train_arrives_whole_and_in_order() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = listen(&format!("127.0.0.1:{port}"), server.address(), "");
    let client = DatagramClient::new(([127, 0, 0, 1], port).into(), 1);
    for round in 0..10 {
        let first = round * 40;
        client.send_train(first, 40, 1_200, 77);
        for number in first..first + 40 {
            client.receive_payload(number, if number == first + 39 { 77 } else { 1_200 });
        }
    }
    let (merged, sends) = (
        count(&balancer, "datagrams_merged"),
        count(&balancer, "datagram_sends"),
    );
    // The way to the server at least; its answers come one by one, and may share a turn.
    assert!(
        merged >= 400 && sends <= 420,
        "{merged} merged, {sends} sends"
    );
    balancer.settle();
}

#[test]
fn a_wildcard_answers_from_where_it_was_asked() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = listen(&format!("udp@*:{port}"), server.address(), "");
    let own = "127.0.0.1:0".parse().unwrap();
    let asked: Vec<_> = (1..4)
        .map(|n| DatagramClient::from(own, ([127, 0, 0, n], port).into(), n.into()))
        .collect();
    for client in &asked {
        client.exchange(1, 64);
        client.exchange(2, 64);
    }
    assert_eq!(count(&balancer, "flows"), 3);
    balancer.settle();
}

#[test]
fn one_client_that_writes_to_two_addresses_has_two_flows() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = listen(&format!("udp@*:{port}"), server.address(), "");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    for last in [2, 3, 2] {
        let to: std::net::SocketAddr = ([127, 0, 0, last], port).into();
        socket.send_to(&[last], to).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (1, to));
        assert_eq!(buffer[0], last);
    }
    assert_eq!(count(&balancer, "flows"), 2);
    balancer.settle();
}

#[test]
fn a_server_that_starts_again_goes_on_with_its_flows() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (mut server, port) = (DatagramServer::echo(), free_port());
    let more = "    timeout udp 4s\n";
    let balancer = listen(&format!("127.0.0.1:{port}"), server.address(), more);
    let client = DatagramClient::new(([127, 0, 0, 1], port).into(), 1);
    client.exchange(1, 64);
    server.stop();
    for number in 2..5 {
        client.send_payload(number, 64);
    }
    eventually("the refusals are seen", || {
        count(&balancer, "datagram_refusals") > 0
    });
    server.restart();
    client.insist(9, 64);
    assert_eq!(server.sources().len(), 1, "the flow has kept its pair");
    assert_eq!(count(&balancer, "flows"), 1);
    balancer.settle();
}

#[test]
fn refusals_cost_other_flows_of_the_socket_nothing() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    // One shard, so that both flows share a socket.
    let balancer = Setup::new(format!(
        "listen u\n    mode udp\n    balance roundrobin\n    \
         bind 127.0.0.1:{port}\n    timeout udp 2s\n    \
         server dead {}\n    server s {}\n",
        refusing(),
        server.address()
    ))
    .shards(1)
    .start();
    let target = ([127, 0, 0, 1], port).into();
    let clients: Vec<_> = (0..2).map(|n| DatagramClient::new(target, n)).collect();
    clients[0].send_payload(0, 64);
    clients[1].exchange(0, 64);
    for number in 1..50 {
        clients[0].send_payload(number, 64);
        clients[1].exchange(number, 64);
    }
    clients[0].expect_silence(Duration::from_millis(1));
    assert_eq!(count(&balancer, "flow_sockets"), 1);
    assert!(count(&balancer, "datagram_refusals") > 0);
    assert_eq!(server.received(), 50);
    balancer.settle();
}

#[test]
fn who_was_not_asked_is_not_heard() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, other, port) = (DatagramServer::echo(), DatagramServer::echo(), free_port());
    let balancer = listen(&format!("127.0.0.1:{port}"), server.address(), "");
    let client = DatagramClient::new(([127, 0, 0, 1], port).into(), 1);
    client.exchange(1, 64);
    let pair = server.source_of(1, 1);
    let pair = std::net::SocketAddr::new([127, 0, 0, 1].into(), pair.port());
    other.speak(pair, b"who is there?");
    eventually("it is counted", || {
        count(&balancer, "datagrams_unknown") == 1
    });
    // The server itself may speak whenever it likes.
    server.speak(pair, b"anything new?");
    assert_eq!(client.receive(), b"anything new?");
    client.expect_silence(Duration::from_millis(20));
    balancer.settle();
    // Its flow has ended.
    server.speak(pair, b"too late");
    eventually("it is counted", || {
        count(&balancer, "datagrams_unknown") == 2
    });
    client.expect_silence(Duration::from_millis(20));
}

#[test]
fn a_flow_leaves_a_server_that_is_down_unless_nobody_is_left() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let names = ["one", "two"];
    let servers = names.map(DatagramServer::named);
    // What their checks connect to.
    let mut checked = names.map(|_| Some(std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    let port = free_port();
    let mut text = format!(
        "listen u\n    mode udp\n    balance roundrobin\n    \
         bind 127.0.0.1:{port}\n    timeout udp 2s\n"
    );
    for ((name, server), check) in names.iter().zip(&servers).zip(&checked) {
        let check = check.as_ref().unwrap().local_addr().unwrap().port();
        text.push_str(&format!(
            "    server {name} {} check port {check} inter 50ms fall 1 rise 1\n",
            server.address()
        ));
    }
    let balancer = Balancer::start(text);
    let client = DatagramClient::new(([127, 0, 0, 1], port).into(), 1);
    let ask = || {
        client.send(b"who?");
        String::from_utf8(client.receive()).unwrap()
    };
    let first = ask();
    let (at, other) = if first == "one" { (0, 1) } else { (1, 0) };
    assert_eq!(ask(), first);
    let is_down = |name: &str| {
        balancer
            .stat()
            .text("u", name, "status")
            .starts_with("DOWN")
    };
    checked[at] = None;
    eventually("it is down", || is_down(names[at]));
    assert_eq!([ask(), ask()], [names[other]; 2]);
    assert_eq!(count(&balancer, "flows_moved"), 1);
    assert_eq!(count(&balancer, "server_active_total"), 1);
    // Nobody is left: it stays where it is.
    checked[other] = None;
    eventually("it is down too", || is_down(names[other]));
    assert_eq!(ask(), names[other]);
    assert_eq!(count(&balancer, "flows_moved"), 1);
    balancer.settle();
    assert_eq!(balancer.stat().number("u", "BACKEND", "wredis"), 1);
}

#[test]
fn a_soft_stop_waits_for_flows_and_a_hard_one_does_not() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for (signal, goes_on) in [(Signal::SIGUSR1, true), (Signal::SIGTERM, false)] {
        let (server, port) = (DatagramServer::echo(), free_port());
        let mut balancer = listen(&format!("127.0.0.1:{port}"), server.address(), "");
        let target = ([127, 0, 0, 1], port).into();
        let (old, new) = (
            DatagramClient::new(target, 1),
            DatagramClient::new(target, 2),
        );
        old.exchange(1, 64);
        balancer.signal(signal);
        if goes_on {
            eventually("it drains", || balancer.stderr().contains("stopped"));
            old.exchange(2, 64);
            new.send_payload(1, 64);
            new.expect_silence(Duration::from_millis(50));
            old.exchange(3, 64);
        }
        let status = balancer.wait_exit(Duration::from_secs(20));
        assert!(status.success(), "{status}");
    }
}
