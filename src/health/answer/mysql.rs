//! What a MySQL or MariaDB server says at the beginning of a connection, from the description of
//! the client/server protocol: packets of a three-byte length, a number and the payload.

use super::{Judgement, Passed, told};
use crate::config::plan::Ending;

/// Bytes before the payload.
const HEADER_BYTES: usize = 4;

/// Longest payload that a greeting or the answer to a login has; real ones have some 100 bytes.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// The first byte of a payload that tells of an error.
const ERROR: u8 = 0xff;

/// The server's greeting, in version 10 of the protocol or, from servers before 3.21.0, in 9.
pub(super) fn greeting(bytes: &[u8]) -> Judgement {
    let (payload, length) = match packet(bytes) {
        Ok(packet) => packet,
        Err(judgement) => return judgement,
    };
    match payload {
        [ERROR, rest @ ..] => error(rest),
        // A version as a text that ends by a NUL, and what follows from it.
        [9 | 10, rest @ ..] if rest.contains(&0) => Judgement::passed(length, None, ""),
        _ => Judgement::invalid("not a MySQL greeting"),
    }
}

/// What follows a login: OK, an error, or a question about the password.
pub(super) fn login(bytes: &[u8]) -> Judgement {
    let (payload, length) = match packet(bytes) {
        Ok(packet) => packet,
        Err(judgement) => return judgement,
    };
    match payload {
        [ERROR, rest @ ..] => error(rest),
        [0x00, ..] => Judgement::passed(length, None, ""),
        // It asks for another way to authenticate: it is well, and what is sent now would be taken
        // for a wrong password.
        [0x01 | 0xfe, ..] => Judgement::Passed(Passed {
            consumed: length,
            ending: Some(Ending::Close),
            ..Passed::default()
        }),
        _ => Judgement::invalid("not a MySQL answer"),
    }
}

/// The payload of the first packet, and the packet's length.
fn packet(bytes: &[u8]) -> Result<(&[u8], usize), Judgement> {
    let Some((&[low, middle, high, _number], rest)) = bytes.split_first_chunk() else {
        return Err(Judgement::More);
    };
    let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
    if !(1..=PAYLOAD_BYTES_MAX).contains(&length) {
        return Err(Judgement::invalid("not a MySQL packet"));
    }
    let payload = rest.get(..length).ok_or(Judgement::More)?;
    Ok((payload, HEADER_BYTES + length))
}

/// Code and text of an error; before the text there may be a SQL state.
fn error(rest: &[u8]) -> Judgement {
    let Some((&[low, high], text)) = rest.split_first_chunk() else {
        return Judgement::invalid("not a MySQL error");
    };
    let text = match text {
        [b'#', _, _, _, _, _, text @ ..] => text,
        text => text,
    };
    Judgement::refused(Some(u16::from_le_bytes([low, high])), told(text))
}
