//! When servers are checked, what is said of it, and what checks leave behind.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::support::balancer::Setup;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Stopwatch, Syslog, eventually, skip, turn, wait_for};

/// Why HAProxy's checks can't be counted: it resets them before the handshake has ended, so the
/// server's program never sees them.
const UNSEEN: &str = "its checks don't reach the program of a server";

/// Moments in milliseconds.
type Moments = Arc<Mutex<Vec<u64>>>;

/// A server that notes when it is connected to.
fn noting(watch: Stopwatch) -> (MockServer, Moments) {
    let moments = Moments::default();
    let noted = Arc::clone(&moments);
    let server = MockServer::start(move |_: TcpStream| {
        let mut moments = noted.lock().unwrap_or_else(PoisonError::into_inner);
        moments.push(watch.ms());
    });
    (server, moments)
}

fn noted(moments: &Moments) -> Vec<u64> {
    moments
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn listen(port: u16, syslog: &Syslog, lines: &str) -> String {
    format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n{lines}",
        syslog.address()
    )
}

/// The text of a line behind its header.
fn texts(syslog: &Syslog) -> Vec<String> {
    let text = |line: String| match line.split_once("]: ") {
        Some((_, text)) => text.to_owned(),
        None => line,
    };
    syslog.lines().into_iter().map(text).collect()
}

