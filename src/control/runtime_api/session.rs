//! A client of the runtime socket: its commands, one after the other, and how it goes on.
//!
//! Without `prompt` a client sends one line and the connection ends after its answers. Whatever it
//! sends besides is read and forgotten before the end, or the end would take answers back that
//! are still on their way.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::command::{Answer, Call, SeverityOutput};
use super::line::{self, Input, Line, MarkTooLong};
use super::listen::Grant;
use super::{Client, Server, commands, sockets};
use crate::config::plan::Level;
use crate::limits;
use crate::sys::clock;

/// How long a connection that was answered is kept for the client to end it.
const LINGER: Duration = Duration::from_secs(1);

/// How a session goes on after a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It ends.
    Once,
    /// It waits for the next line.
    Kept,
    /// The same with a prompt.
    Prompted,
}

/// What a session of the runtime socket may do and how it goes on.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) level: Level,
    pub(super) mode: Mode,
    /// The prompt says how long the process has run.
    pub(super) is_timed: bool,
    pub(super) ended: bool,
    pub(super) timeout: Duration,
    pub(super) severity_output: SeverityOutput,
    /// `expert-mode` and `experimental-mode`, which nothing here asks for.
    pub(super) is_expert: bool,
    pub(super) is_experimental: bool,
}

/// Serves a client until it ends, or has nothing to say for too long.
pub(super) async fn serve<S: Client>(
    mut stream: S,
    server: &Server,
    grant: Grant,
) -> io::Result<()> {
    let shared = &server.shared;
    let timeout_ms = u64::from(shared.world().plan.global.stats_timeout_ms.max(1));
    let mut session = Session {
        level: grant.level,
        mode: Mode::Once,
        is_timed: false,
        ended: false,
        timeout: Duration::from_millis(timeout_ms),
        severity_output: grant.severity_output,
        is_expert: false,
        is_experimental: false,
    };
    let mut input = Input::default();
    loop {
        let line = input.line(&mut stream, session.timeout, limits::API_LINE_MAX);
        let (line, at_end) = match line.await? {
            Line::Whole(line) => (line, false),
            Line::Last(line) => (line, true),
            Line::TooLong => {
                return refuse(&mut stream, &session, "Command line is too long.").await;
            }
            Line::None => return Ok(()),
        };
        if let Some(client) = sockets::asked_for(&line, &mut stream, grant) {
            let handed_over = &shared.world().handed_over;
            return sockets::send(client, &server.registry, handed_over, session.timeout).await;
        }
        let request = match line::request(&line) {
            Ok(request) => request,
            Err(MarkTooLong) => {
                let text = "The mark that ends the payload is too long.";
                return refuse(&mut stream, &session, text).await;
            }
        };
        let mut payload = None;
        if let Some(mark) = &request.payload_end {
            let given = payload_until(&mut stream, &mut input, &session, mark).await?;
            match given {
                Ok(lines) => payload = Some(lines),
                Err(text) => return refuse(&mut stream, &session, text).await,
            }
        }
        let count = request.commands.len();
        for (index, words) in request.commands.iter().enumerate() {
            let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
            // For HAProxy's master a command may begin with a process's name: there is one.
            if grant.is_master && words.first().is_some_and(|word| word.starts_with('@')) {
                words.remove(0);
            }
            let call = Call {
                shared,
                session: &mut session,
                words: &words,
                payload: payload.as_deref().filter(|_| index + 1 == count),
                client: &mut stream,
            };
            let answer = commands::run(call).await?;
            if session.ended {
                return finish(&mut stream).await;
            }
            let mut text = answer.framed(session.severity_output);
            if session.mode == Mode::Prompted {
                let uptime_s = clock::now().ms_since(shared.facts.started) / 1000;
                text.push_str(&prompt(session.is_timed.then_some(uptime_s)));
            }
            write(&mut stream, text.as_bytes(), session.timeout).await?;
        }
        if at_end || session.mode == Mode::Once {
            return finish(&mut stream).await;
        }
    }
}

/// The lines of a payload, each with its line feed; or what is wrong with it.
async fn payload_until<S: Client>(
    stream: &mut S,
    input: &mut Input,
    session: &Session,
    mark: &str,
) -> io::Result<Result<String, &'static str>> {
    let mut payload = String::new();
    loop {
        if session.mode == Mode::Prompted {
            write(stream, b"+ ", session.timeout).await?;
        }
        let room = limits::API_PAYLOAD_MAX - payload.len();
        let (line, at_end) = match input.line(stream, session.timeout, room).await? {
            Line::Whole(line) => (line, false),
            Line::Last(line) => (line, true),
            Line::TooLong => return Ok(Err("The payload is too long.")),
            Line::None => return Ok(Err("The payload has no end.")),
        };
        if line == mark {
            return Ok(Ok(payload));
        }
        if at_end {
            return Ok(Err("The payload has no end."));
        }
        if payload.len() + line.len() >= limits::API_PAYLOAD_MAX {
            return Ok(Err("The payload is too long."));
        }
        payload.push_str(&line);
        payload.push('\n');
    }
}

/// `> `, with how long the process has run if that is wanted.
fn prompt(uptime_s: Option<u64>) -> String {
    let Some(seconds) = uptime_s else {
        return "> ".to_owned();
    };
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes) = (rest / 3600, rest % 3600 / 60);
    format!("[{days}:{hours:02}:{minutes:02}:{:02}]> ", rest % 60)
}

/// Says why nothing more is taken from the client, and ends.
async fn refuse<S: Client>(stream: &mut S, session: &Session, text: &str) -> io::Result<()> {
    let answer = Answer::error(text).framed(session.severity_output);
    write(stream, answer.as_bytes(), session.timeout).await?;
    finish(stream).await
}

/// Ends the connection: what was written arrives, whatever the client has sent besides.
async fn finish<S: Client>(stream: &mut S) -> io::Result<()> {
    stream.shutdown().await?;
    let forget = async {
        let mut piece = [0u8; 4096];
        let mut left = limits::API_LINE_MAX + limits::API_PAYLOAD_MAX;
        while left > 0 {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(count) => left = left.saturating_sub(count),
            }
        }
    };
    // A client that neither ends nor sends is not waited for longer.
    let _ = tokio::time::timeout(LINGER, forget).await;
    Ok(())
}

/// Writes all of it; each piece within the timeout, so that a slow reader of a long answer is
/// served and one that doesn't read is not waited for.
pub(super) async fn write<S: AsyncWrite + Unpin + ?Sized>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timed_prompt_has_days_hours_minutes_and_seconds() {
        assert_eq!(prompt(None), "> ");
        assert_eq!(prompt(Some(4)), "[0:00:00:04]> ");
        assert_eq!(prompt(Some(2 * 86_400 + 3 * 3600 + 61)), "[2:03:01:01]> ");
    }
}
