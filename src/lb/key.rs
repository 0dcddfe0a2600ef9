//! From a connection to the hash that decides its server.
//!
//! A key is an address or a number. Its bytes are those that HAProxy hashes: 4 or 16 of an address
//! in network order, 8 of a number, the highest first. An IPv4 client is the same one however it
//! came. What a connection lacks (a Unix client has no address, IPv6 addresses are no numbers)
//! makes no key: then servers take turns.

use std::net::{IpAddr, SocketAddr};
use twox_hash::{XxHash32, XxHash64};

use super::PickRequest;
use crate::base::{digest, hash};
use crate::config::plan::{
    Calculation, Converter, Digest, Expression, Fetch, Hash, HashFunction, HashKey, HashKind,
};

/// Where a connection belongs: its hash modulo the map's length as HAProxy has it, a place on the
/// ring or in the Maglev table otherwise. `None` = it has no key.
pub(super) fn place(hash: &Hash, seed: u64, request: &PickRequest) -> Option<u64> {
    let is_map = hash.method.kind == HashKind::MapBased;
    let word = match &hash.key {
        HashKey::Source => {
            let address = address(request.client?);
            if !is_map {
                return Some(hash::hash_bytes(
                    seed,
                    Value::from(address).bytes().as_ref(),
                ));
            }
            u64::from(mixed(words_of(address), hash.method.avalanche))
        }
        HashKey::Expression(expression) => {
            let value = evaluate(expression, request)?;
            let avalanche = hash.method.avalanche;
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

/// A value of an expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    V4([u8; 4]),
    V6([u8; 16]),
    Number(i64),
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Value {
        match address {
            IpAddr::V4(address) => Value::V4(address.octets()),
            IpAddr::V6(address) => Value::V6(address.octets()),
        }
    }
}

impl Value {
    /// What is hashed of it.
    fn bytes(&self) -> Bytes {
        let mut bytes = Bytes {
            all: [0; 16],
            length: 0,
        };
        match self {
            Value::V4(octets) => bytes.set(octets),
            Value::V6(octets) => bytes.set(octets),
            Value::Number(number) => bytes.set(&number.to_be_bytes()),
        }
        bytes
    }

    /// It as a number, where it is one.
    fn number(self) -> Option<i64> {
        match self {
            Value::V4(octets) => Some(i64::from(u32::from_be_bytes(octets))),
            Value::V6(_) => None,
            Value::Number(number) => Some(number),
        }
    }
}

/// The bytes of a value, in place.
struct Bytes {
    all: [u8; 16],
    length: usize,
}

impl Bytes {
    fn set(&mut self, bytes: &[u8]) {
        self.length = bytes.len();
        self.all[..bytes.len()].copy_from_slice(bytes);
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.all[..self.length]
    }
}

fn address(end: SocketAddr) -> IpAddr {
    end.ip().to_canonical()
}

/// The address as a word; of an IPv6 address its four words together.
fn words_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => {
            let words = address.to_bits();
            [96, 64, 32, 0]
                .iter()
                .fold(0, |all, shift| all ^ (words >> shift) as u32)
        }
    }
}

fn mixed(hash: u32, avalanche: bool) -> u32 {
    if avalanche {
        digest::avalanche(hash)
    } else {
        hash
    }
}

fn applied(function: HashFunction, value: Value) -> u32 {
    let bytes = value.bytes();
    match function {
        HashFunction::Sdbm => digest::sdbm(bytes.as_ref()),
        HashFunction::Djb2 => digest::djb2(bytes.as_ref()),
        HashFunction::Wt6 => digest::wt6(bytes.as_ref()),
        HashFunction::Crc32 => digest::crc32(bytes.as_ref()),
        HashFunction::None => match value {
            Value::V4(octets) => words_of(octets.into()),
            Value::V6(octets) => words_of(octets.into()),
            // The lower half, as of a number that is one of 32 bits.
            Value::Number(number) => number as u32,
        },
    }
}

