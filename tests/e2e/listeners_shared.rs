//! How many sockets a listener has, which shards accept from them, and where shards run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::support::balancer::{Balancer, Setup};
use crate::support::client::{self, connect_port, read_bytes, write};
use crate::support::port::{free_port, listeners_on};
use crate::support::{MockServer, StopOnDrop, eventually, skip, turn, wait_for};

fn one_listener(bind: &str, server: &MockServer) -> (String, u16) {
    let port = free_port();
    let server = server.address();
    (
        format!("listen l{port}\n    bind 127.0.0.1:{port} {bind}\n    server s {server}\n"),
        port,
    )
}

/// Open sessions of each shard.
fn sessions(balancer: &Balancer) -> Vec<u64> {
    balancer.activity().of_each_shard("sessions")
}

/// Opens connections, each of which is answered, and keeps them open.
fn hold(port: u16, count: usize) -> Vec<TcpStream> {
    let open = |index: usize| {
        let client = connect_port(port);
        client::echo(&client, &index.to_be_bytes());
        client
    };
    (0..count).map(open).collect()
}

#[test]
fn shards_says_how_many_sockets() {
    let _turn = turn::shared();
    if skip("HAProxy 2.6 has no 'by-group'") {
        return;
    }
    let server = MockServer::echo();
    let cases = [
        ("", 4),
        ("shards by-thread", 4),
        ("shards by-group", 1),
        ("shards 1", 1),
        ("shards 2", 2),
        ("shards 3", 3),
        ("shards 200", 4),
        ("thread 2", 1),
        ("thread 1-3", 3),
        ("thread odd shards by-thread", 2),
        ("thread 2-9 shards 2", 2),
    ];
    let mut body = String::new();
    let mut ports = Vec::new();
    for (bind, _) in cases {
        let (listener, port) = one_listener(bind, &server);
        body.push_str(&listener);
        ports.push(port);
    }
    let balancer = Setup::new(body).shards(4).start();
    for ((bind, expected), port) in cases.into_iter().zip(ports) {
        assert_eq!(listeners_on(port), expected, "{bind}");
        for _ in 0..8 {
            client::echo(&connect_port(port), b"each");
        }
    }
    balancer.settle();
}

#[test]
fn a_listener_is_served_by_its_threads_only() {
    let _turn = turn::shared();
    if skip("shows the sessions of each shard") {
        return;
    }
    let server = MockServer::echo();
    let (first, own) = one_listener("thread 1/2", &server);
    let (second, two) = one_listener("thread 1,4 shards 1", &server);
    let balancer = Setup::new(first + &second).shards(4).start();
    let clients = hold(own, 40);
    assert_eq!(sessions(&balancer), [0, 40, 0, 0]);
    drop(clients);
    balancer.settle();
    let clients = hold(two, 200);
    let each = sessions(&balancer);
    assert_eq!((each[1], each[2], each[0] + each[3]), (0, 0, 200));
    assert!(each[0] > 0 && each[3] > 0, "{each:?}");
    drop(clients);
    balancer.settle();
}

/// All shards accept from the one socket, a burst at once and one connection after the other, and
/// nobody is lost.
#[test]
fn a_shared_socket_serves_everybody_from_every_shard() {
    let _turn = turn::alone();
    for setting in ["noreuseport", "tune.listener.default-shards by-group"] {
        if setting.starts_with("tune") && skip("younger than the HAProxy of most systems") {
            return;
        }
        let server = MockServer::echo();
        let (body, port) = one_listener("backlog 4096", &server);
        let balancer = Setup::new(body).shards(4).global(setting).start();
        assert_eq!(listeners_on(port), 1, "{setting}");
        let mut clients = hold(port, 100);
        std::thread::scope(|scope| {
            let burst = || scope.spawn(|| hold(port, 100));
            let bursts: Vec<_> = (0..8).map(|_| burst()).collect();
            clients.extend(bursts.into_iter().flat_map(|burst| burst.join().unwrap()));
        });
        let each = sessions(&balancer);
        if !each.is_empty() {
            assert_eq!(each.iter().sum::<u64>(), 900);
            // An even share would be 225.
            assert!(each.iter().all(|count| *count >= 45), "{setting}: {each:?}");
        }
        drop(clients);
        balancer.settle();
        assert_eq!(
            balancer
                .stat()
                .number(&format!("l{port}"), "FRONTEND", "stot"),
            900
        );
    }
}

