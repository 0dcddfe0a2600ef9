//! Carries out a check by datagrams over a connected socket. What they mean is
//! `health::DatagramRun`'s.
//!
//! The socket is another one each time, so that nothing of the last check is heard in this one; it
//! is connected, so that nobody but the server is heard, and the network's refusals are.

use std::io;
use tokio::net::UdpSocket;

use super::attempt::{Outcome, is_local};
use super::script::{Bound, Stop};
use crate::base::address::Address;
use crate::base::hash;
use crate::base::time::Moment;
use crate::config::plan::{Check, DatagramCheck, UdpHeader};
use crate::control::listeners::error_text;
use crate::flow::proxy_protocol::{Fields, HeaderBytes, datagram};
use crate::health::{ANSWER_BYTES_MAX, DatagramRun, NextDatagram, Problem};
use crate::limits;
use crate::sys::{clock, connect_datagrams};

/// Runs a check once.
pub(super) async fn run(check: &Check, how: &DatagramCheck) -> Outcome {
    // Not the number of the check: what answers an old question must not answer a new one.
    let [high, low, ..] = hash::mix(clock::now().0).to_be_bytes();
    let mut run = DatagramRun::new(how, u16::from_be_bytes([high, low]));
    let mut probe = match Probe::new(check) {
        Ok(probe) => probe,
        Err(error) => return outcome(&run, Stop::Failed(error)),
    };
    loop {
        let done = match run.next_act() {
            NextDatagram::End(finding) => return Outcome::Told(finding),
            NextDatagram::Send(bytes) => probe.send(&bytes).await.map(|()| run.sent()),
            NextDatagram::Receive => probe.receive(&mut run).await,
            NextDatagram::Listen => probe.listen(&mut run).await,
        };
        if let Err(stop) = done {
            return outcome(&run, stop);
        }
    }
}

fn outcome(run: &DatagramRun<'_>, stop: Stop) -> Outcome {
    let problem = match stop {
        Stop::Late => return Outcome::Late,
        Stop::TimedOut => Problem::TimedOut,
        Stop::Failed(error) if is_local(&error) => return Outcome::LocalError(error_text(&error)),
        Stop::Failed(error) => Problem::Failed(error_text(&error)),
    };
    Outcome::Told(run.failed(problem))
}

/// A check's run as far as it concerns the socket.
struct Probe<'c> {
    check: &'c Check,
    socket: UdpSocket,
    /// The PROXY header that datagrams begin with, where the server wants one.
    header: Option<HeaderBytes>,
    bound: Bound,
    /// What was sent since the last answer.
    unanswered: Vec<Vec<u8>>,
    /// When it is sent again, once.
    again_at: Option<Moment>,
}

impl Probe<'_> {
    fn new(check: &Check) -> io::Result<Probe<'_>> {
        let Address::Ip(address) = &check.address else {
            return Err(io::Error::from_raw_os_error(nix::libc::EAFNOSUPPORT));
        };
        // A range of ports belongs to the flows: of a `source` only the address counts here.
        let source = check.source.map(|source| source.at(0));
        let socket = connect_datagrams(address, source.as_ref());
        let socket = socket.map_err(io::Error::from_raw_os_error)?;
        // Version 2 says that it is nobody's but ours (LOCAL).
        let header = check
            .send_proxy
            .map(|wanted| datagram::header(wanted, None, Fields::default()));
        Ok(Probe {
            check,
            socket: UdpSocket::from_std(socket.into())?,
            header,
            bound: Bound::new(check.timeout_ms),
            unanswered: Vec::new(),
            again_at: None,
        })
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let header = self.header.as_ref().map_or(&[][..], HeaderBytes::as_bytes);
        let datagram = [header, bytes].concat();
        if self.check.header == UdpHeader::First {
            self.header = None;
        }
        self.bound.hold(self.socket.send(&datagram)).await?;
        self.unanswered.push(datagram);
        let left_ms = u64::from(self.bound.left_ms());
        self.again_at = Some(clock::now().after_ms(left_ms / 2));
        Ok(())
    }

    async fn receive(&mut self, run: &mut DatagramRun<'_>) -> Result<(), Stop> {
        // Not a part of the task, which waits between checks.
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        if let Some(at) = self.again_at {
            let first = Bound::until(at);
            match first.hold(answer(&self.socket, &mut buffer)).await {
                Err(Stop::TimedOut | Stop::Late) => self.send_again().await?,
                result => return self.heard(run, &buffer[..result?]),
            }
        }
        let heard = self.bound.hold(answer(&self.socket, &mut buffer)).await?;
        self.heard(run, &buffer[..heard])
    }

    fn heard(&mut self, run: &mut DatagramRun<'_>, bytes: &[u8]) -> Result<(), Stop> {
        run.received(bytes);
        if !run.is_unanswered() {
            self.unanswered.clear();
            self.again_at = None;
        }
        Ok(())
    }

    /// A datagram may have been lost on its way, there or back.
    async fn send_again(&mut self) -> Result<(), Stop> {
        self.again_at = None;
        for datagram in &self.unanswered {
            self.bound.hold(self.socket.send(datagram)).await?;
        }
        Ok(())
    }

    /// Waits for a refusal, or for anything that the server says.
    async fn listen(&mut self, run: &mut DatagramRun<'_>) -> Result<(), Stop> {
        let bound = Bound::new(self.bound.left_ms().min(limits::PROBE_SILENCE_MS));
        match bound.hold(answer(&self.socket, &mut [0])).await {
            // However late: a refusal would have been seen before the time.
            Ok(_) | Err(Stop::TimedOut | Stop::Late) => run.unrefused(),
            Err(stop) => return Err(stop),
        }
        Ok(())
    }
}

