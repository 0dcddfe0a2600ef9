//! From a line to the targets of its proxy: levels, samples, headers, lengths.

use std::sync::Arc;

use super::format::{LocalTime, Origin, write_header};
use super::sink::Sink;
use crate::config::plan::{LogFormat, LogTarget};

/// A log target of a proxy: the sink it shares with others, and its own form of headers.
#[derive(Debug)]
pub(super) struct Route {
    sink: usize,
    target: Arc<LogTarget>,
    /// The number of the last line, where the target gets a part of them. As with HAProxy, each
    /// proxy counts its own.
    at: u32,
}

impl Route {
    pub(super) fn new(sink: usize, target: Arc<LogTarget>) -> Route {
        Route {
            sink,
            target,
            at: 0,
        }
    }

    /// Whether the next line is one of those that are sent.
    fn takes_next(&mut self) -> bool {
        let Some(sample) = &self.target.sample else {
            return true;
        };
        self.at = self.at % sample.size + 1;
        let mut ranges = sample.ranges.iter();
        ranges.any(|(low, high)| (*low..=*high).contains(&self.at))
    }
}

/// A line on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// Syslog level.
    pub(super) level: u8,
    pub(super) tag: &'a str,
    pub(super) structured: &'a [u8],
    pub(super) body: &'a [u8],
}

/// The sinks, and what is the same for all lines.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) sinks: Vec<Sink>,
    /// `log-send-hostname`.
    pub(super) host: Option<String>,
    pub(super) pid: u32,
    /// The line at hand with its header, reused.
    line: Vec<u8>,
}

impl Outlet {
    pub(super) fn new(sinks: Vec<Sink>, host: Option<String>) -> Outlet {
        Outlet {
            sinks,
            host,
            pid: std::process::id(),
            line: Vec::new(),
        }
    }

    /// Sends a line to each of the targets that takes its level.
    pub(super) fn send(
        &mut self,
        routes: &mut [Route],
        message: Message<'_>,
        time: &mut LocalTime,
    ) {
        let origin = Origin {
            host: self.host.as_deref(),
            tag: message.tag,
            pid: self.pid,
            structured: message.structured,
        };
        for route in routes {
            if message.level > route.target.level_max || !route.takes_next() {
                continue;
            }
            let target = &route.target;
            let line = &mut self.line;
            line.clear();
            if target.format != LogFormat::Raw {
                let level = message.level.max(target.level_min);
                write_header(line, target.format, target.facility, level, time, origin);
            }
            line.extend_from_slice(message.body);
            line.truncate(usize::from(target.length_max).max(1));
            self.sinks[route.sink].push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{LogSample, LogSink};

    #[test]
    fn a_sample_takes_its_ranges_of_each_round() {
        let target = Arc::new(LogTarget {
            sink: LogSink::Stdout,
            length_max: 1024,
            format: LogFormat::Raw,
            facility: 16,
            level_max: 7,
            level_min: 0,
            sample: Some(LogSample {
                ranges: vec![(2, 3), (5, 5)],
                size: 5,
            }),
        });
        let mut route = Route::new(0, target);
        let taken: Vec<usize> = (1..=10).filter(|_| route.takes_next()).collect();
        assert_eq!(taken, [2, 3, 5, 7, 8, 10]);
    }
}
