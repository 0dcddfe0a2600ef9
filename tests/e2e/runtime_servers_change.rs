//! `add server` and `del server`, with clients around them.

use std::net::SocketAddr;

use crate::agent::Agent;
use crate::metrics::exporter;
use crate::reload::Long;
use crate::runtime_set::ask_at;
use crate::spread::{count_sequential, named, sorted};
use crate::support::client::{ask_name, local};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::http::Samples;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, skip, turn};

pub(crate) const ADDED: &str = "New server registered.";
pub(crate) const DELETED: &str = "Server deleted.";

/// An answer without its end: HAProxy has no empty line behind some of them.
pub(crate) fn ask(balancer: &Balancer, command: &str) -> String {
    balancer.stats(command).trim().to_owned()
}

pub(crate) fn tell(balancer: &Balancer, command: &str, answer: &str) {
    assert_eq!(ask(balancer, command), answer, "{command}");
}

pub(crate) fn has(balancer: &Balancer, row: &str) -> bool {
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
    // What scripts for older versions begin with is no error.
    let modes = balancer.stats("expert-mode on; experimental-mode on; expert-mode");
    assert!(modes.contains("expert-mode is ON"), "{modes}");
    tell(&balancer, "experimental-mode", "experimental-mode is OFF");
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
        &format!("add server l/n {address} check inter 200ms enabled"),
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
    let add = format!("add server l/m {address} agent-check agent-inter 200ms agent-port {port}");
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
