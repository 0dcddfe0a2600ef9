//! A real Prometheus scrapes a running balancer and evaluates the rules that are shipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::metrics::exporter;
use crate::programs::{Service, programs};
use crate::support::balancer::TempDir;
use crate::support::client::{connect_port, read_bytes};
use crate::support::http::get;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, turn, wait_for};

/// Prometheus takes its time, more so where it gets little of a core.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where the rules are.
fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/prometheus")
}

#[test]
fn the_rules_pass_their_unit_tests() {
    let _turn = turn::shared();
    let Some([promtool]) = programs(["promtool"]) else {
        return;
    };
    for arguments in [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "tidegate.rules.yml"],
        ["test", "rules", "tidegate.test.yml"],
    ] {
        let output = Command::new(&promtool)
            .args(arguments)
            .current_dir(rules())
            .output()
            .expect("run promtool");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{arguments:?}: {said}");
    }
}

/// Every alert has a test in which it fires.
#[test]
fn every_alert_is_tested() {
    let read = |name: &str| std::fs::read_to_string(rules().join(name)).expect(name);
    let tests = read("tidegate.test.yml");
    let rules = read("tidegate.rules.yml");
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut count = 0;
    for alert in alerts {
        let named = format!("alertname: {alert}\n");
        let mut tested = tests.split(&named).skip(1);
        let fires = tested.any(|after| after.trim_start().starts_with("exp_alerts:\n"));
        assert!(fires, "{alert} fires in no test");
        count += 1;
    }
    assert!(count > 10, "{count} alerts were found");
}

/// A Prometheus of this test's.
struct Prometheus {
    port: u16,
    _dir: TempDir,
    _service: Service,
}

impl Prometheus {
    /// Scrapes `target` and evaluates the rules several times a second. What an alert waits for is
    /// cut down to a second.
    fn start(program: &Path, target: u16) -> Prometheus {
        let dir = TempDir::new();
        let rules = std::fs::read_to_string(rules().join("tidegate.rules.yml")).expect("rules");
        let line = |line: &str| match line.trim_start().starts_with("for: ") {
            true => "        for: 1s\n".to_owned(),
            false => format!("{line}\n"),
        };
        dir.write("rules.yml", &rules.lines().map(line).collect::<String>());
        let config = dir.write(
            "prometheus.yml",
            &format!(
                "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  \
                 evaluation_interval: 200ms\nrule_files: [rules.yml]\nscrape_configs:\n  - \
                 job_name: tidegate\n    scrape_interval: 1s\n    scrape_timeout: 1s\n    \
                 static_configs: [{{targets: [\"127.0.0.1:{target}\"]}}]\n"
            ),
        );
        let port = free_port();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .env("GOMAXPROCS", "1");
        let service = Service::start(&mut command, port, Signal::SIGTERM);
        Prometheus {
            port,
            _dir: dir,
            _service: service,
        }
    }

    fn ask(&self, path: &str) -> Value {
        let answer = get(self.port, path);
        let value: Value = serde_json::from_str(&answer.body).unwrap_or(Value::Null);
        value["data"].clone()
    }

    /// The state of an alert about a server.
    fn alert(&self, name: &str, server: &str) -> Option<String> {
        let data = self.ask("/api/v1/alerts");
        let alerts = data["alerts"].as_array()?;
        let wanted = |alert: &&Value| {
            let labels = &alert["labels"];
            labels["alertname"] == name && labels["server"] == server
        };
        let state = alerts.iter().find(wanted)?["state"].as_str()?;
        Some(state.to_owned())
    }

    /// The value of a query with one series.
    fn query(&self, query: &str) -> Option<f64> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let data = self.ask(&format!("/api/v1/query?query={query}"));
        data["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

fn soon<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_for(PATIENCE, condition).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

#[test]
fn a_server_that_dies_and_comes_back_is_an_alert_while_it_is_gone() {
    let _turn = turn::shared();
    let Some([program]) = programs(["prometheus"]) else {
        return;
    };
    let (mut dies, stays) = (MockServer::named("d"), MockServer::named("s"));
    let (port, metrics) = (free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}listen l\n    bind 127.0.0.1:{port}\n    default-server check inter 500ms fall 2 rise \
         2\n    server dies {}\n    server stays {}\n",
        exporter(metrics),
        dies.address(),
        stays.address()
    ));
    for _ in 0..4 {
        read_bytes(&connect_port(port), 1);
    }
    let prometheus = Prometheus::start(&program, metrics);
    soon("it has scraped what was sent", || {
        let sessions = prometheus.query("haproxy_frontend_sessions_total{proxy=\"l\"}")?;
        // One of them is from the start: whether the address listens is asked by a connect.
        (sessions >= 4.0).then_some(())
    });
    soon("its last scrape went well", || {
        let data = prometheus.ask("/api/v1/targets");
        let target = &data["activeTargets"][0];
        (target["health"] == "up" && target["lastError"] == "").then_some(())
    });
    let down = || prometheus.alert("BackendServerDown", "dies");
    assert_eq!(down(), None);
    dies.stop();
    soon("the alert fires", || (down()? == "firing").then_some(()));
    assert_eq!(prometheus.alert("BackendServerDown", "stays"), None);
    let status = "haproxy_server_status{server=\"dies\",state=\"DOWN\"}";
    assert_eq!(prometheus.query(status), Some(1.0));
    dies.restart();
    soon("it is over", || down().is_none().then_some(()));
    soon("it is up", || {
        (prometheus.query(status)? == 0.0).then_some(())
    });
    drop(prometheus);
    balancer.settle();
}
