//! Limits hold exactly, and whoever waited for one is served when it frees.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::client::{self, connect_port, echo, local, read_bytes, write};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, Stopwatch, Syslog, balancer::Setup, eventually, skip, turn, wait_for,
};

// The backlog defaults to the limit: without one of its own the kernel would drop the SYNs of whom
// this test wants to see waiting.

/// Opens three times as many connections as fit, sees that no more than `limit` reach the server,
/// then lets them through one by one: each client must be answered.
fn served_in_turn(balancer: &Balancer, port: u16, server: &MockServer, limit: u64) {
    let total = limit * 3;
    let clients: Vec<TcpStream> = (0..total)
        .map(|index| {
            let client = connect_port(port);
            write(&client, &index.to_be_bytes());
            client
        })
        .collect();
    eventually("the limit is reached", || server.accepted() == limit);
    let more = wait_for(Duration::from_millis(300), || {
        (server.accepted() > limit).then_some(())
    });
    assert!(
        more.is_none(),
        "{} connections pass a limit of {limit}",
        server.accepted()
    );
    let mut clients: Vec<Option<TcpStream>> = clients.into_iter().map(Some).collect();
    for served in 1..=total {
        let end = server.next();
        let index = u64::from_be_bytes(read_bytes(&end, 8).try_into().unwrap());
        write(&end, &index.to_be_bytes());
        let client = clients[usize::try_from(index).unwrap()]
            .take()
            .expect("served once");
        assert_eq!(read_bytes(&client, 8), index.to_be_bytes());
        drop((client, end));
        let expected = (limit + served).min(total);
        eventually("the next one is let in", || server.accepted() == expected);
    }
    assert!(
        clients.iter().all(Option::is_none),
        "somebody was not served"
    );
    balancer.settle();
}

#[test]
fn process_maxconn_is_reached_and_released() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} backlog 999\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body).global("maxconn 8").start();
    served_in_turn(&balancer, port, &server, 8);
    assert_eq!(balancer.stat().number("l", "FRONTEND", "smax"), 8);
}

/// The connect time is that of the connect alone, however long the session waited for it.
#[test]
fn to_wait_for_a_server_is_not_to_connect() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {} maxconn 1\n",
        server.address()
    ));
    let first = connect_port(port);
    let held = server.next();
    let second = connect_port(port);
    eventually("it waits", || {
        balancer.stat().number("l", "BACKEND", "qcur") == 1
    });
    let more = wait_for(Duration::from_millis(600), || {
        (server.accepted() > 1).then_some(())
    });
    assert!(more.is_none());
    drop((first, held));
    drop((second, server.next()));
    balancer.settle();
    let stat = balancer.stat();
    assert!(stat.number("l", "s", "qtime") >= 200, "{stat:?}");
    assert!(stat.number("l", "s", "ctime") < 100, "{stat:?}");
}

#[test]
fn frontend_maxconn_is_reached_and_released() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "frontend f\n    bind 127.0.0.1:{port} backlog 999\n    maxconn 6\n    default_backend b\n\
         backend b\n    server s {}\n",
        server.address()
    ));
    served_in_turn(&balancer, port, &server, 6);
    assert_eq!(balancer.stat().number("f", "FRONTEND", "smax"), 6);
}

/// The limits are exact also where another shard serves than the one that has accepted.
#[test]
fn limits_hold_where_connections_are_handed_over() {
    let _turn = turn::shared();
    if skip("HAProxy lets a thread exceed the limit for a moment") {
        return;
    }
    for (global, front, bind) in [
        ("maxconn 7", "", ""),
        ("", "maxconn 5", ""),
        ("", "", "maxconn 3"),
    ] {
        let (server, port) = (MockServer::hold(), free_port());
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port} backlog 999 {bind}\n    {front}\n    server s {}\n",
            server.address()
        );
        let setup = Setup::new(body).shards(4).global(global);
        let balancer = setup
            .global_of_ours("tune.listener.multi-queue fair")
            .start();
        let words = format!("{global}{front}{bind}");
        let limit = words.rsplit(' ').next().and_then(|word| word.parse().ok());
        let limit = limit.expect("a number");
        served_in_turn(&balancer, port, &server, limit);
        let most = balancer.stat().number("l", "FRONTEND", "smax");
        assert_eq!(most, limit, "{words}");
        let handed = balancer.activity().number("handed_over");
        // How many is chance: each stays where it was accepted with probability 1/4.
        assert!(handed.is_none_or(|handed| handed > 0), "{handed:?}");
    }
}

