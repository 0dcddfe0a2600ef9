//! `check`, `detailed` and `load`, for people.

use std::fmt::Write as _;

use super::options::Verdict;
use super::status::{Proxy, Server, Side, Standing, Status, Traffic};
use super::values::Part;
use crate::base::text::{counted, known, percent, share, short, span, table};

/// The first line, as monitoring plugins have it: the verdict and why.
pub(super) fn headline(status: &Status) -> String {
    let servers: usize = status.backends().map(|backend| backend.servers.len()).sum();
    let up: usize = status.backends().map(Proxy::servers_up).sum();
    let out = status
        .backends()
        .flat_map(|backend| &backend.servers)
        .filter(|server| server.standing() == Standing::Out)
        .count();
    let backends = counted(status.backends().count(), "backend");
    let mut text = format!(
        "{}: {up} of {} up in {backends}",
        status.verdict().name(),
        counted(servers, "server"),
    );
    if out > 0 {
        let _ = write!(text, ", {out} taken out");
    }
    for finding in status.findings() {
        let _ = write!(text, "; {} {}", finding.place, finding.text);
    }
    text.push('\n');
    text
}

/// What is said where nothing can be told.
pub(super) fn unknown(why: &str) -> String {
    format!("{}: {why}\n", Verdict::Unknown.name())
}

/// `check`
pub(super) fn check(status: &Status) -> String {
    let mut text = headline(status);
    for backend in status.backends() {
        let state = backend
            .back
            .as_ref()
            .map_or("", |back| back.status.as_str());
        let _ = writeln!(text, "backend {} {state}", backend.name);
        let rows: Vec<Vec<String>> = backend.servers.iter().map(check_row).collect();
        text.push_str(&table(2, &[1, 2, 3], &rows));
    }
    text
}

fn check_row(server: &Server) -> Vec<String> {
    let check = match (server.check.as_str(), server.check_ms) {
        ("", _) => "-".to_owned(),
        (check, Some(ms)) => format!("{check} in {ms} ms"),
        (check, None) => check.to_owned(),
    };
    let since = server.changed_s.map(span);
    vec![
        server.name.clone(),
        server.status.clone(),
        check,
        since.map_or_else(String::new, |since| format!("for {since}")),
    ]
}

/// `detailed`
pub(super) fn detailed(status: &Status) -> String {
    let mut text = headline(status);
    let info = &status.info;
    let _ = writeln!(
        text,
        "\n{} {}, process {}, up {}\n  {} of {} connections, {} new in the last second (most {}), \
         {}% idle, {} shards or threads",
        info.text("Name"),
        info.text("Version"),
        info.text("Pid"),
        info.text("Uptime"),
        info.text("CurrConns"),
        info.text("Maxconn"),
        info.text("ConnRate"),
        info.text("MaxConnRate"),
        info.text("Idle_pct"),
        info.text("Nbthread"),
    );
    let fronts: Vec<(&Proxy, &Side)> = status
        .proxies
        .iter()
        .filter_map(|proxy| Some((proxy, proxy.front.as_ref()?)))
        .collect();
    if !fronts.is_empty() {
        text.push_str("\nfrontends\n");
        let mut rows = vec![head(&["name", "mode", "status"])];
        for (proxy, front) in fronts {
            let first = [&proxy.name, &proxy.mode, &front.status];
            rows.push(traffic_row(&first, &front.traffic));
        }
        text.push_str(&table(2, &[1, 2], &rows));
    }
    for backend in status.backends() {
        backend_table(&mut text, backend);
    }
    text
}

