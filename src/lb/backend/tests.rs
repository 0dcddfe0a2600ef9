//! Tests of a backend: picks, releases and the queue.

use super::*;
use crate::lb::testing::{self, address, backend, key, picked, server};
use crate::lb::{Admin, Health};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

const ANY: PickRequest = PickRequest::ANY;

fn waiter(slot: u32, only: Option<ServerId>) -> Waiter {
    Waiter {
        shard: ShardId(0),
        session: key(slot),
        only,
    }
}

fn granted(grant: &Option<Grant>) -> Option<(u32, u32)> {
    grant
        .as_ref()
        .map(|grant| (grant.waiter.session.slot, grant.server.id.0))
}

#[test]
fn refuses_without_a_usable_server() {
    let backend = backend(Balance::RoundRobin, &[server(1, 0), server(0, 0)]);
    let usable = backend.usable_servers();
    assert_eq!((usable.active, backend.usable_weight()), (1, 1));
    assert!(matches!(backend.pick(ANY), Pick::Server(_)));
    for take_down in [
        (|s: &Server| s.set_admin(Admin::Drain)) as fn(&Server),
        |s| s.set_admin(Admin::Maintenance),
        |s| s.set_health(Health::Down),
        |s| s.set_weight(0),
    ] {
        take_down(&backend.servers[0]);
        assert!(backend.publish().is_empty());
        assert!(matches!(backend.pick(ANY), Pick::Refuse));
        backend.servers[0].set_admin(Admin::Ready);
        backend.servers[0].set_health(Health::Up);
        backend.servers[0].set_weight(1);
        assert!(backend.publish().is_empty());
        assert!(matches!(backend.pick(ANY), Pick::Server(_)));
    }
    assert_eq!((backend.active(), backend.servers[0].active_peak()), (5, 5));
}

#[test]
fn the_failed_server_is_better_than_none() {
    for balance in testing::ALL {
        let backend = backend(balance, &[server(1, 1), server(1, 2)]);
        let retry = PickRequest {
            client: address(1),
            avoid: Some(ServerId(0)),
            ..ANY
        };
        let picks: Vec<_> = (0..3).map(|_| picked(&backend.pick(retry))).collect();
        assert_eq!(picks, [Some(1), Some(1), Some(0)], "{balance:?}");
        assert!(
            matches!(backend.pick(retry), Pick::Wait { only: None }),
            "{balance:?}"
        );
    }
}

#[test]
fn a_release_hands_on_in_order_and_nobody_overtakes() {
    let backend = backend(Balance::RoundRobin, &[server(1, 1)]);
    let Pick::Server(only) = backend.pick(ANY) else {
        panic!("room for one")
    };
    assert!(matches!(backend.pick(ANY), Pick::Wait { only: None }));
    for slot in 1..=3 {
        assert!(backend.enqueue(waiter(slot, None)).is_none());
    }
    assert_eq!((backend.queued(), backend.queued_peak()), (3, 3));
    assert!(backend.dequeue(waiter(2, None)) && !backend.dequeue(waiter(2, None)));
    let first = backend.release(&only, Outcome::Completed);
    assert_eq!(granted(&first), Some((1, 0)));
    assert_eq!(only.active(), 1);
    assert!(matches!(backend.pick(ANY), Pick::Wait { .. }));
    assert_eq!(
        granted(&backend.release(&only, Outcome::Abandoned)),
        Some((3, 0))
    );
    assert!(backend.release(&only, Outcome::ConnectFailed).is_none());
    assert_eq!((only.active(), backend.queued()), (0, 0));
}

#[test]
fn entering_the_queue_looks_for_room_once_more() {
    let backend = backend(Balance::LeastConn, &[server(1, 1), server(1, 1)]);
    let servers: Vec<_> = (0..2)
        .map(|_| picked(&backend.pick(ANY)).unwrap())
        .collect();
    assert!(matches!(backend.pick(ANY), Pick::Wait { .. }));
    let freed = &backend.servers[servers[0] as usize];
    assert!(backend.release(freed, Outcome::Completed).is_none());
    assert_eq!(
        granted(&backend.enqueue(waiter(1, None))),
        Some((1, servers[0]))
    );
    assert_eq!((backend.queued(), freed.active()), (0, 1));
}

#[test]
fn a_server_in_drain_gets_nobody_and_publish_serves_the_rest() {
    let backend = backend(Balance::RoundRobin, &[server(1, 1), server(1, 1)]);
    for _ in 0..2 {
        assert!(matches!(backend.pick(ANY), Pick::Server(_)));
    }
    for slot in 0..5 {
        assert!(backend.enqueue(waiter(slot, None)).is_none());
    }
    backend.servers[0].set_admin(Admin::Drain);
    assert!(backend.publish().is_empty());
    assert!(
        backend
            .release(&backend.servers[0], Outcome::Completed)
            .is_none()
    );
    assert_eq!(backend.servers[0].active(), 0);
    backend.servers[1].set_maxconn(3);
    let grants: Vec<_> = backend
        .publish()
        .into_iter()
        .map(|g| granted(&Some(g)))
        .collect();
    assert_eq!(grants, [Some((0, 1)), Some((1, 1))]);
    backend.servers[0].set_admin(Admin::Ready);
    let grants: Vec<_> = backend
        .publish()
        .into_iter()
        .map(|g| granted(&Some(g)))
        .collect();
    assert_eq!(grants, [Some((2, 0))]);
    // A lower bound: what is above it goes without being handed on.
    backend.servers[1].set_maxconn(1);
    assert!(backend.publish().is_empty());
    assert!(
        backend
            .release(&backend.servers[1], Outcome::Completed)
            .is_none()
    );
    assert!(
        backend
            .release(&backend.servers[1], Outcome::Completed)
            .is_none()
    );
    let grant = backend.release(&backend.servers[1], Outcome::Completed);
    assert_eq!(
        (granted(&grant), backend.servers[1].active()),
        (Some((3, 1)), 1)
    );
    assert_eq!(backend.queued(), 1);
}

