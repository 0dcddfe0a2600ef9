//! Servers that come and go in numbers, and what reloads make of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::reload::{Long, change, change_to};
use crate::runtime_servers_change::{ADDED, DELETED, ask, has, tell};
use crate::runtime_set::ask_at;
use crate::support::balancer::Setup;
use crate::support::client::{ask_name, connect_port, local};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, skip, turn};

const EXISTS: &str = "Already exists a server with the same name in backend.";

#[test]
fn a_reload_has_the_servers_of_the_files() {
    let _turn = turn::shared();
    if skip("it has no reload in place") {
        return;
    }
    let servers = [(); 3].map(|()| MockServer::echo());
    let [a, b, c] = servers.each_ref().map(MockServer::address);
    let port = free_port();
    let listen = format!("listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n");
    let body = format!("{listen}    server a {a}\n    server b {b}\n");
    let balancer = Balancer::start(body.as_str());
    tell(&balancer, "disable server l/a; del server l/a", DELETED);
    tell(&balancer, &format!("add server l/n {c} enabled"), ADDED);
    tell(
        &balancer,
        &format!("add server l/k {c} weight 3 enabled"),
        ADDED,
    );
    tell(&balancer, "set weight l/k 2", "");
    let mut longs: Vec<Long> = (0..8).map(|seed| Long::begin(port, seed)).collect();
    let served = balancer.stat().number("l", "k", "stot");
    assert!(served > 0 && servers[2].accepted() > served);
    // Edits are no reloads.
    assert_eq!(ask(&balancer, "show reload"), "There was no reload yet.");
    let answer = change(&balancer, &format!("{body}    server k {c} weight 3\n"));
    let back = "server l/a was deleted by a command and is in the files: it is back";
    let gone = "server l/n was added by a command and is not in the files: it is removed";
    assert!(answer.contains(back) && answer.contains(gone), "{answer}");
    longs.iter_mut().for_each(Long::go_on);
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "n", "status"), "DRAIN (removed)");
    assert_eq!(stat.number("l", "a", "stot"), 0, "it is another one");
    // One that the files have too by now is the same server.
    let kept = (
        stat.number("l", "k", "stot"),
        stat.number("l", "k", "weight"),
    );
    assert_eq!(kept, (served, 2));
    longs.extend((8..16).map(|seed| Long::begin(port, seed)));
    longs.iter_mut().for_each(Long::go_on);
    assert!(servers[0].accepted() > 0);
    drop(longs);
    eventually("the one that went is gone", || !has(&balancer, "l,n"));
    let answer = change(&balancer, &format!("{body}    server k {c} weight 3\n"));
    assert!(!answer.contains("by a command"), "{answer}");
    balancer.settle();
}

#[test]
fn an_edit_leaves_everything_else_as_the_last_reload_has_it() {
    let _turn = turn::shared();
    if skip("it has no reload in place") {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let body = |more: &str| {
        let address = server.address();
        format!("listen l\n    bind 127.0.0.1:{port}\n{more}    server s1 {address}\n")
    };
    let described = |balancer: &Balancer| {
        let info = balancer.stats("show info");
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("description: "));
        line.unwrap_or_default().to_owned()
    };
    let balancer = Setup::new(body(""))
        .shards(2)
        .global("description one")
        .start();
    assert_eq!(described(&balancer), "one");
    // Part of it is put in force, and part of it needs a restart.
    let next = Setup::new(body("    maxconn 7\n")).shards(3);
    let answer = change_to(&balancer, &next.global("description two\nmaxconn 50"));
    assert!(answer.contains("global keeps its old nbthread"), "{answer}");
    let looks = || {
        let stat = balancer.stat();
        (
            described(&balancer),
            balancer.info("Maxconn"),
            stat.number("l", "FRONTEND", "slim"),
        )
    };
    assert_eq!(looks(), ("two".to_owned(), 50, 7));
    tell(
        &balancer,
        "set maxconn frontend l 5; set maxconn global 40",
        "",
    );
    let address = server.address();
    tell(
        &balancer,
        &format!("add server l/n {address} enabled"),
        ADDED,
    );
    assert_eq!(looks(), ("two".to_owned(), 40, 5));
    tell(&balancer, "disable server l/n; del server l/n", DELETED);
    assert_eq!(looks(), ("two".to_owned(), 40, 5));
    // What needs a restart is said again, and nothing else.
    let answer = balancer.stats("reload");
    assert!(answer.contains("global keeps its old nbthread"), "{answer}");
    assert!(answer.contains("nothing has changed"), "{answer}");
    assert_eq!(looks(), ("two".to_owned(), 40, 5));
    balancer.settle();
}

