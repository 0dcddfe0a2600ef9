//! The result of a test: for people as text, for programs as JSON.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

use super::command::Ended;
use super::concurrent::Held;
use super::expect::{self, Expectation};
use super::tally::{Span, Tally};
use crate::base::text::{percent, share, table};

/// The percentiles of every latency.
const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99_9", 0.999),
    ("max", 1.0),
];

/// A server is told as silent from a silence on that is so much longer than its answers are apart.
const SILENCE_MIN: Duration = Duration::from_millis(500);

/// A test that is over.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) target: String,
    pub(super) took: Duration,
    pub(super) tally: Tally,
    pub(super) expectations: Vec<Expectation>,
    /// Of `concurrent`.
    pub(super) held: Option<Held>,
    /// Of `failover`; the command, if there was one, with its end.
    pub(super) failover: Option<Option<Ended>>,
    /// Somebody ended it before its end.
    pub(super) is_interrupted: bool,
}

impl Outcome {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        expect::code(&self.tally, &self.expectations)
    }

    fn rate(&self) -> f64 {
        self.tally.attempts() as f64 / self.took.as_secs_f64().max(0.000_001)
    }
}

/// For people.
pub(super) fn text(outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let mut text = format!(
        "{}: {} attempts at {} in {:.2} s, {:.0}/s{}\n",
        outcome.name,
        tally.attempts(),
        outcome.target,
        outcome.took.as_secs_f64(),
        outcome.rate(),
        if outcome.is_interrupted {
            ", interrupted"
        } else {
            ""
        },
    );
    let _ = writeln!(
        text,
        "  succeeded  {} ({:.3}%)",
        tally.succeeded,
        tally.success()
    );
    let _ = writeln!(text, "  failed     {}", tally.failed());
    for (failure, count) in tally.failures() {
        let _ = writeln!(text, "    {count} {}", failure.text());
    }
    if tally.late > 0 {
        let _ = writeln!(
            text,
            "  late       {}: the rate was not kept, more --concurrency may help",
            tally.late
        );
    }
    if let Some(held) = outcome.held {
        let _ = writeln!(
            text,
            "  at once    {} open, {} reset while held",
            held.most, held.reset
        );
    }
    for (name, histogram) in [("connect", &tally.connect_us), ("answer", &tally.answer_us)] {
        if !histogram.is_empty() {
            let _ = writeln!(text, "  {name:<9}  {}", latency_text(histogram));
        }
    }
    if let Some(command) = &outcome.failover {
        failover_text(&mut text, tally, command.as_ref());
    }
    servers_text(&mut text, outcome);
    for expectation in &outcome.expectations {
        let _ = writeln!(
            text,
            "  expected   {}: {}; {}: {}",
            expectation.what,
            expectation.wanted,
            expectation.found,
            if expectation.is_met { "met" } else { "NOT MET" },
        );
    }
    text
}

fn latency_text(histogram: &Histogram<u64>) -> String {
    let each = QUANTILES.map(|(name, quantile)| {
        let us = histogram.value_at_quantile(quantile);
        format!("{} {:.2}", name.replace('_', "."), us as f64 / 1000.0)
    });
    format!("{} ms", each.join("  "))
}

fn seconds(span: Span) -> String {
    let (from, to) = (span.from.as_secs_f64(), span.to.as_secs_f64());
    format!(
        "{:.3} s, from {from:.3} to {to:.3}",
        span.length().as_secs_f64()
    )
}

fn failover_text(text: &mut String, tally: &Tally, command: Option<&Ended>) {
    if let Some(ended) = command {
        let _ = writeln!(text, "  command    {}", ended.text());
    }
    let _ = writeln!(
        text,
        "  gap        without a success for {} s",
        seconds(tally.gap())
    );
    match tally.failing {
        Some(failing) => {
            let _ = writeln!(text, "  failing    first to last: {} s", seconds(failing));
        }
        None => text.push_str("  failing    never\n"),
    }
}

fn servers_text(text: &mut String, outcome: &Outcome) {
    let tally = &outcome.tally;
    if tally.servers.is_empty() {
        return;
    }
    let others = match tally.others {
        0 => String::new(),
        others => format!(", and {others} answers of more"),
    };
    let off = tally.unevenness().unwrap_or(0.0);
    let _ = writeln!(
        text,
        "  servers    {}{others}; at most {off:.1}% off an even share",
        tally.servers.len()
    );
    let mut rows = Vec::new();
    for (name, seen) in &tally.servers {
        let silent = if outcome.failover.is_some() && seen.silence.length() > SILENCE_MIN {
            format!("silent for {} s", seconds(seen.silence))
        } else {
            String::new()
        };
        rows.push(vec![
            name.clone(),
            seen.answers.to_string(),
            share(seen.answers, tally.succeeded),
            silent,
        ]);
    }
    text.push_str(&table(4, &[3], &rows));
}

