//! What refusals that flows meet do to a server: `observe` with `on-error`, circuits and the probe
//! that closes them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer, refusing};
use crate::support::port::free_port;
use crate::support::{Balancer, Stopwatch, Syslog, eventually, skip, turn};

/// A proxy whose first server is the one that is looked at; flows stay while a test takes.
struct Watched {
    balancer: Balancer,
    target: SocketAddr,
    client: DatagramClient,
    syslog: Syslog,
}

impl Watched {
    fn start(servers: &str) -> Watched {
        let (port, syslog) = (free_port(), Syslog::start());
        let text = format!(
            "listen u\n    mode udp\n    bind 127.0.0.1:{port}\n    balance first\n    \
             timeout udp 3s\n    log {} local0\n{servers}",
            syslog.address()
        );
        let target = (Ipv4Addr::LOCALHOST, port).into();
        Watched {
            balancer: Setup::new(text).shards(1).start(),
            target,
            client: DatagramClient::new(target, 1),
            syslog,
        }
    }

    fn count(&self, name: &str) -> u64 {
        let number = self.balancer.activity().number(name);
        number.unwrap_or_else(|| panic!("no {name}"))
    }

    fn number(&self, column: &str) -> u64 {
        self.balancer.stat().number("u", "a", column)
    }

    fn status(&self) -> String {
        self.balancer.stat().text("u", "a", "status").to_owned()
    }

    /// So many datagrams that are refused, one after the other.
    fn refusals(&self, count: u32) {
        for number in 0..count {
            let before = self.count("datagram_refusals");
            self.client.send_payload(number, 40);
            eventually("it is refused", || self.count("datagram_refusals") > before);
        }
    }
}

/// Where checks go that shall pass.
fn passing() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn refusals_in_a_row_mark_a_server_down_and_its_flows_move() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let ((_listener, check), other) = (passing(), DatagramServer::echo());
    let watched = Watched::start(&format!(
        "    server a {} check port {check} inter 60s observe layer4 error-limit 3 on-error \
         mark-down\n    server b {}\n",
        refusing(),
        other.address()
    ));
    eventually("its check has passed", || {
        watched.number("check_health") == 4
    });
    watched.refusals(2);
    assert_eq!(
        (watched.status().as_str(), watched.number("hanafail")),
        ("UP", 0)
    );
    watched.refusals(1);
    let line = watched.syslog.wait_line("Server u/a is DOWN");
    assert!(line.contains("Detected 3 consecutive errors"), "{line}");
    watched.client.insist(9, 64);
    assert_eq!(watched.count("flows_moved"), 1);
    assert_eq!(watched.number("wredis"), 1);
    assert_eq!(watched.number("hanafail"), 1);
    watched.balancer.settle();
}

#[test]
fn refusals_in_a_row_may_count_as_a_failed_check() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (_listener, check) = passing();
    let watched = Watched::start(&format!(
        "    server a {} check port {check} inter 60s fall 3 observe layer4 error-limit 2\n",
        refusing()
    ));
    eventually("its check has passed", || {
        watched.number("check_health") == 4
    });
    for failures in 1..3 {
        watched.refusals(2);
        eventually("a check has failed", || {
            watched.number("check_health") == 4 - failures
        });
    }
    assert_eq!(watched.status(), "UP 1/3");
    watched.refusals(2);
    eventually("it is down", || watched.status() == "DOWN");
    watched.balancer.settle();
}

/// A flow lives long: each of its replies says that the server is there.
#[test]
fn a_reply_ends_the_row() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let ((_listener, check), mut server) = (passing(), DatagramServer::echo());
    let watched = Watched::start(&format!(
        "    server a {} check port {check} inter 60s observe layer4 error-limit 3 on-error \
         mark-down\n",
        server.address()
    ));
    eventually("its check has passed", || {
        watched.number("check_health") == 4
    });
    watched.client.exchange(100, 64);
    for round in 0..3 {
        server.stop();
        watched.refusals(2);
        server.restart();
        watched.client.insist(101 + round, 64);
    }
    assert_eq!(watched.number("hanafail"), 0);
    assert_eq!(server.sources().len(), 1, "it was one flow");
    server.stop();
    watched.refusals(3);
    eventually("it is down", || watched.status() == "DOWN");
    assert_eq!(watched.number("hanafail"), 1);
    watched.balancer.settle();
}

/// A server without checks that dies: out after three refusals, and back when a datagram of the
/// probe isn't refused any more.
#[test]
fn refusals_open_the_circuit_and_a_probe_by_datagrams_closes_it() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (mut server, other) = (DatagramServer::named("a"), DatagramServer::named("b"));
    let watched = Watched::start(&format!(
        "    server a {} max-fails 3 fail-timeout 1s\n    server b {}\n",
        server.address(),
        other.address()
    ));
    let ask = || {
        watched.client.send(b"who?");
        String::from_utf8(watched.client.receive()).unwrap()
    };
    assert_eq!(watched.status(), "no check");
    assert_eq!(ask(), "a");
    let watch = Stopwatch::start();
    server.stop();
    watched.refusals(3);
    let line = watched.syslog.wait_line("Server u/a is DOWN");
    assert!(line.contains("3 refusals in 1000 ms"), "{line}");
    assert_eq!(ask(), "b");
    assert_eq!(watched.count("flows_moved"), 1);
    // The first probe is refused, the second one is not: a silent server is well.
    eventually("a probe has failed", || {
        watched.balancer.stat().text("u", "a", "check_status") == "L4CON"
    });
    watch.assert_within(800, 60_000, "the first probe");
    let before = server.received();
    server.restart();
    watched.syslog.wait_line("Server u/a is UP");
    watch.assert_within(1_800, 60_000, "the second probe");
    assert_eq!(watched.status(), "no check");
    let probe = server.arrivals().pop().unwrap();
    assert_eq!((server.received(), probe.bytes.len()), (before + 1, 0));
    assert_eq!(ask(), "b", "the flow stays where it went");
    let fresh = DatagramClient::new(watched.target, 2);
    fresh.send(b"who?");
    assert_eq!(fresh.receive(), b"a");
    watched.balancer.settle();
}
