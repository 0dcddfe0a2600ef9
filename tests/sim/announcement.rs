//! The PROXY header that a scripted server expects first, read strictly and without the shard's
//! own code.

use std::net::{IpAddr, SocketAddr};

use tidegate::base::send_proxy::{SendProxy, Version};

/// What a header of version 2 about a stream over IPv4 begins with.
const START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";

/// A header as it comes in.
#[derive(Debug)]
pub(crate) struct Announcement {
    wanted: SendProxy,
    bytes: Vec<u8>,
    complete: bool,
}

impl Announcement {
    pub(crate) fn new(wanted: SendProxy) -> Announcement {
        Announcement {
            wanted,
            bytes: Vec::new(),
            complete: false,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes its part of what a server has read, and gives the client's.
    pub(crate) fn take<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let ([first, rest @ ..], false) = (bytes, self.complete) {
            self.bytes.push(*first);
            bytes = rest;
            self.complete = match self.wanted.version {
                Version::One => self.bytes.ends_with(b"\r\n"),
                Version::Two => match self.bytes.get(14..16) {
                    Some(length) => {
                        let length = u16::from_be_bytes([length[0], length[1]]);
                        self.bytes.len() == 16 + usize::from(length)
                    }
                    None => false,
                },
            };
            assert!(self.bytes.len() < 536, "a header without an end");
        }
        bytes
    }

    /// It must be the one about a client that connected from there to there. Gives the connection's
    /// id, where one is wanted.
    pub(crate) fn check(&self, [from, to]: [SocketAddr; 2]) -> Option<&[u8]> {
        let Version::Two = self.wanted.version else {
            let (from_ip, to_ip, from, to) = (from.ip(), to.ip(), from.port(), to.port());
            let line = format!("PROXY TCP4 {from_ip} {to_ip} {from} {to}\r\n");
            assert_eq!(String::from_utf8_lossy(&self.bytes), line);
            return None;
        };
        let [IpAddr::V4(from_ip), IpAddr::V4(to_ip)] = [from.ip(), to.ip()] else {
            panic!("the network is one of IPv4");
        };
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        let addresses = [&from_ip.octets()[..], &to_ip.octets(), &ports].concat();
        let (start, rest) = self.bytes.split_at(START.len());
        let (found, mut fields) = rest[2..].split_at(addresses.len());
        assert_eq!((start, found), (START, &addresses[..]));
        if self.wanted.checksum {
            let (field, rest) = fields.split_at(7);
            assert_eq!(field[..3], [3, 0, 4]);
            fields = rest;
            let at = START.len() + 2 + addresses.len() + 3;
            let mut zeroed = self.bytes.clone();
            zeroed[at..at + 4].fill(0);
            assert_eq!(field[3..], crc32c(&zeroed).to_be_bytes());
        }
        let mut unique_id = None;
        if self.wanted.unique_id {
            let length = fields[2];
            assert_eq!(fields[..2], [5, 0]);
            let (id, rest) = fields[3..].split_at(usize::from(length));
            fields = rest;
            assert!((1..=128).contains(&id.len()), "{id:?}");
            unique_id = Some(id);
        }
        assert!(fields.is_empty(), "{fields:?}");
        unique_id
    }
}

/// The checksum bit by bit, as its definition has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ ((sum & 1) * 0x82f6_3b78);
        }
    }
    !sum
}
