//! State files: what `show servers state` has printed is where servers begin.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::programs::{Service, programs};
use crate::runtime_set::ask_at;
use crate::spread::{count_sequential, named};
use crate::support::balancer::{Setup, TempDir};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, is_tidegate, skip, turn};

/// Longer than a test.
const NEVER: &str = "inter 600s";

/// The first lines of a file.
const HEADER: &str =
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight ...\n";

/// A line: what stands between the address and the name, in HAProxy's order.
fn line(backend: &str, server: &str, state: &str) -> String {
    format!("2 {backend} 1 {server} 127.0.0.1 {state} 0 0 - 1 - 0 0 - - 0\n")
}

fn state_file(dir: &TempDir, name: &str, backend: &str, servers: &[(&str, &str)]) -> String {
    let lines = servers
        .iter()
        .map(|(name, state)| line(backend, name, state));
    let text = format!("{HEADER}{}", lines.collect::<String>());
    dir.write(name, &text).display().to_string()
}

/// A status without how far it is from another.
fn status(balancer: &Balancer, server: &str) -> String {
    let stat = balancer.stat();
    let status = stat.text("l", server, "status");
    match status.split_once(' ') {
        Some((first, position)) if position.contains('/') => first.to_owned(),
        _ => status.to_owned(),
    }
}

#[test]
fn servers_begin_as_the_file_says() {
    let _turn = turn::shared();
    let (checked, dead) = (format!("check {NEVER}"), free_port());
    let elsewhere = format!("check {NEVER} port {dead} addr 127.0.0.1");
    let (_servers, lines) = named(&[
        "weight 10",
        "weight 10",
        "weight 10 disabled",
        "weight 10 disabled",
        "weight 10",
        "weight 10",
        "weight 10",
        &format!("weight 10 {checked}"),
        &format!("weight 10 {elsewhere}"),
        &format!("weight 10 fall 1 {elsewhere}"),
        "weight 10",
        "weight 10 track l/s8",
    ]);
    let dir = TempDir::new();
    // op, admin, weight, that of the file, seconds, status, result, position, check, agent
    let file = state_file(
        &dir,
        "all",
        "l",
        &[
            ("s1", "2 0 5 10 3600 1 0 2 0 0"),
            ("s2", "2 0 5 20 60 1 0 2 0 0"),
            ("s3", "2 4 10 10 60 1 0 2 8 0"),
            ("s4", "2 0 10 10 60 1 0 2 0 0"),
            ("s5", "0 5 10 10 60 1 0 0 0 0"),
            ("s6", "2 8 10 10 60 1 0 2 0 0"),
            ("s7", "0 1 10 10 60 1 0 0 0 0"),
            ("s8", "0 0 10 10 60 8 2 0 6 0"),
            ("s9", "3 0 10 10 60 6 3 4 6 0"),
            ("s10", "2 0 10 10 60 6 3 2 2 0"),
            ("gone", "0 0 10 10 60 8 2 0 6 0"),
            ("s12", "0 0 10 10 60 1 0 0 0 0"),
        ],
    );
    let (port, syslog) = (free_port(), Syslog::start());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    log {} local0\n    \
         load-server-state-from-file global\n{lines}",
        syslog.address()
    );
    let setup = Setup::new(body).global(format!("server-state-file {file}"));
    let balancer = setup.start();
    for (server, expected) in [
        ("s1", "no check"),
        ("s3", "no check"),
        ("s4", "MAINT"),
        // HAProxy has it that it was down, although it was in maintenance.
        ("s5", if is_tidegate() { "no check" } else { "DOWN" }),
        ("s6", "DRAIN"),
        ("s7", "MAINT"),
        ("s8", "DOWN"),
        ("s9", "NOLB"),
        ("s11", "no check"),
        ("s12", "DOWN"),
    ] {
        assert_eq!(status(&balancer, server), expected, "{server}");
    }
    let stat = balancer.stat();
    let weights = ["s1", "s2", "s3"].map(|server| stat.number("l", server, "weight"));
    assert_eq!(weights, [5, 10, 10]);
    let since = stat.number("l", "s1", "lastchg");
    assert!((3600..7200).contains(&since), "{since}");
    // Its checks are stopped, so that nothing has found it dead.
    assert_ne!(stat.text("l", "s10", "status"), "DOWN");
    // HAProxy takes the ports of the file, too.
    if is_tidegate() {
        let expected = [
            ("s1", 10),
            ("s2", 20),
            ("s3", 20),
            ("s5", 20),
            ("s10", 20),
            ("s11", 20),
        ];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(count_sequential(port, 110), expected.into());
        let reason = "changed from server-state after a reload";
        syslog.wait_line(&format!("Server l/s8 is DOWN, {reason}. "));
        syslog.wait_line(&format!("Server l/s9 is stopping, {reason}. "));
        syslog.wait_line("Server l/s12 is DOWN via l/s8. ");
    }
    balancer.settle();
}

