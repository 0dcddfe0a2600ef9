//! Headers of datagrams: version 2 alone, whole within the datagram whose first bytes they are.
//!
//! Nothing is waited for and nothing allocated here: what a datagram says is a view into its bytes,
//! for every datagram may have a header. Which of them do is the session rule of `mode udp`.

use std::net::SocketAddr;

use super::parse::{self, Fault, PAIR_UNIX, PAIR_V4, PAIR_V6};
use super::write::{binary, of_one_family};
use super::{
    Addresses, FIXED_LENGTH, Fields, HeaderBytes, LOCAL, SIGNATURE, UDP4, UDP6, UNIX_DATAGRAM,
    UNSPECIFIED,
};
use crate::base::send_proxy::SendProxy;

/// What the header of a datagram says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatagramHeader<'a> {
    /// Source and destination; `None` = take the datagram's own (LOCAL, UNSPEC, Unix addresses).
    /// IPv4 addresses are never in their IPv6 form.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The fields behind the addresses as they came, checked; `tlv::value` finds one.
    pub tlvs: &'a [u8],
    /// Where the payload begins, which may be the datagram's end.
    pub payload_at: usize,
}

impl DatagramHeader<'_> {
    /// The fields that mean something beyond the hop they came over, to keep with a flow.
    pub fn kept_tlvs(&self) -> Option<Box<[u8]>> {
        parse::kept(self.tlvs)
    }
}

/// Reads the header that a datagram begins with; it may have `length_max` bytes. Nothing is missing
/// that could still come: a header that isn't whole is none.
pub fn read(datagram: &[u8], length_max: usize) -> Result<DatagramHeader<'_>, Fault> {
    // Version 1 is for streams alone.
    if !datagram.starts_with(&SIGNATURE) {
        return Err(Fault::NotProxy);
    }
    let Some((fixed, behind)) = datagram.split_first_chunk::<FIXED_LENGTH>() else {
        return Err(Fault::Invalid);
    };
    let [.., command, family, high, low] = *fixed;
    parse::known(command)?;
    let room = usize::from(u16::from_be_bytes([high, low]));
    let payload_at = FIXED_LENGTH + room;
    if room > behind.len() || payload_at > length_max {
        return Err(Fault::Invalid);
    }
    let addresses_length = match (command, family) {
        // What is behind is ignored, whatever it is.
        (LOCAL, _) | (_, UNSPECIFIED) => {
            return Ok(DatagramHeader {
                addresses: None,
                tlvs: &[],
                payload_at,
            });
        }
        (_, UDP4) => PAIR_V4,
        (_, UDP6) => PAIR_V6,
        (_, UNIX_DATAGRAM) => PAIR_UNIX,
        // No stream comes as datagrams.
        _ => return Err(Fault::Invalid),
    };
    let split = behind[..room].split_at_checked(addresses_length);
    let (addresses, tlvs) = split.ok_or(Fault::Invalid)?;
    parse::check(&datagram[..payload_at], tlvs)?;
    Ok(DatagramHeader {
        addresses: parse::binary_pair(addresses),
        tlvs,
        payload_at,
    })
}

/// The header before a datagram of a client with such addresses. It is of version 2 whatever is
/// wanted: the first one knows no datagrams.
pub fn header(wanted: SendProxy, addresses: Addresses, fields: Fields<'_>) -> HeaderBytes {
    binary(wanted, addresses.map(of_one_family), [UDP4, UDP6], fields)
}

#[cfg(test)]
mod tests;
