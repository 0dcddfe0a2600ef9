//! The stream-socket calls of the data path. Each is one non-blocking system call.

use std::io::{self, IoSlice};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::base::address::Address;
use crate::base::source::{Foreign, ShortName, Source};

/// A descriptor borrowed for one call.
pub(super) fn borrow(fd: RawFd) -> BorrowedFd<'static> {
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
    /// TCP_QUICKACK off: the handshake's last ACK leaves with the first data.
    pub late_ack: bool,
    /// TCP_CONGESTION.
    pub congestion: Option<ShortName>,
    /// SO_REUSEADDR: who asks for its port by bind(2), with the same option, may have it as soon as
    /// the connection has ended.
    pub reuse_address: bool,
    /// What to bind to before the connect; of a range, its lowest port.
    pub source: Option<Source>,
}

/// Makes a non-blocking socket and starts connecting it; true = connected already.
pub fn connect(to: &Address, options: &StreamOptions) -> Result<(RawFd, bool), i32> {
    connect_socket(to, options).map(|(socket, connected)| (socket.into_raw_fd(), connected))
}

/// The same with an owned socket.
pub fn connect_socket(to: &Address, options: &StreamOptions) -> Result<(Socket, bool), i32> {
    let ip = match to {
        Address::Ip(ip) => ip,
        Address::Unix(path) => return start_unix(SockAddr::unix(path), options),
        Address::Abstract(name) => {
            return start_unix(super::socket::abstract_address(name), options);
        }
    };
    let socket = open_tcp(ip, options)?;
    if let Some(source) = &options.source {
        bind_source(&socket, source, ip)?;
    }
    start(socket, &SockAddr::from(*ip))
}

/// Whether a connect failed because its source's port is in use: bound by somebody, or the pair of
/// addresses and ports is connected already, or was lately.
pub fn is_port_taken(errno: i32) -> bool {
    matches!(errno, libc::EADDRINUSE | libc::EADDRNOTAVAIL)
}

fn start_unix(
    address: io::Result<SockAddr>,
    options: &StreamOptions,
) -> Result<(Socket, bool), i32> {
    let address = address.map_err(|_| libc::EINVAL)?;
    let socket = open(Domain::UNIX, None)?;
    set_buffers(&socket, options);
    start(socket, &address)
}

fn open(domain: Domain, protocol: Option<Protocol>) -> Result<Socket, i32> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new_raw(domain, kind, protocol).map_err(|e| number(&e))
}

/// A TCP socket with its options. An option the kernel refuses (a value out of its bounds) must not
/// cost the connection.
fn open_tcp(to: &SocketAddr, options: &StreamOptions) -> Result<Socket, i32> {
    let socket = open(Domain::for_address(*to), Some(Protocol::TCP))?;
    let _ = socket.set_tcp_nodelay(true);
    if options.keepalive {
        let _ = set_keepalive(&socket, options);
    }
    if options.user_timeout_ms > 0 {
        let timeout = std::time::Duration::from_millis(u64::from(options.user_timeout_ms));
        let _ = socket.set_tcp_user_timeout(Some(timeout));
    }
    if options.late_ack {
        let _ = socket.set_tcp_quickack(false);
    }
    if let Some(name) = &options.congestion {
        let _ = socket.set_tcp_congestion(name.as_bytes());
    }
    if options.reuse_address {
        let _ = socket.set_reuse_address(true);
    }
    set_buffers(&socket, options);
    Ok(socket)
}

fn set_buffers(socket: &Socket, options: &StreamOptions) {
    if options.receive_buffer > 0 {
        let _ = socket.set_recv_buffer_size(options.receive_buffer as usize);
    }
    if options.send_buffer > 0 {
        let _ = socket.set_send_buffer_size(options.send_buffer as usize);
    }
}

/// Binds to a source. Unlike an option, what this can't do costs the connection: from elsewhere it
/// might be allowed something else.
pub(super) fn bind_source(socket: &Socket, source: &Source, to: &SocketAddr) -> Result<(), i32> {
    let fault = |error: io::Error| number(&error);
    if let Some(interface) = &source.interface {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(fault)?;
    }
    let own_port = source.ports.map_or(0, |(low, _)| low);
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = match source.foreign {
        None if source.ip.is_none() && own_port == 0 => return Ok(()),
        None => SocketAddr::new(source.ip.unwrap_or(any), own_port),
        Some(Foreign::Fixed(address)) => {
            set_transparent(socket, &address).map_err(fault)?;
            address
        }
        // Whoever connects for a client knows its address.
        Some(Foreign::ClientIp | Foreign::Client) => return Err(libc::EINVAL),
    };
    if from.is_ipv4() != to.is_ipv4() {
        // Known only now where the server is at the client's destination.
        return Err(libc::EAFNOSUPPORT);
    }
    if from.port() == 0 {
        // The port is chosen at the connect: it need only be free towards that one peer.
        bind_address_no_port(socket).map_err(fault)?;
    } else {
        // A port whose last connection has just ended may be used towards another peer.
        socket.set_reuse_address(true).map_err(fault)?;
    }
    socket.bind(&SockAddr::from(from)).map_err(fault)
}

