//! Checks beside everything else that a server may have: PROXY headers, port ranges, agents,
//! traffic that is observed, circuits, servers that track it, sockets that are files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{connect_port, read_bytes, read_end};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, skip, turn};

const OURS: &str = "max-fails and fail-timeout are Tidegate's own";

/// A check that says `HI` and waits for `foo`.
const SCRIPT: &str =
    "    option tcp-check\n    tcp-check send HI\n    tcp-check expect string foo\n";

/// Says `foo` to everybody.
fn says_foo() -> MockServer {
    MockServer::start(|mut stream: TcpStream| {
        let _ = stream.write_all(b"foo");
        let _ = stream.read(&mut [0; 16]);
        let _ = stream.read(&mut [0; 16]);
    })
}

fn status(balancer: &Balancer, server: &str, column: &str) -> String {
    let stat = balancer.stat();
    let text = stat.text("l", server, column);
    text.trim_start_matches("* ").to_owned()
}

/// Which header the connection of a check begins with: as HAProxy has it, a `connect` that isn't
/// `default` takes nothing from the server, and one that asks for a header gets the server's.
#[test]
fn connections_of_scripts_begin_with_the_header_that_they_ask_for() {
    let _turn = turn::shared();
    let (tcp, http) = ("option tcp-check", "option httpchk");
    let cases = [
        ("send-proxy", tcp, "", 1),
        ("send-proxy-v2", tcp, "", 2),
        ("send-proxy", tcp, "connect", 0),
        ("send-proxy", tcp, "connect linger", 0),
        ("send-proxy", tcp, "connect port PORT", 0),
        ("send-proxy", tcp, "connect default", 1),
        ("send-proxy-v2", tcp, "connect default", 2),
        ("send-proxy", tcp, "connect default port PORT", 1),
        ("", tcp, "connect send-proxy", 1),
        ("send-proxy-v2", tcp, "connect send-proxy", 2),
        ("check-send-proxy", tcp, "connect", 0),
        ("check-send-proxy", tcp, "connect default", 1),
        ("check-send-proxy send-proxy-v2", tcp, "connect", 0),
        ("check-send-proxy send-proxy-v2", tcp, "connect default", 2),
        // Another address than the server's expects none, unless told.
        ("send-proxy port PORT", tcp, "", 0),
        ("send-proxy port PORT", tcp, "connect default", 0),
        ("send-proxy port PORT", tcp, "connect send-proxy", 1),
        ("check-send-proxy port PORT", tcp, "", 1),
        ("check-send-proxy send-proxy-v2 port PORT", tcp, "", 2),
        ("send-proxy", "option redis-check", "", 1),
        ("send-proxy-v2", "option redis-check", "", 2),
        ("send-proxy port PORT", "option redis-check", "", 0),
        ("check-send-proxy port PORT", "option redis-check", "", 1),
        ("send-proxy", "option ssl-hello-chk", "", 1),
        ("send-proxy", http, "", 1),
        ("send-proxy", http, "connect", 0),
        ("send-proxy", http, "connect default", 1),
        ("send-proxy", http, "connect send-proxy", 1),
    ];
    let mut body = format!("listen l\n    bind 127.0.0.1:{}\n", free_port());
    let mut servers = Vec::new();
    for (index, (words, option, connect, _)) in cases.iter().enumerate() {
        let server = MockServer::hold();
        let (keyword, send) = match *option {
            "option tcp-check" => ("tcp-check", "    tcp-check send HI\n"),
            _ => ("http-check", ""),
        };
        let mut text = format!("backend b{index}\n    {option}\n");
        if !connect.is_empty() {
            text.push_str(&format!("    {keyword} {connect}\n"));
        }
        // The answer that is waited for keeps the connection until it is looked at.
        let expect = if send.is_empty() {
            ""
        } else {
            "    tcp-check expect string foo\n"
        };
        let address = server.address();
        text.push_str(&format!(
            "{send}{expect}    server s {address} check {words}\n"
        ));
        body.push_str(&text.replace("PORT", &address.port().to_string()));
        servers.push(server);
    }
    let setup = Setup::new(body).global_of_ours("tune.first-checks-wait 0");
    let balancer = setup.start();
    for ((words, option, connect, expected), server) in cases.iter().zip(&servers) {
        let version = match read_bytes(&server.next(), 2).as_slice() {
            b"PR" => 1,
            b"\r\n" => 2,
            _ => 0,
        };
        assert_eq!(version, *expected, "{words} / {option} / {connect}");
    }
    drop(servers);
    balancer.settle();
}

