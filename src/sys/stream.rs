//! The stream-socket calls of the data path. Each is one non-blocking system call.

use std::io::{self, IoSlice};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::base::address::Address;

/// A descriptor borrowed for one call.
fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the shard owns `fd` and closes it only after its last use; the borrow ends with the
    // call it is made for.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// The operating system's error number of an `io::Error`.
fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Options of a connecting socket; 0 = leave as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    /// SO_RCVBUF, bytes.
    pub receive_buffer: u32,
    /// SO_SNDBUF, bytes.
    pub send_buffer: u32,
    /// SO_KEEPALIVE.
    pub keepalive: bool,
    /// TCP_KEEPIDLE, seconds.
    pub keepalive_idle_s: u32,
    /// TCP_KEEPINTVL, seconds.
    pub keepalive_interval_s: u32,
    /// TCP_KEEPCNT.
    pub keepalive_count: u32,
    /// TCP_USER_TIMEOUT, milliseconds.
    pub user_timeout_ms: u32,
}

/// Makes a non-blocking socket and starts connecting it; true = connected already.
pub fn connect(to: &Address, options: &StreamOptions) -> Result<(RawFd, bool), i32> {
    let (domain, protocol, address) = match to {
        Address::Ip(ip) => (
            Domain::for_address(*ip),
            Some(Protocol::TCP),
            SockAddr::from(*ip),
        ),
        Address::Unix(path) => (
            Domain::UNIX,
            None,
            SockAddr::unix(path).map_err(|_| libc::EINVAL)?,
        ),
        Address::Abstract(name) => (
            Domain::UNIX,
            None,
            super::socket::abstract_address(name).map_err(|_| libc::EINVAL)?,
        ),
    };
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(domain, kind, protocol).map_err(|e| number(&e))?;
    // An option the kernel refuses (a value out of its bounds) must not cost the connection.
    if matches!(to, Address::Ip(_)) {
        let _ = socket.set_tcp_nodelay(true);
        if options.keepalive {
            let _ = set_keepalive(&socket, options);
        }
        if options.user_timeout_ms > 0 {
            let timeout = std::time::Duration::from_millis(u64::from(options.user_timeout_ms));
            let _ = socket.set_tcp_user_timeout(Some(timeout));
        }
    }
    if options.receive_buffer > 0 {
        let _ = socket.set_recv_buffer_size(options.receive_buffer as usize);
    }
    if options.send_buffer > 0 {
        let _ = socket.set_send_buffer_size(options.send_buffer as usize);
    }
    match socket.connect(&address) {
        Ok(()) => Ok((socket.into_raw_fd(), true)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            Ok((socket.into_raw_fd(), false))
        }
        Err(error) => Err(number(&error)),
    }
}

fn set_keepalive(socket: &Socket, options: &StreamOptions) -> io::Result<()> {
    let seconds = |s: u32| std::time::Duration::from_secs(u64::from(s));
    let mut keepalive = TcpKeepalive::new();
    if options.keepalive_idle_s > 0 {
        keepalive = keepalive.with_time(seconds(options.keepalive_idle_s));
    }
    if options.keepalive_interval_s > 0 {
        keepalive = keepalive.with_interval(seconds(options.keepalive_interval_s));
    }
    if options.keepalive_count > 0 {
        keepalive = keepalive.with_retries(options.keepalive_count);
    }
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Sends without blocking and without SIGPIPE.
pub fn send(fd: RawFd, parts: &[IoSlice<'_>]) -> Result<usize, i32> {
    // SAFETY: an all-zero msghdr is a valid empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // IoSlice has the layout of iovec (its documentation guarantees it); sendmsg only reads through
    // it.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `message` points to `parts`, alive for the call; nothing is written through it.
    let sent = unsafe { libc::sendmsg(fd, &raw const message, flags) };
    usize::try_from(sent).map_err(|_| number(&io::Error::last_os_error()))
}

/// Sends a FIN.
pub fn shutdown_write(fd: RawFd) -> Result<(), i32> {
    let fd = borrow(fd);
    SockRef::from(&fd)
        .shutdown(std::net::Shutdown::Write)
        .map_err(|e| number(&e))
}

/// Takes the pending error off a socket.
pub fn take_error(fd: RawFd) -> Option<i32> {
    let fd = borrow(fd);
    match SockRef::from(&fd).take_error() {
        Ok(pending) => pending.map(|e| number(&e)),
        Err(error) => Some(number(&error)),
    }
}

/// Bytes not yet acknowledged by the peer; 0 where the kernel can't say.
pub fn unacknowledged(fd: RawFd) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (tcp(7)) writes one int.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut count) };
    if result == 0 {
        usize::try_from(count).unwrap_or(0)
    } else {
        0
    }
}

/// Closes a descriptor.
pub fn close(fd: RawFd) {
    // SAFETY: the shard owns `fd` and forgets it here.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Closes a socket by a reset (SO_LINGER with zero time, socket(7)).
pub fn close_with_reset(fd: RawFd) {
    let _ = SockRef::from(&borrow(fd)).set_linger(Some(std::time::Duration::ZERO));
    close(fd);
}

/// Address of the peer.
pub fn peer_address(fd: RawFd) -> Option<SocketAddr> {
    let fd = borrow(fd);
    unmapped(SockRef::from(&fd).peer_addr().ok()?.as_socket()?)
}

/// Address the socket is bound to.
pub fn local_address(fd: RawFd) -> Option<SocketAddr> {
    let fd = borrow(fd);
    unmapped(SockRef::from(&fd).local_addr().ok()?.as_socket()?)
}

/// IPv4 addresses that a dual-stack socket shows as `::ffff:a.b.c.d`, as IPv4.
fn unmapped(address: SocketAddr) -> Option<SocketAddr> {
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// Accepts one connection without waiting.
pub fn accept_now(listener: RawFd) -> Result<RawFd, i32> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null address pointers are allowed: the peer's address is not asked for.
    let fd = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    if fd < 0 {
        Err(number(&io::Error::last_os_error()))
    } else {
        Ok(fd)
    }
}

/// Reads an eventfd empty; true if there was anything.
pub fn drain_eventfd(fd: RawFd) -> bool {
    let mut value = [0u8; 8];
    // SAFETY: eventfd(2) writes 8 bytes into `value`.
    let result = unsafe { libc::read(fd, value.as_mut_ptr().cast(), value.len()) };
    result > 0
}

/// Nanoseconds of CLOCK_MONOTONIC, clock_gettime(2).
pub fn monotonic_ns() -> u64 {
    // SAFETY: an all-zero timespec is a valid value to be overwritten.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
