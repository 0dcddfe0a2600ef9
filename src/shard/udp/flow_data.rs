//! What the engine keeps with a flow beside what the table does.

use super::batch::Open;
use super::origin::Origin;
use crate::base::ids::SessionKey;

/// The engine's part of a flow.
#[derive(Clone, Debug)]
pub(super) struct FlowData {
    /// What it adds to on the way to its server, and back.
    pub(super) up: Open,
    pub(super) down: Open,
    /// The socket its server is spoken to from.
    pub(super) socket: SessionKey,
    /// Its client can be sent several datagrams with one call.
    pub(super) merges: bool,
    /// It has had another server.
    pub(super) moved: bool,
    /// Its number for the id that servers get of it, 0 = none has asked.
    pub(super) unique_number: u64,
    /// What its PROXY header has said.
    pub(super) origin: Option<Box<Origin>>,
}

impl FlowData {
    /// Of a flow that begins.
    pub(super) fn new(socket: SessionKey, origin: Option<Box<Origin>>) -> FlowData {
        FlowData {
            up: Open::default(),
            down: Open::default(),
            socket,
            merges: true,
            moved: false,
            unique_number: 0,
            origin,
        }
    }
}

/// What a flow costs on a shard: its slot, beside what index, timer and pair add.
const _: () = assert!(
    size_of::<crate::flow::udp::Flow<FlowData>>() <= 224,
    "a flow has grown"
);
