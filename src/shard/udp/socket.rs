//! Sockets towards servers: pools of them, each for one flow with every server at a time, and those
//! that one flow has for itself.
//!
//! A socket is closed at the end of a turn at the earliest, when nothing is left to send from it,
//! and not before its receive has ended.

use super::counts::DatagramCount;
use super::end::who;
use super::listener::Receiving;
use super::origin::Ends;
use super::upstreams::Way;
use super::{Rest, Shard, Udp};
use crate::base::ids::SessionKey;
use crate::base::time::Moment;
use crate::config::plan::UdpBack;
use crate::flow::udp::{self, FlowId, FlowKey, PairAt, Pool, Reason, Refusal, Take};
use crate::ring::{
    ConnectError, DatagramOptions, Errno, Fd, Inbox, Kernel, Op, Token, UndeliveredReason,
};

/// What the network says of a socket's datagrams, read at once: more is read when the next comes.
const UNDELIVERED_MAX: usize = 64;

/// How often a pool is looked at for sockets to close, while it has any.
const SHRINK_EVERY_MS: u64 = 5_000;
/// How many are closed then at the most.
const SHRUNK_MAX: usize = 64;

/// Whose a socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// A pool's, by its number there.
    Pool { pool: u16, socket: u16 },
    /// A flow's own.
    Flow(FlowId),
    /// Nobody's: it is about to be closed.
    Nobody,
}

/// A socket towards servers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) fd: Fd,
    pub(super) owner: Owner,
    pub(super) receiving: Receiving,
}

/// Sockets of one kind, by their numbers in the pool.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) pool: Pool,
    options: DatagramOptions,
    sockets: Vec<Option<SessionKey>>,
}

impl Shared {
    pub(super) fn new(pool: Pool, options: DatagramOptions) -> Shared {
        Shared {
            pool,
            options,
            sockets: Vec::new(),
        }
    }

    /// All its sockets are closed; mappings end with them.
    pub(super) fn clear(&mut self) {
        for (number, socket) in (0..).zip(&mut self.sockets) {
            if socket.take().is_some() {
                self.pool.lose_socket(number, &mut Vec::new());
            }
        }
    }

    /// Whether its sockets are of that kind.
    pub(super) fn is_of(&self, options: &DatagramOptions) -> bool {
        self.options == *options
    }
}

impl<K: Kernel> Shard<K> {
    /// A socket for a flow with an upstream, and the pair where it is a pool's. `None`, counted,
    /// where there is none.
    pub(super) fn take_socket(
        &mut self,
        udp: &mut Udp,
        upstream: u32,
        ends: &Ends,
        flow: FlowId,
    ) -> Option<(SessionKey, Option<PairAt>)> {
        let taken = match udp.upstreams.at(upstream).way {
            Way::Own => self
                .own_socket(udp, upstream, ends, flow)
                .map(|key| (key, None)),
            Way::Pool(pool) => self.pair(udp, pool, upstream, ends, flow),
        };
        if taken.is_none() {
            udp.counts.one(DatagramCount::RefusedSocket);
        }
        taken
    }

    fn pair(
        &mut self,
        udp: &mut Udp,
        pool: u16,
        upstream: u32,
        ends: &Ends,
        flow: FlowId,
    ) -> Option<(SessionKey, Option<PairAt>)> {
        let shared = &mut udp.pools[usize::from(pool)];
        let mut may_grow = !udp.sockets.is_full();
        loop {
            match shared
                .pool
                .take(upstream, &ends.key, flow, self.now, may_grow)
            {
                Take::Pair(pair) => {
                    let socket = shared.sockets.get(usize::from(pair.socket));
                    let socket = socket.copied().flatten();
                    debug_assert!(socket.is_some(), "a pair of a socket that is not open");
                    return Some((socket?, Some(pair)));
                }
                Take::Refused(Refusal::Unknown) => {
                    debug_assert!(false, "every upstream is in its pool");
                    return None;
                }
                Take::Refused(Refusal::Full | Refusal::Mapped | Refusal::Growth) => return None,
                Take::Grow => {}
            }
            // Another socket, or never mind.
            may_grow = false;
            let fd = match self.kernel.open_datagram_socket(&shared.options) {
                Ok(fd) => fd,
                Err(errno) => {
                    self.socket_failed(errno);
                    continue;
                }
            };
            let Some(number) = shared.pool.add_socket(self.now) else {
                debug_assert!(false, "the pool has asked for it");
                self.kernel.close(fd);
                continue;
            };
            let owner = Owner::Pool {
                pool,
                socket: number,
            };
            let socket = Socket {
                fd,
                owner,
                receiving: Receiving::Armed,
            };
            let Ok(key) = udp.sockets.insert(socket) else {
                debug_assert!(false, "there was room");
                self.kernel.close(fd);
                shared.pool.lose_socket(number, &mut Vec::new());
                continue;
            };
            if shared.sockets.len() <= usize::from(number) {
                shared.sockets.resize(usize::from(number) + 1, None);
            }
            shared.sockets[usize::from(number)] = Some(key);
            self.receive_on(fd, key);
        }
    }

