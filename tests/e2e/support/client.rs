//! Clients: connecting with a clock, checked exchanges, half-closes and resets.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Stopwatch, stream, sys};

/// Longest wait for any one read or write.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Connects, or says why not.
pub(crate) fn try_connect(address: impl Into<SocketAddr>) -> io::Result<TcpStream> {
    let address = address.into();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    connect_socket(socket, address)
}

/// Connects a socket. A connect whose SYN had to be repeated counts as failed: a later success
/// would hide that the listener dropped the first. The kernel repeats it after a second, so that is
/// the longest wait. Mere time doesn't count: a machine may be busy.
pub(crate) fn connect_socket(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        other => other?,
    }
    let begun = Stopwatch::start();
    loop {
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut waiting, PollTimeout::from(50_u8))? > 0;
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        if sys::segments_repeated(&socket)? > 0 || begun.elapsed() > PATIENCE {
            let text = "the SYN was not answered within a second";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        if ready {
            socket.set_nonblocking(false)?;
            return prepare(socket.into());
        }
    }
}

/// Connects; fails the test if that takes too long.
pub(crate) fn connect(address: impl Into<SocketAddr>) -> TcpStream {
    let address = address.into();
    try_connect(address).unwrap_or_else(|e| panic!("connect to {address}: {e}"))
}

/// Connects to a port of 127.0.0.1.
pub(crate) fn connect_port(port: u16) -> TcpStream {
    connect(local(port))
}

/// Connects from a given source address.
pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    try_connect_bound(SocketAddr::new(source, 0), address)
}

/// Connects from a given source address and port.
pub(crate) fn connect_bound(source: SocketAddr, address: SocketAddr) -> TcpStream {
    try_connect_bound(source, address)
        .unwrap_or_else(|e| panic!("connect from {source} to {address}: {e}"))
}

fn try_connect_bound(source: SocketAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&source.into())?;
    connect_socket(socket, address)
}

/// A port of 127.0.0.1.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
    drop(stream);
}

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// By a FIN.
    Fin,
    /// By a reset.
    Reset,
    /// Not within the read timeout.
    None,
}

/// Reads to the end and says what came and how it ended.
pub(crate) fn read_end(mut stream: &TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, End::Fin),
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    return (bytes, End::Reset);
                }
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return (bytes, End::None),
                _ => panic!("read: {error}"),
            },
        }
    }
}

/// Reads exactly `count` bytes.
pub(crate) fn read_bytes(mut stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream
        .read_exact(&mut bytes)
        .unwrap_or_else(|e| panic!("read {count} bytes: {e}"));
    bytes
}

/// Writes all bytes.
pub(crate) fn write(mut stream: &TcpStream, bytes: &[u8]) {
    stream
        .write_all(bytes)
        .unwrap_or_else(|e| panic!("write {} bytes: {e}", bytes.len()));
}

/// Sends `bytes` and reads them back from an echo server.
pub(crate) fn echo(stream: &TcpStream, bytes: &[u8]) {
    write(stream, bytes);
    assert_eq!(read_bytes(stream, bytes.len()), bytes, "echo");
}

/// A checked exchange with `MockServer::exchange`: `up` bytes to it and `down` bytes from it at the
/// same time, a half-close, and the server's verdict.
pub(crate) fn exchange(address: SocketAddr, up: u64, down: u64, seed: u64) -> Result<(), String> {
    let stream = try_connect(address).map_err(|e| format!("connect: {e}"))?;
    exchange_on(stream, up, down, seed)
}

/// The same on a connection that is already open.
pub(crate) fn exchange_on(
    mut stream: TcpStream,
    up: u64,
    down: u64,
    seed: u64,
) -> Result<(), String> {
    for number in [up, down, seed] {
        stream
            .write_all(&number.to_be_bytes())
            .map_err(|e| format!("head: {e}"))?;
    }
    let reader = stream.try_clone().map_err(|e| e.to_string())?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            stream::send(&mut stream, seed, up)?;
            stream.shutdown(Shutdown::Write)
        });
        let received = stream::receive(&mut &reader, !seed, down);
        let sent = sending.join().expect("sending thread");
        received.map_err(|e| format!("down: {e}"))?;
        sent.map_err(|e| format!("up: {e}"))?;
        match read_end(&reader) {
            (verdict, End::Fin) if verdict == [1] => Ok(()),
            (rest, end) => Err(format!("verdict {rest:?}, end {end:?}")),
        }
    })
}

/// Connects and reads the name that a `MockServer::named` sends; closes.
pub(crate) fn ask_name(address: SocketAddr) -> Result<String, String> {
    let stream = try_connect(address).map_err(|e| format!("connect: {e}"))?;
    read_name(&stream)
}

/// Reads a name on an open connection.
pub(crate) fn read_name(stream: &TcpStream) -> Result<String, String> {
    match read_end(stream) {
        (name, End::Fin) if !name.is_empty() => Ok(String::from_utf8_lossy(&name).into_owned()),
        (name, end) => Err(format!("{name:?}, end {end:?}")),
    }
}
