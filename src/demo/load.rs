//! The demo's clients: new connections at a bounded rate, and a few kept ones that exchange small
//! messages. Everything is measured at the client's end of a real connection to the balancer.
//!
//! A connection counts as failed when it was not answered in full. The one exception is counted by
//! its own name: a connection that was already open when an upstream was killed may be cut with it,
//! and no balancer can move it, because its request has been delivered.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use hdrhistogram::Histogram;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use super::upstreams::{COUNT, MESSAGE_BYTES, who_answered};
use crate::base::time::Moment;
use crate::sys::clock;

/// New connections per second, of all threads.
const CONNECTIONS_PER_SECOND: u64 = 2_000;

/// Threads that open them: at 250/s each has 4 ms per connection, so a slow one delays few others.
const CONNECTING_THREADS: u64 = 8;

/// Kept connections, a thread each.
const KEPT: usize = 4;

/// Time between two exchanges of a kept connection: 100/s each.
const EXCHANGE_MS: u64 = 10;

/// A client gives up after this long. Far more than all retries take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client sees within this time of a kill that its connection was cut, nanoseconds. Whatever
/// breaks later has no excuse.
const CUT_SEEN_WITHIN_NS: u64 = 1_000_000_000;

/// Largest latency that the histograms hold, microseconds; beyond it they saturate.
const LATENCY_MAX_US: u64 = 60_000_000;

/// What the clients have seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// New connections that were answered in full.
    pub(super) answered: u64,
    /// The same and exchanges, by the upstream that answered.
    pub(super) by_upstream: [u64; COUNT],
    /// New connections that were not answered.
    pub(super) failed: u64,
    /// Text of the first such failure.
    pub(super) first_failure: Option<String>,
    /// New connections that were open at the moment of a kill and were cut by it.
    pub(super) cut: u64,
    /// Exchanges on kept connections.
    pub(super) exchanges: u64,
    /// Kept connections that broke and were opened again.
    pub(super) kept_broken: u64,
    /// From the connect to the last byte of the answer, microseconds.
    pub(super) connection_us: Histogram<u64>,
    /// From a request to its answer on a kept connection, microseconds.
    pub(super) exchange_us: Histogram<u64>,
}

impl Seen {
    fn new() -> Seen {
        let histogram = || {
            // 3 digits from 1 us to 60 s: 17 x 1,024 counters of 8 bytes, 140 KiB.
            Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("constant bounds")
        };
        Seen {
            answered: 0,
            by_upstream: [0; COUNT],
            failed: 0,
            first_failure: None,
            cut: 0,
            exchanges: 0,
            kept_broken: 0,
            connection_us: histogram(),
            exchange_us: histogram(),
        }
    }
}

/// What the load's threads share.
struct Common {
    target: SocketAddr,
    seen: Mutex<Seen>,
    /// Monotonic nanoseconds at which the last kill began and was done; 0 = none.
    kill_began: AtomicU64,
    kill_done: AtomicU64,
    /// Whether the balancer was told to end: nothing that breaks from then on counts.
    ending: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The clients while their threads run.
pub(super) struct Load {
    common: Arc<Common>,
    /// Dropped, it ends the threads.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients of the balancer at `target`. When `ending` says so, the balancer is
    /// leaving.
    pub(super) fn start(
        target: SocketAddr,
        ending: impl Fn() -> bool + Send + Sync + 'static,
    ) -> io::Result<Load> {
        let common = Arc::new(Common {
            target,
            seen: Mutex::new(Seen::new()),
            kill_began: AtomicU64::new(0),
            kill_done: AtomicU64::new(0),
            ending: Box::new(ending),
        });
        let (stop, stopped) = bounded(0);
        let mut load = Load {
            common,
            stop: Some(stop),
            threads: Vec::new(),
        };
        for index in 0..CONNECTING_THREADS {
            load.spawn(&stopped, move |common, stopped| {
                connect_often(common, stopped, index);
            })?;
        }
        for _ in 0..KEPT {
            load.spawn(&stopped, keep_connected)?;
        }
        Ok(load)
    }

    fn spawn(
        &mut self,
        stopped: &Receiver<()>,
        body: impl FnOnce(&Common, &Receiver<()>) + Send + 'static,
    ) -> io::Result<()> {
        let (common, stopped) = (Arc::clone(&self.common), stopped.clone());
        let thread = std::thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || body(&common, &stopped))?;
        self.threads.push(thread);
        Ok(())
    }

    /// What was seen up to now.
    pub(super) fn seen(&self) -> Seen {
        self.common.seen().clone()
    }

    /// Notes that an upstream is being killed, before it is.
    pub(super) fn kill_begins(&self) {
        self.common.kill_done.store(u64::MAX, SeqCst);
        self.common.kill_began.store(clock::now().0, SeqCst);
    }

    /// Notes when the kill was done.
    pub(super) fn kill_done(&self, at: u64) {
        self.common.kill_done.store(at, SeqCst);
    }