#[test]
fn bind_maxconn_is_reached_and_released() {
    let _turn = turn::shared();
    let (server, port, other) = (MockServer::hold(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} backlog 999 maxconn 4\n    \
         bind 127.0.0.1:{other}\n    \
         server s {}\n",
        server.address()
    ));
    served_in_turn(&balancer, port, &server, 4);
    // The other listener of the same frontend is not concerned.
    let clients: Vec<TcpStream> = (0..10).map(|_| connect_port(other)).collect();
    eventually("all ten are open", || server.accepted() == 12 + 10);
    drop(clients);
}

#[test]
fn server_maxconn_queues_and_releases_in_order() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {} maxconn 5\n",
        server.address()
    ));
    served_in_turn(&balancer, port, &server, 5);
    let stat = balancer.stat();
    assert_eq!(
        (stat.number("l", "s", "smax"), stat.number("l", "s", "slim")),
        (5, 5)
    );
    assert_eq!(stat.number("l", "s", "stot"), 15);
}

#[test]
fn a_full_server_leaves_the_others_to_new_connections() {
    let _turn = turn::shared();
    let (full, free, port) = (MockServer::hold(), MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    \
         server full {} maxconn 2\n    server free {}\n",
        full.address(),
        free.address()
    ));
    let clients: Vec<TcpStream> = (0..20).map(|_| connect_port(port)).collect();
    eventually("nobody waits", || full.accepted() + free.accepted() == 20);
    assert_eq!(full.accepted(), 2);
    drop((clients, full, free));
    balancer.settle();
}

#[test]
fn whoever_waits_too_long_in_the_queue_is_let_go() {
    let _turn = turn::shared();
    let (server, port, syslog) = (MockServer::hold(), free_port(), Syslog::start());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    \
         timeout queue 400ms\n    server s {} maxconn 1\n",
        syslog.address(),
        server.address()
    ));
    let first = connect_port(port);
    let end = server.next();
    let watch = Stopwatch::start();
    let (bytes, _) = client::read_end(&connect_port(port));
    watch.assert_within(380, 1_200, "timeout queue");
    assert!(bytes.is_empty());
    let line = syslog.take_session();
    assert_eq!(line.end, "sQ");
    assert!(
        (380..1_000).contains(&line.timers[0]),
        "queue time: {line:?}"
    );
    drop((first, end));
    balancer.settle();
}

#[test]
fn whoever_leaves_the_queue_leaves_its_place() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {} maxconn 1\n",
        server.address()
    ));
    let first = connect_port(port);
    let first_end = server.next();
    let leaving: Vec<TcpStream> = (0..10).map(|_| connect_port(port)).collect();
    let last = connect_port(port);
    write(&last, b"l");
    eventually("eleven wait", || {
        balancer.stat().number("l", "BACKEND", "qcur") == 11
    });
    for (index, client) in leaving.into_iter().enumerate() {
        if index % 2 == 0 {
            client::reset(client)
        } else {
            drop(client)
        }
    }
    eventually("one waits", || {
        balancer.stat().number("l", "BACKEND", "qcur") == 1
    });
    drop((first, first_end));
    assert_eq!(read_bytes(&server.next(), 1), b"l");
    drop(last);
    balancer.settle();
}

