//! What shards tell the log thread of sessions: values, never text.
//!
//! A session has one line: at its accept, when it is connected, or at its end, whichever the form
//! of its frontend's lines asks for. What costs a system call is asked for only where a form shows
//! it.

use std::net::SocketAddr;

use super::Shard;
use super::record::{Beyond, Refusal, SessionRecord};
use super::session::Session;
use super::world::FrontCounter;
use crate::base::ids::SessionKey;
use crate::base::time::Moment;
use crate::config::plan::{SessionLines, Stage};
use crate::flow::{Close, Direction, Phase, Side};
use crate::ring::{Fd, Kernel};

impl<K: Kernel> Shard<K> {
    /// The addresses that its frontend's lines show, as long as they can be asked for.
    pub(super) fn note_addresses(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let fd = session.fd(Side::Client);
        if session.client.is_none() {
            session.client = self.kernel.peer_address(fd);
        }
        if lines(session).reads.destination && session.local.is_none() {
            session.local = self.kernel.local_address(fd);
        }
    }

    /// The session has begun.
    pub(super) fn log_accept(&mut self, slot: u32) {
        let session = self.sessions.at(slot).expect("a live session");
        if lines(session).stage == Stage::Accepted {
            let record = self.record(session, Stage::Accepted);
            self.log(record);
        }
    }

    /// The session is connected.
    pub(super) fn log_connected(&mut self, slot: u32) {
        let session = self.sessions.at(slot).expect("a live session");
        if session.frontend.proxy.logs.is_empty() || lines(session).stage != Stage::Connected {
            return;
        }
        let source = self.source_shown(session);
        let (key, letters) = (session.key, *b"--");
        self.log_values(key, Stage::Connected, session.assigned_at, letters, source);
    }

    /// The address that the connection to the server comes from, if lines show it and as long as
    /// there is one.
    pub(super) fn source_shown(&self, session: &Session) -> Option<SocketAddr> {
        let fd = session.fd(Side::Server);
        let is_shown = lines(session).reads.source && fd != Fd::NONE;
        is_shown.then(|| self.kernel.local_address(fd)).flatten()
    }

    /// The session has ended.
    pub(super) fn log_end(&mut self, key: SessionKey, close: Close, source: Option<SocketAddr>) {
        let session = self.sessions.get(key).expect("still there");
        let front = session.frontend.proxy.front.as_ref().expect("a frontend");
        let was_logged = match front.lines.stage {
            Stage::Accepted => true,
            Stage::Connected => session.connected(),
            Stage::Ended => false,
        };
        let is_null = session.halves[Direction::Up as usize].bytes_in == 0;
        if session.frontend.proxy.logs.is_empty() || was_logged || (front.dontlognull && is_null) {
            return;
        }
        // Who gave up in the queue has waited until now.
        let left_queue_at = match close.phase {
            Phase::Queue => Some(self.now),
            Phase::Request | Phase::Connect | Phase::Data => session.assigned_at,
        };
        self.log_values(key, Stage::Ended, left_queue_at, close.letters(), source);
    }

    fn log_values(
        &mut self,
        key: SessionKey,
        stage: Stage,
        left_queue_at: Option<Moment>,
        termination: [u8; 2],
        source: Option<SocketAddr>,
    ) {
        let reads = lines(self.sessions.get(key).expect("still there")).reads;
        let number = if reads.number { self.number(key) } else { 0 };
        let session = self.sessions.get(key).expect("still there");
        let limits = &self.world.limits;
        // At the end the backend's and the server's count are those without this session, as
        // HAProxy logs them.
        let backend_now = session.backend.as_ref().map_or(0, |backend| {
            let counters = self.world.counters_of(backend);
            u32::try_from(counters.sum(FrontCounter::Active as usize)).unwrap_or(0)
        });
        let own = u32::from(stage == Stage::Ended);
        let tlvs = session.tlvs.as_ref().filter(|_| reads.header);
        let beyond = (source.is_some() || tlvs.is_some()).then(|| {
            Box::new(Beyond {
                source,
                tlvs: tlvs.cloned(),
            })
        });
        let record = SessionRecord {
            backend: session.backend.clone(),
            server: session.server_tried.clone(),
            queue_ms: ms(left_queue_at, session.ready_at()),
            connect_ms: ms(
                session.connected_at,
                session.assigned_at.unwrap_or(session.accepted_at),
            ),
            total_ms: ms(Some(self.now), session.accepted_at),
            bytes_in: session.halves[Direction::Up as usize].bytes_in,
            bytes_out: session.halves[Direction::Down as usize].bytes_in,
            termination,
            counts: [
                limits.current(self.world.process_limit),
                limits.current(session.frontend.limit),
                backend_now,
                session
                    .server
                    .as_ref()
                    .map_or(0, |server| server.active().saturating_sub(own)),
            ],
            retries: session.retries,
            redispatched: session.redispatched,
            queued_before: [0, session.queued_before],
            number,
            beyond,
            ..self.record(session, stage)
        };
        self.log(record);
    }

    /// The connection was closed before it became a session. As HAProxy: where sessions have a
    /// line of their own, by the client's own address.
    pub(super) fn log_refusal(&mut self, slot: u32, refusal: Refusal) {
        let session = self.sessions.at(slot).expect("a live session");
        let proxy = &session.frontend.proxy;
        let front = proxy.front.as_ref().expect("a frontend");
        let is_null = front.dontlognull && !refusal.has_bytes();
        let is_short = front.lines.stage == Stage::Accepted && front.lines.error.is_none();
        if proxy.logs.is_empty() || is_short || is_null {
            return;
        }
        self.note_addresses(slot);
        let session = self.sessions.at(slot).expect("a live session");
        let limits = &self.world.limits;
        let total_ms = ms(Some(self.now), session.accepted_at);
        let record = SessionRecord {
            refused: Some(refusal),
            total_ms,
            handshake_ms: u32::try_from(total_ms).unwrap_or(u32::MAX),
            termination: *b"PR",
            counts: [
                limits.current(self.world.process_limit),
                limits.current(session.frontend.limit),
                0,
                0,
            ],
            ..self.record(session, Stage::Ended)
        };
        self.log(record);
    }

    /// The session's number in the process.
    fn number(&mut self, key: SessionKey) -> u64 {
        let session = self.sessions.get_mut(key).expect("still there");
        if session.unique_number == 0 {
            session.unique_number = self.unique_ids.number();
        }
        let shards = self.world.ports.len() as u64;
        (session.unique_number - 1) * shards + u64::from(self.id.0)
    }

    /// The record of a session with which nothing has happened yet.
    fn record(&self, session: &Session, stage: Stage) -> SessionRecord {
        let listener = &self.acceptors[usize::from(session.acceptor)].plan;
        SessionRecord {
            accepted_unix_ms: self.unix_ms() - self.now.ms_since(session.accepted_at),
            client: session.client,
            local: session.local,
            handshake_ms: session.prelude_ms,
            ..SessionRecord::new(&session.frontend, listener, stage)
        }
    }
}

/// The lines of a session's frontend.
fn lines(session: &Session) -> &SessionLines {
    let front = session.frontend.proxy.front.as_ref().expect("a frontend");
    &front.lines
}

fn ms(at: Option<Moment>, from: Moment) -> i64 {
    at.map_or(-1, |at| {
        i64::try_from(at.ms_since(from)).unwrap_or(i64::MAX)
    })
}