/// Without `timeout check` the interval bounds all of a check, and nothing else does.
#[test]
fn the_connect_of_a_script_has_the_bound_of_any_other_checks() {
    let _turn = turn::shared();
    let hole = MockServer::black_hole();
    let server = format!("server s {} check inter 600ms", hole.address());
    let backend = |name: &str, lines: &str| {
        format!("backend {name}\n    timeout connect 50\n{lines}    {server}\n")
    };
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{}\n{}{}{}{}",
        free_port(),
        backend("plain", ""),
        backend("script", SCRIPT),
        backend("short", "    timeout check 5s\n"),
        backend("short_script", &format!("    timeout check 5s\n{SCRIPT}")),
    ));
    for (name, least, most) in [
        ("plain", 590, u64::MAX),
        ("script", 590, u64::MAX),
        ("short", 40, 589),
        ("short_script", 40, 589),
    ] {
        let cell = |column: &str| balancer.stat().text(name, "s", column).to_owned();
        eventually(name, || cell("check_status").ends_with("L4TOUT"));
        let took_ms = balancer.stat().number(name, "s", "check_duration");
        assert!((least..=most).contains(&took_ms), "{name}: {took_ms} ms");
    }
    drop(hole);
}

/// Each connection of a script takes a port of the server's range, and gives it back: one is
/// enough for all that follow each other.
#[test]
fn scripts_give_their_ports_back() {
    let _turn = turn::shared();
    let (good, bad) = (says_foo(), MockServer::silent());
    let script = "    option tcp-check\n    tcp-check connect\n    tcp-check expect string foo\n    \
                  tcp-check connect\n    tcp-check expect string foo\n";
    let backend = |name: &str, timeout: &str, server: &MockServer| {
        let port = free_port();
        let source = format!("source 127.0.5.7:{port}-{port}");
        let address = server.address();
        format!(
            "backend {name}\n    timeout check {timeout}\n{script}    \
             server s {address} check inter 20 {source}\n"
        )
    };
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{}\n{}{}",
        free_port(),
        backend("good", "5s", &good),
        backend("bad", "20", &bad),
    ));
    eventually("many checks", || {
        good.accepted() > 60 && bad.accepted() > 30
    });
    let stat = balancer.stat();
    let status = |name| {
        stat.text(name, "s", "check_status")
            .trim_start_matches("* ")
    };
    assert_eq!([status("good"), status("bad")], ["L7OK", "L7TOUT"]);
    assert_eq!(stat.number("good", "s", "chkfail"), 0);
    balancer.settle();
}

/// Whatever way a probe fails, it leaves nothing behind.
#[test]
fn a_thousand_probes_that_fail_leave_nothing() {
    let _turn = turn::shared();
    let seen = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counts = |work: fn(TcpStream)| {
        let seen = Arc::clone(&seen);
        MockServer::start(move |stream| {
            seen.fetch_add(1, Relaxed);
            work(stream);
        })
    };
    let wrong = counts(|mut stream| drop(stream.write_all(b"bar")));
    let closes = counts(drop);
    let resets = counts(crate::support::server::reset);
    let silent =
        counts(|mut stream| drop(stream.read(&mut [0; 64]).map(|_| stream.read(&mut [0]))));
    let dir = TempDir::new();
    let (nobody, nothing) = (free_port(), dir.path().join("nothing"));
    let mut body = format!("listen l\n    bind 127.0.0.1:{}\n", free_port());
    for (index, option) in [SCRIPT, "    option redis-check\n", ""].iter().enumerate() {
        body.push_str(&format!(
            "backend b{index}\n    timeout check 5\n{option}    default-server check inter 5\n"
        ));
        for (name, server) in [&wrong, &closes, &resets, &silent].iter().enumerate() {
            let (address, port) = (server.address(), server.address().port());
            body.push_str(&format!(
                "    server s{name} {address} agent-check agent-port {port} agent-inter 5\n"
            ));
        }
        body.push_str(&format!(
            "    server t 127.0.0.1:{nobody} agent-check agent-port {nobody} agent-inter 5\n    \
             server u {}\n",
            nothing.display()
        ));
    }
    let balancer = Balancer::start(body);
    eventually("a thousand", || seen.load(Relaxed) > 1000);
    // What is under way is bounded by the servers: 12 checks and as many agents.
    let before = balancer.descriptors();
    eventually("a thousand more", || seen.load(Relaxed) > 2000);
    let after = balancer.descriptors();
    assert!(after <= before + 24, "{before} descriptors, then {after}");
    drop((wrong, closes, resets, silent));
    balancer.settle();
}

