//! Who gets a connection under the other algorithms: hashes as haproxy and a second process have
//! them, first, random, static round robin, bounded load. `spread` has the rest.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use tidegate::base::hash;

use crate::programs::{Service, programs};
use crate::spread::{count_sequential, named, owners, sorted};
use crate::support::balancer::TempDir;
use crate::support::client::{ask_name, connect_from, connect_port, local, read_name};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, skip, turn};

fn balancer(rest: &str, lines: &str) -> (Balancer, u16) {
    let port = free_port();
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    {rest}\n{lines}");
    (Balancer::start(body), port)
}

/// What is compared with haproxy: `balance` and `hash-type`, by weights.
fn maps() -> Vec<(String, String, [u32; 3])> {
    let mut maps = Vec::new();
    let mut add = |key: &str, method: &str, weights| {
        maps.push((key.to_owned(), format!("map-based {method}"), weights));
    };
    let (equal, unequal) = ([1, 1, 1], [3, 2, 5]);
    for weights in [equal, unequal, [7, 30, 1], [10, 20, 5]] {
        add("source", "", weights);
        add("source", "sdbm avalanche", weights);
        add("hash src", "", weights);
    }
    for function in ["sdbm", "djb2", "wt6", "crc32"] {
        for avalanche in ["", " avalanche"] {
            let method = format!("{function}{avalanche}");
            add("hash src", &method, unequal);
            add("hash src_port", &method, unequal);
            add("hash src_port", &method, equal);
        }
    }
    for key in [
        "dst",
        "src,ipmask(20)",
        "src,and(255),crc32c(1)",
        "src_port,mod(7),xxh64",
        "src,xxh32(5),neg",
        "src_port,odd,not",
    ] {
        add(&format!("hash {key}"), "sdbm avalanche", unequal);
    }
    maps
}

/// The same config for either program, with a port for each map.
fn listens(servers: &[MockServer]) -> (String, Vec<u16>) {
    let (mut body, mut ports) = (String::new(), Vec::new());
    for (index, (key, method, weights)) in maps().into_iter().enumerate() {
        let port = free_port();
        ports.push(port);
        let head = format!("listen l{index}\n    bind 127.0.0.1:{port}\n    balance {key}\n");
        writeln!(body, "{head}    hash-type {method}").unwrap();
        for (n, (server, weight)) in (1..).zip(servers.iter().zip(weights)) {
            let address = server.address();
            writeln!(body, "    server s{n} {address} weight {weight}").unwrap();
        }
    }
    (body, ports)
}

/// The name that a client at an address and port gets.
fn ask_from(client: SocketAddr, port: u16) -> (String, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&client.into()).unwrap();
    socket.connect(&local(port).into()).unwrap();
    let stream = TcpStream::from(socket);
    let own = stream.local_addr().unwrap().port();
    (read_name(&stream).unwrap(), own)
}

/// 64 clients get from both programs the same server, by every function and with any weights.
#[test]
fn maps_are_those_of_haproxy() {
    let _turn = turn::shared();
    let Some([haproxy]) = programs(["haproxy"]) else {
        return;
    };
    let servers = ["s1", "s2", "s3"].map(MockServer::named);
    let (ours, our_ports) = listens(&servers);
    let (theirs, their_ports) = listens(&servers);
    let dir = TempDir::new();
    let defaults = "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    \
                    timeout server 30s\n";
    let config = dir.write("haproxy.cfg", &format!("{defaults}{theirs}"));
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(config);
    let last = *their_ports.last().unwrap();
    let _haproxy = Service::start(&mut command, last, Signal::SIGTERM);
    let balancer = Balancer::start(ours);
    let mut seen = vec![BTreeSet::new(); our_ports.len()];
    for client in 0..64 {
        let [_, a, b, c, ..] = hash::sequence(0, client).to_be_bytes();
        // Neither the network nor its broadcast address.
        let ip = Ipv4Addr::new(127, a, b, c.clamp(1, 254));
        let pairs = our_ports.iter().zip(&their_ports);
        for ((map, seen), (ours, theirs)) in maps().iter().zip(&mut seen).zip(pairs) {
            let (here, port) = ask_from((ip, 0).into(), *ours);
            let (there, _) = ask_from((ip, port).into(), *theirs);
            assert_eq!(here, there, "{ip}:{port} by {map:?}");
            seen.insert(here);
        }
    }
    // All have one destination, and one bit may not make a difference; everything else does.
    for (map, seen) in maps().iter().zip(&seen) {
        let may_be_one = map.0 == "hash dst" || map.0.ends_with("not");
        assert!(seen.len() > 1 || may_be_one, "{map:?}: {seen:?}");
    }
    balancer.settle();
}

