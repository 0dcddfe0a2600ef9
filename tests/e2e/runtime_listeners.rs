//! Statistics of listeners: `option socket-stats`.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::metrics::exporter;
use crate::reload::change;
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{End, connect_port, echo, local, read_end, reset};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::http::Samples;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, skip, turn};

/// One session that sends bytes, has them back and ends.
fn session(port: u16, length: usize) {
    let client = connect_port(port);
    echo(&client, &vec![b'x'; length]);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&client).1, End::Fin);
}

/// The same by a Unix socket.
fn unix_session(path: &Path, length: usize) {
    let mut client = UnixStream::connect(path).expect("connect");
    client.write_all(&vec![b'u'; length]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).expect("all of it");
    assert_eq!(back.len(), length);
}

/// The names of the rows that a command lists.
fn names(balancer: &Balancer, command: &str) -> Vec<String> {
    let text = balancer.stats(command);
    let rows = text.lines().filter(|line| !line.is_empty()).skip(1);
    let name = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join("/");
    rows.map(name).collect()
}

#[test]
fn each_listener_counts_what_came_by_it() {
    let _turn = turn::shared();
    let (server, dir) = (MockServer::echo(), TempDir::new());
    let ports = [(); 5].map(|()| free_port());
    let [first, second, third, silent, alone] = ports;
    let path = dir.path().join("by-path");
    let balancer = Balancer::start(format!(
        "frontend fe\n    option socket-stats\n    bind 127.0.0.1:{first} name first\n    \
         bind 127.0.0.1:{second},127.0.0.1:{third} maxconn 7\n    bind {} id 9\n    \
         bind 127.0.0.1:{silent}\n    default_backend be\nfrontend other\n    \
         bind 127.0.0.1:{alone} name alone\n    default_backend be\nbackend be\n    server s {}\n",
        path.display(),
        server.address()
    ));
    let rows = ["first", "sock-2", "sock-3", "sock-9", "sock-5"];
    let of_fe = rows.map(|row| format!("fe/{row}"));
    assert_eq!(names(&balancer, "show stat fe 8 -1"), of_fe);
    assert_eq!(names(&balancer, "show stat -1 8 9"), ["fe/sock-9"]);
    assert_eq!(names(&balancer, "show stat other 9 -1"), ["other/FRONTEND"]);
    let all = names(&balancer, "show stat");
    assert_eq!(all[0], "fe/FRONTEND");
    assert_eq!(all[1..6], of_fe);
    assert_eq!(all.len(), 1 + 5 + 1 + 2);

    session(first, 100);
    session(first, 20);
    session(second, 3_000);
    unix_session(&path, 7);
    session(alone, 1);
    // One that has nothing to say.
    reset(connect_port(silent));
    let errors = u64::from(is_tidegate());
    eventually("all have ended", || {
        let stat = balancer.stat();
        stat.total_sessions_open() == 0
            && stat.number("fe", "sock-5", "ereq") == errors
            && stat.number("fe", "FRONTEND", "stot") == 5
    });
    let stat = balancer.stat();
    let cells = |column: &str| rows.map(|row| stat.number("fe", row, column));
    assert_eq!(cells("stot"), [2, 1, 0, 1, 1]);
    assert_eq!(cells("bin"), [120, 3_000, 0, 7, 0]);
    assert_eq!(cells("bout"), [120, 3_000, 0, 7, 0]);
    assert_eq!(cells("ereq"), [0, 0, 0, 0, errors]);
    assert_eq!(cells("slim"), [0, 7, 7, 0, 0]);
    // The second may have begun before the first was quite over.
    assert_eq!(cells("smax")[1..], [1, 0, 1, 1]);
    assert_eq!(cells("sid"), [1, 2, 3, 9, 5]);
    assert_eq!(cells("type"), [3; 5]);
    for column in ["scur", "dreq", "dresp", "dcon", "dses", "eint", "wrew"] {
        assert_eq!(cells(column), [0; 5], "{column}");
    }
    // What a frontend counts is what its listeners do.
    for column in ["stot", "bin", "bout"] {
        let sum: u64 = cells(column).iter().sum();
        assert_eq!(stat.number("fe", "FRONTEND", column), sum, "{column}");
    }
    let texts = |column: &str| rows.map(|row| stat.text("fe", row, column).to_owned());
    let address = |port: u16| format!("127.0.0.1:{port}");
    let unix = "unix".to_owned();
    assert_eq!(
        texts("addr"),
        [
            address(first),
            address(second),
            address(third),
            unix,
            address(silent)
        ]
    );
    assert_eq!(texts("mode"), ["tcp"; 5]);
    assert_eq!(texts("status"), ["OPEN"; 5]);
    if is_tidegate() {
        let protocols = ["tcpv4", "tcpv4", "tcpv4", "unix_stream", "tcpv4"];
        assert_eq!(texts("proto"), protocols);
    }
    // Nothing else has a value.
    let typed = balancer.stats("show stat fe 8 2 typed");
    let name = |line: &str| line.split('.').nth(4).map(str::to_owned);
    let filled: Vec<String> = typed.lines().filter_map(name).collect();
    let own = |column: &&str| is_tidegate() || *column != "proto";
    let usual: Vec<&str> = [
        "pxname", "svname", "scur", "smax", "slim", "stot", "bin", "bout", "dreq", "dresp", "ereq",
        "status", "pid", "iid", "sid", "type", "addr", "mode", "dcon", "dses", "wrew", "eint",
        "proto",
    ]
    .into_iter()
    .filter(own)
    .collect();
    assert_eq!(filled[..usual.len()], usual);
    assert!(
        typed
            .lines()
            .all(|line| line.is_empty() || line.starts_with("L.2.2."))
    );
    let json = balancer.stats("show stat fe 8 2 json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0][0]["objType"], "Listener");
    assert_eq!(json[0][1]["value"]["value"], "sock-2");
    balancer.settle();
}

#[test]
fn sessions_of_a_listener_are_counted_while_they_are_open() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (narrow, wide) = (free_port(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    option socket-stats\n    bind 127.0.0.1:{narrow} name narrow maxconn 2\n    \
         bind 127.0.0.1:{wide} name wide\n    server s {}\n",
        server.address()
    ));
    let clients = [narrow, narrow, wide].map(connect_port);
    for client in &clients {
        echo(client, b"12345");
    }
    let cells = |column: &str| {
        let stat = balancer.stat();
        ["narrow", "wide"].map(|row| stat.number("l", row, column))
    };
    let status = || {
        let stat = balancer.stat();
        ["narrow", "wide"].map(|row| stat.text("l", row, "status").to_owned())
    };
    assert_eq!(cells("scur"), [2, 1]);
    assert_eq!(status(), ["FULL", "OPEN"]);
    if is_tidegate() {
        assert_eq!(cells("bin"), [10, 5], "live");
    }
    assert_eq!(balancer.stats("clear counters all"), "\n");
    assert_eq!((cells("stot"), cells("scur")), ([0, 0], [2, 1]));
    drop(clients);
    eventually("all have ended", || cells("scur") == [0, 0]);
    session(wide, 9);
    eventually("it has ended", || cells("scur") == [0, 0]);
    assert_eq!(balancer.stats("clear counters"), "\n");
    assert_eq!((cells("stot"), cells("smax")), ([0, 1], [0, 0]));
    session(narrow, 9);
    eventually("it has ended", || cells("scur") == [0, 0]);
    assert_eq!((cells("stot"), cells("smax")), ([1, 1], [1, 0]));
    balancer.settle();
}

