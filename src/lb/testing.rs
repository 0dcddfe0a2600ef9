//! Backends, clients and helpers for the tests of this layer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Backend, Outcome, Pick, PickRequest, Seeds};
use crate::base::address::Address;
use crate::base::hash;
use crate::base::ids::{ProxyId, ServerId, SessionKey};
use crate::config::plan::{
    Back, Balance, Hash, HashKind, Proxy, ProxyKind, QuicLb, Server, ServerKey, SlowStart,
    SpliceOptions, Target, Watch,
};

/// Every way to balance.
pub(super) const ALL: [Balance; 10] = [
    Balance::RoundRobin,
    Balance::StaticRr,
    Balance::LeastConn,
    Balance::PeakEwma,
    Balance::First,
    Balance::Random { draws: 2 },
    MAP,
    RING,
    MAGLEV,
    bounded(RING, 125),
];

/// Hashes of the client's address.
pub(super) const MAP: Balance = Balance::source(HashKind::MapBased);
pub(super) const RING: Balance = Balance::source(HashKind::Consistent);
pub(super) const MAGLEV: Balance = Balance::source(HashKind::Maglev);

/// A hash with a bound of its servers' load.
pub(super) const fn bounded(balance: Balance, factor: u32) -> Balance {
    match balance {
        Balance::Hash(hash) => Balance::Hash(Hash { factor, ..hash }),
        other => other,
    }
}

const SEEDS: Seeds = Seeds { hash: 0, draws: 1 };

/// A server's weight and `maxconn`.
pub(super) fn server(weight: u16, maxconn: u32) -> (u16, u32) {
    (weight, maxconn)
}

/// A backend whose n-th server has the slot n and the address 10.0.0.n:80.
pub(super) fn backend(balance: Balance, servers: &[(u16, u32)]) -> Backend {
    let servers: Vec<_> = (0..)
        .zip(servers)
        .map(|(id, server)| planned(id, id, *server))
        .collect();
    backend_of(balance, servers, 0)
}

/// A backend of servers with a `minconn` and a `maxconn` that is full at `fullconn` sessions.
pub(super) fn ramping(balance: Balance, limits: &[(u32, u32)], fullconn: u32) -> Backend {
    let server = |(id, (minconn, maxconn)): (u32, &(u32, u32))| {
        Arc::new(Server {
            minconn: *minconn,
            ..(*planned(id, id, (1, *maxconn))).clone()
        })
    };
    let servers = (0..).zip(limits).map(server).collect();
    Backend::new(proxy(balance, servers, false), 1, SEEDS, fullconn, 0)
}

/// A backend of servers with a slow start.
pub(super) fn starting_slowly(
    balance: Balance,
    servers: &[(u16, u32)],
    slow_start: &SlowStart,
) -> Backend {
    let server = |(id, server): (u32, &(u16, u32))| {
        Arc::new(Server {
            slow_start: Some(slow_start.clone()),
            ..(*planned(id, id, *server)).clone()
        })
    };
    let servers = (0..).zip(servers).map(server).collect();
    Backend::new(proxy(balance, servers, false), 1, SEEDS, 1, 0)
}

/// A backend of active and backup servers, each with a weight and a `maxconn`.
pub(super) fn with_backups(
    balance: Balance,
    allbackups: bool,
    active: &[(u16, u32)],
    backup: &[(u16, u32)],
) -> Backend {
    let active = active.iter().map(|server| (server, false));
    let servers = active.chain(backup.iter().map(|server| (server, true)));
    let server = |(id, (server, backup)): (u32, (&(u16, u32), bool))| {
        Arc::new(Server {
            backup,
            ..(*planned(id, id, *server)).clone()
        })
    };
    let servers = (0..).zip(servers).map(server).collect();
    Backend::new(proxy(balance, servers, allbackups), 1, SEEDS, 1, 0)
}

/// A backend of planned servers, with a seed.
pub(super) fn backend_of(balance: Balance, servers: Vec<Arc<Server>>, seed: u64) -> Backend {
    let seeds = Seeds {
        hash: seed,
        ..SEEDS
    };
    Backend::new(proxy(balance, servers, false), 1, seeds, 1, 0)
}

