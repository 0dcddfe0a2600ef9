//! How a server that returns gets to its whole weight.

/// `slowstart` with what belongs to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlowStart {
    /// `slowstart`: how long it takes, never 0.
    pub duration_ms: u32,
    /// `slowstart-steps`: parts in percent, rising to 100, equally long; empty = in proportion to
    /// the time that has passed.
    pub steps: Vec<u8>,
    /// `slowstart-connrate`: most new connections per second meanwhile, 0 = any number.
    pub connections_per_second: u32,
}
