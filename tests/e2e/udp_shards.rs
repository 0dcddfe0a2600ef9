//! Many shards: the datagrams of a flow come to one of them, at every listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, skip, sys, turn};

const SHARDS: u32 = 6;
const CLIENTS: u32 = 60;

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

/// Flows of clients of these targets: each is one, in one shard, also after a second and third
/// datagram.
fn exchange(balancer: &Balancer, targets: &[SocketAddr]) -> Vec<DatagramClient> {
    let mut clients = Vec::new();
    for (target, first) in targets.iter().zip((0..).step_by(CLIENTS as usize)) {
        clients.extend((0..CLIENTS).map(|number| DatagramClient::new(*target, first + number)));
    }
    for number in 0..3 {
        for client in &clients {
            client.send_payload(number, 80);
        }
        for client in &clients {
            client.receive_payload(number, 80);
        }
        eventually("each has one flow", || {
            count(balancer, "flows") == clients.len() as u64
        });
    }
    clients
}

#[test]
fn flows_stay_in_their_shard_at_every_listener() {
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    for more in ["", "tune.ring.without steering"] {
        let server = DatagramServer::counting_echo();
        let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
        let v4: IpAddr = Ipv4Addr::LOCALHOST.into();
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let [one, two, three, wildcard] = ports;
        let mut setup = Setup::new(format!(
            "frontend a\n    mode udp\n    bind 127.0.0.1:{one}\n    bind udp@[::1]:{two}\n    \
             timeout udp 6s\n    default_backend b\n\
             frontend c\n    mode udp\n    bind 127.0.0.1:{three}\n    bind udp@*:{wildcard}\n    \
             timeout udp 6s\n    default_backend b\n\
             backend b\n    mode udp\n    server s {}\n",
            server.address()
        ))
        .shards(SHARDS);
        if !more.is_empty() {
            setup = setup.global(more);
        }
        let balancer = setup.start();
        let targets = [(v4, one), (v6, two), (v4, three), (v4, wildcard)].map(SocketAddr::from);
        let clients = exchange(&balancer, &targets);
        let each = balancer.activity().of_each_shard("flows");
        assert_eq!(each.len(), SHARDS as usize);
        let even = clients.len() as u64 / u64::from(SHARDS);
        for flows in &each {
            assert!((even / 3..=even * 3).contains(flows), "{more}: {each:?}");
        }
        server.wait_received(3 * clients.len() as u64);
        balancer.settle();
        let stat = balancer.stat();
        for frontend in ["a", "c"] {
            let flows = stat.number(frontend, "FRONTEND", "stot");
            assert_eq!(flows, 2 * u64::from(CLIENTS), "{frontend}");
        }
    }
}

/// A listener with fewer sockets than there are shards is the first ones' alone.
#[test]
fn a_listener_may_have_fewer_sockets_than_there_are_shards() {
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let (server, all, two) = (DatagramServer::counting_echo(), free_port(), free_port());
    let balancer = Setup::new(format!(
        "listen u\n    mode udp\n    bind 127.0.0.1:{all}\n    bind 127.0.0.1:{two} shards 2\n    \
         timeout udp 6s\n    server s {}\n",
        server.address()
    ))
    .shards(4)
    .start();
    let clients = exchange(&balancer, &[([127, 0, 0, 1], two).into()]);
    let each = balancer.activity().of_each_shard("flows");
    assert!(each[0] > 10 && each[1] > 10, "{each:?}");
    assert_eq!(each[2..], [0, 0]);
    drop(clients);
    balancer.settle();
    exchange(&balancer, &[([127, 0, 0, 1], all).into()]);
    let each = balancer.activity().of_each_shard("flows");
    assert!(each.iter().all(|flows| *flows > 0), "{each:?}");
    balancer.settle();
}

/// Behind IPv4 options and extension headers of IPv6 the port is not where it usually lies. The
/// address alone decides then: the datagrams of a flow still come to one shard, and so do all flows
/// of an address, wherever those without come to.
#[test]
fn flows_behind_options_stay_in_their_shard() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    // Three times "no operation" and the end; a destination option that fills its header.
    let none_of_v4 = [1, 1, 1, 0];
    let none_of_v6 = [0, 0, 1, 4, 0, 0, 0, 0];
    for (own, level, name, option) in [
        (
            "127.0.0.1",
            libc::IPPROTO_IP,
            libc::IP_OPTIONS,
            &none_of_v4[..],
        ),
        ("::1", libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &none_of_v6),
    ] {
        let own: IpAddr = own.parse().unwrap();
        let (server, target) = (
            DatagramServer::counting_echo(),
            SocketAddr::new(own, free_port()),
        );
        let balancer = Setup::new(format!(
            "listen u\n    mode udp\n    bind {target}\n    timeout udp 1h\n    server s {}\n",
            server.address()
        ))
        .shards(4)
        .start();
        let clients: Vec<_> = (0..40)
            .map(|flow| DatagramClient::new(target, flow))
            .collect();
        let mut options_set = true;
        for client in &clients {
            if let Err(error) = sys::set_option(client.socket(), level, name, option) {
                eprintln!("left out for {own}, where options need a right: {error}");
                options_set = false;
                break;
            }
        }
        if !options_set {
            continue;
        }
        for number in 0..3 {
            clients
                .iter()
                .for_each(|client| client.exchange(number, 80));
        }
        let each = balancer.activity().of_each_shard("flows");
        let shards_used = each.iter().filter(|flows| **flows > 0).count();
        assert_eq!((shards_used, each.iter().sum()), (1, 40), "{own}: {each:?}");
        // Others of the same address are where their ports lead them.
        let others: Vec<_> = (0..40)
            .map(|flow| DatagramClient::new(target, flow))
            .collect();
        others.iter().for_each(|client| client.exchange(1, 80));
        let each = balancer.activity().of_each_shard("flows");
        assert_eq!(each.iter().sum::<u64>(), 80);
        assert!(
            each.iter().filter(|flows| **flows > 0).count() > 1,
            "{own}: {each:?}"
        );
    }
}
