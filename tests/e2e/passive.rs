//! What traffic does to a server: `observe` with each `on-error`, and circuits that failed
//! connections open and a probe closes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::support::balancer::Setup;
use crate::support::client::{ask_name, connect_port, local, read_end};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, StopOnDrop, Stopwatch, Syslog, eventually, is_tidegate, skip, turn,
    wait_for,
};

const OURS: &str = "max-fails and fail-timeout are Tidegate's own";

/// A `listen` without retries that logs.
fn listen(port: u16, syslog: &Syslog, lines: &str) -> String {
    format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    retries 0\n    timeout \
         connect 300ms\n{lines}",
        syslog.address()
    )
}

/// A client that is given up because nobody can be connected to, and waits until it is.
fn refused(port: u16) {
    let (bytes, _) = read_end(&connect_port(port));
    assert!(bytes.is_empty(), "{bytes:?}");
}

fn status(balancer: &Balancer, server: &str) -> String {
    balancer.stat().text("l", server, "status").to_owned()
}

/// Texts of the lines about servers and their checks.
fn news(syslog: &Syslog) -> Vec<String> {
    let text = |line: String| line.split_once("]: ").map(|(_, text)| text.to_owned());
    let about = |line: &String| line.contains("erver l/") && !line.contains("Layer4 check passed");
    let lines = syslog.lines().into_iter().filter_map(text);
    lines.filter(about).collect()
}

/// A server whose check passes elsewhere and whose own port is closed, as it is observed.
struct Observed {
    balancer: Balancer,
    syslog: Syslog,
    port: u16,
    /// Where its checks go.
    checked: MockServer,
}

impl Observed {
    fn start(lines: &str, words: &str) -> Observed {
        let (checked, syslog, port) = (MockServer::silent(), Syslog::start(), free_port());
        let lines = format!(
            "{lines}    server a 127.0.0.1:{} check port {} rise 2 fall 4 observe layer4 \
             error-limit 3 {words}\n",
            free_port(),
            checked.address().port()
        );
        let balancer = Balancer::start(listen(port, &syslog, &lines));
        let observed = Observed {
            balancer,
            syslog,
            port,
            checked,
        };
        eventually("its check has passed", || observed.health() == 5);
        observed
    }

    fn health(&self) -> u64 {
        self.balancer.stat().number("l", "a", "check_health")
    }

    /// So many clients can't be connected.
    fn errors(&self, count: u32) {
        (0..count).for_each(|_| refused(self.port));
    }

    fn numbers(&self) -> [u64; 3] {
        let stat = self.balancer.stat();
        ["hanafail", "chkfail", "chkdown"].map(|column| stat.number("l", "a", column))
    }

    /// Its lines come a moment before the numbers.
    fn reaches(&self, numbers: [u64; 3]) {
        eventually("the numbers", || self.numbers() == numbers);
    }
}

const DETECTED: &str = "reason: Health analyze, info: \"Detected 3 consecutive errors, last one \
                        was: L4 unsuccessful connection\"";

#[test]
fn errors_in_a_row_count_as_a_failed_check() {
    let _turn = turn::shared();
    let observed = Observed::start("    option log-health-checks\n", "inter 60s");
    observed.errors(2);
    assert_eq!((observed.health(), observed.numbers()), (5, [0, 0, 0]));
    observed.errors(1);
    eventually("a check has failed", || observed.health() == 4);
    assert_eq!(status(&observed.balancer, "a"), "UP 3/4");
    let stat = observed.balancer.stat();
    assert_eq!(stat.text("l", "a", "check_status"), "HANA");
    assert_eq!(stat.text("l", "a", "check_desc"), "Health analyze");
    let text = stat.text("l", "a", "last_chk").to_owned();
    assert!(DETECTED.contains(&text) && !text.is_empty(), "{text}");
    observed.errors(3);
    eventually("another", || observed.health() == 3);
    observed.errors(6);
    eventually("it is down", || status(&observed.balancer, "a") == "DOWN");
    observed.reaches([4, 4, 1]);
    let line =
        |status: &str| format!("Health check for server l/a failed, {DETECTED}, status: {status}.");
    let down = "Server l/a is DOWN. 0 active and 0 backup servers left.".to_owned();
    observed.syslog.wait_line("has no server available!");
    let mut lines = news(&observed.syslog);
    let end = lines.pop().unwrap();
    assert!(end.starts_with(&down), "{end}");
    let failed = ["3/4 UP", "2/4 UP", "1/4 UP", "0/2 DOWN"].map(line);
    assert_eq!(lines, failed);
    observed.balancer.settle();
}

