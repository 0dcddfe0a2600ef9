//! The demo's clients that send datagrams: a question, its answer, and now and then another socket,
//! which is another flow. Everything is measured at the client's end.
//!
//! A datagram that goes to an upstream between its death and the moment its checks see that is lost
//! with it, which no balancer can help. Any other that stays without an answer is a failure.

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::failover::redispatched;
use super::upstreams::{COUNT, datagram_answer};
use crate::base::time::Moment;
use crate::lb::{Backend, Health};
use crate::sys::clock;

/// Clients, a thread each.
const CLIENTS: u64 = 6;

/// Time between two questions of a client: 100/s each.
const QUESTION_MS: u64 = 10;

/// Questions that are asked from one socket.
const QUESTIONS_PER_FLOW: u64 = 50;

/// How long an answer is waited for that may have been lost with an upstream.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for any other: far longer than a machine that is busy needs.
const PATIENCE_MAX: Duration = Duration::from_secs(5);

/// How often somebody who waits looks whether an upstream was killed meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// A server that is down gets nothing more after this time, nanoseconds.
const MARGIN_NS: u64 = 100_000_000;

/// What the clients have seen, and the balancer.
#[derive(Clone, Debug, Default)]
pub(super) struct DatagramsSeen {
    /// Questions that were asked, their answers, and those without one.
    pub(super) requests: u64,
    pub(super) answered: u64,
    pub(super) lost: u64,
    /// Those of the lost that no dead upstream excuses.
    pub(super) failed: u64,
    /// Answers by upstream.
    pub(super) by_upstream: [u64; COUNT],
    /// Flows there are, and those that have gone to another upstream.
    pub(super) flows: [u32; COUNT],
    pub(super) moved: u64,
}

impl DatagramsSeen {
    /// Whether nothing was lost but with an upstream, and every upstream has answered.
    pub(super) fn went_well(&self) -> bool {
        self.failed == 0 && self.by_upstream.iter().all(|answers| *answers > 0)
    }
}

/// What the threads share.
struct Common {
    target: SocketAddr,
    seen: Mutex<DatagramsSeen>,
    /// Monotonic nanoseconds: when an upstream was killed, and when the balancer knew; 0 = never.
    kill_began: AtomicU64,
    kill_over: AtomicU64,
    /// Whether the balancer was told to end: nothing that is lost from then on counts.
    ending: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The clients while their threads run.
pub(super) struct DatagramLoad {
    common: Arc<Common>,
    backend: Arc<Backend>,
    /// Dropped, it ends the threads.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl DatagramLoad {
    /// Starts the clients of the balancer at `target`, which has `backend` there. When `ending`
    /// says so, the balancer is leaving.
    pub(super) fn start(
        target: SocketAddr,
        backend: Arc<Backend>,
        ending: impl Fn() -> bool + Send + Sync + 'static,
    ) -> io::Result<DatagramLoad> {
        let common = Arc::new(Common {
            target,
            seen: Mutex::default(),
            kill_began: AtomicU64::new(0),
            kill_over: AtomicU64::new(0),
            ending: Box::new(ending),
        });
        let (stop, stopped) = bounded(0);
        let mut load = DatagramLoad {
            common,
            backend,
            stop: Some(stop),
            threads: Vec::new(),
        };
        for client in 0..CLIENTS {
            let (common, stopped) = (Arc::clone(&load.common), stopped.clone());
            let body = move || ask_often(&common, &stopped, client);
            let thread = std::thread::Builder::new().name("client".to_owned());
            load.threads.push(thread.spawn(body)?);
        }
        Ok(load)
    }

    /// What was seen up to now.
    pub(super) fn seen(&self) -> DatagramsSeen {
        let servers = &self.backend.servers;
        let flows = |index: usize| servers.get(index).map_or(0, |server| server.active());
        DatagramsSeen {
            flows: std::array::from_fn(flows),
            moved: redispatched(&self.backend),
            ..self.common.seen().clone()
        }
    }

    /// Notes that an upstream is being killed, before it is.
    pub(super) fn kill_begins(&self) {
        self.common.kill_over.store(u64::MAX, SeqCst);
        self.common.kill_began.store(clock::now().0, SeqCst);
    }

    /// Looks whether the balancer knows of it.
    pub(super) fn look(&self, victim: usize) {
        let health = self.backend.servers[victim].health();
        if health == Health::Down && self.common.kill_over.load(SeqCst) == u64::MAX {
            let over = clock::now().0 + MARGIN_NS;
            self.common.kill_over.store(over, SeqCst);
        }
    }

    /// Ends the clients, each after the answer that it waits for.
    pub(super) fn stop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Common {
    fn seen(&self) -> MutexGuard<'_, DatagramsSeen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what was asked at that time may have been lost with an upstream.
    fn is_excused(&self, asked: Moment) -> bool {
        let (began, over) = (self.kill_began.load(SeqCst), self.kill_over.load(SeqCst));
        began > 0 && asked.0 <= over && (asked + PATIENCE).0 >= began
    }

    fn note(&self, asked: Moment, answered: io::Result<usize>) {
        let is_excused = self.is_excused(asked) || (self.ending)();
        let mut seen = self.seen();
        seen.requests += 1;
        match answered {
            Ok(upstream) => {
                seen.answered += 1;
                seen.by_upstream[upstream] += 1;
            }
            Err(_) => {
                seen.lost += 1;
                seen.failed += u64::from(!is_excused);
            }
        }
    }
}

/// Asks a question after the other.
fn ask_often(common: &Common, stopped: &Receiver<()>, client: u64) {
    let mut due = clock::now();
    let mut socket = None;
    for number in 0u64.. {
        if stopped.recv_timeout(due - clock::now()) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        // Not all of them at once.
        if socket.is_none() || (number + 8 * client).is_multiple_of(QUESTIONS_PER_FLOW) {
            socket = open(common.target).ok();
        }
        let asked = clock::now();
        let answered = match &socket {
            Some(socket) => {
                let question = format!("{client} asks {number}");
                ask(common, socket, asked, question.as_bytes())
            }
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if answered.is_err() && (common.ending)() {
            return;
        }
        common.note(asked, answered);
        due = due.after_ms(QUESTION_MS).max(clock::now());
    }
}

fn open(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((target.ip(), 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

/// Which upstream answers a question.
fn ask(common: &Common, socket: &UdpSocket, asked: Moment, question: &[u8]) -> io::Result<usize> {
    socket.send(question)?;
    let mut answer = [0; 128];
    loop {
        match socket.recv(&mut answer) {
            Ok(length) => {
                let of = |index: &usize| datagram_answer(*index, question) == answer[..length];
                // Another one answers an earlier question, too late.
                if let Some(index) = (0..COUNT).find(of) {
                    return Ok(index);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let patience = if common.is_excused(asked) || (common.ending)() {
            PATIENCE
        } else {
            PATIENCE_MAX
        };
        if clock::now() - asked >= patience {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}
