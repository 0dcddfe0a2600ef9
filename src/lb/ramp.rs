//! The dynamic limit of connections: between a server's `minconn` and `maxconn`, in proportion to
//! how full its backend is.
//!
//! A backend counts its sessions, those in the queue too, only if one of its servers has a
//! `minconn`. The limit is computed when it is looked at, so it is that of the moment; it falls
//! below what a server has when sessions leave, and such a server gets nothing until it is below.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

/// Sessions of a backend.
#[derive(Debug)]
pub(super) struct Occupancy {
    sessions: AtomicU32,
    fullconn: AtomicU32,
}

impl Occupancy {
    /// No sessions; at `fullconn` of them, 1 at least, the backend is full.
    pub(super) fn new(fullconn: u32) -> Occupancy {
        Occupancy {
            sessions: AtomicU32::new(0),
            fullconn: AtomicU32::new(fullconn.max(1)),
        }
    }

    /// From now on it is full at so many.
    pub(super) fn set_fullconn(&self, fullconn: u32) {
        self.fullconn.store(fullconn.max(1), Relaxed);
    }

    /// A session came.
    pub(super) fn enter(&self) {
        self.sessions.fetch_add(1, SeqCst);
    }

    /// A session ended.
    pub(super) fn leave(&self) {
        let before = self.sessions.fetch_sub(1, SeqCst);
        assert!(before > 0, "more sessions left a backend than entered it");
    }

    /// The present limit of a server.
    pub(super) fn limit(&self, minconn: u32, maxconn: u32) -> u32 {
        let sessions = self.sessions.load(SeqCst);
        let fullconn = self.fullconn.load(Relaxed);
        if sessions >= fullconn || maxconn == u32::MAX {
            return maxconn;
        }
        let share = u64::from(sessions) * u64::from(maxconn) / u64::from(fullconn);
        // A share of `maxconn` is no larger than it.
        let share = u32::try_from(share).unwrap_or(maxconn);
        share.max(minconn).min(maxconn)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{key, picked, ramping};
    use super::super::{Outcome, Pick, PickRequest, Waiter};
    use super::*;
    use crate::base::ids::ShardId;
    use crate::config::plan::Balance;

    const ANY: PickRequest = PickRequest::ANY;

    fn waiter(slot: u32) -> Waiter {
        Waiter {
            shard: ShardId(0),
            session: key(slot),
            only: None,
        }
    }

    #[test]
    fn the_limit_follows_the_sessions() {
        let occupancy = Occupancy::new(10);
        let limits = (0..=12).map(|_| {
            let limit = occupancy.limit(2, 6);
            occupancy.enter();
            limit
        });
        let limits: Vec<_> = limits.collect();
        assert_eq!(limits, [2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 6, 6]);
        (0..9).for_each(|_| occupancy.leave());
        assert_eq!(occupancy.limit(2, 6), 2);
        // Set at run time: below `minconn`, and none.
        assert_eq!(occupancy.limit(2, 1), 1);
        assert_eq!(occupancy.limit(2, u32::MAX), u32::MAX);
        assert_eq!(Occupancy::new(u32::MAX).limit(1, u32::MAX - 1), 1);
    }

    /// A session that comes raises the limit, and the one that has waited longest gets the room;
    /// as they leave, what is above the limit goes without being handed on.
    #[test]
    fn connections_ramp_up_and_down_with_the_backend() {
        let backend = ramping(Balance::RoundRobin, &[(1, 4)], 8);
        let server = &backend.servers[0];
        let mut waiting = std::collections::VecDeque::new();
        for slot in 1..=10 {
            backend.enter();
            match backend.pick(ANY) {
                Pick::Server(_) => {}
                Pick::Wait { only: None } => {
                    waiting.push_back(slot);
                    if let Some(grant) = backend.enqueue(waiter(slot)) {
                        assert_eq!(Some(grant.waiter.session.slot), waiting.pop_front());
                    }
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(server.active(), (slot / 2).clamp(1, 4), "{slot} sessions");
        }
        assert_eq!((backend.queued(), waiting.len()), (6, 6));
        let mut left = 10;
        while server.active() > 0 {
            backend.leave();
            left -= 1;
            let before = server.active();
            let grant = backend.release(server, Outcome::Completed);
            let limit = (left / 2).clamp(1, 4);
            assert_eq!(grant.is_some(), before <= limit && left >= before, "{left}");
        }
        assert_eq!((left, backend.queued()), (0, 0));
    }

    #[test]
    fn without_minconn_nobody_counts() {
        let backend = ramping(Balance::RoundRobin, &[(0, 2)], 100);
        for expected in [Some(0), Some(0), None] {
            backend.enter();
            assert_eq!(picked(&backend.pick(ANY)), expected);
        }
        (0..9).for_each(|_| backend.leave());
    }
}
