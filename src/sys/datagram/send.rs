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
