//! Every command of the runtime socket while clients come, talk and go, whom none of them may hurt:
//! short sessions one after the other, long ones, and flows, all of whose bytes are checked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use crate::reload::Long;
use crate::support::balancer::Setup;
use crate::support::client::{End, connect_port, exchange, local, read_end};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::runtime::Runtime;
use crate::support::{Balancer, MockServer, eventually, skip, turn};

/// What is answered.
#[derive(Clone, Copy)]
enum Said {
    /// Nothing: it was done.
    Done,
    /// This, and nothing else.
    Is(&'static str),
    /// Something with all of these in it.
    Has(&'static [&'static str]),
}

use Said::{Done, Has, Is};

/// What shows something. `LONG`, `SHORT` and `FLOWS` are frontends with traffic.
#[rustfmt::skip]
const SHOW: &[(&str, Said)] = &[
    ("help", Has(&["The following commands are valid at this level:\n", "\n  wait {"])),
    ("help show sess", Has(&["  show sess ["])),
    ("show info", Has(&["Name: Tidegate\n", "\nStopping: 0\n", "\nCurrConns: "])),
    ("show info typed", Has(&["0.Name.1:POSV:str:Tidegate\n"])),
    ("show info json", Has(&["[{\"field\":{\"pos\":0,\"name\":\"Name\"}"])),
    ("show info desc", Has(&["Name: Tidegate:\""])),
    ("show stat", Has(&["# pxname,", "\nLONG,FRONTEND,", "\nb,s1,", "\nx,BACKEND,"])),
    ("show stat LONG 1 -1", Has(&["\nLONG,FRONTEND,"])),
    ("show stat -1 4 2 up", Has(&["\nb,s2,", "\nx,x2,"])),
    ("show stat typed no-maint", Has(&[".svname.1:KNSV:str:x1\n"])),
    ("show stat json", Has(&["\"objType\":\"Server\""])),
    ("show stat -1 8 -1", Has(&["\nSHORT,listens,"])),
    ("show servers state", Has(&["1\n# be_id be_name srv_id ", " b 1 s1 127.0.0.1 2 0 "])),
    ("show servers state x", Has(&[" x 2 x2 "])),
    ("show servers conn b", Has(&["# bkname/svname", "\nb/s2 "])),
    ("show backend", Is("# name\nb\nx\nFLOWS\nk\n\n")),
    ("show sess", Has(&[": proto=tcpv4 src=127.0.0.1:", " fe=LONG be=b srv=s"])),
    ("show sess all", Has(&["frontend=LONG", "backend=b"])),
    ("show sess help", Has(&["server"])),
    ("show sess frontend LONG", Has(&[" fe=LONG "])),
    ("show sess backend b", Has(&[" be=b "])),
    ("show sess older 1d", Done),
    ("show flows", Has(&[": proto=udpv4 src=127.0.0.1:", " fe=FLOWS be=FLOWS srv=d "])),
    ("show flows FLOWS", Has(&[" srv=d "])),
    ("show version", Is(concat!(env!("CARGO_PKG_VERSION"), "\n\n"))),
    ("show env HAPROXY_CLI", Has(&["HAPROXY_CLI=unix@"])),
    ("show errors", Has(&["Total events captured on [", "] : 0\n"])),
    ("show events", Has(&["buf0"])),
    ("show events buf0 -n", Done),
    ("show cli sockets", Has(&["# socket lvl processes\nunix@", " admin all\n"])),
    ("show cli level", Is("admin\n\n")),
    ("show startup-logs", Has(&["[WARNING]", "dontlognull"])),
    ("show activity", Has(&["sessions: ", "\nturns: "])),
    ("show listeners", Has(&["# proxy id name ", "\nSHORT 1 listens "])),
    ("show balance b", Has(&["backend: b\n", "\nnext: s"])),
    ("show balance k key 10.0.0.1", Has(&["\nnot chosen: c MAINT\n", "\nchosen: "])),
    ("show ramp", Has(&["# server"])),
    ("show reload", Has(&["eload"])),
    ("show proc", Has(&["worker"])),
    ("show schema json", Has(&["\"title\""])),
    ("show table", Done),
    ("get weight b/s2", Is("1 (initial 1)\n\n")),
    ("echo two  words", Is("two words\n\n")),
    ("wait 1", Done),
    ("wait -h", Has(&["srv-removable"])),
];

