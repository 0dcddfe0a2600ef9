//! Limits of flows: each refuses by its own name, and nothing is lost uncounted.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::balancer::Setup;
use crate::support::crowd::Crowd;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, skip, turn};

/// Why flows are refused.
const REFUSALS: [&str; 6] = [
    "flows_refused_limit",
    "flows_refused_source",
    "flows_refused_rate",
    "flows_refused_server",
    "flows_refused_socket",
    "flows_refused_draining",
];

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

/// Sends a datagram from each of `clients` new addresses; gives how many got an answer. All the
/// others are counted by this name, and by no other.
fn served(balancer: &Balancer, target: SocketAddr, clients: u32, refusal: &str) -> u64 {
    let before = count(balancer, refusal);
    let clients: Vec<_> = (0..clients)
        .map(|number| DatagramClient::new(target, number))
        .collect();
    clients.iter().for_each(|client| client.send_payload(1, 64));
    let mut served = 0;
    eventually("each is served or refused", || {
        for client in &clients {
            served += u64::from(client.try_receive(Duration::ZERO).is_some());
        }
        served + count(balancer, refusal) - before == clients.len() as u64
    });
    for other in REFUSALS.iter().filter(|name| **name != refusal) {
        assert_eq!(count(balancer, other), 0, "{other}");
    }
    served
}

fn listen(port: u16, bind: &str, line: &str, server: &DatagramServer) -> Setup {
    Setup::new(format!(
        "listen u\n    mode udp\n    bind 127.0.0.1:{port} {bind}\n    timeout udp 4s\n    {line}\n    \
         server s {}\n",
        server.address()
    ))
    .shards(1)
}

#[test]
fn each_limit_refuses_by_its_name_and_gives_its_room_back() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (limit, source, server) = (REFUSALS[0], REFUSALS[1], REFUSALS[3]);
    for (bind, line, global, refusal) in [
        ("maxconn 3", "", "", limit),
        ("", "maxconn 3", "", limit),
        ("", "", "tune.udp.maxflows 3", limit),
        ("", "udp-source-flows 3", "", source),
        ("", "default-server maxconn 3", "", server),
        ("", "", "tune.udp.sockets 3", "flows_refused_socket"),
    ] {
        let (echo, port) = (DatagramServer::counting_echo(), free_port());
        let mut setup = listen(port, bind, line, &echo);
        if !global.is_empty() {
            setup = setup.global(global);
        }
        let balancer = setup.start();
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let told = format!("{bind}{line}{global}");
        for _ in 0..2 {
            // Confirmed one after the other: who has no answer yet would make room.
            for number in 0..3 {
                DatagramClient::new(target, number).exchange(1, 64);
            }
            assert_eq!(served(&balancer, target, 4, refusal), 0, "{told}");
            assert_eq!(count(&balancer, "flows"), 3, "{told}");
            balancer.settle();
        }
        assert_eq!(count(&balancer, refusal), 8, "{told}");
        assert_eq!(count(&balancer, "flows_evicted"), 0, "{told}");
        assert_eq!(echo.received(), 6, "{told}");
    }
}

#[test]
fn new_flows_come_at_their_rate() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for (line, global) in [("rate-limit sessions 10", ""), ("", "maxsessrate 10")] {
        let (echo, port) = (DatagramServer::counting_echo(), free_port());
        let mut setup = listen(port, "", line, &echo);
        if !global.is_empty() {
            setup = setup.global(global);
        }
        let balancer = setup.start();
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let old = DatagramClient::new(target, 1_000);
        old.exchange(1, 64);
        let served = served(&balancer, target, 60, "flows_refused_rate");
        // What comes in the time of the test itself is part of it.
        assert!((5..=30).contains(&served), "{line}{global}: {served} of 60");
        // Flows that are there are not new.
        (2..30).for_each(|number| old.exchange(number, 64));
        let late = DatagramClient::new(target, 1_001);
        late.insist(1, 64);
        balancer.settle();
    }
}

/// A limit of the process is everybody's: a flow without an answer makes room at another listener.
#[test]
fn the_limit_of_the_process_spans_its_frontends() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (silent, echo) = (DatagramServer::silent(), DatagramServer::counting_echo());
    let (one, two) = (free_port(), free_port());
    let listen = |name: &str, port: u16, server: &DatagramServer| {
        format!(
            "listen {name}\n    mode udp\n    bind 127.0.0.1:{port}\n    timeout udp 10m\n    \
             timeout udp-unconfirmed 10m\n    server s {}\n",
            server.address()
        )
    };
    let text = listen("a", one, &silent) + &listen("b", two, &echo);
    let setup = Setup::new(text).shards(1).global("tune.udp.maxflows 100");
    let balancer = setup.start();
    let unanswered = Crowd::new(([127, 0, 0, 1], one).into(), 96);
    for number in 0..150 {
        drop(unanswered.ask(number, 0, 64));
    }
    silent.wait_received(150);
    eventually("each is counted", || {
        count(&balancer, "flows") == 100 && count(&balancer, "flows_evicted") == 50
    });
    let answered = Crowd::new(([127, 0, 0, 1], two).into(), 96);
    for number in 0..100 {
        answered.exchange(number..number + 1, 0, 64);
    }
    assert_eq!(count(&balancer, "flows"), 100);
    assert_eq!(balancer.stat().number("a", "FRONTEND", "scur"), 0);
    let target = ([127, 0, 0, 1], one).into();
    assert_eq!(served(&balancer, target, 7, "flows_refused_limit"), 0);
    answered.exchange(0..100, 1, 64);
}
