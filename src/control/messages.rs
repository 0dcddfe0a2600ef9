//! Messages of the program itself, in HAProxy's form: `[ALERT]    (pid) : text`.
//!
//! At start they go straight to standard error; once the log thread runs, whatever it says there
//! goes through the log thread, because a blocked standard error must not hold anyone up.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::config::diagnostics::Severity;

/// A message's line without a line feed.
pub fn format(severity: Severity, text: &str) -> String {
    severity.format(std::process::id(), text)
}

/// Most lines that are kept of a start: a file may have a warning per line.
const STARTUP_LINES_MAX: usize = 1_000;

/// What was said while the program started, for `show startup-logs`.
#[derive(Debug, Default)]
pub struct StartupLog {
    lines: Mutex<Vec<String>>,
}

impl StartupLog {
    fn keep(&self, line: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < STARTUP_LINES_MAX {
            lines.push(line.to_owned());
        }
    }

    /// The lines, each with its line feed.
    pub fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// How many warnings there were.
    pub fn warnings(&self) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let warnings = lines.iter().filter(|line| line.starts_with("[WARNING]"));
        warnings.count()
    }
}

/// Standard error while the program starts.
#[derive(Debug, Default)]
pub struct Console {
    quiet: bool,
    introduced: AtomicBool,
    kept: Arc<StartupLog>,
}

impl Console {
    /// A console; a quiet one prints nothing.
    pub fn new(quiet: bool) -> Console {
        Console {
            quiet,
            introduced: AtomicBool::new(false),
            kept: Arc::default(),
        }
    }

    /// Another one that keeps its lines with those of this one.
    pub fn or_quiet(&self, quiet: bool) -> Console {
        Console {
            kept: self.kept(),
            ..Console::new(quiet)
        }
    }

    /// What it was told to print.
    pub fn kept(&self) -> Arc<StartupLog> {
        Arc::clone(&self.kept)
    }

    /// Whether it prints nothing.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Prints a message. The first alert or warning of a start is preceded by who is speaking.
    pub fn say(&self, severity: Severity, text: &str) {
        self.introduce();
        self.line(&format(severity, text));
    }

    /// Prints an already formatted line.
    pub fn line(&self, line: &str) {
        self.kept.keep(line);
        if !self.quiet {
            // Standard error may be closed or full; there is nobody left to tell.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    /// Prints version and path once, before the first message.
    pub fn introduce(&self) {
        if self.quiet || self.introduced.swap(true, Relaxed) {
            return;
        }
        let version = env!("CARGO_PKG_VERSION");
        self.line(&format(
            Severity::Notice,
            &format!("tidegate version is {version}"),
        ));
        if let Ok(path) = std::env::current_exe() {
            let text = format!("path to executable is {}", path.display());
            self.line(&format(Severity::Notice, &text));
        }
    }

    /// Prints an alert.
    pub fn alert(&self, text: &str) {
        self.say(Severity::Alert, text);
    }

    /// Prints a warning.
    pub fn warning(&self, text: &str) {
        self.say(Severity::Warning, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_begin_in_one_column() {
        let pid = std::process::id();
        assert_eq!(
            format(Severity::Alert, "x"),
            format!("[ALERT]    ({pid}) : x")
        );
        assert_eq!(
            format(Severity::Warning, "x"),
            format!("[WARNING]  ({pid}) : x")
        );
        assert_eq!(
            format(Severity::Notice, "x"),
            format!("[NOTICE]   ({pid}) : x")
        );
    }
}