/// A backend whose servers are named by connection IDs.
pub(super) fn naming(balance: Balance, place: QuicLb, ids: &[&[u8]]) -> Backend {
    let server = |(id, quic_id): (u32, &&[u8])| {
        Arc::new(Server {
            quic_id: quic_id.to_vec(),
            ..(*planned(id, id, (1, 0))).clone()
        })
    };
    let servers = (0..).zip(ids).map(server).collect();
    let mut proxy = proxy(balance, servers, false);
    let back = Arc::make_mut(&mut proxy).back.as_mut();
    back.expect("it has servers").quic_lb = Some(place);
    Backend::new(proxy, 1, SEEDS, 1, 0)
}

fn proxy(balance: Balance, servers: Vec<Arc<Server>>, allbackups: bool) -> Arc<Proxy> {
    let back = Back {
        balance,
        servers,
        retries: 3,
        allbackups,
        ..Back::default()
    };
    Arc::new(Proxy {
        proxy_id: ProxyId(0),
        iid: 2,
        iid_given: false,
        description: String::new(),
        name: Arc::from("test"),
        kind: ProxyKind::Backend,
        front: None,
        back: Some(back),
        guid: String::new(),
        logs: Vec::new(),
        log_tag: None,
        splice: SpliceOptions::default(),
    })
}

/// A server in slot `id` at the address 10.0.0.0 + `host`.
pub(super) fn planned(id: u32, host: u32, (weight, maxconn): (u16, u32)) -> Arc<Server> {
    let ip = Ipv4Addr::from_bits(0x0a00_0000 + host);
    Arc::new(Server {
        server_id: ServerId(id),
        sid: id + 1,
        sid_given: false,
        name: Arc::from(format!("server{id}")),
        address: Target::Fixed(Address::Ip((ip, 80).into())),
        address_text: format!("{ip}:80"),
        weight,
        maxconn,
        minconn: 0,
        maxqueue: 0,
        backup: false,
        disabled: false,
        check: None,
        watch: Watch::default(),
        slow_start: None,
        passive: Default::default(),
        tcp_user_timeout_ms: 0,
        congestion: None,
        source: None,
        hash_key: ServerKey::AddressPort,
        guid: String::new(),
        quic_id: Vec::new(),
        send_proxy: None,
        origin: Default::default(),
        place: String::new(),
    })
}

/// The n-th client.
pub(super) fn address(n: u32) -> Option<SocketAddr> {
    Some((Ipv4Addr::from_bits(0xc612_0000 + n), 1024).into())
}

/// A session.
pub(super) fn key(slot: u32) -> SessionKey {
    SessionKey {
        slot,
        generation: 1,
    }
}

/// Slot of the server picked.
pub(super) fn picked(pick: &Pick) -> Option<u32> {
    match pick {
        Pick::Server(server) => Some(server.id.0),
        Pick::Wait { .. } | Pick::Refuse => None,
    }
}

/// A short connection.
pub(super) fn pick_and_release(backend: &Backend, client: Option<SocketAddr>) -> Pick {
    let pick = backend.pick(PickRequest {
        client,
        ..PickRequest::ANY
    });
    if let Pick::Server(server) = &pick {
        assert!(backend.release(server, Outcome::Completed).is_none());
    }
    pick
}

/// How often each of `servers` was picked in `picks` short connections.
pub(super) fn spread(backend: &Backend, picks: u32) -> Vec<u32> {
    let mut counts = vec![0; backend.servers.len()];
    for n in 0..picks {
        let id = picked(&pick_and_release(backend, address(n))).expect("a server");
        counts[id as usize] += 1;
    }
    counts
}

/// Numbers below a bound, from a seed.
pub(super) fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut index = 0;
    move |bound| {
        index += 1;
        hash::sequence(seed, index) % bound
    }
}

/// Ends a test that waits for something that doesn't come. It counts looks instead of reading a
/// clock: each gives way to other threads, so this many in a row mean that none of them has
/// anything to do.
#[derive(Default)]
pub(super) struct Patience(u32);

impl Patience {
    /// Something came.
    pub(super) fn renew(&mut self) {
        self.0 = 0;
    }

    /// Nothing came.
    pub(super) fn wait(&mut self, failure: &str) {
        self.0 += 1;
        assert!(self.0 < 5_000_000, "{failure}");
        std::thread::yield_now();
    }
}
