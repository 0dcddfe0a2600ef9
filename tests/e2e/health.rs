//! What makes a server up or down, and what follows from it: the first checks, `init-state`,
//! `track`, sessions that end with their server.

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::spread::named;
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{self, ask_name, connect_port, local};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, StopOnDrop, Stopwatch, Syslog, eventually, skip, turn, wait_for,
};

/// Why these can't be asked of HAProxy.
const NO_WAIT: &str = "it lets clients in before the first checks";
const NO_INIT_STATE: &str = "its level 2.6 has no 'init-state'";

fn listen(port: u16, syslog: &Syslog, lines: &str) -> String {
    format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    log {} local0\n    \
         option tcplog\n{lines}",
        syslog.address()
    )
}

/// Connects again and again until somebody listens, and reads the server's name.
fn first_name(port: u16, ended: &AtomicBool) -> Option<String> {
    while !ended.load(Relaxed) {
        if let Ok(stream) = client::try_connect(local(port)) {
            return Some(client::read_name(&stream).unwrap_or_else(|error| error));
        }
        std::thread::yield_now();
    }
    None
}

#[test]
fn a_server_that_is_dead_at_the_start_never_gets_a_client() {
    let _turn = turn::shared();
    if skip(NO_WAIT) {
        return;
    }
    let (server, syslog, port) = (MockServer::named("live"), Syslog::start(), free_port());
    let mut lines = format!(
        "    retries 0\n    server live {} check\n",
        server.address()
    );
    for index in 0..20 {
        lines.push_str(&format!(
            "    server dead{index} 127.0.0.1:{} check\n",
            free_port()
        ));
    }
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&ended);
        // They are there before the balancer listens.
        let waiting: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| first_name(port, &ended)))
            .collect();
        let balancer = Balancer::start(listen(port, &syslog, &lines));
        for client in waiting {
            assert_eq!(client.join().unwrap().as_deref(), Some("live"));
        }
        for _ in 0..40 {
            assert_eq!(ask_name(local(port)).unwrap(), "live");
        }
        let stat = balancer.stat();
        for index in 0..20 {
            let name = format!("dead{index}");
            assert_eq!(stat.number("l", &name, "econ"), 0);
            assert_eq!(stat.text("l", &name, "status"), "DOWN");
        }
        assert_eq!(
            syslog.count(" is DOWN, reason: Layer4 connection problem"),
            20
        );
        balancer.settle();
    });
}

#[test]
fn clients_wait_for_first_checks_only_so_long() {
    let _turn = turn::shared();
    if skip(NO_WAIT) {
        return;
    }
    let (live, hole) = (MockServer::named("live"), MockServer::black_hole());
    for (setting, least, most) in [("400ms", 400, 3_000), ("0", 0, 2_000)] {
        let port = free_port();
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    \
             server live {} check\n    server hole {} check inter 20s\n",
            live.address(),
            hole.address()
        );
        let watch = Stopwatch::start();
        let setup = Setup::new(body).global(format!("tune.first-checks-wait {setting}"));
        let balancer = setup.start();
        watch.assert_within(least, most, setting);
        // What isn't known is as 'init-state' says: up.
        assert!(
            balancer
                .stat()
                .text("l", "hole", "status")
                .starts_with("UP")
        );
        let told = balancer.stderr().contains("first checks take longer than");
        assert_eq!(told, setting != "0", "{}", balancer.stderr());
        assert_eq!(ask_name(local(port)).unwrap(), "live");
        balancer.settle();
    }
}

#[test]
fn a_signal_ends_the_wait_for_first_checks() {
    let _turn = turn::shared();
    if skip(NO_WAIT) {
        return;
    }
    let (hole, dir, port) = (MockServer::black_hole(), TempDir::new(), free_port());
    let text = format!(
        "global\n    tune.first-checks-wait 60s\ndefaults\n    mode tcp\n    timeout connect 50s\n    \
         timeout client 1s\n    timeout server 1s\nlisten l\n    bind 127.0.0.1:{port}\n    \
         server hole {} check inter 50s\n",
        hole.address()
    );
    let config = dir.write("wait.cfg", &text);
    let mut child = std::process::Command::new(crate::support::balancer::program())
        .arg("-f")
        .arg(config)
        .spawn()
        .expect("start the balancer");
    assert!(crate::support::port::wait_listening(
        port,
        Duration::from_secs(10)
    ));
    let watch = Stopwatch::start();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    // It listens before it has a thread for signals; they stay pending until then.
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    let ended = wait_for(Duration::from_secs(10), || child.try_wait().unwrap());
    let _ = child.kill();
    assert!(ended.is_some(), "still waiting");
    watch.assert_within(0, 9_000, "to end");
}

