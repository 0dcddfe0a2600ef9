//! Datagrams longer than their path takes, where a router on the way finds that out: by default
//! they arrive in fragments once it has said so, and with `udp-fragment off` they are gone and
//! counted. No other datagram is lost for it, whichever comes next.
//!
//! The networks here have a router at each side of the balancer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer, PATIENCE};
use crate::support::networks::{Network, may_have_networks};
use crate::support::port::free_port;
use crate::support::{Balancer, Stopwatch, eventually, skip, turn};

/// Addresses of both families: of the client, of the balancer towards it, of the server.
const CLIENT: [&str; 2] = ["10.79.1.2", "fd79:1::2"];
const FRONT: [&str; 2] = ["10.79.2.1", "fd79:2::1"];
const SERVER: [&str; 2] = ["10.79.4.2", "fd79:4::2"];

/// What the narrow links take: a datagram of 1,400 bytes is too long, though every interface of
/// the balancer takes 1,500.
const NARROW: u32 = 1_300;
const TOO_LONG: usize = 1_400;
const SHORT: usize = 1_200;

/// Five networks in a row.
struct Routed {
    client: Network,
    balancer: Network,
    server: Network,
    near: Network,
    far: Network,
}

impl Routed {
    /// The networks and their routes; `None` where the test is left out, which has been said.
    fn new() -> Option<Routed> {
        if skip("it has no UDP") || !may_have_networks() {
            return None;
        }
        let routed = Routed {
            client: Network::new(),
            balancer: Network::new(),
            server: Network::new(),
            near: Network::new(),
            far: Network::new(),
        };
        let links = [
            (1, &routed.near, &routed.client, ["clients", "client"]),
            (2, &routed.balancer, &routed.near, ["front", "inside"]),
            (3, &routed.balancer, &routed.far, ["back", "outside"]),
            (4, &routed.far, &routed.server, ["servers", "server"]),
        ];
        for (number, one, other, devices) in links {
            let ends = [1, 2].map(|host| {
                let v6 = format!("fd79:{number}::{host}/64");
                [format!("10.79.{number}.{host}/24"), v6]
            });
            let [near, far] = &ends;
            let addresses = [[&*near[0], &*near[1]], [&*far[0], &*far[1]]];
            one.connect(other, devices, addresses);
        }
        for device in ["front", "back"] {
            // As a wire does: a pair of devices here would hand over several datagrams as one,
            // and the router would refuse all of them for the longest.
            let one_by_one = format!("link set {device} gso_max_segs 1");
            routed.balancer.ip(&one_by_one);
        }
        for (network, to, by) in [
            (&routed.client, None, [1, 1]),
            (&routed.near, None, [2, 1]),
            (&routed.balancer, Some(1), [2, 2]),
            (&routed.balancer, Some(4), [3, 2]),
            (&routed.far, None, [3, 1]),
            (&routed.server, None, [4, 1]),
        ] {
            let [v4, v6] = match to {
                None => ["default".to_owned(), "default".to_owned()],
                Some(net) => [format!("10.79.{net}.0/24"), format!("fd79:{net}::/64")],
            };
            let [net, host] = by;
            network.ip(&format!("route add {v4} via 10.79.{net}.{host}"));
            network.ip(&format!("-6 route add {v6} via fd79:{net}::{host}"));
        }
        for router in [&routed.near, &routed.far] {
            let forwards = || {
                let one = |path: &str| std::fs::write(format!("/proc/sys/net/{path}"), "1");
                one("ipv4/ip_forward").and_then(|()| one("ipv6/conf/all/forwarding"))
            };
            if let Err(error) = router.run(forwards) {
                eprintln!("left out: no network can be made a router: {error}");
                return None;
            }
        }
        Some(routed)
    }

    /// The link of the server takes less than all before it.
    fn narrow_at_server(&self) {
        self.far.ip(&format!("link set servers mtu {NARROW}"));
        self.server.ip(&format!("link set server mtu {NARROW}"));
    }

    /// The same at the client.
    fn narrow_at_client(&self) {
        self.near.ip(&format!("link set clients mtu {NARROW}"));
        self.client.ip(&format!("link set client mtu {NARROW}"));
    }

    fn start_balancer(&self, text: String) -> Balancer {
        self.balancer.run(move || Setup::new(text).start())
    }

    fn client(&self, family: usize, port: u16, flow: u32) -> DatagramClient {
        let [own, target] = [at(CLIENT[family], 0), at(FRONT[family], port)];
        self.client
            .run(move || DatagramClient::from(own, target, flow))
    }

