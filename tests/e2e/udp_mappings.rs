//! Servers that speak first (`option udp-bidirectional`): until when, and what that costs others;
//! sockets that one flow has for itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, Stopwatch, eventually, skip, turn};

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

/// One shard before one server, whose flows end soon.
fn setup(port: u16, server: &DatagramServer, lines: &[&str]) -> Setup {
    let mut text =
        format!("listen u\n    mode udp\n    bind 127.0.0.1:{port}\n    timeout udp 2s\n");
    for line in lines {
        text += &format!("    {line}\n");
    }
    text += &format!("    server s {}\n", server.address());
    Setup::new(text).shards(1)
}

fn client(port: u16, flow: u32) -> DatagramClient {
    DatagramClient::new((Ipv4Addr::LOCALHOST, port).into(), flow)
}

/// Where the balancer speaks to the server for a flow.
fn pair_of(server: &DatagramServer, flow: u32, number: u32) -> SocketAddr {
    let pair = server.source_of(flow, number);
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), pair.port())
}

#[test]
fn a_mapping_that_has_lapsed_is_nobodys() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let lines = ["option udp-bidirectional", "timeout udp-mapping 6s"];
    let balancer = setup(port, &server, &lines).start();
    let client = client(port, 1);
    client.exchange(1, 64);
    let pair = pair_of(&server, 1, 1);
    balancer.settle();
    assert_eq!(count(&balancer, "flow_mappings"), 1);
    // Each word of the server is a flow again, and keeps the mapping.
    let watch = Stopwatch::start();
    for _ in 0..4 {
        server.speak(pair, b"still there?");
        assert_eq!(client.receive(), b"still there?");
        balancer.settle();
    }
    watch.assert_within(7_000, 200_000, "four times the idle time");
    assert_eq!(count(&balancer, "flows_reopened"), 4);
    // Longer than it lives.
    client.expect_silence(Duration::from_millis(6_500));
    server.speak(pair, b"too late");
    eventually("it is counted", || {
        count(&balancer, "datagrams_unknown") == 1
    });
    client.expect_silence(Duration::from_millis(10));
    client.exchange(2, 64);
    balancer.settle();
}

#[test]
fn at_the_cap_of_sockets_a_mapping_is_kept_and_new_flows_are_refused() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let lines = ["option udp-bidirectional", "timeout udp-mapping 8s"];
    let setup = setup(port, &server, &lines).global("tune.udp.sockets 1");
    let balancer = setup.start();
    let (known, late) = (client(port, 1), client(port, 2));
    known.exchange(1, 64);
    let pair = pair_of(&server, 1, 1);
    // While its flow is there, and while only its mapping is.
    late.send_payload(1, 64);
    eventually("it is refused", || {
        count(&balancer, "flows_refused_socket") == 1
    });
    balancer.settle();
    late.send_payload(2, 64);
    eventually("it is refused", || {
        count(&balancer, "flows_refused_socket") == 2
    });
    assert_eq!(
        (count(&balancer, "flows"), count(&balancer, "flow_mappings")),
        (0, 1)
    );
    server.speak(pair, b"yours");
    assert_eq!(known.receive(), b"yours");
    // Its client has it again.
    known.exchange(2, 64);
    assert_eq!(server.sources().len(), 1);
    late.expect_silence(Duration::from_millis(10));
    balancer.settle();
    // When it has lapsed, the pair is anybody's.
    late.insist(3, 64);
    assert_eq!(
        server.sources().len(),
        1,
        "the one socket that there may be"
    );
    balancer.settle();
}

#[test]
fn without_the_option_a_server_may_speak_while_the_flow_is_there_only() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = setup(port, &server, &[]).start();
    let client = client(port, 1);
    client.exchange(1, 64);
    let pair = pair_of(&server, 1, 1);
    server.speak(pair, b"one more");
    assert_eq!(client.receive(), b"one more");
    balancer.settle();
    assert_eq!(count(&balancer, "flow_mappings"), 0);
    server.speak(pair, b"too late");
    eventually("it is counted", || {
        count(&balancer, "datagrams_unknown") == 1
    });
    client.expect_silence(Duration::from_millis(10));
    assert_eq!(count(&balancer, "flows_reopened"), 0);
}

#[test]
fn a_dedicated_socket_hears_its_server_only_and_goes_with_its_flow() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (mut server, other) = (DatagramServer::echo(), DatagramServer::silent());
    let port = free_port();
    let lines = ["udp-sockets dedicated", "timeout udp 2s"];
    let balancer = setup(port, &server, &lines).start();
    let clients: Vec<_> = (0..3).map(|flow| client(port, flow)).collect();
    clients.iter().for_each(|client| client.exchange(1, 64));
    let pairs: Vec<_> = (0..3).map(|flow| pair_of(&server, flow, 1)).collect();
    for (client, pair) in clients.iter().zip(&pairs) {
        // The kernel itself turns it away.
        other.speak(*pair, b"who is there?");
        server.speak(*pair, b"me");
        assert_eq!(client.receive(), b"me");
        client.expect_silence(Duration::from_millis(5));
    }
    eventually("they are counted", || {
        count(&balancer, "datagrams_from_servers") == 6
    });
    // Where its server isn't there for a while, a flow goes on with its socket.
    server.stop();
    let before = count(&balancer, "datagram_refusals");
    clients[0].send_payload(2, 64);
    eventually("it is refused", || {
        count(&balancer, "datagram_refusals") > before
    });
    server.restart();
    clients[0].insist(3, 64);
    assert_eq!(pair_of(&server, 0, 3), pairs[0]);
    balancer.settle();
    assert_eq!(count(&balancer, "flow_sockets"), 0);
}
