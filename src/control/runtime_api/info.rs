//! `show info`: HAProxy's fields in HAProxy's order.
//!
//! What Tidegate has no notion of (TLS, compression, pools) is 0, never left out: readers count on
//! the positions. A flow of datagrams is a stream, and counts with sessions and connections that
//! there were; `CurrConns`, which `Maxconn` bounds, has the connections of now without flows.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::command::{Answer, Call, Command, Run};
use super::info_lines::LINES;
use super::typed::{self, Field, Format, Shape, Value};
use crate::config::plan::Level;
use crate::control::Shared;
use crate::control::stats::Subject;
use crate::shard::{FrontCounter, Gauges};
use crate::sys::{clock, process};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "info"], level: Level::User,
        usage: "show info [desc|json|typed|float]*",
        help: "report information about the running process", run: Run::Now(show) },
    Command { words: &["show", "proc"], level: Level::User, usage: "show proc",
        help: "list the processes: this one, in the roles of HAProxy's master and worker",
        run: Run::Now(|call| Answer::Text(processes(call.shared))) },
];

/// Lines that `float` gives with a fraction, where there is one.
const FLOATS: &[&str] = &[
    "ConnRate",
    "SessRate",
    "SslRate",
    "SslFrontendKeyRate",
    "SslFrontendSessionReuse_pct",
    "SslBackendKeyRate",
    "CompressBpsIn",
    "CompressBpsOut",
];

fn show(call: &mut Call<'_>) -> Answer {
    let mut format = Format::PLAIN;
    let mut floats = false;
    for word in call.words {
        // Other words mean nothing, as in HAProxy.
        if !format.take(word) {
            floats |= *word == "float";
        }
    }
    let mut text = String::new();
    if format.shape == Shape::Json {
        text.push('[');
    }
    for (at, field, value) in lines(call.shared, floats) {
        match format.shape {
            Shape::Plain => {
                let _ = write!(text, "{}: {value}", field.name);
                typed::words_of(&mut text, field, format.with_words);
                text.push('\n');
            }
            Shape::Typed => {
                let _ = write!(text, "{at}.{}.1", field.name);
                typed::typed_tail(&mut text, field, field.tags, &value, format.with_words);
            }
            Shape::Json => {
                text.push_str(if at == 0 { "{" } else { ",{" });
                typed::json_members(&mut text, at, field, field.tags, &value);
                text.push('}');
            }
        }
    }
    if format.shape == Shape::Json {
        text.push_str("]\n");
    }
    Answer::Text(text)
}

/// The lines with their places and values; one without a description is left out, as in HAProxy.
fn lines(shared: &Shared, floats: bool) -> impl Iterator<Item = (usize, &'static Field, Value)> {
    let values = values(shared, floats);
    debug_assert_eq!(values.len(), LINES.len());
    let lines = LINES.iter().zip(values).enumerate();
    let lines = lines.map(move |(at, (field, (name, value)))| {
        debug_assert_eq!(field.name, name);
        match value {
            Value::Unsigned(number) if floats && FLOATS.contains(&name) => {
                (at, field, Value::Float(number as f64))
            }
            value => (at, field, value),
        }
    });
    lines.filter(|(_, _, value)| *value != Value::Text(String::new()))
}

/// The lines as texts.
pub(in crate::control) fn fields(shared: &Shared) -> Vec<(&'static str, String)> {
    let values = values(shared, false).into_iter();
    values
        .map(|(name, value)| (name, value.to_string()))
        .collect()
}

