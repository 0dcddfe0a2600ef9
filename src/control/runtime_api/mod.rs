//! The runtime socket: HAProxy's stats socket in framing and words.
//!
//! A client sends one line of commands divided by `;`; every answer is followed by one empty line
//! and the connection is closed after the last, unless `prompt` came first. Lines, clients and
//! waiting times are bounded. A client that has closed its sending side still gets its answer.

pub(super) mod activity;
mod bounds;
mod cli;
#[allow(dead_code, reason = "what the commands that change state use")]
mod command;
mod commands;
mod condition;
mod counters;
mod frontends;
pub(super) mod info;
mod listening;
mod ramp;
mod reload;
mod session_text;
mod sessions;
mod set_server;
mod show;
pub mod sockets;
pub(super) mod stat;
mod subject;
pub(super) mod table;
mod wait;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::Shared;
use super::listeners::{Registry, error_text};
use crate::base::address::Address;
use crate::config::plan::{Global, Level, StatsSocket};
use crate::limits;
use crate::sys::socket::{self, ListenOptions};
use command::{Call, SeverityOutput};

/// A runtime socket that listens, on its way to the control thread.
#[derive(Debug)]
pub struct BoundSocket {
    socket: OwnedFd,
    is_unix: bool,
    grant: Grant,
}

/// What the clients of a socket may do.
#[derive(Clone, Copy, Debug)]
struct Grant {
    level: Level,
    /// `expose-fd listeners`: a successor may take the listening sockets.
    exposes_listeners: bool,
    /// It stands for the socket of HAProxy's master: commands may begin with a process's name.
    is_master: bool,
}

/// The runtime sockets of the process.
#[derive(Debug, Default)]
pub struct ApiSockets {
    bound: Vec<BoundSocket>,
    files: Vec<(PathBuf, (u64, u64))>,
}

impl ApiSockets {
    /// Binds every `stats socket`; on errors returns all of them as texts.
    /// Those of a running process whose place is taken are replaced.
    pub fn bind(global: &Global, replacing: bool) -> Result<ApiSockets, Vec<String>> {
        let mut sockets = ApiSockets::default();
        let mut errors = Vec::new();
        for wanted in &global.stats_sockets {
            if let Err(error) = sockets.bind_one(wanted, replacing) {
                let what = &wanted.address;
                let text = error_text(&error);
                errors.push(format!("cannot bind stats socket ({text}) for [{what}]"));
            }
        }
        if errors.is_empty() {
            Ok(sockets)
        } else {
            Err(errors)
        }
    }

    fn bind_one(&mut self, wanted: &StatsSocket, replacing: bool) -> io::Result<()> {
        let grant = Grant {
            level: wanted.level,
            exposes_listeners: wanted.exposes_listeners,
            is_master: wanted.is_master,
        };
        match &wanted.address {
            Address::Unix(path) => {
                let backlog = u32::try_from(limits::API_BACKLOG).unwrap_or(0);
                let (mode, uid, gid) = (wanted.mode, wanted.uid, wanted.gid);
                let bound = socket::listen_unix(path, backlog, mode, uid, gid, replacing)?;
                self.files.push((path.clone(), bound.file));
                self.bound.push(BoundSocket {
                    socket: bound.socket,
                    is_unix: true,
                    grant,
                });
            }
            Address::Abstract(name) => {
                let backlog = u32::try_from(limits::API_BACKLOG).unwrap_or(0);
                self.bound.push(BoundSocket {
                    socket: socket::listen_abstract(name, backlog)?,
                    is_unix: true,
                    grant,
                });
            }
            Address::Ip(address) => {
                let backlog = u32::try_from(limits::API_BACKLOG).unwrap_or(0);
                let options = ListenOptions {
                    backlog,
                    ..ListenOptions::default()
                };
                let sockets = if replacing {
                    socket::join_tcp(*address, &options).map(|socket| vec![socket])
                } else {
                    socket::listen_tcp(*address, &options, 1)
                };
                for socket in sockets.map_err(|refused| refused.error)? {
                    self.bound.push(BoundSocket {
                        socket,
                        is_unix: false,
                        grant,
                    });
                }
            }
        }
        Ok(())
    }

