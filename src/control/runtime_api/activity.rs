//! `show activity`: what shards and process hold and do, one `name: total [ shard0 shard1 ]` per
//! line.
//!
//! The format is ours; docs/activity.md says what each line means, and a test that it has them all.
//! A gauge of the shards has its sum and each shard's part; maxima have the largest in place of the
//! sum. Lines about the process have the one value: `accept_queued` and `accept_dropped` are what
//! `show listeners` has of each socket.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::listening;
use crate::base::ports::Ports;
use crate::control::Shared;
use crate::shard::{DatagramCount as Datagrams, Gauges};
use crate::sys::process;

/// A gauge of a shard.
type Gauge = fn(&Gauges) -> &AtomicU64;

#[rustfmt::skip]
const GAUGES: &[(&str, Gauge)] = &[
    ("sessions", |g| &g.sessions),
    ("private_bytes", |g| &g.private_bytes),
    ("private_taken_bytes", |g| &g.private_taken_bytes),
    ("memory_refusals", |g| &g.memory_refusals),
    ("private_cached_bytes", |g| &g.private_cached_bytes),
    ("buffers_free", |g| &g.buffers_free),
    ("buffers_total", |g| &g.buffers_total),
    ("timers", |g| &g.timers),
    ("operations", |g| &g.operations),
    ("parked", |g| &g.parked),
    ("turns", |g| &g.turns),
    ("completions", |g| &g.completions),
    ("buffers_exhausted", |g| &g.buffers_exhausted),
    ("copied_out_bytes", |g| &g.copied_out_bytes),
    ("sends_short", |g| &g.sends_short),
    ("load", |g| &g.load),
    ("handed_over", |g| &g.handed_over),
    ("taken_over", |g| &g.taken_over),
    ("accepts_refused", |g| &g.accepts_refused),
    ("accept_pauses", |g| &g.accept_pauses),
    ("destinations_missing", |g| &g.destinations_missing),
    ("client_addresses_missing", |g| &g.client_addresses_missing),
    ("client_families_other", |g| &g.client_families_other),
    ("headers_unsent", |g| &g.headers_unsent),
    ("sources_exhausted", |g| &g.sources_exhausted),
    ("sources_chosen", |g| &g.sources_chosen),
    ("sources_in_use", |g| &g.sources_in_use),
    ("sources_left", |g| &g.sources_left),
    ("proxy_headers_malformed", |g| &g.proxy_headers_malformed),
    ("proxy_headers_timed_out", |g| &g.proxy_headers_timed_out),
    ("proxy_headers_closed", |g| &g.proxy_headers_closed),
    ("pipes_used", |g| &g.pipes_used),
    ("pipes_free", |g| &g.pipes_free),
    ("pipes_refused", |g| &g.pipes_refused),
    ("spliced_bytes", |g| &g.spliced_bytes),
    ("splice_promotions", |g| &g.splice_promotions),
    ("splice_demotions", |g| &g.splice_demotions),
    ("splice_unfit", |g| &g.splice_unfit),
    ("busy_permille", |g| &g.busy_permille),
    ("errors_unexpected", |g| &g.errors_unexpected),
    ("spins_found", |g| &g.spins_found),
    ("spins_vain", |g| &g.spins_vain),
    ("sleeps", |g| &g.sleeps),
    ("turn_max_us", |g| &g.turn_max_us),
    ("cq_overflows", |g| &g.cq_overflows),
    ("flows", |g| &g.datagrams[Datagrams::Flows as usize]),
    ("flow_mappings", |g| &g.datagrams[Datagrams::Mappings as usize]),
    ("flow_sockets", |g| &g.datagrams[Datagrams::Sockets as usize]),
    ("datagrams_from_clients", |g| &g.datagrams[Datagrams::FromClients as usize]),
    ("datagrams_to_servers", |g| &g.datagrams[Datagrams::ToServers as usize]),
    ("datagrams_from_servers", |g| &g.datagrams[Datagrams::FromServers as usize]),
    ("datagrams_to_clients", |g| &g.datagrams[Datagrams::ToClients as usize]),
    ("datagram_sends", |g| &g.datagrams[Datagrams::Sends as usize]),
    ("datagrams_merged", |g| &g.datagrams[Datagrams::Merged as usize]),
    ("datagrams_empty", |g| &g.datagrams[Datagrams::Empty as usize]),
    ("datagrams_truncated", |g| &g.datagrams[Datagrams::Truncated as usize]),
    ("datagrams_overflowed", |g| &g.datagrams[Datagrams::Overflowed as usize]),
    ("datagrams_unsent", |g| &g.datagrams[Datagrams::Unsent as usize]),
    ("datagrams_too_large", |g| &g.datagrams[Datagrams::TooLarge as usize]),
    ("datagrams_undeliverable", |g| &g.datagrams[Datagrams::Undeliverable as usize]),
    ("datagrams_unknown", |g| &g.datagrams[Datagrams::Unknown as usize]),
    ("datagrams_malformed", |g| &g.datagrams[Datagrams::HeadersMalformed as usize]),
    ("datagrams_refused", |g| &g.datagrams[Datagrams::Refused as usize]),
    ("datagram_refusals", |g| &g.datagrams[Datagrams::Refusals as usize]),
    ("datagram_segments_refused", |g| &g.datagrams[Datagrams::SegmentsRefused as usize]),
    ("datagram_buffers_exhausted", |g| &g.datagrams[Datagrams::InboxesExhausted as usize]),
    ("flows_evicted", |g| &g.datagrams[Datagrams::Evicted as usize]),
    ("flows_moved", |g| &g.datagrams[Datagrams::Moved as usize]),
    ("flows_reopened", |g| &g.datagrams[Datagrams::Reopened as usize]),
    ("flows_refused_limit", |g| &g.datagrams[Datagrams::RefusedLimit as usize]),
    ("flows_refused_source", |g| &g.datagrams[Datagrams::RefusedSource as usize]),
    ("flows_refused_rate", |g| &g.datagrams[Datagrams::RefusedRate as usize]),
    ("flows_refused_server", |g| &g.datagrams[Datagrams::RefusedServer as usize]),
    ("flows_refused_socket", |g| &g.datagrams[Datagrams::RefusedSocket as usize]),
    ("flows_refused_draining", |g| &g.datagrams[Datagrams::RefusedDraining as usize]),
];

