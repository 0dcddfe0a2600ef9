//! What an agent may say of its server, and what becomes of it.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::client::{ask_name, local};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, is_tidegate, turn};

/// An agent that says the same to everybody until it is told to say something else.
pub(crate) struct Agent {
    server: MockServer,
    words: Arc<Mutex<String>>,
}

impl Agent {
    pub(crate) fn new(words: &str) -> Agent {
        let words = Arc::new(Mutex::new(words.to_owned()));
        let said = Arc::clone(&words);
        let server = MockServer::start(move |mut stream: TcpStream| {
            let words = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let _ = stream.write_all(words.as_bytes());
            let _ = stream.shutdown(Shutdown::Both);
        });
        Agent { server, words }
    }

    pub(crate) fn say(&self, words: &str) {
        let mut said = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.clone_into(&mut said);
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.address().port()
    }
}

/// A server `s` with an agent beside a server `t` without one.
struct Test {
    agent: Agent,
    syslog: Syslog,
    balancer: Balancer,
    port: u16,
    server: MockServer,
    _other: MockServer,
}

impl Test {
    fn new(words: &str, check: &str, options: &str) -> Test {
        let (agent, syslog, port) = (Agent::new(words), Syslog::start(), free_port());
        let (server, other) = (MockServer::named("s"), MockServer::named("t"));
        let balancer = Balancer::start(format!(
            "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    log {} local0\n\
             {options}    server s {} weight 10 {check} agent-check agent-port {} \
             agent-inter 50\n    server t {} weight 10\n",
            syslog.address(),
            server.address(),
            agent.port(),
            other.address(),
        ));
        Test {
            agent,
            syslog,
            balancer,
            port,
            server,
            _other: other,
        }
    }

    fn cell(&self, column: &str) -> String {
        let stat = self.balancer.stat();
        stat.text("l", "s", column)
            .trim_start_matches("* ")
            .to_owned()
    }

    /// Says it, and waits until it shows.
    fn says(&self, words: &str, column: &str, wanted: &str) {
        self.agent.say(words);
        eventually(words, || self.cell(column) == wanted);
    }

    /// Whether `s` gets its share of clients.
    fn serves(&self) -> bool {
        (0..4).any(|_| ask_name(local(self.port)).unwrap() == "s")
    }
}

#[test]
fn an_agent_takes_its_server_down_and_brings_it_back() {
    let _turn = turn::shared();
    let test = Test::new("up\n", "check inter 50 rise 1 fall 1", "");
    test.says("up\n", "agent_status", "L7OK");
    assert!(test.serves());
    test.says("down #out of ideas\n", "status", "DOWN (agent)");
    assert!(!test.serves());
    let line = test.syslog.wait_line("Server l/s is DOWN");
    assert!(
        line.contains(
            "Server l/s is DOWN, reason: Layer7 wrong status, code: 0, info: \"via agent : down \
             (out of ideas)\", check duration: "
        ),
        "{line}"
    );
    eventually("it is told", || {
        test.cell("last_agt") == "via agent : down (out of ideas)"
    });
    assert_eq!(test.cell("agent_status"), "L7STS");
    assert_eq!(
        (test.cell("agent_code"), test.cell("agent_health")),
        ("0".into(), "0".into())
    );
    assert_eq!(test.cell("agent_desc"), "Layer7 wrong status");
    assert_eq!(
        (test.cell("agent_rise"), test.cell("agent_fall")),
        ("1".into(), "1".into())
    );
    assert_eq!(test.cell("chkdown"), "1");
    // Words that say nothing of it leave it down.
    test.says("ready 100%\n", "agent_status", "CHECKED");
    assert_eq!(test.cell("status"), "DOWN (agent)");
    test.says("UP\n", "status", "UP");
    test.syslog.wait_line(
        "Server l/s is UP, reason: Layer7 check passed, code: 0, info: \"via agent : UP\"",
    );
    assert!(test.serves());
    test.balancer.settle();
}

#[test]
fn both_the_checks_and_the_agent_must_say_up() {
    let _turn = turn::shared();
    let mut test = Test::new("up\n", "check inter 50 rise 1 fall 1", "");
    test.says("down\n", "status", "DOWN (agent)");
    test.server.stop();
    eventually("the checks fail", || test.cell("check_status") == "L4CON");
    test.says("up\n", "agent_status", "L7OK");
    assert_eq!(test.cell("status"), "DOWN");
    assert_eq!(test.syslog.count(" is UP"), 0);
    test.server.restart();
    eventually("both say up", || test.cell("status") == "UP");
    test.balancer.settle();
}

