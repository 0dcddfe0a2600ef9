//! Connecting: one non-blocking connect with a deadline, retries on the same server after a rest,
//! or on another one at once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::listener_counters::ListenerCounter;
use super::observe::outcome_of;
use super::origin::Unsent;
use super::session::{Session, State};
use super::world::FrontCounter;
use crate::base::address::Address;
use crate::base::time::Moment;
use crate::config::plan::{Back, Global, KeepAlive, Target};
use crate::flow::{Cause, Close, Direction, Phase, Side, Who};
use crate::lb::{Outcome, Server, ServerCounter};
use crate::ring::{Completion, ConnectError, Fd, Interest, Kernel, Op, SocketOptions, Token};

/// Rest before another try on the same server: HAProxy's turn-around of min(`timeout connect`, 1
/// s), so that a restarting server isn't hammered.
const REST_MS: u64 = 1_000;

impl<K: Kernel> Shard<K> {
    /// Starts a connect to the session's server.
    pub(super) fn connect(&mut self, slot: u32) {
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.connect_began_at = now;
        let server = Arc::clone(session.server.as_ref().expect("a server was picked"));
        let back = planned_backend(session);
        let mut options = socket_options(&self.world.plan.global, back, &server);
        let timeout = back.timeout_connect_ms;
        let of_client;
        let to = match &server.plan.address {
            Target::Fixed(address) => Some(address),
            target => {
                of_client = self.server_of_client(slot, target);
                of_client.as_ref()
            }
        };
        server
            .counters
            .add(self.id, ServerCounter::Connects as usize, 1);
        let Some(to) = to else {
            return self.no_destination(slot, &server);
        };
        if let (Address::Ip(to), Some(source)) = (to, options.source) {
            options.source = self.source_of(slot, source, to);
            if options.source.is_none() {
                return self.no_way(slot, &server);
            }
        }
        let result = self.connect_from(slot, to, &server, options);
        let session = self.sessions.at_mut(slot).expect("a live session");
        match result {
            Ok((fd, true)) => {
                session.fds[Side::Server as usize] = fd;
                self.connected(slot);
            }
            Ok((fd, false)) => {
                let deadline = match timeout {
                    0 => Moment::NEVER,
                    ms => now.after_ms(u64::from(ms)),
                };
                session.fds[Side::Server as usize] = fd;
                session.state = State::Connecting { deadline };
                session.connect_polled = true;
                session.in_kernel += 1;
                let token = Token::session(Op::Connect, session.key);
                self.kernel.poll(fd, Interest::Write, false, token);
                self.retime(slot);
            }
            Err(errno) => {
                let error = ConnectError::of(errno);
                if error == ConnectError::NoPort {
                    self.gauges().sources_exhausted.fetch_add(1, Relaxed);
                }
                self.connect_failed(slot, error);
            }
        }
    }

