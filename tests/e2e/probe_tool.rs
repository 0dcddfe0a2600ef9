//! `tidegate probe`: what it counts of attempts at a balancer whose servers are known, and how it
//! ends.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::spread::named;
use crate::support::balancer::TempDir;
use crate::support::control::{Outcome, program, run};
use crate::support::datagram::DatagramServer;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, skip, turn, wait_for};

/// A test at a port, with a timeout that a busy machine keeps.
fn probe(test: &[&str], port: u16, more: &str) -> Outcome {
    let target = format!("127.0.0.1:{port}");
    let mut words = vec!["probe"];
    words.extend(test);
    words.extend(["--target", &target, "--timeout", "30s"]);
    words.extend(more.split_whitespace());
    run(&words)
}

fn listen(lines: &str) -> (Balancer, u16) {
    let port = free_port();
    let body = format!("listen web\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}");
    (Balancer::start(body), port)
}

#[test]
fn success_is_counted_with_a_dead_server_and_without_any() {
    let _turn = turn::shared();
    let (mut servers, lines) = named(&["", ""]);
    servers[1].stop();
    let (balancer, port) = listen(&format!("    retries 0\n{lines}"));
    let half = probe(
        &["load"],
        port,
        "--connections 20 --expect-success 51 --json",
    );
    assert_eq!(half.code, Some(1), "{half:?}");
    let value = half.json();
    let counts = ["attempts", "succeeded", "failed"].map(|name| value[name].as_u64());
    assert_eq!(counts, [Some(20), Some(10), Some(10)], "{value}");
    assert_eq!(value["expectations"][0]["met"], false);
    let reasons = value["failures"].as_object().unwrap();
    assert_eq!(reasons.values().filter_map(Value::as_u64).sum::<u64>(), 10);
    assert_eq!(value["servers"][0]["name"], "s1");
    assert_eq!(balancer.stat().number("web", "s1", "stot"), 10);
    let met = probe(&["load"], port, "--connections 20 --expect-success 50");
    assert_eq!(met.code, Some(0), "{met:?}");
    for part in [
        "load: 20 attempts at 127.0.0.1:",
        "  succeeded  10 (50.000%)\n",
        ": met\n",
    ] {
        assert!(met.out.contains(part), "{part}: {met:?}");
    }
    servers[0].stop();
    let none = probe(&["load"], port, "--connections 4");
    assert_eq!(none.code, Some(2), "{none:?}");
    balancer.settle();
    // Nobody listens at all.
    let refused = probe(&["load"], free_port(), "--connections 3 --json");
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert_eq!(refused.json()["failures"]["refused"], 3);
}

