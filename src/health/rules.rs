//! The rise/fall machine: when a row of probes makes a server go up or down.
//!
//! It counts as HAProxy does. The position runs from 0 to `rise + fall - 1`; a server is up from
//! `rise` on. A passed probe moves one step up, and reaching `rise` jumps to the top: it then takes
//! `fall` failures in a row to go down. A failed probe moves one step down, and falling below
//! `rise` jumps to 0: it then takes `rise` successes in a row to come back. A server starts at
//! `rise`: up, but a single failure takes it down, because nothing is known in its favour yet.
//! `init-state` lets it start elsewhere.
//!
//! The machine is pure: it knows no clock and no probe, only outcomes. The whole table is in
//! `tests/data/health.snap`.

use std::fmt;

use crate::config::plan::{Check, InitState, OnError};

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The server answered.
    Passed,
    /// It didn't.
    Failed,
}

/// A change that the balancer has to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// The server came up.
    Up,
    /// The server went down.
    Down,
}

/// A server's position between up and down.
///
/// Displayed as HAProxy's `status`: `UP` and `DOWN` when settled, `UP 1/3` (one more failure of
/// three takes it down) and `DOWN 1/2` (one success of two) on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    rise: u16,
    fall: u16,
    health: u16,
}

impl Rules {
    /// A server before its first probe: up, and down after a single failure. Counts below 1 are
    /// taken as 1.
    pub fn new(rise: u16, fall: u16) -> Rules {
        let rise = rise.max(1);
        Rules {
            rise,
            fall: fall.max(1),
            health: rise,
        }
    }

    /// The machine of a configured check.
    pub fn of(check: &Check) -> Rules {
        let rules = Rules::new(check.rise, check.fall);
        let health = match check.init_state {
            InitState::FullyUp => rules.top(),
            InitState::Up => rules.rise,
            InitState::Down => rules.rise - 1,
            InitState::FullyDown => 0,
        };
        Rules { health, ..rules }
    }

    /// The same server under new counts: settled as it was, or as near to its position as they
    /// allow. For carrying health over a reload.
    #[must_use]
    pub fn carried_to(self, rise: u16, fall: u16) -> Rules {
        let next = Rules::new(rise, fall);
        let health = match (self.is_up(), self.is_settled()) {
            (true, true) => next.top(),
            (true, false) => (next.rise + (self.health - self.rise)).min(next.top()),
            (false, _) => self.health.min(next.rise - 1),
        };
        Rules { health, ..next }
    }

    /// The machine at a position, or at the top if that is lower.
    #[must_use]
    pub fn at(self, position: u16) -> Rules {
        let health = position.min(self.top());
        Rules { health, ..self }
    }

    /// Takes a probe's outcome into account.
    pub fn observe(&mut self, outcome: Outcome) -> Option<Transition> {
        let was_up = self.is_up();
        match outcome {
            Outcome::Passed if self.health >= self.rise - 1 => self.health = self.top(),
            Outcome::Passed => self.health += 1,
            Outcome::Failed if self.health <= self.rise => self.health = 0,
            Outcome::Failed => self.health -= 1,
        }
        self.change_from(was_up)
    }

    /// Puts it to the top or to 0 by the operator's word (`set server health`).
    pub fn force(&mut self, state: Transition) -> Option<Transition> {
        let was_up = self.is_up();
        self.health = match state {
            Transition::Up => self.top(),
            Transition::Down => 0,
        };
        self.change_from(was_up)
    }

    /// Takes errors of traffic into account, as `on-error` has it.
    pub fn on_error(&mut self, action: OnError) -> Option<Transition> {
        match action {
            OnError::FastInter => None,
            OnError::FailCheck => self.observe(Outcome::Failed),
            OnError::SuddenDeath => {
                // One step above the last that is up, and then a failed check.
                self.health = self.health.min(self.rise.saturating_add(1));
                self.observe(Outcome::Failed)
            }
            OnError::MarkDown => self.force(Transition::Down),
        }
    }

    /// Whether the server is up.
    pub fn is_up(self) -> bool {
        self.health >= self.rise
    }

    /// Whether it is at either end: no probe points the other way.
    pub fn is_settled(self) -> bool {
        self.health == 0 || self.health == self.top()
    }

    /// Whether a failed probe counts in `chkfail`: HAProxy leaves out those of a server that is
    /// down and has no success since.
    pub fn counts_failure(self) -> bool {
        self.health > 0
    }

    /// The position (`check_health`), 0..=rise + fall - 1.
    pub fn health(self) -> u16 {
        self.health
    }

    /// Successes in a row that bring it up.
    pub fn rise(self) -> u16 {
        self.rise
    }

    /// Failures in a row that take it down.
    pub fn fall(self) -> u16 {
        self.fall
    }

    /// The highest position.
    pub fn top(self) -> u16 {
        self.rise.saturating_add(self.fall - 1)
    }

