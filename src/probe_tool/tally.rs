//! What has become of the attempts: counts, latencies, servers, and the times without success.
//! Bounded whatever comes: histograms are fixed, servers beyond a number are counted together.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

use super::attempt::{Answer, Failure};
use crate::base::time::Moment;

/// Servers that have an entry of their own: an answer that differs each time is none of a server.
const NAMES_MAX: usize = 1000;

/// Longest latency that is told apart, microseconds; what takes longer counts as this.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// A server that has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) answers: u64,
    last: Moment,
    /// The longest time between two of its answers, after the start's first.
    pub(super) silence: Span,
}

/// A time between two moments, counted from the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Span {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

impl Span {
    pub(super) fn length(self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    fn or_longer(self, other: Span) -> Span {
        if other.length() > self.length() {
            other
        } else {
            self
        }
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    begun: Moment,
    pub(super) succeeded: u64,
    failures: [u64; Failure::ALL.len()],
    pub(super) servers: BTreeMap<String, Seen>,
    /// Answers of servers beyond the bound.
    pub(super) others: u64,
    pub(super) connect_us: Histogram<u64>,
    pub(super) answer_us: Histogram<u64>,
    /// Attempts that could not begin when the rate had their turn.
    pub(super) late: u64,
    last_success: Moment,
    /// The longest time without a success.
    gap: Span,
    /// From the first failure to the last.
    pub(super) failing: Option<Span>,
}

impl Tally {
    pub(super) fn new(begun: Moment) -> Tally {
        // 3 digits up to an hour: 23 x 1,024 counters of 8 bytes, 190 KiB.
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("constants");
        Tally {
            begun,
            succeeded: 0,
            failures: [0; Failure::ALL.len()],
            servers: BTreeMap::new(),
            others: 0,
            connect_us: histogram(),
            answer_us: histogram(),
            late: 0,
            last_success: begun,
            gap: Span::default(),
            failing: None,
        }
    }

    /// Counts an attempt that has come to an end.
    pub(super) fn record(&mut self, now: Moment, outcome: Result<Answer, Failure>) {
        match outcome {
            Ok(answer) => self.record_answer(now, answer),
            Err(failure) => {
                self.failures[failure as usize] += 1;
                let at = now - self.begun;
                let from = self.failing.map_or(at, |failing| failing.from);
                self.failing = Some(Span { from, to: at });
            }
        }
    }

    fn record_answer(&mut self, now: Moment, answer: Answer) {
        self.succeeded += 1;
        self.gap = self.gap.or_longer(self.span(self.last_success, now));
        self.last_success = now;
        self.answer_us.saturating_record(answer.answer_us.max(1));
        if let Some(us) = answer.connect_us {
            self.connect_us.saturating_record(us.max(1));
        }
        let Some(name) = answer.name else {
            return;
        };
        let begun = self.begun;
        if let Some(seen) = self.servers.get_mut(&name) {
            seen.answers += 1;
            let silence = Span {
                from: seen.last - begun,
                to: now - begun,
            };
            seen.silence = seen.silence.or_longer(silence);
            seen.last = now;
        } else if self.servers.len() < NAMES_MAX {
            let seen = Seen {
                answers: 1,
                last: now,
                silence: Span::default(),
            };
            self.servers.insert(name, seen);
        } else {
            self.others += 1;
        }
    }

    /// Counts one that had succeeded and was then cut off.
    pub(super) fn cut_off(&mut self) {
        self.succeeded = self.succeeded.saturating_sub(1);
        self.failures[Failure::Reset as usize] += 1;
    }

    fn span(&self, from: Moment, to: Moment) -> Span {
        Span {
            from: from - self.begun,
            to: to - self.begun,
        }
    }

    /// Closes the times that are still open.
    pub(super) fn end(&mut self, now: Moment) {
        self.gap = self.gap.or_longer(self.span(self.last_success, now));
        let begun = self.begun;
        for seen in self.servers.values_mut() {
            let silence = Span {
                from: seen.last - begun,
                to: now - begun,
            };
            seen.silence = seen.silence.or_longer(silence);
        }
    }

    /// The longest time without a success, after `end`.
    pub(super) fn gap(&self) -> Span {
        self.gap
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    pub(super) fn attempts(&self) -> u64 {
        self.succeeded + self.failed()
    }

    /// Why attempts have failed, and how many; those reasons that there were.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Failure, u64)> {
        let each = Failure::ALL.into_iter().zip(self.failures);
        each.filter(|(_, count)| *count > 0)
    }

    /// Percent of the attempts that have succeeded; 0 where there were none.
    pub(super) fn success(&self) -> f64 {
        crate::base::text::percent(self.succeeded, self.attempts())
    }

    /// How far the server that is furthest from an even share is from it, percent of that share.
    pub(super) fn unevenness(&self) -> Option<f64> {
        let all: u64 = self.servers.values().map(|seen| seen.answers).sum();
        let even = all as f64 / self.servers.len() as f64;
        let off = |seen: &Seen| 100.0 * (seen.answers as f64 - even).abs() / even;
        self.servers.values().map(off).reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str) -> Result<Answer, Failure> {
        Ok(Answer {
            name: Some(name.to_owned()),
            connect_us: Some(10),
            answer_us: 20,
        })
    }

    fn at(ms: u64) -> Moment {
        Moment(0).after_ms(ms)
    }

    fn ms(span: Span) -> (u128, u128) {
        (span.from.as_millis(), span.to.as_millis())
    }

    #[test]
    fn the_longest_time_without_success_is_found_wherever_it_is() {
        let mut tally = Tally::new(at(1000));
        for (moment, outcome) in [
            (1100, answer("a")),
            (1200, answer("b")),
            (1300, Err(Failure::Refused)),
            (1600, Err(Failure::Timeout)),
            (1700, answer("a")),
        ] {
            tally.record(at(moment), outcome);
        }
        let mut later = tally.clone();
        tally.end(at(1750));
        assert_eq!(ms(tally.gap()), (200, 700));
        assert_eq!(tally.failing.map(ms), Some((300, 600)));
        assert_eq!(
            (tally.attempts(), tally.failed(), tally.success()),
            (5, 2, 60.0)
        );
        assert_eq!(
            tally.failures().collect::<Vec<_>>(),
            [(Failure::Refused, 1), (Failure::Timeout, 1)]
        );
        assert_eq!(ms(tally.servers["a"].silence), (100, 700));
        // It lasts to the end; so does the silence of a server that is gone.
        later.end(at(9000));
        assert_eq!(ms(later.gap()), (700, 8000));
        assert_eq!(ms(later.servers["b"].silence), (200, 8000));
    }

    #[test]
    fn servers_beyond_the_bound_are_counted_together() {
        let mut tally = Tally::new(at(0));
        for number in 0..NAMES_MAX + 5 {
            tally.record(at(1), answer(&number.to_string()));
        }
        assert_eq!((tally.servers.len(), tally.others), (NAMES_MAX, 5));
        assert_eq!(tally.answer_us.len(), (NAMES_MAX + 5) as u64);
    }

    #[test]
    fn evenness_is_told_by_the_worst_server() {
        let mut tally = Tally::new(at(0));
        assert_eq!(tally.unevenness(), None);
        for (name, count) in [("a", 9), ("b", 10), ("c", 11)] {
            for _ in 0..count {
                tally.record(at(1), answer(name));
            }
        }
        assert!((tally.unevenness().unwrap() - 10.0).abs() < 1e-9);
        tally.cut_off();
        assert_eq!((tally.succeeded, tally.failed()), (29, 1));
    }
}