#[test]
fn a_session_that_can_connect_ends_the_row() {
    let _turn = turn::shared();
    let (syslog, port) = (Syslog::start(), free_port());
    let (checked, mut server) = (MockServer::silent(), MockServer::named("a"));
    let lines = format!(
        "    server a {} check port {} inter 60s observe layer4 error-limit 3 on-error mark-down\n",
        server.address(),
        checked.address().port()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    for _ in 0..3 {
        server.stop();
        (0..2).for_each(|_| refused(port));
        server.restart();
        assert_eq!(ask_name(local(port)).unwrap(), "a");
    }
    assert_eq!(balancer.stat().number("l", "a", "hanafail"), 0);
    server.stop();
    (0..3).for_each(|_| refused(port));
    eventually("it is down", || status(&balancer, "a") == "DOWN");
    balancer.settle();
}

#[test]
fn sudden_death_leaves_one_failure_to_the_end() {
    let _turn = turn::shared();
    let observed = Observed::start("", "inter 60s on-error sudden-death");
    observed.errors(3);
    eventually("it is nearly down", || {
        status(&observed.balancer, "a") == "UP 1/4"
    });
    observed.errors(3);
    eventually("it is down", || status(&observed.balancer, "a") == "DOWN");
    observed.reaches([2, 2, 1]);
    let line = observed.syslog.wait_line("Server l/a is DOWN");
    assert!(
        line.contains(&format!("DOWN, {DETECTED}. 0 active and")),
        "{line}"
    );
    observed.balancer.settle();
}

#[test]
fn marked_down_it_is_down_at_once() {
    let _turn = turn::shared();
    let (syslog, port) = (Syslog::start(), free_port());
    let mut server = MockServer::named("a");
    let lines = format!(
        "    server a {} check inter 400 rise 2 fall 4 observe layer4 error-limit 3 on-error \
         mark-down\n",
        server.address()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    eventually("its check has passed", || {
        balancer.stat().number("l", "a", "check_health") == 5
    });
    server.stop();
    (0..3).for_each(|_| refused(port));
    let line = syslog.wait_line("Server l/a is DOWN");
    let by_errors = line.contains(&format!("DOWN, {DETECTED}. 0 active and"));
    assert!(by_errors, "{line}");
    // Its own checks bring it back: two of them, 400 ms apart.
    server.restart();
    let watch = Stopwatch::start();
    syslog.wait_line("Server l/a is UP, reason: Layer4 check passed");
    watch.assert_within(300, 2_500, "two checks");
    assert_eq!(ask_name(local(port)).unwrap(), "a");
    assert_eq!(balancer.stat().number("l", "a", "hanafail"), 1);
    balancer.settle();
}

/// Checks are a minute apart; the one after errors comes within 100 ms.
#[test]
fn errors_bring_the_next_check_forward() {
    let _turn = turn::shared();
    let (syslog, port) = (Syslog::start(), free_port());
    let mut server = MockServer::named("a");
    let lines = format!(
        "    server a {} check inter 60s fastinter 100 rise 1 fall 2 observe layer4 error-limit \
         3 on-error fastinter\n",
        server.address()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    eventually("its check has passed", || {
        balancer.stat().number("l", "a", "check_health") == 2
    });
    server.stop();
    (0..3).for_each(|_| refused(port));
    let watch = Stopwatch::start();
    let line = syslog.wait_line("Server l/a is DOWN");
    watch.assert_within(50, 2_000, "two checks");
    assert!(line.contains("Layer4 connection problem"), "{line}");
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "a", "hanafail"), 1);
    assert_eq!(stat.number("l", "a", "chkfail"), 2);
    balancer.settle();
}

#[test]
fn retries_are_errors_too() {
    let _turn = turn::shared();
    let lines = "    timeout connect 50ms\n    retries 2\n";
    let observed = Observed::start(lines, "inter 60s on-error mark-down");
    observed.errors(1);
    observed.syslog.wait_line("Server l/a is DOWN");
    assert_eq!(observed.balancer.stat().number("l", "a", "wretr"), 2);
    observed.reaches([1, 1, 1]);
    observed.balancer.settle();
}

#[test]
fn a_passed_check_ends_the_row() {
    let _turn = turn::shared();
    let observed = Observed::start("", "inter 50ms on-error mark-down");
    for _ in 0..4 {
        observed.errors(2);
        let passed = observed.checked.accepted();
        // The first may have begun before the errors.
        let more = || (observed.checked.accepted() >= passed + 2).then_some(());
        if is_tidegate() {
            assert!(wait_for(Duration::from_secs(30), more).is_some());
        } else {
            // Its checks don't reach the program of a server.
            wait_for(Duration::from_millis(200), || None::<()>);
        }
    }
    assert_eq!(observed.numbers(), [0, 0, 0]);
    observed.balancer.settle();
}

/// A server without checks that dies: out after three failures, and back by itself.
#[test]
fn failed_connections_open_the_circuit_and_a_probe_closes_it() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (syslog, port, good) = (Syslog::start(), free_port(), MockServer::named("b"));
    let mut server = MockServer::named("a");
    let lines = format!(
        "    retries 3\n    option redispatch 1\n    balance roundrobin\n    server a {} \
         max-fails 3 fail-timeout 1s\n    server b {}\n",
        server.address(),
        good.address()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    assert_eq!(status(&balancer, "a"), "no check");
    let both: BTreeSet<_> = (0..2).map(|_| ask_name(local(port)).unwrap()).collect();
    assert_eq!(both.len(), 2);
    server.stop();
    // Nobody notices: who is refused is served by the other one.
    let tried = || balancer.stat().number("l", "a", "econ");
    while tried() < 3 {
        assert_eq!(ask_name(local(port)).unwrap(), "b");
    }
    let watch = Stopwatch::start();
    let line = syslog.wait_line("Server l/a is DOWN");
    let reason = "reason: Health analyze, info: \"3 failed connections in 1000 ms\". 1 active and \
                  0 backup servers left.";
    assert!(line.contains(reason), "{line}");
    assert_eq!(status(&balancer, "a"), "DOWN");
    for _ in 0..20 {
        assert_eq!(ask_name(local(port)).unwrap(), "b");
    }
    assert_eq!(tried(), 3, "none of them was tried on it");
    // The first probe fails, the second finds it back.
    let failed = || balancer.stat().text("l", "a", "check_status") == "L4CON";
    eventually("a probe has failed", failed);
    watch.assert_within(800, 2_000, "the first probe");
    server.restart();
    let line = syslog.wait_line("Server l/a is UP");
    watch.assert_within(1_800, 3_500, "the second probe");
    let reason = "reason: Layer4 check passed, check duration: ";
    assert!(line.contains(reason), "{line}");
    assert_eq!(status(&balancer, "a"), "no check");
    let both: BTreeSet<_> = (0..2).map(|_| ask_name(local(port)).unwrap()).collect();
    assert_eq!(both.len(), 2);
    let stat = balancer.stat();
    let numbers = ["hanafail", "chkdown", "downtime"].map(|name| stat.number("l", "a", name));
    assert_eq!(numbers[..2], [1, 1]);
    assert!((1..=4).contains(&numbers[2]), "{numbers:?}");
    balancer.settle();
}

/// The last server is no exception: no client is made to find out whether it is back.
#[test]
fn while_the_only_server_is_out_clients_are_refused_at_once() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (syslog, port) = (Syslog::start(), free_port());
    let server = MockServer::black_hole();
    let lines = format!("    server a {} max-fails 2\n", server.address());
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    (0..2).for_each(|_| refused(port));
    let line = syslog.wait_line("Server l/a is DOWN");
    assert!(line.contains("2 failed connections in 10000 ms"), "{line}");
    syslog.wait_line("has no server available!");
    let watch = Stopwatch::start();
    (0..20).for_each(|_| refused(port));
    // Each would have waited for 300 ms.
    watch.assert_within(0, 2_000, "twenty refusals");
    assert_eq!(balancer.stat().number("l", "a", "econ"), 2);
    balancer.settle();
}

