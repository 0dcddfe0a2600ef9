//! Datagrams by the ten thousands: every answer is checked, bursts and floods cost those who are
//! served nothing, and of flows that have ended nothing stays.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::Setup;
use crate::support::crowd::Crowd;
use crate::support::datagram::{DatagramClient, DatagramServer, identify, payload};
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, skip, turn, wait_for};

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

fn setup(port: u16, lines: &[&str], servers: &[DatagramServer]) -> Setup {
    let mut text =
        format!("listen u\n    mode udp\n    balance roundrobin\n    bind 127.0.0.1:{port}\n");
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
    for (number, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{number} {}\n", server.address()));
    }
    Setup::new(text)
}

fn echoes(count: usize) -> Vec<DatagramServer> {
    let echo = |_| DatagramServer::counting_echo();
    (0..count).map(echo).collect()
}

/// What the design promises for a flow of 16 upstreams, and as much again for what the tables grow
/// by at a time.
const BYTES_PER_FLOW_MAX: u64 = 1_024;

#[test]
fn fifty_thousand_flows_over_sixteen_servers_get_their_own_answers() {
    const FLOWS: u32 = 50_000;
    const SERVERS: u64 = 16;
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let (servers, port) = (echoes(SERVERS as usize), free_port());
    let lines = ["timeout udp 10m", "maxconn 60000"];
    let mut balancer = setup(port, &lines, &servers)
        .global("tune.udp.maxflows 60000")
        .global("tune.udp.sockets 4000")
        .start();
    let crowd = Crowd::new(([127, 0, 0, 1], port).into(), 32);
    // What is there from the first flow on.
    crowd.exchange(0..100, 0, 64);
    let before_kib = balancer.resident_kib();
    for round in 1..3 {
        std::thread::scope(|scope| {
            scope.spawn(|| crowd.exchange(0..FLOWS / 2, round, 64));
            scope.spawn(|| crowd.exchange(FLOWS / 2..FLOWS, round, 200));
        });
        // Also in the second round, in which each has found its own again.
        eventually("each has a flow", || {
            count(&balancer, "flows") == u64::from(FLOWS)
        });
    }
    let bytes = (balancer.resident_kib() - before_kib) << 10;
    let each = bytes / u64::from(FLOWS);
    eprintln!("{each} bytes for a flow");
    assert!(each <= BYTES_PER_FLOW_MAX, "{each} bytes for a flow");
    let datagrams = u64::from(2 * FLOWS + 100);
    for name in [
        "datagrams_from_clients",
        "datagrams_to_servers",
        "datagrams_from_servers",
        "datagrams_to_clients",
    ] {
        eventually(name, || count(&balancer, name) == datagrams);
    }
    eventually("each came to a server once", || {
        let received: u64 = servers.iter().map(DatagramServer::received).sum();
        received == datagrams
    });
    let stat = balancer.stat();
    let even = u64::from(FLOWS) / SERVERS;
    for number in 0..SERVERS {
        let flows = stat.number("u", &format!("s{number}"), "scur");
        assert!(flows.abs_diff(even) <= even / 10, "s{number}: {flows}");
    }
    let sockets = count(&balancer, "flow_sockets");
    assert!(
        (even..=even * 5 / 4).contains(&sockets),
        "{sockets} sockets"
    );
    // All end at once.
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait_exit(Duration::from_secs(20)).success());
}

#[test]
fn twenty_thousand_flows_come_and_go_and_nothing_stays() {
    const ROUNDS: u32 = 5;
    const FLOWS: u32 = 4_000;
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let (servers, port) = (echoes(4), free_port());
    let balancer = setup(port, &["timeout udp 2s"], &servers).start();
    let mut after = Vec::new();
    for round in 0..ROUNDS {
        // Nobody comes twice.
        let first = round * FLOWS;
        let crowd = Crowd::new(([127, 0, 0, 1], port).into(), 32);
        crowd.exchange(first..first + FLOWS, round, 64);
        balancer.settle();
        let sockets = count(&balancer, "flow_sockets");
        after.push((sockets, balancer.resident_kib()));
    }
    let all = u64::from(ROUNDS * FLOWS);
    assert_eq!(balancer.stat().number("u", "FRONTEND", "stot"), all);
    assert_eq!(count(&balancer, "sources_held"), 0);
    // A pair rests for a second: of four rounds each may need sockets of its own, of five not.
    let each = u64::from(FLOWS / 4);
    let (sockets, kib) = after[ROUNDS as usize - 1];
    assert!(sockets <= 4 * each + each / 2, "{after:?}");
    let (_, earlier_kib) = after[2];
    // Less than the flows of two rounds take.
    assert!(kib <= earlier_kib + (2 << 10), "{after:?}");
}

#[test]
#[ignore = "sockets that nobody needs are kept for a minute"]
fn a_pool_closes_the_sockets_that_nobody_needs() {
    let _turn = turn::shared();
    let (servers, port) = (echoes(1), free_port());
    let balancer = setup(port, &["timeout udp 2s"], &servers).start();
    let descriptors = balancer.descriptors();
    let crowd = Crowd::new(([127, 0, 0, 1], port).into(), 32);
    crowd.exchange(0..1_000, 0, 64);
    assert!(count(&balancer, "flow_sockets") >= 1_000);
    let bound = Duration::from_secs(150);
    let closed = wait_for(bound, || {
        (count(&balancer, "flow_sockets") == 0).then_some(())
    });
    assert!(closed.is_some(), "{}", count(&balancer, "flow_sockets"));
    assert!(balancer.descriptors() <= descriptors + 1);
    crowd.exchange(0..10, 1, 64);
    balancer.settle();
}