    fn own_socket(
        &mut self,
        udp: &mut Udp,
        upstream: u32,
        ends: &Ends,
        flow: FlowId,
    ) -> Option<SessionKey> {
        if udp.sockets.is_full() {
            return None;
        }
        let upstream = udp.upstreams.at(upstream);
        let source = match upstream.server.plan.source {
            None => None,
            Some(source) if source.is_of_client() => {
                let client = ends.client;
                if client.is_ipv4() != upstream.address.is_ipv4() {
                    super::add_one(&self.gauges().client_families_other);
                    return None;
                }
                Some(source.of_client(Some(client))?)
            }
            Some(source) => Some(source),
        };
        let options = upstream.options(source, true);
        let fd = match self.kernel.open_datagram_socket(&options) {
            Ok(fd) => fd,
            Err(errno) => {
                self.socket_failed(errno);
                return None;
            }
        };
        let socket = Socket {
            fd,
            owner: Owner::Flow(flow),
            receiving: Receiving::Armed,
        };
        match udp.sockets.insert(socket) {
            Ok(key) => {
                self.receive_on(fd, key);
                Some(key)
            }
            Err(_) => {
                debug_assert!(false, "there was room");
                self.kernel.close(fd);
                None
            }
        }
    }

    fn socket_failed(&mut self, errno: Errno) {
        match ConnectError::of(errno) {
            ConnectError::Unexpected(errno) => self.unexpected("socket", errno),
            _ => super::add_one(&self.gauges().sources_exhausted),
        }
    }

    /// A flow has no use for its socket any more.
    pub(super) fn leave_socket(
        &mut self,
        udp: &mut Udp,
        pair: Option<PairAt>,
        socket: SessionKey,
        rest: udp::Rest<'_>,
    ) {
        match pair {
            Some(pair) => {
                let shared = &mut udp.pools[usize::from(pair.pool)];
                shared.pool.release(pair, rest, self.now);
            }
            None => udp.abandon(socket),
        }
    }

    pub(super) fn receive_on(&mut self, fd: Fd, key: SessionKey) {
        let token = Token::session(Op::DatagramsOfServers, key);
        self.kernel.receive_datagrams(fd, Inbox::Servers, token);
    }

    /// A socket's receive has ended, for this reason.
    pub(super) fn socket_rests(&mut self, udp: &mut Udp, key: SessionKey, rest: Rest) {
        let Some(socket) = udp.sockets.get_mut(key) else {
            return;
        };
        if socket.receiving == Receiving::Ending {
            socket.receiving = Receiving::Ended;
            udp.closing.push(key);
            return;
        }
        socket.receiving = Receiving::Idle;
        match rest {
            Rest::None => udp.idle_sockets.push_back(key),
            Rest::NoBuffer => {
                udp.counts.one(DatagramCount::InboxesExhausted);
                udp.starved_sockets.push_back(key);
            }
            Rest::Failed => self.lose_socket(udp, key),
        }
    }

    /// A socket is of no use any more: flows that have it end.
    fn lose_socket(&mut self, udp: &mut Udp, key: SessionKey) {
        let Some(socket) = udp.sockets.get(key) else {
            return;
        };
        // At once: the number of a pool's socket may be another's before the turn ends.
        let reason = Reason::SocketLost;
        match socket.owner {
            Owner::Flow(id) => self.end_flow(udp, id, reason, who(reason)),
            Owner::Nobody => {}
            Owner::Pool { pool, socket } => {
                let mut slots = Vec::new();
                let shared = &mut udp.pools[usize::from(pool)];
                shared.pool.lose_socket(socket, &mut slots);
                shared.sockets[usize::from(socket)] = None;
                for slot in slots {
                    if let Some(id) = udp.flows.id_at(slot) {
                        self.end_flow(udp, id, reason, who(reason));
                    }
                }
            }
        }
        udp.abandon(key);
    }

