//! The demo's table, once a second: redrawn in place on a terminal, else one block after the other.

use hdrhistogram::Histogram as Latencies;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::datagrams::DatagramsSeen;
use super::load::Seen;
use super::upstreams::{COUNT, name};
use crate::base::histogram::{BUCKETS, Histogram};
use crate::base::time::Moment;
use crate::lb::{Backend, Health, Server, ServerCounter};

/// A server's numbers at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    sessions: u64,
    bytes: u64,
    connect_us: [u64; BUCKETS],
}

impl Reading {
    fn of(server: &Server) -> Reading {
        let sum = |counter: ServerCounter| server.counters.sum(counter as usize);
        Reading {
            sessions: sum(ServerCounter::Sessions),
            bytes: sum(ServerCounter::BytesIn) + sum(ServerCounter::BytesOut),
            connect_us: server.timings.connect_us.buckets(),
        }
    }
}

/// What was drawn last.
#[derive(Debug)]
struct Last {
    at: Moment,
    servers: Vec<Reading>,
    seen: Seen,
    datagrams: DatagramsSeen,
}

/// Where the demo speaks.
#[derive(Debug)]
pub(super) struct Screen {
    in_place: bool,
    last: Option<Last>,
    /// The table as it stands there, to be drawn over.
    table: String,
}

impl Screen {
    /// Standard output.
    pub(super) fn new() -> Screen {
        Screen {
            in_place: std::io::stdout().is_terminal(),
            last: None,
            table: String::new(),
        }
    }

    /// Writes lines that stay.
    pub(super) fn say(&mut self, text: &str) {
        let table = if self.in_place {
            self.table.as_str()
        } else {
            ""
        };
        write(&format!("{}{text}\n{table}", self.over()));
    }

    /// Draws the table as of `now`, `elapsed` after the start; the first call only takes the
    /// readings.
    pub(super) fn draw(
        &mut self,
        now: Moment,
        elapsed: Duration,
        backend: &Backend,
        seen: &Seen,
        datagrams: &DatagramsSeen,
    ) {
        let current = Last {
            at: now,
            servers: backend.servers.iter().map(|s| Reading::of(s)).collect(),
            seen: seen.clone(),
            datagrams: datagrams.clone(),
        };
        if let Some(last) = self.last.replace(current) {
            let over = self.over();
            self.table = table(now, elapsed, backend, seen, &last);
            let time = (now - last.at).as_secs_f64().max(0.001);
            let new = datagrams.requests - last.datagrams.requests;
            self.table += &datagram_line(datagrams, (new as f64 / time).round() as u64);
            write(&format!("{over}{}", self.table));
        }
    }

    /// The way back over the table that stands there.
    fn over(&self) -> String {
        match self.table.lines().count() {
            lines if self.in_place && lines > 0 => format!("\x1b[{lines}A\x1b[J"),
            _ => String::new(),
        }
    }
}

/// Whoever reads may have gone, as `head` does: the show goes on without.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// The table, narrower than 80 columns: a line that wraps could not be drawn over.
fn table(now: Moment, elapsed: Duration, backend: &Backend, seen: &Seen, last: &Last) -> String {
    let time = (now - last.at).as_secs_f64().max(0.001);
    let rate = |count: u64| (count as f64 / time).round() as u64;
    let mut text = format!(
        "{:>8}  {} conn/s  {} exchanges/s  failed {}\n          latency of new connections p50 {} p99 {} p99.9 {} ms\n",
        seconds(elapsed),
        grouped(rate(seen.answered - last.seen.answered)),
        grouped(rate(seen.exchanges - last.seen.exchanges)),
        grouped(seen.failed),
        ms_at(&since(&seen.connection_us, &last.seen.connection_us), 0.5),
        ms_at(&since(&seen.connection_us, &last.seen.connection_us), 0.99),
        ms_at(&since(&seen.connection_us, &last.seen.connection_us), 0.999),
    );
    let _ = writeln!(
        text,
        "  {:<2} {:<15} {:<5} {:>6} {:>8} {:>6} {:>7} {:>13} {:>7}",
        "", "address", "state", "active", "total", "conn/s", "share", "connect 50/99", "bytes/s"
    );
    let readings: Vec<Reading> = backend.servers.iter().map(|s| Reading::of(s)).collect();
    let new: Vec<u64> = readings
        .iter()
        .zip(&last.servers)
        .map(|(reading, last)| reading.sessions - last.sessions)
        .collect();
    let all: u64 = new.iter().sum();
    for (index, server) in backend.servers.iter().enumerate().take(COUNT) {
        let (reading, before) = (&readings[index], &last.servers[index]);
        let connects = std::array::from_fn(|i| reading.connect_us[i] - before.connect_us[i]);
        let state = if server.health() == Health::Down {
            "DOWN"
        } else {
            "UP"
        };
        let _ = writeln!(
            text,
            "  {:<2} {:<15} {state:<5} {:>6} {:>8} {:>6} {:>7} {:>13} {:>7}",
            &*server.plan.name,
            server.plan.address.to_string(),
            server.active(),
            grouped(reading.sessions),
            grouped(rate(new[index])),
            share(new[index], all),
            connect_times(&connects),
            grouped(rate(reading.bytes - before.bytes)),
        );
    }
    text
}

