//! Which PROXY header servers are sent: what the configuration asks for and who writes it reads.

/// A version of the PROXY protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// A line of text.
    One,
    /// Binary, with room for more than addresses.
    Two,
}

/// The header that a server gets before the bytes of each client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SendProxy {
    /// Its version; what follows is for the second.
    pub version: Version,
    /// A checksum over the whole header.
    pub checksum: bool,
    /// An id of the connection that no other one has.
    pub unique_id: bool,
    /// The name of the host that the client wants, where it is known.
    pub authority: bool,
    /// That the client does not speak TLS with us.
    pub tls: bool,
}

impl SendProxy {
    /// A bare header of a version.
    pub const fn of(version: Version) -> SendProxy {
        SendProxy {
            version,
            checksum: false,
            unique_id: false,
            authority: false,
            tls: false,
        }
    }
}
