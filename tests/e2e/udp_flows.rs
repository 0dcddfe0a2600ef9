//! What a flow keeps to, its limits, and what is told of it.

use std::time::Duration;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::proxy_header;
use crate::support::{Balancer, Stopwatch, Syslog, eventually, skip, turn};

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

/// A proxy with these lines and servers.
fn listen(port: u16, lines: &[&str], servers: &[&DatagramServer]) -> Balancer {
    setup(port, lines, servers).start()
}

fn setup(port: u16, lines: &[&str], servers: &[&DatagramServer]) -> Setup {
    let mut text = format!(
        "listen u\n    mode udp\n    balance roundrobin\n    \
         bind 127.0.0.1:{port}\n    timeout udp 2s\n"
    );
    for line in lines {
        text.push_str(&format!("    {line}\n"));
    }
    for (number, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{number} {}\n", server.address()));
    }
    Setup::new(text)
}

fn clients(port: u16, count: u32) -> Vec<DatagramClient> {
    let target = ([127, 0, 0, 1], port).into();
    (0..count).map(|n| DatagramClient::new(target, n)).collect()
}

#[test]
fn an_idle_flow_ends_and_the_next_datagram_begins_another() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = listen(port, &["timeout udp 3s"], &[&server]);
    let client = &clients(port, 1)[0];
    let begun = Stopwatch::start();
    client.exchange(1, 64);
    eventually("the flow ends", || count(&balancer, "flows") == 0);
    begun.assert_within(2_800, 30_000, "idle time");
    client.exchange(2, 64);
    balancer.settle();
    assert_eq!(balancer.stat().number("u", "FRONTEND", "stot"), 2);
    assert_eq!(count(&balancer, "limits_taken"), 0);
}

#[test]
fn a_flow_without_a_reply_ends_sooner() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::silent(), free_port());
    let lines = ["timeout udp 1h", "timeout udp-unconfirmed 300ms"];
    let balancer = listen(port, &lines, &[&server]);
    clients(port, 1)[0].send_payload(1, 64);
    server.wait_received(1);
    balancer.settle();
}

#[test]
fn a_flow_ends_with_its_last_reply() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for (responses, times) in [(1, 3), (2, 3), (0, 1)] {
        let (server, port) = (DatagramServer::echo_times(times), free_port());
        let lines = ["timeout udp 1h", &format!("udp-responses {responses}")];
        let balancer = listen(port, &lines, &[&server]);
        let client = &clients(port, 1)[0];
        for number in 0..3 {
            client.send_payload(number, 64);
            server.wait_received(u64::from(number) + 1);
            for _ in 0..responses {
                client.receive_payload(number, 64);
            }
        }
        let late = 3 * (times as u64 - responses);
        eventually("late replies are counted", || {
            count(&balancer, "datagrams_unknown") == late
        });
        client.expect_silence(Duration::from_millis(20));
        balancer.settle();
        assert_eq!(balancer.stat().number("u", "FRONTEND", "stot"), 3);
    }
}

#[test]
fn every_datagram_is_balanced_anew_where_a_flow_takes_one() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (one, two) = (DatagramServer::echo(), DatagramServer::echo());
    for (requests, flows) in [(1, 20), (2, 10), (0, 1)] {
        let port = free_port();
        let line = format!("udp-requests {requests}");
        let balancer = setup(port, &[&line], &[&one, &two]).shards(1).start();
        let before = (one.received(), two.received());
        let client = &clients(port, 1)[0];
        for number in 0..10 {
            client.exchange(number, 64);
        }
        // Also where several come at once.
        client.send_train(10, 10, 700, 700);
        let mut got: Vec<_> = (0..10).map(|_| client.receive()).collect();
        got.sort();
        got.dedup();
        assert_eq!(got.len(), 10);
        let parts = [one.received() - before.0, two.received() - before.1];
        assert_eq!(parts.iter().sum::<u64>(), 20);
        // 0 is no bound: one flow has them all.
        let halves = if requests == 0 { [0, 20] } else { [10, 10] };
        assert_eq!(
            parts.iter().min(),
            halves.iter().min(),
            "{requests} requests"
        );
        assert!(count(&balancer, "flows") >= (flows / 4).max(1));
        balancer.settle();
        assert_eq!(balancer.stat().number("u", "FRONTEND", "stot"), flows);
    }
}

