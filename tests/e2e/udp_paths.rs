//! The ways of datagrams: lengths over the path's MTU and pieces, ECN and DSCP, addresses of
//! wildcards, servers that see the client's own address.
//!
//! What needs devices of its own is done in networks of its own, by the recipe of
//! `docs/transparent.md`.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use socket2::SockRef;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer, PATIENCE};
use crate::support::networks::may_have_networks;
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, skip, turn};
use crate::transparent::{BACK, CLIENT, FRONT, Row, SERVER};

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

/// A socket that tells the traffic class (DSCP and ECN) of what it receives.
struct Marked(UdpSocket);

impl Marked {
    fn bind(ip: IpAddr) -> Marked {
        let socket = UdpSocket::bind((ip, 0)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        match ip {
            IpAddr::V4(_) => setsockopt(&socket, sockopt::IpRecvTos, &true),
            IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvTClass, &true),
        }
        .expect("it tells the traffic class");
        Marked(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }

    fn send(&self, class: u8, bytes: &[u8], to: SocketAddr) {
        let socket = SockRef::from(&self.0);
        let set = match to {
            SocketAddr::V4(_) => socket.set_tos_v4(class.into()),
            SocketAddr::V6(_) => socket.set_tclass_v6(class.into()),
        };
        set.expect("a traffic class");
        assert_eq!(self.0.send_to(bytes, to).expect("send"), bytes.len());
    }

    /// The class of the next datagram, its only byte and its sender.
    fn receive(&self) -> (u8, u8, SocketAddr) {
        let from = loop {
            match self.0.peek_from(&mut [0; 9]) {
                Ok((_, from)) => break from,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("receive: {error}"),
            }
        };
        let (mut bytes, mut room) = ([0; 9], nix::cmsg_space!(i32));
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::empty();
        let fd = self.0.as_raw_fd();
        let got = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut room), flags);
        let got = got.expect("what was seen before");
        let class = got
            .cmsgs()
            .expect("room")
            .find_map(|message| match message {
                ControlMessageOwned::Ipv4Tos(class) => Some(class),
                ControlMessageOwned::Ipv6TClass(class) => u8::try_from(class).ok(),
                _ => None,
            });
        assert_eq!(got.bytes, 1);
        (class.expect("a traffic class"), bytes[0], from)
    }
}

#[test]
fn ecn_and_dscp_are_carried_both_ways() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    // DSCP 0, 46 (EF), 10 (AF11), 63 with each value of ECN.
    let classes: Vec<u8> = [0, 46, 10, 63]
        .into_iter()
        .flat_map(|dscp| (0..4).map(move |ecn| dscp << 2 | ecn))
        .collect();
    for (ip, sockets) in [
        (IpAddr::from(Ipv4Addr::LOCALHOST), "pool"),
        (IpAddr::from(Ipv4Addr::LOCALHOST), "dedicated"),
        (IpAddr::from(Ipv6Addr::LOCALHOST), "pool"),
        (IpAddr::from(Ipv6Addr::LOCALHOST), "dedicated"),
    ] {
        let (server, client) = (Marked::bind(ip), Marked::bind(ip));
        let listener = SocketAddr::new(ip, free_port());
        let balancer = Balancer::start(format!(
            "listen u\n    mode udp\n    bind {listener}\n    timeout udp 2s\n    \
             udp-sockets {sockets}\n    server s {}\n",
            server.address()
        ));
        for (number, class) in (0..).zip(&classes) {
            client.send(*class, &[number], listener);
            let (seen, byte, from) = server.receive();
            assert_eq!((seen, byte), (*class, number), "{ip} {sockets}, there");
            let back = class ^ 0xff;
            server.send(back, &[number], from);
            assert_eq!(client.receive(), (back, number, listener), "{ip} {sockets}");
        }
        // Also where several leave in one turn.
        for (number, class) in (0..).zip(&classes) {
            client.send(*class, &[number], listener);
        }
        for (number, class) in (0..).zip(&classes) {
            let (seen, byte, _) = server.receive();
            assert_eq!((seen, byte), (*class, number), "{ip} {sockets}, at once");
        }
        balancer.settle();
    }
}