/// The next datagram, cut to the length of the buffer.
async fn answer(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(buffer).await {
            // The path takes less than was thought. What is sent again leaves in fragments.
            Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::base::send_proxy::{SendProxy, Version};
    use crate::config::plan::{Action, Answer, Content, Expect, Pattern, Step};

    fn server() -> (StdSocket, Address) {
        let socket = StdSocket::bind("127.0.0.1:0").unwrap();
        let bound = Some(Duration::from_secs(10));
        socket.set_read_timeout(bound).unwrap();
        let address = Address::Ip(socket.local_addr().unwrap());
        (socket, address)
    }

    fn ask(check: &Check, how: &DatagramCheck) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        match runtime.block_on(run(check, how)) {
            Outcome::Told(finding) => format!("{} {}", finding.status.name(), finding.text),
            other => format!("{other:?}"),
        }
    }

    fn check(address: Address, timeout_ms: u32) -> Check {
        Check {
            timeout_ms,
            ..Check::of(address)
        }
    }

    fn ping() -> DatagramCheck {
        let content = Content {
            pattern: Pattern::Text("pong".to_owned()),
            negated: false,
            bytes_min: None,
        };
        let step = |number, action| Step {
            number,
            action,
            comment: String::new(),
        };
        DatagramCheck::Steps(Arc::from([
            step(1, Action::Send(b"ping".to_vec())),
            step(2, Action::Expect(Expect::of(Answer::Content(content)))),
        ]))
    }

    #[test]
    fn a_closed_port_is_refused_and_silence_passes() {
        let (socket, address) = server();
        let check = check(address, 2000);
        assert_eq!(ask(&check, &DatagramCheck::Probe), "L4OK ");
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 0, "an empty datagram");
        drop(socket);
        let refused = "L4CON Connection refused";
        assert_eq!(ask(&check, &DatagramCheck::Probe), refused);
        let at_step = " at step 2 of udp-check (expect string 'pong')";
        assert_eq!(ask(&check, &ping()), format!("{refused}{at_step}"));
    }

    #[test]
    fn a_lost_datagram_is_sent_again_once() {
        let (socket, address) = server();
        let answers = std::thread::spawn(move || {
            let (mut first, mut again) = ([0; 64], [0; 64]);
            let (count, _) = socket.recv_from(&mut first).unwrap();
            let (count_again, from) = socket.recv_from(&mut again).unwrap();
            assert_eq!(&first[..count], b"ping");
            assert_eq!(&again[..count_again], b"ping");
            socket.send_to(b"pong", from).unwrap();
            socket
        });
        assert_eq!(ask(&check(address, 1000), &ping()), "L7OK (udp-check)");
        let socket = answers.join().unwrap();
        // Of one that nobody answers, two datagrams are left, and no third one.
        let address = Address::Ip(socket.local_addr().unwrap());
        let told = ask(&check(address, 100), &ping());
        assert!(told.starts_with("L7TOUT") || told == "Late", "{told}");
        socket.set_nonblocking(true).unwrap();
        let left = (0..9).filter(|_| socket.recv(&mut [0; 64]).is_ok()).count();
        assert_eq!(left, 2);
    }

    #[test]
    fn a_header_comes_before_what_is_said() {
        let (socket, address) = server();
        let mut check = check(address, 100);
        check.send_proxy = Some(SendProxy::of(Version::Two));
        let two = match ping() {
            DatagramCheck::Steps(steps) => [&steps[..1], &steps[..1]].concat(),
            _ => unreachable!(),
        };
        let two = DatagramCheck::Steps(Arc::from(two));
        for (header, lengths) in [(UdpHeader::First, [20, 4]), (UdpHeader::Every, [20, 20])] {
            check.header = header;
            assert_eq!(ask(&check, &two), "L4OK (udp-check)");
            let mut buffer = [0; 64];
            let count = socket.recv(&mut buffer).unwrap();
            let read = datagram::read(&buffer[..count], 1024).unwrap();
            assert_eq!((read.addresses, read.payload_at), (None, 16));
            assert_eq!(&buffer[16..count], b"ping");
            assert_eq!([count, socket.recv(&mut buffer).unwrap()], lengths);
        }
    }
}
