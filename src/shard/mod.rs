//! The data plane: one thread, one core, one ring per shard.
//!
//! What other layers may use of it is exported here; its steps (accept, pick, connect, relay, close)
//! are private.

mod port;
mod record;
mod world;

pub use port::{Gauges, Message, ShardPort};
pub use record::{LogQueue, SessionRecord};
pub use world::{FrontCounter, Frontend, World};

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::base::ids::{ListenerId, ShardId};
use crate::ring::Caps;

/// A listening socket handed to a shard.
#[derive(Debug)]
pub struct ShardListener {
    /// Which listener of the plan.
    pub listener_id: ListenerId,
    /// The socket: one member of a reuseport group of this shard's own, or a duplicate of a socket that
    /// all shards share (Unix, inherited). Non-blocking, listening.
    pub socket: OwnedFd,
}

/// Runs a shard on the calling thread until it was told to stop, or has drained. The ring belongs to the
/// thread that calls this.
pub fn run(
    shard: ShardId,
    world: Arc<World>,
    listeners: Vec<ShardListener>,
    caps: Caps,
) -> std::io::Result<()> {
    let _ = (shard, world, listeners, caps);
    Ok(())
}
