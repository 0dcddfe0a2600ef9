//! One direction of a session: what it has, what it may ask for next, when it is at its end.
//!
//! Bytes arrive in ring pieces, leave within the same turn or are copied to private memory. Nothing
//! here points anywhere: the shard keeps the lists, this file keeps the counts and takes the
//! decisions.
//!
//! Private memory is bounded by reservation, in bytes of the chunks it takes. Every direction owns
//! what a small receive may take implicitly (it is set aside for `maxconn` sessions at start);
//! whatever it may come to take above that must be reserved before a receive is armed. So the
//! process-wide budget can't be exceeded by data that is already under way.

use super::splice::Splice;

/// Bounds that are the same for all directions of a shard, bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A receive of a direction not known to be bulk; what it may take, each direction has
    /// unreserved.
    pub small: u32,
    /// A receive of a bulk direction.
    pub bulk: u32,
    /// A direction that holds more than this receives no more.
    pub held_max: u32,
}

/// So many bytes at once make a direction bulk: a full 16 KiB TLS record or a large segment train
/// (measured: reference figures separate messages from bulk here). A receive may have taken a part
/// of them only: where memory is scarce or buffers are small it takes no more than a page.
const BULK_READ: u32 = 16 << 10;
/// Reads below this many bytes count towards unmaking it.
const SMALL_READ: u32 = 4 << 10;
/// So many small reads in a row make a bulk direction small again.
const SMALL_RUN: u8 = 16;

/// The smallest chunk of private memory, bytes: a page.
const CHUNK_MIN: u32 = 4 << 10;
/// What the largest chunk may waste: half of its 64 KiB.
const WASTE_MAX: u32 = 32 << 10;

/// Bytes of chunks that receiving `bytes` may take, in whatever pieces they come. All chunks but
/// the last are full, and the last, if it is larger than the smallest, is more than half full.
pub fn taken_at_most(bytes: u32) -> u32 {
    let whole = bytes.next_multiple_of(CHUNK_MIN);
    if whole <= CHUNK_MIN {
        whole
    } else {
        whole + whole.min(WASTE_MAX)
    }
}

/// The reading end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Bytes may come.
    Open,
    /// The peer has sent its FIN.
    Ended,
    /// The peer has reset the connection.
    Broken,
}

/// The writing end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writing {
    /// Bytes may go.
    Open,
    /// Our FIN is out.
    Finished,
    /// The peer takes nothing any more: what comes is dropped.
    Broken,
}

/// The receive a direction has outstanding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arm {
    /// None.
    None,
    /// One of the small ring; so many bytes may still come.
    Small(u32),
    /// One of the bulk ring; so many bytes may still come.
    Bulk(u32),
    /// A poll: it is spliced, and waits for something to be there.
    Readiness,
}

impl Arm {
    /// Bytes that may still come.
    pub fn left(self) -> u32 {
        match self {
            Arm::None | Arm::Readiness => 0,
            Arm::Small(left) | Arm::Bulk(left) => left,
        }
    }
}

/// What a direction would like to arm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Nothing now.
    Nothing,
    /// A small receive; `reserve` bytes must be reserved for it first.
    Small {
        /// Bytes to reserve.
        reserve: u32,
    },
    /// A place in the queue of bulk receives; if the reservation fails and the direction is empty,
    /// a small receive instead.
    Bulk {
        /// Bytes to reserve.
        reserve: u32,
    },
}