#[test]
fn a_backend_may_have_a_file_of_its_own() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let drained = "2 8 1 1 60 1 0 2 0 0";
    for (file, backend) in [("l", "l"), ("other", "m"), ("unused", "n")] {
        state_file(&dir, file, backend, &[("s", drained)]);
    }
    // The lines of other backends are none of its business.
    let text = std::fs::read_to_string(dir.path().join("l")).unwrap();
    dir.write("l", &format!("{text}{}", line("o", "s", drained)));
    let source = "load-server-state-from-file";
    let server = "server s 127.0.0.1:1";
    let body = format!(
        "backend l\n    {source} local\n    {server}\n\
         backend m\n    {source} local\n    server-state-file-name other\n    {server}\n\
         backend n\n    server-state-file-name unused\n    {server}\n\
         backend o\n    {source} local\n    server-state-file-name {}\n    {server}\n\
         backend p\n    {source} global\n    {server}\n",
        dir.path().join("l").display()
    );
    let base = dir.path().display();
    let balancer = Setup::new(body)
        .global(format!("server-state-base {base}"))
        .start();
    let stat = balancer.stat();
    for (backend, expected) in [
        ("l", "DRAIN"),
        ("m", "DRAIN"),
        ("n", "no check"),
        ("o", "DRAIN"),
        ("p", "no check"),
    ] {
        assert_eq!(stat.text(backend, "s", "status"), expected, "{backend}");
    }
    let warning = "backend 'p' configured to load server state file from global section \
                   'server-state-file' directive. Unfortunately, 'server-state-file' is not set!";
    let stderr = balancer.stderr();
    assert!(stderr.contains(warning), "{stderr}");
}

#[test]
fn what_cant_be_read_costs_nothing_else() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let good = line("l", "s2", "2 8 1 1 60 1 0 2 0 0");
    let bad = line("l", "s1", "2 8 x 1 60 1 0 2 0 0");
    let short = if is_tidegate() { "2 l 1 s1\n" } else { "" };
    let file = dir.write("state", &format!("{HEADER}{bad}{good}{short}"));
    let body = "backend l\n    load-server-state-from-file global\n    \
                server s1 127.0.0.1:1\n    server s2 127.0.0.1:1\n\
                backend m\n    load-server-state-from-file local\n    server s 127.0.0.1:1\n\
                backend n\n    load-server-state-from-file local\n    \
                server-state-file-name wrong\n    server s 127.0.0.1:1\n";
    dir.write("wrong", "2\n");
    let balancer = Setup::new(body)
        .global(format!("server-state-file {}", file.display()))
        .global(format!("server-state-base {}", dir.path().display()))
        .start();
    assert_eq!(status(&balancer, "s1"), "no check");
    assert_eq!(status(&balancer, "s2"), "DRAIN");
    let stderr = balancer.stderr();
    let (place, base) = (file.display(), dir.path().display());
    let mut wanted = vec![
        "server-state application failed for server 'l/s1', invalid srv_uweight value 'x'".into(),
        format!("Proxy 'm': Can't open server state file '{base}/m': No such file or directory"),
    ];
    if is_tidegate() {
        wanted.push(format!(
            "parsing [{place}:3] : server-state application failed"
        ));
        wanted.push(format!(
            "parsing [{place}:5] : corrupted: it has 4 of at least 20 words"
        ));
        wanted.push(format!(
            "Proxy 'n': Can't get version of the server state file '{base}/wrong'."
        ));
    }
    for text in wanted {
        assert!(stderr.contains(&text), "{text}\n{stderr}");
    }
}

