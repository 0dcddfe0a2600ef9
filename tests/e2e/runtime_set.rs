//! Commands of the runtime socket that change servers, with clients around them.

use std::path::Path;
use std::time::Duration;

use crate::agent::Agent;
use crate::spread::{count_sequential, named, sorted};
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{self, connect_port};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, is_tidegate, runtime, skip, turn};

/// Longer than a test.
const NEVER: &str = "inter 600s";

fn three() -> (Balancer, Vec<MockServer>, u16) {
    let (servers, lines) = named(&["", "", ""]);
    let port = free_port();
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}");
    (Balancer::start(body), servers, port)
}

/// Two servers that echo.
fn two_echoing(settings: &str) -> (Balancer, [MockServer; 2], u16) {
    let servers = [MockServer::echo(), MockServer::echo()];
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n{settings}    server s1 {}\n    server s2 {}\n",
        servers[0].address(),
        servers[1].address()
    ));
    (balancer, servers, port)
}

/// The answer of another socket than the one of the tests.
pub(crate) fn ask_at(path: &Path, command: &str) -> String {
    runtime::exchange(path, format!("{command}\n"))
}

#[test]
fn a_server_is_taken_out_and_put_back() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    for (out, status, back) in [
        ("disable server l/s1", "MAINT", "enable server l/s1"),
        (
            "set server l/s1 state maint",
            "MAINT",
            "set server l/s1 state ready",
        ),
        ("set server l/s1 state drain", "DRAIN", "enable server l/s1"),
    ] {
        assert_eq!(balancer.stats(out), "\n", "{out}");
        assert_eq!(balancer.stat().text("l", "s1", "status"), status, "{out}");
        let counts = count_sequential(port, 20);
        assert!(!counts.contains_key("s1"), "{out}: {counts:?}");
        assert_eq!(sorted(&counts), [10, 10], "{out}");
        assert_eq!(balancer.stats(back), "\n", "{back}");
        assert_eq!(
            balancer.stat().text("l", "s1", "status"),
            "no check",
            "{back}"
        );
        assert_eq!(sorted(&count_sequential(port, 30)), [10, 10, 10], "{back}");
    }
    balancer.settle();
}

#[test]
fn a_drained_server_keeps_its_sessions_and_gets_no_new_ones() {
    let _turn = turn::shared();
    let (balancer, servers, port) = two_echoing("");
    let clients = [connect_port(port), connect_port(port)];
    clients
        .iter()
        .for_each(|client| client::echo(client, b"before"));
    balancer.stats("set server l/s1 state drain");
    for _ in 0..10 {
        client::echo(&connect_port(port), b"new");
    }
    assert_eq!((servers[0].accepted(), servers[1].accepted()), (1, 11));
    clients
        .iter()
        .for_each(|client| client::echo(client, b"after"));
    assert_eq!(balancer.stat().text("l", "s1", "status"), "DRAIN");
    balancer.stats("set server l/s1 state ready");
    drop(clients);
    eventually("s1 is used again", || {
        client::echo(&connect_port(port), b"new");
        servers[0].accepted() > 1
    });
    balancer.settle();
}

#[test]
fn a_weight_can_be_changed() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    balancer.stats("set weight l/s1 2; set server l/s2 weight 0");
    assert_eq!(balancer.stats("get weight l/s1"), "2 (initial 1)\n\n");
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "s1", "weight"), 2);
    assert_eq!(stat.number("l", "BACKEND", "weight"), 3);
    let counts = count_sequential(port, 30);
    assert_eq!(
        (counts["s1"], counts.get("s2"), counts["s3"]),
        (20, None, 10)
    );
    balancer.stats("set weight l/s1 100%; set weight l/s2 300%");
    assert_eq!(balancer.stats("get weight l/s2"), "3 (initial 1)\n\n");
    let counts = count_sequential(port, 50);
    // HAProxy's turns need some rounds to fit new weights.
    if is_tidegate() {
        assert_eq!((counts["s1"], counts["s2"], counts["s3"]), (10, 30, 10));
    }
    balancer.settle();
}

