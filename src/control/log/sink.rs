//! A log target: where lines go, and the bounded backlog of those it doesn't take yet.
//!
//! No call here blocks. A Unix datagram socket whose reader is behind (its queue is short: 10 to
//! 512 datagrams) makes lines wait in the backlog, so a live but busy syslog loses nothing; a UDP
//! target takes so many lines per millisecond, because a receiver's full buffer drops without a
//! word.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::base::time::Moment;
use crate::config::plan::LogSink;
use crate::limits;
use crate::sys::lines::LineStream;

/// Between two attempts to connect to a Unix socket that isn't there.
const RECONNECT_MS: u64 = 200;

#[derive(Debug)]
enum Kind {
    Udp {
        socket: UdpSocket,
        burst_left: usize,
        paid_at: Moment,
    },
    Unix {
        path: PathBuf,
        socket: Option<UnixDatagram>,
        retry_at: Moment,
    },
    Stream(LineStream),
    /// A target that can't be reached at all: every line is dropped.
    Nowhere,
}

/// What became of a line.
enum Sent {
    Yes,
    /// Not now: the target is full.
    Blocked,
    /// Never: the line is lost.
    Lost,
}

/// One target with its backlog.
#[derive(Debug)]
pub(super) struct Sink {
    kind: Kind,
    pending: VecDeque<Vec<u8>>,
    /// Emptied lines kept for reuse.
    spare: Vec<Vec<u8>>,
    /// Bytes of the oldest line that are already written (streams).
    written: usize,
    blocked: bool,
    sent: u64,
    dropped: u64,
}

impl Sink {
    /// Opens a target. One that can't be opened drops its lines and counts them.
    pub(super) fn open(sink: &LogSink, standard: bool) -> Sink {
        let stream = |number| LineStream::open(number).map_or(Kind::Nowhere, Kind::Stream);
        let kind = match sink {
            LogSink::Udp(address) => open_udp(address).map_or(Kind::Nowhere, |socket| Kind::Udp {
                socket,
                burst_left: 0,
                paid_at: Moment(0),
            }),
            LogSink::UnixDatagram(path) => Kind::Unix {
                path: path.clone(),
                socket: None,
                retry_at: Moment(0),
            },
            LogSink::Stdout if standard => stream(1),
            LogSink::Stderr if standard => stream(2),
            LogSink::Stdout | LogSink::Stderr => Kind::Nowhere,
            LogSink::Descriptor(number) => stream(*number),
        };
        Sink {
            kind,
            pending: VecDeque::new(),
            spare: Vec::new(),
            written: 0,
            blocked: false,
            sent: 0,
            dropped: 0,
        }
    }

    /// Adds a line to the backlog; a full backlog drops it.
    pub(super) fn push(&mut self, line: &[u8]) {
        if self.pending.len() >= limits::LOG_LINES_PENDING_MAX || matches!(self.kind, Kind::Nowhere)
        {
            self.dropped += 1;
            return;
        }
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(line);
        if matches!(self.kind, Kind::Stream(_)) {
            copy.push(b'\n');
        }
        self.pending.push_back(copy);
    }

    /// Sends what the target takes now.
    pub(super) fn flush(&mut self, now: Moment) {
        self.blocked = false;
        while !self.pending.is_empty() && !self.blocked {
            let sent = match &mut self.kind {
                Kind::Stream(_) => {
                    self.flush_stream();
                    continue;
                }
                Kind::Udp {
                    socket,
                    burst_left,
                    paid_at,
                } => {
                    let earned = now.us_since(*paid_at) * limits::LOG_UDP_LINES_PER_MS / 1000;
                    if let Ok(earned @ 1..) = usize::try_from(earned) {
                        *paid_at = now;
                        *burst_left = (*burst_left + earned).min(limits::LOG_UDP_BURST_MAX);
                    }
                    if *burst_left == 0 {
                        return;
                    }
                    *burst_left -= 1;
                    send_udp(socket, &self.pending[0])
                }
                Kind::Unix {
                    path,
                    socket,
                    retry_at,
                } => {
                    if socket.is_none() && now >= *retry_at {
                        *socket = open_unix(path).ok();
                        *retry_at = now.after_ms(RECONNECT_MS);
                    }
                    let Some(open) = socket else { return };
                    match open.send(&self.pending[0]) {
                        Ok(_) => Sent::Yes,
                        Err(error) => match error.kind() {
                            io::ErrorKind::WouldBlock => Sent::Blocked,
                            io::ErrorKind::Interrupted => continue,
                            _ if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => Sent::Lost,
                            // The reader went away: keep the line and look for a new one.
                            _ => {
                                *socket = None;
                                continue;
                            }
                        },
                    }
                }
                Kind::Nowhere => Sent::Lost,
            };
            match sent {
                Sent::Yes => self.finish_line(true),
                Sent::Lost => self.finish_line(false),
                Sent::Blocked => self.blocked = true,
            }
        }
    }