    /// The sockets, for the control thread.
    pub fn take(&mut self) -> Vec<BoundSocket> {
        std::mem::take(&mut self.bound)
    }

    /// Removes the socket files that are still ours.
    pub fn unlink(&mut self) {
        for (path, file) in self.files.drain(..) {
            socket::unlink_unix(&path, file);
        }
    }
}

/// Serves the sockets on the control thread's runtime.
pub(super) fn serve(
    shared: &Arc<Shared>,
    sockets: Vec<BoundSocket>,
    registry: &Arc<Mutex<Registry>>,
) {
    let clients = usize::try_from(shared.world().plan.global.stats_maxconn)
        .unwrap_or(1)
        .max(1);
    for bound in sockets {
        let server = Server {
            shared: Arc::clone(shared),
            registry: Arc::clone(registry),
            grant: bound.grant,
        };
        let free = Arc::new(Semaphore::new(clients));
        tokio_uring::spawn(async move {
            // The sockets were opened non-blocking, so tokio takes them as they are.
            if bound.is_unix {
                let listener = std::os::unix::net::UnixListener::from(bound.socket);
                let Ok(listener) = tokio::net::UnixListener::from_std(listener) else {
                    return;
                };
                accept_all(
                    async || listener.accept().await.map(|(s, _)| s),
                    &server,
                    &free,
                )
                .await;
            } else {
                let listener = std::net::TcpListener::from(bound.socket);
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                    return;
                };
                accept_all(
                    async || listener.accept().await.map(|(s, _)| s),
                    &server,
                    &free,
                )
                .await;
            }
        });
    }
}

async fn accept_all<S>(
    accept: impl AsyncFn() -> io::Result<S>,
    server: &Server,
    free: &Arc<Semaphore>,
) where
    S: Client + 'static,
{
    loop {
        // Above the bound, clients wait in the socket's queue.
        let Ok(seat) = Arc::clone(free).acquire_owned().await else {
            return;
        };
        match accept().await {
            Ok(stream) => {
                let server = server.clone();
                tokio_uring::spawn(async move {
                    // A client that goes away ends its session, nothing else.
                    let _ = session(stream, &server).await;
                    drop(seat);
                });
            }
            // No descriptor, or the client was gone: not again at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What the sessions of a socket work with.
#[derive(Clone)]
struct Server {
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
    grant: Grant,
}

/// A connection to a runtime socket.
trait Client: AsyncRead + AsyncWrite + Unpin {
    /// The connection as one that can carry descriptors, if it can.
    fn as_unix(&mut self) -> Option<&mut tokio::net::UnixStream>;
}

impl Client for tokio::net::UnixStream {
    fn as_unix(&mut self) -> Option<&mut tokio::net::UnixStream> {
        Some(self)
    }
}

impl Client for tokio::net::TcpStream {
    fn as_unix(&mut self) -> Option<&mut tokio::net::UnixStream> {
        None
    }
}

/// What a session of the runtime socket may do and how it goes on.
#[derive(Debug)]
struct Session {
    level: Level,
    prompt: bool,
    ended: bool,
    timeout: Duration,
    severity_output: SeverityOutput,
}

async fn session<S: Client>(mut stream: S, server: &Server) -> io::Result<()> {
    let (shared, grant) = (&server.shared, server.grant);
    let timeout_ms = u64::from(shared.world().plan.global.stats_timeout_ms.max(1));
    let timeout = Duration::from_millis(timeout_ms);
    let mut session = Session {
        level: grant.level,
        prompt: false,
        ended: false,
        timeout,
        severity_output: SeverityOutput::None,
    };
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let (line, at_end) = match read_line(&mut stream, &mut buffer, session.timeout).await? {
            Line::Whole(line) => (line, false),
            Line::Last(line) => (line, true),
            Line::TooLong => {
                return write(&mut stream, b"Command line is too long.\n\n", timeout).await;
            }
            Line::None => return Ok(()),
        };
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\r');
        if let Some(client) = sockets::asked_for(text, &mut stream, grant) {
            let handed_over = &shared.world().handed_over;
            return sockets::send(client, &server.registry, handed_over, timeout).await;
        }
        for command in split_commands(text) {
            let command = match grant.is_master {
                true => without_process(&command),
                false => &command,
            };
            let call = Call {
                shared,
                session: &mut session,
                words: &[],
                payload: None,
                client: &mut stream,
            };
            let answer = commands::run(call, command).await?;
            if session.ended {
                return Ok(());
            }
            let text = answer.framed(session.severity_output);
            write(&mut stream, text.as_bytes(), session.timeout).await?;
        }
        if at_end || !session.prompt {
            let _ = stream.shutdown().await;
            return Ok(());
        }
        write(&mut stream, b"> ", session.timeout).await?;
    }
}

/// A command to HAProxy's master without the name of the process that it is for: there is one.
fn without_process(command: &str) -> &str {
    let command = command.trim_start();
    match command.strip_prefix('@') {
        Some(rest) => rest
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest),
        None => command,
    }
}

enum Line {
    Whole(Vec<u8>),
    /// Without a line feed: the client has closed its side after it.
    Last(Vec<u8>),
    TooLong,
    None,
}

async fn read_line<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    timeout: Duration,
) -> io::Result<Line> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = buffer.drain(..=end).collect();
            line.pop();
            return Ok(Line::Whole(line));
        }
        if buffer.len() >= limits::API_LINE_MAX {
            return Ok(Line::TooLong);
        }
        let mut piece = [0u8; 1024];
        let Ok(read) = tokio::time::timeout(timeout, stream.read(&mut piece)).await else {
            return Ok(Line::None);
        };
        match read? {
            0 if buffer.is_empty() => return Ok(Line::None),
            0 => return Ok(Line::Last(std::mem::take(buffer))),
            n => buffer.extend_from_slice(&piece[..n]),
        }
    }
}

