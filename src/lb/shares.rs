//! What the algorithms promise, in numbers: shares of a million picks, clients that move, bounds.
//!
//! Everything is seeded, so each figure is the same in every run; `--nocapture` prints them.

use std::sync::Arc;

use super::testing::{
    self, MAGLEV, MAP, RING, address, backend, backend_of, bounded, picked, planned, server,
};
use super::{Backend, Health, Outcome, Pick, PickRequest, Server};
use crate::base::ids::ServerId;
use crate::config::plan::{Balance, Expression, Fetch, HashFunction, HashKey};

pub(super) const PICKS: u32 = 1_000_000;
pub(super) const WEIGHTS: [u16; 5] = [1, 2, 3, 4, 10];

/// Chi-square with 4 degrees of freedom exceeds it once in 10,000 seeds.
pub(super) const CHI_SQUARE_MAX: f64 = 23.5;

pub(super) fn chi_square(counts: &[u32], shares: &[f64]) -> f64 {
    let total = f64::from(counts.iter().sum::<u32>());
    let terms = counts.iter().zip(shares).map(|(count, share)| {
        let expected = total * share;
        (f64::from(*count) - expected).powi(2) / expected
    });
    terms.sum()
}

pub(super) fn by_weight(weights: &[u16]) -> Vec<f64> {
    let total: u16 = weights.iter().sum();
    let share = |weight: &u16| f64::from(*weight) / f64::from(total);
    weights.iter().map(share).collect()
}

fn million(balance: Balance) -> Vec<u32> {
    let backend = backend(balance, &WEIGHTS.map(|weight| server(weight, 0)));
    testing::spread(&backend, PICKS)
}

/// Those that take turns are exact, so far below what chance would do.
#[test]
fn turns_match_the_weights() {
    for balance in [Balance::RoundRobin, Balance::StaticRr, Balance::LeastConn] {
        let chi_square = chi_square(&million(balance), &by_weight(&WEIGHTS));
        println!("{balance:?}: chi-square {chi_square:.6}");
        assert!(chi_square < 0.001, "{balance:?}: {chi_square}");
    }
}

#[test]
fn draws_match_the_weights() {
    for draws in [1, 2] {
        let balance = Balance::Random { draws };
        let chi_square = chi_square(&million(balance), &by_weight(&WEIGHTS));
        println!("{balance:?}: chi-square {chi_square:.2}");
        assert!(chi_square < CHI_SQUARE_MAX, "{balance:?}: {chi_square}");
    }
}

/// Neighbouring addresses on a map without a mixing step are a sequence; a Maglev table and a map
/// with one are as good as chance.
#[test]
fn hashes_match_the_weights() {
    let mixed = match MAP {
        Balance::Hash(mut hash) => {
            hash.method.avalanche = true;
            Balance::Hash(hash)
        }
        other => other,
    };
    for balance in [MAP, mixed, MAGLEV] {
        let chi_square = chi_square(&million(balance), &by_weight(&WEIGHTS));
        println!("{balance:?}: chi-square {chi_square:.2}");
        assert!(chi_square < CHI_SQUARE_MAX, "{balance:?}: {chi_square}");
    }
}

/// A ring's own shares are off by its points, so clients are compared with those, and those with
/// the weights.
#[test]
fn the_ring_matches_its_points_and_they_the_weights() {
    use super::ring::{Ring, RingPlan};
    let weight = WEIGHTS.iter().map(|weight| u64::from(*weight)).sum();
    let identity = |host: u32| {
        let identity = crate::base::hash::hash_bytes(0, format!("10.0.0.{host}:80").as_bytes());
        crate::base::hash::sequence(identity, 0)
    };
    let servers: Vec<_> = (0..)
        .zip(WEIGHTS)
        .map(|(host, weight)| (identity(host), 100 * u32::from(weight)))
        .collect();
    let shares = Ring::new(&RingPlan::new(weight), &servers).shares(WEIGHTS.len());
    let chi_square = chi_square(&million(RING), &shares);
    println!("ring: chi-square {chi_square:.2}");
    assert!(chi_square < CHI_SQUARE_MAX, "{chi_square}");
    for (share, expected) in shares.iter().zip(by_weight(&WEIGHTS)) {
        // 512 points per unit of weight: three standard deviations are 13 %.
        assert!((share / expected - 1.0).abs() < 0.13, "{shares:?}");
    }
}

