//! The validated configuration: resolved, immutable, shared by `Arc`. All times are milliseconds.
//!
//! Identity is by name (proxy, server) and address, never by the position in a file: the positions
//! that a plan is numbered by (`ProxyId`, `ListenerId`, `ServerId`) become numbers that last over
//! all plans of a process (`numbers`).

mod balance;
mod check;
mod check_script;
mod condition;
mod global;
mod line_format;
mod listener;
mod log;
mod numbers;
mod pages;
mod passive;
mod pattern;
mod proxy;
mod saved;
mod server;
mod slow_start;
mod source_ports;
mod udp;

use std::sync::Arc;

pub use super::edit::Written;
pub use balance::{
    Balance, Calculation, Converter, Digest, Expression, Fetch, Hash, HashFunction, HashKey,
    HashKind, HashMethod, QuicLb, ServerKey,
};
pub use check::{Agent, Check, InitState, Tracked, Watch};
pub use check_script::{
    Action, Answer, CheckStatus, ConnectStep, Ending, Expect, Manner, Script, Scripted, Step,
};
pub use condition::{Network, Networks, SourceCondition, SourceTerm};
pub use global::{
    Global, Jail, Level, MultiQueue, ProcessSettings, SeverityOutput, StatsSocket, Variables,
};
pub use line_format::{Cast, Item, LineFormat, Piece, Reads, SessionLines, Stage, Value};
pub use listener::{Endpoint, Listener, Sockets};
pub use log::{LogFormat, LogHost, LogSample, LogSink, LogTarget};
pub use numbers::Numbers;
pub use pages::{PAGE_CLIENTS_MAX, PageAsks, PageCondition, PageTerm, Pages, StatsPage};
pub use passive::{Breaker, Observe, OnError, Passive};
pub use pattern::{Content, HttpAnswer, HttpWanted, Pattern, RegularExpression};
pub use proxy::{Back, Front, KeepAlive, Proxy, ProxyKind, SpliceOptions};
pub use saved::{SavedHealth, SavedService, SavedState};
pub use server::{PortRule, Server, ServerOrigin, Target};
pub use slow_start::SlowStart;
pub use source_ports::{LocalPorts, PortChoice, PortReuse, SourcePorts};
pub use udp::{DatagramCheck, UdpBack, UdpFront, UdpHeader, UdpSockets};

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Settings of the process.
    pub global: Global,
    /// Frontends, backends and listens in the order of the files.
    pub proxies: Vec<Arc<Proxy>>,
    /// Every listening address of every frontend.
    pub listeners: Vec<Arc<Listener>>,
    /// How many server slots there are: `ServerId`s are below `servers_count`.
    pub servers_count: u32,
    /// How servers begin, where a state file says so.
    pub saved: Vec<SavedState>,
    /// What it was made of, for runtime commands that change something in it.
    pub written: Written,
}

impl Plan {
    /// Whether anything would listen. As for HAProxy, a runtime socket is enough: a file that only
    /// prepares for proxies starts.
    pub fn has_listener(&self) -> bool {
        !self.listeners.is_empty() || !self.global.stats_sockets.is_empty()
    }

    /// The pages that a listener's frontend answers with, if it is in `mode http`.
    pub fn pages_of(&self, listener: &Listener) -> Option<&Pages> {
        let mut proxies = self.proxies.iter();
        let proxy = proxies.find(|proxy| proxy.proxy_id == listener.proxy_id)?;
        proxy.front.as_ref()?.pages.as_ref()
    }

    /// Whether anything would listen for datagrams.
    pub fn has_datagrams(&self) -> bool {
        let is_datagram = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Datagram(_));
        self.listeners
            .iter()
            .any(|listener| is_datagram(&listener.endpoint))
    }

    /// The first server that is connected to from an address that need not be the machine's.
    pub fn first_foreign(&self) -> Option<(&Proxy, &Server)> {
        let mut servers = self.proxies.iter().flat_map(|proxy| {
            let back = proxy.back.iter();
            back.flat_map(|back| &back.servers)
                .map(|server| (&**proxy, &**server))
        });
        let is_foreign = |server: &Server| server.source.is_some_and(|s| s.foreign.is_some());
        servers.find(|(_, server)| is_foreign(server))
    }
}
