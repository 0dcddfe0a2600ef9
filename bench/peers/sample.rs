//! The value of one measurement, and why it may be void.
//!
//! A sample travels as one line of JSON from the run process to the parent. A void sample keeps its
//! reason and no figures: a run with an error must not look like a fast one.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::{Value, json};

/// Why a run has no result. Any error turns into one by `?`.
#[derive(Debug)]
pub(crate) struct Void(pub(crate) String);

impl<E: std::error::Error> From<E> for Void {
    fn from(error: E) -> Void {
        Void(error.to_string())
    }
}

/// Says what was being done when an error came up.
pub(crate) trait Context<T> {
    fn context(self, doing: impl Display) -> Result<T, Void>;
}

impl<T, E: Into<Void>> Context<T> for Result<T, E> {
    fn context(self, doing: impl Display) -> Result<T, Void> {
        self.map_err(|error| Void(format!("{doing}: {}", error.into().0)))
    }
}

/// Figures of one run by name, or the reason why there are none.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) void: Option<String>,
    pub(crate) notes: Vec<String>,
}

impl Sample {
    pub(crate) fn voided(reason: impl Into<String>) -> Sample {
        Sample {
            void: Some(reason.into()),
            ..Sample::default()
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied()
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({ "metrics": self.metrics, "void": self.void, "notes": self.notes })
    }

    /// Reads what `to_json` wrote; anything else is a void sample that says so.
    pub(crate) fn from_line(line: &str) -> Sample {
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return Sample::voided("the run process ended without a result");
        };
        let mut sample = Sample {
            void: value["void"].as_str().map(str::to_owned),
            ..Sample::default()
        };
        for (name, figure) in value["metrics"].as_object().into_iter().flatten() {
            if let Some(figure) = figure.as_f64() {
                sample.set(name, figure);
            }
        }
        for note in value["notes"].as_array().into_iter().flatten() {
            sample.notes.extend(note.as_str().map(str::to_owned));
        }
        sample
    }
}
