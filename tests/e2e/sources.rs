//! `source`: connections and checks come from the address, ports and interface it names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::balancer::{is_tidegate, skip};
use crate::support::client::{self, End, connect_port, read_bytes, read_end, write};
use crate::support::port::{free_port, free_ports};
use crate::support::server::listen;
use crate::support::{Balancer, MockServer, Syslog, eventually, turn, wait_for};

/// Addresses of this machine that nothing else uses.
const OURS: [&str; 2] = ["127.0.5.1", "127.0.5.2"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A balancer with one server, whose line ends with `server`; `lines` are the proxy's.
fn start(server: &MockServer, lines: &str, rest: &str) -> (Balancer, u16) {
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    retries 0\n    {lines}\n    \
         server s {} {rest}\n",
        server.address()
    );
    (Balancer::start(body), port)
}

/// Where the server sees the next client's connection come from.
fn seen(server: &MockServer, port: u16) -> SocketAddr {
    let client = connect_port(port);
    write(&client, b"x");
    let stream = server.next();
    read_bytes(&stream, 1);
    stream.peer_addr().unwrap()
}

#[test]
fn connections_come_from_the_backends_source() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, port) = start(&server, &format!("source {}", OURS[0]), "");
    assert_eq!(seen(&server, port).ip(), ip(OURS[0]));
    balancer.settle();
}

#[test]
fn a_servers_source_goes_before_its_backends() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let own = format!("source {}", OURS[1]);
    let (balancer, port) = start(&server, &format!("source {}", OURS[0]), &own);
    assert_eq!(seen(&server, port).ip(), ip(OURS[1]));
    balancer.settle();
}

#[test]
fn a_source_of_no_address_undoes_an_inherited_one() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let lines = format!("source {}", OURS[0]);
    let (balancer, port) = start(&server, &lines, "source 0.0.0.0");
    assert_eq!(seen(&server, port).ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    balancer.settle();
}

#[test]
fn ports_of_a_range_are_taken_in_turn() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (low, high) = free_ports(3).into_inner();
    let range = format!("source 127.0.5.3:{low}-{high}");
    let (balancer, port) = start(&server, "", &range);
    let mut ports: Vec<u16> = (low..high).map(|_| seen(&server, port).port()).collect();
    assert!(ports.iter().all(|port| (low..=high).contains(port)));
    ports.dedup();
    assert_eq!(ports.len(), usize::from(high - low), "{ports:?}");
    balancer.settle();
}

#[test]
fn a_source_whose_ports_are_all_in_use_is_a_failure_with_a_name() {
    if skip("HAProxy connects from another port then") {
        return;
    }
    let _turn = turn::shared();
    let server = MockServer::hold();
    let own = format!("source 127.0.5.4:{}", free_port());
    let syslog = Syslog::start();
    let logs = format!("option tcplog\n    log {} local0", syslog.address());
    let (balancer, port) = start(&server, &logs, &own);
    let first = connect_port(port);
    write(&first, b"x");
    let taken = server.next();
    read_bytes(&taken, 1);
    let second = connect_port(port);
    assert!(read_end(&second).0.is_empty());
    assert_eq!(syslog.take_session().end, "RC");
    let activity = balancer.activity();
    assert_eq!(activity.number("sources_exhausted"), Some(1));
    assert_eq!(balancer.stat().number("l", "s", "econ"), 1);
    // The server closes first, so that the port isn't held in TIME_WAIT here.
    drop(taken);
    assert_eq!(read_end(&first).1, End::Fin);
    drop(first);
    eventually("the port is free again", || {
        let client = connect_port(port);
        write(&client, b"x");
        let moment = Some(Duration::from_millis(20));
        client.set_read_timeout(moment).unwrap();
        let accepted = wait_for(Duration::from_secs(30), || {
            let accepted = server.accepted() > 1;
            (accepted || read_end(&client).1 != End::None).then_some(accepted)
        });
        accepted.expect("accepted or refused")
    });
    drop(server.next());
    balancer.settle();
}

/// Ports of a range come back with their connections, however these end.
#[test]
fn a_range_in_use_is_free_again_when_its_connections_are() {
    if skip("HAProxy connects from another port then") {
        return;
    }
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (low, high) = free_ports(4).into_inner();
    let range = format!("source 127.0.5.7:{low}-{high}");
    let (balancer, port) = start(&server, "", &range);
    for _ in 0..3 {
        let clients: Vec<_> = (0..4).map(|_| connect_port(port)).collect();
        let held: Vec<_> = clients.iter().map(|_| server.next()).collect();
        let mut ports: Vec<u16> = held.iter().map(|s| s.peer_addr().unwrap().port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, (low..=high).collect::<Vec<_>>());
        assert_eq!(balancer.activity().number("sources_held"), Some(4));
        assert!(read_end(&connect_port(port)).0.is_empty());
        // By resets: TIME_WAIT would keep the ports from their next use.
        held.into_iter().for_each(client::reset);
        drop(clients);
        balancer.settle();
    }
    assert_eq!(balancer.activity().number("sources_exhausted"), Some(3));
}

#[test]
fn an_address_that_is_not_ours_is_a_failure() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    // TEST-NET-1, RFC 5737.
    let (balancer, port) = start(&server, "source 192.0.2.1", "");
    assert!(read_end(&connect_port(port)).0.is_empty());
    assert_eq!(server.accepted(), 0);
    if is_tidegate() {
        let activity = balancer.activity();
        assert_eq!(activity.number("sources_exhausted"), Some(1));
    }
    balancer.settle();
}

#[test]
fn connections_leave_by_the_interface() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, port) = start(&server, "source 127.0.5.5 interface lo", "");
    assert_eq!(seen(&server, port).ip(), ip("127.0.5.5"));
    balancer.settle();
}

#[test]
fn no_connection_leaves_by_another_interface_than_the_one_named() {
    if skip("HAProxy connects without the interface") {
        return;
    }
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, port) = start(&server, "source 0.0.0.0 interface nosuch0", "");
    assert!(read_end(&connect_port(port)).0.is_empty());
    assert_eq!(server.accepted(), 0);
    assert_eq!(balancer.stat().number("l", "s", "econ"), 1);
    balancer.settle();
}

#[test]
fn checks_come_from_the_source_too() {
    if skip("HAProxy's checks are reset before the accept") {
        return;
    }
    let _turn = turn::shared();
    let range = format!("source 127.0.5.6:{}-65535", free_port());
    for (lines, own) in [("source 127.0.5.6", ""), ("", range.as_str())] {
        let checked = listen(([127, 0, 0, 1], free_port()).into(), 16);
        let server = checked.local_addr().unwrap();
        let body = format!(
            "backend b\n    {lines}\n    server s {server} check inter 100ms {own}\n\
             listen l\n    bind 127.0.0.1:{}\n    server s {server}\n",
            free_port()
        );
        let balancer = Balancer::start(body);
        // A check's connection is reset at once: only the accept tells where it came from.
        let accepted = wait_for(Duration::from_secs(30), || checked.accept().ok());
        let (_, from) = accepted.expect("a check");
        assert_eq!(from.ip(), ip("127.0.5.6"));
        let passed = || balancer.stat().text("b", "s", "check_status") == "L4OK";
        eventually("checks pass", passed);
        balancer.settle();
    }
}
