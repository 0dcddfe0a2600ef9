//! The circuit breaker of a server: failed connections open it, a probe closes it.
//!
//! Closed, it counts: so many failures within the window open it. Open, the server gets nothing,
//! and after the same time it is half open: one probe decides, no client. A probe that fails opens
//! it for as long again.
//!
//! A success takes nothing back: as nginx counts, a server that fails now and then is out once that
//! is too often. Failures of attempts that began before the circuit was last closed tell of the
//! time before, and don't count: a slow timeout would otherwise open it again.
//!
//! The machine is pure: moments are passed in, and who drives it asks when the next probe is due.

use std::collections::VecDeque;

use super::rules::{Outcome, Transition};
use crate::base::time::Moment;
use crate::config::plan::Breaker;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    /// Open until then, and half open from then on.
    Open {
        until: Moment,
    },
}

/// A server's circuit.
#[derive(Clone, Debug)]
pub struct Circuit {
    /// Failures within the window that open it; 0 = only `trip` does.
    max_fails: usize,
    /// The window, and the time that it stays open.
    timeout_ms: u64,
    state: State,
    /// When the failures that may still count happened, oldest first: fewer than `max_fails`.
    failures: VecDeque<Moment>,
    /// When it was closed for the last time.
    closed_at: Moment,
}

impl Circuit {
    /// The closed circuit of a configured breaker.
    pub fn of(breaker: &Breaker) -> Circuit {
        Circuit {
            max_fails: usize::from(breaker.max_fails),
            timeout_ms: u64::from(breaker.fail_timeout_ms),
            state: State::Closed,
            failures: VecDeque::new(),
            closed_at: Moment(0),
        }
    }

    /// An attempt that began at one moment has failed at another.
    pub fn failed(&mut self, began: Moment, at: Moment) -> Option<Transition> {
        if self.max_fails == 0 || self.state != State::Closed || began < self.closed_at {
            return None;
        }
        // What several shards report may come a little out of order.
        let at = self.failures.back().map_or(at, |last| at.max(*last));
        let timeout_ms = self.timeout_ms;
        let is_over = |failure: &Moment| failure.after_ms(timeout_ms) < at;
        while self.failures.front().is_some_and(is_over) {
            self.failures.pop_front();
        }
        self.failures.push_back(at);
        if self.failures.len() < self.max_fails {
            return None;
        }
        self.trip(at)
    }

    /// Opens it, for whatever reason; if it isn't closed, the next probe decides as before.
    pub fn trip(&mut self, now: Moment) -> Option<Transition> {
        if self.state != State::Closed {
            return None;
        }
        self.failures.clear();
        let until = now.after_ms(self.timeout_ms);
        self.state = State::Open { until };
        Some(Transition::Down)
    }