/// What changes something, in an order in which all of it can be done, and whose sessions it is
/// about: those of `x/x1` come and go meanwhile, `k/c` has none, and `idle` has no clients.
#[rustfmt::skip]
const CHANGE: &[(&str, Said)] = &[
    ("set server x/x1 weight 7", Done),
    ("get weight x/x1", Is("7 (initial 1)\n\n")),
    ("set server x/x1 weight 300%", Done),
    ("set weight x/x1 100%", Done),
    ("get weight x/x1", Is("1 (initial 1)\n\n")),
    ("set server x/x1 state drain", Done),
    ("show stat x 4 1", Has(&[",DRAIN,"])),
    ("set server x/x1 state maint", Done),
    ("show stat x 4 1", Has(&[",MAINT,"])),
    ("set server x/x1 state ready", Done),
    ("disable server x/x1", Done),
    ("wait 60s srv-removable x/x1", Is("Done.\n\n")),
    ("enable server x/x1", Done),
    ("set server x/x1 health stopping", Done),
    ("show stat x 4 1", Has(&[",NOLB,"])),
    ("set server x/x1 health down", Done),
    ("set server x/x1 health up", Done),
    ("ramp server x/x1 10,50 every 1h", Done),
    ("show ramp", Has(&["\nx/x1 10 "])),
    ("ramp server x/x1 cancel", Done),
    ("set maxconn server x/x1 2", Done),
    ("set maxconn server x/x1 0", Done),
    ("set maxconn frontend SHORT 500", Done),
    ("set maxconn frontend SHORT 0", Done),
    ("set maxconn global 0", Done),
    ("set rate-limit connections global 100000", Done),
    ("set rate-limit connections global 0", Done),
    ("set rate-limit sessions global 100000", Done),
    ("set rate-limit sessions global 0", Done),
    ("show info", Has(&["\nConnRateLimit: 0\n", "\nSessRateLimit: 0\n"])),
    ("add server help", Has(&["weight"])),
    ("add server x/new 127.0.0.1:4 weight 3", Is("New server registered.\n\n")),
    ("show stat x 4 -1", Has(&["\nx,new,", ",MAINT,"])),
    ("set server x/new addr 127.0.0.1 port 5", Has(&["port changed from '4' to '5'"])),
    ("del server x/new", Is("Server deleted.\n\n")),
    ("set server k/c check-addr 127.0.0.9 port 19", Done),
    ("set server k/c check-port 20", Done),
    ("show servers state k", Has(&[" 20 127.0.0.9 "])),
    ("set server k/c agent-addr 127.0.0.8 port 18", Done),
    ("set server k/c agent-port 21", Done),
    ("set server k/c agent-send hello\\n", Done),
    ("set server k/c agent down", Done),
    ("set server k/c agent up", Done),
    ("set server k/c health up", Done),
    ("disable health k/c", Done),
    ("enable health k/c", Done),
    ("disable agent k/c", Done),
    ("enable agent k/c", Done),
    ("disable server k/c", Done),
    ("shutdown sessions server k/c", Done),
    ("clear counters", Done),
    ("clear counters all", Done),
    ("set severity-output number", Done),
    ("get weight nobody", Is("[3]: Require 'backend/server'.\n\n")),
    ("set severity-output none", Done),
    ("set timeout cli 600", Done),
    ("disable frontend idle", Done),
    ("show stat idle 1 -1", Has(&[",PAUSED,"])),
    ("enable frontend idle", Done),
    ("reload", Has(&["Success=1\n--\n", "nothing has changed"])),
    ("shutdown frontend idle", Done),
    ("show stat idle 1 -1", Has(&[",STOP,"])),
];

