//! `tune.source-ports`: the ports of connections to servers, chosen by the balancer.
//!
//! All of it happens in networks of its own, with ranges of ports small enough to be used up. What
//! a client closes first leaves the connection to the server in TIME_WAIT on the balancer's side:
//! over a pair of devices the system itself doesn't use such a port again for a minute.

use std::collections::HashSet;
use std::io::Write;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::support::balancer::{Setup, skip};
use crate::support::client::{self, End, connect, connect_port, read_bytes, read_end, write};
use crate::support::networks::{Network, may_have_networks};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, server, turn};

/// Addresses of both families: the balancer's towards clients and towards servers, the server's.
const FRONT: [&str; 2] = ["10.79.1.1", "fd79:1::1"];
const BACK: [&str; 2] = ["10.79.2.1", "fd79:2::1"];
const SERVER: [&str; 2] = ["10.79.2.2", "fd79:2::2"];
const CLIENT: [&str; 2] = ["10.79.1.2", "fd79:1::2"];

/// The ports that the system chooses from in the balancer's network.
const LOW: u16 = 40_000;
const HIGH: u16 = 40_999;
/// The first one of the upper half.
const MIDDLE: u16 = 40_500;
/// Sessions that use up these ports several times over.
const MANY: u64 = 3 * 1000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Sets a parameter of a network.
fn set(network: &Network, name: &str, value: &str) {
    let path = format!("/proc/sys/net/ipv4/{name}");
    let value = value.to_owned();
    let set = move || std::fs::write(path, value);
    network.run(set).expect("set a parameter of a network");
}

/// A network with those ports.
fn network() -> Network {
    let network = Network::new();
    set(&network, "ip_local_port_range", &format!("{LOW} {HIGH}"));
    network
}

fn start(network: &Network, setup: Setup) -> Balancer {
    network.run(move || setup.start())
}

fn hold(network: &Network, address: IpAddr) -> MockServer {
    network.run(move || MockServer::hold_on(address))
}

/// A session of a client in the same network that has reached the server.
struct Opened {
    client: TcpStream,
    server: TcpStream,
    /// Where the server sees it come from.
    from: SocketAddr,
}

fn open(network: &Network, port: u16, server: &MockServer) -> Opened {
    let client = network.run(move || connect_port(port));
    write(&client, b"x");
    let server = server.next();
    read_bytes(&server, 1);
    let from = server.peer_addr().unwrap();
    Opened {
        client,
        server,
        from,
    }
}

fn ports(opened: &[Opened]) -> Vec<u16> {
    let mut ports: Vec<u16> = opened.iter().map(|opened| opened.from.port()).collect();
    ports.sort_unstable();
    ports
}

/// A client's network, the balancer's and a server's in a row, and an echo in the last one.
struct Row {
    client: Network,
    balancer: Network,
    _server: Network,
    echo: MockServer,
    front: SocketAddr,
}

impl Row {
    fn new(family: usize) -> Row {
        let (client, balancer, server) = (Network::new(), network(), Network::new());
        let v4 = |ip: [&str; 2]| format!("{}/24", ip[0]);
        let v6 = |ip: [&str; 2]| format!("{}/64", ip[1]);
        for (other, devices, near, far) in [
            (&client, ["front", "client"], FRONT, CLIENT),
            (&server, ["back", "server"], BACK, SERVER),
        ] {
            let [near, far] = [near, far].map(|ip| [v4(ip), v6(ip)]);
            let addresses = [[&*near[0], &*near[1]], [&*far[0], &*far[1]]];
            balancer.connect(other, devices, addresses);
        }
        let address = ip(SERVER[family]);
        let echo = server.run(move || MockServer::start_on(address, server::echo));
        Row {
            client,
            balancer,
            _server: server,
            echo,
            front: SocketAddr::new(ip(FRONT[family]), free_port()),
        }
    }

