//! The end points behind the balancers: one process, one thread and event loop per service.
//!
//! A process of its own, so that 9,000 clients and 9,000 upstream sockets each have a descriptor
//! table to themselves. It prints its ports on one line and serves until its input closes, which
//! also happens when the process that started it dies.

mod answer;
pub(crate) mod datagrams;
pub(crate) mod http;
mod source;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::sys;

/// Accept queue of every listener; the namespace's somaxconn is 4096 by default.
const BACKLOG: i32 = 4096;
/// Events taken per wait.
const EVENTS: usize = 256;
/// Event data of the listener; connections use their descriptor number.
const LISTENER: u64 = u64::MAX;

/// What an end point does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sends every message back once it is whole; closes after the client.
    Echo,
    /// Sends the bulk pattern without end.
    Source,
    /// Sends one message back and closes first.
    Farewell,
    /// Answers HTTP requests; closes first if it is asked to.
    Http,
    /// A server of iperf3, control and data connections.
    Iperf,
    /// A redis-server.
    Redis,
    /// Servers of UDP, in a process of end points that has nothing else.
    Datagrams,
}

impl Service {
    /// Those of this process, in the order of their ports; the others are programs of others.
    pub(crate) const OWN: [Service; 4] = [
        Service::Echo,
        Service::Source,
        Service::Farewell,
        Service::Http,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Echo => "echo",
            Service::Source => "source",
            Service::Farewell => "farewell",
            Service::Http => "http",
            Service::Iperf => "iperf",
            Service::Redis => "redis",
            Service::Datagrams => "datagrams",
        }
    }
}

/// Serves until the input closes. `realtime` lets the echo service preempt the bulk source.
pub(crate) fn serve(realtime: bool) -> ExitCode {
    let mut ports = Vec::new();
    for service in Service::OWN {
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
                Service::Source => source::stream_out(&listener),
                _ => answer::answer(&listener, service),
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

/// Serves UDP until the input closes.
pub(crate) fn serve_datagrams(ends: datagrams::Ends, count: usize) -> ExitCode {
    thread::spawn(move || {
        let outcome = datagrams::serve(ends, count);
        eprintln!(
            "peers: service {} ended: {outcome:?}",
            Service::Datagrams.name()
        );
        std::process::exit(1);
    });
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

/// The next connection of the accept queue.
fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // The peer has gone while it waited in the queue.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}
