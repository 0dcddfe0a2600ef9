//! A backend: its servers, the published table, `pick`, `release` and the queue of waiting sessions.

use std::net::IpAddr;
use std::sync::Arc;

use super::server::Server;
use crate::base::ids::{ServerId, SessionKey, ShardId};
use crate::config::plan::Proxy;

/// What a pick depends on.
#[derive(Clone, Copy, Debug)]
pub struct PickRequest {
    /// The client's address; `None` for Unix clients.
    pub client: Option<IpAddr>,
    /// A retry after this server failed: chosen again only if no other is usable, and the round-robin
    /// cursor is not advanced.
    pub avoid: Option<ServerId>,
}

/// What a pick says.
#[derive(Clone, Debug)]
pub enum Pick {
    /// Connect to this server; its count has been taken and must be released exactly once.
    Server(Arc<Server>),
    /// Every usable server is at its `maxconn`: wait in the queue (see [`Backend::enqueue`]).
    Wait {
        /// The only server that will do (hash choices), if there is one.
        only: Option<ServerId>,
    },
    /// No server is usable.
    Refuse,
}

/// How an attempt ended, for passive health and statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The connect failed (refused, unreachable, timed out).
    ConnectFailed,
    /// Given up before it was decided (client gone, proxy stopping).
    Abandoned,
    /// The session ran and ended without the server's fault.
    Completed,
    /// The server reset or timed out an established session.
    ServerAborted,
}

/// A session waiting for a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Its shard.
    pub shard: ShardId,
    /// Its key there.
    pub session: SessionKey,
    /// The only server that will do, if there is one.
    pub only: Option<ServerId>,
}

/// A server handed to a waiting session: its count is already taken. The shard that finds the session
/// gone releases it again.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who gets it.
    pub waiter: Waiter,
    /// What it gets.
    pub server: Arc<Server>,
}

/// A backend's live state.
#[derive(Debug)]
pub struct Backend {
    /// What the config says of it.
    pub proxy: Arc<Proxy>,
    /// Its servers, in the order of the config.
    pub servers: Vec<Arc<Server>>,
}

impl Backend {
    /// The live state of a planned backend; `hash_seed` is the plan's public seed.
    pub fn new(proxy: Arc<Proxy>, shards: usize, hash_seed: u64) -> Backend {
        let _ = (shards, hash_seed);
        Backend { proxy, servers: Vec::new() }
    }

    /// Chooses a server and takes its count.
    pub fn pick(&self, request: PickRequest) -> Pick {
        let _ = request;
        Pick::Refuse
    }

    /// Gives a server's count back, or hands it to the session that has waited longest for it.
    #[must_use]
    pub fn release(&self, server: &Arc<Server>, outcome: Outcome) -> Option<Grant> {
        let _ = (server, outcome);
        None
    }

    /// Puts a session into the queue. A server may have been released since its `pick`: then it is
    /// granted at once and the session is not queued. `None` and queued otherwise.
    #[must_use]
    pub fn enqueue(&self, waiter: Waiter) -> Option<Grant> {
        let _ = waiter;
        None
    }

    /// Takes a session out of the queue (timeout, abort); false if it had been granted meanwhile.
    pub fn dequeue(&self, waiter: Waiter) -> bool {
        let _ = waiter;
        false
    }

    /// Sessions in the queue now.
    pub fn queued(&self) -> usize {
        0
    }

    /// Builds the table anew from the servers' states and publishes it. Only the control thread calls it.
    /// Returns the waiting sessions that a server can take now; sessions whose servers are all gone are
    /// left to `timeout queue`.
    #[must_use]
    pub fn publish(&self) -> Vec<Grant> {
        Vec::new()
    }
}
