//! Log lines: their two formats, what is left out, and that none is lost at a high rate.

use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::support::balancer::{Setup, TempDir, program};
use crate::support::client::{self, connect_port, read_end};
use crate::support::port::{free_port, listeners_on};
use crate::support::syslog::SessionLine;
use crate::support::{Balancer, MockServer, Stopwatch, Syslog, eventually, turn, wait_for};

#[test]
fn the_default_line_is_written_at_accept() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen front\n    bind 127.0.0.1:{port}\n    log {} local0 info\n    server s {}\n",
        syslog.address(),
        server.address()
    ));
    let client = connect_port(port);
    // The line comes while the session is open.
    let line = syslog.wait_line("Connect from");
    let from = client.local_addr().unwrap();
    let expected = format!("Connect from {from} to 127.0.0.1:{port} (front/TCP)");
    assert!(line.ends_with(&expected), "{line}");
    // local0.info = 16 * 8 + 6.
    assert!(line.starts_with("<134>"), "{line}");
    drop(client);
    balancer.settle();
    assert_eq!(syslog.count("Connect from"), 1);
}

#[test]
fn tcplog_writes_one_line_at_the_end() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::echo(), Syslog::start(), free_port());
    let balancer = Setup::new(format!(
        "frontend front\n    bind 127.0.0.1:{port}\n    log global\n    option tcplog\n    \
         default_backend back\nbackend back\n    server s1 {}\n",
        server.address()
    ))
    .global(format!("log {} local3", syslog.address()))
    .start();
    let client = connect_port(port);
    client::echo(&client, b"12345");
    let quiet = wait_for(Duration::from_millis(200), || {
        (syslog.received() > 0).then_some(())
    });
    assert!(quiet.is_none(), "{:?}", syslog.lines());
    client.shutdown(Shutdown::Write).unwrap();
    drop(read_end(&client));
    drop(client);
    let line = syslog.take_session();
    assert_eq!(
        (line.frontend.as_str(), line.server.as_str()),
        ("front", "back/s1")
    );
    assert_eq!((line.bytes, line.end.as_str()), (5, "--"));
    // local3.info = 19 * 8 + 6, then a date of 15 letters, then the tag with the process id.
    assert!(line.header.starts_with("<158>"), "{}", line.header);
    let tag = format!("[{}]:", balancer.pid());
    assert!(line.header.ends_with(&tag), "{} {tag}", line.header);
    // [06/Feb/2009:12:12:51.443]
    assert_eq!(line.date.len(), 26, "{}", line.date);
    let shape: String = line
        .date
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    assert!(
        shape.starts_with("[99/") && shape.ends_with("/9999:99:99:99.999]"),
        "{shape}"
    );
    balancer.settle();
}

#[test]
fn dontlognull_leaves_out_connections_without_a_byte() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    \
         option dontlognull\n    server s {}\n",
        syslog.address(),
        server.address()
    ));
    for _ in 0..5 {
        let client = connect_port(port);
        client.shutdown(Shutdown::Write).unwrap();
        drop(read_end(&client));
    }
    balancer.settle();
    let client = connect_port(port);
    client::echo(&client, b"a byte");
    drop(client);
    let line = syslog.take_session();
    assert_eq!(line.bytes, 6);
    balancer.settle();
    assert_eq!(syslog.received(), 1, "only the session with bytes");
}

/// A normal session, one that the client resets, and one that needs a second server to go well.
fn three_sessions(syslog: &Syslog, option: &str) -> (Balancer, u16) {
    let (good, dead, port) = (MockServer::echo(), free_port(), free_port());
    let second = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {log} local0\n    option tcplog\n    \
         option {option}\n    server s {good}\n\
         listen r\n    bind 127.0.0.1:{second}\n    log {log} local0\n    option tcplog\n    \
         option {option}\n    option redispatch 1\n    balance roundrobin\n    \
         server dead 127.0.0.1:{dead}\n    server s {good}\n",
        log = syslog.address(),
        good = good.address(),
    ));
    for (port, resets) in [(port, false), (port, true), (second, false)] {
        let client = connect_port(port);
        client::echo(&client, b"a byte");
        if resets {
            client::reset(client);
        } else {
            client.shutdown(Shutdown::Write).unwrap();
            drop(read_end(&client));
        }
        balancer.settle();
    }
    (balancer, port)
}

