//! How clients of the runtime socket speak: prompts, payloads, levels, marks of severity, bounds.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::balancer::{Setup, TempDir};
use crate::support::client::local;
use crate::support::port::free_port;
use crate::support::runtime::{Runtime, exchange};
use crate::support::{Balancer, Stopwatch, skip, turn};

fn setup() -> Setup {
    let port = free_port();
    Setup::new(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 127.0.0.1:1\n"
    ))
}

/// A balancer with a second socket of these parameters.
fn with_socket(parameters: &str) -> (Balancer, PathBuf, TempDir) {
    let dir = TempDir::new();
    let path = dir.path().join("second");
    let line = format!("stats socket {} {parameters}", path.display());
    (setup().global(line).start(), path, dir)
}

#[test]
fn a_prompt_comes_after_every_answer() {
    let _turn = turn::shared();
    let balancer = setup().start();
    let mut client = Runtime::open(balancer.stats_path());
    assert_eq!(client.prompted("prompt"), "\n");
    assert_eq!(client.prompted("show cli level"), "admin\n\n");
    client.send("show cli level; show cli level\n");
    assert_eq!(client.until("> "), "admin\n\n> ");
    assert_eq!(client.until("> "), "admin\n\n> ");
    client.send("quit\n");
    assert_eq!(client.rest(), "");
    drop(client);
    balancer.settle();
}

#[test]
fn a_prompt_can_be_ended() {
    let _turn = turn::shared();
    let balancer = setup().start();
    let mut client = Runtime::open(balancer.stats_path());
    assert_eq!(client.prompted("prompt"), "\n");
    client.send("prompt; show cli level\n");
    client.end();
    assert_eq!(client.rest(), "\nadmin\n\n");
    drop(client);
    balancer.settle();
}

#[test]
fn a_connection_is_kept_without_a_prompt() {
    let _turn = turn::shared();
    if skip("2.6 has one mode") {
        return;
    }
    let balancer = setup().start();
    let mut client = Runtime::open(balancer.stats_path());
    client.send("prompt i\n");
    assert_eq!(client.until("\n"), "\n");
    for _ in 0..3 {
        client.send("show cli level\n");
        assert_eq!(client.until("\n\n"), "admin\n\n");
    }
    client.send("prompt n;show cli level\n");
    assert_eq!(client.rest(), "\nadmin\n\n");
    drop(client);
    balancer.settle();
}

#[test]
fn a_prompt_tells_how_long_the_process_runs() {
    let _turn = turn::shared();
    if skip("2.6 has one mode") {
        return;
    }
    let balancer = setup().start();
    let mut client = Runtime::open(balancer.stats_path());
    client.send("prompt p timed\n");
    let prompt = client.until("]> ");
    let time = prompt
        .strip_prefix("\n[")
        .and_then(|rest| rest.strip_suffix("]> "));
    let parts: Vec<u32> = time
        .unwrap_or_else(|| panic!("{prompt:?}"))
        .split(':')
        .map(|part| part.parse().unwrap())
        .collect();
    assert!(parts.len() == 4 && parts[0] == 0, "{prompt:?}");
    client.send("prompt timed\n");
    assert_eq!(client.until("> "), "\n> ");
    assert!(client.prompted("prompt help").contains("prompt timed"));
    assert!(client.prompted("prompt x").starts_with("Unknown mode."));
    drop(client);
    balancer.settle();
}

#[test]
fn a_payload_ends_with_an_empty_line() {
    let _turn = turn::shared();
    let balancer = setup().start();
    let path = balancer.stats_path();
    let answer = exchange(path, "show cli level <<\nshow info\nshow stat\n\n");
    assert_eq!(answer, "admin\n\n");
    let mut client = Runtime::open(path);
    assert_eq!(client.prompted("prompt"), "\n");
    client.send("show cli level <<\n");
    assert_eq!(client.until("+ "), "+ ");
    client.send("quit\n");
    assert_eq!(client.until("+ "), "+ ");
    assert_eq!(client.prompted(""), "admin\n\n");
    drop(client);
    balancer.settle();
}

