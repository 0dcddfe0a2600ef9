//! Servers that refuse, hang, reset or are gone: what the client sees, how soon, and what is
//! logged.

use std::io::ErrorKind;
use std::time::Duration;

use crate::support::client::{self, End, ask_name, connect_port, local, read_end, write};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, Stopwatch, Syslog, balancer::Setup, eventually, is_tidegate, turn,
};

/// A listen section with a log target of its own; `rest` holds its further lines.
fn listen(syslog: &Syslog, port: u16, rest: &str) -> String {
    format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n{rest}\n",
        syslog.address()
    )
}

#[test]
fn a_refused_connect_ends_the_session_as_sc() {
    let _turn = turn::shared();
    let (syslog, port, nobody) = (Syslog::start(), free_port(), free_port());
    let rest = format!("    retries 0\n    server s 127.0.0.1:{nobody}");
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    let watch = Stopwatch::start();
    let (bytes, end) = read_end(&connect_port(port));
    watch.assert_within(0, 900, "refused connect");
    assert!(bytes.is_empty() && end != End::None);
    let line = syslog.take_session();
    assert_eq!((line.end.as_str(), line.server.as_str()), ("SC", "l/s"));
    assert_eq!(line.timers[1], -1);
    balancer.settle();
    assert_eq!(balancer.stat().number("l", "s", "econ"), 1);
}

#[test]
fn refused_connects_are_retried_as_often_as_told() {
    let _turn = turn::shared();
    let (syslog, port, nobody) = (Syslog::start(), free_port(), free_port());
    // Retries on the same server wait a second, or the connect timeout if that is shorter.
    let rest = format!("    timeout connect 100ms\n    retries 2\n    server s 127.0.0.1:{nobody}");
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    let watch = Stopwatch::start();
    drop(read_end(&connect_port(port)));
    watch.assert_within(180, 1_500, "two retries");
    let line = syslog.take_session();
    assert_eq!((line.end.as_str(), line.counts[4].as_str()), ("SC", "2"));
    balancer.settle();
    assert_eq!(balancer.stat().number("l", "s", "wretr"), 2);
}

#[test]
fn redispatch_takes_a_refused_connect_to_another_server() {
    let _turn = turn::shared();
    let (syslog, port, nobody) = (Syslog::start(), free_port(), free_port());
    let live = MockServer::named("live");
    let rest = format!(
        "    retries 3\n    option redispatch 1\n    server dead 127.0.0.1:{nobody}\n    \
         server live {}",
        live.address()
    );
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    for _ in 0..10 {
        assert_eq!(ask_name(local(port)).unwrap(), "live");
    }
    balancer.settle();
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "live", "stot"), 10);
    assert!(stat.number("l", "BACKEND", "wredis") >= 4, "{stat:?}");
    // `+` marks a redispatch before the count of retries.
    assert!(
        syslog.lines().iter().any(|line| line.contains("/+1 ")),
        "{:?}",
        syslog.lines()
    );
}

#[test]
fn a_redispatch_to_the_only_server_waits_as_a_retry_does() {
    let _turn = turn::shared();
    let (syslog, port, nobody) = (Syslog::start(), free_port(), free_port());
    let rest = format!(
        "    timeout connect 100ms\n    retries 2\n    option redispatch 1\n    \
         server s 127.0.0.1:{nobody}"
    );
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    let watch = Stopwatch::start();
    drop(read_end(&connect_port(port)));
    watch.assert_within(180, 1_500, "two retries");
    assert_eq!(syslog.take_session().end, "SC");
    balancer.settle();
}

/// However many attempts fail one after the other, they don't nest, and other sessions go on.
#[test]
fn attempts_that_fail_at_once_leave_the_others_their_turn() {
    let _turn = turn::shared();
    let (port, other, server) = (free_port(), free_port(), MockServer::echo());
    let [a, b] = [free_port(), free_port()];
    let balancer = Setup::new(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    retries 40000\n    option redispatch 1\n    \
         server a 127.0.0.1:{a}\n    server b 127.0.0.1:{b}\n\
         listen other\n    bind 127.0.0.1:{other}\n    server s {}\n",
        server.address()
    ))
    .shards(1)
    .start();
    let trying = connect_port(port);
    let econ = || balancer.stat().number("l", "a", "econ");
    eventually("it tries", || econ() > 0);
    let client = connect_port(other);
    client::echo(&client, b"meanwhile");
    drop(trying);
    drop(client);
    balancer.settle();
}

