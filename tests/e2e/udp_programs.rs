//! Real programs of UDP through the balancer: DNS (dnsmasq, dig, dnsperf), a DHT node (libtorrent),
//! iperf3.
//!
//! Each has its TCP side on the same address and port, by a proxy of its own. Where a program is
//! absent the test says so and passes, unless `TIDEGATE_REQUIRE_PROGRAMS=1`: then it fails.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use memchr::memmem;
use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::programs::{Service, are_required, must, programs};
use crate::support::balancer::TempDir;
use crate::support::client::local;
use crate::support::datagram::DatagramClient;
use crate::support::port::{free_port, wait_datagrams};
use crate::support::{Balancer, skip, turn};

/// How long a program of others may take.
const PROGRAM_SECONDS: &str = "60";

/// A program that is ended when it takes too long.
fn bounded(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(PROGRAM_SECONDS).arg(program);
    command
}

/// A balancer before a server that speaks UDP and TCP on one port, and so does its own. Flows end
/// soon after their last datagram, so that nothing of them is left at the end.
fn before(server_port: u16) -> (Balancer, u16) {
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen datagrams\n    mode udp\n    bind 127.0.0.1:{port}\n    \
         timeout client 2s\n    timeout server 2s\n    server s 127.0.0.1:{server_port}\n\
         listen streams\n    bind 127.0.0.1:{port}\n    server s 127.0.0.1:{server_port}\n"
    ));
    (balancer, port)
}

/// Names that the DNS server knows.
const NAMES: u32 = 200;
/// Texts of its name with an answer that no datagram holds, and their length.
const TEXTS: usize = 30;
const TEXT_LENGTH: usize = 200;

/// The address of a name.
fn address_of(name: u32) -> String {
    format!("10.20.{}.{}", name / 100, name % 100 + 1)
}

/// A DNS server with names `h0.test`, `h1.test`, ... and `long.test`, on a port of 127.0.0.1.
fn dns_server(program: &Path, dir: &TempDir) -> (Service, u16) {
    let port = free_port();
    let mut text = format!(
        "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\n\
         no-poll\ncache-size=0\nlocal=/test/\nlocal-ttl=60\nlog-facility={}\npid-file=\n",
        dir.path().join("dns.log").display()
    );
    if Uid::effective().is_root() {
        // It would want a user of its own.
        text += "user=root\ngroup=root\n";
    }
    for name in 0..NAMES {
        text += &format!("host-record=h{name}.test,{}\n", address_of(name));
    }
    for number in 0..TEXTS {
        let filling = "x".repeat(TEXT_LENGTH - 3);
        text += &format!("txt-record=long.test,\"{number:03}{filling}\"\n");
    }
    let config = dir.write("dns.conf", &text);
    let mut command = Command::new(program);
    command
        .arg("--keep-in-foreground")
        .arg(format!("--conf-file={}", config.display()));
    let service = Service::start(&mut command, port, Signal::SIGTERM);
    assert!(wait_datagrams(port, Duration::from_secs(10)));
    (service, port)
}

