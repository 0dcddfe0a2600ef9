//! Frontends in `mode http` over a reload: they come, go and change as all others do, and who has
//! asked is answered.

use std::io::BufReader;
use std::net::TcpStream;

use crate::metrics::exporter;
use crate::reload::{change, reload, rewrite};
use crate::support::balancer::Setup;
use crate::support::client::{self, connect_port, echo, local, write};
use crate::support::http::{Answer, get, read};
use crate::support::port::{free_port, listeners_on};
use crate::support::{Balancer, MockServer, eventually, is_tidegate, turn};

/// A frontend `p` that says at `uri` that the process is alive.
pub(crate) fn alive(port: u16, uri: &str) -> String {
    format!(
        "frontend p\n    mode http\n    bind 127.0.0.1:{port}\n    monitor-uri {uri}\n    \
         timeout client 60s\n"
    )
}

fn request(client: &TcpStream, uri: &str) {
    write(
        client,
        format!("GET {uri} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes(),
    );
}

fn asked(client: &TcpStream, uri: &str) -> Answer {
    request(client, uri);
    answer(client).expect("an answer")
}

fn answer(client: &TcpStream) -> Option<Answer> {
    read(&mut BufReader::new(client), false)
}

fn closes(answer: &Answer) -> bool {
    answer.headers.get("connection").map(String::as_str) == Some("close")
}

#[test]
fn pages_come_change_and_go() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let [first, second, metrics] = [(); 3].map(|()| free_port());
    let listen = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    // There is no thread for pages yet.
    let balancer = Balancer::start(listen.as_str());
    change(&balancer, &(alive(first, "/a") + &listen));
    assert_eq!(get(first, "/a").status, 200);
    let client = connect_port(first);
    assert_eq!(asked(&client, "/a").status, 200);
    change(
        &balancer,
        &(exporter(metrics) + &alive(first, "/a") + &listen),
    );
    assert_eq!(get(metrics, "/metrics").status, 200);
    // What is answered is what the file says now, to who was there before, too.
    change(
        &balancer,
        &(alive(first, "/b") + &listen + &exporter(metrics)),
    );
    let text = balancer.stats("show reload");
    assert!(text.contains("frontend p changed: pages"), "{text}");
    for (uri, status) in [("/a", 404), ("/b", 200)] {
        assert_eq!(asked(&client, uri).status, status, "{uri}");
        assert_eq!(get(first, uri).status, status, "{uri}");
    }
    let stat = balancer.stat();
    assert_eq!(stat.number("p", "FRONTEND", "stot"), 4);
    // An address that can't be had changes nothing.
    let taken = server.address().port();
    rewrite(&balancer, &Setup::new(alive(taken, "/c") + &listen));
    let refused = reload(&balancer);
    assert!(refused.starts_with("Success=0\n--\n"), "{refused}");
    assert_eq!(get(first, "/b").status, 200);
    assert_eq!(get(metrics, "/metrics").status, 200);
    // Another address: the clients of the one before stay.
    change(
        &balancer,
        &(alive(second, "/b") + &listen + &exporter(metrics)),
    );
    assert_eq!(get(second, "/b").status, 200);
    assert_eq!(listeners_on(first), 0);
    let stays = asked(&client, "/b");
    assert!(stays.status == 200 && !closes(&stays));
    // It goes: a client that has its answer is told to go.
    change(&balancer, &(listen.clone() + &exporter(metrics)));
    assert!(answer(&client).is_none());
    assert_eq!(listeners_on(second), 0);
    assert!(client::try_connect(local(second)).is_err());
    eventually("the frontend is gone", || {
        !balancer.stats("show stat").contains("\np,")
    });
    assert_eq!(get(metrics, "/metrics").status, 200);
    echo(&connect_port(port), b"and traffic passes");
}

