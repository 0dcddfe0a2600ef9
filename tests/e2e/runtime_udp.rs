//! Commands of the runtime socket around proxies of datagrams.

use std::collections::BTreeSet;
use std::net::UdpSocket;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, Syslog, eventually, skip, turn};

/// Two servers that echo, a flow that ends by itself in an hour, and a log.
fn start() -> (Balancer, [DatagramServer; 2], Vec<DatagramClient>, Syslog) {
    let (setup, servers, clients, syslog, _) = setup("");
    (setup.start(), servers, clients, syslog)
}

/// The same before it is started, with parameters of its listener.
fn setup(bind: &str) -> (Setup, [DatagramServer; 2], Vec<DatagramClient>, Syslog, u16) {
    let servers = [DatagramServer::echo(), DatagramServer::echo()];
    let (port, syslog) = (free_port(), Syslog::start());
    let text = format!(
        "listen u\n    mode udp\n    balance roundrobin\n    bind 127.0.0.1:{port} {bind}\n    \
         timeout udp 1h\n    timeout udp-unconfirmed 1h\n    log {} local0\n    option udplog\n    \
         server s1 {}\n    server s2 {}\n",
        syslog.address(),
        servers[0].address(),
        servers[1].address()
    );
    let target = ([127, 0, 0, 1], port).into();
    let clients = (0..6).map(|n| DatagramClient::new(target, n)).collect();
    (Setup::new(text), servers, clients, syslog, port)
}

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

fn flows(balancer: &Balancer, server: &str) -> u64 {
    balancer.stat().number("u", server, "scur")
}

#[test]
fn flows_of_a_server_are_ended_and_their_clients_get_another() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (balancer, servers, clients, syslog) = start();
    clients.iter().for_each(|client| client.exchange(1, 64));
    eventually("each has its share", || {
        (flows(&balancer, "s1"), flows(&balancer, "s2")) == (3, 3)
    });
    // No new ones while the old ones end.
    assert_eq!(balancer.stats("set server u/s1 state drain"), "\n");
    assert_eq!(balancer.stats("shutdown sessions server u/s1"), "\n");
    eventually("its flows have ended", || flows(&balancer, "s1") == 0);
    assert_eq!(flows(&balancer, "s2"), 3);
    let ended = || syslog.count(" shutdown");
    eventually("their lines have come", || ended() == 3);
    let lines = syslog.lines();
    let mut lines = lines.iter().filter(|line| line.ends_with(" shutdown"));
    let is_killed = |line: &String| line.contains(" u u/s1 ") && line.contains(" K- ");
    assert!(lines.all(is_killed), "{:#?}", syslog.lines());
    let before = servers[0].received();
    clients.iter().for_each(|client| client.exchange(2, 64));
    assert_eq!((servers[0].received(), flows(&balancer, "s2")), (before, 6));
    let answer = balancer.stats("shutdown sessions server u/s2");
    assert_eq!(answer, "\n");
    balancer.settle();
}

#[test]
fn a_disabled_frontend_opens_no_flow_and_keeps_those_it_has() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (balancer, _servers, clients, syslog) = start();
    let (old, new) = clients.split_at(2);
    old.iter().for_each(|client| client.exchange(1, 64));
    assert_eq!(balancer.stats("disable frontend u"), "\n");
    syslog.wait_line("Paused proxy u.");
    let status = || balancer.stat().text("u", "FRONTEND", "status").to_owned();
    assert_eq!(status(), "PAUSED");
    new.iter().for_each(|client| client.send_payload(1, 64));
    eventually("all were refused", || {
        count(&balancer, "flows_refused_draining") == new.len() as u64
    });
    old.iter().for_each(|client| client.exchange(2, 64));
    assert_eq!(count(&balancer, "flows"), old.len() as u64);
    assert_eq!(balancer.stats("enable frontend u"), "\n");
    assert_eq!(status(), "OPEN");
    clients.iter().for_each(|client| client.exchange(3, 64));
    assert_eq!(count(&balancer, "flows"), clients.len() as u64);
    let open = BTreeSet::from([flows(&balancer, "s1"), flows(&balancer, "s2")]);
    assert_eq!(open, BTreeSet::from([3]));
    balancer.stats("shutdown sessions server u/s1; shutdown sessions server u/s2");
    balancer.settle();
}

/// Who is there stays until its flow ends; then the port is free.
fn shut_down_with_flows(bind: &str) {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (setup, _servers, clients, syslog, port) = setup(bind);
    let balancer = setup.start();
    let (old, new) = clients.split_at(4);
    old.iter().for_each(|client| client.exchange(1, 64));
    assert_eq!(balancer.stats("shutdown frontend u"), "\n");
    syslog.wait_line("Proxy u stopped (cumulated conns: FE: 4, BE: 4).");
    let status = || balancer.stat().text("u", "FRONTEND", "status").to_owned();
    assert_eq!(status(), "STOP");
    let listed = balancer.stats("show listeners");
    assert!(!listed.contains("\nu "), "{listed}");
    new.iter().for_each(|client| client.send_payload(1, 64));
    eventually("all were refused", || {
        count(&balancer, "flows_refused_draining") == new.len() as u64
    });
    for (command, words) in [
        ("shutdown frontend u", "Frontend was already shut down."),
        (
            "enable frontend u",
            "Frontend was previously shut down, cannot enable.",
        ),
        (
            "disable frontend u",
            "Frontend was previously shut down, cannot disable.",
        ),
    ] {
        assert_eq!(balancer.stats(command).trim_end(), words);
    }
    let is_free = || UdpSocket::bind(("127.0.0.1", port)).is_ok();
    // Some of them stay: all sockets of the listener do then.
    balancer.stats("shutdown sessions server u/s1");
    eventually("half of them have ended", || count(&balancer, "flows") == 2);
    let flows = balancer.stats("show flows");
    let is_alive = |client: &&DatagramClient| flows.contains(&format!("src={} ", client.address()));
    let alive: Vec<_> = old.iter().filter(is_alive).collect();
    assert_eq!(alive.len(), 2);
    alive.iter().for_each(|client| client.exchange(2, 64));
    assert!(!is_free());
    // What an operator has shut down stays so.
    assert!(balancer.stats("reload").contains("Success=1"));
    assert_eq!(status(), "STOP");
    alive.iter().for_each(|client| client.exchange(3, 64));
    balancer.stats("shutdown sessions server u/s2");
    eventually("its port is free", is_free);
    assert_eq!(status(), "STOP");
    balancer.settle();
}

#[test]
fn a_frontend_that_is_shut_down_keeps_its_flows() {
    shut_down_with_flows("");
}

/// One of the shards has no socket then.
#[test]
fn a_frontend_with_one_socket_that_is_shut_down_keeps_its_flows() {
    shut_down_with_flows("shards 1");
}

#[test]
fn a_frontend_without_flows_is_gone_when_it_is_shut_down() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (setup, _servers, _clients, _syslog, port) = setup("");
    let balancer = setup.start();
    assert_eq!(balancer.stats("disable frontend u"), "\n");
    assert_eq!(balancer.stats("shutdown frontend u"), "\n");
    eventually("its port is free", || {
        UdpSocket::bind(("127.0.0.1", port)).is_ok()
    });
    balancer.settle();
}