/// Errors of traffic take the server down while its script waits: nobody waits for that any more.
#[test]
fn errors_end_a_script_that_is_under_way() {
    let _turn = turn::shared();
    let (checked, port) = (MockServer::silent(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    retries 0\n    timeout check 50s\n{SCRIPT}    \
         server a 127.0.0.1:{} check port {} inter 50s downinter 100 observe layer4 error-limit 3 \
         on-error mark-down\n",
        free_port(),
        checked.address().port()
    );
    let setup = Setup::new(body).global_of_ours("tune.first-checks-wait 0");
    let balancer = setup.start();
    eventually("its check is under way", || checked.running() == 1);
    for _ in 0..3 {
        assert!(read_end(&connect_port(port)).0.is_empty());
    }
    eventually("it is down", || {
        status(&balancer, "a", "status").starts_with("DOWN")
    });
    if !skip("it lets the check under way go on") {
        eventually("the next one begins", || checked.accepted() > 1);
        assert!(checked.running() <= 1, "the first one goes on");
    }
    drop(checked);
    balancer.settle();
}

/// Everybody who may speak of a server has to say that it is up, and who tracks it follows.
#[test]
fn checks_agent_and_circuit_have_to_agree() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let words = Arc::new(Mutex::new("up\n"));
    let said = Arc::clone(&words);
    let say = |text| *words.lock().unwrap_or_else(PoisonError::into_inner) = text;
    let agent = MockServer::start(move |mut stream: TcpStream| {
        let words = *said.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.write_all(words.as_bytes());
    });
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let checked = MockServer::start(move |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 2]);
        let words: &[u8] = if well.load(Relaxed) { b"foo" } else { b"bar" };
        let _ = stream.write_all(words);
    });
    let (mut server, syslog, port) = (MockServer::named("a"), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    retries 0\n    timeout check 5s\n\
         {SCRIPT}    server a {} check port {} inter 50 fall 1 rise 1 agent-check agent-port {} \
         agent-inter 50 max-fails 1 fail-timeout 300ms\nbackend f\n    server f {} track l/a\n",
        syslog.address(),
        server.address(),
        checked.address().port(),
        agent.address().port(),
        server.address()
    ));
    let is = |up: bool| {
        eventually("both are so", || {
            let stat = balancer.stat();
            let own = stat.text("l", "a", "status").starts_with("UP");
            let follower = stat.text("f", "f", "status").starts_with("UP");
            own == up && follower == up
        });
    };
    let stays_down = |what: &str| {
        let (checks, agents) = (checked.accepted(), agent.accepted());
        eventually(what, || {
            checked.accepted() > checks + 3 && agent.accepted() > agents + 3
        });
        is(false);
    };
    is(true);
    say("down\n");
    is(false);
    is_well.store(false, Relaxed);
    eventually("the check fails", || {
        status(&balancer, "a", "check_health") == "0"
    });
    say("up\n");
    stays_down("the check is against it");
    is_well.store(true, Relaxed);
    is(true);
    // The circuit opens; check and agent find nothing wrong.
    server.stop();
    assert!(read_end(&connect_port(port)).0.is_empty());
    is(false);
    stays_down("the circuit is against it");
    say("down\n");
    eventually("it says so", || {
        status(&balancer, "a", "agent_status") == "L7STS"
    });
    server.restart();
    eventually("the circuit's probe has passed", || server.accepted() > 0);
    stays_down("the agent is against it");
    say("up\n");
    is(true);
    assert_eq!(read_end(&connect_port(port)).0, b"a");
    assert_eq!(balancer.stat().number("l", "a", "chkdown"), 2);
    balancer.settle();
}

/// A script speaks to a Unix socket as to a port, of the server or of `addr`.
#[test]
fn scripts_speak_to_unix_sockets() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut got = [0; 2];
            let answer = match stream.read_exact(&mut got) {
                Ok(()) if &got == b"HI" => b"foo",
                _ => b"bar",
            };
            let _ = stream.write_all(answer);
        }
    });
    let path = path.display();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{}\n{SCRIPT}    server own unix@{path} check inter 50\n    \
         server other 127.0.0.1:{} check addr unix@{path} inter 50\n",
        free_port(),
        free_port()
    ));
    for server in ["own", "other"] {
        eventually(server, || {
            status(&balancer, server, "check_status") == "L7OK"
        });
    }
    balancer.settle();
}