#[test]
fn hashed_sessions_wait_for_their_server_alone() {
    let backend = backend(testing::RING, &[server(1, 1), server(1, 1)]);
    let client_of = |id: u32| {
        let home = |n: &u32| picked(&testing::pick_and_release(&backend, address(*n))) == Some(id);
        address((0..100).find(home).unwrap())
    };
    let (of_0, of_1) = (client_of(0), client_of(1));
    let pick = |client| backend.pick(PickRequest { client, ..ANY });
    assert_eq!(picked(&pick(of_0)), Some(0));
    assert!(matches!(
        pick(of_0),
        Pick::Wait {
            only: Some(ServerId(0))
        }
    ));
    assert!(backend.enqueue(waiter(1, Some(ServerId(0)))).is_none());
    assert_eq!(backend.queued_for(ServerId(0)), 1);
    // The other server's clients don't wait behind it.
    assert_eq!(picked(&pick(of_1)), Some(1));
    assert!(backend.enqueue(waiter(2, Some(ServerId(1)))).is_none());
    assert!(backend.enqueue(waiter(3, Some(ServerId(0)))).is_none());
    let grant = backend.release(&backend.servers[1], Outcome::Completed);
    assert_eq!(granted(&grant), Some((2, 1)));
    assert!(
        backend
            .release(&backend.servers[1], Outcome::Completed)
            .is_none()
    );
    // When its server goes, a bound session takes any.
    backend.servers[0].set_health(Health::Down);
    let grants: Vec<_> = backend
        .publish()
        .into_iter()
        .map(|g| granted(&Some(g)))
        .collect();
    assert_eq!(grants, [Some((1, 1))]);
    assert_eq!((backend.queued(), backend.queued_for(ServerId(0))), (1, 0));
    let grant = backend.release(&backend.servers[1], Outcome::Completed);
    assert_eq!(granted(&grant), Some((3, 1)));
}

#[test]
fn publishing_frees_the_tables_nobody_reads() {
    let backend = backend(Balance::RoundRobin, &[server(1, 0)]);
    for _ in 0..10 {
        assert!(backend.publish().is_empty());
    }
    assert!(backend.lasting.published.lock().unwrap().retired.len() <= 1);
}

/// The last server goes between a session's pick and its entering the queue.
#[test]
fn a_session_waits_though_the_last_server_has_just_gone() {
    for balance in testing::ALL {
        let backend = backend(balance, &[server(1, 1)]);
        let request = PickRequest {
            client: address(1),
            ..ANY
        };
        assert_eq!(picked(&backend.pick(request)), Some(0), "{balance:?}");
        let Pick::Wait { only } = backend.pick(request) else {
            panic!("{balance:?}: the server is full");
        };
        backend.servers[0].set_health(Health::Down);
        assert!(backend.publish().is_empty());
        assert!(backend.enqueue(waiter(7, only)).is_none(), "{balance:?}");
        assert_eq!((backend.queued(), backend.active()), (1, 1), "{balance:?}");
        assert!(
            backend
                .release(&backend.servers[0], Outcome::Completed)
                .is_none()
        );
        backend.servers[0].set_health(Health::Up);
        let grants = backend.publish();
        assert_eq!(
            granted(&grants.into_iter().next()),
            Some((7, 0)),
            "{balance:?}"
        );
    }
}

/// One shard releases the only unit at the moment when another one enters the queue: in each
/// round the newcomer gets it, whichever way the two interleave.
#[test]
fn a_release_and_an_arrival_never_miss_each_other() {
    const ROUNDS: usize = 100_000;
    let backend = &backend(Balance::RoundRobin, &[server(1, 1)]);
    let (begun, ended) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    let queued = &AtomicBool::new(false);
    let mut forgotten = 0;
    let reach = |counter: &AtomicUsize, round| {
        let mut looks = 0u32;
        while counter.load(SeqCst) < round {
            looks += 1;
            // Both threads have to be quick to meet, but there may be one CPU only.
            if looks.is_multiple_of(256) {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 1..=ROUNDS {
                reach(begun, round);
                let waiter = waiter(round as u32, None);
                let got = match backend.pick(ANY) {
                    Pick::Server(server) => Some(server),
                    Pick::Wait { .. } => backend.enqueue(waiter).map(|grant| grant.server),
                    Pick::Refuse => panic!("the server is usable"),
                };
                queued.store(got.is_none(), SeqCst);
                if let Some(server) = got {
                    assert!(backend.release(&server, Outcome::Completed).is_none());
                }
                ended.store(round, SeqCst);
            }
        });
        for round in 1..=ROUNDS {
            let Pick::Server(server) = backend.pick(ANY) else {
                panic!("round {round}")
            };
            begun.store(round, SeqCst);
            // Try all the ways to meet: from before the other's pick to after its entering.
            (0..round % 64).for_each(|_| std::hint::spin_loop());
            let grant = backend.release(&server, Outcome::Completed);
            reach(ended, round);
            forgotten += usize::from(queued.load(SeqCst) && grant.is_none());
            for grant in grant.into_iter().chain(backend.publish()) {
                assert!(backend.release(&grant.server, Outcome::Completed).is_none());
            }
        }
    });
    assert_eq!(forgotten, 0, "of {ROUNDS} newcomers");
}