/// Checks pass on another port: they don't bring a server back that can't be connected to.
#[test]
fn a_check_elsewhere_does_not_close_a_circuit() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    for words in [
        "max-fails 3 fail-timeout 300ms",
        "observe layer4 error-limit 3 on-error mark-down downinter 300",
    ] {
        let (syslog, port, checked) = (Syslog::start(), free_port(), MockServer::silent());
        let mut server = MockServer::named("a");
        let lines = format!(
            "    server a {} check inter 100 rise 1 port {} {words}\n",
            server.address(),
            checked.address().port()
        );
        let balancer = Balancer::start(listen(port, &syslog, &lines));
        eventually("its check has passed", || {
            balancer.stat().number("l", "a", "check_health") == 3
        });
        server.stop();
        let stopped_at = server.accepted();
        // A check that passes in between would end the row.
        eventually("it is out", || {
            refused(port);
            status(&balancer, "a").starts_with("DOWN")
        });
        let checks = checked.accepted();
        eventually("many checks have passed", || {
            checked.accepted() > checks + 10
        });
        assert!(status(&balancer, "a").starts_with("DOWN"), "{words}");
        assert_eq!(syslog.count("Server l/a is UP"), 0, "{words}");
        server.restart();
        syslog.wait_line("Server l/a is UP");
        eventually("its probe", || server.accepted() > stopped_at);
        assert_eq!(server.accepted(), stopped_at + 1, "and nobody else");
        assert_eq!(ask_name(local(port)).unwrap(), "a");
        balancer.settle();
    }
}

