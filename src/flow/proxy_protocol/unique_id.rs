//! Ids of connections that no other connection has, of this process or of another on this machine.

use std::fmt::Write;

use super::write::Bounded;

/// Start, process, shard and number in hexadecimal, with dashes between them.
const LENGTH: usize = 12 + 1 + 8 + 1 + 4 + 1 + 16;
const _: () = assert!(LENGTH <= super::tlv::UNIQUE_ID_MAX);

/// An id, as text.
pub type UniqueId = Bounded<LENGTH>;

/// Gives the ids of one shard.
#[derive(Clone, Copy, Debug)]
pub struct UniqueIds {
    started_unix_ms: u64,
    process: u32,
    shard: u16,
    given: u64,
}

impl UniqueIds {
    /// Those of a shard of a process that started then.
    pub fn new(started_unix_ms: u64, process: u32, shard: u16) -> UniqueIds {
        UniqueIds {
            started_unix_ms,
            process,
            shard,
            given: 0,
        }
    }

    /// The next number, from 1 on.
    pub fn number(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    /// The id of a number.
    pub fn id(&self, number: u64) -> UniqueId {
        let mut id = UniqueId::EMPTY;
        // Into a buffer of the right size, if milliseconds stay below 2^48, until the year 10889.
        let _ = write!(
            id,
            "{:012x}-{:08x}-{:04x}-{number:016x}",
            self.started_unix_ms, self.process, self.shard
        );
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_in_all_that_makes_them() {
        let mut ids = UniqueIds::new(0x019a_bcde_f012, 4711, 3);
        let numbers = [ids.number(), ids.number()];
        assert_eq!(numbers, [1, 2]);
        let text = |id: UniqueId| String::from_utf8(id.as_bytes().to_vec()).unwrap();
        assert_eq!(
            text(ids.id(1)),
            "019abcdef012-00001267-0003-0000000000000001"
        );
        let largest = UniqueIds::new((1 << 48) - 1, u32::MAX, u16::MAX).id(u64::MAX);
        assert_eq!(largest.as_bytes().len(), LENGTH);
    }
}
