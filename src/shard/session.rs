//! One session: what a shard keeps for a client from accept to close.

use std::net::SocketAddr;
use std::sync::Arc;

use super::pieces::PieceList;
use super::pipes;
use super::private::ChunkList;
use super::world::Frontend;
use crate::base::ids::SessionKey;
use crate::base::time::Moment;
use crate::flow::transform::Transform;
use crate::flow::{Close, Direction, Half, Reading, Side};
use crate::lb::{Backend, Server};
use crate::ring::{ConnectError, Fd};

/// No session, in lists of sessions.
pub(super) const NONE: u32 = u32::MAX;

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum State {
    /// Bytes are waited for that must be seen before a server is chosen: a PROXY header.
    Prelude {
        /// When the wait ends.
        deadline: Moment,
    },
    /// In the backend's queue.
    Waiting {
        /// End of `timeout queue`.
        deadline: Moment,
    },
    /// The connect is under way.
    Connecting {
        /// End of `timeout connect`.
        deadline: Moment,
    },
    /// The connect has failed; its poll must complete before the descriptor can be closed.
    ConnectEnding {
        /// Why it failed.
        error: ConnectError,
    },
    /// Before another try on the same server.
    Resting {
        /// When the try is due.
        until: Moment,
    },
    /// Both sides are connected.
    Relaying,
    /// One side has reset its connection: what it had sent is flushed to the other, then that one
    /// is reset too.
    Flushing {
        /// Who is reset at the end.
        side: Side,
        /// Bytes that had not arrived when they moved for the last time.
        left: u64,
        /// When that was.
        moved_at: Moment,
        /// When to look next.
        check_at: Moment,
    },
    /// Everything is cancelled; waiting for the last completion.
    Closing,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: SessionKey,
    /// Index of the acceptor it came from.
    pub(super) acceptor: u16,
    pub(super) state: State,
    /// Sockets by side.
    pub(super) fds: [Fd; 2],
    /// Directions: up, down.
    pub(super) halves: [Half; 2],
    /// Private bytes by direction.
    pub(super) chunks: [ChunkList; 2],
    /// Received pieces by direction, empty between turns.
    pub(super) pieces: [PieceList; 2],
    /// Numbers of the pipes that hold bytes, by direction.
    pub(super) pipes: [u32; 2],
    /// Byte transforms by direction.
    pub(super) transforms: [Option<Box<dyn Transform>>; 2],
    /// Direction is to be frozen as soon as nothing of it is in flight.
    pub(super) freezing: [bool; 2],
    /// Direction is in the list of directions to flush.
    pub(super) dirty: [bool; 2],
    /// Direction is in the queue of bulk receives.
    pub(super) queued: [bool; 2],
    /// Shares of bulk receives that a direction has had before its turn.
    pub(super) shares_ahead: [u8; 2],
    /// Direction is in the queue of those that found no buffer.
    pub(super) starved: [bool; 2],
    /// Sticky poll of the side's socket is outstanding.
    pub(super) polled: [bool; 2],
    /// The connect's poll is outstanding.
    pub(super) connect_polled: bool,
    /// The poll of the prelude is outstanding; it may outlast it.
    pub(super) prelude_polled: bool,
    /// It counts as a session: what had to come before it is there.
    pub(super) begun: bool,
    /// Operations outstanding in the kernel.
    pub(super) in_kernel: u8,
    /// Last byte read from the side, or the moment at which it was no longer held back.
    pub(super) active_at: [Moment; 2],
    /// Last byte written to the side.
    pub(super) written_at: [Moment; 2],
    /// When the session's timer will fire; `NEVER` = not armed.
    pub(super) timer_at: Moment,
    /// When draining the client ends, once the server is gone.
    pub(super) drain_until: Moment,
    /// When it was accepted.
    pub(super) accepted_at: Moment,
    /// When it was given its first server.
    pub(super) assigned_at: Option<Moment>,
    /// When the present connect began.
    pub(super) connect_began_at: Moment,
    /// When the server's connection was there.
    pub(super) connected_at: Option<Moment>,
    /// How long its prelude took, milliseconds.
    pub(super) prelude_ms: u32,
    /// Tries that may still follow a failed one.
    pub(super) retries_left: u16,
    /// Tries after the first.
    pub(super) retries: u16,
    /// A retry went to another server.
    pub(super) redispatched: bool,
    /// Sessions before it in the queue when it got there.
    pub(super) queued_before: u32,
    pub(super) frontend: Arc<Frontend>,
    pub(super) backend: Option<Arc<Backend>>,
    /// The server whose count it holds.
    pub(super) server: Option<Arc<Server>>,
    /// The server it tried last, for the log.
    pub(super) server_tried: Option<Arc<Server>>,
    /// Neighbours in the list of its server's sessions on this shard.
    pub(super) server_previous: u32,
    pub(super) server_next: u32,
    /// Who it is from and where it wanted to go, once somebody has asked; a PROXY header decides
    /// where there is one.
    pub(super) client: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    /// What the PROXY header says beyond addresses.
    pub(super) tlvs: Option<Box<[u8]>>,
    /// The port that its connection to the server has, if it was chosen here.
    pub(super) source_port: Option<u16>,
    /// The server had our FIN before its own was here: TIME_WAIT is on our side.
    pub(super) closed_first: bool,
    /// Its number for the id that servers get of it, 0 = none has asked.
    pub(super) unique_number: u64,
    /// How it ended, once something has decided that.
    pub(super) close: Option<Close>,
    /// Sides that are closed by a reset.
    pub(super) resets: [bool; 2],
}

