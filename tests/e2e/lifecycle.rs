//! Starting, checking a config, draining, stopping, and the exit codes.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, TempDir, run};
use crate::support::client::{self, End, connect_port, local, read_bytes, read_end, write};
use crate::support::port::{free_port, listeners_on};
use crate::support::{Balancer, MockServer, Stopwatch, eventually, skip, turn};

const VALID: &str = "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1s\n    \
                     timeout server 1s\n";

/// Exit code and all output of `-c` on a config.
fn check(text: &str) -> (Option<i32>, String) {
    let dir = TempDir::new();
    let path = dir.write("test.cfg", text);
    let (code, stdout, stderr) = run(&["-c", "-f", path.to_str().unwrap()]);
    (code, stdout + &stderr)
}

#[test]
fn check_says_0_for_a_valid_config() {
    let _turn = turn::shared();
    let port = free_port();
    let text =
        format!("{VALID}listen l\n    bind 127.0.0.1:{port}\n    server s 127.0.0.1:{port}1\n");
    let text = text.replace(&format!("{port}1"), &free_port().to_string());
    let (code, output) = check(&text);
    assert_eq!(code, Some(0), "{output}");
}

#[test]
fn check_says_1_for_an_error_and_names_every_place() {
    let _turn = turn::shared();
    let text =
        format!("{VALID}listen l\n    bind 127.0.0.1:1\n    sevrer s 127.0.0.1:2\n    balanse x\n");
    let (code, output) = check(&text);
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("test.cfg:8]") && output.contains("test.cfg:9]"),
        "{output}"
    );
    assert!(
        output.contains("unknown keyword 'sevrer' in 'listen' section"),
        "{output}"
    );
    assert!(output.contains("did you mean 'server'"), "{output}");
}

#[test]
fn check_says_2_without_a_listener() {
    let _turn = turn::shared();
    let (code, output) = check(&format!("{VALID}backend b\n    server s 127.0.0.1:2\n"));
    assert_eq!(code, Some(2), "{output}");
    assert!(output.contains("no listener"), "{output}");
}

/// A runtime socket is a listener, so that a distribution's file without proxies is fine.
#[test]
fn check_says_0_with_a_runtime_socket_alone() {
    let _turn = turn::shared();
    let (code, output) = check("global\n    stats socket /run/none.sock level admin\n");
    assert_eq!(code, Some(0), "{output}");
}

/// A directory stands for its files, in the order of their names; what one sets holds in the next.
#[test]
fn a_directory_of_configs_is_read_as_one() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.path().to_str().unwrap();
    let (code, _, stderr) = run(&["-c", "-f", path]);
    assert_eq!(code, Some(1), "{stderr}");
    dir.write(
        "b.cfg",
        ".if streq(\"$FROM_A\",yes)\n.alert \"read second\"\n.endif\n",
    );
    dir.write("a.cfg", "global\n    setenv FROM_A yes\n");
    dir.write("c.txt", "nonsense\n");
    dir.write(".d.cfg", "nonsense\n");
    let (code, _, stderr) = run(&["-c", "-f", path]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("b.cfg:2]: 'read second'."), "{stderr}");
    assert!(!stderr.contains("nonsense"), "{stderr}");
}

#[test]
fn check_binds_nothing() {
    let _turn = turn::shared();
    let taken = MockServer::silent();
    let text = format!(
        "{VALID}listen l\n    bind {}\n    server s 127.0.0.1:2\n",
        taken.address()
    );
    assert_eq!(check(&text).0, Some(0));
}

#[test]
fn a_config_with_an_error_does_not_start() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.write("bad.cfg", "listen l\n    nonsense\n");
    let (code, _, stderr) = run(&["-f", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("bad.cfg:2]"), "{stderr}");
}

#[test]
fn started_twice_says_address_in_use() {
    let _turn = turn::shared();
    let port = free_port();
    let server = MockServer::echo();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body.as_str());
    // HAProxy lets a second process join its reuseport group; a foreign socket it does refuse.
    let body = if skip("it may be started twice on one port") {
        format!(
            "listen l\n    bind {}\n    server s 127.0.0.1:1\n",
            server.address()
        )
    } else {
        body
    };
    let dir = TempDir::new();
    let path = dir.write("twice.cfg", &Setup::new(body).text(dir.path()));
    let (code, _, stderr) = run(&["-f", path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.to_lowercase().contains("address already in use"),
        "{stderr}"
    );
    // The first one has noticed nothing.
    client::echo(&connect_port(port), b"still here");
    balancer.settle();
}

