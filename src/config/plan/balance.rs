//! How a server is chosen, and what a hash of a connection is made of.
//!
//! All of it is small and `Copy`: a pick reads it in place.

/// How a server is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// The same with the weights of the file, whatever is set later.
    StaticRr,
    /// Fewest active connections per weight.
    LeastConn,
    /// Lowest connect time, for its connections and weight.
    PeakEwma,
    /// The first server, by number, that has room.
    First,
    /// The least loaded of some servers drawn by weight.
    Random {
        /// How many are drawn, 1..=[`Balance::DRAWS_MAX`].
        draws: u32,
    },
    /// What a connection is decides its server.
    Hash(Hash),
}

impl Balance {
    /// Draws of `random` where it says nothing.
    pub const DRAWS_DEFAULT: u32 = 2;
    /// Most draws of one pick. The best of two is near the least loaded of all already; each draw
    /// costs a cache miss.
    pub const DRAWS_MAX: u32 = 64;

    /// `balance source` with a kind of table and the default method.
    pub const fn source(kind: HashKind) -> Balance {
        let method = HashMethod {
            kind,
            function: HashFunction::Sdbm,
            avalanche: false,
        };
        Balance::Hash(Hash {
            key: HashKey::Source,
            method,
            factor: 0,
        })
    }

    /// Whether the weights are those of the file, whatever is set at run time.
    pub fn is_static(&self) -> bool {
        match self {
            Balance::StaticRr => true,
            Balance::Hash(hash) => hash.method.kind == HashKind::MapBased,
            Balance::RoundRobin
            | Balance::LeastConn
            | Balance::PeakEwma
            | Balance::First
            | Balance::Random { .. } => false,
        }
    }

    /// Whether a pick reads the client's address.
    pub fn reads_source(&self) -> bool {
        self.key().is_some_and(|key| match key {
            HashKey::Source => true,
            HashKey::Expression(expression) => !expression.fetch.is_destination(),
        })
    }

    /// Whether a pick reads the address that the client connected to.
    pub fn reads_destination(&self) -> bool {
        self.key().is_some_and(|key| match key {
            HashKey::Source => false,
            HashKey::Expression(expression) => expression.fetch.is_destination(),
        })
    }

    fn key(&self) -> Option<&HashKey> {
        self.hash().map(|hash| &hash.key)
    }

    /// The hash that it goes by.
    pub fn hash(&self) -> Option<&Hash> {
        match self {
            Balance::Hash(hash) => Some(hash),
            Balance::RoundRobin
            | Balance::StaticRr
            | Balance::LeastConn
            | Balance::PeakEwma
            | Balance::First
            | Balance::Random { .. } => None,
        }
    }
}

/// A hash of what a connection is, and how it finds a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash {
    /// What is hashed.
    pub key: HashKey,
    /// `hash-type`.
    pub method: HashMethod,
    /// `hash-balance-factor`: what a server may have of its share, in percent; 0 = any number.
    pub factor: u32,
}

/// What is hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashKey {
    /// `source`: the client's address itself; no function is applied to it.
    Source,
    /// `hash <expression>`.
    Expression(Expression),
}

/// `hash-type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HashMethod {
    /// How a hash finds a server.
    pub kind: HashKind,
    /// What makes a hash of a key.
    pub function: HashFunction,
    /// Whether HAProxy's mixing step follows.
    pub avalanche: bool,
}

/// How a hash finds a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HashKind {
    /// Modulo over the usable weight.
    #[default]
    MapBased,
    /// A ring of points: when a server goes, only its own clients move.
    Consistent,
    /// A table that the servers fill in turns: more even than the ring, and a few other clients
    /// move as well.
    Maglev,
}

/// What makes 32 bits of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HashFunction {
    /// That of the sdbm database.
    #[default]
    Sdbm,
    /// Bernstein's, by addition.
    Djb2,
    /// HAProxy's own.
    Wt6,
    /// The CRC of Ethernet and zip.
    Crc32,
    /// The key is the hash.
    None,
}

/// What a server's place on a ring or in a Maglev table is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ServerKey {
    /// Its number (`id`).
    Id,
    /// Its address.
    Address,
    /// Its address and port: what every balancer in front of it agrees on.
    #[default]
    AddressPort,
    /// Its `guid`, or address and port where it has none.
    Guid,
}

/// A value of a connection and what is made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expression {
    /// Where it begins.
    pub fetch: Fetch,
    converters: [Option<Converter>; Expression::CONVERTERS_MAX],
}

impl Expression {
    /// Most converters of an expression.
    pub const CONVERTERS_MAX: usize = 8;

    /// The value as it is.
    pub fn new(fetch: Fetch) -> Expression {
        Expression {
            fetch,
            converters: [None; Expression::CONVERTERS_MAX],
        }
    }

