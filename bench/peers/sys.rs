//! System calls of the bench: what nix wraps, with the arguments used here, and the few it does
//! not.
//!
//! The only file of the bench with unsafe code.

use std::io;
use std::mem;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::{Pid, getppid};

/// Moves the calling thread, and every child it starts from now on, to some CPUs.
pub(crate) fn pin(cpus: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Lets a process get a signal when the thread that starts it ends, however it ends: nothing that
/// the bench has started outlives it.
pub(crate) fn end_with_parent(command: &mut Command, signal: Signal) {
    let parent = Pid::this();
    let ask = move || {
        set_pdeathsig(signal)?;
        if getppid() != parent {
            // Too late: it was dead before it could be watched.
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls and neither allocates nor
    // locks.
    unsafe { command.pre_exec(ask) };
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on the first request to end is only noted; the second one ends the process.
pub(crate) fn catch_interrupts() -> nix::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(note_interrupt),
        SaFlags::SA_RESETHAND,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else, which is allowed at any
        // point of the program.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether somebody has asked this process to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Raises the descriptor limit to its hard value, and that to what is wanted if it may; returns it.
pub(crate) fn raise_descriptor_limit(wanted: u64) -> nix::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    for limit in [hard.max(wanted), hard] {
        if setrlimit(Resource::RLIMIT_NOFILE, limit, limit).is_ok() {
            return Ok(limit);
        }
    }
    Err(Errno::EPERM)
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

/// Sends what the socket has room for, which may be nothing.
pub(crate) fn send_some(stream: &impl AsRawFd, message: &[u8]) -> nix::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match send(stream.as_raw_fd(), message, flags) {
        Err(Errno::EAGAIN) => Ok(0),
        outcome => outcome,
    }
}
