//! PROXY headers from clients: whole, in pieces, and what they change.

use std::io::Write;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::Signal;
use tidegate::flow::proxy_protocol::{LOCAL, PROXY, UNSPECIFIED, tlv};

use crate::support::balancer::{TempDir, is_tidegate, skip};
use crate::support::client::{
    self, End, connect, connect_from, connect_port, local, read_bytes, read_end, read_name, write,
};
use crate::support::port::free_port;
use crate::support::proxy_header::{TCP4, addresses, binary, checked, field, raw, text};
use crate::support::{Balancer, MockServer, Syslog, stream, turn, wait_for};

pub(crate) const CLIENT: &str = "203.0.113.7:1234";
pub(crate) const CLIENT_6: &str = "[2001:db8::7]:1234";

/// A frontend that wants headers, named `f`, its listener `in`.
pub(crate) fn start(server: &MockServer, lines: &str) -> (Balancer, Syslog, u16) {
    let (syslog, port) = (Syslog::start(), free_port());
    let body = format!(
        "frontend f\n    bind 127.0.0.1:{port} name in accept-proxy\n    log {} local0\n    \
         option tcplog\n{lines}\n    default_backend b\n\nbackend b\n    server s {}\n",
        syslog.address(),
        server.address()
    );
    (Balancer::start(body), syslog, port)
}

fn fields() -> Vec<u8> {
    [
        field(tlv::AUTHORITY, b"www.example.org"),
        field(tlv::UNIQUE_ID, &[9; tlv::UNIQUE_ID_MAX]),
        field(tlv::NOOP, &[0; 7]),
        field(0xe0, &[1; 300]),
    ]
    .concat()
}

/// Connections that are closed, with or without a reset, and not a byte for them.
pub(crate) fn assert_refused(client: &TcpStream) {
    let (bytes, end) = read_end(client);
    assert!(bytes.is_empty() && end != End::None, "{bytes:?} {end:?}");
}

#[test]
fn a_header_says_who_it_is() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (balancer, syslog, port) = start(&server, "");
    let own = "127.0.0.1";
    let mut headers = vec![
        (text(CLIENT), CLIENT),
        (text(CLIENT_6), "2001:db8::7:1234"),
        (b"PROXY UNKNOWN\r\n".to_vec(), own),
        (binary(CLIENT, &[]), CLIENT),
        (binary(CLIENT_6, &[]), "2001:db8::7:1234"),
        (binary(CLIENT, &fields()), CLIENT),
        (checked(CLIENT, &fields(), 0), CLIENT),
        (checked(CLIENT_6, &[], 0), "2001:db8::7:1234"),
        (raw(LOCAL, UNSPECIFIED, &[]), own),
        (raw(LOCAL, TCP4, &addresses(CLIENT)), own),
    ];
    if is_tidegate() {
        // These are in the protocol's text, and HAProxy 2.6 refuses them.
        headers.extend([
            (b"PROXY UNKNOWN whatever\r\n".to_vec(), own),
            (raw(PROXY, UNSPECIFIED, &[]), own),
            (raw(PROXY, 0x31, &[b'u'; 216]), own),
            (text("[::ffff:203.0.113.7]:1234"), CLIENT),
        ]);
    }
    for (header, expected) in &headers {
        let client = connect_port(port);
        // The payload is in the same segment.
        write(&client, &[header, &b"payload"[..]].concat());
        assert_eq!(read_bytes(&client, 7), b"payload");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_end(&client), (vec![], End::Fin));
        let line = syslog.take_session();
        assert!(line.client.starts_with(expected), "{line:?} of {header:?}");
        // The header is no part of what was carried.
        assert_eq!((line.bytes, line.end.as_str()), (7, "--"));
    }
    let sessions = headers.len() as u64;
    let stat = balancer.stat();
    assert_eq!(stat.number("f", "FRONTEND", "stot"), sessions);
    assert_eq!(stat.number("b", "s", "bin"), 7 * sessions);
    balancer.settle();
}

