//! `set server ... addr`: servers that move, with clients around them.

use crate::metrics::exporter;
use crate::reload::{Long, change};
use crate::support::client::{ask_name, local};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::http::Samples;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, skip, turn};

fn tell(balancer: &Balancer, command: &str, answer: &str) {
    assert_eq!(balancer.stats(command).trim(), answer, "{command}");
}

/// Moves a server to another one's port.
fn to(balancer: &Balancer, server: &str, target: &MockServer) -> String {
    let port = target.address().port();
    let command = format!("set server {server} addr 127.0.0.1 port {port}");
    balancer.stats(&command).trim().to_owned()
}

/// The port of `s1` as `show servers state` has it.
fn port_shown(balancer: &Balancer) -> u16 {
    let state = balancer.stats("show servers state l");
    let row = state
        .lines()
        .find(|line| line.split(' ').nth(3) == Some("s1"));
    let port = row.and_then(|row| row.split(' ').nth(18)).map(str::parse);
    port.and_then(Result::ok)
        .unwrap_or_else(|| panic!("{state}"))
}

#[test]
fn streams_stay_where_they_are_and_new_ones_go_to_the_new_address() {
    let _turn = turn::shared();
    let (one, two, port) = (MockServer::echo(), MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {}\n",
        one.address()
    ));
    let mut longs = vec![Long::begin(port, 1), Long::begin(port, 2)];
    let [from, there] = [&one, &two].map(|server| server.address().port());
    let said = |from, to| {
        format!(
            "no need to change the addr, port changed from '{from}' to '{to}' by 'stats socket \
             command'"
        )
    };
    assert_eq!(to(&balancer, "l/s1", &two), said(from, there));
    assert_eq!(port_shown(&balancer), there);
    for seed in 3..6 {
        longs.push(Long::begin(port, seed));
        longs.iter_mut().for_each(Long::go_on);
    }
    assert_eq!((one.accepted(), two.accepted()), (2, 3));
    let stat = balancer.stat();
    assert_eq!(
        (
            stat.number("l", "s1", "stot"),
            stat.number("l", "s1", "scur")
        ),
        (5, 5)
    );
    assert_eq!(to(&balancer, "l/s1", &one), said(there, from));
    longs.push(Long::begin(port, 6));
    longs.iter_mut().for_each(Long::go_on);
    assert_eq!((one.accepted(), two.accepted()), (3, 3));
    drop(longs);
    balancer.settle();
}

#[test]
fn answers_are_those_of_haproxy() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::named("s"), free_port());
    let address = server.address();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {address}\n    server s2 127.0.0.1:9 \
         check inter 600s disabled\n    server s3 /nonexistent/socket disabled\n    server s4 \
         127.0.0.1:9 check port 10 inter 600s disabled\n    server s5 0.0.0.0:80 disabled\n"
    ));
    let by = "by 'stats socket command'";
    for (words, answer) in [
        ("s2 addr 127.0.0.1", "no need to change the addr"),
        (
            "s2 addr 127.0.0.1 port 9",
            "no need to change the addr, no need to change the port",
        ),
        (
            "s2 addr 127.0.0.2",
            "IP changed from '127.0.0.1' to '127.0.0.2'",
        ),
        (
            "s2 addr 127.0.0.3 port 7",
            "IP changed from '127.0.0.2' to '127.0.0.3', port changed from '9' to '7'",
        ),
        (
            "s2 addr 127.0.0.3 port +5",
            "no need to change the addr, can't change <port> to port map because it is \
             incompatible with current health check port configuration (use 'port' statement \
             from the 'server' directive.",
        ),
        (
            "s2 addr 127.0.0.3 port x",
            "no need to change the addr, problem converting port 'x' to an int",
        ),
        (
            "s2 addr 127.0.0.3 port",
            "no need to change the addr, problem converting port '' to an int",
        ),
        ("s2 addr ::1", "IP changed from '127.0.0.3' to '::1'"),
        ("s2 addr [::2]", "IP changed from '::1' to '[::2]'"),
        ("s2 addr localhost", "Invalid addr 'localhost'"),
        (
            "s3 addr 127.0.0.1",
            "Update for the current server address family is only supported through \
             configuration file",
        ),
        (
            "s4 addr 127.0.0.1 port +5",
            "no need to change the addr, port changed from '9' to '+5'",
        ),
        (
            "s4 addr 127.0.0.2 port 9",
            "IP changed from '127.0.0.1' to '127.0.0.2', port changed from '+5' to '9'",
        ),
        (
            "s5 addr 127.0.0.1 port 8",
            "IP changed from '0.0.0.0' to '127.0.0.1', port changed from '80' to '8'",
        ),
    ] {
        tell(
            &balancer,
            &format!("set server l/{words}"),
            &format!("{answer} {by}"),
        );
    }
    let missing = "set server <b>/<s> addr requires an address and optionally a port.";
    tell(&balancer, "set server l/s1 addr", missing);
    tell(
        &balancer,
        "set server l/nosuch addr 127.0.0.1",
        "No such server.",
    );
    assert_eq!(ask_name(local(port)).as_deref(), Ok("s"));
    balancer.settle();
}

