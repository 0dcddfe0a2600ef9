//! The sockets of frontends in `mode http`: which there are, and who comes by them.
//!
//! A socket that the configuration has no more is emptied before it is closed: who waits in its
//! queue is answered. Sockets of a frontend that stays go on as they are, whatever it answers.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{Order, RETRY, Site, welcome};
use crate::base::ids::{ListenerId, ProxyId};
use crate::control::Shared;
use crate::control::listeners::PageListener;
use crate::limits;
use crate::shard::{FrontState, World};

/// Clients that are taken from the queue of a socket before it is closed. Where another frontend
/// has the address now, the queue may never be empty, and it takes the rest.
const QUEUED_MAX: usize = 1 << 16;

/// The frontends of pages and their sockets.
#[derive(Debug)]
pub(super) struct Sites {
    shared: Arc<Shared>,
    answers: Arc<Semaphore>,
    sites: HashMap<ProxyId, Rc<Site>>,
    open: Vec<Open>,
}

/// A socket that somebody accepts from.
#[derive(Debug)]
struct Open {
    listener_id: ListenerId,
    /// Tells that it is to be closed.
    close: watch::Sender<bool>,
    /// Ends when nobody comes by it any more.
    emptied: oneshot::Receiver<()>,
}

impl Sites {
    /// None yet.
    pub(super) fn new(shared: &Arc<Shared>) -> Sites {
        Sites {
            shared: Arc::clone(shared),
            answers: Arc::new(Semaphore::new(limits::PAGE_ANSWERS_MAX)),
            sites: HashMap::new(),
            open: Vec::new(),
        }
    }

    /// Serves them as they come and go.
    pub(super) async fn serve(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(Order { added, done }) = orders.recv().await {
            for open in self.renew(added) {
                // By the end of it at the latest.
                let _ = open.emptied.await;
            }
            drop(done);
        }
        std::future::pending().await
    }

    /// Goes over to the world in force; the sockets that it has no more.
    fn renew(&mut self, added: Vec<PageListener>) -> Vec<Open> {
        let world = self.shared.world();
        self.sites.retain(|id, site| match world.frontend(*id) {
            Some(front) => {
                site.renew(front);
                true
            }
            None => false,
        });
        for listener in added {
            self.listen(&world, listener);
        }
        let is_gone = |open: &mut Open| {
            let listening = world.listeners.get(usize::from(open.listener_id.0));
            let listening = listening.and_then(Option::as_ref);
            listening.is_none_or(|listening| listening.is_removed)
        };
        let gone: Vec<Open> = self.open.extract_if(.., is_gone).collect();
        for open in &gone {
            open.close.send_replace(true);
        }
        gone
    }

    fn listen(&mut self, world: &World, listener: PageListener) {
        let listener_id = listener.listener_id;
        let owner = world.listener(listener_id).map(|one| one.proxy_id);
        let Some(front) = owner.and_then(|owner| world.frontend(owner)) else {
            return;
        };
        let (shared, answers) = (&self.shared, &self.answers);
        let site = self.sites.entry(front.proxy.proxy_id);
        let site = site.or_insert_with(|| Rc::new(Site::new(shared, front, answers)));
        let (close, closing) = watch::channel(false);
        let (empties, emptied) = oneshot::channel();
        let task = listen(Rc::clone(site), listener, closing, empties);
        tokio::task::spawn_local(task);
        self.open.push(Open {
            listener_id,
            close,
            emptied,
        });
    }
}

/// A connection, of whichever kind.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection, with its client's address if it has one.
type Client = (Box<dyn Stream>, Option<IpAddr>);

/// Gives the next client of a queue.
type Accept = Box<dyn FnMut() -> io::Result<Client>>;

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

    /// The next client.
    async fn accept(&self) -> io::Result<Client> {
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

    /// Asks the kernel itself who waits: what tokio knows of the socket may be late.
    fn queued(self) -> io::Result<Accept> {
        Ok(match self {
            Socket::Tcp(listener) => {
                let listener = listener.into_std()?;
                Box::new(move || {
                    let (stream, address) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    let _ = stream.set_nodelay(true);
                    let address = Some(address.ip().to_canonical());
                    Ok((Box::new(TcpStream::from_std(stream)?), address))
                })
            }
            Socket::Unix(listener) => {
                let listener = listener.into_std()?;
                Box::new(move || {
                    let stream = listener.accept()?.0;
                    stream.set_nonblocking(true)?;
                    Ok((Box::new(UnixStream::from_std(stream)?), None))
                })
            }
        })
    }
}

/// Accepts until the socket is to be closed, the process drains, or the frontend is shut.
async fn listen(
    site: Rc<Site>,
    listener: PageListener,
    closing: watch::Receiver<bool>,
    empties: oneshot::Sender<()>,
) {
    let mut news = site.shared.stopping();
    let is_over = |stopping: &bool| *stopping || site.front().state() == FrontState::Shut;
    tokio::select! {
        _ = accept_all(&site, listener.socket, closing, empties) => {}
        // The socket is closed with what was waiting for it.
        _ = news.wait_for(is_over) => {}
    }
    site.shared.world().page_socket_closed(listener.listener_id);
}

async fn accept_all(
    site: &Rc<Site>,
    socket: OwnedFd,
    mut closing: watch::Receiver<bool>,
    empties: oneshot::Sender<()>,
) -> io::Result<()> {
    let socket = Socket::new(socket)?;
    // Those that wait for room when the socket is to be closed.
    let mut waiting: Vec<Client> = Vec::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => break,
            accepted = next(site, &socket) => accepted,
        };
        let Ok(client) = accepted else {
            // No descriptor, or the client was gone: not again at once.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => {
                waiting.push(client);
                break;
            }
            seat = site.seat() => welcome(seat, client.0, client.1),
        }
    }
    let mut queued = Some(socket.queued()?);
    let mut empties = Some(empties);
    while let Some(accept) = &mut queued {
        let is_empty = take_queued(accept, &mut waiting);
        if is_empty {
            queued = None;
            // Nobody comes any more, and who has come can be waited for.
            drop(empties.take());
        }
        for (stream, source) in waiting.drain(..) {
            welcome(site.seat().await, stream, source);
        }
        if !is_empty {
            tokio::time::sleep(RETRY).await;
        }
    }
    Ok(())
}

/// Takes all that wait in a queue; false if there are more, but no descriptors.
fn take_queued(accept: &mut Accept, taken: &mut Vec<Client>) -> bool {
    for _ in 0..QUEUED_MAX {
        match accept() {
            Ok(client) => taken.push(client),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return true,
                ErrorKind::ConnectionAborted | ErrorKind::Interrupted => {}
                _ => return false,
            },
        }
    }
    true
}

/// The next client, while the frontend has room and is not paused.
async fn next(site: &Site, socket: &Socket) -> io::Result<Client> {
    loop {
        site.room().await;
        tokio::select! {
            accepted = socket.accept() => return accepted,
            () = site.is_in(|state| state == FrontState::Paused) => {}
        }
    }
}