fn evaluate(expression: &Expression, request: &PickRequest) -> Option<Value> {
    let end = if expression.fetch.is_destination() {
        request.local?
    } else {
        request.client?
    };
    let value = match expression.fetch {
        Fetch::Source | Fetch::Destination => Value::from(address(end)),
        Fetch::SourcePort | Fetch::DestinationPort => Value::Number(i64::from(end.port())),
        Fetch::SourceAndPort
        | Fetch::UdpPayload { .. }
        | Fetch::DhtTarget
        | Fetch::QuicCid { .. } => return None,
    };
    expression.converters().try_fold(value, convert)
}

fn convert(value: Value, converter: Converter) -> Option<Value> {
    let number = || value.number();
    let bytes = value.bytes();
    let bytes = bytes.as_ref();
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
                Digest::Sdbm => digest::sdbm(bytes),
                Digest::Djb2 => digest::djb2(bytes),
                Digest::Wt6 => digest::wt6(bytes),
                Digest::Crc32 => digest::crc32(bytes),
                Digest::Crc32c => digest::crc32c(bytes),
            };
            i64::from(mixed(hash, avalanche))
        }
        Converter::Xxh32(seed) => i64::from(XxHash32::oneshot(seed, bytes)),
        Converter::Xxh64(seed) => XxHash64::oneshot(seed, bytes).cast_signed(),
    };
    Some(Value::Number(result))
}

