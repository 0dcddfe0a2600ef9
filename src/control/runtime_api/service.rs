//! Who accepts from the runtime sockets, as they come and go.
//!
//! Clients of all sockets have one bound; above it one of each socket is accepted and waits, and
//! the others in the socket's queue. A socket that is given up is emptied first: who has come is
//! served.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::listen::{BoundSocket, Grant, Terms};
use super::{Client, Server, session};
use crate::control::Shared;
use crate::control::listeners::Registry;
use crate::limits;

/// Rest after an accept that failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Clients that the queue of a socket may hold: one more than its bound.
const QUEUED_MAX: usize = limits::API_BACKLOG as usize + 1;

/// Who serves the runtime sockets, on the control thread's runtime.
#[derive(Debug)]
pub(in crate::control) struct Service {
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
    /// Room for clients, of all sockets.
    free: Arc<Semaphore>,
    /// How many there may be.
    clients: u32,
}

impl Service {
    /// Nobody is served yet.
    pub(in crate::control) fn new(
        shared: &Arc<Shared>,
        registry: &Arc<Mutex<Registry>>,
    ) -> Service {
        Service {
            shared: Arc::clone(shared),
            registry: Arc::clone(registry),
            free: Arc::new(Semaphore::new(0)),
            clients: 0,
        }
    }

    /// Serves these sockets, beside those that it has, as the world in force has it.
    pub(in crate::control) fn renew(&mut self, sockets: Vec<BoundSocket>) {
        let clients = self.shared.world().plan.global.stats_maxconn.max(1);
        let (more, fewer) = (
            clients.saturating_sub(self.clients),
            self.clients.saturating_sub(clients),
        );
        self.clients = clients;
        self.free.add_permits(more as usize);
        if fewer > 0 {
            let free = Arc::clone(&self.free);
            tokio_uring::spawn(async move {
                // As clients leave: nobody is sent away, and nobody comes before.
                if let Ok(given_up) = free.acquire_many(fewer).await {
                    given_up.forget();
                }
            });
        }
        for bound in sockets {
            let server = Server {
                shared: Arc::clone(&self.shared),
                registry: Arc::clone(&self.registry),
            };
            let free = Arc::clone(&self.free);
            tokio_uring::spawn(async move {
                // A socket that can't be waited for is as good as none.
                let _ = match bound.is_unix {
                    true => {
                        let listener = std::os::unix::net::UnixListener::from(bound.socket);
                        accept_all(listener, bound.terms, bound.empties, &server, &free).await
                    }
                    false => {
                        let listener = std::net::TcpListener::from(bound.socket);
                        accept_all(listener, bound.terms, bound.empties, &server, &free).await
                    }
                };
            });
        }
    }
}

/// A listening socket as the system has it, and what tokio makes of it.
trait Socket: Sized {
    type Awaited;
    type Client: Client + 'static;

    /// The sockets were opened non-blocking, so tokio takes them as they are.
    fn awaited(self) -> io::Result<Self::Awaited>;
    async fn accept(awaited: &Self::Awaited) -> io::Result<Self::Client>;
    fn back(awaited: Self::Awaited) -> io::Result<Self>;
    fn accept_now(&self) -> io::Result<Self::Client>;
}

impl Socket for std::os::unix::net::UnixListener {
    type Awaited = tokio::net::UnixListener;
    type Client = tokio::net::UnixStream;

    fn awaited(self) -> io::Result<Self::Awaited> {
        tokio::net::UnixListener::from_std(self)
    }

    async fn accept(awaited: &Self::Awaited) -> io::Result<Self::Client> {
        awaited.accept().await.map(|(stream, _)| stream)
    }

    fn back(awaited: Self::Awaited) -> io::Result<Self> {
        awaited.into_std()
    }

    fn accept_now(&self) -> io::Result<Self::Client> {
        let stream = self.accept()?.0;
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    }
}

impl Socket for std::net::TcpListener {
    type Awaited = tokio::net::TcpListener;
    type Client = tokio::net::TcpStream;

    fn awaited(self) -> io::Result<Self::Awaited> {
        tokio::net::TcpListener::from_std(self)
    }

    async fn accept(awaited: &Self::Awaited) -> io::Result<Self::Client> {
        awaited.accept().await.map(|(stream, _)| stream)
    }

    fn back(awaited: Self::Awaited) -> io::Result<Self> {
        awaited.into_std()
    }

    fn accept_now(&self) -> io::Result<Self::Client> {
        let stream = self.accept()?.0;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    }
}

async fn accept_all<L: Socket>(
    listener: L,
    mut terms: watch::Receiver<Terms>,
    empties: oneshot::Sender<()>,
    server: &Server,
    free: &Arc<Semaphore>,
) -> io::Result<()> {
    let awaited = listener.awaited()?;
    // Those that wait for room when the socket is to be closed.
    let mut waiting = Vec::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = terms.wait_for(|terms| terms.is_over) => break,
            accepted = L::accept(&awaited) => accepted,
        };
        let grant = terms.borrow().grant;
        let Ok(client) = accepted else {
            // No descriptor, or the client was gone: not again at once.
            tokio::time::sleep(ACCEPT_REST).await;
            continue;
        };
        // Above the bound of all sockets one client waits here, and those behind it in the socket's
        // queue.
        tokio::select! {
            biased;
            _ = terms.wait_for(|terms| terms.is_over) => {
                waiting.push(client);
                break;
            }
            seat = Arc::clone(free).acquire_owned() => welcome(client, grant, server, seat),
        }
    }
    // Whoever has come until now is served. What tokio knows of the socket may be late.
    let listener = L::back(awaited)?;
    let queued = std::iter::from_fn(|| listener.accept_now().ok());
    waiting.extend(queued.take(QUEUED_MAX));
    drop((listener, empties));
    let grant = terms.borrow().grant;
    for client in waiting {
        let seat = Arc::clone(free).acquire_owned().await;
        welcome(client, grant, server, seat);
    }
    Ok(())
}

/// Serves a client on a task of its own.
fn welcome<S: Client + 'static>(
    client: S,
    grant: Grant,
    server: &Server,
    seat: Result<OwnedSemaphorePermit, AcquireError>,
) {
    let server = server.clone();
    tokio_uring::spawn(async move {
        // A client that goes away ends its session, nothing else.
        let _ = session::serve(client, &server, grant).await;
        drop(seat);
    });
}