    fn change_from(self, was_up: bool) -> Option<Transition> {
        match (was_up, self.is_up()) {
            (false, true) => Some(Transition::Up),
            (true, false) => Some(Transition::Down),
            (true, true) | (false, false) => None,
        }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_up(), self.is_settled()) {
            (true, true) => f.write_str("UP"),
            (true, false) => write!(f, "UP {}/{}", self.health - self.rise + 1, self.fall),
            (false, true) => f.write_str("DOWN"),
            (false, false) => write!(f, "DOWN {}/{}", self.health, self.rise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Address;
    use crate::base::hash;
    use std::fmt::Write;

    /// Every position and outcome for some counts, compared with the reviewed table. After an
    /// intended change the test's message is the new table.
    #[test]
    fn the_transition_table_is_the_reviewed_one() {
        let mut table = String::new();
        for (rise, fall) in [(2, 3), (1, 1), (3, 2), (1, 4)] {
            let start = Rules::new(rise, fall);
            writeln!(
                table,
                "rise {rise} fall {fall}, starts at {}: {start}",
                start.health
            )
            .unwrap();
            for health in 0..=start.top() {
                let from = Rules { health, ..start };
                for outcome in [Outcome::Passed, Outcome::Failed] {
                    let mut to = from;
                    let change = match to.observe(outcome) {
                        Some(Transition::Up) => "  -> Up",
                        Some(Transition::Down) => "  -> Down",
                        None => "",
                    };
                    let (before, after) = (from.to_string(), to.to_string());
                    writeln!(
                        table,
                        "  {health} {before:<8} {outcome:?} {} {after}{change}",
                        to.health
                    )
                    .unwrap();
                }
            }
        }
        let reviewed = include_str!("../../tests/data/health.snap");
        assert!(table == reviewed, "the table has changed:\n{table}");
    }

    #[test]
    fn a_new_server_goes_down_at_the_first_failure() {
        let mut rules = Rules::new(2, 3);
        assert_eq!(
            (rules.to_string(), rules.health()),
            ("UP 1/3".to_owned(), 2)
        );
        assert_eq!(rules.observe(Outcome::Failed), Some(Transition::Down));
        assert_eq!(rules.observe(Outcome::Passed), None);
        assert_eq!(rules.to_string(), "DOWN 1/2");
        assert_eq!(rules.observe(Outcome::Passed), Some(Transition::Up));
        assert_eq!((rules.to_string(), rules.health()), ("UP".to_owned(), 4));
        let changes = [Outcome::Failed; 3].map(|outcome| rules.observe(outcome));
        assert_eq!(changes, [None, None, Some(Transition::Down)]);
        assert!(!rules.counts_failure());
    }

    #[test]
    fn the_operator_and_a_reload_have_their_say() {
        let mut rules = Rules::new(2, 3);
        assert_eq!(rules.force(Transition::Up), None);
        assert_eq!(rules.health(), 4);
        assert_eq!(rules.carried_to(5, 7).health(), 11);
        rules.observe(Outcome::Failed);
        assert_eq!(rules.carried_to(3, 3).to_string(), "UP 2/3");
        assert_eq!(rules.carried_to(1, 1).to_string(), "UP");
        assert_eq!(rules.force(Transition::Down), Some(Transition::Down));
        rules.observe(Outcome::Passed);
        assert_eq!(rules.carried_to(4, 1).to_string(), "DOWN 1/4");
        assert_eq!(rules.carried_to(1, 1).to_string(), "DOWN");
        assert_eq!(Rules::new(0, 0), Rules::new(1, 1));
    }

    #[test]
    fn a_server_starts_as_it_is_told() {
        let outcomes = |init_state, outcome| {
            let address = Address::Ip("127.0.0.1:1".parse().unwrap());
            let mut rules = Rules::of(&Check {
                init_state,
                ..Check::of(address)
            });
            assert_eq!(rules.is_up(), init_state.is_up());
            let mut count = 1;
            while rules.observe(outcome).is_none() {
                count += 1;
            }
            count
        };
        assert_eq!(outcomes(InitState::FullyUp, Outcome::Failed), 3);
        assert_eq!(outcomes(InitState::Up, Outcome::Failed), 1);
        assert_eq!(outcomes(InitState::Down, Outcome::Passed), 1);
        assert_eq!(outcomes(InitState::FullyDown, Outcome::Passed), 2);
    }

    /// Against the definition: up after `rise` successes in a row while down, down after `fall`
    /// failures in a row while up (after one at the start).
    #[test]
    fn agrees_with_rows_of_outcomes() {
        for seed in 0..500 {
            let rise = 1 + (hash::sequence(seed, 0) % 5) as u16;
            let fall = 1 + (hash::sequence(seed, 1) % 5) as u16;
            let mut rules = Rules::new(rise, fall);
            let (mut up, mut row, mut proven) = (true, 0, false);
            for step in 2..500 {
                let passed = hash::sequence(seed, step).is_multiple_of(2);
                let outcome = if passed {
                    Outcome::Passed
                } else {
                    Outcome::Failed
                };
                row = if passed == up { 0 } else { row + 1 };
                proven |= passed;
                let needed = if !up {
                    rise
                } else if proven {
                    fall
                } else {
                    1
                };
                let expected = (row == needed).then(|| {
                    (up, row, proven) = (!up, 0, true);
                    if up { Transition::Up } else { Transition::Down }
                });
                assert_eq!(rules.observe(outcome), expected, "seed {seed}, step {step}");
                assert_eq!(rules.is_up(), up);
            }
        }
    }
}