/// The rest, which is about the connection itself or tested below.
const ELSEWHERE: [&str; 7] = [
    "prompt",
    "operator",
    "user",
    "quit",
    "shutdown session",
    "expert-mode",
    "experimental-mode",
];

fn check(command: &str, said: Said, answer: &str) {
    match said {
        Done => assert_eq!(answer, "\n", "{command}"),
        Is(text) => assert_eq!(answer, text, "{command}"),
        Has(texts) => {
            let holds = |text: &&str| answer.contains(*text);
            assert!(texts.iter().all(holds), "{command}: {answer}");
            assert!(answer.ends_with("\n\n"), "{command}: {answer:?}");
        }
    }
}

/// A balancer with its traffic.
struct Traffic {
    balancer: Balancer,
    long: Vec<Long>,
    flows: Vec<DatagramClient>,
    long_port: u16,
    short_port: u16,
    _servers: Vec<MockServer>,
    _datagrams: DatagramServer,
}

fn start() -> Traffic {
    let servers: Vec<MockServer> = (0..2)
        .map(|_| MockServer::echo())
        .chain((0..2).map(|_| MockServer::exchange()))
        .collect();
    let datagrams = DatagramServer::echo();
    let [long, short, idle, flows] = [(); 4].map(|()| free_port());
    let at = |server: &MockServer| server.address();
    let body = format!(
        "frontend LONG\n    bind 127.0.0.1:{long}\n    default_backend b\nfrontend SHORT\n    \
         option socket-stats\n    bind 127.0.0.1:{short} name listens\n    default_backend x\n\
         frontend idle\n    bind 127.0.0.1:{idle}\n    default_backend b\nbackend b\n    \
         balance roundrobin\n    server s1 {}\n    server s2 {}\nbackend x\n    \
         balance roundrobin\n    server x1 {}\n    server x2 {}\nlisten FLOWS\n    mode udp\n    \
         bind 127.0.0.1:{flows}\n    timeout udp 1h\n    server d {}\nbackend k\n    \
         balance source\n    option dontlognull\n    server c 127.0.0.1:1 check inter 1h agent-check agent-port 2 \
         agent-inter 1h disabled\n    server o 127.0.0.1:3\n",
        at(&servers[0]),
        at(&servers[1]),
        at(&servers[2]),
        at(&servers[3]),
        datagrams.address()
    );
    let balancer = Setup::new(body).global("stats maxconn 100").start();
    Traffic {
        long: (1..5).map(|seed| Long::begin(long, seed)).collect(),
        flows: (0..3)
            .map(|flow| DatagramClient::new(local(flows), flow))
            .collect(),
        long_port: long,
        short_port: short,
        balancer,
        _servers: servers,
        _datagrams: datagrams,
    }
}

/// Has short sessions come and go from two clients while `work` is done, each of which must be
/// served; returns when at least some were.
fn with_short_sessions(port: u16, work: impl FnOnce()) {
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let visit = |client: u64| {
        let mut seed = client << 32;
        while !stop.load(SeqCst) {
            let (up, down) = (3_000, 20_000);
            exchange(local(port), up, down, seed)?;
            served.fetch_add(1, SeqCst);
            seed += 1;
        }
        Ok::<(), String>(())
    };
    /// Also when the work has failed.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let outcomes = std::thread::scope(|scope| {
        let clients = [1, 2].map(|client| scope.spawn(move || visit(client)));
        let ends = Stop(&stop);
        eventually("clients have come", || served.load(SeqCst) > 2);
        work();
        drop(ends);
        clients.map(|client| client.join().expect("a client"))
    });
    assert_eq!(outcomes, [Ok(()), Ok(())]);
}

/// The words that a command begins with, of its line in `help`.
fn words_of(line: &str) -> String {
    let shape = line.trim_start().split("  ").next().unwrap_or_default();
    let is_word = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let words: Vec<&str> = shape.split(' ').take_while(is_word).collect();
    words.join(" ")
}