/// Another mode makes it another frontend, which has the address of the one before.
#[test]
fn an_address_of_pages_becomes_one_of_traffic_and_back() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let traffic = format!(
        "listen p\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let pages = alive(port, "/a").replace("frontend p", "listen p");
    let balancer = Balancer::start(pages.as_str());
    let held = listeners_on(port);
    for turn in 0_u8..3 {
        assert_eq!(get(port, "/a").status, 200);
        change(&balancer, &traffic);
        let stream = connect_port(port);
        echo(&stream, &[turn; 100]);
        change(&balancer, &pages);
        assert_eq!(get(port, "/a").status, 200);
        echo(&stream, &[turn; 100]);
    }
    // Its sockets were handed on, not opened anew.
    assert_eq!(listeners_on(port), held);
    eventually("those before are gone", || {
        balancer.stats("show stat").matches("\np,FRONTEND,").count() == 1
    });
    balancer.settle();
}

#[test]
fn who_has_not_been_answered_is_answered_first() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port, pages) = (MockServer::echo(), free_port(), free_port());
    let listen = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(alive(pages, "/a") + &listen);
    let [silent, half, between] = [(); 3].map(|()| connect_port(pages));
    write(&half, b"GET /a HTTP/1.1\r\nHo");
    assert_eq!(asked(&between, "/a").status, 200);
    eventually("all have come", || {
        balancer.stat().number("p", "FRONTEND", "scur") == 3
    });
    change(&balancer, &listen);
    assert!(answer(&between).is_none());
    assert_eq!(balancer.stat().text("p", "FRONTEND", "status"), "STOP");
    write(&half, b"st: t\r\n\r\n");
    request(&silent, "/a");
    for client in [&half, &silent] {
        let last = answer(client).expect("an answer");
        assert!(last.status == 200 && closes(&last), "{last:?}");
        assert!(answer(client).is_none());
    }
    eventually("the frontend is gone", || {
        !balancer.stats("show stat").contains("\np,")
    });
    balancer.settle();
}

/// Who waits in the queue of a socket is taken from it before it is closed, and for room as long as
/// it takes.
#[test]
fn a_queue_is_emptied_before_its_socket_is_closed() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port, pages) = (MockServer::echo(), free_port(), free_port());
    let listen = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let bounded = alive(pages, "/a") + "    maxconn 1\n    backlog 64\n";
    let balancer = Balancer::start(bounded + &listen);
    let first = connect_port(pages);
    assert_eq!(asked(&first, "/a").status, 200);
    let queued: Vec<TcpStream> = (0..20).map(|_| connect_port(pages)).collect();
    queued.iter().for_each(|client| request(client, "/a"));
    change(&balancer, &listen);
    for client in &queued {
        let last = answer(client).expect("an answer");
        assert!(last.status == 200 && closes(&last), "{last:?}");
    }
    assert!(answer(&first).is_none());
    assert_eq!(listeners_on(pages), 0);
    drop((first, queued));
    balancer.settle();
}

/// An answer that its client has not read yet arrives in whole.
#[test]
fn a_long_answer_is_sent_to_its_end() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port, pages) = (MockServer::echo(), free_port(), free_port());
    let lines = (0..400).map(|n| format!("    server s{n} {}\n", server.address()));
    let listen = format!(
        "listen l\n    bind 127.0.0.1:{port}\n{}",
        lines.collect::<String>()
    );
    let balancer = Balancer::start(exporter(pages) + "    timeout client 60s\n" + &listen);
    let client = connect_port(pages);
    request(&client, "/metrics");
    let bytes_out = || balancer.stat().number("prometheus", "FRONTEND", "bout");
    eventually("the answer has begun", || bytes_out() > 0);
    change(&balancer, &listen);
    let last = answer(&client).expect("an answer");
    assert_eq!(last.status, 200);
    assert!(last.body.len() > 2_000_000, "{}", last.body.len());
    assert!(last.body.contains("server=\"s399\""));
    assert!(answer(&client).is_none());
    drop(client);
    eventually("the frontend is gone", || {
        !balancer.stats("show stat").contains("\nprometheus,")
    });
    balancer.settle();
}
