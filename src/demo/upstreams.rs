//! The demo's upstreams: three small HTTP/1.1 responders on one thread, each of which can be killed
//! and started again. They answer datagrams too, on the port of the same number.
//!
//! Every request is answered with the same 64 bytes that name the upstream, a datagram with itself
//! behind that name. A second socket holds each upstream's port by being bound to it without
//! listening: while the upstream is dead its port refuses, and nothing of this machine that leaves
//! it can be given the port in the meantime.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};

use crate::sys::clock;

/// How many there are.
pub(super) const COUNT: usize = 3;

/// Bytes of an answer, and of a request of the load generator.
pub(super) const MESSAGE_BYTES: usize = 64;

/// Longest request head: curl's is about 80 bytes, a browser's about 1 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Longest datagram that is answered.
const DATAGRAM_BYTES_MAX: usize = 2048;

/// How often a port is looked for that is free for both.
const RESERVATIONS_MAX: usize = 16;

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
    _holders: [Socket; 2],
}

impl Port {
    fn reserve() -> io::Result<Port> {
        let mut reserved = Port::try_reserve();
        for _ in 1..RESERVATIONS_MAX {
            if reserved.is_ok() {
                break;
            }
            // The port of the same number may be in use.
            reserved = Port::try_reserve();
        }
        reserved
    }

    fn try_reserve() -> io::Result<Port> {
        let holder = open(SocketAddr::from(([127, 0, 0, 1], 0)), Type::STREAM)?;
        let address = holder
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("not an address"))?;
        let datagrams = open(address, Type::DGRAM)?;
        // To be given nothing: what it is connected to never sends.
        datagrams.connect(&SocketAddr::from(([127, 0, 0, 1], DISCARD)).into())?;
        Ok(Port {
            address,
            _holders: [holder, datagrams],
        })
    }

    fn listen(&self) -> io::Result<(TcpListener, UdpSocket)> {
        let socket = open(self.address, Type::STREAM)?;
        socket.listen(BACKLOG)?;
        let datagrams = open(self.address, Type::DGRAM)?;
        Ok((
            TcpListener::from_std(socket.into())?,
            UdpSocket::from_std(datagrams.into())?,
        ))
    }
}

/// The port of the discard service.
const DISCARD: u16 = 9;

/// A bound socket. All of a port's sockets need SO_REUSEADDR to share it.
fn open(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
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
            Ok(sockets) => lives.push(Some(Life::begin(index, sockets))),
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
                let _ = done.send(ports[index].listen().map(|sockets| {
                    lives[index] = Some(Life::begin(index, sockets));
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
    fn begin(index: usize, (listener, datagrams): (TcpListener, UdpSocket)) -> Life {
        let (alive, ended) = watch::channel(());
        tokio::spawn(answer_datagrams(index, datagrams, ended.clone()));
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

/// The answer of an upstream to a datagram.
pub(super) fn datagram_answer(index: usize, request: &[u8]) -> Vec<u8> {
    let head = format!("Answered by upstream {}: ", name(index));
    [head.as_bytes(), request].concat()
}

/// Name of an upstream, as in the configuration.
pub(super) fn name(index: usize) -> &'static str {
    ["u1", "u2", "u3"][index]
}

async fn answer_datagrams(index: usize, socket: UdpSocket, mut ended: watch::Receiver<()>) {
    let mut request = [0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            _ = ended.changed() => return,
            received = socket.recv_from(&mut request) => match received {
                // Who doesn't get an answer asks again.
                Ok((length, client)) => {
                    let answer = datagram_answer(index, &request[..length]);
                    let _ = socket.try_send_to(&answer, client);
                }
                // What an earlier answer has met.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
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

    #[test]
    fn datagrams_are_answered_while_their_upstream_lives() {
        let upstreams = Upstreams::start().unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let patience = std::time::Duration::from_secs(5);
        client.set_read_timeout(Some(patience)).unwrap();
        client.connect(upstreams.addresses[2]).unwrap();
        let exchange = || {
            client.send(b"hello")?;
            let mut answer = [0; 64];
            let length = client.recv(&mut answer)?;
            io::Result::Ok(answer[..length].to_vec())
        };
        let expected = datagram_answer(2, b"hello");
        assert_eq!(exchange().unwrap(), expected);
        upstreams.kill(2).unwrap();
        let refused = exchange().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        upstreams.start_again(2).unwrap();
        assert_eq!(exchange().unwrap(), expected);
    }
}