    /// Ends the clients, each after what it is doing.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Common {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether a connection made at `began` that has broken just now was open during a kill.
    fn was_open_at_a_kill(&self, began: Moment) -> bool {
        let (kill_began, now) = (self.kill_began.load(SeqCst), clock::now().0);
        let kill_done = self.kill_done.load(SeqCst);
        kill_began > 0
            && (kill_began..=kill_done.saturating_add(CUT_SEEN_WITHIN_NS)).contains(&now)
            && began.0 <= kill_done
    }

    fn note_connection(&self, began: Moment, result: io::Result<usize>) {
        let mut seen = self.seen();
        match result {
            Ok(upstream) => {
                seen.answered += 1;
                seen.by_upstream[upstream] += 1;
                seen.connection_us
                    .saturating_record(clock::now().us_since(began));
            }
            Err(_) if (self.ending)() => {}
            Err(_) if self.was_open_at_a_kill(began) => seen.cut += 1,
            Err(error) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Opens a connection after the other, at this thread's share of the rate.
fn connect_often(common: &Common, stopped: &Receiver<()>, index: u64) {
    let request = request("close");
    let interval =
        Duration::from_nanos(1_000_000_000 * CONNECTING_THREADS / CONNECTIONS_PER_SECOND);
    let mut due = clock::now() + interval / 8 * u32::try_from(index).unwrap_or(0);
    while waited(stopped, due) {
        let began = clock::now();
        let result = connect(common.target).and_then(|mut stream| {
            let upstream = exchange(&mut stream, &request)?;
            Ok((stream, upstream))
        });
        let (stream, result) = match result {
            Ok((stream, upstream)) => (Some(stream), Ok(upstream)),
            Err(error) => (None, Err(error)),
        };
        common.note_connection(began, result);
        // The upstream closes first, so that the client's ports are free again at once.
        if let Some(mut stream) = stream {
            let _ = stream.read(&mut [0]);
        }
        // What was missed is not made up for: the rate is a bound.
        due = (due + interval).max(clock::now());
    }
}

/// Keeps one connection and exchanges messages on it; opens it again when it breaks.
fn keep_connected(common: &Common, stopped: &Receiver<()>) {
    let request = request("keep-alive");
    let mut kept: Option<(TcpStream, Moment)> = None;
    let mut due = clock::now();
    while waited(stopped, due) {
        let began = clock::now();
        if let Some((stream, since)) = &mut kept {
            match exchange(stream, &request) {
                Ok(upstream) => {
                    let mut seen = common.seen();
                    seen.exchanges += 1;
                    seen.by_upstream[upstream] += 1;
                    seen.exchange_us
                        .saturating_record(clock::now().us_since(began));
                }
                Err(_) if (common.ending)() => return,
                Err(error) => {
                    let at_a_kill = common.was_open_at_a_kill(*since);
                    let mut seen = common.seen();
                    seen.kept_broken += 1;
                    if !at_a_kill {
                        // Nothing but a kill may break it.
                        seen.failed += 1;
                        seen.first_failure.get_or_insert_with(|| error.to_string());
                    }
                    kept = None;
                }
            }
        }
        if kept.is_none() {
            let began = clock::now();
            let result = connect(common.target).and_then(|mut stream| {
                let upstream = exchange(&mut stream, &request)?;
                kept = Some((stream, began));
                Ok(upstream)
            });
            common.note_connection(began, result);
        }
        due = due.after_ms(EXCHANGE_MS).max(clock::now());
    }
}

/// Waits until `due`; `false` when the load was stopped.
fn waited(stopped: &Receiver<()>, due: Moment) -> bool {
    stopped.recv_timeout(due - clock::now()) == Err(RecvTimeoutError::Timeout)
}

/// A request of [`MESSAGE_BYTES`].
fn request(connection: &str) -> Vec<u8> {
    let head = format!("GET / HTTP/1.1\r\nConnection: {connection}\r\nX: ");
    let padding = MESSAGE_BYTES - head.len() - 4;
    format!("{head}{}\r\n\r\n", "x".repeat(padding)).into_bytes()
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// One request and its whole answer; returns who answered.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<usize> {
    stream.write_all(request)?;
    let mut message = [0; MESSAGE_BYTES];
    stream.read_exact(&mut message)?;
    who_answered(&message).ok_or_else(|| io::Error::other("the answer is not an upstream's"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_one_length() {
        assert_eq!(request("close").len(), MESSAGE_BYTES);
        assert_eq!(request("keep-alive").len(), MESSAGE_BYTES);
    }

    #[test]
    fn a_refused_connection_is_a_failure_unless_it_was_open_at_a_kill() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = closed.local_addr().unwrap();
        drop(closed);
        let mut load = Load::start(target, || false).unwrap();
        let until = clock::now().after_ms(5_000);
        while load.seen().failed == 0 && clock::now() < until {
            std::thread::yield_now();
        }
        load.stop();
        let seen = load.seen();
        assert!(seen.failed > 0 && seen.first_failure.is_some() && seen.cut == 0);
        let before = clock::now();
        load.kill_begins();
        load.kill_done(clock::now().0);
        let after = Moment(clock::now().0 + 1);
        let broken = || Err(io::ErrorKind::ConnectionReset.into());
        load.common.note_connection(before, broken());
        load.common.note_connection(after, broken());
        assert_eq!((load.seen().cut, load.seen().failed), (1, seen.failed + 1));
    }
}