    /// A balancer of the echo with a line in its global section.
    fn start(&self, line: &str) -> Balancer {
        let body = format!(
            "listen l\n    bind {}\n    retries 0\n    server s {}\n",
            self.front,
            self.echo.address()
        );
        start(&self.balancer, Setup::new(body).global(line))
    }

    /// So many sessions one after the other, each closed by its client first; how many were echoed.
    fn visits(&self, count: u64) -> u64 {
        let front = self.front;
        let visit = move |_: &u64| {
            let client = connect(front);
            // Where no server is reached, the connection may be reset at any time.
            let _ = (&client).write_all(b"x");
            let _ = client.shutdown(Shutdown::Write);
            read_end(&client) == (b"x".to_vec(), End::Fin)
        };
        let visits = move || (0..count).filter(visit).count();
        u64::try_from(self.client.run(visits)).unwrap()
    }
}

/// Nobody fails for lack of a port, and others on the machine still find theirs.
#[test]
fn ports_are_chosen_when_ended_connections_hold_them() {
    if skip("HAProxy runs out of ports") {
        return;
    }
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    for family in [0, 1] {
        let row = Row::new(family);
        let balancer = row.start("tune.source-ports auto");
        let number = |name| balancer.activity().number(name).unwrap();
        assert_eq!(row.visits(100), 100);
        assert_eq!(
            (number("sources_chosen"), number("sources_destinations")),
            (0, 0)
        );
        assert_eq!(row.visits(MANY), MANY);
        assert_eq!(number("sources_destinations"), 1);
        // Those before the change were fewer than the system has ports.
        assert!(number("sources_chosen") > MANY - 1000);
        let shortages = ["sources_in_use", "sources_left", "sources_exhausted"];
        assert_eq!(shortages.map(number), [0; 3]);

        // The whole slice is held, and a few more.
        let front = row.front;
        let held = usize::from(HIGH - MIDDLE) + 10;
        let open = move || (0..held).map(|_| connect(front)).collect::<Vec<_>>();
        let held: Vec<TcpStream> = row.client.run(open);
        held.iter().for_each(|client| client::echo(client, b"held"));
        assert!(number("sources_left") > 0);
        assert_eq!(number("sources_exhausted"), 0);
        let (to, any) = (row.echo.address(), ip(BACK[family]));
        row.balancer.run(move || {
            let foreign: Vec<_> = (0..100).map(|_| connect(to)).collect();
            foreign.iter().for_each(|own| client::echo(own, b"foreign"));
            let mut ports: HashSet<u16> = HashSet::new();
            ports.extend(foreign.iter().map(|own| own.local_addr().unwrap().port()));
            assert_eq!(ports.len(), 100);
            let listen = |_| TcpListener::bind(SocketAddr::new(any, 0)).expect("a free port");
            let listening: Vec<_> = (0..100).map(listen).collect();
            ports.extend(listening.iter().map(|own| own.local_addr().unwrap().port()));
            assert_eq!(ports.len(), 200);
        });
        drop(held);
        balancer.settle();
    }
}

#[test]
fn none_is_chosen_when_that_is_off() {
    if skip("the line is ours") {
        return;
    }
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let row = Row::new(0);
    let balancer = row.start("tune.source-ports off");
    // A port of the system's for each, and none after them. Where the server's end is the first
    // after all, a port is free again.
    let visits = row.visits(1_010);
    assert!((1_000..1_010).contains(&visits), "{visits}");
    let activity = balancer.activity();
    assert_eq!(activity.number("sources_chosen"), Some(0));
    assert_eq!(activity.number("sources_bytes"), Some(0));
    assert_eq!(activity.number("sources_exhausted"), Some(1_010 - visits));
    balancer.settle();
}