/// A line.
pub(in crate::control) struct Reading {
    /// Its name.
    pub(in crate::control) name: &'static str,
    /// Of all shards, or of the process.
    pub(in crate::control) value: u64,
    /// Of each shard; empty = it is about the process.
    pub(in crate::control) shards: Vec<u64>,
}

/// The answer to `show activity`.
pub(super) fn show(shared: &Shared) -> String {
    let mut text = String::new();
    for Reading {
        name,
        value,
        shards,
    } in readings(shared)
    {
        let _ = write!(text, "{name}: {value}");
        if !shards.is_empty() {
            text.push_str(" [");
            for part in shards {
                let _ = write!(text, " {part}");
            }
            text.push_str(" ]");
        }
        text.push('\n');
    }
    let receive = shared.facts.caps.receive.name();
    let _ = writeln!(text, "receive_step: {receive}");
    text
}

/// All numbers of the shards and the process.
pub(in crate::control) fn readings(shared: &Shared) -> Vec<Reading> {
    let world = &shared.world();
    let of_shards = |(name, gauge): &(&'static str, Gauge)| {
        let ports = world.ports.iter();
        let shards: Vec<u64> = ports
            .map(|port| gauge(&port.gauges).load(Relaxed))
            .collect();
        let parts = shards.iter().copied();
        let value = match name.contains("_max_") {
            true => parts.max().unwrap_or(0),
            false => parts.fold(0, u64::wrapping_add),
        };
        Reading {
            name,
            value,
            shards,
        }
    };
    let mut readings: Vec<Reading> = GAUGES.iter().map(of_shards).collect();
    let backends = || world.backends.iter().flatten();
    let active: u64 = backends()
        .flat_map(|b| &b.servers)
        .map(|server| u64::from(server.active()))
        .sum();
    let queued: usize = backends().map(|backend| backend.queued()).sum();
    let mut line = |name, value| {
        readings.push(Reading {
            name,
            value,
            shards: Vec::new(),
        });
    };
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    line("server_active_total", active);
    line(
        "limits_taken",
        u64::from(world.limits.current(world.process_limit)),
    );
    line("queued", count(queued));
    let destinations = &world.destinations;
    let choosing = destinations.iter().filter(|to| to.is_on()).count();
    line("sources_destinations", count(choosing));
    let ranges = backends().flat_map(|b| &b.servers);
    let ranges = ranges.filter_map(|server| server.source_ports());
    let held = destinations.iter().map(|to| to.held());
    let held = held.chain(ranges.map(Ports::held)).sum();
    line("sources_held", held);
    let bytes = destinations.iter().map(|to| to.bytes()).sum();
    line("sources_bytes", count(bytes));
    let [waiting, dropped] = listening::totals(shared);
    line("accept_queued", waiting);
    line("accept_dropped", dropped);
    line("memory_reserved_bytes", world.memory_reserved.load(Relaxed));
    line("memory_limit_bytes", shared.facts.memory_limit);
    line("memory_max_bytes", world.memory_max);
    line("agent_failures", shared.agents.failures());
    line("observations_dropped", world.control.dropped());
    line("log_queued", count(shared.messages.queued()));
    line("log_sent", shared.messages.sent());
    line("log_dropped", shared.messages.dropped());
    let caps = &shared.facts.caps;
    for (name, has) in caps.describe() {
        line(name, u64::from(has));
    }
    line("descriptors", count(process::descriptors_open()));
    line("rss_kb", process::resident_kb());
    readings
}
