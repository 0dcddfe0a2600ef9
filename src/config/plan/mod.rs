//! The validated configuration: resolved, immutable, shared by `Arc`. All times are milliseconds.
//!
//! Identity is by name (proxy, server) and address, never by the position in a file: positions
//! (`ProxyId`, `ListenerId`, `ServerId`) only index this one plan.

mod check;
mod check_script;
mod global;
mod listener;
mod log;
mod pattern;
mod proxy;
mod server;

use std::sync::Arc;

pub use check::Check;
pub use check_script::{
    Action, Answer, CheckStatus, ConnectStep, Ending, Expect, Manner, Script, Scripted, Step,
};
pub use global::{Global, Jail, Level, ProcessSettings, StatsSocket};
pub use listener::{Endpoint, Listener, Sockets};
pub use log::{LogFormat, LogHost, LogSink, LogTarget};
pub use pattern::{Content, Expression, HttpAnswer, HttpWanted, Pattern};
pub use proxy::{Back, Balance, Front, HashType, KeepAlive, Proxy, ProxyKind};
pub use server::{PortRule, Server, Target};

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Settings of the process.
    pub global: Global,
    /// Frontends, backends and listens in the order of the files.
    pub proxies: Vec<Arc<Proxy>>,
    /// Every listening address of every frontend; `Front::listeners` indexes it.
    pub listeners: Vec<Arc<Listener>>,
    /// How many server slots the plan uses: `ServerId`s are `0..servers_count`.
    pub servers_count: u32,
}

impl Plan {
    /// Whether anything would listen. As for HAProxy, a runtime socket is enough: a file that only
    /// prepares for proxies starts.
    pub fn has_listener(&self) -> bool {
        !self.listeners.is_empty() || !self.global.stats_sockets.is_empty()
    }
}