/// A limit is reached on a shared socket, and whoever waits is let in when a place becomes free,
/// whichever shard frees it.
#[test]
fn a_limit_holds_on_a_shared_socket() {
    let _turn = turn::shared();
    if skip("HAProxy lets a thread exceed the limit for a moment") {
        return;
    }
    let server = MockServer::hold();
    let (body, port) = one_listener("shards 1 backlog 999 maxconn 6", &server);
    let balancer = Setup::new(body).shards(4).start();
    let clients: Vec<TcpStream> = (0..30u64)
        .map(|index| {
            let client = connect_port(port);
            write(&client, &index.to_be_bytes());
            client
        })
        .collect();
    eventually("the limit is reached", || server.accepted() == 6);
    let more = wait_for(std::time::Duration::from_millis(200), || {
        (server.accepted() > 6).then_some(())
    });
    assert!(more.is_none(), "{} pass a limit of 6", server.accepted());
    let mut clients: Vec<Option<TcpStream>> = clients.into_iter().map(Some).collect();
    for served in 1..=30 {
        let end = server.next();
        let index = u64::from_be_bytes(read_bytes(&end, 8).try_into().unwrap());
        drop((clients[usize::try_from(index).unwrap()].take(), end));
        let expected = (6 + served).min(30);
        eventually("the next one is let in", || server.accepted() == expected);
    }
    balancer.settle();
}

/// Connections that wait in the queue of a shared socket when the program drains are served.
#[test]
fn a_drain_serves_who_waits_on_a_shared_socket() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (body, port) = one_listener("shards 1", &server);
    let mut balancer = Setup::new(body).shards(2).start();
    let clients = hold(port, 20);
    balancer.signal(nix::sys::signal::Signal::SIGUSR1);
    eventually("nobody listens any more", || listeners_on(port) == 0);
    for client in &clients {
        client::echo(client, b"still here");
    }
    drop(clients);
    let status = balancer.wait_exit(std::time::Duration::from_secs(5));
    assert!(status.success(), "{status}");
}

/// `tune.maxaccept` is no limit: whoever comes is served, one by one if it must be.
#[test]
fn everybody_is_served_with_a_small_maxaccept() {
    let _turn = turn::shared();
    for (bind, most) in [("", "1"), ("shards 1", "1"), ("", "3"), ("shards 1", "-1")] {
        let server = MockServer::echo();
        let (body, port) = one_listener(bind, &server);
        let balancer = Setup::new(body)
            .global(format!("tune.maxaccept {most}"))
            .start();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| hold(port, 60));
            }
        });
        balancer.settle();
        let accepted = balancer
            .stat()
            .number(&format!("l{port}"), "FRONTEND", "stot");
        assert_eq!(accepted, 240, "{bind} {most}");
    }
}

/// The CPUs that each shard may run on, as the kernel has them.
fn cpus_of_shards(balancer: &Balancer) -> Vec<String> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", balancer.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or("").trim().to_owned()
        };
        if field("Name:").starts_with("shard-") {
            found.push((field("Name:"), field("Cpus_allowed_list:")));
        }
    }
    found.sort();
    found.into_iter().map(|(_, cpus)| cpus).collect()
}

