//! The end points behind the balancers: one process, one thread and event loop per service.
//!
//! A process of its own, so that 9,000 clients and 9,000 upstream sockets each have a descriptor
//! table to themselves. It prints its ports on one line and serves until its input closes, which
//! also happens when the process that started it dies.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::thread;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;
use socket2::{Domain, Socket, Type};

use crate::load::{MESSAGE_BYTES, bulk};
use crate::sys;

/// Accept queue of every listener; the namespace's somaxconn is 4096 by default.
const BACKLOG: i32 = 4096;
/// Events taken per wait.
const EVENTS: usize = 256;
/// Bytes per sendfile call: small enough that eight streams take turns, large enough to be cheap.
const SENDFILE_BYTES: usize = 256 * 1024;

/// What an end point does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sends every byte back; closes after the client.
    Echo,
    /// Sends the bulk pattern without end.
    Source,
    /// Sends one message back and closes first.
    Farewell,
}

impl Service {
    pub(crate) const ALL: [Service; 3] = [Service::Echo, Service::Source, Service::Farewell];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Echo => "echo",
            Service::Source => "source",
            Service::Farewell => "farewell",
        }
    }
}

/// Serves until the input closes. `realtime` lets the echo service preempt the bulk source.
pub(crate) fn serve(realtime: bool) -> ExitCode {
    let mut ports = Vec::new();
    for service in Service::ALL {
        let listener = listen().expect("a loopback port can be bound");
        ports.push(
            listener
                .local_addr()
                .expect("a bound socket has an address")
                .port()
                .to_string(),
        );
        thread::spawn(move || {
            if realtime && service == Service::Echo {
                sys::set_realtime(true).expect("checked by the run process before");
            }
            let outcome = match service {
                Service::Echo | Service::Farewell => answer(&listener, service),
                Service::Source => stream_out(&listener),
            };
            eprintln!("peers: service {} ended: {outcome:?}", service.name());
            std::process::exit(1);
        });
    }
    println!("{}", ports.join(" "));
    io::stdout()
        .flush()
        .expect("the run process reads the ports");
    let _ = io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Inherited by accepted sockets, which saves a call per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One accepted connection.
struct Connection {
    stream: TcpStream,
    /// Bytes received (echo, farewell), or the place in the pattern to send from (source).
    position: i64,
}

/// Open connections by descriptor number, and the wait on them.
struct Connections {
    epoll: Epoll,
    open: Vec<Option<Connection>>,
}

/// Event data of the listener; connections use their descriptor number.
const LISTENER: u64 = u64::MAX;

impl Connections {
    fn new(listener: &TcpListener) -> io::Result<Connections> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Connections {
            epoll,
            open: Vec::new(),
        })
    }

    /// Takes everything off the accept queue.
    fn accept_all(&mut self, listener: &TcpListener, flags: EpollFlags) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The peer has gone while it waited in the queue.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            if flags.contains(EpollFlags::EPOLLOUT) {
                // sendfile has no flag for it; the receives of the other services have.
                stream.set_nonblocking(true)?;
            }
            let index = stream.as_raw_fd() as usize;
            self.epoll
                .add(&stream, EpollEvent::new(flags, index as u64))?;
            if self.open.len() <= index {
                self.open.resize_with(index + 1, || None);
            }
            self.open[index] = Some(Connection {
                stream,
                position: 0,
            });
        }
    }

    fn wait<'e>(&self, events: &'e mut [EpollEvent]) -> io::Result<&'e [EpollEvent]> {
        match self.epoll.wait(events, EpollTimeout::NONE) {
            Ok(count) => Ok(&events[..count]),
            Err(Errno::EINTR) => Ok(&[]),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Echo and farewell, on edges: a message is far smaller than the buffer, so one receive takes all
/// that an edge stands for, and whatever comes later is an edge of its own. A connection that fails
/// is closed: the client notices and voids the run.
fn answer(listener: &TcpListener, service: Service) -> io::Result<()> {
    let mut connections = Connections::new(listener)?;
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut buffer = [0; 16 * 1024];
    loop {
        for event in connections.wait(&mut events)? {
            if event.data() == LISTENER {
                connections.accept_all(listener, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
                continue;
            }
            let slot = &mut connections.open[event.data() as usize];
            let Some(connection) = slot else { continue };
            let received = match sys::receive(&connection.stream, &mut buffer) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => continue,
                Err(_) => 0,
            };
            connection.position += received as i64;
            let message = &buffer[..received];
            let answered = received > 0 && sys::send_whole(&connection.stream, message).is_ok();
            let told_all =
                service == Service::Farewell && connection.position >= MESSAGE_BYTES as i64;
            if !answered || told_all {
                // Closing the only descriptor of the socket also takes it out of the wait.
                *slot = None;
            }
        }
    }
}

/// The bulk source: the pattern over and over, by sendfile, one piece per stream and turn.
fn stream_out(listener: &TcpListener) -> io::Result<()> {
    let pattern: OwnedFd = memfd_create("pattern", MFdFlags::MFD_CLOEXEC)?;
    let mut pattern = std::fs::File::from(pattern);
    pattern.write_all(&bulk::pattern())?;
    let mut connections = Connections::new(listener)?;
    let mut events = [EpollEvent::empty(); EVENTS];
    loop {
        for event in connections.wait(&mut events)? {
            if event.data() == LISTENER {
                connections.accept_all(listener, EpollFlags::EPOLLOUT)?;
                continue;
            }
            let slot = &mut connections.open[event.data() as usize];
            let Some(connection) = slot else { continue };
            // Moves the position by what was sent.
            let offset = &mut connection.position;
            match sendfile(&connection.stream, &pattern, Some(offset), SENDFILE_BYTES) {
                Ok(_) if *offset >= bulk::PATTERN_BYTES as i64 => *offset = 0,
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(_) => *slot = None,
            }
        }
    }
}
