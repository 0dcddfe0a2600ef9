//! The servers that datagrams go to, by a plain number, and how each is spoken to.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Udp;
use super::batch::Message;
use super::batch::Towards;
use super::counts::DatagramCount;
use crate::base::address::Address;
use crate::base::ids::ServerId;
use crate::base::source::Source;
use crate::base::time::Moment;
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

    /// Whether its flows can go on by what they have when it becomes another one.
    fn is_as(&self, next: &Upstream) -> bool {
        let (own, its) = (&self.server, &next.server);
        own.is_same(its)
            && self.address == next.address
            && own.plan.source == its.plan.source
            && self.rules.sockets == next.rules.sockets
            && self.rules.fragment == next.rules.fragment
    }

    /// As a new world has it.
    fn take_up(&mut self, next: Upstream) {
        self.backend = next.backend;
        self.server = next.server;
        self.rules = next.rules;
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
    /// Those that have no server and no flow any more, to be used again.
    unused: Vec<u32>,
    /// Those that have no server any more and may have flows.
    left: Vec<u32>,
}

impl Upstreams {
    /// None yet.
    pub(super) fn new() -> Upstreams {
        Upstreams {
            upstreams: Vec::new(),
            by_server: Vec::new(),
            unused: Vec::new(),
            left: Vec::new(),
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
    /// Follows the servers of a world. One whose address or sockets are others is another upstream;
    /// the flows there are stay with the former one, as long as they last.
    pub(super) fn renew_upstreams(&mut self, world: &World, now: Moment) {
        let mut by_server = vec![NONE; world.plan.servers_count as usize];
        let before = std::mem::take(&mut self.upstreams.by_server);
        for backend in world.backends.iter().flatten() {
            let back = backend.proxy.back.as_ref();
            let Some(rules) = back.and_then(|back| back.udp) else {
                continue;
            };
            for server in &backend.servers {
                let Target::Fixed(Address::Ip(address)) = server.plan.address else {
                    continue;
                };
                let index = server.id.0 as usize;
                let known = before.get(index).copied().filter(|number| *number != NONE);
                let next = Upstream {
                    backend: Arc::clone(backend),
                    server: Arc::clone(server),
                    address: normalised(address),
                    rules,
                    way: Way::Own,
                    merges: true,
                    told: 0,
                };
                let same = known.filter(|number| self.upstreams.at(*number).is_as(&next));
                by_server[index] = match same {
                    Some(number) => {
                        self.upstreams.at_mut(number).take_up(next);
                        number
                    }
                    None => self.add_upstream(next, now),
                };
            }
        }
        let there: HashSet<u32> = by_server.iter().copied().collect();
        let gone = before.into_iter().filter(|number| *number != NONE);
        for number in gone.filter(|number| !there.contains(number)) {
            if let Way::Pool(pool) = self.upstreams.at(number).way {
                self.pools[usize::from(pool)].pool.remove_upstream(number);
            }
            self.upstreams.left.push(number);
        }
        self.upstreams.by_server = by_server;
    }

    fn add_upstream(&mut self, mut upstream: Upstream, now: Moment) -> u32 {
        let flows = &self.flows;
        let free = |number: &u32| flows.first_of(*number).is_none();
        let upstreams = &mut self.upstreams;
        upstreams
            .unused
            .extend(upstreams.left.extract_if(.., |number| free(number)));
        let unused = upstreams.unused.pop();
        let next = u32::try_from(upstreams.upstreams.len()).expect("as many as servers");
        let number = unused.unwrap_or(next);
        let source = upstream.server.plan.source;
        let of_client = source.is_some_and(|source| source.is_of_client());
        if !of_client && upstream.rules.sockets == UdpSockets::Pool {
            let options = upstream.options(source, false);
            let pool = Udp::pool_of(&mut self.pools, options, self.pool_sockets_max);
            let shared = &mut self.pools[usize::from(pool)].pool;
            if shared.add_upstream(number, upstream.address, now) {
                upstream.way = Way::Pool(pool);
            }
        }
        match unused {
            Some(number) => *self.upstreams.at_mut(number) = upstream,
            None => self.upstreams.upstreams.push(upstream),
        }
        number
    }

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
