//! Metrics: what a scrape has, beside what was sent, beside HAProxy, and before promtool.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::programs::programs;
use crate::support::balancer::{Balancer, Setup};
use crate::support::client::{connect_port, exchange, local, read_bytes, write};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::http::{Samples, ask, get};
use crate::support::port::free_port;
use crate::support::{MockServer, eventually, skip, turn};

/// A frontend that answers with metrics.
pub(crate) fn exporter(port: u16) -> String {
    format!(
        "frontend prometheus\n    mode http\n    bind 127.0.0.1:{port}\n    \
         http-request use-service prometheus-exporter if {{ path /metrics }}\n"
    )
}

#[test]
fn a_scrape_has_what_was_sent() {
    let _turn = turn::shared();
    let (server, port, metrics) = (MockServer::exchange(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}listen l\n    bind 127.0.0.1:{port}\n    server s {}\n    server out 127.0.0.1:1 \
         disabled\n",
        exporter(metrics),
        server.address()
    ));
    let (sessions, up, down) = (7, 5_000, 70_000);
    for seed in 0..sessions {
        exchange(local(port), up, down, seed).expect("an exchange");
    }
    let held = connect_port(port);
    eventually("all but one have ended", || {
        balancer.stat().number("l", "FRONTEND", "scur") == 1
            && balancer.stat().number("l", "s", "stot") == sessions + 1
    });
    let samples = Samples::scrape(metrics, "");
    let stat = balancer.stat();
    let number = |name: &str, column: &str| stat.number("l", name, column) as f64;
    for (name, value) in [
        (
            "haproxy_frontend_sessions_total{proxy=\"l\"}",
            (sessions + 1) as f64,
        ),
        ("haproxy_frontend_current_sessions{proxy=\"l\"}", 1.0),
        (
            "haproxy_frontend_bytes_in_total{proxy=\"l\"}",
            number("FRONTEND", "bin"),
        ),
        (
            "haproxy_frontend_bytes_out_total{proxy=\"l\"}",
            number("FRONTEND", "bout"),
        ),
        (
            "haproxy_backend_bytes_out_total{proxy=\"l\"}",
            number("BACKEND", "bout"),
        ),
        (
            "haproxy_server_bytes_in_total{proxy=\"l\",server=\"s\"}",
            number("s", "bin"),
        ),
        (
            "haproxy_server_current_sessions{proxy=\"l\",server=\"s\"}",
            1.0,
        ),
        (
            "haproxy_server_status{proxy=\"l\",server=\"s\",state=\"UP\"}",
            1.0,
        ),
        (
            "haproxy_server_status{proxy=\"l\",server=\"out\",state=\"MAINT\"}",
            1.0,
        ),
        (
            "haproxy_server_status{proxy=\"l\",server=\"out\",state=\"UP\"}",
            0.0,
        ),
        (
            "haproxy_backend_agg_server_status{proxy=\"l\",state=\"MAINT\"}",
            1.0,
        ),
        ("haproxy_backend_status{proxy=\"l\",state=\"UP\"}", 1.0),
    ] {
        if let Some(found) = samples.find(name) {
            assert_eq!(found, value, "{name}");
        } else {
            panic!("no {name}");
        }
    }
    let bytes = samples.value("haproxy_server_bytes_out_total{proxy=\"l\",server=\"s\"}");
    assert!(bytes >= (sessions * down) as f64, "{bytes}");
    drop(held);
    balancer.settle();
}

