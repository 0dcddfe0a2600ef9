//! `add server` and `del server`, with clients around them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::agent::Agent;
use crate::metrics::exporter;
use crate::reload::{Long, change};
use crate::runtime_set::ask_at;
use crate::spread::{count_sequential, named, sorted};
use crate::support::client::{ask_name, connect_port, local};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::http::Samples;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, skip, turn};

const ADDED: &str = "New server registered.";
const DELETED: &str = "Server deleted.";

/// An answer without its end: HAProxy has no empty line behind some of them.
fn ask(balancer: &Balancer, command: &str) -> String {
    balancer.stats(command).trim().to_owned()
}

fn tell(balancer: &Balancer, command: &str, answer: &str) {
    assert_eq!(ask(balancer, command), answer, "{command}");
}

fn has(balancer: &Balancer, row: &str) -> bool {
    balancer.stats("show stat").contains(&format!("\n{row},"))
}

#[test]
fn an_added_server_is_enabled_serves_and_is_deleted() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&[""]);
    let (added, port) = (MockServer::named("n"), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}"
    ));
    tell(
        &balancer,
        &format!("add server l/n {} weight 9", added.address()),
        ADDED,
    );
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "n", "status"), "MAINT");
    assert_eq!(stat.number("l", "n", "sid"), 2);
    tell(&balancer, "get weight l/n", "9 (initial 9)");
    assert_eq!(count_sequential(port, 6)["s1"], 6, "it is in maintenance");
    tell(&balancer, "enable server l/n", "");
    assert_eq!(balancer.stat().text("l", "n", "status"), "no check");
    assert_eq!(sorted(&count_sequential(port, 20)), [18, 2]);
    assert_eq!(balancer.stat().number("l", "n", "stot"), 18);
    let refused = "Only servers in maintenance mode can be deleted.";
    tell(&balancer, "del server l/n", refused);
    tell(&balancer, "disable server l/n", "");
    eventually("nobody is with it", || {
        balancer.stat().number("l", "n", "scur") == 0
    });
    tell(&balancer, "del server l/n", DELETED);
    assert!(!has(&balancer, "l,n"), "it has gone with the answer");
    tell(&balancer, "del server l/n", "No such server.");
    assert_eq!(count_sequential(port, 6)["s1"], 6);
    if is_tidegate() {
        a_deleted_server_takes_its_ramp_along(&balancer, added.address());
    }
    // The same name is another server, and the one of the file goes the same way. What
    // `default-server` says is not for it.
    tell(
        &balancer,
        &format!("add server l/n {} enabled", added.address()),
        ADDED,
    );
    assert_eq!(balancer.stat().number("l", "n", "stot"), 0);
    tell(&balancer, "get weight l/n", "1 (initial 1)");
    tell(&balancer, "disable server l/s1", "");
    eventually("nobody is with s1", || {
        balancer.stat().number("l", "s1", "scur") == 0
    });
    tell(&balancer, "del server l/s1", DELETED);
    assert_eq!(count_sequential(port, 6)["n"], 6);
    assert_eq!(balancer.stat().number("l", "n", "sid"), 2, "numbers stay");
    balancer.settle();
}

fn a_deleted_server_takes_its_ramp_along(balancer: &Balancer, address: SocketAddr) {
    let add = format!("add server l/n {address} enabled");
    tell(balancer, &add, ADDED);
    tell(balancer, "ramp server l/n 10,100 every 600s", "");
    assert_eq!(balancer.stats("show ramp").trim().lines().count(), 2);
    tell(balancer, "disable server l/n; del server l/n", DELETED);
    tell(balancer, &add, ADDED);
    assert_eq!(balancer.stats("show ramp").trim().lines().count(), 1);
    assert_eq!(balancer.stat().text("l", "n", "throttle"), "");
    tell(balancer, "disable server l/n; del server l/n", DELETED);
}

