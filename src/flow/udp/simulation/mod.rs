//! Clients, servers and a network around the shipped table and pool, by seed, on a virtual clock.
//!
//! Every datagram names the client it is for, so a reply to the wrong one is seen. Beside the pool
//! runs a plain model of what it promises: whose a pair is, and when it may be somebody else's.
//!
//! `TIDEGATE_SIM_SEEDS=100000` runs more seeds than usual, `TIDEGATE_SIM_SEED=123` repeats one.

mod balancer;
mod network;

use std::net::SocketAddr;

use super::{PoolLimits, Rules};
use crate::base::time::Moment;
use balancer::Balancer;
use network::{Network, Packet};

const SEEDS: u64 = 400;

/// Random numbers of a seed (xorshift64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(crate::base::hash::sequence(seed, 6) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    /// Once in `n` times.
    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

/// What one seed is about.
#[derive(Clone, Copy, Debug)]
struct Settings {
    rules: Rules,
    mapping_ms: Option<u32>,
    pool: PoolLimits,
    capacity: u32,
    source_max: u32,
    clients: u32,
    /// Once in so many steps a source is forged.
    forged: u64,
    /// How fast time goes: the longest usual step.
    step_ms: u64,
    /// Once in so many times a socket can't be opened.
    unopened: u64,
}

impl Settings {
    fn of(random: &mut Random) -> Settings {
        let any = None;
        let rules = Rules {
            idle_ms: random.one_of(&[2_000, 20_000, 60_000]),
            unconfirmed_ms: random.one_of(&[500, 10_000, 90_000]),
            requests_max: random.one_of(&[any, any, Some(1), Some(2), Some(7)]),
            responses_max: random.one_of(&[any, any, Some(0), Some(1), Some(2)]),
        };
        let sockets_max = random.one_of(&[2, 4, 9, 30]);
        Settings {
            rules,
            mapping_ms: random.one_of(&[any, Some(5_000), Some(70_000), Some(300_000)]),
            pool: PoolLimits {
                growth_max: random.one_of(&[1, 2, 64]),
                ..PoolLimits::of(sockets_max)
            },
            capacity: random.one_of(&[5, 12, 40, 200]),
            source_max: random.one_of(&[1, 2, 100]),
            clients: random.one_of(&[3, 10, 40]),
            forged: random.one_of(&[2, 5, 1000]),
            step_ms: random.one_of(&[5, 40, 300]),
            unopened: random.one_of(&[10, 1000]),
        }
    }
}

/// What happened, to see that it did.
#[derive(Clone, Copy, Default, Debug)]
struct Summary {
    opened: u64,
    delivered: u64,
    /// Replies that came after their flow, or from elsewhere.
    unknown: u64,
    /// Pairs that were given away before they had rested, at the cap.
    hasty: u64,
    misdelivered: u64,
    own: u64,
    resumed: u64,
    evicted: u64,
    full: u64,
    limited: u64,
    moved: u64,
    lost: u64,
    shrunk: u64,
    kept_for_servers: u64,
    removed: u64,
    spent: u64,
    expired: u64,
}

impl Summary {
    fn add(&mut self, other: &Summary) {
        let pairs = [
            (&mut self.opened, other.opened),
            (&mut self.delivered, other.delivered),
            (&mut self.unknown, other.unknown),
            (&mut self.hasty, other.hasty),
            (&mut self.misdelivered, other.misdelivered),
            (&mut self.own, other.own),
            (&mut self.resumed, other.resumed),
            (&mut self.evicted, other.evicted),
            (&mut self.full, other.full),
            (&mut self.limited, other.limited),
            (&mut self.moved, other.moved),
            (&mut self.lost, other.lost),
            (&mut self.shrunk, other.shrunk),
            (&mut self.kept_for_servers, other.kept_for_servers),
            (&mut self.removed, other.removed),
            (&mut self.spent, other.spent),
            (&mut self.expired, other.expired),
        ];
        for (sum, more) in pairs {
            *sum += more;
        }
    }

    /// What happens least often.
    fn least(&self) -> u64 {
        let rare = [
            self.unknown,
            self.hasty,
            self.own,
            self.resumed,
            self.evicted,
            self.full,
            self.limited,
            self.moved,
            self.lost,
            self.shrunk,
            self.kept_for_servers,
            self.removed,
            self.spent,
            self.expired,
        ];
        rare.into_iter().min().unwrap_or(0)
    }
}

fn run(seed: u64) -> Summary {
    let mut random = Random::new(seed);
    let settings = Settings::of(&mut random);
    let mut now = Moment(1 << 40);
    let mut network = Network::default();
    let mut balancer = Balancer::new(settings, &mut random, now);
    for _ in 0..1_500 {
        let jump = match random.below(60) {
            0 => 100_000,
            1 | 2 => 3_000,
            _ => settings.step_ms,
        };
        now = now.after_ms(random.below(jump));
        balancer.begin_turn();
        network.servers_speak_first(&settings, &mut random, now);
        while let Some((at, packet)) = network.next_due(now) {
            match packet {
                Packet::Request {
                    socket,
                    server,
                    client,
                } => {
                    network.serve(&settings, &mut random, at, (socket, server, client));
                }
                Packet::Reply(reply) => balancer.on_reply(&reply, at),
            }
        }
        for _ in 0..random.below(4) {
            let client = match random.once_in(settings.forged) {
                true => 1_000 + random.below(100_000) as u32,
                false => random.below(settings.clients.into()) as u32,
            };
            let datagrams = 1 + random.below(3) as u32;
            for (socket, server) in balancer.on_request(client, datagrams, &mut random, now) {
                network.send(&mut random, now, socket, server, client);
            }
        }
        balancer.change_something(&mut random, now);
        balancer.end_turn(now);
    }
    balancer.finish(now)
}

fn client_address(client: u32) -> SocketAddr {
    let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + client);
    (ip, 40_000 + (client % 7) as u16).into()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn no_reply_reaches_the_wrong_client_and_nothing_leaks() {
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        eprintln!("{:?}", run(seed));
        return;
    }
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let mut total = Summary::default();
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        total.add(&result.unwrap_or_else(|_| panic!("seed {seed} fails")));
    }
    eprintln!("{seeds} seeds: {total:?}");
    // A simulation in which something never happens finds nothing there.
    assert!(seeds < SEEDS || total.least() > seeds / 4, "{total:?}");
    assert!(seeds < SEEDS || total.delivered > 50 * seeds, "{total:?}");
}
