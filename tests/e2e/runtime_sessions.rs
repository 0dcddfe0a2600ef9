//! `show sess` and `shutdown session`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;

use crate::support::balancer::Setup;
use crate::support::client::{self, End, connect_port, read_end};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, is_tidegate, skip, turn};

/// What a line of `show sess` says: the id, and what stands behind each name.
fn sessions(balancer: &Balancer, filter: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let text = balancer.stats(&format!("show sess{filter}"));
    let of_clients = text
        .lines()
        .filter(|line| !line.is_empty() && !line.contains("fe=GLOBAL"));
    let parse = |line: &str| {
        let (id, rest) = line.split_once(": ").unwrap_or_else(|| panic!("{text}"));
        let pairs = rest.split(' ').filter_map(|word| word.split_once('='));
        let named = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (id.to_owned(), named.collect())
    };
    of_clients.map(parse).collect()
}

fn setup(settings: &str) -> (Setup, [MockServer; 2], u16, Syslog) {
    let (servers, port, syslog) = (
        [MockServer::echo(), MockServer::echo()],
        free_port(),
        Syslog::start(),
    );
    let setup = Setup::new(format!(
        "frontend f\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    \
         default_backend b\nbackend b\n    balance roundrobin\n    server s1 {} {settings}\n    \
         server s2 {} {settings}\n",
        syslog.address(),
        servers[0].address(),
        servers[1].address()
    ));
    (setup, servers, port, syslog)
}

fn echoing(port: u16, count: usize) -> Vec<TcpStream> {
    let clients: Vec<TcpStream> = (0..count).map(|_| connect_port(port)).collect();
    clients.iter().for_each(|client| client::echo(client, b"x"));
    clients
}

#[test]
fn a_session_is_one_line() {
    let _turn = turn::shared();
    let (setup, _servers, port, _syslog) = setup("");
    let balancer = setup.start();
    let client = echoing(port, 1).remove(0);
    let found = sessions(&balancer, "");
    let [(id, fields)] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(id.starts_with("0x"), "{id}");
    let address = client.local_addr().unwrap().to_string();
    for (name, value) in [
        ("proto", "tcpv4"),
        ("src", address.as_str()),
        ("fe", "f"),
        ("be", "b"),
        ("srv", "s1"),
    ] {
        assert_eq!(fields[name], value, "{fields:?}");
    }
    assert!(fields["age"].ends_with('s'), "{fields:?}");
    let names = [
        "ts", "epoch", "calls", "rate", "cpu", "lat", "rq[f", "rp[f", "exp", "rc",
    ];
    for name in names {
        assert!(fields.contains_key(name), "{name}: {fields:?}");
    }
    // With all that there is to say.
    for command in [format!("show sess {id}"), "show sess all".to_owned()] {
        let text = balancer.stats(&command);
        for part in [
            format!("{id}: ["),
            format!("source={address}"),
            "frontend=f (id=".to_owned(),
            "backend=b (id=".to_owned(),
            "server=s1 (id=1)".to_owned(),
        ] {
            assert!(text.contains(&part), "{command}: no {part} in {text}");
        }
    }
    drop(client);
    balancer.settle();
    // HAProxy's ids are soon those of others.
    let gone = if is_tidegate() { id } else { "0x1" };
    assert_eq!(
        balancer.stats(&format!("show sess {gone}")).trim(),
        "Session not found."
    );
    assert_eq!(sessions(&balancer, "").len(), 0);
}

#[test]
fn one_session_is_ended_and_no_other() {
    let _turn = turn::shared();
    let (setup, _servers, port, syslog) = setup("");
    let balancer = setup.shards(2).start();
    let clients = echoing(port, 6);
    let victim = clients[3].local_addr().unwrap().to_string();
    let found = sessions(&balancer, "");
    assert_eq!(found.len(), 6);
    let (id, _) = found
        .iter()
        .find(|(_, fields)| fields["src"] == victim)
        .unwrap();
    assert_eq!(balancer.stats(&format!("shutdown session {id}")), "\n");
    assert_ne!(read_end(&clients[3]).1, End::None);
    let line = syslog.take_session();
    assert_eq!(
        (line.client.as_str(), line.end.as_str()),
        (victim.as_str(), "K-")
    );
    let others = clients.iter().enumerate().filter(|(index, _)| *index != 3);
    others.for_each(|(_, client)| client::echo(client, b"still there"));
    let none = "No such session (use 'show sess').";
    let gone = if is_tidegate() { id } else { "0x1" };
    assert_eq!(
        balancer.stats(&format!("shutdown session {gone}")).trim(),
        none
    );
    assert_eq!(balancer.stats("shutdown session 0x1").trim(), none);
    for command in ["shutdown session", "shutdown session it"] {
        let answer = balancer.stats(command);
        assert_eq!(answer.trim(), "Session pointer expected (use 'show sess').");
    }
    drop(clients);
    balancer.settle();
}