/// For programs.
pub(super) fn value(outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let failures: serde_json::Map<String, Value> = tally
        .failures()
        .map(|(failure, count)| (failure.name().to_owned(), json!(count)))
        .collect();
    let servers: Vec<Value> = tally
        .servers
        .iter()
        .map(|(name, seen)| {
            json!({
                "name": name,
                "answers": seen.answers,
                "share_percent": percent(seen.answers, tally.succeeded),
                "longest_silence": span_value(seen.silence),
            })
        })
        .collect();
    let expectation = |expectation: &Expectation| {
        json!({
            "what": expectation.what,
            "wanted": expectation.wanted,
            "found": expectation.found,
            "met": expectation.is_met,
        })
    };
    json!({
        "test": outcome.name,
        "target": outcome.target,
        "code": outcome.code(),
        "interrupted": outcome.is_interrupted,
        "took_s": outcome.took.as_secs_f64(),
        "attempts": tally.attempts(),
        "rate": outcome.rate(),
        "succeeded": tally.succeeded,
        "success_percent": tally.success(),
        "failed": tally.failed(),
        "failures": failures,
        "late": tally.late,
        "connect_us": latency_value(&tally.connect_us),
        "answer_us": latency_value(&tally.answer_us),
        "servers": servers,
        "other_servers_answers": tally.others,
        "off_even_percent": tally.unevenness(),
        "held": outcome.held.map(|held| json!({ "most": held.most, "reset": held.reset })),
        "failover": outcome.failover.as_ref().map(|command| json!({
            "command": command.as_ref().map(Ended::text),
            "gap": span_value(tally.gap()),
            "failing": tally.failing.map(span_value),
        })),
        "expectations": outcome.expectations.iter().map(expectation).collect::<Vec<_>>(),
    })
}

fn span_value(span: Span) -> Value {
    json!({
        "ms": u64::try_from(span.length().as_millis()).unwrap_or(u64::MAX),
        "from_s": span.from.as_secs_f64(),
        "to_s": span.to.as_secs_f64(),
    })
}

fn latency_value(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let each = QUANTILES.iter().map(|(name, quantile)| {
        (
            (*name).to_owned(),
            json!(histogram.value_at_quantile(*quantile)),
        )
    });
    Value::Object(each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Moment;
    use crate::probe_tool::attempt::{Answer, Failure};

    #[test]
    fn a_failover_tells_the_gap_the_failures_and_who_was_silent() {
        let mut tally = Tally::new(Moment(0));
        let at = |ms| Moment(0).after_ms(ms);
        for (ms, name) in [(100, "s1"), (200, "s2"), (1300, "s1"), (1400, "s1")] {
            let answer = Answer {
                name: Some(name.to_owned()),
                connect_us: Some(150),
                answer_us: 2_000,
            };
            tally.record(at(ms), Ok(answer));
        }
        tally.record(at(1250), Err(Failure::Closed));
        tally.end(at(1500));
        let outcome = Outcome {
            name: "failover",
            target: "h:1".to_owned(),
            took: Duration::from_millis(1500),
            tally,
            expectations: Vec::new(),
            held: None,
            failover: Some(Some(Ended::Code(0))),
            is_interrupted: false,
        };
        let shown = text(&outcome);
        for part in [
            "failover: 5 attempts at h:1 in 1.50 s, 3/s\n",
            "  succeeded  4 (80.000%)\n  failed     1\n    1 closed before an answer\n",
            "  gap        without a success for 1.100 s, from 0.200 to 1.300 s\n",
            "  command    ended with 0\n",
            "    s2  1  25.0%  silent for 1.300 s, from 0.200 to 1.500 s\n",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let value = value(&outcome);
        assert_eq!(value["failover"]["gap"]["ms"], 1100);
        assert_eq!(value["failures"]["closed"], 1);
        assert_eq!(
            (value["connect_us"]["p50"].as_u64(), value["code"].as_u64()),
            (Some(150), Some(0))
        );
        assert!(value["held"].is_null());
    }
}
