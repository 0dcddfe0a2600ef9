//! System calls of the bench: what nix wraps, with the arguments used here, and the two it does
//! not.
//!
//! The only file of the bench with unsafe code.

use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;

/// Moves the calling thread, and every child it starts from now on, to one CPU.
pub(crate) fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Raises the descriptor limit to its hard value and returns it.
pub(crate) fn raise_descriptor_limit() -> nix::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Puts this process into a fresh network namespace with its loopback interface up.
///
/// Must run before the first thread is started: a namespace is a property of the thread.
pub(crate) fn enter_fresh_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is a plain C structure of integers and arrays; all zeroes is a valid value of
    // it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is an open socket, and SIOCSIFFLAGS reads one ifreq (interface name
    // and flags, both set above) from a pointer that is valid for the length of the call.
    let outcome =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(outcome)?;
    Ok(())
}

/// Gives the calling thread a realtime priority, or takes it away again.
pub(crate) fn set_realtime(on: bool) -> nix::Result<()> {
    let (policy, priority) = if on {
        (libc::SCHED_FIFO, 10)
    } else {
        (libc::SCHED_OTHER, 0)
    };
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: pid 0 names the calling thread, and the parameter block is read from a pointer that
    // is valid for the length of the call.
    let outcome = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    Errno::result(outcome).map(drop)
}

/// Receives what is there, without waiting.
pub(crate) fn receive(stream: &impl AsRawFd, buffer: &mut [u8]) -> nix::Result<usize> {
    recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)
}

/// Takes what is there, up to `buffer.len()` bytes, off a TCP socket and drops it in the kernel:
/// the buffer is not written, so that a sink costs next to nothing.
pub(crate) fn discard(stream: &TcpStream, buffer: &mut [u8]) -> nix::Result<usize> {
    recv(
        stream.as_raw_fd(),
        buffer,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC,
    )
}

/// Sends a whole small message, which must fit into the socket buffer.
pub(crate) fn send_whole(stream: &impl AsRawFd, message: &[u8]) -> io::Result<()> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let sent = send(stream.as_raw_fd(), message, flags)?;
    if sent != message.len() {
        return Err(io::Error::other("a small message was sent only in part"));
    }
    Ok(())
}
