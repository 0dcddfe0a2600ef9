//! Seeded byte streams that can be written and checked without generating them.
//!
//! A stream is a window of one fixed table of pseudo-random bytes, starting at a place that the
//! seed says and wrapping at a prime length. Every received byte is compared with the one that
//! belongs there, which finds loss, duplication, reordering and mixing of streams; the count finds
//! truncation.

use std::io::{self, Read, Write};
use std::sync::OnceLock;

/// Length after which a stream repeats: the largest prime below 1 MiB, so that no block size of the
/// balancer divides it.
const PERIOD: usize = 1_048_573;
/// Longest slice that is handed out.
const SLICE_MAX: usize = 256 * 1024;

static TABLE: OnceLock<Vec<u8>> = OnceLock::new();

fn table() -> &'static [u8] {
    TABLE.get_or_init(|| {
        let mut bytes = Vec::with_capacity(PERIOD + SLICE_MAX);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while bytes.len() < PERIOD {
            // xorshift64, the top byte being the best mixed one.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.push(state.to_be_bytes()[0]);
        }
        bytes.extend_from_within(..SLICE_MAX);
        bytes
    })
}

/// The bytes of stream `seed` from `position` on: at most `length` of them, at least one.
pub(crate) fn slice(seed: u64, position: u64, length: u64) -> &'static [u8] {
    let period = PERIOD as u64;
    let start = (seed.wrapping_mul(0x2545_f491_4f6c_dd1d) % period + position % period) % period;
    let start = usize::try_from(start).expect("below the period");
    let length = usize::try_from(length.min(SLICE_MAX as u64)).expect("below the slice bound");
    &table()[start..start + length]
}

/// Writes `length` bytes of stream `seed`.
pub(crate) fn send(to: &mut impl Write, seed: u64, length: u64) -> io::Result<()> {
    let mut position = 0;
    while position < length {
        let piece = slice(seed, position, length - position);
        to.write_all(piece)?;
        position += piece.len() as u64;
    }
    Ok(())
}

/// Compares received bytes with a stream, piece by piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checker {
    seed: u64,
    /// Bytes that were right so far.
    pub(crate) position: u64,
}

impl Checker {
    /// At the beginning of stream `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Checker { seed, position: 0 }
    }

    /// Takes the next bytes; says where the first wrong one is.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let expected = slice(self.seed, self.position, bytes.len() as u64);
            let (head, rest) = bytes.split_at(expected.len());
            if head != expected {
                let at = head
                    .iter()
                    .zip(expected)
                    .take_while(|(a, b)| a == b)
                    .count() as u64;
                return Err(format!(
                    "wrong byte at {} of stream {}",
                    self.position + at,
                    self.seed
                ));
            }
            self.position += head.len() as u64;
            bytes = rest;
        }
        Ok(())
    }
}

/// Reads exactly `length` bytes and compares them with stream `seed`.
pub(crate) fn receive(from: &mut impl Read, seed: u64, length: u64) -> Result<(), String> {
    let mut buffer = vec![0; SLICE_MAX];
    let mut checker = Checker::new(seed);
    while checker.position < length {
        let want = usize::try_from((length - checker.position).min(SLICE_MAX as u64)).unwrap_or(1);
        match from.read(&mut buffer[..want]) {
            Ok(0) => return Err(format!("ended at {} of {length} bytes", checker.position)),
            Ok(count) => checker.take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(format!("{error} at {} of {length} bytes", checker.position));
            }
        }
    }
    Ok(())
}

/// Reads to the end of the stream; `Ok` with the number of bytes after a FIN.
pub(crate) fn receive_to_end(from: &mut impl Read, seed: u64) -> Result<u64, String> {
    let mut buffer = vec![0; SLICE_MAX];
    let mut checker = Checker::new(seed);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(checker.position),
            Ok(count) => checker.take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("{error} after {} bytes", checker.position)),
        }
    }
}
