//! What keys of datagrams promise, in numbers: shares, agreement, clients that move; and how a flow
//! differs from a connection.
//!
//! Everything is seeded, so each figure is the same in every run; `--nocapture` prints them.

use super::shares::{CHI_SQUARE_MAX, WEIGHTS, by_weight, chi_square};
use super::testing::{
    self, ALL, MAGLEV, MAP, RING, address, backend, backend_of, picked, planned, server,
};
use super::{Backend, Health, Outcome, Pick, PickRequest};
use crate::base::hash;
use crate::config::plan::{Balance, Expression, Fetch, HashFunction, HashKey};

/// A hash of something else.
fn by(base: Balance, fetch: Fetch) -> Balance {
    let Balance::Hash(mut hash) = base else {
        unreachable!("it hashes");
    };
    hash.key = HashKey::Expression(Expression::new(fetch));
    Balance::Hash(hash)
}

/// Bytes that are anything, the same for every n.
fn any<const N: usize>(n: u32) -> [u8; N] {
    let mut bytes = [0; N];
    for (index, bytes) in (0..).zip(bytes.chunks_mut(8)) {
        let word = hash::sequence(u64::from(n), index).to_be_bytes();
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
    bytes
}

/// A query for the peers of the n-th torrent, from whoever.
fn get_peers(n: u32, from: u32) -> Vec<u8> {
    let (node, torrent): ([u8; 20], [u8; 20]) = (any(from), any(n));
    [
        &b"d1:ad2:id20:"[..],
        &node,
        b"9:info_hash20:",
        &torrent,
        b"e1:q9:get_peers1:t2:aa1:y1:qe",
    ]
    .concat()
}

/// The first packet of the n-th connection.
fn initial(n: u32) -> Vec<u8> {
    let id: [u8; 8] = any(n);
    [&b"\xc0\0\0\0\x01\x08"[..], &id, &[0; 40]].concat()
}

/// Keys of datagrams, and what to make the n-th datagram of each with.
type Kind = (Fetch, fn(u32) -> Vec<u8>);
const KINDS: [Kind; 4] = [
    (Fetch::DhtTarget, |n| get_peers(n, !n)),
    (Fetch::QuicCid { length: 8 }, initial),
    (
        Fetch::UdpPayload {
            offset: 3,
            length: 6,
        },
        |n| any::<12>(n).to_vec(),
    ),
    (
        Fetch::UdpPayload {
            offset: 2,
            length: 0,
        },
        |n| any::<8>(n).to_vec(),
    ),
];

/// The server of a datagram of a client.
fn home(backend: &Backend, datagram: &[u8], client: u32) -> u32 {
    let pick = backend.pick(PickRequest {
        client: address(client),
        datagram: Some(datagram),
        ..PickRequest::ANY
    });
    let Pick::Server(server) = &pick else {
        panic!("every server is unlimited");
    };
    assert!(backend.release(server, Outcome::Completed).is_none());
    server.id.0
}

fn homes(backend: &Backend, (_, datagram): Kind, count: u32) -> Vec<u32> {
    let of_one_client = |n| home(backend, &datagram(n), 0);
    (0..count).map(of_one_client).collect()
}

fn count(homes: &[u32], servers: usize) -> Vec<u32> {
    let mut counts = vec![0; servers];
    homes.iter().for_each(|id| counts[*id as usize] += 1);
    counts
}

#[test]
fn keys_match_the_weights() {
    for base in [MAP, MAGLEV] {
        for kind in KINDS {
            let servers = WEIGHTS.map(|weight| server(weight, 0));
            let backend = backend(by(base, kind.0), &servers);
            let counts = count(&homes(&backend, kind, 200_000), servers.len());
            let chi_square = chi_square(&counts, &by_weight(&WEIGHTS));
            println!("{:?} {:?}: chi-square {chi_square:.2}", kind.0, base.hash());
            assert!(chi_square < CHI_SQUARE_MAX, "{:?}: {chi_square}", kind.0);
        }
    }
}

/// Whatever function is applied to them.
#[test]
fn every_function_spreads_keys() {
    use HashFunction::{Crc32, Djb2, None, Sdbm, Wt6};
    for base in [MAP, RING, MAGLEV] {
        for (fetch, datagram) in KINDS {
            for function in [Sdbm, Djb2, Wt6, Crc32, None] {
                let Balance::Hash(mut hash) = by(base, fetch) else {
                    unreachable!("it hashes");
                };
                hash.method.function = function;
                let backend = backend(Balance::Hash(hash), &[server(1, 0); 4]);
                let homes = homes(&backend, (fetch, datagram), 10_000);
                for count in count(&homes, 4) {
                    assert!((2_000..3_000).contains(&count), "{function:?}: {count}");
                }
            }
        }
    }
}

/// Who asks, and from where, doesn't matter: a torrent has one server, a connection has one.
#[test]
fn a_key_has_one_server_wherever_it_comes_from() {
    for base in [MAP, RING, MAGLEV] {
        let backend = backend(by(base, Fetch::DhtTarget), &[server(1, 0); 10]);
        for torrent in 0..200 {
            let first = home(&backend, &get_peers(torrent, 0), 0);
            for from in 1..10 {
                assert_eq!(home(&backend, &get_peers(torrent, from), from), first);
            }
        }
    }
}

/// Datagrams without a key have their client's: all of one go to one server, and to the one that
/// the client has without looking into datagrams.
#[test]
fn without_a_key_the_client_decides() {
    for base in [MAP, RING, MAGLEV] {
        for (fetch, datagram) in KINDS {
            let by_key = backend(by(base, fetch), &[server(1, 0); 10]);
            let by_client = backend(by(base, Fetch::Source), &[server(1, 0); 10]);
            let mut agree = 0;
            for client in 0..500 {
                let expected = home(&by_client, b"", client);
                assert_eq!(home(&by_key, b"", client), expected, "{fetch:?}");
                assert_eq!(home(&by_key, b"?", client), expected, "{fetch:?}");
                agree += u32::from(home(&by_key, &datagram(client), client) == expected);
            }
            // One in ten by chance.
            assert!((20..90).contains(&agree), "{fetch:?}: {agree}");
        }
    }
}

/// Of one address every port is a client of its own.
#[test]
fn a_port_may_be_a_part_of_the_key() {
    for base in [MAP, RING, MAGLEV] {
        let backend = backend(by(base, Fetch::SourceAndPort), &[server(1, 0); 4]);
        let pick = |client: &str| {
            let pick = backend.pick(PickRequest {
                client: Some(client.parse().unwrap()),
                ..PickRequest::ANY
            });
            picked(&pick).unwrap()
        };
        for host in ["192.0.2.1", "[2001:db8::1]"] {
            let of_ports: Vec<_> = (1..=4_000).map(|n| pick(&format!("{host}:{n}"))).collect();
            for count in count(&of_ports, 4) {
                assert!((800..1_200).contains(&count), "{base:?}: {count}");
            }
        }
        for port in 1..100 {
            let mapped = pick(&format!("[::ffff:192.0.2.1]:{port}"));
            assert_eq!(mapped, pick(&format!("192.0.2.1:{port}")));
        }
    }
}

/// Parts of all torrents that move when one of N servers goes: its own, and others, in percent.
#[test]
fn when_a_server_goes_its_keys_move_and_few_others() {
    const TORRENTS: u32 = 50_000;
    for (base, name, others_max) in [(RING, "ring", 0.0), (MAGLEV, "maglev", 3.5)] {
        for servers in [3, 10, 100] {
            let backend = backend(by(base, Fetch::DhtTarget), &vec![server(1, 0); servers]);
            let homes = || homes(&backend, KINDS[0], TORRENTS);
            let health = |health| {
                backend.servers[0].set_health(health);
                assert!(backend.publish().is_empty());
            };
            let before = homes();
            health(Health::Down);
            let during = homes();
            health(Health::Up);
            assert_eq!(homes(), before, "they come back");
            let moved = |own: bool| {
                let pairs = before.iter().zip(&during);
                let moved = pairs.filter(|(one, other)| one != other && (**one == 0) == own);
                100.0 * moved.count() as f64 / f64::from(TORRENTS)
            };
            let (own, others) = (moved(true), moved(false));
            println!("{name}, {servers} servers: own {own:.2} %, others {others:.2} %");
            let share = 100.0 / servers as f64;
            assert!((own / share - 1.0).abs() < 0.15, "{name} {servers}: {own}");
            assert!(others <= others_max, "{name} {servers}: {others}");
        }
    }
}

/// Two processes with the same servers in another order, before and after one of them goes.
#[test]
fn two_balancers_agree_about_every_key() {
    for base in [RING, MAGLEV] {
        for kind in KINDS {
            let weight = |host: u32| server(1 + host as u16, 0);
            let there = (0..6).map(|i| planned(i, i, weight(i))).collect();
            let here = (0..6).map(|i| planned(i, 5 - i, weight(5 - i))).collect();
            let there = backend_of(by(base, kind.0), there, 42);
            let here = backend_of(by(base, kind.0), here, 42);
            for gone in [None, Some(2)] {
                if let Some(gone) = gone {
                    there.servers[gone].set_health(Health::Down);
                    here.servers[5 - gone].set_health(Health::Down);
                    assert!(there.publish().is_empty() && here.publish().is_empty());
                }
                let there = homes(&there, kind, 2_000);
                let mirrored = there.into_iter().map(|id| 5 - id);
                assert!(mirrored.eq(homes(&here, kind, 2_000)), "{base:?}");
            }
        }
    }
}

/// A flow doesn't wait: the datagram that finds every server full is dropped, and nothing of it is
/// left behind. Whoever comes after a flow has ended gets its place.
#[test]
fn a_flow_that_finds_no_room_leaves_nothing_behind() {
    for balance in ALL {
        let backend = backend(balance, &[server(1, 2), server(2, 2), server(1, 2)]);
        let mut open = Vec::new();
        let mut random = testing::random(11);
        let mut dropped = 0;
        for n in 0..5_000 {
            if open.len() > random(8) as usize {
                let server = open.swap_remove(random(open.len() as u64) as usize);
                assert!(backend.release(&server, Outcome::Completed).is_none());
                continue;
            }
            match backend.pick(PickRequest {
                client: address(n),
                datagram: Some(b"x"),
                ..PickRequest::ANY
            }) {
                Pick::Server(server) => open.push(server),
                Pick::Wait { .. } => dropped += 1,
                Pick::Refuse => panic!("{balance:?}: servers are usable"),
            }
            assert_eq!(backend.active(), open.len() as u64, "{balance:?}");
            assert_eq!(backend.queued(), 0);
            assert!(open.len() <= 6);
        }
        assert!(dropped > 50, "{balance:?}: {dropped}");
    }
}

/// Flows of servers with weights are spread as connections are that stay open.
#[test]
fn open_flows_are_spread_by_weight() {
    let backend = backend(Balance::LeastConn, &WEIGHTS.map(|weight| server(weight, 0)));
    for n in 0..2_000 {
        let request = PickRequest {
            client: address(n),
            datagram: Some(b"x"),
            ..PickRequest::ANY
        };
        assert!(picked(&backend.pick(request)).is_some());
    }
    let active: Vec<_> = backend.servers.iter().map(|s| s.active()).collect();
    assert_eq!(active, [100, 200, 300, 400, 1_000]);
}
