//! The datagram-socket calls of the data path. Each is one non-blocking system call, the making of
//! a socket excepted.

pub mod control;
mod errors;
pub mod listen;
mod open;
mod send;
mod sockets;
pub mod steering;

pub use errors::{Undelivered, UndeliveredReason, address, undelivered};
pub use listen::{DatagramListenOptions, Listening};
pub use open::{DatagramOptions, open};
pub use send::{EACH_MAX, Outgoing, Single, send, send_each};
pub use sockets::sockets_on;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::socket::set_option;

/// IPv4 addresses that an IPv6 socket shows as `::ffff:a.b.c.d`, as IPv4.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Options that every datagram socket has: the kernel's joining of datagrams (where it may), the
/// TOS byte of each, and what becomes of datagrams over the path MTU.
///
/// Where they must not leave in fragments the discovery is PROBE, not DO (ip(7)): both set the DF
/// bit and refuse what the interface can't take. DO also refuses what an ICMP message has said to
/// be too large, and who forges one could then cut a peer off; those who forbid fragments (QUIC)
/// find the path's size by themselves.
fn set_common(
    socket: &Socket,
    ipv6: bool,
    dual: bool,
    fragment: bool,
    gro: bool,
) -> io::Result<()> {
    if gro {
        // A kernel that lacks it doesn't join any.
        let _ = set_option(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    if ipv6 {
        let discovery = if fragment {
            libc::IPV6_PMTUDISC_WANT
        } else {
            libc::IPV6_PMTUDISC_PROBE
        };
        let level = libc::IPPROTO_IPV6;
        set_option(socket, level, libc::IPV6_MTU_DISCOVER, discovery)?;
        set_option(socket, level, libc::IPV6_RECVTCLASS, 1)?;
    }
    if !ipv6 || dual {
        let discovery = if fragment {
            libc::IP_PMTUDISC_WANT
        } else {
            libc::IP_PMTUDISC_PROBE
        };
        let level = libc::IPPROTO_IP;
        set_option(socket, level, libc::IP_MTU_DISCOVER, discovery)?;
        set_option(socket, level, libc::IP_RECVTOS, 1)?;
    }
    Ok(())
}

/// A socket buffer to size: its plain option, and the one that may go past the system's bound.
#[derive(Clone, Copy)]
struct Buffer {
    plain: i32,
    force: i32,
}

const RECEIVE: Buffer = Buffer {
    plain: libc::SO_RCVBUF,
    force: libc::SO_RCVBUFFORCE,
};
const SEND: Buffer = Buffer {
    plain: libc::SO_SNDBUF,
    force: libc::SO_SNDBUFFORCE,
};

/// Sizes a buffer, past the system's bound where the process has the right to (CAP_NET_ADMIN), and
/// says what it has become. The kernel counts its own overhead in and doubles what is asked for
/// (socket(7)).
fn set_buffer(socket: &Socket, buffer: Buffer, bytes: u32) -> io::Result<u32> {
    let value = i32::try_from(bytes).unwrap_or(i32::MAX / 2);
    set_option(socket, libc::SOL_SOCKET, buffer.force, value)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, buffer.plain, value))?;
    let got = if buffer.plain == libc::SO_RCVBUF {
        socket.recv_buffer_size()?
    } else {
        socket.send_buffer_size()?
    };
    Ok(u32::try_from(got / 2).unwrap_or(u32::MAX))
}

/// Datagrams that the kernel has dropped because the buffer of a socket was full, since it was made
/// (SO_MEMINFO, modulo 2^32); `None` where the kernel can't say.
pub fn dropped(socket: BorrowedFd<'_>) -> Option<u32> {
    // `sk_meminfo_vars` of include/uapi/linux/sock_diag.h: nine counters, the drops last.
    const COUNTERS: usize = 9;
    let mut counters = [0u32; COUNTERS];
    let mut length = libc::socklen_t::try_from(size_of_val(&counters)).ok()?;
    // SAFETY: getsockopt(2) writes at most `length` bytes to `counters` and the count to `length`;
    // both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            counters.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let whole = length as usize == size_of_val(&counters);
    (result == 0 && whole).then(|| counters[COUNTERS - 1])
}

/// The same for a bare descriptor.
pub fn dropped_of(fd: RawFd) -> Option<u32> {
    dropped(super::stream::borrow(fd).as_fd())
}

/// The error number of the last call of this thread.
fn last_error() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// What a kernel may lack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// UDP_SEGMENT (Linux 4.18).
    Gso,
    /// UDP_GRO (5.0).
    Gro,
    /// SO_ATTACH_REUSEPORT_CBPF (4.5), which a sandbox may refuse.
    Steering,
}

impl Feature {
    /// Tries it on a socket that nobody speaks to.
    pub fn is_there(self) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        match self {
            Feature::Gso => set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 1),
            Feature::Gro => set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1),
            Feature::Steering => {
                set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
                steering::attach(socket.as_fd(), 1)
            }
        }
    }
}
