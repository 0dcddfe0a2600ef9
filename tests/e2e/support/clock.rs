//! Waiting with a bound, and measuring.

// The program's own clock is for what can be simulated; tests measure the real one.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Tells threads to stop when it goes out of scope, also by a failed assertion: a scope that waits
/// for threads which nobody stops would turn a failure into a hang.
#[derive(Debug)]
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// How long a busy machine may hold somebody up.
const HELD_UP_MS: u64 = 1_500;

/// Time since something began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    pub(crate) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Milliseconds since the start.
    pub(crate) fn ms(self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Fails unless between `least` and `most` milliseconds have passed, or a little more.
    pub(crate) fn assert_within(self, least: u64, most: u64, what: &str) {
        let ms = self.ms();
        assert!(
            (least..=most + HELD_UP_MS).contains(&ms),
            "{what}: {ms} ms, expected {least}..={most} (and {HELD_UP_MS})"
        );
    }
}

/// Polls until `condition` gives a value; `None` after `bound`.
pub(crate) fn wait_for<T>(bound: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if begun.elapsed() >= bound {
            return None;
        }
        std::thread::park_timeout(pause);
        // Backs off, so that polling does not take the core from what it waits for.
        pause = (pause * 3 / 2).min(Duration::from_millis(20));
    }
}

/// Polls until `condition` holds; fails with `what` after thirty seconds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let held = wait_for(Duration::from_secs(30), || condition().then_some(()));
    assert!(held.is_some(), "not within 30 s: {what}");
}