#[test]
fn listeners_are_in_the_exposition() {
    let _turn = turn::shared();
    let (server, metrics) = (MockServer::echo(), free_port());
    let (first, second) = (free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}listen l\n    option socket-stats\n    bind 127.0.0.1:{first} name first maxconn 1\n    \
         bind 127.0.0.1:{second}\n    server s {}\n",
        exporter(metrics),
        server.address()
    ));
    session(second, 50);
    eventually("it has ended", || {
        balancer.stat().number("l", "sock-2", "scur") == 0
    });
    let held = connect_port(first);
    echo(&held, b"x");
    let samples = Samples::scrape(metrics, "?scope=listener");
    let metrics_of_listeners = samples.metrics();
    assert!(
        metrics_of_listeners
            .iter()
            .all(|name| name.starts_with("haproxy_listener_")),
        "{metrics_of_listeners:?}"
    );
    for (metric, of_first, of_second) in [
        ("current_sessions", 1.0, 0.0),
        ("max_sessions", 1.0, 1.0),
        ("limit_sessions", 1.0, 0.0),
        ("sessions_total", 1.0, 1.0),
        ("internal_errors_total", 0.0, 0.0),
    ] {
        for (listener, value) in [("first", of_first), ("sock-2", of_second)] {
            let name = format!("haproxy_listener_{metric}{{proxy=\"l\",listener=\"{listener}\"}}");
            assert_eq!(samples.value(&name), value, "{name}");
        }
    }
    let bytes = "haproxy_listener_bytes_in_total{proxy=\"l\",listener=\"sock-2\"}";
    assert_eq!(samples.value(bytes), 50.0);
    for (listener, state, value) in [
        ("first", "FULL", 1.0),
        ("first", "OPEN", 0.0),
        ("first", "WAITING", 0.0),
        ("sock-2", "OPEN", 1.0),
    ] {
        let name = format!(
            "haproxy_listener_status{{proxy=\"l\",listener=\"{listener}\",state=\"{state}\"}}"
        );
        assert_eq!(samples.value(&name), value, "{name}");
    }
    drop(held);
    balancer.settle();
}