#[test]
fn weights_of_a_static_algorithm_are_all_or_nothing() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["weight 10", "weight 20"]);
    let port = free_port();
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    balance static-rr\n{lines}");
    let balancer = Balancer::start(body);
    let refusal = "Backend is using a static LB algorithm and only accepts weights '0%' and \
                   '100%'.";
    for weight in ["5", "50%", "20"] {
        let answer = balancer.stats(&format!("set server l/s1 weight {weight}"));
        assert_eq!(answer.trim(), refusal, "{weight}");
    }
    assert_eq!(balancer.stats("set server l/s1 weight 0"), "\n");
    assert_eq!(sorted(&count_sequential(port, 10)), [10]);
    for weight in ["100%", "10"] {
        assert_eq!(
            balancer.stats(&format!("set server l/s1 weight {weight}")),
            "\n"
        );
    }
    assert_eq!(sorted(&count_sequential(port, 30)), [20, 10]);
    balancer.settle();
}

/// Of a server without checks, an operator's word about its health holds.
#[test]
fn an_operator_says_how_a_server_is() {
    let _turn = turn::shared();
    let syslog = Syslog::start();
    let (balancer, servers, port) = two_echoing(&format!("    log {} local0\n", syslog.address()));
    let status = || balancer.stat().text("l", "s1", "status").to_owned();
    let old = connect_port(port);
    client::echo(&old, b"first goes to s1");
    assert_eq!(servers[0].accepted(), 1);

    assert_eq!(balancer.stats("set server l/s1 health down"), "\n");
    assert_eq!(status(), "DOWN");
    syslog.wait_line(
        "Server l/s1 is DOWN, changed from CLI. 1 active and 0 backup servers left. 1 sessions \
         active, 0 requeued, 0 remaining in queue.",
    );
    client::echo(&connect_port(port), b"new");
    assert_eq!(balancer.stats("set server l/s1 health up"), "\n");
    assert_eq!(status(), "no check");
    syslog.wait_line(
        "Server l/s1 is UP, changed from CLI. 2 active and 0 backup servers online. 0 sessions \
         requeued, 0 total in queue.",
    );

    assert_eq!(balancer.stats("set server l/s1 health stopping"), "\n");
    assert_eq!(status(), "NOLB");
    syslog.wait_line("Server l/s1 is stopping, changed from CLI. 1 active");
    for _ in 0..4 {
        client::echo(&connect_port(port), b"new");
    }
    assert_eq!((servers[0].accepted(), servers[1].accepted()), (1, 5));
    client::echo(&old, b"still there");
    balancer.stats("set server l/s1 health up");
    for _ in 0..2 {
        client::echo(&connect_port(port), b"new");
    }
    assert_eq!(servers[0].accepted(), 2);
    assert_eq!(syslog.count("Server l/s1 is UP, changed from CLI"), 2);
    drop(old);
    balancer.settle();
}

/// Checks go on from what the operator has said.
#[test]
fn checks_may_contradict_an_operator() {
    let _turn = turn::shared();
    let syslog = Syslog::start();
    let server = MockServer::named("s1");
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    server s1 {} check inter 50 \
         rise 3 fall 2\n    server s2 {} track l/s1\n",
        syslog.address(),
        server.address(),
        server.address(),
    ));
    let status = |name: &str| balancer.stat().text("l", name, "status").to_owned();
    eventually("it is up", || status("s1") == "UP");
    for word in ["down", "stopping"] {
        balancer.stats(&format!("set server l/s1 health {word}"));
        let line = match word {
            "down" => "is DOWN",
            _ => "is stopping",
        };
        syslog.wait_line(&format!("Server l/s1 {line}, changed from CLI"));
        syslog.wait_line(&format!("Server l/s2 {line} via l/s1"));
        eventually(word, || status("s1") == "UP" && status("s2") == "UP");
        syslog.wait_line("Server l/s1 is UP, reason: Layer4 check passed");
    }
    let answer = balancer.stats("set server l/s2 health up");
    assert_eq!(answer.trim(), "cannot change health on a tracking server.");
    drop(server);
    balancer.settle();
}

