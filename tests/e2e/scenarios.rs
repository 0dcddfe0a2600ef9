//! The configs of `conf/` that describe real deployments, run as they stand: only addresses, the
//! path of the runtime socket and the connections of the process are replaced by the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::failover::rolling_restart;
use crate::spread::{count_sequential, owners, sorted};
use crate::support::balancer::TempDir;
use crate::support::client::{self, local};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, StopOnDrop, Stopwatch, turn, wait_for};

/// Probes of the shipped configs are seconds apart.
const CHECKS_BOUND: Duration = Duration::from_secs(20);

/// A shipped config on addresses of this test.
struct Scenario {
    balancer: Balancer,
    /// Port of each section with a `bind`.
    ports: BTreeMap<String, u16>,
}

impl Scenario {
    /// Starts `conf/NAME` with `servers` in the place of its server addresses, in their order.
    fn start(name: &str, servers: &[SocketAddr]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("conf")
            .join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let dir = TempDir::new();
        let (text, ports) = adopt(&text, &dir, servers);
        Scenario {
            balancer: Balancer::start_text(dir, &text),
            ports,
        }
    }

    /// The status of a server.
    fn status(&self, proxy: &str, server: &str) -> String {
        self.balancer
            .stat()
            .text(proxy, server, "status")
            .to_owned()
    }

    /// Waits for a status; a change takes as many probes as the config says.
    fn wait_status(&self, proxy: &str, server: &str, status: &str) {
        let reached = wait_for(CHECKS_BOUND, || {
            self.status(proxy, server).starts_with(status).then_some(())
        });
        assert!(
            reached.is_some(),
            "{proxy}/{server} is {}",
            self.status(proxy, server)
        );
    }
}

/// The config with addresses replaced: the runtime socket's, each `bind`, each distinct server
/// address.
fn adopt(text: &str, dir: &TempDir, servers: &[SocketAddr]) -> (String, BTreeMap<String, u16>) {
    let mut ports = BTreeMap::new();
    let mut mapped: BTreeMap<String, SocketAddr> = BTreeMap::new();
    let (mut section, mut adopted) = (String::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut line = line.to_owned();
        match words.as_slice() {
            ["listen" | "frontend" | "backend", name, ..] => section = (*name).to_owned(),
            ["stats", "socket", path, ..] => {
                line = line.replace(path, &dir.path().join("stats").display().to_string());
            }
            ["bind", address, ..] => {
                let port = free_port();
                line = line.replace(address, &local(port).to_string());
                ports.insert(section.clone(), port);
            }
            ["server", _, address, ..] => {
                let next = mapped.len();
                let server = *mapped.entry((*address).to_owned()).or_insert_with(|| {
                    *servers
                        .get(next)
                        .unwrap_or_else(|| panic!("a server too many: {line}"))
                });
                line = line.replace(address, &server.to_string());
            }
            _ => {}
        }
        adopted.push_str(&line);
        adopted.push('\n');
    }
    assert_eq!(
        mapped.len(),
        servers.len(),
        "distinct servers of the config"
    );
    (adopted, ports)
}

fn named(count: usize) -> (Vec<MockServer>, Vec<SocketAddr>) {
    let servers: Vec<MockServer> = (1..=count)
        .map(|index| MockServer::named(&format!("u{index}")))
        .collect();
    let addresses = servers.iter().map(MockServer::address).collect();
    (servers, addresses)
}