#[test]
fn what_leads_nowhere_is_refused() {
    let _turn = turn::shared();
    if skip("it takes all of these") {
        return;
    }
    let (server, port) = (MockServer::named("s"), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {}\n    server s2 [::1]:9 source \
         [::1] disabled\n",
        server.address()
    ));
    for (words, part) in [
        (
            format!("s1 addr 127.0.0.1 port {port}"),
            "go round in a circle",
        ),
        (
            "s1 addr 127.0.0.1 port 0".to_owned(),
            "port '0' is not within 1 and 65535",
        ),
        (
            "s1 addr 127.0.0.1 port 70000".to_owned(),
            "is not within 1 and 65535",
        ),
        ("s2 addr 127.0.0.1".to_owned(), "different families"),
    ] {
        let answer = balancer.stats(&format!("set server l/{words}"));
        assert!(answer.contains(part), "{words}: {answer}");
    }
    assert_eq!(ask_name(local(port)).as_deref(), Ok("s"));
    assert_eq!(port_shown(&balancer), server.address().port());
    balancer.settle();
}

#[test]
fn checks_follow_and_decide() {
    let _turn = turn::shared();
    let (one, two, port) = (
        MockServer::named("one"),
        MockServer::named("two"),
        free_port(),
    );
    let mut gone = MockServer::named("gone");
    gone.stop();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {} check inter 50ms fall 3 rise 2\n",
        one.address()
    ));
    let status = || balancer.stat().text("l", "s1", "status").to_owned();
    eventually("a check has passed", || {
        balancer.stat().text("l", "s1", "check_status") == "L4OK"
    });
    to(&balancer, "l/s1", &gone);
    eventually("it is down", || status() == "DOWN");
    // As many failures as it takes a server that was up: nothing began anew.
    assert_eq!(balancer.stat().number("l", "s1", "chkfail"), 3);
    to(&balancer, "l/s1", &two);
    eventually("it is up", || status() == "UP");
    assert_eq!(ask_name(local(port)).as_deref(), Ok("two"));
    let stat = balancer.stat();
    assert_eq!(
        (
            stat.number("l", "s1", "chkdown"),
            stat.number("l", "s1", "stot")
        ),
        (1, 1)
    );
    // What was said of the check's own address stays. HAProxy 2.6 was not seen to probe there.
    if !is_tidegate() {
        return;
    }
    let own = one.address().port();
    tell(&balancer, &format!("set server l/s1 check-port {own}"), "");
    to(&balancer, "l/s1", &gone);
    let passed = || {
        balancer
            .stat()
            .text("l", "s1", "check_status")
            .ends_with("L4OK")
    };
    let before = one.accepted();
    eventually("the check goes where it was told to", || {
        one.accepted() > before + 2
    });
    assert!(passed() && status() == "UP");
    balancer.settle();
}

#[test]
fn a_circuit_is_about_an_address() {
    let _turn = turn::shared();
    if skip("it opens no circuits") {
        return;
    }
    let (mut one, two, port) = (
        MockServer::named("one"),
        MockServer::named("two"),
        free_port(),
    );
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    retries 0\n    server s1 {} max-fails 1 \
         fail-timeout 600s\n",
        one.address()
    ));
    one.stop();
    eventually("the circuit opens", || {
        let failed = ask_name(local(port)).is_err();
        failed && balancer.stat().text("l", "s1", "status") == "DOWN"
    });
    to(&balancer, "l/s1", &two);
    assert_ne!(balancer.stat().text("l", "s1", "status"), "DOWN");
    assert_eq!(ask_name(local(port)).as_deref(), Ok("two"));
    balancer.settle();
}

