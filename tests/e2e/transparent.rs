//! The client's address without a header: connections to servers that come from it (`source ...
//! usesrc`), listeners on addresses that aren't the machine's (`bind ... transparent`), and both at
//! once, which nobody on either side notices.
//!
//! The recipe of `docs/transparent.md` is what the networks here are made by: a client's, the
//! balancer's and a server's, one behind the other.

use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;

use socket2::{Domain, Socket, Type};

use crate::support::balancer::{Setup, TempDir, program, skip};
use crate::support::client::{self, End, connect, connect_from, read_bytes, read_end, write};
use crate::support::networks::{Network, may_have_networks};
use crate::support::port::free_port;
use crate::support::proxy_header;
use crate::support::{Balancer, MockServer, Stopwatch, Syslog, eventually, server, turn};

/// Addresses of both families: the client's, the balancer's on its two sides, the server's.
pub(crate) const CLIENT: [&str; 2] = ["10.78.1.2", "fd78:1::2"];
pub(crate) const FRONT: [&str; 2] = ["10.78.1.1", "fd78:1::1"];
pub(crate) const BACK: [&str; 2] = ["10.78.2.1", "fd78:2::1"];
pub(crate) const SERVER: [&str; 2] = ["10.78.2.2", "fd78:2::2"];

/// A user that has nothing.
const NOBODY: u32 = 65534;

/// Three networks in a row.
pub(crate) struct Row {
    pub(crate) client: Network,
    pub(crate) balancer: Network,
    pub(crate) server: Network,
}

impl Row {
    /// The networks and the routes that any of them would have.
    pub(crate) fn new() -> Row {
        let row = Row {
            client: Network::new(),
            balancer: Network::new(),
            server: Network::new(),
        };
        let with_length = |[v4, v6]: [&str; 2]| [format!("{v4}/24"), format!("{v6}/64")];
        for (other, devices, addresses) in [
            (&row.client, ["front", "client"], [FRONT, CLIENT]),
            (&row.server, ["back", "server"], [BACK, SERVER]),
        ] {
            let [near, far] = addresses.map(with_length);
            let addresses = [[&*near[0], &*near[1]], [&*far[0], &*far[1]]];
            row.balancer.connect(other, devices, addresses);
        }
        for network in [&row.client, &row.balancer, &row.server] {
            // The strictest way to look at where packets come from: the recipe holds with it too.
            let strict = || std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1");
            if let Err(error) = network.run(strict) {
                eprintln!("with the rp_filter that there is, because it can't be set: {error}");
            }
        }
        for (network, [v4, v6]) in [(&row.client, FRONT), (&row.server, BACK)] {
            network.ip(&format!("route add default via {v4}"));
            network.ip(&format!("-6 route add default via {v6}"));
        }
        row
    }

    /// The recipe: what comes in by these devices is the balancer's, whomever it is for.
    pub(crate) fn takes_all_of(&self, devices: &[&str]) {
        for family in ["", "-6 "] {
            for device in devices {
                let rule = format!("rule add iif {device} lookup 100");
                self.balancer.ip(&format!("{family}{rule}"));
            }
        }
        self.balancer
            .ip("route add local 0.0.0.0/0 dev lo table 100");
        self.balancer.ip("-6 route add local ::/0 dev lo table 100");
    }

    pub(crate) fn start_balancer(&self, setup: Setup) -> Balancer {
        self.balancer.run(move || setup.start())
    }

    /// A server on an address of its network, which tells each client the address it sees and
    /// then does a checked exchange.
    fn start_server(&self, address: &str) -> MockServer {
        let address: IpAddr = address.parse().unwrap();
        let serve = |stream: TcpStream| {
            let from = stream.peer_addr().expect("a peer");
            write(&stream, format!("{from:<60}").as_bytes());
            server::exchange(stream);
        };
        self.server
            .run(move || MockServer::start_on(address, serve))
    }

