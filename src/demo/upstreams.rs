//! The demo's upstreams: three small HTTP/1.1 responders on one thread, each of which can be killed
//! and started again.
//!
//! Every request is answered with the same 64 bytes that name the upstream. A second socket holds
//! each upstream's port by being bound to it without listening: while the upstream is dead its port
//! refuses connections, and no outgoing connection of this machine can be given the port in the
//! meantime.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::sys::clock;

/// How many there are.
pub(super) const COUNT: usize = 3;

/// Bytes of an answer, and of a request of the load generator.
pub(super) const MESSAGE_BYTES: usize = 64;

/// Longest request head: curl's is about 80 bytes, a browser's about 1 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Backlog of an upstream: more connections than the load generator ever has open.
const BACKLOG: i32 = 1024;

/// What an upstream is told.
#[derive(Debug)]
enum Order {
    /// Close the listener and every connection, then say when that was done.
    Kill(usize, crossbeam::channel::Sender<u64>),
    /// Listen again.
    Start(usize, crossbeam::channel::Sender<io::Result<()>>),
}

/// The upstreams while their thread runs; dropped, they end.
#[derive(Debug)]
pub(super) struct Upstreams {
    /// Where they listen.
    pub(super) addresses: [SocketAddr; COUNT],
    orders: mpsc::UnboundedSender<Order>,
}

impl Upstreams {
    /// Opens them on free ports of the loopback address and starts their thread.
    pub(super) fn start() -> io::Result<Upstreams> {
        let mut ports = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            ports.push(Port::reserve()?);
        }
        let addresses = [ports[0].address, ports[1].address, ports[2].address];
        let (orders, receiver) = mpsc::unbounded_channel();
        let (sender, ready) = crossbeam::channel::bounded(1);
        std::thread::Builder::new()
            .name("upstreams".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build();
                match runtime {
                    Ok(runtime) => runtime.block_on(serve(ports, receiver, &sender)),
                    Err(error) => drop(sender.send(Err(error))),
                }
            })?;
        ready.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(Upstreams { addresses, orders })
    }

    /// Kills one: from here on its port refuses. Returns when that was done, in nanoseconds of the
    /// monotonic clock.
    pub(super) fn kill(&self, index: usize) -> io::Result<u64> {
        let (done, wait) = crossbeam::channel::bounded(1);
        self.orders
            .send(Order::Kill(index, done))
            .map_err(|_| gone())?;
        wait.recv().map_err(|_| gone())
    }

    /// Starts a killed one again.
    pub(super) fn start_again(&self, index: usize) -> io::Result<()> {
        let (done, wait) = crossbeam::channel::bounded(1);
        self.orders
            .send(Order::Start(index, done))
            .map_err(|_| gone())?;
        wait.recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> io::Error {
    io::Error::other("the upstreams' thread has ended")
}

/// A port that stays ours.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    _holder: Socket,
}

impl Port {
    fn reserve() -> io::Result<Port> {
        let holder = open(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = holder
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("not an address"))?;
        Ok(Port {
            address,
            _holder: holder,
        })
    }

    fn listen(&self) -> io::Result<TcpListener> {
        let socket = open(self.address)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }
}

/// A bound socket. Both of a port's sockets need SO_REUSEADDR to share it.
fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The thread's work: starts everything, then follows orders until nobody can give any.
async fn serve(
    ports: Vec<Port>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    ready: &crossbeam::channel::Sender<io::Result<()>>,
) {
    let mut lives: Vec<Option<Life>> = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter().enumerate() {
        match port.listen() {
            Ok(listener) => lives.push(Some(Life::begin(index, listener))),
            Err(error) => return drop(ready.send(Err(error))),
        }
    }
    let _ = ready.send(Ok(()));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Kill(index, done) => {
                if let Some(life) = lives[index].take() {
                    life.end().await;
                }
                let _ = done.send(clock::now().0);
            }
            Order::Start(index, done) => {
                let _ = done.send(ports[index].listen().map(|listener| {
                    lives[index] = Some(Life::begin(index, listener));
                }));
            }
        }
    }
}