/// What the server closes first is in TIME_WAIT on its side, and in nobody's way here.
#[test]
fn only_what_is_closed_first_here_is_in_the_way() {
    if skip("HAProxy leaves the ports to the system") {
        return;
    }
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let network = network();
    // Of eight ports, more than two are too many.
    set(&network, "ip_local_port_range", "40000 40007");
    let named = network.run(|| MockServer::named("server"));
    let echo = network.run(MockServer::echo);
    let fronts = [free_port(), free_port()];
    let listen = |(port, server): (u16, &MockServer)| {
        let to = server.address();
        format!("listen l{port}\n    bind 127.0.0.1:{port}\n    server s {to}\n")
    };
    let body: String = fronts
        .into_iter()
        .zip([&named, &echo])
        .map(listen)
        .collect();
    let balancer = start(&network, Setup::new(body));
    let on = || balancer.activity().number("sources_destinations").unwrap();
    let visit = |port| {
        let client = network.run(move || connect_port(port));
        end(&client, port == fronts[0]);
    };
    for _ in 0..10 {
        visit(fronts[0]);
    }
    balancer.settle();
    assert_eq!(on(), 0);
    eventually("ports are chosen", || {
        visit(fronts[1]);
        on() == 1
    });
    balancer.settle();
}

/// Ends a session, the server's end first or the client's.
fn end(client: &TcpStream, server_first: bool) {
    if !server_first {
        client::echo(client, b"x");
        client.shutdown(Shutdown::Write).unwrap();
    }
    assert_eq!(read_end(client).1, End::Fin);
}

/// Before anything has been counted: a range can be used up faster than that.
#[test]
fn a_port_that_the_system_has_not_is_chosen_at_once() {
    if skip("HAProxy runs out of ports") {
        return;
    }
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let network = network();
    set(&network, "ip_local_port_range", "40000 40003");
    let server = hold(&network, ip("127.0.0.1"));
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    retries 0\n    server s {}\n",
        server.address()
    );
    let global = "tune.source-ports auto 50000-50003";
    let balancer = start(&network, Setup::new(body).global(global));
    // Sockets that leave the machine's ports to the balancer.
    let client = |n: u8| {
        let from = SocketAddr::from(([127, 0, 6, n], 30_000));
        network.run(move || client::connect_bound(from, client::local(port)))
    };
    let clients: Vec<_> = (1..=8).map(client).collect();
    let mut seen: Vec<u16> = Vec::new();
    let held: Vec<_> = clients.iter().map(|_| server.next()).collect();
    seen.extend(held.iter().map(|held| held.peer_addr().unwrap().port()));
    seen.sort_unstable();
    let all: Vec<u16> = (40_000..40_004).chain(50_000..50_004).collect();
    assert_eq!(seen, all);
    assert_eq!(read_end(&client(9)).0, b"");
    let activity = balancer.activity();
    assert_eq!(activity.number("sources_exhausted"), Some(1));
    held.into_iter().for_each(client::reset);
    drop(clients);
    balancer.settle();
}

#[test]
fn without_a_port_the_session_goes_to_another_server_at_once() {
    if skip("the line is ours") {
        return;
    }
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let network = network();
    let servers = [0, 1].map(|_| hold(&network, ip("127.0.0.1")));
    let port = free_port();
    let fails = "max-fails 1 fail-timeout 10m";
    let [first, second] = [&servers[0], &servers[1]].map(|server| server.address());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance first\n    timeout connect 30s\n    \
         server a {first} {fails}\n    server b {second} {fails}\n"
    );
    let global = "tune.source-ports always 50000-50003";
    let balancer = start(&network, Setup::new(body).global(global));
    let mut opened: Vec<Vec<Opened>> = Vec::new();
    for server in &servers {
        opened.push((0..4).map(|_| open(&network, port, server)).collect());
    }
    for of_server in &opened {
        assert_eq!(ports(of_server), [50_000, 50_001, 50_002, 50_003]);
    }
    let number = |name| balancer.activity().number(name).unwrap();
    assert_eq!(number("sources_exhausted"), 4);
    assert_eq!((number("sources_chosen"), number("sources_in_use")), (8, 0));
    assert_eq!(number("sources_held"), 8);
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "a", "wredis"), 4);
    assert_eq!(stat.number("l", "a", "wretr"), 0);
    // Neither has any left: once more from one to the other as often as retries allow.
    let ninth = network.run(move || connect_port(port));
    assert_eq!(read_end(&ninth).0, b"");
    assert_eq!(number("sources_exhausted"), 8);
    // It says nothing of the servers: the first one is there as soon as it has a port again.
    let Opened { client, server, .. } = opened[0].pop().unwrap();
    client::reset(server);
    drop(client);
    eventually("a session is gone", || {
        balancer.stat().number("l", "a", "scur") == 3
    });
    let again = open(&network, port, &servers[0]);
    assert!((50_000..=50_003).contains(&again.from.port()));
    let ended = opened.into_iter().flatten().chain([again]);
    ended.for_each(|opened| client::reset(opened.server));
    balancer.settle();
}