#[test]
fn checks_go_where_an_operator_says() {
    let _turn = turn::shared();
    let (server, elsewhere) = (MockServer::named("s1"), MockServer::named("checked"));
    let (port, nobody) = (free_port(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {} check inter 20 rise 1 fall 1\n",
        server.address(),
    ));
    let status = || balancer.stat().text("l", "s1", "status").to_owned();
    eventually("it is up", || status() == "UP");
    let set = |words: &str| assert_eq!(balancer.stats(&format!("set server l/s1 {words}")), "\n");
    set(&format!("check-port {nobody}"));
    eventually("nobody is there", || status() == "DOWN");
    set(&format!(
        "check-addr 127.0.0.1 port {}",
        elsewhere.address().port()
    ));
    eventually("somebody is there", || status() == "UP");
    assert_eq!(
        sorted(&count_sequential(port, 2)),
        [2],
        "clients go where they went"
    );
    // Where there is no such address.
    set("check-addr 127.255.255.254");
    eventually("nobody is there either", || status() == "DOWN");
    balancer.settle();
}

#[test]
fn checks_can_be_stopped() {
    let _turn = turn::shared();
    if skip("its checks leave no connection that the test could count") {
        return;
    }
    let (mut server, other) = (MockServer::named("s1"), MockServer::named("s2"));
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {} check inter 20 rise 1 fall 1\n    \
         server s2 {} check inter 20\n",
        server.address(),
        other.address(),
    ));
    let cell = |column: &str| balancer.stat().text("l", "s1", column).to_owned();
    eventually("it is up", || cell("status") == "UP");
    assert_eq!(balancer.stats("disable health l/s1"), "\n");
    assert_eq!(
        (cell("status"), cell("check_status")),
        ("no check".into(), "".into())
    );
    server.stop();
    // What was under way is over long before.
    let before = other.accepted();
    eventually("others are checked", || other.accepted() > before + 10);
    assert_eq!(cell("status"), "no check");
    assert_eq!(balancer.stats("enable health l/s1"), "\n");
    eventually("it is found dead", || cell("status") == "DOWN");
    balancer.settle();
}

#[test]
fn an_operator_speaks_for_an_agent_and_may_silence_it() {
    let _turn = turn::shared();
    let (agent, other) = (Agent::new("up 50%\n"), Agent::new("up 25%\n"));
    let server = MockServer::named("s1");
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {} weight 100 agent-check agent-port \
         {} agent-inter 20\n",
        server.address(),
        agent.port(),
    ));
    let cell = |column: &str| balancer.stat().text("l", "s1", column).to_owned();

    let set = |words: &str| assert_eq!(balancer.stats(words).trim(), "", "{words}");
    eventually("it has spoken", || cell("weight") == "50");
    set(&format!("set server l/s1 agent-port {}", other.port()));
    eventually("the other one has spoken", || cell("weight") == "25");
    agent.say("up 75%\n");
    set(&format!(
        "set server l/s1 agent-addr 127.0.0.1 port {}",
        agent.port()
    ));
    eventually("the first one again", || cell("weight") == "75");
    // It would say at once that it is up.
    agent.say("drain\n");
    eventually("it says nothing of it", || {
        cell("agent_status") == "CHECKED"
    });
    set("set server l/s1 agent down");
    assert!(
        cell("status").starts_with("DOWN (agent)"),
        "{}",
        cell("status")
    );
    set("set server l/s1 agent up");
    assert_eq!(cell("agent_health"), "1");
    assert!(cell("status").starts_with("DRAIN"), "{}", cell("status"));
    set("disable agent l/s1; set server l/s1 state ready");
    let refusal = "agent checks are not enabled on this server.";
    assert_eq!(balancer.stats("set server l/s1 agent down").trim(), refusal);
    assert_eq!(
        (cell("status"), cell("agent_status")),
        ("no check".into(), "".into())
    );
    set("enable agent l/s1");
    eventually("it drains again", || cell("status").starts_with("DRAIN"));
    balancer.settle();
}

