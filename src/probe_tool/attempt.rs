//! One attempt: a connection, or a datagram of a socket of its own, and what came back.
//!
//! An attempt has succeeded when the bytes have come that say which server it is: a balancer
//! accepts connections also while none of its servers can be reached. It is bounded as a whole.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::options::Identify;
use crate::base::text::clean;
use crate::sys::clock;

/// Longest first line that is looked at.
const LINE_MAX_BYTES: usize = 256;

/// Longest name of a server in reports, characters.
const NAME_MAX: usize = 64;

/// Bytes of an answer that are read after what says who it is, so that the connection ends
/// without a reset, and how long for.
const REST_MAX_BYTES: usize = 64 << 10;
const REST_MAX: Duration = Duration::from_millis(100);

/// What every attempt does.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) target: SocketAddr,
    pub(super) udp: bool,
    pub(super) payload: Vec<u8>,
    pub(super) identify: Identify,
    pub(super) timeout: Duration,
}

/// Why an attempt has failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    Refused,
    Reset,
    /// It ended before enough had come.
    Closed,
    Timeout,
    Unreachable,
    /// This host has no port, or this process no descriptor, for another one.
    Exhausted,
    Other,
}

impl Failure {
    pub(super) const ALL: [Failure; 7] = [
        Failure::Refused,
        Failure::Reset,
        Failure::Closed,
        Failure::Timeout,
        Failure::Unreachable,
        Failure::Exhausted,
        Failure::Other,
    ];

    /// In reports and in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Reset => "reset",
            Failure::Closed => "closed",
            Failure::Timeout => "timeout",
            Failure::Unreachable => "unreachable",
            Failure::Exhausted => "exhausted",
            Failure::Other => "other",
        }
    }

    /// For people.
    pub(super) fn text(self) -> &'static str {
        match self {
            Failure::Refused => "refused",
            Failure::Reset => "reset",
            Failure::Closed => "closed before an answer",
            Failure::Timeout => "timed out",
            Failure::Unreachable => "unreachable",
            Failure::Exhausted => "out of ports or descriptors on this side",
            Failure::Other => "failed otherwise",
        }
    }

    fn of(error: &io::Error) -> Failure {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::ConnectionRefused, _) => Failure::Refused,
            (
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionAborted,
                _,
            ) => Failure::Reset,
            (io::ErrorKind::TimedOut, _) => Failure::Timeout,
            (io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable, _) => {
                Failure::Unreachable
            }
            (io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse, _)
            | (_, Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) => {
                Failure::Exhausted
            }
            _ => Failure::Other,
        }
    }
}

/// What has succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    /// Which server it was; `None` where nothing was to say so.
    pub(super) name: Option<String>,
    /// Until connected; datagrams don't connect.
    pub(super) connect_us: Option<u64>,
    /// From the start to the bytes that name the server.
    pub(super) answer_us: u64,
}

/// A connection, or a socket with a flow, that an attempt has left open.
#[derive(Debug)]
pub(super) enum Open {
    Stream(TcpStream),
    Datagram(UdpSocket),
}

