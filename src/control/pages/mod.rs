//! Frontends in `mode http`: their thread, their listeners and clients.
//!
//! They answer with metrics, statistics and that the process is alive, and pass nothing on. A
//! thread of its own (`metrics`) serves them, so that an answer of megabytes makes neither a shard
//! nor a change of health wait; it reads what shards count and takes no lock that a shard could
//! wait for. Clients are bounded in number by `maxconn`, in what they send by hyper, in time by
//! `patience`. At the bound, clients wait in the socket's queue.
//!
//! A reload brings it listeners and the world that they belong to. Requests are answered by the
//! pages that are in force when they come.

mod activity;
mod answer;
mod exposition;
mod families;
mod haproxy;
mod listen;
pub mod offline;
mod own;
mod patience;
mod query;
mod rows;
mod statistics;

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::LocalSet;

use super::Shared;
use super::listeners::PageListener;
use crate::base::ids::ShardId;
use crate::config::plan::Pages;
use crate::limits;
use crate::shard::{FrontCounter, FrontState, Frontend};
use listen::Sites;
use patience::{Patience, Patient};

/// No shard counts for a frontend of pages, so that its thread may write a shard's block.
const WRITER: ShardId = ShardId(0);

/// How long it takes at most until a bound that was raised, or a want of descriptors, is looked at
/// again.
const RETRY: Duration = Duration::from_millis(100);

/// How long clients of a process that ends may take to read what they have asked for.
const END: Duration = Duration::from_secs(5);

/// The thread, once there is anything for it to serve.
#[derive(Debug, Default)]
pub(super) struct Thread {
    orders: Option<mpsc::Sender<Order>>,
}

/// The world has changed.
#[derive(Debug)]
struct Order {
    added: Vec<PageListener>,
    /// Dropped when it has been followed.
    done: oneshot::Sender<()>,
}

impl Thread {
    /// Starts it, unless it runs.
    pub(super) fn start(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        if self.orders.is_some() {
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (sender, orders) = mpsc::channel(1);
        let shared = Arc::clone(shared);
        let body = move || {
            let tasks = LocalSet::new();
            runtime.block_on(tasks.run_until(Sites::new(&shared).serve(orders)));
        };
        let thread = std::thread::Builder::new().name("metrics".to_owned());
        thread.spawn(body)?;
        self.orders = Some(sender);
        Ok(())
    }

    /// Has it go over to the world in force, with these listeners beside those that it has. What
    /// is returned ends when it has: nobody comes by what is no more.
    pub(super) fn renew(&self, added: Vec<PageListener>) -> oneshot::Receiver<()> {
        let (done, followed) = oneshot::channel();
        if let Some(orders) = self.orders.clone() {
            tokio_uring::spawn(async move {
                // It runs as long as the process.
                let _ = orders.send(Order { added, done }).await;
            });
        }
        followed
    }
}

/// A frontend of pages, for its listeners and clients.
#[derive(Debug)]
struct Site {
    shared: Arc<Shared>,
    /// As the world in force has it.
    front: RefCell<Arc<Frontend>>,
    /// A client has left.
    left: Notify,
    /// Room for answers that are made or under way, of all frontends.
    answers: Arc<Semaphore>,
    /// The configuration has it no more.
    gone: watch::Sender<bool>,
}

impl Site {
    fn new(shared: &Arc<Shared>, front: &Arc<Frontend>, answers: &Arc<Semaphore>) -> Site {
        Site {
            shared: Arc::clone(shared),
            front: RefCell::new(Arc::clone(front)),
            left: Notify::new(),
            answers: Arc::clone(answers),
            gone: watch::Sender::new(front.is_removed),
        }
    }

    /// Goes over to another configuration of it.
    fn renew(&self, front: &Arc<Frontend>) {
        *self.front.borrow_mut() = Arc::clone(front);
        self.gone.send_replace(front.is_removed);
        // There may be room for more.
        self.left.notify_waiters();
    }

    fn front(&self) -> Arc<Frontend> {
        Arc::clone(&self.front.borrow())
    }

    fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    fn count(&self, counter: FrontCounter, n: u64) {
        let front = self.front.borrow();
        front.counters.add(WRITER, counter as usize, n);
    }

    /// Waits until a client may come: the frontend is open, and there is room.
    async fn room(&self) {
        self.is_in(|state| state != FrontState::Paused).await;
        while self.shared.world().limits.free(self.front().limit) == 0 {
            let _ = tokio::time::timeout(RETRY, self.left.notified()).await;
        }
    }

    /// Waits until an operator has brought the frontend into a state.
    async fn is_in(&self, wanted: impl Fn(FrontState) -> bool) {
        let mut news = self.shared.stopping();
        // The sender lives as long as this.
        let _ = news.wait_for(|_| wanted(self.front().state())).await;
    }

    /// Takes room for a client, which another listener may have taken in between.
    async fn seat(self: &Rc<Self>) -> Seat {
        while !self.shared.world().limits.take(self.front().limit) {
            self.room().await;
        }
        Seat(Rc::clone(self))
    }

    /// Waits until the process drains or ends.
    async fn stopping(&self) {
        let mut news = self.shared.stopping();
        let _ = news.wait_for(|stopping| *stopping).await;
    }

    /// Waits until nothing more is to be asked here.
    async fn closing(&self) {
        let mut gone = self.gone.subscribe();
        tokio::select! {
            () = self.stopping() => {}
            _ = gone.wait_for(|gone| *gone) => {}
        }
    }
}

/// What a frontend answers with.
fn pages_of(front: &Frontend) -> Option<&Pages> {
    front.proxy.front.as_ref()?.pages.as_ref()
}

/// A client's part of the frontend's bound.
struct Seat(Rc<Site>);

impl Drop for Seat {
    fn drop(&mut self) {
        // No shard waits for a limit that only this thread takes.
        let _ = self.0.shared.world().limits.give(self.0.front().limit);
        self.0.left.notify_one();
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
    let Some(patience) = Patience::at(&site.front()) else {
        return;
    };
    let patience = Rc::new(patience);
    let count = |read: u64, written: u64| {
        site.count(FrontCounter::BytesIn, read);
        site.count(FrontCounter::BytesOut, written);
    };
    let stream = Patient::new(stream, Rc::clone(&patience), count);
    let service = service_fn(|request| {
        patience.asked();
        async move {
            let mut answer = answer::answer(site, &request, source).await;
            if site.is_gone() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
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
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = site.closing() => {
            // A client that has asked for nothing yet is answered once, and told to go.
            if patience.has_answered() || site.shared.is_stopping() {
                connection.as_mut().graceful_shutdown();
            }
            tokio::select! {
                ended = &mut connection => ended,
                () = last_answer(site) => Ok(()),
            }
        }
    };
    if let Err(error) = ended
        && (error.is_parse() || error.is_incomplete_message())
    {
        site.count(FrontCounter::RequestErrors, 1);
    }
}

/// Waits until the process ends and clients have had time to read what they have asked for.
async fn last_answer(site: &Site) {
    site.stopping().await;
    tokio::time::sleep(END).await;
}
