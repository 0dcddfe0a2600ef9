//! A syslog target of the test's own, and the fields of the lines it gets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::clock::wait_for;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    received: AtomicU64,
    lines: Mutex<Vec<String>>,
}

/// A UDP socket that collects lines.
pub(crate) struct Syslog {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syslog {
    /// Keeps the lines.
    pub(crate) fn start() -> Self {
        Syslog::run(true)
    }

    /// Counts the lines, for high rates.
    pub(crate) fn counting() -> Self {
        Syslog::run(false)
    }

    fn run(keep: bool) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind the syslog socket");
        // Room for a burst while the receiving thread waits for a core.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20));
        socket
            .set_read_timeout(Some(Duration::from_millis(5)))
            .expect("read timeout");
        let address = socket.local_addr().expect("address");
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || receive(&socket, &shared, keep)
        });
        Syslog {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// Its address, for a `log` line.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lines received.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(SeqCst)
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.shared
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many lines contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Waits for a line that contains `text`.
    pub(crate) fn wait_line(&self, text: &str) -> String {
        let find = || self.lines().into_iter().find(|line| line.contains(text));
        wait_for(Duration::from_secs(30), find)
            .unwrap_or_else(|| panic!("no line with {text:?} in {:#?}", self.lines()))
    }

    /// Waits for the next `tcplog` line and takes all lines away.
    pub(crate) fn take_session(&self) -> SessionLine {
        let take = || {
            let mut lines = self
                .shared
                .lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let found = lines.iter().find_map(|line| SessionLine::parse(line))?;
            lines.clear();
            Some(found)
        };
        wait_for(Duration::from_secs(30), take)
            .unwrap_or_else(|| panic!("no session line in {:#?}", self.lines()))
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn receive(socket: &UdpSocket, shared: &Shared, keep: bool) {
    let mut buffer = vec![0; 65_536];
    while !shared.stop.load(SeqCst) {
        match socket.recv(&mut buffer) {
            Ok(count) => {
                if keep {
                    let line = String::from_utf8_lossy(&buffer[..count])
                        .trim_end()
                        .to_owned();
                    shared
                        .lines
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(line);
                }
                // After the line is there: who waits for the number reads the lines next.
                shared.received.fetch_add(1, SeqCst);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("syslog receiver: {error}"),
        }
    }
}

/// The fields of a line of `option tcplog`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SessionLine {
    /// `<PRI>` and header, up to the client's address.
    pub(crate) header: String,
    /// Client address and port.
    pub(crate) client: String,
    /// Date in brackets.
    pub(crate) date: String,
    /// Frontend.
    pub(crate) frontend: String,
    /// Backend and server.
    pub(crate) server: String,
    /// Queue time, connect time, total time in milliseconds.
    pub(crate) timers: [i64; 3],
    /// Bytes to the client.
    pub(crate) bytes: u64,
    /// Termination letters.
    pub(crate) end: String,
    /// Connections: process, frontend, backend, server; then retries as written.
    pub(crate) counts: Vec<String>,
    /// Positions in the queues of server and backend.
    pub(crate) queues: String,
}

impl SessionLine {
    /// Takes a line apart; `None` if it is another kind of line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let at = words
            .iter()
            .position(|word| word.starts_with('[') && word.ends_with(']'))?;
        let [frontend, server, timers, bytes, end, counts, queues] = words.get(at + 1..)? else {
            return None;
        };
        let timers: Vec<i64> = timers.split('/').filter_map(|n| n.parse().ok()).collect();
        Some(SessionLine {
            header: words[..at.checked_sub(1)?].join(" "),
            client: words[at - 1].to_owned(),
            date: words[at].to_owned(),
            frontend: (*frontend).to_owned(),
            server: (*server).to_owned(),
            timers: timers.try_into().ok()?,
            bytes: bytes.parse().ok()?,
            end: (*end).to_owned(),
            counts: counts.split('/').map(str::to_owned).collect(),
            queues: (*queues).to_owned(),
        })
    }

    /// Total time in milliseconds.
    pub(crate) fn total_ms(&self) -> i64 {
        self.timers[2]
    }
}
