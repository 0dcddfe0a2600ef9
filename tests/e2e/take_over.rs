//! One process in place of another: `-sf`, `-st`, `-x`.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, TempDir, program, run};
use crate::support::client::{self, End, connect_port, local, read_end};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Stopwatch, eventually, skip, turn, wait_for};

fn setup(server: &MockServer, port: u16) -> Setup {
    let line = format!("server s {}", server.address());
    Setup::new(format!(
        "listen l\n    bind 127.0.0.1:{port} backlog 64\n    {line}\n"
    ))
}

/// Whether a client was served: a byte sent comes back.
fn is_served(mut client: &TcpStream) -> bool {
    use std::io::{Read, Write};
    let mut answer = [0; 4];
    client.write_all(b"ping").is_ok()
        && client.read_exact(&mut answer).is_ok()
        && &answer == b"ping"
}

/// Connects without a pause while `during` runs; gives how many were served and how many not.
fn under_load<T>(port: u16, during: impl FnOnce() -> T) -> (T, usize, usize) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut served, mut lost) = (0, 0);
            while !stop.load(Relaxed) {
                match client::try_connect(local(port)) {
                    Ok(client) if is_served(&client) => served += 1,
                    Ok(_) | Err(_) => lost += 1,
                }
            }
            (served, lost)
        });
        let result = during();
        stop.store(true, Relaxed);
        let (served, lost) = load.join().unwrap();
        (result, served, lost)
    })
}

#[test]
fn a_successor_ends_its_predecessor_softly() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let mut old = setup(&server, port).start();
    let client = connect_port(port);
    client::echo(&client, b"before");
    let (new, served, lost) = under_load(port, || {
        let pid = old.pid().to_string();
        let new = setup(&server, port).arguments(&["-sf", &pid]).start();
        eventually("the old one has stopped listening", || {
            old.stderr().contains("stopped")
        });
        new
    });
    // A connection whose handshake ends while a listener closes is the kernel's to lose: one per
    // shard. `-x` exists for that.
    assert!(lost <= 2, "{lost} lost, {served} served");
    assert!(served > 0);
    // Its sessions go on, and it ends with the last.
    client::echo(&client, b"after");
    assert!(old.is_running());
    drop(client);
    assert_eq!(old.wait_exit(Duration::from_secs(5)).code(), Some(0));
    client::echo(&connect_port(port), b"by the new one");
    new.settle();
}

#[test]
fn a_successor_ends_its_predecessor_at_once() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let mut old = setup(&server, port).start();
    let client = connect_port(port);
    client::echo(&client, b"before");
    let pid = old.pid().to_string();
    let new = setup(&server, port).arguments(&["-st", &pid]).start();
    old.wait_exit(Duration::from_secs(5));
    assert_ne!(read_end(&client).1, End::None);
    client::echo(&connect_port(port), b"by the new one");
    new.settle();
}

/// The number in a stale pid file may have become our own.
#[test]
fn a_process_does_not_end_itself() {
    let _turn = turn::shared();
    if skip("it takes what it is told") {
        return;
    }
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let config = dir.write("a.cfg", &setup(&server, port).text(dir.path()));
    let script = "exec \"$0\" -f \"$1\" -sf $$";
    let mut child = std::process::Command::new("sh")
        .args(["-c", script])
        .args([program(), config])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let answers = || std::os::unix::net::UnixStream::connect(dir.path().join("stats")).is_ok();
    eventually("it is ready", answers);
    // It has no sessions: it would end at once.
    let ended = wait_for(Duration::from_millis(300), || child.try_wait().unwrap());
    assert_eq!(ended, None);
    assert!(client::try_connect(local(port)).is_ok_and(|client| is_served(&client)));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_successor_replaces_the_runtime_socket() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let mut old = setup(&server, port).start();
    let path = old.stats_path().display().to_string();
    let pid = old.pid().to_string();
    let new = setup(&server, port)
        .global(format!("stats socket {path} level admin"))
        .arguments(&["-sf", &pid])
        .start();
    old.wait_exit(Duration::from_secs(5));
    // The old one has not taken the new one's file with it.
    let answer = old.ask("show info").expect("an answer");
    let line = format!("\nPid: {}\n", new.pid());
    assert!(answer.contains(&line), "{answer}");
    new.settle();
}

