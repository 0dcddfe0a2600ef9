//! Who gets a connection: exact shares over all shards, affinity, least connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, TcpStream};

use crate::support::client::{self, ask_name, connect_from, connect_port, local, read_name};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, turn};

/// Named servers and the `server` lines for them, with a suffix each.
pub(crate) fn named(suffixes: &[&str]) -> (Vec<MockServer>, String) {
    let mut lines = String::new();
    let mut servers = Vec::new();
    for (index, suffix) in (1..).zip(suffixes) {
        let server = MockServer::named(&format!("s{index}"));
        lines.push_str(&format!(
            "    server s{index} {} {suffix}\n",
            server.address()
        ));
        servers.push(server);
    }
    (servers, lines)
}

/// Names of the servers that answered, with counts.
type Counts = BTreeMap<String, u32>;

/// How often each server answers in `total` connections, one after the other.
pub(crate) fn count_sequential(port: u16, total: u32) -> Counts {
    let mut counts = Counts::new();
    for _ in 0..total {
        *counts.entry(ask_name(local(port)).unwrap()).or_default() += 1;
    }
    counts
}

/// The same, each after the last one has left its server: who is still busy is not idle.
pub(crate) fn count_idle(balancer: &Balancer, backend: &str, port: u16, total: u32) -> Counts {
    let mut counts = Counts::new();
    for _ in 0..total {
        *counts.entry(ask_name(local(port)).unwrap()).or_default() += 1;
        eventually("the session has ended", || {
            balancer.stat().number(backend, "BACKEND", "scur") == 0
        });
    }
    counts
}

/// How often each server answers in `total` connections that are all open at once.
fn count_concurrent(port: u16, total: u32) -> Counts {
    let clients: Vec<TcpStream> = (0..total).map(|_| connect_port(port)).collect();
    let mut counts = Counts::new();
    for client in &clients {
        *counts.entry(read_name(client).unwrap()).or_default() += 1;
    }
    counts
}

/// The counts in descending order.
pub(crate) fn sorted(counts: &Counts) -> Vec<u32> {
    let mut numbers: Vec<u32> = counts.values().copied().collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
}

fn balancer(balance: &str, lines: &str) -> (Balancer, u16) {
    let port = free_port();
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    balance {balance}\n{lines}");
    (Balancer::start(body), port)
}

#[test]
fn roundrobin_gives_34_33_33_to_sequential_connections() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "", ""]);
    let (balancer, port) = balancer("roundrobin", &lines);
    assert_eq!(sorted(&count_sequential(port, 100)), [34, 33, 33]);
    balancer.settle();
    let stat = balancer.stat();
    let chosen: Vec<u64> = (1..4)
        .map(|i| stat.number("l", &format!("s{i}"), "lbtot"))
        .collect();
    assert_eq!(chosen.iter().sum::<u64>(), 100);
}

#[test]
fn roundrobin_gives_34_33_33_to_concurrent_connections() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "", ""]);
    let (balancer, port) = balancer("roundrobin", &lines);
    assert_eq!(sorted(&count_concurrent(port, 100)), [34, 33, 33]);
    balancer.settle();
}

#[test]
fn idle_leastconn_gives_34_33_33() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "", ""]);
    let (balancer, port) = balancer("leastconn", &lines);
    let counts = count_idle(&balancer, "l", port, 100);
    assert_eq!(sorted(&counts), [34, 33, 33]);
    balancer.settle();
}

#[test]
fn leastconn_levels_open_connections() {
    let _turn = turn::shared();
    let servers: Vec<MockServer> = (0..3).map(|_| MockServer::hold()).collect();
    let lines: String = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("    server s{index} {}\n", server.address()))
        .collect();
    let (balancer, port) = balancer("leastconn", &lines);
    let accepted = || servers.iter().map(MockServer::accepted).collect::<Vec<_>>();
    let mut clients = Vec::new();
    for opened in 1..=30 {
        clients.push(connect_port(port));
        eventually("the connection is through", || {
            accepted().iter().sum::<u64>() == opened
        });
    }
    assert_eq!(accepted(), [10, 10, 10]);
    // Eight leave the first server: the next eight all go there.
    let left: Vec<TcpStream> = (0..8).map(|_| servers[0].next()).collect();
    drop(left);
    let open = || balancer.stat().number("l", "s0", "scur");
    clients.retain(|client| {
        client.set_nonblocking(true).unwrap();
        !matches!(std::io::Read::read(&mut &*client, &mut [0; 1]), Ok(0))
    });
    eventually("eight have left", || {
        clients.retain(|client| !matches!(std::io::Read::read(&mut &*client, &mut [0]), Ok(0)));
        clients.len() == 22 && open() == 2
    });
    for opened in 31..=38 {
        clients.push(connect_port(port));
        eventually("the connection is through", || {
            accepted().iter().sum::<u64>() == opened
        });
    }
    assert_eq!(accepted(), [18, 10, 10]);
    drop((clients, servers));
    balancer.settle();
}