#[test]
fn cpu_map_pins_shards() {
    let _turn = turn::shared();
    if skip("looks at the threads by their names") {
        return;
    }
    let all = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let count = nix::sched::CpuSet::count();
    let cpus: Vec<usize> = (0..count).filter(|cpu| all.is_set(*cpu).unwrap()).collect();
    let (Some(one), Some(other)) = (cpus.first(), cpus.get(1)) else {
        eprintln!("left out: one CPU only");
        return;
    };
    let start = |lines: &[String]| {
        let server = MockServer::echo();
        let (body, port) = one_listener("", &server);
        let setup = Setup::new(body).shards(2);
        let setup = lines.iter().fold(setup, |setup, line| setup.global(line));
        let balancer = setup.start();
        client::echo(&connect_port(port), b"pinned");
        balancer
    };
    let crossed = start(&[format!("cpu-map 1/1 {other}"), format!("cpu-map 1/2 {one}")]);
    assert_eq!(
        cpus_of_shards(&crossed),
        [other.to_string(), one.to_string()]
    );
    let auto = start(&[format!("cpu-map auto:1/1-2 {one} {other}")]);
    assert_eq!(cpus_of_shards(&auto), [one.to_string(), other.to_string()]);
    assert!(!auto.stderr().contains("cpu-map"), "{}", auto.stderr());
    let group = start(&[format!("cpu-map 1 {other}")]);
    assert_eq!(
        cpus_of_shards(&group),
        [other.to_string(), other.to_string()]
    );
    let missing = start(&[format!("cpu-map 1/all {one} 1023")]);
    assert_eq!(cpus_of_shards(&missing), [one.to_string(), one.to_string()]);
    let stderr = missing.stderr();
    assert!(
        stderr.contains("[WARNING]") && stderr.contains(": 1023."),
        "{stderr}"
    );
}

#[test]
fn a_hard_limit_bounds_the_shards() {
    let _turn = turn::shared();
    if skip("younger than the HAProxy of most systems") {
        return;
    }
    let server = MockServer::echo();
    let (body, port) = one_listener("", &server);
    let balancer = Setup::new(body)
        .shards(4)
        .global("thread-hard-limit 3")
        .start();
    assert!(balancer.stats("show info").contains("\nNbthread: 3\n"));
    assert_eq!(listeners_on(port), 3);
    balancer.settle();
}

/// Bytes that each listener's clients get while many streams want all of one shard.
fn bulk_through(nices: [i32; 2]) -> [u64; 2] {
    let stop = AtomicBool::new(false);
    let server = MockServer::start(|mut stream| {
        let bytes = vec![7; 256 << 10];
        while stream.write_all(&bytes).is_ok() {}
    });
    let listeners = nices.map(|nice| one_listener(&format!("nice {nice}"), &server));
    let body = listeners.each_ref().map(|(text, _)| text.as_str()).concat();
    let balancer = Setup::new(body).shards(1).start();
    let received = [AtomicU64::new(0), AtomicU64::new(0)];
    let counts = || received.each_ref().map(|count| count.load(Relaxed));
    let result = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for ((_, port), received) in listeners.iter().zip(&received) {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut client = connect_port(*port);
                    let mut buffer = vec![0; 256 << 10];
                    while !stop.load(Relaxed) {
                        let count = client.read(&mut buffer).expect("bytes without end");
                        received.fetch_add(count as u64, Relaxed);
                    }
                });
            }
        }
        // How fast does not matter, only the shares.
        eventually("bulk flows", || {
            counts().iter().all(|bytes| *bytes > 64 << 20)
        });
        counts()
    });
    balancer.settle();
    result
}

/// Connections with a high `nice` get less of a busy shard than those with a low one.
#[test]
fn nice_is_a_share_of_a_busy_shard() {
    let _turn = turn::alone();
    if skip("HAProxy's scheduling is its own") {
        return;
    }
    let [one, other] = bulk_through([0, 0]);
    assert!(
        one < 2 * other && other < 2 * one,
        "{one} and {other} bytes"
    );
    // The least that is 8 times a share of the other; other programs on the machine blur it.
    let [high, low] = bulk_through([-1024, 1024]);
    assert!(
        high > 3 * low,
        "{high} bytes with the higher share, {low} with the lower"
    );
}