#[test]
fn normal_sessions_may_be_left_out() {
    let _turn = turn::shared();
    let syslog = Syslog::start();
    let (balancer, _) = three_sessions(&syslog, "dontlog-normal");
    syslog.wait_line(" CD ");
    let line = syslog.wait_line(" r r/s ");
    assert!(line.contains(" -- ") && line.contains("/+1 "), "{line}");
    assert_eq!(syslog.received(), 2, "{:?}", syslog.lines());
    balancer.settle();
}

#[test]
fn sessions_that_went_wrong_may_have_a_level_of_their_own() {
    let _turn = turn::shared();
    let syslog = Syslog::start();
    let (balancer, _) = three_sessions(&syslog, "log-separate-errors");
    // local0.info and local0.err: 16 * 8 + 6, 16 * 8 + 3.
    for (text, start) in [
        (" l l/s ", "<134>"),
        (" CD ", "<131>"),
        (" r r/s ", "<131>"),
    ] {
        let line = syslog.wait_line(text);
        assert!(line.starts_with(start), "{text}: {line}");
    }
    assert_eq!(syslog.received(), 3, "{:?}", syslog.lines());
    balancer.settle();
}

#[test]
fn headers_of_every_format_and_with_a_host() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let formats = [
        "rfc3164", "local", "rfc5424", "iso", "timed", "short", "raw",
    ];
    let logs = formats.map(|format| (format, Syslog::start()));
    let lines: String = logs
        .iter()
        .map(|(format, log)| format!("    log {} format {format} local0\n", log.address()))
        .collect();
    let balancer = Setup::new(format!(
        "listen l\n    bind 127.0.0.1:{port}\n{lines}    server s {}\n",
        server.address()
    ))
    .global("log-send-hostname balancer.example")
    .start();
    drop(connect_port(port));
    let pid = balancer.pid();
    let shape = |log: &Syslog| {
        let line = log.wait_line("Connect from");
        let head = line.split("Connect from").next().unwrap();
        let tag = format!("[{pid}]:");
        let head = head.replace("haproxy", "tidegate").replace(&tag, "[PID]:");
        let head = head.replace(&format!(" {pid} "), " PID ");
        // Digits of the time only: those of the priority matter.
        let (priority, time) = head.split_at(head.find('>').map_or(0, |at| at + 1));
        let time: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '9' } else { c })
            .collect();
        format!("{priority}{time}")
    };
    let got: Vec<String> = logs.iter().map(|(_, log)| shape(log)).collect();
    // The date of RFC 3164 is fifteen letters.
    let old = |line: &str| format!("{}{}", &line[..5], &line[20..]);
    assert_eq!(old(&got[0]), "<134> balancer.example tidegate[PID]: ");
    assert_eq!(old(&got[1]), "<134> tidegate[PID]: ");
    // The offset may be negative where this runs.
    let new = |line: &str| line.replace('+', "-");
    let time = "9999-99-99T99:99:99.999999-99:99";
    let expected = format!("<134>9 {time} balancer.example tidegate PID - - ");
    assert_eq!(new(&got[2]), expected);
    assert_eq!(new(&got[3]), format!("{time} "));
    assert_eq!(new(&got[4]), format!("<6>{time} "));
    assert_eq!((got[5].as_str(), got[6].as_str()), ("<6>", ""));
    balancer.settle();
}

#[test]
fn severities_above_the_targets_are_left_out() {
    let _turn = turn::shared();
    let (mut server, port) = (MockServer::named("s"), free_port());
    let (all, urgent) = (Syslog::start(), Syslog::start());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0 debug\n    \
         log {} local1 alert\n    \
         option tcplog\n    server s {} check inter 100 fall 2\n",
        all.address(),
        urgent.address(),
        server.address()
    ));
    client::ask_name(client::local(port)).unwrap();
    all.take_session();
    server.stop();
    let line = urgent.wait_line("Server l/s is DOWN");
    // local1.alert = 17 * 8 + 1.
    assert!(line.starts_with("<137>"), "{line}");
    assert!(
        urgent.lines().iter().all(|line| !line.contains(" -- ")),
        "{:?}",
        urgent.lines()
    );
    balancer.settle();
}

#[test]
fn the_tag_can_be_chosen() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::echo(), Syslog::start(), free_port());
    let balancer = Setup::new(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log global\n    server s {}\n",
        server.address()
    ))
    .global(format!("log {} daemon", syslog.address()))
    .global("log-tag edge7")
    .start();
    drop(connect_port(port));
    let line = syslog.wait_line("Connect from");
    assert!(
        line.contains(&format!(" edge7[{}]: ", balancer.pid())),
        "{line}"
    );
    balancer.settle();
}