/// What a session costs while it rests, beside its sockets in the kernel (480 bytes on x86-64).
const _: () = assert!(size_of::<Session>() <= 512, "a session has grown");

impl Session {
    /// A session at its accept.
    pub(super) fn new(
        key: SessionKey,
        acceptor: u16,
        frontend: Arc<Frontend>,
        client: Fd,
        now: Moment,
    ) -> Session {
        Session {
            key,
            acceptor,
            state: State::Prelude {
                deadline: Moment::NEVER,
            },
            fds: [client, Fd::NONE],
            // The server isn't connected: the way up is blocked until it is.
            halves: [Half::new(true), Half::new(false)],
            chunks: [ChunkList::EMPTY; 2],
            pieces: [PieceList::EMPTY; 2],
            pipes: [pipes::NONE; 2],
            transforms: [None, None],
            freezing: [false; 2],
            dirty: [false; 2],
            queued: [false; 2],
            shares_ahead: [0; 2],
            starved: [false; 2],
            polled: [false; 2],
            connect_polled: false,
            prelude_polled: false,
            begun: false,
            in_kernel: 0,
            active_at: [now; 2],
            written_at: [now; 2],
            timer_at: Moment::NEVER,
            drain_until: Moment::NEVER,
            accepted_at: now,
            assigned_at: None,
            connect_began_at: now,
            connected_at: None,
            prelude_ms: 0,
            retries_left: 0,
            retries: 0,
            redispatched: false,
            queued_before: 0,
            frontend,
            backend: None,
            server: None,
            server_tried: None,
            source_port: None,
            closed_first: false,
            server_previous: NONE,
            server_next: NONE,
            client: None,
            local: None,
            tlvs: None,
            unique_number: 0,
            close: None,
            resets: [false; 2],
        }
    }

    /// When it could begin: accepted, and its prelude over.
    pub(super) fn ready_at(&self) -> Moment {
        self.accepted_at.after_ms(u64::from(self.prelude_ms))
    }

    /// The socket of a side.
    pub(super) fn fd(&self, side: Side) -> Fd {
        self.fds[side as usize]
    }

    /// Whether the client has sent its FIN.
    pub(super) fn client_ended(&self) -> bool {
        self.halves[Direction::Up as usize].reading == Reading::Ended
    }

    /// Whether the server's connection is or was there.
    pub(super) fn connected(&self) -> bool {
        self.connected_at.is_some()
    }
}
