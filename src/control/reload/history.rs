//! What is known of the reloads that were: `show reload`.

use std::collections::VecDeque;

/// Reloads that are remembered.
const ENTRIES_MAX: usize = 16;
/// Lines of each that are.
const LINES_MAX: usize = 1_000;

/// A reload that is over.
#[derive(Clone, Debug)]
pub struct Entry {
    /// From 1 on.
    pub number: u64,
    /// Who asked for it.
    pub by: &'static str,
    /// When it was over, Unix time in milliseconds.
    pub at_unix_ms: u64,
    /// How long it took, from being asked for to being in force on all shards.
    pub took_ms: u64,
    /// Whether the configuration is in force.
    pub success: bool,
    /// What has changed, a line each.
    pub changes: Vec<String>,
    /// Errors, warnings, and what could not be changed.
    pub messages: Vec<String>,
}

/// The last reloads.
#[derive(Debug, Default)]
pub(super) struct History {
    count: u64,
    entries: VecDeque<Entry>,
}

impl History {
    /// The number of the next one.
    pub(super) fn next(&self) -> u64 {
        self.count + 1
    }

    /// One is over; it gets its number here.
    pub(super) fn add(&mut self, mut entry: Entry) {
        self.count += 1;
        entry.number = self.count;
        for lines in [&mut entry.changes, &mut entry.messages] {
            let more = lines.len().saturating_sub(LINES_MAX);
            lines.truncate(LINES_MAX);
            if more > 0 {
                lines.push(format!("... and {more} more"));
            }
        }
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_back();
        }
        self.entries.push_front(entry);
    }

    /// The latest one first.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_numbered() {
        let mut history = History::default();
        for took_ms in 0..20 {
            history.add(Entry {
                number: 0,
                by: "test",
                at_unix_ms: 0,
                took_ms,
                success: true,
                changes: vec![String::new(); LINES_MAX + 2],
                messages: Vec::new(),
            });
        }
        let entries = history.entries();
        assert_eq!((entries.len(), history.next()), (ENTRIES_MAX, 21));
        assert_eq!((entries[0].number, entries[0].took_ms), (20, 19));
        assert_eq!(entries[15].number, 5);
        assert_eq!(entries[0].changes.last().unwrap(), "... and 2 more");
    }
}
