//! Accepting: multishot accept while there is ample room, one at a time near a limit, paused at it.
//!
//! A connection that the kernel hands over although a limit is reached is parked: kept open,
//! counted, and admitted first when room comes. Near a limit, and where a rate bounds what comes,
//! at most one accept per listener is outstanding, so parking stays within the reserve of the
//! descriptor budget.
//!
//! A socket that several shards share is accepted from one connection at a time by the ring, and a
//! few more by direct calls: a multishot accept stays at the head of the socket's wait queue, and
//! its shard would get everything. `tune.maxaccept` is kept in the same way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::listener_counters::{ListenerCounter, ListenerCounters};
use super::spread::Serving;
use super::world::{FrontCounter, FrontState, Frontend};
use crate::base::ids::ListenerId;
use crate::base::limits::{LimitId, LimitKey};
use crate::base::time::Moment;
use crate::config::plan::Listener;
use crate::ring::{AcceptError, Completion, Errno, Fd, Kernel, Op, Token};

/// Room in every limit that allows multishot: a burst may bring as many connections as the kernel's
/// accept queues hold before the cancel takes effect, and somaxconn is 4096 by default (listen(2)).
const MULTISHOT_ROOM: u32 = 4096;
/// Connections that a shard takes at once from a socket it shares, where `tune.maxaccept` is not
/// set: enough to save wake-ups, few enough to leave some to the others. As HAProxy's default.
const SHARED_BATCH: u32 = 4;
/// Pause after an accept found no descriptor or memory, unless a session ends before. As haproxy
/// and nginx pause: long enough not to burn a core, short enough not to be noticed.
const RESOURCE_PAUSE_MS: u64 = 100;

/// What an acceptor is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accepting {
    /// Nothing is outstanding; to be armed.
    Idle,
    /// An accept is outstanding.
    Armed { multishot: bool },
    /// It was cancelled and has not completed yet.
    Ending,
    /// A limit is reached.
    Paused,
    /// Out of descriptors or memory, until then or the next release.
    Resting { until: Moment },
    /// The listener is closed.
    Closed,
}

/// Whether a listener stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stay {
    /// It does.
    Stays,
    /// It is taken away: what waits in its queue is accepted, then it is closed.
    Leaves,
    /// It is closed, and nobody waits for room any more.
    Left,
}

/// A listening socket of the shard.
#[derive(Debug)]
pub(super) struct Acceptor {
    fd: Fd,
    pub(super) frontend: Arc<Frontend>,
    /// Process, listener, frontend, in the order in which they are taken: see `take_numbers`.
    limits: [LimitId; 3],
    accepting: Accepting,
    parked: VecDeque<Fd>,
    /// Whether its socket is among those that a successor is given.
    is_handed_over: bool,
    /// Connections taken per turn, where there is a bound: then no multishot accept is used.
    batch: Option<u32>,
    pub(super) listener_id: ListenerId,
    /// What the configuration says of it.
    pub(super) plan: Arc<Listener>,
    /// The shards that serve it.
    pub(super) serving: Arc<Serving>,
    /// Its statistics, where its frontend wants them.
    pub(super) counters: Option<Arc<ListenerCounters>>,
    stay: Stay,
    /// Sessions of this shard that came by it.
    pub(super) sessions: u32,
    /// Whether other shards accept from its socket too.
    shared: bool,
    /// `accept-proxy`.
    pub(super) accepts_proxy: bool,
    /// Bytes of bulk receives that each of its connections may have per turn, in 1/1024 of the
    /// usual.
    pub(super) bulk_weight: u32,
}

impl Acceptor {
    /// Whether there is something to do for it.
    fn is_idle(&self) -> bool {
        self.accepting == Accepting::Idle || !self.parked.is_empty()
    }

    /// Whether it keeps what it accepts: the other shards may have forgotten the listener.
    pub(super) fn is_leaving(&self) -> bool {
        self.stay != Stay::Stays
    }

    /// Whether another listener may have its place.
    fn is_vacant(&self) -> bool {
        self.stay == Stay::Left && self.sessions == 0
    }
}

