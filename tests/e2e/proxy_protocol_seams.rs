//! PROXY headers from clients where other parts go by what they say, or count their connections.

use std::collections::BTreeMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::proxy_protocol::{CLIENT, assert_refused, start};
use crate::support::announcement::read_header;
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{
    self, End, connect_from, connect_port, local, read_bytes, read_end, read_name, write,
};
use crate::support::port::free_port;
use crate::support::proxy_header::text;
use crate::support::{
    Balancer, MockServer, Stopwatch, Syslog, eventually, is_tidegate, skip, turn, wait_for,
};

/// Version 1, between any two addresses of IPv4.
fn between(source: &str, destination: &str) -> Vec<u8> {
    let [source, destination]: [SocketAddr; 2] =
        [source, destination].map(|address| address.parse().expect("an address"));
    let (from, to) = (source.ip(), destination.ip());
    let (from_port, to_port) = (source.port(), destination.port());
    format!("PROXY TCP4 {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

/// Whatever a connection is hashed by, where it has a header it is the header's.
#[test]
fn the_addresses_of_a_header_choose_the_server() {
    let _turn = turn::shared();
    if skip("2.6 has no 'balance hash' on addresses of connections") {
        return;
    }
    let servers = ["one", "two", "three"].map(MockServer::named);
    let lines: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("    server s{index} {}\n", server.address()))
        .collect();
    let lines = lines.concat();
    let algorithms = [
        "source",
        "hash src",
        "hash src_port",
        "hash dst",
        "hash dst_port",
    ];
    let [ports, own_ports] = [0, 1].map(|_| algorithms.map(|_| free_port()));
    let listens: Vec<String> = algorithms
        .iter()
        .zip(ports.iter().zip(&own_ports))
        .map(|(balance, (port, own_port))| {
            format!(
                "listen l{port}\n    bind 127.0.0.1:{port} accept-proxy\n    \
                 bind 0.0.0.0:{own_port}\n    balance {balance}\n{lines}"
            )
        })
        .collect();
    let balancer = Balancer::start(listens.concat());
    for (index, balance) in algorithms.into_iter().enumerate() {
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        for number in 1..=24_u8 {
            let [mut from, mut to] = [1, 2].map(|net| format!("198.51.{net}.1:999"));
            match balance {
                "source" | "hash src" => from = format!("127.0.0.{number}:999"),
                "hash src_port" => from = format!("198.51.1.1:{}", 1_000 + u16::from(number)),
                "hash dst" => to = format!("127.0.0.{number}:999"),
                _ => to = format!("198.51.2.1:{}", 1_000 + u16::from(number)),
            }
            let by_header = || {
                let client = connect_port(ports[index]);
                write(&client, &between(&from, &to));
                read_name(&client).unwrap()
            };
            let name = by_header();
            assert_eq!(name, by_header(), "{balance} {number}");
            // The same as of a connection that has those addresses itself.
            let own: IpAddr = [127, 0, 0, number].into();
            let plain = match balance {
                "source" | "hash src" => connect_from(own, local(own_ports[index])).ok(),
                "hash dst" => client::try_connect((own, own_ports[index])).ok(),
                _ => None,
            };
            if let Some(plain) = plain {
                assert_eq!(name, read_name(&plain).unwrap(), "{balance} {number}");
            }
            *taken.entry(name).or_default() += 1;
        }
        assert_eq!(taken.len(), servers.len(), "{balance}: {taken:?}");
    }
    balancer.settle();
}

/// Servers at the client's destination: the one that the header says.
#[test]
fn a_server_may_be_where_the_header_says() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    server s * send-proxy-v2\n"
    ));
    let to = server.address().to_string();
    let client = connect_port(port);
    write(&client, &between(CLIENT, &to));
    write(&client, b"there");
    let stream = server.next();
    let header = read_header(&stream).unwrap();
    let expected = [CLIENT, &to].map(|address| address.parse().unwrap());
    assert_eq!(header.addresses, Some(expected.into()));
    assert_eq!(read_bytes(&stream, 5), b"there");
    drop((client, stream));
    balancer.settle();
}