#[test]
fn every_check_that_changes_something_may_be_logged() {
    let _turn = turn::shared();
    let (mut server, syslog, port) = (MockServer::silent(), Syslog::start(), free_port());
    let lines = format!(
        "    option log-health-checks\n    server a {} check inter 150 fall 3 rise 2 backup\n",
        server.address()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    syslog.wait_line("Health check for backup server l/a succeeded");
    // Checks that change nothing say nothing.
    let more = || (syslog.received() > 1).then_some(());
    assert!(wait_for(Duration::from_millis(500), more).is_none());
    server.stop();
    syslog.wait_line("Backup Server l/a is DOWN");
    server.restart();
    syslog.wait_line("Backup Server l/a is UP");
    let passed = "Health check for backup server l/a succeeded, reason: Layer4 check passed, \
                  check duration: 0ms, status:";
    let failed = "Health check for backup server l/a failed, reason: Layer4 connection problem, \
                  info: \"Connection refused\", check duration: 0ms, status:";
    let mut got = texts(&syslog);
    for line in &mut got {
        // A check takes a few milliseconds where the machine is busy.
        let duration = line.split_once("check duration: ").map(|(_, rest)| rest);
        if let Some(end) = duration.and_then(|rest| rest.find("ms")) {
            let at = line.find("check duration: ").unwrap() + "check duration: ".len();
            line.replace_range(at..at + end, "0");
        }
    }
    let expected = [
        format!("{passed} 3/3 UP."),
        format!("{failed} 2/3 UP."),
        format!("{failed} 1/3 UP."),
        format!("{failed} 0/2 DOWN."),
        "Backup Server l/a is DOWN. 0 active and 0 backup servers left. 0 sessions active, 0 \
         requeued, 0 remaining in queue."
            .to_owned(),
        "proxy l has no server available!".to_owned(),
        format!("{passed} 1/2 DOWN."),
        format!("{passed} 3/3 UP."),
        "Backup Server l/a is UP. 0 active and 1 backup servers online. Running on backup. 0 \
         sessions requeued, 0 total in queue."
            .to_owned(),
    ];
    assert_eq!(got, expected);
    // Whoever reads standard error is told as well.
    eventually("standard error", || {
        balancer.stderr().contains("Health check for backup server")
    });
    balancer.settle();
}

/// Checks are two seconds apart: a change would take four of them and more.
#[test]
fn a_change_is_looked_at_sooner_with_fastinter_and_downinter() {
    let _turn = turn::shared();
    let (mut server, syslog, port) = (MockServer::silent(), Syslog::start(), free_port());
    let lines = format!(
        "    server a {} check inter 1500 fastinter 50 downinter 200 fall 4 rise 3\n",
        server.address()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    eventually("it is up", || {
        let stat = balancer.stat();
        stat.number("l", "a", "check_health") == 6
    });
    server.stop();
    let watch = Stopwatch::start();
    syslog.wait_line("Server l/a is DOWN");
    // At most an interval to the first failure, then three quick ones.
    watch.assert_within(100, 2_400, "to notice that it is down");
    server.restart();
    let watch = Stopwatch::start();
    syslog.wait_line("Server l/a is UP");
    watch.assert_within(80, 1_200, "to notice that it is up");
    balancer.settle();
}

#[test]
fn intervals_are_spread_at_random_where_told() {
    let _turn = turn::shared();
    if skip(UNSEEN) {
        return;
    }
    let (server, moments) = noting(Stopwatch::start());
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server a {} check inter 60\n",
        server.address()
    );
    let balancer = Setup::new(body).global("spread-checks 50").start();
    let all = || (noted(&moments).len() > 60).then_some(());
    assert!(
        wait_for(Duration::from_secs(15), all).is_some(),
        "60 intervals"
    );
    let moments = noted(&moments);
    let intervals: Vec<u64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Between 30 and 90 ms each. That none of 60 is far from 60 ms has odds of less than one in ten
    // thousand millions.
    let short = intervals.iter().filter(|ms| **ms < 51).count();
    let long = intervals.iter().filter(|ms| **ms > 69).count();
    assert!(short > 0 && long > 0, "{intervals:?}");
    let mean = (moments.last().unwrap() - moments[0]) / intervals.len() as u64;
    assert!((45..=120).contains(&mean), "{mean}: {intervals:?}");
    balancer.settle();
}

/// Clients wait for the first checks, so those come at once; the second ones are spread.
#[test]
fn first_checks_come_at_once_and_the_next_share_the_smallest_interval() {
    let _turn = turn::shared();
    if skip(UNSEEN) {
        return;
    }
    let cases = [
        ("", 0, 400, 1_100),
        ("max-spread-checks 40", 0, 0, 250),
        // Nobody waits: the first ones are spread.
        ("tune.first-checks-wait 0", 400, 400, 1_100),
    ];
    for (setting, first_least, second_least, second_most) in cases {
        let watch = Stopwatch::start();
        let (servers, moments): (Vec<_>, Vec<_>) = (0..4).map(|_| noting(watch)).unzip();
        let inter = [900, 2000, 800, 3000];
        let lines = servers
            .iter()
            .zip(inter)
            .enumerate()
            .map(|(index, (server, inter))| {
                let address = server.address();
                format!("    server s{index} {address} check inter {inter}\n")
            });
        let lines: String = lines.collect();
        let port = free_port();
        let body = format!("listen l\n    bind 127.0.0.1:{port}\n{lines}");
        let mut setup = Setup::new(body);
        if !setting.is_empty() {
            setup = setup.global(setting);
        }
        let balancer = setup.start();
        eventually("all are checked twice", || {
            moments.iter().all(|m| noted(m).len() >= 2)
        });
        let spread = |turn: usize| {
            let of_turn: Vec<u64> = moments.iter().map(|m| noted(m)[turn]).collect();
            let spread = of_turn.iter().max().unwrap() - of_turn.iter().min().unwrap();
            (spread, of_turn)
        };
        let (first, all) = spread(0);
        let first_most = if first_least > 0 { 1_100 } else { 250 };
        assert!(
            (first_least..=first_most).contains(&first),
            "{setting}: {all:?}"
        );
        if first_least == 0 {
            let (second, all) = spread(1);
            let range = second_least..=second_most;
            assert!(range.contains(&second), "{setting}: {all:?}");
        }
        balancer.settle();
    }
}

/// A check's connection ends by a reset, so neither side keeps it.
#[test]
fn checks_leave_no_connection_in_time_wait() {
    let _turn = turn::shared();
    if skip(UNSEEN) {
        return;
    }
    let (server, port) = (MockServer::silent(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server a {} check inter 50\n",
        server.address()
    ));
    eventually("some checks", || server.accepted() >= 10);
    assert_eq!(time_waits_with(server.address().port()), 0);
    drop(balancer);
    // What this looks for is there when a connection ends the usual way.
    let client = TcpStream::connect_timeout(&server.address(), Duration::from_secs(1)).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    drop(crate::support::client::read_end(&client));
    drop(client);
    eventually("one is found", || {
        time_waits_with(server.address().port()) == 1
    });
}

/// Connections of this host with a port at either end that are in TIME_WAIT (state 06).
fn time_waits_with(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = format!(":{port:04X}");
    let lines = table.lines().skip(1).filter(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, ..] = words.as_slice() else {
            return false;
        };
        *state == "06" && (local.ends_with(&port) || remote.ends_with(&port))
    });
    lines.count()
}
