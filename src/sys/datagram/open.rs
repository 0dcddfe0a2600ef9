//! Sockets to speak to servers from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{RECEIVE, SEND, set_buffer, set_common};
use crate::base::source::{Foreign, Source};
use crate::sys::socket::set_option;

/// A socket to speak to servers from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatagramOptions {
    /// Whether it speaks to IPv6 servers.
    pub ipv6: bool,
    /// Address, ports and interface it leaves from, `source` of a server.
    pub source: Option<Source>,
    /// The only server it speaks to and hears (`udp-sockets dedicated`).
    pub connected: Option<SocketAddr>,
    /// Whether datagrams over the path MTU may leave in fragments; refused with EMSGSIZE otherwise.
    pub fragment: bool,
}

/// Bytes asked for each way of a socket's buffers: about 1,200 small datagrams.
const BUFFER: u32 = 1 << 20;
/// Ports of a range that are tried for one socket.
const TRIES_MAX: u32 = 64;

/// Opens a socket, bound to its source and ready to be received from; `gro` = the kernel may join
/// datagrams of one sender.
pub fn open(options: &DatagramOptions, gro: bool) -> Result<RawFd, i32> {
    open_socket(options, gro).map(IntoRawFd::into_raw_fd)
}

fn open_socket(options: &DatagramOptions, gro: bool) -> Result<Socket, i32> {
    let fault = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let domain = if options.ipv6 {
        Domain::IPV6
    } else {
        Domain::IPV4
    };
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new_raw(domain, kind, Some(Protocol::UDP)).map_err(fault)?;
    if options.ipv6 {
        socket.set_only_v6(true).map_err(fault)?;
    }
    set_common(&socket, options.ipv6, false, options.fragment, gro).map_err(fault)?;
    // Without it an unconnected socket is told nothing of what is refused.
    let (level, receive_errors) = if options.ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    set_option(&socket, level, receive_errors, 1).map_err(fault)?;
    // What the system doesn't grant costs datagrams in a burst, not the socket.
    let _ = set_buffer(&socket, RECEIVE, BUFFER);
    let _ = set_buffer(&socket, SEND, BUFFER);
    bind(&socket, options)?;
    if let Some(server) = options.connected {
        socket.connect(&SockAddr::from(server)).map_err(fault)?;
    }
    Ok(socket)
}

/// Binds to the source, or to a port of the system's choice.
fn bind(socket: &Socket, options: &DatagramOptions) -> Result<(), i32> {
    let fault = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let any: IpAddr = if options.ipv6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let at = |address: SocketAddr| {
        if address.is_ipv6() != options.ipv6 {
            return Err(libc::EAFNOSUPPORT);
        }
        socket.bind(&SockAddr::from(address)).map_err(fault)
    };
    let Some(source) = options.source else {
        return at(SocketAddr::new(any, 0));
    };
    if let Some(interface) = &source.interface {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(fault)?;
    }
    match source.foreign {
        None => {}
        Some(Foreign::Fixed(address)) => {
            if options.ipv6 {
                socket.set_ip_transparent_v6(true).map_err(fault)?;
            } else {
                socket.set_ip_transparent_v4(true).map_err(fault)?;
            }
            if options.connected.is_some() && address.port() != 0 {
                // One client may have flows to several servers. Of sockets on one address the
                // kernel gives a datagram to the one that is connected to its sender.
                socket.set_reuse_address(true).map_err(fault)?;
            }
            return at(address);
        }
        // Whoever opens a socket for a client knows its address.
        Some(Foreign::ClientIp | Foreign::Client) => return Err(libc::EINVAL),
    }
    let ip = source.ip.unwrap_or(any);
    let Some((low, high)) = source.ports else {
        return at(SocketAddr::new(ip, 0));
    };
    let count = u32::from(high.saturating_sub(low)) + 1;
    let mut refused = libc::EADDRINUSE;
    for _ in 0..count.min(TRIES_MAX) {
        let offset = NEXT_PORT.fetch_add(1, Ordering::Relaxed) % count;
        let port = low.saturating_add(u16::try_from(offset).unwrap_or(0));
        match at(SocketAddr::new(ip, port)) {
            Err(libc::EADDRINUSE) => refused = libc::EADDRINUSE,
            other => return other,
        }
    }
    Err(refused)
}

/// Where the next search of a range goes on, so that sockets that stay open are not tried again
/// before all others were.
static NEXT_PORT: AtomicU32 = AtomicU32::new(0);
