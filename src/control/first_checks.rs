//! The first round of checks: when clients may come.

use crossbeam::channel::{Receiver, Sender, bounded};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The first attempts of checks and agents that are not over yet.
#[derive(Debug)]
pub struct FirstChecks {
    left: AtomicUsize,
    is_over: Sender<()>,
    over: Receiver<()>,
}

impl FirstChecks {
    /// A round of so many attempts.
    pub fn new(attempts: usize) -> FirstChecks {
        let (is_over, over) = bounded(1);
        if attempts == 0 {
            let _ = is_over.send(());
        }
        FirstChecks {
            left: AtomicUsize::new(attempts),
            is_over,
            over,
        }
    }

    /// Attempts that are not over.
    pub fn left(&self) -> usize {
        self.left.load(SeqCst)
    }

    /// Receives once, when what all attempts have found is in force.
    pub fn over(&self) -> &Receiver<()> {
        &self.over
    }

    /// One attempt is over, and what it has found in force.
    pub(super) fn one_is_over(&self) {
        if self.left.fetch_sub(1, SeqCst) == 1 {
            // There is room: it is sent once.
            let _ = self.is_over.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_ends_the_round() {
        let round = FirstChecks::new(2);
        round.one_is_over();
        assert!(round.over().try_recv().is_err() && round.left() == 1);
        round.one_is_over();
        assert!(round.over().try_recv().is_ok() && round.left() == 0);
        assert!(FirstChecks::new(0).over().try_recv().is_ok());
    }
}