#[test]
fn every_command_leaves_clients_alone() {
    let _turn = turn::shared();
    if skip("many of them are ours") {
        return;
    }
    let Traffic {
        balancer,
        long,
        flows,
        long_port,
        short_port,
        ..
    } = &mut start();
    // No command is forgotten.
    let tested: Vec<&str> = SHOW.iter().chain(CHANGE).map(|(line, _)| *line).collect();
    let help = balancer.stats("help");
    for line in help.lines().filter(|line| line.starts_with("  ")) {
        let words = words_of(line);
        let is_its = |line: &&str| line.starts_with(&words);
        let known = tested.iter().any(is_its) || ELSEWHERE.contains(&words.as_str());
        assert!(known && !words.is_empty(), "not tested: {line}");
    }
    flows.iter().for_each(|client| client.exchange(0, 100));
    with_short_sessions(*short_port, || {
        let mut client = Runtime::open(balancer.stats_path());
        assert_eq!(client.prompted("prompt"), "\n");
        let commands = SHOW.iter().chain(CHANGE).chain(SHOW);
        for (number, (command, said)) in (1..).zip(commands) {
            check(command, *said, &client.prompted(command));
            let turn = number as usize;
            long[turn % 4].go_on();
            flows[turn % 3].exchange(number, 100);
        }
        // One session by its number, and no other.
        let doomed = connect_port(*long_port);
        let source = format!(" src={} ", doomed.local_addr().expect("an address"));
        let mut id = String::new();
        eventually("it is listed", || {
            let sessions = client.prompted("show sess frontend LONG");
            let line = sessions.lines().find(|line| line.contains(&source));
            let listed = line.and_then(|line| line.split_once(": "));
            listed
                .inspect(|(number, _)| id = (*number).to_owned())
                .is_some()
        });
        check(
            "",
            Done,
            &client.prompted(&format!("shutdown session {id}")),
        );
        assert_ne!(read_end(&doomed).1, End::None);
        long.iter_mut().for_each(Long::go_on);
        assert_eq!(client.prompted("operator"), "\n");
        assert_eq!(
            client.prompted("disable server x/x1"),
            "Permission denied\n\n"
        );
        assert_eq!(client.prompted("user"), "\n");
        assert_eq!(client.prompted("show sess"), "Permission denied\n\n");
        client.send("quit\n");
        client.rest();
    });
    long.clear();
    balancer.stats("shutdown sessions server FLOWS/d");
    balancer.settle();
}

/// Whatever fifty clients ask at once, each gets its own answer, and the traffic goes on.
#[test]
fn fifty_clients_ask_at_once_and_clients_of_servers_are_left_alone() {
    let _turn = turn::shared();
    if skip("many of the commands are ours") {
        return;
    }
    let Traffic {
        balancer,
        long,
        flows,
        short_port,
        ..
    } = &mut start();
    flows.iter().for_each(|client| client.exchange(0, 100));
    with_short_sessions(*short_port, || {
        let path = balancer.stats_path();
        let mut clients: Vec<Runtime> = (0..50).map(|_| Runtime::open(path)).collect();
        for client in &mut clients {
            client.prompted("prompt");
        }
        // At each moment every one of them has asked for something, and no two for the same in
        // the same order.
        for round in 0..SHOW.len() {
            let asked = |number: usize| SHOW[(round + number) % SHOW.len()];
            for (number, client) in clients.iter_mut().enumerate() {
                client.send(format!("{}\n", asked(number).0));
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let (command, said) = asked(number);
                let answer = client.until("\n> ");
                check(command, said, answer.strip_suffix("> ").expect("a prompt"));
            }
            long[round % 4].go_on();
            flows[round % 3].exchange(1 + u32::try_from(round).expect("few"), 100);
        }
    });
    long.clear();
    balancer.stats("shutdown sessions server FLOWS/d");
    balancer.settle();
}