#[test]
fn an_agent_sets_weight_and_maxconn() {
    let _turn = turn::shared();
    let test = Test::new("50%\n", "", "");
    test.says("50%\n", "weight", "5");
    test.says("300%\n", "weight", "30");
    test.says("0%\n", "weight", "0");
    assert!(!test.serves());
    test.says("100%, maxconn:7\n", "weight", "10");
    eventually("maxconn", || test.cell("slim") == "7");
    assert!(test.serves());
    if is_tidegate() {
        test.says("weight:3\n", "weight", "3");
        test.says("weight:20%\n", "weight", "2");
        test.says("weight:4000\n", "weight", "256");
        test.says("maxconn:0\n", "slim", "");
    }
    test.balancer.settle();
}

#[test]
fn an_agent_drains_its_server_and_puts_it_into_maintenance() {
    let _turn = turn::shared();
    let test = Test::new("up\n", "check inter 50", "    option log-health-checks\n");
    test.says("drain\n", "status", "DRAIN (agent)");
    test.syslog.wait_line(
        "Server l/s enters drain state. 1 active and 0 backup servers online. 0 sessions \
         requeued, 0 total in queue.",
    );
    assert!(!test.serves());
    test.says("ready\n", "status", "UP");
    test.syslog
        .wait_line("Server l/s is UP (leaving forced drain).");
    assert!(test.serves());
    test.says("maint\n", "status", "MAINT");
    test.syslog.wait_line(
        "Server l/s is going DOWN for maintenance. 1 active and 0 backup servers left. 0 sessions \
         active, 0 requeued, 0 remaining in queue.",
    );
    assert!(!test.serves());
    // It is asked all the same, but what it says of health waits.
    test.says("down\n", "agent_status", "L7STS");
    assert_eq!(test.cell("status"), "MAINT");
    assert_eq!(test.syslog.count(" is DOWN"), 0);
    test.says("ready\n", "status", "DOWN (agent)");
    test.syslog
        .wait_line("Server l/s is DOWN/READY (leaving forced maintenance).");
    test.says("up drain\n", "status", "DRAIN (agent)");
    test.syslog
        .wait_line("Server l/s remains in forced drain mode.");
    test.says("ready\n", "status", "UP");
    test.syslog.wait_line(
        "Agent check for server l/s failed, reason: Layer7 wrong status, code: 0, info: \"via \
         agent : down\"",
    );
    assert!(test.serves());
    test.balancer.settle();
}

#[test]
fn a_server_begins_anew_after_maintenance() {
    let _turn = turn::shared();
    let mut test = Test::new("up\n", "check inter 100 rise 2 fall 2", "");
    eventually("it is well", || test.cell("check_health") == "3");
    test.says("maint\n", "status", "MAINT");
    test.server.stop();
    test.agent.say("ready up\n");
    // Up until its first check, which takes it down at once.
    test.syslog
        .wait_line("Server l/s is UP/READY (leaving forced maintenance).");
    test.syslog
        .wait_line("Server l/s is DOWN, reason: Layer4 connection problem");
    assert_eq!(test.cell("chkfail"), "1");
    test.balancer.settle();
}

#[test]
fn an_agent_that_says_nothing_changes_nothing() {
    let _turn = turn::shared();
    let mut test = Test::new("up\n", "", "    option log-health-checks\n");
    test.syslog
        .wait_line("Agent check for server l/s succeeded, reason: Layer7 check passed");
    test.says("", "agent_status", "L7RSP");
    assert_eq!(test.cell("agent_desc"), "Layer7 invalid response");
    test.says("up\n", "agent_status", "L7OK");
    if is_tidegate() {
        // HAProxy takes its time to see that nothing follows.
        test.says("up", "agent_status", "L7RSP");
    }
    test.says("nonsense\n", "agent_status", "CHECKED");
    eventually("it is told", || {
        test.cell("last_agt") == "agent reports an error : nonsense"
    });
    test.agent.server.stop();
    eventually("it is gone", || test.cell("agent_status") == "L4CON");
    assert_eq!(test.cell("last_agt"), "Connection refused");
    let line = test.syslog.wait_line("reason: Layer4 connection problem");
    assert!(
        line.contains("Agent check for server l/s failed, "),
        "{line}"
    );
    assert!(line.trim_end().ends_with(", status: 1/1 UP."), "{line}");
    assert_eq!(
        (test.cell("status"), test.cell("weight")),
        ("no check".into(), "10".into())
    );
    assert_eq!(
        test.syslog.count("Server l/s"),
        0,
        "{:?}",
        test.syslog.lines()
    );
    assert!(test.serves());
    test.balancer.settle();
}
