//! PROXY headers of datagrams between two balancers, one behind the other: the second one knows
//! whose datagrams they are, as long as both keep to one rule.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::proxy_header;
use crate::support::{Balancer, Syslog, eventually, skip, turn};

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

/// Two balancers in a row before a server; each has lines of its own.
struct Chain {
    front: Balancer,
    behind: Balancer,
    server: DatagramServer,
    syslog: Syslog,
    port: u16,
}

impl Chain {
    fn start(rule: &str, [front, behind]: [&str; 2]) -> Chain {
        let (server, syslog) = (DatagramServer::echo(), Syslog::start());
        let ports = [free_port(), free_port()];
        let listen = |port: u16, words: &str, line: &str| {
            format!(
                "listen u\n    mode udp\n    bind 127.0.0.1:{port} {words}\n    \
                 udp-proxy-header {rule}\n    {line}\n"
            )
        };
        let behind = listen(ports[1], "accept-proxy", behind)
            + &format!(
                "    balance source\n    option udplog\n    log {} local0\n    server s {}\n",
                syslog.address(),
                server.address()
            );
        let front = listen(ports[0], "", front)
            + &format!("    server s 127.0.0.1:{} send-proxy-v2\n", ports[1]);
        Chain {
            behind: Balancer::start(behind),
            front: Balancer::start(front),
            server,
            syslog,
            port: ports[0],
        }
    }

    fn client(&self, own: Ipv4Addr, flow: u32) -> DatagramClient {
        let target = (Ipv4Addr::LOCALHOST, self.port).into();
        DatagramClient::from((own, 0).into(), target, flow)
    }
}

#[test]
fn a_client_has_its_own_address_behind_two_balancers() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for rule in ["first", "every"] {
        let chain = Chain::start(rule, ["timeout udp 2s"; 2]);
        let clients: Vec<_> = (0..6u8)
            .map(|n| chain.client(Ipv4Addr::new(127, 0, 3, n + 1), n.into()))
            .collect();
        for (number, length) in [(1, 64), (2, 0), (3, 1_400), (4, 9_000)] {
            for client in &clients {
                client.exchange(number, length);
            }
        }
        // Headers stand before each datagram of a train, or before none but the first.
        for client in &clients {
            client.send_train(10, 8, 700, 33);
            for number in 10..18 {
                client.receive_payload(number, if number == 17 { 33 } else { 700 });
            }
        }
        assert_eq!(chain.server.sources().len(), 6, "{rule}: a flow for each");
        chain.front.settle();
        chain.behind.settle();
        let line_of = |client: &DatagramClient| format!(" {} [", client.address());
        for client in &clients {
            let line = chain.syslog.wait_line(&line_of(client));
            assert!(line.ends_with(" 12/12 idle"), "{rule}: {line}");
        }
        assert_eq!(chain.syslog.count(" idle"), 6);
        assert_eq!(count(&chain.behind, "datagrams_malformed"), 0);
    }
}

/// The one in front forgets sooner: its next flow names the client again.
#[test]
fn a_flow_that_begins_again_in_front_goes_on_behind() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let chain = Chain::start("first", ["timeout udp 2s", "timeout udp 10s"]);
    let client = chain.client(Ipv4Addr::LOCALHOST, 1);
    for number in 0..3 {
        client.exchange(number, 64);
        chain.front.settle();
    }
    assert_eq!(count(&chain.behind, "datagrams_malformed"), 0);
    chain.behind.settle();
}

