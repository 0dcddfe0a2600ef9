//! What lies in a buffer that a multishot RECVMSG has filled (`struct io_uring_recvmsg_out`,
//! io_uring_prep_recvmsg_multishot(3)): four numbers, room for the sender's address, room for
//! control messages, then the datagram. Read as plain bytes, each access within its bounds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Completion;
use super::buffers::{BufferGroup, Piece};
use super::datagram::{Arrival, Inbox, Payload};
use crate::sys::datagram::address;
use crate::sys::datagram::control::{self, Message};

/// Bytes of the four numbers: lengths of name, control messages and datagram, and flags.
const HEADER: usize = 16;
/// Room for the sender's address: 28 bytes for IPv6, in whole words.
pub(super) const NAME: usize = 32;
/// Room for control messages: segment size, destination and traffic class take 88 bytes.
pub(super) const CONTROL: usize = 128;
/// Where the datagram begins.
pub(super) const PAYLOAD: usize = HEADER + NAME + CONTROL;

/// What was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Who sent it, an IPv4 address never as an IPv6 one.
    pub from: SocketAddr,
    /// The address it was sent to, where the socket tells and replies can come from it.
    pub to: Option<IpAddr>,
    /// Length of each datagram but the last, if they are several.
    pub segment: Option<u16>,
    /// The TOS byte of IPv4, the traffic class of IPv6.
    pub traffic_class: u8,
    /// It did not fit, or its control messages didn't.
    pub truncated: bool,
    /// Where it begins; it reaches to the end.
    pub offset: u32,
    /// Its length.
    pub length: u32,
}

/// Takes over the buffer of a completion, if it has one: lent with what has come in it, or given
/// back at once.
pub(super) fn take(
    group: &mut BufferGroup,
    inbox: Inbox,
    completion: &Completion,
) -> Option<Arrival> {
    let buffer = completion.buffer?.buffer;
    let length = u32::try_from(completion.result).unwrap_or(0);
    group.take(buffer, length, false, |_| {});
    if length == 0 {
        return None;
    }
    let offset = 0;
    let found = received(group.bytes(Piece {
        buffer,
        offset,
        length,
    }));
    let Some(found) = found else {
        group.release_all(buffer);
        return None;
    };
    Some(Arrival {
        from: found.from,
        to: found.to,
        segment: found.segment,
        traffic_class: found.traffic_class,
        truncated: found.truncated,
        payload: Payload {
            inbox,
            buffer,
            offset: found.offset,
            length: found.length,
        },
    })
}

/// Reads the filled part of a buffer; `None` if it is not what the kernel writes.
pub fn received(bytes: &[u8]) -> Option<Received> {
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (named, controls) = (number(0)? as usize, number(4)? as usize);
    let (length, flags) = (number(8)? as usize, number(12)?.cast_signed());
    let payload = bytes.get(PAYLOAD..)?;
    let name = bytes.get(HEADER..HEADER + NAME)?;
    let from = address(name.get(..named.min(NAME))?)?;
    let area = bytes.get(HEADER + NAME..PAYLOAD)?;
    let cut = flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    let mut received = Received {
        from,
        to: None,
        segment: None,
        traffic_class: 0,
        truncated: cut || length > payload.len() || controls > CONTROL,
        offset: u32::try_from(PAYLOAD).ok()?,
        length: u32::try_from(length.min(payload.len())).ok()?,
    };
    for message in control::messages(&area[..controls.min(CONTROL)]) {
        note(&mut received, &message);
    }
    Some(received)
}

fn note(received: &mut Received, message: &Message<'_>) {
    match (message.level, message.kind) {
        (libc::SOL_UDP, libc::UDP_GRO) => {
            let size = message.number().and_then(|size| u16::try_from(size).ok());
            received.segment = size.filter(|size| *size > 0 && u32::from(*size) < received.length);
        }
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            let class = message.number().and_then(|class| u8::try_from(class).ok());
            received.traffic_class = class.unwrap_or(0);
        }
        // `struct in_pktinfo`: interface, the local address it came to, the header's address.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            let local = message.data.get(4..8).and_then(|ip| ip.try_into().ok());
            received.to = local.and_then(|ip: [u8; 4]| own(Ipv4Addr::from(ip).into()));
        }
        // `struct in6_pktinfo`: address, interface.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let to = message.data.get(..16).and_then(|ip| ip.try_into().ok());
            received.to = to.and_then(|ip: [u8; 16]| own(Ipv6Addr::from(ip).into()));
        }
        _ => {}
    }
}

/// An address that replies can come from: nothing can be sent from a group's.
fn own(ip: IpAddr) -> Option<IpAddr> {
    let ip = ip.to_canonical();
    (!ip.is_multicast() && !ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::datagram::control::Control;

    /// A buffer with a datagram from 192.0.2.1:53 and all that the kernel may tell of it.
    fn filled(payload: usize) -> Vec<u8> {
        let mut control = Control::new();
        control.push(libc::SOL_UDP, libc::UDP_GRO, &4i32.to_ne_bytes());
        control.push(libc::IPPROTO_IP, libc::IP_TOS, &[0xb9]);
        let info = [1, 0, 0, 0, 127, 0, 0, 2, 127, 0, 0, 2];
        control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        let lengths = [16, control.bytes().len(), payload, 0];
        let words = lengths.map(|length| u32::try_from(length).unwrap().to_ne_bytes());
        let mut bytes = words.concat();
        bytes.extend(u16::try_from(libc::AF_INET).unwrap().to_ne_bytes());
        bytes.extend([0, 53, 192, 0, 2, 1]);
        bytes.resize(HEADER + NAME, 0);
        bytes.extend(control.bytes());
        bytes.resize(PAYLOAD + payload, 7);
        bytes
    }

    #[test]
    fn all_that_is_told_of_a_datagram_is_read() {
        let found = received(&filled(10)).unwrap();
        assert_eq!(found.from, "192.0.2.1:53".parse().unwrap());
        assert_eq!(found.to, Some([127, 0, 0, 2].into()));
        assert_eq!((found.segment, found.traffic_class), (Some(4), 0xb9));
        assert_eq!((found.offset as usize, found.length), (PAYLOAD, 10));
        assert!(!found.truncated);
        // One that is no longer than a segment is a single one.
        assert_eq!(received(&filled(4)).unwrap().segment, None);
    }

    #[test]
    fn what_is_cut_is_said_to_be() {
        let bytes = filled(10);
        for length in 0..bytes.len() {
            let found = received(&bytes[..length]);
            assert_eq!(found.is_some(), length >= PAYLOAD, "{length}");
            assert!(found.is_none_or(|found| found.truncated), "{length}");
        }
        for flag in [libc::MSG_TRUNC, libc::MSG_CTRUNC] {
            let mut bytes = filled(10);
            bytes[12..16].copy_from_slice(&flag.to_ne_bytes());
            assert!(received(&bytes).unwrap().truncated);
        }
    }
}