fn masked(value: Value, v4: u32, v6: Option<u8>) -> Option<Value> {
    match value {
        Value::V4(octets) => Some(Value::V4((u32::from_be_bytes(octets) & v4).to_be_bytes())),
        Value::V6(octets) => {
            let host = u128::MAX.checked_shr(u32::from(v6?)).unwrap_or(0);
            let network = u128::from_be_bytes(octets) & !host;
            Some(Value::V6(network.to_be_bytes()))
        }
        // Configurations in which a number meets a mask are refused.
        Value::Number(_) => None,
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
mod tests {
    use super::*;
    use crate::config::plan::{Balance, HashMethod};

    fn value(expression: &[Converter], fetch: Fetch, client: &str) -> Option<Value> {
        let mut all = Expression::new(fetch);
        for converter in expression {
            assert!(all.add(*converter));
        }
        let request = PickRequest {
            client: Some(client.parse().unwrap()),
            ..PickRequest::default()
        };
        evaluate(&all, &request)
    }

    /// What haproxy 2.6 gives for a client 127.0.0.1:38803 or 49683.
    #[test]
    fn converters_calculate_as_haproxy_does() {
        use Calculation::{Add, And, Div, Mod, Mul, Or, Sub, Xor};
        use Converter::*;
        let largest = i64::MAX;
        let calculate = Calculate;
        for (converters, expected) in [
            (&[calculate(Add, largest)][..], largest),
            (&[Negate, calculate(Sub, largest)], i64::MIN),
            (&[calculate(Mul, largest)], largest),
            (&[Negate, calculate(Mul, largest)], i64::MIN),
            (&[calculate(Div, 0)], largest),
            (&[calculate(Mod, 0)], 0),
            (&[Negate, calculate(Mod, 7)], -2),
            (&[Negate, calculate(Div, 3)], -12_934),
            (&[Negate, Odd], 1),
            (&[Negate, Even], 0),
            (&[Odd, Not], 0),
            (&[calculate(And, 0), Not], 1),
            (&[Bool], 1),
            (&[Negate, calculate(And, 255)], 109),
            (&[Complement], -38_804),
            (&[calculate(And, 15), calculate(Or, 64)], 67),
            (&[calculate(Xor, 255)], 38_803 ^ 255),
            (&[Digest(super::Digest::Crc32, false)], 841_220_426),
        ] {
            let found = value(converters, Fetch::SourcePort, "127.0.0.1:38803");
            assert_eq!(found, Some(Value::Number(expected)), "{converters:?}");
        }
        for (converter, expected) in [
            (Xxh32(0), 20_952_046),
            (Xxh32(1), 1_685_672_468),
            (Xxh32(u32::MAX), 1_902_642_690),
            (Xxh64(0), -8_779_178_544_921_075_562),
            (Xxh64(1), 4_475_036_039_257_762_638),
            (Xxh64(u64::MAX), -5_918_641_665_067_930_986),
            (calculate(Add, 1), 2_130_706_434),
            (Digest(super::Digest::Crc32c, true), 240_433_822),
        ] {
            let found = value(&[converter], Fetch::Source, "127.0.0.1:49683");
            assert_eq!(found, Some(Value::Number(expected)), "{converter:?}");
        }
    }

    #[test]
    fn masks_keep_networks() {
        let mask = |v6| Converter::Mask {
            v4: 0xffff_ff00,
            v6,
        };
        let masked = |client, v6| value(&[mask(v6)], Fetch::Source, client);
        let v4 = Some(Value::V4([192, 0, 2, 0]));
        assert_eq!(masked("192.0.2.77:1", None), v4);
        assert_eq!(masked("[::ffff:192.0.2.77]:1", None), v4);
        let v6 = |text: &str| Some(Value::from(text.parse::<IpAddr>().unwrap()));
        let client = "[2001:db8:1:2:3:4:5:6]:1";
        assert_eq!(masked(client, Some(48)), v6("2001:db8:1::"));
        assert_eq!(masked(client, Some(0)), v6("::"));
        assert_eq!(masked(client, Some(128)), v6("2001:db8:1:2:3:4:5:6"));
        assert_eq!(masked(client, None), None);
    }

    #[test]
    fn what_is_missing_makes_no_key() {
        assert_eq!(value(&[Converter::Odd], Fetch::Source, "[::1]:80"), None);
        assert_eq!(value(&[], Fetch::DestinationPort, "127.0.0.1:80"), None);
        let mut request = PickRequest::default();
        let source = Expression::new(Fetch::Source);
        assert_eq!(evaluate(&source, &request), None);
        request.local = Some("127.0.0.1:443".parse().unwrap());
        let port = Expression::new(Fetch::DestinationPort);
        assert_eq!(evaluate(&port, &request), Some(Value::Number(443)));
    }

    /// As `balance source` of HAProxy: the words of an address together, then the mixing step.
    #[test]
    fn the_map_takes_a_source_as_it_is() {
        let place = |client: &str, avalanche| {
            let hash = Hash {
                key: HashKey::Source,
                method: HashMethod {
                    avalanche,
                    ..HashMethod::default()
                },
                factor: 0,
            };
            let request = PickRequest {
                client: Some(client.parse().unwrap()),
                ..PickRequest::default()
            };
            super::place(&hash, 7, &request)
        };
        assert_eq!(place("127.0.0.1:5", false), Some(0x7f00_0001));
        let mixed = digest::avalanche(0x7f00_0001);
        assert_eq!(place("127.0.0.1:5", true), Some(u64::from(mixed)));
        assert_eq!(place("[1:2:30:40:500:600::8000]:5", false), {
            Some(0x0001_0002 ^ 0x0030_0040 ^ 0x0500_0600 ^ 0x8000)
        });
    }

    #[test]
    fn an_ipv4_client_is_the_same_however_it_came() {
        for kind in [HashKind::MapBased, HashKind::Consistent, HashKind::Maglev] {
            let place = |client: &str, seed| {
                let Balance::Hash(hash) = Balance::source(kind) else {
                    unreachable!("it hashes");
                };
                let request = PickRequest {
                    client: Some(client.parse().unwrap()),
                    ..PickRequest::default()
                };
                super::place(&hash, seed, &request).unwrap()
            };
            let plain = place("192.0.2.7:1", 5);
            assert_eq!(plain, place("[::ffff:192.0.2.7]:2", 5));
            // The seed is that of places; the map has none.
            let is_map = kind == HashKind::MapBased;
            assert_eq!(plain == place("192.0.2.7:1", 6), is_map);
        }
    }
}
