//! The PROXY protocol, versions 1 and 2: who a connection is really from, said in front of its
//! bytes (haproxy.org, `proxy-protocol.txt`).
//!
//! Pure: bytes to [`Header`] and back. Who waits for them, and how long, is the shard's business.

mod checksum;
pub mod datagram;
pub mod parse;
pub mod tlv;
mod unique_id;
mod write;

pub use checksum::crc32c;
pub use unique_id::{UniqueId, UniqueIds};
pub use write::{Addresses, Fields, HEADER_MAX, HeaderBytes, header};

use std::net::SocketAddr;

/// What version 2 begins with. Its first byte is none that version 1 or a protocol of text begins
/// with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of version 2 before the addresses: signature, version and command, family, length.
pub const FIXED_LENGTH: usize = 16;
/// Version 2 and the command LOCAL: the connection is the sender's own.
pub const LOCAL: u8 = 0x20;
/// Version 2 and the command PROXY: the connection is relayed.
pub const PROXY: u8 = 0x21;
/// No family that there is a number for.
pub const UNSPECIFIED: u8 = 0x00;
/// TCP over IPv4: two addresses and two ports, 12 bytes.
pub const TCP4: u8 = 0x11;
/// TCP over IPv6, 36 bytes.
pub const TCP6: u8 = 0x21;
/// A Unix stream socket: two paths of 108 bytes.
pub const UNIX_STREAM: u8 = 0x31;
/// UDP over IPv4, with the addresses of [`TCP4`].
pub const UDP4: u8 = 0x12;
/// UDP over IPv6, with those of [`TCP6`].
pub const UDP6: u8 = 0x22;
/// A Unix datagram socket, with those of [`UNIX_STREAM`].
pub const UNIX_DATAGRAM: u8 = 0x32;
/// Longest header of version 1, its final CRLF included.
pub const TEXT_LENGTH_MAX: usize = 107;

/// What a header says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Source and destination of the connection; `None` = take the connection's own (LOCAL,
    /// UNKNOWN, UNSPEC, and families without addresses of ours). IPv4 addresses are never in their
    /// IPv6 form.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The fields behind the addresses (TLVs of version 2), as they came; those that concern only
    /// the hop they came over ([`tlv::CRC32C`], [`tlv::NOOP`]) are left out. `None` = there are
    /// none.
    pub tlvs: Option<Box<[u8]>>,
}
