//! The servers that datagrams go to, by a plain number, and how each is spoken to.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Udp;
use super::batch::Message;
use super::batch::Towards;
use super::counts::DatagramCount;
use crate::base::address::Address;
use crate::base::ids::ServerId;
use crate::base::source::Source;
use crate::config::plan::{Target, UdpBack, UdpSockets};
use crate::flow::udp::{FlowId, normalised};
use crate::lb::{Backend, Server};
use crate::ring::DatagramOptions;
use crate::shard::world::World;

/// No upstream.
const NONE: u32 = u32::MAX;

/// From where a server is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// A socket of this pool.
    Pool(u16),
    /// A socket of the flow's own.
    Own,
}

/// A server of a backend in mode udp.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) backend: Arc<Backend>,
    pub(super) server: Arc<Server>,
    pub(super) address: SocketAddr,
    pub(super) rules: UdpBack,
    pub(super) way: Way,
    /// Several datagrams can leave with one call.
    pub(super) merges: bool,
    /// The turn in which a refusal was last told.
    pub(super) told: u64,
}

impl Upstream {
    /// A socket towards it; `source` is that of the server, filled in for a client where it asks
    /// for that.
    pub(super) fn options(&self, source: Option<Source>, connected: bool) -> DatagramOptions {
        DatagramOptions {
            ipv6: self.address.is_ipv6(),
            source,
            connected: connected.then_some(self.address),
            fragment: self.rules.fragment,
        }
    }

    /// Whether its flows stay: a server that drains goes on with those it has.
    pub(super) fn serves(&self) -> bool {
        self.server.in_service()
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Upstreams {
    upstreams: Vec<Upstream>,
    /// By `ServerId`.
    by_server: Vec<u32>,
}

impl Upstreams {
    /// Those of a plan. `pool_of` enters an address into the pool of such sockets, if it can.
    pub(super) fn new(
        world: &World,
        mut pool_of: impl FnMut(u32, DatagramOptions, SocketAddr) -> Option<u16>,
    ) -> Upstreams {
        let mut upstreams = Vec::new();
        let mut by_server = vec![NONE; world.plan.servers_count as usize];
        for backend in world.backends.iter().flatten() {
            let back = backend.proxy.back.as_ref();
            let Some(rules) = back.and_then(|back| back.udp) else {
                continue;
            };
            for server in &backend.servers {
                let Target::Fixed(Address::Ip(address)) = server.plan.address else {
                    continue;
                };
                let source = server.plan.source;
                let of_client = source.is_some_and(|source| source.is_of_client());
                let mut upstream = Upstream {
                    backend: Arc::clone(backend),
                    server: Arc::clone(server),
                    address: normalised(address),
                    rules,
                    way: Way::Own,
                    merges: true,
                    told: 0,
                };
                let number = u32::try_from(upstreams.len()).expect("as many as servers");
                if !of_client && rules.sockets == UdpSockets::Pool {
                    let options = upstream.options(source, false);
                    let pool = pool_of(number, options, upstream.address);
                    upstream.way = pool.map_or(Way::Own, Way::Pool);
                }
                by_server[server.id.0 as usize] = number;
                upstreams.push(upstream);
            }
        }
        Upstreams {
            upstreams,
            by_server,
        }
    }

    /// The one with a number.
    pub(super) fn at(&self, upstream: u32) -> &Upstream {
        &self.upstreams[upstream as usize]
    }

    /// The same, to change it.
    pub(super) fn at_mut(&mut self, upstream: u32) -> &mut Upstream {
        &mut self.upstreams[upstream as usize]
    }

    /// The number of a server; `None` if it has no address to send to.
    pub(super) fn of_server(&self, server: ServerId) -> Option<u32> {
        let upstream = self.by_server.get(server.0 as usize).copied();
        upstream.filter(|upstream| *upstream != NONE)
    }

    /// Those at an address.
    pub(super) fn at_address(
        &mut self,
        address: SocketAddr,
    ) -> impl Iterator<Item = &mut Upstream> {
        let upstreams = self.upstreams.iter_mut();
        upstreams.filter(move |upstream| upstream.address == address)
    }
}

impl Udp {
    /// The server of a flow that is there.
    pub(super) fn upstream_of(&self, id: FlowId) -> u32 {
        self.flows.get(id).map_or(0, |flow| flow.upstream())
    }

    /// A destination that doesn't take several datagrams with one call gets them one by one from
    /// now on.
    pub(super) fn segments_refused(&mut self, message: &Message) {
        let merged = match message.route.towards {
            Towards::Server { upstream, .. } => Some(&mut self.upstreams.at_mut(upstream).merges),
            Towards::Client { .. } => {
                let flow = self.flows.id_at(message.route.flow);
                let flow = flow.and_then(|id| self.flows.get_mut(id));
                flow.map(|flow| &mut flow.data.merges)
            }
        };
        if let Some(merges) = merged
            && std::mem::replace(merges, false)
        {
            self.counts.one(DatagramCount::SegmentsRefused);
        }
    }
}
