//! Sockets that datagrams of clients come to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{RECEIVE, SEND, set_buffer, set_common};
use crate::sys::socket::{ListenError, set_option, set_transparent};

/// Options of a listening datagram socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DatagramListenOptions {
    /// IPV6_V6ONLY; `None` = the system's default.
    pub v6only: Option<bool>,
    /// SO_BINDTODEVICE: the interface it listens on.
    pub interface: Option<String>,
    /// IP_TRANSPARENT: it may be bound to addresses that aren't the machine's, and gets what was
    /// sent to others where a rule redirects it.
    pub transparent: bool,
    /// Whether replies over the path MTU may leave in fragments.
    pub fragment: bool,
    /// Whether the kernel may join datagrams of one client (UDP_GRO).
    pub gro: bool,
    /// Whether the group is to be steered (`steering`); by the kernel's choice otherwise.
    pub steering: bool,
    /// SO_RCVBUF in bytes. The kernel's usual 208 KiB hold 256 small datagrams, less than a burst
    /// of a millisecond.
    pub rcvbuf: u32,
    /// SO_SNDBUF in bytes; `None` = the same.
    pub sndbuf: Option<u32>,
}

/// Sockets that are bound.
#[derive(Debug)]
pub struct Listening {
    /// The members of the group.
    pub sockets: Vec<OwnedFd>,
    /// The receive buffer has become only so many bytes.
    pub short_buffer: Option<u32>,
}

/// Binds one socket for each of `members` (at least 1), which share the clients; `steering::attach`
/// says how. As with TCP
/// (`socket::listen_tcp`), the first one binds without SO_REUSEPORT, so that another program on the
/// address gives EADDRINUSE.
pub fn listen(
    address: SocketAddr,
    options: &DatagramListenOptions,
    members: u16,
) -> Result<Listening, ListenError> {
    let (first, short_buffer) = open(address, options)?;
    first.bind(&SockAddr::from(address))?;
    set_option(&first, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    // With port 0 the kernel has chosen one for the first.
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![OwnedFd::from(first)];
    for _ in 1..members {
        sockets.push(join(address, options)?.0);
    }
    Ok(Listening {
        sockets,
        short_buffer,
    })
}

/// Further members of a group that this process, or one that it replaces, already has.
pub fn join_all(
    address: SocketAddr,
    options: &DatagramListenOptions,
    members: u16,
) -> Result<Listening, ListenError> {
    let mut listening = Listening {
        sockets: Vec::new(),
        short_buffer: None,
    };
    for _ in 0..members {
        let (socket, short) = join(address, options)?;
        listening.sockets.push(socket);
        listening.short_buffer = short;
    }
    Ok(listening)
}

/// A further member, and how short its receive buffer is.
pub fn join(
    address: SocketAddr,
    options: &DatagramListenOptions,
) -> Result<(OwnedFd, Option<u32>), ListenError> {
    let (socket, short_buffer) = open(address, options)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    socket.bind(&SockAddr::from(address))?;
    Ok((socket.into(), short_buffer))
}

/// Gives a socket that listens the buffers and the rule for fragments of other options; how short
/// its receive buffer is.
pub fn renew(
    socket: BorrowedFd<'_>,
    address: SocketAddr,
    options: &DatagramListenOptions,
) -> io::Result<Option<u32>> {
    let socket = SockRef::from(&socket);
    let ipv6 = address.is_ipv6();
    let dual = ipv6 && address.ip().is_unspecified() && !socket.only_v6()?;
    set_common(&socket, ipv6, dual, options.fragment, options.gro)?;
    set_buffers(&socket, options)
}

/// How short the receive buffer is afterwards.
fn set_buffers(socket: &Socket, options: &DatagramListenOptions) -> io::Result<Option<u32>> {
    let got = set_buffer(socket, RECEIVE, options.rcvbuf)?;
    set_buffer(socket, SEND, options.sndbuf.unwrap_or(options.rcvbuf))?;
    let short = got < options.rcvbuf;
    Ok(short.then_some(got))
}

fn open(
    address: SocketAddr,
    options: &DatagramListenOptions,
) -> Result<(Socket, Option<u32>), ListenError> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let domain = Domain::for_address(address);
    let socket = Socket::new_raw(domain, kind, Some(Protocol::UDP))?;
    let ipv6 = address.is_ipv6();
    if let (true, Some(only)) = (ipv6, options.v6only) {
        socket.set_only_v6(only)?;
    }
    let wildcard = address.ip().is_unspecified();
    let dual = ipv6 && wildcard && !socket.only_v6()?;
    set_common(&socket, ipv6, dual, options.fragment, options.gro)?;
    if wildcard && ipv6 {
        // It also tells the address that a datagram of IPv4 was sent to.
        set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    } else if wildcard {
        set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    }
    if let Some(name) = &options.interface {
        socket
            .bind_device(Some(name.as_bytes()))
            .map_err(ListenError::of(format!("interface {name}")))?;
    }
    if options.transparent {
        set_transparent(&socket, address).map_err(ListenError::of("transparent"))?;
    }
    let short = set_buffers(&socket, options)?;
    Ok((socket, short))
}
