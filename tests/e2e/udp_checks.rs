//! Checks of servers in `mode udp`: by datagrams, against servers that answer, are silent or
//! refuse, and over TCP where a port is given. HAProxy has none of it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, skip, turn};

const OURS: &str = "mode udp is Tidegate's own";
/// What version 2 of the PROXY protocol begins with, and its LOCAL header without addresses.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What a server makes of a datagram; the number says how many came before it.
type Manner = fn(usize, &[u8]) -> Option<Vec<u8>>;

/// A server of datagrams on an address of its own.
struct Responder {
    address: SocketAddr,
    manner: Manner,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    fn start(manner: Manner) -> Responder {
        let mut responder = Responder {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            manner,
            heard: Arc::default(),
            ends: Arc::default(),
            thread: None,
        };
        responder.restart();
        responder
    }

    /// Listens again, where it did before.
    fn restart(&mut self) {
        let socket = UdpSocket::bind(self.address).unwrap();
        self.address = socket.local_addr().unwrap();
        let bound = Some(Duration::from_millis(20));
        socket.set_read_timeout(bound).unwrap();
        self.ends.store(false, SeqCst);
        let (manner, heard) = (self.manner, Arc::clone(&self.heard));
        let ends = Arc::clone(&self.ends);
        self.thread = Some(std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !ends.load(SeqCst) {
                let Ok((count, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let before = {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.push(buffer[..count].to_vec());
                    heard.len() - 1
                };
                if let Some(answer) = manner(before, &buffer[..count]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        }));
    }

    /// Closes its socket: what is sent there is refused.
    fn stop(&mut self) {
        self.ends.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        let heard = self.heard.lock();
        heard.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop();
    }
}

fn silent(_: usize, _: &[u8]) -> Option<Vec<u8>> {
    None
}

fn pong(_: usize, asked: &[u8]) -> Option<Vec<u8>> {
    (asked == b"ping").then(|| b"pong".to_vec())
}

/// The datagram before was lost.
fn pong_to_the_second(before: usize, asked: &[u8]) -> Option<Vec<u8>> {
    (before > 0).then(|| pong(before, asked)).flatten()
}

fn pong_behind_a_header(before: usize, asked: &[u8]) -> Option<Vec<u8>> {
    pong(before, asked.strip_prefix(LOCAL)?)
}

/// An answer of DNS with this code, after one to another question.
fn dns<const CODE: u8>(_: usize, query: &[u8]) -> Option<Vec<u8>> {
    let is_query = query.len() > 12 && query[2..4] == [1, 0] && query[4..6] == [0, 1];
    is_query.then(|| {
        let mut answer = query.to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80 | CODE]);
        answer
    })
}

/// An answer of KRPC to a ping, with the ping's transaction.
fn node(_: usize, query: &[u8]) -> Option<Vec<u8>> {
    let at = query.windows(5).position(|part| part == b"1:t2:")? + 5;
    let transaction = query.get(at..at + 2)?;
    let is_ping = query.windows(10).any(|part| part == b"1:q4:ping2");
    is_ping.then(|| {
        [
            b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:",
            transaction,
            b"1:y1:re",
        ]
        .concat()
    })
}

fn broken_node(before: usize, query: &[u8]) -> Option<Vec<u8>> {
    let answer = node(before, query)?;
    let transaction = &answer[answer.len() - 9..answer.len() - 7];
    Some([b"d1:eli202e6:brokene1:t2:", transaction, b"1:y1:ee"].concat())
}

