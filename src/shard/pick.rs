//! From an accepted connection to a server: the session's start, the choice, the queue.

use std::sync::Arc;

use super::listener_counters::ListenerCounter;
use super::session::{NONE, Session, State};
use super::world::FrontCounter;
use super::{Shard, frontend_backend};
use crate::base::ids::{ServerId, SessionKey};
use crate::base::time::Moment;
use crate::config::plan::Balance;
use crate::flow::{Cause, Close, Direction, Phase, Side, Who};
use crate::lb::{Backend, Grant, Outcome, Pick, PickRequest, Server, ServerCounter, Waiter};
use crate::ring::{Fd, Kernel};

impl<K: Kernel> Shard<K> {
    /// Makes the session of an admitted connection and asks for a server.
    pub(super) fn start_session(&mut self, acceptor: usize, client: Fd, accepted_at: Moment) {
        let frontend = Arc::clone(&self.acceptors[acceptor].frontend);
        let Some(key) = self.sessions.vacant_key() else {
            // The slab holds as many as the process's limit admits.
            debug_assert!(false, "more sessions than the process's limit");
            frontend
                .counters
                .add(self.id, FrontCounter::ResourceErrors as usize, 1);
            self.count_of_listener(acceptor, ListenerCounter::ResourceErrors, 1);
            self.kernel.close(client);
            self.give_limits(acceptor);
            return;
        };
        let index = u16::try_from(acceptor).expect("few listeners");
        let mut session = Session::new(key, index, Arc::clone(&frontend), client, self.now);
        session.accepted_at = accepted_at;
        if let Some(make) = self.transforms {
            session.transforms = Direction::BOTH.map(|direction| Some(make(direction)));
        }
        let header_is_due = self.header_is_due(acceptor, &mut session);
        let inserted = self.sessions.insert(session);
        debug_assert_eq!(inserted.as_ref().ok(), Some(&key));
        self.acceptors[acceptor].sessions += 1;
        if header_is_due {
            self.await_header(key.slot);
        } else {
            self.begin(key.slot);
        }
    }

    /// Nothing has to come before the session any more: it counts, and asks for a server.
    pub(super) fn begin(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.begun = true;
        let frontend = Arc::clone(&session.frontend);
        let backend = frontend_backend(&self.world, &frontend);
        let logs = !frontend.proxy.logs.is_empty();
        let back = backend.as_ref().and_then(|b| b.proxy.back.as_ref());
        let balance = back.map(|back| &back.balance);
        let fd = session.fd(Side::Client);
        // Both cost a system call each: asked for only where something reads them.
        let by_source = balance.is_some_and(Balance::reads_source);
        if session.client.is_none() && by_source {
            session.client = self.kernel.peer_address(fd);
        }
        let by_destination = balance.is_some_and(Balance::reads_destination);
        if session.local.is_none() && by_destination {
            session.local = self.kernel.local_address(fd);
        }
        if logs {
            self.note_addresses(slot);
            self.log_accept(slot);
        }
        for counter in [FrontCounter::Sessions, FrontCounter::Active] {
            frontend.counters.add(self.id, counter as usize, 1);
        }
        // The client's first bytes are then there when the connect completes.
        self.arm_next(slot, Direction::Up);
        match backend {
            Some(backend) => self.enter_backend(slot, backend),
            None => self.refuse(slot, Phase::Connect),
        }
    }

    fn enter_backend(&mut self, slot: u32, backend: Arc<Backend>) {
        let counters = self.world.counters_of(&backend);
        counters.add(self.id, FrontCounter::Sessions as usize, 1);
        counters.add(self.id, FrontCounter::Active as usize, 1);
        backend.enter();
        let session = self.sessions.at_mut(slot).expect("just inserted");
        session.retries_left = backend.proxy.back.as_ref().map_or(0, |back| back.retries);
        session.backend = Some(backend);
        self.choose(slot, None);
    }