#[test]
fn a_hundred_servers_come_and_go_and_leave_nothing() {
    let _turn = turn::shared();
    if skip("it takes what it has deleted along for a while") {
        return;
    }
    let (one, two, port) = (MockServer::echo(), MockServer::named("n"), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance leastconn\n    server s1 {}\n",
        one.address()
    ));
    let mut long = Long::begin(port, 1);
    let cycle = |number: u64| {
        let add = format!(
            "add server l/n{} {} check inter 1h",
            number % 3,
            two.address()
        );
        tell(&balancer, &add, ADDED);
        let name = format!("l/n{}", number % 3);
        tell(
            &balancer,
            &format!("enable health {name}; enable server {name}"),
            "",
        );
        // The other one has the stream.
        assert_eq!(ask_name(local(port)).as_deref(), Ok("n"));
        tell(&balancer, &format!("disable server {name}"), "");
        let ended = ask(&balancer, &format!("wait 60s srv-removable {name}"));
        assert_eq!(ended, "Done.");
        tell(&balancer, &format!("del server {name}"), DELETED);
    };
    (0..10).for_each(cycle);
    long.go_on();
    let memory = balancer.resident_kib();
    (10..110).for_each(cycle);
    long.go_on();
    // A server alone has 100 KiB of histograms and counters.
    let more = balancer.resident_kib().saturating_sub(memory);
    assert!(more < 5_000, "{more} KiB more");
    assert_eq!(balancer.stats("show servers state l").lines().count(), 4);
    drop(long);
    // Which looks at the descriptors.
    balancer.settle();
}

#[test]
fn fifty_clients_add_and_delete_at_once() {
    let _turn = turn::shared();
    if skip("it has no condition to wait for") {
        return;
    }
    let (one, two, port) = (MockServer::echo(), MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    server s1 {}\n",
        one.address()
    ));
    let mut long = Long::begin(port, 1);
    let (path, address) = (balancer.stats_path(), two.address());
    let (done, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seed = 100;
            while !done.load(SeqCst) {
                seed += 1;
                Long::begin(port, seed);
                served.fetch_add(1, SeqCst);
            }
        });
        let client = |number: usize| {
            for name in [format!("l/n{number}"), "l/same".to_owned()] {
                let added = ask_at(path, &format!("add server {name} {address} enabled"));
                let is_ours = added.trim() == ADDED;
                assert!(
                    is_ours || (name == "l/same" && added.trim() == EXISTS),
                    "{added}"
                );
                if !is_ours {
                    continue;
                }
                let deleted = ask_at(
                    path,
                    &format!(
                        "disable server {name}; wait 60s \
                         srv-removable {name}; del server {name}"
                    ),
                );
                assert!(
                    deleted.ends_with(&format!("{DELETED}\n\n")),
                    "{name}: {deleted}"
                );
            }
        };
        let clients: Vec<_> = (0..50)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, SeqCst);
        assert!(results.iter().all(Result::is_ok));
    });
    long.go_on();
    let state = balancer.stats("show servers state l");
    assert_eq!(state.lines().count(), 4, "{state}");
    drop((long, connect_port(port)));
    balancer.settle();
}

/// Commands and reloads wait for one another, and whatever they meet in which order, streams go on
/// and the files have the last word.
#[test]
fn edits_and_reloads_at_once() {
    let _turn = turn::shared();
    if skip("it has no reload in place") {
        return;
    }
    let (one, two, port) = (MockServer::echo(), MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance leastconn\n    server s1 {}\n    server \
         s2 {}\n",
        one.address(),
        one.address()
    ));
    let mut longs: Vec<Long> = (0..4).map(|seed| Long::begin(port, seed)).collect();
    let (path, done) = (balancer.stats_path(), AtomicBool::new(false));
    let ports = [&one, &two].map(|server| server.address().port());
    let repeat = |commands: &dyn Fn(usize) -> String, fits: &dyn Fn(&str) -> bool| {
        for turn in 0..25 {
            let (command, answer) = (commands(turn), ask_at(path, &commands(turn)));
            assert!(fits(&answer), "{command}: {answer}");
        }
    };
    std::thread::scope(|scope| {
        let streams = scope.spawn(|| {
            let mut seed = 100;
            while !done.load(SeqCst) {
                seed += 1;
                Long::begin(port, seed);
                longs.iter_mut().for_each(Long::go_on);
            }
        });
        let reloads = || {
            repeat(&|_| "reload".to_owned(), &|answer| {
                answer.starts_with("Success=1")
            })
        };
        let moves = || {
            let to =
                |turn: usize| format!("set server l/s1 addr 127.0.0.1 port {}", ports[turn % 2]);
            repeat(&to, &|answer| answer.contains("no need to change the addr"));
        };
        let comes = || {
            let add = |_| format!("add server l/n {} enabled", two.address());
            repeat(&add, &|answer| [ADDED, EXISTS].contains(&answer.trim()));
        };
        let goes = || {
            let delete = |_| "disable server l/n; del server l/n".to_owned();
            // It may not be there, have streams, or be put back into the place in between.
            let fits = |answer: &str| {
                let parts = [
                    DELETED,
                    "No such server.",
                    "still has connections",
                    "in maintenance",
                ];
                parts.iter().any(|part| answer.contains(part))
            };
            repeat(&delete, &fits);
        };
        let threads = [
            scope.spawn(reloads),
            scope.spawn(moves),
            scope.spawn(comes),
            scope.spawn(goes),
        ];
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, SeqCst);
        assert!(results.iter().all(Result::is_ok) && streams.join().is_ok());
    });
    longs.iter_mut().for_each(Long::go_on);
    drop(longs);
    assert!(balancer.stats("reload").starts_with("Success=1"));
    eventually("the servers are those of the file", || {
        balancer.stats("show servers state l").lines().count() == 5
    });
    balancer.settle();
}