#[test]
fn what_can_not_be_added_is_refused_as_by_haproxy() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::named("s"), free_port());
    let address = server.address();
    let balancer = Balancer::start(format!(
        "frontend f\n    bind 127.0.0.1:{port}\n    default_backend b\nbackend b\n    balance \
         roundrobin\n    server s1 {address}\nbackend rr\n    balance static-rr\n    server s1 \
         {address}\nbackend map\n    balance source\n    hash-type map-based\n    server s1 \
         {address}\n"
    ));
    let dynamic = "Backend must use a dynamic load balancing to support dynamic servers.";
    for (command, answer) in [
        ("add server", "Require 'backend/server'."),
        ("add server b", "Require 'backend/server'."),
        ("add server b/", "Require 'backend/server'."),
        ("add server nosuch/x 127.0.0.1:1", "No such backend."),
        ("add server f/x 127.0.0.1:1", "No such backend."),
        (
            "add server b/n",
            "'server' expects <name> and <addr>[:<port>] as arguments.",
        ),
        ("add server rr/n 127.0.0.1:1", dynamic),
        ("add server map/n 127.0.0.1:1", dynamic),
        (
            "add server b/s1 127.0.0.1:1",
            "Already exists a server with the same name in backend.",
        ),
        (
            "add server b/n 127.0.0.1:1 wieght 5",
            "unknown keyword 'wieght'; did you mean 'weight' maybe ?",
        ),
        (
            "add server b/n!1 127.0.0.1:1",
            "character '!' is not permitted in server name 'n!1'.",
        ),
        (
            "add server b/n 127.0.0.1:1 track b/s1",
            "unable to use b/s1 for tracking as it does not have any check nor agent enabled.",
        ),
        (
            "add server b/n 127.0.0.1:1 check track b/s1",
            "unable to enable checks and tracking at the same time!",
        ),
        (
            "add server b/n 127.0.0.1:1 agent-check",
            "server n does not have agent port. Agent check has been disabled.",
        ),
        (
            "add server b/n 127.0.0.1:1 id 0",
            "'id' : custom id has to be > 0.",
        ),
        (
            "add server b/n 127.0.0.1:1 init-addr none",
            "'init-addr' option is not accepted for dynamic server",
        ),
        (
            "add server b/n 127.0.0.1:1 resolvers r",
            "'resolvers' option is not accepted for dynamic server",
        ),
        ("add server b/n 127.0.0.1:99999", "invalid port '99999'"),
        ("del server", "Require 'backend/server'."),
        ("del server b", "Require 'backend/server'."),
        ("del server nosuch/x", "No such backend."),
        ("del server b/x", "No such server."),
        (
            "del server b/s1",
            "Only servers in maintenance mode can be deleted.",
        ),
    ] {
        tell(&balancer, command, answer);
    }
    let refused = ask(&balancer, "add server b/n 127.0.0.1:1 id 1");
    assert!(
        refused.starts_with("'id' : custom id 1 already used at "),
        "{refused}"
    );
    assert_eq!(ask_name(local(port)).as_deref(), Ok("s"));
    assert_eq!(balancer.stat().text("b", "BACKEND", "act"), "1");
    balancer.settle();
}

#[test]
fn what_only_this_program_can_know_is_refused_too() {
    let _turn = turn::shared();
    if skip("it looks at none of it") {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    server s1 {} guid one\n",
        server.address()
    ));
    for (words, part) in [
        ("localhost:80", "no name is looked up"),
        ("127.0.0.1:1 guid one", "'one' is that of"),
        ("127.0.0.1:1 ssl", "TLS towards servers is not implemented"),
        ("fd@3", "can't be a descriptor"),
        ("127.0.0.1:1 weight 257", "not within 0 and 256"),
        ("127.0.0.1:1 source [::1]", "different families"),
    ] {
        let refused = ask(&balancer, &format!("add server l/n {words}"));
        assert!(refused.contains(part), "{words}: {refused}");
    }
    // A circle, through an address that is this program's own.
    let refused = ask(&balancer, &format!("add server l/n 127.0.0.1:{port}"));
    assert!(refused.contains("go round in a circle"), "{refused}");
    assert!(!has(&balancer, "l,n"));
    let text = ask(&balancer, "add server help");
    assert!(
        text.contains("\n  weight") && !text.contains("resolvers"),
        "{text}"
    );
    balancer.settle();
}