/// Lets a socket have an address that isn't the machine's.
fn set_transparent(socket: &Socket, address: &SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Whether connections may come from addresses that aren't the machine's: EPERM says that the
/// process lacks CAP_NET_ADMIN and CAP_NET_RAW (ip(7)).
pub fn may_be_transparent() -> io::Result<()> {
    let kind = Type::STREAM.cloexec();
    Socket::new_raw(Domain::IPV4, kind, Some(Protocol::TCP))?.set_ip_transparent_v4(true)
}

/// IP_BIND_ADDRESS_NO_PORT, ip(7); it serves IPv6 sockets too.
fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(mem::size_of_val(&on)).unwrap_or(0);
    let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
    // SAFETY: setsockopt(2) reads `length` bytes of `on`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn start(socket: Socket, address: &SockAddr) -> Result<(Socket, bool), i32> {
    match socket.connect(address) {
        Ok(()) => Ok((socket, true)),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok((socket, false)),
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
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if let [part] = parts {
        // The kernel copies and checks no message header then.
        // SAFETY: send(2) reads `part.len()` bytes of `part`, alive for the call.
        let sent = unsafe { libc::send(fd, part.as_ptr().cast(), part.len(), flags) };
        return usize::try_from(sent).map_err(|_| number(&io::Error::last_os_error()));
    }
    // SAFETY: an all-zero msghdr is a valid empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    // IoSlice has the layout of iovec (its documentation guarantees it); sendmsg only reads through
    // it.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len();
    // SAFETY: `message` points to `parts`, alive for the call; nothing is written through it.
    let sent = unsafe { libc::sendmsg(fd, &raw const message, flags) };
    usize::try_from(sent).map_err(|_| number(&io::Error::last_os_error()))
}

/// Copies what a socket has received and leaves it there.
pub fn peek(fd: RawFd, buffer: &mut [u8]) -> Result<usize, i32> {
    receive(fd, buffer, libc::MSG_PEEK)
}

/// Takes what a socket has received.
pub fn take(fd: RawFd, buffer: &mut [u8]) -> Result<usize, i32> {
    receive(fd, buffer, 0)
}

fn receive(fd: RawFd, buffer: &mut [u8], flags: libc::c_int) -> Result<usize, i32> {
    let flags = flags | libc::MSG_DONTWAIT;
    // SAFETY: recv(2) writes at most `buffer.len()` bytes into `buffer`, alive for the call.
    let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(count).map_err(|_| number(&io::Error::last_os_error()))
}

/// Sends what goes before a stream; with `more` it waits a moment for the stream's first bytes, to
/// share a segment with them (MSG_MORE, which TCP_NODELAY does not prevent).
pub fn send_ahead(fd: RawFd, bytes: &[u8], more: bool) -> Result<usize, i32> {
    let more = if more { libc::MSG_MORE } else { 0 };
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | more;
    SockRef::from(&borrow(fd))
        .send_with_flags(bytes, flags)
        .map_err(|e| number(&e))
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

/// Bytes of a full segment to the peer (TCP_MAXSEG, tcp(7)); 0 where the kernel can't say.
pub fn segment(fd: RawFd) -> u32 {
    let fd = borrow(fd);
    SockRef::from(&fd).tcp_mss().unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn from(ip: Option<&str>, ports: Option<(u16, u16)>) -> StreamOptions {
        StreamOptions {
            source: Some(Source {
                ip: ip.map(|ip| ip.parse().unwrap()),
                ports,
                interface: None,
                foreign: None,
            }),
            ..StreamOptions::default()
        }
    }

    /// Connects and says where from.
    fn connected_from(to: &Address, options: &StreamOptions) -> Result<(Socket, SocketAddr), i32> {
        let (socket, _) = connect_socket(to, options)?;
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Ok((socket, address))
    }

    #[test]
    fn a_socket_connects_from_its_source() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Ip(listener.local_addr().unwrap());
        let (_socket, address) = connected_from(&to, &from(Some("127.0.6.1"), None)).unwrap();
        assert_eq!(address.ip(), IpAddr::from([127, 0, 6, 1]));
        // TEST-NET-1, RFC 5737: not ours.
        let foreign = connected_from(&to, &from(Some("192.0.2.1"), None));
        assert_eq!(foreign.unwrap_err(), libc::EADDRNOTAVAIL);
        let other_family = connected_from(&to, &from(Some("::1"), None));
        assert_eq!(other_family.unwrap_err(), libc::EAFNOSUPPORT);
    }

    #[test]
    fn a_port_is_for_one_connection_to_a_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Ip(listener.local_addr().unwrap());
        // A port that is free on an address that nobody else uses.
        let free = TcpListener::bind("127.0.6.2:0").unwrap();
        let low = free.local_addr().unwrap().port();
        drop(free);
        let options = from(Some("127.0.6.2"), Some((low, low)));
        let (_first, address) = connected_from(&to, &options).unwrap();
        assert_eq!(address.port(), low);
        let second = connected_from(&to, &options).unwrap_err();
        assert!(is_port_taken(second), "{second}");
        // Towards another peer it is free.
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Ip(other.local_addr().unwrap());
        let (_third, address) = connected_from(&to, &options).unwrap();
        assert_eq!(address.port(), low);
    }

    #[test]
    fn a_missing_interface_is_an_error_and_a_refused_option_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Ip(listener.local_addr().unwrap());
        let mut options = from(None, None);
        if let Some(source) = &mut options.source {
            source.interface = ShortName::new("nosuch0");
        }
        let errno = connected_from(&to, &options).unwrap_err();
        assert!([libc::ENODEV, libc::EPERM].contains(&errno), "{errno}");
        let mut options = StreamOptions {
            congestion: ShortName::new("nosuch"),
            late_ack: true,
            ..StreamOptions::default()
        };
        let (socket, _) = connected_from(&to, &options).unwrap();
        let usual = socket.tcp_congestion().unwrap();
        // Every kernel has it.
        options.congestion = ShortName::new("reno");
        let (socket, _) = connected_from(&to, &options).unwrap();
        let chosen = socket.tcp_congestion().unwrap();
        assert!(chosen.starts_with(b"reno"), "{usual:?} {chosen:?}");
    }
}