#[test]
fn at_a_limit_flows_without_a_reply_make_room_and_others_do_not() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let port = free_port();
    // It answers who says so.
    let server = DatagramServer::start(|arrival| match arrival.bytes.as_slice() {
        b"answer" => vec![b"yes".to_vec()],
        _ => Vec::new(),
    });
    let lines = ["maxconn 4", "timeout udp 3s"];
    let balancer = setup(port, &lines, &[&server]).shards(1).start();
    let clients = clients(port, 12);
    let confirm = |client: &DatagramClient| {
        client.send(b"answer");
        assert_eq!(client.receive(), b"yes");
    };
    clients[..3].iter().for_each(confirm);
    for client in &clients[3..] {
        client.send(b"flood");
    }
    server.wait_received(12);
    eventually("each has made room for the next", || {
        count(&balancer, "flows") == 4 && count(&balancer, "flows_evicted") == 8
    });
    // Those with a reply are as they were, and once all have one nobody else comes in.
    clients[..4].iter().for_each(confirm);
    clients[11].send(b"answer");
    eventually("it is refused", || {
        count(&balancer, "flows_refused_limit") == 1
    });
    clients[11].expect_silence(Duration::from_millis(10));
    assert_eq!(balancer.stat().number("u", "FRONTEND", "smax"), 4);
    balancer.settle();
}

#[test]
fn one_address_has_no_more_flows_than_it_may() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = listen(port, &["udp-source-flows 2"], &[&server]);
    let clients = clients(port, 3);
    clients[0].exchange(1, 64);
    clients[1].exchange(1, 64);
    clients[2].send_payload(1, 64);
    eventually("it is refused", || {
        count(&balancer, "flows_refused_source") == 1
    });
    let other = "127.0.0.2:0".parse().unwrap();
    DatagramClient::from(other, ([127, 0, 0, 1], port).into(), 9).exchange(1, 64);
    balancer.settle();
    clients[2].exchange(2, 64);
    balancer.settle();
}

#[test]
fn a_server_without_room_or_no_server_refuses() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, syslog, port) = (DatagramServer::echo(), Syslog::start(), free_port());
    let log = format!("log {} local0", syslog.address());
    let lines = [log.as_str(), "option udplog", "default-server maxconn 1"];
    let balancer = listen(port, &lines, &[&server]);
    let clients = clients(port, 2);
    clients[0].exchange(1, 64);
    clients[1].send_payload(1, 64);
    let line = syslog.wait_line("refused");
    assert!(line.contains(" u u/<NOSRV> -1/-1/0 0 SC "), "{line}");
    assert!(line.ends_with(" 64 1/0 refused"), "{line}");
    assert_eq!(count(&balancer, "flows_refused_server"), 1);
    balancer.settle();
    clients[1].exchange(2, 64);
    balancer.settle();
}

#[test]
fn the_line_of_a_flow_says_how_it_went() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, syslog, port) = (DatagramServer::echo(), Syslog::start(), free_port());
    let log = format!("log {} local0", syslog.address());
    let lines = [log.as_str(), "option udplog", "timeout udp 3s"];
    let balancer = listen(port, &lines, &[&server]);
    let client = &clients(port, 1)[0];
    client.exchange(1, 100);
    client.exchange(2, 50);
    let line = syslog.wait_line("idle");
    let from = format!("{} [", client.address());
    assert!(line.contains(&from), "{line}");
    assert!(line.contains(" u u/s0 0/0/"), "{line}");
    assert!(
        line.ends_with(" 150 -- 1/1/0/0/0 0/0 150 2/2 idle"),
        "{line}"
    );
    balancer.settle();
    assert_eq!(syslog.count("idle"), 1);
}

