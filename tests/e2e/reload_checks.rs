//! Checks over a reload: those that stay keep their rhythm, those that change go on from where they
//! are, and who tracks whom follows the file.

use crate::reload::{change, change_to};
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{connect_port, read_name};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, is_tidegate, turn};

/// Longer than a test.
const NEVER: &str = "inter 600s";

fn status(balancer: &Balancer, backend: &str, server: &str) -> String {
    balancer.stat().text(backend, server, "status").to_owned()
}

/// A probe that comes in ten minutes is not made again, whatever else the file changes.
#[test]
fn no_check_is_repeated() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (stays, port, syslog) = (MockServer::silent(), free_port(), Syslog::start());
    let body = |turn: usize, more: &str| {
        format!(
            "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    timeout server {}s\n    \
             server s {} check {NEVER} weight {}\n{more}",
            syslog.address(),
            turn + 1,
            stays.address(),
            turn + 1
        )
    };
    let balancer = Balancer::start(body(0, ""));
    eventually("it is probed", || stays.accepted() > 0);
    let mut added: Vec<MockServer> = Vec::new();
    for turn in 1..6 {
        added.push(MockServer::silent());
        let line = |(n, server): (usize, &MockServer)| {
            format!("    server n{n} {} check {NEVER}\n", server.address())
        };
        let more: String = added.iter().enumerate().map(line).collect();
        change(&balancer, &body(turn, &more));
        // The first probe of who is new is the last one of those that a reload begins.
        eventually("the new server is probed", || {
            added.iter().all(|server| server.accepted() > 0)
        });
        assert!(added.iter().all(|server| server.accepted() == 1));
        assert_eq!(stays.accepted(), 1);
    }
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "s", "status"), "UP");
    assert_eq!(
        (
            stat.number("l", "s", "chkfail"),
            stat.number("l", "s", "chkdown")
        ),
        (0, 0)
    );
    assert_eq!(syslog.count("Server l/s is"), 0);
    balancer.settle();
}

/// Reloads that come quicker than probes don't put them off.
#[test]
fn no_check_is_lost() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port, syslog) = (MockServer::silent(), free_port(), Syslog::start());
    let mut turns = 0;
    let mut body = || {
        turns += 1;
        Setup::new(format!(
            "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    timeout client {turns}s\n    \
             server s {} check inter 300ms weight {}\n",
            syslog.address(),
            server.address(),
            turns % 200 + 1
        ))
        .global(format!("spread-checks {}", turns % 50))
    };
    let balancer = body().start();
    let before = server.accepted();
    eventually("ten more have come", || {
        change_to(&balancer, &body());
        server.accepted() >= before + 10
    });
    let shown = balancer.stats("show reload");
    assert!(shown.contains("global changed: spread-checks"), "{shown}");
    assert_eq!(status(&balancer, "l", "s"), "UP");
    assert_eq!(syslog.count("Server l/s is"), 0);
    balancer.settle();
}

#[test]
fn checks_with_other_settings_go_on_from_their_state() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (mut server, port, syslog) = (MockServer::silent(), free_port(), Syslog::start());
    let body = |words: &str| {
        format!(
            "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    server s {} check {words}\n",
            syslog.address(),
            server.address()
        )
    };
    let bodies = [
        "inter 100ms fall 2 rise 2",
        "inter 150ms fall 3 rise 4",
        "inter 100ms fall 1 rise 1 fastinter 50ms",
        "inter 100ms downinter 50ms rise 2",
    ]
    .map(body);
    let balancer = Balancer::start(bodies[0].as_str());
    server.stop();
    eventually("it is down", || status(&balancer, "l", "s") == "DOWN");
    for body in &bodies[1..] {
        change(&balancer, body);
        assert_eq!(status(&balancer, "l", "s"), "DOWN");
    }
    assert_eq!(syslog.count("Server l/s is UP"), 0);
    server.restart();
    eventually("it is up", || status(&balancer, "l", "s") == "UP");
    for body in bodies.iter().rev() {
        change(&balancer, body);
        assert_eq!(status(&balancer, "l", "s"), "UP");
    }
    syslog.wait_line("Server l/s is UP");
    assert_eq!(
        (
            syslog.count("Server l/s is DOWN"),
            syslog.count("Server l/s is UP")
        ),
        (1, 1)
    );
    // The last ones work.
    server.stop();
    eventually("it is down again", || status(&balancer, "l", "s") == "DOWN");
    balancer.settle();
}

