//! A connection to the runtime socket that stays: lines are sent, and answers waited for.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of the runtime socket.
#[derive(Debug)]
pub(crate) struct Runtime {
    socket: UnixStream,
    /// What came behind the answer that was waited for.
    held: Vec<u8>,
}

impl Runtime {
    /// Connects.
    pub(crate) fn open(path: &Path) -> Runtime {
        let socket = UnixStream::connect(path).expect("connect to the runtime socket");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Runtime {
            socket,
            held: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket
            .write_all(bytes.as_ref())
            .expect("send a command");
    }

    /// Sends no more.
    pub(crate) fn end(&self) {
        self.socket.shutdown(Shutdown::Write).expect("half-close");
    }

    /// What comes up to the first `end`, with it.
    pub(crate) fn until(&mut self, end: &str) -> String {
        let mut piece = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&self.held).into_owned();
            if let Some(at) = text.find(end) {
                self.held = text.as_bytes()[at + end.len()..].to_vec();
                return text[..at + end.len()].to_owned();
            }
            let count = self.socket.read(&mut piece).expect("an answer");
            assert_ne!(count, 0, "closed before {end:?}, after {text:?}");
            self.held.extend_from_slice(&piece[..count]);
        }
    }

    /// What comes until the other side closes.
    pub(crate) fn rest(&mut self) -> String {
        let mut bytes = std::mem::take(&mut self.held);
        self.socket.read_to_end(&mut bytes).expect("an end");
        String::from_utf8(bytes).expect("a text")
    }

    /// Sends a line and waits for the prompt behind its answer.
    pub(crate) fn prompted(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        let text = self.until("\n> ");
        text.strip_suffix("> ").expect("just read").to_owned()
    }
}

/// Sends all of `input` and gives what is answered until the end.
pub(crate) fn exchange(path: &Path, input: impl AsRef<[u8]>) -> String {
    let mut client = Runtime::open(path);
    client.send(input);
    client.rest()
}
