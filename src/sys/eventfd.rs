//! A counter descriptor to wake another thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A non-blocking eventfd. Notifying costs one write(2); notifications merge.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// A new one, close-on-exec, with nothing pending.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd takes no pointers; the result is checked before use.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned by the kernel and nobody else owns it.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(EventFd(File::from(owned)))
    }

    /// Makes the descriptor readable. A full counter means that it already is.
    pub fn notify(&self) {
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Takes pending notifications; true if there were any.
    pub fn take(&self) -> bool {
        (&self.0).read(&mut [0u8; 8]).is_ok()
    }

    /// A second descriptor of the same event.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// For polls.
    pub fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
