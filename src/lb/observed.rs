//! What sessions have seen of a server: errors in a row, for `observe`, and whether anybody wants
//! to hear of each failed attempt.
//!
//! A success costs a relaxed load; only the first one after an error writes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::config::plan::Passive;

/// Counts of a server over all shards.
#[derive(Debug)]
pub struct Observed {
    /// Errors in a row that are told; 0 = nobody observes.
    error_limit: AtomicU32,
    /// Whether each failed attempt is told.
    tells_failures: AtomicBool,
    errors_in_a_row: AtomicU32,
    /// How often errors made something happen (`hanafail`); written by the control thread.
    pub analyzed: AtomicU64,
}

impl Observed {
    pub(super) fn new(plan: &Passive) -> Observed {
        let observed = Observed {
            error_limit: AtomicU32::new(0),
            tells_failures: AtomicBool::new(false),
            errors_in_a_row: AtomicU32::new(0),
            analyzed: AtomicU64::new(0),
        };
        observed.follow(plan);
        observed
    }

    /// Counts as a plan has it from now on.
    pub(super) fn follow(&self, plan: &Passive) {
        let error_limit = plan.observe.map_or(0, |observe| observe.error_limit);
        self.error_limit.store(error_limit, Relaxed);
        let tells_failures = plan.breaker.as_ref().is_some_and(|b| b.max_fails > 0);
        self.tells_failures.store(tells_failures, Relaxed);
    }

    /// A session has connected to it, or a check has passed.
    pub fn succeeded(&self) {
        if self.errors_in_a_row.load(Relaxed) != 0 {
            self.errors_in_a_row.store(0, Relaxed);
        }
    }

    /// An attempt to connect to it has failed. True with every `error-limit`-th in a row, whichever
    /// shards they are on; the count then begins anew.
    #[must_use]
    pub fn failed(&self) -> bool {
        let error_limit = self.error_limit.load(Relaxed);
        if error_limit == 0 {
            return false;
        }
        let next = |errors: u32| {
            let errors = errors.saturating_add(1);
            if errors >= error_limit { 0 } else { errors }
        };
        let count = self
            .errors_in_a_row
            .fetch_update(Relaxed, Relaxed, |errors| Some(next(errors)));
        count.is_ok_and(|before| next(before) == 0)
    }

    /// Whether failed attempts are to be told.
    pub fn tells_failures(&self) -> bool {
        self.tells_failures.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{Observe, OnError};

    fn observed(error_limit: u32) -> Observed {
        Observed::new(&Passive {
            observe: Some(Observe {
                error_limit,
                on_error: OnError::default(),
            }),
            breaker: None,
        })
    }

    #[test]
    fn errors_in_a_row_are_told_and_a_success_ends_the_row() {
        let observed = observed(3);
        let told: Vec<bool> = (0..7).map(|_| observed.failed()).collect();
        assert_eq!(told, [false, false, true, false, false, true, false]);
        assert!(!observed.failed());
        observed.succeeded();
        assert_eq!([(); 3].map(|()| observed.failed()), [false, false, true]);
        let one = Observed::new(&Passive::default());
        assert!((0..100).all(|_| !one.failed()));
        assert!(!one.tells_failures());
    }

    #[test]
    fn every_row_is_told_once_over_all_shards() {
        let observed = observed(7);
        let told: u32 = std::thread::scope(|scope| {
            let shard = || (0..7000).map(|_| u32::from(observed.failed())).sum::<u32>();
            let shards: Vec<_> = (0..4).map(|_| scope.spawn(shard)).collect();
            shards.into_iter().map(|s| s.join().unwrap()).sum()
        });
        assert_eq!(told, 4000);
    }
}