/// The line of the datagrams.
fn datagram_line(seen: &DatagramsSeen, rate: u64) -> String {
    let flows: Vec<String> = (0..COUNT)
        .map(|index| format!("{} {}", name(index), seen.flows[index]))
        .collect();
    format!(
        "  datagrams  {} requests/s  lost {}  flows {}  moved {}\n",
        grouped(rate),
        grouped(seen.lost),
        flows.join(" "),
        grouped(seen.moved),
    )
}

/// What was recorded since an earlier state of a histogram.
fn since(now: &Latencies<u64>, before: &Latencies<u64>) -> Latencies<u64> {
    let mut difference = now.clone();
    // It can't fail: `before` is an earlier state of the same histogram.
    let _ = difference.subtract(before);
    difference
}

/// A quantile of a histogram in milliseconds.
pub(super) fn ms_at(latencies: &Latencies<u64>, quantile: f64) -> String {
    if latencies.is_empty() {
        return "-".to_owned();
    }
    let us = latencies.value_at_quantile(quantile);
    format!("{:.2}", us as f64 / 1000.0)
}

/// Median and 99th percentile of connect times, as upper bounds.
fn connect_times(connects: &[u64; BUCKETS]) -> String {
    if connects.iter().all(|count| *count == 0) {
        return "-".to_owned();
    }
    format!("<{}/<{} us", bound(connects, 0.5), bound(connects, 0.99))
}

/// The upper end of the bucket that a quantile falls into, plus one: the value is below it.
fn bound(buckets: &[u64; BUCKETS], quantile: f64) -> String {
    let count: u64 = buckets.iter().sum();
    if count == 0 {
        return "-".to_owned();
    }
    let rank = ((quantile * count as f64).ceil() as u64).max(1);
    let mut seen = 0;
    let bucket = buckets.iter().position(|n| {
        seen += n;
        seen >= rank
    });
    let end = bucket.and_then(Histogram::bound);
    end.map_or_else(|| "?".to_owned(), |end| (end + 1).to_string())
}

/// A part in percent.
pub(super) fn share(part: u64, all: u64) -> String {
    if all == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", 100.0 * part as f64 / all as f64)
}

/// A time in seconds.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(share(1, 3), "33.3 %");
        assert_eq!(share(0, 0), "-");
        assert_eq!(seconds(Duration::from_millis(1250)), "1.25 s");
    }

    #[test]
    fn a_quantile_is_below_its_bound() {
        let mut buckets = [0; BUCKETS];
        assert_eq!(bound(&buckets, 0.5), "-");
        // 99 values of 64 to 127, one of 1,024 to 2,047.
        buckets[7] = 99;
        buckets[11] = 1;
        assert_eq!(bound(&buckets, 0.5), "128");
        assert_eq!(bound(&buckets, 0.99), "128");
        assert_eq!(bound(&buckets, 0.999), "2048");
    }

    #[test]
    fn only_what_came_since_counts() {
        let mut before = Latencies::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
        before.record(5_000).unwrap();
        let mut now = before.clone();
        now.record(100).unwrap();
        assert_eq!(ms_at(&since(&now, &before), 0.99), "0.10");
        assert_eq!(ms_at(&since(&now, &now), 0.99), "-");
    }
}