#[test]
fn a_flow_may_have_a_socket_of_its_own() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let balancer = listen(port, &["udp-sockets dedicated"], &[&server]);
    let clients = clients(port, 5);
    for number in 0..3 {
        clients
            .iter()
            .for_each(|client| client.exchange(number, 64));
    }
    assert_eq!(server.sources().len(), 5);
    assert_eq!(count(&balancer, "flow_sockets"), 5);
    eventually("they are closed with their flows", || {
        count(&balancer, "flow_sockets") == 0
    });
    balancer.settle();
}

#[test]
fn a_server_may_speak_first_to_a_client_it_knows() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let lines = ["option udp-bidirectional", "timeout udp 3s"];
    let balancer = listen(port, &lines, &[&server]);
    let client = &clients(port, 1)[0];
    client.exchange(1, 64);
    let pair = std::net::SocketAddr::new([127, 0, 0, 1].into(), server.source_of(0, 1).port());
    balancer.settle();
    assert_eq!(count(&balancer, "flow_mappings"), 1);
    server.speak(pair, b"still there?");
    assert_eq!(client.receive(), b"still there?");
    eventually("it is counted", || count(&balancer, "flows_reopened") == 1);
    // The client answers by the same pair.
    client.send(b"yes");
    server.wait_received(2);
    assert_eq!(server.sources().len(), 1);
    assert_eq!(client.receive(), b"yes");
    balancer.settle();
    assert_eq!(balancer.stat().number("u", "s0", "stot"), 2);
}

#[test]
fn servers_get_a_header_before_the_first_datagram_or_each() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for (rule, headers) in [("first", [true, false, false]), ("every", [true; 3])] {
        let (server, port) = (
            DatagramServer::start(|_| vec![b"yes".to_vec()]),
            free_port(),
        );
        let rule = format!("udp-proxy-header {rule}");
        let lines = [rule.as_str(), "default-server send-proxy-v2"];
        let balancer = listen(port, &lines, &[&server]);
        let client = &clients(port, 1)[0];
        for number in 0..3u8 {
            client.send(&[number; 9]);
            assert_eq!(client.receive(), b"yes");
        }
        let from = client.address();
        let arrivals = server.arrivals();
        for ((number, arrival), has_header) in (0u8..).zip(&arrivals).zip(headers) {
            let mut expected = Vec::new();
            if has_header {
                expected.extend(b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x7f\0\0\x01\x7f\0\0\x01");
                expected.extend(from.port().to_be_bytes());
                expected.extend(port.to_be_bytes());
            }
            expected.extend([number; 9]);
            assert_eq!(arrival.bytes, expected, "{rule}, datagram {number}");
        }
        balancer.settle();
    }
}

#[test]
fn a_header_names_the_client_of_a_flow() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, syslog, port) = (DatagramServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen u\n    mode udp\n    balance source\n    bind 127.0.0.1:{port} accept-proxy\n    \
         timeout udp 3s\n    log {} local0\n    option udplog\n    server s {}\n",
        syslog.address(),
        server.address()
    ));
    let client = &clients(port, 1)[0];
    // Nobody knows whose it is.
    client.send(b"bare");
    eventually("it is counted", || {
        count(&balancer, "datagrams_malformed") == 1
    });
    let body = proxy_header::addresses("192.0.2.7:4711");
    let mut first = proxy_header::raw(0x21, 0x12, &body);
    first.extend(b"one");
    client.send(&first);
    assert_eq!(client.receive(), b"one");
    client.send(b"two");
    assert_eq!(client.receive(), b"two");
    // Its sender begins anew.
    client.send(&first);
    assert_eq!(client.receive(), b"one");
    let line = syslog.wait_line("idle");
    assert!(line.contains("192.0.2.7:4711 ["), "{line}");
    assert!(line.ends_with(" 9 3/3 idle"), "{line}");
    balancer.settle();
    assert_eq!(server.received(), 3);
}
