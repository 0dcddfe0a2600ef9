//! Relaying by splice: readiness from the ring, bytes by splice(2) through a pipe, unseen.
//!
//! A direction goes over only while it relays, has no transform, holds nothing and has no receive
//! outstanding; it goes back only when its pipe is empty. It waits for bytes by a poll in the place
//! of its receive, then queues for its share of the turn beside bulk receives. It has a pipe only
//! while there are bytes in it, and reads only into an empty one: then EAGAIN says that the socket
//! is empty, not that the pipe is full. What its sink doesn't take stays in the pipe, which counts
//! as held, until the sink is writable.

use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::pipes::{self, NoPipe};
use super::session::State;
use crate::flow::{Arm, Direction, Engine, Reading, Splicing, Writing};
use crate::ring::{Completion, Errno, Interest, Kernel, Op, Pipe, ReceiveError, SendError, Token};

impl<K: Kernel> Shard<K> {
    /// Decides how the directions of a session that begins to relay may be moved.
    pub(super) fn choose_engines(&mut self, slot: u32) {
        let most = self.world.pipes_max;
        let session = self.sessions.at_mut(slot).expect("a live session");
        if !self.world.plan.global.splice || most == 0 {
            return;
        }
        let backend = session.backend.as_ref().map(|backend| backend.proxy.splice);
        let asked = session
            .frontend
            .proxy
            .splice
            .or(backend.unwrap_or_default());
        for direction in Direction::BOTH {
            let always = match direction {
                Direction::Up => asked.request,
                Direction::Down => asked.response,
            };
            session.halves[direction as usize].splice.splicing = match (always, asked.auto) {
                (true, _) => Splicing::Always,
                (false, true) => Splicing::Auto,
                (false, false) => Splicing::Adaptive,
            };
        }
    }

    /// Ends a window of the shard's load when it is over.
    pub(super) fn measure_load(&mut self) {
        if self.load.window_is_over(self.now.0) {
            let worked_ns = self.kernel.worked_ns();
            self.gauges().worked_ns.store(worked_ns, Relaxed);
            self.load.end_window(self.now.0, worked_ns);
        }
    }

    /// Gives back pipes that rest.
    pub(super) fn look_through_pipes(&mut self) {
        let made = &self.world.pipes_made;
        self.pipes.look_through(self.now, &self.kernel, made);
    }

    /// Has a direction of the `index`-th relaying session change its engine as soon as it can
    /// (simulation): between bulk reads and small ones, whatever the policy says. False if there is
    /// no such session.
    pub fn switch_engine(&mut self, index: usize, direction: Direction) -> bool {
        let d = direction as usize;
        let mut relaying = self.sessions.iter().filter(|(_, session)| {
            session.state == State::Relaying && session.halves[d].reading == Reading::Open
        });
        let found = relaying.nth(index).map(|(key, _)| key);
        drop(relaying);
        let Some(key) = found else {
            return false;
        };
        let session = self.sessions.at_mut(key.slot).expect("just found");
        let half = &mut session.halves[d];
        half.splice.splicing = match half.splice.engine {
            Engine::Copy => Splicing::Always,
            Engine::Spliced => Splicing::Never,
        };
        let op = match direction {
            Direction::Up => Op::ReceiveClient,
            Direction::Down => Op::ReceiveServer,
        };
        if half.arm != Arm::None {
            self.kernel.cancel(Token::session(op, key));
        }
        self.mark_dirty(key.slot, direction);
        true
    }

    /// What a direction does next that wants bytes, if splicing is its way: true = no receive is to
    /// be armed.
    pub(super) fn splice_next(&mut self, slot: u32, direction: Direction) -> bool {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &session.halves[d];
        let usable = session.state == State::Relaying
            && half.reading == Reading::Open
            && half.writing == Writing::Open
            && session.transforms[d].is_none();
        match half.splice.engine {
            Engine::Spliced if usable => {
                self.await_bytes(slot, direction);
                true
            }
            Engine::Spliced => {
                // What it still has to read is dropped.
                self.unsplice(slot, direction);
                false
            }
            Engine::Copy if !usable || half.arm != Arm::None => false,
            Engine::Copy if !half.splice.wants_pipe(self.load.permille()) => false,
            Engine::Copy if !self.pipes.may_lend(self.now, &self.world.pipes_made) => false,
            Engine::Copy if half.held > 0 => {
                // Once its sink has taken that, it goes over.
                self.watch(slot, direction.source());
                true
            }
            Engine::Copy => {
                self.splice(slot, direction);
                self.await_bytes(slot, direction);
                true
            }
        }
    }

    fn splice(&mut self, slot: u32, direction: Direction) {
        self.gauges().splice_promotions.fetch_add(1, Relaxed);
        let session = self.sessions.at_mut(slot).expect("a live session");
        debug_assert!(session.pieces[direction as usize].is_empty());
        let half = &mut session.halves[direction as usize];
        half.splice.switch(Engine::Spliced);
    }

