//! A client of the runtime socket: a connection per question, blocking, bounded in time and size.
//!
//! A question is one line; commands divided by `;` share a connection. The balancer ends each
//! answer with an empty line and closes the connection after the last: an answer without that end
//! is cut, and no part of it is believed.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::time::Moment;
use crate::sys::clock;

/// Longest answer: 100,000 servers at 600 bytes each.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// Where a runtime socket is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    Unix(PathBuf),
    Abstract(String),
    /// A host, or an address, with its port.
    Tcp(String),
}

impl Address {
    /// Of what was typed: a path, `unix@PATH`, `abns@NAME`, `HOST:PORT` (`tcp@` is let before it).
    pub(super) fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix@") {
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        if let Some(name) = text.strip_prefix("abns@") {
            return Ok(Address::Abstract(name.to_owned()));
        }
        let host = ["tcp@", "ipv4@", "ipv6@"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        let is_address = |text: &str| {
            let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            !text.contains('/') && matches!(port, Some(Ok(1..)))
        };
        match host {
            Some(host) if is_address(host) => Ok(Address::Tcp(host.to_owned())),
            None if is_address(text) => Ok(Address::Tcp(text.to_owned())),
            None if !text.is_empty() => Ok(Address::Unix(PathBuf::from(text))),
            _ => Err(format!(
                "'{text}' is no runtime socket: a path, abns@NAME or HOST:PORT"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(out, "{}", path.display()),
            Address::Abstract(name) => write!(out, "abns@{name}"),
            Address::Tcp(host) => out.write_str(host),
        }
    }
}

/// Why there is no answer to work with.
#[derive(Debug)]
pub(super) enum Trouble {
    /// No connection.
    Connect(Address, io::Error),
    /// It broke, or took too long.
    Broken(Address, io::Error),
    /// It ended before its last line.
    Cut(Address),
    /// It is longer than any answer should be.
    TooLong(Address),
    /// It is not what was asked for.
    Strange(String),
    /// The balancer said no, with its words.
    Refused(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timed_out = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            )
        };
        match self {
            Trouble::Connect(address, error) if timed_out(error) => {
                write!(out, "cannot connect to {address} within the timeout")
            }
            Trouble::Connect(address, error) => write!(out, "cannot connect to {address}: {error}"),
            Trouble::Broken(address, error) if timed_out(error) => {
                write!(out, "no whole answer from {address} within the timeout")
            }
            Trouble::Broken(address, error) => {
                write!(out, "lost the connection to {address}: {error}")
            }
            Trouble::Cut(address) => write!(out, "the answer of {address} is cut"),
            Trouble::TooLong(address) => write!(
                out,
                "the answer of {address} is longer than {} MiB",
                ANSWER_MAX_BYTES >> 20
            ),
            Trouble::Strange(text) | Trouble::Refused(text) => out.write_str(text),
        }
    }
}

trait Stream: Read + Write {
    fn read_within(&self, timeout: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn read_within(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

impl Stream for TcpStream {
    fn read_within(&self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))
    }
}

/// Whom to ask, and how long to wait.
#[derive(Clone, Debug)]
pub(super) struct Client {
    address: Address,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(address: Address, timeout: Duration) -> Client {
        Client { address, timeout }
    }

    /// The same with more patience.
    pub(super) fn with_timeout(&self, timeout: Duration) -> Client {
        Client::new(self.address.clone(), self.timeout.max(timeout))
    }

    /// The answer to a line, without the empty line that ends it.
    pub(super) fn ask(&self, line: &str) -> Result<String, Trouble> {
        let until = clock::now() + self.timeout;
        let mut stream = self
            .connect()
            .map_err(|error| Trouble::Connect(self.address.clone(), error))?;
        let bytes = self.exchange(&mut *stream, line, until)?;
        let text = String::from_utf8_lossy(&bytes);
        match text.strip_suffix("\n\n") {
            Some(text) => Ok(format!("{text}\n")),
            None if text == "\n" => Ok(String::new()),
            None => Err(Trouble::Cut(self.address.clone())),
        }
    }

