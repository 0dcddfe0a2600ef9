//! How shards wait: asleep when nothing happens, awake where they are told or where it pays.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, skip};
use crate::support::client::{connect_port, echo, exchange, local, read_end};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, StopOnDrop, Stopwatch, eventually, is_tidegate, turn, wait_for,
};

/// Time that anything that doesn't depend on a rate may take.
const BOUND: Duration = Duration::from_secs(20);

/// One shard between a server and clients.
fn start(server: &MockServer, globals: &[&str], rest: &str) -> (Balancer, u16) {
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n{rest}\n    server s {}\n",
        server.address()
    );
    let setup = Setup::new(body).shards(1);
    let setup = globals
        .iter()
        .fold(setup, |setup, line| setup.global(*line));
    (setup.start(), port)
}

/// CPU time of the process over a second in which nobody asks anything of it.
fn ticks_of_a_second(balancer: &Balancer) -> u64 {
    let (watch, before) = (Stopwatch::start(), balancer.cpu_ticks());
    wait_for(Duration::from_millis(1_100), || {
        (watch.ms() >= 1_000).then_some(())
    });
    balancer.cpu_ticks() - before
}

#[test]
fn an_idle_process_uses_no_cpu() {
    let _turn = turn::alone();
    let server = MockServer::echo();
    let (balancer, port) = start(&server, &[], "");
    let client = connect_port(port);
    for _ in 0..1_000 {
        echo(&client, b"quick");
    }
    let ticks = ticks_of_a_second(&balancer);
    assert!(ticks <= 3, "{ticks} ticks of 10 ms in a second at rest");
    drop(client);
    balancer.settle();
}

#[test]
fn busy_polling_carries_bytes_and_is_busy() {
    let _turn = turn::alone();
    let server = MockServer::exchange();
    let (balancer, port) = start(&server, &["busy-polling"], "");
    exchange(local(port), 3_000_000, 2_000_000, 7).unwrap();
    let before = balancer.cpu_ticks();
    let busy = wait_for(BOUND, || {
        (balancer.cpu_ticks() >= before + 30).then_some(())
    });
    assert!(busy.is_some(), "it has slept");
    assert_eq!(balancer.info("BusyPolling"), 1);
    if is_tidegate() {
        assert_eq!(balancer.activity().number("sleeps"), Some(0));
    }
    balancer.settle();
}

#[test]
fn timers_fire_on_a_shard_that_never_sleeps() {
    if skip("HAProxy 2.6 was seen to miss this timeout while it polls") {
        return;
    }
    let _turn = turn::shared();
    let server = MockServer::silent();
    let (balancer, port) = start(&server, &["busy-polling"], "    timeout client 400ms");
    let watch = Stopwatch::start();
    let (bytes, _) = read_end(&connect_port(port));
    watch.assert_within(350, 1_500, "timeout client");
    assert!(bytes.is_empty());
    balancer.settle();
}

#[test]
fn a_shard_that_never_sleeps_hears_signals() {
    let _turn = turn::shared();
    for signal in [Signal::SIGUSR1, Signal::SIGTERM] {
        let server = MockServer::echo();
        let (mut balancer, port) = start(&server, &["busy-polling"], "");
        echo(&connect_port(port), b"here");
        balancer.signal(signal);
        balancer.wait_exit(Duration::from_secs(5));
    }
}

#[test]
fn quick_exchanges_find_the_shard_awake() {
    if skip("tune.spin-us is Tidegate's own") {
        return;
    }
    let _turn = turn::alone();
    let server = MockServer::echo();
    // A bound that a busy machine keeps too.
    let (balancer, port) = start(&server, &["tune.spin-us 1000"], "");
    let client = connect_port(port);
    let found = wait_for(BOUND, || {
        (0..200).for_each(|_| echo(&client, b"quick"));
        balancer
            .activity()
            .number("spins_found")
            .filter(|n| *n > 20)
    });
    assert!(found.is_some(), "{:?}", balancer.stats("show activity"));
    let ticks = ticks_of_a_second(&balancer);
    assert!(ticks <= 3, "{ticks} ticks of 10 ms in a second at rest");
    drop(client);
    balancer.settle();
}

/// Looking for work is no work, and a process at rest shows none of what it had.
#[test]
fn idle_time_is_what_is_left_of_work() {
    let _turn = turn::alone();
    let server = MockServer::exchange();
    for globals in [&[][..], &["busy-polling"]] {
        let (balancer, port) = start(&server, globals, "");
        let idle = |most: RangeInclusive<u64>| {
            eventually(&format!("{most:?} % idle"), || {
                most.contains(&balancer.info("Idle_pct"))
            });
        };
        idle(99..=100);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let load = || {
                while !done.load(Relaxed) {
                    exchange(local(port), 3_000_000, 3_000_000, 7).unwrap();
                }
            };
            scope.spawn(load);
            let _stop = StopOnDrop(&done);
            idle(0..=97);
        });
        idle(99..=100);
        balancer.settle();
    }
}

#[test]
fn without_a_bound_a_shard_sleeps_at_once() {
    if skip("tune.spin-us is Tidegate's own") {
        return;
    }
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (balancer, port) = start(&server, &["tune.spin-us 0"], "");
    let client = connect_port(port);
    (0..500).for_each(|_| echo(&client, b"quick"));
    let activity = balancer.activity();
    assert_eq!(activity.number("spins_found"), Some(0));
    assert_eq!(activity.number("spins_vain"), Some(0));
    assert!(activity.number("sleeps").is_some_and(|sleeps| sleeps > 0));
    drop(client);
    balancer.settle();
}