/// One life of an upstream: its tasks end when `alive` is dropped, and are gone when nobody listens
/// to it any more.
#[derive(Debug)]
struct Life {
    alive: watch::Sender<()>,
}

impl Life {
    fn begin(index: usize, listener: TcpListener) -> Life {
        let (alive, ended) = watch::channel(());
        tokio::spawn(accept_all(answer(index), listener, ended));
        Life { alive }
    }

    async fn end(self) {
        let _ = self.alive.send(());
        self.alive.closed().await;
    }
}

/// The answer of an upstream, [`MESSAGE_BYTES`] long.
fn answer(index: usize) -> [u8; MESSAGE_BYTES] {
    let body = format!("Answered by upstream {}.\n", name(index));
    let text = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut bytes = [b'\n'; MESSAGE_BYTES];
    bytes.copy_from_slice(text.as_bytes());
    bytes
}

/// Which upstream wrote an answer.
pub(super) fn who_answered(message: &[u8; MESSAGE_BYTES]) -> Option<usize> {
    (0..COUNT).find(|index| answer(*index) == *message)
}

/// Name of an upstream, as in the configuration.
pub(super) fn name(index: usize) -> &'static str {
    ["u1", "u2", "u3"][index]
}

async fn accept_all(
    answer: [u8; MESSAGE_BYTES],
    listener: TcpListener,
    mut ended: watch::Receiver<()>,
) {
    // Taken before the listener may be told to end, so that no connection misses it.
    let for_connections = ended.clone();
    loop {
        tokio::select! {
            _ = ended.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let mut ended = for_connections.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = ended.changed() => {}
                            _ = converse(stream, &answer) => {}
                        }
                    });
                }
                // Out of descriptors: the others go on, this connection waits for its turn.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
}

/// Answers requests until one asks for the close, or the client leaves.
async fn converse(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut held: Vec<u8> = Vec::with_capacity(1024);
    loop {
        if let Some(end) = held.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..end + 4).collect();
            stream.write_all(answer).await?;
            if wants_close(&head) {
                return stream.shutdown().await;
            }
            continue;
        }
        if held.len() >= HEAD_BYTES_MAX || stream.read_buf(&mut held).await? == 0 {
            return Ok(());
        }
    }
}

fn wants_close(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    text.lines().any(|line| {
        line.split_once(':')
            .is_some_and(|(name, value)| name == "connection" && value.trim() == "close")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn exchange(address: SocketAddr) -> io::Result<[u8; MESSAGE_BYTES]> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")?;
        let mut message = [0; MESSAGE_BYTES];
        stream.read_exact(&mut message)?;
        assert_eq!(stream.read(&mut [0])?, 0, "closed when asked to");
        Ok(message)
    }

    #[test]
    fn answers_have_one_length_and_name_the_upstream() {
        for index in 0..COUNT {
            assert_eq!(who_answered(&answer(index)), Some(index));
        }
        assert_eq!(who_answered(&[b'x'; MESSAGE_BYTES]), None);
    }

    #[test]
    fn a_killed_upstream_refuses_and_breaks_until_it_is_started_again() {
        let upstreams = Upstreams::start().unwrap();
        let address = upstreams.addresses[1];
        assert_eq!(who_answered(&exchange(address).unwrap()), Some(1));
        let mut kept = std::net::TcpStream::connect(address).unwrap();
        kept.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        kept.read_exact(&mut [0; MESSAGE_BYTES]).unwrap();
        upstreams.kill(1).unwrap();
        assert!(matches!(kept.read(&mut [0]), Ok(0) | Err(_)));
        let refused = exchange(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(
            who_answered(&exchange(upstreams.addresses[0]).unwrap()),
            Some(0)
        );
        upstreams.start_again(1).unwrap();
        assert_eq!(who_answered(&exchange(address).unwrap()), Some(1));
    }
}