    /// Asks the balancer for a server; `avoid` is the one that just failed.
    pub(super) fn choose(&mut self, slot: u32, avoid: Option<ServerId>) {
        let session = self.sessions.at(slot).expect("a live session");
        let backend = Arc::clone(session.backend.as_ref().expect("a backend was entered"));
        let request = PickRequest {
            client: session.client,
            local: session.local,
            datagram: None,
            avoid,
        };
        match backend.pick(request) {
            Pick::Server(server) => match avoid {
                None => self.assigned(slot, server),
                Some(failed) => self.assigned_again(slot, server, failed),
            },
            Pick::Wait { only } => self.wait(slot, &backend, only),
            Pick::Refuse => self.refuse(slot, Phase::Connect),
        }
    }

    fn wait(&mut self, slot: u32, backend: &Arc<Backend>, only: Option<ServerId>) {
        let now = self.now;
        let back = backend.proxy.back.as_ref().expect("a backend");
        let timeout = match (back.timeout_queue_ms, back.timeout_connect_ms) {
            (0, connect) => connect,
            (queue, _) => queue,
        };
        let deadline = if timeout == 0 {
            Moment::NEVER
        } else {
            now.after_ms(u64::from(timeout))
        };
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.queued_before = u32::try_from(backend.queued()).unwrap_or(u32::MAX);
        self.wait_until(slot, backend, only, deadline);
    }

