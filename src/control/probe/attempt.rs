//! One attempt to find out whether a server is well: a connect, and what steps of a script begin
//! with.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::announce::announce;
use crate::base::address::Address;
use crate::base::ports::Ports;
use crate::base::send_proxy::SendProxy;
use crate::base::source::Source;
use crate::config::plan::Check;
use crate::control::listeners::error_text;
use crate::health::Finding;
use crate::limits;
use crate::sys::clock;
use crate::sys::stream::{self, StreamOptions};

/// How an attempt ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Connected,
    Failed(String),
    TimedOut,
    /// Says nothing about the server: the timeout was seen too late.
    Late,
    /// Says nothing about the server: this side lacks something.
    LocalError(String),
    /// What a script found.
    Told(Finding),
}

/// One connect. tokio polls the connect once more before it lets the timeout win, so a connection
/// that was made while this thread was not running is seen as made.
pub(super) async fn probe(check: &Check, ports: Option<&Ports>) -> Outcome {
    let timeout_ms = check.timeout_ms;
    let timeout = Duration::from_millis(u64::from(timeout_ms.max(1)));
    let began = clock::now();
    let connecting = connect(&check.address, check.source, check.send_proxy, ports, false);
    let connected = tokio::time::timeout(timeout, connecting).await;
    match connected {
        Ok(Ok(_)) => Outcome::Connected,
        Ok(Err(error)) if is_local(&error) => Outcome::LocalError(error_text(&error)),
        Ok(Err(error)) => Outcome::Failed(error_text(&error)),
        Err(_) => {
            let took_ms = clock::now().ms_since(began);
            if is_late(took_ms, timeout_ms) {
                Outcome::Late
            } else {
                Outcome::TimedOut
            }
        }
    }
}

/// Whether a timeout was seen so late that it tells of this thread, not of the server.
pub(super) fn is_late(took_ms: u64, timeout_ms: u32) -> bool {
    let late_ms = took_ms.saturating_sub(u64::from(timeout_ms.max(1)));
    late_ms > limits::PROBE_LATE_MS.min(u64::from(timeout_ms / 2).max(2))
}

/// A connection that was made. It ends by a reset when it is dropped, unless it was asked to
/// linger.
pub(super) struct Connection<'a> {
    pub(super) stream: Box<dyn Stream>,
    /// Given back after the stream is closed.
    _taken: Option<Taken<'a>>,
}

/// What TCP and Unix connections have in common.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl Stream for TcpStream {}

impl Stream for UnixStream {}

/// A port of the server's range, given back with the connection.
struct Taken<'a>(&'a Ports, u16);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.give(self.1);
    }
}

/// Connects, and says first of all whose connection it is where there has to be a PROXY header.
/// `linger` = the end of it is a FIN.
pub(super) async fn connect<'a>(
    to: &Address,
    source: Option<Source>,
    send_proxy: Option<SendProxy>,
    ports: Option<&'a Ports>,
    linger: bool,
) -> io::Result<Connection<'a>> {
    let connect = |source| {
        let options = StreamOptions {
            source,
            ..StreamOptions::default()
        };
        stream::connect_socket(to, &options)
    };
    // Declared before the socket, so that it is given back after that is closed.
    let mut taken = None;
    let result = match (ports, source) {
        (Some(ports), Some(source)) => {
            let found = ports.find(|port| {
                let result = connect(Some(source.at(port)));
                let taken = result
                    .as_ref()
                    .is_err_and(|errno| stream::is_port_taken(*errno));
                (!taken).then_some(result)
            });
            let (port, result) = found
                .ok_or(nix::libc::EADDRINUSE)
                .map_err(io::Error::from_raw_os_error)?;
            taken = Some(Taken(ports, port));
            result
        }
        (_, source) => connect(source),
    };
    let (socket, connected) = result.map_err(io::Error::from_raw_os_error)?;
    if !matches!(to, Address::Ip(_)) {
        // A Unix connect is decided at once.
        announced(&socket, send_proxy)?;
        return Ok(Connection {
            stream: Box::new(UnixStream::from_std(socket.into())?),
            _taken: taken,
        });
    }
    if !linger {
        // Close by a reset. Failing to set it costs a TIME_WAIT, not the probe.
        let _ = socket.set_linger(Some(Duration::ZERO));
    }
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
    }
    match stream.take_error()? {
        Some(error) => Err(error),
        None => {
            announced(&stream, send_proxy)?;
            Ok(Connection {
                stream: Box::new(stream),
                _taken: taken,
            })
        }
    }
}

fn announced(socket: &impl AsFd, send_proxy: Option<SendProxy>) -> io::Result<()> {
    send_proxy.map_or(Ok(()), |wanted| announce(socket, wanted))
}

/// Errors of this side: no descriptor, no memory, no port left.
pub(super) fn is_local(error: &io::Error) -> bool {
    use nix::libc::{EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let local = [
        EMFILE,
        ENFILE,
        ENOBUFS,
        ENOMEM,
        EADDRNOTAVAIL,
        EADDRINUSE,
        EAGAIN,
    ];
    error
        .raw_os_error()
        .is_some_and(|number| local.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: Address, timeout_ms: u32) -> Check {
        Check {
            timeout_ms,
            ..Check::of(address)
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn a_listener_passes_and_a_closed_port_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Ip(listener.local_addr().unwrap());
        assert_eq!(
            block_on(probe(&check(address.clone(), 1000), None)),
            Outcome::Connected
        );
        let (stream, _) = listener.accept().unwrap();
        let error = io::Read::read(&mut &stream, &mut [0]).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionReset,
            "closed by a reset"
        );
        drop(listener);
        let refused = block_on(probe(&check(address.clone(), 1000), None));
        assert_eq!(refused, Outcome::Failed("Connection refused".to_owned()));
    }

    #[test]
    fn a_thread_that_did_not_run_is_not_a_failure() {
        assert!(!is_late(1000, 1000));
        assert!(!is_late(1020, 1000));
        assert!(is_late(1026, 1000));
        assert!(is_late(14, 4));
        // A connection made while the thread was held up counts as made.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Ip(listener.local_addr().unwrap());
        let check = check(address, 20);
        let outcome = block_on(async {
            let hold = async {
                let until = clock::now().after_ms(80);
                while clock::now() < until {}
            };
            let (outcome, ()) = tokio::join!(probe(&check, None), hold);
            outcome
        });
        assert_eq!(outcome, Outcome::Connected);
    }
}
