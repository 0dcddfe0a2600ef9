//! Handing a just-accepted connection to another shard, and taking one over.
//!
//! A connection is handed over once at most, when it has been let in: its limits are taken, and the
//! acceptor of the same listener on the other shard gives them back. It is announced in the other
//! shard's load before it is sent, and a shard doesn't end before its load is zero: so nothing is
//! lost on the way, whoever drains or stops meanwhile. Where that isn't possible it stays here.
//! Nothing is handed over before every shard knows the listener, nor once it is taken away, and a
//! shard keeps the place of a listener until all have heard that it was.

use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::port::Handed;
use super::spread::{Load, is_clearly_above};
use crate::base::ids::ShardId;
use crate::config::plan::MultiQueue;
use crate::ring::{Fd, Kernel};

/// Looks at the loads before a connection stays where it is: a look that others have overtaken says
/// nothing.
const LOOKS_AGAIN_MAX: u32 = 4;

impl<K: Kernel> Shard<K> {
    /// Serves a connection that has been let in, here or elsewhere.
    pub(super) fn serve(&mut self, index: usize, client: Fd) {
        let accepted_at = self.now;
        let target = self.claim(index);
        if target != self.id {
            let listener_id = self.acceptors[index].listener_id;
            let handed = Handed {
                listener_id,
                client,
                accepted_at,
            };
            if self.world.ports[usize::from(target.0)].push(handed) {
                self.gauges().handed_over.fetch_add(1, Relaxed);
                if !self.handed_to.contains(&target) {
                    self.handed_to.push(target);
                }
                return;
            }
            // Its queue is full. It may be waiting for its load to become zero.
            let port = &self.world.ports[usize::from(target.0)];
            port.load.subtract();
            port.notify();
            self.load().add();
        }
        self.start_session(index, client, accepted_at);
    }

    /// Chooses the shard that serves a connection, and counts it in that one's load.
    fn claim(&mut self, index: usize) -> ShardId {
        let world = &self.world;
        let acceptor = &self.acceptors[index];
        let serving = &acceptor.serving;
        let load_of = |shard: ShardId| &world.ports[usize::from(shard.0)].load;
        let own = load_of(self.id);
        let keeps = self.draining || acceptor.is_leaving() || !serving.is_shared();
        match world.plan.global.multi_queue {
            _ if keeps => {}
            MultiQueue::Off => {}
            MultiQueue::Fair => {
                let target = serving.in_turn();
                if target != self.id && load_of(target).announce() {
                    return target;
                }
            }
            MultiQueue::On => {
                let ended = self.churn.lately(self.now);
                for _ in 0..LOOKS_AGAIN_MAX {
                    let seen = own.count();
                    let least = serving.least_loaded(self.id, &mut self.look_from, load_of);
                    let other = least.filter(|(_, load)| is_clearly_above(seen, *load, ended));
                    let (target, seen) = other.unwrap_or((self.id, seen));
                    if load_of(target).add_to(seen) {
                        return target;
                    }
                }
            }
        }
        own.add();
        self.id
    }

    /// Serves a connection that another shard has accepted. Whoever was on the way when everything
    /// was ended is closed.
    pub(super) fn take_over(&mut self, handed: Handed) {
        let index = self.acceptor_of[usize::from(handed.listener_id.0)];
        self.gauges().taken_over.fetch_add(1, Relaxed);
        if self.stopping {
            self.kernel.close(handed.client);
            return self.give_limits(index);
        }
        self.start_session(index, handed.client, handed.accepted_at);
    }

    /// Wakes each shard that was handed something in this turn, once.
    pub(super) fn wake_handed(&mut self) {
        for shard in self.handed_to.drain(..) {
            self.world.ports[usize::from(shard.0)].notify();
        }
    }

    /// The load of this shard.
    pub(super) fn load(&self) -> &Load {
        &self.world.ports[usize::from(self.id.0)].load
    }
}
