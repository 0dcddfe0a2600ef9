//! Deadlines of a session. One timer per session in the shard's wheel: it fires at the earliest
//! deadline known when it was set, and activity, which only moves deadlines later, doesn't touch
//! it.

use super::Shard;
use super::session::{Session, State};
use crate::base::time::Moment;
use crate::config::plan::{Back, Front};
use crate::flow::{Arm, Cause, Close, Phase, Reading, Side, Who, Writing};
use crate::ring::Kernel;

/// Timers handled per turn: bounds a turn after a long pause.
const PER_TURN_MAX: usize = 4096;

impl<K: Kernel> Shard<K> {
    /// Sets the session's timer, unless it will fire early enough anyway.
    pub(super) fn retime(&mut self, slot: u32) {
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let deadline = next_deadline(session, now);
        if deadline < session.timer_at {
            session.timer_at = deadline;
            self.wheel.arm(slot, deadline);
        }
    }

    /// Handles every timer that is due.
    pub(super) fn expire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(self.now, &mut due, PER_TURN_MAX);
        for slot in due.drain(..) {
            if let Some(session) = self.sessions.at_mut(slot) {
                session.timer_at = Moment::NEVER;
                self.on_timer(slot);
            }
        }
        self.due = due;
    }

    fn on_timer(&mut self, slot: u32) {
        let now = self.now;
        let session = self.sessions.at(slot).expect("a live session");
        match session.state {
            State::Waiting { deadline } if deadline <= now => {
                let (who, cause) = (Who::Server, Cause::TimedOut);
                self.begin_close(
                    slot,
                    Close {
                        who,
                        phase: Phase::Queue,
                        cause,
                    },
                );
            }
            State::Connecting { deadline } if deadline <= now => self.connect_timed_out(slot),
            State::Resting { until } if until <= now => {
                let server = session.server.as_ref().expect("resting before a try");
                // It went down while we rested: the try goes elsewhere. If it is back already, this
                // is one of the few connections that it may have while it starts slowly.
                if server.usable() && server.spend_allowance() {
                    self.connect(slot);
                } else {
                    let failed = server.id;
                    self.drop_server(slot, crate::lb::Outcome::ConnectFailed);
                    self.choose(slot, Some(failed));
                }
            }
            State::Relaying => self.relay_timer(slot),
            State::Flushing { .. } => self.flushing(slot),
            State::Prelude { deadline } if deadline <= now => self.header_timed_out(slot),
            State::Prelude { .. }
            | State::Waiting { .. }
            | State::Connecting { .. }
            | State::ConnectEnding { .. }
            | State::Resting { .. } => self.retime(slot),
            State::Closing => {}
        }
    }

    fn relay_timer(&mut self, slot: u32) {
        let now = self.now;
        let session = self.sessions.at(slot).expect("a live session");
        if session.drain_until <= now {
            return self.begin_close(slot, Close::FINISHED);
        }
        let client = side_deadline(session, Side::Client);
        let server = side_deadline(session, Side::Server);
        let who = if client <= now && client <= server {
            Who::Client
        } else if server <= now {
            Who::Server
        } else {
            return self.retime(slot);
        };
        self.begin_close(
            slot,
            Close {
                who,
                phase: Phase::Data,
                cause: Cause::TimedOut,
            },
        );
    }
}

/// The earliest moment at which something is due for the session.
fn next_deadline(session: &Session, now: Moment) -> Moment {
    match session.state {
        State::ConnectEnding { .. } | State::Closing => Moment::NEVER,
        State::Prelude { deadline }
        | State::Waiting { deadline }
        | State::Connecting { deadline } => deadline,
        State::Resting { until } => until,
        State::Flushing { check_at, .. } => check_at,
        State::Relaying => {
            // A side that doesn't count now may do so later: its receive may be about to be armed.
            // So it is looked at again after its timeout.
            let ends = Side::BOTH.map(|side| match timeout_ms(session, side) {
                0 => Moment::NEVER,
                ms => side_deadline(session, side).min(now.after_ms(u64::from(ms))),
            });
            ends[0].min(ends[1]).min(session.drain_until)
        }
    }
}

/// When a side's inactivity timeout ends. A side counts while it is expected to do something: to
/// send (unless we hold it back ourselves) or to take what is waiting for it. What it takes shows
/// that it is alive, so it need not send meanwhile, unless `option independent-streams` says so.
fn side_deadline(session: &Session, side: Side) -> Moment {
    let ms = match timeout_ms(session, side) {
        0 => return Moment::NEVER,
        ms => u64::from(ms),
    };
    let from = side.reads() as usize;
    let into = &session.halves[side.writes() as usize];
    let half = &session.halves[from];
    let asked = half.arm != Arm::None || session.queued[from] || session.starved[from];
    let sends = half.reading == Reading::Open && asked;
    let takes = into.unsent() > 0;
    let read_at = session.active_at[side as usize];
    let written_at = session.written_at[side as usize];
    let end = |counts: bool, since: Moment| {
        if counts {
            since.after_ms(ms)
        } else {
            Moment::NEVER
        }
    };
    if independent_streams(session, side) {
        return end(sends, read_at).min(end(takes, written_at));
    }
    end(sends || takes, read_at.max(written_at))
}

fn independent_streams(session: &Session, side: Side) -> bool {
    match side {
        Side::Client => {
            let front = session.frontend.proxy.front.as_ref();
            front.is_some_and(|front| front.independent_streams)
        }
        Side::Server => {
            let back = session.backend.as_ref().and_then(|b| b.proxy.back.as_ref());
            back.is_some_and(|back| back.independent_streams)
        }
    }
}

/// The inactivity timeout that is in force for a side, 0 = none: `timeout tunnel` where it is set;
/// the `-fin` one once our FIN is out.
fn timeout_ms(session: &Session, side: Side) -> u32 {
    let backend = session.backend.as_ref();
    let back: Option<&Back> = backend.and_then(|b| b.proxy.back.as_ref());
    let (usual, half_closed) = match side {
        Side::Client => {
            let front: Option<&Front> = session.frontend.proxy.front.as_ref();
            front.map_or((0, 0), |f| (f.timeout_client_ms, f.timeout_client_fin_ms))
        }
        Side::Server => back.map_or((0, 0), |b| (b.timeout_server_ms, b.timeout_server_fin_ms)),
    };
    let finished = session.halves[side.writes() as usize].writing == Writing::Finished;
    let tunnel = back.map_or(0, |back| back.timeout_tunnel_ms);
    match (finished && half_closed > 0, tunnel) {
        (true, _) => half_closed,
        (false, 0) => usual,
        (false, tunnel) => tunnel,
    }
}