#[test]
fn a_header_may_come_in_two_pieces() {
    let _turn = turn::shared();
    if skip("it takes a header in one piece only") {
        return;
    }
    let server = MockServer::echo();
    let (balancer, _syslog, port) = start(&server, "    timeout client-hs 20s");
    for header in [
        text(CLIENT),
        checked(CLIENT_6, &field(tlv::NOOP, &[0; 3]), 0),
    ] {
        let before = server.accepted();
        let cuts = 0..=header.len();
        let clients: Vec<_> = cuts.clone().map(|_| connect_port(port)).collect();
        for (cut, client) in cuts.clone().zip(&clients) {
            write(client, &header[..cut]);
        }
        // The one that is whole is served, the others wait for their rest.
        let waiting = || {
            let open = balancer.stat().number("f", "FRONTEND", "scur");
            let all = open == clients.len() as u64 && server.accepted() == before + 1;
            all.then_some(())
        };
        assert!(wait_for(Duration::from_secs(30), waiting).is_some());
        for (cut, client) in cuts.zip(&clients) {
            let payload = format!("after {cut:3}");
            write(client, &[&header[cut..], payload.as_bytes()].concat());
            assert_eq!(read_bytes(client, 9), payload.as_bytes());
        }
        assert_eq!(server.accepted(), before + clients.len() as u64);
        drop(clients);
        balancer.settle();
    }
    // Byte by byte.
    let client = connect_port(port);
    for byte in text(CLIENT).chunks(1) {
        write(&client, byte);
    }
    client::echo(&client, b"whole");
    drop(client);
    balancer.settle();
}

#[test]
fn what_follows_a_header_arrives_whole() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let (balancer, _syslog, port) = start(&server, "");
    // The first bytes in one piece with the header, and an upload behind.
    for (seed, up) in [(1_u64, 100_u64), (2, 40_000), (3, 200_000)] {
        for header in [text(CLIENT), binary(CLIENT_6, &fields())] {
            let client = connect_port(port);
            let numbers = [up, 50_000, seed].map(u64::to_be_bytes).concat();
            write(
                &client,
                &[&header, &numbers, stream::slice(seed, 0, up)].concat(),
            );
            client.shutdown(Shutdown::Write).unwrap();
            stream::receive(&mut &client, !seed, 50_000).unwrap();
            assert_eq!(read_end(&client), (vec![1], End::Fin));
        }
    }
    for seed in 4..8 {
        let client = connect_port(port);
        write(&client, &text(CLIENT));
        client::exchange_on(client, 16 << 20, 1 << 20, seed).unwrap();
    }
    balancer.settle();
}

#[test]
fn clients_keep_their_server_by_the_address_of_their_header() {
    let _turn = turn::shared();
    let servers = ["one", "two", "three"].map(MockServer::named);
    let port = free_port();
    let lines: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("    server s{index} {}", server.address()))
        .collect();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    balance source\n{}\n",
        lines.join("\n")
    ));
    let name_for = |host: u8, header: &dyn Fn(&str) -> Vec<u8>| {
        let client = connect_port(port);
        write(&client, &header(&format!("198.51.100.{host}:999")));
        read_name(&client).unwrap()
    };
    let mut names = Vec::new();
    for host in 1..=20 {
        let name = name_for(host, &|client| text(client));
        assert_eq!(
            name,
            name_for(host, &|client| binary(client, &[])),
            "{host}"
        );
        names.push(name);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), servers.len(), "{names:?}");
    balancer.settle();
}

