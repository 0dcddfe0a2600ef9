//! Bulk downloads: cheap end points, so that the balancer is what is measured.
//!
//! The source sends a file from memory by sendfile; the sink drops bytes inside the kernel. One
//! receive in 64 is copied out and compared with the pattern at that place of the stream, so that
//! lost, doubled or reordered bytes anywhere before it are seen.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::{SILENCE_MAX, connect, wait};
use crate::sample::{Context, Void};
use crate::sys;

/// Length of the pattern: a prime number of pages (about 1 MB), so that no buffer or pipe size
/// divides it and a piece that was skipped or sent twice shifts what follows.
pub(crate) const PATTERN_BYTES: usize = 251 * 4096;

/// Receives of which one is looked at.
const CHECK_EVERY: u64 = 64;

/// Bytes per receive: more than a socket buffer usually holds on loopback.
const RECEIVE_BYTES: usize = 1024 * 1024;

/// How often it is looked whether all streams have moved.
const FINISH_STEP: Duration = Duration::from_millis(5);

/// What the source sends over and over: the numbers of a fixed generator (splitmix64).
pub(crate) fn pattern() -> Vec<u8> {
    let mut state = 0u64;
    let mut pattern = Vec::with_capacity(PATTERN_BYTES);
    while pattern.len() < PATTERN_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        pattern.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    pattern
}

struct Stream {
    stream: TcpStream,
    /// Bytes since the stream began, for its place in the pattern.
    position: u64,
    /// Bytes since the last reset.
    counted: u64,
}

/// A number of downloads at once.
pub(crate) struct Bulk {
    epoll: Epoll,
    streams: Vec<Stream>,
    pattern: Vec<u8>,
    buffer: Vec<u8>,
    receives: u64,
    /// Whether every receive is looked at.
    check_all: bool,
}

impl Bulk {
    pub(crate) fn open(address: SocketAddr, count: u32) -> Result<Bulk, Void> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut streams = Vec::new();
        for index in 0..count {
            let stream = connect(address)?;
            epoll.add(
                &stream,
                EpollEvent::new(EpollFlags::EPOLLIN, u64::from(index)),
            )?;
            streams.push(Stream {
                stream,
                position: 0,
                counted: 0,
            });
        }
        Ok(Bulk {
            epoll,
            streams,
            pattern: pattern(),
            buffer: vec![0; RECEIVE_BYTES],
            receives: 0,
            check_all: false,
        })
    }

    pub(crate) fn reset(&mut self) {
        for stream in &mut self.streams {
            stream.counted = 0;
        }
    }

    pub(crate) fn run_until(&mut self, deadline: Instant) -> Result<(), Void> {
        let mut events = [EpollEvent::empty(); 64];
        while Instant::now() < deadline {
            for event in wait(&self.epoll, &mut events, deadline)? {
                self.take(event.data() as usize)?;
            }
        }
        Ok(())
    }

    /// Runs on until every stream has moved again, with right bytes: one that stands still for good
    /// is an error.
    pub(crate) fn finish(&mut self) -> Result<(), Void> {
        let deadline = Instant::now() + SILENCE_MAX;
        self.reset();
        self.check_all = true;
        loop {
            let still = self.streams.iter().filter(|one| one.counted == 0).count();
            if still == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Void(format!("{still} bulk streams stand still")));
            }
            let step = deadline.min(Instant::now() + FINISH_STEP);
            self.run_until(step)?;
        }
    }

    /// Bytes of all streams since the reset.
    pub(crate) fn bytes(&self) -> u64 {
        self.streams.iter().map(|stream| stream.counted).sum()
    }

    /// The least and the greatest part of the bytes that one stream has had.
    pub(crate) fn shares(&self) -> (f64, f64) {
        let all = self.bytes().max(1) as f64;
        let parts = self
            .streams
            .iter()
            .map(|stream| stream.counted as f64 / all);
        parts.fold((1.0, 0.0), |(least, most), part| {
            (part.min(least), part.max(most))
        })
    }

    fn take(&mut self, index: usize) -> Result<(), Void> {
        let stream = &mut self.streams[index];
        self.receives += 1;
        let checked = self.check_all || self.receives.is_multiple_of(CHECK_EVERY);
        let outcome = if checked {
            sys::receive(&stream.stream, &mut self.buffer)
        } else {
            sys::discard(&stream.stream, &mut self.buffer)
        };
        let received = match outcome {
            Ok(0) => return Err(Void("a bulk stream was closed".to_owned())),
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(errno).context("receive bulk"),
        };
        if checked && !matches_pattern(&self.pattern, stream.position, &self.buffer[..received]) {
            return Err(Void(format!(
                "bulk bytes differ from byte {} of the stream on",
                stream.position
            )));
        }
        stream.position += received as u64;
        stream.counted += received as u64;
        Ok(())
    }
}

fn matches_pattern(pattern: &[u8], position: u64, mut received: &[u8]) -> bool {
    let mut start = (position % PATTERN_BYTES as u64) as usize;
    while !received.is_empty() {
        let length = received.len().min(PATTERN_BYTES - start);
        let (piece, rest) = received.split_at(length);
        if piece != &pattern[start..start + length] {
            return false;
        }
        received = rest;
        start = 0;
    }
    true
}