    fn wait_until(
        &mut self,
        slot: u32,
        backend: &Backend,
        only: Option<ServerId>,
        deadline: Moment,
    ) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.state = State::Waiting { deadline };
        let waiter = Waiter {
            shard: self.id,
            session: session.key,
            only,
        };
        match backend.enqueue(waiter) {
            Some(grant) if grant.waiter == waiter => self.assigned(slot, grant.server),
            grant => {
                self.retime(slot);
                // Its coming made room for one that has waited longer.
                if let Some(grant) = grant {
                    self.pass_grant(grant);
                }
            }
        }
    }

    /// A waiting session was given a server by somebody's release.
    pub(super) fn on_grant(&mut self, grant: Grant) {
        let Grant { waiter, server } = grant;
        let session = self.sessions.get(waiter.session);
        let deadline = match session.map(|session| session.state) {
            Some(State::Waiting { deadline }) => Some(deadline),
            _ => None,
        };
        // Of a server that has gone while this was under way all sessions may have been ended.
        if deadline.is_some() && server.usable() {
            return self.assigned(waiter.session.slot, server);
        }
        // The session left the queue too late to give its place back: the server goes to the next
        // one.
        // A server that has a connection is not forgotten, and a unit of it is on its way here.
        let Some((backend, _)) = self.world.server_of(server.id) else {
            debug_assert!(false, "a grant of a server that nobody knows");
            return;
        };
        let backend = Arc::clone(backend);
        self.release_server(&backend, &server, Outcome::Abandoned);
        if let Some(deadline) = deadline {
            self.choose_anew(waiter.session.slot, &backend, deadline);
        }
    }

    /// Asks for another server for a session that has waited for one that is gone. Where there is
    /// none it waits on, as all do.
    fn choose_anew(&mut self, slot: u32, backend: &Backend, deadline: Moment) {
        let session = self.sessions.at(slot).expect("a live session");
        let request = PickRequest {
            client: session.client,
            local: session.local,
            datagram: None,
            avoid: None,
        };
        match backend.pick(request) {
            Pick::Server(server) => self.assigned(slot, server),
            Pick::Wait { only } => self.wait_until(slot, backend, only, deadline),
            Pick::Refuse => self.wait_until(slot, backend, None, deadline),
        }
    }

    /// Takes a picked server for the session and connects.
    fn assigned(&mut self, slot: u32, server: Arc<Server>) {
        self.take_server(slot, server);
        self.connect(slot);
    }

    /// The same after an attempt that `failed`: the same server has its rest, another one none.
    /// Both go through the timer, so that attempts that fail at once neither nest nor hold the
    /// shard up.
    fn assigned_again(&mut self, slot: u32, server: Arc<Server>, failed: ServerId) {
        // A moment that has passed is due in the next turn, without waiting for a tick.
        let until = if server.id == failed {
            self.rest_until(slot)
        } else {
            Moment(0)
        };
        self.take_server(slot, server);
        self.rest(slot, until);
    }

    fn take_server(&mut self, slot: u32, server: Arc<Server>) {
        server
            .counters
            .add(self.id, ServerCounter::Chosen as usize, 1);
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        if session.assigned_at.is_none() {
            session.assigned_at = Some(now);
        }
        session.server_tried = Some(Arc::clone(&server));
        session.server = Some(server);
        self.link_server(slot);
    }

    /// Drops the session's server with the outcome of the attempt.
    pub(super) fn drop_server(&mut self, slot: u32, outcome: Outcome) {
        self.unlink_server(slot);
        let session = self.sessions.at_mut(slot).expect("a live session");
        let Some(server) = session.server.take() else {
            return;
        };
        let backend = Arc::clone(session.backend.as_ref().expect("a server has a backend"));
        self.release_server(&backend, &server, outcome);
    }

    pub(super) fn release_server(
        &mut self,
        backend: &Arc<Backend>,
        server: &Arc<Server>,
        outcome: Outcome,
    ) {
        if let Some(grant) = backend.release(server, outcome) {
            self.pass_grant(grant);
        }
    }

    fn pass_grant(&mut self, grant: Grant) {
        if grant.waiter.shard == self.id {
            self.grants.push_back(grant);
            return;
        }
        let port = &self.world.ports[usize::from(grant.waiter.shard.0)];
        let sent = port.send(super::Message::Grant(grant));
        // The port holds one message per session of the process and a reserve for control.
        debug_assert!(sent.is_ok(), "a port is full");
    }

    /// Leaves the backend's queue. A grant that is already under way is released when it arrives.
    pub(super) fn leave_queue(&mut self, key: SessionKey) {
        let session = self.sessions.get(key).expect("a live session");
        if let Some(backend) = &session.backend {
            let _ = backend.dequeue(Waiter {
                shard: self.id,
                session: key,
                only: None,
            });
        }
    }

    /// No server for this session.
    pub(super) fn refuse(&mut self, slot: u32, phase: Phase) {
        let session = self.sessions.at(slot).expect("a live session");
        session
            .frontend
            .counters
            .add(self.id, FrontCounter::ConnectErrors as usize, 1);
        if let Some(backend) = &session.backend {
            let counters = self.world.counters_of(backend);
            counters.add(self.id, FrontCounter::ConnectErrors as usize, 1);
        }
        self.begin_close(
            slot,
            Close {
                who: Who::Server,
                phase,
                cause: Cause::Aborted,
            },
        );
    }

    /// Puts the session into its server's list.
    fn link_server(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let server = session.server.as_ref().expect("a server").id.0 as usize;
        if self.server_heads.len() <= server {
            self.server_heads.resize(server + 1, NONE);
        }
        let next = std::mem::replace(&mut self.server_heads[server], slot);
        session.server_previous = NONE;
        session.server_next = next;
        if let Some(next) = self.sessions.at_mut(next) {
            next.server_previous = slot;
        }
    }

    fn unlink_server(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let Some(server) = &session.server else {
            return;
        };
        let server = server.id.0 as usize;
        let (previous, next) = (session.server_previous, session.server_next);
        session.server_previous = NONE;
        session.server_next = NONE;
        match self.sessions.at_mut(previous) {
            Some(previous) => previous.server_next = next,
            None => self.server_heads[server] = next,
        }
        if let Some(next) = self.sessions.at_mut(next) {
            next.server_previous = previous;
        }
    }

    /// Ends every session of a server, because somebody wants it.
    pub(super) fn end_sessions_of(&mut self, server: ServerId, who: Who) {
        let mut slot = self
            .server_heads
            .get(server.0 as usize)
            .copied()
            .unwrap_or(NONE);
        while let Some(session) = self.sessions.at(slot) {
            let next = session.server_next;
            let phase = if session.connected() {
                Phase::Data
            } else {
                Phase::Connect
            };
            self.begin_close(
                slot,
                Close {
                    who,
                    phase,
                    cause: Cause::Aborted,
                },
            );
            slot = next;
        }
    }
}
