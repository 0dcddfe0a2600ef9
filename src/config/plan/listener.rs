//! Listening addresses.

use std::net::SocketAddr;

use super::Global;
use crate::base::address::Address;
use crate::base::ids::{ListenerId, ProxyId};
use crate::config::values::threads::ThreadSet;

/// One listening address.
#[derive(Clone, PartialEq, Debug)]
pub struct Listener {
    /// Its place in `Plan::listeners`.
    pub listener_id: ListenerId,
    /// The frontend it belongs to.
    pub proxy_id: ProxyId,
    /// What it listens on.
    pub endpoint: Endpoint,
    /// HAProxy's numeric id (`so_id`): `id` of the bind line, else its place among the frontend's
    /// listeners, or the next number that is free; unique in its frontend.
    pub socket_id: u32,
    /// `name`, for statistics; empty = unnamed.
    pub name: String,
    /// `option socket-stats` of its frontend: it has statistics of its own.
    pub has_stats: bool,
    /// `thread`: the shards that serve it.
    pub threads: ThreadSet,
    /// `shards`: how many sockets those share.
    pub sockets: Sockets,
    /// `interface`: only what comes in there.
    pub interface: Option<String>,
    /// `transparent`: addresses that are not the machine's.
    pub transparent: bool,
    /// `tfo`: data in the SYN is accepted.
    pub fast_open: bool,
    /// `mss`: TCP_MAXSEG in bytes, 0 = the kernel's.
    pub mss: u16,
    /// `cc`: the congestion control algorithm.
    pub congestion: Option<String>,
    /// `option tcp-smart-accept`: the first data is not acknowledged at once.
    pub delayed_ack: bool,
    /// `nice`, -1024..=1024: a higher one leaves others a larger share of a turn's bulk bytes.
    pub nice: i16,
    /// `backlog`: of the bind line, else of the proxy, else its maxconn; 0 = the program's default.
    pub backlog: u32,
    /// `maxconn` of the bind line, 0 = none.
    pub maxconn: u32,
    /// `accept-proxy`: a PROXY header comes first.
    pub accept_proxy: bool,
    /// `defer-accept`.
    pub defer_accept: bool,
    /// `v6only` (`Some(true)`), `v4v6` (`Some(false)`), or neither.
    pub v6only: Option<bool>,
    /// `tcp-ut`: TCP_USER_TIMEOUT in milliseconds, 0 = none.
    pub tcp_user_timeout_ms: u32,
    /// Unix socket: `mode`.
    pub unix_mode: Option<u32>,
    /// Unix socket: owner.
    pub unix_uid: Option<u32>,
    /// Unix socket: group.
    pub unix_gid: Option<u32>,
    /// `file:line` of the bind, for messages.
    pub place: String,
}

impl Listener {
    /// Whether both say the same, wherever that is written.
    pub fn is_same(&self, other: &Listener) -> bool {
        let place = other.place.clone();
        *other
            == Listener {
                place,
                ..self.clone()
            }
    }

    /// How many sockets serve `shards` shards, and which of the shards have a part in it: the
    /// shard at position `n` of the set accepts from socket `n` modulo the number.
    pub fn spread(&self, shards: u16, global: &Global) -> (ThreadSet, u16) {
        let threads = self.threads.and(ThreadSet::first(shards));
        // Only an address that is ours to bind can have several sockets.
        let own = matches!(
            self.endpoint,
            Endpoint::Address(Address::Ip(_)) | Endpoint::Datagram(_)
        );
        let one = global.noreuseport || !own;
        let sockets = match self.sockets {
            _ if one => 1,
            Sockets::ByThread => threads.len(),
            Sockets::Number(number) => number.min(threads.len()),
        };
        (threads, sockets)
    }
}

/// How many sockets a listening address has (`shards`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sockets {
    /// One for each shard that serves it; the kernel spreads the connections.
    ByThread,
    /// So many, shared evenly; 1 also for `by-group` and `by-process`, as there is one group.
    Number(u16),
}

/// What a listener listens on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// An address to bind.
    Address(Address),
    /// A listening socket inherited as a descriptor (`fd@N`).
    Descriptor(i32),
    /// An address to bind for datagrams (`mode udp`).
    Datagram(SocketAddr),
}

impl Endpoint {
    /// Whether a successor may be given its socket (`-x`). It makes sockets in files of its own,
    /// and inherits its descriptors as this process did.
    pub fn is_handed_over(&self) -> bool {
        matches!(
            self,
            Endpoint::Address(Address::Ip(_) | Address::Abstract(_)) | Endpoint::Datagram(_)
        )
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Address(address) => address.fmt(f),
            Endpoint::Descriptor(number) => write!(f, "fd@{number}"),
            Endpoint::Datagram(address) => write!(f, "udp@{address}"),
        }
    }
}
