//! The last messages of the process, kept for clients of the runtime socket.
//!
//! Bounded in lines and in bytes. Who speaks waits for a lock that is held for a copy of a line;
//! shards say nothing here.

use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

use crate::control::messages::Severity;

/// Most lines that are kept.
const LINES_MAX: usize = 1_000;

/// Longest line that is kept as a whole, bytes.
const LINE_BYTES_MAX: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::control) struct Recent {
    lines: Mutex<Lines>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<String>,
    /// Number of the line after the last.
    next: u64,
}

impl Recent {
    pub(super) fn note(&self, unix_ms: u64, severity: Severity, text: &str) {
        let at = i64::try_from(unix_ms).ok().map(Timestamp::from_millisecond);
        let at = at.and_then(Result::ok).unwrap_or_default();
        let mut end = text.len().min(LINE_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        // One line per message, whatever it quotes.
        let text = text[..end].replace(['\n', '\r'], " ");
        let label = severity.format(std::process::id(), &text);
        let mut lines = self.locked();
        if lines.kept.len() == LINES_MAX {
            lines.kept.pop_front();
        }
        lines.kept.push_back(format!("{at:.3} {label}\n"));
        lines.next += 1;
        drop(lines);
        self.more.notify_waiters();
    }

    /// The lines from number `from` on that are still kept, and the number after the last.
    pub(in crate::control) fn since(&self, from: u64) -> (String, u64) {
        let lines = self.locked();
        let first = lines.next - lines.kept.len() as u64;
        let skipped = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        (
            lines
                .kept
                .iter()
                .skip(skipped)
                .map(String::as_str)
                .collect(),
            lines.next,
        )
    }

    /// The number of the next line.
    pub(in crate::control) fn next(&self) -> u64 {
        self.locked().next
    }

    /// Waits until there is a line of this number.
    pub(in crate::control) async fn wait_for(&self, number: u64) {
        loop {
            let more = self.more.notified();
            if self.next() > number {
                return;
            }
            more.await;
        }
    }

    fn locked(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_numbered() {
        let recent = Recent::default();
        for number in 0..LINES_MAX + 5 {
            recent.note(0, Severity::Notice, &format!("line\n{number}"));
        }
        let (text, next) = recent.since(0);
        assert_eq!(next, LINES_MAX as u64 + 5);
        assert_eq!(text.lines().count(), LINES_MAX);
        assert!(
            text.starts_with("1970-01-01T00:00:00.000Z [NOTICE]"),
            "{text}"
        );
        assert!(
            text.lines().next().unwrap().ends_with(" : line 5"),
            "{text}"
        );
        let (text, _) = recent.since(next - 2);
        assert_eq!(text.lines().count(), 2);
        assert_eq!(recent.since(next).0, "");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let recent = Recent::default();
        recent.note(0, Severity::Alert, &"\u{e4}".repeat(LINE_BYTES_MAX));
        let (text, _) = recent.since(0);
        assert_eq!(text.matches('\u{e4}').count(), LINE_BYTES_MAX / 2);
    }
}
