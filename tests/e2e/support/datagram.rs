//! UDP in the tests: payloads that say what they are, clients, mock servers that remember.
//!
//! Every wait has a bound. Sockets of clients are not connected, so that a test sees who answers;
//! the sockets of neither side join what they receive, so that it sees datagrams as they were cut.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};

use super::clock::{Stopwatch, wait_for};
use super::port::{datagram_sockets_on, free_port};
use super::stream;

/// Longest wait for any one datagram.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Longest datagram of IPv4.
pub(crate) const LENGTH_MAX: usize = 65_507;
/// Bytes that a payload says what it is in: flow, number, length.
pub(crate) const HEAD_LENGTH: usize = 12;
/// Room for what arrives while the receiving thread waits for a core.
const RECEIVE_BUFFER: usize = 32 << 20;
/// How late a server sees that it shall stop.
const STOP_MS: u64 = 5;

/// The payload of datagram `number` of flow `flow`. Every byte follows from these and the length:
/// whoever gets it can tell which one it is, and that it is whole. One that is shorter than its
/// head is the begin of it.
pub(crate) fn payload(flow: u32, number: u32, length: usize) -> Vec<u8> {
    let length_told = u32::try_from(length).expect("a length of a datagram");
    let mut bytes = Vec::with_capacity(length.max(HEAD_LENGTH));
    for word in [flow, number, length_told] {
        bytes.extend(word.to_be_bytes());
    }
    if length > HEAD_LENGTH {
        let rest = (length - HEAD_LENGTH) as u64;
        let seed = u64::from(flow) << 32 | u64::from(number);
        bytes.extend(stream::slice(seed, 0, rest));
    }
    bytes.truncate(length);
    bytes
}

/// Flow and number of a payload; why it is none.
pub(crate) fn identify(bytes: &[u8]) -> Result<(u32, u32), String> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(word))
    };
    let (Some(flow), Some(number), Some(length)) = (word(0), word(4), word(8)) else {
        return Err(format!("{} bytes are no payload", bytes.len()));
    };
    if usize::try_from(length) != Ok(bytes.len()) {
        let got = bytes.len();
        return Err(format!(
            "{got} bytes of {length}: flow {flow}, number {number}"
        ));
    }
    if payload(flow, number, bytes.len()) != bytes {
        return Err(format!("a wrong byte: flow {flow}, number {number}"));
    }
    Ok((flow, number))
}

/// A socket on an address, with a large receive buffer.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        // Without the right for it: as much as the system allows to everybody.
        setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    Ok(socket)
}

/// An address of 127.0.0.1 that answers by "port unreachable".
pub(crate) fn refusing() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// A client: one socket, so one flow of each balancer that it speaks to.
#[derive(Debug)]
pub(crate) struct DatagramClient {
    socket: UdpSocket,
    target: SocketAddr,
    flow: u32,
}

impl DatagramClient {
    /// One that speaks to `target` from the loopback address of its family; `flow` is what its
    /// payloads say.
    pub(crate) fn new(target: SocketAddr, flow: u32) -> Self {
        let address = match target {
            SocketAddr::V4(_) => "127.0.0.1:0",
            SocketAddr::V6(_) => "[::1]:0",
        };
        DatagramClient::from(address.parse().expect("an address"), target, flow)
    }

    /// One that speaks from this address.
    pub(crate) fn from(address: SocketAddr, target: SocketAddr, flow: u32) -> Self {
        let socket = bind(address).unwrap_or_else(|e| panic!("bind {address}: {e}"));
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("read timeout");
        DatagramClient {
            socket,
            target,
            flow,
        }
    }

    /// Its own address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Its socket, for options.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends these bytes.
    pub(crate) fn send(&self, bytes: &[u8]) {
        let sent = self.socket.send_to(bytes, self.target);
        let sent = sent.unwrap_or_else(|e| panic!("send {} bytes: {e}", bytes.len()));
        assert_eq!(sent, bytes.len());
    }

    /// Sends a payload of its flow.
    pub(crate) fn send_payload(&self, number: u32, length: usize) {
        self.send(&payload(self.flow, number, length));
    }

    /// Sends `count` payloads of `length` bytes in one go, which the kernel cuts (UDP_SEGMENT):
    /// they arrive as a train, and together where the receiver asked for that. The last one has
    /// `last` bytes.
    pub(crate) fn send_train(&self, first: u32, count: u32, length: usize, last: usize) {
        let end = first + count;
        let pieces: Vec<Vec<u8>> = (first..end)
            .map(|number| {
                let length = if number + 1 == end { last } else { length };
                payload(self.flow, number, length)
            })
            .collect();
        self.send_together(&pieces);
    }

