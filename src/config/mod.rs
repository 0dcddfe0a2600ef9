//! From text to an immutable plan: `text -> Raw (words with places) -> Plan (resolved, validated)`.
//!
//! Nothing outside this layer sees `Raw`. Nothing in it opens a socket, reads a clock or knows a ring;
//! files are read and names resolved through what the caller passes in.

pub mod plan;