#[test]
fn a_black_hole_ends_the_session_as_small_sc_in_time() {
    let _turn = turn::shared();
    let (syslog, port, server) = (Syslog::start(), free_port(), MockServer::black_hole());
    let rest = format!(
        "    timeout connect 400ms\n    retries 0\n    server s {}",
        server.address()
    );
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    let watch = Stopwatch::start();
    let client = connect_port(port);
    write(&client, b"kept until connected");
    let (bytes, end) = read_end(&client);
    watch.assert_within(380, 1_000, "timeout connect");
    assert!(bytes.is_empty() && end != End::None);
    let line = syslog.take_session();
    assert_eq!((line.end.as_str(), line.timers[1]), ("sC", -1));
    assert!((380..900).contains(&line.total_ms()), "{line:?}");
    balancer.settle();
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_black_hole_is_left_for_another_server() {
    let _turn = turn::shared();
    let (syslog, port, hole) = (Syslog::start(), free_port(), MockServer::black_hole());
    let live = MockServer::echo();
    let rest = format!(
        "    timeout connect 300ms\n    retries 2\n    option redispatch 1\n    \
         server hole {}\n    server live {}",
        hole.address(),
        live.address()
    );
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    for _ in 0..4 {
        let client = connect_port(port);
        client::echo(&client, b"the early bytes are sent to the second server");
    }
    balancer.settle();
    assert_eq!(live.accepted(), 4);
}

#[test]
fn a_server_that_resets_at_once_ends_the_session_as_sd() {
    let _turn = turn::shared();
    let (syslog, port, server) = (Syslog::start(), free_port(), MockServer::resetting());
    let rest = format!("    server s {}", server.address());
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    let (bytes, end) = match client::try_connect(local(port)) {
        Ok(client) => read_end(&client),
        // It can also overtake the report of the client's own connect.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (Vec::new(), End::Reset),
        Err(error) => panic!("{error}"),
    };
    assert!(bytes.is_empty());
    assert!(
        end == End::Reset || (end == End::Fin && !is_tidegate()),
        "{end:?}"
    );
    let line = syslog.take_session();
    // On the loopback the reset can overtake the report of the connect.
    assert!(["SD", "SC"].contains(&line.end.as_str()), "{line:?}");
    balancer.settle();
}

#[test]
fn a_silent_server_ends_the_session_as_small_sd_in_time() {
    let _turn = turn::shared();
    let (syslog, port, server) = (Syslog::start(), free_port(), MockServer::silent());
    let rest = format!(
        "    timeout server 400ms\n    server s {}",
        server.address()
    );
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    let client = connect_port(port);
    write(&client, b"anybody?");
    let watch = Stopwatch::start();
    drop(read_end(&client));
    watch.assert_within(350, 1_000, "timeout server");
    drop(client);
    assert_eq!(syslog.take_session().end, "sD");
    balancer.settle();
}

#[test]
fn a_slow_server_is_waited_for() {
    let _turn = turn::shared();
    // A byte every 150 ms keeps a session with a timeout of 400 ms alive.
    let server = MockServer::start(|mut stream| {
        for byte in b"slowly" {
            std::thread::park_timeout(Duration::from_millis(150));
            if std::io::Write::write_all(&mut stream, &[*byte]).is_err() {
                return;
            }
        }
    });
    let (syslog, port) = (Syslog::start(), free_port());
    let rest = format!(
        "    timeout client 400ms\n    timeout server 400ms\n    server s {}",
        server.address()
    );
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    let client = connect_port(port);
    assert_eq!(read_end(&client), (b"slowly".to_vec(), End::Fin));
    drop(client);
    assert_eq!(syslog.take_session().end, "--");
    balancer.settle();
}

#[test]
fn all_servers_down_refuses_at_once_and_recovers() {
    let _turn = turn::shared();
    let (syslog, port) = (Syslog::start(), free_port());
    let mut server = MockServer::named("back");
    let rest = format!(
        "    server s {} check inter 100 fall 2 rise 2",
        server.address()
    );
    let balancer = Balancer::start(listen(&syslog, port, &rest));
    assert_eq!(ask_name(local(port)).unwrap(), "back");
    server.stop();
    eventually("the backend is down", || {
        balancer.stat().text("l", "BACKEND", "status") == "DOWN"
    });
    syslog.wait_line("has no server available");
    syslog.take_session();
    let watch = Stopwatch::start();
    let (bytes, end) = read_end(&connect_port(port));
    watch.assert_within(0, 900, "refusal with no server");
    assert!(bytes.is_empty() && end != End::None);
    let line = syslog.take_session();
    assert_eq!(
        (line.end.as_str(), line.server.as_str()),
        ("SC", "l/<NOSRV>")
    );
    server.restart();
    eventually("the backend is up", || {
        balancer.stat().text("l", "BACKEND", "status") == "UP"
    });
    assert_eq!(ask_name(local(port)).unwrap(), "back");
    balancer.settle();
}

#[test]
fn a_frontend_without_a_backend_refuses() {
    let _turn = turn::shared();
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = Setup::new(format!(
        "frontend f\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n",
        syslog.address()
    ))
    .start();
    let (bytes, end) = read_end(&connect_port(port));
    assert!(bytes.is_empty() && end != End::None);
    let line = syslog.take_session();
    assert_eq!(
        (line.end.as_str(), line.server.as_str()),
        ("SC", "f/<NOSRV>")
    );
    balancer.settle();
}