#[test]
fn a_server_that_is_the_own_listener_is_an_error() {
    let _turn = turn::shared();
    if skip("it starts and connects to itself") {
        return;
    }
    let port = free_port();
    let (code, output) = check(&format!(
        "{VALID}listen l\n    bind 127.0.0.1:{port}\n    server s 127.0.0.1:{port}\n"
    ));
    assert_eq!(code, Some(1), "{output}");
    let (code, output) = check(&format!(
        "{VALID}listen l\n    bind *:{port}\n    server s 127.0.0.1:{port}\n"
    ));
    assert_eq!(code, Some(1), "by way of the wildcard: {output}");
}

fn echo_balancer(global: &str) -> (Balancer, MockServer, u16) {
    let (server, port) = (MockServer::echo(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    (Setup::new(body).global(global).start(), server, port)
}

/// Ended by a signal's order: code 0, the shell's code for it, or (HAProxy) killed by it.
fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    status
        .code()
        .is_none_or(|code| code == 0 || code == 128 + signal as i32)
        && status.signal().is_none_or(|number| number == signal as i32)
}

#[test]
fn sigterm_ends_at_once() {
    let _turn = turn::shared();
    let (mut balancer, _server, port) = echo_balancer("");
    let client = connect_port(port);
    client::echo(&client, b"open");
    let watch = Stopwatch::start();
    balancer.signal(Signal::SIGTERM);
    let status = balancer.wait_exit(Duration::from_secs(5));
    watch.assert_within(0, 1_500, "end after SIGTERM");
    assert!(ended_by(status, Signal::SIGTERM), "{status}");
    assert_ne!(read_end(&client).1, End::None);
    assert_eq!(listeners_on(port), 0);
}

#[test]
fn sigint_ends_at_once() {
    let _turn = turn::shared();
    let (mut balancer, _server, port) = echo_balancer("");
    let client = connect_port(port);
    client::echo(&client, b"open");
    balancer.signal(Signal::SIGINT);
    let status = balancer.wait_exit(Duration::from_secs(2));
    assert!(ended_by(status, Signal::SIGINT), "{status}");
}

#[test]
fn sigusr1_drains_and_ends_with_0() {
    let _turn = turn::shared();
    let (mut balancer, _server, port) = echo_balancer("");
    let open: Vec<_> = (0..10).map(|_| connect_port(port)).collect();
    open.iter()
        .for_each(|client| client::echo(client, b"before"));
    balancer.signal(Signal::SIGUSR1);
    eventually("the listener is gone", || listeners_on(port) == 0);
    let refused = client::try_connect(local(port)).expect_err("new connections are refused");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    open.iter()
        .for_each(|client| client::echo(client, b"still served"));
    assert!(balancer.is_running());
    let watch = Stopwatch::start();
    drop(open);
    let status = balancer.wait_exit(Duration::from_secs(5));
    watch.assert_within(0, 2_000, "end after the last session");
    assert_eq!(status.code(), Some(0), "{}", balancer.stderr());
}

#[test]
fn an_idle_balancer_drains_at_once() {
    let _turn = turn::shared();
    let (mut balancer, _server, _port) = echo_balancer("");
    balancer.signal(Signal::SIGUSR1);
    assert_eq!(balancer.wait_exit(Duration::from_secs(3)).code(), Some(0));
}

/// Connections that were queued on the listener when the drain began are served, not reset.
#[test]
fn a_drain_loses_no_queued_connection() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let mut balancer = Setup::new(body).start();
    // Connects without a pause until refused; whoever got in must be served.
    let clients = std::thread::scope(|scope| {
        let connecting = scope.spawn(move || {
            let mut clients = Vec::new();
            while let Ok(client) = client::try_connect(local(port)) {
                clients.push(client);
                if clients.len() == 3_000 {
                    break;
                }
            }
            clients
        });
        eventually("connections come in", || server.accepted() > 100);
        balancer.signal(Signal::SIGUSR1);
        connecting.join().unwrap()
    });
    // A connection whose handshake ends while the listener closes is the kernel's to lose: one per
    // shard.
    let lost = clients.iter().filter(|client| !echoes(client)).count();
    let bound = if crate::support::is_tidegate() {
        2
    } else {
        clients.len()
    };
    assert!(lost <= bound, "{lost} of {} were lost", clients.len());
    drop(clients);
    assert_eq!(balancer.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

fn echoes(mut client: &std::net::TcpStream) -> bool {
    use std::io::{Read, Write};
    let mut answer = [0; 4];
    client.write_all(b"ping").is_ok()
        && client.read_exact(&mut answer).is_ok()
        && &answer == b"ping"
}

#[test]
fn hard_stop_after_bounds_a_drain() {
    let _turn = turn::shared();
    let (mut balancer, _server, port) = echo_balancer("hard-stop-after 700ms");
    let client = connect_port(port);
    client::echo(&client, b"before");
    let watch = Stopwatch::start();
    balancer.signal(Signal::SIGUSR1);
    balancer.wait_exit(Duration::from_secs(5));
    watch.assert_within(600, 2_500, "hard-stop-after");
    assert_ne!(read_end(&client).1, End::None);
}

#[test]
fn a_second_signal_ends_a_drain() {
    let _turn = turn::shared();
    let (mut balancer, _server, port) = echo_balancer("");
    let client = connect_port(port);
    client::echo(&client, b"before");
    balancer.signal(Signal::SIGUSR1);
    eventually("the listener is gone", || listeners_on(port) == 0);
    balancer.signal(Signal::SIGTERM);
    balancer.wait_exit(Duration::from_secs(2));
}

#[test]
fn a_drain_delivers_what_is_under_way() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let mut balancer = Balancer::start(body);
    let client = connect_port(port);
    write(&client, b"request");
    let end = server.next();
    assert_eq!(read_bytes(&end, 7), b"request");
    balancer.signal(Signal::SIGUSR1);
    eventually("the listener is gone", || listeners_on(port) == 0);
    write(&end, &[3; 100_000]);
    drop(end);
    assert_eq!(read_end(&client), (vec![3; 100_000], End::Fin));
    drop(client);
    assert_eq!(balancer.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn it_writes_its_pid_where_told() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.path().join("pid");
    let (balancer, _server, _port) = echo_balancer(&format!("pidfile {}", path.display()));
    // HAProxy writes the file only as a daemon.
    if !skip("it writes a pid file only as a daemon") {
        let text = std::fs::read_to_string(&path).expect("pid file");
        assert_eq!(text.trim(), balancer.pid().to_string());
    }
    balancer.settle();
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_numbers() {
    let _turn = turn::shared();
    if skip("how descriptors are budgeted") {
        return;
    }
    let (port, dir) = (free_port(), TempDir::new());
    let text = format!(
        "global\n    maxconn 10000000\n{VALID}listen l\n    bind 127.0.0.1:{port}\n    \
         server s 127.0.0.1:2\n"
    );
    let config = dir.write("large.cfg", &text);
    let (code, _, errors) = run(&["-f", config.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("maxconn 10000000 needs"), "{errors}");
    assert!(errors.contains("2 x 10000000 for sessions"), "{errors}");
    assert_eq!(listeners_on(port), 0);
}

#[test]
fn a_daemon_is_ready_when_its_starter_ends() {
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let text = format!(
        "{VALID}listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let config = dir.write("daemon.cfg", &text);
    let pid_path = dir.path().join("pid");
    let (config, pid_file) = (config.to_str().unwrap(), pid_path.to_str().unwrap());
    let (code, _, errors) = run(&["-D", "-f", config, "-p", pid_file]);
    assert_eq!(code, Some(0), "{errors}");
    let pid: i32 = std::fs::read_to_string(&pid_path)
        .expect("pid file")
        .trim()
        .parse()
        .expect("a pid");
    assert!(echoes(&connect_port(port)));
    // What can't start is known before the starter ends.
    let (code, _, errors) = run(&["-D", "-f", config]);
    if !skip("it can join its own port") {
        assert_eq!(code, Some(1), "{errors}");
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("the daemon is gone", || listeners_on(port) == 0);
}
