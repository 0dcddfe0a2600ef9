//! Who says that a server is down. It is up while nobody does.

use super::rules::Transition;

/// Who may say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Witness {
    /// Its own checks.
    Check = 1,
    /// Its agent.
    Agent = 2,
    /// The sessions that go to it.
    Traffic = 4,
    /// The server that it tracks.
    Tracked = 8,
}

/// What all witnesses say of one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdicts {
    against: u8,
}

impl Verdicts {
    /// Takes a witness's word; what that changes for the server.
    pub fn hear(&mut self, witness: Witness, says_up: bool) -> Option<Transition> {
        let before = self.is_up();
        if says_up {
            self.against &= !(witness as u8);
        } else {
            self.against |= witness as u8;
        }
        match (before, self.is_up()) {
            (true, false) => Some(Transition::Down),
            (false, true) => Some(Transition::Up),
            (true, true) | (false, false) => None,
        }
    }

    /// Whether nobody says that it is down.
    pub fn is_up(self) -> bool {
        self.against == 0
    }

    /// Whether this witness says that it is down.
    pub fn is_against(self, witness: Witness) -> bool {
        self.against & witness as u8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_all_to_be_up() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.hear(Witness::Check, true), None);
        let down = Some(Transition::Down);
        assert_eq!(verdicts.hear(Witness::Check, false), down);
        assert_eq!(verdicts.hear(Witness::Agent, false), None);
        assert_eq!(verdicts.hear(Witness::Check, true), None);
        assert!(verdicts.is_against(Witness::Agent) && !verdicts.is_against(Witness::Check));
        assert_eq!(verdicts.hear(Witness::Agent, true), Some(Transition::Up));
    }
}
