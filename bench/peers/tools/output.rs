//! What the programs of others print, read strictly: what is not as expected is an error, and what
//! they say went wrong is one too.
//!
//! Uses nothing else of the bench: `tests/peers.rs` includes this file to test it.

use std::collections::BTreeMap;

use serde_json::Value;

/// The script that makes wrk print its figures as `name=value` on one line. Times in microseconds.
pub(crate) const WRK_SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  local figures = {
    requests = summary.requests, duration = summary.duration, bytes = summary.bytes,
    connect = errors.connect, read = errors.read, write = errors.write,
    timeout = errors.timeout, status = errors.status,
    p50 = latency:percentile(50), p99 = latency:percentile(99), p999 = latency:percentile(99.9),
  }
  local line = "figures"
  for name, value in pairs(figures) do
    line = line .. string.format(" %s=%.0f", name, value)
  end
  io.write(line, "\n")
end
"#;

/// A run of wrk.
#[derive(Debug, PartialEq)]
pub(crate) struct Wrk {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}

/// Reads the line of the script. Any socket error or answer but 2xx and 3xx is an error.
pub(crate) fn read_wrk(text: &str) -> Result<Wrk, String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("figures "))
        .ok_or("wrk printed no figures")?;
    let figures: BTreeMap<&str, u64> = line
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect();
    let figure = |name: &str| {
        let found = figures.get(name).copied();
        found.ok_or_else(|| format!("wrk printed no figure {name}"))
    };
    for (name, what) in [
        ("connect", "failed connects"),
        ("read", "failed reads"),
        ("write", "failed writes"),
        ("timeout", "timeouts"),
        ("status", "answers with an error status"),
    ] {
        let count = figure(name)?;
        if count > 0 {
            return Err(format!("wrk counted {count} {what}"));
        }
    }
    let wrk = Wrk {
        requests: figure("requests")?,
        seconds: figure("duration")? as f64 / 1e6,
        bytes: figure("bytes")?,
        p50_us: figure("p50")? as f64,
        p99_us: figure("p99")? as f64,
        p999_us: figure("p999")? as f64,
    };
    if wrk.requests == 0 || wrk.seconds <= 0.0 {
        return Err("wrk had no answer".to_owned());
    }
    Ok(wrk)
}

impl Wrk {
    /// Whether as many bytes came as the answers have, but for those that the end cut off, one per
    /// connection.
    pub(crate) fn bytes_fit(&self, answer_bytes: u64, connections: u64) -> bool {
        let whole = self.requests * answer_bytes;
        (whole..=whole + connections * answer_bytes).contains(&self.bytes)
    }
}

/// Bytes that arrived on every stream of a run of iperf3, in how long.
#[derive(Debug, PartialEq)]
pub(crate) struct Iperf {
    pub(crate) seconds: f64,
    pub(crate) streams: Vec<u64>,
}

/// Reads the result of `iperf3 --json` with so many streams; its exit status says nothing then.
pub(crate) fn read_iperf(text: &str, streams: usize) -> Result<Iperf, String> {
    let result: Value =
        serde_json::from_str(text).map_err(|error| format!("iperf3 printed no result: {error}"))?;
    if let Some(error) = result["error"].as_str() {
        return Err(format!("iperf3: {error}"));
    }
    let end = &result["end"];
    let seconds = end["sum_received"]["seconds"].as_f64();
    let seconds = seconds
        .filter(|seconds| *seconds > 0.0)
        .ok_or("iperf3 printed no duration")?;
    let mut received = Vec::new();
    for stream in end["streams"].as_array().into_iter().flatten() {
        let bytes = |side: &str| stream[side]["bytes"].as_u64().filter(|bytes| *bytes > 0);
        let (Some(sent), Some(arrived)) = (bytes("sender"), bytes("receiver")) else {
            return Err("a stream of iperf3 moved nothing".to_owned());
        };
        if arrived > sent {
            return Err(format!("iperf3 sent {sent} bytes, and {arrived} arrived"));
        }
        received.push(arrived);
    }
    if received.len() != streams {
        let count = received.len();
        return Err(format!("iperf3 had {count} streams instead of {streams}"));
    }
    Ok(Iperf {
        seconds,
        streams: received,
    })
}

/// One test of redis-benchmark.
#[derive(Debug, PartialEq)]
pub(crate) struct Redis {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Reads a test's line of `redis-benchmark --csv`, by the names of its columns.
pub(crate) fn read_redis(text: &str, test: &str) -> Result<Redis, String> {
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split(',').map(|cell| cell.trim_matches('"')).collect())
        .collect();
    let missing = |what: &str| format!("redis-benchmark printed no {what}");
    let heading = rows.iter().find(|cells| cells[0] == "test");
    let heading = heading.ok_or_else(|| missing("heading"))?;
    let row = rows.iter().find(|cells| cells[0] == test);
    let row = row.ok_or_else(|| missing(test))?;
    let figure = |name: &str| {
        let place = heading.iter().position(|cell| *cell == name);
        let value = place.and_then(|place| row.get(place)?.parse::<f64>().ok());
        value
            .filter(|value| *value > 0.0)
            .ok_or_else(|| missing(&format!("{name} of {test}")))
    };
    Ok(Redis {
        per_second: figure("rps")?,
        p50_us: figure("p50_latency_ms")? * 1e3,
        p99_us: figure("p99_latency_ms")? * 1e3,
    })
}