    /// When the server is to be probed, once; `None` = not at all.
    pub fn probe_at(&self) -> Option<Moment> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed => None,
        }
    }

    /// What that probe found; `None` = nothing that tells of the server. It stays open then too:
    /// the next probe is as far away as after a failure.
    pub fn probed(&mut self, outcome: Option<Outcome>, now: Moment) -> Option<Transition> {
        debug_assert!(!self.is_closed(), "only who is out is probed");
        if outcome == Some(Outcome::Passed) {
            self.state = State::Closed;
            self.closed_at = now;
            return Some(Transition::Up);
        }
        let until = now.after_ms(self.timeout_ms);
        self.state = State::Open { until };
        None
    }

    /// Whether it lets connections through.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Address;
    use crate::base::hash;
    use crate::config::plan::Check;

    fn circuit(max_fails: u16, fail_timeout_ms: u32) -> Circuit {
        let address = Address::Ip("127.0.0.1:1".parse().unwrap());
        Circuit::of(&Breaker {
            max_fails,
            fail_timeout_ms,
            probe: Check::of(address),
        })
    }

    fn at(ms: u64) -> Moment {
        Moment(0).after_ms(ms)
    }

    /// Fails at these moments; the index of the failure that opened it.
    fn opened_by(circuit: &mut Circuit, moments: &[u64]) -> Option<usize> {
        moments
            .iter()
            .position(|ms| circuit.failed(at(*ms), at(*ms)) == Some(Transition::Down))
    }

    #[test]
    fn so_many_failures_within_the_window_open_it() {
        assert_eq!(opened_by(&mut circuit(3, 1000), &[0, 500, 1000]), Some(2));
        assert_eq!(opened_by(&mut circuit(3, 1000), &[0, 500, 1001]), None);
        let sliding = [0, 900, 1800, 2700, 2750, 2800];
        assert_eq!(opened_by(&mut circuit(3, 1000), &sliding), Some(4));
        assert_eq!(opened_by(&mut circuit(1, 1000), &[7]), Some(0));
        assert_eq!(opened_by(&mut circuit(0, 1000), &[1; 100]), None);
        // Out of order by a little.
        assert_eq!(opened_by(&mut circuit(3, 1000), &[500, 480, 1490]), Some(2));
    }

    #[test]
    fn one_probe_decides_after_each_timeout() {
        let mut circuit = circuit(2, 1000);
        assert_eq!(circuit.probe_at(), None);
        assert_eq!(opened_by(&mut circuit, &[10, 20]), Some(1));
        assert_eq!(circuit.probe_at(), Some(at(1020)));
        // What others that were under way report changes nothing.
        assert_eq!(opened_by(&mut circuit, &[900, 901]), None);
        assert_eq!(circuit.probe_at(), Some(at(1020)));
        assert!(!circuit.is_closed());
        assert_eq!(circuit.probed(Some(Outcome::Failed), at(1100)), None);
        assert_eq!(circuit.probe_at(), Some(at(2100)));
        assert_eq!(circuit.probed(None, at(2200)), None);
        assert_eq!(circuit.probe_at(), Some(at(3200)));
        let up = Some(Transition::Up);
        assert_eq!(circuit.probed(Some(Outcome::Passed), at(3300)), up);
        assert!(circuit.is_closed() && circuit.probe_at().is_none());
        // The count begins anew.
        assert_eq!(opened_by(&mut circuit, &[3301, 3302]), Some(1));
    }

    #[test]
    fn an_attempt_from_before_the_probe_says_nothing_of_after() {
        let mut circuit = circuit(1, 1000);
        assert_eq!(opened_by(&mut circuit, &[10]), Some(0));
        circuit.probed(Some(Outcome::Passed), at(1010));
        assert_eq!(circuit.failed(at(9), at(5000)), None);
        let down = Some(Transition::Down);
        assert_eq!(circuit.failed(at(1010), at(5001)), down);
    }

    #[test]
    fn it_may_be_opened_from_outside() {
        let mut circuit = circuit(0, 1000);
        assert_eq!(circuit.trip(at(5)), Some(Transition::Down));
        assert_eq!(circuit.trip(at(50)), None);
        assert_eq!(circuit.probe_at(), Some(at(1005)));
    }

    /// What the circuit should be, kept the slow way: all failures ever, looked through each time.
    #[derive(Default)]
    struct Model {
        failures: Vec<(u64, u64)>,
        open_until: Option<u64>,
        closed_at: u64,
    }

    impl Model {
        fn failed(&mut self, max_fails: u64, window: u64, began: u64, now: u64) -> bool {
            if self.open_until.is_some() {
                return false;
            }
            self.failures.push((began, now));
            let counting = |(began, at): &&(u64, u64)| {
                *began >= self.closed_at && *at >= self.closed_at && at + window >= now
            };
            let opens = began >= self.closed_at
                && self.failures.iter().filter(counting).count() as u64 >= max_fails;
            if opens {
                self.open_until = Some(now + window);
            }
            opens
        }
    }

    #[test]
    fn random_histories_agree_with_the_model() {
        let (mut opened, mut closed) = (0, 0);
        for seed in 0..400 {
            let mut turn = 0;
            let mut random = |bound: u64| {
                turn += 1;
                hash::sequence(seed, turn) % bound
            };
            let (max_fails, window) = (1 + random(6), 1 + random(400));
            let mut circuit = circuit(
                u16::try_from(max_fails).unwrap(),
                u32::try_from(window).unwrap(),
            );
            let (mut model, mut now) = (Model::default(), 1000);
            for _ in 0..500 {
                now += random(60);
                match random(10) {
                    0..7 => {
                        let began = now - random(300).min(now);
                        let down = circuit.failed(at(began), at(now)).is_some();
                        let expected = model.failed(max_fails, window, began, now);
                        assert_eq!(down, expected, "seed {seed}, at {now}");
                        opened += u32::from(down);
                    }
                    _ if model.open_until.is_some_and(|until| until <= now) => {
                        let outcome = match random(3) {
                            0 => None,
                            1 => Some(Outcome::Failed),
                            _ => Some(Outcome::Passed),
                        };
                        let passed = outcome == Some(Outcome::Passed);
                        assert_eq!(circuit.probed(outcome, at(now)).is_some(), passed);
                        model.open_until = (!passed).then_some(now + window);
                        if passed {
                            model.closed_at = now;
                            model.failures.clear();
                        }
                        closed += u32::from(passed);
                    }
                    _ => {}
                }
                assert_eq!(circuit.is_closed(), model.open_until.is_none());
                assert_eq!(circuit.probe_at(), model.open_until.map(at), "seed {seed}");
                assert!((circuit.failures.len() as u64) < max_fails, "it is bounded");
            }
        }
        assert!(opened > 1000 && closed > 1000, "{opened} {closed}");
    }
}