/// What an echo needs in networks of a row: a client in the first, a server in the last.
fn client_in(row: &Row, own: &str, target: SocketAddr, flow: u32) -> DatagramClient {
    let own = SocketAddr::new(own.parse().unwrap(), 0);
    row.client
        .run(move || DatagramClient::from(own, target, flow))
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn echo_in(row: &Row, ip: &str) -> DatagramServer {
    let ip: IpAddr = ip.parse().unwrap();
    row.server.run(move || DatagramServer::echo_on(ip))
}

#[test]
fn fragments_pass_and_a_wildcard_answers_from_each_of_its_addresses() {
    let _turn = turn::shared();
    if skip("it has no UDP") || !may_have_networks() {
        return;
    }
    let row = Row::new();
    for family in 0..2 {
        let (server, port) = (echo_in(&row, SERVER[family]), free_port());
        let any = ["0.0.0.0", "[::]"][family];
        let balancer = row.start_balancer(Setup::new(format!(
            "listen u\n    mode udp\n    bind {any}:{port}\n    timeout udp 2s\n    \
             server s {}\n",
            server.address()
        )));
        // The far side's address is the balancer's as well.
        for (flow, ip) in [(0, FRONT[family]), (1, BACK[family])] {
            let client = client_in(&row, CLIENT[family], at(ip, port), flow);
            let lengths = [0, 1, 1_400, 1_473, 2_960, 9_000, 60_000, 65_507];
            for (number, length) in (0..).zip(lengths) {
                client.exchange(number, length);
            }
        }
        assert_eq!(count(&balancer, "flows"), 2);
        assert_eq!(count(&balancer, "datagrams_too_large"), 0);
        balancer.settle();
    }
}

#[test]
fn datagrams_over_the_mtu_leave_in_fragments_or_are_refused() {
    let _turn = turn::shared();
    if skip("it has no UDP") || !may_have_networks() {
        return;
    }
    let row = Row::new();
    row.balancer.ip("link set back mtu 1300");
    row.server.ip("link set server mtu 1300");
    for (family, overhead) in [(0, 28), (1, 48)] {
        let (server, ports) = (echo_in(&row, SERVER[family]), [free_port(), free_port()]);
        let mut text = String::new();
        for (port, fragment) in ports.into_iter().zip(["on", "off"]) {
            text += &format!(
                "listen {fragment}\n    mode udp\n    bind {}\n    timeout udp 2s\n    \
                 udp-fragment {fragment}\n    server s {}\n",
                at(FRONT[family], port),
                server.address()
            );
        }
        let balancer = row.start_balancer(Setup::new(text));
        let [on, off] =
            ports.map(|port| client_in(&row, CLIENT[family], at(FRONT[family], port), 1));
        let most = 1_300 - overhead;
        for (number, length) in (0..).zip([most, most + 1, 1_400, 5_000]) {
            on.exchange(number, length);
        }
        assert_eq!(count(&balancer, "datagrams_too_large"), 0);
        off.exchange(0, most);
        for (number, length) in (1..).zip([most + 1, 1_400, 5_000]) {
            off.send_payload(number, length);
            eventually("it is counted", || {
                count(&balancer, "datagrams_too_large") == u64::from(number)
            });
        }
        off.exchange(9, most);
        // A train is cut where it does not fit.
        off.send_train(10, 4, most + 1, 20);
        off.receive_payload(13, 20);
        assert_eq!(count(&balancer, "datagrams_too_large"), 6);
        balancer.settle();
        assert_eq!(server.received(), 7);
    }
}

/// The same on the way to the client, which the frontend decides.
#[test]
fn answers_over_the_mtu_are_the_frontends_matter() {
    let _turn = turn::shared();
    if skip("it has no UDP") || !may_have_networks() {
        return;
    }
    let row = Row::new();
    row.balancer.ip("link set front mtu 1300");
    row.client.ip("link set client mtu 1300");
    let server: IpAddr = SERVER[0].parse().unwrap();
    let answer = |arrival: &crate::support::datagram::Arrival| match arrival.bytes.len() {
        1 => vec![vec![7; 1_400], vec![8; 20]],
        _ => vec![arrival.bytes.clone()],
    };
    let server = row
        .server
        .run(move || DatagramServer::start_on(server, answer));
    for (fragment, arrives) in [("on", true), ("off", false)] {
        let port = free_port();
        let balancer = row.start_balancer(Setup::new(format!(
            "frontend u\n    mode udp\n    bind {}\n    timeout udp 3s\n    \
             udp-fragment {fragment}\n    default_backend b\n\
             backend b\n    mode udp\n    server s {}\n",
            at(FRONT[0], port),
            server.address()
        )));
        let client = client_in(&row, CLIENT[0], at(FRONT[0], port), 1);
        client.send(b"?");
        if arrives {
            assert_eq!(client.receive(), [7; 1_400]);
        }
        assert_eq!(client.receive(), [8; 20]);
        let refused = u64::from(!arrives);
        // The shard tells its numbers at the end of the turn in which it has sent.
        eventually("it is counted", || {
            count(&balancer, "datagrams_too_large") == refused
        });
        balancer.settle();
    }
}

#[test]
fn servers_see_the_clients_address_and_may_write_to_it() {
    let _turn = turn::shared();
    if skip("it has no UDP") || !may_have_networks() {
        return;
    }
    let row = Row::new();
    row.takes_all_of(&["back"]);
    for (family, any) in [(0, "0.0.0.0"), (1, "[::]")] {
        let ip: IpAddr = SERVER[family].parse().unwrap();
        // It says whom it sees.
        let server = row.server.run(move || {
            DatagramServer::start_on(ip, |arrival| vec![arrival.from.to_string().into_bytes()])
        });
        for whose in ["clientip", "client"] {
            let port = free_port();
            let balancer = row.start_balancer(Setup::new(format!(
                "listen u\n    mode udp\n    bind {}\n    timeout udp 2s\n    \
                 source {any} usesrc {whose}\n    server s {}\n",
                at(FRONT[family], port),
                server.address()
            )));
            let clients: Vec<_> = (0..3)
                .map(|flow| client_in(&row, CLIENT[family], at(FRONT[family], port), flow))
                .collect();
            for client in &clients {
                let see = || {
                    client.send(b"whom?");
                    let seen = String::from_utf8(client.receive()).unwrap();
                    seen.parse::<SocketAddr>().unwrap()
                };
                let seen = see();
                assert_eq!(seen.ip(), client.address().ip(), "{whose}");
                if whose == "client" {
                    assert_eq!(seen.port(), client.address().port());
                }
                assert_eq!(see(), seen, "a flow has one address");
                // It answers from the listener's address, whenever it likes.
                server.speak(seen, b"by the way");
                assert_eq!(client.receive(), b"by the way");
            }
            assert_eq!(count(&balancer, "flow_sockets"), 3);
            balancer.settle();
            assert_eq!(count(&balancer, "flow_sockets"), 0);
        }
    }
}

/// After the end of a flow nobody hears what its server sends; where servers may speak first, it
/// ends later.
#[test]
fn a_server_speaks_to_the_clients_address_as_long_as_the_flow_is_there() {
    let _turn = turn::shared();
    if skip("it has no UDP") || !may_have_networks() {
        return;
    }
    let row = Row::new();
    row.takes_all_of(&["back"]);
    let mapping = "    option udp-bidirectional\n    timeout udp-mapping 8s\n";
    for (lines, is_heard) in [("", false), (mapping, true)] {
        let (server, port) = (echo_in(&row, SERVER[0]), free_port());
        let balancer = row.start_balancer(Setup::new(format!(
            "listen u\n    mode udp\n    bind {}\n    timeout udp 2s\n{lines}    \
             source 0.0.0.0 usesrc client\n    server s {}\n",
            at(FRONT[0], port),
            server.address()
        )));
        let client = client_in(&row, CLIENT[0], at(FRONT[0], port), 1);
        client.exchange(1, 64);
        if is_heard {
            // More than the idle time.
            client.expect_silence(Duration::from_secs(3));
            assert_eq!(count(&balancer, "flows"), 1);
        } else {
            eventually("it ends", || count(&balancer, "flows") == 0);
        }
        server.speak(client.address(), b"are you there?");
        if is_heard {
            assert_eq!(client.receive(), b"are you there?");
        } else {
            client.expect_silence(Duration::from_millis(50));
            assert_eq!(count(&balancer, "datagrams_from_servers"), 1);
        }
        // The port is free again for the same client.
        balancer.settle();
        client.exchange(2, 64);
        assert_eq!(server.sources(), [client.address()].into());
        balancer.settle();
    }
}