#[test]
fn listeners_of_other_kinds_take_headers_too() {
    let _turn = turn::shared();
    let (server, syslog, dir) = (MockServer::echo(), Syslog::start(), TempDir::new());
    let (port, path) = (free_port(), dir.path().join("in.sock"));
    let balancer = Balancer::start(format!(
        "listen l\n    bind [::1]:{port} accept-proxy\n    bind unix@{} accept-proxy\n    \
         log {} local0\n    option tcplog\n    server s {}\n",
        path.display(),
        syslog.address(),
        server.address()
    ));
    for (header, expected) in [
        (text(CLIENT), CLIENT),
        (b"PROXY UNKNOWN\r\n".to_vec(), "::1:"),
    ] {
        let client = connect(([0_u16, 0, 0, 0, 0, 0, 0, 1], port));
        write(&client, &header);
        client::echo(&client, b"six");
        drop(client);
        let line = syslog.take_session();
        assert!(line.client.starts_with(expected), "{line:?}");
    }
    for (header, expected) in [
        (binary(CLIENT_6, &fields()), "2001:db8::7:1234"),
        (raw(LOCAL, UNSPECIFIED, &[]), "unix:"),
    ] {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(&[&header, &b"unix"[..]].concat()).unwrap();
        let mut back = [0; 4];
        std::io::Read::read_exact(&mut client, &mut back).unwrap();
        assert_eq!(&back, b"unix");
        drop(client);
        let line = syslog.take_session();
        assert!(line.client.starts_with(expected), "{line:?}");
    }
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"no header at all").unwrap();
    syslog.wait_line("unix:2 [");
    drop(client);
    balancer.settle();
}

#[test]
fn a_rule_says_who_has_to_send_a_header() {
    let _turn = turn::shared();
    let (server, syslog, dir) = (MockServer::echo(), Syslog::start(), TempDir::new());
    let list = dir.write("list", "# one of ours\n127.0.0.3\n\n127.0.1.0/24\n");
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    acl trusted src 127.0.0.2 127.0.0.3\n    \
         acl trusted src -f {}\n    tcp-request connection expect-proxy layer4 if trusted \
         !{{ src 127.0.0.3 }}\n    log {} local0\n    option tcplog\n    server s {}\n",
        list.display(),
        syslog.address(),
        server.address()
    ));
    for (from, proxied) in [
        ("127.0.0.1", false),
        ("127.0.0.2", true),
        ("127.0.0.3", false),
        ("127.0.1.77", true),
        ("127.0.2.1", false),
    ] {
        let source: IpAddr = from.parse().unwrap();
        let client = connect_from(source, local(port)).unwrap();
        if proxied {
            write(&client, &text(CLIENT));
        }
        client::echo(&client, b"payload");
        drop(client);
        let line = syslog.take_session();
        let expected = if proxied { CLIENT } else { from };
        assert!(line.client.starts_with(expected), "{from}: {line:?}");
    }
    // Who should and doesn't is refused.
    let client = connect_from([127, 0, 0, 2].into(), local(port)).unwrap();
    write(&client, b"no header");
    assert_refused(&client);
    balancer.settle();
}

#[test]
fn a_client_without_its_header_counts_in_maxconn() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (balancer, _syslog, port) = start(&server, "    maxconn 1\n    timeout client 30s");
    let first = connect_port(port);
    let waits = || (balancer.stat().number("f", "FRONTEND", "scur") == 1).then_some(());
    assert!(wait_for(Duration::from_secs(30), waits).is_some());
    let second = connect_port(port);
    write(&second, &[&text(CLIENT)[..], b"x"].concat());
    second
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert_eq!(read_end(&second), (vec![], End::None));
    drop(first);
    second
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    assert_eq!(read_bytes(&second, 1), b"x");
    drop(second);
    balancer.settle();
}

#[test]
fn a_drain_waits_for_headers_and_a_stop_does_not() {
    let _turn = turn::shared();
    for signal in [Signal::SIGUSR1, Signal::SIGTERM] {
        let server = MockServer::echo();
        let (mut balancer, _syslog, port) = start(&server, "    timeout client 30s");
        let client = connect_port(port);
        let header = text(CLIENT);
        if is_tidegate() {
            write(&client, &header[..20]);
        }
        let waits = || (balancer.stat().number("f", "FRONTEND", "scur") == 1).then_some(());
        assert!(wait_for(Duration::from_secs(30), waits).is_some());
        balancer.signal(signal);
        if signal == Signal::SIGUSR1 {
            let left = || (crate::support::port::listeners_on(port) == 0).then_some(());
            assert!(wait_for(Duration::from_secs(30), left).is_some());
            let rest = if is_tidegate() {
                &header[20..]
            } else {
                &header[..]
            };
            write(&client, rest);
            client::echo(&client, b"still served");
            drop(client);
        } else {
            assert_refused(&client);
        }
        balancer.wait_exit(Duration::from_secs(5));
    }
}
