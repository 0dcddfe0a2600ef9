//! Metrics of our own: the shards and the process, datagrams of proxies, times of servers.

use std::collections::HashMap;
use std::fmt;
use std::iter::StepBy;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering::Relaxed;

use super::activity::LINES;
use super::exposition::{Counts, Kind, Number, Writer};
use super::families::{Rows, Sample, labels};
use super::query::Query;
use super::rows::{Object, Of};
use crate::base::histogram::Histogram;
use crate::control::Shared;
use crate::control::reload::Tally;
use crate::control::runtime_api::activity::{Reading, readings};
use crate::lb::timings::Timings;

/// Columns of datagrams, by the end of a metric's name.
const DATAGRAMS: &[(&str, &str, &str)] = &[
    (
        "datagrams_in_total",
        "udp_datagrams_in",
        "Datagrams from clients that were passed on",
    ),
    (
        "datagrams_out_total",
        "udp_datagrams_out",
        "Datagrams from servers that were passed on",
    ),
];

/// A histogram: how its metric's name ends, what it is, which of a server's, how many of its units
/// are a second, and which of its buckets are written. Each of those is as wide as all before it;
/// session lengths have every second one, so that a server has no more lines than it must.
struct Timed {
    end: &'static str,
    help: &'static str,
    of: fn(&Timings) -> &Histogram,
    parts: f64,
    buckets: fn() -> StepBy<RangeInclusive<usize>>,
}

const TIMED: &[Timed] = &[
    Timed {
        end: "connect_seconds",
        help: "Time to connect, of the attempt that succeeded",
        of: |timings| &timings.connect_us,
        parts: 1e6,
        buckets: || (6..=25).step_by(1),
    },
    Timed {
        end: "first_byte_seconds",
        help: "Time from the connect to the server's first byte; of flows of datagrams, from the \
               first one to the first reply",
        of: |timings| &timings.first_byte_us,
        parts: 1e6,
        buckets: || (6..=25).step_by(1),
    },
    Timed {
        end: "session_seconds",
        help: "Length of sessions, and of flows of datagrams",
        of: |timings| &timings.session_ms,
        parts: 1e3,
        buckets: || (2..=26).step_by(2),
    },
];

impl Timed {
    fn counts(&self, timings: &Timings) -> Counts {
        let histogram = (self.of)(timings);
        let counts = histogram.buckets();
        let mut next = 0;
        let mut buckets = Vec::new();
        for last in (self.buckets)() {
            let count = counts[next..=last].iter().sum();
            // The last one has no end, and is not among those that are written.
            let end = Histogram::bound(last).unwrap_or(u64::MAX);
            buckets.push((end as f64 / self.parts, count));
            next = last + 1;
        }
        buckets.push((f64::INFINITY, counts[next..].iter().sum()));
        Counts {
            sum: histogram.sum() as f64 / self.parts,
            buckets,
        }
    }
}

/// Writes what is asked for.
pub(super) fn write(
    shared: &Shared,
    query: &Query,
    rows: &Rows,
    writer: &mut Writer<'_, '_>,
) -> fmt::Result {
    for (prefix, objects) in [
        ("tidegate_frontend_", &rows.frontends),
        ("tidegate_listener_", &rows.listeners),
        ("tidegate_backend_", &rows.backends),
        ("tidegate_server_", &rows.servers),
    ] {
        datagrams(prefix, objects, writer)?;
    }
    for timed in TIMED {
        let samples = rows.servers.iter().filter_map(|object| match &object.of {
            Of::Server(server) if !server.timings.is_shared => {
                Some((labels(object), timed.counts(&server.timings)))
            }
            _ => None,
        });
        let (end, help) = (timed.end, timed.help);
        writer.histograms(&format!("tidegate_server_{end}"), help, samples)?;
        let samples = rows.backends.iter().filter_map(|object| match &object.of {
            Of::Backend(backend) => {
                let shared = backend.servers.first().filter(|s| s.timings.is_shared)?;
                Some((labels(object), timed.counts(&shared.timings)))
            }
            _ => None,
        });
        writer.histograms(&format!("tidegate_backend_{end}"), help, samples)?;
    }
    if query.scope.global {
        process(shared, writer)?;
    }
    Ok(())
}

fn datagrams(prefix: &str, objects: &[Object], writer: &mut Writer<'_, '_>) -> fmt::Result {
    for (end, column, help) in DATAGRAMS {
        let samples = objects.iter().filter_map(|object| {
            let number = Number::parse(object.row.value(column))?;
            Some((labels(object), number))
        });
        writer.family(&format!("{prefix}{end}"), Kind::Counter, help, samples)?;
    }
    Ok(())
}