#[test]
fn an_agent_is_asked_what_an_operator_says() {
    let _turn = turn::shared();
    let (asked, question) = std::sync::mpsc::channel::<String>();
    let agent = MockServer::start(move |mut stream: std::net::TcpStream| {
        use std::io::{Read, Write};
        let mut bytes = [0; 64];
        let count = stream.read(&mut bytes).unwrap_or(0);
        let _ = asked.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
        let _ = stream.write_all(b"up\n");
    });
    let server = MockServer::named("s1");
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {} agent-check agent-port {} \
         agent-inter 20 agent-send first\n",
        server.address(),
        agent.address().port(),
    ));
    let wait = |wanted: &str| {
        let patience = Duration::from_secs(30);
        while question.recv_timeout(patience).expect("it is asked") != wanted {}
    };
    wait("first");
    assert_eq!(balancer.stats("set server l/s1 agent-send second"), "\n");
    wait("second");
    balancer.settle();
}

#[test]
fn wrong_words_are_answered_as_haproxy_does() {
    let _turn = turn::shared();
    let (servers, port) = ([MockServer::named("s1")], free_port());
    let agent = Agent::new("up\n");
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {0}\n    server s2 {0} check {NEVER} \
         agent-check agent-port {1}\n    server s3 {0} track l/s2\n",
        servers[0].address(),
        agent.port(),
    ));
    let usage = "usage: set server <backend>/<server> addr | agent | agent-addr | agent-port | \
                 agent-send | check-addr | check-port | fqdn | health | ssl | state | weight";
    let range = "Absolute weight can only be between 0 and 256 inclusive.";
    for (command, words) in [
        ("disable server l/nobody", "No such server."),
        ("disable server nowhere/s1", "No such backend."),
        ("disable server l", "Require 'backend/server'."),
        ("enable server", "Require 'backend/server'."),
        ("set server", "Require 'backend/server'."),
        ("set server l/s1", usage),
        ("set server l/s1 mood good", usage),
        (
            "set server l/s1 state asleep",
            "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
        ),
        ("set server l/s1 weight", "Require <weight> or <weight%>."),
        ("set weight l/s1", "Require <weight> or <weight%>."),
        ("set weight", "Require 'backend/server'."),
        ("set server l/s1 weight 300", range),
        ("set server l/s1 weight -1", range),
        (
            "set weight l/s1 x",
            "Empty weight string empty or preceded by garbage",
        ),
        ("set weight l/s1 5x", "Trailing garbage in weight string"),
        ("get weight", "Require 'backend/server'."),
        ("get weight l/nobody", "No such server."),
        (
            "set server l/s1 health fine",
            "'set server <srv> health' expects 'up', 'stopping', or 'down'.",
        ),
        (
            "set server l/s3 health up",
            "cannot change health on a tracking server.",
        ),
        (
            "set server l/s1 agent up",
            "agent checks are not enabled on this server.",
        ),
        (
            "set server l/s2 agent fine",
            "'set server <srv> agent' expects 'up' or 'down'.",
        ),
        (
            "set server l/s1 agent-addr 127.0.0.1",
            "agent checks are not enabled on this server",
        ),
        (
            "set server l/s2 agent-addr",
            "set server <b>/<s> agent-addr requires an address and optionally a port.",
        ),
        (
            "set server l/s2 agent-port x",
            "provided port is not an integer",
        ),
        (
            "set server l/s2 agent-port 70000",
            "provided port is invalid",
        ),
        (
            "set server l/s1 agent-send x",
            "agent checks are not enabled on this server.",
        ),
        (
            "set server l/s1 check-addr 127.0.0.1",
            "health checks are not enabled on this server",
        ),
        (
            "set server l/s2 check-addr",
            "set server <b>/<s> check-addr requires an address and optionally a port.",
        ),
        (
            "set server l/s2 check-port",
            "set server <b>/<s> check-port requires a port.",
        ),
        (
            "set server l/s2 check-port 70000",
            "provided port is invalid",
        ),
        (
            "enable health l/s1",
            "Health check was not configured on this server, cannot enable.",
        ),
        (
            "enable agent l/s1",
            "Agent was not configured on this server, cannot enable.",
        ),
        (
            "set server l/s1 fqdn a.b",
            "set server <b>/<s> fqdn failed because no resolution is configured.",
        ),
    ] {
        assert_eq!(balancer.stats(command).trim_end(), words, "{command}");
    }
    balancer.settle();
}

