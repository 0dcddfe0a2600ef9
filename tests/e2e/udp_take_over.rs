//! One process in place of another, and the end of one, while datagrams come.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, TempDir};
use crate::support::datagram::{DatagramClient, DatagramServer, identify};
use crate::support::port::free_port;
use crate::support::{Balancer, StopOnDrop, Stopwatch, eventually, skip, turn};

const CLIENTS: u32 = 16;

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

fn setup(servers: &[DatagramServer], port: u16) -> Setup {
    let mut text = format!(
        "listen u\n    mode udp\n    balance hash src+port\n    hash-type consistent\n    \
         bind 127.0.0.1:{port}\n    timeout udp 2s\n"
    );
    for (number, server) in servers.iter().enumerate() {
        text.push_str(&format!("    server s{number} {}\n", server.address()));
    }
    Setup::new(text)
}

/// What clients have met that ask all the time.
#[derive(Clone, Copy, Default, Debug)]
struct Met {
    answered: u32,
    lost: u32,
    /// Time without answers, at most, of any client.
    longest_ms: u64,
}

/// Asks without a pause while `during` runs: each client sends one datagram, and the next when it
/// has its answer, or none came.
fn under_load<T>(target: SocketAddr, during: impl FnOnce() -> T) -> (T, Met) {
    let stop = AtomicBool::new(false);
    let ask = |flow: u32| {
        let client = DatagramClient::new(target, flow);
        let mut met = Met::default();
        let mut number = 0;
        while !stop.load(Relaxed) {
            let watch = Stopwatch::start();
            loop {
                client.send_payload(number, 100);
                let got = client.try_receive(Duration::from_millis(300));
                let got = got.map(|(bytes, _)| identify(&bytes));
                let sent = number;
                number += 1;
                if got.is_some() {
                    // No answer of somebody else, and none twice.
                    assert_eq!(got, Some(Ok((flow, sent))));
                    met.answered += 1;
                    break;
                }
                met.lost += 1;
                assert!(watch.ms() < 10_000, "client {flow} is not served any more");
            }
            met.longest_ms = met.longest_ms.max(watch.ms());
        }
        met
    };
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..CLIENTS)
            .map(|flow| scope.spawn(move || ask(flow)))
            .collect();
        let result = {
            let _stop = StopOnDrop(&stop);
            during()
        };
        let mut met = Met::default();
        for thread in load {
            let one = thread.join().unwrap();
            met.answered += one.answered;
            met.lost += one.lost;
            met.longest_ms = met.longest_ms.max(one.longest_ms);
        }
        (result, met)
    })
}

/// Waits until the clients have been served so many times more.
fn served_further(balancer: &Balancer, datagrams: u64) {
    let before = count(balancer, "datagrams_to_clients");
    eventually("clients are served by it", || {
        count(balancer, "datagrams_to_clients") >= before + datagrams
    });
}

#[test]
fn a_successor_that_takes_the_sockets_loses_no_datagram() {
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let servers: Vec<_> = (0..3).map(|_| DatagramServer::echo()).collect();
    let (port, dir) = (free_port(), TempDir::new());
    let path = dir.path().join("exposed").display().to_string();
    let line = format!("stats socket {path} level admin expose-fd listeners");
    let mut old = setup(&servers, port).global(line).start();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let (new, met) = under_load(target, || {
        served_further(&old, 100);
        let pid = old.pid().to_string();
        let new = setup(&servers, port)
            .arguments(&["-x", &path, "-sf", &pid])
            .start();
        // Its flows hear nothing more, and end after their idle time.
        let status = old.wait_exit(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0));
        served_further(&new, 100);
        new
    });
    assert_eq!(met.lost, 0, "{met:?}");
    assert!(met.answered > 200, "{met:?}");
    // Each client has stayed with its server.
    for flow in 0..CLIENTS {
        let has = |server: &DatagramServer| {
            let arrivals = server.arrivals();
            let mut flows = arrivals.iter().filter_map(|a| identify(&a.bytes).ok());
            flows.any(|(own, _)| own == flow)
        };
        let count = servers.iter().filter(|server| has(server)).count();
        assert_eq!(count, 1, "servers of client {flow}");
    }
    new.settle();
}

/// Without the sockets of the old one, what is on its way at that moment may be lost; but the new
/// one serves at once, and the old one does not stay for its flows.
#[test]
fn a_successor_with_sockets_of_its_own_serves_at_once() {
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let servers: Vec<_> = (0..3).map(|_| DatagramServer::echo()).collect();
    let port = free_port();
    let more = "defaults\n    mode udp\n    timeout udp 1h\nlisten v6\n    bind udp@[::1]:";
    let v6 = free_port();
    let body = |setup: Setup| {
        setup.body_more(format!(
            "{more}{v6}\n    server s {}\n",
            servers[0].address()
        ))
    };
    let mut old = body(setup(&servers, port)).start();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    // A flow that would never end.
    let of_v6 = DatagramClient::new(("::1".parse::<std::net::IpAddr>().unwrap(), v6).into(), 99);
    of_v6.exchange(1, 64);
    let (mut new, met) = under_load(target, || {
        served_further(&old, 100);
        let pid = old.pid().to_string();
        let new = body(setup(&servers, port))
            .arguments(&["-sf", &pid])
            .start();
        let status = old.wait_exit(Duration::from_secs(20));
        assert_eq!(status.code(), Some(0));
        served_further(&new, 100);
        new
    });
    // One that is under way, and one of those that come while the sockets close one by one.
    assert!(met.lost <= 3 * CLIENTS, "{met:?}");
    assert!(met.longest_ms < 2_000, "{met:?}");
    of_v6.insist(2, 64);
    assert!(count(&new, "flows") > 0);
    new.signal(Signal::SIGTERM);
    assert!(new.wait_exit(Duration::from_secs(20)).success());
}

#[test]
fn a_soft_stop_is_bounded() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (servers, port) = ([DatagramServer::echo()], free_port());
    let mut balancer = setup(&servers, port).global("hard-stop-after 4s").start();
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let (old, new) = (
        DatagramClient::new(target, 1),
        DatagramClient::new(target, 2),
    );
    old.exchange(0, 64);
    let watch = Stopwatch::start();
    balancer.signal(Signal::SIGUSR1);
    eventually("it drains", || balancer.stderr().contains("stopped"));
    new.send_payload(0, 64);
    eventually("it is refused", || {
        count(&balancer, "flows_refused_draining") == 1
    });
    // Never idle for long: it would go on for ever.
    let mut served = 0;
    while balancer.is_running() {
        old.send_payload(1, 64);
        while old.try_receive(Duration::from_millis(20)).is_some() {
            served += 1;
        }
        assert!(watch.ms() < 60_000, "it goes on");
    }
    assert!(served > 0);
    let status = balancer.wait_exit(Duration::from_secs(20));
    assert!(status.success(), "{status}");
    watch.assert_within(3_800, 60_000, "hard-stop-after");
    new.expect_silence(Duration::from_millis(1));
    // Nobody has the port any more.
    assert_eq!(crate::support::port::datagram_sockets_on(port), 0);
}