#[test]
fn descriptors_run_out_and_come_back() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let setup = Setup::new(body).shards(3).global("maxconn 1000");
    let balancer = setup
        .global_of_ours("tune.listener.multi-queue fair")
        .start();
    let early: Vec<TcpStream> = (0..4).map(|_| connect_port(port)).collect();
    early
        .iter()
        .for_each(|client| client::echo(client, b"before"));
    // Room for about five more sessions of two descriptors each.
    balancer.limit_descriptors(balancer.descriptors() + 10);
    let late: Vec<TcpStream> = (0..40).map(|_| connect_port(port)).collect();
    eventually("some get in", || server.accepted() > 4);
    early
        .iter()
        .for_each(|client| client::echo(client, b"meanwhile"));
    // A process without descriptors must wait, not spin.
    let (watch, before) = (Stopwatch::start(), balancer.cpu_ticks());
    wait_for(Duration::from_millis(600), || {
        (watch.ms() > 500).then_some(())
    });
    let ticks = balancer.cpu_ticks() - before;
    assert!(
        ticks < 25,
        "{ticks} ticks of 10 ms in half a second without descriptors"
    );
    drop(early);
    drop(late);
    balancer.limit_descriptors(20_000);
    for _ in 0..20 {
        let client = connect_port(port);
        client::echo(&client, b"after");
    }
    balancer.settle();
}

#[test]
fn nine_thousand_connections_are_held() {
    const HELD: u64 = 9_000;
    let _turn = turn::alone();
    let (server, port) = (MockServer::hold(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body).global(format!("maxconn {HELD}")).start();
    let before_kib = balancer.resident_kib();
    let clients: Vec<TcpStream> = (0..HELD)
        .map(|index| {
            client::try_connect(local(port)).unwrap_or_else(|e| panic!("connect {index}: {e}"))
        })
        .collect();
    let ends: Vec<TcpStream> = (0..HELD).map(|_| server.next()).collect();
    let grown_kib = balancer.resident_kib().saturating_sub(before_kib);
    assert_eq!(balancer.stat().number("l", "FRONTEND", "scur"), HELD);
    // An idle connection holds no buffer: 4 KiB each leaves room for its bookkeeping only. HAProxy
    // keeps about 1.5 KiB.
    assert!(
        grown_kib < HELD * 4,
        "{grown_kib} KiB for {HELD} idle connections"
    );
    for client in &clients {
        write(client, b"x");
    }
    for end in &ends {
        assert_eq!(read_bytes(end, 1), b"x");
        write(end, b"y");
    }
    for client in &clients {
        assert_eq!(read_bytes(client, 1), b"y");
    }
    drop((clients, ends));
    balancer.settle();
}

/// Connects `count` clients at once; how long it takes until all have been served.
fn serve_at_once(port: u16, count: usize) -> Stopwatch {
    let watch = Stopwatch::start();
    let clients: Vec<_> = (0..count).map(|_| connect_port(port)).collect();
    for client in &clients {
        echo(client, b"x");
    }
    watch
}

#[test]
fn a_rate_of_sessions_makes_clients_wait_and_loses_none() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    rate-limit sessions 20\n    server s {}\n",
        server.address()
    ));
    let watch = serve_at_once(port, 50);
    // Twenty in the first second, as many in the second one, the rest in the third.
    watch.assert_within(1_000, 4_000, "50 clients at 20 per second");
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "FRONTEND", "stot"), 50);
    assert_eq!(stat.number("l", "FRONTEND", "rate_lim"), 20);
    balancer.settle();
}

#[test]
fn the_rate_of_the_process_holds_over_its_frontends() {
    let _turn = turn::shared();
    let (server, ports) = (MockServer::echo(), [free_port(), free_port()]);
    let [one, two] = ports.map(|port| {
        let server = server.address();
        format!("listen l{port}\n    bind 127.0.0.1:{port}\n    server s {server}\n")
    });
    let setup = Setup::new(one + &two).shards(3).global("maxconnrate 20");
    let balancer = setup
        .global_of_ours("tune.listener.multi-queue fair")
        .start();
    let watch = serve_at_once(ports[0], 25);
    serve_at_once(ports[1], 25);
    watch.assert_within(1_000, 4_000, "50 clients at 20 per second");
    assert_eq!(server.accepted(), 50);
    balancer.settle();
}
