//! What the network says of datagrams that were sent (IP_RECVERR, ip(7)).

use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::RawFd;

use super::control::{self, Message};
use super::unmapped;

/// What the network says of a datagram that was sent before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Undelivered {
    /// Where it was to go.
    pub to: SocketAddr,
    /// Why it didn't.
    pub reason: UndeliveredReason,
}

/// Why a datagram was not delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UndeliveredReason {
    /// Nobody listens there (ICMP port unreachable).
    Refused,
    /// The host or its network can't be reached.
    Unreachable,
    /// It is larger than the path takes, so many bytes, IP header included.
    TooLarge(u32),
    /// Anything else.
    Other(i32),
}

/// `SO_EE_ORIGIN_LOCAL`: the error was found by this machine, and the call that sent has told it.
const ORIGIN_LOCAL: u8 = 1;
/// Bytes of a `sockaddr_in6`, the longest address there is.
const NAME_MAX: usize = 28;
/// Room for `sock_extended_err`, the offender's address behind it, and what else the socket asks
/// for of each datagram.
const CONTROL_MAX: usize = 256;

/// That room, aligned as control messages are.
#[repr(C, align(8))]
struct Space([u8; CONTROL_MAX]);

/// The next thing the network has said of what was sent on a socket; the queue holds the datagram's
/// own destination. Errors that a call has told already are passed over.
pub fn undelivered(fd: RawFd) -> Option<Undelivered> {
    loop {
        let mut name = [0u8; NAME_MAX];
        let mut space = Space([0; CONTROL_MAX]);
        // SAFETY: an all-zero msghdr is a valid empty message.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = libc::socklen_t::try_from(NAME_MAX).unwrap_or(0);
        message.msg_control = space.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_MAX;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: `message` points to the name and the room for control messages, both alive for
        // the call, with their sizes; there is no room for bytes, so none are written.
        let result = unsafe { libc::recvmsg(fd, &raw mut message, flags) };
        if result < 0 {
            return None;
        }
        let length = message.msg_controllen.min(CONTROL_MAX);
        // Which the kernel sets when it has an address to write.
        let named = (message.msg_namelen as usize).min(NAME_MAX);
        let mut told = control::messages(&space.0[..length]).filter_map(|message| reason(&message));
        if let (Some(reason), Some(to)) = (told.next().flatten(), address(&name[..named])) {
            return Some(Undelivered { to, reason });
        }
    }
}

/// What a control message says: `None` = it is about something else, `Some(None)` = it is told
/// already.
fn reason(message: &Message<'_>) -> Option<Option<UndeliveredReason>> {
    match (message.level, message.kind) {
        (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {}
        _ => return None,
    }
    // `struct sock_extended_err`: errno, origin, type, code, padding, info, data.
    let data = message.data;
    let word = |at: usize| Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let (errno, origin, info) = (word(0)?.cast_signed(), *data.get(4)?, word(8)?);
    if origin == ORIGIN_LOCAL {
        return Some(None);
    }
    Some(Some(match errno {
        libc::ECONNREFUSED => UndeliveredReason::Refused,
        libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::EHOSTDOWN
        | libc::ENETDOWN
        | libc::EACCES
        | libc::ENONET
        | libc::ENOPROTOOPT
        | libc::EOPNOTSUPP => UndeliveredReason::Unreachable,
        libc::EMSGSIZE => UndeliveredReason::TooLarge(info),
        other => UndeliveredReason::Other(other),
    }))
}

/// An address as the kernel writes it (`sockaddr_in`, `sockaddr_in6`), an IPv4 one never as an IPv6
/// one; `None` for what is neither or not whole.
pub fn address(name: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = name.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let (ip, _) = rest.split_first_chunk::<4>()?;
            Some(SocketAddr::new(Ipv4Addr::from(*ip).into(), port))
        }
        libc::AF_INET6 => {
            // Behind the flow label, which belongs to one direction.
            let (_, rest) = rest.split_first_chunk::<4>()?;
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let (scope, _) = rest.split_first_chunk::<4>()?;
            let scope = u32::from_ne_bytes(*scope);
            let address = SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, scope);
            Some(match address.ip().to_ipv4_mapped() {
                Some(_) => unmapped(address.into()),
                None => address.into(),
            })
        }
        _ => None,
    }
}
