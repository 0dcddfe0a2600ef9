//! Says that the bound of memory is reached, once in a while: what waits for it is counted by the
//! shards and looks like a slow network from outside.

use std::sync::atomic::Ordering::Relaxed;

use super::Shared;
use super::messages::Severity;
use crate::base::time::Moment;

/// Between two words about it, milliseconds.
const PAUSE_MS: u64 = 60_000;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Refusals up to then.
    refusals: u64,
    said_at: Option<Moment>,
}

impl Pressure {
    /// Looks at the counters; called once a second.
    pub(super) fn tick(&mut self, shared: &Shared, now: Moment) {
        let world = &shared.world();
        let each = world.ports.iter().map(|port| &port.gauges.memory_refusals);
        let refusals: u64 = each.map(|gauge| gauge.load(Relaxed)).sum();
        let rests = self.said_at.is_some_and(|at| now.ms_since(at) < PAUSE_MS);
        if refusals == self.refusals || rests {
            return;
        }
        let text = format!(
            "The bound of private memory ({} bytes, see 'memory-limit') is reached: {} times a \
             direction was not read from, or less.",
            world.memory_max,
            refusals - self.refusals
        );
        shared.messages.console(Severity::Warning, &text);
        self.refusals = refusals;
        self.said_at = Some(now);
    }
}
