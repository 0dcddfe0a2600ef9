//! A direction as a plain value: descriptors, unsent bytes, ends, counters, times; no pointer,
//! nothing in flight. Switching the engine of a live session, moving it to another shard and
//! handing it to another process all go through it.

use std::io::IoSlice;

use super::Shard;
use super::session::{Session, State};
use crate::base::time::Moment;
use crate::flow::{Arm, Direction, FrozenHalf, Half, Reading, Side};
use crate::ring::{Fd, Kernel, Op, Token};

/// A frozen direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrozenDirection {
    /// Where its bytes come from.
    pub source: Fd,
    /// Where they go.
    pub sink: Fd,
    /// Ends, unsent bytes and counters.
    pub half: FrozenHalf,
    /// Last activity of client and server, from which the idle deadlines follow.
    pub active_at: [Moment; 2],
}

impl<K: Kernel> Shard<K> {
    /// Freezes and thaws a direction of the `index`-th relaying session, as soon as its outstanding
    /// receive has ended. False if there is no such session. What it proves in simulation is that
    /// nothing is lost on the way; the engine switch will put its other half between the two.
    pub fn refreeze(&mut self, index: usize, direction: Direction) -> bool {
        let relays = |session: &Session| {
            session.state == State::Relaying
                && session.halves[direction as usize].reading == Reading::Open
        };
        let mut relaying = self.sessions.iter().filter(|(_, s)| relays(s));
        let found = relaying.nth(index).map(|(key, _)| key);
        drop(relaying);
        let Some(key) = found else {
            return false;
        };
        let session = self.sessions.at_mut(key.slot).expect("just found");
        if std::mem::replace(&mut session.freezing[direction as usize], true) {
            return true;
        }
        let op = match direction {
            Direction::Up => Op::ReceiveClient,
            Direction::Down => Op::ReceiveServer,
        };
        if session.halves[direction as usize].arm != Arm::None {
            self.kernel.cancel(Token::session(op, key));
        }
        self.mark_dirty(key.slot, direction);
        true
    }

    /// Freezes and thaws a direction that was asked for and has nothing in flight.
    pub(super) fn freeze_if_asked(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &session.halves[d];
        if !session.freezing[d] || half.arm != Arm::None || half.piped > 0 {
            return;
        }
        session.freezing[d] = false;
        self.unsplice(slot, direction);
        if let Some(frozen) = self.freeze(slot, direction) {
            self.thaw(slot, direction, frozen);
        }
    }

    /// Takes a direction out of its session; `None` while something of it is in flight.
    fn freeze(&mut self, slot: u32, direction: Direction) -> Option<FrozenDirection> {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        if session.halves[d].arm != Arm::None || !session.pieces[d].is_empty() {
            return None;
        }
        let half = session.halves[d].clone();
        let mut unsent = Vec::with_capacity(half.held as usize);
        while unsent.len() < half.held as usize {
            let mut parts = [IoSlice::new(&[]); 16];
            let count = self.private.slices(session.chunks[d], &mut parts);
            let before = unsent.len();
            for part in &parts[..count] {
                unsent.extend_from_slice(part);
            }
            let taken = unsent.len() - before;
            self.private.consume(&mut session.chunks[d], taken);
        }
        let frozen = half.freeze(unsent).ok()?;
        Some(FrozenDirection {
            source: session.fd(direction.source()),
            sink: session.fd(direction.sink()),
            half: frozen,
            active_at: session.active_at,
        })
    }

    /// Puts a frozen direction into its session. It begins blocked or not as its sink's poll will
    /// tell: the next flush tries to send.
    fn thaw(&mut self, slot: u32, direction: Direction, frozen: FrozenDirection) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let reserved = session.halves[d].reserved;
        let (mut half, unsent) = Half::thaw(frozen.half);
        self.private.append(&mut session.chunks[d], &unsent);
        half.held = u32::try_from(unsent.len()).expect("held is bounded");
        half.reserved = reserved;
        half.splice = session.halves[d].splice;
        half.blocked = false;
        session.halves[d] = half;
        session.fds[direction.source() as usize] = frozen.source;
        session.fds[direction.sink() as usize] = frozen.sink;
        for side in Side::BOTH {
            session.active_at[side as usize] = frozen.active_at[side as usize];
        }
        self.mark_dirty(slot, direction);
    }
}