/// A check, the words of its server, what that does, and what `show stat` then says: status, code,
/// text.
struct Case {
    lines: &'static str,
    words: &'static str,
    manner: Option<Manner>,
    found: [&'static str; 3],
}

const fn case(
    lines: &'static str,
    words: &'static str,
    manner: Option<Manner>,
    found: [&'static str; 3],
) -> Case {
    Case {
        lines,
        words,
        manner,
        found,
    }
}

const PING: &str = "option udp-check
                    udp-check send ping
                    udp-check expect string pong";
const BINARY: &str = "option udp-check
                      udp-check send-binary 70696e67
                      udp-check expect rstring ^p[o-q]ng$";
const SENDS: &str = "option udp-check
                     udp-check send ping";
const DNS: &str = "option dns-check example.org";
const DHT: &str = "option dht-check";
const PASSED: [&str; 3] = ["L7OK", "0", "(udp-check)"];

const CASES: &[Case] = &[
    case("", "", Some(silent), ["L4OK", "", ""]),
    case("", "", Some(pong), ["L4OK", "", ""]),
    case("", "", None, ["L4CON", "", "Connection refused"]),
    case(SENDS, "", Some(silent), ["L4OK", "", "(udp-check)"]),
    case(PING, "", Some(pong), PASSED),
    case(PING, "", Some(pong_to_the_second), PASSED),
    case(PING, "send-proxy-v2", Some(pong_behind_a_header), PASSED),
    case(BINARY, "", Some(pong), PASSED),
    case(
        PING,
        "",
        Some(|_, _| Some(b"busy".to_vec())),
        ["L7RSP", "", "UDPCHK did not match content 'pong' at step 2"],
    ),
    case(
        PING,
        "",
        Some(silent),
        [
            "L7TOUT",
            "",
            " at step 2 of udp-check (expect string 'pong')",
        ],
    ),
    case(
        PING,
        "",
        None,
        [
            "L4CON",
            "",
            "Connection refused at step 2 of udp-check (expect string 'pong')",
        ],
    ),
    case(DNS, "", Some(dns::<0>), ["L7OK", "0", "NOERROR"]),
    case(DNS, "", Some(dns::<3>), ["L7OK", "3", "NXDOMAIN"]),
    case(DNS, "", Some(dns::<2>), ["L7STS", "2", "SERVFAIL"]),
    case(DNS, "", Some(dns::<5>), ["L7STS", "5", "REFUSED"]),
    case(DNS, "", Some(silent), ["L7TOUT", "", ""]),
    case(
        DNS,
        "",
        Some(pong_to_all),
        ["L7RSP", "", "nothing but datagrams that don't answer"],
    ),
    case(DHT, "", Some(node), ["L7OK", "0", ""]),
    case(DHT, "", Some(broken_node), ["L7STS", "202", "broken"]),
    case(DHT, "", None, ["L4CON", "", "Connection refused"]),
];

fn pong_to_all(_: usize, _: &[u8]) -> Option<Vec<u8>> {
    Some(b"pong".to_vec())
}

/// A configuration whose backends are checked without a client: only a socket keeps it alive.
fn header() -> String {
    format!(
        "listen l\n    bind 127.0.0.1:{}\ndefaults\n    mode udp\n    timeout server 2s\n",
        free_port()
    )
}

#[test]
fn checks_find_what_servers_do() {
    if skip(OURS) {
        return;
    }
    let _turn = turn::shared();
    let mut body = header() + "    timeout check 400ms\n";
    let mut servers = Vec::new();
    for (index, case) in CASES.iter().enumerate() {
        body.push_str(&format!("backend b{index}\n"));
        for line in case.lines.lines() {
            body.push_str(&format!("    {}\n", line.trim()));
        }
        let mut server = Responder::start(case.manner.unwrap_or(silent));
        if case.manner.is_none() {
            server.stop();
        }
        let (address, words) = (server.address, case.words);
        body.push_str(&format!("    server s {address} check inter 2s {words}\n"));
        servers.push(server);
    }
    let balancer = Balancer::start(body);
    let found = |index: usize| {
        let stat = balancer.stat();
        let backend = format!("b{index}");
        let text = |column| stat.text(&backend, "s", column).to_owned();
        let status = text("check_status").trim_start_matches("* ").to_owned();
        [status, text("check_code"), text("last_chk")]
    };
    eventually("all are checked", || {
        (0..CASES.len()).all(|index| !["INI", ""].contains(&found(index)[0].as_str()))
    });
    let wrong: Vec<String> = (CASES.iter().enumerate())
        .map(|(index, case)| (case, found(index)))
        .filter(|(case, found)| *found != case.found)
        .map(|(case, found)| format!("{}\n  {found:?}, not {:?}", case.lines, case.found))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    balancer.settle();
}

#[test]
fn a_port_of_its_own_is_connected_to() {
    if skip(OURS) {
        return;
    }
    let _turn = turn::shared();
    let (server, over_tcp) = (Responder::start(silent), MockServer::silent());
    let (open, closed) = (over_tcp.address().port(), free_port());
    let address = server.address;
    let body = format!(
        "{}backend b\n    server open {address} check port {open} inter 200\n    \
         server closed {address} check port {closed} inter 200\n",
        header()
    );
    let balancer = Balancer::start(body);
    eventually("both are checked", || {
        let stat = balancer.stat();
        let status = |server| stat.text("b", server, "check_status").to_owned();
        status("open") == "L4OK" && status("closed") == "L4CON"
    });
    assert!(server.heard().is_empty(), "no datagram asks anything");
    balancer.settle();
}

#[test]
fn a_server_that_refuses_goes_down_and_comes_back() {
    if skip(OURS) {
        return;
    }
    let _turn = turn::shared();
    let (mut server, syslog) = (Responder::start(silent), Syslog::start());
    let body = format!(
        "{}backend b\n    log {} local0\n    server s {} check inter 400 fastinter 350 fall 2 \
         rise 2\n",
        header(),
        syslog.address(),
        server.address
    );
    let balancer = Balancer::start(body);
    let status = || balancer.stat().text("b", "s", "status").to_owned();
    eventually("it was asked again and again", || server.heard().len() > 2);
    assert!(server.heard().iter().all(Vec::is_empty));
    assert_eq!(status(), "UP");
    server.stop();
    let line = syslog.wait_line("Server b/s is DOWN");
    let reason = "reason: Layer4 connection problem, info: \"Connection refused\"";
    assert!(line.contains(reason), "{line}");
    eventually("it is down", || status() == "DOWN");
    server.restart();
    let line = syslog.wait_line("Server b/s is UP");
    assert!(line.contains("reason: Layer4 check passed"), "{line}");
    eventually("it is up", || status() == "UP");
    balancer.settle();
}
