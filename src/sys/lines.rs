//! Writing to standard output, standard error and inherited descriptors without ever blocking, and
//! waiting for several descriptors at once.
//!
//! O_NONBLOCK can't simply be set on a standard descriptor: the flag belongs to the open file
//! description, which the shell or another program shares. The file is opened anew through
//! `/proc/self/fd`, which gives a description of our own for pipes, terminals and files. A socket
//! can't be opened that way but takes MSG_DONTWAIT. What can't be opened for lack of rights is
//! written only after a poll said that there is room (a pipe then takes PIPE_BUF bytes).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// Longest piece a pipe takes whole once it polls writable.
const PIPE_BUF: usize = 4096;

/// A descriptor for lines of text that is never waited for.
#[derive(Debug)]
pub enum LineStream {
    /// Opened anew, non-blocking.
    Own(File),
    /// A socket.
    Socket(OwnedFd),
    /// Shared with others: polled before each write.
    Shared(File),
}

impl LineStream {
    /// A stream to what `number` is open on.
    pub fn open(number: RawFd) -> io::Result<LineStream> {
        let path = format!("/proc/self/fd/{number}");
        let own = OpenOptions::new()
            .append(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&path);
        if let Ok(file) = own {
            return Ok(LineStream::Own(file));
        }
        // SAFETY: fcntl with F_DUPFD_CLOEXEC takes no pointers; the result is checked before use.
        let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `copy` was just returned by the kernel and nobody else owns it.
        let owned = unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) };
        let owned: OwnedFd = owned;
        if socket2::SockRef::from(&owned).r#type().is_ok() {
            return Ok(LineStream::Socket(owned));
        }
        Ok(LineStream::Shared(File::from(owned)))
    }

    /// Writes what fits of `pieces` now; `WouldBlock` if nothing does.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            LineStream::Own(file) => (&*file).write_vectored(pieces),
            LineStream::Socket(socket) => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                socket2::SockRef::from(socket).send_vectored_with_flags(pieces, flags)
            }
            LineStream::Shared(file) => {
                if !is_writable(file.as_fd()) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let first = pieces.first().map_or(&[][..], |piece| piece);
                (&*file).write(&first[..first.len().min(PIPE_BUF)])
            }
        }
    }

    /// For polls.
    pub fn raw(&self) -> RawFd {
        match self {
            LineStream::Own(file) | LineStream::Shared(file) => file.as_raw_fd(),
            LineStream::Socket(socket) => socket.as_raw_fd(),
        }
    }
}

fn is_writable(descriptor: BorrowedFd<'_>) -> bool {
    let mut wanted = [PollItem {
        descriptor: descriptor.as_raw_fd(),
        write: true,
        ready: false,
    }];
    poll(&mut wanted, 0);
    wanted[0].ready
}

/// One descriptor of a [`poll`].
#[derive(Clone, Copy, Debug)]
pub struct PollItem {
    /// The descriptor.
    pub descriptor: RawFd,
    /// Wait until it is writable (else readable).
    pub write: bool,
    /// Whether it is, or is broken: the next call on it will not block.
    pub ready: bool,
}

/// Waits up to `timeout_ms` (negative = for ever) until one of the descriptors is ready.
pub fn poll(items: &mut [PollItem], timeout_ms: i32) {
    let mut set: Vec<libc::pollfd> = items
        .iter()
        .map(|item| libc::pollfd {
            fd: item.descriptor,
            events: if item.write {
                libc::POLLOUT
            } else {
                libc::POLLIN
            },
            revents: 0,
        })
        .collect();
    // SAFETY: `set` is a valid array of as many pollfd as the second argument says, for the whole
    // call.
    let _ = unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout_ms) };
    for (item, result) in items.iter_mut().zip(&set) {
        item.ready = result.revents != 0;
    }
}