/// What `dig` prints for a question; `more` are further words.
fn dig(program: &Path, port: u16, more: &[&str]) -> Vec<String> {
    let mut command = bounded(program);
    command
        .args(["@127.0.0.1", "-p", &port.to_string()])
        .args(["+short", "+tries=1", "+time=5"])
        .args(more);
    let output = must(&mut command);
    let text = String::from_utf8(output.stdout).expect("ASCII");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn dig_asks_over_udp_and_tcp_on_one_port() {
    let _turn = turn::shared();
    if skip("UDP") {
        return;
    }
    let Some([server, program]) = programs(["dnsmasq", "dig"]) else {
        return;
    };
    let dir = TempDir::new();
    let (_service, server_port) = dns_server(&server, &dir);
    let (balancer, port) = before(server_port);
    for name in [0, 7, NAMES - 1] {
        let question = format!("h{name}.test");
        for protocol in ["+notcp", "+tcp"] {
            let answer = dig(&program, port, &[protocol, &question]);
            assert_eq!(answer, [address_of(name)], "{protocol} {question}");
        }
    }
    let streams = balancer.stat().number("streams", "FRONTEND", "stot");
    assert_eq!(streams, 3);
    // An answer of several fragments, and one that is cut, after which dig asks over TCP.
    let all = |answer: Vec<String>| {
        let mut numbers: Vec<String> = answer.iter().map(|line| line[1..4].to_owned()).collect();
        numbers.sort();
        let expected: Vec<String> = (0..TEXTS).map(|number| format!("{number:03}")).collect();
        assert_eq!(numbers, expected);
        assert!(answer.iter().all(|line| line.len() == TEXT_LENGTH + 2));
    };
    all(dig(&program, port, &["+bufsize=1232", "TXT", "long.test"]));
    let streams = balancer.stat().number("streams", "FRONTEND", "stot");
    assert_eq!(streams, 4, "dig did not ask again over TCP");
    balancer.settle();
}

/// What is asked of the balancer in a second, for so many seconds, by so many clients. The rate is
/// an upper bound: a build for tests on two busy cores may take less, and then fewer are asked.
/// What is tested is that none is lost; how fast it can be is for the bench to say.
const QUERIES_PER_SECOND: &str = "20000";
const SECONDS: &str = "4";
const CLIENTS: &str = "20";
/// Queries below which nothing was shown.
const QUERIES_MIN: u64 = 4_000;

#[test]
fn dnsperf_loses_no_query() {
    let _turn = turn::alone();
    if skip("UDP") {
        return;
    }
    let Some([server, program]) = programs(["dnsmasq", "dnsperf"]) else {
        return;
    };
    let dir = TempDir::new();
    let (_service, server_port) = dns_server(&server, &dir);
    let (balancer, port) = before(server_port);
    let questions: String = (0..NAMES).map(|name| format!("h{name}.test A\n")).collect();
    let questions = dir.write("questions", &questions);
    let mut command = bounded(&program);
    command
        .args(["-f", "inet", "-s", "127.0.0.1", "-p", &port.to_string()])
        .args(["-Q", QUERIES_PER_SECOND, "-l", SECONDS, "-c", CLIENTS])
        .arg("-d")
        .arg(questions);
    let output = must(&mut command);
    let text = String::from_utf8(output.stdout).expect("ASCII");
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        let number = word.and_then(|word| word.parse::<u64>().ok());
        number.unwrap_or_else(|| panic!("no '{name}' in {text}"))
    };
    let sent = number("Queries sent:");
    assert!(sent >= QUERIES_MIN, "{text}");
    assert_eq!(number("Queries lost:"), 0, "{text}");
    assert_eq!(number("Queries completed:"), sent, "{text}");
    assert!(
        text.contains(&format!("NOERROR {sent} (100.00%)")),
        "{text}"
    );
    eprintln!("dnsperf: {sent} queries in {SECONDS} s, none lost");
    let flows = balancer.stat().number("datagrams", "FRONTEND", "stot");
    assert_eq!(flows.to_string(), CLIENTS, "a flow for each client");
    balancer.settle();
}