impl Open {
    /// Whether it was reset meanwhile. That the other side has nothing more to say is fine.
    pub(super) fn is_reset(&self) -> bool {
        let (mut piece, mut left) = ([0; 4096], REST_MAX_BYTES);
        loop {
            let read = match self {
                Open::Stream(stream) => stream.try_read(&mut piece),
                Open::Datagram(socket) => socket.try_recv(&mut piece),
            };
            match read {
                // What came before a reset is read first.
                Ok(count @ 1..) if left > count => left -= count,
                Ok(_) => return false,
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Ends it in good order: what else comes is read for a moment.
    async fn close(self) {
        let Open::Stream(mut stream) = self else {
            return;
        };
        let rest = async {
            let _ = stream.shutdown().await;
            let (mut piece, mut left) = ([0; 4096], REST_MAX_BYTES);
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(REST_MAX, rest).await;
    }
}

/// Makes an attempt and ends what it has opened.
pub(super) async fn attempt(plan: &Plan) -> Result<(Answer, impl Future<Output = ()>), Failure> {
    let (answer, open) = open(plan).await?;
    Ok((answer, open.close()))
}

/// Makes an attempt and leaves it open.
pub(super) async fn open(plan: &Plan) -> Result<(Answer, Open), Failure> {
    let whole = async {
        if plan.udp {
            datagram(plan).await
        } else {
            stream(plan).await
        }
    };
    match tokio::time::timeout(plan.timeout, whole).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::Timeout),
    }
}

async fn stream(plan: &Plan) -> Result<(Answer, Open), Failure> {
    let failure = |error: io::Error| Failure::of(&error);
    let begun = clock::now();
    let mut stream = TcpStream::connect(plan.target).await.map_err(failure)?;
    let connect_us = clock::now().us_since(begun);
    stream.set_nodelay(true).map_err(failure)?;
    stream.write_all(&plan.payload).await.map_err(failure)?;
    let mut bytes = Vec::new();
    let name = loop {
        if let Some(name) = name(&bytes, plan.identify, false) {
            break name;
        }
        let mut piece = [0; LINE_MAX_BYTES];
        match stream.read(&mut piece).await.map_err(failure)? {
            0 => break name(&bytes, plan.identify, true).ok_or(Failure::Closed)?,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    };
    let answer = Answer {
        name,
        connect_us: Some(connect_us),
        answer_us: clock::now().us_since(begun),
    };
    Ok((answer, Open::Stream(stream)))
}

async fn datagram(plan: &Plan) -> Result<(Answer, Open), Failure> {
    let failure = |error: io::Error| Failure::of(&error);
    let begun = clock::now();
    let any: SocketAddr = if plan.target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await.map_err(failure)?;
    socket.connect(plan.target).await.map_err(failure)?;
    socket.send(&plan.payload).await.map_err(failure)?;
    let mut bytes = vec![0; LINE_MAX_BYTES];
    let name = match name(&[], plan.identify, false) {
        Some(name) => name,
        None => {
            // A longer one is cut to what says who it is.
            let count = socket.recv(&mut bytes).await.map_err(failure)?;
            name(&bytes[..count], plan.identify, true).ok_or(Failure::Closed)?
        }
    };
    let answer = Answer {
        name,
        connect_us: None,
        answer_us: clock::now().us_since(begun),
    };
    Ok((answer, Open::Datagram(socket)))
}

/// Who has sent these bytes, after which nothing comes if they are `whole`; `None` as long as they
/// don't say.
fn name(bytes: &[u8], identify: Identify, whole: bool) -> Option<Option<String>> {
    let found = match identify {
        Identify::Nothing => return Some(None),
        Identify::Bytes(count) => bytes.get(..count)?,
        Identify::FirstLine => match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => &bytes[..end],
            None if bytes.len() >= LINE_MAX_BYTES || (whole && !bytes.is_empty()) => bytes,
            None => return None,
        },
    };
    let text = clean(String::from_utf8_lossy(found).trim());
    let text: String = text.chars().take(NAME_MAX).collect();
    Some(Some(if text.is_empty() {
        "(empty)".to_owned()
    } else {
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_the_beginning_of_its_answer() {
        let line = |bytes: &[u8], whole| name(bytes, Identify::FirstLine, whole);
        let is = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(line(b"s1\r\nmore", false), is("s1"));
        assert_eq!((line(b"s1", false), line(b"s1", true)), (None, is("s1")));
        assert_eq!(line(b"", true), None);
        assert_eq!(line(b"\n", false), is("(empty)"));
        assert_eq!(line(b"\x1b[2Js\n", false), is("?[2Js"));
        assert_eq!(line(&[b'x'; 300], false), is(&"x".repeat(NAME_MAX)));
        let bytes = |bytes: &[u8], whole| name(bytes, Identify::Bytes(2), whole);
        assert_eq!((bytes(b"abc", false), bytes(b"a", true)), (is("ab"), None));
        assert_eq!(name(b"", Identify::Nothing, false), Some(None));
    }

    #[test]
    fn failures_are_told_apart() {
        let of = |number| Failure::of(&io::Error::from_raw_os_error(number));
        assert_eq!(of(libc::ECONNREFUSED), Failure::Refused);
        assert_eq!(of(libc::EPIPE), Failure::Reset);
        assert_eq!(of(libc::EADDRNOTAVAIL), Failure::Exhausted);
        assert_eq!(of(libc::EMFILE), Failure::Exhausted);
        assert_eq!(of(libc::EHOSTUNREACH), Failure::Unreachable);
        assert_eq!(of(libc::EINVAL), Failure::Other);
    }
}