/// HAProxy writes, both read.
#[test]
fn haproxys_own_file_is_understood_as_it_understands_it() {
    let _turn = turn::shared();
    if skip("it would be compared with itself") {
        return;
    }
    let Some([haproxy]) = programs(["haproxy"]) else {
        return;
    };
    let dir = TempDir::new();
    let socket = dir.path().join("socket");
    let file = dir.path().join("state");
    let port = free_port();
    let (alive, dead) = (MockServer::echo(), free_port());
    // Whether the first check has come or not, the servers are what they are told to be.
    let passes = format!("check {NEVER} rise 3 port {}", alive.address().port());
    let fails = format!("check {NEVER} fall 9");
    let body = |port: u16| {
        format!(
            "listen l\n    bind 127.0.0.1:{port}\n    load-server-state-from-file global\n    \
             balance roundrobin\n    default-server weight 10\n    server s1 127.0.0.1:{dead}\n    \
             server s2 127.0.0.1:{dead} disabled\n    server s3 127.0.0.1:{dead} {passes}\n    \
             server s4 127.0.0.1:{dead} {passes}\n    server s5 127.0.0.1:{dead} {fails}\n    \
             server s6 127.0.0.1:{dead}\n    server s7 127.0.0.1:{dead} disabled\n    \
             server s8 127.0.0.1:{dead} {passes}\n"
        )
    };
    let config = dir.write(
        "haproxy.cfg",
        &format!(
            "global\n    stats socket {} level admin\n    server-state-file {}\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    \
             timeout server 30s\n{}",
            socket.display(),
            file.display(),
            body(port)
        ),
    );
    let start = || {
        let mut command = Command::new(&haproxy);
        command.arg("-db").arg("-f").arg(&config);
        Service::start(&mut command, port, Signal::SIGTERM)
    };
    let ask = |command: &str| ask_at(&socket, command);
    let first = start();
    for command in [
        "set server l/s1 weight 50%",
        "set server l/s2 state ready",
        "set server l/s3 state drain",
        "set server l/s4 health down",
        "set server l/s5 health stopping",
        "set server l/s6 state maint",
        "disable health l/s8",
    ] {
        assert_eq!(ask(command).trim(), "", "{command}");
    }
    let state = ask("show servers state l");
    drop(first);
    std::fs::write(&file, state).unwrap();
    let second = start();
    let theirs = states(&ask("show stat"));
    drop(second);
    let balancer = Setup::new(body(free_port()))
        .global(format!("server-state-file {}", file.display()))
        .start();
    let ours = states(&balancer.stats("show stat"));
    assert_eq!(ours, theirs);
    let settled: Vec<&str> = theirs.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(
        settled,
        [
            "no check", "no check", "DRAIN", "DOWN", "NOLB", "MAINT", "MAINT", "no check"
        ]
    );
}

/// Status, without how far it is from another, and weight of each server.
fn states(stat: &str) -> Vec<(String, String)> {
    let servers = stat.lines().filter(|line| line.starts_with("l,s"));
    let state = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let status = cells[17].split(' ').next().unwrap_or_default();
        let status = if status == "no" { cells[17] } else { status };
        (status.to_owned(), cells[18].to_owned())
    };
    servers.map(state).collect()
}
