//! Weights, limits, slow starts and backup servers, each of which has tests of its own, together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::shares::{CHI_SQUARE_MAX, PICKS, WEIGHTS, by_weight, chi_square};
use super::testing::{
    MAGLEV, MAP, RING, address, backend, backend_of, pick_and_release, picked, planned, server,
    spread, starting_slowly,
};
use super::{Backend, Health, Outcome, Pick, PickRequest, Server};
use crate::base::time::Moment;
use crate::config::plan::{self, Balance, SlowStart};

/// Algorithms whose weights may change at any time.
const DYNAMIC: [Balance; 6] = [
    Balance::RoundRobin,
    Balance::LeastConn,
    Balance::PeakEwma,
    Balance::Random { draws: 1 },
    Balance::Random { draws: 2 },
    MAGLEV,
];

/// Connections that are open while a million of them come and go.
const OPEN: usize = 2_000;

fn at(ms: u64) -> Moment {
    Moment((1_000_000 + ms) * 1_000_000)
}

fn slow_start(steps: &[u8]) -> SlowStart {
    SlowStart {
        duration_ms: 1_000,
        steps: steps.to_vec(),
        connections_per_second: 0,
    }
}

/// Some servers go down and come up at a moment.
fn return_at(backend: &Backend, which: &[usize], ms: u64) {
    for health in [Health::Down, Health::Up] {
        which
            .iter()
            .for_each(|index| backend.servers[*index].set_health(health));
        assert!(backend.publish().is_empty());
    }
    assert!(backend.ramp(at(ms)).grants.is_empty());
}

/// Who gets a million connections. `peak-ewma` weighs those that are open; the others need none.
fn million(backend: &Backend) -> Vec<u32> {
    if backend.policy.balance != Balance::PeakEwma {
        return spread(backend, PICKS);
    }
    let mut counts = vec![0; backend.servers.len()];
    let mut open: VecDeque<Arc<Server>> = VecDeque::new();
    for _ in 0..PICKS {
        if open.len() == OPEN {
            let server = open.pop_front().expect("they are open");
            assert!(backend.release(&server, Outcome::Completed).is_none());
        }
        let Pick::Server(server) = backend.pick(PickRequest::ANY) else {
            panic!("unlimited");
        };
        counts[server.id.0 as usize] += 1;
        open.push_back(server);
    }
    for server in open {
        assert!(backend.release(&server, Outcome::Completed).is_none());
    }
    counts
}

fn assert_shares(backend: &Backend, weights: &[u16], when: &str) {
    let chi_square = chi_square(&million(backend), &by_weight(weights));
    println!(
        "{:?}, {when}: chi-square {chi_square:.3}",
        backend.policy.balance
    );
    assert!(
        chi_square < CHI_SQUARE_MAX,
        "{:?}, {when}: {chi_square}",
        backend.policy.balance
    );
}

#[test]
fn a_million_picks_match_weights_that_have_changed() {
    for balance in DYNAMIC {
        let backend = backend(balance, &WEIGHTS.map(|weight| server(weight, 0)));
        if balance == Balance::PeakEwma {
            assert_shares(&backend, &WEIGHTS, "as configured");
        }
        let changed = [7, 3, 9, 1, 5];
        for (server, weight) in backend.servers.iter().zip(changed) {
            server.set_weight(u32::from(weight));
        }
        assert!(backend.publish().is_empty());
        assert_shares(&backend, &changed, "changed");
    }
}

#[test]
fn a_million_picks_match_the_parts_of_a_slow_start() {
    for balance in DYNAMIC {
        let servers = WEIGHTS.map(|weight| server(weight, 0));
        let backend = starting_slowly(balance, &servers, &slow_start(&[30, 70]));
        return_at(&backend, &[4], 0);
        assert_shares(&backend, &[1, 2, 3, 4, 3], "at 30 %");
        assert!(backend.ramp(at(500)).goes_on);
        assert_shares(&backend, &[1, 2, 3, 4, 7], "at 70 %");
        // A weight that is set on the way counts in its part.
        backend.servers[4].set_weight(20);
        assert!(backend.publish().is_empty());
        assert_shares(&backend, &[1, 2, 3, 4, 14], "twice the weight");
        assert_eq!(backend.ramp(at(1_000)).arrived.len(), 1);
        assert_shares(&backend, &[1, 2, 3, 4, 20], "the whole");
    }
}