/// One direction.
#[derive(Clone, Debug)]
pub struct Half {
    /// Reading end.
    pub reading: Reading,
    /// Writing end.
    pub writing: Writing,
    /// Outstanding receive.
    pub arm: Arm,
    /// The sink takes nothing now: full, or not connected yet.
    pub blocked: bool,
    /// It moves data in bulk.
    pub bulk: bool,
    small_run: u8,
    /// Bytes of reads in a row that left something, as far as they matter.
    at_once: u16,
    /// A send to the source has failed: an end of stream read afterwards is its reset (the failed
    /// send took the socket's error with it).
    pub source_failed: bool,
    /// Its engine, and what decides about it.
    pub splice: Splice,
    /// Bytes in private memory.
    pub held: u32,
    /// Bytes in its pipe. They are sent before any others come.
    pub piped: u32,
    /// Bytes of the chunks they take.
    pub taken: u32,
    /// Bytes reserved of the budget.
    pub reserved: u32,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

impl Half {
    /// A direction at its start. `blocked` while its sink is not connected.
    pub fn new(blocked: bool) -> Half {
        Half {
            reading: Reading::Open,
            writing: Writing::Open,
            arm: Arm::None,
            blocked,
            bulk: false,
            small_run: 0,
            at_once: 0,
            source_failed: false,
            splice: Splice::default(),
            held: 0,
            piped: 0,
            taken: 0,
            reserved: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Notes received bytes; `left` = there was more.
    pub fn received(&mut self, bytes: u32, left: bool) {
        self.bytes_in += u64::from(bytes);
        self.splice.received(bytes);
        self.arm = match self.arm {
            Arm::None | Arm::Readiness => Arm::None,
            Arm::Small(left) => Arm::Small(left.saturating_sub(bytes)),
            Arm::Bulk(left) => Arm::Bulk(left.saturating_sub(bytes)),
        };
        let at_once = bytes.min(BULK_READ) + u32::from(self.at_once);
        self.at_once = match left {
            true => u16::try_from(at_once).unwrap_or(u16::MAX),
            false => 0,
        };
        if at_once >= BULK_READ {
            self.bulk = true;
            self.small_run = 0;
        } else if bytes < SMALL_READ && self.bulk {
            self.small_run += 1;
            if self.small_run >= SMALL_RUN {
                self.bulk = false;
                self.small_run = 0;
            }
        }
    }

    /// Notes that nothing came for so long that it is no bulk any more.
    pub fn idled(&mut self) {
        self.bulk = false;
        self.small_run = 0;
    }

    /// Notes an end of stream.
    pub fn ended(&mut self) {
        if self.reading == Reading::Open {
            self.reading = if self.source_failed {
                Reading::Broken
            } else {
                Reading::Ended
            };
        }
    }

    /// What to arm next, if its memory can be reserved.
    pub fn wish(&self, limits: &Limits) -> Wish {
        if self.reading != Reading::Open || self.arm != Arm::None {
            return Wish::Nothing;
        }
        if self.writing == Writing::Broken {
            // Draining: what comes is dropped, nothing is held.
            return Wish::Small { reserve: 0 };
        }
        if self.held > limits.held_max {
            return Wish::Nothing;
        }
        if self.bulk && limits.bulk > limits.small {
            Wish::Bulk {
                reserve: self.shortage(limits, limits.bulk),
            }
        } else {
            Wish::Small {
                reserve: self.shortage(limits, limits.small),
            }
        }
    }

    /// Bytes missing in the reservation for a receive of `limit`.
    fn shortage(&self, limits: &Limits, limit: u32) -> u32 {
        let owned = taken_at_most(limits.small) + self.reserved;
        (self.taken + taken_at_most(limit)).saturating_sub(owned)
    }

    /// Bytes reserved that nothing needs any more.
    pub fn surplus(&self, limits: &Limits) -> u32 {
        let most = self.taken + taken_at_most(self.arm.left());
        let needed = most.saturating_sub(taken_at_most(limits.small));
        self.reserved.saturating_sub(needed)
    }

    /// Whether the FIN may go out: the stream has ended and everything was sent.
    pub fn may_finish(&self) -> bool {
        self.reading == Reading::Ended && self.writing == Writing::Open && self.unsent() == 0
    }

    /// Bytes that were received and are not sent, of those that outlive a turn.
    pub fn unsent(&self) -> u32 {
        self.held + self.piped
    }

    /// Whether nothing more will happen in this direction.
    pub fn done(&self) -> bool {
        match self.writing {
            Writing::Open => false,
            Writing::Finished => true,
            Writing::Broken => self.reading != Reading::Open,
        }
    }

    /// Whether the source could be read from if it had something: false under back-pressure.
    pub fn listens(&self) -> bool {
        self.reading == Reading::Open && self.arm != Arm::None
    }

    /// The direction as a plain value, with its unsent bytes: for an engine switch, a move to
    /// another shard or a hand-over. Only a direction without an outstanding receive can be frozen.
    pub fn freeze(self, unsent: Vec<u8>) -> Result<FrozenHalf, Half> {
        if self.arm != Arm::None || self.piped > 0 || unsent.len() != self.held as usize {
            return Err(self);
        }
        Ok(FrozenHalf {
            reading: self.reading,
            writing: self.writing,
            source_failed: self.source_failed,
            bulk: self.bulk,
            unsent,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        })
    }

    /// The direction a frozen value describes; its unsent bytes go back to private memory by the
    /// caller.
    pub fn thaw(frozen: FrozenHalf) -> (Half, Vec<u8>) {
        let mut half = Half::new(true);
        half.reading = frozen.reading;
        half.writing = frozen.writing;
        half.source_failed = frozen.source_failed;
        half.bulk = frozen.bulk;
        half.bytes_in = frozen.bytes_in;
        half.bytes_out = frozen.bytes_out;
        (half, frozen.unsent)
    }
}

/// A direction as a plain value: nothing in flight, no pointer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrozenHalf {
    /// Reading end.
    pub reading: Reading,
    /// Writing end.
    pub writing: Writing,
    /// See [`Half::source_failed`].
    pub source_failed: bool,
    /// It moves data in bulk.
    pub bulk: bool,
    /// Bytes received and not sent.
    pub unsent: Vec<u8>,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        small: 32 << 10,
        bulk: 256 << 10,
        held_max: 128 << 10,
    };