#[test]
fn sessions_of_a_server_are_ended() {
    let _turn = turn::shared();
    let (setup, _servers, port, syslog) = setup("");
    let balancer = setup.start();
    let clients = echoing(port, 6);
    assert_eq!(balancer.stats("shutdown sessions server b/s1"), "\n");
    eventually("three are left", || sessions(&balancer, "").len() == 3);
    let ends: BTreeSet<(String, String)> = (0..1)
        .map(|_| syslog.take_session())
        .map(|line| (line.server, line.end))
        .collect();
    assert_eq!(ends, BTreeSet::from([("b/s1".to_owned(), "K-".to_owned())]));
    let servers = sessions(&balancer, "");
    assert!(
        servers.iter().all(|(_, fields)| fields["srv"] == "s2"),
        "{servers:?}"
    );
    drop(clients);
    balancer.settle();
}

#[test]
fn who_waits_is_listed_and_can_be_ended() {
    let _turn = turn::shared();
    let (setup, _servers, port, syslog) = setup("maxconn 1");
    let balancer = setup.start();
    let inside = echoing(port, 2);
    let outside = connect_port(port);
    let address = outside.local_addr().unwrap().to_string();
    let waiting = || {
        let all = sessions(&balancer, "");
        all.into_iter().find(|(_, fields)| fields["src"] == address)
    };
    eventually("it waits", || {
        balancer.stat().number("b", "BACKEND", "qcur") == 1
    });
    let (id, fields) = waiting().expect("it is listed");
    assert_eq!(
        (fields["srv"].as_str(), fields["be"].as_str()),
        ("<none>", "b")
    );
    assert_eq!(balancer.stats(&format!("shutdown session {id}")), "\n");
    assert_ne!(read_end(&outside).1, End::None);
    let end = syslog.take_session().end;
    assert!(end.starts_with('K'), "{end}");
    assert_eq!(balancer.stat().number("b", "BACKEND", "qcur"), 0);
    inside
        .iter()
        .for_each(|client| client::echo(client, b"still there"));
    drop(inside);
    balancer.settle();
}

/// More than a shard says at once, on several shards, while sessions come and go.
#[test]
fn many_sessions_are_listed_once_each() {
    let _turn = turn::shared();
    let (setup, _servers, port, _syslog) = setup("");
    let balancer = setup.shards(3).start();
    let mut clients = echoing(port, 500);
    // Gaps in what the shards have.
    for index in (0..400).rev().filter(|index| index % 3 == 0) {
        drop(clients.swap_remove(index));
    }
    let left = clients.len() as u64;
    eventually("they are gone", || {
        balancer.stat().number("f", "FRONTEND", "scur") == left
    });
    let expected: BTreeSet<String> = clients
        .iter()
        .map(|client| client.local_addr().unwrap().to_string())
        .collect();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            for _ in 0..50 {
                client::echo(&connect_port(port), b"y");
            }
        });
        for _ in 0..5 {
            let found = sessions(&balancer, "");
            let sources: Vec<String> = found
                .iter()
                .map(|(_, fields)| fields["src"].clone())
                .collect();
            let listed: BTreeSet<String> = sources.iter().cloned().collect();
            assert!(expected.is_subset(&listed), "{} of {left}", listed.len());
            assert_eq!(listed.len(), sources.len(), "each once");
        }
        others.join().expect("the other clients");
    });
    drop(clients);
    balancer.settle();
}

#[test]
fn some_are_asked_for() {
    let _turn = turn::shared();
    if skip("2.6 lists all") {
        return;
    }
    let (setup, _servers, port, _syslog) = setup("");
    let balancer = setup.start();
    let clients = echoing(port, 4);
    let count = |filter: &str| sessions(&balancer, filter).len();
    assert_eq!(count(" server b/s1"), 2);
    assert_eq!((count(" frontend f"), count(" backend b")), (4, 4));
    assert_eq!((count(" older 0"), count(" older 1h")), (4, 0));
    for (command, words) in [
        ("show sess server b/nobody", "No such server."),
        ("show sess frontend b", "No such frontend."),
        ("show sess backend f", "No such backend."),
    ] {
        assert_eq!(balancer.stats(command).trim(), words, "{command}");
    }
    assert!(balancer.stats("show sess help").contains("older <age>"));
    assert!(
        balancer
            .stats("show sess rain")
            .contains("Usage: show sess")
    );
    drop(clients);
    balancer.settle();
}