#[test]
fn brain_spreads_100_connections_34_33_33() {
    let _turn = turn::shared();
    let (_servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    assert_eq!(
        sorted(&count_sequential(brain.ports["api"], 100)),
        [34, 33, 33]
    );
    brain.balancer.settle();
}

#[test]
fn brain_spreads_by_weight_50_33_17() {
    let _turn = turn::shared();
    let (_servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    let counts = count_sequential(brain.ports["api_weighted"], 100);
    assert_eq!((counts["u1"], counts["u2"], counts["u3"]), (50, 33, 17));
    brain.balancer.settle();
}

#[test]
fn brain_keeps_clients_with_their_upstream_and_moves_only_those_of_a_dead_one() {
    let _turn = turn::shared();
    let (mut servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    let port = brain.ports["websocket"];
    let before = owners(port, 40);
    assert_eq!(owners(port, 40), before);
    assert_eq!(
        before.iter().collect::<BTreeSet<_>>().len(),
        3,
        "{before:?}"
    );
    servers[2].stop();
    brain.wait_status("websocket", "instance_3", "DOWN");
    for (then, now) in before.iter().zip(owners(port, 40)) {
        assert!(
            *then == now || then == "u3",
            "a client of {then} moved to {now}"
        );
        assert_ne!(now, "u3");
    }
    servers[2].restart();
    brain.wait_status("websocket", "instance_3", "UP");
    assert_eq!(owners(port, 40), before);
    brain.balancer.settle();
}

#[test]
fn brain_restarts_its_upstreams_without_a_failed_connection() {
    let _turn = turn::alone();
    let (mut servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    let served = rolling_restart(brain.ports["api"], &mut servers, 1);
    assert!(served > 150, "only {served} connections");
    brain.balancer.settle();
}

/// An upstream whose open connections can be cut, as when its host dies.
struct Upstream {
    server: MockServer,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Upstream {
    fn start() -> Self {
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let kept = Arc::clone(&open);
        let server = MockServer::start(move |mut stream| {
            kept.lock().unwrap().push(stream.try_clone().unwrap());
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            // The kept copy of the descriptor would hold the connection open.
            let _ = stream.shutdown(Shutdown::Both);
        });
        Upstream { server, open }
    }

    fn die(&mut self) {
        self.server.stop();
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// What sixteen clients with kept connections saw.
#[derive(Default)]
struct Load {
    requests: AtomicU64,
    /// Connections that ended under a request, which is the fate of those with the dead upstream.
    cut: AtomicU64,
    /// Connects that failed.
    refused: AtomicU64,
    done: AtomicBool,
}

impl Load {
    /// One client: requests of 64 bytes over a kept connection; connects anew when it is cut.
    fn run(&self, port: u16) {
        let mut connection = None;
        while !self.done.load(Relaxed) {
            let Some(stream) = &mut connection else {
                match client::try_connect(local(port)) {
                    Ok(stream) => connection = Some(stream),
                    Err(_) => drop(self.refused.fetch_add(1, Relaxed)),
                }
                continue;
            };
            let request = [9; 64];
            let mut answer = [0; 64];
            let answered = stream
                .write_all(&request)
                .and_then(|()| stream.read_exact(&mut answer));
            if answered.is_ok() {
                assert_eq!(request, answer);
                self.requests.fetch_add(1, Relaxed);
                std::thread::park_timeout(Duration::from_millis(1));
            } else {
                self.cut.fetch_add(1, Relaxed);
                connection = None;
            }
        }
    }

    fn wait_requests(&self, more: u64) {
        let target = self.requests.load(Relaxed) + more;
        let reached = wait_for(Duration::from_secs(10), || {
            (self.requests.load(Relaxed) >= target).then_some(())
        });
        assert!(reached.is_some(), "the load stands still");
    }
}

#[test]
fn hft_loses_one_of_four_upstreams_under_load_and_takes_it_back() {
    const CLIENTS: u64 = 16;
    let _turn = turn::alone();
    let mut upstreams: Vec<Upstream> = (0..4).map(|_| Upstream::start()).collect();
    let addresses: Vec<SocketAddr> = upstreams.iter().map(|u| u.server.address()).collect();
    let hft = Scenario::start("hft.cfg", &addresses);
    let (port, load) = (hft.ports["orders"], Load::default());
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&load.done);
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(port));
        }
        load.wait_requests(2_000);
        assert_eq!(load.cut.load(Relaxed), 0);
        let shares: Vec<u64> = upstreams.iter().map(|u| u.server.accepted()).collect();
        // Probes are counted too, but least connections gives each a quarter of the clients.
        let open = |name: &str| hft.balancer.stat().number("order_backends", name, "scur");
        assert_eq!(open("backend_2"), CLIENTS / 4, "{shares:?}");

        // A server starts in the middle of the scale: three failures take it out once it is at the
        // top.
        let health = || {
            hft.balancer
                .stat()
                .number("order_backends", "backend_2", "check_health")
        };
        assert!(wait_for(CHECKS_BOUND, || (health() == 4).then_some(())).is_some());
        upstreams[1].die();
        let watch = Stopwatch::start();
        load.wait_requests(2_000);
        hft.wait_status("order_backends", "backend_2", "DOWN");
        // Three failed probes a second apart: not out before two seconds, and out soon after three.
        watch.assert_within(1_500, 6_000, "out after three failed checks");
        assert_eq!(open("backend_2"), 0);
        // Only those of the dead upstream were cut. A connect that it still gets before it is out
        // is retried on another one.
        assert_eq!(load.cut.load(Relaxed), CLIENTS / 4);
        assert_eq!(load.refused.load(Relaxed), 0);

        upstreams[1].server.restart();
        hft.wait_status("order_backends", "backend_2", "UP");
        // The least loaded one gets the next connections.
        let fresh: Vec<TcpStream> = (0..4).map(|_| client::connect_port(port)).collect();
        fresh
            .iter()
            .for_each(|stream| client::echo(stream, b"order"));
        assert_eq!(open("backend_2"), 4);
        load.wait_requests(500);
    });
    assert_eq!(load.cut.load(Relaxed), CLIENTS / 4);
    hft.balancer.settle();
}