#[test]
fn who_tracks_whom_follows_the_file() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (well, dead, port) = (MockServer::named("w"), free_port(), free_port());
    let body = |words: &str| {
        format!(
            "listen l\n    bind 127.0.0.1:{port}\n    server t {} {words}\nbackend c\n    server up \
             {} check {NEVER}\n    server down 127.0.0.1:{dead} check {NEVER} fall 1\n",
            well.address(),
            well.address()
        )
    };
    let balancer = Balancer::start(body("track c/down"));
    let serves = || read_name(&connect_port(port)).is_ok();
    let expect = |wanted: &str, words: &str| {
        assert_eq!(status(&balancer, "l", "t"), wanted, "{words}");
        assert_eq!(serves(), wanted != "DOWN", "{words}");
    };
    expect("DOWN", "at the start");
    for (words, wanted) in [
        ("track c/up", "UP"),
        ("track c/down", "DOWN"),
        ("", "no check"),
        ("track c/down", "DOWN"),
        ("weight 5", "no check"),
        ("track c/up", "UP"),
    ] {
        change(&balancer, &body(words));
        expect(wanted, words);
    }
    // What happens to whom it tracks now happens to it.
    balancer.stats("disable server c/up");
    assert!(!serves());
    balancer.stats("enable server c/up");
    assert!(serves());
    balancer.settle();
}

/// A state file is for servers that are new; those that were there have a state already.
#[test]
fn servers_that_are_new_begin_as_the_state_file_says() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port, dir) = (MockServer::named("s"), free_port(), TempDir::new());
    let line =
        |name: &str, state: &str| format!("2 l 1 {name} 127.0.0.1 {state} 0 0 - 1 - 0 0 - - 0\n");
    let text = format!(
        "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight ...\n{}{}{}",
        line("old", "2 1 7 10 60 1 0 2 0 0"),
        line("new", "2 8 5 10 60 1 0 2 0 0"),
        line("other", "2 1 10 10 60 1 0 2 0 0"),
    );
    let file = dir.write("state", "1\n# nothing yet\n");
    let setup = |servers: &[&str]| {
        let line = |name: &&str| format!("    server {name} {} weight 10\n", server.address());
        Setup::new(format!(
            "listen l\n    bind 127.0.0.1:{port}\n    load-server-state-from-file global\n{}",
            servers.iter().map(line).collect::<String>()
        ))
        .global(format!("server-state-file {}", file.display()))
    };
    let balancer = setup(&["old"]).start();
    dir.write("state", &text);
    // What a command has moved is moved again in what the files say.
    balancer.stats("set server l/old addr 127.0.0.2");
    let found = |name: &str| {
        let stat = balancer.stat();
        (
            stat.text("l", name, "status").to_owned(),
            stat.number("l", name, "weight"),
        )
    };
    change_to(&balancer, &setup(&["new", "old", "other"]));
    assert_eq!(found("old"), ("no check".to_owned(), 10));
    assert_eq!(found("new"), ("DRAIN".to_owned(), 5));
    assert_eq!(found("other").0, "MAINT");
    // From then on they have a state themselves.
    balancer.stats("set server l/new state ready");
    balancer.stats("set server l/new weight 9");
    change_to(&balancer, &setup(&["other", "new"]));
    assert_eq!(found("new"), ("no check".to_owned(), 9));
    // One that was taken away is new when it comes back.
    eventually("it is gone", || {
        !balancer.stats("show stat").contains("\nl,old,")
    });
    change_to(&balancer, &setup(&["old", "other", "new"]));
    assert_eq!(found("old").0, "MAINT");
    assert_eq!(found("new"), ("no check".to_owned(), 9));
    balancer.settle();
}