    /// Sends datagrams in one go: all have the length of the first, the last one at most that.
    pub(crate) fn send_together(&self, datagrams: &[Vec<u8>]) {
        let pieces: Vec<_> = datagrams.iter().map(|piece| IoSlice::new(piece)).collect();
        let segment = u16::try_from(datagrams[0].len()).expect("a length of a segment");
        let target = SockaddrStorage::from(self.target);
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &pieces,
            &[ControlMessage::UdpGsoSegments(&segment)],
            MsgFlags::empty(),
            Some(&target),
        );
        let whole: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert_eq!(sent.expect("send a train"), whole);
    }

    /// The next datagram and who sent it; `None` after `bound`.
    pub(crate) fn try_receive(&self, bound: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let mut buffer = vec![0; LENGTH_MAX + 1];
        // Zero would be no bound at all.
        let bound = bound.max(Duration::from_millis(1));
        self.socket
            .set_read_timeout(Some(bound))
            .expect("read timeout");
        let begun = Stopwatch::start();
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((count, from)) => {
                    buffer.truncate(count);
                    return Some((buffer, from));
                }
                // Interrupted before its time, it waits again, for the whole of it.
                Err(error) if is_nothing(&error) && begun.elapsed() < bound => {}
                Err(error) if is_nothing(&error) => return None,
                Err(error) => panic!("receive: {error}"),
            }
        }
    }

    /// The next datagram, which must come from the target. What comes from another port is for
    /// whoever has had this one's before, in another test.
    pub(crate) fn receive(&self) -> Vec<u8> {
        loop {
            let (bytes, from) = self.try_receive(PATIENCE).unwrap_or_else(|| {
                panic!(
                    "flow {}: no datagram from {} within {PATIENCE:?}",
                    self.flow, self.target
                )
            });
            if from.port() == self.target.port() {
                assert_eq!(from, self.target, "flow {}: who answers", self.flow);
                return bytes;
            }
        }
    }

    /// The next datagram, which must be this payload of its flow, from the target.
    pub(crate) fn receive_payload(&self, number: u32, length: usize) {
        let bytes = self.receive();
        let expected = payload(self.flow, number, length);
        if bytes != expected {
            let (flow, got) = (self.flow, bytes.len());
            let what = identify(&bytes);
            panic!("flow {flow}: not number {number} of {length} bytes but {got} bytes: {what:?}");
        }
    }

    /// Sends a payload and gets it back.
    pub(crate) fn exchange(&self, number: u32, length: usize) {
        self.send_payload(number, length);
        self.receive_payload(number, length);
    }

    /// Repeats a payload until it has come back, and takes late copies of it away: for the time
    /// in which datagrams may be lost, as while a server starts again. Says how many were sent.
    pub(crate) fn insist(&self, number: u32, length: usize) -> u32 {
        let expected = payload(self.flow, number, length);
        let begun = Stopwatch::start();
        let mut sent = 0;
        let mut received = 0;
        while received == 0 {
            assert!(begun.elapsed() < PATIENCE, "no answer to {sent} datagrams");
            self.send(&expected);
            sent += 1;
            while let Some((bytes, from)) = self.try_receive(Duration::from_millis(100)) {
                assert_eq!(from, self.target, "flow {}: who answers", self.flow);
                assert_eq!(identify(&bytes), Ok((self.flow, number)));
                received += 1;
            }
        }
        sent
    }

    /// Fails if a datagram comes within this time. What must not come has to be provoked before:
    /// this only waits.
    pub(crate) fn expect_silence(&self, bound: Duration) {
        if let Some((bytes, from)) = self.try_receive(bound) {
            let what = identify(&bytes);
            let flow = self.flow;
            panic!("flow {flow}: {} bytes from {from}: {what:?}", bytes.len());
        }
    }
}

/// A datagram that a server has got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Arrival {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

type Answer = Arc<dyn Fn(&Arrival) -> Vec<Vec<u8>> + Send + Sync>;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    received: AtomicU64,
    /// Replies that the system did not take.
    unsent: AtomicU64,
    arrivals: Mutex<Vec<Arrival>>,
}

/// A UDP server: a thread that answers and remembers what came from whom.
pub(crate) struct DatagramServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    answer: Answer,
    keeps: bool,
    running: Option<(Arc<UdpSocket>, JoinHandle<()>)>,
}