/// Two processes with other names and another order of the same servers, one of them down: every
/// client gets the same server from both, and from a third one that starts later.
#[test]
fn two_processes_agree_on_rings_and_maglev_tables() {
    let _turn = turn::shared();
    if skip("haproxy places servers by their order unless told otherwise") {
        return;
    }
    let mut servers: Vec<MockServer> = (1..=5)
        .map(|n| MockServer::named(&format!("s{n}")))
        .collect();
    let check = "check inter 100ms fall 1";
    let line = |name: String, server: usize| {
        let (address, weight) = (servers[server].address(), 1 + server);
        format!("    server {name} {address} weight {weight} {check}\n")
    };
    let here: String = (0..5).map(|n| line(format!("a{n}"), n)).collect();
    let there: String = (0..5).rev().map(|n| line(format!("b{n}"), n)).collect();
    let kinds = ["consistent crc32", "maglev", "maglev none"];
    let start = |lines: &str, prefix: &str| {
        let (mut body, mut ports) = (String::new(), Vec::new());
        for (index, kind) in kinds.iter().enumerate() {
            let port = free_port();
            ports.push(port);
            let head = format!("listen {prefix}{index}\n    bind 127.0.0.1:{port}\n");
            let balance = if index == 1 { "source" } else { "hash src" };
            write!(
                body,
                "{head}    balance {balance}\n    hash-type {kind}\n{lines}"
            )
            .unwrap();
        }
        (Balancer::start(body), ports)
    };
    let homes = |ports: &[u16]| -> Vec<Vec<String>> {
        ports.iter().map(|port| owners(*port, 100)).collect()
    };
    let (first, first_ports) = start(&here, "x");
    let (second, second_ports) = start(&there, "y");
    let whole = homes(&first_ports);
    assert_eq!(homes(&second_ports), whole);
    for homes in &whole {
        assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), 5, "{homes:?}");
    }
    servers[3].stop();
    for (balancer, prefix, name) in [(&first, "x", "a3"), (&second, "y", "b3")] {
        eventually("the server is down everywhere", || {
            let stat = balancer.stat();
            let down = |n| stat.text(&format!("{prefix}{n}"), name, "status") == "DOWN";
            (0..kinds.len()).all(down)
        });
    }
    let without = homes(&first_ports);
    assert_eq!(homes(&second_ports), without);
    // On the ring nobody else has moved.
    for (before, after) in whole[0].iter().zip(&without[0]) {
        assert!(before == after || before == "s4");
    }
    first.settle();
    drop(first);
    servers[3].restart();
    let (third, third_ports) = start(&here, "z");
    assert_eq!(homes(&third_ports), whole);
    third.settle();
    second.settle();
}

/// By its id, and the next one only when it is full.
#[test]
fn first_fills_one_server_after_the_other() {
    let _turn = turn::shared();
    let servers: Vec<MockServer> = (0..3).map(|_| MockServer::hold()).collect();
    let ids = [30, 10, 20];
    let lines: String = (1..)
        .zip(servers.iter().zip(ids))
        .map(|(n, (server, id))| {
            format!("    server s{n} {} maxconn 2 id {id}\n", server.address())
        })
        .collect();
    let (balancer, port) = balancer("balance first", &lines);
    let mut clients = Vec::new();
    for expected in [
        [0, 1, 0],
        [0, 2, 0],
        [0, 2, 1],
        [0, 2, 2],
        [1, 2, 2],
        [2, 2, 2],
    ] {
        clients.push(connect_port(port));
        let accepted = || servers.iter().map(MockServer::accepted).collect::<Vec<_>>();
        eventually("the connection is through", || {
            accepted().iter().sum::<u64>() == expected.iter().sum::<u64>()
        });
        assert_eq!(accepted(), expected);
    }
    assert_eq!(balancer.stat().text("l", "BACKEND", "algo"), "first");
    drop((clients, servers));
    balancer.settle();
}

