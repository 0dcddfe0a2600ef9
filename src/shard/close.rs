//! The end of a session: failures of a side, resets passed on, the last completion, the account.
//!
//! A reset is passed on as a reset, but only after what its sender had sent before is with the
//! other peer: closing by reset throws away what the kernel has not delivered. A server that has
//! sent its FIN is complete whatever follows: the client gets everything and is drained.

use std::net::SocketAddr;

use super::Shard;
use super::listener_counters::ListenerCounter;
use super::session::{Session, State};
use super::source_port;
use super::world::FrontCounter;
use crate::base::ids::SessionKey;
use crate::base::time::Moment;
use crate::flow::{Arm, Cause, Close, Direction, Phase, Reading, Side, Who, Writing};
use crate::lb::{Outcome, ServerCounter};
use crate::ring::{Errno, Fd, Kernel, Op, Token};

/// How long the bytes before a client's reset may rest on their way to the server: it has lost whom
/// to answer, and a client's end has to show within a second.
const STALL_SERVER_MS: u64 = 500;
/// A server that reads nothing is still sent something: where its window has room for less than a
/// segment, the kernel fills it by window probes, one in such a time at the most (TCP_RTO_MIN).
const PROBE_MS: u64 = 200;
/// How long the bytes before a server's reset may rest on their way to the client, which may still
/// want the whole answer.
const STALL_CLIENT_MS: u64 = 10_000;
/// How long a client may go on sending to a server that is gone, after it has the whole answer.
const DRAIN_MS: u64 = 30_000;

impl<K: Kernel> Shard<K> {
    /// Writing to a side has failed, or its poll reports an error: it takes nothing any more. What
    /// it has sent may still be readable. `taken` is the error that a send took off the socket:
    /// then only it says whether an end of stream that is read later is real. tcp_reset leaves
    /// EPIPE where the FIN was here before the reset (CLOSE_WAIT), and ECONNRESET where it was not.
    pub(super) fn side_failed(&mut self, slot: u32, side: Side, taken: Option<Errno>) {
        let (into, from) = (side.writes(), side.reads());
        let session = self.sessions.at_mut(slot).expect("a live session");
        if session.state == State::Closing {
            return;
        }
        if session.halves[into as usize].writing == Writing::Open {
            session.halves[into as usize].writing = Writing::Broken;
            self.drop_unsent(slot, into);
        }
        let session = self.sessions.at_mut(slot).expect("a live session");
        let f = from as usize;
        match session.halves[f].reading {
            Reading::Open => {
                let cut = taken.is_some_and(|errno| errno.0 != libc::EPIPE);
                // A client that can't be answered any more is gone, whatever it sent last.
                session.halves[f].source_failed |= cut || side == Side::Client;
                let asked =
                    session.halves[f].arm != Arm::None || session.queued[f] || session.starved[f];
                // The outstanding receive will say so itself, after the last bytes. A client that
                // is held back has nothing that anybody still wants; a server's answer is worth
                // reading.
                if !asked && side == Side::Client {
                    session.halves[f].reading = Reading::Broken;
                    self.mark_dirty(slot, from);
                }
            }
            Reading::Ended if side == Side::Client => self.client_left(slot),
            Reading::Ended | Reading::Broken => self.mark_dirty(slot, from),
        }
        self.mark_dirty(slot, into);
    }

    /// A client that ends its stream without a byte before it is connected wants nothing any more,
    /// as HAProxy has it. With a request before the FIN, it waits for the answer, unless `option
    /// abortonclose` says that it doesn't.
    pub(super) fn client_ended_early(&mut self, slot: u32) {
        let session = self.sessions.at(slot).expect("a live session");
        let back = session.backend.as_ref().and_then(|b| b.proxy.back.as_ref());
        let aborts = back.is_some_and(|back| back.abortonclose);
        if aborts || session.halves[Direction::Up as usize].bytes_in == 0 {
            let close = Close {
                who: Who::Client,
                phase: phase(session),
                cause: Cause::Aborted,
            };
            self.begin_close(slot, close);
        }
    }

