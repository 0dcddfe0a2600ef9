//! Sessions waiting for a server, in the order of their coming.
//!
//! There is one line for sessions that any server will do for, and one per server for those that a
//! hash bound to it. Tickets order all of them: a server that is free goes to the lower of the two
//! first tickets that it matches.
//!
//! The number of waiting sessions is also an atomic, so that nobody takes the lock while none
//! waits. No session is forgotten in between: whoever enters first publishes the number and then
//! looks for room once more; whoever leaves a server first drops its count and then looks at the
//! number. All four steps are sequentially consistent, so at least one of the two sees the other.
//! The same holds for whoever raises a limit or fills up the allowance of a returning server: first
//! the limit, then the look. After a refund of an allowance nobody looks; the control thread does
//! at every tick until the server has arrived.

use crossbeam::utils::CachePadded;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

use super::backend::Waiter;
use crate::base::ids::{ServerId, SessionKey, ShardId};

/// Most sessions waiting in a backend; a pick beyond is refused. About 100 bytes each, 26 MiB.
/// Shards that pick at the same moment may exceed it by one each.
pub(super) const QUEUE_MAX: usize = 1 << 18;

/// The queue of a backend.
#[derive(Debug, Default)]
pub(super) struct Queue {
    len: CachePadded<AtomicUsize>,
    peak: AtomicUsize,
    lines: Mutex<Lines>,
}

impl Queue {
    /// Sessions waiting now.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.load(SeqCst)
    }

    /// Most sessions that ever waited at once.
    pub(super) fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// Has the most that ever waited begin anew, with those that wait.
    pub(super) fn clear_peak(&self) {
        self.peak.store(self.len(), Relaxed);
    }

    /// The lines, for this thread alone.
    pub(super) fn lock(&self) -> Locked<'_> {
        let lines = self
            .lines
            .lock()
            .expect("nothing panics while it holds the lines");
        Locked { queue: self, lines }
    }
}

#[derive(Debug, Default)]
struct Lines {
    next_ticket: u64,
    any: BTreeMap<u64, Waiter>,
    only: BTreeMap<ServerId, BTreeMap<u64, Waiter>>,
    /// Where each session stands.
    places: HashMap<(ShardId, SessionKey), (Option<ServerId>, u64)>,
}

/// The queue while one thread holds it.
pub(super) struct Locked<'a> {
    queue: &'a Queue,
    lines: MutexGuard<'a, Lines>,
}

impl Locked<'_> {
    /// Puts a session at the end of the line for `only`, or for any server, and publishes the
    /// number.
    pub(super) fn push(&mut self, waiter: Waiter, only: Option<ServerId>) {
        let lines = &mut *self.lines;
        let ticket = lines.next_ticket;
        lines.next_ticket += 1;
        match only {
            Some(id) => lines.only.entry(id).or_default().insert(ticket, waiter),
            None => lines.any.insert(ticket, waiter),
        };
        let before = lines
            .places
            .insert((waiter.shard, waiter.session), (only, ticket));
        assert!(before.is_none(), "a session waits once");
        self.publish();
        self.queue.peak.fetch_max(self.lines.places.len(), Relaxed);
    }

    /// Takes a session out; false if it isn't there.
    pub(super) fn remove(&mut self, waiter: Waiter) -> bool {
        match self
            .lines
            .places
            .get(&(waiter.shard, waiter.session))
            .copied()
        {
            Some((only, ticket)) => {
                self.take(only, ticket);
                true
            }
            None => false,
        }
    }

    /// Whether a session waits that a server would have to serve first.
    pub(super) fn waits_for(&self, id: ServerId) -> bool {
        self.first_for(id).is_some()
    }

    /// Takes out the session that has waited longest for a server.
    pub(super) fn pop_for(&mut self, id: ServerId) -> Option<Waiter> {
        let (only, ticket) = self.first_for(id)?;
        Some(self.take(only, ticket))
    }

    /// Takes out the session that has waited longest for any server.
    pub(super) fn pop_any(&mut self) -> Option<Waiter> {
        let ticket = *self.lines.any.keys().next()?;
        Some(self.take(None, ticket))
    }

    /// Whether sessions wait that any server will do for.
    pub(super) fn has_any(&self) -> bool {
        !self.lines.any.is_empty()
    }

    /// Whether sessions wait that are bound to a server.
    pub(super) fn has_bound(&self) -> bool {
        !self.lines.only.is_empty()
    }

    /// Sessions that wait for this server alone.
    pub(super) fn bound_to(&self, id: ServerId) -> usize {
        self.lines.only.get(&id).map_or(0, BTreeMap::len)
    }

    /// Moves the sessions bound to servers that don't pass `keep` into the line for any, with their
    /// tickets.
    pub(super) fn unbind(&mut self, keep: impl Fn(ServerId) -> bool) {
        let lines = &mut *self.lines;
        for (_, mut line) in lines.only.extract_if(.., |id, _| !keep(*id)) {
            for (ticket, waiter) in &line {
                lines
                    .places
                    .insert((waiter.shard, waiter.session), (None, *ticket));
            }
            lines.any.append(&mut line);
        }
    }

    fn first_for(&self, id: ServerId) -> Option<(Option<ServerId>, u64)> {
        let any = self.lines.any.keys().next().map(|ticket| (*ticket, None));
        let line = self.lines.only.get(&id);
        let only = line
            .and_then(|line| line.keys().next())
            .map(|ticket| (*ticket, Some(id)));
        let (ticket, only) = any.into_iter().chain(only).min()?;
        Some((only, ticket))
    }

    fn take(&mut self, only: Option<ServerId>, ticket: u64) -> Waiter {
        let lines = &mut *self.lines;
        let waiter = match only {
            Some(id) => {
                let line = lines
                    .only
                    .get_mut(&id)
                    .expect("the line of a waiting session");
                let waiter = line.remove(&ticket);
                if line.is_empty() {
                    lines.only.remove(&id);
                }
                waiter
            }
            None => lines.any.remove(&ticket),
        };
        let waiter = waiter.expect("a session stands where its place says");
        lines.places.remove(&(waiter.shard, waiter.session));
        self.publish();
        waiter
    }

    fn publish(&self) {
        self.queue.len.store(self.lines.places.len(), SeqCst);
    }
}
