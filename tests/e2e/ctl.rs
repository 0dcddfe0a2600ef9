//! `tidegate ctl`: what it says of a balancer with and without its servers, and how it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::spread::{count_sequential, named};
use crate::support::balancer::Setup;
use crate::support::control::{Scripted, ctl, program, run};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, turn, wait_for};

/// A check whose first failure counts. The interval bounds its connect too: it is longer than any
/// thread of a busy machine is held up.
const CHECK: &str = "check inter 3s fall 1 rise 1";

/// A balancer with two servers that are checked and one that isn't.
fn balancer() -> (Balancer, Vec<MockServer>, u16) {
    let (servers, lines) = named(&[CHECK, CHECK, ""]);
    let port = free_port();
    let body = format!("listen web\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}");
    (Balancer::start(body), servers, port)
}

/// Waits until the balancer sees a server in a state.
fn wait_state(balancer: &Balancer, server: &str, state: &str) {
    let seen = wait_for(Duration::from_secs(30), || {
        (balancer.stat().text("web", server, "status") == state).then_some(())
    });
    assert!(seen.is_some(), "{server} is not {state}");
}

#[test]
fn check_says_whether_all_is_well() {
    let _turn = turn::shared();
    let (balancer, mut servers, _port) = balancer();
    let socket = balancer.stats_path();
    wait_state(&balancer, "s1", "UP");
    let well = ctl(socket, &["check"]);
    assert_eq!(well.code, Some(0), "{well:?}");
    let first = well.out.lines().next();
    assert_eq!(
        first,
        Some("OK: 3 of 3 servers up in 1 backend"),
        "{well:?}"
    );
    for row in ["backend web UP", "  s1  UP ", "  s3  no check  -"] {
        assert!(well.out.contains(row), "{row}: {well:?}");
    }

    servers[1].stop();
    wait_state(&balancer, "s2", "DOWN");
    let down = ctl(socket, &["check"]);
    assert_eq!(down.code, Some(1), "{down:?}");
    let first = down.out.lines().next().unwrap();
    let expected = "WARNING: 2 of 3 servers up in 1 backend; server web/s2 DOWN (L4CON, ";
    assert!(first.starts_with(expected), "{down:?}");
    let json = ctl(socket, &["check", "--json"]);
    assert_eq!(json.code, Some(1), "{json:?}");
    let value = json.json();
    assert_eq!(
        (value["verdict"].as_str(), value["code"].as_u64()),
        (Some("WARNING"), Some(1))
    );
    assert_eq!(value["findings"][0]["place"], "server web/s2");
    let states: Vec<&str> = value["backends"][0]["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| server["standing"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["up", "down", "up"]);
    assert_eq!(value["backends"][0]["servers"][1]["check"], "L4CON");

    // The environment says where the socket is, as well.
    let output = Command::new(program())
        .args(["ctl", "--timeout", "30s", "check"])
        .env("TIDEGATE_SOCKET", socket)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    balancer.settle();
}

#[test]
fn a_backend_without_servers_is_critical() {
    let _turn = turn::shared();
    let (mut servers, lines) = named(&[CHECK]);
    let port = free_port();
    let balancer = Balancer::start(format!("listen web\n    bind 127.0.0.1:{port}\n{lines}"));
    servers[0].stop();
    wait_state(&balancer, "s1", "DOWN");
    let none = ctl(balancer.stats_path(), &["check"]);
    assert_eq!(none.code, Some(2), "{none:?}");
    let expected = "CRITICAL: 0 of 1 server up in 1 backend; backend web its only server can't";
    assert!(none.out.starts_with(expected), "{none:?}");
    servers[0].restart();
    wait_state(&balancer, "s1", "UP");
    assert_eq!(ctl(balancer.stats_path(), &["check"]).code, Some(0));
    balancer.settle();
}

#[test]
fn details_and_load_have_the_numbers_of_show_stat() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = balancer();
    wait_state(&balancer, "s1", "UP");
    wait_state(&balancer, "s2", "UP");
    count_sequential(port, 9);
    balancer.settle();
    let socket = balancer.stats_path();
    let value = ctl(socket, &["--json", "detailed"]).json();
    assert_eq!(value["process"]["Pid"], balancer.pid());
    let web = &value["proxies"][0];
    let stat = balancer.stat();
    for (index, server) in ["s1", "s2", "s3"].into_iter().enumerate() {
        let told = &web["servers"][index];
        let number = |column| stat.number("web", server, column);
        assert_eq!(told["name"], server);
        assert_eq!(told["weight"], number("weight"));
        assert_eq!(told["traffic"]["sessions_total"], 3);
        assert_eq!(told["traffic"]["sessions_total"], number("stot"));
        assert_eq!(told["traffic"]["bytes_out"], number("bout"));
        assert_eq!(told["address"], stat.text("web", server, "addr"));
    }
    assert_eq!(web["frontend"]["traffic"]["sessions_total"], 9);
    assert_eq!(web["backend"]["traffic"]["sessions_total"], 9);
    let text = ctl(socket, &["detailed"]);
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        &format!("process {},", balancer.pid()),
        "frontends\n",
        "backend web (mode tcp)",
    ] {
        assert!(text.out.contains(part), "{part}: {text:?}");
    }

    let value = ctl(socket, &["load", "--json"]).json();
    let backend = &value["backends"][0];
    assert_eq!(backend["sessions"], 9);
    for server in backend["servers"].as_array().unwrap() {
        assert_eq!(server["sessions"], 3);
        assert_eq!(server["share_percent"], server["expected_percent"]);
    }
    let text = ctl(socket, &["load"]);
    assert!(text.out.contains("backend web: 9 sessions\n"), "{text:?}");
    assert!(text.out.contains("33.3%     33.3%    +0.0"), "{text:?}");
    balancer.settle();
}

