//! What a scrape of a thousand servers costs the shards: nothing. They keep counters, and whoever
//! wants to know reads them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::metrics::exporter;
use crate::support::client::{connect_port, echo};
use crate::support::http::get;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, skip, turn};

const SERVERS: usize = 1_000;
const SCRAPES: usize = 20;

/// A backend of many servers that nobody comes to, one that echoes, and the ports of its frontend
/// and of the metrics.
fn start() -> (Balancer, MockServer, u16, u16) {
    let (server, port, metrics) = (MockServer::echo(), free_port(), free_port());
    let mut body = exporter(metrics);
    body.push_str(&format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\nbackend many\n    \
         balance roundrobin\n",
        server.address()
    ));
    for number in 1..=SERVERS {
        body.push_str(&format!("    server s{number} 127.0.0.1:1\n"));
    }
    (Balancer::start(body), server, port, metrics)
}

/// A shard that has nothing to do sleeps through all of them.
#[test]
fn no_shard_does_anything_for_a_scrape() {
    let _turn = turn::shared();
    if skip("its threads serve the scrapes too") {
        return;
    }
    let (balancer, _server, port, metrics) = start();
    eventually("every shard sleeps", || {
        balancer.activity().nonzero_on_all_shards("sleeps")
    });
    let work = || {
        let activity = balancer.activity();
        ["turns", "completions", "sleeps", "operations"].map(|name| activity.of_each_shard(name))
    };
    let before = work();
    assert!(before.iter().all(|each| each.len() == 2), "{before:?}");
    for _ in 0..SCRAPES {
        let table = balancer.stats("show stat");
        assert!(table.lines().count() > SERVERS);
        let page = get(metrics, "/metrics").body;
        let sessions = "haproxy_server_sessions_total{proxy=\"many\",server=\"s1000\"} 0\n";
        assert!(page.contains(sessions));
        balancer.stats("show info; show servers state; show servers conn");
    }
    assert_eq!(work(), before, "turns, completions, sleeps, operations");
    // The same counters do tell of work.
    echo(&connect_port(port), b"work");
    eventually("a turn is counted", || work()[0] != before[0]);
    balancer.settle();
}

/// Nor does one wait for an answer that nobody takes.
#[test]
fn sessions_go_on_beside_answers_that_nobody_reads() {
    let _turn = turn::shared();
    let (balancer, _server, port, metrics) = start();
    let held = connect_port(port);
    echo(&held, b"before");
    let size = get(metrics, "/metrics").body.len();
    assert!(size > 1_000_000, "{size}: more than sockets hold");
    let mut page = connect_port(metrics);
    page.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("ask");
    let mut socket = UnixStream::connect(balancer.stats_path()).expect("connect");
    let chain = vec!["show stat"; 20].join(";");
    socket
        .write_all(format!("{chain}\n").as_bytes())
        .expect("ask");
    for round in 0..100 {
        echo(&held, format!("round {round}").as_bytes());
        echo(&connect_port(port), b"a new one");
    }
    // Both are still there, whole.
    let mut answer = Vec::new();
    page.read_to_end(&mut answer).expect("the metrics");
    assert!(answer.len() > size / 2);
    let mut tables = String::new();
    socket.read_to_string(&mut tables).expect("the tables");
    assert_eq!(tables.matches("# pxname,").count(), 20);
    drop(held);
    balancer.settle();
}
