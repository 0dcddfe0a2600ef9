//! The PROXY protocol, versions 1 and 2: who a connection is really from, said in front of its
//! bytes (haproxy.org, `proxy-protocol.txt`).
//!
//! Pure: bytes to [`Header`] and back. Who waits for them, and how long, is the shard's business.

use std::net::SocketAddr;

/// What a header says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Source and destination of the connection; `None` = take the connection's own (LOCAL,
    /// UNKNOWN, UNSPEC, and families without addresses of ours).
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The fields behind the addresses (TLVs of version 2), as they came.
    pub tlvs: Option<Box<[u8]>>,
}
