//! Clients of frontends in `mode http`: good ones, malformed, slow, too many.

use std::io::BufReader;
use std::net::Shutdown;

use nix::sys::signal::Signal;

use crate::metrics::exporter;
use crate::support::balancer::{Balancer, Setup};
use crate::support::client::{End, connect_port, echo, read_end, write};
use crate::support::http::{ask, get, read};
use crate::support::port::{free_port, listeners_on};
use crate::support::{MockServer, eventually, skip, turn};

#[test]
fn pages_are_where_the_file_says() {
    let _turn = turn::shared();
    if skip("pages of our own") {
        return;
    }
    let (server, port, pages) = (MockServer::echo(), free_port(), free_port());
    let body = format!(
        "listen stats\n    mode http\n    bind 127.0.0.1:{pages}\n    monitor-uri /alive\n    \
         http-request use-service prometheus-exporter if {{ path /m }} !{{ src 192.0.2.1 \
         }}\n    http-request use-service prometheus-exporter if {{ path /never }} {{ src \
         192.0.2.1 }}\n    stats uri /stats\n    stats refresh 7s\n    stats show-node\n    \
         stats show-desc <one>\n    stats scope l\n    stats hide-version\nlisten l\n    bind 127.0.0.1:{port}\n    server \
         s {}\n    server out {} disabled\n",
        server.address(),
        server.address()
    );
    let balancer = Setup::new(body).global("node n1").start();
    echo(&connect_port(port), b"x");
    assert_eq!(get(pages, "/alive").status, 200);
    assert_eq!(get(pages, "/m").status, 200);
    for nothing in ["/", "/never", "/alive/", "/m/", "*"] {
        assert_eq!(get(pages, nothing).status, 404, "{nothing}");
    }
    let page = get(pages, "/stats");
    assert_eq!((page.status, page.headers["refresh"].as_str()), (200, "7"));
    for shown in ["Node: n1", "Description: &lt;one&gt;"] {
        assert!(page.body.contains(shown), "{}", page.body);
    }
    assert!(page.body.contains("<h2>l (tcp)</h2>") && !page.body.contains("<h2>stats"));
    assert!(
        page.body
            .contains("<tr class=\"out\"><td>out</td><td>MAINT</td>")
    );
    assert!(!page.body.contains(env!("CARGO_PKG_VERSION")));
    let still = get(pages, "/stats;norefresh");
    assert!(still.status == 200 && !still.headers.contains_key("refresh"));
    let table = get(pages, "/stats;csv");
    let asked = balancer.stats("show stat");
    assert_eq!(table.body.lines().next(), asked.lines().next());
    let rows = table.body.lines().filter(|line| line.starts_with("l,"));
    assert_eq!(rows.count() + 1, table.body.lines().count());
    balancer.settle();
}

/// A login is asked for, and only a whole one opens the page.
#[test]
fn a_login_guards_the_statistics() {
    let _turn = turn::shared();
    let pages = free_port();
    let balancer = Balancer::start(format!(
        "listen stats\n    mode http\n    bind 127.0.0.1:{pages}\n    stats uri /\n    stats \
         auth admin:secret\n    stats auth other:pass:word\n    stats realm The\\ page\n"
    ));
    let with = |login: &str| {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nAuthorization: {login}\r\n\r\n"
        );
        ask(pages, &request)
    };
    let refused = get(pages, "/");
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.headers["www-authenticate"],
        "Basic realm=\"The page\""
    );
    // admin:secret, other:pass:word
    for login in ["Basic YWRtaW46c2VjcmV0", "Basic b3RoZXI6cGFzczp3b3Jk"] {
        assert_eq!(with(login).status, 200, "{login}");
    }
    // admin:secreT, admin:secret1, admin:secre, and no login at all
    for login in [
        "Basic YWRtaW46c2VjcmVU",
        "Basic YWRtaW46c2VjcmV0MQ==",
        "Basic YWRtaW46c2VjcmU=",
        "Basic",
        "Bearer YWRtaW46c2VjcmV0",
    ] {
        assert_eq!(with(login).status, 401, "{login}");
    }
    balancer.settle();
}