/// Every datagram of a burst is there while the balancer sleeps: more than it has buffers for, all
/// of new clients, each of which needs a socket of its own.
#[test]
fn a_burst_of_new_clients_loses_nothing() {
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let (servers, port) = ([DatagramServer::echo()], free_port());
    // However long it takes to send all that, and twice.
    let lines = ["timeout udp 10m", "timeout udp-unconfirmed 10m"];
    let balancer = setup(port, &lines, &servers).start();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    // Without the right to a large receive buffer no more fits.
    let is_small = balancer.stderr().contains("rmem_max");
    let rounds = if is_small { 1 } else { 8 };
    let clients: Vec<_> = (0..400).map(|n| DatagramClient::new(target, n)).collect();
    balancer.paused(|| {
        for number in 0..rounds {
            for client in &clients {
                client.send_payload(number, 64);
            }
        }
    });
    for client in &clients {
        for number in 0..rounds {
            client.receive_payload(number, 64);
        }
    }
    // The same from the server, at hundreds of sockets at a time: more than there are buffers.
    let pairs: HashMap<u32, SocketAddr> = servers[0]
        .arrivals()
        .iter()
        .map(|arrival| (identify(&arrival.bytes).expect("a payload").0, arrival.from))
        .collect();
    assert_eq!(pairs.len(), clients.len());
    let unasked = rounds..rounds + 12;
    balancer.paused(|| {
        for number in unasked.clone() {
            for (flow, pair) in &pairs {
                servers[0].speak(*pair, &payload(*flow, number, 64));
            }
        }
    });
    for client in &clients {
        for number in unasked.clone() {
            client.receive_payload(number, 64);
        }
    }
    assert!(count(&balancer, "datagram_buffers_exhausted") > 0);
    for name in ["datagrams_overflowed", "flows_refused_socket"] {
        assert_eq!(count(&balancer, name), 0, "{name}");
    }
    eventually("each has a flow", || count(&balancer, "flows") == 400);
}

#[test]
fn what_the_socket_has_no_room_for_is_counted() {
    const SENT: u32 = 3_000;
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let (servers, port) = (echoes(1), free_port());
    let balancer = setup(port, &["timeout udp 2s"], &servers)
        .shards(1)
        .global("tune.udp.rcvbuf 128k")
        .start();
    let client = DatagramClient::new(([127, 0, 0, 1], port).into(), 1);
    balancer.paused(|| (0..SENT).for_each(|number| client.send_payload(number, 64)));
    let mut answers = 0;
    while client.try_receive(Duration::from_millis(300)).is_some() {
        answers += 1;
    }
    // The kernel is asked each second, in a shard that is awake.
    assert!((50..u64::from(SENT)).contains(&answers), "{answers}");
    let dropped = u64::from(SENT) - answers;
    eventually("drops are counted", || {
        client.insist(SENT, 64);
        count(&balancer, "datagrams_overflowed") == dropped
    });
    balancer.settle();
}

/// A flood from addresses that nobody has, beside those who are served. They are more by far than
/// flows there may be.
#[test]
fn a_flood_of_forged_sources_costs_those_who_are_served_nothing() {
    const LIVE: u32 = 1_000;
    const ROUNDS: u32 = 3;
    const FORGED_EACH: u32 = 10;
    const MOST: u64 = 1_500;
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let port = free_port();
    let pairs = Arc::new(Mutex::new(HashMap::new()));
    // Who is served is told apart by the length, and stays with its pair.
    let seen = Arc::clone(&pairs);
    let server = DatagramServer::start(move |arrival| {
        if arrival.bytes.len() != 100 {
            return Vec::new();
        }
        let (flow, _) = identify(&arrival.bytes).expect("a payload");
        let mut seen = seen.lock().expect("nothing fails under this lock");
        let first = *seen.entry(flow).or_insert(arrival.from);
        if first == arrival.from {
            vec![arrival.bytes.clone()]
        } else {
            Vec::new()
        }
    });
    let lines = [
        "timeout udp 10m",
        "timeout udp-unconfirmed 10m",
        "maxconn 2000",
    ];
    let servers = [server];
    let mut balancer = setup(port, &lines, &servers)
        .global(format!("tune.udp.maxflows {MOST}"))
        .start();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let (live, forged) = (Crowd::new(target, 32), Crowd::new(target, 64));
    live.exchange(0..LIVE, 0, 100);
    let mut next = 0;
    for round in 1..=ROUNDS {
        for first in (0..LIVE).step_by(20) {
            let part = first..first + 20;
            let mut waiting = Vec::new();
            for number in part {
                for _ in 0..FORGED_EACH {
                    drop(forged.ask(next, 0, 50));
                    next += 1;
                }
                waiting.push((number, live.ask(number, round, 100)));
            }
            for (number, socket) in &waiting {
                live.answer(socket, *number, round, 100);
            }
        }
        assert!(count(&balancer, "flows") <= MOST);
    }
    let all = u64::from(LIVE * (ROUNDS + 1) + next);
    eventually("all have come", || {
        count(&balancer, "datagrams_from_clients") == all
    });
    // Each forged address got a flow or was refused, and none of the others has lost its own.
    eventually("each was let in or refused, once", || {
        let flows = balancer.stat().number("u", "FRONTEND", "stot");
        flows + count(&balancer, "flows_refused_limit") == u64::from(LIVE + next)
    });
    let evicted = count(&balancer, "flows_evicted");
    assert!(evicted > u64::from(next) / 2, "{evicted} of {next}");
    balancer.signal(Signal::SIGTERM);
    assert!(balancer.wait_exit(Duration::from_secs(20)).success());
}