/// The one behind forgets sooner: it can't know whose the next datagram is.
#[test]
fn a_datagram_of_a_flow_that_is_forgotten_behind_is_dropped() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let chain = Chain::start("first", ["timeout udp 12s", "timeout udp 2s"]);
    let client = chain.client(Ipv4Addr::LOCALHOST, 1);
    client.exchange(1, 64);
    chain.behind.settle();
    client.send_payload(2, 64);
    eventually("it is counted", || {
        count(&chain.behind, "datagrams_malformed") == 1
    });
    client.expect_silence(Duration::from_millis(10));
    assert_eq!(chain.server.received(), 1);
    // The flow in front ends, and the next one begins with a header.
    chain.front.settle();
    client.exchange(3, 64);
    chain.front.settle();
    // With a header before every datagram that can't happen.
    let chain = Chain::start("every", ["timeout udp 12s", "timeout udp 2s"]);
    let client = chain.client(Ipv4Addr::LOCALHOST, 1);
    client.exchange(1, 64);
    chain.behind.settle();
    client.exchange(2, 64);
    assert_eq!(count(&chain.behind, "datagrams_malformed"), 0);
}

#[test]
fn what_has_no_header_or_a_wrong_one_is_dropped_and_counted() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, syslog, port) = (DatagramServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen u\n    mode udp\n    bind 127.0.0.1:{port} accept-proxy\n    \
         udp-proxy-header every\n    timeout udp 4s\n    option udplog\n    log {} local0\n    \
         server s {}\n",
        syslog.address(),
        server.address()
    ));
    let client = DatagramClient::new((Ipv4Addr::LOCALHOST, port).into(), 1);
    // UDP over IPv4, and over IPv6.
    let header = |from: &str, bytes: &[u8]| {
        let family = if from.starts_with('[') { 0x22 } else { 0x12 };
        let header = proxy_header::raw(0x21, family, &proxy_header::addresses(from));
        [&header, bytes].concat()
    };
    let good = header("192.0.2.7:4711", b"good");
    let mut other_version = good.clone();
    other_version[12] = 0x31;
    let bad = [
        b"bare".to_vec(),
        Vec::new(),
        good[..20].to_vec(),
        b"PROXY UDP4 192.0.2.7 192.0.2.80 4711 443\r\nbare".to_vec(),
        other_version,
    ];
    for counted in 1..=2 {
        for (number, bytes) in (1..).zip(&bad) {
            client.send(bytes);
            let all = (counted - 1) * bad.len() as u64 + number;
            eventually("it is counted", || {
                count(&balancer, "datagrams_malformed") == all
            });
        }
        // In a flow it is no different.
        client.send(&good);
        assert_eq!(client.receive(), b"good");
    }
    assert_eq!(server.received(), 2, "nothing else");
    // One sender speaks for many.
    let third = header("[2001:db8::7]:4711", b"third");
    client.send(&third);
    assert_eq!(client.receive(), b"third");
    assert_eq!((count(&balancer, "flows"), server.sources().len()), (2, 2));
    balancer.settle();
    for from in [" 192.0.2.7:4711 [", " 2001:db8::7:4711 ["] {
        syslog.wait_line(from);
    }
    assert_eq!(syslog.count(" idle"), 2);
}

/// What a server gets of a client of IPv6 before its datagrams.
#[test]
fn a_client_of_ipv6_is_named_as_such() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (
        DatagramServer::start(|_| vec![b"yes".to_vec()]),
        free_port(),
    );
    let target = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
    let balancer = Balancer::start(format!(
        "listen u\n    mode udp\n    bind {target}\n    udp-proxy-header every\n    \
         timeout udp 2s\n    server s {} send-proxy-v2\n",
        server.address()
    ));
    let client = DatagramClient::new(target, 1);
    for number in 0..3u8 {
        client.send(&[number; 9]);
        assert_eq!(client.receive(), b"yes");
        let mut body = [Ipv6Addr::LOCALHOST.octets(); 2].concat();
        body.extend(client.address().port().to_be_bytes());
        body.extend(port.to_be_bytes());
        let header = proxy_header::raw(0x21, 0x22, &body);
        let arrival = server.arrivals().pop().expect("a datagram");
        assert_eq!(arrival.bytes, [&header[..], &[number; 9]].concat());
    }
    balancer.settle();
}
