//! The bulk source: the pattern over and over, by sendfile, one piece per stream and turn.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;

use super::{EVENTS, LISTENER};
use crate::load::bulk;

/// Bytes per sendfile call: small enough that eight streams take turns, large enough to be cheap.
const SENDFILE_BYTES: usize = 256 * 1024;

struct Stream {
    stream: TcpStream,
    /// The place in the pattern to send from.
    position: i64,
}

pub(super) fn stream_out(listener: &TcpListener) -> io::Result<()> {
    let pattern: OwnedFd = memfd_create("pattern", MFdFlags::MFD_CLOEXEC)?;
    let mut pattern = std::fs::File::from(pattern);
    pattern.write_all(&bulk::pattern())?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut open: Vec<Option<Stream>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            outcome => outcome?,
        };
        for event in &events[..count] {
            if event.data() == LISTENER {
                while let Some(stream) = super::accept(listener)? {
                    // sendfile has no flag for it; the receives of the other services have.
                    stream.set_nonblocking(true)?;
                    let index = stream.as_raw_fd() as usize;
                    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLOUT, index as u64))?;
                    if open.len() <= index {
                        open.resize_with(index + 1, || None);
                    }
                    open[index] = Some(Stream {
                        stream,
                        position: 0,
                    });
                }
                continue;
            }
            let slot = &mut open[event.data() as usize];
            let Some(Stream { stream, position }) = slot else {
                continue;
            };
            // Moves the position by what was sent.
            match sendfile(stream, &pattern, Some(position), SENDFILE_BYTES) {
                Ok(_) if *position >= bulk::PATTERN_BYTES as i64 => *position = 0,
                Ok(_) | Err(Errno::EAGAIN) => {}
                // Closing the only descriptor of the socket also takes it out of the wait.
                Err(_) => *slot = None,
            }
        }
    }
}