#[test]
fn static_rr_takes_turns_in_the_order_of_the_map() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["weight 3", "weight 2", "weight 1"]);
    let (balancer, port) = balancer("balance static-rr", &lines);
    let order: Vec<String> = (0..12).map(|_| ask_name(local(port)).unwrap()).collect();
    let round = ["s1", "s1", "s2", "s1", "s2", "s3"];
    assert_eq!(order, [round, round].concat());
    assert_eq!(balancer.stat().text("l", "BACKEND", "algo"), "static-rr");
    balancer.settle();
}

/// Connections that stay are level but for a few: the better of two draws gets each.
#[test]
fn random_levels_open_connections() {
    let _turn = turn::shared();
    let servers: Vec<MockServer> = (0..4).map(|_| MockServer::hold()).collect();
    let lines: String = (1..)
        .zip(&servers)
        .map(|(n, server)| format!("    server s{n} {}\n", server.address()))
        .collect();
    let (balancer, port) = balancer("balance random(2)", &lines);
    let mut clients = Vec::new();
    let accepted = || servers.iter().map(MockServer::accepted).collect::<Vec<_>>();
    for opened in 1..=80 {
        clients.push(connect_port(port));
        eventually("the connection is through", || {
            accepted().iter().sum::<u64>() == opened
        });
    }
    let far = |count: &u64| !(14..=26).contains(count);
    assert!(!accepted().iter().any(far), "{:?}", accepted());
    // haproxy 2.6 has no word for it.
    let algorithm = balancer.stat().text("l", "BACKEND", "algo").to_owned();
    assert_eq!(algorithm, if is_tidegate() { "random" } else { "unknown" });
    drop((clients, servers));
    balancer.settle();
}

/// One client alone fills its server up to the bound, and goes on along the ring.
#[test]
fn a_bounded_load_overflows() {
    let _turn = turn::shared();
    let servers: Vec<MockServer> = (0..3).map(|_| MockServer::hold()).collect();
    let lines: String = (1..)
        .zip(&servers)
        .map(|(n, server)| format!("    server s{n} {}\n", server.address()))
        .collect();
    let rest = "balance source\n    hash-type consistent\n    hash-balance-factor 150";
    let (balancer, port) = balancer(rest, &lines);
    let mut clients = Vec::new();
    let accepted = || servers.iter().map(MockServer::accepted).collect::<Vec<_>>();
    for opened in 1..=30u64 {
        clients.push(connect_port(port));
        eventually("the connection is through", || {
            accepted().iter().sum::<u64>() == opened
        });
        // One and a half times a third, rounded up.
        let most = (opened * 3).div_ceil(6);
        assert!(accepted().iter().all(|n| *n <= most), "{:?}", accepted());
    }
    assert_eq!(accepted().iter().max(), Some(&15));
    drop((clients, servers));
    balancer.settle();
}

/// Each port of a listener has its server, and they use all of them.
#[test]
fn the_destination_port_decides() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "", ""]);
    let ports: Vec<u16> = (0..24).map(|_| free_port()).collect();
    let binds: String = ports
        .iter()
        .map(|port| format!("    bind 127.0.0.1:{port}\n"))
        .collect();
    let body =
        format!("listen l\n{binds}    balance hash dst_port\n    hash-type consistent\n{lines}");
    let balancer = Balancer::start(body);
    let homes = || -> Vec<String> {
        let ask = |port: &u16| ask_name(local(*port)).unwrap();
        ports.iter().map(ask).collect()
    };
    let first = homes();
    assert_eq!(homes(), first);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{first:?}");
    assert_eq!(balancer.stat().text("l", "BACKEND", "algo"), "hash");
    balancer.settle();
}

/// Who has no key (a client of a Unix socket) takes turns.
#[test]
fn without_a_key_servers_take_turns() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "", ""]);
    // IPv6 addresses are no numbers, so that `and` makes no key of this client.
    let port = free_port();
    let body = format!(
        "listen l\n    bind [::1]:{port}\n    bind 127.0.0.1:{port}\n    \
         balance hash src,and(255)\n{lines}"
    );
    let balancer = Balancer::start(body);
    let loopback: IpAddr = "::1".parse().unwrap();
    let ask = |_| read_name(&connect_from(loopback, (loopback, port).into()).unwrap()).unwrap();
    let names: Vec<String> = (0..6).map(ask).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3, "{names:?}");
    let counts = count_sequential(port, 10);
    assert_eq!(sorted(&counts), [10], "one client has one server");
    balancer.settle();
}

