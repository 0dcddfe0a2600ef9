//! Relaying by copy: receive into ring buffers, one inline send per direction and turn, the rest to
//! private memory.
//!
//! After a turn's completions are drained, every touched direction is flushed once. What a sink
//! does not take is copied out at once, so no ring buffer outlives its turn and slow readers can't
//! starve anybody: copying lazily, under pressure only, was measured to be no faster and needs a
//! third list.
//!
//! Small directions are armed at once. Bulk directions wait in a queue from which at most
//! `bulk_per_turn` bytes are armed per turn: that bound is what keeps small exchanges quick beside
//! bulk streams. It is lifted only while a single direction moves data in bulk and nothing small is
//! going on.

use std::io::IoSlice;
use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::listener_counters::ListenerCounter;
use super::pieces;
use super::session::State;
use super::world::FrontCounter;
use crate::base::time::Moment;
use crate::flow::transform::{EXPANSION, OVERHEAD};
use crate::flow::{Arm, Close, Direction, Engine, Reading, Side, Wish, Writing};
use crate::lb::ServerCounter;
use crate::ring::{
    Completion, Errno, Fd, Group, Interest, Kernel, Op, ReceiveError, SendError, Token,
};

/// Pieces of one send. Two rings and private chunks rarely give more, and an iovec costs 16 bytes
/// of stack.
const SEND_PARTS: usize = 16;
/// Window over which directions count as active, for lifting the bulk bound.
const QUIET_WINDOW_MS: u64 = 5;