#[test]
fn flows_stay_and_new_ones_go_to_the_new_address() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (one, two) = (
        DatagramServer::counting_echo(),
        DatagramServer::counting_echo(),
    );
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen u\n    mode udp\n    bind 127.0.0.1:{port}\n    timeout udp 60s\n    server s1 {}\n",
        one.address()
    ));
    let client = |flow| DatagramClient::new(local(port), flow);
    let (before, after) = (client(1), client(2));
    before.exchange(0, 100);
    let there = two.address().port();
    let said = balancer.stats(&format!("set server u/s1 addr 127.0.0.1 port {there}"));
    assert!(said.contains("port changed"), "{said}");
    after.exchange(0, 100);
    before.exchange(1, 100);
    assert_eq!((one.received(), two.received()), (2, 1));
    assert_eq!(balancer.stat().number("u", "s1", "scur"), 2);
    let map = balancer.stats("set server u/s1 addr 127.0.0.1 port +1");
    assert!(
        map.contains("'mode udp' needs the address and the port"),
        "{map}"
    );
}

#[test]
fn a_consistent_hash_moves_only_what_was_the_servers() {
    let _turn = turn::shared();
    if skip("it can't be asked") {
        return;
    }
    let [one, two, three, four] = [(); 4].map(|()| MockServer::named("x"));
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance hash src\n    hash-type consistent\n    \
         server s1 {}\n    server s2 {}\n    server s3 {}\n",
        one.address(),
        two.address(),
        three.address()
    ));
    let owners = || -> Vec<String> {
        let of = |key: u32| {
            let text = balancer.stats(&format!("show balance l key 10.0.{}.1", key % 256));
            let owner = text.lines().find_map(|line| line.strip_prefix("owner: "));
            owner.unwrap_or_else(|| panic!("{text}")).to_owned()
        };
        (0..200).map(of).collect()
    };
    let before = owners();
    to(&balancer, "l/s1", &four);
    let after = owners();
    let pairs = before.iter().zip(&after).filter(|(old, new)| old != new);
    let moved: Vec<_> = pairs.collect();
    // From the server to others, or from others to it: never between those.
    assert!(
        moved.iter().all(|(old, new)| *old == "s1" || *new == "s1"),
        "{moved:?}"
    );
    assert!(!moved.is_empty());
    to(&balancer, "l/s1", &one);
    assert_eq!(owners(), before, "where it was it has what it had");
    balancer.settle();
}

#[test]
fn a_reload_leaves_it_there_unless_the_file_has_a_new_address() {
    let _turn = turn::shared();
    if skip("it has no reload in place") {
        return;
    }
    let [one, two, three] = ["one", "two", "three"].map(MockServer::named);
    let (port, metrics) = (free_port(), free_port());
    let body = |server: &MockServer, more: &str| {
        format!(
            "{}listen l\n    bind 127.0.0.1:{port}\n{more}    server s1 {} check inter 50ms\n",
            exporter(metrics),
            server.address()
        )
    };
    let name = || ask_name(local(port)).expect("a name");
    let balancer = Balancer::start(body(&one, ""));
    to(&balancer, "l/s1", &two);
    assert_eq!(name(), "two");
    // The same file, and one that says something else of other things.
    for more in ["", "    timeout server 77s\n"] {
        let answer = change(&balancer, &body(&one, more));
        assert!(!answer.contains("command"), "{answer}");
        assert_eq!(
            (name().as_str(), port_shown(&balancer)),
            ("two", two.address().port())
        );
    }
    let sample = "haproxy_server_sessions_total{proxy=\"l\",server=\"s1\"}";
    assert_eq!(Samples::scrape(metrics, "").find(sample), Some(3.0));
    let answer = change(&balancer, &body(&three, ""));
    assert!(
        answer.contains("by a command, and the files have a new address"),
        "{answer}"
    );
    assert_eq!(
        (name().as_str(), port_shown(&balancer)),
        ("three", three.address().port())
    );
    // From now on the file's is nothing special.
    change(&balancer, &body(&one, ""));
    assert_eq!(name(), "one");
    // A file that has it where it was moved to agrees.
    to(&balancer, "l/s1", &two);
    let answer = change(&balancer, &body(&two, ""));
    assert!(!answer.contains("command"), "{answer}");
    change(&balancer, &body(&one, ""));
    assert_eq!(name(), "one");
    balancer.settle();
}
