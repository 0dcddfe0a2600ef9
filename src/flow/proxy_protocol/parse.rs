//! Reading headers: from the first bytes of a stream to what they say, or that more are needed, or
//! what is wrong with them.
//!
//! Nothing is guessed: a header is exactly what the protocol says, and one that isn't is refused
//! as soon as that is certain. Sizes are bounded: [`TEXT_LENGTH_MAX`] for version 1, what the
//! caller allows for version 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::tlv::{self, Tlv, fields};
use super::{
    FIXED_LENGTH, Header, LOCAL, PROXY, SIGNATURE, TCP4, TCP6, TEXT_LENGTH_MAX, UNIX_STREAM,
    UNSPECIFIED, crc32c,
};

/// What version 1 begins with.
const TEXT: &[u8] = b"PROXY ";
/// Bytes of a pair of addresses with their ports, over IPv4 and over IPv6.
pub(super) const PAIR_V4: usize = 12;
pub(super) const PAIR_V6: usize = 36;
/// Bytes of a pair of Unix paths.
pub(super) const PAIR_UNIX: usize = 2 * 108;

/// What bytes turn out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// The beginning of a header.
    More,
    /// A header, and how many bytes it has.
    Header(Header, usize),
    /// Something else.
    Fault(Fault),
}

/// What is wrong with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It isn't one.
    NotProxy,
    /// It is against the protocol's rules, or longer than is allowed.
    Invalid,
    /// Version 1 with a protocol that there is none of.
    Protocol,
}

/// Reads the header that `bytes` begin with. Version 2 may have `length_max` bytes.
pub fn parse(bytes: &[u8], length_max: usize) -> Parsed {
    let read = match bytes.first() {
        None => return Parsed::More,
        Some(b'P') => text(bytes),
        Some(_) => binary(bytes, length_max),
    };
    match read {
        Ok(Some((header, length))) => Parsed::Header(header, length),
        Ok(None) => Parsed::More,
        Err(fault) => Parsed::Fault(fault),
    }
}

/// Of a header in the making: the whole one with its length, or nothing yet.
type Read = Result<Option<(Header, usize)>, Fault>;

/// Version 1: `PROXY TCP4 <source> <destination> <port> <port>` and CRLF.
fn text(bytes: &[u8]) -> Read {
    let common = bytes.len().min(TEXT.len());
    if bytes[..common] != TEXT[..common] {
        return Err(Fault::NotProxy);
    }
    let head = &bytes[..bytes.len().min(TEXT_LENGTH_MAX)];
    let Some(end) = head.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return match head.len() {
            TEXT_LENGTH_MAX => Err(Fault::Invalid),
            _ => Ok(None),
        };
    };
    // A line that only LF ends isn't one of the protocol.
    match head[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if head.len() < TEXT_LENGTH_MAX => return Ok(None),
        _ => return Err(Fault::Invalid),
    }
    let line = str::from_utf8(&head[TEXT.len()..end]).map_err(|_| Fault::Invalid)?;
    let (protocol, rest) = line.split_once(' ').unwrap_or((line, ""));
    let addresses = match protocol {
        "TCP4" => Some(pair::<Ipv4Addr>(rest)?),
        "TCP6" => Some(pair::<Ipv6Addr>(rest)?),
        // Whatever follows is to be ignored.
        "UNKNOWN" => None,
        _ => return Err(Fault::Protocol),
    };
    let header = Header {
        addresses,
        tlvs: None,
    };
    Ok(Some((header, end + 2)))
}

/// Two addresses and two ports, with one space between each.
fn pair<A: FromStr + Into<IpAddr>>(text: &str) -> Result<(SocketAddr, SocketAddr), Fault> {
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or(Fault::Invalid);
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (word()?, word()?);
    if words.next().is_some() {
        return Err(Fault::Invalid);
    }
    let address = |ip: &str, port: &str| {
        let ip = ip.parse::<A>().map_err(|_| Fault::Invalid)?;
        Ok(SocketAddr::new(ip.into().to_canonical(), number(port)?))
    };
    let source = address(source, source_port)?;
    Ok((source, address(destination, destination_port)?))
}

/// A port: digits without leading zeros.
fn number(text: &str) -> Result<u16, Fault> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    text.parse()
        .ok()
        .filter(|_| digits && !padded)
        .ok_or(Fault::Invalid)
}