/// Where a header says so, or says nothing, a connection could come round to its listener again
/// and again.
#[test]
fn no_header_makes_connections_go_round() {
    let _turn = turn::shared();
    if skip("HAProxy connects to itself until nothing is left") {
        return;
    }
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 0.0.0.0:{port} accept-proxy\n    server s * send-proxy-v2\n"
    ));
    let itself = between(CLIENT, &format!("127.0.0.1:{port}"));
    let other = between(CLIENT, &format!("127.0.0.9:{port}"));
    for (header, sessions) in [
        (itself, 1),
        (b"PROXY UNKNOWN\r\n".to_vec(), 1),
        // By another of its addresses it is found at the second turn.
        (other, 2),
    ] {
        let before = balancer.stat().number("l", "FRONTEND", "stot");
        let client = connect_port(port);
        write(&client, &header);
        assert_refused(&client);
        drop(client);
        balancer.settle();
        let after = balancer.stat().number("l", "FRONTEND", "stot");
        assert_eq!(after, before + sessions);
    }
    assert_eq!(balancer.activity().number("destinations_missing"), Some(3));
}

/// A rule and `accept-proxy` ask for one header, not for two; a second one is the server's.
#[test]
fn a_rule_and_the_listener_ask_for_the_same_header() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let rule = "    tcp-request connection expect-proxy layer4";
    let (balancer, syslog, port) = start(&server, rule);
    let client = connect_port(port);
    write(&client, &text(CLIENT));
    client::echo(&client, &between("192.0.2.1:1", "192.0.2.2:2"));
    drop(client);
    assert!(syslog.take_session().client.starts_with(CLIENT));
    balancer.settle();
}

/// The rule of a named `defaults` holds in what is made from it.
#[test]
fn a_rule_of_defaults_holds() {
    let _turn = turn::shared();
    if skip("there a listen section can't have such defaults") {
        return;
    }
    let (server, ports) = (MockServer::echo(), [free_port(), free_port()]);
    let balancer = Balancer::start(format!(
        "defaults headers\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    \
         timeout server 30s\n    tcp-request connection expect-proxy layer4 if {{ src 127.0.0.2 }}\n\
         frontend a from headers\n    bind 127.0.0.1:{}\n    default_backend b\n\
         listen c from headers\n    bind 127.0.0.1:{}\n    server s {}\n\
         backend b from headers\n    server s {}\n",
        ports[0],
        ports[1],
        server.address(),
        server.address()
    ));
    for port in ports {
        client::echo(&connect_port(port), b"no header");
        let client = connect_from([127, 0, 0, 2].into(), local(port)).unwrap();
        write(&client, &text(CLIENT));
        client::echo(&client, b"behind a header");
        let client = connect_from([127, 0, 0, 2].into(), local(port)).unwrap();
        write(&client, b"no header");
        assert_refused(&client);
    }
    balancer.settle();
}

/// Headers in two pieces on sockets of every kind of sharing, below their limits.
#[test]
fn listeners_that_share_and_limit_take_headers() {
    const CLIENTS: usize = 60;
    let _turn = turn::shared();
    if skip("it takes a header in one piece only") {
        return;
    }
    let server = MockServer::echo();
    let words = [
        "shards 1",
        "shards by-thread nice 1024",
        "nice -1024 maxconn 20",
        "thread 2 maxconn 7",
    ];
    for (global, front) in [
        ("zero-warning", ""),
        ("noreuseport", "    rate-limit sessions 500\n"),
    ] {
        let ports = words.map(|_| free_port());
        let listens: Vec<String> = words
            .iter()
            .zip(ports)
            .map(|(words, port)| {
                format!(
                    "listen l{port}\n    bind 127.0.0.1:{port} accept-proxy {words}\n{front}    \
                     server s {}\n",
                    server.address()
                )
            })
            .collect();
        let setup = Setup::new(listens.concat()).global(global).shards(2);
        let balancer = setup.start();
        for (words, port) in words.into_iter().zip(ports) {
            let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect_port(port)).collect();
            let header = text(CLIENT);
            for (index, client) in clients.iter().enumerate() {
                write(client, &header[..index % header.len()]);
            }
            // Those beyond a limit come in as the others leave.
            for (index, client) in clients.iter().enumerate() {
                write(client, &header[index % header.len()..]);
                write(client, words.as_bytes());
                client.shutdown(Shutdown::Write).unwrap();
            }
            for client in &clients {
                assert_eq!(read_end(client), (words.into(), End::Fin));
            }
        }
        balancer.settle();
    }
}