/// The counters of a time are those after its first look.
#[test]
fn load_over_a_time_counts_what_came_meanwhile() {
    let _turn = turn::shared();
    let looks = std::sync::atomic::AtomicU32::new(0);
    let scripted = Scripted::start(move |_| {
        let look = u64::from(looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
        let total = [100 + look * 30, 100 + look * 10];
        stat(&[("s1", "UP", total[0]), ("s2", "UP", total[1])])
    });
    let over = ctl(&scripted.path(), &["load", "--over", "1ms", "--json"]);
    let servers = &over.json()["backends"][0]["servers"];
    assert_eq!(
        (
            servers[0]["sessions"].as_u64(),
            servers[1]["sessions"].as_u64()
        ),
        (Some(30), Some(10))
    );
    assert_eq!(
        scripted.asked(),
        ["show info;show stat", "show info;show stat"]
    );
}

/// A child whose lines are read; ended when dropped.
struct Watched(Child, BufReader<std::process::ChildStdout>);

impl Watched {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("a line");
        line
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn monitor_tells_what_changes_until_it_is_interrupted() {
    let _turn = turn::shared();
    let (balancer, mut servers, _port) = balancer();
    wait_state(&balancer, "s1", "UP");
    wait_state(&balancer, "s2", "UP");
    let mut child = Command::new(program())
        .args(["ctl", "--timeout", "30s", "--socket"])
        .arg(balancer.stats_path())
        .args(["monitor", "1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut monitor = Watched(child, out);
    let first = monitor.line();
    assert!(
        first.contains("  OK: 3 of 3 servers up in 1 backend"),
        "{first}"
    );
    servers[0].stop();
    // A line a second, or fewer: more than enough for a check to fail.
    let change = (0..60)
        .map(|_| monitor.line())
        .find(|line| line.starts_with("  web/s1: "));
    assert_eq!(change.as_deref(), Some("  web/s1: UP -> DOWN\n"));
    kill(
        Pid::from_raw(i32::try_from(monitor.0.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let status = wait_for(Duration::from_secs(30), || monitor.0.try_wait().unwrap());
    assert_eq!(status.expect("it goes on").code(), Some(1));

    let json = ctl(
        balancer.stats_path(),
        &["monitor", "1", "--count", "1", "--json"],
    );
    assert_eq!(
        (json.code, json.json()["code"].as_u64()),
        (Some(1), Some(1))
    );
    balancer.settle();
}

#[test]
fn commands_are_sent_as_they_are() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = balancer();
    let socket = balancer.stats_path();
    let info = ctl(socket, &["run", "show info"]);
    assert!(info.out.starts_with("Name: "), "{info:?}");
    assert_eq!(info.code, Some(0));
    let words = ctl(socket, &["run", "show", "stat", "web", "2", "-1"]);
    assert_eq!(words.out.lines().count(), 2, "{words:?}");
    let unknown = ctl(socket, &["run", "frobnicate"]);
    assert_eq!(unknown.code, Some(3), "{unknown:?}");
    let value = ctl(socket, &["--json", "run", "show", "info"]).json();
    assert_eq!(value["command"], "show info");
    assert!(value["answer"].as_str().unwrap().starts_with("Name: "));
    balancer.settle();
}

#[test]
fn what_cannot_be_told_is_unknown() {
    let _turn = turn::shared();
    let gone = ctl("/nowhere/stats".as_ref(), &["check"]);
    assert_eq!(gone.code, Some(3), "{gone:?}");
    assert!(
        gone.out
            .starts_with("UNKNOWN: cannot connect to /nowhere/stats: "),
        "{gone:?}"
    );
    let json = ctl("/nowhere/stats".as_ref(), &["check", "--json"]);
    assert_eq!(
        (json.code, json.json()["code"].as_u64()),
        (Some(3), Some(3))
    );
    for wrong in [
        &["ctl"][..],
        &["ctl", "frobnicate"],
        &["ctl", "weight", "b/s"],
        &["ctl", "monitor", "x"],
    ] {
        let outcome = run(wrong);
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        assert!(outcome.err.contains("--help"), "{outcome:?}");
    }
    let top = ctl("/nowhere/stats".as_ref(), &["top"]);
    assert_eq!(top.code, Some(3), "{top:?}");
    assert!(top.err.contains("needs a terminal"), "{top:?}");
}

/// Answers that are cut, strange or missing: nothing of them is believed.
#[test]
fn an_answer_that_is_not_whole_is_not_believed() {
    let _turn = turn::shared();
    let whole = stat(&[("s1", "UP", 1)]);
    for (answer, says) in [
        (whole[..whole.len() - 1].to_owned(), "is cut"),
        (
            whole[..whole.len() - 9].to_owned() + "\n\n",
            "cells where there are",
        ),
        (String::new(), "is cut"),
        (
            "Permission denied\n\n".to_owned(),
            "1 answers to 2 commands",
        ),
        (
            whole.replace("pxname,", "pyname,"),
            "there is no column pxname",
        ),
        ("a\n\nb\n\n".to_owned(), "no description of a process: a"),
    ] {
        let scripted = Scripted::start(move |_| answer.clone());
        let outcome = ctl(&scripted.path(), &["check"]);
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        assert!(outcome.out.contains(says), "{says}: {outcome:?}");
    }
}

/// An answer to `show info;show stat` with servers of a backend: name, status, sessions.
pub(crate) fn stat(servers: &[(&str, &str, u64)]) -> String {
    let head = "# pxname,svname,scur,stot,status,weight,act,bck,type,new_column,";
    let mut text = format!("Name: HAProxy\nPid: 7\n\n{head}\n");
    for (name, status, total) in servers {
        text.push_str(&format!(
            "web,{name},0,{total},{status},1,1,0,2,\"a,\"\"b\",\n"
        ));
    }
    text.push_str("web,BACKEND,0,0,UP,1,1,0,1,,\n\n");
    text
}

/// A busy socket of TCP is one, too.
#[test]
fn the_socket_may_be_one_of_tcp() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&[""]);
    let (port, api) = (free_port(), free_port());
    let balancer = Setup::new(format!("listen web\n    bind 127.0.0.1:{port}\n{lines}"))
        .global(format!("stats socket 127.0.0.1:{api}"))
        .start();
    let outcome = ctl(format!("127.0.0.1:{api}").as_ref(), &["check"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    balancer.settle();
}