    /// What a server says when a client connects there: the address that it sees, and the one
    /// that the client has.
    fn visit(&self, to: SocketAddr, seed: u64) -> [SocketAddr; 2] {
        self.client.run(move || {
            let client = connect(to);
            let own = client.local_addr().unwrap();
            let seen = String::from_utf8(read_bytes(&client, 60)).unwrap();
            client::exchange_on(client, 300_000, 200_000, seed).unwrap();
            [seen.trim().parse().unwrap(), own]
        })
    }
}

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

#[test]
fn servers_see_the_clients_address() {
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let row = Row::new();
    row.takes_all_of(&["back"]);
    let servers = SERVER.map(|ip| row.start_server(ip));
    for whose in ["clientip", "client"] {
        let mut body = String::new();
        let ports = [free_port(), free_port()];
        for ((front, port), server) in FRONT.into_iter().zip(ports).zip(&servers) {
            body += &format!(
                "listen l{port}\n    bind {}\n    source {} usesrc {whose}\n    server s {}\n",
                address(front, port),
                if front.contains(':') {
                    "[::]"
                } else {
                    "0.0.0.0"
                },
                server.address()
            );
        }
        let balancer = row.start_balancer(Setup::new(body));
        for (front, port) in FRONT.into_iter().zip(ports) {
            for seed in 0..5 {
                let [seen, own] = row.visit(address(front, port), seed);
                assert_eq!(seen.ip(), own.ip(), "{whose}");
                if whose == "client" {
                    assert_eq!(seen.port(), own.port());
                }
            }
        }
        balancer.settle();
    }
}

/// The client connects to the server's own address, and both see each other's.
#[test]
fn nobody_notices_a_balancer_between_them() {
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let row = Row::new();
    row.takes_all_of(&["front", "back"]);
    for (server_ip, any) in SERVER.into_iter().zip(["0.0.0.0", "[::]"]) {
        let server = row.start_server(server_ip);
        let body = format!(
            "listen l\n    bind {} transparent\n    source {any} usesrc client\n    server s {}\n",
            format_args!("{any}:{}", server.address().port()),
            if any == "[::]" { any } else { "*" },
        );
        let balancer = row.start_balancer(Setup::new(body));
        for seed in 0..5 {
            let [seen, own] = row.visit(server.address(), seed);
            assert_eq!(seen, own);
        }
        assert_eq!(balancer.stat().number("l", "s", "lbtot"), 5);
        balancer.settle();
    }
}

/// Without the recipe the servers' answers go past the balancer.
#[test]
fn an_answer_that_is_routed_past_the_balancer_is_a_timeout() {
    let _turn = turn::shared();
    if !may_have_networks() {
        return;
    }
    let row = Row::new();
    let (server, port) = (row.start_server(SERVER[0]), free_port());
    let body = format!(
        "listen l\n    timeout connect 100\n    retries 0\n    bind {}\n    \
         source 0.0.0.0 usesrc clientip\n    server s {}\n",
        address(FRONT[0], port),
        server.address()
    );
    let balancer = row.start_balancer(Setup::new(body));
    let end = row
        .client
        .run(move || read_end(&connect(address(FRONT[0], port))).0);
    assert!(end.is_empty());
    assert_eq!(balancer.stat().number("l", "s", "econ"), 1);
    balancer.settle();
}

/// What needs no networks: the client's address is one of the machine's.
struct Local {
    server: MockServer,
    balancer: Balancer,
    port: u16,
    dir: TempDir,
}