    /// Closes sockets that nobody has needed for a while: some of each pool, now and then.
    pub(super) fn shrink_pools(&mut self, udp: &mut Udp) {
        let is_due = udp.shrink_at <= self.now;
        let mut open = false;
        for pool in 0..udp.pools.len() {
            let shared = &mut udp.pools[pool];
            shared.pool.begin_turn();
            for _ in 0..if is_due { SHRUNK_MAX } else { 0 } {
                let shared = &mut udp.pools[pool];
                let Some(socket) = shared.pool.shrink(self.now) else {
                    break;
                };
                if let Some(key) = shared.sockets[usize::from(socket)].take() {
                    udp.abandon(key);
                }
            }
            open |= udp.pools[pool].pool.sockets() > 0;
        }
        if !open {
            udp.shrink_at = Moment::NEVER;
        } else if is_due || udp.shrink_at == Moment::NEVER {
            udp.shrink_at = self.now.after_ms(SHRINK_EVERY_MS);
        }
    }

    /// Closes what is to be closed, as far as its receive has ended.
    pub(super) fn close_sockets(&mut self, udp: &mut Udp) {
        while let Some(key) = udp.closing.pop() {
            let Some(socket) = udp.sockets.get_mut(key) else {
                continue;
            };
            match socket.receiving {
                Receiving::Armed => {
                    socket.receiving = Receiving::Ending;
                    let token = Token::session(Op::DatagramsOfServers, key);
                    self.kernel.cancel(token);
                }
                Receiving::Ending => {}
                Receiving::Idle | Receiving::Ended => {
                    self.kernel.close(socket.fd);
                    udp.sockets.remove(key);
                }
            }
        }
    }

    /// Reads what the network says of datagrams that were sent from a socket.
    pub(super) fn read_undelivered(&mut self, udp: &mut Udp, key: SessionKey) {
        let Some(socket) = udp.sockets.get(key) else {
            return;
        };
        let fd = socket.fd;
        for _ in 0..UNDELIVERED_MAX {
            let Some(undelivered) = self.kernel.undelivered(fd) else {
                return;
            };
            match undelivered.reason {
                UndeliveredReason::TooLarge(_) => udp.counts.one(DatagramCount::TooLarge),
                UndeliveredReason::Refused | UndeliveredReason::Unreachable => {
                    udp.counts.one(DatagramCount::Refusals);
                    let to = udp::normalised(undelivered.to);
                    self.tell_refusal(udp, to, undelivered.reason);
                }
                UndeliveredReason::Other(_) => udp.counts.one(DatagramCount::Refusals),
            }
        }
    }

    /// Tells who watches servers of the first refusal of a turn.
    fn tell_refusal(&mut self, udp: &mut Udp, to: std::net::SocketAddr, reason: UndeliveredReason) {
        let turn = udp.turn;
        let now = self.now;
        let error = match reason {
            UndeliveredReason::Refused => ConnectError::Refused,
            _ => ConnectError::Unreachable,
        };
        for upstream in udp.upstreams.at_address(to) {
            if std::mem::replace(&mut upstream.told, turn) != turn {
                self.observe_failure(&upstream.server, error, now);
            }
        }
    }
}

impl Udp {
    /// A socket is nobody's, and closed at the end of the turn.
    pub(super) fn abandon(&mut self, key: SessionKey) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.owner = Owner::Nobody;
            self.closing.push(key);
        }
    }

    /// The pool of sockets of a kind.
    pub(super) fn pool_of(
        pools: &mut Vec<Shared>,
        options: DatagramOptions,
        sockets_max: u16,
    ) -> u16 {
        let found = pools.iter().position(|shared| shared.is_of(&options));
        let index = found.unwrap_or_else(|| {
            let number = u16::try_from(pools.len()).expect("fewer kinds than servers");
            let pool = Pool::new(number, udp::PoolLimits::of(sockets_max));
            pools.push(Shared::new(pool, options));
            pools.len() - 1
        });
        u16::try_from(index).expect("fewer kinds than servers")
    }

    /// How a pair rests after a flow with such a server.
    pub(super) fn rest_of<'a>(
        rules: &UdpBack,
        key: &'a FlowKey,
        upstream: u32,
        last: Moment,
    ) -> udp::Rest<'a> {
        match rules.mapping_ms {
            None => udp::Rest::Quarantine,
            Some(lifetime_ms) => udp::Rest::Mapping {
                key,
                upstream,
                last,
                lifetime_ms,
            },
        }
    }
}
