//! `log-format` and what else shapes lines: when they are written, ids, samples, tags, structured
//! data, errors before a session. What HAProxy has too is asked of it as well.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::support::balancer::{Setup, skip};
use crate::support::client::{self, connect_port, read_end};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, turn, wait_for};

/// A frontend `front` with these lines, and a backend `back` with a server `s1`; lines are raw.
fn logging(syslog: &Syslog, server: &str, lines: &str) -> (Balancer, u16) {
    let port = free_port();
    let balancer = Balancer::start(format!(
        "frontend front\n    bind 127.0.0.1:{port} name in\n    log {} format raw local0\n    \
         {lines}\n    default_backend back\nbackend back\n    retries 0\n    server s1 {server}\n",
        syslog.address()
    ));
    (balancer, port)
}

/// Ends a session in good order.
fn finish(client: &TcpStream) {
    client.shutdown(Shutdown::Write).unwrap();
    drop(read_end(client));
}

fn one_session(port: u16) -> TcpStream {
    let client = connect_port(port);
    client::echo(&client, b"12345");
    finish(&client);
    client
}

/// What is not a time, in one line.
#[test]
fn values_of_a_session() {
    let _turn = turn::shared();
    let (server, syslog) = (MockServer::echo(), Syslog::start());
    let format = "log-format 'v %ci:%cp  %fi:%fp %f/%ft %b/%s %si:%sp %bi %B/%U %ts \
                  %ac/%fc/%bc/%sc/%rc %sq/%bq %{+Q}f %{+X}ci %{+X}fp %ID %{+Q}ID 100%% %[src] \
                  %[dst_port] %[dst_port,add(1)] %[fe_name]-%[be_name] %{+Q}[str(\"a b\")] %[so_id]\
                  '";
    let (balancer, port) = logging(&syslog, &server.address().to_string(), format);
    let client = one_session(port).local_addr().unwrap();
    let line = syslog.wait_line("v 127.");
    let expected = format!(
        "v {client} 127.0.0.1:{port} front/front back/s1 {} 127.0.0.1 5/5 -- 1/1/0/0/0 0/0 \
         \"front\" 7F000001 {port:04X} - \"\" 100% 127.0.0.1 {port} {} front-back \"a b\" 1",
        server.address(),
        port + 1
    );
    assert_eq!(line, expected);
    balancer.settle();
}

/// Whether a line is there while the session is open.
fn line_of_an_open_session(lines: &str) -> Option<String> {
    let (server, syslog) = (MockServer::echo(), Syslog::start());
    let (balancer, port) = logging(&syslog, &server.address().to_string(), lines);
    let client = connect_port(port);
    client::echo(&client, b"12345");
    let early = wait_for(Duration::from_millis(300), || {
        syslog.lines().first().cloned()
    });
    finish(&client);
    eventually("there is a line", || syslog.received() > 0);
    balancer.settle();
    assert_eq!(syslog.received(), 1, "{:?}", syslog.lines());
    early
}

#[test]
fn a_line_is_written_when_what_it_shows_is_known() {
    let _turn = turn::shared();
    for (lines, expected) in [
        ("log-format '%s %b'", Some("s1 back")),
        ("log-format hello", Some("hello")),
        ("log-format '%B %s'", None),
        ("log-format '%s %ts'", None),
        (
            "option logasap\n    log-format '%B %ts %s'",
            Some("+0 -- s1"),
        ),
    ] {
        let line = line_of_an_open_session(lines);
        assert_eq!(line.as_deref(), expected, "{lines}");
    }
    let line = line_of_an_open_session("option logasap\n    option tcplog").expect("a line");
    assert!(line.contains(" +0 -- 1/1/1/1/0 0/0"), "{line}");
    let total = line.split(' ').nth(4).expect("times");
    assert!(
        total.split('/').nth(2).is_some_and(|t| t.starts_with('+')),
        "{line}"
    );
}

#[test]
fn a_session_without_a_server_has_its_line_at_the_end() {
    let _turn = turn::shared();
    let (syslog, dead) = (Syslog::start(), free_port());
    let lines = "option logasap\n    log-format '%s %ts %B'";
    let (balancer, port) = logging(&syslog, &format!("127.0.0.1:{dead}"), lines);
    drop(read_end(&connect_port(port)));
    assert_eq!(syslog.wait_line("s1"), "s1 SC +0");
    balancer.settle();
    assert_eq!(syslog.received(), 1);
}

#[test]
fn ids_are_those_of_their_form_and_differ() {
    let _turn = turn::shared();
    let (server, syslog) = (MockServer::echo(), Syslog::start());
    let lines = "unique-id-format %{+X}o%ci-%Ts-%rt\n    log-format 'id %ID|%{+Q}[unique-id]|%B'";
    let (balancer, port) = logging(&syslog, &server.address().to_string(), lines);
    for _ in 0..30 {
        one_session(port);
    }
    eventually("all lines are there", || syslog.received() == 30);
    let ids: BTreeSet<String> = syslog
        .lines()
        .iter()
        .map(|line| {
            let mut parts = line.strip_prefix("id ").expect("a line").split('|');
            let id = parts.next().unwrap().to_owned();
            assert_eq!(parts.next(), Some(format!("\"{id}\"").as_str()));
            assert!(id.starts_with("7F000001-"), "{id}");
            id
        })
        .collect();
    assert_eq!(ids.len(), 30);
    balancer.settle();
}

