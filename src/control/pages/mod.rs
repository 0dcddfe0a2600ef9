//! Frontends in `mode http`: their thread, their listeners and clients.
//!
//! They answer with metrics, statistics and that the process is alive, and pass nothing on. A
//! thread of its own (`metrics`) serves them, so that an answer of megabytes makes neither a shard
//! nor a change of health wait; it reads what shards count and takes no lock that a shard could
//! wait for. Clients are bounded in number by `maxconn`, in what they send by hyper, in time by
//! `patience`. At the bound, clients wait in the socket's queue.

mod activity;
mod answer;
mod exposition;
mod families;
mod haproxy;
pub mod offline;
mod own;
mod patience;
mod query;
mod rows;
mod statistics;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, Semaphore};
use tokio::task::LocalSet;

use super::Shared;
use super::listeners::{PageListener, Registry};
use crate::base::ids::{ListenerId, ShardId};
use crate::config::plan::Pages;
use crate::limits;
use crate::shard::{FrontCounter, FrontState, Frontend};
use patience::{Patience, Patient};

/// No shard counts for a frontend of pages, so that its thread may write a shard's block.
const WRITER: ShardId = ShardId(0);

/// How long it takes at most until a bound that was raised, or a want of descriptors, is looked at
/// again.
const RETRY: Duration = Duration::from_millis(100);

/// How long clients of a process that ends may take to read what they have asked for.
const END: Duration = Duration::from_secs(5);

/// Serves the frontends in `mode http` on a thread of their own, if there are any.
pub(super) fn serve(shared: &Arc<Shared>, registry: &Arc<Mutex<Registry>>) -> io::Result<()> {
    let listeners = {
        let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.for_pages()?
    };
    if listeners.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shared = Arc::clone(shared);
    let body = move || {
        let tasks = LocalSet::new();
        let answers = Arc::new(Semaphore::new(limits::PAGE_ANSWERS_MAX));
        for listener in listeners {
            if let Some(site) = Site::new(&shared, listener.listener_id, &answers) {
                tasks.spawn_local(listen(Rc::new(site), listener));
            }
        }
        runtime.block_on(tasks);
    };
    let thread = std::thread::Builder::new().name("metrics".to_owned());
    thread.spawn(body).map(drop)
}

/// A frontend of pages, for its listeners and clients.
#[derive(Debug)]
struct Site {
    shared: Arc<Shared>,
    front: Arc<Frontend>,
    /// A client has left.
    left: Notify,
    /// Room for answers that are made or under way, of all frontends.
    answers: Arc<Semaphore>,
}

impl Site {
    fn new(shared: &Arc<Shared>, of: ListenerId, answers: &Arc<Semaphore>) -> Option<Site> {
        let world = &shared.world();
        let front = world.frontend(world.listener(of)?.proxy_id)?;
        Some(Site {
            shared: Arc::clone(shared),
            front: Arc::clone(front),
            left: Notify::new(),
            answers: Arc::clone(answers),
        })
    }

    fn pages(&self) -> Option<&Pages> {
        self.front.proxy.front.as_ref()?.pages.as_ref()
    }

    fn count(&self, counter: FrontCounter, n: u64) {
        self.front.counters.add(WRITER, counter as usize, n);
    }

    /// Waits until a client may come: the frontend is open, and there is room.
    async fn room(&self) {
        self.is_in(|state| state != FrontState::Paused).await;
        while self.shared.world().limits.free(self.front.limit) == 0 {
            let _ = tokio::time::timeout(RETRY, self.left.notified()).await;
        }
    }

    /// Waits until an operator has brought the frontend into a state.
    async fn is_in(&self, wanted: impl Fn(FrontState) -> bool) {
        let mut news = self.shared.stopping();
        // The sender lives as long as this.
        let _ = news.wait_for(|_| wanted(self.front.state())).await;
    }

    /// Takes room for a client, which another listener may have taken in between.
    async fn seat(self: &Rc<Self>) -> Seat {
        while !self.shared.world().limits.take(self.front.limit) {
            self.room().await;
        }
        Seat(Rc::clone(self))
    }
}

/// A client's part of the frontend's bound.
struct Seat(Rc<Site>);

impl Drop for Seat {
    fn drop(&mut self) {
        // No shard waits for a limit that only this thread takes.
        let _ = self.0.shared.world().limits.give(self.0.front.limit);
        self.0.left.notify_one();
    }
}

/// A connection, of whichever kind.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A listening socket.
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Socket {
    /// The sockets were opened non-blocking, so tokio takes them as they are.
    fn new(socket: OwnedFd) -> io::Result<Socket> {
        let is_unix = socket2::SockRef::from(&socket).local_addr()?.is_unix();
        Ok(match is_unix {
            true => Socket::Unix(UnixListener::from_std(socket.into())?),
            false => Socket::Tcp(TcpListener::from_std(socket.into())?),
        })
    }

    /// The next client, with its address if it has one.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<IpAddr>)> {
        match self {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers leave in few large pieces, whose last one shall not wait.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), Some(address.ip().to_canonical())))
            }
            Socket::Unix(listener) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }
}

/// Accepts until the process drains, or the frontend is shut.
async fn listen(site: Rc<Site>, listener: PageListener) {
    let mut news = site.shared.stopping();
    let is_over = |stopping: &bool| *stopping || site.front.state() == FrontState::Shut;
    tokio::select! {
        _ = accept_all(&site, listener.socket) => {}
        // The socket is closed with what was waiting for it.
        _ = news.wait_for(is_over) => {}
    }
}

async fn accept_all(site: &Rc<Site>, socket: OwnedFd) -> io::Result<()> {
    let socket = Socket::new(socket)?;
    loop {
        site.room().await;
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, source)) => welcome(site.seat().await, stream, source),
                // No descriptor, or the client was gone: not again at once.
                Err(_) => tokio::time::sleep(RETRY).await,
            },
            () = site.is_in(|state| state == FrontState::Paused) => {}
        }
    }
}

/// Serves a client on a task of its own.
fn welcome<S>(seat: Seat, stream: S, source: Option<IpAddr>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let site = Rc::clone(&seat.0);
    for counter in [
        FrontCounter::Connections,
        FrontCounter::Sessions,
        FrontCounter::Active,
    ] {
        site.count(counter, 1);
    }
    tokio::task::spawn_local(async move {
        client(&site, stream, source).await;
        // Minus one, modulo 2^64.
        site.count(FrontCounter::Active, u64::MAX);
        drop(seat);
    });
}

async fn client<S>(site: &Rc<Site>, stream: S, source: Option<IpAddr>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Some(front) = &site.front.proxy.front else {
        return;
    };
    let Some(pages) = site.pages() else {
        return;
    };
    let patience = Rc::new(Patience::new(front.timeout_client_ms, pages));
    let count = |read: u64, written: u64| {
        site.count(FrontCounter::BytesIn, read);
        site.count(FrontCounter::BytesOut, written);
    };
    let stream = Patient::new(stream, Rc::clone(&patience), count);
    let service = service_fn(|request| {
        patience.asked();
        async move {
            let answer = answer::answer(site, &request, source).await;
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .max_buf_size(limits::PAGE_REQUEST_BYTES_MAX)
        .max_headers(limits::PAGE_HEADERS_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut stopping = site.shared.stopping();
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopping.wait_for(|stopping| *stopping) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(END, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended
        && (error.is_parse() || error.is_incomplete_message())
    {
        site.count(FrontCounter::RequestErrors, 1);
    }
}