impl<K: Kernel> Shard<K> {
    /// Takes a listening socket over; `start_accepting` arms it.
    pub(super) fn add_acceptor_fd(&mut self, listener_id: ListenerId, fd: Fd, shared: bool) {
        let listening = self.world.listeners[usize::from(listener_id.0)].as_ref();
        let listening = listening.expect("a socket has a listener");
        let plan = Arc::clone(&listening.plan);
        let serving = Arc::clone(&listening.serving);
        let counters = listening.counters.clone();
        let frontend = self.world.frontend(plan.proxy_id);
        let frontend = Arc::clone(frontend.expect("a listener has a frontend"));
        let batch = batch(self.world.plan.global.maxaccept, shared);
        let listener = self.world.limits.find(LimitKey::Listener(listener_id));
        let limits = [
            self.world.process_limit,
            listener.expect("every listener has a limit"),
            frontend.limit,
        ];
        let acceptor = Acceptor {
            fd,
            frontend,
            limits,
            accepting: Accepting::Idle,
            parked: VecDeque::new(),
            is_handed_over: plan.endpoint.is_handed_over(),
            batch,
            listener_id,
            accepts_proxy: plan.accept_proxy,
            bulk_weight: bulk_weight(plan.nice),
            plan,
            serving,
            counters,
            stay: Stay::Stays,
            sessions: 0,
            shared,
        };
        let index = self.acceptors.iter().position(Acceptor::is_vacant);
        let index = index.unwrap_or(self.acceptors.len());
        if index == self.acceptors.len() {
            self.acceptors.push(acceptor);
        } else {
            self.acceptors[index] = acceptor;
        }
        let number = usize::from(listener_id.0);
        if self.acceptor_of.len() <= number {
            self.acceptor_of.resize(number + 1, usize::MAX);
        }
        self.acceptor_of[number] = index;
        self.accept_idle = true;
    }

    /// Takes the listeners of a new world up: those it doesn't have any more leave.
    pub(super) fn renew_acceptors(&mut self) {
        let world = Arc::clone(&self.world);
        for index in 0..self.acceptors.len() {
            let acceptor = &mut self.acceptors[index];
            if acceptor.is_leaving() {
                continue;
            }
            let listening = world.listeners.get(usize::from(acceptor.listener_id.0));
            match listening.and_then(Option::as_ref) {
                Some(listening) if !listening.is_removed => {
                    let plan = Arc::clone(&listening.plan);
                    if let Some(frontend) = world.frontend(plan.proxy_id) {
                        acceptor.frontend = Arc::clone(frontend);
                    }
                    acceptor.batch = batch(world.plan.global.maxaccept, acceptor.shared);
                    acceptor.accepts_proxy = plan.accept_proxy;
                    acceptor.bulk_weight = bulk_weight(plan.nice);
                    acceptor.plan = plan;
                    acceptor.counters.clone_from(&listening.counters);
                }
                Some(_) | None => {
                    acceptor.stay = Stay::Leaves;
                    self.close_acceptor(index);
                    // It may be closed already: an operator has shut its frontend down.
                    self.note_left(index);
                }
            }
        }
        // Limits and rates may be others.
        self.accept_rest_until = self.now;
    }

