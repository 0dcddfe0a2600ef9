//! The active servers and the backup servers of a backend: which of the two sets is in use.
//!
//! The backup servers serve only while no other server is usable: the first usable one in the
//! order of the config, or with `option allbackups` all of them. Each set has its own turns, so
//! that one goes on where it stood when the other gives back to it.

use crossbeam::utils::CachePadded;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::server::Server;

/// A set of servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Set {
    /// Those without `backup`.
    Active = 0,
    /// Those with it.
    Backup = 1,
}

impl Set {
    /// How many there are.
    pub(super) const COUNT: usize = 2;

    /// The set a server belongs to.
    fn of(server: &Server) -> Set {
        if server.plan.backup {
            Set::Backup
        } else {
            Set::Active
        }
    }
}

/// Turns taken in a set.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// By first picks.
    pub(super) first: CachePadded<AtomicU64>,
    /// By retries, which must not disturb the first.
    pub(super) retry: CachePadded<AtomicU64>,
}

/// How many servers may be chosen, whichever set is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usable {
    /// Active servers (`act` of the backend).
    pub active: usize,
    /// Backup servers (`bck`).
    pub backup: usize,
}

impl Usable {
    /// Counts them.
    pub(super) fn of(servers: &[Arc<Server>]) -> Usable {
        let count = |set| {
            let usable = servers.iter().filter(|server| server.eligible());
            usable.filter(|server| Set::of(server) == set).count()
        };
        Usable {
            active: count(Set::Active),
            backup: count(Set::Backup),
        }
    }

    /// Whether there is none of either kind.
    pub fn is_none(self) -> bool {
        self.active + self.backup == 0
    }

    /// Whether backup servers do all the work.
    pub fn on_backup(self) -> bool {
        self.active == 0 && self.backup > 0
    }
}

