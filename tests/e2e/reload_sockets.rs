//! Runtime sockets over a reload, and what is told of reloads: metrics, files that can't be read.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::metrics::exporter;
use crate::reload::{change, change_to, reload, rewrite};
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{connect_port, echo, write};
use crate::support::http::Samples;
use crate::support::port::{free_port, listeners_on};
use crate::support::runtime::{Runtime, exchange};
use crate::support::{Balancer, MockServer, eventually, is_tidegate, turn, wait_for};

fn listen(server: &MockServer, port: u16) -> String {
    format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    )
}

fn beside(balancer: &Balancer, name: &str) -> PathBuf {
    let dir = balancer.stats_path().parent().expect("a directory");
    dir.join(name)
}

fn level(path: &Path) -> String {
    exchange(path, "show cli level\n").trim().to_owned()
}

#[test]
fn runtime_sockets_come_change_and_go() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port, tcp) = (MockServer::echo(), free_port(), free_port());
    let body = listen(&server, port);
    let balancer = Balancer::start(body.as_str());
    let more = beside(&balancer, "more");
    let with = |words: &str| {
        Setup::new(body.as_str()).global(format!("stats socket {} {words}", more.display()))
    };
    let over_tcp = format!("stats socket ipv4@127.0.0.1:{tcp} level user");
    change_to(&balancer, &with("level operator").global(&over_tcp));
    assert_eq!(level(&more), "operator");
    let mut client = connect_port(tcp);
    write(&client, b"show cli level\n");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer.trim(), "user");
    let shown = balancer.stats("show cli sockets");
    assert!(
        shown.contains(&format!("ipv4@127.0.0.1:{tcp} user")),
        "{shown}"
    );

    // What clients may do changes for those that come, and the file stays the same one.
    let file = || std::fs::metadata(&more).expect("the file of the socket");
    let before = file().ino();
    let mut held = Runtime::open(&more);
    assert_eq!(held.prompted("prompt"), "\n");
    change_to(&balancer, &with("level admin mode 600"));
    assert_eq!(
        (file().ino(), file().permissions().mode() & 0o777),
        (before, 0o600)
    );
    assert_eq!(level(&more), "admin");
    assert_eq!(held.prompted("show cli level").trim(), "operator");
    assert_eq!(listeners_on(tcp), 0);
    assert!(!balancer.stats("show cli sockets").contains("ipv4@"));

    // One that can't be bound changes nothing, and leaves nothing behind.
    let (other, taken) = (beside(&balancer, "other"), server.address().port());
    let setup = Setup::new(body.as_str())
        .global(format!("stats socket {}", other.display()))
        .global(format!("stats socket ipv4@127.0.0.1:{taken}"));
    rewrite(&balancer, &setup);
    let refused = exchange(&more, "reload\n");
    assert!(refused.starts_with("Success=0\n--\n"), "{refused}");
    let why = format!("cannot bind stats socket (Address already in use) for [127.0.0.1:{taken}]");
    assert!(refused.contains(&why), "{refused}");
    assert!(!other.exists() && level(&more) == "admin");

    // It goes by a command that came by it: that one is answered, and so is who is connected.
    rewrite(&balancer, &Setup::new(body.as_str()));
    let answer = exchange(&more, "reload\n");
    assert!(answer.starts_with("Success=1\n--\n"), "{answer}");
    assert!(!more.exists());
    assert!(UnixStream::connect(&more).is_err());
    assert_eq!(held.prompted("show cli level").trim(), "operator");
    held.send("quit\n");
    held.rest();
    echo(&connect_port(port), b"and traffic passes");
    balancer.settle();
}

/// Clients who wait in the queue of a runtime socket are answered before it is closed.
#[test]
fn the_queue_of_a_runtime_socket_is_emptied() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let body = listen(&server, port);
    let setup = || Setup::new(body.as_str()).global("stats maxconn 1");
    let balancer = setup().start();
    let more = beside(&balancer, "more");
    change_to(
        &balancer,
        &setup().global(format!("stats socket {}", more.display())),
    );
    // The only seat is taken, so that all others wait.
    let mut held = Runtime::open(&more);
    held.prompted("prompt");
    let mut queued: Vec<Runtime> = (0..20).map(|_| Runtime::open(&more)).collect();
    queued
        .iter_mut()
        .for_each(|client| client.send("show cli level\n"));
    rewrite(&balancer, &setup());
    balancer.signal(Signal::SIGHUP);
    eventually("the file is gone", || !more.exists());
    held.send("quit\n");
    held.rest();
    // Each of them goes then, so that the next one has its seat.
    for mut client in queued {
        assert_eq!(client.rest().trim(), "operator");
    }
    balancer.settle();
}

