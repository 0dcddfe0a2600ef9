//! The runtime socket: HAProxy's stats socket in framing and words.
//!
//! A client sends one line of commands divided by `;`; every answer is followed by one empty line
//! and the connection is closed after the last, unless `prompt` came first. Lines, payloads,
//! clients and waiting times are bounded. A client that has closed its sending side still gets its
//! answer.

pub(super) mod activity;
mod balance;
mod bounds;
mod cli;
mod columns;
mod command;
mod commands;
mod condition;
mod counters;
mod errors;
mod events;
mod flows;
mod frontends;
pub(super) mod info;
mod info_lines;
mod line;
mod listen;
mod listening;
mod ramp;
mod rehearsal;
mod reload;
pub(super) mod rows;
mod schema;
mod server_changes;
mod servers;
mod service;
mod session;
mod session_text;
mod sessions;
mod set_server;
mod show;
pub mod sockets;
mod stat;
mod subject;
pub(super) mod table;
mod typed;
mod wait;

pub use listen::ApiSockets;
pub use rehearsal::Rehearsal;
pub(super) use service::Service;

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Shared;
use super::listeners::Registry;
use session::Session;

/// What the sessions of a socket work with.
#[derive(Clone)]
struct Server {
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
}

/// A connection to a runtime socket.
trait Client: AsyncRead + AsyncWrite + Unpin {
    /// The connection as one that can carry descriptors, if it can.
    fn as_unix(&mut self) -> Option<&mut tokio::net::UnixStream>;
}

impl Client for tokio::net::UnixStream {
    fn as_unix(&mut self) -> Option<&mut tokio::net::UnixStream> {
        Some(self)
    }
}

impl Client for tokio::net::TcpStream {
    fn as_unix(&mut self) -> Option<&mut tokio::net::UnixStream> {
        None
    }
}
