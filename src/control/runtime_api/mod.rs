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

pub use listen::{ApiSockets, BoundSocket};
pub use rehearsal::Rehearsal;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use super::Shared;
use super::listeners::Registry;
use listen::Grant;
use session::Session;

/// Rest after an accept that failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves the sockets on the control thread's runtime.
pub(super) fn serve(
    shared: &Arc<Shared>,
    sockets: Vec<BoundSocket>,
    registry: &Arc<Mutex<Registry>>,
) {
    let clients = usize::try_from(shared.world().plan.global.stats_maxconn)
        .unwrap_or(1)
        .max(1);
    let free = Arc::new(Semaphore::new(clients));
    for bound in sockets {
        let server = Server {
            shared: Arc::clone(shared),
            registry: Arc::clone(registry),
            grant: bound.grant,
        };
        let free = Arc::clone(&free);
        tokio_uring::spawn(async move {
            // The sockets were opened non-blocking, so tokio takes them as they are.
            if bound.is_unix {
                let listener = std::os::unix::net::UnixListener::from(bound.socket);
                let Ok(listener) = tokio::net::UnixListener::from_std(listener) else {
                    return;
                };
                accept_all(
                    async || listener.accept().await.map(|(s, _)| s),
                    &server,
                    &free,
                )
                .await;
            } else {
                let listener = std::net::TcpListener::from(bound.socket);
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                    return;
                };
                accept_all(
                    async || listener.accept().await.map(|(s, _)| s),
                    &server,
                    &free,
                )
                .await;
            }
        });
    }
}

async fn accept_all<S>(
    accept: impl AsyncFn() -> io::Result<S>,
    server: &Server,
    free: &Arc<Semaphore>,
) where
    S: Client + 'static,
{
    loop {
        match accept().await {
            Ok(stream) => {
                // Above the bound of all sockets one client waits here, and those behind it in the
                // socket's queue.
                let Ok(seat) = Arc::clone(free).acquire_owned().await else {
                    return;
                };
                let server = server.clone();
                tokio_uring::spawn(async move {
                    // A client that goes away ends its session, nothing else.
                    let _ = session::serve(stream, &server).await;
                    drop(seat);
                });
            }
            // No descriptor, or the client was gone: not again at once.
            Err(_) => tokio::time::sleep(ACCEPT_REST).await,
        }
    }
}

/// What the sessions of a socket work with.
#[derive(Clone)]
struct Server {
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
    grant: Grant,
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