    /// Gives a direction without bytes in its pipe back to copying.
    pub(super) fn unsplice(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        if session.halves[d].splice.engine == Engine::Copy {
            return;
        }
        debug_assert_eq!(
            session.halves[d].piped, 0,
            "copied past what is in the pipe"
        );
        session.halves[d].splice.switch(Engine::Copy);
        // Its place in the queue was one without a reservation.
        session.queued[d] = false;
        self.gauges().splice_demotions.fetch_add(1, Relaxed);
    }

    /// Waits for bytes of the source, unless what came before is still in the pipe.
    fn await_bytes(&mut self, slot: u32, direction: Direction) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &mut session.halves[direction as usize];
        if half.arm != Arm::None {
            return;
        }
        if half.piped > 0 {
            // Held back: only the sticky poll can tell of the source's death now.
            return self.watch(slot, direction.source());
        }
        half.arm = Arm::Readiness;
        session.in_kernel += 1;
        let op = match direction {
            Direction::Up => Op::ReceiveClient,
            Direction::Down => Op::ReceiveServer,
        };
        let (fd, token) = (
            session.fd(direction.source()),
            Token::session(op, session.key),
        );
        self.kernel.poll(fd, Interest::Read, false, token);
    }

    /// The source of a spliced direction has something, or the poll was cancelled.
    pub(super) fn on_readable(&mut self, slot: u32, direction: Direction, completion: Completion) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        debug_assert!(!completion.more, "a single poll");
        session.halves[d].arm = Arm::None;
        session.in_kernel -= 1;
        match session.state {
            State::Closing => self.finish_if_quiet(slot),
            State::Relaying if completion.result >= 0 => self.queue(slot, direction),
            _ => {
                if completion.result < 0 && completion.result != -libc::ECANCELED {
                    self.unfit(slot, direction);
                    self.unexpected("poll", Errno(-completion.result));
                }
                self.mark_dirty(slot, direction);
            }
        }
    }

    fn queue(&mut self, slot: u32, direction: Direction) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        if !std::mem::replace(&mut session.queued[direction as usize], true) {
            self.bulk_queue.push_back((slot, direction));
        }
    }

    /// A spliced direction has its share of a turn: reads once into a pipe and sends what it can of
    /// that. Gives the bytes read.
    pub(super) fn splice_turn(
        &mut self,
        slot: u32,
        direction: Direction,
        weight: u32,
        alone: bool,
    ) -> u32 {
        let d = direction as usize;
        let (now, load) = (self.now, self.load.permille());
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &session.halves[d];
        let rested_ms = now.ms_since(session.active_at[direction.source() as usize]);
        let usable = session.state == State::Relaying && half.writing == Writing::Open;
        debug_assert_eq!(half.piped, 0, "read past what is in the pipe");
        if !usable || half.splice.wants_copy(load, rested_ms) {
            self.unsplice(slot, direction);
            self.advance(slot, direction);
            return 0;
        }
        let lent = self.pipes.lend(&self.kernel, now, &self.world.pipes_made);
        let (number, pipe) = match lent {
            Ok(lent) => lent,
            Err(why) => {
                self.without_pipe(slot, direction, why);
                return 0;
            }
        };
        let share = self.share(weight, alone).min(pipe.size);
        let session = self.sessions.at_mut(slot).expect("a live session");
        let fd = session.fd(direction.source());
        let result = self.kernel.splice_in(fd, pipe, share);
        let count = match result {
            Ok(count) if count > 0 => u32::try_from(count).expect("at most what was asked for"),
            Ok(_) => {
                self.pipes.give_back(number, now);
                session.halves[d].ended();
                self.advance(slot, direction);
                return 0;
            }
            Err(errno) => {
                self.pipes.give_back(number, now);
                self.splice_in_failed(slot, direction, errno);
                return 0;
            }
        };
        let half = &mut session.halves[d];
        half.received(count, false);
        half.piped = count;
        session.pipes[d] = number;
        session.active_at[direction.source() as usize] = now;
        self.count_received(slot, direction, count);
        self.flush(slot, direction);
        let session = self.sessions.at(slot).expect("a live session");
        let half = &session.halves[d];
        let goes_on = session.state == State::Relaying && half.writing == Writing::Open;
        if goes_on && count == share && half.piped == 0 && !session.freezing[d] {
            // There is probably more: no poll is needed to know.
            self.queue(slot, direction);
        } else {
            self.advance(slot, direction);
        }
        count
    }

    /// Bytes that a spliced direction may read in a turn: what a bulk receive would be.
    fn share(&self, weight: u32, alone: bool) -> u32 {
        let weighted = self.limits.bulk / 1024 * weight;
        if alone {
            self.bulk_alone_limit
        } else {
            weighted.clamp(1, self.bulk_per_turn)
        }
    }

    /// A direction that was to be spliced gets no pipe: it goes on by copying.
    fn without_pipe(&mut self, slot: u32, direction: Direction, why: NoPipe) {
        self.gauges().pipes_refused.fetch_add(1, Relaxed);
        if let NoPipe::Unexpected(errno) = why {
            self.unexpected("pipe", errno);
        }
        self.unsplice(slot, direction);
        self.advance(slot, direction);
    }

    fn splice_in_failed(&mut self, slot: u32, direction: Direction, errno: Errno) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &mut session.halves[direction as usize];
        match (errno.0, ReceiveError::of(errno)) {
            (libc::EINVAL, _) => self.unfit(slot, direction),
            // The kernel is short of memory: a receive waits where a splice fails.
            (libc::ENOMEM, _) | (_, ReceiveError::NoBuffers) => {
                return self.without_pipe(slot, direction, NoPipe::Refused);
            }
            (_, ReceiveError::Again | ReceiveError::Cancelled) => {
                half.splice.found_nothing();
                if half.splice.splicing == Splicing::Never {
                    self.unfit(slot, direction);
                }
            }
            (_, ReceiveError::Broken) => half.reading = Reading::Broken,
            (_, ReceiveError::Unexpected(errno)) => {
                half.reading = Reading::Broken;
                self.unexpected("splice", errno);
            }
        }
        self.advance(slot, direction);
    }

    /// A direction can't be spliced: it is copied for good, once its pipe is empty.
    fn unfit(&mut self, slot: u32, direction: Direction) {
        self.gauges().splice_unfit.fetch_add(1, Relaxed);
        let session = self.sessions.at_mut(slot).expect("a live session");
        let half = &mut session.halves[direction as usize];
        half.splice.bar();
        if half.piped == 0 {
            self.unsplice(slot, direction);
        }
    }

    /// Sends from a direction's pipe to a sink that isn't known to be full. False = nothing more
    /// can be done now.
    pub(super) fn flush_pipe(&mut self, slot: u32, direction: Direction) -> bool {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let pipe = self.pipes.at(session.pipes[d]);
        let half = &session.halves[d];
        if half.splice.splicing == Splicing::Never {
            return self.empty_pipe(slot, direction, pipe);
        }
        let fd = session.fds[direction.sink() as usize];
        match self.kernel.splice_out(pipe, fd, half.piped) {
            Ok(count) if count > 0 => {
                session.halves[d].bytes_out += count as u64;
                session.written_at[direction.sink() as usize] = self.now;
                let gauges = self.gauges();
                gauges.spliced_bytes.fetch_add(count as u64, Relaxed);
                self.left_pipe(slot, direction, count);
            }
            Ok(_) => {
                self.unexpected("splice", Errno(libc::ENODATA));
                self.side_failed(slot, direction.sink(), None);
            }
            Err(Errno(libc::EINVAL)) => self.unfit(slot, direction),
            Err(errno) => match SendError::of(errno) {
                SendError::Full => self.block(slot, direction),
                SendError::Broken => self.side_failed(slot, direction.sink(), Some(errno)),
                SendError::Unexpected(errno) => {
                    self.unexpected("splice", errno);
                    self.side_failed(slot, direction.sink(), Some(errno));
                }
            },
        }
        true
    }

    /// Copies what is in the pipe of a direction that can't be spliced, as much as it may hold
    /// without a reservation.
    fn empty_pipe(&mut self, slot: u32, direction: Direction, pipe: Pipe) -> bool {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let length = session.halves[d].piped.min(self.limits.small);
        self.transformed.clear();
        self.transformed.resize(length as usize, 0);
        match self.kernel.read_pipe(pipe, &mut self.transformed) {
            Ok(count) if count > 0 => {
                let bytes = &self.transformed[..count];
                self.private.append(&mut session.chunks[d], bytes);
                session.halves[d].held += u32::try_from(count).expect("at most a small receive");
                self.left_pipe(slot, direction, count);
                true
            }
            other => {
                self.unexpected(
                    "read of a pipe",
                    other.err().unwrap_or(Errno(libc::ENODATA)),
                );
                self.side_failed(slot, direction.sink(), None);
                false
            }
        }
    }

    /// Takes bytes off a direction's pipe, and the pipe off the direction once it is empty.
    fn left_pipe(&mut self, slot: u32, direction: Direction, count: usize) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.halves[d].piped -= u32::try_from(count).expect("at most what is in it");
        if session.halves[d].piped > 0 {
            return;
        }
        let number = std::mem::replace(&mut session.pipes[d], pipes::NONE);
        let barred = session.halves[d].splice.splicing == Splicing::Never;
        self.pipes.give_back(number, self.now);
        if barred {
            self.unsplice(slot, direction);
        }
    }

    /// Drops what is in a direction's pipe, with the pipe.
    pub(super) fn drop_pipe(&mut self, slot: u32, direction: Direction) {
        let d = direction as usize;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let number = std::mem::replace(&mut session.pipes[d], pipes::NONE);
        session.halves[d].piped = 0;
        if number != pipes::NONE {
            let made = &self.world.pipes_made;
            self.pipes.destroy(number, &self.kernel, made);
        }
    }
}
