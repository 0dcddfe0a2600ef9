//! What a datagram says of the server that it belongs to.
//!
//! Everything here reads bytes that anybody may have sent: each reader looks at a bounded part, in
//! time linear in it, and takes what it doesn't understand for a datagram without a key. Nothing is
//! kept, changed or decrypted.

pub mod krpc;
pub mod quic;
pub(super) mod quic_lb;