    /// The answers to several commands, none of which may be empty.
    pub(super) fn ask_each<const N: usize>(
        &self,
        commands: [&str; N],
    ) -> Result<[String; N], Trouble> {
        let text = self.ask(&commands.join(";"))?;
        let answers: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
        let strange = |found: Vec<String>| {
            let found = found.len();
            Trouble::Strange(format!("{found} answers to {N} commands"))
        };
        answers.try_into().map_err(strange)
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.address {
            Address::Unix(path) => self.connect_unix(&SockAddr::unix(path)?),
            // A name that begins with a NUL is an abstract one.
            Address::Abstract(name) => self.connect_unix(&SockAddr::unix(format!("\0{name}"))?),
            Address::Tcp(host) => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in host.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, self.timeout) {
                        Ok(stream) => {
                            stream.set_write_timeout(Some(self.timeout))?;
                            return Ok(Box::new(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// The bound of writes is that of connect(2) too, which waits while the socket's queue is full.
    fn connect_unix(&self, address: &SockAddr) -> io::Result<Box<dyn Stream>> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_write_timeout(Some(self.timeout))?;
        socket.connect(address)?;
        Ok(Box::new(UnixStream::from(socket)))
    }

    fn exchange(
        &self,
        stream: &mut dyn Stream,
        line: &str,
        until: Moment,
    ) -> Result<Vec<u8>, Trouble> {
        let broken = |error| Trouble::Broken(self.address.clone(), error);
        stream
            .write_all(format!("{line}\n").as_bytes())
            .map_err(broken)?;
        let mut bytes = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let left = until - clock::now();
            if left.is_zero() {
                return Err(broken(io::ErrorKind::TimedOut.into()));
            }
            stream.read_within(left).map_err(broken)?;
            match stream.read(&mut piece) {
                Ok(0) => return Ok(bytes),
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What has come is whole or not, however the connection ended.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(bytes),
                Err(error) => return Err(broken(error)),
            }
            if bytes.len() > ANSWER_MAX_BYTES {
                return Err(Trouble::TooLong(self.address.clone()));
            }
        }
    }
}

/// Whether an answer says that a command isn't known, isn't allowed, or isn't understood.
pub(super) fn is_refusal(answer: &str) -> bool {
    answer.starts_with("Unknown command") || answer.starts_with("Permission denied")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn addresses_are_told_apart() {
        let parsed = |text| Address::parse(text).unwrap();
        assert_eq!(parsed("/run/t.sock"), Address::Unix("/run/t.sock".into()));
        assert_eq!(parsed("t.sock"), Address::Unix("t.sock".into()));
        assert_eq!(parsed("/run/t:9999"), Address::Unix("/run/t:9999".into()));
        assert_eq!(parsed("unix@a:1"), Address::Unix("a:1".into()));
        assert_eq!(parsed("abns@t"), Address::Abstract("t".into()));
        for tcp in ["127.0.0.1:9999", "localhost:1", "[::1]:9999"] {
            assert_eq!(parsed(tcp), Address::Tcp(tcp.into()));
        }
        assert_eq!(parsed("tcp@h:2"), Address::Tcp("h:2".into()));
        assert!(Address::parse("").is_err() && Address::parse("tcp@h").is_err());
    }

    /// What a client makes of a connection that answers so and closes.
    fn asked(answer: &'static [u8]) -> Result<String, Trouble> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 5];
            stream.read_exact(&mut line).unwrap();
            stream.write_all(answer).unwrap();
        });
        let client = Client::new(Address::Tcp(address), Duration::from_secs(20));
        let answer = client.ask("ask;");
        server.join().unwrap();
        answer
    }

    #[test]
    fn an_answer_ends_with_an_empty_line() {
        assert_eq!(asked(b"a\nb\n\n").unwrap(), "a\nb\n");
        assert_eq!(asked(b"\n").unwrap(), "");
        for cut in [&b"a\nb\n"[..], b"a\nb", b"", b"a\n\nb"] {
            assert!(matches!(asked(cut), Err(Trouble::Cut(_))), "{cut:?}");
        }
    }

    #[test]
    fn a_full_queue_is_not_waited_for_longer_than_the_timeout() {
        let name = format!("tidegate-test-{}", std::process::id());
        let address = SockAddr::unix(format!("\0{name}")).unwrap();
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&address).unwrap();
        // One waits in it.
        listener.listen(0).unwrap();
        let waiting = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        waiting.connect(&address).unwrap();
        let client = Client::new(Address::Abstract(name), Duration::from_millis(20));
        let text = client.ask("x").unwrap_err().to_string();
        assert!(text.starts_with("cannot connect to abns@"), "{text}");
        assert!(text.ends_with(" within the timeout"), "{text}");
    }

    #[test]
    fn nobody_there_and_no_answer_are_said() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(gone.local_addr().unwrap().to_string());
        let silent = Client::new(address.clone(), Duration::from_millis(20)).ask("x");
        let text = silent.unwrap_err().to_string();
        assert!(text.contains("within the timeout"), "{text}");
        drop(gone);
        let refused = Client::new(address, Duration::from_secs(20)).ask("x");
        assert!(matches!(refused, Err(Trouble::Connect(..))), "{refused:?}");
    }
}