/// Each function spreads over a ring, also one that only counts and keys that hardly differ.
#[test]
fn every_function_spreads_over_rings() {
    use HashFunction::{Crc32, Djb2, None, Sdbm, Wt6};
    for base in [RING, MAGLEV] {
        for function in [Sdbm, Djb2, Wt6, Crc32, None] {
            let Balance::Hash(mut hash) = base else {
                unreachable!("both hash");
            };
            hash.key = HashKey::Expression(Expression::new(Fetch::Source));
            hash.method.function = function;
            let backend = backend(Balance::Hash(hash), &[server(1, 0); 4]);
            for count in testing::spread(&backend, 20_000) {
                assert!((4_000..6_000).contains(&count), "{function:?}: {count}");
            }
        }
    }
}

/// The server of each of some clients.
fn homes(backend: &Backend, clients: u32) -> Vec<ServerId> {
    let home = |n| match testing::pick_and_release(backend, address(n)) {
        Pick::Server(server) => server.id,
        other => panic!("{other:?}"),
    };
    (0..clients).map(home).collect()
}

/// Parts of the clients that move when the first of N equal servers goes: those of the server, and
/// others, in percent.
fn movement(balance: Balance, count: usize) -> (f64, f64) {
    const CLIENTS: u32 = 100_000;
    let backend = backend(balance, &vec![server(1, 0); count]);
    let before = homes(&backend, CLIENTS);
    let health = |health| {
        backend.servers[0].set_health(health);
        assert!(backend.publish().is_empty());
    };
    health(Health::Down);
    let during = homes(&backend, CLIENTS);
    health(Health::Up);
    assert_eq!(homes(&backend, CLIENTS), before, "they come back");
    let part = |own: bool| {
        let moved = before.iter().zip(&during).filter(|(one, other)| {
            let is_own = one.0 == 0;
            one != other && is_own == own
        });
        100.0 * moved.count() as f64 / f64::from(CLIENTS)
    };
    (part(true), part(false))
}

/// The figures of docs/balancing.md: 3, 10 and 100 servers.
#[test]
fn when_a_server_goes_its_clients_move_and_few_others() {
    for (balance, name, others_max) in [(RING, "ring", 0.0), (MAGLEV, "maglev", 3.5)] {
        for count in [3, 10, 100] {
            let (own, others) = movement(balance, count);
            println!("{name}, {count} servers: own {own:.2} %, others {others:.2} %");
            let share = 100.0 / count as f64;
            assert!((own / share - 1.0).abs() < 0.13, "{name} {count}: {own}");
            assert!(others <= others_max, "{name} {count}: {others}");
        }
    }
    let (own, others) = movement(MAP, 10);
    println!("map, 10 servers: own {own:.2} %, others {others:.2} %");
    assert!(others > 70.0, "{others}");
}

/// From 4 of 16 to 6 of 18: a twelfth of all has to move to the heavier server.
#[test]
fn more_weight_draws_clients_to_itself() {
    for (balance, others_max) in [(RING, 0), (MAGLEV, 600)] {
        let backend = backend(balance, &[server(4, 0); 4]);
        let before = homes(&backend, 20_000);
        backend.servers[2].set_weight(6);
        assert!(backend.publish().is_empty());
        let after = homes(&backend, 20_000);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
        let others = moved.iter().filter(|(_, after)| after.0 != 2).count();
        println!(
            "{balance:?}: {} moved, {others} of them elsewhere",
            moved.len()
        );
        assert!((1_200..2_400).contains(&moved.len()), "{}", moved.len());
        assert!(others <= others_max, "{others}");
    }
}

/// Static algorithms keep the weights of the file, but a weight of 0 takes a server out.
#[test]
fn static_algorithms_keep_their_weights() {
    for balance in [Balance::StaticRr, MAP] {
        let backend = backend(balance, &[server(1, 0), server(2, 0)]);
        let before = testing::spread(&backend, 3_000);
        assert_eq!(before, [1_000, 2_000]);
        backend.servers[0].set_weight(200);
        assert!(backend.publish().is_empty());
        assert_eq!(testing::spread(&backend, 3_000), before, "{balance:?}");
        backend.servers[0].set_weight(0);
        assert!(backend.publish().is_empty());
        assert_eq!(testing::spread(&backend, 3_000), [0, 3_000]);
    }
}

