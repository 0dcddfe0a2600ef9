//! The place of a byte transform between receive and send (TLS, a header, compression): bytes in
//! then differ from bytes out in number, and counters and bounds keep the two apart.

/// Turns the bytes of one direction into others.
///
/// Output is bounded: at most [`EXPANSION`] bytes per input byte plus [`OVERHEAD`] per call, so
/// that memory can be reserved before the input is asked for.
pub trait Transform: std::fmt::Debug {
    /// Takes `input` and appends what comes of it to `output`; may keep some for later.
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>);

    /// The stream has ended: appends what was kept.
    fn finish(&mut self, output: &mut Vec<u8>);
}

/// Output bytes per input byte at most.
pub const EXPANSION: u32 = 2;
/// Output bytes per call beyond that at most.
pub const OVERHEAD: u32 = 512;