#[test]
fn servers_are_counted_by_what_they_answer() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "", ""]);
    let (balancer, port) = listen(&lines);
    let more = "--connections 99 --expect-servers 3 --expect-even 0 --expect-success 100 --json";
    let even = probe(&["distribution"], port, more);
    assert_eq!(even.code, Some(0), "{even:?}");
    let value = even.json();
    let servers = value["servers"].as_array().unwrap();
    let counts: Vec<(&str, u64)> = servers
        .iter()
        .map(|server| {
            (
                server["name"].as_str().unwrap(),
                server["answers"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(counts, [("s1", 33), ("s2", 33), ("s3", 33)]);
    for latency in ["connect_us", "answer_us"] {
        let at = |quantile: &str| value[latency][quantile].as_u64().unwrap();
        assert!(at("p50") <= at("p99") && at("p99") <= at("max"), "{value}");
    }
    // By their first letter they are one.
    let more = "--connections 9 --identify bytes:1 --expect-servers 3 --json";
    let one = probe(&["distribution"], port, more);
    assert_eq!(
        (one.code, one.json()["servers"][0]["name"].as_str()),
        (Some(1), Some("s"))
    );
    balancer.settle();

    let (_servers, lines) = named(&["weight 3", "weight 1"]);
    let (balancer, port) = listen(&lines);
    let uneven = probe(
        &["distribution"],
        port,
        "--connections 40 --expect-even 49%",
    );
    assert_eq!(uneven.code, Some(1), "{uneven:?}");
    for part in [
        "s1  30  75.0%\n",
        "s2  10  25.0%\n",
        "off by 50.0%: NOT MET",
    ] {
        assert!(uneven.out.contains(part), "{part}: {uneven:?}");
    }
    balancer.settle();
}

#[test]
fn a_payload_is_sent_before_an_answer_is_waited_for() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (balancer, port) = listen(&format!("    server s {}\n", server.address()));
    let text = probe(
        &["load"],
        port,
        r"--connections 5 --payload text:12\x41\r\n --json",
    );
    assert_eq!(text.json()["servers"][0]["name"], "12A", "{text:?}");
    let bytes = probe(
        &["load"],
        port,
        "--connections 5 --payload 100 --identify bytes:27 --json",
    );
    assert_eq!(
        bytes.json()["servers"][0]["name"],
        "abcdefghijklmnopqrstuvwxyza",
        "{bytes:?}"
    );
    balancer.settle();
}

#[test]
fn connections_are_open_at_the_same_time() {
    let _turn = turn::shared();
    const COUNT: u64 = 200;
    let (open, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let at_most = Arc::clone(&most);
    let server = MockServer::start(move |mut stream| {
        at_most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
        if stream.write_all(b"here\n").is_ok() {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        open.fetch_sub(1, SeqCst);
    });
    let (balancer, port) = listen(&format!("    server s {}\n", server.address()));
    let more = format!("--connections {COUNT} --hold 1ms --expect-success 100 --json");
    let held = probe(&["concurrent"], port, &more);
    assert_eq!(held.code, Some(0), "{held:?}");
    let value = held.json();
    assert_eq!(
        (
            value["held"]["most"].as_u64(),
            value["held"]["reset"].as_u64()
        ),
        (Some(COUNT), Some(0))
    );
    assert_eq!((most.load(SeqCst), server.accepted()), (COUNT, COUNT));
    balancer.settle();
}

#[test]
fn stress_lasts_its_time_and_a_rate_is_kept_to() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&[""]);
    let (balancer, port) = listen(&lines);
    let stress = probe(&["stress", "1"], port, "--json");
    let value = stress.json();
    assert_eq!(stress.code, Some(0), "{stress:?}");
    assert!(value["took_s"].as_f64().unwrap() >= 1.0 && value["succeeded"].as_u64() > Some(0));
    let rate = probe(&["load"], port, "--connections 21 --rate 100 --json").json();
    // The last one's turn is 0.2 s after the first one's.
    assert!(rate["took_s"].as_f64().unwrap() >= 0.2, "{rate}");
    assert_eq!(rate["attempts"], 21);
    balancer.settle();
}

/// A probe that runs while the test goes on; ended when dropped.
struct Running(Child);

impl Running {
    fn start(words: &[&str]) -> Running {
        let mut command = Command::new(program());
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Running(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// Interrupts it and reads its result.
    fn interrupt(mut self) -> (Option<i32>, Value) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let mut text = String::new();
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let status = self.0.wait().unwrap();
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        (status.code(), value)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_file(path: &Path) {
    let there = wait_for(Duration::from_secs(30), || path.exists().then_some(()));
    assert!(there.is_some(), "the command has not run");
}

/// Starts a failover of a day whose command says that it has run.
fn fail_over(port: u16, dir: &TempDir, more: &[&str]) -> Running {
    let (target, mark) = (format!("127.0.0.1:{port}"), dir.path().join("mark"));
    let command = format!("touch {}", mark.display());
    let mut words = vec!["probe", "failover", "86400", "--json", "--timeout", "30s"];
    words.extend([
        "--target",
        &target,
        "--after",
        "100ms",
        "--command",
        &command,
    ]);
    words.extend(more);
    let running = Running::start(&words);
    wait_file(&mark);
    running
}

/// Waits until a number of the balancer's table has grown by `more`.
fn wait_more(balancer: &Balancer, server: &str, column: &str, more: u64) {
    let number = || balancer.stat().number("web", server, column);
    let before = number();
    let grown = wait_for(Duration::from_secs(30), || {
        (number() >= before + more).then_some(())
    });
    assert!(
        grown.is_some(),
        "{server} {column} has not grown from {before} by {more}"
    );
}

#[test]
fn a_failover_tells_the_gap_that_clients_see() {
    let _turn = turn::shared();
    let (mut servers, lines) = named(&[""]);
    let (balancer, port) = listen(&format!("    retries 0\n{lines}"));
    let dir = TempDir::new();
    let running = fail_over(port, &dir, &["--expect-gap", "1ms"]);
    wait_more(&balancer, "s1", "stot", 5);
    servers[0].stop();
    wait_more(&balancer, "s1", "econ", 10);
    servers[0].restart();
    wait_more(&balancer, "s1", "lbtot", 10);
    let answered = servers[0].accepted();
    let more = wait_for(Duration::from_secs(30), || {
        (servers[0].accepted() > answered).then_some(())
    });
    assert!(more.is_some(), "it is not back");
    let (code, value) = running.interrupt();
    // Attempts are 10 ms apart: a gap of one is impossible.
    assert_eq!(code, Some(1), "{value}");
    assert_eq!(value["interrupted"], true);
    assert!(value["failed"].as_u64() >= Some(10), "{value}");
    let failover = &value["failover"];
    assert_eq!(failover["command"], "ended with 0");
    let failing = failover["failing"]["to_s"].as_f64().unwrap();
    assert!(failing <= value["took_s"].as_f64().unwrap(), "{value}");
    assert!(failover["gap"]["ms"].as_u64() > Some(1), "{value}");
    assert_eq!(value["servers"][0]["name"], "s1");
    balancer.settle();
}

#[test]
fn a_failover_without_a_loss_is_one_without_a_failure() {
    let _turn = turn::shared();
    let (mut servers, lines) = named(&["", ""]);
    let options = "    retries 3\n    option redispatch 1\n";
    let (balancer, port) = listen(&format!("{options}{lines}"));
    let dir = TempDir::new();
    let running = fail_over(
        port,
        &dir,
        &["--expect-success", "100", "--expect-servers", "2"],
    );
    for server in ["s1", "s2"] {
        wait_more(&balancer, server, "stot", 2);
    }
    servers[1].stop_gracefully();
    wait_more(&balancer, "s2", "wredis", 3);
    let (code, value) = running.interrupt();
    assert_eq!(
        (code, value["failed"].as_u64()),
        (Some(0), Some(0)),
        "{value}"
    );
    assert_eq!(value["failover"]["failing"], Value::Null);
    balancer.settle();
}

#[test]
fn all_of_it_is_a_list_of_tests() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", ""]);
    let (balancer, port) = listen(&lines);
    let all = probe(
        &["all", "1"],
        port,
        "--connections 8 --hold 1ms --expect-success 100 --json",
    );
    assert_eq!(all.code, Some(0), "{all:?}");
    let value = all.json();
    let tests: Vec<&str> = value["tests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| test["test"].as_str().unwrap())
        .collect();
    assert_eq!(tests, ["load", "distribution", "concurrent", "stress"]);
    assert_eq!(value["tests"][2]["held"]["most"], 8);
    balancer.settle();
}

#[test]
fn datagrams_are_attempts_too() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let servers = ["a", "b"].map(DatagramServer::named);
    let port = free_port();
    let lines: String = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("    server s{index} {}\n", server.address()))
        .collect();
    let balancer = Balancer::start(format!(
        "listen u\n    mode udp\n    balance roundrobin\n    bind udp@127.0.0.1:{port}\n    \
         timeout udp 3s\n{lines}"
    ));
    let even = probe(
        &["distribution"],
        port,
        "--udp --connections 20 --concurrency 2 --expect-servers 2 --expect-even 0 --json",
    );
    assert_eq!(even.code, Some(0), "{even:?}");
    assert!(even.json()["connect_us"].is_null());
    balancer.settle();

    let silent = DatagramServer::silent();
    let target = silent.address().to_string();
    let lost = run(&[
        "probe",
        "load",
        "--target",
        &target,
        "--udp",
        "--connections",
        "2",
        "--timeout",
        "10ms",
        "--json",
    ]);
    assert_eq!(
        (lost.code, lost.json()["failures"]["timeout"].as_u64()),
        (Some(2), Some(2))
    );
}

#[test]
fn what_cannot_be_tested_is_refused() {
    let _turn = turn::shared();
    for (words, says) in [
        (&["load"][..], "--target"),
        (&["frobnicate", "--target", "h:1"], "invalid value"),
        (&["load", "--target", "127.0.0.1"], "is no HOST:PORT"),
        (
            &["distribution", "--target", "h:1", "--identify", "none"],
            "nothing is known",
        ),
        (&["load", "5", "--target", "h:1"], "seconds are for"),
        (
            &["load", "--target", "h:1", "--command", "true"],
            "--command is for failover",
        ),
        (
            &["load", "--target", "h:1", "--expect-gap", "1s"],
            "--expect-gap is for failover",
        ),
        (
            &["load", "--target", "h:1", "--expect-success", "101"],
            "0 to 100",
        ),
    ] {
        let outcome = run(&[&["probe"], words].concat());
        assert_eq!(
            (outcome.code, outcome.out.as_str()),
            (Some(3), ""),
            "{outcome:?}"
        );
        assert!(outcome.err.contains(says), "{says}: {outcome:?}");
    }
    // More at a time than there are descriptors.
    let script = "ulimit -n 64; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(program())
        .args(["probe", "concurrent", "--target", "127.0.0.1:1", "--json"])
        .output()
        .unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), value["code"].as_u64()),
        (Some(3), Some(3))
    );
    let why = value["error"].as_str().unwrap();
    assert!(
        why.contains("need 132 descriptors, and 64 is the limit"),
        "{why}"
    );
}
