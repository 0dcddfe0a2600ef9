//! Mock servers: an accepting thread each, and what to do with a connection.
//!
//! A test either gives a behaviour that runs on a thread of its own per connection, or takes the
//! server's end of each connection itself (`MockServer::hold`, `next`) and plays the server line by
//! line. The backlog is 4,096: a short one turns a burst of connects into SYN cookies and lost
//! connections, which would be blamed on the balancer.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use super::clock::wait_for;
use super::port::free_port;
use super::stream;

/// Longest time a mock server waits for its peer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

type Behaviour = Arc<dyn Fn(TcpStream) + Send + Sync>;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicU64,
    running: AtomicU64,
}

/// A listening server.
pub(crate) struct MockServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    behaviour: Behaviour,
    inline: bool,
    held: Option<Mutex<Receiver<TcpStream>>>,
    acceptor: Option<(Arc<TcpListener>, JoinHandle<()>)>,
}

impl MockServer {
    /// Runs `behaviour` on a thread per connection, on 127.0.0.1.
    pub(crate) fn start(behaviour: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        MockServer::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST), behaviour)
    }

    /// The same on another address.
    pub(crate) fn start_on(
        address: IpAddr,
        behaviour: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let mut server = MockServer {
            address: SocketAddr::new(address, free_port()),
            shared: Arc::default(),
            behaviour: Arc::new(behaviour),
            inline: false,
            held: None,
            acceptor: None,
        };
        server.restart();
        server
    }

    /// Hands each connection to the test, which takes it by `next`.
    pub(crate) fn hold() -> Self {
        MockServer::hold_on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// The same on another address.
    pub(crate) fn hold_on(address: IpAddr) -> Self {
        let (sender, receiver): (Sender<TcpStream>, _) = channel();
        let mut server = MockServer::start_on(address, drop);
        // Handing over does not block, so no thread per connection is needed.
        server.stop();
        server.behaviour = Arc::new(move |stream| drop(sender.send(stream)));
        server.inline = true;
        server.held = Some(Mutex::new(receiver));
        server.restart();
        server
    }

    /// Sends back what it gets, and passes on the half-close.
    pub(crate) fn echo() -> Self {
        MockServer::start(echo)
    }

    /// Accepts, reads, never answers.
    pub(crate) fn silent() -> Self {
        MockServer::start(|mut stream| drop(io::copy(&mut stream, &mut io::sink())))
    }

    /// Sends one line at once and closes after the client did: says which server it is.
    pub(crate) fn named(name: &str) -> Self {
        let line = name.to_owned();
        MockServer::start(move |mut stream| {
            if stream.write_all(line.as_bytes()).is_ok() {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(&mut stream, &mut io::sink());
            }
        })
    }

    /// The checked exchange of `client::exchange`.
    pub(crate) fn exchange() -> Self {
        MockServer::start(exchange)
    }

    /// Resets each connection as soon as it is accepted.
    pub(crate) fn resetting() -> Self {
        MockServer::start(reset)
    }

    /// Listens on a port whose SYNs nobody answers: a connect hangs.
    pub(crate) fn black_hole() -> Self {
        let server = MockServer::silent();
        server.drop_packets(&[SockFilter::new(0x06, 0, 0, 0)]);
        server
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(SeqCst)
    }

    /// Connections whose behaviour still runs.
    pub(crate) fn running(&self) -> u64 {
        self.shared.running.load(SeqCst)
    }

    /// The server's end of the next connection; fails if none comes within thirty seconds.
    pub(crate) fn next(&self) -> TcpStream {
        let held = self.held.as_ref().expect("a server made by `hold`");
        let held = held.lock().unwrap_or_else(PoisonError::into_inner);
        held.recv_timeout(Duration::from_secs(30))
            .expect("no connection reached the server")
    }

    /// Closes the listening socket; connections go on.
    pub(crate) fn stop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some((listener, thread)) = self.acceptor.take() {
            thread.join().expect("accepting thread");
            // Not by a close alone: a balancer that another test is just starting holds a copy of
            // the descriptor between fork and exec.
            let _ = SockRef::from(&*listener).shutdown(Shutdown::Both);
        }
    }

    /// Closes the listening socket so that no connection is lost: no new SYN is answered,
    /// handshakes under way end, what is queued is accepted, then it closes. Waits for the open
    /// connections.
    pub(crate) fn stop_gracefully(&mut self) {
        // ldb [13]; and #SYN|ACK; jeq #SYN, drop, keep
        self.drop_packets(&[
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x54, 0, 0, 0x12),
            SockFilter::new(0x15, 0, 1, 0x02),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ]);
        let done = wait_for(PATIENCE, || {
            (!handshakes_pending(self.address.port())).then_some(())
        });
        assert!(done.is_some(), "a handshake hangs");
        self.stop();
        let done = wait_for(PATIENCE, || (self.running() == 0).then_some(()));
        assert!(done.is_some(), "a connection did not end");
    }

    /// Listens again on the same port.
    pub(crate) fn restart(&mut self) {
        assert!(self.acceptor.is_none(), "already listening");
        self.shared.stop.store(false, SeqCst);
        let listener = Arc::new(listen(self.address, 4_096));
        let (shared, behaviour) = (Arc::clone(&self.shared), Arc::clone(&self.behaviour));
        let (socket, inline) = (Arc::clone(&listener), self.inline);
        let thread = std::thread::spawn(move || accept_all(&socket, &shared, &behaviour, inline));
        self.acceptor = Some((listener, thread));
    }

    fn drop_packets(&self, filter: &[SockFilter]) {
        let (listener, _) = self.acceptor.as_ref().expect("listening");
        SockRef::from(&**listener)
            .attach_filter(filter)
            .expect("attach a filter");
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A listening socket of a given backlog.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("IPV6_V6ONLY");
    }
    socket
        .bind(&address.into())
        .unwrap_or_else(|e| panic!("bind {address}: {e}"));
    socket.listen(backlog).expect("listen");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.into()
}

