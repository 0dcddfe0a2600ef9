//! Questions to a shard about what it has, and wishes that name one of its sessions.
//!
//! A question comes as a message and is answered in the turn that finds it, with no more than a
//! page: whoever asks goes on where the page ended. So the shard keeps nothing for those who ask,
//! is held up by none of them, and nothing is left behind by one who goes away.

use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::oneshot;

use super::Shard;
use super::close::phase;
use super::pipes;
use super::port::{Message, ShardPort};
use super::session::{Session, State};
use super::udp::FlowRow;
use super::world::Frontend;
use crate::base::ids::{ListenerId, SessionKey};
use crate::base::time::Moment;
use crate::flow::{Cause, Close, Direction, Reading, Side, Who, Writing};
use crate::lb::{Backend, Server};
use crate::ring::Kernel;

/// Slots that one question looks at: up to four addresses are asked of the kernel for each session,
/// which makes less than 100 microseconds.
const PAGE_SLOTS: u32 = 64;

/// A question on its way.
#[derive(Debug)]
pub struct Query {
    question: Question,
    answer: oneshot::Sender<Answer>,
}

/// What a shard can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Its sessions, from a slot on.
    Sessions(u32),
    /// One session.
    Session(SessionKey),
    /// To end one session, as an operator wants it.
    End(SessionKey),
    /// Its flows of datagrams, from a slot on.
    Flows(u32),
}

/// What it answers.
#[derive(Debug)]
pub enum Answer {
    /// A page of sessions, and the slot from which to go on; `None` = these were the last.
    Sessions(Vec<SessionRow>, Option<u32>),
    /// Whether there was such a session, which is ending now.
    Ended(bool),
    /// A page of flows, and the slot from which to go on; `None` = these were the last.
    Flows(Vec<FlowRow>, Option<u32>),
}

/// A session as it is at a moment.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Its name on its shard.
    pub key: SessionKey,
    /// Where it came in.
    pub listener_id: ListenerId,
    /// The frontend.
    pub frontend: Arc<Frontend>,
    /// The backend, once one was chosen.
    pub backend: Option<Arc<Backend>>,
    /// The server that it is with.
    pub server: Option<Arc<Server>>,
    /// The client; `None` for Unix clients.
    pub client: Option<SocketAddr>,
    /// What the client connected to.
    pub local: Option<SocketAddr>,
    /// Where the server's connection comes from and goes to.
    pub towards: [Option<SocketAddr>; 2],
    /// Where it is in its life.
    pub stage: SessionStage,
    /// When it was accepted.
    pub accepted_at: Moment,
    /// When its server was connected.
    pub connected_at: Option<Moment>,
    /// When something will be done about it if nothing happens.
    pub deadline: Moment,
    /// Tries after the first.
    pub retries: u16,
    /// Its sockets, by side; -1 = none.
    pub descriptors: [i32; 2],
    /// From the client, from the server.
    pub directions: [DirectionRow; 2],
}

/// Where a session is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionStage {
    /// Waits for a PROXY header.
    Prelude,
    /// Waits for a server.
    Queue,
    /// Connects, or rests before another try.
    Connect,
    /// Both sides are connected.
    Data,
    /// Ends.
    Ending,
}

/// One direction of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectionRow {
    /// Bytes received.
    pub bytes: u64,
    /// Bytes that wait to be sent.
    pub held: u32,
    /// Its source sends no more.
    pub ended: bool,
    /// Its sink takes no more.
    pub closed: bool,
    /// It goes through a pipe.
    pub spliced: bool,
    /// When its source sent something last.
    pub active_at: Moment,
}

impl ShardPort {
    /// Asks the shard. `None` = it is full of messages, or has ended; the receiver fails if the
    /// shard ends before it has answered.
    pub fn ask(&self, question: Question) -> Option<oneshot::Receiver<Answer>> {
        let (answer, receiver) = oneshot::channel();
        let query = Box::new(Query { question, answer });
        if self.has_ended() {
            return None;
        }
        self.send(Message::Ask(query)).ok()?;
        // Had it ended before the message was there, nobody would answer.
        (!self.has_ended()).then_some(receiver)
    }
}

impl<K: Kernel> Shard<K> {
    /// Answers a question. Whoever has asked may have gone.
    pub(super) fn answer(&mut self, query: Query) {
        let answer = match query.question {
            Question::Sessions(from) => {
                let (sessions, next) = self.sessions.page(from, PAGE_SLOTS);
                let sessions = sessions.map(|(_, session)| self.row(session));
                Answer::Sessions(sessions.collect(), next)
            }
            Question::Session(key) => {
                let session = self.sessions.get(key).into_iter();
                Answer::Sessions(session.map(|session| self.row(session)).collect(), None)
            }
            Question::End(key) => Answer::Ended(self.end_session(key)),
            Question::Flows(from) => {
                let (flows, next) = self.flow_rows(from);
                Answer::Flows(flows, next)
            }
        };
        let _ = query.answer.send(answer);
    }

    fn end_session(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let close = Close {
            who: Who::Killed,
            phase: phase(session),
            cause: Cause::Aborted,
        };
        self.begin_close(key.slot, close);
        true
    }

    fn row(&self, session: &Session) -> SessionRow {
        let [client, server] = Side::BOTH.map(|side| session.fd(side));
        let stage = match session.state {
            State::Prelude { .. } => SessionStage::Prelude,
            State::Waiting { .. } => SessionStage::Queue,
            State::Connecting { .. } | State::ConnectEnding { .. } | State::Resting { .. } => {
                SessionStage::Connect
            }
            State::Relaying | State::Flushing { .. } => SessionStage::Data,
            State::Closing => SessionStage::Ending,
        };
        let towards = match session.connected() {
            true => [
                self.kernel.local_address(server),
                self.kernel.peer_address(server),
            ],
            false => [None; 2],
        };
        SessionRow {
            key: session.key,
            listener_id: self.acceptors[usize::from(session.acceptor)].listener_id,
            frontend: Arc::clone(&session.frontend),
            backend: session.backend.clone(),
            server: session.server.clone(),
            client: session.client.or_else(|| self.kernel.peer_address(client)),
            local: session.local.or_else(|| self.kernel.local_address(client)),
            towards,
            stage,
            accepted_at: session.accepted_at,
            connected_at: session.connected_at,
            deadline: session.timer_at,
            retries: session.retries,
            descriptors: [client.0, server.0],
            directions: Direction::BOTH.map(|direction| direction_row(session, direction)),
        }
    }
}

fn direction_row(session: &Session, direction: Direction) -> DirectionRow {
    let half = &session.halves[direction as usize];
    DirectionRow {
        bytes: half.bytes_in,
        held: half.unsent(),
        ended: half.reading != Reading::Open,
        closed: half.writing != Writing::Open,
        spliced: session.pipes[direction as usize] != pipes::NONE,
        active_at: session.active_at[direction.source() as usize],
    }
}