    fn echo(&self, family: usize) -> DatagramServer {
        let ip: IpAddr = SERVER[family].parse().unwrap();
        self.server.run(move || DatagramServer::echo_on(ip))
    }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

fn proxy(family: usize, port: u16, server: SocketAddr, lines: &str) -> String {
    let bind = at(FRONT[family], port);
    format!(
        "listen u{port}\n    mode udp\n    bind {bind}\n    timeout udp 60s\n    {lines}\n    \
         server s {server}\n"
    )
}

/// Asks again, each time from another flow, until an answer of the expected length has come: what
/// is too long for the path is lost until a router has said so.
fn until_learned(ask: impl Fn(u32) -> DatagramClient, length: usize) {
    let watch = Stopwatch::start();
    for flow in 1_000.. {
        let client = ask(flow);
        let answer = client.try_receive(Duration::from_millis(200));
        match answer {
            Some((bytes, _)) if bytes.len() == length => return,
            Some(_) | None => assert!(watch.elapsed() < PATIENCE, "{length} bytes never come"),
        }
    }
}

#[test]
fn what_a_router_refuses_on_the_way_to_a_server_is_counted_and_costs_nothing_else() {
    let _turn = turn::shared();
    let Some(routed) = Routed::new() else {
        return;
    };
    routed.narrow_at_server();
    for (family, sockets) in [(0, "pool"), (1, "pool"), (0, "dedicated"), (1, "dedicated")] {
        let (server, port) = (routed.echo(family), free_port());
        let lines = format!("udp-fragment off\n    udp-sockets {sockets}");
        let balancer = routed.start_balancer(proxy(family, port, server.address(), &lines));
        let client = routed.client(family, port, 1);
        client.exchange(0, SHORT);
        // Short ones before and behind it, by several calls. Each has its answer: none of them
        // meets what the router says of the long one.
        let lengths = [SHORT, TOO_LONG, 100, SHORT, 100, SHORT];
        for (round, first) in (1..=20).zip((1..).step_by(lengths.len())) {
            for (number, length) in (first..).zip(lengths) {
                client.send_payload(number, length);
            }
            for (number, length) in (first..).zip(lengths) {
                if length != TOO_LONG {
                    client.receive_payload(number, length);
                }
            }
            eventually("it is counted", || {
                count(&balancer, "datagrams_too_large") == round
            });
        }
        // Also where several leave by one call.
        client.send_train(1_000, 8, TOO_LONG, 20);
        client.receive_payload(1_007, 20);
        client.send_train(2_000, 8, 100, 20);
        for number in 2_000..2_007 {
            client.receive_payload(number, 100);
        }
        client.receive_payload(2_007, 20);
        eventually("all are counted", || {
            count(&balancer, "datagrams_too_large") == 27
        });
        let what = format!("{} {sockets}", FRONT[family]);
        assert_eq!(count(&balancer, "flows"), 1, "{what}");
        assert_eq!(count(&balancer, "datagrams_undeliverable"), 0, "{what}");
        assert_eq!(server.sources().len(), 1, "{what}");
        drop((balancer, client, server));
    }
}

#[test]
fn what_is_too_long_for_the_path_to_a_server_arrives_in_fragments_by_default() {
    let _turn = turn::shared();
    let Some(routed) = Routed::new() else {
        return;
    };
    routed.narrow_at_server();
    for (family, sockets) in [(0, "pool"), (1, "dedicated")] {
        let (server, port) = (routed.echo(family), free_port());
        let lines = format!("udp-sockets {sockets}");
        let balancer = routed.start_balancer(proxy(family, port, server.address(), &lines));
        until_learned(
            |flow| {
                let client = routed.client(family, port, flow);
                client.send_payload(0, TOO_LONG);
                client
            },
            TOO_LONG,
        );
        // Nothing is lost from then on.
        let client = routed.client(family, port, 1);
        for (number, length) in (0..).zip([TOO_LONG, SHORT, 1_472, 5_000, 60_000, 0, TOO_LONG]) {
            client.exchange(number, length);
        }
        client.send_train(10, 8, TOO_LONG, 20);
        for number in 10..17 {
            client.receive_payload(number, TOO_LONG);
        }
        client.receive_payload(17, 20);
        drop((balancer, client, server));
    }
}

/// The other way, which the frontend decides.
#[test]
fn what_is_too_long_for_the_path_to_a_client_is_lost_alone_or_arrives_in_fragments() {
    let _turn = turn::shared();
    let Some(routed) = Routed::new() else {
        return;
    };
    routed.narrow_at_client();
    for (family, ip) in SERVER.into_iter().enumerate() {
        let ip: IpAddr = ip.parse().unwrap();
        // A long answer, and a short one behind it.
        let server = routed
            .server
            .run(move || DatagramServer::start_on(ip, |_| vec![vec![7; TOO_LONG], vec![8; SHORT]]));
        let ports = [free_port(), free_port()];
        let [on, off] = ports;
        let text = proxy(family, on, server.address(), "udp-fragment on")
            + &proxy(family, off, server.address(), "udp-fragment off");
        let balancer = routed.start_balancer(text);
        let client = routed.client(family, off, 1);
        for _ in 0..20 {
            client.send(b"?");
            assert_eq!(client.receive(), [8; SHORT]);
        }
        assert_eq!(count(&balancer, "flows"), 1);
        until_learned(
            |flow| {
                let client = routed.client(family, on, flow);
                client.send(b"?");
                client
            },
            TOO_LONG,
        );
        let client = routed.client(family, on, 2);
        for _ in 0..20 {
            client.send(b"?");
            assert_eq!(client.receive(), [7; TOO_LONG]);
            assert_eq!(client.receive(), [8; SHORT]);
        }
        drop((balancer, client, server));
    }
}

/// Each refusal of the balancer's own interface leaves a note in the socket, which has to be taken
/// away: they would take the room that answers need.
#[test]
fn whatever_the_interface_refuses_answers_have_room() {
    let _turn = turn::shared();
    let Some(routed) = Routed::new() else {
        return;
    };
    routed.balancer.ip(&format!("link set back mtu {NARROW}"));
    routed.far.ip(&format!("link set outside mtu {NARROW}"));
    for family in 0..2 {
        let (server, port) = (routed.echo(family), free_port());
        let lines = "udp-fragment off";
        let balancer = routed.start_balancer(proxy(family, port, server.address(), lines));
        let client = routed.client(family, port, 1);
        client.exchange(0, SHORT);
        // More notes than a socket has room for, and no more at a time than queues have.
        for first in (1..6_001).step_by(500) {
            for number in first..first + 500 {
                client.send_payload(number, TOO_LONG);
            }
            eventually("they are counted", || {
                count(&balancer, "datagrams_too_large") == u64::from(first) + 499
            });
        }
        client.exchange(6_001, SHORT);
        assert_eq!(server.received(), 2);
        drop((balancer, client, server));
    }
}