/// Clients that never end their headers: they cost little, stop nobody, and are all gone when
/// their time is over.
#[test]
fn two_thousand_half_headers_stop_nobody() {
    const SLOW: usize = 2_000;
    /// A session at rest, with its descriptor's place and its timer.
    const KIB_EACH: u64 = 4;
    let _turn = turn::alone();
    if skip("it takes a header in one piece only") {
        return;
    }
    let server = MockServer::echo();
    let lines = "    timeout client-hs 4s\n    option dontlognull";
    let (balancer, _syslog, port) = start(&server, lines);
    let served = || {
        let client = connect_port(port);
        write(&client, &text(CLIENT));
        let watch = Stopwatch::start();
        client::echo(&client, b"served beside them");
        watch.ms()
    };
    served();
    let (before, watch) = (balancer.resident_kib(), Stopwatch::start());
    let header = text(CLIENT);
    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|index| {
            let client = connect_port(port);
            write(&client, &header[..index % header.len()]);
            client
        })
        .collect();
    let waiting = || balancer.activity().number("sessions") == Some(SLOW as u64);
    eventually("all wait", waiting);
    let grown = balancer.resident_kib().saturating_sub(before);
    assert!(grown < KIB_EACH * SLOW as u64, "{grown} KiB");
    // A byte now and then doesn't win them any time.
    for (index, client) in slow.iter().enumerate() {
        let at = index % header.len();
        write(client, &header[at..=at]);
        if index % 200 == 0 {
            assert!(served() < 1_000);
        }
    }
    // That byte was the last one of some, which are sessions now and go on.
    let whole = (0..SLOW).filter(|index| index % header.len() == header.len() - 1);
    let late = SLOW - whole.count();
    let gone = || balancer.activity().number("proxy_headers_timed_out") == Some(late as u64);
    assert!(wait_for(Duration::from_secs(8), || gone().then_some(())).is_some());
    watch.assert_within(3_900, 8_000, "timeout client-hs");
    served();
    drop(slow);
    balancer.settle();
}

/// The header's bytes and the client's end are there, and no server is free.
#[test]
fn a_client_that_ends_behind_its_header_leaves_the_queue() {
    let _turn = turn::shared();
    let (server, port, syslog) = (MockServer::echo(), free_port(), Syslog::start());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    option abortonclose\n    \
         log {} local0\n    option tcplog\n    server s {} maxconn 1\n",
        syslog.address(),
        server.address()
    ));
    let first = connect_port(port);
    write(&first, &text(CLIENT));
    client::echo(&first, b"the only one");
    let second = connect_port(port);
    write(&second, &text("203.0.113.8:4321"));
    let queued = || balancer.stat().number("l", "BACKEND", "qcur") > 0;
    eventually("it waits", queued);
    second.shutdown(Shutdown::Write).unwrap();
    assert_ne!(read_end(&second).1, End::None);
    let line = syslog.take_session();
    assert!(line.client.starts_with("203.0.113.8:4321"), "{line:?}");
    assert_eq!(&line.end[..1], "C", "{line:?}");
    drop(first);
    balancer.settle();
}

/// Half a header in the old process, and the rest when a new one has its sockets.
#[test]
fn a_header_may_end_after_a_take_over() {
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    server s {}\n",
        server.address()
    );
    let path = dir.path().join("exposed").display().to_string();
    let line = format!("stats socket {path} level admin expose-fd listeners");
    let mut old = Setup::new(body.as_str()).global(line).start();
    let (header, client) = (text(CLIENT), connect_port(port));
    // HAProxy takes a header in one piece only.
    let cut = if is_tidegate() { 20 } else { 0 };
    write(&client, &header[..cut]);
    eventually("it is accepted", || {
        old.stat().number("l", "FRONTEND", "scur") == 1
    });
    let pid = old.pid().to_string();
    let new = Setup::new(body)
        .arguments(&["-x", &path, "-sf", &pid])
        .start();
    let other = connect_port(port);
    write(&other, &header);
    client::echo(&other, b"by the new one");
    write(&client, &header[cut..]);
    client::echo(&client, b"still by the old one");
    assert!(old.is_running());
    drop(client);
    assert_eq!(old.wait_exit(Duration::from_secs(5)).code(), Some(0));
    drop(other);
    new.settle();
}

/// `hard-stop-after` ends also those whose headers never end.
#[test]
fn a_drain_has_an_end_for_half_headers_too() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    server s {}\n",
        server.address()
    );
    let mut balancer = Setup::new(body).global("hard-stop-after 300ms").start();
    let client = connect_port(port);
    eventually("it waits", || {
        balancer.stat().number("l", "FRONTEND", "scur") == 1
    });
    balancer.signal(Signal::SIGUSR1);
    assert_refused(&client);
    balancer.wait_exit(Duration::from_secs(5));
}