/// Every histogram counts what it is of once, also what is out of its buckets.
#[test]
fn times_of_servers_are_counted_once_each() {
    let _turn = turn::shared();
    if skip("metrics of our own") {
        return;
    }
    let (server, port, metrics) = (MockServer::named("s"), free_port(), free_port());
    let silent = MockServer::hold();
    let silent_port = free_port();
    let balancer = Balancer::start(format!(
        "{}listen l\n    bind 127.0.0.1:{port}\n    server s {}\nlisten q\n    \
         bind 127.0.0.1:{silent_port}\n    server s {}\n",
        exporter(metrics),
        server.address(),
        silent.address()
    ));
    for _ in 0..5 {
        let client = connect_port(port);
        assert_eq!(read_bytes(&client, 1), b"s");
    }
    // One that never hears of its server.
    let client = connect_port(silent_port);
    let held = silent.next();
    write(&client, b"x");
    assert_eq!(read_bytes(&held, 1), b"x");
    let count = |samples: &Samples, what: &str, proxy: &str| {
        let labels = format!("{{proxy=\"{proxy}\",server=\"s\"}}");
        samples.value(&format!("tidegate_server_{what}_seconds_count{labels}"))
    };
    eventually("the five have ended", || {
        count(&Samples::scrape(metrics, ""), "session", "l") == 5.0
    });
    let samples = Samples::scrape(metrics, "");
    let of = |what| [count(&samples, what, "l"), count(&samples, what, "q")];
    assert_eq!(of("connect"), [5.0, 1.0]);
    assert_eq!(of("first_byte"), [5.0, 0.0]);
    assert_eq!(of("session"), [5.0, 0.0]);
    for what in ["connect", "first_byte", "session"] {
        let last = format!(
            "tidegate_server_{what}_seconds_bucket{{le=\"+Inf\",proxy=\"l\",server=\"s\"}}"
        );
        assert_eq!(samples.value(&last), 5.0);
    }
    drop((client, held));
    balancer.settle();
}

#[test]
fn flows_and_datagrams_are_in_it() {
    let _turn = turn::shared();
    if skip("datagrams") {
        return;
    }
    let (server, port, metrics) = (DatagramServer::echo(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}listen u\n    mode udp\n    bind 127.0.0.1:{port}\n    timeout udp 30s\n    server s \
         {}\n",
        exporter(metrics),
        server.address()
    ));
    let client = DatagramClient::new(local(port), 1);
    for number in 0..4 {
        client.exchange(number, 100);
    }
    eventually("the shard has told of them", || {
        let samples = Samples::scrape(metrics, "?scope=global");
        samples.sum("tidegate_datagrams_received_total") == 8.0
            && samples.sum("tidegate_shard_flows") == 1.0
    });
    let samples = Samples::scrape(metrics, "");
    for name in [
        "tidegate_frontend_datagrams_in_total{proxy=\"u\"}",
        "tidegate_backend_datagrams_out_total{proxy=\"u\"}",
        "tidegate_server_datagrams_in_total{proxy=\"u\",server=\"s\"}",
    ] {
        assert_eq!(samples.value(name), 4.0, "{name}");
    }
    drop(client);
    drop(balancer);
}

/// Only a flow's first reply has a time, and only if it is its server's to a question.
#[test]
fn first_replies_and_lengths_of_flows_are_counted_once_each() {
    let _turn = turn::shared();
    if skip("datagrams") {
        return;
    }
    let (server, silent) = (DatagramServer::echo(), DatagramServer::silent());
    let [port, silent_port, metrics] = [(); 3].map(|()| free_port());
    let listen = |name: &str, port: u16, server: &DatagramServer| {
        format!(
            "listen {name}\n    mode udp\n    bind 127.0.0.1:{port}\n    timeout udp 1h\n    \
             timeout udp-unconfirmed 1h\n    server s {}\n",
            server.address()
        )
    };
    let balancer = Balancer::start(format!(
        "{}{}{}",
        exporter(metrics),
        listen("u", port, &server),
        listen("q", silent_port, &silent)
    ));
    let clients: Vec<_> = (0..5)
        .map(|flow| DatagramClient::new(local(port), flow))
        .collect();
    for number in 0..3 {
        clients.iter().for_each(|c| c.exchange(number, 100));
    }
    let unheard = DatagramClient::new(local(silent_port), 9);
    unheard.send_payload(0, 100);
    silent.wait_received(1);
    let count = |what: &str| {
        let samples = Samples::scrape(metrics, "?scope=server");
        ["u", "q"].map(|proxy| {
            let labels = format!("{{proxy=\"{proxy}\",server=\"s\"}}");
            samples.value(&format!("tidegate_server_{what}_seconds_count{labels}"))
        })
    };
    assert_eq!(count("first_byte"), [5.0, 0.0]);
    assert_eq!(count("session"), [0.0, 0.0]);
    assert_eq!(count("connect"), [0.0, 0.0], "nobody connects");
    balancer.stats("shutdown sessions server u/s; shutdown sessions server q/s");
    eventually("their lengths are counted", || {
        count("session") == [5.0, 1.0]
    });
    assert_eq!(count("first_byte"), [5.0, 0.0]);
    balancer.settle();
}