    /// The connect's poll has completed.
    pub(super) fn on_connect(&mut self, slot: u32, completion: Completion) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.connect_polled = false;
        session.in_kernel -= 1;
        match session.state {
            State::Connecting { .. } => {
                let readiness = self.kernel.readiness(completion.result);
                let fd = session.fd(Side::Server);
                let error = if readiness.failed || readiness.hung_up {
                    let pending = self.kernel.take_error(fd).map(ConnectError::of);
                    Some(pending.unwrap_or(ConnectError::Refused))
                } else {
                    None
                };
                match error {
                    Some(error) => self.close_attempt(slot, error),
                    None => self.connected(slot),
                }
            }
            State::ConnectEnding { error } => self.close_attempt(slot, error),
            State::Closing => self.finish_if_quiet(slot),
            State::Prelude { .. }
            | State::Waiting { .. }
            | State::Resting { .. }
            | State::Relaying
            | State::Flushing { .. } => debug_assert!(false, "a connect completed in {session:?}"),
        }
    }

    /// `timeout connect` has passed.
    pub(super) fn connect_timed_out(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.state = State::ConnectEnding {
            error: ConnectError::TimedOut,
        };
        let token = Token::session(Op::Connect, session.key);
        self.kernel.cancel(token);
    }

    fn close_attempt(&mut self, slot: u32, error: ConnectError) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let fd = std::mem::replace(&mut session.fds[Side::Server as usize], Fd::NONE);
        // It may have connected at the last moment: the server must not see a complete empty
        // stream.
        self.kernel.close_with_reset(fd);
        self.give_source_port(slot);
        self.connect_failed(slot, error);
    }

    /// Retries, redispatches or gives up.
    fn connect_failed(&mut self, slot: u32, error: ConnectError) {
        if let ConnectError::Unexpected(errno) = error {
            self.unexpected("connect", errno);
        }
        let session = self.sessions.at_mut(slot).expect("a live session");
        let server = Arc::clone(session.server.as_ref().expect("an attempt has a server"));
        server
            .counters
            .add(self.id, ServerCounter::ConnectErrors as usize, 1);
        let backend = session.backend.as_ref().expect("a backend was entered");
        // A lack of our own says nothing about the server.
        if outcome_of(error) == Outcome::ConnectFailed {
            backend.note_connect_failure(&server, self.now);
        }
        let (began, is_last) = (session.connect_began_at, session.retries_left == 0);
        self.observe_failure(&server, error, began);
        if is_last {
            self.drop_server(slot, outcome_of(error));
            return self.give_up(slot, error);
        }
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.retries_left -= 1;
        session.retries += 1;
        let back = planned_backend(session);
        // Without a port towards this server there may be one towards another. To a server that
        // returns another attempt is one more new connection.
        let redispatch = error == ConnectError::NoPort
            || redispatch_due(back, session.retries)
            || !server.usable()
            || !server.spend_allowance();
        let counter = if redispatch {
            session.redispatched = true;
            (FrontCounter::Redispatches, ServerCounter::Redispatches)
        } else {
            (FrontCounter::Retries, ServerCounter::Retries)
        };
        let backend = Arc::clone(session.backend.as_ref().expect("a backend was entered"));
        let counters = self.world.counters_of(&backend);
        counters.add(self.id, counter.0 as usize, 1);
        server.counters.add(self.id, counter.1 as usize, 1);
        if redispatch {
            self.drop_server(slot, outcome_of(error));
            self.choose(slot, Some(server.id));
        } else {
            let until = self.rest_until(slot);
            self.rest(slot, until);
        }
    }

    /// When a session may try again the server that failed just now.
    pub(super) fn rest_until(&self, slot: u32) -> Moment {
        let session = self.sessions.at(slot).expect("a live session");
        let rest_ms = match planned_backend(session).timeout_connect_ms {
            0 => REST_MS,
            ms => REST_MS.min(u64::from(ms)),
        };
        self.now.after_ms(rest_ms)
    }

    /// The session's next attempt begins at that moment.
    pub(super) fn rest(&mut self, slot: u32, until: Moment) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.state = State::Resting { until };
        self.retime(slot);
    }

    pub(super) fn give_up(&mut self, slot: u32, error: ConnectError) {
        let (who, cause) = match error {
            ConnectError::TimedOut => (Who::Server, Cause::TimedOut),
            ConnectError::Resource | ConnectError::NoPort => (Who::Resource, Cause::Aborted),
            ConnectError::Refused | ConnectError::Unreachable | ConnectError::Unexpected(_) => {
                (Who::Server, Cause::Aborted)
            }
        };
        let session = self.sessions.at(slot).expect("a live session");
        if who == Who::Resource {
            let counters = &session.frontend.counters;
            counters.add(self.id, FrontCounter::ResourceErrors as usize, 1);
            let acceptor = usize::from(session.acceptor);
            self.count_of_listener(acceptor, ListenerCounter::ResourceErrors, 1);
        }
        if let Some(backend) = &session.backend {
            let counters = self.world.counters_of(backend);
            counters.add(self.id, FrontCounter::ConnectErrors as usize, 1);
        }
        self.begin_close(
            slot,
            Close {
                who,
                phase: Phase::Connect,
                cause,
            },
        );
    }

    /// The server is there: both directions run, once it has its PROXY header.
    fn connected(&mut self, slot: u32) {
        match self.send_header(slot) {
            Ok(()) => {}
            Err(Unsent::Failed(error)) => return self.close_attempt(slot, error),
            Err(Unsent::ClientGone) => return self.client_gone(slot),
        }
        let now = self.now;
        let unix_ms = self.unix_ms();
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.state = State::Relaying;
        session.connected_at = Some(now);
        session.active_at = [now; 2];
        session.written_at = [now; 2];
        session.halves[Direction::Up as usize].blocked = false;
        self.choose_engines(slot);
        let session = self.sessions.at_mut(slot).expect("a live session");
        let early = session.halves[Direction::Up as usize].bytes_in;
        let server = session.server.as_ref().expect("connected to a server");
        let us = now.us_since(session.connect_began_at);
        server
            .counters
            .add(self.id, ServerCounter::Sessions as usize, 1);
        server
            .counters
            .add(self.id, ServerCounter::ConnectTimeUs as usize, us);
        server
            .counters
            .raise(self.id, ServerCounter::ConnectTimeMaxUs as usize, us);
        server
            .counters
            .add(self.id, ServerCounter::BytesIn as usize, early);
        server.timings.connect_us.record(self.id, us);
        server.observed.succeeded();
        server.last_session_ms.store(unix_ms, Relaxed);
        let backend = session.backend.as_ref().expect("a backend was entered");
        backend.note_connect(server, us, now);
        let counters = self.world.counters_of(backend);
        counters.add(self.id, FrontCounter::ConnectTimeUs as usize, us);
        counters.add(self.id, FrontCounter::BytesIn as usize, early);
        counters.add(self.id, FrontCounter::Connections as usize, 1);
        self.log_connected(slot);
        self.arm_next(slot, Direction::Down);
        self.mark_dirty(slot, Direction::Up);
        self.retime(slot);
    }

    /// The client has gone before its server has got anything, not even an end of stream.
    fn client_gone(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.resets[Side::Server as usize] = true;
        let close = Close {
            who: Who::Client,
            phase: Phase::Connect,
            cause: Cause::Aborted,
        };
        self.begin_close(slot, close);
    }
}

