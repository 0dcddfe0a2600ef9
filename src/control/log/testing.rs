//! A small world and a record of it, for the tests of this module.

use std::sync::Arc;

use crate::base::ids::ShardId;
use crate::config;
use crate::config::plan::{LogTarget, Stage};
use crate::control::resolve::SystemEnvironment;
use crate::shard::{Bounds, ControlPort, LogQueue, SessionRecord, ShardPort, World};

/// A frontend `fe` that logs to `logs`, as `option tcplog` has it, and a backend `bk` with a server
/// `s1`.
pub(super) fn world(logs: Vec<LogTarget>) -> World {
    world_of("    option tcplog\n", logs)
}

/// The same with these lines in the frontend.
pub(super) fn world_of(lines: &str, logs: Vec<LogTarget>) -> World {
    let text = format!(
        "frontend fe\n    bind 10.0.0.1:80 name in\n    bind /run/fe.sock id 7\n    \
         default_backend bk\n    log 127.0.0.1 local0\n{lines}\
         backend bk\n    server s1 10.0.0.2:8080\n"
    );
    let (plan, said) = config::load_text("t.cfg", text, &SystemEnvironment::new());
    let mut plan = plan.unwrap_or_else(|| panic!("{said:?}"));
    let frontend = Arc::get_mut(&mut plan.proxies[0]).expect("nobody else has it");
    frontend.logs = logs.into_iter().map(Arc::new).collect();
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

/// A session that went well after retries.
pub(super) fn record_in(world: &World) -> SessionRecord {
    SessionRecord {
        accepted_unix_ms: 1_233_922_329_443,
        frontend: Arc::clone(world.frontends[0].as_ref().unwrap()),
        listener: Arc::clone(&world.plan.listeners[0]),
        backend: world.backends[1].clone(),
        server: world.backends[1]
            .as_ref()
            .map(|backend| Arc::clone(&backend.servers[0])),
        client: Some("10.0.1.2:33313".parse().unwrap()),
        local: Some("10.0.0.1:80".parse().unwrap()),
        stage: Stage::Ended,
        refused: None,
        handshake_ms: 2,
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
        flow: None,
        number: 17,
        beyond: None,
    }
}