/// Eight targets get each line, so that 2,500 sessions a second are 20,000 lines: none may be
/// missing.
#[test]
fn twenty_thousand_lines_a_second_arrive() {
    const TARGETS: u64 = 8;
    const SESSIONS: u64 = 6_000;
    let _turn = turn::alone();
    let (syslog, port) = (Syslog::counting(), free_port());
    let mut body = format!("frontend f\n    bind 127.0.0.1:{port}\n    option tcplog\n");
    for facility in 0..TARGETS {
        body.push_str(&format!("    log {} local{facility}\n", syslog.address()));
    }
    let balancer = Balancer::start(body);
    let (watch, next) = (Stopwatch::start(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // No server: the shortest session that is logged.
                while next.fetch_add(1, Relaxed) < SESSIONS {
                    drop(read_end(&connect_port(port)));
                }
            });
        }
    });
    let rate = SESSIONS * TARGETS * 1_000 / watch.ms().max(1);
    eventually("every line has arrived", || {
        syslog.received() >= SESSIONS * TARGETS
    });
    assert_eq!(syslog.received(), SESSIONS * TARGETS);
    eprintln!("{rate} log lines a second");
    assert!(rate >= 20_000, "only {rate} lines a second were asked for");
    balancer.settle();
}

/// A line per session, and each is whole, also when several shards log at once.
#[test]
fn every_session_has_its_line() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::exchange(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    \
         server s {}\n",
        syslog.address(),
        server.address()
    ));
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            scope.spawn(move || {
                for round in 0..50 {
                    let down = worker * 1_000 + round;
                    client::exchange(client::local(port), 10, down, round).unwrap();
                }
            });
        }
    });
    eventually("all lines are there", || syslog.received() == 200);
    let mut bytes: Vec<u64> = syslog
        .lines()
        .iter()
        .map(|line| SessionLine::parse(line).expect("tcplog").bytes)
        .collect();
    bytes.sort_unstable();
    // One byte of verdict follows each stream.
    let mut expected: Vec<u64> = (0..4)
        .flat_map(|worker| (0..50).map(move |round| worker * 1_000 + round + 1))
        .collect();
    expected.sort_unstable();
    assert_eq!(bytes, expected);
    balancer.settle();
}

/// A session logged to `target`; the address it came from stays in its line.
fn one_logged_session(target: &str) -> (Balancer, String) {
    let (server, port) = (MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen front\n    bind 127.0.0.1:{port}\n    log {target}\n    option tcplog\n    \
         server s {}\n",
        server.address()
    ));
    let client = connect_port(port);
    client::echo(&client, b"12345");
    client.shutdown(Shutdown::Write).unwrap();
    drop(read_end(&client));
    let from = client.local_addr().unwrap().to_string();
    balancer.settle();
    (balancer, from)
}

#[test]
fn standard_error_is_a_target() {
    let _turn = turn::shared();
    let (balancer, from) = one_logged_session("stderr format raw local0");
    eventually("the line is on standard error", || {
        let text = balancer.stderr();
        text.lines()
            .any(|line| line.starts_with(&from) && line.contains("front front/s"))
    });
}

#[test]
fn a_unix_datagram_socket_is_a_target() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.path().join("log");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let (_balancer, from) = one_logged_session(&format!("{} local0", path.display()));
    let mut line = [0; 2048];
    let length = socket.recv(&mut line).expect("a line");
    let line = String::from_utf8_lossy(&line[..length]).into_owned();
    assert!(
        line.starts_with("<134>") && line.contains(&from) && line.contains("front front/s"),
        "{line}"
    );
}

#[test]
fn standard_output_is_a_target() {
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let text = format!(
        "defaults\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n\
         listen front\n    bind 127.0.0.1:{port}\n    log stdout format raw local0\n    \
         option tcplog\n    server s {}\n",
        server.address()
    );
    let config = dir.write("stdout.cfg", &text);
    let mut child = Command::new(program())
        .arg("-f")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it listens", || listeners_on(port) > 0);
    let client = connect_port(port);
    client::echo(&client, b"12345");
    client.shutdown(Shutdown::Write).unwrap();
    drop(read_end(&client));
    let from = client.local_addr().unwrap().to_string();
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    // The end of the program would end the wait as well: the pipe closes.
    lines.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        line.starts_with(&from) && line.contains("front front/s"),
        "{line}"
    );
}
