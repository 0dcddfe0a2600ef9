//! What `mode udp` adds to a proxy.

use std::sync::Arc;

use super::Step;

/// The accepting side of a proxy in `mode udp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpFront {
    /// Idle time after which a flow ends: `timeout udp`, else `timeout client`; 0 = not set.
    pub idle_ms: u32,
    /// `timeout udp-unconfirmed`: the same while no reply has come.
    pub unconfirmed_ms: u32,
    /// `udp-requests`: datagrams of the client after which its flow takes no more of them: the next
    /// one begins a new flow. `None` = any number.
    pub requests_max: Option<u32>,
    /// `udp-responses`: replies after which a flow ends; `Some(0)` = it ends with its first
    /// request. `None` = any number.
    pub responses_max: Option<u32>,
    /// `udp-source-flows`: flows that one client address may have, 0 = any number.
    pub source_flows_max: u32,
    /// `option udplog`: a line for each flow at its end.
    pub log: bool,
    /// `udp-fragment`: whether datagrams over the path MTU may leave in fragments.
    pub fragment: bool,
    /// Which datagrams of clients begin with a PROXY header, where listeners expect one.
    pub header: UdpHeader,
}

impl UdpFront {
    /// Idle time of a flow where nothing is set: as nginx and Envoy have it, twice what RFC 4787
    /// (REQ-5) tolerates at the least for well-known ports.
    pub const IDLE_DEFAULT_MS: u32 = 60_000;
    /// Idle time of a flow without a reply where nothing is set.
    pub const UNCONFIRMED_DEFAULT_MS: u32 = 10_000;
}

/// The connecting side of a proxy in `mode udp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpBack {
    /// `timeout udp`, else `timeout server`; 0 = not set. A flow has the lesser of both sides.
    pub idle_ms: u32,
    /// `udp-sockets`.
    pub sockets: UdpSockets,
    /// `option udp-bidirectional`: how long a server may speak first to the client of a mapping,
    /// which keeps the mapping from being used for another client (`timeout udp-mapping`).
    pub mapping_ms: Option<u32>,
    /// `udp-fragment`.
    pub fragment: bool,
    /// Which datagrams to servers begin with a PROXY header, where servers want one.
    pub header: UdpHeader,
}

impl UdpBack {
    /// Lifetime of a mapping where nothing is set: RFC 4787, REQ-5.
    pub const MAPPING_DEFAULT_MS: u32 = 300_000;
}

/// How a server of datagrams is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DatagramCheck {
    /// `check` alone: a datagram that asks for nothing; the server is well unless it is refused.
    Probe,
    /// `option udp-check` with its `send` and `expect` steps: there is no `connect` among them.
    Steps(Arc<[Step]>),
    /// `option dns-check`: a query for the name, without its last dot (empty = the root).
    Dns(Arc<str>),
    /// `option dht-check`: a ping of KRPC.
    Dht,
}

/// The sockets that servers are spoken to from (`udp-sockets`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UdpSockets {
    /// Unconnected ones from a pool, each for one flow to each server at a time.
    #[default]
    Pool,
    /// A connected one for each flow, closed with it.
    Dedicated,
}

/// Which datagrams of a flow begin with a PROXY header (`udp-proxy-header`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UdpHeader {
    /// The first.
    #[default]
    First,
    /// Every one.
    Every,
}
