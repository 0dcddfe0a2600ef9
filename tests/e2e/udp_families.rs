//! IPv4 and IPv6 side by side: listeners of both, clients that are one address by each of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, Syslog, eventually, skip, turn};

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn one_listener_of_both_families_answers_each_as_it_was_asked() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, syslog, port) = (DatagramServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen u\n    mode udp\n    bind [::]:{port} v4v6\n    timeout udp 4s\n    \
         balance source\n    udp-source-flows 2\n    option udplog\n    log {} local0\n    \
         server s {}\n",
        syslog.address(),
        server.address()
    ));
    let any: [IpAddr; 2] = ["127.0.0.1", "::1"].map(|ip| ip.parse().unwrap());
    let targets: [(&str, usize); 3] = [("127.0.0.2", 0), ("127.0.0.3", 0), ("::1", 1)];
    let clients: Vec<_> = (0..)
        .zip(targets)
        .map(|(flow, (target, own))| {
            let target = SocketAddr::new(target.parse().unwrap(), port);
            DatagramClient::from(SocketAddr::new(any[own], 0), target, flow)
        })
        .collect();
    for client in &clients {
        client.exchange(1, 64);
        client.exchange(2, 1_400);
    }
    assert_eq!(count(&balancer, "flows"), 3);
    // Both flows of IPv4 are one address's, written as such.
    let target = SocketAddr::new(any[0], port);
    DatagramClient::new(target, 9).send_payload(1, 64);
    eventually("it is refused", || {
        count(&balancer, "flows_refused_source") == 1
    });
    for client in &clients {
        let own = client.address();
        syslog.wait_line(&format!(" {}:{} [", own.ip(), own.port()));
    }
    balancer.settle();
}

/// A client of IPv4 is one address, whether a listener of IPv4 or one of both families hears it;
/// its server may be of the other family.
#[test]
fn an_address_has_its_server_by_every_listener() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let named = |ip: IpAddr, name: &'static str| {
        DatagramServer::start_on(ip, move |_| vec![name.as_bytes().to_vec()])
    };
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let servers = [named(v4, "a"), named(v6, "b"), named(v4, "c")];
    let ports = [free_port(), free_port()];
    let mut text = format!(
        "listen u\n    mode udp\n    bind 127.0.0.1:{}\n    bind [::]:{} v4v6\n    \
         timeout udp 4s\n    balance source\n    hash-type consistent\n",
        ports[0], ports[1]
    );
    for (number, server) in servers.iter().enumerate() {
        text += &format!("    server s{number} {}\n", server.address());
    }
    let balancer = Balancer::start(text);
    let mut used = BTreeSet::new();
    for host in 1..=40 {
        let own = SocketAddr::from(([127, 0, 9, host], 0));
        let names = ports.map(|port| {
            let client = DatagramClient::from(own, SocketAddr::new(v4, port), 1);
            client.send(b"who?");
            client.receive()
        });
        assert_eq!(names[0], names[1], "{own}");
        used.extend(names);
    }
    assert!(used.len() > 1, "{used:?}");
    balancer.settle();
}
