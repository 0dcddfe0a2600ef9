//! How flows end: the reason and HAProxy's letters of each, in the line of its end.
//!
//! Of `server-down` by a check and of `shutdown` by a command there is more in `udp_balance` and
//! `runtime_udp`.

use nix::sys::signal::Signal;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, Syslog, eventually, skip, turn};

/// A proxy with these lines that logs its flows, and clients of it.
struct Logged {
    balancer: Balancer,
    syslog: Syslog,
    clients: Vec<DatagramClient>,
}

impl Logged {
    fn start(lines: &str, servers: &str) -> Logged {
        let (port, syslog) = (free_port(), Syslog::start());
        let text = format!(
            "listen u\n    mode udp\n    bind 127.0.0.1:{port}\n    log {} local0\n    \
             option udplog\n    timeout udp 1h\n    timeout udp-unconfirmed 1h\n    {lines}\n    \
             {servers}\n",
            syslog.address()
        );
        let target = ([127, 0, 0, 1], port).into();
        Logged {
            balancer: Setup::new(text).shards(1).start(),
            syslog,
            clients: (0..2).map(|n| DatagramClient::new(target, n)).collect(),
        }
    }

    /// The line of a flow that ends for a reason has these letters, and counts so many datagrams
    /// of each side.
    fn expect(&self, reason: &str, letters: &str, datagrams: &str) {
        let line = self.syslog.wait_line(&format!(" {reason}"));
        assert!(line.contains(&format!(" {letters} ")), "{line}");
        let end = format!(" {datagrams} {reason}");
        assert!(line.ends_with(&end), "{line}");
    }
}

#[test]
fn each_flow_says_why_it_has_ended() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (echo, silent) = (DatagramServer::echo(), DatagramServer::silent());
    let echoes = format!("server s {}", echo.address());
    let silence = format!("server s {}", silent.address());
    // Nobody has answered for the time that is waited for it.
    let logged = Logged::start("timeout udp-unconfirmed 300ms", &silence);
    logged.clients[0].send_payload(1, 64);
    logged.expect("unconfirmed", "sD", "1/0");
    logged.balancer.settle();
    // What was due has come, and where nothing is due.
    let logged = Logged::start("udp-responses 1", &echoes);
    logged.clients[0].exchange(1, 64);
    logged.expect("responses", "--", "1/1");
    logged.balancer.settle();
    let logged = Logged::start("udp-responses 0", &silence);
    logged.clients[0].send_payload(1, 64);
    logged.expect("responses", "--", "1/0");
    logged.balancer.settle();
    // It has had all datagrams that it takes, and their answers have time.
    let logged = Logged::start("udp-requests 2\n    timeout udp 3s", &echoes);
    logged.clients[0].send_train(1, 2, 64, 64);
    logged.clients[0].receive_payload(1, 64);
    logged.clients[0].receive_payload(2, 64);
    logged.expect("requests", "--", "2/2");
    logged.balancer.settle();
    // Another one needs its place.
    let logged = Logged::start("maxconn 1", &silence);
    logged.clients[0].send_payload(1, 64);
    silent.wait_received(3);
    logged.clients[1].send_payload(1, 64);
    logged.expect("evicted", "RD", "1/0");
    // The process ends.
    logged.balancer.signal(Signal::SIGTERM);
    logged.expect("shutdown", "K-", "1/0");
}

/// The flows of a backup end when a server is there again, where that is asked for.
#[test]
fn a_server_that_is_back_may_end_the_flows_of_the_backup() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (main, backup) = (
        DatagramServer::named("main"),
        DatagramServer::named("backup"),
    );
    let servers = format!(
        "server m {} on-marked-up shutdown-backup-sessions\n    server b {} backup",
        main.address(),
        backup.address()
    );
    let logged = Logged::start("", &servers);
    let ask = |client: &DatagramClient| {
        client.send(b"who?");
        String::from_utf8(client.receive()).expect("a name")
    };
    assert_eq!(logged.balancer.stats("set server u/m health down"), "\n");
    assert_eq!(ask(&logged.clients[0]), "backup");
    assert_eq!(logged.balancer.stats("set server u/m health up"), "\n");
    logged.expect("server-down", "U-", "1/1");
    eventually("its flow has ended", || {
        logged.balancer.stat().number("u", "b", "scur") == 0
    });
    assert_eq!(ask(&logged.clients[0]), "main");
}