#[test]
fn two_balancers_agree_whatever_the_order_of_their_servers() {
    for balance in [RING, MAGLEV] {
        let weight = |host: u32| server(1 + host as u16, 0);
        let there = (0..6).map(|i| planned(i, i, weight(i))).collect();
        let here = (0..6).map(|i| planned(i, 5 - i, weight(5 - i))).collect();
        let there = backend_of(balance, there, 42);
        let here = backend_of(balance, here, 42);
        for gone in [None, Some(2)] {
            if let Some(gone) = gone {
                there.servers[gone].set_health(Health::Down);
                here.servers[5 - gone].set_health(Health::Down);
                assert!(there.publish().is_empty() && here.publish().is_empty());
            }
            let homes = homes(&there, 5_000).into_iter().zip(homes(&here, 5_000));
            for (there, here) in homes {
                assert_eq!(there.0, 5 - here.0, "{balance:?}");
            }
        }
    }
}

/// Sessions come and go; no server ever gets one above its share times the factor.
#[test]
fn a_bounded_load_is_never_exceeded() {
    for (base, factor) in [(RING, 101), (RING, 125), (RING, 300), (MAGLEV, 110)] {
        let backend = backend(
            bounded(base, factor),
            &WEIGHTS.map(|weight| server(weight, 0)),
        );
        let mut random = testing::random(5);
        let mut open: Vec<Arc<Server>> = Vec::new();
        let empty = super::testing::backend(base, &WEIGHTS.map(|weight| server(weight, 0)));
        let own = homes(&empty, 1)[0];
        let mut overflowed = 0;
        for _ in 0..50_000 {
            if random(100) < 45 && !open.is_empty() {
                let server = open.swap_remove(random(open.len() as u64) as usize);
                assert!(backend.release(&server, Outcome::Completed).is_none());
                continue;
            }
            // Half of the sessions are of one client, whose server can't take them all.
            let client = address(random(2) as u32 * random(1_000) as u32);
            let request = PickRequest {
                client,
                ..PickRequest::ANY
            };
            let Pick::Server(server) = backend.pick(request) else {
                panic!("unlimited")
            };
            let all = open.len() as u64 + 1;
            let limit = (all * u64::from(factor) * u64::from(server.weight())).div_ceil(100 * 20);
            assert!(
                u64::from(server.active()) <= limit,
                "{factor}: {}",
                server.active()
            );
            overflowed += u32::from(client == address(0) && server.id != own);
            open.push(server);
        }
        assert!(overflowed > 1_000, "{overflowed}");
        open.iter().for_each(|server| {
            assert!(backend.release(server, Outcome::Completed).is_none());
        });
        assert_eq!(backend.active(), 0);
    }
}

/// While nothing is above its bound a bounded hash is the hash.
#[test]
fn a_wide_bound_changes_nothing() {
    for base in [RING, MAGLEV] {
        let plain = backend(base, &[server(1, 0); 5]);
        let wide = backend(bounded(base, 1_000), &[server(1, 0); 5]);
        assert_eq!(homes(&plain, 2_000), homes(&wide, 2_000));
    }
}

/// Eight threads hold what they get: nobody exceeds the bound, whichever way they meet.
#[test]
fn a_bounded_load_holds_for_many_threads() {
    let backend = &backend(bounded(RING, 125), &[server(1, 0); 4]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let request = PickRequest {
                    client: address(1),
                    ..PickRequest::ANY
                };
                (0..2_000).for_each(|_| assert!(picked(&backend.pick(request)).is_some()));
            });
        }
    });
    let active = backend.servers.iter().map(|server| server.active());
    assert_eq!(backend.active(), 16_000);
    // A quarter more than the mean; the last picks may not have seen each other.
    let most = active.max().unwrap();
    assert!((4_990..=5_000).contains(&most), "{most}");
}

/// A retry goes to a server above its bound rather than to the one that failed.
#[test]
fn a_retry_may_exceed_the_bound() {
    let backend = backend(bounded(RING, 101), &[server(1, 0); 2]);
    let request = PickRequest {
        client: address(1),
        ..PickRequest::ANY
    };
    // Two of three are rounded up to the first server's share, the third goes on.
    let order: Vec<_> = (0..3)
        .map(|_| picked(&backend.pick(request)).unwrap())
        .collect();
    let (first, second) = (order[0], order[2]);
    assert!(order[1] == first && second != first, "{order:?}");
    let retry = PickRequest {
        avoid: Some(ServerId(first)),
        ..request
    };
    for _ in 0..5 {
        assert_eq!(picked(&backend.pick(retry)), Some(second));
    }
    assert_eq!(picked(&backend.pick(request)), Some(first));
}
