//! The name of an operation: what it is and whose, in the 64 bits that travel through the kernel.

use crate::base::ids::SessionKey;

/// What an operation is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Op {
    /// A cancellation; its own completion means nothing.
    Cancel = 0,
    /// The wake-up descriptor.
    Wake = 1,
    /// Accept; the slot is the shard's listener index.
    Accept = 2,
    /// Receive from the client.
    ReceiveClient = 3,
    /// Receive from the server.
    ReceiveServer = 4,
    /// Sticky poll of the client's socket.
    PollClient = 5,
    /// Sticky poll of the server's socket.
    PollServer = 6,
    /// The connect's end.
    Connect = 7,
    /// Poll of the client's socket for what comes before its session.
    Prelude = 8,
    /// Datagrams of clients; the slot is the shard's UDP listener index.
    DatagramsOfClients = 9,
    /// Datagrams of servers; slot and generation are the pool socket's.
    DatagramsOfServers = 10,
}

impl Op {
    const ALL: [Op; 11] = [
        Op::Cancel,
        Op::Wake,
        Op::Accept,
        Op::ReceiveClient,
        Op::ReceiveServer,
        Op::PollClient,
        Op::PollServer,
        Op::Connect,
        Op::Prelude,
        Op::DatagramsOfClients,
        Op::DatagramsOfServers,
    ];
}

/// An operation's name: `op` in bits 56..64, generation in 24..48, slot in 0..24.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token(pub u64);

/// Slots and generations are 24 bits wide.
const PART: u64 = (1 << 24) - 1;

impl Token {
    /// The name of a session's operation.
    pub fn session(op: Op, key: SessionKey) -> Token {
        debug_assert!(u64::from(key.slot) <= PART && u64::from(key.generation) <= PART);
        Token((op as u64) << 56 | u64::from(key.generation) << 24 | u64::from(key.slot))
    }

    /// The name of an operation that belongs to no session.
    pub fn plain(op: Op, index: u32) -> Token {
        debug_assert!(u64::from(index) <= PART);
        Token((op as u64) << 56 | u64::from(index))
    }

    /// What it is; `None` for bits that no token has.
    pub fn op(self) -> Option<Op> {
        Op::ALL.get((self.0 >> 56) as usize).copied()
    }

    /// Whose it is.
    pub fn key(self) -> SessionKey {
        let generation = u32::try_from(self.0 >> 24 & PART).expect("24 bits");
        SessionKey {
            slot: self.index(),
            generation,
        }
    }

    /// Its slot or index.
    pub fn index(self) -> u32 {
        u32::try_from(self.0 & PART).expect("24 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_its_parts() {
        let key = SessionKey {
            slot: 0xab_cdef,
            generation: 0x12_3456,
        };
        for op in Op::ALL {
            let token = Token::session(op, key);
            assert_eq!((token.op(), token.key()), (Some(op), key));
            assert_eq!(Token::plain(op, 77).index(), 77);
        }
        assert_eq!(Token(0xff << 56).op(), None);
    }
}
