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

/// How reloads went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Those that are in force, or were.
    pub done: u64,
    /// Those that have changed nothing.
    pub failed: u64,
    /// When the last one was over, Unix time in milliseconds; 0 = there was none.
    pub at_unix_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// It has changed nothing.
    pub last_failed: bool,
}

/// The last reloads.
#[derive(Debug, Default)]
pub(super) struct History {
    count: u64,
    tally: Tally,
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
        let tally = &mut self.tally;
        tally.done += u64::from(entry.success);
        tally.failed += u64::from(!entry.success);
        (tally.at_unix_ms, tally.took_ms) = (entry.at_unix_ms, entry.took_ms);
        tally.last_failed = !entry.success;
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

    /// How all of them went.
    pub(super) fn tally(&self) -> Tally {
        self.tally
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
                success: took_ms % 3 > 0,
                changes: vec![String::new(); LINES_MAX + 2],
                messages: Vec::new(),
            });
        }
        let entries = history.entries();
        assert_eq!((entries.len(), history.next()), (ENTRIES_MAX, 21));
        assert_eq!((entries[0].number, entries[0].took_ms), (20, 19));
        assert_eq!(entries[15].number, 5);
        let tally = history.tally();
        assert_eq!((tally.done, tally.failed), (13, 7));
        assert_eq!((tally.took_ms, tally.last_failed), (19, false));
        assert_eq!(entries[0].changes.last().unwrap(), "... and 2 more");
    }
}