#[test]
fn connections_go_on_for_as_long_as_they_are_used() {
    let _turn = turn::shared();
    let pages = free_port();
    let balancer = Balancer::start(exporter(pages));
    let client = connect_port(pages);
    let mut reader = BufReader::new(&client);
    for _ in 0..3 {
        write(
            &client,
            b"GET /metrics?scope=global HTTP/1.1\r\nHost: t\r\n\r\n",
        );
        assert_eq!(read(&mut reader, false).expect("an answer").status, 200);
    }
    write(
        &client,
        b"HEAD /metrics?scope=global HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    let head = read(&mut reader, true).expect("an answer");
    assert_eq!(head.status, 200);
    // A client that has said all it wants still gets its answer.
    write(
        &client,
        b"GET /metrics?scope=global HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    client.shutdown(Shutdown::Write).expect("half-close");
    assert_eq!(read(&mut reader, false).expect("an answer").status, 200);
    assert!(read(&mut reader, false).is_none());
    balancer.settle();
}

/// What is no request gets an answer that says so, or none, and counts as an error.
#[test]
fn what_is_malformed_is_refused() {
    let _turn = turn::shared();
    if skip("status codes of our own") {
        return;
    }
    let pages = free_port();
    let balancer = Balancer::start(exporter(pages));
    let long = "x".repeat(100_000);
    let many = "a: b\r\n".repeat(1_000);
    for (request, status) in [
        (
            "POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx".to_owned(),
            405,
        ),
        (
            "DELETE /metrics HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(),
            405,
        ),
        ("GET /metrics HTTP/9.9\r\n\r\n".to_owned(), 400),
        ("GET\r\n\r\n".to_owned(), 400),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400),
        ("GET /metrics HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400),
        (format!("GET /metrics HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("GET /metrics?{long} HTTP/1.1\r\n\r\n"), 431),
    ] {
        let client = connect_port(pages);
        // It may be refused, and closed, before all of it is sent.
        let _ = std::io::Write::write_all(&mut &client, request.as_bytes());
        let answer = read(&mut BufReader::new(&client), false);
        let shown: String = request.chars().take(40).collect();
        if let Some(answer) = answer {
            assert_eq!(answer.status, status, "{shown}");
        } else {
            assert_eq!(status, 431, "{shown}");
        }
    }
    // One byte of an answer's length is enough for the next client.
    assert_eq!(get(pages, "/metrics?scope=global").status, 200);
    eventually("they are counted", || {
        balancer.stat().number("prometheus", "FRONTEND", "ereq") == 6
    });
    balancer.settle();
}

/// Who doesn't ask, or doesn't read, is sent away when its time is over.
#[test]
fn who_is_slow_is_sent_away() {
    let _turn = turn::shared();
    if skip("times of our own") {
        return;
    }
    let pages = free_port();
    let balancer = Balancer::start(format!(
        "{}    timeout http-request 300ms\n    timeout http-keep-alive 200ms\n    timeout client \
         500ms\n",
        exporter(pages)
    ));
    // Nothing; a beginning; one request, and then nothing.
    for sent in ["", "GET /met", "GET /x HTTP/1.1\r\nHost: t\r\n\r\n"] {
        let client = connect_port(pages);
        write(&client, sent.as_bytes());
        let (_, end) = read_end(&client);
        assert_ne!(end, End::None, "{sent}");
    }
    // Answers that nobody reads: more than all sockets between hold.
    let client = connect_port(pages);
    let request = "GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n".repeat(400);
    let _ = std::io::Write::write_all(&mut &client, request.as_bytes());
    eventually("all of them are gone", || {
        balancer.stat().number("prometheus", "FRONTEND", "scur") == 0
    });
    balancer.settle();
}

/// Clients beyond `maxconn` wait; traffic knows nothing of it.
#[test]
fn too_many_clients_wait_for_their_turn() {
    let _turn = turn::shared();
    let (server, port, pages) = (MockServer::echo(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}    maxconn 2\nlisten l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        exporter(pages),
        server.address()
    ));
    let first = connect_port(pages);
    let second = connect_port(pages);
    eventually("both are in", || {
        balancer.stat().number("prometheus", "FRONTEND", "scur") == 2
    });
    let third = connect_port(pages);
    write(
        &third,
        b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
    );
    echo(&connect_port(port), b"traffic goes on");
    let stat = balancer.stat();
    assert_eq!(stat.number("prometheus", "FRONTEND", "scur"), 2);
    assert_eq!(stat.number("prometheus", "FRONTEND", "smax"), 2);
    assert_eq!(stat.text("prometheus", "FRONTEND", "status"), "FULL");
    drop(first);
    let answer = read(&mut BufReader::new(&third), false).expect("an answer");
    assert_eq!(answer.status, 200);
    drop((second, third));
    balancer.settle();
}

/// Operators can have such a frontend wait, or shut it, as any other; the process's end closes it.
#[test]
fn a_frontend_of_pages_is_paused_shut_and_drained() {
    let _turn = turn::shared();
    let (pages, other) = (free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}listen other\n    mode http\n    bind 127.0.0.1:{other}\n    monitor-uri /alive\n",
        exporter(pages)
    ));
    assert_eq!(get(pages, "/metrics?scope=global").status, 200);
    balancer.stats("disable frontend prometheus");
    let waits = connect_port(pages);
    write(
        &waits,
        b"GET /metrics?scope=global HTTP/1.1\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(get(other, "/alive").status, 200);
    assert_eq!(balancer.stat().number("prometheus", "FRONTEND", "scur"), 0);
    balancer.stats("enable frontend prometheus");
    let answer = read(&mut BufReader::new(&waits), false).expect("an answer");
    assert_eq!(answer.status, 200);
    drop(waits);
    balancer.stats("shutdown frontend prometheus");
    eventually("nobody listens", || listeners_on(pages) == 0);
    // A request that is under way when the process drains is answered.
    let client = connect_port(other);
    let mut reader = BufReader::new(&client);
    write(&client, b"GET /alive HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(read(&mut reader, false).expect("an answer").status, 200);
    balancer.signal(Signal::SIGUSR1);
    assert!(read(&mut reader, false).is_none());
    eventually("nobody listens", || listeners_on(other) == 0);
}
