//! `ctl load`: how the sessions of each backend are distributed over its servers, since the start
//! or within a time, beside what their weights would give them.

use crossbeam::channel::Receiver;
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::Duration;

use super::client::{Client, Trouble};
use super::options::Verdict;
use super::report;
use super::status::{Proxy, Server, Standing, Status};
use super::values::{self, Part};
use crate::sys::interrupt;

/// Asks, once or twice, and writes.
pub(super) fn run(
    client: &Client,
    over: Option<Duration>,
    as_json: bool,
) -> Result<(String, Verdict), Trouble> {
    let before = match over {
        None => None,
        Some(time) => {
            let interrupted = interrupt::watch()
                .map_err(|error| Trouble::Strange(format!("cannot wait for signals: {error}")))?;
            Some(begin(client, time, &interrupted)?)
        }
    };
    let status = Status::ask(client)?;
    let verdict = status.verdict();
    let backends: Vec<(&str, Vec<Part<'_>>)> = status
        .backends()
        .map(|backend| (backend.name.as_str(), parts(backend, before.as_ref())))
        .collect();
    if as_json {
        let value = json!({
            "verdict": verdict.name(),
            "code": verdict.code(),
            "over_s": over.map(|time| time.as_secs_f64()),
            "backends": backends.iter().map(|(name, parts)| values::load(name, parts)).collect::<Vec<_>>(),
        });
        return Ok((values::line(&value), verdict));
    }
    let mut text = report::headline(&status);
    for (name, parts) in &backends {
        text.push('\n');
        text.push_str(&report::load(name, parts));
    }
    Ok((text, verdict))
}

/// The state at the beginning of the time, after the time. An interrupt ends it early.
fn begin(
    client: &Client,
    time: Duration,
    interrupted: &Receiver<Signal>,
) -> Result<Status, Trouble> {
    let before = Status::ask(client)?;
    let _ = interrupted.recv_timeout(time);
    Ok(before)
}

/// The servers of a backend with what they had since `before`.
fn parts<'a>(backend: &'a Proxy, before: Option<&Status>) -> Vec<Part<'a>> {
    let earlier = |server: &Server| {
        let mut proxies = before?.proxies.iter();
        let proxy = proxies.find(|proxy| proxy.name == backend.name)?;
        proxy.servers.iter().find(|own| own.name == server.name)
    };
    let expected = expected(&backend.servers);
    let bytes = |server: &Server| server.traffic.bytes_in + server.traffic.bytes_out;
    let part = |(server, expected): (&'a Server, f64)| {
        let earlier = earlier(server);
        // Counters that were cleared meanwhile are below what they were.
        Part {
            server,
            sessions: server
                .traffic
                .total
                .saturating_sub(earlier.map_or(0, |server| server.traffic.total)),
            bytes: bytes(server).saturating_sub(earlier.map_or(0, bytes)),
            expected,
        }
    };
    backend.servers.iter().zip(expected).map(part).collect()
}

/// What the weights of those give each that are in use now, in percent. Backup servers have a part
/// only where no other is up.
fn expected(servers: &[Server]) -> Vec<f64> {
    let is_up = |server: &&Server| server.standing() == Standing::Up;
    let backups = !servers.iter().filter(is_up).any(|server| !server.backup);
    let weight = |server: &Server| {
        if is_up(&server) && server.backup == backups {
            server.weight
        } else {
            0
        }
    };
    let all: u64 = servers.iter().map(weight).sum();
    let each = servers.iter().map(weight);
    each.map(|weight| crate::base::text::percent(weight, all))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::status::tests::status;

    fn web(totals: [u64; 3], states: [&str; 3]) -> Status {
        let rows: Vec<String> = (0..3)
            .map(|index| {
                let (total, state) = (totals[index], states[index]);
                let (weight, backup) = ([3, 1, 1][index], usize::from(index == 2));
                format!("web,s{index},0,{total},,{state},{weight},1,{backup},2,,,,{total},0,0,")
            })
            .collect();
        status(&rows.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn shares(status: &Status, before: Option<&Status>) -> Vec<(u64, f64)> {
        let parts = parts(&status.proxies[0], before);
        parts
            .iter()
            .map(|part| (part.sessions, part.expected))
            .collect()
    }

    #[test]
    fn parts_are_those_of_the_servers_in_use() {
        let up = web([30, 10, 0], ["UP", "UP", "UP"]);
        assert_eq!(shares(&up, None), [(30, 75.0), (10, 25.0), (0, 0.0)]);
        let one = web([30, 10, 0], ["DOWN", "UP 1/3", "UP"]);
        assert_eq!(shares(&one, None), [(30, 0.0), (10, 100.0), (0, 0.0)]);
        let backup = web([30, 10, 5], ["DOWN", "MAINT", "UP"]);
        assert_eq!(shares(&backup, None)[2], (5, 100.0));
        let none = web([0, 0, 0], ["DOWN", "DOWN", "DOWN"]);
        assert_eq!(shares(&none, None)[0], (0, 0.0));
    }

    #[test]
    fn what_came_within_the_time_is_counted() {
        let before = web([30, 10, 0], ["UP", "UP", "UP"]);
        let after = web([36, 12, 1], ["UP", "UP", "UP"]);
        let counts: Vec<u64> = shares(&after, Some(&before))
            .iter()
            .map(|part| part.0)
            .collect();
        assert_eq!(counts, [6, 2, 1]);
        // Cleared in between.
        assert_eq!(shares(&before, Some(&after))[0].0, 0);
    }
}
