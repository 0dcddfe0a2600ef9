//! The record of a session, from the shard that ran it to the log thread.

use crossbeam::queue::ArrayQueue;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::world::Frontend;
use crate::config::plan::{Listener, Stage};
use crate::flow::udp::Reason;
use crate::lb::{Backend, Server};
use crate::sys::EventFd;

/// One session, or one accepted connection where the log line is written at accept. No text: the
/// log thread formats.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Unix time of the accept, milliseconds.
    pub accepted_unix_ms: u64,
    /// The frontend.
    pub frontend: Arc<Frontend>,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// The backend, once one was chosen.
    pub backend: Option<Arc<Backend>>,
    /// The last server tried.
    pub server: Option<Arc<Server>>,
    /// Client's address; `None` for Unix clients.
    pub client: Option<SocketAddr>,
    /// Address the client connected to; `None` for Unix listeners.
    pub local: Option<SocketAddr>,
    /// When this was: what had not happened yet means nothing.
    pub stage: Stage,
    /// The connection never became a session: it has no backend and no server.
    pub refused: Option<Refusal>,
    /// Milliseconds that its PROXY header took.
    pub handshake_ms: u32,
    /// Milliseconds in the queue, -1 = aborted before or there.
    pub queue_ms: i64,
    /// Milliseconds to connect, retries included; -1 = never connected.
    pub connect_ms: i64,
    /// Milliseconds from accept to end.
    pub total_ms: i64,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// HAProxy's two letters (`--`, `CD`, `sC` ...).
    pub termination: [u8; 2],
    /// Connections at the end: process, frontend, backend, server.
    pub counts: [u32; 4],
    /// Retries; `redispatched` puts a `+` before it.
    pub retries: u16,
    /// Whether a retry went to another server.
    pub redispatched: bool,
    /// Sessions before this one in the server's and the backend's queue.
    pub queued_before: [u32; 2],
    /// It is of a flow of datagrams.
    pub flow: Option<FlowPart>,
    /// The number of the session in the process, from 0 on, where lines show it.
    pub number: u64,
    /// What only few lines show.
    pub beyond: Option<Box<Beyond>>,
}

/// What a record says of a flow alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowPart {
    /// Datagrams of the client.
    pub requests: u64,
    /// Datagrams of its servers.
    pub replies: u64,
    /// Why it ended.
    pub reason: Reason,
}

/// Records are kept by the thousand (200 bytes on x86-64): a full queue holds 3 MiB of them.
const _: () = assert!(size_of::<SessionRecord>() <= 224, "a record has grown");

/// What is known of a session, and made part of its record where a form asks for it.
#[derive(Clone, Debug)]
pub struct Beyond {
    /// The address that the connection to the server came from.
    pub source: Option<SocketAddr>,
    /// The fields of the client's PROXY header.
    pub tlvs: Option<Box<[u8]>>,
}

/// Why a connection that a PROXY header is expected from was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// What it sent is no header.
    NotProxy,
    /// Its header is wrong or too long.
    Invalid,
    /// Its header names a protocol that there is none of.
    Protocol,
    /// The header didn't come in time; whether it had begun.
    TimedOut {
        /// Some of it was there.
        began: bool,
    },
    /// It ended within the header.
    CutOff,
    /// It ended without a byte.
    Closed,
    /// It was reset before there was a byte.
    Broken,
}

impl Refusal {
    /// Whether the client had sent anything.
    pub fn has_bytes(self) -> bool {
        match self {
            Refusal::NotProxy | Refusal::Invalid | Refusal::Protocol | Refusal::CutOff => true,
            Refusal::TimedOut { began } => began,
            Refusal::Closed | Refusal::Broken => false,
        }
    }
}

impl SessionRecord {
    /// Of a session or a flow with which nothing has happened yet.
    pub(super) fn new(frontend: &Arc<Frontend>, listener: &Arc<Listener>, stage: Stage) -> Self {
        SessionRecord {
            accepted_unix_ms: 0,
            frontend: Arc::clone(frontend),
            listener: Arc::clone(listener),
            backend: None,
            server: None,
            client: None,
            local: None,
            stage,
            refused: None,
            handshake_ms: 0,
            queue_ms: -1,
            connect_ms: -1,
            total_ms: 0,
            bytes_in: 0,
            bytes_out: 0,
            termination: *b"--",
            counts: [0; 4],
            retries: 0,
            redispatched: false,
            queued_before: [0; 2],
            flow: None,
            number: 0,
            beyond: None,
        }
    }

    /// Whether nothing went wrong, as `option dontlog-normal` has it: neither side broke the
    /// session off, nothing timed out, and the first attempt to connect succeeded.
    pub fn is_normal(&self) -> bool {
        self.refused.is_none()
            && self.termination[0] == b'-'
            && self.retries == 0
            && !self.redispatched
    }
}

/// Bounded queue from all shards to the log thread. A full queue drops the record and counts it.
#[derive(Debug)]
pub struct LogQueue {
    records: ArrayQueue<SessionRecord>,
    dropped: AtomicU64,
    wake: EventFd,
}

impl LogQueue {
    /// A queue of `capacity` records.
    pub fn new(capacity: usize) -> std::io::Result<LogQueue> {
        Ok(LogQueue {
            records: ArrayQueue::new(capacity),
            dropped: AtomicU64::new(0),
            wake: EventFd::new()?,
        })
    }

    /// Puts a record in; never blocks. Shards call `notify` once per turn after their last push.
    pub fn push(&self, record: SessionRecord) {
        if self.records.push(record).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Wakes the log thread.
    pub fn notify(&self) {
        self.wake.notify();
    }

    /// Takes the oldest record.
    pub fn pop(&self) -> Option<SessionRecord> {
        self.records.pop()
    }

    /// Records waiting.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record waits.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Records dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Readable when `notify` was called.
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }
}
