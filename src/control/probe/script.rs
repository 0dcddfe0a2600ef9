//! Carries out the steps of a scripted check over a socket. What they mean is `health::Run`'s.
//!
//! A timeout that is seen too late says nothing about the server, at whatever step: tokio polls a
//! socket once more before it lets a timeout win, and what is late even so is no result.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::attempt::{Connection, Outcome, connect, is_late, is_local};
use crate::base::ports::Ports;
use crate::base::time::Moment;
use crate::config::plan::{Check, ConnectStep, Ending, Scripted};
use crate::control::listeners::error_text;
use crate::health::{ANSWER_BYTES_MAX, Next, Problem, Run};
use crate::limits;
use crate::sys::clock;

/// Runs a script once. What is left to be said to the server is for after the result.
pub(super) async fn run<'a>(
    check: &Check,
    scripted: &Scripted,
    ports: Option<&'a Ports>,
) -> (Outcome, Option<Farewell<'a>>) {
    let mut run = Run::new(&scripted.script);
    let whole = Bound::new(check.inter_ms);
    let mut probe = Probe {
        check,
        scripted,
        ports,
        connection: None,
        whole,
        bound: whole,
        broken: None,
    };
    loop {
        let stop = match run.next_act() {
            Next::End(finding, ending) => {
                let connection = probe.connection;
                let farewell = connection.map(|connection| Farewell { connection, ending });
                return (Outcome::Told(finding), farewell);
            }
            Next::Connect(step) => probe.connect(step).await.map(|()| run.connected()),
            Next::Send(bytes) => probe.send(bytes).await.map(|()| run.sent()),
            Next::Receive(room) => probe.receive(room, &mut run).await,
        };
        let problem = match stop {
            Ok(()) => continue,
            Err(Stop::Late) => return (Outcome::Late, None),
            Err(Stop::TimedOut) => Problem::TimedOut,
            Err(Stop::Failed(error)) if is_local(&error) => {
                return (Outcome::LocalError(error_text(&error)), None);
            }
            Err(Stop::Failed(error)) => Problem::Failed(error_text(&error)),
        };
        return (Outcome::Told(run.failed(problem)), None);
    }
}

/// Why a step was not carried out.
pub(super) enum Stop {
    TimedOut,
    Late,
    Failed(io::Error),
}

/// A script's run as far as it concerns sockets.
struct Probe<'c, 'a> {
    check: &'c Check,
    scripted: &'c Scripted,
    ports: Option<&'a Ports>,
    connection: Option<Connection<'a>>,
    /// Of the whole, where `timeout check` isn't set.
    whole: Bound,
    /// Of what follows the last connect.
    bound: Bound,
    /// Why something could not be sent. The server may have said something before it closed.
    broken: Option<io::Error>,
}

impl Probe<'_, '_> {
    async fn connect(&mut self, step: &ConnectStep) -> Result<(), Stop> {
        // The connection before it ends, and with it what was wrong with it.
        self.connection = None;
        self.broken = None;
        let most_ms = self.scripted.timeout_connect_ms;
        let bound = match self.scripted.timeout_check_ms {
            Some(_) => Bound::new(most_ms),
            None => Bound::new(most_ms.min(self.whole.left_ms())),
        };
        let target = step.target(&self.check.address);
        let send_proxy = step.header(self.scripted.send_proxy, self.check.send_proxy);
        let source = self.check.source;
        let connecting = connect(&target, source, send_proxy, self.ports, step.linger);
        let connection = bound.hold(connecting).await?;
        self.connection = Some(connection);
        self.bound = match self.scripted.timeout_check_ms {
            Some(check_ms) => Bound::new(check_ms),
            None => self.whole,
        };
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let bound = self.bound;
        let stream = self.stream()?;
        match bound.hold(stream.write_all(bytes)).await {
            Err(Stop::Failed(error)) if !is_local(&error) => {
                self.broken = Some(error);
                Ok(())
            }
            result => result,
        }
    }

    async fn receive(&mut self, room: usize, run: &mut Run<'_>) -> Result<(), Stop> {
        let bound = self.bound;
        // Not a part of the task, which waits between checks.
        let mut buffer = vec![0; room.min(ANSWER_BYTES_MAX)];
        let stream = self.stream()?;
        match bound.hold(stream.read(&mut buffer)).await {
            Ok(count @ 1..) => run.received(&buffer[..count]),
            Ok(0) if run.has_answer() || self.broken.is_none() => run.closed(),
            Err(Stop::Failed(error)) if run.has_answer() && !is_local(&error) => run.closed(),
            Ok(0) => {
                let error = self.broken.take();
                return Err(Stop::Failed(error.unwrap_or_else(not_connected)));
            }
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    /// The stream; a script connects first.
    fn stream(&mut self) -> Result<&mut dyn super::attempt::Stream, Stop> {
        match &mut self.connection {
            Some(connection) => Ok(connection.stream.as_mut()),
            None => Err(Stop::Failed(not_connected())),
        }
    }
}

fn not_connected() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::ENOTCONN)
}

/// Until when something must be done.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    began: Moment,
    timeout_ms: u32,
}

impl Bound {
    pub(super) fn new(timeout_ms: u32) -> Bound {
        Bound {
            began: clock::now(),
            timeout_ms: timeout_ms.max(1),
        }
    }