fn process(shared: &Shared, writer: &mut Writer<'_, '_>) -> fmt::Result {
    let ports = &shared.world().ports;
    let shards: Vec<String> = (0..ports.len()).map(|shard| shard.to_string()).collect();
    let readings = readings(shared);
    let by_name: HashMap<&str, &Reading> = readings
        .iter()
        .map(|reading| (reading.name, reading))
        .collect();
    let mut lines = LINES;
    while let Some(first) = lines.first() {
        let same = lines.iter().take_while(|line| line.metric == first.metric);
        let (family, rest) = lines.split_at(same.count());
        lines = rest;
        let mut samples: Vec<Sample<'_>> = Vec::new();
        for line in family {
            let Some(reading) = by_name.get(line.line) else {
                continue;
            };
            let scaled = |value: u64| match line.parts == 1.0 {
                true => Number::Whole(value),
                false => Number::Whole(value).divided(line.parts),
            };
            if reading.shards.is_empty() {
                samples.push((line.label.into_iter().collect(), scaled(reading.value)));
            }
            for (shard, value) in shards.iter().zip(&reading.shards) {
                let shard = ("shard", shard.as_str());
                let labels = [shard].into_iter().chain(line.label).collect();
                samples.push((labels, scaled(*value)));
            }
        }
        writer.family(first.metric, first.kind, first.help, samples)?;
    }
    let worked = shards.iter().zip(ports).map(|(shard, port)| {
        let worked = Number::Whole(port.gauges.worked_ns.load(Relaxed)).divided(1e9);
        (vec![("shard", shard.as_str())], worked)
    });
    let (name, help) = (
        "tidegate_shard_worked_seconds_total",
        "Time in which it has worked",
    );
    writer.family(name, Kind::Counter, help, worked)?;
    reloads(shared.reload.tally(), writer)
}

/// How reloads of the files went.
fn reloads(tally: Tally, writer: &mut Writer<'_, '_>) -> fmt::Result {
    let results = [("done", tally.done), ("failed", tally.failed)];
    writer.family(
        "tidegate_reloads_total",
        Kind::Counter,
        "Reloads of the configuration, by their result",
        results.map(|(result, count)| (vec![("result", result)], Number::Whole(count))),
    )?;
    let seconds = |ms: u64| Number::Whole(ms).divided(1e3);
    for (name, help, number) in [
        (
            "tidegate_last_reload_successful",
            "1 = the last reload is in force, or there was none; 0 = it has changed nothing",
            Number::Whole(u64::from(!tally.last_failed)),
        ),
        (
            "tidegate_last_reload_timestamp_seconds",
            "When the last reload was over, Unix time; 0 = there was none",
            seconds(tally.at_unix_ms),
        ),
        (
            "tidegate_last_reload_seconds",
            "How long the last reload took",
            seconds(tally.took_ms),
        ),
    ] {
        writer.family(name, Kind::Gauge, help, [(Vec::new(), number)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ShardId;
    use std::collections::HashSet;

    #[test]
    fn every_value_is_in_one_bucket_that_is_written() {
        let timings = Timings::for_test();
        for timed in TIMED {
            let histogram = (timed.of)(&timings);
            for shift in 0..64 {
                histogram.record(ShardId(0), 1 << shift);
            }
            let counts = timed.counts(&timings);
            let all: u64 = counts.buckets.iter().map(|(_, count)| count).sum();
            assert_eq!(all, 64, "{}", timed.end);
            assert!(counts.buckets.windows(2).all(|pair| pair[0].0 < pair[1].0));
            assert_eq!(
                counts.buckets.last().map(|last| last.0),
                Some(f64::INFINITY)
            );
        }
    }

    #[test]
    fn lines_of_a_metric_follow_each_other_and_agree() {
        let mut seen = HashSet::new();
        for pair in LINES.windows(2) {
            let [before, line] = pair else { continue };
            assert!(seen.insert(before.line), "{}", before.line);
            if before.metric == line.metric {
                assert!(
                    before.kind == line.kind && line.help.is_empty(),
                    "{}",
                    line.line
                );
                let label = |line: &super::super::activity::Line| line.label.map(|(name, _)| name);
                assert_eq!(label(before), label(line), "{}", line.line);
            } else {
                let again = LINES.iter().take_while(|l| l.line != line.line);
                assert!(
                    !again.into_iter().any(|l| l.metric == line.metric),
                    "{}",
                    line.line
                );
                assert!(!line.help.is_empty(), "{}", line.line);
            }
            assert_eq!(line.kind == Kind::Counter, line.metric.ends_with("_total"));
        }
    }
}
