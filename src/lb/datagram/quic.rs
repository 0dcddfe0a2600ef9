//! The connection ID that a QUIC packet is addressed to.
//!
//! Only what no version may change is taken for granted (RFC 8999): the form of the header, the
//! version and the connection IDs of long headers. Of versions 1 and 2 the first packets of a
//! connection are told from later ones, because clients choose what these are addressed to. Where a
//! datagram holds several packets, the first counts: all are of one connection (RFC 9000,
//! section 12.2).

/// Version 1, RFC 9000.
pub const VERSION_1: u32 = 1;
/// Version 2, RFC 9369.
pub const VERSION_2: u32 = 0x6b33_43cf;

/// Longest connection ID of versions 1 and 2; others may have up to 255 bytes.
pub const CID_LENGTH_MAX: usize = 20;

/// The bit of the first byte that tells long headers.
const LONG: u8 = 0x80;

/// What a packet's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// What kind of packet it is.
    pub form: Form,
    /// The connection ID that it is addressed to; may be empty.
    pub destination: &'a [u8],
}

/// What kind of packet it is, as far as who chose its connection ID depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A short header: the receiver has chosen the connection ID.
    Short,
    /// Initial and 0-RTT of version 1 or 2: the first of a connection have an ID that the client
    /// made up.
    Opening,
    /// Any other long header.
    Long,
    /// Version negotiation, which only servers send.
    Negotiation,
}

/// Reads the header of the first packet of a datagram; `short_length` is the length of connection
/// IDs in short headers. `None` = no QUIC packet begins so.
pub fn read(datagram: &[u8], short_length: usize) -> Option<Header<'_>> {
    let (first, rest) = datagram.split_first()?;
    if first & LONG == 0 {
        let destination = rest.get(..short_length)?;
        let form = Form::Short;
        return Some(Header { form, destination });
    }
    let (version, rest) = rest.split_first_chunk()?;
    let version = u32::from_be_bytes(*version);
    let (destination, rest) = connection_id(rest)?;
    let (source, _) = connection_id(rest)?;
    let is_known = version == VERSION_1 || version == VERSION_2;
    if is_known && destination.len().max(source.len()) > CID_LENGTH_MAX {
        return None;
    }
    let form = match (version, first >> 4 & 3) {
        (0, _) => Form::Negotiation,
        // Initial and 0-RTT, in this order.
        (VERSION_1, 0 | 1) | (VERSION_2, 1 | 2) => Form::Opening,
        _ => Form::Long,
    };
    Some(Header { form, destination })
}

/// A connection ID after its length, and what follows.
fn connection_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing;
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    /// Headers of RFC 9001, appendix A, and RFC 9369, appendix A, as they are on the wire.
    #[test]
    fn packets_of_the_specifications_are_read() {
        let client = "8394c8f03e515708";
        for (packet, form, destination) in [
            // A client's Initial (A.2), protected.
            (
                "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11",
                Form::Opening,
                client,
            ),
            (
                "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485",
                Form::Opening,
                client,
            ),
            // A server's Initial (A.3): to a client that wants no connection ID.
            (
                "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a",
                Form::Opening,
                "",
            ),
            // Retry (A.4).
            (
                "ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f",
                Form::Long,
                "",
            ),
            (
                "cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d9555436",
                Form::Long,
                "",
            ),
        ] {
            let packet = bytes(packet);
            let destination = &bytes(destination)[..];
            let header = Header { form, destination };
            assert_eq!(read(&packet, 8), Some(header), "{packet:x?}");
        }
        // A short header (A.5): its connection ID has no length of its own.
        let packet = bytes("4cfe4189655e5cd55c41f69080575d7999c25a5bfb");
        for length in 0..packet.len() {
            let destination = &packet[1..=length];
            let form = Form::Short;
            let header = Header { form, destination };
            assert_eq!(read(&packet, length), Some(header));
        }
        assert_eq!(read(&packet, packet.len()), None);
    }

    /// A long header of a version, with connection IDs of these lengths.
    fn long(first: u8, version: u32, destination: u8, source: u8) -> Vec<u8> {
        let mut packet = vec![first];
        packet.extend_from_slice(&version.to_be_bytes());
        for (length, byte) in [(destination, 0xdd), (source, 0x55)] {
            packet.push(length);
            packet.resize(packet.len() + usize::from(length), byte);
        }
        packet
    }

    #[test]
    fn first_packets_are_told_from_later_ones_in_known_versions_alone() {
        use Form::{Long, Negotiation, Opening};
        for (version, forms) in [
            (VERSION_1, [Opening, Opening, Long, Long]),
            (VERSION_2, [Long, Opening, Opening, Long]),
            (0x0a0a_0a0a, [Long; 4]),
            (0xff00_001d, [Long; 4]),
            (0, [Negotiation; 4]),
        ] {
            for (kind, form) in (0..).zip(forms) {
                // The fixed bit may be clear (RFC 9287), and the lowest bits are protected.
                for bits in [0x80, 0x8f, 0xc0, 0xca] {
                    let packet = long(bits | kind << 4, version, 8, 4);
                    let header = read(&packet, 8).unwrap();
                    assert_eq!(header.form, form, "{version:x} {kind}");
                    assert_eq!(header.destination, [0xdd; 8]);
                }
            }
        }
    }

    #[test]
    fn connection_ids_are_as_long_as_their_version_allows() {
        for (version, longest) in [(VERSION_1, 20), (VERSION_2, 20), (0x1a2a_3a4a, 255)] {
            for length in [0, 1, 20, 21, 255] {
                let expected = (length <= longest).then_some(usize::from(length));
                for (packet, expected) in [
                    (long(0xe0, version, length, 0), expected),
                    (long(0xe0, version, 0, length), expected.map(|_| 0)),
                ] {
                    let found = read(&packet, 8).map(|header| header.destination.len());
                    assert_eq!(found, expected, "{version:x} {length}");
                    for end in 0..packet.len() {
                        assert_eq!(read(&packet[..end], 8), None);
                    }
                }
            }
        }
    }

    /// Packets behind the first one change nothing.
    #[test]
    fn the_first_packet_of_a_datagram_counts() {
        let mut random = testing::random(7);
        for _ in 0..10_000 {
            let kind = 0x80 | random(128) as u8;
            let version = [VERSION_1, VERSION_2, 0, 9][random(4) as usize];
            let mut datagram = long(kind, version, random(21) as u8, random(21) as u8);
            let first = read(&datagram, 8).unwrap().destination.to_vec();
            let more = (0..random(100)).map(|_| random(256) as u8);
            datagram.extend(more.collect::<Vec<_>>());
            assert_eq!(read(&datagram, 8).unwrap().destination, first);
        }
    }

    /// Whatever comes, what is found is a part of it behind its first byte.
    #[test]
    fn any_bytes_are_read_within_bounds() {
        let mut random = testing::random(3);
        let mut found = [0; 2];
        for _ in 0..100_000 {
            let bytes: Vec<_> = (0..random(40)).map(|_| random(256) as u8).collect();
            let short_length = random(21) as usize;
            let header = read(&bytes, short_length);
            found[usize::from(header.is_some())] += 1;
            let Some(header) = header else { continue };
            let at = if header.form == Form::Short { 1 } else { 6 };
            let end = at + header.destination.len();
            assert_eq!(bytes.get(at..end), Some(header.destination));
        }
        assert!(found.iter().all(|count| *count > 10_000), "{found:?}");
    }
}