#[test]
fn the_bound_of_clients_goes_up_and_down() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let body = listen(&server, port);
    let setup = |clients: u32| Setup::new(body.as_str()).global(format!("stats maxconn {clients}"));
    let balancer = setup(2).start();
    let path = balancer.stats_path();
    let prompted = || {
        let mut client = Runtime::open(path);
        client.prompted("prompt");
        client
    };
    let reloads = |count: usize, clients| {
        rewrite(&balancer, &setup(clients));
        balancer.signal(Signal::SIGHUP);
        let done = format!("Reload {count} (SIGHUP): 1 object has changed");
        eventually("it is in force", || balancer.stderr().contains(&done));
    };
    let (first, second) = (prompted(), prompted());
    let mut third = Runtime::open(path);
    third.send("prompt; show cli level\n");
    reloads(1, 3);
    third.until("admin\n\n> ");
    // Nobody is sent away, and nobody comes while there are more than there may be.
    reloads(2, 1);
    drop((first, second));
    let mut fourth = Runtime::open(path);
    fourth.send("show cli level\n");
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let note = &answered;
        scope.spawn(move || {
            assert_eq!(fourth.rest().trim(), "admin");
            note.store(true, SeqCst);
        });
        let answered = || answered.load(SeqCst);
        let early = wait_for(Duration::from_millis(200), || answered().then_some(()));
        assert!(early.is_none(), "there was no room");
        assert_eq!(third.prompted("show cli level").trim(), "admin");
        drop(third);
        eventually("there is room", answered);
    });
    balancer.settle();
}

#[test]
fn reloads_are_counted() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port, metrics) = (MockServer::echo(), free_port(), free_port());
    let body = listen(&server, port) + &exporter(metrics);
    let balancer = Balancer::start(body.as_str());
    let reading = || {
        let samples = Samples::scrape(metrics, "?scope=global");
        [
            "tidegate_reloads_total{result=\"done\"}",
            "tidegate_reloads_total{result=\"failed\"}",
            "tidegate_last_reload_successful",
            "tidegate_last_reload_timestamp_seconds",
        ]
        .map(|name| samples.value(name))
    };
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("a time after 1970").as_secs_f64()
    };
    assert_eq!(reading(), [0.0, 0.0, 1.0, 0.0]);
    let before = now() - 1.0;
    reload(&balancer);
    let [done, failed, successful, at] = reading();
    assert_eq!([done, failed, successful], [1.0, 0.0, 1.0]);
    assert!((before..=now() + 1.0).contains(&at), "{at}");
    rewrite(&balancer, &Setup::new("listen l\n    bund\n"));
    reload(&balancer);
    reload(&balancer);
    assert_eq!(reading()[..3], [1.0, 2.0, 0.0]);
    change(&balancer, &body);
    assert_eq!(reading()[..3], [2.0, 2.0, 1.0]);
    balancer.settle();
}

#[test]
fn a_confined_process_says_that_it_cannot_read_its_files() {
    let _turn = turn::shared();
    if !is_tidegate() || !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root can confine");
        return;
    }
    let (jail, server, port) = (TempDir::new(), MockServer::echo(), free_port());
    let setup = Setup::new(listen(&server, port));
    let balancer = setup
        .global(format!("chroot {}", jail.path().display()))
        .start();
    let stream = connect_port(port);
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=0\n--\n"), "{answer}");
    let file = beside(&balancer, "balancer.cfg");
    let (file, why) = (file.display().to_string(), "No such file or directory");
    assert!(answer.contains(&file) && answer.contains(why), "{answer}");
    echo(&stream, b"it goes on");
    echo(&connect_port(port), b"as it was");
    drop(stream);
    balancer.settle();
}