impl DatagramServer {
    /// Answers each datagram with those that `answer` gives, on a port of 127.0.0.1.
    pub(crate) fn start(answer: impl Fn(&Arrival) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        DatagramServer::start_on(Ipv4Addr::LOCALHOST.into(), answer)
    }

    /// The same on another address.
    pub(crate) fn start_on(
        address: IpAddr,
        answer: impl Fn(&Arrival) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        DatagramServer::run(address, true, Arc::new(answer))
    }

    /// Sends back what it gets.
    pub(crate) fn echo() -> Self {
        DatagramServer::echo_times(1)
    }

    /// The same on another address.
    pub(crate) fn echo_on(address: IpAddr) -> Self {
        DatagramServer::start_on(address, |arrival| vec![arrival.bytes.clone()])
    }

    /// Sends back what it gets so many times.
    pub(crate) fn echo_times(times: usize) -> Self {
        DatagramServer::start(move |arrival| vec![arrival.bytes.clone(); times])
    }

    /// Sends back what it gets and remembers only how many: for many datagrams.
    pub(crate) fn counting_echo() -> Self {
        let answer: Answer = Arc::new(|arrival| vec![arrival.bytes.clone()]);
        DatagramServer::run(Ipv4Addr::LOCALHOST.into(), false, answer)
    }

    /// Never answers.
    pub(crate) fn silent() -> Self {
        DatagramServer::start(|_| Vec::new())
    }

    /// Answers with its name, whatever it gets.
    pub(crate) fn named(name: &str) -> Self {
        let name = name.as_bytes().to_vec();
        DatagramServer::start(move |_| vec![name.clone()])
    }

    fn run(address: IpAddr, keeps: bool, answer: Answer) -> Self {
        let mut server = DatagramServer {
            address: SocketAddr::new(address, free_port()),
            shared: Arc::default(),
            answer,
            keeps,
            running: None,
        };
        server.restart();
        server
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams so far, over restarts too.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(SeqCst)
    }

    /// Replies that the system did not take.
    pub(crate) fn unsent(&self) -> u64 {
        self.shared.unsent.load(SeqCst)
    }

    /// What it got so far, in order.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        let arrivals = self.shared.arrivals.lock();
        arrivals.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who sent to it so far: with a balancer before it, one address for each flow.
    pub(crate) fn sources(&self) -> BTreeSet<SocketAddr> {
        self.arrivals().iter().map(|arrival| arrival.from).collect()
    }

    /// Who sent this payload.
    pub(crate) fn source_of(&self, flow: u32, number: u32) -> SocketAddr {
        let find = || {
            let arrivals = self.arrivals();
            let found = arrivals
                .iter()
                .find(|arrival| identify(&arrival.bytes) == Ok((flow, number)));
            found.map(|arrival| arrival.from)
        };
        let found = wait_for(PATIENCE, find);
        found.unwrap_or_else(|| panic!("number {number} of flow {flow} did not arrive"))
    }

    /// Waits until it has got so many.
    pub(crate) fn wait_received(&self, count: u64) {
        let enough = wait_for(PATIENCE, || (self.received() >= count).then_some(()));
        let received = self.received();
        assert!(enough.is_some(), "{received} datagrams, not {count}");
    }

    /// Sends without having been asked, from its own address.
    pub(crate) fn speak(&self, to: SocketAddr, bytes: &[u8]) {
        let (socket, _) = self.running.as_ref().expect("a server that runs");
        let sent = socket.send_to(bytes, to);
        assert_eq!(sent.expect("send"), bytes.len());
    }

    /// Closes its socket: from then on the host answers "port unreachable".
    pub(crate) fn stop(&mut self) {
        let Some((socket, thread)) = self.running.take() else {
            return;
        };
        self.shared.stop.store(true, SeqCst);
        let ended = thread.join();
        drop(socket);
        if !std::thread::panicking() {
            ended.expect("thread of a server");
            // A process that another test is just starting has a copy between fork and exec.
            let port = self.address.port();
            let gone = wait_for(PATIENCE, || (datagram_sockets_on(port) == 0).then_some(()));
            assert!(gone.is_some(), "port {port} stays open");
        }
    }