/// The connecting side of a session's backend, as configured.
fn planned_backend(session: &Session) -> &Back {
    let backend = session.backend.as_ref().expect("a backend was entered");
    backend.proxy.back.as_ref().expect("a backend has its side")
}

/// Whether the `retry`-th retry (from 1) goes to another server: `option redispatch N` on every
/// N-th, negative N counted back from the last one.
fn redispatch_due(back: &Back, retry: u16) -> bool {
    let retry = i32::from(retry);
    match back.redispatch.map(i32::from) {
        None | Some(0) => false,
        Some(every) if every > 0 => retry % every == 0,
        Some(from_last) => retry == i32::from(back.retries) + 1 + from_last,
    }
}

fn socket_options(global: &Global, back: &Back, server: &Server) -> SocketOptions {
    let KeepAlive {
        idle_s,
        interval_s,
        count,
    } = back.keepalive.unwrap_or_default();
    SocketOptions {
        receive_buffer: global.rcvbuf_server.unwrap_or(0),
        send_buffer: global.sndbuf_server.unwrap_or(0),
        keepalive: back.keepalive.is_some(),
        keepalive_idle_s: idle_s.unwrap_or(0),
        keepalive_interval_s: interval_s.unwrap_or(0),
        keepalive_count: count.unwrap_or(0),
        user_timeout_ms: server.plan.tcp_user_timeout_ms,
        late_ack: back.smart_connect,
        congestion: server.plan.congestion,
        reuse_address: false,
        source: server.plan.source,
    }
}
