//! The answers of `ctl` as JSON: the names are those of the columns that people see, numbers are
//! numbers, what isn't known is null.

use serde_json::{Value, json};

use super::options::Verdict;
use super::status::{Finding, Proxy, Server, Side, Standing, Status, Traffic};
use crate::base::text::percent;

/// A text with its line feed.
pub(super) fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// What can't be told, and why.
pub(super) fn trouble(text: &str) -> Value {
    json!({
        "verdict": Verdict::Unknown.name(),
        "code": Verdict::Unknown.code(),
        "error": text,
    })
}

/// `check`, and a look of `monitor`.
pub(super) fn check(status: &Status) -> Value {
    let backend = |proxy: &Proxy| {
        json!({
            "name": proxy.name,
            "status": proxy.back.as_ref().map(|back| &back.status),
            "servers_up": proxy.servers_up(),
            "servers": proxy.servers.iter().map(state).collect::<Vec<_>>(),
        })
    };
    let verdict = status.verdict();
    json!({
        "verdict": verdict.name(),
        "code": verdict.code(),
        "findings": status.findings().iter().map(finding).collect::<Vec<_>>(),
        "backends": status.backends().map(backend).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "verdict": finding.verdict.name(),
        "place": finding.place,
        "text": finding.text,
    })
}

/// What a server is like, without its counters.
fn state(server: &Server) -> Value {
    let standing = match server.standing() {
        Standing::Up => "up",
        Standing::Out => "out",
        Standing::Down => "down",
    };
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "name": server.name,
        "standing": standing,
        "status": server.status,
        "address": given(&server.address),
        "weight": server.weight,
        "backup": server.backup,
        "throttle_percent": server.throttle,
        "check": given(&server.check),
        "check_ms": server.check_ms,
        "check_text": given(&server.check_text),
        "agent": given(&server.agent),
        "changed_s": server.changed_s,
    })
}

/// `detailed`
pub(super) fn detailed(status: &Status) -> Value {
    let process: serde_json::Map<String, Value> = status
        .info
        .fields()
        .map(|(name, value)| (name.to_owned(), number_or_text(value)))
        .collect();
    let verdict = status.verdict();
    json!({
        "verdict": verdict.name(),
        "code": verdict.code(),
        "findings": status.findings().iter().map(finding).collect::<Vec<_>>(),
        "process": process,
        "proxies": status.proxies.iter().map(proxy).collect::<Vec<_>>(),
    })
}

fn number_or_text(text: &str) -> Value {
    text.parse::<u64>()
        .map_or_else(|_| json!(text), |number| json!(number))
}

fn proxy(proxy: &Proxy) -> Value {
    let side = |side: &Side| json!({ "status": side.status, "traffic": traffic(&side.traffic) });
    let server = |server: &Server| {
        let mut value = state(server);
        value["failed_checks"] = json!(server.failed_checks);
        value["times_down"] = json!(server.times_down);
        value["downtime_s"] = json!(server.downtime_s);
        value["traffic"] = traffic(&server.traffic);
        value
    };
    json!({
        "name": proxy.name,
        "mode": proxy.mode,
        "frontend": proxy.front.as_ref().map(side),
        "backend": proxy.back.as_ref().map(side),
        "servers": proxy.servers.iter().map(server).collect::<Vec<_>>(),
    })
}

fn traffic(traffic: &Traffic) -> Value {
    json!({
        "sessions": traffic.current,
        "sessions_max": traffic.max,
        "sessions_limit": traffic.limit,
        "sessions_total": traffic.total,
        "rate": traffic.rate,
        "rate_max": traffic.rate_max,
        "bytes_in": traffic.bytes_in,
        "bytes_out": traffic.bytes_out,
        "queued": traffic.queued,
        "connect_errors": traffic.connect_errors,
        "response_errors": traffic.response_errors,
        "retries": traffic.retries,
        "redispatches": traffic.redispatches,
        "queue_ms": traffic.queue_ms,
        "connect_ms": traffic.connect_ms,
        "session_ms": traffic.session_ms,
    })
}

/// A server in `load`.
pub(super) struct Part<'a> {
    pub(super) server: &'a Server,
    pub(super) sessions: u64,
    pub(super) bytes: u64,
    /// By its weight, percent.
    pub(super) expected: f64,
}

/// A backend in `load`.
pub(super) fn load(name: &str, parts: &[Part<'_>]) -> Value {
    let all: u64 = parts.iter().map(|part| part.sessions).sum();
    let server = |part: &Part<'_>| {
        json!({
            "name": part.server.name,
            "status": part.server.status,
            "weight": part.server.weight,
            "sessions": part.sessions,
            "share_percent": percent(part.sessions, all),
            "expected_percent": part.expected,
            "sessions_open": part.server.traffic.current,
            "rate": part.server.traffic.rate,
            "bytes": part.bytes,
        })
    };
    json!({
        "name": name,
        "sessions": all,
        "servers": parts.iter().map(server).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::status::tests::{WEB, status};

    #[test]
    fn numbers_are_numbers_and_what_is_not_known_is_null() {
        let status = status(&WEB);
        let value = check(&status);
        assert_eq!(
            (value["verdict"].as_str(), value["code"].as_u64()),
            (Some("OK"), Some(0))
        );
        let servers = &value["backends"][0]["servers"];
        assert_eq!(servers[2]["standing"], "out");
        assert!(servers[1]["check"].is_null() && servers[0]["address"].is_null());
        let value = detailed(&status);
        assert_eq!(value["process"]["CurrConns"], 3);
        assert_eq!(value["process"]["Uptime"], "0d 0h00m04s");
        let web = &value["proxies"][0];
        assert_eq!(web["servers"][0]["traffic"]["sessions_total"], 20);
        assert_eq!(web["frontend"]["traffic"]["sessions_limit"], 100);
        assert!(web["servers"][2]["traffic"]["connect_ms"].is_null());
    }

    #[test]
    fn trouble_is_json_too() {
        let text = line(&trouble("no \"connection\""));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (value["code"].as_u64(), value["error"].as_str()),
            (Some(3), Some("no \"connection\""))
        );
    }
}
