//! How a server is checked, and what else decides about its state.

use std::sync::Arc;

use super::check_script::Scripted;
use super::udp::DatagramCheck;
use crate::base::address::Address;
use crate::base::ids::{ProxyId, ServerId};
use crate::base::send_proxy::SendProxy;
use crate::base::source::Source;

/// An active check: a connect, or the steps of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Where to connect (`port` applied).
    pub address: Address,
    /// `inter`, 2,000 by default: time between checks while the server is up and nothing points
    /// to a change.
    pub inter_ms: u32,
    /// `fastinter`: the same while it is on its way up or down, or was never checked.
    pub fast_inter_ms: u32,
    /// `downinter`: the same while it is down.
    pub down_inter_ms: u32,
    /// `fall`, 3 by default.
    pub fall: u16,
    /// `rise`, 2 by default.
    pub rise: u16,
    /// Bound of one connect: `inter`, and where there is a `timeout check` the lower one of `inter`
    /// and `timeout connect`, as HAProxy has it.
    pub timeout_ms: u32,
    /// The server's `source`.
    pub source: Option<Source>,
    /// `init-state`.
    pub init_state: InitState,
    /// The PROXY header that a probe begins with.
    pub send_proxy: Option<SendProxy>,
    /// What is done beyond a connect.
    pub scripted: Option<Scripted>,
    /// Of a server of datagrams that is asked by datagrams: how. `None` = over TCP.
    pub datagram: Option<DatagramCheck>,
}

impl Check {
    /// A check of an address with the defaults that HAProxy has.
    pub fn of(address: Address) -> Check {
        Check {
            address,
            inter_ms: 2000,
            fast_inter_ms: 2000,
            down_inter_ms: 2000,
            fall: 3,
            rise: 2,
            timeout_ms: 2000,
            source: None,
            init_state: InitState::Up,
            send_proxy: None,
            scripted: None,
            datagram: None,
        }
    }
}

/// `init-state`: what a server is before its first check, and before the first one after
/// maintenance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InitState {
    /// Up, and down after `fall` failures.
    FullyUp,
    /// Up, and down after one failure.
    #[default]
    Up,
    /// Down, and up after one success.
    Down,
    /// Down, and up after `rise` successes.
    FullyDown,
}

impl InitState {
    /// Whether clients may go to a server that nothing is known of yet.
    pub fn is_up(self) -> bool {
        matches!(self, InitState::FullyUp | InitState::Up)
    }
}

/// What decides about a server's state beside its checks, and what follows from a change of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Watch {
    /// `agent-check` with its settings.
    pub agent: Option<Agent>,
    /// `track`: the server whose state this one takes.
    pub tracks: Option<Tracked>,
    /// `on-marked-down shutdown-sessions`.
    pub ends_sessions: bool,
    /// `on-marked-up shutdown-backup-sessions`.
    pub ends_backup_sessions: bool,
}

/// A program beside a server that is asked for the server's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Agent {
    /// Where it listens.
    pub address: Address,
    /// `agent-inter`: time between questions.
    pub inter_ms: u32,
    /// `agent-send`: what it is asked; often nothing.
    pub question: Arc<str>,
    /// Bound of the connect: min(`timeout connect`, `agent-inter`), or `agent-inter` without
    /// `timeout check`.
    pub timeout_connect_ms: u32,
    /// `timeout check`: bound of what follows. Where it isn't set, `agent-inter` bounds the whole.
    pub timeout_check_ms: Option<u32>,
    /// The server's `source`.
    pub source: Option<Source>,
}

/// A server that others track.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracked {
    /// Its slot.
    pub server_id: ServerId,
    /// Its backend.
    pub proxy_id: ProxyId,
    /// Its place there.
    pub index: usize,
    /// `backend/server`.
    pub name: Arc<str>,
}