/// The states of the lines of `option log-health-checks`, and of those that follow.
fn states(syslog: &Syslog) -> Vec<String> {
    let state = |line: String| {
        let check = line
            .rsplit_once("status: ")
            .map(|(_, state)| state.to_owned());
        let is_down = line.contains(" is DOWN").then(|| "is DOWN".to_owned());
        let is_up = line.contains(" is UP").then(|| "is UP".to_owned());
        check.or(is_down).or(is_up)
    };
    syslog.lines().into_iter().filter_map(state).collect()
}

#[test]
fn a_server_begins_as_init_state_says() {
    let _turn = turn::shared();
    if skip(NO_INIT_STATE) {
        return;
    }
    let live = MockServer::silent();
    let dead = free_port();
    let live = live.address().to_string();
    let dead = format!("127.0.0.1:{dead}");
    let cases: [(&str, &str, &[&str]); 7] = [
        ("up", &live, &["3/3 UP."]),
        ("up", &dead, &["0/2 DOWN.", "is DOWN"]),
        ("none", &dead, &["0/2 DOWN.", "is DOWN"]),
        (
            "fully-up",
            &dead,
            &["2/3 UP.", "1/3 UP.", "0/2 DOWN.", "is DOWN"],
        ),
        ("down", &live, &["3/3 UP.", "is UP"]),
        ("down", &dead, &["0/2 DOWN."]),
        ("fully-down", &live, &["1/2 DOWN.", "3/3 UP.", "is UP"]),
    ];
    for (state, address, expected) in cases {
        let (syslog, port) = (Syslog::start(), free_port());
        let lines = format!(
            "    option log-health-checks\n    server s {address} check inter 100 rise 2 fall 3 \
             init-state {state}\n"
        );
        let balancer = Balancer::start(listen(port, &syslog, &lines));
        eventually(state, || states(&syslog).len() >= expected.len());
        assert_eq!(
            states(&syslog)[..expected.len()],
            *expected,
            "{state} {address}"
        );
        balancer.settle();
    }
}

#[test]
fn a_server_follows_the_one_that_it_tracks() {
    let _turn = turn::shared();
    let (mut checked, other) = (MockServer::silent(), MockServer::named("other"));
    let (syslog, port) = (Syslog::start(), free_port());
    let lines = format!(
        "    server s {other} track chk/a\n    server t {other} track s\n    \
         server bk {other} backup\nbackend chk\n    log {} local0\n    \
         server a {} check inter 100 rise 2 fall 2\n",
        syslog.address(),
        checked.address(),
        other = other.address(),
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    let status = |proxy, server| balancer.stat().text(proxy, server, "status").to_owned();
    eventually("all are up", || {
        let a = balancer.stat().number("chk", "a", "check_health");
        a == 3 && status("l", "s") == "UP" && status("l", "t") == "UP"
    });
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "s", "tracked"), "chk/a");
    assert_eq!(stat.text("l", "t", "tracked"), "l/s");
    assert_eq!(stat.text("l", "t", "check_status"), "");
    checked.stop();
    let line = syslog.wait_line("Server l/s is DOWN via chk/a.");
    assert!(
        line.contains("1 active and 1 backup servers left. 0 sessions active"),
        "{line}"
    );
    let line = syslog.wait_line("Server l/t is DOWN via l/s.");
    assert!(
        line.contains("0 active and 1 backup servers left. Running on backup."),
        "{line}"
    );
    assert_eq!(
        (status("l", "s").as_str(), status("l", "t").as_str()),
        ("DOWN", "DOWN")
    );
    assert_eq!(ask_name(local(port)).unwrap(), "other");
    assert!(balancer.stat().number("l", "bk", "stot") > 0);
    checked.restart();
    syslog.wait_line("Server l/s is UP via chk/a. 1 active and 1 backup servers online.");
    syslog.wait_line("Server l/t is UP via l/s. 2 active and 1 backup servers online.");
    let lines = syslog.lines();
    let place = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
    assert!(place("chk/a is DOWN") < place("l/s is DOWN"));
    assert!(place("l/s is DOWN") < place("l/t is DOWN"));
    balancer.settle();
}