    /// The client had sent its FIN and is now gone: the server is told by a reset.
    fn client_left(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let close = Close {
            who: Who::Client,
            phase: phase(session),
            cause: Cause::Aborted,
        };
        session.close.get_or_insert(close);
        if session.state == State::Relaying {
            self.flush_then_reset(slot, Side::Server);
        } else if !matches!(session.state, State::Flushing { .. }) {
            self.begin_close(slot, close);
        }
    }

    /// A direction's source has reset its connection.
    pub(super) fn source_broken(&mut self, slot: u32, direction: Direction) {
        let (source, sink) = (direction.source(), direction.sink());
        let who = match source {
            Side::Client => Who::Client,
            Side::Server => Who::Server,
        };
        let session = self.sessions.at_mut(slot).expect("a live session");
        let close = Close {
            who,
            phase: phase(session),
            cause: Cause::Aborted,
        };
        session.close.get_or_insert(close);
        let back = source.writes();
        if session.halves[back as usize].writing == Writing::Open {
            session.halves[back as usize].writing = Writing::Broken;
            self.drop_unsent(slot, back);
        }
        let session = self.sessions.at(slot).expect("a live session");
        let open = session.halves[direction as usize].writing == Writing::Open;
        if session.state == State::Relaying && open {
            self.flush_then_reset(slot, sink);
        } else {
            self.begin_close(slot, close);
        }
    }

    fn flush_then_reset(&mut self, slot: u32, side: Side) {
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.state = State::Flushing {
            side,
            left: u64::MAX,
            moved_at: now,
            check_at: now,
        };
        self.mark_dirty(slot, side.writes());
    }

    /// Looks whether the bytes before a reset have arrived, and then resets. Bytes that don't move
    /// for a while are given up.
    pub(super) fn flushing(&mut self, slot: u32) {
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let State::Flushing {
            side,
            left: left_before,
            moved_at,
            ..
        } = session.state
        else {
            return;
        };
        let into = side.writes() as usize;
        let half = &session.halves[into];
        let close = session.close.unwrap_or(Close::FINISHED);
        if half.writing == Writing::Broken {
            return self.begin_close(slot, close);
        }
        debug_assert!(session.pieces[into].is_empty(), "flushed before");
        let fd = session.fd(side);
        let left = u64::from(half.unsent()) + self.kernel.unacknowledged(fd) as u64;
        let rested_ms = now.ms_since(moved_at);
        let (stall_ms, probed) = match side {
            Side::Server => {
                let probes = 1 + rested_ms / PROBE_MS;
                (STALL_SERVER_MS, probes * u64::from(self.kernel.segment(fd)))
            }
            Side::Client => (STALL_CLIENT_MS, 0),
        };
        let (left, moved_at) = if left.saturating_add(probed) < left_before || left == 0 {
            (left, now)
        } else {
            (left_before, moved_at)
        };
        if left == 0 || now >= moved_at.after_ms(stall_ms) {
            session.resets[side as usize] = true;
            return self.begin_close(slot, close);
        }
        // Look again after half the time it has rested so far, 1 to 50 ms.
        let step = (now.ms_since(moved_at) / 2).clamp(1, 50);
        session.state = State::Flushing {
            side,
            left,
            moved_at,
            check_at: now.after_ms(step),
        };
        self.retime(slot);
    }

    /// Ends the session if both directions are at their end.
    pub(super) fn end_if_done(&mut self, slot: u32) {
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let [up, down] = &session.halves;
        if up.done() && down.done() {
            let close = session.close.unwrap_or(Close::FINISHED);
            return self.begin_close(slot, close);
        }
        let drains = up.writing == Writing::Broken && down.done();
        if drains && session.drain_until == Moment::NEVER {
            session.drain_until = now.after_ms(DRAIN_MS);
            self.retime(slot);
        }
    }