    /// Arms every idle acceptor, and has who is parked wait for room.
    pub(super) fn start_accepting(&mut self) {
        self.accept_idle = false;
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].is_idle() {
                self.arm_acceptor(index);
            }
        }
    }

    /// Admits what is parked and arms the acceptor, as far as its limits have room now.
    fn arm_acceptor(&mut self, index: usize) {
        loop {
            self.admit_parked(index);
            let acceptor = &mut self.acceptors[index];
            let may_arm = match acceptor.accepting {
                Accepting::Idle | Accepting::Paused => true,
                Accepting::Resting { until } => until <= self.now,
                Accepting::Armed { .. } | Accepting::Ending | Accepting::Closed => false,
            };
            let state = acceptor.frontend.state();
            let closes = acceptor.is_leaving() || state == FrontState::Shut;
            if may_arm && (self.draining || closes) {
                return self.empty_and_close(index);
            }
            if acceptor.parked.is_empty() && !may_arm {
                return self.note_left(index);
            }
            if acceptor.parked.is_empty() && state == FrontState::Paused {
                // Who comes waits in the kernel's queue until it is enabled.
                acceptor.accepting = Accepting::Paused;
                return;
            }
            let wait_ms = self.rate_wait_ms(index);
            if wait_ms > 0 {
                let until = self.now.after_ms(wait_ms);
                if may_arm {
                    self.acceptors[index].accepting = Accepting::Resting { until };
                }
                self.accept_rest_until = self.accept_rest_until.min(until);
                return;
            }
            let acceptor = &mut self.acceptors[index];
            let limits = &self.world.limits;
            let room = |id: &LimitId| limits.free(*id);
            let free = acceptor.limits.iter().map(room).min().unwrap_or(0);
            if free > 0 && acceptor.parked.is_empty() {
                let multishot =
                    free >= MULTISHOT_ROOM && acceptor.batch.is_none() && !self.rated(index);
                return self.arm_accept(index, multishot);
            }
            for id in acceptor.limits {
                if limits.free(id) == 0 {
                    limits.pause(id, self.id);
                }
            }
            // A unit given back before the pause was noted would wake nobody: look again.
            let free = acceptor.limits.iter().map(room).min().unwrap_or(0);
            if free == 0 {
                if may_arm && acceptor.accepting != Accepting::Paused {
                    acceptor.accepting = Accepting::Paused;
                    self.gauges().accept_pauses.fetch_add(1, Relaxed);
                }
                return;
            }
        }
    }

    fn arm_accept(&mut self, index: usize, multishot: bool) {
        let acceptor = &mut self.acceptors[index];
        acceptor.accepting = Accepting::Armed { multishot };
        let fd = acceptor.fd;
        let token = Token::plain(Op::Accept, u32::try_from(index).expect("few listeners"));
        self.kernel.accept(fd, multishot, token);
    }

    /// Handles a completed accept.
    pub(super) fn on_accept(&mut self, completion: Completion) {
        let index = completion.token.index() as usize;
        if !completion.more {
            self.acceptors[index].accepting = Accepting::Idle;
        }
        if completion.result >= 0 {
            self.admit(index, Fd(completion.result));
            self.accept_more(index);
        } else {
            self.accept_failed(index, Errno(-completion.result));
        }
        let acceptor = &self.acceptors[index];
        if acceptor.accepting == (Accepting::Armed { multishot: true }) {
            let limits = &self.world.limits;
            if acceptor
                .limits
                .iter()
                .any(|id| limits.free(*id) < MULTISHOT_ROOM)
            {
                self.acceptors[index].accepting = Accepting::Ending;
                self.kernel.cancel(completion.token);
            }
        }
        // Armed again at the end of the turn: what completes before would be a second share.
        self.accept_idle |= self.acceptors[index].is_idle();
    }

    /// Takes the rest of a turn's share by direct calls, while there is room for each.
    fn accept_more(&mut self, index: usize) {
        let acceptor = &self.acceptors[index];
        let (fd, limits) = (acceptor.fd, acceptor.limits);
        for _ in 1..acceptor.batch.unwrap_or(1).min(MULTISHOT_ROOM) {
            let room = |id: &LimitId| self.world.limits.free(*id) > 0;
            let acceptor = &self.acceptors[index];
            let waits =
                !acceptor.parked.is_empty() || acceptor.frontend.state() != FrontState::Open;
            if waits || self.draining || !limits.iter().all(room) {
                return;
            }
            match self.kernel.accept_now(fd) {
                Ok(client) => self.admit(index, client),
                Err(errno) if AcceptError::of(errno) == AcceptError::ClientGone => {}
                // Nobody waits; what else is wrong shows when the ring accepts.
                Err(_) => return,
            }
        }
    }

    fn accept_failed(&mut self, index: usize, errno: Errno) {
        let rest = match AcceptError::of(errno) {
            AcceptError::ClientGone | AcceptError::Cancelled => false,
            AcceptError::Resource => {
                self.gauges().accepts_refused.fetch_add(1, Relaxed);
                true
            }
            AcceptError::Unexpected(errno) => {
                self.unexpected("accept", errno);
                true
            }
        };
        if rest && self.acceptors[index].accepting == Accepting::Idle {
            let until = self.now.after_ms(RESOURCE_PAUSE_MS);
            self.acceptors[index].accepting = Accepting::Resting { until };
            self.accept_rest_until = self.accept_rest_until.min(until);
        }
    }

    /// Lets a connection in, or parks it at a limit. One that was already on its way when
    /// everything was ended is closed.
    fn admit(&mut self, index: usize, client: Fd) {
        if self.stopping {
            return self.kernel.close(client);
        }
        if !self.take_limits(index) {
            let acceptor = &mut self.acceptors[index];
            acceptor.parked.push_back(client);
            self.parked += 1;
            return;
        }
        self.begin_session(index, client);
    }

    fn begin_session(&mut self, index: usize, client: Fd) {
        let frontend = Arc::clone(&self.acceptors[index].frontend);
        let connections = FrontCounter::Connections as usize;
        frontend.counters.add(self.id, connections, 1);
        self.count_of_listener(index, ListenerCounter::Connections, 1);
        self.serve(index, client);
    }

    /// Counts for the listener of an acceptor, where its frontend wants that.
    #[inline]
    pub(super) fn count_of_listener(&self, acceptor: usize, counter: ListenerCounter, n: u64) {
        if let Some(counters) = &self.acceptors[acceptor].counters {
            counters.add(self.id, counter as usize, n);
        }
    }

    /// Whether a rate bounds what is accepted: then one connection is at a time, so that the others
    /// wait in the kernel's queue.
    fn rated(&self, index: usize) -> bool {
        self.world.process_rate.is_bounded() || self.acceptors[index].frontend.rate.is_bounded()
    }

    /// Milliseconds until a rate lets another connection in, 0 = now.
    fn rate_wait_ms(&self, index: usize) -> u64 {
        let process = self.world.process_rate.wait_ms(self.now);
        process.max(self.acceptors[index].frontend.rate.wait_ms(self.now))
    }

    /// Takes what rates and limits a connection counts in.
    fn take_limits(&mut self, index: usize) -> bool {
        if !self.rated(index) {
            return self.take_numbers(index);
        }
        let now = self.now;
        let frontend = Arc::clone(&self.acceptors[index].frontend);
        if !frontend.rate.take(now) {
            return false;
        }
        if !self.world.process_rate.take(now) {
            frontend.rate.give(now);
            return false;
        }
        let taken = self.take_numbers(index);
        if !taken {
            self.world.process_rate.give(now);
            frontend.rate.give(now);
        }
        taken
    }

    /// The frontend's comes last, and is given back first: its peak is shown, so it must never
    /// count a connection that another limit refuses, or one more than there are.
    fn take_numbers(&mut self, index: usize) -> bool {
        let ids = self.acceptors[index].limits;
        for (taken, id) in ids.iter().enumerate() {
            if !self.world.limits.take(*id) {
                for id in ids[..taken].iter().rev() {
                    let woken = self.world.limits.give(*id);
                    self.wake_shards(woken);
                }
                return false;
            }
        }
        true
    }

    /// Gives back what a connection counts in, here where it was served: the limits of its acceptor
    /// and the shard's load. Wakes who waited for them.
    pub(super) fn give_limits(&mut self, index: usize) {
        self.load().subtract();
        self.churn.add(self.now);
        // In the reverse of the order of taking: whoever gets the process's or the listener's unit
        // must find the frontend's given back before, or that would count one too many.
        for id in self.acceptors[index].limits.into_iter().rev() {
            let woken = self.world.limits.give(id);
            self.wake_shards(woken);
        }
        // A session's end also gives descriptors back.
        if self.accept_rest_until != Moment::NEVER {
            self.accept_rest_until = self.now;
        }
    }

    /// Admits what was parked and arms what was paused or resting, as far as there is room now.
    pub(super) fn resume_accepting(&mut self) {
        self.accept_rest_until = Moment::NEVER;
        for index in 0..self.acceptors.len() {
            match self.acceptors[index].accepting {
                Accepting::Resting { .. } => self.acceptors[index].accepting = Accepting::Idle,
                Accepting::Armed { multishot } => self.reconsider(index, multishot),
                Accepting::Idle | Accepting::Ending | Accepting::Paused | Accepting::Closed => {}
            }
            self.arm_acceptor(index);
        }
    }

    /// Takes an accept back that may not go on as it is: its frontend was disabled, or a bound set
    /// that a multishot accept would go past.
    fn reconsider(&mut self, index: usize, multishot: bool) {
        let acceptor = &self.acceptors[index];
        let room = |id: &LimitId| self.world.limits.free(*id);
        let is_near = || acceptor.limits.iter().any(|id| room(id) < MULTISHOT_ROOM);
        let is_open = acceptor.frontend.state() == FrontState::Open;
        if !is_open || (multishot && (self.rated(index) || is_near())) {
            self.acceptors[index].accepting = Accepting::Ending;
            let index = u32::try_from(index).expect("few listeners");
            self.kernel.cancel(Token::plain(Op::Accept, index));
        }
    }

    fn admit_parked(&mut self, index: usize) {
        while !self.acceptors[index].parked.is_empty() && self.take_limits(index) {
            let client = self.acceptors[index].parked.pop_front().expect("not empty");
            self.parked -= 1;
            self.begin_session(index, client);
        }
    }

    /// Stops accepting: cancels what is outstanding; each listener is emptied and closed when its
    /// accept has ended.
    pub(super) fn drain_acceptors(&mut self) {
        self.draining = true;
        // Nobody hands anything over any more; who is on the way is still served.
        self.load().close();
        for index in 0..self.acceptors.len() {
            self.close_acceptor(index);
        }
    }

    /// Cancels what is outstanding, or empties and closes the listener where nothing is.
    fn close_acceptor(&mut self, index: usize) {
        match self.acceptors[index].accepting {
            Accepting::Armed { .. } => {
                self.acceptors[index].accepting = Accepting::Ending;
                let index = u32::try_from(index).expect("few listeners");
                self.kernel.cancel(Token::plain(Op::Accept, index));
            }
            Accepting::Idle | Accepting::Paused | Accepting::Resting { .. } => {
                self.empty_and_close(index);
            }
            Accepting::Ending | Accepting::Closed => {}
        }
    }

    /// Notes that nothing comes by a listener any more that leaves.
    fn note_left(&mut self, index: usize) {
        let acceptor = &mut self.acceptors[index];
        let is_over = acceptor.accepting == Accepting::Closed && acceptor.parked.is_empty();
        if acceptor.stay == Stay::Leaves && is_over {
            acceptor.stay = Stay::Left;
            acceptor.serving.one_has_ended();
        }
    }

    /// Takes the clients that are queued on a listener, because its close would reset them, and
    /// closes it.
    fn empty_and_close(&mut self, index: usize) {
        let fd = self.acceptors[index].fd;
        // A shared socket may never run dry under load: the bound is one full accept queue.
        if !self.stopping {
            for _ in 0..MULTISHOT_ROOM {
                if self.serves_successor(index) && !self.has_room(index) {
                    break;
                }
                match self.kernel.accept_now(fd) {
                    Ok(client) => self.admit(index, client),
                    Err(Errno(libc::EAGAIN)) => break,
                    Err(errno) if AcceptError::of(errno) == AcceptError::ClientGone => {}
                    Err(_) => break,
                }
            }
        }
        self.acceptors[index].accepting = Accepting::Closed;
        self.kernel.close(fd);
        // Who is parked still waits for room.
        self.arm_acceptor(index);
    }

    /// Whether a successor accepts from the same socket: whoever would have to wait here is served
    /// there.
    fn serves_successor(&self, index: usize) -> bool {
        self.acceptors[index].is_handed_over && self.world.handed_over.load(Relaxed)
    }

    /// Whether a connection would be let in now.
    fn has_room(&self, index: usize) -> bool {
        let acceptor = &self.acceptors[index];
        let room = |id: &LimitId| self.world.limits.free(*id) > 0;
        acceptor.parked.is_empty()
            && acceptor.limits.iter().all(room)
            && self.rate_wait_ms(index) == 0
    }

    /// Closes parked connections (at a hard stop).
    pub(super) fn drop_parked(&mut self) {
        for index in 0..self.acceptors.len() {
            while let Some(client) = self.acceptors[index].parked.pop_front() {
                self.parked -= 1;
                self.kernel.close(client);
            }
        }
    }

    /// Whether every listener is closed and nobody is parked.
    pub(super) fn accepting_ended(&self) -> bool {
        self.parked == 0
            && self
                .acceptors
                .iter()
                .all(|a| a.accepting == Accepting::Closed)
    }
}

/// Connections that a shard takes per turn from a socket, where there is a bound.
fn batch(maxaccept: Option<u32>, shared: bool) -> Option<u32> {
    match maxaccept {
        None => shared.then_some(SHARED_BATCH),
        Some(u32::MAX) if !shared => None,
        most => most,
    }
}

/// What `nice` makes of a connection's share of the bulk budget, in 1/1024: a quarter at the
/// highest, twice as much at the lowest.
fn bulk_weight(nice: i16) -> u32 {
    const USUAL: i32 = 1024;
    let nice = i32::from(nice);
    let weight = if nice > 0 {
        USUAL - nice * 3 / 4
    } else {
        USUAL - nice
    };
    weight.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nice_is_a_share() {
        assert_eq!(
            [-1024, -512, 0, 512, 1024].map(bulk_weight),
            [2048, 1536, 1024, 640, 256]
        );
    }
}