#[test]
fn checks_of_an_added_server_begin_when_they_are_enabled() {
    let _turn = turn::shared();
    let (mut server, port) = (MockServer::named("hello"), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    option tcp-check\n    \
         tcp-check expect string hello\n    server s1 {}\n",
        server.address()
    ));
    let status = || balancer.stat().text("l", "n", "status").to_owned();
    let address = server.address();
    tell(
        &balancer,
        &format!("add server l/n {address} check inter 50ms enabled"),
        ADDED,
    );
    assert_eq!(status(), "no check");
    tell(&balancer, "enable health l/n", "");
    // The script is that of the backend, of which no other server is checked.
    eventually("a check has passed", || {
        balancer
            .stat()
            .text("l", "n", "check_status")
            .ends_with("L7OK")
    });
    eventually("it is up", || status() == "UP");
    server.stop();
    eventually("it is down", || status() == "DOWN");
    server.restart();
    eventually("it is up again", || status() == "UP");
    // The same with an agent.
    let agent = Agent::new("drain\n");
    let port = agent.port();
    let add = format!("add server l/m {address} agent-check agent-inter 50ms agent-port {port}");
    tell(&balancer, &format!("{add} enabled"), ADDED);
    assert_eq!(balancer.stat().text("l", "m", "status"), "no check");
    tell(&balancer, "enable agent l/m", "");
    eventually("the agent is heard", || {
        balancer
            .stat()
            .text("l", "m", "status")
            .starts_with("DRAIN")
    });
    balancer.settle();
}

#[test]
fn a_server_goes_when_its_streams_have_ended() {
    let _turn = turn::shared();
    if skip("it has no such condition") {
        return;
    }
    let (one, two, port) = (MockServer::echo(), MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    server s1 {}\n",
        one.address()
    ));
    tell(
        &balancer,
        &format!("add server l/n {} enabled", two.address()),
        ADDED,
    );
    let mut longs: Vec<Long> = (0..4).map(|seed| Long::begin(port, seed)).collect();
    assert_eq!((one.accepted(), two.accepted()), (2, 2));
    for name in ["s1", "n"] {
        let refused = "Server still has connections attached to it, cannot remove it.";
        tell(
            &balancer,
            &format!("disable server l/{name}; del server l/{name}"),
            refused,
        );
        let waited = ask(&balancer, &format!("wait 1 srv-removable l/{name}"));
        assert_eq!(waited, "Wait delay expired.");
        longs.iter_mut().for_each(Long::go_on);
        tell(&balancer, &format!("enable server l/{name}"), "");
    }
    tell(&balancer, "disable server l/n", "");
    let path = balancer.stats_path().to_owned();
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(move || ask_at(&path, "wait 60s srv-removable l/n; del server l/n"));
        longs.iter_mut().for_each(Long::go_on);
        longs.clear();
        assert_eq!(waiting.join().unwrap(), format!("Done.\n\n{DELETED}\n\n"));
    });
    assert!(!has(&balancer, "l,n"));
    Long::begin(port, 9).go_on();
    balancer.settle();
}