/// Each proxy counts its own lines, also for a target that all share.
#[test]
fn a_target_gets_its_sample_of_the_lines_of_each_proxy() {
    let _turn = turn::shared();
    let (server, syslog) = (MockServer::echo(), Syslog::start());
    let ports = [free_port(), free_port()];
    let proxy = |name: &str, port| {
        format!(
            "listen {name}\n    bind 127.0.0.1:{port}\n    log global\n    \
             log-format '{name} %cp %B'\n    server s {}\n",
            server.address()
        )
    };
    let target = format!("log {} format raw sample 2-3:4 local0", syslog.address());
    let proxies = proxy("a", ports[0]) + &proxy("b", ports[1]);
    let balancer = Setup::new(proxies).global(target).start();
    let mut expected = Vec::new();
    for number in 1..=8 {
        for (name, port) in ["a", "b"].into_iter().zip(ports) {
            let from = one_session(port).local_addr().unwrap().port();
            balancer.settle();
            if [2, 3, 6, 7].contains(&number) {
                expected.push(format!("{name} {from} 5"));
                eventually("its line is there", || {
                    syslog.received() == expected.len() as u64
                });
            }
        }
    }
    assert_eq!(syslog.lines(), expected);
}

#[test]
fn a_proxy_has_a_tag_of_its_own_and_structured_data() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} format rfc5424 local0\n    log-tag edge7\n    \
         log-format 'end %B'\n    log-format-sd '%{{+Q,+E}}o [ex@1 c=%ci f=%f]'\n    \
         server s {}\n",
        syslog.address(),
        server.address()
    ));
    one_session(port);
    let line = syslog.wait_line("end 5");
    let rest = format!(
        " - edge7 {} - [ex@1 c=\"127.0.0.1\" f=\"l\"] end 5",
        balancer.pid()
    );
    assert!(line.ends_with(&rest), "{line}");
    balancer.settle();
}

#[test]
fn errors_before_a_session_have_a_form_of_their_own() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    log {} format raw local0\n    \
         error-log-format 'e %ci:%cp %f %s %ts %B %[fc_err] %{{+Q}}[fc_err_str]'\n    \
         server s {}\n",
        syslog.address(),
        server.address()
    ));
    for (sent, number, text) in [
        (
            "GET / HTTP/1.0\r\n\r\n",
            15,
            "Received something which does not look like a",
        ),
        ("PROXY TCP4 127.0.0.1 x\r\n", 16, "Received an invalid"),
    ] {
        let mut client = connect_port(port);
        let from = client.local_addr().unwrap();
        client.write_all(sent.as_bytes()).unwrap();
        drop(read_end(&client));
        let expected = format!("e {from} l <NOSRV> PR 0 {number} \"{text} PROXY protocol header\"");
        assert_eq!(syslog.wait_line(text), expected);
    }
    balancer.settle();
}

#[test]
fn a_line_may_be_a_json_object() {
    if skip("names and JSON came with HAProxy 3.0") {
        return;
    }
    let _turn = turn::shared();
    let (server, syslog) = (MockServer::echo(), Syslog::start());
    let lines = "log-format '%{+json}o %(client)ci %(port)cp %(up)U %(down)B %(total)Tt %(end)ts \
                 %(id)ID %(kind)[str(\"tcp \\\"\")] %(front)f %(text:str)sp %(authority)\
                 [fc_pp_authority]'";
    let (balancer, port) = logging(&syslog, &server.address().to_string(), lines);
    let client = one_session(port).local_addr().unwrap();
    let line = syslog.wait_line("client");
    let object: Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(object["client"], "127.0.0.1");
    assert_eq!(object["port"], client.port());
    assert_eq!(
        (&object["up"], &object["down"]),
        (&Value::from(5), &Value::from(5))
    );
    assert!(object["total"].is_u64(), "{line}");
    assert_eq!(
        (&object["end"], &object["kind"]),
        (&"--".into(), &"tcp \"".into())
    );
    assert_eq!(object["text"], server.address().port().to_string());
    assert!(
        object["id"].is_null() && object["authority"].is_null(),
        "{line}"
    );
    balancer.settle();
}

/// What a peer says of itself can't break a line.
#[test]
fn bytes_of_peers_stay_in_their_place() {
    if skip("HAProxy refuses such a host name, or shows it otherwise") {
        return;
    }
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::echo(), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    log {log} format raw local0\n    \
         log-format 'n %{{+Q}}[fc_pp_authority] %[src] %Th %B'\n    server s {server}\n",
        log = syslog.address(),
        server = server.address()
    ));
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x18".to_vec();
    header.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 7, 0, 8]);
    header.extend(b"\x02\0\x09a\"\n%ci\xff#]");
    let mut client = connect_port(port);
    client.write_all(&header).unwrap();
    client::echo(&client, b"12345");
    finish(&client);
    let line = syslog.wait_line("n ");
    assert!(
        line.starts_with("n \"a#22#0A%ci#FF#23]\" 192.0.2.1 "),
        "{line}"
    );
    balancer.settle();
}