impl Local {
    /// `None` without the right to it.
    fn start(words: &str, global: &[String]) -> Option<Local> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("left out: other addresses than its own take root");
            return None;
        }
        let (server, port, dir) = (MockServer::hold(), free_port(), TempDir::new());
        let setup = Setup::new(format!(
            "listen l\n    bind 127.0.0.1:{port},[::1]:{port}\n    bind unix@{}/front mode 666\n    \
             retries 0\n    server s {} {words}\n",
            dir.path().display(),
            server.address()
        ));
        let setup = global.iter().fold(setup, Setup::global);
        Some(Local {
            server,
            balancer: setup.start(),
            port,
            dir,
        })
    }

    /// Where the server sees a client come from.
    fn seen(&self, source: &str) -> [SocketAddr; 2] {
        let source = source.parse().unwrap();
        let client = connect_from(source, client::local(self.port)).unwrap();
        write(&client, b"x");
        let stream = self.server.next();
        read_bytes(&stream, 1);
        [stream.peer_addr().unwrap(), client.local_addr().unwrap()]
    }
}

#[test]
fn a_third_address_is_taken_too() {
    let _turn = turn::shared();
    let words = "source 127.0.7.1 usesrc 127.0.7.2";
    let Some(local) = Local::start(words, &[]) else {
        return;
    };
    let [seen, _] = local.seen("127.0.7.3");
    assert_eq!(seen.ip(), IpAddr::from([127, 0, 7, 2]));
    local.balancer.settle();
}

/// Where a client comes with a PROXY header, its address is the header's.
#[test]
fn the_address_of_a_header_goes_before_that_of_the_connection() {
    let _turn = turn::shared();
    let words = "source 0.0.0.0 usesrc client";
    let Some(local) = Local::start(words, &[]) else {
        return;
    };
    let behind = free_port();
    let front = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{behind} accept-proxy\n    server s {} {words}\n",
        local.server.address()
    ));
    let client = connect(client::local(behind));
    let port = free_port();
    write(&client, &proxy_header::text(&format!("127.0.7.8:{port}")));
    write(&client, b"x");
    let stream = local.server.next();
    read_bytes(&stream, 1);
    assert_eq!(stream.peer_addr().unwrap(), address("127.0.7.8", port));
    drop((client, stream));
    front.settle();
    local.balancer.settle();
}

/// A check is nobody's but the balancer's: it comes from the source itself.
#[test]
fn checks_come_from_the_source_itself() {
    let _turn = turn::shared();
    let words = "check inter 100 send-proxy source 127.0.7.4 usesrc clientip";
    let Some(local) = Local::start(words, &[]) else {
        return;
    };
    let header = crate::support::announcement::read_header(&local.server.next()).unwrap();
    assert_eq!(header.source().ip(), IpAddr::from([127, 0, 7, 4]));
    local.balancer.settle();
}