#[test]
fn settings_of_a_line_hold_for_what_is_added() {
    let _turn = turn::shared();
    if skip("it has no datagrams and tracks no added servers") {
        return;
    }
    let (server, port, metrics) = (MockServer::named("s"), free_port(), free_port());
    let address = server.address();
    let balancer = Balancer::start(format!(
        "{}listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    default-server weight 4\n    server s1 {address} \
         check inter 50ms\n",
        exporter(metrics)
    ));
    let add = format!("add server l/n {address} id 77 weight 5 maxconn 7 backup slowstart 5s");
    tell(&balancer, &add, ADDED);
    let stat = balancer.stat();
    let number = |column| stat.number("l", "n", column);
    let numbers = ["sid", "weight", "slim", "bck"].map(number);
    assert_eq!(numbers, [77, 5, 7, 1]);
    let taken = ask(&balancer, &format!("add server l/m {address} id 77"));
    assert!(
        taken.starts_with("'id' : custom id 77 already used"),
        "{taken}"
    );
    // One that tracks another keeps that one. What `default-server` says is not for it.
    tell(
        &balancer,
        &format!("add server l/t {address} track l/s1 enabled"),
        ADDED,
    );
    tell(&balancer, "disable server l/s1", "");
    assert_eq!(balancer.stat().text("l", "t", "status"), "MAINT (via l/s1)");
    let pointed = "This server cannot be removed at runtime due to other configuration elements \
                   pointing to it.";
    tell(&balancer, "del server l/s1", pointed);
    tell(&balancer, "enable server l/s1; disable server l/t", "");
    let sample = "haproxy_server_weight{proxy=\"l\",server=\"t\"}";
    assert_eq!(Samples::scrape(metrics, "").find(sample), Some(1.0));
    tell(&balancer, "del server l/t", DELETED);
    assert_eq!(Samples::scrape(metrics, "").find(sample), None);
    tell(&balancer, "disable server l/s1; del server l/s1", DELETED);
    tell(&balancer, "del server l/n", DELETED);
    assert_eq!(balancer.stat().number("l", "BACKEND", "act"), 0);
    let row = "haproxy_backend_active_servers{proxy=\"l\"}";
    assert_eq!(Samples::scrape(metrics, "").find(row), Some(0.0));
    balancer.settle();
}

#[test]
fn flows_leave_a_server_that_goes() {
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
        "listen u\n    mode udp\n    balance roundrobin\n    bind 127.0.0.1:{port}\n    timeout \
         udp 60s\n    server s1 {}\n",
        one.address()
    ));
    let client = |flow| DatagramClient::new(local(port), flow);
    let mut clients = vec![client(0)];
    clients[0].exchange(0, 100);
    let refused = ask(&balancer, "add server u/n *:80");
    assert!(
        refused.contains("'mode udp' needs the address"),
        "{refused}"
    );
    tell(
        &balancer,
        &format!("add server u/n {} enabled", two.address()),
        ADDED,
    );
    clients.extend((1..5).map(client));
    clients[1..]
        .iter()
        .for_each(|client| client.exchange(0, 100));
    assert_eq!((one.received(), two.received()), (3, 2));
    tell(&balancer, "disable server u/s1", "");
    clients.iter().for_each(|client| {
        client.insist(1, 100);
    });
    eventually("no flow is with it", || {
        balancer.stat().number("u", "s1", "scur") == 0
    });
    tell(&balancer, "del server u/s1", DELETED);
    assert!(!has(&balancer, "u,s1"));
    let before = one.received();
    clients.iter().for_each(|client| client.exchange(2, 100));
    assert_eq!(one.received(), before);
    assert_eq!(balancer.stat().number("u", "n", "scur"), 5);
}

#[test]
fn a_reload_has_the_servers_of_the_files() {
    let _turn = turn::shared();
    if skip("it has no reload in place") {
        return;
    }
    let servers = [(); 3].map(|()| MockServer::echo());
    let [a, b, c] = servers.each_ref().map(MockServer::address);
    let port = free_port();
    let listen = format!("listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n");
    let body = format!("{listen}    server a {a}\n    server b {b}\n");
    let balancer = Balancer::start(body.as_str());
    tell(&balancer, "disable server l/a; del server l/a", DELETED);
    tell(&balancer, &format!("add server l/n {c} enabled"), ADDED);
    tell(
        &balancer,
        &format!("add server l/k {c} weight 3 enabled"),
        ADDED,
    );
    tell(&balancer, "set weight l/k 2", "");
    let mut longs: Vec<Long> = (0..8).map(|seed| Long::begin(port, seed)).collect();
    let served = balancer.stat().number("l", "k", "stot");
    assert!(served > 0 && servers[2].accepted() > served);
    // Edits are no reloads.
    assert_eq!(ask(&balancer, "show reload"), "There was no reload yet.");
    let answer = change(&balancer, &format!("{body}    server k {c} weight 3\n"));
    let back = "server l/a was deleted by a command and is in the files: it is back";
    let gone = "server l/n was added by a command and is not in the files: it is removed";
    assert!(answer.contains(back) && answer.contains(gone), "{answer}");
    longs.iter_mut().for_each(Long::go_on);
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "n", "status"), "DRAIN (removed)");
    assert_eq!(stat.number("l", "a", "stot"), 0, "it is another one");
    // One that the files have too by now is the same server.
    let kept = (
        stat.number("l", "k", "stot"),
        stat.number("l", "k", "weight"),
    );
    assert_eq!(kept, (served, 2));
    longs.extend((8..16).map(|seed| Long::begin(port, seed)));
    longs.iter_mut().for_each(Long::go_on);
    assert!(servers[0].accepted() > 0);
    drop(longs);
    eventually("the one that went is gone", || !has(&balancer, "l,n"));
    let answer = change(&balancer, &format!("{body}    server k {c} weight 3\n"));
    assert!(!answer.contains("by a command"), "{answer}");
    balancer.settle();
}