#[test]
fn only_those_who_may_change_something() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", ""]);
    let port = free_port();
    let dir = TempDir::new();
    let (user, operator) = (dir.path().join("user"), dir.path().join("operator"));
    let balancer = Setup::new(format!("listen l\n    bind 127.0.0.1:{port}\n{lines}"))
        .global(format!("stats socket {} level user", user.display()))
        .global(format!(
            "stats socket {} level operator",
            operator.display()
        ))
        .start();
    for command in [
        "disable server l/s1",
        "enable server l/s1",
        "set server l/s1 weight 2",
        "set weight l/s1 2",
        "disable frontend l",
        "enable health l/s1",
        "disable agent l/s1",
        "shutdown frontend l",
        "shutdown session 0x1",
        "shutdown sessions server l/s1",
        "set maxconn global 5",
        "set maxconn frontend l 5",
        "set maxconn server l/s1 5",
        "set rate-limit connections global 5",
        "clear counters all",
    ] {
        for path in [&user, &operator] {
            let answer = ask_at(path, command);
            assert_eq!(answer, "Permission denied\n\n", "{command}");
        }
    }
    for command in ["clear counters", "show sess"] {
        assert_eq!(ask_at(&user, command), "Permission denied\n\n", "{command}");
        assert!(!ask_at(&operator, command).contains("denied"), "{command}");
    }
    assert_eq!(ask_at(&user, "get weight l/s1"), "1 (initial 1)\n\n");
    assert_eq!(balancer.stat().text("l", "s1", "status"), "no check");
    balancer.settle();
}

#[test]
fn a_chain_waits_until_a_server_may_go() {
    let _turn = turn::shared();
    if skip("2.6 has no 'wait'") {
        return;
    }
    let (balancer, _servers, port) = two_echoing("");
    let client = connect_port(port);
    client::echo(&client, b"goes to s1");
    let answer = balancer.stats("wait 10ms srv-removable l/s1");
    assert_eq!(
        answer,
        "Only servers in maintenance mode can be deleted.\n\n"
    );
    let answer = balancer.stats("disable server l/s1; wait 30 srv-unused l/s1");
    assert_eq!(answer, "\nWait delay expired.\n\n");
    let answer = balancer.stats("shutdown sessions server l/s1; wait 20s srv-removable l/s1");
    assert_eq!(answer, "\nDone.\n\n");
    assert_ne!(client::read_end(&client).1, client::End::None);
    assert_eq!(
        balancer.stats("echo a  b; wait 1; echo c"),
        "a b\n\n\nc\n\n"
    );
    for (command, words) in [
        ("wait", "Expects a duration in milliseconds."),
        ("wait x", "Expects a duration in milliseconds."),
        (
            "wait 5 rain",
            "Unknown condition. Use 'wait -h' for the list.",
        ),
        ("wait 5 srv-removable l", "Require 'backend/server'."),
        ("wait 5 srv-removable l/nobody", "No such server."),
    ] {
        assert_eq!(balancer.stats(command).trim_end(), words, "{command}");
    }
    assert!(balancer.stats("wait -h").contains("srv-removable"));
    drop(client);
    balancer.settle();
}