    /// Opens its socket again on the same port.
    pub(crate) fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs");
        self.shared.stop.store(false, SeqCst);
        let socket = bind(self.address).unwrap_or_else(|e| panic!("bind {}: {e}", self.address));
        socket
            .set_read_timeout(Some(Duration::from_millis(STOP_MS)))
            .expect("read timeout");
        let socket = Arc::new(socket);
        let (own, shared) = (Arc::clone(&socket), Arc::clone(&self.shared));
        let (answer, keeps) = (Arc::clone(&self.answer), self.keeps);
        let thread = std::thread::spawn(move || serve(&own, &shared, &answer, keeps));
        self.running = Some((socket, thread));
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a receive has only ended without a datagram: by its timeout, or because the process was
/// interrupted, which happens while another test starts a program.
fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

fn serve(socket: &UdpSocket, shared: &Shared, answer: &Answer, keeps: bool) {
    let mut buffer = vec![0; LENGTH_MAX + 21];
    while !shared.stop.load(SeqCst) {
        let (count, from) = match socket.recv_from(&mut buffer) {
            Ok(arrived) => arrived,
            Err(error) if is_nothing(&error) => continue,
            Err(error) => panic!("a server receives: {error}"),
        };
        let bytes = buffer[..count].to_vec();
        let arrival = Arrival { from, bytes };
        let replies = answer(&arrival);
        if keeps {
            let mut arrivals = shared.arrivals.lock();
            let arrivals = arrivals.as_mut().expect("nothing fails under this lock");
            arrivals.push(arrival);
        }
        // After it is there: who waits for the number reads the list next. And before who asked
        // has the answer, and counts.
        shared.received.fetch_add(1, SeqCst);
        for reply in replies {
            if socket.send_to(&reply, from).is_err() {
                shared.unsent.fetch_add(1, SeqCst);
            }
        }
    }
}

#[test]
fn payloads_say_what_they_are() {
    for length in [HEAD_LENGTH, 13, 64, 1_200, LENGTH_MAX] {
        let mut bytes = payload(7, 9, length);
        assert_eq!(bytes.len(), length);
        assert_eq!(identify(&bytes), Ok((7, 9)));
        assert!(identify(&bytes[..length - 1]).is_err(), "cut at {length}");
        bytes[length - 1] ^= 1;
        assert!(identify(&bytes).is_err(), "a wrong byte of {length}");
    }
    for length in 0..HEAD_LENGTH {
        assert_eq!(payload(7, 9, length), payload(7, 9, 64)[..length]);
    }
}

#[test]
fn a_client_and_an_echo_without_a_balancer() {
    let _turn = super::turn::shared();
    let addresses = ["127.0.0.1", "::1"].map(|text| text.parse().expect("an address"));
    for address in addresses {
        let mut server = DatagramServer::echo_on(address);
        let client = DatagramClient::new(server.address(), 3);
        for (number, length) in [(0, 0), (1, 1), (2, 64), (3, LENGTH_MAX)] {
            client.exchange(number, length);
        }
        client.send_train(4, 10, 1_200, 100);
        for number in 4..14 {
            client.receive_payload(number, if number == 13 { 100 } else { 1_200 });
        }
        server.wait_received(14);
        assert_eq!(server.sources(), [client.address()].into());
        assert_eq!(server.source_of(3, 13), client.address());
        server.speak(client.address(), b"unasked");
        assert_eq!(client.receive(), b"unasked");
        server.stop();
        client.send_payload(14, 64);
        client.expect_silence(Duration::from_millis(20));
        server.restart();
        assert_eq!(client.insist(15, 64), 1);
        assert_eq!(server.received(), 15);
        assert_eq!(server.unsent(), 0);
    }
}

#[test]
fn servers_answer_as_they_are_told() {
    let _turn = super::turn::shared();
    let client = |server: &DatagramServer| {
        let own = "127.0.0.2:0".parse().expect("an address");
        DatagramClient::from(own, server.address(), 1)
    };
    let twice = DatagramServer::echo_times(2);
    let to_twice = client(&twice);
    to_twice.socket().set_ttl(1).expect("IP_TTL");
    to_twice.exchange(1, 20);
    to_twice.receive_payload(1, 20);
    let counting = DatagramServer::counting_echo();
    client(&counting).exchange(1, 20);
    counting.wait_received(1);
    assert_eq!(counting.arrivals(), []);
    let named = DatagramServer::named("one");
    let to_named = client(&named);
    to_named.send(b"who?");
    assert_eq!(to_named.receive(), b"one");
    let echo = DatagramServer::echo();
    client(&echo).exchange(1, 20);
    let silent = DatagramServer::silent();
    let to_silent = client(&silent);
    to_silent.send_payload(1, 20);
    silent.wait_received(1);
    to_silent.expect_silence(Duration::from_millis(10));
    let nobody = DatagramClient::new(refusing(), 1);
    nobody.send_payload(1, 20);
    nobody.expect_silence(Duration::from_millis(10));
}
