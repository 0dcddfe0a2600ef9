//! `tidegate ctl` changes a balancer that serves: servers leave, come back, weigh less; sessions
//! are listed.

use std::time::Duration;

use crate::ctl_top::top;
use crate::spread::{count_sequential, named};
use crate::support::client::{connect_port, echo};
use crate::support::control::ctl;
use crate::support::port::free_port;
use crate::support::terminal;
use crate::support::{Balancer, MockServer, skip, turn, wait_for};

#[test]
fn a_server_leaves_and_comes_back() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", ""]);
    let port = free_port();
    let body = format!("listen web\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}");
    let balancer = Balancer::start(body);
    let socket = balancer.stats_path();
    for (words, status, counts) in [
        (&["drain", "s2"][..], "DRAIN", &[("s1", 6)][..]),
        (&["ready", "web/s2"], "no check", &[("s1", 3), ("s2", 3)]),
        (&["maint", "s2", "--wait", "30s"], "MAINT", &[("s1", 6)]),
        (&["ready", "s2"], "no check", &[("s1", 3), ("s2", 3)]),
        (&["weight", "s2", "0"], "no check", &[("s1", 6)]),
    ] {
        let outcome = ctl(socket, words);
        assert_eq!(
            (outcome.code, outcome.err.as_str()),
            (Some(0), ""),
            "{outcome:?}"
        );
        assert!(
            outcome
                .out
                .starts_with(&format!("web/s2: {status}, weight ")),
            "{outcome:?}"
        );
        let found = count_sequential(port, 6);
        let found: Vec<(&str, u32)> = found.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(found, counts, "after {words:?}");
    }
    balancer.settle();
}

#[test]
fn open_sessions_are_listed_and_waited_for() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let port = free_port();
    let body = format!(
        "listen web\n    bind 127.0.0.1:{port}\n    server s1 {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    let socket = balancer.stats_path();
    let client = connect_port(port);
    echo(&client, b"hello");
    let listed = ctl(socket, &["sessions", "--server", "web/s1", "--json"]).json();
    assert_eq!(listed["count"], 1, "{listed}");
    let source = client.local_addr().unwrap().to_string();
    let session = &listed["sessions"][0];
    assert_eq!(
        (session["src"].as_str(), session["proto"].as_str()),
        (Some(source.as_str()), Some("tcpv4"))
    );
    assert_eq!(
        ctl(socket, &["sessions", "--server", "s9"]).out,
        "0 sessions\n"
    );
    let left = ctl(socket, &["drain", "s1", "--wait", "1ms"]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(left.out.contains("1 session open"), "{left:?}");
    drop(client);
    let empty = ctl(socket, &["drain", "s1", "--wait", "30s"]);
    assert_eq!(empty.code, Some(0), "{empty:?}");
    balancer.settle();
}

#[test]
fn a_key_in_top_drains_a_server() {
    let _turn = turn::shared();
    if terminal::is_missing() {
        return;
    }
    let (_servers, lines) = named(&["", ""]);
    let port = free_port();
    let balancer = Balancer::start(format!("listen web\n    bind 127.0.0.1:{port}\n{lines}"));
    let mut terminal = top(balancer.stats_path(), 24, 80);
    let row = |lines: &[String], text: &str| lines.iter().any(|line| line.starts_with(text));
    terminal.wait("the servers", |lines| {
        row(lines, "  s1             no check")
    });
    terminal.press("jdy");
    terminal.wait("drained", |lines| row(lines, "  s1             DRAIN"));
    let drained = wait_for(Duration::from_secs(30), || {
        (balancer.stat().text("web", "s1", "status") == "DRAIN").then_some(())
    });
    assert!(drained.is_some());
    terminal.press("ey");
    terminal.wait("back", |lines| row(lines, "  s1             no check"));
    terminal.press("q");
    assert_eq!(terminal.wait_exit().code(), Some(0));
    terminal.assert_restored();
    balancer.settle();
}

#[test]
fn a_server_gets_its_weight_back_in_steps() {
    let _turn = turn::shared();
    if skip("it has no steps") {
        return;
    }
    let (_servers, lines) = named(&["weight 100", "weight 100"]);
    let port = free_port();
    let balancer = Balancer::start(format!("listen web\n    bind 127.0.0.1:{port}\n{lines}"));
    let words = [
        "ramp", "s2", "--steps", "10,100", "--every", "24h", "--json",
    ];
    let ramp = ctl(balancer.stats_path(), &words);
    assert_eq!(
        (ramp.code, ramp.json()["weight"].as_u64()),
        (Some(0), Some(10)),
        "{ramp:?}"
    );
    let done = ctl(balancer.stats_path(), &["ramp", "s2", "--cancel", "--json"]);
    assert_eq!(
        (done.code, done.json()["weight"].as_u64()),
        (Some(0), Some(100)),
        "{done:?}"
    );
    balancer.settle();
}