#[test]
fn reserved_ports_are_left_alone_in_both_families() {
    if skip("the line is ours") {
        return;
    }
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let network = network();
    set(&network, "ip_local_reserved_ports", "50001-50002,50005");
    for address in ["127.0.0.1", "::1"].map(ip) {
        let server = hold(&network, address);
        let port = free_port();
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port}\n    retries 0\n    server s {}\n",
            server.address()
        );
        let global = "tune.source-ports always 50000-50006";
        let balancer = start(&network, Setup::new(body).global(global));
        let opened: Vec<_> = (0..4).map(|_| open(&network, port, &server)).collect();
        assert_eq!(ports(&opened), [50_000, 50_003, 50_004, 50_006]);
        let fifth = network.run(move || connect_port(port));
        assert_eq!(read_end(&fifth).0, b"");
        assert_eq!(balancer.activity().number("sources_exhausted"), Some(1));
        opened
            .into_iter()
            .for_each(|opened| client::reset(opened.server));
        balancer.settle();
    }
}

/// A source without ports of its own has those of the upper half; one with ports has these, and
/// servers with one address don't get in each other's way.
#[test]
fn a_source_is_reason_enough() {
    if skip("HAProxy leaves the ports to the system") {
        return;
    }
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let network = network();
    let server = hold(&network, ip("127.0.0.1"));
    let (address, fronts) = (server.address(), [(); 4].map(|()| free_port()));
    let listen = |port, rest: &str| {
        format!("listen l{port}\n    bind 127.0.0.1:{port}\n    server s {address} {rest}\n")
    };
    let [plain, named, same, ranged] = fronts;
    let body = [
        listen(plain, ""),
        listen(named, "source 127.0.6.1"),
        listen(same, "source 127.0.6.1"),
        listen(ranged, "source 127.0.6.1:30000-30001"),
    ];
    let balancer = start(&network, Setup::new(body.concat()));
    let mut opened = Vec::new();
    let mut seen = |port| {
        let session = open(&network, port, &server);
        let from = session.from;
        opened.push(session);
        from
    };
    assert_eq!(seen(plain).ip(), ip("127.0.0.1"));
    let mut chosen = HashSet::new();
    for _ in 0..10 {
        for port in [named, same] {
            let from = seen(port);
            assert_eq!(from.ip(), ip("127.0.6.1"));
            assert!((MIDDLE..=HIGH).contains(&from.port()));
            assert!(chosen.insert(from.port()));
        }
    }
    for _ in 0..2 {
        assert!((30_000..=30_001).contains(&seen(ranged).port()));
    }
    let activity = balancer.activity();
    assert_eq!(activity.number("sources_chosen"), Some(20));
    assert_eq!(activity.number("sources_in_use"), Some(0));
    opened
        .into_iter()
        .for_each(|opened| client::reset(opened.server));
    balancer.settle();
}
