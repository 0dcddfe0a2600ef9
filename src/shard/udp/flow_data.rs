//! What the engine keeps with a flow beside what the table does.

use super::batch::Open;
use super::origin::{Origin, Told};
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
    /// What PROXY headers say of it, where they do.
    pub(super) told: Option<Box<Told>>,
}

impl FlowData {
    /// Of a flow that begins.
    pub(super) fn new(socket: SessionKey, origin: Option<Origin>) -> FlowData {
        FlowData {
            up: Open::default(),
            down: Open::default(),
            socket,
            merges: true,
            moved: false,
            told: origin.map(|origin| Box::new(Told::by(origin))),
        }
    }

    /// What the header that it came with has said.
    pub(super) fn origin(&self) -> Option<&Origin> {
        self.told.as_ref()?.origin.as_ref()
    }
}

/// What a flow costs on a shard: its slot, beside what index, timer and pair add.
const _: () = assert!(
    size_of::<crate::flow::udp::Flow<FlowData>>() <= 184,
    "a flow has grown"
);
