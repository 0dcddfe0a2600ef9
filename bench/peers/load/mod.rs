//! Load generators: single-threaded event loops that count what they did.
//!
//! Each has `run_until(deadline)`, called once to warm up and once to measure, `reset()` between
//! the two, and `finish()`, which waits for what is still under way. The first error ends a
//! generator and voids the run: there are no retries to hide behind.

pub(crate) mod bulk;
pub(crate) mod connects;
pub(crate) mod datagrams;
pub(crate) mod exchange;
pub(crate) mod one_way;

use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};

use crate::sample::{Context, Sample, Void};

/// Bytes of a small message, both ways; every other one begins with such a message.
pub(crate) const MESSAGE_BYTES: usize = 64;

/// Bytes of the largest message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Where a message says how many bytes it has.
const LENGTH_AT: usize = 12;

/// Where a message longer than the small one repeats its number: a piece of the one before that
/// comes in its place is seen.
const STAMP_EVERY_BYTES: usize = 4096;

/// A generator that hears nothing for this long gives up: somebody lost a byte or a wake-up.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// How much longer it listens before it says so.
const SECOND_LOOK_MS: u16 = 250;

/// Latencies from a microsecond to a minute to three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 3).expect("the bounds are constants")
}

/// Writes the usual percentiles of a histogram of nanoseconds, in microseconds.
pub(crate) fn set_percentiles(sample: &mut Sample, latency: &Histogram<u64>) {
    for (name, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
        sample.set(name, latency.value_at_quantile(quantile) as f64 / 1e3);
    }
    sample.set("max_us", latency.max() as f64 / 1e3);
}

/// A connection that is open and has no delay on small messages.
pub(crate) fn connect(address: SocketAddr) -> Result<TcpStream, Void> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).context("connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A small message that no other connection or turn sends.
pub(crate) fn message(connection: u32, sequence: u64) -> [u8; MESSAGE_BYTES] {
    let mut message = [connection as u8 ^ 0x5a; MESSAGE_BYTES];
    message[..8].copy_from_slice(&sequence.to_le_bytes());
    message[8..LENGTH_AT].copy_from_slice(&connection.to_le_bytes());
    message[LENGTH_AT..][..4].copy_from_slice(&(MESSAGE_BYTES as u32).to_le_bytes());
    message
}

/// A message of `bytes`, the number still missing; `pattern` has what follows the small message.
pub(crate) fn long_message(connection: u32, bytes: usize, pattern: &[u8]) -> Vec<u8> {
    // Every connection has a piece of its own of the pattern, as far as it goes.
    let begin = connection as usize * 997 % (pattern.len() - bytes);
    let mut long = pattern[begin..begin + bytes].to_vec();
    long[..MESSAGE_BYTES].copy_from_slice(&message(connection, 0));
    long[LENGTH_AT..][..4].copy_from_slice(&(bytes as u32).to_le_bytes());
    long
}

/// Gives a message its number.
pub(crate) fn stamp(message: &mut [u8], sequence: u64) {
    for piece in message.chunks_mut(STAMP_EVERY_BYTES) {
        piece[..8].copy_from_slice(&sequence.to_le_bytes());
    }
}

/// How many bytes a message has, by what it says itself.
pub(crate) fn message_bytes(begin: &[u8]) -> usize {
    let field = begin[LENGTH_AT..].first_chunk().copied();
    field.map_or(0, |field| u32::from_le_bytes(field) as usize)
}

/// The number of a message; `None` if it is shorter than a small one.
pub(crate) fn message_sequence(message: &[u8]) -> Option<u64> {
    let whole = message.len() >= MESSAGE_BYTES;
    let field = message.first_chunk().copied();
    field.filter(|_| whole).map(u64::from_le_bytes)
}

/// Whose a message is.
pub(crate) fn message_connection(begin: &[u8]) -> u32 {
    let field = begin[8..].first_chunk().copied();
    field.map_or(0, u32::from_le_bytes)
}

/// Waits for events, at most until the deadline; an empty slice means that it has come.
fn wait<'e>(
    epoll: &Epoll,
    events: &'e mut [EpollEvent],
    deadline: Instant,
) -> Result<&'e [EpollEvent], Void> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(&[]);
    }
    let bound = left.min(SILENCE_MAX);
    // Rounded up, so that the last wait does not turn into a spin.
    let timeout = EpollTimeout::try_from(bound + Duration::from_millis(1)).context("wait")?;
    let mut outcome = epoll.wait(events, timeout);
    if bound == SILENCE_MAX && outcome == Ok(0) {
        // A machine that was frozen meanwhile wakes up with this timer expired and everything else
        // still to happen: silence counts only if it goes on.
        outcome = epoll.wait(events, SECOND_LOOK_MS);
    }
    match outcome {
        Ok(0) if bound == SILENCE_MAX => {
            let seconds = SILENCE_MAX.as_secs();
            Err(Void(format!("no progress for {seconds} s")))
        }
        Ok(count) => Ok(&events[..count]),
        Err(Errno::EINTR) => Ok(&[]),
        Err(errno) => Err(errno.into()),
    }
}