    pub(super) fn until(end: Moment) -> Bound {
        let rest_ms = end.ms_since(clock::now());
        Bound::new(u32::try_from(rest_ms).unwrap_or(u32::MAX))
    }

    pub(super) fn left_ms(self) -> u32 {
        let took_ms = u32::try_from(clock::now().ms_since(self.began)).unwrap_or(u32::MAX);
        self.timeout_ms.saturating_sub(took_ms)
    }

    pub(super) async fn hold<T>(
        self,
        future: impl Future<Output = io::Result<T>>,
    ) -> Result<T, Stop> {
        let end = self.began.after_ms(u64::from(self.timeout_ms));
        match tokio::time::timeout(end - clock::now(), future).await {
            Ok(result) => result.map_err(Stop::Failed),
            Err(_) if is_late(clock::now().ms_since(self.began), self.timeout_ms) => {
                Err(Stop::Late)
            }
            Err(_) => Err(Stop::TimedOut),
        }
    }
}

/// What remains to be said to a server after the result is known.
pub(super) struct Farewell<'a> {
    connection: Connection<'a>,
    ending: Ending,
}

impl Farewell<'_> {
    /// Takes leave, for a bounded time.
    pub(super) async fn say(mut self) {
        let stream = &mut self.connection.stream;
        let leave = async {
            match &self.ending {
                Ending::Reset => return,
                Ending::Close => {
                    let _ = stream.shutdown().await;
                }
                Ending::Goodbye(bytes) => {
                    if stream.write_all(bytes).await.is_err() {
                        return;
                    }
                }
            }
            // Until the server has closed: the reset that follows then reaches nobody.
            let mut rest = [0; 1024];
            while let Ok(1..) = stream.read(&mut rest).await {}
        };
        let bound = Duration::from_millis(limits::PROBE_FAREWELL_MS);
        let _ = tokio::time::timeout(bound, leave).await;
    }
}

#[cfg(test)]
mod tests {
    use crate::base::send_proxy::{SendProxy, Version};
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::task::Poll;

    use super::*;
    use crate::base::address::Address;
    use crate::config::plan::{Action, Answer, CheckStatus, Expect, Manner, Script, Step};

    /// A check that waits for `+PONG`.
    fn check(listener: &TcpListener, timeout_check_ms: Option<u32>, inter_ms: u32) -> Check {
        let step = |number, action| Step {
            number,
            action,
            comment: String::new(),
        };
        let script = Script {
            manner: Manner::Protocol,
            steps: vec![
                step(0, Action::Connect(ConnectStep::default())),
                step(1, Action::Expect(Expect::of(Answer::Redis))),
            ],
            ending: Ending::Reset,
        };
        let address = Address::Ip(listener.local_addr().unwrap());
        Check {
            inter_ms,
            scripted: Some(Scripted {
                script: Arc::new(script),
                timeout_connect_ms: 1000,
                timeout_check_ms,
                send_proxy: SendProxy::of(Version::One),
            }),
            ..Check::of(address)
        }
    }

    /// Runs a check; once it is connected, this thread is held up for a time, and `answer` is sent
    /// meanwhile.
    fn held_up(timeout_check_ms: Option<u32>, hold_ms: u64, answer: &'static [u8]) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inter_ms = if timeout_check_ms.is_some() { 2000 } else { 30 };
        let check = check(&listener, timeout_check_ms, inter_ms);
        let (accepted, is_accepted) = tokio::sync::oneshot::channel();
        let (held, is_held) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            accepted.send(()).unwrap();
            is_held.recv().unwrap();
            stream.write_all(answer).unwrap();
            stream
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let scripted = check.scripted.as_ref().unwrap();
        let outcome = runtime.block_on(async {
            let hold = async {
                is_accepted.await.unwrap();
                held.send(()).unwrap();
                let until = clock::now().after_ms(hold_ms);
                while clock::now() < until {}
            };
            let ((outcome, _), ()) = tokio::join!(run(&check, scripted, None), hold);
            outcome
        });
        drop(server.join().unwrap());
        outcome
    }

    fn status(outcome: &Outcome) -> Option<CheckStatus> {
        match outcome {
            Outcome::Told(finding) => Some(finding.status),
            _ => None,
        }
    }

    /// Whether a check ends like this in one of some runs: where the machine is busy, the server's
    /// thread may come to its turn only after the timeout.
    fn once(told: CheckStatus, run: impl Fn() -> Outcome) -> bool {
        (0..50).any(|_| status(&run()) == Some(told))
    }

    #[test]
    fn an_answer_that_came_while_the_thread_was_held_up_counts() {
        let answered = || held_up(Some(30), 150, b"+PONG\r\n");
        assert!(once(CheckStatus::L7Ok, answered));
    }

    #[test]
    fn a_timeout_that_is_seen_in_time_is_told() {
        assert!(once(CheckStatus::L7Timeout, || held_up(
            Some(30),
            0,
            b"+PON"
        )));
        // Without `timeout check` the interval bounds the whole.
        assert!(once(CheckStatus::L7Timeout, || held_up(None, 0, b"")));
    }

    #[tokio::test]
    async fn a_timeout_that_is_seen_late_says_nothing() {
        let bound = Bound::new(30);
        let hold_up = std::future::poll_fn(|_| -> Poll<io::Result<()>> {
            let until = clock::now().after_ms(150);
            while clock::now() < until {}
            Poll::Pending
        });
        assert!(matches!(bound.hold(hold_up).await, Err(Stop::Late)));
    }
}
