//! Taking up the next world: at the end of a turn, when nothing of it is in anybody's hands.
//!
//! Sessions keep the frontend, the backend and the server that they have; what they took they give
//! back to counts that all worlds share. Listeners that the world has no more are emptied and
//! closed, new ones are armed. After that the shard says which world it has: from then on nothing
//! of it refers to what that one doesn't know.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use crate::ring::Kernel;

impl<K: Kernel> Shard<K> {
    /// Takes up the worlds that have come in this turn.
    pub(super) fn renew(&mut self) {
        while let Some(renewal) = self.renewals.pop_front() {
            self.world = Arc::clone(&renewal.world);
            self.idle_timer_ms = self.world.plan.global.idle_timer_ms;
            self.renew_acceptors();
            self.renew_datagrams();
            for listener in renewal.listeners {
                let added = self.add_listener(listener);
                if let Err(error) = added {
                    // Of the kernel's memory; other shards may have more luck.
                    self.gauges().errors_unexpected.fetch_add(1, Relaxed);
                    log::warn!("a listener could not be added: {error}");
                }
            }
            if self.draining {
                self.drain_acceptors();
                self.drain_datagrams();
            } else {
                self.start_accepting();
                self.start_receiving();
            }
            let port = &self.world.ports[usize::from(self.id.0)];
            port.set_generation(self.world.generation);
            self.world.control.notify();
        }
    }
}
