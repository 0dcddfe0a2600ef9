//! From a connection or a datagram to the hash that decides its server.
//!
//! A key is an address, a number or bytes. What is hashed of it is what HAProxy hashes: 4 or 16
//! bytes of an address in network order, 8 of a number, the highest first. An IPv4 client is the
//! same one however it came. What a connection lacks (a Unix client has no address, IPv6 addresses
//! are no numbers) makes no key: then servers take turns. Datagrams without a key (`udp.*`) have
//! that of their client.

mod value;

use std::net::{IpAddr, SocketAddr};
use twox_hash::{XxHash32, XxHash64};

pub(super) use self::value::Value;
use super::PickRequest;
use super::datagram::{krpc, quic};
use crate::base::{digest, hash};
use crate::config::plan::{
    Calculation, Converter, Digest, Expression, Fetch, Hash, HashFunction, HashKey, HashKind,
};

/// Where a connection belongs: its hash modulo the map's length as HAProxy has it, a place on the
/// ring or in the Maglev table otherwise. `None` = it has no key.
pub(super) fn place(hash: &Hash, seed: u64, request: &PickRequest<'_>) -> Option<u64> {
    let is_map = hash.method.kind == HashKind::MapBased;
    let avalanche = hash.method.avalanche;
    let word = match &hash.key {
        HashKey::Source => {
            let address = Value::from(address(request.client?));
            if !is_map {
                return Some(address.read(|bytes| hash::hash_bytes(seed, bytes)));
            }
            u64::from(mixed(address.word(), avalanche))
        }
        HashKey::Expression(expression) => {
            let value = evaluate(expression, request).or_else(|| fall_back(expression, request))?;
            match (hash.method.function, value) {
                (HashFunction::None, Value::Number(number)) if !is_map => number.cast_unsigned(),
                (function, value) => u64::from(mixed(applied(function, value), avalanche)),
            }
        }
    };
    // The functions are as they are: on a ring each has to spread, also over the high bits.
    Some(if is_map {
        word
    } else {
        hash::sequence(seed, word)
    })
}

fn address(end: SocketAddr) -> IpAddr {
    end.ip().to_canonical()
}

fn mixed(hash: u32, avalanche: bool) -> u32 {
    if avalanche {
        digest::avalanche(hash)
    } else {
        hash
    }
}

fn applied(function: HashFunction, value: Value<'_>) -> u32 {
    match function {
        HashFunction::Sdbm => value.read(digest::sdbm),
        HashFunction::Djb2 => value.read(digest::djb2),
        HashFunction::Wt6 => value.read(digest::wt6),
        HashFunction::Crc32 => value.read(digest::crc32),
        HashFunction::None => value.word(),
    }
}

pub(super) fn evaluate<'a>(
    expression: &Expression,
    request: &PickRequest<'a>,
) -> Option<Value<'a>> {
    let value = match expression.fetch {
        Fetch::Source => Value::from(address(request.client?)),
        Fetch::SourcePort => Value::Number(i64::from(request.client?.port())),
        Fetch::SourceAndPort => {
            let client = request.client?;
            Value::from(SocketAddr::new(address(client), client.port()))
        }
        Fetch::Destination => Value::from(address(request.local?)),
        Fetch::DestinationPort => Value::Number(i64::from(request.local?.port())),
        Fetch::UdpPayload { offset, length } => {
            let payload = request.datagram?.get(usize::from(offset)..)?;
            let bytes = match usize::from(length) {
                0 => payload,
                length => payload.get(..length)?,
            };
            Value::Bytes((!bytes.is_empty()).then_some(bytes)?)
        }
        Fetch::DhtTarget => Value::Bytes(krpc::key(request.datagram?)?),
        Fetch::QuicCid { length } => {
            let header = quic::read(request.datagram?, usize::from(length))?;
            // A client that made up no connection ID is known by its address alone.
            let has_one = !header.destination.is_empty();
            Value::Bytes(has_one.then_some(header.destination)?)
        }
    };
    expression.converters().try_fold(value, convert)
}

/// What is hashed of a datagram that doesn't have what is asked for: its client's address.
fn fall_back<'a>(expression: &Expression, request: &PickRequest<'a>) -> Option<Value<'a>> {
    let client = expression.fetch.is_datagram().then_some(request.client);
    Some(Value::from(address(client.flatten()?)))
}

fn convert<'a>(value: Value<'a>, converter: Converter) -> Option<Value<'a>> {
    let number = || value.number();
    let result = match converter {
        Converter::Mask { v4, v6 } => return masked(value, v4, v6),
        Converter::Calculate(calculation, operand) => calculate(calculation, number()?, operand),
        Converter::Negate => number()?.wrapping_neg(),
        Converter::Complement => !number()?,
        Converter::Odd => number()? & 1,
        Converter::Even => !number()? & 1,
        Converter::Bool => i64::from(number()? != 0),
        Converter::Not => i64::from(number()? == 0),
        Converter::Digest(digest, avalanche) => {
            let hash = match digest {
                Digest::Sdbm => value.read(digest::sdbm),
                Digest::Djb2 => value.read(digest::djb2),
                Digest::Wt6 => value.read(digest::wt6),
                Digest::Crc32 => value.read(digest::crc32),
                Digest::Crc32c => value.read(digest::crc32c),
            };
            i64::from(mixed(hash, avalanche))
        }
        Converter::Xxh32(seed) => i64::from(value.read(|bytes| XxHash32::oneshot(seed, bytes))),
        Converter::Xxh64(seed) => value
            .read(|bytes| XxHash64::oneshot(seed, bytes))
            .cast_signed(),
    };
    Some(Value::Number(result))
}

fn masked(value: Value<'_>, v4: u32, v6: Option<u8>) -> Option<Value<'_>> {
    match value {
        Value::V4(octets) => Some(Value::V4((u32::from_be_bytes(octets) & v4).to_be_bytes())),
        Value::V6(octets) => {
            let host = u128::MAX.checked_shr(u32::from(v6?)).unwrap_or(0);
            let network = u128::from_be_bytes(octets) & !host;
            Some(Value::V6(network.to_be_bytes()))
        }
        // Configurations in which anything else meets a mask are refused.
        Value::Number(_) | Value::V4Port(_) | Value::V6Port(_) | Value::Bytes(_) => None,
    }
}

/// As HAProxy calculates: what is too large becomes the largest number.
fn calculate(calculation: Calculation, value: i64, operand: i64) -> i64 {
    match calculation {
        Calculation::Add => value.saturating_add(operand),
        Calculation::Sub => value.saturating_sub(operand),
        Calculation::Mul => value.saturating_mul(operand),
        Calculation::Div if operand == 0 => i64::MAX,
        Calculation::Div => value.saturating_div(operand),
        Calculation::Mod if operand == 0 => 0,
        Calculation::Mod => value.wrapping_rem(operand),
        Calculation::And => value & operand,
        Calculation::Or => value | operand,
        Calculation::Xor => value ^ operand,
    }
}

#[cfg(test)]
mod tests;