/// The values, with their names for the sake of readers.
#[rustfmt::skip]
fn values(shared: &Shared, floats: bool) -> Vec<(&'static str, Value)> {
    let world = &shared.world();
    let facts = &shared.facts;
    let global = &world.plan.global;
    let uptime_ms = clock::now().ms_since(facts.started);
    let uptime_s = uptime_ms / 1000;
    let seconds = |ms: u64| match floats {
        true => Value::Float(ms as f64 / 1000.0),
        false => Value::Unsigned(ms / 1000),
    };
    let current = world.limits.current(world.process_limit);
    let maxconn = world.limits.max(world.process_limit);
    let streams = current.saturating_add(world.limits.current(world.flows_limit));
    let fronts = || world.frontends.iter().flatten();
    let sum = |counter: FrontCounter| {
        let each = fronts().map(|front| front.counters.sum_ever(counter as usize));
        each.sum::<u64>()
    };
    let (connections, sessions) = (sum(FrontCounter::Connections), sum(FrontCounter::Sessions));
    let rate = shared.rates.of(Subject::Process);
    let bytes_rate = shared.rates.of(Subject::BytesOut);
    let api = world.plan.global.stats_sockets.len();
    let listeners = world.plan.listeners.len() + api;
    let stopping = u8::from(shared.is_stopping());
    let resident_kb = process::resident_kb();
    let memory = facts.memory_limit;
    let sum_of = |gauge: fn(&Gauges) -> &AtomicU64| {
        let each = world.ports.iter().map(|port| gauge(&port.gauges).load(Relaxed));
        each.sum::<u64>()
    };
    let reserved = world.memory_reserved.load(Relaxed);
    vec![
        ("Name", "Tidegate".into()),
        ("Version", env!("CARGO_PKG_VERSION").into()),
        ("Release_date", "-".into()),
        ("Nbthread", world.ports.len().into()),
        ("Nbproc", 1u32.into()),
        ("Process_num", 1u32.into()),
        ("Pid", std::process::id().into()),
        ("Uptime", uptime(uptime_s).into()),
        ("Uptime_sec", seconds(uptime_ms)),
        ("Memmax_MB", (memory >> 20).into()),
        ("PoolAlloc_MB", (resident_kb >> 10).into()),
        ("PoolUsed_MB", (reserved >> 20).into()),
        ("PoolFailed", 0u32.into()),
        ("Ulimit-n", facts.descriptors_max.into()),
        ("Maxsock", facts.descriptors_needed.into()),
        ("Maxconn", maxconn.into()),
        ("Hard_maxconn", world.capacity.into()),
        ("CurrConns", current.into()),
        ("CumConns", connections.into()),
        ("CumReq", sessions.into()),
        ("MaxSslConns", 0u32.into()),
        ("CurrSslConns", 0u32.into()),
        ("CumSslConns", 0u32.into()),
        ("Maxpipes", world.pipes_max.into()),
        ("PipesUsed", sum_of(|g| &g.pipes_used).into()),
        ("PipesFree", sum_of(|g| &g.pipes_free).into()),
        ("ConnRate", rate.current.into()),
        ("ConnRateLimit", world.rate_limits.connections.load(Relaxed).into()),
        ("MaxConnRate", rate.max.into()),
        ("SessRate", rate.current.into()),
        ("SessRateLimit", world.rate_limits.sessions.load(Relaxed).into()),
        ("MaxSessRate", rate.max.into()),
        ("SslRate", 0u32.into()),
        ("SslRateLimit", 0u32.into()),
        ("MaxSslRate", 0u32.into()),
        ("SslFrontendKeyRate", 0u32.into()),
        ("SslFrontendMaxKeyRate", 0u32.into()),
        ("SslFrontendSessionReuse_pct", 0u32.into()),
        ("SslBackendKeyRate", 0u32.into()),
        ("SslBackendMaxKeyRate", 0u32.into()),
        ("SslCacheLookups", 0u32.into()),
        ("SslCacheMisses", 0u32.into()),
        ("CompressBpsIn", 0u32.into()),
        ("CompressBpsOut", 0u32.into()),
        ("CompressBpsRateLim", 0u32.into()),
        ("ZlibMemUsage", 0u32.into()),
        ("MaxZlibMemUsage", 0u32.into()),
        ("Tasks", streams.into()),
        ("Run_queue", 0u32.into()),
        ("Idle_pct", shared.rates.idle_percent().into()),
        ("node", node(&world.plan.global.process.node).into()),
        ("description", world.plan.global.process.description.as_str().into()),
        ("Stopping", stopping.into()),
        ("Jobs", (u64::from(streams) + listeners as u64).into()),
        ("Unstoppable Jobs", api.into()),
        ("Listeners", listeners.into()),
        ("ActivePeers", 0u32.into()),
        ("ConnectedPeers", 0u32.into()),
        ("DroppedLogs", shared.messages.dropped().into()),
        ("BusyPolling", u8::from(global.busy_polling).into()),
        ("FailedResolutions", 0u32.into()),
        ("TotalBytesOut", sum(FrontCounter::BytesOut).into()),
        ("TotalSplicedBytesOut", sum_of(|g| &g.spliced_bytes).into()),
        ("BytesOutRate", bytes_rate.current.into()),
        ("DebugCommandsIssued", 0u32.into()),
        ("CumRecvLogs", 0u32.into()),
        ("Build info", env!("CARGO_PKG_VERSION").into()),
        ("Memmax_bytes", memory.into()),
        ("PoolAlloc_bytes", (resident_kb << 10).into()),
        ("PoolUsed_bytes", reserved.into()),
        ("Start_time_sec", seconds(facts.started_unix_s * 1000)),
        ("Tainted", "0".into()),
        ("TotalWarnings", shared.startup.warnings().into()),
        ("MaxconnReached", u8::from(world.limits.peak(world.process_limit) >= maxconn).into()),
        ("BootTime_ms", shared.startup.took_ms().into()),
        ("Niced_tasks", 0u32.into()),
        ("CurrStreams", streams.into()),
        ("CumStreams", sessions.into()),
        ("BlockedTrafficWarnings", 0u32.into()),
        ("PatternsAdded", 0u32.into()),
        ("PatternsFreed", 0u32.into()),
        ("NbThreadGroups", 1u32.into()),
        ("CurrFlows", world.limits.current(world.flows_limit).into()),
        ("MaxFlows", world.limits.max(world.flows_limit).into()),
    ]
}

/// The answer to `show proc`: one process, which is what HAProxy's master and its worker are.
fn processes(shared: &Shared) -> String {
    let pid = std::process::id();
    let seconds = clock::now().ms_since(shared.facts.started) / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes) = (rest / 3600, rest % 3600 / 60);
    let up = format!("{days}d{hours:02}h{minutes:02}m{:02}s", rest % 60);
    let version = env!("CARGO_PKG_VERSION");
    let row = |role: &str| format!("{pid:<15} {role:<15} {:<15} {up:<15} {version}\n", 0);
    let head = ["#<PID>", "<type>", "<reloads>", "<uptime>"].map(|cell| format!("{cell:<15} "));
    format!(
        "{}<version>\n{}# workers\n{}# programs\n",
        head.concat(),
        row("master"),
        row("worker")
    )
}

/// The instance's name, the host's where it has none.
pub(in crate::control) fn node(configured: &str) -> String {
    let name = if configured.is_empty() {
        process::host_name()
    } else {
        configured
    };
    name.to_owned()
}

/// `0d 0h00m04s`
fn uptime(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    format!(
        "{days}d {}h{:02}m{:02}s",
        rest / 3600,
        rest % 3600 / 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_written_as_haproxy_does() {
        assert_eq!(uptime(4), "0d 0h00m04s");
        assert_eq!(uptime(2 * 86_400 + 3 * 3600 + 61), "2d 3h01m01s");
    }
}
