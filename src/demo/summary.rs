//! What the demo says before and after: how to try it, and what the clients have seen.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::Options;
use super::failover::Failover;
use super::load::Seen;
use super::screen::{grouped, ms_at, seconds, share};
use crate::lb::{Backend, ServerCounter};

/// What is running, and where.
pub(super) fn introduction(options: &Options, socket: &Path) -> String {
    let port = options.port;
    format!(
        "Tidegate listens on 127.0.0.1:{port} and balances to three upstreams of its own.\n\
         From another terminal:\n  \
         curl http://127.0.0.1:{port}/\n  \
         echo \"show stat\" | socat - UNIX:{}\n",
        socket.display()
    )
}

/// What is left running after the show.
pub(super) fn staying(port: u16) -> String {
    format!("\nThe load has ended; 127.0.0.1:{port} stays until Ctrl-C.")
}

/// Whether no new connection failed and every upstream was served.
pub(super) fn went_well(seen: &Seen) -> bool {
    seen.failed == 0 && seen.by_upstream.iter().all(|answers| *answers > 0)
}

/// The table and the lines after the show.
pub(super) fn summary(
    options: &Options,
    played: Duration,
    backend: &Backend,
    seen: &Seen,
    failover: &Failover,
) -> String {
    let mut text = format!("\nSummary of {}\n", seconds(played));
    per_upstream(&mut text, backend, seen);
    let _ = writeln!(
        text,
        "  connections  {} answered, {} failed, {} cut (open on the upstream when it was killed)",
        grouped(seen.answered),
        grouped(seen.failed),
        grouped(seen.cut),
    );
    if let Some(reason) = &seen.first_failure {
        let _ = writeln!(text, "               the first failure: {reason}");
    }
    let _ = writeln!(
        text,
        "  latency      p50 {} p99 {} p99.9 {} max {} ms, from the connect to the whole answer",
        ms_at(&seen.connection_us, 0.5),
        ms_at(&seen.connection_us, 0.99),
        ms_at(&seen.connection_us, 0.999),
        ms_at(&seen.connection_us, 1.0),
    );
    let _ = writeln!(
        text,
        "  kept         {} exchanges of 64 B, p50 {} p99 {} p99.9 {} ms; broken with their upstream and \
         opened again: {}",
        grouped(seen.exchanges),
        ms_at(&seen.exchange_us, 0.5),
        ms_at(&seen.exchange_us, 0.99),
        ms_at(&seen.exchange_us, 0.999),
        grouped(seen.kept_broken),
    );
    let [out, back] = failover.report(backend);
    let _ = writeln!(text, "  failover     {out}\n               {back}");
    let verdict = if went_well(seen) {
        "no new connection failed, and every upstream was served"
    } else {
        "NOT as it should be: a new connection failed, or an upstream was not served"
    };
    let _ = writeln!(text, "  result       {verdict}\n");
    let port = options.port;
    if options.keep {
        text.push_str("Try it:\n");
    } else {
        text.push_str("Try it while 'tidegate demo --keep' runs:\n");
    }
    let _ = write!(
        text,
        "  curl http://127.0.0.1:{port}/\n  \
         curl -s \"http://127.0.0.1:{port}/[1-6]\" -H \"Connection: close\""
    );
    text
}

fn per_upstream(text: &mut String, backend: &Backend, seen: &Seen) {
    let _ = writeln!(
        text,
        "  {:<9} {:>10} {:>8} {:>12} {:>16} {:>14}",
        "upstream", "answers", "share", "connections", "failed connects", "bytes"
    );
    let sessions = |index: usize| {
        backend.servers[index]
            .counters
            .sum(ServerCounter::Sessions as usize)
    };
    let all: u64 = (0..backend.servers.len()).map(sessions).sum();
    for (index, (server, answers)) in backend.servers.iter().zip(seen.by_upstream).enumerate() {
        let sum = |counter: ServerCounter| server.counters.sum(counter as usize);
        let _ = writeln!(
            text,
            "  {:<9} {:>10} {:>8} {:>12} {:>16} {:>14}",
            &*server.plan.name,
            grouped(answers),
            share(sessions(index), all),
            grouped(sessions(index)),
            grouped(sum(ServerCounter::ConnectErrors)),
            grouped(sum(ServerCounter::BytesIn) + sum(ServerCounter::BytesOut)),
        );
    }
}
