//! What the demo says before and after: how to try it, and what the clients have seen.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::Options;
use super::datagrams::DatagramsSeen;
use super::failover::Failover;
use super::load::Seen;
use super::screen::{grouped, ms_at, seconds, share};
use crate::lb::{Backend, ServerCounter};

/// What is running, and where.
pub(super) fn introduction(options: &Options, socket: &Path) -> String {
    let (port, udp_port) = (options.port, options.udp_port);
    format!(
        "Tidegate listens on 127.0.0.1:{port} and, for datagrams, on 127.0.0.1:{udp_port}, and balances\n\
         both to three upstreams of its own. From another terminal:\n  \
         curl http://127.0.0.1:{port}/\n  \
         echo hello | socat -t 1 - UDP:127.0.0.1:{udp_port}\n  \
         echo \"show stat\" | socat - UNIX:{}\n",
        socket.display()
    )
}

/// What is left running after the show.
pub(super) fn staying(options: &Options) -> String {
    let (port, udp_port) = (options.port, options.udp_port);
    format!("\nThe load has ended; 127.0.0.1:{port} and {udp_port} (UDP) stay until Ctrl-C.")
}

/// Whether no new connection failed, no datagram was lost but with an upstream, and every upstream
/// was served.
pub(super) fn went_well(seen: &Seen, datagrams: &DatagramsSeen) -> bool {
    let served = seen.by_upstream.iter().all(|answers| *answers > 0);
    seen.failed == 0 && served && datagrams.went_well()
}

/// The table and the lines after the show.
pub(super) fn summary(
    options: &Options,
    played: Duration,
    backend: &Backend,
    seen: &Seen,
    datagrams: &DatagramsSeen,
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
    let _ = writeln!(
        text,
        "  datagrams    {} requests, {} answers, {} lost (on the way to a dead upstream: {}), {} flows moved",
        grouped(datagrams.requests),
        grouped(datagrams.answered),
        grouped(datagrams.lost),
        grouped(datagrams.lost - datagrams.failed),
        grouped(datagrams.moved),
    );
    let [out, back] = failover.report(backend);
    let _ = writeln!(text, "  failover     {out}\n               {back}");
    let verdict = if went_well(seen, datagrams) {
        "no new connection failed, and every upstream was served"
    } else {
        "NOT as it should be: a new connection failed, a datagram was lost without a reason, or an \
         upstream was not served"
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
