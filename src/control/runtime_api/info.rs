//! `show info`: HAProxy's fields in HAProxy's order.
//!
//! What Tidegate has no notion of (TLS, compression, pools) is 0, never left out: readers count on
//! the positions. A flow of datagrams is a stream, and counts with sessions and connections that
//! there were; `CurrConns`, which `Maxconn` bounds, has the connections of now without flows.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::control::Shared;
use crate::control::stats::Subject;
use crate::shard::{FrontCounter, Gauges};
use crate::sys::{clock, process};

/// The answer to `show info`.
pub(super) fn show(shared: &Shared, rest: &[&str]) -> String {
    if let Some(word) = rest
        .iter()
        .find(|word| matches!(**word, "typed" | "json" | "desc"))
    {
        return format!("'{word}' output is not supported.\n");
    }
    let mut text = String::new();
    for (name, value) in fields(shared) {
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

/// The fields in their order.
#[rustfmt::skip]
pub(in crate::control) fn fields(shared: &Shared) -> Vec<(&'static str, String)> {
    let world = &shared.world();
    let facts = &shared.facts;
    let global = &world.plan.global;
    let uptime_s = clock::now().ms_since(facts.started) / 1000;
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
    let api = world.plan.global.stats_sockets.len();
    let listeners = world.plan.listeners.len() + api;
    let stopping = u8::from(shared.is_stopping());
    let resident_kb = process::resident_kb();
    let memory = facts.memory_limit;
    let sum_of = |gauge: fn(&Gauges) -> &AtomicU64| {
        let each = world.ports.iter().map(|port| gauge(&port.gauges).load(Relaxed));
        each.sum::<u64>().to_string()
    };
    let reserved = world.memory_reserved.load(Relaxed);
    let zero = || "0".to_owned();
    vec![
        ("Name", "Tidegate".to_owned()),
        ("Version", env!("CARGO_PKG_VERSION").to_owned()),
        ("Release_date", "-".to_owned()),
        ("Nbthread", world.ports.len().to_string()),
        ("Nbproc", "1".to_owned()),
        ("Process_num", "1".to_owned()),
        ("Pid", std::process::id().to_string()),
        ("Uptime", uptime(uptime_s)),
        ("Uptime_sec", uptime_s.to_string()),
        ("Memmax_MB", (memory >> 20).to_string()),
        ("PoolAlloc_MB", (resident_kb >> 10).to_string()),
        ("PoolUsed_MB", (reserved >> 20).to_string()),
        ("PoolFailed", zero()),
        ("Ulimit-n", facts.descriptors_max.to_string()),
        ("Maxsock", facts.descriptors_needed.to_string()),
        ("Maxconn", maxconn.to_string()),
        ("Hard_maxconn", world.capacity.to_string()),
        ("CurrConns", current.to_string()),
        ("CumConns", connections.to_string()),
        ("CumReq", sessions.to_string()),
        ("MaxSslConns", zero()),
        ("CurrSslConns", zero()),
        ("CumSslConns", zero()),
        ("Maxpipes", world.pipes_max.to_string()),
        ("PipesUsed", sum_of(|g| &g.pipes_used)),
        ("PipesFree", sum_of(|g| &g.pipes_free)),
        ("ConnRate", rate.current.to_string()),
        ("ConnRateLimit", world.rate_limits.connections.load(Relaxed).to_string()),
        ("MaxConnRate", rate.max.to_string()),
        ("SessRate", rate.current.to_string()),
        ("SessRateLimit", world.rate_limits.sessions.load(Relaxed).to_string()),
        ("MaxSessRate", rate.max.to_string()),
        ("SslRate", zero()),
        ("SslRateLimit", zero()),
        ("MaxSslRate", zero()),
        ("SslFrontendKeyRate", zero()),
        ("SslFrontendMaxKeyRate", zero()),
        ("SslFrontendSessionReuse_pct", zero()),
        ("SslBackendKeyRate", zero()),
        ("SslBackendMaxKeyRate", zero()),
        ("SslCacheLookups", zero()),
        ("SslCacheMisses", zero()),
        ("CompressBpsIn", zero()),
        ("CompressBpsOut", zero()),
        ("CompressBpsRateLim", zero()),
        ("ZlibMemUsage", zero()),
        ("MaxZlibMemUsage", zero()),
        ("Tasks", streams.to_string()),
        ("Run_queue", zero()),
        ("Idle_pct", shared.rates.idle_percent().to_string()),
        ("node", node(&world.plan.global.process.node)),
        ("description", world.plan.global.process.description.clone()),
        ("Stopping", stopping.to_string()),
        ("Jobs", (u64::from(streams) + listeners as u64).to_string()),
        ("Unstoppable Jobs", api.to_string()),
        ("Listeners", listeners.to_string()),
        ("ActivePeers", zero()),
        ("ConnectedPeers", zero()),
        ("DroppedLogs", shared.messages.dropped().to_string()),
        ("BusyPolling", u8::from(global.busy_polling).to_string()),
        ("FailedResolutions", zero()),
        ("TotalBytesOut", sum(FrontCounter::BytesOut).to_string()),
        ("TotalSplicedBytesOut", sum_of(|g| &g.spliced_bytes)),
        ("BytesOutRate", zero()),
        ("DebugCommandsIssued", zero()),
        ("CumRecvLogs", zero()),
        ("Build info", env!("CARGO_PKG_VERSION").to_owned()),
        ("Memmax_bytes", memory.to_string()),
        ("PoolAlloc_bytes", (resident_kb << 10).to_string()),
        ("PoolUsed_bytes", reserved.to_string()),
        ("Start_time_sec", facts.started_unix_s.to_string()),
        ("Tainted", zero()),
        ("TotalWarnings", zero()),
        ("MaxconnReached", u8::from(world.limits.peak(world.process_limit) >= maxconn).to_string()),
        ("BootTime_ms", zero()),
        ("Niced_tasks", zero()),
        ("CurrStreams", streams.to_string()),
        ("CumStreams", sessions.to_string()),
        ("BlockedTrafficWarnings", zero()),
        ("PatternsAdded", zero()),
        ("PatternsFreed", zero()),
        ("NbThreadGroups", "1".to_owned()),
    ]
}

/// The answer to `show proc`: one process, which is what HAProxy's master and its worker are.
pub(super) fn processes(shared: &Shared) -> String {
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