#[test]
fn a_payload_may_end_with_a_mark() {
    let _turn = turn::shared();
    if skip("2.6 has no marks") {
        return;
    }
    let balancer = setup().start();
    let path = balancer.stats_path();
    let answer = exchange(path, "show cli level <<END\nshow info\n\nEND \nEND\n");
    assert_eq!(answer, "admin\n\n");
    // A client that is cut off within a payload is told so, and its command is not carried out.
    let mut client = Runtime::open(path);
    client.send("show cli level <<END\nshow info\n");
    client.end();
    assert_eq!(client.rest(), "The payload has no end.\n\n");
    let long = format!("show cli level <<{}\n", "x".repeat(65));
    assert_eq!(
        exchange(path, long),
        "The mark that ends the payload is too long.\n\n"
    );
    drop(client);
    balancer.settle();
}

/// What goes beyond a bound is answered, also to a client that has sent much more.
#[test]
fn lines_and_payloads_are_bounded() {
    let _turn = turn::shared();
    if skip("its bounds are its own") {
        return;
    }
    let balancer = setup().start();
    let path = balancer.stats_path();
    let most = format!("show cli level{}\n", " ".repeat(16 * 1024 - 14));
    assert_eq!(exchange(path, most), "admin\n\n");
    let line = vec![b'x'; 20_000];
    assert_eq!(exchange(path, line), "Command line is too long.\n\n");
    let payload = |lines: usize| format!("show cli level <<\n{}\n", "0123456\n".repeat(lines));
    assert_eq!(exchange(path, payload(128 * 128 - 1)), "admin\n\n");
    assert_eq!(
        exchange(path, payload(128 * 128 + 1)),
        "The payload is too long.\n\n"
    );
    balancer.settle();
}

#[test]
fn what_follows_the_first_line_takes_no_answer_away() {
    let _turn = turn::shared();
    if skip("2.6 serves all lines that come at once") {
        return;
    }
    let balancer = setup().start();
    for _ in 0..20 {
        let answer = exchange(
            balancer.stats_path(),
            "show cli level\nshow info\nshow stat\n",
        );
        assert_eq!(answer, "admin\n\n");
    }
    balancer.settle();
}

#[test]
fn a_level_is_lowered_and_never_raised() {
    let _turn = turn::shared();
    let balancer = setup().start();
    let mut client = Runtime::open(balancer.stats_path());
    client.prompted("prompt");
    for (line, answer) in [
        ("operator", "\n"),
        ("show cli level", "operator\n\n"),
        ("user", "\n"),
        ("show cli level", "user\n\n"),
        ("operator", "Permission denied\n\n"),
        ("show env", "Permission denied\n\n"),
        ("user", "\n"),
    ] {
        assert_eq!(client.prompted(line), answer, "{line}");
    }
    drop(client);
    balancer.settle();
}

#[test]
fn messages_are_marked_as_the_socket_or_the_client_asks() {
    let _turn = turn::shared();
    let (balancer, path, _dir) = with_socket("level user severity-output string");
    assert_eq!(exchange(&path, "show cli level\n"), "[info]: user\n\n");
    assert_eq!(
        exchange(&path, "show env\n"),
        "[err]: Permission denied\n\n"
    );
    assert!(exchange(&path, "show stat\n").starts_with("# pxname,"));
    let mut client = Runtime::open(balancer.stats_path());
    client.prompted("prompt");
    for (line, answer) in [
        ("show cli level", "admin\n\n"),
        ("set severity-output number", "\n"),
        ("show cli level", "[6]: admin\n\n"),
        (
            "set severity-output",
            "[3]: one of 'none', 'number', 'string' is a required argument\n\n",
        ),
        ("set severity-output none", "\n"),
        ("show cli level", "admin\n\n"),
    ] {
        assert_eq!(client.prompted(line), answer, "{line}");
    }
    drop(client);
    balancer.settle();
}

/// The file of a socket says who may use it.
#[test]
fn the_file_of_a_socket_has_its_mode_and_owner() {
    let _turn = turn::shared();
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("NOT TESTED: giving a file to somebody needs root");
        return;
    }
    let words = "mode 620 uid 65533 gid 65532 level user";
    let (balancer, path, _dir) = with_socket(words);
    let file = path.metadata().expect("the socket's file");
    let owner = (file.uid(), file.gid(), file.mode() & 0o777);
    assert_eq!(owner, (65533, 65532, 0o620));
    assert_eq!(exchange(&path, "show cli level\n"), "user\n\n");
    balancer.settle();
}

