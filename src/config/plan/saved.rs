//! What a state file says of servers.

use crate::base::ids::ProxyId;

/// How a server begins, in place of the beginning that its line gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedState {
    /// Its backend.
    pub proxy_id: ProxyId,
    /// Its place in it.
    pub index: usize,
    /// What operators have said of it.
    pub service: SavedService,
    /// How it was; `None` = not known, or of no meaning any more.
    pub health: Option<SavedHealth>,
    /// Its weight; `None` = that of the configuration, which was changed since.
    pub weight: Option<u16>,
    /// Seconds since its last change.
    pub changed_ago_s: u64,
    /// HAProxy's number of what its last check found.
    pub check_status: u8,
    /// Between up and down, as checks count.
    pub check_position: u16,
    /// Operators have stopped its checks.
    pub checks_stopped: bool,
    /// Operators have stopped the questions to its agent.
    pub agent_stopped: bool,
}

/// What operators have said of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavedService {
    /// In service.
    Ready,
    /// No new connections.
    Drain,
    /// Out of service.
    Maintenance,
}

/// How a server was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavedHealth {
    /// Up, perhaps in its slow start.
    Up,
    /// Up, and without new connections.
    Stopping,
    /// Down.
    Down,
}
