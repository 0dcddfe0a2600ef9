//! Asking an agent: a connect, a question where there is one, a line of words.
//!
//! An agent that can't be asked says nothing about its server: that is told to the operator, and
//! the server stays as it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;

use super::result::{AgentResult, Finding};
use super::{Rhythm, Target};
use crate::config::plan::Agent;
use crate::control::listeners::error_text;
use crate::health::Answer;
use crate::sys::clock;
use crate::sys::stream::{self, StreamOptions};

/// The longest line that an agent may send.
const LINE_MAX: usize = 1024;

/// What asking has brought: a status, a text, and the answer if there was one.
type Found = (&'static str, String, Option<Answer>);

/// Asks the agent of a server again and again. Maintenance doesn't end it: the agent may be who
/// ends the maintenance.
pub(super) async fn ask_server(
    target: Target<Agent>,
    mut rhythm: Rhythm,
    findings: Sender<Finding>,
) {
    let configured = target.settings;
    let mut agent = configured.clone();
    let tuned = &target.server.tuned;
    let mut tunings = 0;
    loop {
        let permit = rhythm.wait().await;
        if let Some(tuning) = tuned.news(&mut tunings) {
            let of = &configured;
            agent.address = tuning.agent_address.unwrap_or_else(|| of.address.clone());
            agent.question = tuning
                .agent_question
                .unwrap_or_else(|| Arc::clone(&of.question));
        }
        if tuned.agent_stopped() {
            if !rhythm.next(agent.inter_ms, &findings).await {
                return;
            }
            continue;
        }
        let began = clock::now();
        let (status, description, answer) = ask(&agent).await;
        drop(permit);
        let result = AgentResult {
            server: target.server.id,
            status,
            duration_ms: clock::now().ms_since(began),
            description,
            answer,
        };
        if findings.send(Finding::Agent(result)).await.is_err()
            || !rhythm.next(agent.inter_ms, &findings).await
        {
            return;
        }
    }
}

async fn ask(agent: &Agent) -> Found {
    let after = |ms: u32| {
        let bound = Duration::from_millis(u64::from(ms.max(1)));
        tokio::time::Instant::now() + bound
    };
    let whole = after(agent.inter_ms);
    let until = after(agent.timeout_connect_ms);
    let failed = |status, error: io::Error| (status, error_text(&error), None);
    let mut stream = match tokio::time::timeout_at(until, connect(agent)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if super::attempt::is_local(&error) => return failed("SOCKERR", error),
        Ok(Err(error)) => return failed("L4CON", error),
        Err(_) => return ("L4TOUT", String::new(), None),
    };
    let until = agent.timeout_check_ms.map_or(whole, after);
    match tokio::time::timeout_at(until, line(&mut stream, agent)).await {
        Ok(Ok(line)) => read(&line),
        Ok(Err(error)) => ("L7RSP", error_text(&error), None),
        Err(_) => ("L7TOUT", String::new(), None),
    }
}

async fn connect(agent: &Agent) -> io::Result<TcpStream> {
    // A range of ports belongs to the sessions: of a `source` only the address counts here.
    let source = agent.source.map(|source| source.at(0));
    let options = StreamOptions {
        source,
        ..StreamOptions::default()
    };
    let connecting = stream::connect_socket(&agent.address, &options);
    let (socket, connected) = connecting.map_err(io::Error::from_raw_os_error)?;
    // Close by a reset. Failing to set it costs a TIME_WAIT, not the answer.
    let _ = socket.set_linger(Some(Duration::ZERO));
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
    }
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Everything up to a line feed, or to the end or the bound without one.
async fn line(stream: &mut TcpStream, agent: &Agent) -> io::Result<Vec<u8>> {
    stream.write_all(agent.question.as_bytes()).await?;
    let mut bytes = Vec::new();
    let mut limited = stream.take(LINE_MAX as u64);
    let mut piece = [0; 256];
    loop {
        let count = limited.read(&mut piece).await?;
        bytes.extend_from_slice(&piece[..count]);
        if count == 0 || piece[..count].contains(&b'\n') {
            return Ok(bytes);
        }
    }
}

/// What the bytes of an agent say.
fn read(bytes: &[u8]) -> Found {
    let invalid = |text: &str| ("L7RSP", text.to_owned(), None);
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return invalid(match bytes.len() {
            0 => "empty answer from agent",
            LINE_MAX.. => "line from agent is too long",
            _ => "incomplete line from agent",
        });
    };
    let answer = Answer::parse(&bytes[..end]);
    let status = match answer.says_up {
        Some(true) => "L7OK",
        Some(false) => "L7STS",
        None => "CHECKED",
    };
    (status, answer.text.clone(), Some(answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Address;
    use std::io::{Read, Write};

    /// Asks an agent that answers so, and is asked this.
    fn asked(question: &'static str, answer: &'static [u8], timeout_ms: u32) -> Found {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let agent = Agent {
            address: Address::Ip(listener.local_addr().unwrap()),
            inter_ms: 5_000,
            question: question.into(),
            timeout_connect_ms: 5_000,
            timeout_check_ms: Some(timeout_ms),
            source: None,
        };
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = vec![0; question.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, question.as_bytes());
            stream.write_all(answer).unwrap();
            if answer.is_empty() {
                // Until the other side gives up.
                let _ = stream.read(&mut [0]);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let found = runtime.block_on(ask(&agent));
        drop(runtime);
        serving.join().unwrap();
        found
    }

    fn said(found: &Found) -> (&str, &str) {
        (found.0, &found.1)
    }

    #[test]
    fn a_line_is_an_answer() {
        let found = asked("how are you\n", b"up 50%\nand more", 5_000);
        assert_eq!(said(&found), ("L7OK", "via agent : up"));
        assert!(found.2.unwrap().weight.is_some());
        let found = asked("", b"drain\n", 5_000);
        assert_eq!(said(&found), ("CHECKED", ""));
        let found = asked("", b"down # tired\n", 5_000);
        assert_eq!(said(&found), ("L7STS", "via agent : down (tired)"));
    }

    #[test]
    fn what_is_no_line_is_no_answer() {
        let found = asked("", b"up", 5_000);
        assert_eq!(said(&found), ("L7RSP", "incomplete line from agent"));
        let found = asked("", &[b'x'; LINE_MAX], 5_000);
        assert_eq!(said(&found), ("L7RSP", "line from agent is too long"));
        let began = clock::now();
        let found = asked("", b"", 50);
        assert_eq!(said(&found), ("L7TOUT", ""));
        assert!(clock::now().ms_since(began) < 5_000, "not `agent-inter`");
        assert_eq!(said(&read(b"")), ("L7RSP", "empty answer from agent"));
    }
}