#[test]
fn a_scrape_is_cut_down_by_its_parameters() {
    let _turn = turn::shared();
    let (server, port, metrics) = (MockServer::echo(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}listen l\n    bind 127.0.0.1:{port}\n    server s {}\n    server out {} disabled\n",
        exporter(metrics),
        server.address(),
        server.address()
    ));
    let begins = |parameters: &str, prefixes: &[&str]| {
        let samples = Samples::scrape(metrics, parameters);
        let found = samples.metrics();
        assert!(!found.is_empty() || prefixes.is_empty(), "{parameters}");
        for name in found {
            let own = name.replacen("tidegate_", "haproxy_", 1);
            assert!(
                prefixes.iter().any(|p| own.starts_with(p)),
                "{name} for {parameters}"
            );
        }
    };
    begins("?scope=server", &["haproxy_server_"]);
    let both = ["haproxy_frontend_", "haproxy_backend_"];
    begins("?scope=frontend&scope=backend", &both);
    begins("?scope=listener", &[]);
    begins("?scope=", &[]);
    assert_eq!(get(metrics, "/metrics?scope=other").status, 400);
    let out = "haproxy_server_weight{proxy=\"l\",server=\"out\"}";
    assert!(Samples::scrape(metrics, "").find(out).is_some());
    assert!(Samples::scrape(metrics, "?no-maint").find(out).is_none());
    let only = "?metrics=haproxy_server_weight%2Chaproxy_frontend_status";
    let samples = Samples::scrape(metrics, only);
    let wanted = ["haproxy_frontend_status", "haproxy_server_weight"];
    assert!(samples.metrics().into_iter().eq(wanted));
    let samples = Samples::scrape(metrics, "?metrics=-haproxy_server_weight");
    assert!(!samples.metrics().contains("haproxy_server_weight"));
    assert!(samples.metrics().contains("haproxy_server_status"));
    balancer.settle();
}

/// A config whose metrics are many.
fn many(metrics: u16, server: &MockServer) -> Setup {
    let (stream, hashed) = (free_port(), free_port());
    Setup::new(format!(
        "{}listen l\n    bind 127.0.0.1:{stream}\n    server s {} check\n    server gone \
         127.0.0.1:1 check inter 200ms\nfrontend f\n    bind 127.0.0.1:{hashed}\n    default_backend \
         b\nbackend b\n    balance source\n    server s {} maxconn 5\n    server r {} backup\n",
        exporter(metrics),
        server.address(),
        server.address(),
        server.address(),
    ))
    .global("description a \\\"quoted\\\" one")
    .global("node n1")
}

/// Its names, types and labels are HAProxy's: dashboards and alerts for it go on.
#[test]
fn metrics_of_haproxys_names_are_haproxys() {
    let _turn = turn::shared();
    let Some([haproxy]) = programs(["haproxy"]) else {
        return;
    };
    if skip("compares two programs") {
        return;
    }
    let (server, ours, theirs) = (MockServer::echo(), free_port(), free_port());
    let balancer = many(ours, &server).start();
    let other = many(theirs, &server);
    let dir = crate::support::balancer::TempDir::new();
    let config = dir.write("haproxy.cfg", &other.text(dir.path()));
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(config);
    let end = nix::sys::signal::Signal::SIGTERM;
    let _haproxy = crate::programs::Service::start(&mut command, theirs, end);
    eventually("both have seen the server that is gone", || {
        let down = "haproxy_server_status{proxy=\"l\",server=\"gone\",state=\"DOWN\"}";
        let is_down = |port| Samples::scrape(port, "").find(down) == Some(1.0);
        is_down(ours) && is_down(theirs)
    });
    let shapes = |text: &str| -> std::collections::BTreeSet<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(str::to_owned).collect()
    };
    let (own, other) = (get(ours, "/metrics").body, get(theirs, "/metrics").body);
    let theirs = shapes(&other);
    // Later versions of HAProxy than the one that is here have these, or this type.
    let later = |line: &str| {
        let name = line.split(' ').next().unwrap_or_default();
        [
            "_active",
            "_backup",
            "_node",
            "_description",
            "_resolutions",
        ]
        .iter()
        .any(|end| name.ends_with(end))
    };
    for line in shapes(&own) {
        if line.starts_with("haproxy_") && !later(&line) {
            assert!(theirs.contains(&line), "HAProxy has no {line}");
        }
    }
    // The series of servers have the same labels, with the same values.
    let series = |text: &str| -> std::collections::BTreeSet<String> {
        let lines = text
            .lines()
            .filter(|line| line.starts_with("haproxy_server_"));
        let lines = lines.filter_map(|line| line.rsplit_once(' '));
        let name = lines.map(|(name, _)| name.to_owned());
        name.filter(|name| !later(name.split('{').next().unwrap_or_default()))
            .collect()
    };
    let (own, other) = (series(&own), series(&other));
    let without: Vec<&String> = own.difference(&other).collect();
    assert!(without.is_empty(), "HAProxy has none of {without:?}");
    drop(balancer);
}

