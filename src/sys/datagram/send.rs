//! Sending datagrams.

use std::io::IoSlice;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use socket2::SockAddr;

use super::control::Control;
use super::last_error;

/// What is sent with one call.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// To whom; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// The address it leaves from, where the socket has none of its own (replies of a wildcard
    /// listener).
    pub from: Option<IpAddr>,
    /// Length of each datagram but the last, where there are several (UDP_SEGMENT).
    pub segment: Option<u16>,
    /// Its DSCP and ECN bits.
    pub traffic_class: u8,
    /// Its bytes.
    pub parts: &'a [IoSlice<'a>],
}

const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// Sends without blocking: all of it or nothing.
pub fn send(fd: RawFd, outgoing: &Outgoing<'_>) -> Result<(), i32> {
    let to = outgoing.to.map(SockAddr::from);
    let (name, name_length) = match &to {
        Some(to) => (to.as_ptr().cast::<libc::sockaddr>(), to.len()),
        None => (std::ptr::null(), 0),
    };
    let plain =
        outgoing.segment.is_none() && outgoing.from.is_none() && outgoing.traffic_class == 0;
    if let ([part], true) = (outgoing.parts, plain) {
        // The kernel copies and checks no message header then.
        // SAFETY: sendto(2) reads `part.len()` bytes of `part` and `name_length` of `name`, which
        // are alive for the call; a null name is of length 0.
        let sent = unsafe {
            libc::sendto(
                fd,
                part.as_ptr().cast(),
                part.len(),
                FLAGS,
                name,
                name_length,
            )
        };
        return outcome(sent);
    }
    let control = control_of(outgoing);
    // SAFETY: an all-zero msghdr is a valid empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = name.cast_mut().cast();
    message.msg_namelen = name_length;
    // IoSlice has the layout of iovec (its documentation guarantees it).
    message.msg_iov = outgoing.parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = outgoing.parts.len();
    let bytes = control.bytes();
    if !bytes.is_empty() {
        message.msg_control = bytes.as_ptr().cast_mut().cast();
        message.msg_controllen = bytes.len();
    }
    // SAFETY: `message` points to the name, the parts and the control messages, all alive for the
    // call; sendmsg(2) only reads through it.
    let sent = unsafe { libc::sendmsg(fd, &raw const message, FLAGS) };
    outcome(sent)
}

/// A datagram of its own, as [`send_each`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct Single<'a> {
    /// To whom; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Datagrams of one call of [`send_each`]: what a call costs by itself is then little beside them.
pub const EACH_MAX: usize = 32;

/// Sends datagrams of one socket without blocking, each for itself and [`EACH_MAX`] at the most.
/// Says how many have left, which is less than all where the next one met an error.
pub fn send_each(fd: RawFd, singles: &[Single<'_>]) -> Result<usize, i32> {
    let count = singles.len().min(EACH_MAX);
    let mut names = [Name::NONE; EACH_MAX];
    // SAFETY: an all-zero iovec is an empty one.
    let mut parts: [libc::iovec; EACH_MAX] = unsafe { mem::zeroed() };
    // SAFETY: an all-zero mmsghdr is a valid empty message.
    let mut messages: [libc::mmsghdr; EACH_MAX] = unsafe { mem::zeroed() };
    for (index, single) in singles[..count].iter().enumerate() {
        parts[index] = libc::iovec {
            iov_base: single.bytes.as_ptr().cast_mut().cast(),
            iov_len: single.bytes.len(),
        };
        let message = &mut messages[index].msg_hdr;
        message.msg_iov = &raw mut parts[index];
        message.msg_iovlen = 1;
        if let Some(to) = single.to {
            names[index] = Name::of(to);
            message.msg_name = (&raw mut names[index]).cast();
            message.msg_namelen = names[index].length();
        }
    }
    let wanted = libc::c_uint::try_from(count).expect("few messages");
    // SAFETY: the first `count` messages point to names, parts and bytes that are alive for the
    // call; sendmmsg(2) writes nothing but their `msg_len`.
    let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), wanted, FLAGS) };
    usize::try_from(sent).map_err(|_| last_error())
}

/// An address as the kernel takes it, without the room for the longest there is.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    // SAFETY: both are plain C structures of integers, for which all zeroes are valid.
    const NONE: Name = unsafe { mem::zeroed() };

    fn of(address: SocketAddr) -> Name {
        let mut name = Name::NONE;
        match address {
            SocketAddr::V4(v4) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(v6) => {
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
            }
        }
        name
    }

    fn length(&self) -> libc::socklen_t {
        // SAFETY: the family is the first field of both.
        let family = unsafe { self.v4.sin_family };
        let length = if family == libc::AF_INET6 as libc::sa_family_t {
            size_of::<libc::sockaddr_in6>()
        } else {
            size_of::<libc::sockaddr_in>()
        };
        libc::socklen_t::try_from(length).expect("a short address")
    }
}

/// A datagram leaves whole or not at all, so the count says nothing.
fn outcome(sent: isize) -> Result<(), i32> {
    if sent < 0 { Err(last_error()) } else { Ok(()) }
}

/// What goes beside the bytes. An IPv6 socket takes an IPv4 destination as it is, with IPv4's
/// control messages (udpv6_sendmsg leaves it to udp_sendmsg).
fn control_of(outgoing: &Outgoing<'_>) -> Control {
    let mut control = Control::new();
    if let Some(segment) = outgoing.segment {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    match outgoing.from {
        Some(IpAddr::V4(from)) => {
            // `struct in_pktinfo`: interface, the address to leave from, the header's address.
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&from.octets());
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(from)) => {
            // `struct in6_pktinfo`: address, interface.
            let mut info = [0; 20];
            info[..16].copy_from_slice(&from.octets());
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if outgoing.traffic_class != 0 {
        let class = i32::from(outgoing.traffic_class).to_ne_bytes();
        let ipv6 = outgoing.to.map(|to| to.is_ipv6());
        // A connected socket is sent both: it passes over what is not of its family.
        if ipv6 != Some(true) {
            control.push(libc::IPPROTO_IP, libc::IP_TOS, &class);
        }
        if ipv6 != Some(false) {
            control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class);
        }
    }
    control
}
