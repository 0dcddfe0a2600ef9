//! Reload in place with flows of datagrams across it.

use crate::reload::{change, reload, rewrite};
use crate::support::balancer::Setup;
use crate::support::client::local;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::{datagram_sockets_on, free_port};
use crate::support::{Balancer, eventually, skip, turn};

fn listen(name: &str, port: u16, idle: &str, servers: &[(&str, &DatagramServer)]) -> String {
    let mut text = format!(
        "listen {name}\n    mode udp\n    balance roundrobin\n    bind 127.0.0.1:{port}\n    \
         timeout udp {idle}\n"
    );
    for (name, server) in servers {
        text.push_str(&format!("    server {name} {}\n", server.address()));
    }
    text
}

fn flows(balancer: &Balancer) -> u64 {
    balancer.activity().number("flows").expect("flows")
}

#[test]
fn flows_stay_with_their_servers_and_new_ones_follow_the_file() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let servers = [(); 3].map(|()| DatagramServer::counting_echo());
    let [a, b, c] = &servers;
    let port = free_port();
    let balancer = Balancer::start(listen("u", port, "60s", &[("a", a)]));
    let before: Vec<_> = (0..8)
        .map(|flow| DatagramClient::new(local(port), flow))
        .collect();
    before.iter().for_each(|client| client.exchange(0, 100));
    assert_eq!(a.received(), 8);
    // One more, then another in the place of the first.
    change(&balancer, &listen("u", port, "60s", &[("a", a), ("b", b)]));
    before.iter().for_each(|client| client.exchange(1, 100));
    assert_eq!((a.received(), b.received()), (16, 0));
    let between: Vec<_> = (8..16)
        .map(|flow| DatagramClient::new(local(port), flow))
        .collect();
    between.iter().for_each(|client| client.exchange(0, 100));
    assert_eq!((a.received(), b.received()), (20, 4));
    change(&balancer, &listen("u", port, "50s", &[("c", c), ("b", b)]));
    before.iter().for_each(|client| client.exchange(2, 100));
    assert_eq!(
        (a.received(), c.received()),
        (28, 0),
        "flows of a removed server stay"
    );
    let after: Vec<_> = (16..24)
        .map(|flow| DatagramClient::new(local(port), flow))
        .collect();
    after.iter().for_each(|client| client.exchange(0, 100));
    assert_eq!((a.received(), b.received() + c.received()), (28, 12));
    let stat = balancer.stat();
    assert_eq!(stat.text("u", "a", "status"), "DRAIN (removed)");
    assert_eq!((stat.number("u", "a", "scur"), flows(&balancer)), (12, 24));
    assert_eq!(stat.number("u", "BACKEND", "scur"), 24);
}

#[test]
fn listeners_of_datagrams_come_and_go() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let server = DatagramServer::echo();
    let [one, two] = [(); 2].map(|()| free_port());
    let tcp = free_port();
    let stream = format!("listen t\n    bind 127.0.0.1:{tcp}\n    server s 127.0.0.1:1\n");
    let (first, second) = (
        listen("u", one, "1s", &[("s", &server)]),
        listen("v", two, "1s", &[("s", &server)]),
    );
    let balancer = Balancer::start(stream.clone() + &first);
    let client = DatagramClient::new(local(one), 1);
    client.exchange(0, 100);
    change(&balancer, &(stream.clone() + &first + &second));
    let other = DatagramClient::new(local(two), 2);
    other.exchange(0, 100);
    client.exchange(1, 100);
    // It goes: what it has goes on, and nothing new begins.
    let sockets = datagram_sockets_on(two);
    change(&balancer, &(stream.clone() + &first));
    assert_eq!(datagram_sockets_on(two), sockets);
    other.exchange(1, 100);
    // The same address for somebody else would be heard by both.
    let moved = listen("w", two, "1s", &[("s", &server)]);
    rewrite(&balancer, &Setup::new(stream.clone() + &first + &moved));
    client.exchange(2, 100);
    eventually("its sockets are closed with its last flow", || {
        datagram_sockets_on(two) == 0
    });
    eventually("it is gone", || {
        !balancer.stats("show stat").contains("\nv,")
    });
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=1\n"), "{answer}");
    DatagramClient::new(local(two), 3).exchange(0, 100);
    // Moved while it has a flow: refused, and all is as it was.
    let again = listen("x", two, "1s", &[("s", &server)]);
    rewrite(&balancer, &Setup::new(stream.clone() + &first + &again));
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=0\n"), "{answer}");
    assert!(
        answer.contains("is that of a listener which is taken away"),
        "{answer}"
    );
    DatagramClient::new(local(two), 4).exchange(0, 100);
    assert_eq!(balancer.stat().text("w", "FRONTEND", "status"), "OPEN");
}

#[test]
fn the_first_listener_of_datagrams_needs_a_restart() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let server = DatagramServer::echo();
    let [tcp, udp] = [(); 2].map(|()| free_port());
    let stream = format!("listen t\n    bind 127.0.0.1:{tcp}\n    server s 127.0.0.1:1\n");
    let balancer = Balancer::start(stream.as_str());
    let both = stream + &listen("u", udp, "1s", &[("s", &server)]);
    rewrite(&balancer, &Setup::new(both));
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=0\n"), "{answer}");
    assert!(answer.contains("a restart is needed"), "{answer}");
    assert_eq!(datagram_sockets_on(udp), 0);
    balancer.settle();
}
