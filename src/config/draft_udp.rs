//! What a proxy in `mode udp` says of itself while its lines are read.

use super::plan::{QuicLb, UdpHeader, UdpSockets};

/// What only datagrams have; `None` = not set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UdpSettings {
    /// `udp-requests`
    pub(super) requests_max: Option<u32>,
    /// `udp-responses`
    pub(super) responses_max: Option<u32>,
    /// `udp-source-flows`, 0 = any number.
    pub(super) source_flows_max: u32,
    pub(super) sockets: UdpSockets,
    /// `option udp-bidirectional`
    pub(super) bidirectional: bool,
    /// `udp-fragment`
    pub(super) fragment: Option<bool>,
    /// `udp-proxy-header`
    pub(super) header: UdpHeader,
    /// `quic-lb`
    pub(super) quic_lb: Option<QuicLb>,
    /// `quic-cid-length`
    pub(super) cid_length: Option<u8>,
    /// `option udplog`
    pub(super) log: bool,
}