#[test]
fn failures_that_are_too_far_apart_open_nothing() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (syslog, port, nobody) = (Syslog::start(), free_port(), free_port());
    let lines = format!("    server a 127.0.0.1:{nobody} max-fails 3 fail-timeout 300ms\n");
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    for _ in 0..6 {
        // No three of them lie within 300 ms.
        refused(port);
        let watch = Stopwatch::start();
        wait_for(Duration::from_secs(1), || (watch.ms() >= 160).then_some(()));
    }
    assert_eq!(status(&balancer, "a"), "no check");
    (0..3).for_each(|_| refused(port));
    syslog.wait_line("Server l/a is DOWN");
    balancer.settle();
}

/// One port to connect from, and it is taken: this side's lack, whatever is asked for.
#[test]
fn a_lack_on_this_side_is_not_the_servers_error() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (syslog, port) = (Syslog::start(), free_port());
    let (server, checked) = (MockServer::hold(), MockServer::silent());
    let lines = format!(
        "    server a {} source 127.0.5.20:{} max-fails 1 check addr 127.0.0.1 port {} inter 60s \
         observe layer4 error-limit 1 on-error mark-down\n",
        server.address(),
        free_port(),
        checked.address().port()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    eventually("its check is over", || {
        balancer.stat().number("l", "a", "check_health") > 0
    });
    let held = connect_port(port);
    let end = server.next();
    (0..5).for_each(|_| refused(port));
    assert_eq!(balancer.stat().number("l", "a", "econ"), 5);
    assert_eq!(balancer.stat().number("l", "a", "hanafail"), 0);
    assert_eq!(syslog.count("is DOWN"), 0);
    drop((held, end));
    balancer.settle();
}

