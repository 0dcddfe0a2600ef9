//! System calls of the bench: what nix wraps, with the arguments used here, and the few it does
//! not.
//!
//! The only file of the bench with unsafe code.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
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

/// Datagrams that are received, or sent, by one call.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    slot_bytes: usize,
    lengths: Vec<usize>,
    /// Who sent, or who gets them.
    names: Vec<libc::sockaddr_in>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Batch {
    /// Room for `slots` datagrams of at most `slot_bytes`.
    pub(crate) fn new(slots: usize, slot_bytes: usize) -> Batch {
        // SAFETY: sockaddr_in is a plain C structure of integers; all zeroes is a valid value of
        // it.
        let name: libc::sockaddr_in = unsafe { mem::zeroed() };
        let vector = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: mmsghdr is a plain C structure of integers and pointers; all zeroes is a valid
        // value of it.
        let header: libc::mmsghdr = unsafe { mem::zeroed() };
        Batch {
            bytes: vec![0; slots * slot_bytes],
            slot_bytes,
            lengths: vec![0; slots],
            names: vec![name; slots],
            vectors: vec![vector; slots],
            headers: vec![header; slots],
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.lengths.len()
    }

    /// The bytes of a datagram.
    pub(crate) fn bytes(&self, slot: usize) -> &[u8] {
        &self.bytes[slot * self.slot_bytes..][..self.lengths[slot]]
    }

    pub(crate) fn bytes_mut(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes[slot * self.slot_bytes..][..self.lengths[slot]]
    }

    /// The other side of a datagram.
    pub(crate) fn name(&self, slot: usize) -> SocketAddrV4 {
        let name = &self.names[slot];
        let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
        SocketAddrV4::new(address, u16::from_be(name.sin_port))
    }

    /// Makes a slot a datagram of so many bytes to somebody; the bytes are for the caller to fill.
    pub(crate) fn set(&mut self, slot: usize, length: usize, to: SocketAddrV4) -> &mut [u8] {
        let name = &mut self.names[slot];
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = to.port().to_be();
        name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        self.lengths[slot] = length;
        self.bytes_mut(slot)
    }

    /// Points the headers to the slots, each with as much room as `room` says.
    fn prepare(&mut self, room: impl Fn(usize) -> usize) {
        let names = self.names.iter_mut();
        let slots = names.zip(self.bytes.chunks_exact_mut(self.slot_bytes));
        let pieces = self.vectors.iter_mut().zip(&mut self.headers);
        for (slot, ((name, bytes), (vector, header))) in slots.zip(pieces).enumerate() {
            vector.iov_base = bytes.as_mut_ptr().cast();
            vector.iov_len = room(slot).min(bytes.len());
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut *name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
        }
    }

    /// Receives what is there, without waiting; says how many slots are filled. None of them if
    /// nothing is there.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> nix::Result<usize> {
        let slot_bytes = self.slot_bytes;
        self.prepare(|_| slot_bytes);
        let count = self.headers.len() as libc::c_uint;
        let headers = self.headers.as_mut_ptr();
        let fd = socket.as_raw_fd();
        let now = std::ptr::null_mut();
        // SAFETY: the headers point to names, vectors and bytes of this structure, which nothing
        // else touches during the call; each vector has the length of its slot.
        let received = unsafe { libc::recvmmsg(fd, headers, count, libc::MSG_DONTWAIT, now) };
        let received = match Errno::result(received) {
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            outcome => outcome? as usize,
        };
        let headers = self.headers[..received].iter();
        for (length, header) in self.lengths.iter_mut().zip(headers) {
            *length = header.msg_len as usize;
        }
        Ok(received)
    }

    /// Sends the first `count` slots; says how many the socket took.
    pub(crate) fn send(&mut self, socket: &UdpSocket, count: usize) -> nix::Result<usize> {
        let lengths = mem::take(&mut self.lengths);
        self.prepare(|slot| lengths[slot]);
        self.lengths = lengths;
        let count = count.min(self.headers.len()) as libc::c_uint;
        let headers = self.headers.as_mut_ptr();
        let fd = socket.as_raw_fd();
        // SAFETY: the headers point to names, vectors and bytes of this structure, which nothing
        // else touches during the call; each vector has at most the length of its slot.
        let sent = unsafe { libc::sendmmsg(fd, headers, count, libc::MSG_DONTWAIT) };
        match Errno::result(sent) {
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => Ok(0),
            outcome => Ok(outcome? as usize),
        }
    }
}

/// Gives a socket as large a receive buffer as it may have.
pub(crate) fn enlarge_receive_buffer(socket: &UdpSocket, bytes: usize) -> nix::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes))
}

/// Lets the kernel cut what is sent into datagrams of so many bytes.
pub(crate) fn cut_sends(socket: &UdpSocket, bytes: i32) -> nix::Result<()> {
    setsockopt(socket, sockopt::UdpGsoSegment, &bytes)
}

/// Takes datagrams that came as a train in one piece.
pub(crate) fn join_receives(socket: &UdpSocket) -> nix::Result<()> {
    setsockopt(socket, sockopt::UdpGroSegment, &true)
}