/// Version 2.
fn binary(bytes: &[u8], length_max: usize) -> Read {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] != SIGNATURE[..common] {
        return Err(Fault::NotProxy);
    }
    let Some(command) = bytes.get(SIGNATURE.len()).copied() else {
        return Ok(None);
    };
    known(command)?;
    let Some([_, family, high, low]) = bytes.get(SIGNATURE.len()..FIXED_LENGTH) else {
        return Ok(None);
    };
    let length = FIXED_LENGTH + usize::from(u16::from_be_bytes([*high, *low]));
    let addresses_length = match (command, *family) {
        // What is behind is ignored, whatever it is.
        (LOCAL, _) | (_, UNSPECIFIED) => None,
        (_, TCP4) => Some(PAIR_V4),
        (_, TCP6) => Some(PAIR_V6),
        (_, UNIX_STREAM) => Some(PAIR_UNIX),
        // Datagrams don't come as a stream.
        _ => return Err(Fault::Invalid),
    };
    let room = length - FIXED_LENGTH;
    if length > length_max || addresses_length.is_some_and(|needed| needed > room) {
        return Err(Fault::Invalid);
    }
    let Some(whole) = bytes.get(..length) else {
        return Ok(None);
    };
    let Some(addresses_length) = addresses_length else {
        return Ok(Some((Header::default(), length)));
    };
    let (addresses, extra) = whole[FIXED_LENGTH..].split_at(addresses_length);
    check(whole, extra)?;
    let header = Header {
        addresses: binary_pair(addresses),
        tlvs: kept(extra),
    };
    Ok(Some((header, length)))
}

/// Whether there is such a version and command.
pub(super) fn known(command: u8) -> Result<(), Fault> {
    match command {
        LOCAL | PROXY => Ok(()),
        _ if command & 0xf0 == LOCAL => Err(Fault::Invalid),
        // Another version is another protocol.
        _ => Err(Fault::NotProxy),
    }
}

/// The addresses of a family that has some for us.
pub(super) fn binary_pair(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (source, destination, ports): (IpAddr, IpAddr, &[u8]) = match bytes.len() {
        PAIR_V4 => {
            let (source, rest) = bytes.split_first_chunk::<4>()?;
            let (destination, ports) = rest.split_first_chunk::<4>()?;
            ((*source).into(), (*destination).into(), ports)
        }
        PAIR_V6 => {
            let (source, rest) = bytes.split_first_chunk::<16>()?;
            let (destination, ports) = rest.split_first_chunk::<16>()?;
            ((*source).into(), (*destination).into(), ports)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*ports.get(at)?, *ports.get(at + 1)?]));
    Some((
        SocketAddr::new(source.to_canonical(), port(0)?),
        SocketAddr::new(destination.to_canonical(), port(2)?),
    ))
}

/// Checks the fields at the end of a whole header.
pub(super) fn check(whole: &[u8], extra: &[u8]) -> Result<(), Fault> {
    let mut at = whole.len() - extra.len();
    for field in fields(extra) {
        let Tlv { kind, value } = field.map_err(|_| Fault::Invalid)?;
        let value_at = at + tlv::HEAD;
        let well = match kind {
            tlv::CRC32C => checksum_holds(whole, value_at, value),
            tlv::UNIQUE_ID => value.len() <= tlv::UNIQUE_ID_MAX,
            tlv::AUTHORITY => value.len() <= tlv::AUTHORITY_MAX,
            _ => true,
        };
        if !well {
            return Err(Fault::Invalid);
        }
        at = value_at + value.len();
    }
    Ok(())
}

/// Those of checked fields that mean something beyond their header.
pub(super) fn kept(extra: &[u8]) -> Option<Box<[u8]>> {
    let lasting = || {
        fields(extra)
            .flatten()
            .filter(|field| !is_of_hop(field.kind))
    };
    let length: usize = lasting().map(|field| tlv::HEAD + field.value.len()).sum();
    if length == 0 {
        return None;
    }
    let mut kept = Vec::with_capacity(length);
    let mut rest = extra;
    for Tlv { kind, value } in fields(extra).flatten() {
        let (field, after) = rest.split_at(tlv::HEAD + value.len());
        rest = after;
        if !is_of_hop(kind) {
            kept.extend_from_slice(field);
        }
    }
    Some(kept.into_boxed_slice())
}

fn is_of_hop(kind: u8) -> bool {
    matches!(kind, tlv::CRC32C | tlv::NOOP)
}

/// Whether the checksum at `at` is the header's own.
fn checksum_holds(whole: &[u8], at: usize, value: &[u8]) -> bool {
    let Ok(value) = <[u8; 4]>::try_from(value) else {
        return false;
    };
    let computed = crc32c(&[&whole[..at], &[0; 4], &whole[at + 4..]]);
    computed == u32::from_be_bytes(value)
}

#[cfg(test)]
mod tests;