#[test]
fn a_disabled_server_takes_those_that_track_it_along() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::silent(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server a {address} check disabled\n    \
         server b {address} track a\n    server c {address} track l/b disabled\n",
        address = server.address()
    ));
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "a", "status"), "MAINT");
    assert_eq!(stat.text("l", "b", "status"), "MAINT (via l/a)");
    assert_eq!(stat.text("l", "c", "status"), "MAINT (via l/b)");
    balancer.settle();
}

/// A session with a server that goes down.
#[test]
fn sessions_end_with_their_server_where_told() {
    let _turn = turn::shared();
    let (mut ended, mut kept) = (MockServer::hold(), MockServer::hold());
    let syslog = Syslog::start();
    let (ended_port, kept_port) = (free_port(), free_port());
    let check = "check inter 100 rise 1 fall 1";
    let second = format!(
        "    server a {} {check} on-marked-down shutdown-sessions\nlisten k\n    \
         bind 127.0.0.1:{kept_port}\n    server a {} {check}\n",
        ended.address(),
        kept.address()
    );
    let balancer = Balancer::start(listen(ended_port, &syslog, &second));
    let clients = [connect_port(ended_port), connect_port(kept_port)];
    clients
        .iter()
        .for_each(|client| client::write(client, b"hello"));
    // Checks are connections too: the one that speaks is the client's.
    let mut servers = Vec::new();
    for server in [&ended, &kept] {
        let spoken = std::iter::from_fn(|| Some(server.next())).find(|stream| {
            let mut first = [0; 5];
            std::io::Read::read(&mut { stream }, &mut first).is_ok_and(|count| count == 5)
        });
        servers.push(spoken.unwrap());
    }
    ended.stop();
    kept.stop();
    let (bytes, _) = client::read_end(&clients[0]);
    assert_eq!(bytes, b"");
    let line = syslog.wait_line(" l l/a ");
    assert!(line.contains(" D- "), "{line}");
    // The other one goes on.
    eventually("k/a is down", || {
        balancer.stat().text("k", "a", "status") == "DOWN"
    });
    client::write(&servers[1], b"still here");
    assert_eq!(client::read_bytes(&clients[1], 10), b"still here");
    drop((clients, servers));
    balancer.settle();
}

#[test]
fn sessions_of_backup_servers_end_where_told() {
    let _turn = turn::shared();
    let (mut server, backup) = (MockServer::silent(), MockServer::echo());
    let (syslog, port) = (Syslog::start(), free_port());
    server.stop();
    let lines = format!(
        "    server a {} check inter 100 rise 1 fall 1 on-marked-up shutdown-backup-sessions\n    \
         server b {} backup\n",
        server.address(),
        backup.address()
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    syslog.wait_line("Server l/a is DOWN");
    let client = connect_port(port);
    client::echo(&client, b"from the backup");
    server.restart();
    assert_eq!(client::read_end(&client).0, b"");
    let line = syslog.wait_line(" l l/b ");
    assert!(line.contains(" U- "), "{line}");
    balancer.settle();
}

#[test]
fn ten_servers_fail_together_and_return() {
    let _turn = turn::shared();
    let check = "check inter 100 rise 2 fall 2";
    let (mut servers, lines) = named(&[check; 10]);
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    let health = |wanted: u64| {
        let stat = balancer.stat();
        (1..=10).all(|n| stat.number("l", &format!("s{n}"), "check_health") == wanted)
    };
    eventually("all are up", || health(3));
    servers.iter_mut().for_each(MockServer::stop);
    syslog.wait_line("proxy l has no server available!");
    eventually("all are down", || health(0));
    assert_eq!(syslog.count(" is DOWN, reason: "), 10);
    assert_eq!(syslog.count("has no server available!"), 1);
    assert!(ask_name(local(port)).is_err());
    servers.iter_mut().for_each(MockServer::restart);
    eventually("all are up again", || health(3));
    assert_eq!(syslog.count(" is UP, reason: "), 10);
    let mut names: Vec<_> = (0..10).map(|_| ask_name(local(port)).unwrap()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10, "each has its turn: {names:?}");
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "BACKEND", "chkdown"), 1);
    assert_eq!(stat.number("l", "s1", "chkdown"), 1);
    balancer.settle();
}

