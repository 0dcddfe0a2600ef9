//! The answer to a hello of TLS, RFC 5246 section 6.2.1: any handshake message or alert shows that
//! the server speaks it.

use super::{Judgement, Passed};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// Bytes of a record's head: type, version, length.
const HEAD_BYTES: usize = 5;

pub(super) fn judge(bytes: &[u8]) -> Judgement {
    match bytes {
        [] => Judgement::More,
        [ALERT | HANDSHAKE] => Judgement::More,
        [ALERT | HANDSHAKE, 3, ..] if bytes.len() < HEAD_BYTES => Judgement::More,
        [ALERT | HANDSHAKE, 3, ..] => Judgement::Passed(Passed::default()),
        _ => Judgement::invalid("not a TLS record"),
    }
}