/// A process that hands its sockets out, with no room for a second client.
fn exposing(server: &MockServer, port: u16, dir: &TempDir) -> (Balancer, String) {
    let path = dir.path().join("exposed").display().to_string();
    let line = format!("stats socket {path} level admin expose-fd listeners");
    let setup = setup(server, port).global(line).global("maxconn 1");
    (setup.start(), path)
}

/// Those for whom the old one has no room don't wait for its sessions to end.
#[test]
fn a_full_predecessor_leaves_its_queue_to_the_successor() {
    if skip("its old process closes its sockets as they are") {
        return;
    }
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let (mut old, path) = exposing(&server, port, &dir);
    let first = connect_port(port);
    client::echo(&first, b"the only one");
    let queued: Vec<TcpStream> = (0..8).map(|_| connect_port(port)).collect();
    let pid = old.pid().to_string();
    let new = setup(&server, port)
        .arguments(&["-x", &path, "-sf", &pid])
        .start();
    let parked = usize::try_from(old.activity().number("parked").unwrap()).unwrap();
    assert!(
        parked <= 2,
        "{parked} taken by the old one, one per shard at most"
    );
    let parked_clients: usize = queued
        .iter()
        .map(|client| {
            client
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            usize::from(!is_served(client))
        })
        .sum();
    assert_eq!(parked_clients, parked);
    client::echo(&first, b"still there");
    drop((first, queued));
    assert_eq!(old.wait_exit(Duration::from_secs(5)).code(), Some(0));
    new.settle();
}

/// The successor lets nobody in before its servers were checked, one of which takes its time.
#[test]
fn a_predecessor_serves_until_its_successor_has_checked_its_servers() {
    let _turn = turn::shared();
    if skip("it checks while it serves") {
        return;
    }
    let (server, hole, port) = (MockServer::echo(), MockServer::black_hole(), free_port());
    let dir = TempDir::new();
    let path = dir.path().join("exposed").display().to_string();
    let line = format!("stats socket {path} level admin expose-fd listeners");
    let mut old = setup(&server, port).global(line).start();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} backlog 64\n    balance roundrobin\n    \
         server s {} check\n    server hole {} check inter 300\n",
        server.address(),
        hole.address()
    );
    let pid = old.pid().to_string();
    let watch = Stopwatch::start();
    let (new, served, lost) = under_load(port, || {
        let new = Setup::new(body)
            .arguments(&["-x", &path, "-sf", &pid])
            .start();
        eventually("the old one has ended", || !old.is_running());
        new
    });
    watch.assert_within(300, 10_000, "to check");
    assert_eq!(lost, 0, "{served} served");
    assert!(served > 20, "{served} served");
    let stat = new.stat();
    assert_eq!(stat.number("l", "hole", "econ"), 0);
    assert_eq!(stat.number("l", "hole", "lbtot"), 0);
    new.settle();
}

#[test]
fn clients_in_the_queue_are_served_by_the_successor() {
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let (mut old, path) = exposing(&server, port, &dir);
    let first = connect_port(port);
    client::echo(&first, b"the only one");
    // The old one may have taken one per shard before it saw its limit; the others are queued.
    let queued: Vec<TcpStream> = (0..8).map(|_| connect_port(port)).collect();
    let pid = old.pid().to_string();
    let new = setup(&server, port)
        .arguments(&["-x", &path, "-sf", &pid])
        .start();
    client::echo(&first, b"still there");
    drop(first);
    let served = std::thread::scope(|scope| {
        let served = |client: TcpStream| scope.spawn(move || is_served(&client));
        let waiting: Vec<_> = queued.into_iter().map(served).collect();
        let served = waiting.into_iter().map(|thread| thread.join().unwrap());
        served.filter(|served| *served).count()
    });
    assert_eq!(served, 8);
    assert_eq!(old.wait_exit(Duration::from_secs(5)).code(), Some(0));
    // Nobody has connected since it started.
    assert!(new.stat().number("l", "FRONTEND", "stot") > 0);
    new.settle();
}

#[test]
fn a_successor_that_takes_the_sockets_loses_no_client() {
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let path = dir.path().join("exposed").display().to_string();
    let line = format!("stats socket {path} level admin expose-fd listeners");
    let mut old = setup(&server, port).global(line).start();
    let (new, served, lost) = under_load(port, || {
        let pid = old.pid().to_string();
        let new = setup(&server, port)
            .arguments(&["-x", &path, "-sf", &pid])
            .start();
        old.wait_exit(Duration::from_secs(10));
        new
    });
    assert_eq!(lost, 0, "{served} served");
    assert!(served > 0);
    client::echo(&connect_port(port), b"by the new one");
    new.settle();
}

