//! Timeouts end sessions when they say, name who was silent, and the logged times are true.

use std::net::Shutdown;
use std::time::Duration;

use crate::support::client::{self, End, connect_port, read_bytes, read_end, write};
use crate::support::port::free_port;
use crate::support::syslog::SessionLine;
use crate::support::{Balancer, MockServer, Stopwatch, Syslog, turn, wait_for};

/// How early and how late a timer may be on a busy host with two cores.
const EARLY_MS: i64 = 20;
const LATE_MS: i64 = 500;

fn start(server: &MockServer, rest: &str) -> (Balancer, Syslog, u16) {
    let (syslog, port) = (Syslog::start(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n{rest}\n    \
         server s {}\n",
        syslog.address(),
        server.address()
    );
    (Balancer::start(body), syslog, port)
}

fn assert_took(line: &SessionLine, expected_ms: i64) {
    let range = expected_ms - EARLY_MS..=expected_ms + LATE_MS;
    assert!(
        range.contains(&line.total_ms()),
        "{line:?}: expected {expected_ms} ms"
    );
}

#[test]
fn an_idle_client_ends_as_small_cd() {
    let _turn = turn::shared();
    let server = MockServer::silent();
    let (balancer, syslog, port) =
        start(&server, "    timeout client 500ms\n    timeout server 20s");
    let client = connect_port(port);
    let watch = Stopwatch::start();
    let (bytes, _) = read_end(&client);
    watch.assert_within(450, 1_100, "timeout client");
    assert!(bytes.is_empty());
    let line = syslog.take_session();
    assert_eq!(line.end, "cD");
    assert_took(&line, 500);
    balancer.settle();
}

#[test]
fn an_idle_server_ends_as_small_sd() {
    let _turn = turn::shared();
    let server = MockServer::silent();
    let (balancer, syslog, port) =
        start(&server, "    timeout client 20s\n    timeout server 500ms");
    let client = connect_port(port);
    write(&client, b"request");
    drop(read_end(&client));
    drop(client);
    let line = syslog.take_session();
    assert_eq!(line.end, "sD");
    assert_took(&line, 500);
    balancer.settle();
}

#[test]
fn a_client_that_reads_nothing_ends_as_small_cd() {
    let _turn = turn::shared();
    let server = MockServer::start(|mut stream| {
        let _ = crate::support::stream::send(&mut stream, 1, u64::MAX);
    });
    let (balancer, syslog, port) =
        start(&server, "    timeout client 500ms\n    timeout server 20s");
    let client = connect_port(port);
    write(&client, b"g");
    let line = syslog.take_session();
    assert_eq!(line.end, "cD");
    assert!(line.total_ms() >= 480, "{line:?}");
    drop(client);
    balancer.settle();
}

#[test]
fn traffic_in_one_direction_keeps_both_sides_alive() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, syslog, port) = start(
        &server,
        "    timeout client 400ms\n    timeout server 400ms",
    );
    let client = connect_port(port);
    let end = server.next();
    for _ in 0..8 {
        write(&end, b"t");
        assert_eq!(read_bytes(&client, 1), b"t");
        pause(150);
    }
    drop(end);
    assert_eq!(read_end(&client), (vec![], End::Fin));
    drop(client);
    let line = syslog.take_session();
    assert_eq!(line.end, "--");
    assert!(line.total_ms() >= 1_100, "{line:?}");
    balancer.settle();
}

#[test]
fn a_half_closed_client_is_bound_by_client_fin() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, syslog, port) = start(
        &server,
        "    timeout client 20s\n    timeout client-fin 400ms\n    timeout server 20s",
    );
    let client = connect_port(port);
    write(&client, b"c");
    let end = server.next();
    assert_eq!(read_bytes(&end, 1), b"c");
    write(&end, b"answer");
    end.shutdown(Shutdown::Write).unwrap();
    // The answer is whole; the client never says that it is done.
    assert_eq!(read_end(&client), (b"answer".to_vec(), End::Fin));
    let watch = Stopwatch::start();
    let line = syslog.take_session();
    watch.assert_within(350, 1_100, "timeout client-fin");
    assert_eq!(line.end, "cD");
    drop((client, end));
    balancer.settle();
}

#[test]
fn a_half_closed_server_is_bound_by_server_fin() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, syslog, port) = start(
        &server,
        "    timeout client 20s\n    timeout server-fin 400ms\n    timeout server 20s",
    );
    let client = connect_port(port);
    write(&client, b"c");
    client.shutdown(Shutdown::Write).unwrap();
    let end = server.next();
    assert_eq!(read_end(&end), (b"c".to_vec(), End::Fin));
    let watch = Stopwatch::start();
    let line = syslog.take_session();
    watch.assert_within(350, 1_100, "timeout server-fin");
    assert_eq!(line.end, "sD");
    drop((client, end));
    balancer.settle();
}

#[test]
fn a_normal_session_reports_its_times_and_bytes() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (balancer, syslog, port) = start(&server, "");
    let client = connect_port(port);
    let local = client.local_addr().unwrap();
    client::echo(&client, &[7; 1_000]);
    pause(300);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&client).1, End::Fin);
    drop(client);
    let line = syslog.take_session();
    assert_eq!((line.end.as_str(), line.bytes), ("--", 1_000));
    assert_took(&line, 300);
    assert!((0..20).contains(&line.timers[0]), "queue time: {line:?}");
    assert!((0..200).contains(&line.timers[1]), "connect time: {line:?}");
    assert_eq!((line.frontend.as_str(), line.server.as_str()), ("l", "l/s"));
    assert_eq!(line.client, local.to_string());
    assert_eq!(
        (line.counts.join("/").as_str(), line.queues.as_str()),
        ("1/1/0/0/0", "0/0")
    );
    balancer.settle();
}

/// A session that ends by the clock must not wait for a peer that never reads.
#[test]
fn a_hundred_idle_sessions_time_out_together() {
    let _turn = turn::shared();
    let server = MockServer::silent();
    let (balancer, syslog, port) =
        start(&server, "    timeout client 600ms\n    timeout server 20s");
    let clients: Vec<_> = (0..100).map(|_| connect_port(port)).collect();
    let ended = wait_for(Duration::from_secs(4), || {
        (syslog.count(" cD ") == 100).then_some(())
    });
    assert!(ended.is_some(), "{} of 100 ended", syslog.count(" cD "));
    for line in syslog
        .lines()
        .iter()
        .filter_map(|line| SessionLine::parse(line))
    {
        assert_took(&line, 600);
    }
    drop(clients);
    balancer.settle();
}

/// Lets time pass where passing time is what is tested.
fn pause(ms: u64) {
    let watch = Stopwatch::start();
    wait_for(Duration::from_millis(ms + 20), || {
        (watch.ms() >= ms).then_some(())
    });
}