/// Each algorithm, as HAProxy has it or not.
const ALGORITHMS: [(&str, bool); 16] = [
    ("balance roundrobin", true),
    ("balance static-rr", true),
    ("balance leastconn", true),
    ("balance first", true),
    ("balance random", true),
    ("balance random(1)", true),
    ("balance peak-ewma", false),
    ("balance source", true),
    ("balance source\n    hash-type consistent", true),
    ("balance source\n    hash-type maglev", false),
    ("balance hash src", true),
    ("balance hash src\n    hash-type consistent wt6", true),
    (
        "balance hash src_port\n    hash-type consistent djb2 avalanche",
        true,
    ),
    ("balance hash dst\n    hash-type map-based crc32", true),
    (
        "balance hash src\n    hash-type consistent\n    hash-balance-factor 150",
        true,
    ),
    (
        "balance hash dst_port\n    hash-type maglev\n    hash-balance-factor 125",
        false,
    ),
];

/// A `listen` of each algorithm with the same servers: the balancer, and the ports.
fn of_each_algorithm(lines: &str) -> (Balancer, Vec<(&'static str, String, u16)>) {
    let (mut body, mut listens) = (String::new(), Vec::new());
    for (index, (algorithm, is_haproxys)) in ALGORITHMS.into_iter().enumerate() {
        if !is_haproxys && !is_tidegate() {
            continue;
        }
        let (name, port) = (format!("l{index}"), free_port());
        let head = format!("listen {name}\n    bind 127.0.0.1:{port}\n    {algorithm}\n");
        writeln!(body, "{head}    timeout queue 20s\n{lines}").unwrap();
        listens.push((algorithm, name, port));
    }
    (Balancer::start(body), listens)
}

/// Who serves clients of many addresses.
fn serving(port: u16) -> BTreeSet<String> {
    owners(port, 24).into_iter().collect()
}

/// One server is dead, one has the weight 0 and one is a backup: clients get the two that are left,
/// after a retry where need be.
#[test]
fn every_algorithm_goes_on_to_a_server_that_serves() {
    let _turn = turn::shared();
    let (mut servers, lines) = named(&["weight 2", "weight 3", "weight 1", "weight 0", "backup"]);
    servers[1].stop();
    let lines = format!("    retries 3\n    option redispatch 1\n{lines}");
    let (balancer, listens) = of_each_algorithm(&lines);
    let may = BTreeSet::from(["s1".to_owned(), "s3".to_owned()]);
    for (algorithm, name, port) in listens {
        let is_hash = ["source", "hash"]
            .iter()
            .any(|word| algorithm.contains(word));
        if is_hash && !is_tidegate() {
            // It hashes to the dead one again.
            continue;
        }
        let serving = serving(port);
        assert!(serving.is_subset(&may), "{algorithm}: {serving:?}");
        let takes_one = ["first", " dst"]
            .iter()
            .any(|word| algorithm.contains(word));
        assert!(serving == may || takes_one, "{algorithm}: {serving:?}");
        let stat = balancer.stat();
        let tried = stat.number(&name, "s2", "wredis");
        assert!(
            tried > 0 || takes_one || algorithm.contains("peak"),
            "{algorithm}"
        );
        for unused in ["s4", "s5"] {
            assert_eq!(stat.number(&name, unused, "stot"), 0, "{algorithm}");
        }
    }
    balancer.settle();
}

#[test]
fn every_algorithm_serves_with_one_server_and_refuses_without() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["", "disabled", "weight 0"]);
    let (balancer, listens) = of_each_algorithm(&lines);
    for (algorithm, _, port) in listens {
        assert_eq!(
            serving(port),
            BTreeSet::from(["s1".to_owned()]),
            "{algorithm}"
        );
    }
    balancer.settle();
    for lines in [
        "",
        "    server s 127.0.0.1:9 disabled\n",
        "    server s 127.0.0.1:9 weight 0\n",
    ] {
        let (balancer, listens) = of_each_algorithm(lines);
        for (algorithm, _, port) in listens {
            assert!(ask_name(local(port)).is_err(), "{algorithm} with {lines:?}");
        }
        balancer.settle();
    }
}