    /// Adds a converter at the end; false if there are as many as may be.
    #[must_use]
    pub fn add(&mut self, converter: Converter) -> bool {
        let free = self.converters.iter_mut().find(|slot| slot.is_none());
        free.map(|slot| *slot = Some(converter)).is_some()
    }

    /// What is made of the value, in order.
    pub fn converters(&self) -> impl Iterator<Item = Converter> {
        self.converters.iter().map_while(|converter| *converter)
    }
}

/// A value of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetch {
    /// `src`: the client's address.
    Source,
    /// `src_port`: its port.
    SourcePort,
    /// `dst`: the address that it connected to.
    Destination,
    /// `dst_port`: the port that it connected to.
    DestinationPort,
    /// `src+port`: the client's address and port together.
    SourceAndPort,
    /// `udp.payload`: bytes of the client's datagram.
    UdpPayload {
        /// Where they begin.
        offset: u16,
        /// How many they are; 0 = all that follow.
        length: u16,
    },
    /// `udp.dht_target`: what a message of BitTorrent's DHT is about, or who sends it.
    DhtTarget,
    /// `udp.quic_cid`: the connection ID that a QUIC packet is addressed to.
    QuicCid {
        /// Bytes of it in packets with a short header, which don't tell.
        length: u8,
    },
}

impl Fetch {
    /// `quic-cid-length` where it isn't set.
    pub const CID_LENGTH_DEFAULT: u8 = 8;

    /// Whether it is of the side that the client connected to.
    pub fn is_destination(self) -> bool {
        matches!(self, Fetch::Destination | Fetch::DestinationPort)
    }

    /// Whether it is an address rather than a number.
    pub fn is_address(self) -> bool {
        matches!(self, Fetch::Source | Fetch::Destination)
    }

    /// Whether it is bytes that are neither an address nor a number.
    pub fn is_bytes(self) -> bool {
        self.is_datagram() || self == Fetch::SourceAndPort
    }

    /// Whether it is in the client's datagram.
    pub fn is_datagram(self) -> bool {
        match self {
            Fetch::UdpPayload { .. } | Fetch::DhtTarget | Fetch::QuicCid { .. } => true,
            Fetch::Source
            | Fetch::SourcePort
            | Fetch::Destination
            | Fetch::DestinationPort
            | Fetch::SourceAndPort => false,
        }
    }
}

/// `quic-lb`: where servers write who they are into the connection IDs that they give out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuicLb {
    /// Bytes of a connection ID before a server's ID.
    pub offset: u8,
    /// Bytes of a server's ID, at least one.
    pub length: u8,
}

impl QuicLb {
    /// Where a server's ID ends at the latest: no connection ID of version 1 or 2 is longer.
    pub const END_MAX: usize = 20;
}

/// A step of an expression. Those that calculate take an IPv4 address as the number that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Converter {
    /// `ipmask`: keeps the network part of an address.
    Mask {
        /// Of an IPv4 address.
        v4: u32,
        /// Bits of an IPv6 address; without it there is no key for one.
        v6: Option<u8>,
    },
    /// `add`, `sub`, ...: calculates with a constant.
    Calculate(Calculation, i64),
    /// `neg`
    Negate,
    /// `cpl`
    Complement,
    /// `odd`
    Odd,
    /// `even`
    Even,
    /// `bool`
    Bool,
    /// `not`
    Not,
    /// `sdbm`, `djb2`, ...: a 32-bit hash of the value's bytes.
    Digest(Digest, bool),
    /// `xxh32`, with a seed.
    Xxh32(u32),
    /// `xxh64`, with a seed.
    Xxh64(u64),
}

impl Converter {
    /// Whether it makes something of any bytes.
    pub fn takes_bytes(self) -> bool {
        match self {
            Converter::Digest(..) | Converter::Xxh32(_) | Converter::Xxh64(_) => true,
            Converter::Mask { .. }
            | Converter::Calculate(..)
            | Converter::Negate
            | Converter::Complement
            | Converter::Odd
            | Converter::Even
            | Converter::Bool
            | Converter::Not => false,
        }
    }
}

/// A calculation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calculation {
    /// `add`
    Add,
    /// `sub`
    Sub,
    /// `mul`
    Mul,
    /// `div`
    Div,
    /// `mod`
    Mod,
    /// `and`
    And,
    /// `or`
    Or,
    /// `xor`
    Xor,
}

/// A hash converter, which may be followed by HAProxy's mixing step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Digest {
    /// `sdbm`
    Sdbm,
    /// `djb2`
    Djb2,
    /// `wt6`
    Wt6,
    /// `crc32`
    Crc32,
    /// `crc32c`
    Crc32c,
}
