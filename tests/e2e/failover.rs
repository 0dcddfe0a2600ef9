//! Probes take servers out and back in time, and servers restart under load without a failed
//! connection.

use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::spread::named;
use crate::support::client::{self, ask_name, connect_port, local};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, StopOnDrop, Stopwatch, Syslog, balancer::Setup, balancer::TempDir,
    eventually, is_tidegate, skip, stream, turn, wait_for,
};

#[test]
fn a_dead_server_is_out_within_fall_times_inter() {
    let _turn = turn::shared();
    let check = "check inter 200 fall 3 rise 2";
    let (mut servers, lines) = named(&[check, check, check]);
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    retries 0\n{lines}",
        syslog.address()
    ));
    servers[0].stop();
    let watch = Stopwatch::start();
    eventually("s1 is down", || {
        balancer
            .stat()
            .text("l", "s1", "status")
            .starts_with("DOWN")
    });
    // Three probes 200 ms apart, the first at once or 200 ms after the death.
    watch.assert_within(380, 1_200, "fall x inter");
    for _ in 0..20 {
        assert_ne!(ask_name(local(port)).unwrap(), "s1");
    }
    let line = syslog.wait_line("Server l/s1 is DOWN");
    assert!(line.contains("2 active"), "{line}");
    servers[0].restart();
    let watch = Stopwatch::start();
    eventually("s1 is up", || {
        balancer.stat().text("l", "s1", "status") == "UP"
    });
    watch.assert_within(180, 1_200, "rise x inter");
    syslog.wait_line("Server l/s1 is UP");
    eventually("s1 serves again", || ask_name(local(port)).unwrap() == "s1");
    balancer.settle();
}

#[test]
fn fall_and_rise_count_probes_in_a_row() {
    let _turn = turn::shared();
    let server = MockServer::named("s");
    let (syslog, port) = (Syslog::start(), free_port());
    let mut server = server;
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    \
         server s {} check inter 300 fall 4 rise 3\n",
        syslog.address(),
        server.address()
    ));
    let health = || balancer.stat().number("l", "s", "check_health");
    // Position 6 = rise + fall - 1 is the best. Two failures and back up must not take it out.
    eventually("health is full", || health() == 6);
    server.stop();
    eventually("two probes have failed", || health() <= 4);
    server.restart();
    eventually("health is full again", || health() == 6);
    assert_eq!(syslog.count(" is DOWN"), 0, "{:?}", syslog.lines());
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "s", "chkdown"), 0);
    assert!(stat.number("l", "s", "chkfail") >= 2);
    balancer.settle();
}

#[test]
fn a_black_holed_server_is_out_by_timeout() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::black_hole(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    timeout connect 200ms\n    \
         server s {} check inter 200 fall 2 rise 2\n",
        syslog.address(),
        server.address()
    ));
    let line = syslog.wait_line("Server l/s is DOWN");
    assert!(line.to_lowercase().contains("timeout"), "{line}");
    assert_eq!(
        balancer
            .stat()
            .text("l", "s", "check_status")
            .trim_start_matches("* "),
        "L4TOUT"
    );
    balancer.settle();
}

#[test]
fn probes_go_to_the_check_port() {
    let _turn = turn::shared();
    let (server, probed) = (MockServer::named("s"), MockServer::silent());
    let (port, nobody) = (free_port(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    \
         server deaf {address} check inter 100 fall 2 port {nobody}\n    \
         server well {address} check inter 100 fall 2 port {}\n    \
         server gone 127.0.0.1:{nobody} check inter 100 fall 2 port {}\n",
        probed.address().port(),
        probed.address().port(),
        address = server.address(),
    ));
    let status = |server: &str| balancer.stat().text("l", server, "status").to_owned();
    eventually("the unprobeable one is down", || {
        status("deaf").starts_with("DOWN")
    });
    eventually("the others are up", || {
        status("well") == "UP" && status("gone") == "UP"
    });
    balancer.settle();
}

/// Three servers restart one after the other, twice, while clients go on: not one connection fails.
#[test]
fn a_rolling_restart_fails_nobody() {
    // Alone: a copy of a listening socket in a process just being started would take connections.
    let _turn = turn::alone();
    let check = "check inter 200 fall 2 rise 1";
    let (mut servers, lines) = named(&[check, check, check]);
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    timeout connect 2s\n    retries 3\n    \
         option redispatch 1\n{lines}"
    );
    let balancer = Setup::new(body).start();
    let served = rolling_restart(port, &mut servers, 2);
    assert!(served > 300, "only {served} connections");
    balancer.settle();
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "BACKEND", "econ"), 0);
    assert_eq!(stat.number("l", "FRONTEND", "stot"), served);
}