#[test]
fn every_algorithm_takes_backup_servers_without_others() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["disabled", "backup", "backup", "backup weight 0"]);
    for (option, may) in [
        ("", &["s2"][..]),
        ("    option allbackups\n", &["s2", "s3"][..]),
    ] {
        let (balancer, listens) = of_each_algorithm(&format!("{option}{lines}"));
        let may: BTreeSet<String> = may.iter().map(|name| (*name).to_owned()).collect();
        for (algorithm, _, port) in listens {
            let serving = serving(port);
            assert!(serving.is_subset(&may), "{algorithm}: {serving:?}");
            // Who is idle again at once is the first, and the quickest.
            let takes_one = ["first", " dst", "peak"]
                .iter()
                .any(|word| algorithm.contains(word));
            assert!(serving == may || takes_one, "{algorithm}: {serving:?}");
        }
        balancer.settle();
    }
}

/// Two connections at most on each of two servers; everybody else waits, and everybody is served.
#[test]
fn every_algorithm_keeps_limits_and_serves_those_that_wait() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["maxconn 2", "maxconn 2"]);
    let (balancer, listens) = of_each_algorithm(&lines);
    for (algorithm, name, port) in listens {
        let clients: Vec<TcpStream> = (0..12).map(|_| connect_port(port)).collect();
        // Servers close after their clients, so nobody gives room yet.
        eventually("the others wait", || {
            let stat = balancer.stat();
            let waiting = ["BACKEND", "s1", "s2"].map(|row| stat.number(&name, row, "qcur"));
            let open = ["s1", "s2"].map(|row| stat.number(&name, row, "scur"));
            waiting[0].max(waiting[1] + waiting[2]) + open.iter().sum::<u64>() == 12
        });
        std::thread::scope(|scope| {
            for client in clients {
                scope.spawn(move || {
                    let name = read_name(&client);
                    assert!(name.is_ok(), "{algorithm}: {name:?}");
                });
            }
        });
        let stat = balancer.stat();
        let most = ["s1", "s2"].map(|server| stat.number(&name, server, "smax"));
        assert!(most.iter().max() == Some(&2), "{algorithm}: {most:?}");
        // Who hashes no port has one client here.
        let one_home = algorithm.contains("source") || algorithm.contains("hash");
        assert!(one_home || most == [2, 2], "{algorithm}: {most:?}");
    }
    balancer.settle();
}

/// What a server is known by decides where its clients are, in two processes alike.
#[test]
fn two_processes_agree_by_every_hash_key() {
    let _turn = turn::shared();
    if skip("haproxy 2.6 has no 'hash-key'") {
        return;
    }
    let server = |n: u8| {
        let name = format!("s{n}");
        let answer = move |mut stream: TcpStream| {
            let _ = stream.write_all(name.as_bytes());
        };
        MockServer::start_on(Ipv4Addr::new(127, 0, 7, n).into(), answer)
    };
    let servers: Vec<MockServer> = (1..=4).map(server).collect();
    let keys = ["id", "id32", "addr", "addr-port", "guid"];
    let start = |prefix: &str, order: [usize; 4]| {
        let (mut body, mut ports) = (String::new(), Vec::new());
        for (key, kind) in keys
            .iter()
            .flat_map(|key| [(key, "consistent"), (key, "maglev")])
        {
            let port = free_port();
            ports.push(port);
            let name = format!("{prefix}-{key}-{kind}");
            let head = format!("listen {name}\n    bind 127.0.0.1:{port}\n    balance source\n");
            writeln!(body, "{head}    hash-type {kind}").unwrap();
            for n in order {
                let (id, address) = (100 + n, servers[n].address());
                let words = format!("id {id} guid {kind}-{key}-{n} hash-key {key}");
                writeln!(body, "    server {prefix}{n} {address} {words}").unwrap();
            }
        }
        (Balancer::start(body), ports)
    };
    let homes = |ports: &[u16]| -> Vec<Vec<String>> {
        ports.iter().map(|port| owners(*port, 60)).collect()
    };
    let (first, first_ports) = start("a", [0, 1, 2, 3]);
    let (second, second_ports) = start("b", [2, 0, 3, 1]);
    let here = homes(&first_ports);
    assert_eq!(homes(&second_ports), here);
    // `id` and `id32` are the same, the others place servers elsewhere.
    let [consistent, maglev]: [Vec<_>; 2] =
        [0, 1].map(|from| here.iter().skip(from).step_by(2).collect());
    for homes in [consistent, maglev] {
        assert_eq!(homes[0], homes[1]);
        assert_eq!(homes.iter().collect::<BTreeSet<_>>().len(), keys.len() - 1);
    }
    drop(first);
    let (third, third_ports) = start("c", [3, 2, 1, 0]);
    assert_eq!(homes(&third_ports), here, "after a restart");
    second.settle();
    third.settle();
}
