//! Whether to look for work for a moment before going to sleep.
//!
//! Going to sleep and being woken costs CPU time and, more than that, latency: the wake-up of an
//! idle CPU takes longer than the answer of a server in the same room. Looking on instead costs
//! CPU time too, so it has to pay. A sleep is taken to cost half of the bound; a look costs the
//! time it took, and a sleep on top where nothing came. While the average of that is no more than
//! what a sleep costs, the shard looks; else it rests from looking for a number of sleeps, which
//! doubles with every try that did not pay. So traffic in quick succession is met awake,
//! everything else asleep, and tries cost next to nothing: seven looks in 64 to 4,096 sleeps, and
//! none at all while sleeps are long.
//!
//! Where work comes in batches nobody waits for this shard in particular: it would be met awake in
//! smaller batches, at the same rate and a higher cost (64 connections opened at a time: 4 % more
//! CPU time for each). Then it doesn't look either.
//!
//! Nothing here reads a clock.

use std::time::Duration;

/// Weight of a new look in the average: one in sixteen, so that a few in vain end a try and one in
/// vain of ten does not end what pays.
const WEIGHT: u64 = 16;
/// Sleeps between two tries at first, and after a try that paid for as many looks.
const REST_MIN: u32 = 64;
/// The same at most: then tries take less than a thousandth of the time.
const REST_MAX: u32 = 4096;
/// Only sleeps shorter than so many bounds bring the next try nearer: a sleep includes the time to
/// wake up, on both ends, so work that could have been found in a bound comes this late.
const BRIEF_BOUNDS: u64 = 4;

/// Completions of a turn, on average, above which work comes in batches. With 4, 50 connections of
/// redis-benchmark cost a fifth more CPU than without looking, at the same rate.
const BATCH: u64 = 2;

/// How long a shard that never sleeps looks in one go: what it reports stays fresh.
const GO: Duration = Duration::from_millis(1);

/// What a shard is told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Spin {
    /// Sleep at once.
    #[default]
    Never,
    /// Look for so many microseconds at most, while that pays.
    UpTo(u32),
    /// Never sleep.
    Always,
}

/// The memory of one shard about it.
#[derive(Debug)]
pub struct Spinner {
    bound_ns: u64,
    always: bool,
    /// Average cost of a look.
    cost_ns: u64,
    /// Average of the completions of a turn, times [`WEIGHT`].
    batch: u64,
    /// Sleeps left before the next try; 0 = looking pays, or is being tried.
    resting: u32,
    /// The next rest.
    rest: u32,
    /// Looks that found something in a row of tries.
    found: u32,
}

impl Spinner {
    /// One that follows `spin`.
    pub fn new(spin: Spin) -> Spinner {
        let bound_us = match spin {
            Spin::Never | Spin::Always => 0,
            Spin::UpTo(us) => us,
        };
        Spinner {
            bound_ns: u64::from(bound_us) * 1_000,
            always: spin == Spin::Always,
            cost_ns: 0,
            batch: 0,
            resting: REST_MIN,
            rest: REST_MIN,
            found: 0,
        }
    }

    /// Whether it never sleeps.
    pub fn is_always(&self) -> bool {
        self.always
    }

    /// How long to look before the sleep that comes now; `None` = not at all.
    pub fn bound(&self) -> Option<Duration> {
        if self.always {
            return Some(GO);
        }
        let looks = self.bound_ns > 0 && self.resting == 0 && self.batch <= BATCH * WEIGHT;
        looks.then_some(Duration::from_nanos(self.bound_ns))
    }

    /// A turn had so many completions.
    pub fn gathered(&mut self, completions: u64) {
        self.batch = self.batch - self.batch / WEIGHT + completions;
    }

    /// A look has found work after `time`.
    pub fn found(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.found = self.found.saturating_add(1);
        if self.found >= REST_MIN {
            self.rest = REST_MIN;
        }
        self.cost(ns.min(self.bound_ns));
    }

    /// A look has found nothing.
    pub fn in_vain(&mut self) {
        self.cost(self.bound_ns + self.sleep_ns());
    }

    /// Another thread has taken the CPU during a look: it is not this shard's alone.
    pub fn interrupted(&mut self) {
        self.give_up();
    }

    /// A sleep has ended after `time`.
    pub fn slept(&mut self, time: Duration) {
        if time.as_nanos() < u128::from(self.bound_ns * BRIEF_BOUNDS) {
            self.resting = self.resting.saturating_sub(1);
        }
    }

    /// What a sleep is taken to cost.
    fn sleep_ns(&self) -> u64 {
        self.bound_ns / 2
    }

