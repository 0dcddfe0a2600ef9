//! The configs of `conf/` that describe real deployments, run as they stand: only addresses, the
//! path of the runtime socket and the connections of the process are replaced by the test's own.

mod brain;
mod hft;
mod mandi;
mod privatus;
mod privatus_udp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::support::balancer::TempDir;
use crate::support::client::local;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, wait_for};

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
        Scenario::start_changed(name, servers, |text| text)
    }

    /// The same with a change: where a test can't wait as long as the file says.
    fn start_changed(
        name: &str,
        servers: &[SocketAddr],
        change: impl FnOnce(String) -> String,
    ) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("conf")
            .join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let dir = TempDir::new();
        let (text, ports) = adopt(&change(text), &dir, servers);
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
