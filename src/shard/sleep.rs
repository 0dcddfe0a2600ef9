//! Between two turns: at once, after a look, or after a sleep.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Shard;
use crate::base::time::Moment;
use crate::ring::{Kernel, Spun, Wait};

impl<K: Kernel> Shard<K> {
    /// Gathers what the next turn is to handle, as soon as there is anything.
    pub(super) fn sleep(&mut self) -> io::Result<()> {
        let mut wait = self.how_long();
        if wait != Wait::No
            && let Some(bound) = self.spinner.bound()
        {
            wait = if self.spin(wait, bound)? || self.spinner.is_always() {
                Wait::No
            } else {
                self.how_long()
            };
        }
        if wait == Wait::No {
            self.kernel.turn(wait)?;
            self.now = self.kernel.now();
            return Ok(());
        }
        add_one(&self.gauges().sleeps);
        let began = self.kernel.now();
        self.kernel.turn(wait)?;
        self.now = self.kernel.now();
        self.spinner.slept(self.now - began);
        Ok(())
    }

    /// Looks for work instead of sleeping; never past the end of the sleep. Whether there is any.
    fn spin(&mut self, wait: Wait, bound: Duration) -> io::Result<bool> {
        let time = match wait {
            Wait::For(time) => time.min(bound),
            Wait::No | Wait::Forever => bound,
        };
        match self.kernel.spin(time)? {
            Spun::Ready => return Ok(true),
            Spun::Found(time) => {
                self.spinner.found(time);
                add_one(&self.gauges().spins_found);
                return Ok(true);
            }
            // A look that a timer has ended says nothing of the work that comes.
            Spun::InVain if time < bound => {}
            Spun::InVain => self.spinner.in_vain(),
            Spun::Interrupted => self.spinner.interrupted(),
        }
        add_one(&self.gauges().spins_vain);
        Ok(false)
    }

    /// How long the next turn may sleep.
    fn how_long(&self) -> Wait {
        let busy = !self.dirty.is_empty()
            || !self.starved.is_empty()
            || !self.bulk_queue.is_empty()
            || !self.ended.is_empty()
            || !self.grants.is_empty()
            || self.udp.as_ref().is_some_and(|udp| udp.is_busy());
        if busy {
            return Wait::No;
        }
        let timer = self.wheel.next_deadline().unwrap_or(Moment::NEVER);
        let datagrams = self.udp.as_ref().map(|udp| udp.next_deadline());
        let timer = timer.min(datagrams.unwrap_or(Moment::NEVER));
        match timer.min(self.accept_rest_until).min(self.pipes.look_at()) {
            Moment::NEVER => Wait::Forever,
            deadline => {
                let time = deadline - self.kernel.now();
                if time.is_zero() {
                    Wait::No
                } else {
                    Wait::For(time)
                }
            }
        }
    }
}

/// Adds to a gauge that only this thread writes.
fn add_one(gauge: &AtomicU64) {
    gauge.store(gauge.load(Relaxed) + 1, Relaxed);
}