/// A Python that has libtorrent, or `None` if that is allowed.
fn python_with_libtorrent() -> Option<PathBuf> {
    let paths = ["/usr/bin/python3", "python3"].map(PathBuf::from);
    let has_it = |path: &PathBuf| {
        let mut command = Command::new(path);
        command.args(["-c", "import libtorrent"]);
        let output = command.stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = paths.into_iter().find(has_it);
    if found.is_none() {
        let what = "libtorrent for Python is not installed";
        assert!(!are_required(), "{what}, and TIDEGATE_REQUIRE_PROGRAMS=1");
        eprintln!("NOT TESTED: {what}");
    }
    found
}

/// A node that knows nobody and looks for nobody. It ends when its input closes.
const NODE: &str = "
import libtorrent, sys
session = libtorrent.session({
    'listen_interfaces': '127.0.0.1:' + sys.argv[1],
    'enable_dht': True,
    'enable_lsd': False,
    'enable_upnp': False,
    'enable_natpmp': False,
    'dht_bootstrap_nodes': '',
    'dht_ignore_dark_internet': False,
    'dht_restrict_routing_ips': False,
    'dht_upload_rate_limit': 1000000,
})
print(session.listen_port(), flush=True)
sys.stdin.read()
";

/// A program of which only the end of its input is wanted.
struct Node(Child);

impl Node {
    /// Starts it and waits until its session listens.
    fn start(python: &Path, port: u16) -> Node {
        let mut command = Command::new(python);
        command.args(["-c", NODE, &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = Node(command.spawn().expect("start a node"));
        let output = node.0.stdout.take().expect("it is piped");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        assert_eq!(line.trim(), port.to_string(), "{read:?}");
        assert!(wait_datagrams(port, Duration::from_secs(10)));
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A question of KRPC.
fn question(name: &str, transaction: &str, arguments: &str) -> Vec<u8> {
    format!(
        "d1:ad2:id20:abcdefghij0123456789{arguments}e1:q{}:{name}1:t{}:{transaction}1:y1:qe",
        name.len(),
        transaction.len()
    )
    .into_bytes()
}

/// Asks until there is an answer: a node that has just begun may not take questions yet. What is
/// behind `key` of the answer, up to its end.
fn ask(
    client: &DatagramClient,
    listener: SocketAddr,
    name: &str,
    arguments: &str,
    key: &str,
) -> Vec<u8> {
    for attempt in 0..50 {
        let transaction = format!("{attempt:02}");
        client.send(&question(name, &transaction, arguments));
        let Some((answer, from)) = client.try_receive(Duration::from_millis(200)) else {
            continue;
        };
        assert_eq!(from, listener, "who answers {name}");
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.ends_with(b"1:y1:re"), "no answer but {text}");
        let at = memmem::find(&answer, key.as_bytes());
        let at = at.unwrap_or_else(|| panic!("no {key} in {text}"));
        return answer[at + key.len()..].to_vec();
    }
    panic!("{name} was never answered");
}

#[test]
fn a_node_of_the_dht_answers_from_the_port_of_the_listener() {
    let _turn = turn::shared();
    if skip("UDP") {
        return;
    }
    let Some(python) = python_with_libtorrent() else {
        return;
    };
    let server_port = free_port();
    let _node = Node::start(&python, server_port);
    let (balancer, port) = before(server_port);
    let listener = local(port);
    let client = DatagramClient::new(listener, 0);
    // Two clients, of which neither gets what the other asked for.
    let other = DatagramClient::new(listener, 1);
    let id = ask(&client, listener, "ping", "", "2:id20:")[..20].to_vec();
    assert_eq!(ask(&other, listener, "ping", "", "2:id20:")[..20], id[..]);
    let hash = "9:info_hash20:mnopqrstuvwxyz123456";
    let token = ask(&client, listener, "get_peers", hash, "5:token");
    let text = String::from_utf8_lossy(&token).into_owned();
    // LENGTH:BYTES; the node takes it back from the same address only.
    let colon = memchr::memchr(b':', &token).expect("a length");
    let length: usize = text[..colon].parse().expect("a length");
    let token = String::from_utf8(token[..colon + 1 + length].to_vec());
    if let Ok(token) = token {
        let announcement = format!("{hash}4:porti6881e5:token{token}");
        ask(&client, listener, "announce_peer", &announcement, "2:id20:");
        // A peer is there now, which the other client is told too.
        let values = ask(&other, listener, "get_peers", hash, "6:valuesl6:");
        assert_eq!(values[..4], [127, 0, 0, 1]);
        assert_eq!(values[4..6], 6_881_u16.to_be_bytes());
    }
    client.expect_silence(Duration::from_millis(20));
    balancer.settle();
}

/// A run of iperf3 of UDP: datagrams that were sent, and those that were lost.
fn iperf(program: &Path, server_port: u16, port: u16, more: &[&str]) -> (u64, u64) {
    let mut command = Command::new(program);
    command.args(["-s", "-1", "-B", "127.0.0.1", "-p"]);
    command.arg(server_port.to_string());
    let _service = Service::start(&mut command, server_port, Signal::SIGTERM);
    let mut command = bounded(program);
    command
        .args(["-u", "-c", "127.0.0.1", "-p", &port.to_string()])
        .args(["-b", "20M", "-l", "1200", "-t", "2"])
        .args(more);
    let output = must(&mut command);
    let text = String::from_utf8(output.stdout).expect("ASCII");
    // [  5]  0.00-2.00  sec  4.77 MBytes  20.0 Mbits/sec  0.011 ms  0/4166 (0%)  receiver
    let lines = text.lines().filter(|line| line.ends_with("receiver"));
    let streams = lines.filter(|line| !line.starts_with("[SUM]"));
    let (mut sent, mut lost) = (0, 0);
    for line in streams {
        let counts = line.split_whitespace().find_map(|word| {
            let (lost, sent) = word.split_once('/')?;
            Some((lost.parse::<u64>().ok()?, sent.parse::<u64>().ok()?))
        });
        let counts = counts.unwrap_or_else(|| panic!("no counts in {line}"));
        lost += counts.0;
        sent += counts.1;
    }
    (sent, lost)
}

#[test]
fn iperf3_has_its_streams_and_its_control_connection_on_one_port() {
    let _turn = turn::alone();
    if skip("UDP") {
        return;
    }
    let Some([program]) = programs(["iperf3"]) else {
        return;
    };
    let server_port = free_port();
    let (balancer, port) = before(server_port);
    for more in [&["-P", "1"][..], &["-P", "4"], &["-R"], &["-P", "4", "-R"]] {
        let (sent, lost) = iperf(&program, server_port, port, more);
        assert!(sent > 500, "{more:?}: {sent} datagrams");
        assert_eq!(lost, 0, "{more:?}: of {sent} datagrams");
    }
    let flows = balancer.stat().number("datagrams", "FRONTEND", "stot");
    assert_eq!(flows, 10, "a flow for each stream");
    balancer.settle();
}