#[test]
fn leastconn_follows_weights() {
    let _turn = turn::shared();
    let servers = [MockServer::hold(), MockServer::hold()];
    let lines = format!(
        "    server s1 {} weight 3\n    server s2 {} weight 1\n",
        servers[0].address(),
        servers[1].address()
    );
    let (balancer, port) = balancer("leastconn", &lines);
    let mut clients = Vec::new();
    for opened in 1..=40 {
        clients.push(connect_port(port));
        let accepted = || servers.iter().map(MockServer::accepted).sum::<u64>();
        eventually("the connection is through", || accepted() == opened);
    }
    assert_eq!((servers[0].accepted(), servers[1].accepted()), (30, 10));
    drop((clients, servers));
    balancer.settle();
}

#[test]
fn weights_3_2_1_give_50_33_17() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["weight 3", "weight 2", "weight 1"]);
    let (balancer, port) = balancer("roundrobin", &lines);
    let counts = count_sequential(port, 100);
    assert_eq!((counts["s1"], counts["s2"], counts["s3"]), (50, 33, 17));
    balancer.settle();
}

#[test]
fn a_server_of_weight_zero_gets_nothing() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["weight 0", "", "disabled"]);
    let (balancer, port) = balancer("roundrobin", &lines);
    assert_eq!(
        count_sequential(port, 20),
        Counts::from([("s2".to_owned(), 20)])
    );
    balancer.settle();
}

/// Which server each of the addresses 127.0.1.1 to 127.0.1.N reaches.
pub(crate) fn owners(port: u16, clients: u8) -> Vec<String> {
    (1..=clients)
        .map(|last| {
            let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, last));
            let stream = connect_from(source, local(port)).expect("connect");
            read_name(&stream).unwrap()
        })
        .collect()
}

#[test]
fn source_sends_an_address_to_the_same_server_always() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "", ""]);
    let (balancer, port) = balancer("source", &lines);
    let first = owners(port, 30);
    for _ in 0..4 {
        assert_eq!(owners(port, 30), first);
    }
    assert_eq!(
        first.iter().collect::<BTreeSet<_>>().len(),
        3,
        "all three are used: {first:?}"
    );
    balancer.settle();
}

/// When one server goes only its own clients move, and they come back with it.
#[test]
fn consistent_source_moves_only_the_clients_of_a_dead_server() {
    let _turn = turn::shared();
    let check = "check inter 100 fall 2 rise 2";
    let (mut servers, lines) = named(&[check, check, check]);
    let (balancer, port) = balancer("source\n    hash-type consistent", &lines);
    let before = owners(port, 30);
    servers[1].stop();
    eventually("s2 is down", || {
        balancer
            .stat()
            .text("l", "s2", "status")
            .starts_with("DOWN")
    });
    let without = owners(port, 30);
    for (then, now) in before.iter().zip(&without) {
        assert!(
            then == now || (then == "s2" && now != "s2"),
            "{then} moved to {now}"
        );
    }
    assert!(without.iter().all(|name| name != "s2"));
    servers[1].restart();
    eventually("s2 is up", || {
        balancer.stat().text("l", "s2", "status") == "UP"
    });
    assert_eq!(owners(port, 30), before);
    balancer.settle();
}

#[test]
fn map_based_source_survives_the_death_of_a_server() {
    let _turn = turn::shared();
    let check = "check inter 100 fall 2 rise 2";
    let (mut servers, lines) = named(&[check, check, check]);
    let (balancer, port) = balancer("source\n    hash-type map-based", &lines);
    let before = owners(port, 30);
    servers[0].stop();
    eventually("s1 is down", || {
        balancer
            .stat()
            .text("l", "s1", "status")
            .starts_with("DOWN")
    });
    assert!(owners(port, 30).iter().all(|name| name != "s1"));
    servers[0].restart();
    eventually("s1 is up", || {
        balancer.stat().text("l", "s1", "status") == "UP"
    });
    assert_eq!(owners(port, 30), before);
    balancer.settle();
}

/// The shares hold while sixteen clients connect from several threads.
#[test]
fn roundrobin_is_exact_under_parallel_clients() {
    let _turn = turn::shared();
    let (servers, lines) = named(&["", "", ""]);
    let (balancer, port) = balancer("roundrobin", &lines);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..75 {
                    client::ask_name(local(port)).unwrap();
                }
            });
        }
    });
    let accepted: Vec<u64> = servers.iter().map(MockServer::accepted).collect();
    assert_eq!(accepted, [100, 100, 100]);
    balancer.settle();
}
