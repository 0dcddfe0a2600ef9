//! A small world and a record of it, for the tests of this module.

use std::sync::Arc;

use crate::base::address::Address;
use crate::base::ids::{ListenerId, ProxyId, ServerId, ShardId};
use crate::config::plan::{
    Back, Balance, Front, LogTarget, Plan, Proxy, ProxyKind, Server, ServerKey, SpliceOptions,
    Target, Watch,
};
use crate::shard::{Bounds, ControlPort, LogQueue, SessionRecord, ShardPort, World};

/// A frontend `fe` that logs to `logs` and a backend `bk` with a server `s1`.
pub(super) fn world(logs: Vec<LogTarget>) -> World {
    let front = Front {
        listeners: vec![ListenerId(0)],
        default_backend: Some(ProxyId(1)),
        tcplog: true,
        ..Front::default()
    };
    let server = Arc::new(Server {
        server_id: ServerId(0),
        sid: 1,
        name: "s1".into(),
        address: Target::Fixed(Address::Ip("127.0.0.1:1".parse().unwrap())),
        address_text: String::new(),
        weight: 1,
        maxconn: 0,
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
        place: String::new(),
    });
    let back = Back {
        balance: Balance::RoundRobin,
        servers: vec![Arc::clone(&server)],
        retries: 3,
        ..Back::default()
    };
    let proxy = |id, name: &str, kind, front, back| {
        Arc::new(Proxy {
            proxy_id: ProxyId(id),
            iid: 2,
            description: String::new(),
            name: name.into(),
            kind,
            front,
            back,
            guid: String::new(),
            logs: logs.clone(),
            splice: SpliceOptions::default(),
        })
    };
    let plan = Plan {
        proxies: vec![
            proxy(0, "fe", ProxyKind::Frontend, Some(front), None),
            proxy(1, "bk", ProxyKind::Backend, None, Some(back)),
        ],
        servers_count: 1,
        ..Plan::default()
    };
    let port = Arc::new(ShardPort::new(ShardId(0), 4).unwrap());
    let queue = Arc::new(LogQueue::new(crate::limits::LOG_RECORDS_MAX).unwrap());
    let control = Arc::new(ControlPort::new(4).unwrap());
    World::new(
        Arc::new(plan),
        vec![port],
        control,
        queue,
        Bounds {
            maxconn: 10,
            memory_max: 0,
            pipes_max: 0,
        },
        0,
    )
}

/// A session that went well after retries, in a world of its own.
pub(super) fn record() -> SessionRecord {
    record_in(&world(Vec::new()))
}

/// The same in a given world.
pub(super) fn record_in(world: &World) -> SessionRecord {
    SessionRecord {
        accepted_unix_ms: 1_233_922_329_443,
        frontend: Arc::clone(world.frontends[0].as_ref().unwrap()),
        backend: world.backends[1].clone(),
        server: world.backends[1]
            .as_ref()
            .map(|backend| Arc::clone(&backend.servers[0])),
        client: Some("10.0.1.2:33313".parse().unwrap()),
        local: Some("10.0.0.1:80".parse().unwrap()),
        at_accept: false,
        refused: None,
        queue_ms: 0,
        connect_ms: 5,
        total_ms: 5007,
        bytes_in: 7,
        bytes_out: 212,
        termination: *b"--",
        counts: [1, 2, 3, 4],
        retries: 3,
        redispatched: true,
        queued_before: [5, 6],
    }
}
