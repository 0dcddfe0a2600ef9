//! When flows end by themselves.
//!
//! The timer of a flow says when to look, not when it ends: a datagram stores a moment and leaves
//! the timer alone. One that comes up too early is put where the flow now ends, once per idle time
//! for a flow that is always active. Moments are rounded up to a sixty-fourth of the time (a second
//! for the usual one), so a shard with 100,000 flows is not woken for each.

use super::FlowId;
use super::flow::{Flow, Reason};
use super::table::FlowTable;
use crate::base::time::Moment;

/// Timers looked at in one call, about 25 us.
pub const EXPIRED_PER_TURN: usize = 1024;

/// Steps that a time is cut into.
const STEPS: u32 = 64;

impl<D> Flow<D> {
    /// Why it would end if nothing came any more.
    fn end(&self) -> Reason {
        if self.spent && self.is_confirmed() {
            Reason::Requests
        } else if self.is_confirmed() {
            Reason::Idle
        } else {
            Reason::Unconfirmed
        }
    }

    /// When it ends if nothing comes any more.
    fn end_at(&self) -> Moment {
        self.last.after_ms(self.time_ms().into())
    }

    /// When to look at it: never before its end.
    pub(super) fn deadline(&self) -> Moment {
        let step = u64::from((self.time_ms() / STEPS).max(1)) * 1_000_000;
        Moment(self.end_at().0.div_ceil(step).saturating_mul(step))
    }

    fn time_ms(&self) -> u32 {
        if self.is_confirmed() {
            self.idle_ms
        } else {
            self.unconfirmed_ms
        }
    }
}

impl<D> FlowTable<D> {
    /// Finds flows that have reached their end, for the caller to close for that reason before it
    /// calls again. Looks at no more than [`EXPIRED_PER_TURN`]; then `next_deadline` has passed.
    pub fn expire(&mut self, now: Moment, ended: &mut Vec<(FlowId, Reason)>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due, EXPIRED_PER_TURN);
        for slot in due.drain(..) {
            let Some((id, flow)) = self.flows.key_at(slot).zip(self.flows.at(slot)) else {
                continue;
            };
            if flow.end_at() <= now {
                ended.push((id, flow.end()));
            } else {
                self.wheel.arm(slot, flow.deadline());
            }
        }
        self.due = due;
    }

    /// When `expire` has something to do next; `None` without flows.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.wheel.next_deadline()
    }
}
