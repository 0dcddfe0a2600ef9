//! How connections end: half-closes, aborts and resets, from both sides, in each phase.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::support::client::{self, End, connect_port, read_bytes, read_end, write};
use crate::support::port::{free_port, unsent};
use crate::support::server::reset;
use crate::support::{
    Balancer, MockServer, Stopwatch, Syslog, balancer::Setup, is_tidegate, skip, stream, turn,
    wait_for,
};

/// A peer's death must be noticed within a second; the rest is scheduling on a busy host.
const NOTICED_MS: u64 = 1_500;

struct Pair {
    balancer: Balancer,
    syslog: Syslog,
    server: MockServer,
    port: u16,
}

impl Pair {
    /// A balancer with a server whose ends the test plays.
    fn new(server: MockServer) -> Self {
        Pair::with(server, "")
    }

    /// The same with more lines of config.
    fn with(server: MockServer, rest: &str) -> Self {
        let (port, syslog) = (free_port(), Syslog::start());
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    \
             retries 0\n{rest}    server s {}\n",
            syslog.address(),
            server.address(),
        );
        Pair {
            balancer: Balancer::start(body),
            syslog,
            server,
            port,
        }
    }

    /// A connection of which both ends are the test's, with a byte exchanged each way.
    fn open(&self) -> (TcpStream, TcpStream) {
        let client = connect_port(self.port);
        let server = self.server.next();
        write(&client, b"c");
        assert_eq!(read_bytes(&server, 1), b"c");
        write(&server, b"s");
        assert_eq!(read_bytes(&client, 1), b"s");
        (client, server)
    }

    /// The termination letters of the one session, after everything has settled.
    fn ended(self) -> String {
        self.balancer.settle();
        self.syslog.take_session().end
    }
}

#[test]
fn a_half_close_of_the_client_leaves_the_other_way_open() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&server), (vec![], End::Fin));
    for _ in 0..3 {
        write(&server, b"late");
        assert_eq!(read_bytes(&client, 4), b"late");
    }
    drop(server);
    assert_eq!(read_end(&client), (vec![], End::Fin));
    assert_eq!(pair.ended(), "--");
}

#[test]
fn a_half_close_of_the_server_leaves_the_other_way_open() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&client), (vec![], End::Fin));
    for _ in 0..3 {
        write(&client, b"late");
        assert_eq!(read_bytes(&server, 4), b"late");
    }
    drop(client);
    assert_eq!(read_end(&server), (vec![], End::Fin));
    assert_eq!(pair.ended(), "--");
}

#[test]
fn a_reset_of_the_client_reaches_the_server_as_a_reset() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    let watch = Stopwatch::start();
    client::reset(client);
    assert_reset(read_end(&server).1);
    watch.assert_within(0, NOTICED_MS, "reset of the client");
    drop(server);
    assert_eq!(pair.ended(), "CD");
}

#[test]
fn a_reset_of_the_server_reaches_the_client_as_a_reset() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    let watch = Stopwatch::start();
    reset(server);
    assert_reset(read_end(&client).1);
    watch.assert_within(0, NOTICED_MS, "reset of the server");
    drop(client);
    assert_eq!(pair.ended(), "SD");
}

#[test]
fn a_reset_after_the_clients_half_close_is_passed_on() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&server), (vec![], End::Fin));
    reset(server);
    assert_reset(read_end(&client).1);
    drop(client);
    assert_eq!(pair.ended(), "SD");
}

#[test]
fn a_reset_after_the_servers_half_close_is_passed_on() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&client), (vec![], End::Fin));
    client::reset(client);
    assert_reset(read_end(&server).1);
    drop(server);
    assert_eq!(pair.ended(), "CD");
}

/// The server's last bytes are in the balancer's kernel when its reset arrives: they were received
/// and belong to the client, and then the reset does.
#[test]
fn bytes_received_before_a_reset_are_delivered_before_it() {
    const ANSWER: u64 = 256 << 10;
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, mut server) = pair.open();
    let answer = stream::slice(5, 0, ANSWER);
    server.write_all(answer).unwrap();
    let taken = wait_for(Duration::from_secs(30), || {
        (unsent(&server) == 0).then_some(())
    });
    assert!(
        taken.is_some(),
        "the balancer's host did not take the answer"
    );
    // Unread input makes the kernel answer the close with a reset.
    reset(server);
    let (bytes, end) = read_end(&client);
    assert!(bytes == answer, "{} of {ANSWER} bytes", bytes.len());
    assert_reset(end);
    drop(client);
    assert_eq!(pair.ended(), "SD");
}

