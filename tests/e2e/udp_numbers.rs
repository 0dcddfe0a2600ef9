//! What the runtime socket says of datagrams: flows where sessions are, datagrams behind HAProxy's
//! columns, buffers and drops of listeners.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, TempDir, program};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{MockServer, eventually, skip, turn};

#[test]
fn flows_are_where_sessions_are() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let servers = [DatagramServer::echo(), DatagramServer::echo()];
    let (port, of_streams, stream) = (free_port(), free_port(), MockServer::hold());
    let balancer = Setup::new(format!(
        "frontend f\n    mode udp\n    bind 127.0.0.1:{port}\n    timeout udp 8s\n    \
         maxconn 50\n    default_backend b\n\
         backend b\n    mode udp\n    balance roundrobin\n    \
         server s0 {}\n    server s1 {}\n\
         listen t\n    bind 127.0.0.1:{of_streams}\n    server s {}\n",
        servers[0].address(),
        servers[1].address(),
        stream.address(),
    ))
    .shards(2)
    .start();
    let target = ([127, 0, 0, 1], port).into();
    let clients: Vec<_> = (0..6).map(|n| DatagramClient::new(target, n)).collect();
    for client in &clients {
        client.exchange(1, 100);
        client.exchange(2, 200);
    }
    let columns = |flows: u64| {
        [
            ("scur", flows),
            ("smax", flows),
            ("stot", flows),
            ("udp_datagrams_in", 2 * flows),
            ("udp_datagrams_out", 2 * flows),
            ("bin", 300 * flows),
            ("bout", 300 * flows),
        ]
    };
    for (proxy, row, flows) in [("f", "FRONTEND", 6), ("b", "BACKEND", 6), ("b", "s0", 3)] {
        for (column, expected) in columns(flows) {
            // What has left is counted after that. The peak of a backend is looked at once a
            // second.
            eventually(&format!("{row} {column} is {expected}"), || {
                balancer.stat().number(proxy, row, column) == expected
            });
        }
        assert_eq!(balancer.stat().text(proxy, row, "mode"), "udp");
    }
    let stat = balancer.stat();
    assert_eq!(stat.number("f", "FRONTEND", "slim"), 50);
    assert_eq!(stat.number("b", "BACKEND", "lbtot"), 6);
    for row in ["FRONTEND", "s", "BACKEND"] {
        assert_eq!(stat.text("t", row, "udp_datagrams_in"), "", "{row}");
        assert_eq!(stat.text("t", row, "mode"), "tcp");
    }
    // Flows are streams; connections that 'maxconn' bounds they are not.
    for (name, expected) in [("CurrStreams", 6), ("CumReq", 6), ("CurrConns", 0)] {
        assert_eq!(balancer.info(name), expected, "{name}");
    }
    balancer.settle();
    let stat = balancer.stat();
    for (proxy, row, flows) in [("f", "FRONTEND", 6), ("b", "BACKEND", 6), ("b", "s1", 3)] {
        assert_eq!(stat.number(proxy, row, "scur"), 0, "{row}");
        assert_eq!(stat.number(proxy, row, "stot"), flows, "{row}");
    }
    assert_eq!(balancer.info("CurrStreams"), 0);
}

#[test]
fn what_a_listener_can_not_hold_is_dropped_and_shown() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    const BUFFER: u64 = 200_000;
    let (server, port) = (DatagramServer::silent(), free_port());
    let balancer = Setup::new(format!(
        "listen u\n    mode udp\n    bind 127.0.0.1:{port} name dns\n    timeout udp 2s\n    \
         server s {}\n",
        server.address()
    ))
    .global_of_ours(&format!("tune.udp.rcvbuf {BUFFER}"))
    .shards(1)
    .start();
    let line = || {
        let text = balancer.stats("show listeners");
        let line = text.lines().find(|line| line.starts_with("u "));
        let words = line.expect("a line").split_whitespace();
        words.map(str::to_owned).collect::<Vec<String>>()
    };
    let quiet = line();
    assert_eq!(quiet[1..5], ["1", "dns", "1", "1"]);
    assert_eq!(quiet[8], format!("udp@127.0.0.1:{port}"));
    assert_eq!((quiet[5].as_str(), quiet[7].as_str()), ("0", "0"));
    // The kernel doubles what it is asked for.
    assert_eq!(quiet[6], (2 * BUFFER).to_string());
    let client = DatagramClient::new(([127, 0, 0, 1], port).into(), 1);
    balancer.signal(Signal::SIGSTOP);
    for number in 0..1_000 {
        client.send_payload(number, 1_000);
    }
    balancer.signal(Signal::SIGCONT);
    let drops = || line()[7].parse::<u64>().expect("a number");
    eventually("drops are shown", || drops() > 0);
    let activity = || balancer.activity().number("datagrams_overflowed");
    eventually("drops are counted", || activity() == Some(drops()));
    let number = |name: &str| balancer.activity().number(name);
    eventually("the others are counted", || {
        number("datagrams_from_clients").is_some_and(|came| came + drops() == 1_000)
    });
    assert_eq!(number("accept_dropped"), Some(0));
    balancer.settle();
}

/// Without the right to go past the system's bound: what to set is said, and it serves.
#[test]
fn a_receive_buffer_that_can_not_be_had_is_warned_of() {
    const NOBODY: u32 = 65_534;
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let bound = std::fs::read_to_string("/proc/sys/net/core/rmem_max").expect("a bound");
    let bound: u64 = bound.trim().parse().expect("a number");
    let dir = TempDir::new();
    let port = free_port();
    let config = format!(
        "global\n    tune.udp.rcvbuf {}\nlisten u\n    mode udp\n    bind 127.0.0.1:{port}\n    \
         server s 127.0.0.1:9\n",
        bound + 1
    );
    let config = dir.write("a.cfg", &config);
    let mut command = Command::new(program());
    command.arg("-f").arg(config).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return eprintln!("left out: {} as nobody: {error}", program().display()),
    };
    let stderr = BufReader::new(child.stderr.take().expect("its messages"));
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let lines = stderr.lines().map_while(Result::ok);
        lines.for_each(|line| drop(tell.send(line)));
    });
    let patience = Duration::from_secs(30);
    let mut lines = std::iter::from_fn(|| told.recv_timeout(patience).ok());
    let warning = lines.find(|line| line.contains("Proxy 'u'"));
    let still_runs = child.try_wait().expect("wait").is_none();
    child.kill().expect("end it");
    child.wait().expect("wait");
    let warning = warning.expect("a warning");
    let wanted = format!("is {bound} bytes, not {}", bound + 1);
    let remedy = format!("sysctl -w net.core.rmem_max={}", bound + 1);
    assert!(still_runs && warning.contains(&wanted), "{warning}");
    assert!(warning.contains(&remedy), "{warning}");
}
