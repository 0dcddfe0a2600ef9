//! `show flows`: the flows of datagrams, from all shards, while they are there.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, skip, turn};

/// More than a shard tells at once.
const FLOWS: u32 = 300;

fn start(servers: &[&DatagramServer]) -> (Balancer, u16, u16) {
    let (port, other) = (free_port(), free_port());
    let mut text = format!(
        "defaults udp\n    mode udp\n    timeout udp 1h\n    timeout udp-unconfirmed 1h\n\
         frontend fe\n    bind 127.0.0.1:{port}\n    default_backend be\n\
         frontend fe2\n    bind 127.0.0.1:{other}\n    default_backend be2\n\
         backend be2\n    server only {}\n\
         backend be\n    balance roundrobin\n",
        servers[0].address()
    );
    for (number, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{number} {}\n", server.address()));
    }
    (Setup::new(text).start(), port, other)
}

/// The lines of an answer: what stands before the colon, and the values by name.
fn flows(balancer: &Balancer, command: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let text = balancer.stats(command);
    let lines = text.lines().filter(|line| !line.is_empty());
    let line = |line: &str| {
        let (id, rest) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
        let value = |word: &str| {
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.to_owned())
        };
        (id.to_owned(), rest.split(' ').map(value).collect())
    };
    lines.map(line).collect()
}

/// Ends the flows, which would stay for an hour.
fn end(balancer: &Balancer) {
    for server in ["be/s0", "be/s1", "be2/only"] {
        assert_eq!(
            balancer.stats(&format!("shutdown sessions server {server}")),
            "\n"
        );
    }
    balancer.settle();
    assert_eq!(balancer.stats("show flows"), "\n");
}

#[test]
fn every_flow_of_every_shard_is_listed_once() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (one, two) = (DatagramServer::echo(), DatagramServer::echo());
    let (balancer, port, other) = start(&[&one, &two]);
    assert_eq!(balancer.stats("show flows all"), "\n");
    let target = ([127, 0, 0, 1], port).into();
    let clients: Vec<_> = (0..FLOWS).map(|n| DatagramClient::new(target, n)).collect();
    for client in &clients {
        client.exchange(1, 64);
    }
    let second = DatagramClient::new(([127, 0, 0, 1], other).into(), FLOWS);
    second.exchange(1, 100);
    second.exchange(2, 100);

    let all = flows(&balancer, "show flows");
    assert_eq!(all.len(), FLOWS as usize + 1);
    let ids: BTreeSet<&String> = all.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), all.len());
    let listed: BTreeSet<&String> = all.iter().map(|(_, values)| &values["src"]).collect();
    for client in &clients {
        assert!(
            listed.contains(&client.address().to_string()),
            "{}",
            client.address()
        );
    }
    let of = |backend: &str| flows(&balancer, &format!("show flows {backend}"));
    let mut by_server: BTreeMap<String, u32> = BTreeMap::new();
    for (_, values) in of("be") {
        for (name, value) in [
            ("proto", "udpv4"),
            ("fe", "fe"),
            ("be", "be"),
            ("state", "open"),
            ("in", "1"),
            ("out", "1"),
            ("bin", "64"),
            ("bout", "64"),
        ] {
            assert_eq!(values[name], value, "{name} of {values:?}");
        }
        *by_server.entry(values["srv"].clone()).or_default() += 1;
    }
    assert_eq!(by_server.values().sum::<u32>(), FLOWS);
    assert_eq!(by_server.len(), 2, "{by_server:?}");
    let [(_, values)] = &of("be2")[..] else {
        panic!("one flow");
    };
    assert_eq!(values["src"], second.address().to_string());
    assert_eq!(values["addr"], one.address().to_string());
    assert_eq!((&*values["in"], &*values["bin"]), ("2", "200"));
    assert_eq!(balancer.stats("show flows nosuch"), "No such backend.\n\n");
    end(&balancer);
}

#[test]
fn a_flow_without_a_reply_is_new() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let server = DatagramServer::silent();
    let (balancer, port, _other) = start(&[&server, &server]);
    let client = DatagramClient::new(([127, 0, 0, 1], port).into(), 1);
    client.send_payload(1, 64);
    server.wait_received(1);
    let states = || -> Vec<String> {
        let all = flows(&balancer, "show flows");
        all.into_iter()
            .map(|(_, values)| values["state"].clone())
            .collect()
    };
    eventually("the flow is listed", || states() == ["new"]);
    end(&balancer);
}

/// While flows come and go, answers stay whole: each line has all of its values.
#[test]
fn flows_are_listed_while_they_come_and_go() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let server = DatagramServer::echo();
    let (balancer, port, _other) = start(&[&server, &server]);
    let target = ([127, 0, 0, 1], port).into();
    std::thread::scope(|scope| {
        let lists: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let all = flows(&balancer, "show flows");
                        assert!(all.iter().all(|(_, values)| values.len() == 14), "{all:?}");
                    }
                })
            })
            .collect();
        let mut round = 0;
        while lists.iter().any(|list| !list.is_finished()) {
            for n in 0..10 {
                DatagramClient::new(target, round * 10 + n).send_payload(1, 64);
            }
            balancer.stats("shutdown sessions server be/s0");
            round += 1;
        }
    });
    end(&balancer);
}
