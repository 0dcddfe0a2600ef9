//! Numbers of a simulation: everything that chance decides there comes from one seed.

use crate::base::hash;

/// A generator (SplitMix64): the same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
    index: u64,
}

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Random {
        // Mixed, so that the sequences of neighbouring seeds don't overlap.
        let seed = hash::mix(seed ^ 0x5eed);
        Random { seed, index: 0 }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.index += 1;
        hash::sequence(self.seed, self.index)
    }

    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A place in a list of `length`.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }

    /// True in `permille` of 1,000 cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.below(1000) < u64::from(permille)
    }

    /// One of the choices.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.place(choices.len())]
    }
}