fn backend_table(text: &mut String, backend: &Proxy) {
    let _ = writeln!(text, "\nbackend {} (mode {})", backend.name, backend.mode);
    let mut rows = vec![head(&["name", "status", "weight"])];
    for server in &backend.servers {
        let weight = match (server.throttle, server.backup) {
            (Some(percent), _) => format!("{} at {percent}%", server.weight),
            (None, true) => format!("{} backup", server.weight),
            (None, false) => server.weight.to_string(),
        };
        let first = [&server.name, &server.status, &weight];
        rows.push(traffic_row(&first, &server.traffic));
    }
    if let Some(back) = &backend.back {
        let first = ["all".to_owned(), back.status.clone(), String::new()];
        rows.push(traffic_row(&first.each_ref(), &back.traffic));
    }
    text.push_str(&table(2, &[1, 2], &rows));
    text.push('\n');
    let mut rows = vec![
        [
            "name", "check", "found", "failed", "down", "downtime", "changed", "address",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(backend.servers.iter().map(health_row));
    text.push_str(&table(2, &[1, 2, 7], &rows));
}

fn head(first: &[&str; 3]) -> Vec<String> {
    let rest = [
        "sessions",
        "most",
        "limit",
        "total",
        "rate",
        "in",
        "out",
        "queue",
        "errors",
        "retries",
        "redisp",
        "connect ms",
        "session ms",
    ];
    first
        .iter()
        .chain(&rest)
        .map(|cell| (*cell).to_owned())
        .collect()
}

fn traffic_row(first: &[&String; 3], traffic: &Traffic) -> Vec<String> {
    let mut row: Vec<String> = first.iter().map(|cell| (*cell).clone()).collect();
    row.extend([
        traffic.current.to_string(),
        traffic.max.to_string(),
        known(traffic.limit),
        traffic.total.to_string(),
        traffic.rate.to_string(),
        short(traffic.bytes_in),
        short(traffic.bytes_out),
        traffic.queued.to_string(),
        (traffic.connect_errors + traffic.response_errors).to_string(),
        traffic.retries.to_string(),
        traffic.redispatches.to_string(),
        known(traffic.connect_ms),
        known(traffic.session_ms),
    ]);
    row
}

fn health_row(server: &Server) -> Vec<String> {
    let or_none = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    vec![
        server.name.clone(),
        or_none(&server.check),
        or_none(&server.check_text),
        server.failed_checks.to_string(),
        server.times_down.to_string(),
        span(server.downtime_s),
        server.changed_s.map_or_else(|| "-".to_owned(), span),
        or_none(&server.address),
    ]
}

/// `load`: the part of each server, beside what its weight would give it.
pub(super) fn load(name: &str, parts: &[Part<'_>]) -> String {
    let all: u64 = parts.iter().map(|part| part.sessions).sum();
    let mut text = format!("backend {name}: {}\n", counted_sessions(all));
    let mut rows = vec![
        [
            "name", "status", "weight", "sessions", "share", "expected", "off by", "open", "rate",
            "bytes",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for part in parts {
        let off = percent(part.sessions, all) - part.expected;
        rows.push(vec![
            part.server.name.clone(),
            part.server.status.clone(),
            part.server.weight.to_string(),
            part.sessions.to_string(),
            share(part.sessions, all),
            format!("{:.1}%", part.expected),
            if all == 0 {
                "-".to_owned()
            } else {
                format!("{off:+.1}")
            },
            part.server.traffic.current.to_string(),
            part.server.traffic.rate.to_string(),
            short(part.bytes),
        ]);
    }
    text.push_str(&table(2, &[1], &rows));
    text
}

fn counted_sessions(count: u64) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), "session")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::status::tests::{WEB, status};

    #[test]
    fn the_first_line_says_it_all() {
        let text = check(&status(&WEB));
        assert!(
            text.starts_with("OK: 2 of 3 servers up in 1 backend, 1 taken out\n"),
            "{text}"
        );
        assert!(
            text.contains("\nbackend web UP\n  s1  UP        L4OK  for 1m0s\n"),
            "{text}"
        );
        let down = WEB.map(|row| row.replace(",no check,", ",DOWN,"));
        let text = headline(&status(&down.each_ref().map(String::as_str)));
        let expected =
            "WARNING: 1 of 3 servers up in 1 backend, 1 taken out; server web/s2 DOWN (1m0s)\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn details_have_a_row_for_each_server_and_both_sides() {
        let text = detailed(&status(&WEB));
        for part in [
            "Tidegate 0.1.0, process 7",
            "\nfrontends\n",
            "\nbackend web",
            "  all   UP",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