#[test]
fn a_flapping_server_fails_no_session() {
    let _turn = turn::shared();
    let check = "check inter 50 rise 1 fall 1";
    let (mut servers, lines) = named(&[check, check]);
    let (syslog, port) = (Syslog::start(), free_port());
    let lines = format!("    retries 2\n    option redispatch 1\n{lines}");
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    let (done, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    ask_name(local(port)).expect("a session failed");
                    asked.fetch_add(1, Relaxed);
                }
            });
        }
        for round in 1..=4 {
            servers[0].stop_gracefully();
            eventually("it is down", || {
                syslog.count("Server l/s1 is DOWN") == round
            });
            let before = asked.load(Relaxed);
            eventually("clients are served", || asked.load(Relaxed) > before + 8);
            servers[0].restart();
            eventually("it is up", || syslog.count("Server l/s1 is UP") == round);
            let before = asked.load(Relaxed);
            eventually("clients are served", || asked.load(Relaxed) > before + 8);
        }
    });
    assert_eq!(balancer.stat().number("l", "s1", "chkdown"), 4);
    assert_eq!(balancer.stat().number("l", "s2", "chkdown"), 0);
    balancer.settle();
}

/// The balancer itself stands still for longer than any check may take.
#[test]
fn a_pause_of_the_balancer_is_no_failure_of_a_server() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::silent(), Syslog::start(), free_port());
    let lines = format!("    server a {} check inter 50 fall 1\n", server.address());
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    for _ in 0..3 {
        balancer.signal(Signal::SIGSTOP);
        let watch = Stopwatch::start();
        wait_for(Duration::from_millis(400), || {
            (watch.ms() > 300).then_some(())
        });
        balancer.signal(Signal::SIGCONT);
        eventually("it runs", || {
            balancer.stat().number("l", "a", "check_health") > 0
        });
    }
    assert_eq!(syslog.count(" is DOWN"), 0, "{:?}", syslog.lines());
    assert_eq!(balancer.stat().number("l", "a", "chkfail"), 0);
    balancer.settle();
}

#[test]
fn a_check_may_go_elsewhere() {
    let _turn = turn::shared();
    let (server, dir) = (MockServer::named("s"), TempDir::new());
    let path = dir.path().join("health");
    let socket = UnixListener::bind(&path).unwrap();
    let (syslog, port) = (Syslog::start(), free_port());
    let nobody = free_port();
    let lines = format!(
        "    default-server check inter 100 fall 1\n    \
         server u 127.0.0.1:{nobody} addr {}\n    server n {address} port {nobody}\n    \
         server a 127.0.0.1:{nobody} addr {address}\n    \
         server p 127.0.0.1:{nobody} port {} addr 127.0.0.1:{nobody}\n",
        path.display(),
        server.address().port(),
        address = server.address(),
    );
    let balancer = Balancer::start(listen(port, &syslog, &lines));
    syslog.wait_line("Server l/n is DOWN");
    let status = |server| {
        let stat = balancer.stat();
        stat.text("l", server, "check_status")
            .trim_start_matches("* ")
            .to_owned()
    };
    for server in ["u", "p", "a"] {
        eventually(server, || status(server) == "L4OK");
    }
    drop(socket);
    std::fs::remove_file(&path).unwrap();
    syslog.wait_line("Server l/u is DOWN");
    assert_eq!(syslog.count(" is DOWN"), 2);
    balancer.settle();
}