/// All of them return at once: what counts is how they compare, and that is as ever.
#[test]
fn servers_that_all_return_share_as_they_are_configured() {
    let all: Vec<usize> = (0..WEIGHTS.len()).collect();
    for balance in DYNAMIC {
        let servers = WEIGHTS.map(|weight| server(weight, 0));
        let backend = starting_slowly(balance, &servers, &slow_start(&[]));
        return_at(&backend, &all, 0);
        assert_eq!(backend.throttle(&backend.servers[0]).unwrap() % 2, 0);
        assert_shares(&backend, &WEIGHTS, "all at the beginning");
    }
}

/// So no client of a hash moves, from the first server's return to the last one's whole weight.
#[test]
fn clients_stay_while_all_servers_return_together() {
    for balance in [RING, MAGLEV, MAP] {
        let servers = [server(2, 0), server(1, 0), server(1, 0), server(3, 0)];
        let backend = starting_slowly(balance, &servers, &slow_start(&[]));
        let homes = || -> Vec<_> {
            let home = |n| picked(&pick_and_release(&backend, address(n)));
            (0..3_000).map(home).collect()
        };
        let before = homes();
        let moved = || {
            before
                .iter()
                .zip(homes())
                .filter(|(a, b)| **a != *b)
                .count()
        };
        return_at(&backend, &[0, 1, 2, 3], 0);
        for tick in 0..10 {
            assert!(backend.ramp(at(tick * 100)).goes_on);
            assert_eq!(moved(), 0, "{balance:?} at {tick}00 ms");
        }
        assert_eq!(backend.ramp(at(1_000)).arrived.len(), 4);
        assert_eq!(moved(), 0);
    }
}

fn changed(id: u32, maxconn: u32, change: impl Fn(&mut plan::Server)) -> Arc<plan::Server> {
    let mut server = (*planned(id, id, server(10, maxconn))).clone();
    server.slow_start = Some(slow_start(&[50]));
    change(&mut server);
    Arc::new(server)
}

/// How many connections a backend takes until it is full.
fn room(backend: &Backend) -> usize {
    let taken: Vec<_> = std::iter::from_fn(|| match backend.pick(PickRequest::ANY) {
        Pick::Server(server) => Some(server),
        Pick::Wait { .. } | Pick::Refuse => None,
    })
    .collect();
    for server in &taken {
        assert!(backend.release(server, Outcome::Completed).is_none());
    }
    taken.len()
}

/// Both ends of the way from `minconn` to `maxconn` are halved.
#[test]
fn a_slow_start_takes_a_part_of_minconn_too() {
    let one = changed(0, 100, |server| server.minconn = 20);
    let backend = backend_of(Balance::LeastConn, vec![one], 0);
    // With one session the backend is full.
    let rooms = || {
        let empty = room(&backend);
        backend.enter();
        let full = room(&backend);
        backend.leave();
        (empty, full)
    };
    assert_eq!(rooms(), (20, 100));
    return_at(&backend, &[0], 0);
    assert_eq!(rooms(), (10, 50));
    assert_eq!(backend.ramp(at(1_000)).arrived.len(), 1);
    assert_eq!(rooms(), (20, 100));
}

/// A backup server that steps in has not been away: it has its whole share. The active one that
/// returns gets everybody, as far as it may have them, and whoever comes on top waits for it.
#[test]
fn who_returns_relieves_the_backup_server_at_once() {
    let backup = |server: &mut plan::Server| server.backup = true;
    let servers = vec![changed(0, 8, |_| {}), changed(1, 8, backup)];
    let backend = backend_of(Balance::RoundRobin, servers, 0);
    backend.servers[0].set_health(Health::Down);
    assert!(backend.publish().is_empty());
    assert_eq!(picked(&pick_and_release(&backend, None)), Some(1));
    assert_eq!(
        (room(&backend), backend.throttle(&backend.servers[1])),
        (8, None)
    );
    return_at(&backend, &[0], 0);
    assert_eq!(picked(&pick_and_release(&backend, None)), Some(0));
    assert_eq!(
        (room(&backend), backend.throttle(&backend.servers[0])),
        (4, Some(50))
    );
    // One that goes and comes while nobody needs it has its slow start all the same.
    return_at(&backend, &[1], 100);
    assert_eq!(backend.throttle(&backend.servers[1]), Some(50));
    backend.servers[0].set_health(Health::Down);
    assert!(backend.publish().is_empty());
    assert_eq!(room(&backend), 4);
    assert_eq!(backend.ramp(at(1_200)).arrived.len(), 1);
    assert_eq!(room(&backend), 8);
}