    #[test]
    fn big_reads_make_bulk_and_sixteen_small_ones_unmake_it() {
        let mut half = Half::new(false);
        half.received(BULK_READ, false);
        assert!(half.bulk);
        for _ in 0..15 {
            half.received(64, false);
        }
        half.received(BULK_READ, false);
        for _ in 0..15 {
            half.received(64, false);
        }
        assert!(half.bulk);
        half.received(64, false);
        assert!(!half.bulk);
    }

    #[test]
    fn small_receives_of_much_at_once_make_bulk_too() {
        let page = 4 << 10;
        let mut half = Half::new(false);
        for _ in 0..100 {
            // Messages of a page, or of two.
            half.received(page, true);
            half.received(page, false);
            half.received(page, false);
        }
        assert!(!half.bulk);
        for _ in 0..3 {
            half.received(page, true);
            assert!(!half.bulk);
        }
        half.received(page, false);
        assert!(half.bulk);
    }

    #[test]
    fn a_rest_unmakes_bulk_and_the_next_big_read_makes_it_again() {
        let mut half = Half::new(false);
        half.received(BULK_READ, false);
        half.idled();
        half.received(64, false);
        assert!(!half.bulk);
        half.received(BULK_READ, false);
        assert!(half.bulk);
    }

    #[test]
    fn an_empty_small_direction_needs_no_reservation() {
        let mut half = Half::new(false);
        assert_eq!(half.wish(&LIMITS), Wish::Small { reserve: 0 });
        (half.held, half.taken) = (100, CHUNK_MIN);
        assert_eq!(half.wish(&LIMITS), Wish::Small { reserve: CHUNK_MIN });
        half.reserved = CHUNK_MIN;
        assert_eq!(half.wish(&LIMITS), Wish::Small { reserve: 0 });
        half.held = LIMITS.held_max + 1;
        assert_eq!(half.wish(&LIMITS), Wish::Nothing);
    }

    #[test]
    fn a_bulk_direction_reserves_what_it_may_come_to_hold() {
        let mut half = Half::new(false);
        half.bulk = true;
        let above = taken_at_most(LIMITS.bulk) - taken_at_most(LIMITS.small);
        assert_eq!(half.wish(&LIMITS), Wish::Bulk { reserve: above });
        half.reserved = above;
        half.arm = Arm::Bulk(LIMITS.bulk);
        assert_eq!(half.surplus(&LIMITS), 0);
        half.received(LIMITS.bulk, false);
        half.arm = Arm::None;
        assert_eq!(half.surplus(&LIMITS), above);
        (half.held, half.taken) = (LIMITS.bulk, taken_at_most(LIMITS.bulk));
        assert_eq!(half.surplus(&LIMITS), 0);
    }

    #[test]
    fn an_end_after_a_failed_send_is_a_reset() {
        let mut half = Half::new(false);
        half.source_failed = true;
        half.ended();
        assert_eq!(half.reading, Reading::Broken);
        let mut half = Half::new(false);
        half.ended();
        half.source_failed = true;
        half.ended();
        assert_eq!(half.reading, Reading::Ended);
    }

    #[test]
    fn freezing_needs_nothing_in_flight_and_thawing_brings_it_back() {
        let mut half = Half::new(false);
        half.arm = Arm::Small(10);
        let mut half = half
            .freeze(Vec::new())
            .expect_err("a receive is outstanding");
        half.arm = Arm::None;
        half.held = 3;
        half.bytes_in = 7;
        half.reading = Reading::Ended;
        let frozen = half.freeze(b"abc".to_vec()).expect("nothing in flight");
        let (half, unsent) = Half::thaw(frozen);
        assert_eq!(
            (half.bytes_in, half.reading, unsent),
            (7, Reading::Ended, b"abc".to_vec())
        );
    }
}
