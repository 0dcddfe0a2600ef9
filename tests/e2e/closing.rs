//! Options about how sessions end: resets in place of FINs, clients that leave early, timeouts.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use crate::support::client::{End, connect_port, echo, read_bytes, read_end, write};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Stopwatch, Syslog, turn};

/// A frontend and a backend with lines of their own, and a server.
fn start(server: &MockServer, front: &str, back: &str) -> (Balancer, Syslog, u16) {
    let (syslog, port) = (Syslog::start(), free_port());
    let body = format!(
        "frontend f\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    \
         {front}\n    default_backend b\nbackend b\n    {back}\n    server s {} maxconn 1\n",
        syslog.address(),
        server.address()
    );
    (Balancer::start(body), syslog, port)
}

/// A client and a server that are connected: the first has sent a byte.
fn pair(server: &MockServer, port: u16) -> (std::net::TcpStream, std::net::TcpStream) {
    let client = connect_port(port);
    write(&client, b"x");
    let stream = server.next();
    read_bytes(&stream, 1);
    (client, stream)
}

#[test]
fn with_nolinger_a_client_that_has_ended_is_closed_by_a_reset() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, _syslog, port) = start(&server, "option nolinger", "");
    let (client, stream) = pair(&server, port);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&stream), (Vec::new(), End::Fin));
    write(&stream, b"answer");
    assert_eq!(read_bytes(&client, 6), b"answer");
    drop(stream);
    assert_eq!(read_end(&client).1, End::Reset);
    balancer.settle();
}

#[test]
fn with_nolinger_a_servers_end_still_reaches_the_client_as_an_end() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, _syslog, port) = start(&server, "option nolinger", "");
    let (client, stream) = pair(&server, port);
    write(&stream, b"answer");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&client), (b"answer".to_vec(), End::Fin));
    write(&client, b"more");
    assert_eq!(read_bytes(&stream, 4), b"more");
    drop((client, stream));
    balancer.settle();
}

#[test]
fn with_nolinger_a_server_is_told_of_the_clients_end_by_a_reset() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, _syslog, port) = start(&server, "", "option nolinger");
    let (client, stream) = pair(&server, port);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&stream).1, End::Reset);
    assert_eq!(read_end(&client), (Vec::new(), End::Fin));
    balancer.settle();
}

#[test]
fn timeout_tunnel_stands_for_both_sides_timeouts() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (balancer, syslog, port) = start(
        &server,
        "timeout client 300ms",
        "timeout server 300ms\n    timeout tunnel 1500ms",
    );
    let client = connect_port(port);
    echo(&client, b"first");
    let watch = Stopwatch::start();
    // Longer than the timeouts that it replaces.
    let patience = Some(Duration::from_millis(900));
    client.set_read_timeout(patience).unwrap();
    assert_eq!(read_end(&client).1, End::None, "ended too early");
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert!(read_end(&client).0.is_empty());
    watch.assert_within(1_400, 2_500, "timeout tunnel");
    assert_eq!(syslog.take_session().end, "cD");
    balancer.settle();
}

#[test]
fn without_a_server_yet_the_clients_timeout_is_not_the_tunnels() {
    let _turn = turn::shared();
    let server = MockServer::black_hole();
    let (balancer, syslog, port) = start(
        &server,
        "timeout client 10s",
        "timeout connect 400ms\n    retries 0\n    timeout tunnel 20s",
    );
    let client = connect_port(port);
    write(&client, b"x");
    let watch = Stopwatch::start();
    assert!(read_end(&client).0.is_empty());
    watch.assert_within(350, 1_500, "timeout connect");
    assert_eq!(syslog.take_session().end, "sC");
    balancer.settle();
}

#[test]
fn with_abortonclose_a_client_that_leaves_before_the_connect_is_given_up() {
    let _turn = turn::shared();
    let server = MockServer::black_hole();
    for (option, end) in [("option abortonclose", "CC"), ("", "sC")] {
        let back = format!("{option}\n    timeout connect 1s\n    retries 0");
        let (balancer, syslog, port) = start(&server, "", &back);
        let client = connect_port(port);
        write(&client, b"request");
        client.shutdown(Shutdown::Write).unwrap();
        let watch = Stopwatch::start();
        assert!(read_end(&client).0.is_empty());
        assert_eq!(syslog.take_session().end, end);
        if end == "CC" {
            watch.assert_within(0, 700, "the abort");
        }
        balancer.settle();
    }
}

#[test]
fn with_abortonclose_a_client_that_leaves_the_queue_is_given_up() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, syslog, port) = start(&server, "", "option abortonclose\n    timeout queue 5s");
    let (first, stream) = pair(&server, port);
    let second = connect_port(port);
    write(&second, b"request");
    second.shutdown(Shutdown::Write).unwrap();
    assert!(read_end(&second).0.is_empty());
    assert_eq!(syslog.take_session().end, "CQ");
    assert_eq!(server.accepted(), 1);
    drop((first, stream));
    balancer.settle();
}

#[test]
fn with_independent_streams_what_is_sent_keeps_no_client_alive() {
    let _turn = turn::shared();
    let server = MockServer::start(|mut stream| {
        // A byte at a time, until the other end is gone.
        while stream.write_all(b".").is_ok() {
            let wait = Some(Duration::from_millis(50));
            stream.set_read_timeout(wait).unwrap();
            let mut bytes = [0; 16];
            if matches!(stream.read(&mut bytes), Ok(0)) {
                return;
            }
        }
    });
    for (option, least_ms, most_ms) in [
        ("option independent-streams", 350, 1_400),
        ("", 1_800, 4_000),
    ] {
        let front = format!("timeout client 400ms\n    {option}");
        let (balancer, syslog, port) = start(&server, &front, "");
        let client = connect_port(port);
        write(&client, b"x");
        let watch = Stopwatch::start();
        // Bytes go on coming, so only the balancer or this bound ends it.
        while watch.ms() < 2_000 {
            match (&client).read(&mut [0; 64]) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        watch.assert_within(least_ms, most_ms, option);
        drop(client);
        let end = syslog.take_session().end;
        assert_eq!(end == "cD", !option.is_empty(), "{end}");
        balancer.settle();
    }
}