/// Ten servers fail together under load and return: everybody is served or refused, each server is
/// probed once per `fail-timeout`, and all of them come back.
#[test]
fn ten_servers_fail_together_and_return() {
    let _turn = turn::alone();
    if skip(OURS) {
        return;
    }
    let mut servers: Vec<MockServer> = (0..10).map(|_| MockServer::named("up")).collect();
    let lines: String = servers
        .iter()
        .enumerate()
        .map(|(index, server)| {
            let address = server.address();
            format!("    server s{index} {address} max-fails 3 fail-timeout 600ms\n")
        })
        .collect();
    let lines = format!("    option redispatch 1\n    balance roundrobin\n{lines}");
    let (syslog, port) = (Syslog::start(), free_port());
    let body = listen(port, &syslog, &lines).replace("retries 0", "retries 2");
    let balancer = Setup::new(body).start();
    let (done, served, turned_away) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let odd = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let (bytes, _) = read_end(&connect_port(port));
                    match bytes.as_slice() {
                        b"up" => served.fetch_add(1, Relaxed),
                        b"" => turned_away.fetch_add(1, Relaxed),
                        other => {
                            odd.lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .push(other.to_vec());
                            0
                        }
                    };
                }
            });
        }
        eventually("load", || served.load(Relaxed) > 200);
        servers.iter_mut().for_each(MockServer::stop);
        eventually("all are out", || syslog.count(" is DOWN, ") == 10);
        let attempts = || {
            let stat = balancer.stat();
            (0..10)
                .map(|index| stat.number("l", &format!("s{index}"), "econ"))
                .sum::<u64>()
        };
        let away = turned_away.load(Relaxed);
        eventually("clients are turned away", || {
            turned_away.load(Relaxed) > away + 100
        });
        let before = attempts();
        let away = turned_away.load(Relaxed);
        eventually("many more are", || turned_away.load(Relaxed) > away + 300);
        assert_eq!(attempts(), before, "a client tried a server that is out");
        // Whoever returns is probed, and then gets clients.
        servers.iter_mut().for_each(MockServer::restart);
        eventually("all are back", || syslog.count(" is UP, ") == 10);
        let at = served.load(Relaxed);
        eventually("clients are served", || served.load(Relaxed) > at + 200);
    });
    assert!(odd.into_inner().unwrap().is_empty());
    let name = |index: usize| format!("s{index}");
    let stat = balancer.stat();
    for index in 0..10 {
        assert_eq!(stat.text("l", &name(index), "status"), "no check");
        assert!((1..=2).contains(&stat.number("l", &name(index), "chkdown")));
    }
    assert_eq!(balancer.activity().number("observations_dropped"), Some(0));
    balancer.settle();
}

/// A server without `check` is probed all the same, within the bounds that a check would have.
#[test]
fn a_probe_has_the_bounds_of_a_check() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (syslog, port, watch) = (Syslog::start(), free_port(), Stopwatch::start());
    let server = MockServer::black_hole();
    let lines = format!(
        "    timeout connect 100ms\n    server a {} max-fails 1 fail-timeout 400ms\n",
        server.address()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    refused(port);
    syslog.wait_line("Server l/a is DOWN");
    let out_since = watch.ms();
    let probed = || balancer.stat().text("l", "a", "check_status") == "L4TOUT";
    eventually("a probe has timed out", probed);
    let took = watch.ms() - out_since;
    assert!((450..=1_500).contains(&took), "400 ms, then 100 ms: {took}");
    balancer.settle();
}

/// As long as there is another server a probe waits for `fail-timeout`. When the last one is out,
/// both are probed every second.
#[test]
fn without_any_server_probes_come_every_second() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (syslog, port) = (Syslog::start(), free_port());
    let mut servers = ["a", "b"].map(MockServer::named);
    let lines: String = servers
        .iter()
        .zip(["a", "b"])
        .map(|(server, name)| {
            let address = server.address();
            format!("    server {name} {address} max-fails 1 fail-timeout 60s\n")
        })
        .collect();
    let lines = format!("    balance first\n    option redispatch 1\n{lines}");
    let body = listen(port, &syslog, &lines).replace("retries 0", "retries 1");
    let balancer = Balancer::start(body);
    servers[0].stop();
    assert_eq!(ask_name(local(port)).unwrap(), "b");
    syslog.wait_line("Server l/a is DOWN");
    servers[0].restart();
    let before = servers[0].accepted();
    let probed = || (servers[0].accepted() > before).then_some(());
    assert!(wait_for(Duration::from_millis(1_500), probed).is_none());
    assert_eq!(ask_name(local(port)).unwrap(), "b");
    servers[1].stop();
    refused(port);
    let watch = Stopwatch::start();
    servers[1].restart();
    for line in [
        "has no server available!",
        "Server l/a is UP",
        "Server l/b is UP",
    ] {
        syslog.wait_line(line);
    }
    watch.assert_within(0, 4_000, "the first second");
    assert_eq!(ask_name(local(port)).unwrap(), "a");
    balancer.settle();
}