#[test]
fn an_idle_connection_is_ended_when_its_time_is_over() {
    let _turn = turn::shared();
    let balancer = setup().global("stats timeout 5m").start();
    let mut client = Runtime::open(balancer.stats_path());
    client.prompted("prompt");
    for (line, answer) in [
        ("set timeout cli", "Expects an integer value.\n\n"),
        ("set timeout cli x", "Invalid timeout value.\n\n"),
        ("set timeout cli 0", "Invalid timeout value.\n\n"),
        ("set timeout", "'set timeout' only supports 'cli'.\n\n"),
    ] {
        assert_eq!(client.prompted(line), answer, "{line}");
    }
    assert_eq!(client.prompted("set timeout cli 1"), "\n");
    let watch = Stopwatch::start();
    assert_eq!(client.rest(), "");
    assert!(
        watch.elapsed() >= Duration::from_millis(900),
        "{:?}",
        watch.elapsed()
    );
    drop(client);
    balancer.settle();
}

/// Above `stats maxconn` clients wait for one that leaves.
#[test]
fn clients_above_the_bound_wait_for_their_turn() {
    let _turn = turn::shared();
    let balancer = setup()
        .global("stats maxconn 2")
        .global("stats timeout 5m")
        .start();
    let path = balancer.stats_path();
    let mut held: Vec<Runtime> = (0..2).map(|_| Runtime::open(path)).collect();
    for client in &mut held {
        client.prompted("prompt");
    }
    let mut waiting: Vec<Runtime> = (0..3).map(|_| Runtime::open(path)).collect();
    for client in &mut waiting {
        client.send("show cli level\n");
    }
    for client in &mut held {
        assert_eq!(client.prompted("show cli level"), "admin\n\n");
    }
    drop(held);
    for client in &mut waiting {
        assert_eq!(client.rest(), "admin\n\n");
    }
    balancer.settle();
}

#[test]
fn fifty_clients_are_served_at_once() {
    let _turn = turn::shared();
    let balancer = setup().global("stats maxconn 100").start();
    let path = balancer.stats_path();
    let mut clients: Vec<Runtime> = (0..50).map(|_| Runtime::open(path)).collect();
    for client in &mut clients {
        client.prompted("prompt");
    }
    for round in 0..4 {
        for client in &mut clients {
            client.send("show cli level;show stat\n");
        }
        for client in &mut clients {
            assert_eq!(client.until("> "), "admin\n\n> ", "{round}");
            let table = client.until("> ");
            assert!(table.starts_with("# pxname,") && table.ends_with("\n\n> "));
        }
    }
    drop(clients);
    balancer.settle();
}

#[test]
fn a_socket_may_be_of_tcp() {
    let _turn = turn::shared();
    let port = free_port();
    let line = format!("stats socket ipv4@127.0.0.1:{port} level operator");
    let balancer = setup().global(line).start();
    let mut socket = TcpStream::connect(local(port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
        .write_all(b"show cli level; show cli sockets\nshow info\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let stats = balancer.stats_path().display();
    let sockets = format!(
        "# socket lvl processes\nunix@{stats} admin all\nipv4@127.0.0.1:{port} operator all\n\n"
    );
    assert!(
        answer.starts_with(&format!("operator\n\n{sockets}")),
        "{answer}"
    );
    balancer.settle();
}

/// `fd@0`, as a supervisor would pass one; HAProxy reads its standard input as ours does.
#[test]
fn a_socket_may_be_inherited() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.path().join("inherited");
    let listener = UnixListener::bind(&path).unwrap();
    let balancer = setup()
        .stdin(listener.into())
        .global("stats socket fd@0 level user")
        .start();
    assert_eq!(exchange(&path, "show cli level\n"), "user\n\n");
    balancer.settle();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let balancer = setup()
        .stdin(listener.into())
        .global("stats socket fd@0 level user")
        .start();
    let mut socket = TcpStream::connect(local(port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket.write_all(b"show cli level\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "user\n\n");
    balancer.settle();
}