/// The right to foreign addresses is kept when the rest of root's rights goes.
#[test]
fn another_user_may_still_take_the_clients_address() {
    let _turn = turn::shared();
    if skip("it refuses to change the user then") {
        return;
    }
    let global = [format!("uid {NOBODY}"), format!("gid {NOBODY}")];
    let words = "source 0.0.0.0 usesrc clientip";
    let Some(local) = Local::start(words, &global) else {
        return;
    };
    let status = format!("/proc/{}/status", local.balancer.pid());
    let status = std::fs::read_to_string(status).unwrap();
    let field = |name: &str| {
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        value.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(field("Uid:"), NOBODY.to_string());
    // CAP_NET_RAW, and nothing else.
    assert_eq!(u64::from_str_radix(&field("CapEff:"), 16), Ok(1 << 13));
    assert_eq!(field("CapPrm:"), field("CapEff:"));
    let [seen, own] = local.seen("127.0.7.5");
    assert_eq!(seen.ip(), own.ip());
    local.balancer.settle();
}

#[test]
fn a_client_without_a_fitting_address_is_a_failure_with_a_name() {
    let _turn = turn::shared();
    if skip("HAProxy connects from its own address then") {
        return;
    }
    let Some(local) = Local::start("source 0.0.0.0 usesrc clientip", &[]) else {
        return;
    };
    let client = UnixStream::connect(local.dir.path().join("front")).unwrap();
    let mut end = Vec::new();
    let _ = std::io::Read::read_to_end(&mut &client, &mut end);
    assert!(end.is_empty());
    let v6 = address("::1", local.port);
    assert!(read_end(&connect(v6)).0.is_empty());
    drop(client);
    let activity = local.balancer.activity();
    assert_eq!(activity.number("client_addresses_missing"), Some(1));
    assert_eq!(activity.number("client_families_other"), Some(1));
    assert_eq!(local.balancer.stat().number("l", "s", "econ"), 2);
    assert_eq!(local.server.accepted(), 0);
    local.balancer.settle();
}

/// Two connections of a client from one port of its own can't both go to one server: the second
/// goes to another at once, and one that finds none is a failure of this side.
#[test]
fn where_the_clients_port_is_taken_the_session_goes_to_another_server() {
    let _turn = turn::shared();
    if skip("HAProxy may try the same server again") || !nix::unistd::geteuid().is_root() {
        return;
    }
    let servers = [MockServer::hold(), MockServer::hold()];
    let [a, b] = [&servers[0], &servers[1]].map(|server| server.address());
    let fronts = [(); 3].map(|()| free_port());
    let bind = |port: &u16| format!("    bind 127.0.0.1:{port}\n");
    let binds: String = fronts.iter().map(bind).collect();
    let syslog = Syslog::start();
    let balancer = Balancer::start(format!(
        "listen l\n{binds}    balance first\n    timeout connect 30s\n    retries 3\n    \
         option tcplog\n    log {} local0\n    source 0.0.0.0 usesrc client\n    \
         server a {a}\n    server b {b}\n",
        syslog.address()
    ));
    let from = address("127.0.7.6", free_port());
    let client = |port: u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&from.into()).unwrap();
        client::connect_socket(socket, client::local(port)).unwrap()
    };
    let mut opened = Vec::new();
    for (front, server) in fronts.iter().zip(&servers) {
        let client = client(*front);
        let held = server.next();
        assert_eq!(held.peer_addr().unwrap(), from);
        opened.push((client, held));
    }
    let number = |name| balancer.activity().number(name);
    assert_eq!(number("sources_exhausted"), Some(1));
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "a", "wredis"), 1);
    let watch = Stopwatch::start();
    assert!(read_end(&client(fronts[2])).0.is_empty());
    let line = syslog.take_session();
    assert_eq!(line.end, "RC");
    assert!(watch.ms() < 900, "{} ms", watch.ms());
    assert_eq!(number("sources_exhausted"), Some(5));
    // A connection that has ended is not in the way, though this side has closed it first.
    let (first, held) = opened.remove(0);
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&held).1, End::Fin);
    drop(held);
    assert_eq!(read_end(&first).1, End::Fin);
    drop(first);
    eventually("the first has ended", || {
        balancer.stat().number("l", "a", "scur") == 0
    });
    let again = client(fronts[0]);
    let held = servers[0].next();
    assert_eq!(held.peer_addr().unwrap(), from);
    assert_eq!(number("sources_exhausted"), Some(5));
    drop((again, held, opened));
    balancer.settle();
}

/// What every connection would fail with is said at the start.
#[test]
fn the_lack_of_the_right_is_an_error_at_the_start() {
    let _turn = turn::shared();
    if skip("HAProxy starts and fails later") || !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = TempDir::new();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{}\n    server s 127.0.0.1:1 source 0.0.0.0 usesrc client\n",
        free_port()
    );
    let config = dir.write("balancer.cfg", &Setup::new(body).text(dir.path()));
    let output = Command::new("setpriv")
        .arg("--bounding-set=-net_admin,-net_raw")
        .arg(program())
        .arg("-f")
        .arg(&config)
        .output()
        .expect("run setpriv");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = "Server 'l/s' has a 'source' with 'usesrc'";
    assert!(
        stderr.contains(text) && stderr.contains("CAP_NET_ADMIN"),
        "{stderr}"
    );
}