#[test]
fn listeners_of_datagrams_have_rows_too() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let (server, first, second) = (DatagramServer::echo(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "listen u\n    mode udp\n    option socket-stats\n    timeout udp 1h\n    \
         bind 127.0.0.1:{first} name first\n    bind 127.0.0.1:{second}\n    server s {}\n",
        server.address()
    ));
    let clients = [(first, 1), (first, 2), (second, 3)]
        .map(|(port, flow)| DatagramClient::new(local(port), flow));
    for client in &clients {
        for number in 0..3 {
            client.exchange(number, 100);
        }
    }
    let cells = |column: &str| {
        let stat = balancer.stat();
        ["first", "sock-2"].map(|row| stat.number("u", row, column))
    };
    // A client may have its reply before it is counted.
    eventually("the last reply is counted", || {
        cells("udp_datagrams_out") == [6, 3]
    });
    assert_eq!((cells("stot"), cells("scur")), ([2, 1], [2, 1]));
    assert_eq!((cells("bin"), cells("bout")), ([600, 300], [600, 300]));
    assert_eq!(cells("udp_datagrams_in"), [6, 3]);
    let stat = balancer.stat();
    assert_eq!(stat.text("u", "first", "mode"), "udp");
    assert_eq!(stat.text("u", "first", "proto"), "udp4");
    balancer.stats("shutdown sessions server u/s");
    balancer.settle();
}

/// What a listener has counted stays where the option does, and begins anew where it comes.
#[test]
fn a_reload_adds_and_takes_statistics_of_listeners() {
    let _turn = turn::shared();
    if skip("its reload is another process") {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let listen = |settings: &str| {
        format!(
            "listen l\n{settings}    bind 127.0.0.1:{port} name it\n    server s {}\n",
            server.address()
        )
    };
    let stats = "    option socket-stats\n";
    let balancer = Setup::new(listen(stats)).start();
    session(port, 10);
    let held = connect_port(port);
    echo(&held, b"held");
    let count = |column: &str| balancer.stat().number("l", "it", column);
    assert_eq!((count("stot"), count("bin")), (2, 14));
    change(
        &balancer,
        &listen(&format!("{stats}    timeout client 20s\n")),
    );
    session(port, 10);
    echo(&held, b"held");
    assert_eq!((count("stot"), count("bin")), (3, 28));
    let answer = change(&balancer, &listen(""));
    assert!(answer.contains("2 objects have changed"), "{answer}");
    assert!(!names(&balancer, "show stat").contains(&"l/it".to_owned()));
    session(port, 10);
    change(&balancer, &listen(stats));
    eventually("only one is open", || count("scur") == 1);
    assert_eq!(count("stot"), 0);
    echo(&held, b"held");
    session(port, 10);
    assert_eq!((count("stot"), count("bin")), (1, 14));
    drop(held);
    balancer.settle();
}