#[test]
fn a_hundred_servers_come_and_go_and_leave_nothing() {
    let _turn = turn::shared();
    if skip("it takes what it has deleted along for a while") {
        return;
    }
    let (one, two, port) = (MockServer::echo(), MockServer::named("n"), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance leastconn\n    server s1 {}\n",
        one.address()
    ));
    let mut long = Long::begin(port, 1);
    let cycle = |number: u64| {
        let add = format!(
            "add server l/n{} {} check inter 1h",
            number % 3,
            two.address()
        );
        tell(&balancer, &add, ADDED);
        let name = format!("l/n{}", number % 3);
        tell(
            &balancer,
            &format!("enable health {name}; enable server {name}"),
            "",
        );
        // The other one has the stream.
        assert_eq!(ask_name(local(port)).as_deref(), Ok("n"));
        tell(&balancer, &format!("disable server {name}"), "");
        let ended = ask(&balancer, &format!("wait 60s srv-removable {name}"));
        assert_eq!(ended, "Done.");
        tell(&balancer, &format!("del server {name}"), DELETED);
    };
    (0..10).for_each(cycle);
    long.go_on();
    let memory = balancer.resident_kib();
    (10..110).for_each(cycle);
    long.go_on();
    // A server alone has 100 KiB of histograms and counters.
    let more = balancer.resident_kib().saturating_sub(memory);
    assert!(more < 5_000, "{more} KiB more");
    assert_eq!(balancer.stats("show servers state l").lines().count(), 4);
    drop(long);
    // Which looks at the descriptors.
    balancer.settle();
}

#[test]
fn fifty_clients_add_and_delete_at_once() {
    let _turn = turn::shared();
    if skip("it has no condition to wait for") {
        return;
    }
    let (one, two, port) = (MockServer::echo(), MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    server s1 {}\n",
        one.address()
    ));
    let mut long = Long::begin(port, 1);
    let (path, address) = (balancer.stats_path(), two.address());
    let (done, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 100;
            while !done.load(SeqCst) {
                seed += 1;
                Long::begin(port, seed);
                served.fetch_add(1, SeqCst);
            }
        });
        let client = |number: usize| {
            for name in [format!("l/n{number}"), "l/same".to_owned()] {
                let added = ask_at(path, &format!("add server {name} {address} enabled"));
                let exists = "Already exists a server with the same name in backend.";
                let is_ours = added.trim() == ADDED;
                assert!(
                    is_ours || (name == "l/same" && added.trim() == exists),
                    "{added}"
                );
                if !is_ours {
                    continue;
                }
                let deleted = ask_at(
                    path,
                    &format!(
                        "disable server {name}; wait 60s \
                         srv-removable {name}; del server {name}"
                    ),
                );
                assert!(
                    deleted.ends_with(&format!("{DELETED}\n\n")),
                    "{name}: {deleted}"
                );
            }
        };
        let clients: Vec<_> = (0..50)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, SeqCst);
        assert!(results.iter().all(Result::is_ok));
    });
    long.go_on();
    let state = balancer.stats("show servers state l");
    assert_eq!(state.lines().count(), 4, "{state}");
    drop((long, connect_port(port)));
    balancer.settle();
}