#[test]
fn a_client_that_resets_while_the_server_is_blocked_is_noticed() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    if skip("HAProxy sees a reset behind unread bytes only when it reads on") {
        return;
    }
    // Fills every buffer on the way to a server that does not read.
    fill(&client);
    let watch = Stopwatch::start();
    client::reset(client);
    pair.syslog.wait_line(" CD ");
    watch.assert_within(0, NOTICED_MS, "abort of a blocked client");
    drop(server);
    assert_eq!(pair.ended(), "CD");
}

#[test]
fn a_server_that_resets_while_the_client_is_blocked_is_noticed() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let (client, server) = pair.open();
    fill(&server);
    reset(server);
    // What was received before the reset is still the client's, so the session lasts until it reads
    // on.
    let (bytes, end) = read_end(&client);
    assert!(!bytes.is_empty());
    assert_reset(end);
    drop(client);
    assert_eq!(pair.ended(), "SD");
}

#[test]
fn a_client_that_resets_while_the_connect_is_pending_is_noticed() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::black_hole());
    if skip("HAProxy sees a reset behind unread bytes only when it reads on") {
        return;
    }
    let client = connect_port(pair.port);
    write(&client, b"early");
    let watch = Stopwatch::start();
    client::reset(client);
    let line = pair.syslog.take_session();
    watch.assert_within(0, NOTICED_MS, "abort during the connect");
    assert_eq!((line.end.as_str(), line.timers[1]), ("CC", -1));
    pair.balancer.settle();
}

/// A FIN alone may be a client that only listens or one that has gone: either way the session ends,
/// by the connect timeout at the latest.
#[test]
fn a_client_that_closes_while_the_connect_is_pending_leaves_nothing() {
    let _turn = turn::shared();
    let pair = Pair::with(MockServer::black_hole(), "    timeout connect 700ms\n");
    drop(connect_port(pair.port));
    let end = pair.ended();
    assert!(end == "CC" || end == "sC", "{end}");
}

/// A request with its FIN is complete: it waits for the server.
#[test]
fn a_half_closed_request_waits_for_a_slow_connect() {
    let _turn = turn::shared();
    let (port, dead, server) = (free_port(), free_port(), MockServer::echo());
    // The first server refuses, the retry one second later goes to the other.
    let balancer = Setup::new(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    retries 3\n    option redispatch 1\n    \
         server dead 127.0.0.1:{dead}\n    server live {}\n",
        server.address()
    ))
    .start();
    for _ in 0..2 {
        let client = connect_port(port);
        write(&client, b"all of it");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_end(&client), (b"all of it".to_vec(), End::Fin));
    }
    balancer.settle();
}

#[test]
fn both_sides_resetting_at_once_leaves_nothing() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let ends: Vec<_> = (0..50).map(|_| pair.open()).collect();
    for (client, server) in ends {
        client::reset(client);
        reset(server);
    }
    pair.balancer.settle();
}

#[test]
fn both_sides_closing_at_once_leaves_nothing() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::hold());
    let ends: Vec<_> = (0..50).map(|_| pair.open()).collect();
    for (client, server) in ends {
        drop(client);
        drop(server);
    }
    pair.balancer.settle();
}

#[test]
fn aborts_in_the_middle_of_bulk_leave_nothing() {
    let _turn = turn::shared();
    let pair = Pair::new(MockServer::start(|mut stream| {
        let _ = stream::send(&mut stream, 1, 64 << 20);
    }));
    for round in 0..40_usize {
        let client = connect_port(pair.port);
        let some = 1 + round * 20_011;
        assert_eq!(read_bytes(&client, some), whole(1, some));
        if round % 2 == 0 {
            client::reset(client)
        } else {
            drop(client)
        }
    }
    pair.balancer.settle();
}

/// HAProxy passes a FIN in the place of a reset, which lets a truncated stream look complete.
fn assert_reset(end: End) {
    assert!(
        end == End::Reset || (end == End::Fin && !is_tidegate()),
        "{end:?}, not a reset"
    );
}

/// The first `length` bytes of a stream.
fn whole(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    stream::send(&mut bytes, seed, length as u64).unwrap();
    bytes
}

/// Writes until nothing more is taken for 200 ms.
fn fill(mut stream: &TcpStream) {
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let piece = vec![7; 64 * 1024];
    while stream.write(&piece).is_ok() {}
}