impl<K: Kernel> Shard<K> {
    /// A receive has completed.
    pub(super) fn on_receive(&mut self, slot: u32, direction: Direction, completion: Completion) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &mut session.halves[d];
        let group = match half.arm {
            Arm::Readiness => return self.on_readable(slot, direction, completion),
            Arm::Bulk(_) => Group::Bulk,
            Arm::Small(_) | Arm::None => Group::Small,
        };
        let length = u32::try_from(completion.result).unwrap_or(0);
        let closing = session.state == State::Closing || half.writing == Writing::Broken;
        if let Some(used) = completion.buffer {
            let list = &mut session.pieces[d];
            let buffers = self.kernel.buffers(group);
            self.taken.clear();
            buffers.take(used.buffer, length, used.more, |piece| {
                self.taken.push(piece)
            });
            for piece in &self.taken {
                if closing {
                    buffers.release(piece.buffer, piece.length);
                } else if let Some(transform) = &mut session.transforms[d] {
                    self.transformed.clear();
                    transform.push(buffers.bytes(*piece), &mut self.transformed);
                    buffers.release(piece.buffer, piece.length);
                    self.private
                        .append(&mut session.chunks[d], &self.transformed);
                    half.held += u32::try_from(self.transformed.len()).expect("bounded");
                } else {
                    self.pieces.push(list, group, *piece);
                }
            }
        }
        if length > 0 {
            let rested_ms = self
                .now
                .ms_since(session.active_at[direction.source() as usize]);
            if half.bulk && self.idle_timer_ms > 0 && rested_ms >= u64::from(self.idle_timer_ms) {
                half.idled();
            }
            if let Arm::Bulk(left) = half.arm {
                // Some kernels' receives go beyond their limit: its next turns pay for that.
                let shares = length.saturating_sub(left) / self.limits.bulk;
                let ahead = u32::from(session.shares_ahead[d]) + shares;
                session.shares_ahead[d] = u8::try_from(ahead).unwrap_or(u8::MAX);
            }
            half.received(length, completion.left);
            session.active_at[direction.source() as usize] = self.now;
            self.count_received(slot, direction, length);
        }
        let session = self.sessions.at_mut(slot).expect("a live session");
        if !completion.more {
            session.halves[d].arm = Arm::None;
            session.in_kernel -= 1;
        }
        if session.state == State::Closing {
            return self.finish_if_quiet(slot);
        }
        if completion.result == 0 {
            session.halves[d].ended();
            self.finish_transform(slot, direction);
        } else if completion.result < 0 {
            self.receive_failed(slot, direction, Errno(-completion.result));
        }
        self.mark_dirty(slot, direction);
    }

    fn receive_failed(&mut self, slot: u32, direction: Direction, errno: Errno) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        match ReceiveError::of(errno) {
            ReceiveError::NoBuffers => {
                self.gauges().buffers_exhausted.fetch_add(1, Relaxed);
                let session = self.sessions.at_mut(slot).expect("a live session");
                session.starved[direction as usize] = true;
                self.starved.push_back((slot, direction));
            }
            ReceiveError::Again | ReceiveError::Cancelled => {}
            ReceiveError::Broken => session.halves[direction as usize].reading = Reading::Broken,
            ReceiveError::Unexpected(errno) => {
                session.halves[direction as usize].reading = Reading::Broken;
                self.unexpected("receive", errno);
            }
        }
    }

    /// The stream has ended: what its transform has kept follows.
    fn finish_transform(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        if let Some(mut transform) = session.transforms[d].take() {
            self.transformed.clear();
            transform.finish(&mut self.transformed);
            self.private
                .append(&mut session.chunks[d], &self.transformed);
            session.halves[d].held += u32::try_from(self.transformed.len()).expect("bounded");
        }
    }

    /// Adds received bytes to the live counters, and notes who is active for the bulk bound.
    pub(super) fn count_received(&mut self, slot: u32, direction: Direction, length: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.halves[1 - direction as usize].splice.answered();
        let bytes = u64::from(length);
        let (front, server, listener) = match direction {
            Direction::Up => (
                FrontCounter::BytesIn,
                ServerCounter::BytesIn,
                ListenerCounter::BytesIn,
            ),
            Direction::Down => (
                FrontCounter::BytesOut,
                ServerCounter::BytesOut,
                ListenerCounter::BytesOut,
            ),
        };
        session
            .frontend
            .counters
            .add(self.id, front as usize, bytes);
        if let Some(counters) = &self.acceptors[usize::from(session.acceptor)].counters {
            counters.add(self.id, listener as usize, bytes);
        }
        if session.connected()
            && let (Some(backend), Some(live)) = (&session.backend, &session.server)
        {
            let counters = self.world.counters_of(backend);
            counters.add(self.id, front as usize, bytes);
            live.counters.add(self.id, server as usize, bytes);
            let half = &session.halves[direction as usize];
            if direction == Direction::Down
                && half.bytes_in == bytes
                && let Some(connected_at) = session.connected_at
            {
                let us = self.now.us_since(connected_at);
                live.timings.first_byte_us.record(self.id, us);
            }
        }
        let me = (slot << 1) | direction as u32;
        if !session.halves[direction as usize].bulk {
            self.activity.small_at = self.now;
        } else if self.activity.bulk != me {
            // Another direction than the last: at least two are active while this stays recent.
            self.activity.bulk = me;
            self.activity.bulk_changed_at = self.now;
        }
    }

    /// Puts a direction into the list of those to flush at the end of the turn.
    pub(super) fn mark_dirty(&mut self, slot: u32, direction: Direction) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        if !std::mem::replace(&mut session.dirty[direction as usize], true) {
            self.dirty.push((slot, direction));
        }
    }

    /// Flushes every touched direction. Flushing may touch others: until nothing is left.
    pub(super) fn flush_dirty(&mut self) {
        let mut at = 0;
        while let Some((slot, direction)) = self.dirty.get(at).copied() {
            at += 1;
            if let Some(session) = self.sessions.at_mut(slot)
                && std::mem::take(&mut session.dirty[direction as usize])
            {
                self.flush(slot, direction);
                self.advance(slot, direction);
            }
        }
        self.dirty.clear();
    }

    /// Sends what a direction has; copies out what its sink does not take.
    pub(super) fn flush(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        loop {
            let session = self.sessions.at_mut(slot).expect("a live session");
            let half = &mut session.halves[d];
            if half.writing != Writing::Open {
                return self.drop_unsent(slot, direction);
            }
            if half.held == 0 && session.pieces[d].is_empty() {
                if half.piped == 0 || half.blocked || !self.flush_pipe(slot, direction) {
                    return;
                }
                continue;
            }
            if half.blocked {
                return self.copy_out(slot, direction);
            }
            let fd = session.fds[direction.sink() as usize];
            let mut parts = [IoSlice::new(&[]); SEND_PARTS];
            let mut count = self.private.slices(session.chunks[d], &mut parts);
            let mut at = session.pieces[d].head;
            while at != pieces::NONE && count < SEND_PARTS {
                let node = self.pieces.at(at);
                let bytes = self.kernel.buffers_ref(node.group).bytes(node.piece);
                parts[count] = IoSlice::new(bytes);
                count += 1;
                at = node.next;
            }
            let offered: usize = parts[..count].iter().map(|part| part.len()).sum();
            match self.kernel.send(fd, &parts[..count]) {
                Ok(sent) => {
                    self.sent(slot, direction, sent);
                    if sent < offered {
                        self.block(slot, direction);
                    }
                }
                Err(errno) => match SendError::of(errno) {
                    SendError::Full => self.block(slot, direction),
                    SendError::Broken => self.side_failed(slot, direction.sink(), Some(errno)),
                    SendError::Unexpected(errno) => {
                        self.unexpected("send", errno);
                        self.side_failed(slot, direction.sink(), Some(errno));
                    }
                },
            }
        }
    }

    /// Takes sent bytes off the direction.
    fn sent(&mut self, slot: u32, direction: Direction, sent: usize) {
        let d = direction as usize;
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.halves[d].bytes_out += sent as u64;
        session.written_at[direction.sink() as usize] = now;
        let left = self.private.consume(&mut session.chunks[d], sent);
        session.halves[d].held -= u32::try_from(sent - left).expect("held is bounded");
        let mut left = u32::try_from(left).expect("pieces are bounded by the rings");
        while let Some((group, piece)) = self.pieces.consume(&mut session.pieces[d], left) {
            left -= piece.length;
            self.kernel
                .buffers(group)
                .release(piece.buffer, piece.length);
        }
        debug_assert!(left == 0, "more was sent than there was");
    }

    /// The sink is full: wait until it is writable. The poll stays armed to the session's end: it
    /// is edge-like, costs nothing while idle, and also tells of the peer's death.
    pub(super) fn block(&mut self, slot: u32, direction: Direction) {
        self.gauges().sends_short.fetch_add(1, Relaxed);
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.halves[direction as usize].blocked = true;
        self.watch(slot, direction.sink());
    }

    /// Arms the sticky poll of a side.
    pub(super) fn watch(&mut self, slot: u32, side: Side) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        if std::mem::replace(&mut session.polled[side as usize], true) {
            return;
        }
        session.in_kernel += 1;
        let op = match side {
            Side::Client => Op::PollClient,
            Side::Server => Op::PollServer,
        };
        let (fd, token) = (session.fd(side), Token::session(op, session.key));
        self.kernel.poll(fd, Interest::Write, true, token);
    }

    /// The sticky poll of a side says something.
    pub(super) fn on_poll(&mut self, slot: u32, side: Side, completion: Completion) {
        let readiness = self.kernel.readiness(completion.result);
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        if !completion.more {
            session.polled[side as usize] = false;
            session.in_kernel -= 1;
        }
        if session.state == State::Closing {
            return self.finish_if_quiet(slot);
        }
        let into = side.writes();
        let connected = side == Side::Client || session.connected();
        if readiness.failed && completion.result >= 0 {
            self.side_failed(slot, side, None);
        } else if readiness.writable && connected && session.halves[into as usize].blocked {
            session.halves[into as usize].blocked = false;
            // The source was held back until now: its silence so far was ours.
            session.active_at[into.source() as usize] = now;
            self.mark_dirty(slot, into);
        }
        // A poll that has ended by itself (completion queue full) is armed anew where it is needed.
        let Some(session) = self.sessions.at(slot) else {
            return;
        };
        if !completion.more && session.state != State::Closing {
            let half = &session.halves[into as usize];
            if connected && half.blocked && half.writing == Writing::Open {
                self.watch(slot, side);
            }
        }
    }

    /// Copies a direction's pieces to private memory.
    fn copy_out(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let mut copied = 0u64;
        while let Some((group, piece)) = self.pieces.consume(&mut session.pieces[d], u32::MAX) {
            let bytes = self.kernel.buffers_ref(group).bytes(piece);
            self.private.append(&mut session.chunks[d], bytes);
            session.halves[d].held += piece.length;
            copied += u64::from(piece.length);
            self.kernel
                .buffers(group)
                .release(piece.buffer, piece.length);
        }
        self.gauges().copied_out_bytes.fetch_add(copied, Relaxed);
    }

    /// Drops what a direction has and its sink will never take.
    pub(super) fn drop_unsent(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        while let Some((group, piece)) = self.pieces.consume(&mut session.pieces[d], u32::MAX) {
            self.kernel
                .buffers(group)
                .release(piece.buffer, piece.length);
        }
        self.private
            .consume(&mut session.chunks[d], session.halves[d].held as usize);
        session.halves[d].held = 0;
        self.drop_pipe(slot, direction);
    }

    /// After a flush: pass ends on, arm the next receive, or end the session.
    pub(super) fn advance(&mut self, slot: u32, direction: Direction) {
        let session = self.sessions.at(slot).expect("a live session");
        match session.state {
            State::Closing | State::Prelude { .. } => return,
            State::Flushing { .. } => return self.flushing(slot),
            State::Waiting { .. }
            | State::Connecting { .. }
            | State::ConnectEnding { .. }
            | State::Resting { .. }
            | State::Relaying => {}
        }
        self.settle_reservation(slot, direction);
        self.freeze_if_asked(slot, direction);
        let session = self.sessions.at(slot).expect("a live session");
        let half = &session.halves[direction as usize];
        match half.reading {
            Reading::Open => self.arm_next(slot, direction),
            Reading::Broken => self.source_broken(slot, direction),
            Reading::Ended => {
                if !session.connected() {
                    return self.client_ended_early(slot);
                }
                if half.may_finish() {
                    self.pass_end(slot, direction);
                }
                self.end_if_done(slot);
            }
        }
    }

    /// Everything a finished direction had is out: passes the FIN on.
    fn pass_end(&mut self, slot: u32, direction: Direction) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.halves[direction as usize].writing = Writing::Finished;
        let other = match direction {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        };
        // Where the other way is at its end too, the close that follows sends the FIN.
        if session.halves[other as usize].done() {
            return;
        }
        let back = session.backend.as_ref().and_then(|b| b.proxy.back.as_ref());
        if direction == Direction::Up && back.is_some_and(|back| back.nolinger) {
            // The server is told by a reset, which ends both ways.
            session.resets[Side::Server as usize] = true;
            return self.begin_close(slot, Close::FINISHED);
        }
        session.closed_first |= direction == Direction::Up
            && session.halves[Direction::Down as usize].reading == Reading::Open;
        let fd = session.fd(direction.sink());
        if self.kernel.shutdown_write(fd).is_err() {
            self.side_failed(slot, direction.sink(), None);
        } else {
            self.retime(slot);
        }
    }

    /// Arms the receive a direction wishes for, or queues it.
    pub(super) fn arm_next(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let waits = session.starved[d] || session.queued[d] || session.freezing[d];
        if waits || session.fd(direction.source()) == Fd::NONE {
            return;
        }
        if self.splice_next(slot, direction) {
            return;
        }
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.halves[d].taken = session.chunks[d].taken;
        let wish = session.halves[d].wish(&self.limits);
        if session.transforms[d].is_some() {
            return self.arm_transformed(slot, direction, wish);
        }
        match wish {
            Wish::Nothing => {
                // Held back: only the sticky poll can tell of the source's death now.
                if !session.halves[d].listens() && session.halves[d].reading == Reading::Open {
                    self.watch(slot, direction.source());
                }
            }
            Wish::Small { reserve } => {
                if self.reserve(slot, direction, reserve) {
                    self.receive(slot, direction, Arm::Small(self.limits.small));
                } else {
                    self.watch(slot, direction.source());
                }
            }
            Wish::Bulk { reserve } => {
                if self.reserve(slot, direction, reserve) {
                    let session = self.sessions.at_mut(slot).expect("a live session");
                    session.queued[d] = true;
                    self.bulk_queue.push_back((slot, direction));
                } else if session_held(self, slot, direction) == 0 {
                    self.receive(slot, direction, Arm::Small(self.limits.small));
                } else {
                    self.watch(slot, direction.source());
                }
            }
        }
    }

    /// A transformed direction holds its output: it receives little enough that the most its
    /// transform can make of it fits what the direction owns, and only when it is empty.
    fn arm_transformed(&mut self, slot: u32, direction: Direction, wish: Wish) {
        let session = self.sessions.at(slot).expect("a live session");
        let half = &session.halves[direction as usize];
        if half.reading != Reading::Open || half.listens() {
            return;
        }
        if wish == Wish::Nothing || half.held > 0 {
            return self.watch(slot, direction.source());
        }
        let limit = (self.limits.small - OVERHEAD) / EXPANSION;
        self.receive(slot, direction, Arm::Small(limit));
    }

    fn receive(&mut self, slot: u32, direction: Direction, arm: Arm) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        debug_assert_eq!(session.halves[direction as usize].arm, Arm::None);
        session.halves[direction as usize].arm = arm;
        session.in_kernel += 1;
        let op = match direction {
            Direction::Up => Op::ReceiveClient,
            Direction::Down => Op::ReceiveServer,
        };
        let (fd, token) = (
            session.fd(direction.source()),
            Token::session(op, session.key),
        );
        let group = match arm {
            Arm::Bulk(_) => Group::Bulk,
            Arm::Small(_) | Arm::None | Arm::Readiness => Group::Small,
        };
        self.kernel.receive(fd, group, arm.left(), token);
    }

    /// Reserves private memory for a receive.
    fn reserve(&mut self, slot: u32, direction: Direction, bytes: u32) -> bool {
        if bytes == 0 {
            return true;
        }
        let (reserved, max) = (&self.world.memory_reserved, self.reservable);
        if !self.budget.reserve(u64::from(bytes), reserved, max) {
            self.gauges().memory_refusals.fetch_add(1, Relaxed);
            return false;
        }
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.halves[direction as usize].reserved += bytes;
        true
    }

    /// Gives back what a direction no longer needs reserved.
    pub(super) fn settle_reservation(&mut self, slot: u32, direction: Direction) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &mut session.halves[direction as usize];
        if half.reserved == 0 || session.queued[direction as usize] {
            return;
        }
        half.taken = session.chunks[direction as usize].taken;
        let surplus = half.surplus(&self.limits);
        half.reserved -= surplus;
        self.budget
            .release(u64::from(surplus), &self.world.memory_reserved);
    }

    /// Arms those that found no buffer, as far as buffers are back.
    pub(super) fn arm_starved(&mut self) {
        let available = |shard: &Self, group| shard.kernel.buffers_ref(group).available();
        // Arming all of many at once only makes most of them fail again: twice the buffers is
        // enough to use them all.
        let mut room = 2 * (available(self, Group::Small) + available(self, Group::Bulk));
        while room > 0 {
            let Some((slot, direction)) = self.starved.pop_front() else {
                return;
            };
            if let Some(session) = self.sessions.at_mut(slot)
                && std::mem::take(&mut session.starved[direction as usize])
                && session.state != State::Closing
            {
                room -= 1;
                self.arm_next(slot, direction);
            }
        }
    }

    /// Arms bulk directions from the front of their queue, within the turn's byte budget.
    pub(super) fn arm_bulk(&mut self) {
        let alone = self.bulk_is_alone();
        let mut left = self.bulk_per_turn;
        let mut looks = self.bulk_queue.len();
        while looks > 0 && left > 0 {
            let Some((slot, direction)) = self.bulk_queue.pop_front() else {
                return;
            };
            let Some(session) = self.sessions.at_mut(slot) else {
                looks -= 1;
                continue;
            };
            let d = direction as usize;
            if session.queued[d] && session.shares_ahead[d] > 0 {
                // What it has had of this round others have not.
                session.shares_ahead[d] -= 1;
                self.bulk_queue.push_back((slot, direction));
                continue;
            }
            looks -= 1;
            if !std::mem::take(&mut session.queued[d]) || session.state == State::Closing {
                continue;
            }
            let half = &session.halves[d];
            if half.reading != Reading::Open || half.arm != Arm::None {
                continue;
            }
            let held = half.held;
            let weight = self.acceptors[usize::from(session.acceptor)].bulk_weight;
            if half.splice.engine == Engine::Spliced {
                let moved = self.splice_turn(slot, direction, weight, alone);
                left = left.saturating_sub(moved);
                continue;
            }
            let mut limit = self.limits.bulk;
            if alone && held == 0 {
                let more = self.bulk_alone_limit - limit;
                if self.reserve(slot, direction, more) {
                    limit = self.bulk_alone_limit;
                }
            } else if weight < 1024 {
                limit = limit / 1024 * weight;
            } else if weight > 1024 && held == 0 {
                let more = (limit / 1024 * (weight - 1024)).min(self.bulk_per_turn - limit);
                if self.reserve(slot, direction, more) {
                    limit += more;
                }
            }
            left = left.saturating_sub(limit);
            self.receive(slot, direction, Arm::Bulk(limit));
        }
    }

    /// Whether for a while one direction only has moved data, and in bulk.
    fn bulk_is_alone(&self) -> bool {
        let since = |then: Moment| self.now.ms_since(then) >= QUIET_WINDOW_MS;
        since(self.activity.small_at) && since(self.activity.bulk_changed_at)
    }
}

/// Bytes a direction holds.
fn session_held<K: Kernel>(shard: &Shard<K>, slot: u32, direction: Direction) -> u32 {
    shard
        .sessions
        .at(slot)
        .map_or(0, |session| session.halves[direction as usize].held)
}
