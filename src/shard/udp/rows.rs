//! Flows as they are at a moment, for those who ask (`query`).

use std::net::SocketAddr;
use std::sync::Arc;

use super::flow_data::FlowData;
use super::{Shard, Udp};
use crate::base::ids::{ListenerId, SessionKey};
use crate::base::time::Moment;
use crate::flow::udp::{Flow, FlowId};
use crate::lb::{Backend, Server};
use crate::ring::Kernel;
use crate::shard::world::Frontend;

/// Slots that one question looks at: nothing is asked of the kernel, so this is less than 20
/// microseconds.
const PAGE_SLOTS: u32 = 128;

/// A flow as it is at a moment.
#[derive(Clone, Debug)]
pub struct FlowRow {
    /// Its name on its shard.
    pub key: SessionKey,
    /// Where it came in.
    pub listener_id: ListenerId,
    /// The frontend.
    pub frontend: Arc<Frontend>,
    /// Its backend.
    pub backend: Arc<Backend>,
    /// Its server.
    pub server: Arc<Server>,
    /// The address that its server is sent datagrams at.
    pub server_address: SocketAddr,
    /// Who it is from.
    pub client: SocketAddr,
    /// Where that one has sent its datagrams, if the listener is told.
    pub local: Option<SocketAddr>,
    /// When it began.
    pub started: Moment,
    /// When its last datagram came, either way.
    pub last: Moment,
    /// Its server has answered.
    pub is_confirmed: bool,
    /// It takes no more datagrams of its client, and waits for replies.
    pub is_spent: bool,
    /// Datagrams of the client, and their bytes.
    pub requests: (u64, u64),
    /// Datagrams of servers, and their bytes.
    pub replies: (u64, u64),
}

impl<K: Kernel> Shard<K> {
    /// A page of flows, and the slot from which to go on.
    pub(in crate::shard) fn flow_rows(&self, from: u32) -> (Vec<FlowRow>, Option<u32>) {
        let Some(udp) = &self.udp else {
            return (Vec::new(), None);
        };
        let (flows, next) = udp.flows.page(from, PAGE_SLOTS);
        (flows.map(|(id, flow)| udp.row(id, flow)).collect(), next)
    }
}

impl Udp {
    fn row(&self, id: FlowId, flow: &Flow<FlowData>) -> FlowRow {
        let listener = &self.listeners[usize::from(flow.key().listener())];
        let upstream = self.upstreams.at(flow.upstream());
        let ends = self.ends_of(flow);
        FlowRow {
            key: id,
            listener_id: listener.plan.listener_id,
            frontend: Arc::clone(&listener.frontend),
            backend: Arc::clone(&upstream.backend),
            server: Arc::clone(&upstream.server),
            server_address: upstream.address,
            client: ends.client,
            local: ends.local,
            started: flow.started(),
            last: flow.last(),
            is_confirmed: flow.is_confirmed(),
            is_spent: flow.is_spent(),
            requests: flow.requests(),
            replies: flow.replies(),
        }
    }
}