/// Restarts each server `rounds` times under the load of four clients and returns how many
/// connections were served; fails if one was not.
pub(crate) fn rolling_restart(port: u16, servers: &mut [MockServer], rounds: u32) -> u64 {
    let (served, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    match ask_name(local(port)) {
                        Ok(_) => drop(served.fetch_add(1, Relaxed)),
                        Err(error) => failures.lock().unwrap().push(error),
                    }
                    // A pause keeps the load below what would exhaust local ports in a long run.
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            });
        }
        for index in (0..servers.len())
            .cycle()
            .take(servers.len() * rounds as usize)
        {
            let server = &mut servers[index];
            server.stop_gracefully();
            let before = served.load(Relaxed);
            eventually("the others serve", || served.load(Relaxed) > before + 20);
            server.restart();
            let before = server.accepted();
            eventually("the server is back", || server.accepted() > before + 5);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} failed: {:?}",
        failures.len(),
        &failures[..1]
    );
    served.into_inner()
}

/// Nothing may make a healthy server look dead: not busy shards, not 500 probes a second, not a log
/// target that takes no more lines.
#[test]
fn busy_shards_and_a_blocked_log_take_nobody_out() {
    const CHECKED: u64 = 50;
    let _turn = turn::alone();
    let dir = TempDir::new();
    // A datagram socket that nobody reads: its queue of a few lines is soon full.
    let stuck_path = dir.path().join("log");
    let _stuck = UnixDatagram::bind(&stuck_path).unwrap();
    let syslog = Syslog::start();
    let (bulk, probed) = (
        MockServer::start(|mut stream| drop(stream::send(&mut stream, 1, u64::MAX))),
        MockServer::silent(),
    );
    let port = free_port();
    let mut body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    log {} local0\n    \
         server s {}\nbackend checked\n    log {} local0\n    log {} local0\n",
        stuck_path.display(),
        syslog.address(),
        bulk.address(),
        stuck_path.display(),
        syslog.address(),
    );
    for index in 0..CHECKED {
        let address = probed.address();
        body.push_str(&format!(
            "    server s{index} {address} check inter 100 fall 2 rise 2\n"
        ));
    }
    let balancer = Balancer::start(body);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut stream = connect_port(port);
                let mut buffer = vec![0; 256 << 10];
                while !done.load(Relaxed) {
                    std::io::Read::read(&mut stream, &mut buffer).expect("bulk goes on");
                }
            });
        }
        scope.spawn(|| {
            // Short connections, so that there is something to log.
            while !done.load(Relaxed) {
                client::try_connect(local(port)).map(client::reset).ok();
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        let watch = Stopwatch::start();
        wait_for(Duration::from_millis(3_500), || {
            (watch.ms() > 3_000).then_some(())
        });
    });
    // HAProxy resets before its handshake is over, which a server never sees.
    if is_tidegate() {
        let probes = probed.accepted();
        assert!(probes >= 1_000, "{probes} probes in 3 s at 500 a second");
    }
    assert_eq!(
        syslog.count(" is DOWN"),
        0,
        "a healthy server was taken out"
    );
    let stat = balancer.stat();
    for index in 0..CHECKED {
        assert_eq!(stat.number("checked", &format!("s{index}"), "chkfail"), 0);
    }
    balancer.settle();
}

/// A thousand servers are dead at the start: their tables are not built one by one, which would
/// take minutes (a Maglev table of so many takes a tenth of a second).
#[test]
fn a_thousand_dead_servers_are_out_together() {
    const SERVERS: usize = 1_000;
    let _turn = turn::alone();
    if skip("its table takes as long as it takes") {
        return;
    }
    let (port, nobody, good) = (free_port(), free_port(), MockServer::named("good"));
    let mut lines = String::new();
    for n in 0..SERVERS {
        let (high, low) = (n / 250, 1 + n % 250);
        lines.push_str(&format!("    server s{n} 127.1.{high}.{low}:{nobody}\n"));
    }
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance source\n    hash-type maglev\n    \
         default-server check inter 60s fall 1\n{lines}    server good {}\n",
        good.address()
    );
    let watch = Stopwatch::start();
    let setup = Setup::new(body).global_of_ours("tune.first-checks-wait 60s");
    let balancer = setup.start();
    watch.assert_within(0, 20_000, "the first round");
    let stat = balancer.stat();
    let down = |n: usize| stat.text("l", &format!("s{n}"), "status") == "DOWN";
    assert!((0..SERVERS).all(down));
    for _ in 0..20 {
        assert_eq!(ask_name(local(port)).unwrap(), "good");
    }
    balancer.settle();
}