/// The set that is in use and its servers that may be chosen, in the order of the config. Each
/// server is told whether it is one of them.
pub(super) fn in_use(servers: &[Arc<Server>], allbackups: bool) -> (Set, Vec<Arc<Server>>) {
    let of_set = |set| {
        let usable = servers.iter().filter(|server| server.eligible());
        usable.filter(move |server| Set::of(server) == set).cloned()
    };
    let active: Vec<_> = of_set(Set::Active).collect();
    let (set, chosen) = if active.is_empty() {
        let most = if allbackups { usize::MAX } else { 1 };
        let backup: Vec<_> = of_set(Set::Backup).take(most).collect();
        // Without any server the next one to come is more likely an active one.
        let set = if backup.is_empty() {
            Set::Active
        } else {
            Set::Backup
        };
        (set, backup)
    } else {
        (Set::Active, active)
    };
    let mut rest = chosen.iter().peekable();
    for server in servers {
        let is_chosen = rest.next_if(|next| Arc::ptr_eq(next, server)).is_some();
        server.set_in_use(is_chosen);
    }
    (set, chosen)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, ALL, address, key, picked, with_backups as backend};
    use super::super::{Admin, Backend, Health, Outcome, Pick, PickRequest, Waiter};
    use super::*;
    use crate::base::ids::{ServerId, ShardId};
    use crate::config::plan::Balance;

    const ANY: PickRequest = PickRequest::ANY;

    fn set(backend: &Backend, index: usize, health: Health) -> Vec<u32> {
        backend.servers[index].set_health(health);
        let grants = backend.publish().into_iter();
        grants.map(|grant| grant.waiter.session.slot).collect()
    }

    /// Takes a server down or up while nobody waits.
    fn down(backend: &Backend, index: usize) {
        assert!(set(backend, index, Health::Down).is_empty());
    }

    fn up(backend: &Backend, index: usize) {
        assert!(set(backend, index, Health::Up).is_empty());
    }

    fn usable(backend: &Backend) -> (usize, usize) {
        let usable = backend.usable_servers();
        (usable.active, usable.backup)
    }

    #[test]
    fn backups_serve_only_without_active_servers_and_in_order() {
        for balance in ALL {
            let backend = backend(balance, false, &[(1, 0); 2], &[(1, 0), (5, 0), (1, 0)]);
            let share = |counts: Vec<u32>| -> Vec<bool> { counts.iter().map(|n| *n > 0).collect() };
            let spread = || share(testing::spread(&backend, 200));
            let both = balance != Balance::First;
            assert_eq!(spread(), [true, both, false, false, false], "{balance:?}");
            assert_eq!((usable(&backend), backend.usable_weight()), ((2, 3), 2));
            down(&backend, 0);
            assert_eq!(spread(), [false, true, false, false, false]);
            down(&backend, 1);
            assert_eq!(spread(), [false, false, true, false, false]);
            assert_eq!((usable(&backend), backend.usable_weight()), ((0, 3), 1));
            down(&backend, 2);
            assert_eq!(spread(), [false, false, false, true, false]);
            assert_eq!((usable(&backend), backend.usable_weight()), ((0, 2), 5));
            // A backup in maintenance or without weight is none.
            backend.servers[3].set_admin(Admin::Maintenance);
            assert!(backend.publish().is_empty());
            assert_eq!(spread(), [false, false, false, false, true]);
            backend.servers[4].set_weight(0);
            assert!(backend.publish().is_empty());
            assert!(matches!(backend.pick(ANY), Pick::Refuse), "{balance:?}");
            assert!(backend.usable_servers().is_none());
            backend.servers[3].set_admin(Admin::Ready);
            up(&backend, 2);
            assert_eq!(spread(), [false, false, true, false, false]);
            up(&backend, 1);
            assert_eq!(spread(), [false, true, false, false, false]);
        }
    }

    #[test]
    fn all_backups_share_by_weight_where_told() {
        let backend = backend(
            Balance::RoundRobin,
            true,
            &[(1, 0)],
            &[(3, 0), (2, 0), (1, 0)],
        );
        assert_eq!(testing::spread(&backend, 60), [60, 0, 0, 0]);
        down(&backend, 0);
        assert_eq!(testing::spread(&backend, 60), [0, 30, 20, 10]);
        assert_eq!((usable(&backend), backend.usable_weight()), ((0, 3), 6));
        assert!(backend.usable_servers().on_backup());
    }

    /// Each set goes on at its own turn, however long the other one served and whoever served
    /// last.
    #[test]
    fn each_set_keeps_its_own_phase() {
        let backend = backend(Balance::RoundRobin, true, &[(1, 0); 3], &[(1, 0); 3]);
        let turn = || picked(&testing::pick_and_release(&backend, None)).unwrap();
        assert_eq!([turn(), turn()], [0, 1]);
        let all = |health: fn(&Backend, usize)| (0..3).for_each(|index| health(&backend, index));
        all(down);
        assert_eq!([turn(), turn(), turn(), turn()], [3, 4, 5, 3]);
        all(up);
        let order: Vec<_> = (0..4).map(|_| turn()).collect();
        all(down);
        assert_eq!(turn(), 4);
        // Coming back one by one spends no turn, but the round is another one each time.
        assert_eq!(order.len(), 4);
        for pair in order.windows(3) {
            assert!(pair[0] != pair[1] && pair[1] != pair[2] && pair[0] != pair[2]);
        }
        // With no server at all in between the phase is kept as well.
        (3..6).for_each(|index| down(&backend, index));
        assert!(matches!(backend.pick(ANY), Pick::Refuse));
        (3..6).for_each(|index| up(&backend, index));
        assert!((3..6).contains(&turn()));
    }

    /// Sessions wait while the active servers are full: a backup neither takes new ones nor hands
    /// on what it still has from when it served.
    #[test]
    fn a_full_active_server_is_waited_for() {
        let backend = backend(Balance::LeastConn, false, &[(1, 1)], &[(1, 1)]);
        let waiter = |slot| Waiter {
            shard: ShardId(0),
            session: key(slot),
            only: None,
        };
        down(&backend, 0);
        assert_eq!(picked(&backend.pick(ANY)), Some(1));
        assert!(matches!(backend.pick(ANY), Pick::Wait { only: None }));
        assert!(backend.enqueue(waiter(1)).is_none());
        // The one that waits for the backup goes to the active server that is back.
        assert_eq!(set(&backend, 0, Health::Up), [1]);
        assert!(matches!(backend.pick(ANY), Pick::Wait { .. }));
        assert!(backend.enqueue(waiter(2)).is_none());
        let [active, stays] = [0, 1].map(|index| Arc::clone(&backend.servers[index]));
        assert!(backend.release(&stays, Outcome::Completed).is_none());
        assert_eq!(
            (active.active(), stays.active(), backend.queued()),
            (1, 0, 1)
        );
        let grant = backend.release(&active, Outcome::Completed).unwrap();
        assert_eq!(
            (grant.waiter.session.slot, grant.server.id),
            (2, ServerId(0))
        );
        // And the other way round: those that wait for a server that dies get the backup.
        assert!(backend.enqueue(waiter(3)).is_none());
        assert_eq!(set(&backend, 0, Health::Down), [3]);
        assert_eq!(stays.active(), 1);
    }

    #[test]
    fn a_retry_stays_in_the_set() {
        for balance in ALL {
            let backend = backend(balance, false, &[(1, 0), (1, 0)], &[(1, 0)]);
            let retry = |server| PickRequest {
                client: address(1),
                avoid: Some(ServerId(server)),
                ..PickRequest::ANY
            };
            assert_eq!(picked(&backend.pick(retry(0))), Some(1), "{balance:?}");
            down(&backend, 1);
            assert_eq!(picked(&backend.pick(retry(0))), Some(0), "{balance:?}");
            down(&backend, 0);
            assert_eq!(picked(&backend.pick(retry(0))), Some(2), "{balance:?}");
        }
    }
}
