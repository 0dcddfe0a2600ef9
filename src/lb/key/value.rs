//! A value of an expression, and the bytes that are hashed of it.

use std::net::{IpAddr, SocketAddr};

/// A value of an expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::lb) enum Value<'a> {
    V4([u8; 4]),
    V6([u8; 16]),
    Number(i64),
    /// An address and a port behind it, highest byte first.
    V4Port([u8; 6]),
    V6Port([u8; 18]),
    /// Bytes of a datagram.
    Bytes(&'a [u8]),
}

impl From<IpAddr> for Value<'_> {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Value::V4(address.octets()),
            IpAddr::V6(address) => Value::V6(address.octets()),
        }
    }
}

impl From<SocketAddr> for Value<'_> {
    fn from(end: SocketAddr) -> Self {
        match end.ip() {
            IpAddr::V4(address) => Value::V4Port(with_port(address.octets(), end.port())),
            IpAddr::V6(address) => Value::V6Port(with_port(address.octets(), end.port())),
        }
    }
}

impl Value<'_> {
    /// What is made of its bytes.
    pub(super) fn read<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Value::V4(octets) => read(octets),
            Value::V6(octets) => read(octets),
            Value::Number(number) => read(&number.to_be_bytes()),
            Value::V4Port(octets) => read(octets),
            Value::V6Port(octets) => read(octets),
            Value::Bytes(bytes) => read(bytes),
        }
    }

    /// It as a number, where it is one.
    pub(super) fn number(self) -> Option<i64> {
        match self {
            Value::V4(octets) => Some(i64::from(u32::from_be_bytes(octets))),
            Value::Number(number) => Some(number),
            Value::V6(_) | Value::V4Port(_) | Value::V6Port(_) | Value::Bytes(_) => None,
        }
    }

    /// It as it is, in 32 bits: the lower half of a number, as of one that has no more; the words
    /// of anything longer together.
    pub(super) fn word(&self) -> u32 {
        match self {
            Value::Number(number) => *number as u32,
            Value::V4(_) | Value::V6(_) | Value::V4Port(_) | Value::V6Port(_) | Value::Bytes(_) => {
                self.read(words_of)
            }
        }
    }
}

/// Words of four bytes together; bytes that make no word of their own are the lower part of one.
fn words_of(bytes: &[u8]) -> u32 {
    let word = |bytes: &[u8]| {
        let append = |word, byte: &u8| word << 8 | u32::from(*byte);
        bytes.iter().fold(0, append)
    };
    bytes.chunks(4).fold(0, |all, bytes| all ^ word(bytes))
}

fn with_port<const N: usize, const ALL: usize>(octets: [u8; N], port: u16) -> [u8; ALL] {
    let mut all = [0; ALL];
    all[..N].copy_from_slice(&octets);
    all[N..].copy_from_slice(&port.to_be_bytes());
    all
}