/// Accepts until told to stop, and then until nothing is queued.
fn accept_all(listener: &TcpListener, shared: &Arc<Shared>, behaviour: &Behaviour, inline: bool) {
    loop {
        let stopping = shared.stop.load(SeqCst);
        while let Ok((stream, _)) = listener.accept() {
            shared.accepted.fetch_add(1, SeqCst);
            stream.set_nonblocking(false).expect("blocking");
            stream.set_nodelay(true).expect("TCP_NODELAY");
            stream
                .set_read_timeout(Some(PATIENCE))
                .expect("read timeout");
            stream
                .set_write_timeout(Some(PATIENCE))
                .expect("write timeout");
            if inline {
                behaviour(stream);
            } else {
                spawn(stream, shared, behaviour);
            }
        }
        if stopping {
            return;
        }
        let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        // The bound is how late a stop is seen.
        let _ = poll(&mut waiting, PollTimeout::from(5_u8));
    }
}

fn spawn(stream: TcpStream, shared: &Arc<Shared>, behaviour: &Behaviour) {
    let (shared, behaviour) = (Arc::clone(shared), Arc::clone(behaviour));
    shared.running.fetch_add(1, SeqCst);
    // Small stacks: some tests have thousands of connections open at once.
    let builder = std::thread::Builder::new().stack_size(256 * 1024);
    let started = builder.spawn(move || {
        behaviour(stream);
        shared.running.fetch_sub(1, SeqCst);
    });
    started.expect("thread of a connection");
}

/// Whether a connection to this port is in its handshake (SYN_RECV, state 03).
fn handshakes_pending(port: u16) -> bool {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let suffix = format!(":{port:04X}");
    text.lines().skip(1).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or("");
        local.ends_with(&suffix) && words.nth(1) == Some("03")
    })
}

/// Sends back what comes, then the half-close.
pub(crate) fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
    drop(stream);
}

/// Server's side of the checked exchange: a head of three numbers (bytes up, bytes down, seed),
/// then both streams at once, then one byte: 1 = all bytes from the client were right and its FIN
/// came after them.
pub(crate) fn exchange(mut stream: TcpStream) {
    let mut head = [0; 24];
    if stream.read_exact(&mut head).is_err() {
        return;
    }
    let number =
        |index: usize| u64::from_be_bytes(head[index * 8..][..8].try_into().expect("eight bytes"));
    let (up, down, seed) = (number(0), number(1), number(2));
    let reader = stream.try_clone().expect("clone the stream");
    let checked = std::thread::scope(|scope| {
        let reading = scope.spawn(|| stream::receive_to_end(&mut &reader, seed));
        let _ = stream::send(&mut stream, !seed, down);
        reading.join().expect("reading thread")
    });
    let verdict = u8::from(checked == Ok(up));
    let _ = stream.write_all(&[verdict]);
}