    fn cost(&mut self, ns: u64) {
        self.cost_ns = (self.cost_ns * (WEIGHT - 1) + ns) / WEIGHT;
        if self.cost_ns > self.sleep_ns() {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.resting = self.rest;
        self.rest = (self.rest * 2).min(REST_MAX);
        self.found = 0;
        self.cost_ns = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND_US: u32 = 50;

    /// Lives through `turns` waits whose work comes `gap_us(turn)` after their begin, and
    /// `wake_us` later if it has to be woken for. Returns microseconds spent looking, and sleeps.
    fn live(spinner: &mut Spinner, turns: u64, wake_us: u64, gap_us: fn(u64) -> u64) -> (u64, u64) {
        let (mut looked_us, mut sleeps) = (0, 0);
        for turn in 0..turns {
            let gap = gap_us(turn);
            match spinner.bound() {
                Some(bound) if Duration::from_micros(gap) <= bound => {
                    looked_us += gap;
                    spinner.found(Duration::from_micros(gap));
                }
                Some(bound) => {
                    looked_us += u64::try_from(bound.as_micros()).unwrap();
                    sleeps += 1;
                    spinner.in_vain();
                }
                None => {
                    sleeps += 1;
                    spinner.slept(Duration::from_micros(gap + wake_us));
                }
            }
        }
        (looked_us, sleeps)
    }

    #[test]
    fn quick_exchanges_are_met_awake() {
        let mut spinner = Spinner::new(Spin::UpTo(BOUND_US));
        let (_, sleeps) = live(&mut spinner, 10_000, 50, |_| 20);
        assert_eq!(sleeps, u64::from(REST_MIN));
        // One long pause in ten changes nothing.
        let pauses = |turn| if turn % 10 == 0 { 5_000 } else { 15 };
        let (_, sleeps) = live(&mut spinner, 10_000, 50, pauses);
        assert_eq!(sleeps, 1_000);
    }

    #[test]
    fn batches_are_waited_for_asleep() {
        let mut spinner = Spinner::new(Spin::UpTo(BOUND_US));
        let _ = live(&mut spinner, 1_000, 50, |_| 20);
        assert!(spinner.bound().is_some());
        (0..100).for_each(|_| spinner.gathered(2 * BATCH));
        assert!(spinner.bound().is_none());
        (0..100).for_each(|_| spinner.gathered(1));
        assert!(spinner.bound().is_some());
        let mut always = Spinner::new(Spin::Always);
        (0..100).for_each(|_| always.gathered(1_000_000));
        assert!(always.bound().is_some());
    }

    #[test]
    fn what_comes_too_late_is_waited_for_asleep() {
        for gap in [|_| 60, |_| 45, |turn| if turn % 2 == 0 { 100 } else { 20 }] {
            let mut spinner = Spinner::new(Spin::UpTo(BOUND_US));
            let turns = 100_000;
            let (looked_us, sleeps) = live(&mut spinner, turns, 50, gap);
            // A thousandth of the time, and a few tries at the begin.
            assert!(looked_us < turns * 60 / 100, "{looked_us}");
            assert!(sleeps > turns * 98 / 100, "{sleeps}");
            assert!(looked_us > 0, "it never tried");
        }
    }

    #[test]
    fn long_sleeps_never_bring_a_try() {
        let mut spinner = Spinner::new(Spin::UpTo(BOUND_US));
        let (looked_us, _) = live(&mut spinner, 100_000, 50, |_| 150);
        assert_eq!(looked_us, 0);
    }

    #[test]
    fn a_rest_grows_with_tries_in_vain_and_shrinks_when_looking_pays() {
        let mut spinner = Spinner::new(Spin::UpTo(BOUND_US));
        let _ = live(&mut spinner, 100_000, 50, |_| 60);
        assert_eq!(spinner.rest, REST_MAX);
        let (_, sleeps) = live(&mut spinner, 100_000, 50, |_| 10);
        assert!(sleeps <= u64::from(REST_MAX), "{sleeps}");
        assert_eq!(spinner.rest, REST_MIN);
    }

    #[test]
    fn a_cpu_that_others_want_is_given_up_at_once() {
        let mut spinner = Spinner::new(Spin::UpTo(BOUND_US));
        let _ = live(&mut spinner, 1_000, 50, |_| 10);
        assert!(spinner.bound().is_some());
        spinner.interrupted();
        assert_eq!(spinner.bound(), None);
    }

    #[test]
    fn never_is_never_and_always_is_always() {
        for spin in [Spin::Never, Spin::UpTo(0)] {
            let mut spinner = Spinner::new(spin);
            let (looked_us, sleeps) = live(&mut spinner, 1_000, 0, |_| 1);
            assert_eq!((looked_us, sleeps), (0, 1_000));
            assert!(!spinner.is_always());
        }
        let mut spinner = Spinner::new(Spin::Always);
        spinner.interrupted();
        let _ = live(&mut spinner, 1_000, 0, |_| 10_000);
        assert!(spinner.is_always() && spinner.bound().is_some());
    }
}
