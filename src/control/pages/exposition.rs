//! Metrics as text: the classic format of Prometheus, or OpenMetrics for those who accept it.
//!
//! Numbers are read once, when an answer is asked for; then they are written metric by metric, as
//! both formats demand. prometheus-client writes OpenMetrics. The classic format differs in the
//! names of counters, which there end in `_total` also where they are described, and has no end
//! mark.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families::{self, Rows};
use super::own;
use super::query::Query;
use crate::control::Shared;

/// How metrics are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Classic,
    OpenMetrics,
}

impl Format {
    /// What the header `Accept` asks for. Prometheus names OpenMetrics first where it wants it.
    pub(super) fn accepted(accept: &str) -> Format {
        let wanted = accept.split(',').find_map(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            match kind {
                "application/openmetrics-text" => Some(Format::OpenMetrics),
                "text/plain" | "text/*" | "*/*" => Some(Format::Classic),
                _ => None,
            }
        });
        wanted.unwrap_or(Format::Classic)
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Classic => "text/plain; version=0.0.4",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric's numbers do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// They only rise, from the start on.
    Counter,
    /// They are those of now.
    Gauge,
}

/// A number.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    Whole(u64),
    Negative(i64),
    Real(f64),
}

impl Number {
    /// A number as `show stat` writes it.
    pub(super) fn parse(text: &str) -> Option<Number> {
        let whole = text.parse().map(Number::Whole);
        let whole = whole.or_else(|_| text.parse().map(Number::Negative));
        whole.ok()
    }

    /// The same in a unit that is `parts` times as large.
    pub(super) fn divided(self, parts: f64) -> Number {
        Number::Real(match self {
            Number::Whole(n) => n as f64 / parts,
            Number::Negative(n) => n as f64 / parts,
            Number::Real(n) => n / parts,
        })
    }
}

/// The labels of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// The counts of a histogram.
pub(super) struct Counts {
    /// In seconds.
    pub(super) sum: f64,
    /// Upper ends, in seconds, and the values up to them and beyond the end before.
    pub(super) buckets: Vec<(f64, u64)>,
}

/// Writes metrics in a format.
pub(super) struct Writer<'a, 'e> {
    encoder: DescriptorEncoder<'e>,
    format: Format,
    query: &'a Query,
}

impl Writer<'_, '_> {
    /// Writes a metric, if it is wanted and there is a sample of it.
    pub(super) fn family<'s>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'s str, &'s str)>, Number)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if !self.query.wants(name) || samples.peek().is_none() {
            return Ok(());
        }
        let is_open = self.format == Format::OpenMetrics;
        let (described, metric_type) = match kind {
            Kind::Counter if is_open => (
                name.strip_suffix("_total").unwrap_or(name),
                MetricType::Counter,
            ),
            Kind::Counter => (name, MetricType::Counter),
            Kind::Gauge => (name, MetricType::Gauge),
        };
        let mut family = self
            .encoder
            .encode_descriptor(described, help, None, metric_type)?;
        for (labels, number) in samples {
            let labels: Labels<'_> = &labels;
            if labels.is_empty() {
                sample(&mut family, kind, number, is_open)?;
            } else {
                sample(&mut family.encode_family(&labels)?, kind, number, is_open)?;
            }
        }
        Ok(())
    }

    /// Writes histograms under one name.
    pub(super) fn histograms<'s>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'s str, &'s str)>, Counts)>,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if !self.query.wants(name) || samples.peek().is_none() {
            return Ok(());
        }
        let metric_type = MetricType::Histogram;
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, metric_type)?;
        for (labels, counts) in samples {
            let labels: Labels<'_> = &labels;
            let count = counts.buckets.iter().map(|(_, count)| count).sum();
            family
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(counts.sum, count, &counts.buckets, None)?;
        }
        Ok(())
    }
}

/// Writes a number behind its name and labels.
fn sample(
    encoder: &mut MetricEncoder<'_>,
    kind: Kind,
    number: Number,
    is_open: bool,
) -> fmt::Result {
    match (kind, number) {
        (Kind::Counter, Number::Whole(n)) if is_open => {
            encoder.encode_counter::<NoLabelSet, _, f64>(&n, None)
        }
        (Kind::Counter, Number::Real(n)) if is_open => {
            encoder.encode_counter::<NoLabelSet, _, f64>(&n, None)
        }
        // No counter is below 0.
        (Kind::Counter, Number::Negative(_)) if is_open => Ok(()),
        (_, Number::Whole(n)) => encoder.encode_gauge(&n),
        (_, Number::Negative(n)) => encoder.encode_gauge(&n),
        (_, Number::Real(n)) => encoder.encode_gauge(&n),
    }
}

/// All metrics, as prometheus-client asks for them.
struct Everything {
    shared: Arc<Shared>,
    query: Query,
    format: Format,
}

impl fmt::Debug for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Everything").finish_non_exhaustive()
    }
}

impl Collector for Everything {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut writer = Writer {
            encoder,
            format: self.format,
            query: &self.query,
        };
        let rows = Rows::read(&self.shared, &self.query);
        families::write(&self.shared, &self.query, &rows, &mut writer)?;
        own::write(&self.shared, &self.query, &rows, &mut writer)
    }
}

/// The metrics that are asked for.
pub(super) fn render(
    shared: &Arc<Shared>,
    query: Query,
    format: Format,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Everything {
        shared: Arc::clone(shared),
        query,
        format,
    }));
    let mut text = String::new();
    match format {
        Format::Classic => encode_registry(&mut text, &registry)?,
        Format::OpenMetrics => encode(&mut text, &registry)?,
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_first_that_is_known() {
        let open = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted(open), Format::OpenMetrics);
        for classic in [
            "",
            "*/*",
            "text/html",
            "text/plain, application/openmetrics-text",
        ] {
            assert_eq!(Format::accepted(classic), Format::Classic, "{classic}");
        }
    }

    #[test]
    fn numbers_are_whole_where_they_can_be() {
        assert_eq!(
            Number::parse("18446744073709551615"),
            Some(Number::Whole(u64::MAX))
        );
        assert_eq!(Number::parse("-1"), Some(Number::Negative(-1)));
        assert_eq!(Number::parse(""), None);
        assert_eq!(Number::Whole(1500).divided(1000.0), Number::Real(1.5));
    }
}