#[test]
fn promtool_finds_nothing_wrong() {
    let _turn = turn::shared();
    let Some([promtool]) = programs(["promtool"]) else {
        return;
    };
    let (server, metrics) = (MockServer::echo(), free_port());
    let balancer = many(metrics, &server).start();
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run promtool");
    let text = get(metrics, "/metrics").body;
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    balancer.settle();
}

/// In OpenMetrics the numbers are the same, and the end is marked.
#[test]
fn open_metrics_comes_to_who_accepts_it() {
    let _turn = turn::shared();
    if skip("OpenMetrics") {
        return;
    }
    let (server, metrics) = (MockServer::echo(), free_port());
    let balancer = many(metrics, &server).start();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let request = format!(
        "GET /metrics?scope=server HTTP/1.1\r\nHost: t\r\nAccept: {accept}\r\nConnection: \
         close\r\n\r\n"
    );
    let open = ask(metrics, &request);
    let kind = &open.headers["content-type"];
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    assert!(open.body.ends_with("\n# EOF\n"));
    assert!(
        open.body
            .contains("# TYPE haproxy_server_sessions counter\n")
    );
    let classic = get(metrics, "/metrics?scope=server");
    assert_eq!(classic.headers["content-type"], "text/plain; version=0.0.4");
    assert!(
        classic
            .body
            .contains("# TYPE haproxy_server_sessions_total counter\n")
    );
    let (open, classic) = (Samples::parse(&open.body), Samples::parse(&classic.body));
    assert_eq!(open.metrics(), classic.metrics());
    balancer.settle();
}

/// The page names every metric of ours, and none that isn't there.
#[test]
fn the_page_has_every_metric_of_ours() {
    let _turn = turn::shared();
    if skip("metrics of our own") {
        return;
    }
    let (server, metrics, port) = (MockServer::echo(), free_port(), free_port());
    let datagrams = DatagramServer::echo();
    let balancer = many(metrics, &server)
        .body_more(format!(
            "listen u\n    mode udp\n    option socket-stats\n    bind 127.0.0.1:{port}\n    server s {}\n",
            datagrams.address()
        ))
        .start();
    let text = get(metrics, "/metrics").body;
    let types = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE tidegate_"));
    let names = types.filter_map(|line| line.split(' ').next());
    let shown: std::collections::BTreeSet<String> =
        names.map(|name| format!("tidegate_{name}")).collect();
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `tidegate_"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let words = cells.flat_map(|cell| cell.split('`'));
    let named: std::collections::BTreeSet<String> = words
        .filter(|word| word.starts_with("tidegate_"))
        // In the place of those of servers, where there are very many.
        .filter(|word| !(word.starts_with("tidegate_backend_") && word.ends_with("_seconds")))
        .map(str::to_owned)
        .collect();
    assert_eq!(shown, named);
    // What is shipped for Prometheus and Grafana asks for nothing that isn't there. A server has a
    // throttle only while it is returning.
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut known: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    known.push("haproxy_server_current_throttle");
    for shipped in [
        include_str!("../../conf/grafana/tidegate.json"),
        include_str!("../../conf/prometheus/tidegate.rules.yml"),
    ] {
        let words = shipped.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
        let mut count = 0;
        for word in words.filter(|w| w.starts_with("haproxy_") || w.starts_with("tidegate_")) {
            let name = word.trim_end_matches("_bucket");
            assert!(name.ends_with('_') || known.contains(&name), "{word}");
            count += 1;
        }
        assert!(count > 20, "{count} names were found");
    }
    // Every number of `show activity` is one of them.
    let activity = balancer.stats("show activity");
    for line in activity.lines().filter_map(|line| line.split_once(": ")) {
        if line.0 != "receive_step" {
            assert!(page.contains(&format!("`{}`", line.0)), "{}", line.0);
        }
    }
    balancer.settle();
}