    /// Cancels everything. The session is finished with its last completion, at the end of that
    /// turn.
    pub(super) fn begin_close(&mut self, slot: u32, close: Close) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let before = std::mem::replace(&mut session.state, State::Closing);
        if before == State::Closing {
            return;
        }
        session.close.get_or_insert(close);
        let key = session.key;
        if let State::Connecting { .. } | State::ConnectEnding { .. } = before {
            // It may have connected by now: what the client sent before it gave up must not look
            // like a complete empty stream.
            session.resets[Side::Server as usize] = true;
        }
        if let State::Flushing { side, .. } = before {
            // Ended by an operator before all of it had arrived: still no end of stream.
            session.resets[side as usize] = true;
        }
        if let State::Waiting { .. } = before {
            self.leave_queue(key);
        }
        for direction in Direction::BOTH {
            let session = self.sessions.at_mut(slot).expect("a live session");
            let half = &session.halves[direction as usize];
            if half.unsent() > 0 && half.writing == Writing::Open {
                // A stream that is cut short must not look complete.
                session.resets[direction.sink() as usize] = true;
            }
            self.drop_unsent(slot, direction);
            let session = self.sessions.at_mut(slot).expect("a live session");
            let reserved = std::mem::take(&mut session.halves[direction as usize].reserved);
            self.budget
                .release(u64::from(reserved), &self.world.memory_reserved);
        }
        let session = self.sessions.at(slot).expect("a live session");
        let outstanding = [
            (session.halves[0].arm != Arm::None, Op::ReceiveClient),
            (session.halves[1].arm != Arm::None, Op::ReceiveServer),
            (session.polled[0], Op::PollClient),
            (session.polled[1], Op::PollServer),
            // A connect that failed was cancelled before.
            (
                session.connect_polled && !matches!(before, State::ConnectEnding { .. }),
                Op::Connect,
            ),
            (session.prelude_polled, Op::Prelude),
        ];
        for (present, op) in outstanding {
            if present {
                self.kernel.cancel(Token::session(op, key));
            }
        }
        self.finish_if_quiet(slot);
    }

    /// Puts a closing session without outstanding operations into the list of those to finish.
    pub(super) fn finish_if_quiet(&mut self, slot: u32) {
        let session = self.sessions.at(slot).expect("a live session");
        debug_assert_eq!(session.state, State::Closing);
        if session.in_kernel == 0 {
            self.ended.push(session.key);
        }
    }

    /// Closes and accounts for every session that ended in this turn.
    pub(super) fn finish_ended(&mut self) {
        while let Some(key) = self.ended.pop() {
            self.finish(key);
        }
    }

    fn finish(&mut self, key: SessionKey) {
        let session = self.sessions.get(key).expect("ended once");
        debug_assert!(session.in_kernel == 0 && session.pieces.iter().all(|list| list.is_empty()));
        let close = session.close.unwrap_or(Close::FINISHED);
        let session_begun = session.begun;
        let source = self.source_shown(session);
        for side in Side::BOTH {
            let fd = session.fd(side);
            if fd == Fd::NONE {
                continue;
            }
            let reset = session.resets[side as usize];
            let nolinger = nolinger(session, side);
            if nolinger && !reset && side == Side::Client && !session.client_ended() {
                // As HAProxy has it: who has not ended its own stream gets a FIN before it.
                let _ = self.kernel.shutdown_write(fd);
            }
            if reset || nolinger {
                self.kernel.close_with_reset(fd);
            } else {
                if side == Side::Server {
                    source_port::note_end(session);
                }
                self.kernel.close(fd);
            }
        }
        self.give_source_port(key.slot);
        if session_begun {
            self.account(key, close, source);
        }
        if let Some(backend) = &self.sessions.get(key).expect("still there").backend {
            backend.leave();
        }
        self.drop_server(
            key.slot,
            outcome(self.sessions.get(key).expect("still there"), close),
        );
        self.wheel.disarm(key.slot);
        let session = self.sessions.remove(key).expect("still there");
        let acceptor = usize::from(session.acceptor);
        self.acceptors[acceptor].sessions -= 1;
        self.give_limits(acceptor);
    }

    /// Counters and the log line.
    fn account(&mut self, key: SessionKey, close: Close, source: Option<SocketAddr>) {
        let now = self.now;
        let session = self.sessions.get(key).expect("still there");
        let total_ms = now.ms_since(session.accepted_at);
        let queue_us = session
            .assigned_at
            .map_or(0, |at| at.us_since(session.ready_at()));
        let abort = match (close.who, close.phase) {
            (Who::Client, _) => Some((FrontCounter::ClientAborts, ServerCounter::ClientAborts)),
            (Who::Server, Phase::Data) => {
                Some((FrontCounter::ServerAborts, ServerCounter::ServerAborts))
            }
            _ => None,
        };
        let has_sent = session.halves[Direction::Up as usize].bytes_in > 0;
        let left_silently = close.who == Who::Client && !has_sent;
        if left_silently {
            let acceptor = usize::from(session.acceptor);
            self.count_of_listener(acceptor, ListenerCounter::RequestErrors, 1);
        }
        let backend = session.backend.as_ref();
        let back_counters = backend.map(|backend| self.world.counters_of(backend));
        for counters in [Some(&*session.frontend.counters), back_counters]
            .into_iter()
            .flatten()
        {
            // Minus one, modulo 2^64.
            counters.add(self.id, FrontCounter::Active as usize, u64::MAX);
            counters.add(self.id, FrontCounter::SessionTimeMs as usize, total_ms);
            counters.add(self.id, FrontCounter::QueueTimeUs as usize, queue_us);
            if let Some((front, _)) = abort {
                counters.add(self.id, front as usize, 1);
            }
            if left_silently {
                counters.add(self.id, FrontCounter::RequestErrors as usize, 1);
            }
            if close.who == Who::Server && close.phase == Phase::Data {
                counters.add(self.id, FrontCounter::ResponseErrors as usize, 1);
            }
        }
        if session.connected()
            && let Some(server) = &session.server
        {
            server
                .counters
                .add(self.id, ServerCounter::SessionTimeMs as usize, total_ms);
            server
                .counters
                .raise(self.id, ServerCounter::SessionTimeMaxMs as usize, total_ms);
            server.timings.session_ms.record(self.id, total_ms);
            server
                .counters
                .add(self.id, ServerCounter::QueueTimeUs as usize, queue_us);
            server
                .counters
                .raise(self.id, ServerCounter::QueueTimeMaxUs as usize, queue_us);
            if let Some((_, counter)) = abort {
                server.counters.add(self.id, counter as usize, 1);
            }
            if close.who == Who::Server {
                server
                    .counters
                    .add(self.id, ServerCounter::ResponseErrors as usize, 1);
            }
        }
        self.log_end(key, close, source);
    }
}

/// How far a session has come.
pub(super) fn phase(session: &Session) -> Phase {
    match session.state {
        State::Prelude { .. } => Phase::Request,
        State::Waiting { .. } => Phase::Queue,
        State::Connecting { .. } | State::ConnectEnding { .. } | State::Resting { .. } => {
            Phase::Connect
        }
        State::Relaying | State::Flushing { .. } | State::Closing => Phase::Data,
    }
}

/// Whether a side's connection ends by a reset in any case.
fn nolinger(session: &Session, side: Side) -> bool {
    let proxy = match side {
        Side::Client => Some(&session.frontend.proxy),
        Side::Server => session.backend.as_ref().map(|backend| &backend.proxy),
    };
    proxy.is_some_and(|proxy| match side {
        Side::Client => proxy.front.as_ref().is_some_and(|front| front.nolinger),
        Side::Server => proxy.back.as_ref().is_some_and(|back| back.nolinger),
    })
}

/// What the balancer is told of the attempt.
fn outcome(session: &Session, close: Close) -> Outcome {
    match (session.connected(), close.who) {
        (false, _) => Outcome::Abandoned,
        (true, Who::Server) => Outcome::ServerAborted,
        (true, _) => Outcome::Completed,
    }
}