    fn flush_stream(&mut self) {
        let Kind::Stream(stream) = &self.kind else {
            return;
        };
        let pieces: Vec<IoSlice<'_>> = self
            .pending
            .iter()
            .take(limits::LOG_WRITE_LINES_MAX)
            .enumerate()
            .map(|(index, line)| {
                IoSlice::new(if index == 0 {
                    &line[self.written..]
                } else {
                    line
                })
            })
            .collect();
        match stream.write(&pieces) {
            Ok(written) => self.stream_written(written),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => self.blocked = true,
                io::ErrorKind::Interrupted => {}
                // The reader closed the pipe, or the disk is full.
                _ => self.finish_line(false),
            },
        }
    }

    fn stream_written(&mut self, mut written: usize) {
        if written == 0 {
            self.blocked = true;
        }
        while written > 0 {
            let Some(front) = self.pending.front() else {
                return;
            };
            let left = front.len() - self.written;
            if written < left {
                self.written += written;
                return;
            }
            written -= left;
            self.finish_line(true);
        }
    }

    fn finish_line(&mut self, was_sent: bool) {
        self.written = 0;
        if let Some(line) = self.pending.pop_front()
            && self.spare.len() < limits::LOG_TURN_RECORDS_MAX
        {
            self.spare.push(line);
        }
        if was_sent {
            self.sent += 1;
        } else {
            self.dropped += 1;
        }
    }

    /// Lines sent and dropped since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.sent),
            std::mem::take(&mut self.dropped),
        )
    }

    /// Whether lines wait.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether it takes lines, but slower than they came: more would be dropped without need.
    pub(super) fn wants_pause(&self) -> bool {
        let room = limits::LOG_LINES_PENDING_MAX - self.pending.len();
        matches!(self.kind, Kind::Udp { .. }) && room < limits::LOG_TURN_RECORDS_MAX
    }

    /// The descriptor whose writability it waits for.
    pub(super) fn waits_for(&self) -> Option<RawFd> {
        if !self.blocked {
            return None;
        }
        match &self.kind {
            Kind::Udp { socket, .. } => Some(socket.as_raw_fd()),
            Kind::Unix { socket, .. } => socket.as_ref().map(|socket| socket.as_raw_fd()),
            Kind::Stream(stream) => Some(stream.raw()),
            Kind::Nowhere => None,
        }
    }

    /// When to try again although no descriptor says so.
    pub(super) fn retry_in_ms(&self) -> Option<i32> {
        if self.pending.is_empty() || self.blocked {
            return None;
        }
        match &self.kind {
            Kind::Udp { .. } => Some(1),
            Kind::Unix { .. } => Some(i32::try_from(RECONNECT_MS).unwrap_or(i32::MAX)),
            Kind::Stream(_) | Kind::Nowhere => None,
        }
    }
}

fn open_udp(address: &std::net::SocketAddr) -> io::Result<UdpSocket> {
    let any: std::net::SocketAddr = if address.is_ipv4() {
        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}

fn open_unix(path: &PathBuf) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

fn send_udp(socket: &UdpSocket, line: &[u8]) -> Sent {
    for _ in 0..2 {
        match socket.send(line) {
            Ok(_) => return Sent::Yes,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Sent::Blocked,
                // The answer to an earlier line (port unreachable): this one has not been sent yet.
                io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted => {}
                _ => return Sent::Lost,
            },
        }
    }
    Sent::Lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_whose_reader_is_behind_loses_nothing() {
        let path = std::env::temp_dir().join(format!("tidegate-log-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let mut sink = Sink::open(&LogSink::UnixDatagram(path.clone()), true);
        sink.push(b"early");
        sink.flush(Moment(1));
        assert!(sink.has_pending(), "nobody listens yet");
        let reader = UnixDatagram::bind(&path).unwrap();
        reader.set_nonblocking(true).unwrap();
        for _ in 0..2000 {
            sink.push(b"line");
        }
        let mut received = 0;
        for turn in 1..10_000u64 {
            sink.flush(Moment(0).after_ms(turn * 300));
            while reader.recv(&mut [0; 64]).is_ok() {
                received += 1;
            }
            if !sink.has_pending() {
                break;
            }
        }
        assert_eq!(received, 2001);
        assert_eq!(sink.take_counts(), (2001, 0));
        let _ = std::fs::remove_file(&path);
    }

    #[test]
    fn a_full_backlog_drops_and_counts() {
        let mut sink = Sink::open(&LogSink::UnixDatagram("/nonexistent/socket".into()), true);
        for _ in 0..limits::LOG_LINES_PENDING_MAX + 5 {
            sink.push(b"line");
        }
        sink.flush(Moment(1));
        assert_eq!(sink.take_counts(), (0, 5));
    }

    #[test]
    fn a_udp_target_gets_bounded_bursts() {
        let reader = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut sink = Sink::open(&LogSink::Udp(reader.local_addr().unwrap()), true);
        for _ in 0..limits::LOG_UDP_BURST_MAX * 2 {
            sink.push(b"line");
        }
        sink.flush(Moment(0).after_ms(10));
        assert_eq!(sink.take_counts().0, limits::LOG_UDP_BURST_MAX as u64);
        assert_eq!(sink.retry_in_ms(), Some(1));
        sink.flush(Moment(0).after_ms(11));
        assert_eq!(sink.take_counts().0, limits::LOG_UDP_LINES_PER_MS);
    }
}
