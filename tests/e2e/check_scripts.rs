//! Checks that speak: scripts and protocols, against servers that answer in every way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, is_tidegate, turn};

/// What a server does with a connection, one after the other.
#[derive(Clone, Copy)]
enum Do {
    /// Waits for something.
    Read,
    Send(&'static [u8]),
    /// The same, byte by byte.
    Trickle(&'static [u8]),
    /// So many bytes of one kind.
    Flood(usize),
    Close,
    Reset,
}
use Do::{Close, Flood, Read as Get, Reset, Send, Trickle};

fn serve(mut stream: TcpStream, acts: &[Do]) {
    let mut buffer = [0; 4096];
    for act in acts {
        let done = match act {
            Do::Read => matches!(stream.read(&mut buffer), Ok(1..)),
            Do::Send(bytes) => stream.write_all(bytes).is_ok(),
            Do::Trickle(bytes) => bytes.iter().all(|byte| {
                // TCP_NODELAY is set: each is a segment, and the next one comes after it.
                stream.write_all(&[*byte]).is_ok()
            }),
            Do::Flood(count) => stream.write_all(&vec![b'x'; *count]).is_ok(),
            Do::Close => return,
            Do::Reset => return crate::support::server::reset(stream),
        };
        if !done {
            return;
        }
    }
    // Until the check has ended.
    while let Ok(1..) = stream.read(&mut buffer) {}
}

/// A check, what the server does, and what `show stat` then says: status, code, text.
struct Case {
    lines: &'static str,
    acts: &'static [Do],
    found: [&'static str; 3],
    /// Whether HAProxy says otherwise, or nothing before its timeout.
    ours: bool,
}

const fn case(lines: &'static str, acts: &'static [Do], found: [&'static str; 3]) -> Case {
    Case {
        lines,
        acts,
        found,
        ours: false,
    }
}

const fn ours(lines: &'static str, acts: &'static [Do], found: [&'static str; 3]) -> Case {
    Case {
        lines,
        acts,
        found,
        ours: true,
    }
}

/// Runs all checks at once, each in a backend of its own, and compares what is found.
fn run(cases: &[Case]) {
    let _turn = turn::shared();
    let wanted = |case: &&Case| is_tidegate() || !case.ours;
    let cases: Vec<&Case> = cases.iter().filter(wanted).collect();
    let mut servers = Vec::new();
    let mut body = format!(
        "listen l\n    bind 127.0.0.1:{}\ndefaults\n    mode tcp\n    timeout connect 2s\n    \
         timeout server 2s\n    timeout check 2s\n",
        free_port()
    );
    for (index, case) in cases.iter().enumerate() {
        let acts = case.acts;
        let server = MockServer::start(move |stream| serve(stream, acts));
        body.push_str(&format!("backend b{index}\n"));
        for line in case.lines.lines() {
            let line = line.replace("PORT", &server.address().port().to_string());
            body.push_str(&format!("    {}\n", line.trim()));
        }
        let address = server.address();
        body.push_str(&format!("    server s {address} check inter 2s\n"));
        servers.push(server);
    }
    let balancer = Balancer::start(body);
    eventually("all are checked", || {
        let stat = balancer.stat();
        let status = |index| {
            stat.text(&format!("b{index}"), "s", "check_status")
                .to_owned()
        };
        (0..cases.len()).all(|index| !["INI", ""].contains(&status(index).trim_start_matches("* ")))
    });
    let stat = balancer.stat();
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let backend = format!("b{index}");
        let text = |column| stat.text(&backend, "s", column);
        let got = [
            text("check_status").trim_start_matches("* "),
            text("check_code"),
            text("last_chk"),
        ];
        if got != case.found {
            wrong.push(format!("{}\n  {got:?}, not {:?}", case.lines, case.found));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    balancer.settle();
}

const PING: &str = "option tcp-check
                    tcp-check send PING\\r\\n
                    tcp-check expect string +PONG";
const FOO: &str = "option tcp-check
                   tcp-check expect string foo";
const PASSED: [&str; 3] = ["L7OK", "0", "(tcp-check)"];

#[test]
fn scripts_find_what_their_steps_say() {
    let refused = [
        "L4CON",
        "",
        "Connection refused at step 3 of tcp-check (connect port 1)",
    ];
    run(&[
        case("option tcp-check", &[], ["L4OK", "", ""]),
        case(
            "option tcp-check\ntcp-check connect",
            &[],
            ["L4OK", "", "(tcp-check)"],
        ),
        // Whether it could be sent is all that is asked.
        case("option tcp-check\ntcp-check send QUIT\\r\\n", &[], PASSED),
        case(PING, &[Get, Send(b"+PONG\r\n")], PASSED),
        case(PING, &[Get, Trickle(b"+PONG\r\n")], PASSED),
        case(
            PING,
            &[Get, Send(b"-ERR\r\n"), Close],
            [
                "L7RSP",
                "",
                "TCPCHK did not match content '+PONG' at step 2",
            ],
        ),
        case(
            PING,
            &[Get, Close],
            ["L7RSP", "", "TCPCHK got an empty response at step 2"],
        ),
        case(
            PING,
            &[Get, Reset],
            [
                "SOCKERR",
                "",
                "Connection reset by peer at step 2 of tcp-check (expect string '+PONG')",
            ],
        ),
        case(
            FOO,
            &[Flood(40_000)],
            ["L7RSP", "", "TCPCHK did not match content 'foo' at step 1"],
        ),
        case(
            "option tcp-check
             tcp-check connect port PORT
             tcp-check expect string foo
             tcp-check connect port 1
             tcp-check expect string foo",
            &[Send(b"foo")],
            refused,
        ),
        case(
            "option tcp-check
             tcp-check connect
             tcp-check comment the-greeting
             tcp-check expect min-recv 3 rstring ^[fg]oo$",
            &[Send(b"bar")],
            [
                "L7RSP",
                "",
                "TCPCHK did not match content (regex) at step 3 comment: the-greeting",
            ],
        ),
        case(
            "option tcp-check
             tcp-check expect min-recv 1 ! binary 00ff",
            &[Send(b"a\x00\xff")],
            [
                "L7RSP",
                "",
                "TCPCHK matched unwanted content (binary) at step 1",
            ],
        ),
        case(
            "option tcp-check
             tcp-check send-binary 00ff41
             tcp-check expect on-success great rbinary ^00FF",
            &[Get, Send(b"\x00\xff")],
            ["L7OK", "0", "great"],
        ),
        case(
            "option tcp-check
             tcp-check expect min-recv 3 error-status L7STS on-error bad string foo",
            &[Send(b"bar")],
            ["L7STS", "0", "bad"],
        ),
        // What is sent begins another answer.
        case(
            "option tcp-check
             tcp-check expect string foo
             tcp-check expect string bar
             tcp-check send x
             tcp-check expect string foo",
            &[Send(b"foo bar"), Get, Send(b"bar"), Close],
            ["L7RSP", "", "TCPCHK did not match content 'foo' at step 4"],
        ),
    ]);
}

/// A greeting of MariaDB, and its answers to a login.
const GREETING: &[u8] = b"\x59\0\0\0\x0a5.5.5-10.11.6-MariaDB\0\x07\0\0\0abcdefgh\0\xfe\xf7\x2d\
    \x02\0\xff\x81\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0mysql_native_password\0";
const DENIED: &[u8] = b"\x1b\0\0\x02\xff\x15\x04#28000Access denied, bob";
const BIND: &[u8] = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";

#[test]
fn protocols_are_understood() {
    const REDIS: &str = "option redis-check";
    const SMTP: &str = "option smtpchk EHLO probe.test";
    const MYSQL: &str = "option mysql-check";
    const PGSQL: &str = "option pgsql-check user bob";
    const LDAP: &str = "option ldap-check";
    const TLS: &str = "option ssl-hello-chk";
    let hello = [
        Send(b"220 mx\r\n"),
        Get,
        Send(b"250-hi\r\n250 ok\r\n"),
        Get,
        Send(b"221 bye\r\n"),
        Close,
    ];
    let hello: &'static [Do] = Box::leak(Box::new(hello));
    run(&[
        case(
            REDIS,
            &[Get, Trickle(b"+PONG\r\n")],
            ["L7OK", "0", "Redis server is ok"],
        ),
        ours(
            REDIS,
            &[Get, Send(b"-NOAUTH Authentication required.\r\n")],
            ["L7STS", "0", "-NOAUTH Authentication required."],
        ),
        case(
            REDIS,
            &[Get, Reset],
            ["SOCKERR", "", "Connection reset by peer"],
        ),
        case(SMTP, hello, ["L7OK", "221", "bye"]),
        case(
            SMTP,
            &[Send(b"421 busy\r\n"), Close],
            ["L7STS", "421", "busy"],
        ),
        case(
            SMTP,
            &[Send(b"220 mx\r\n"), Get, Send(b"550 no\r\n"), Close],
            ["L7STS", "550", "no"],
        ),
        case(SMTP, &[Send(b"SSH-2.0-x\r\n")], ["L7RSP", "", "SSH-2.0-x"]),
        case(MYSQL, &[Trickle(GREETING)], ["L7OK", "0", ""]),
        ours(
            MYSQL,
            &[Send(b"HTTP/1.1 400 no\r\n")],
            ["L7RSP", "", "not a MySQL packet"],
        ),
        case(
            "option mysql-check user bob",
            &[Send(GREETING), Get, Send(b"\x07\0\0\x02\0\0\0\x02\0\0\0")],
            ["L7OK", "0", ""],
        ),
        ours(
            "option mysql-check user bob pre-41",
            &[Send(GREETING), Get, Send(DENIED), Close],
            ["L7STS", "1045", "Access denied, bob"],
        ),
        case(
            PGSQL,
            &[Get, Trickle(b"R\0\0\0\x08\0\0\0\0")],
            ["L7OK", "0", "PostgreSQL server is ok"],
        ),
        ours(
            PGSQL,
            &[Get, Send(b"E\0\0\0\x20SFATAL\0Mno way\0"), Close],
            ["L7RSP", "", "incomplete answer"],
        ),
        ours(
            PGSQL,
            &[Get, Send(b"E\0\0\0\x14SFATAL\0Mno way\0\0"), Close],
            ["L7RSP", "", "FATAL: no way"],
        ),
        case(
            PGSQL,
            &[Get, Send(b"HTTP/1.1 400 no\r\n")],
            ["L7STS", "0", "PostgreSQL unknown error"],
        ),
        case(LDAP, &[Get, Trickle(BIND)], ["L7OK", "0", ""]),
        case(
            LDAP,
            &[Get, Send(b"HTTP/1.1 400 no\r\n")],
            ["L7RSP", "", "Not LDAPv3 protocol"],
        ),
        case(
            TLS,
            &[Get, Trickle(b"\x15\x03\x01\0\x02\x02\x28")],
            ["L6OK", "", ""],
        ),
        ours(
            TLS,
            &[Get, Send(b"HTTP/1.1 400\r\n")],
            ["L6RSP", "", "not a TLS record"],
        ),
    ]);
}

#[test]
fn http_is_understood() {
    const PLAIN: &str = "option httpchk";
    const BODY: &str = "option httpchk GET /health HTTP/1.1
                        http-check send hdr Host a.test
                        http-check expect string all-well";
    run(&[
        case(
            PLAIN,
            &[Get, Send(b"HTTP/1.0 200 OK\r\n\r\n")],
            ["L7OK", "200", ""],
        ),
        case(
            PLAIN,
            &[Get, Trickle(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n")],
            ["L7OK", "302", ""],
        ),
        case(
            PLAIN,
            &[Get, Send(b"HTTP/1.1 503 Not Today\r\n\r\n"), Close],
            ["L7STS", "503", "Not Today"],
        ),
        case(PLAIN, &[Get, Send(b"SSH-2.0-x\r\n")], ["L7RSP", "", ""]),
        case(
            PLAIN,
            &[Get, Send(b"HTTP/1.1 200 OK\r\nA"), Close],
            ["L7RSP", "", ""],
        ),
        case(
            "option httpchk
             http-check expect ! rstatus ^5",
            &[Get, Send(b"HTTP/1.1 404 None\r\n\r\n")],
            ["L7OK", "404", ""],
        ),
        case(
            BODY,
            &[
                Get,
                Trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall-well"),
            ],
            ["L7OK", "200", ""],
        ),
        case(
            BODY,
            &[
                Get,
                Send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall-over"),
            ],
            ["L7RSP", "", "HTTP content check did not match"],
        ),
        case(
            BODY,
            &[Get, Send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")],
            [
                "L7RSP",
                "",
                "HTTP content check could not find a response body",
            ],
        ),
    ]);
}

/// Nothing comes, or not all of it: the check ends at `timeout check`, at its own step.
#[test]
fn who_does_not_answer_in_time_has_failed() {
    let _turn = turn::shared();
    let silent = MockServer::silent();
    let part = MockServer::start(|stream| serve(stream, &[Get, Send(b"+PO")]));
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    timeout check 200\n    timeout connect 300\n    \
         option tcp-check\n    tcp-check send PING\\r\\n\n    tcp-check expect string +PONG\n    \
         server a {} check inter 300 fall 1\n    server b {} check inter 300 fall 1\n\
         backend tls\n    timeout check 200\n    timeout connect 300\n    option ssl-hello-chk\n    \
         server a {} check inter 300 fall 1\n",
        silent.address(),
        part.address(),
        silent.address()
    );
    let balancer = Balancer::start(body);
    let found = [
        ("l", "a", "L7TOUT"),
        ("l", "b", "L7TOUT"),
        ("tls", "a", "L6TOUT"),
    ];
    for (backend, server, status) in found {
        eventually("it is down", || {
            balancer.stat().text(backend, server, "status") == "DOWN"
        });
        let stat = balancer.stat();
        let text = |column| stat.text(backend, server, column).to_owned();
        assert_eq!(text("check_status").trim_start_matches("* "), status);
        let place = match backend {
            "l" => " at step 2 of tcp-check (expect string '+PONG')",
            _ => "",
        };
        assert_eq!(text("last_chk"), place);
        let took_ms = stat.number(backend, server, "check_duration");
        assert!((200..2_000).contains(&took_ms), "{took_ms} ms");
    }
    // So that no check is under way.
    drop((silent, part));
    balancer.settle();
}

#[test]
fn a_refusal_is_told_with_the_servers_code_and_words() {
    let _turn = turn::shared();
    let is_well = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&is_well);
    let server = MockServer::start(move |stream| {
        let answer = match state.load(SeqCst) {
            true => "HTTP/1.1 200 OK\r\n\r\n",
            false => "HTTP/1.1 503 Gone \"away\"\r\n\r\n",
        };
        let _ = (&stream).read(&mut [0; 1024]);
        let _ = (&stream).write_all(answer.as_bytes());
        let _ = (&stream).read(&mut [0; 1024]);
    });
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option httpchk\n    \
         server a {} check inter 100 fall 2\n",
        syslog.address(),
        server.address()
    ));
    eventually("it is well", || {
        let stat = balancer.stat();
        stat.text("l", "a", "check_status").trim_start_matches("* ") == "L7OK"
    });
    is_well.store(false, SeqCst);
    let line = syslog.wait_line("Server l/a is DOWN");
    let reason = "is DOWN, reason: Layer7 wrong status, code: 503, info: \"Gone <22>away<22>\", \
                  check duration: ";
    assert!(line.contains(reason), "{line}");
    is_well.store(true, SeqCst);
    let line = syslog.wait_line("Server l/a is UP");
    let reason = "is UP, reason: Layer7 check passed, code: 200, check duration: ";
    assert!(line.contains(reason), "{line}");
    balancer.settle();
}

/// A check ends by a reset, unless it is asked for more or the protocol has a word for it.
#[test]
fn a_check_ends_as_it_should() {
    let _turn = turn::shared();
    type Seen = Arc<Mutex<Vec<(String, bool)>>>;
    let watching = |acts: &'static [Do]| {
        let seen = Seen::default();
        let noted = Arc::clone(&seen);
        let server = MockServer::start(move |mut stream: TcpStream| {
            let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
            for act in acts {
                match act {
                    Get => {
                        let count = stream.read(&mut buffer).unwrap_or(0);
                        got.extend_from_slice(&buffer[..count]);
                    }
                    Send(bytes) => drop(stream.write_all(bytes)),
                    _ => unreachable!("not used here"),
                }
            }
            let is_reset = loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break false,
                    Ok(count) => got.extend_from_slice(&buffer[..count]),
                    Err(_) => break true,
                }
            };
            let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((got.escape_ascii().to_string(), is_reset));
        });
        (server, seen)
    };
    let first = |seen: &Seen| {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.first().cloned()
    };
    let (plain, plain_seen) = watching(&[Send(b"foo")]);
    let (linger, linger_seen) = watching(&[Send(b"foo")]);
    let (mysql, mysql_seen) = watching(&[Send(GREETING)]);
    let (pgsql, pgsql_seen) = watching(&[Get, Send(b"R\0\0\0\x08\0\0\0\0")]);
    let script = "    option tcp-check\n    tcp-check connect";
    let expect = "    tcp-check expect string foo\n";
    let body = format!(
        "listen l\n    bind 127.0.0.1:{}\n\
         backend plain\n{script}\n{expect}    server s {} check\n\
         backend linger\n{script} linger\n{expect}    server s {} check\n\
         backend mysql\n    option mysql-check\n    server s {} check\n\
         backend pgsql\n    option pgsql-check user bob\n    server s {} check\n",
        free_port(),
        plain.address(),
        linger.address(),
        mysql.address(),
        pgsql.address()
    );
    let balancer = Balancer::start(body);
    let all = [&plain_seen, &linger_seen, &mysql_seen, &pgsql_seen];
    eventually("all are checked", || {
        all.iter().all(|seen| first(seen).is_some())
    });
    assert_eq!(first(&plain_seen), Some((String::new(), true)));
    assert_eq!(first(&linger_seen), Some((String::new(), false)));
    assert_eq!(first(&mysql_seen), Some((String::new(), false)));
    if is_tidegate() {
        let startup = "\\x00\\x00\\x00\\x12\\x00\\x03\\x00\\x00user\\x00bob\\x00\\x00";
        let (said, _) = first(&pgsql_seen).unwrap_or_default();
        assert_eq!(said, format!("{startup}X\\x00\\x00\\x00\\x04"));
    }
    balancer.settle();
}