/// The sockets that a process has open, by their inodes.
fn sockets_of(balancer: &Balancer) -> BTreeSet<PathBuf> {
    let path = format!("/proc/{}/fd", balancer.pid());
    let entries = std::fs::read_dir(path).expect("its descriptors");
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let is_socket = |target: &PathBuf| target.to_string_lossy().starts_with("socket:");
    targets.filter(is_socket).collect()
}

#[test]
fn more_sockets_than_a_message_holds_are_taken() {
    let _turn = turn::shared();
    if skip("its workers are other processes") {
        return;
    }
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let addresses = (1..=70).map(|host| format!("127.0.9.{host}:{port}"));
    let body = format!(
        "listen l\n    bind {}\n    server s {}\n",
        addresses.collect::<Vec<_>>().join(","),
        server.address()
    );
    let path = dir.path().join("exposed").display().to_string();
    let line = format!("stats socket {path} level admin expose-fd listeners");
    let old = Setup::new(body.clone()).global(line).start();
    let new = Setup::new(body).arguments(&["-x", &path]).start();
    let both = sockets_of(&old).intersection(&sockets_of(&new)).count();
    // Two shards.
    assert_eq!(both, 2 * 70);
    let last = std::net::SocketAddr::from(([127, 0, 9, 70], port));
    client::echo(&client::connect(last), b"served");
    new.settle();
}

/// An abstract name can be bound by one process only: without `-x` there is no way to share it.
#[test]
fn an_abstract_name_is_taken_over() {
    use std::os::linux::net::SocketAddrExt;
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let name = format!("tidegate-test-{}-{port}", std::process::id());
    let line = format!("server s {}", server.address());
    let body = format!("listen l\n    bind abns@{name}\n    {line}\n");
    let path = dir.path().join("exposed").display().to_string();
    let exposed = format!("stats socket {path} level admin expose-fd listeners");
    let mut old = Setup::new(body.clone()).global(exposed).start();
    let pid = old.pid().to_string();
    let new = Setup::new(body)
        .arguments(&["-x", &path, "-sf", &pid])
        .start();
    assert_eq!(old.wait_exit(Duration::from_secs(5)).code(), Some(0));
    // HAProxy's names fill the whole address.
    let name = format!("{name:\0<107}");
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let mut client = std::os::unix::net::UnixStream::connect_addr(&address).unwrap();
    let mut answer = [0; 4];
    std::io::Write::write_all(&mut client, b"ping").unwrap();
    std::io::Read::read_exact(&mut client, &mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    drop(client);
    new.settle();
}

#[test]
fn an_old_process_that_is_not_there_ends_a_start_but_not_a_worker() {
    let _turn = turn::shared();
    let (server, port, dir) = (MockServer::echo(), free_port(), TempDir::new());
    let text = setup(&server, port).text(dir.path());
    let config = dir.write("a.cfg", &text);
    let nobody = dir.path().join("nobody").display().to_string();
    let (code, _, errors) = run(&["-f", config.to_str().unwrap(), "-x", &nobody]);
    assert_eq!(code, Some(1), "{errors}");
    let told = "Failed to connect to the old process socket";
    assert!(errors.contains(told), "{errors}");
    let mut balancer = setup(&server, port)
        .arguments(&["-W", "-x", &nobody])
        .start();
    client::echo(&connect_port(port), b"served");
    assert!(balancer.stderr().contains(told), "{}", balancer.stderr());
    balancer.signal(Signal::SIGTERM);
    balancer.wait_exit(Duration::from_secs(5));
}

#[test]
fn sockets_are_handed_out_only_where_the_file_says_so() {
    let _turn = turn::shared();
    if skip("its answer is its own") {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let old = setup(&server, port).start();
    let answer = old.stats("_getsocks");
    assert!(
        answer.starts_with("Unknown command: '_getsocks'"),
        "{answer}"
    );
    let (other, dir) = (free_port(), TempDir::new());
    let config = dir.write("a.cfg", &setup(&server, other).text(dir.path()));
    let path = old.stats_path().display().to_string();
    let (code, _, errors) = run(&["-f", config.to_str().unwrap(), "-x", &path]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("expose-fd listeners"), "{errors}");
    old.settle();
}