/// Writes all of it; each piece within the timeout, so that a slow reader of a long answer is
/// served and one that doesn't read is not waited for.
async fn write<S: AsyncWrite + Unpin + ?Sized>(
    stream: &mut S,
    mut bytes: &[u8],
    timeout: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = tokio::time::timeout(timeout, stream.write(bytes)).await;
        match written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => bytes = &bytes[n..],
        }
    }
    Ok(())
}

/// Divides a line at `;`; a backslash takes `;` or itself out of that.
fn split_commands(line: &str) -> Vec<String> {
    let mut commands = vec![String::new()];
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            (';', _) => commands.push(String::new()),
            ('\\', Some(';' | '\\')) => {
                let escaped = characters.next();
                commands
                    .last_mut()
                    .into_iter()
                    .zip(escaped)
                    .for_each(|(last, c)| last.push(c));
            }
            _ => commands
                .last_mut()
                .into_iter()
                .for_each(|last| last.push(character)),
        }
    }
    // `show info;` ends with nothing: that is no command.
    if commands.len() > 1 && commands.last().is_some_and(|last| last.trim().is_empty()) {
        commands.pop();
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_is_taken_from_a_command() {
        assert_eq!(without_process("@1 show info"), "show info");
        assert_eq!(without_process(" @master show proc"), "show proc");
        assert_eq!(without_process("@!12 show stat up"), "show stat up");
        assert_eq!(without_process("@1"), "");
        assert_eq!(without_process("show info"), "show info");
    }

    #[test]
    fn lines_are_divided_at_semicolons() {
        assert_eq!(
            split_commands("show info;show stat"),
            ["show info", "show stat"]
        );
        assert_eq!(split_commands(r"a\;b\\;c\d;"), [r"a;b\", r"c\d"]);
        assert_eq!(split_commands(""), [""]);
    }
}
