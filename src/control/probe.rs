//! The probe thread: TCP-connect checks and nothing else.
//!
//! One task per checked server. Sockets are tokio's, not tokio-uring's: a future of the latter goes
//! on in the kernel after it was dropped, so its timeout would keep the descriptor. A probe's
//! connection is closed by a reset, which leaves no TIME_WAIT on either side.
//!
//! What is not the server's fault never counts: a timeout that is seen late, because this thread
//! was not running, and a lack of local resources lead to another probe instead of a failure.

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;

use super::listeners::error_text;
use crate::base::address::Address;
use crate::base::hash;
use crate::base::ids::ProxyId;
use crate::base::ports::Ports;
use crate::base::time::Moment;
use crate::config::plan::Check;
use crate::health::Outcome::{Failed, Passed};
use crate::health::{Rules, Transition, first_after, interval_ms, spread_ms};
use crate::lb::{Admin, Health, Server};
use crate::limits;
use crate::shard::World;
use crate::sys::clock;
use crate::sys::stream::{self, StreamOptions};

/// What a probe found, and what follows from it.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The backend.
    pub proxy: ProxyId,
    /// The server's place in it.
    pub server_index: usize,
    /// `L4OK`, `L4TOUT`, `L4CON` or `SOCKERR`.
    pub status: &'static str,
    /// How long it took.
    pub duration_ms: u64,
    /// The error's text, empty after a success or a timeout.
    pub description: String,
    /// Whether the failure counted (`chkfail`).
    pub counted_failure: bool,
    /// Position of the rise/fall machine.
    pub health: u16,
    /// The server's new health, if it changed.
    pub transition: Option<Health>,
}

impl ProbeResult {
    /// Whether the server answered.
    pub fn passed(&self) -> bool {
        self.status == "L4OK"
    }

    /// The status in words.
    pub fn reason(&self) -> &'static str {
        status_text(self.status)
    }
}

/// A check status in HAProxy's words.
pub fn status_text(status: &str) -> &'static str {
    match status {
        "L4OK" => "Layer4 check passed",
        "L4TOUT" => "Layer4 timeout",
        "L4CON" => "Layer4 connection problem",
        "SOCKERR" => "Socket error",
        "INI" => "Initializing",
        _ => "Unknown",
    }
}

/// How a connect ended.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Connected,
    Failed(String),
    TimedOut,
    /// Says nothing about the server: the timeout was seen too late.
    Late,
    /// Says nothing about the server: this side lacks something.
    LocalError(String),
}

/// Probes every checked server until the process ends.
pub async fn run(world: Arc<World>, results: Sender<ProbeResult>) {
    let mut targets = Vec::new();
    for backend in world.backends.iter().flatten() {
        for (index, server) in backend.servers.iter().enumerate() {
            if let Some(check) = &server.plan.check {
                targets.push((
                    backend.proxy.proxy_id,
                    index,
                    Arc::clone(server),
                    check.clone(),
                ));
            }
        }
    }
    let smallest_ms = targets
        .iter()
        .map(|(_, _, _, check)| interval_ms(Rules::of(check), check))
        .min()
        .unwrap_or(0);
    let count = u64::try_from(targets.len()).unwrap_or(u64::MAX);
    let global = &world.plan.global;
    let started = clock::now();
    // Not the same for two balancers that probe the same servers.
    let seed = hash::mix(clock::unix_ms() ^ u64::from(std::process::id()) << 48);
    for (position, (proxy, server_index, server, check)) in (0u64..).zip(targets) {
        let after = first_after(position, count, smallest_ms, global.max_spread_checks_ms);
        let rhythm = Rhythm {
            check: check.clone(),
            due: started + after,
            spread_percent: global.spread_checks_percent,
            seed: hash::sequence(seed, position),
            turns: 0,
        };
        let results = results.clone();
        tokio_uring::spawn(async move {
            probe_server(proxy, server_index, server, rhythm, results).await;
        });
    }
    drop(results);
    std::future::pending::<()>().await;
}

async fn probe_server(
    proxy: ProxyId,
    server_index: usize,
    server: Arc<Server>,
    mut rhythm: Rhythm,
    results: Sender<ProbeResult>,
) {
    let mut rules = Rules::of(&rhythm.check);
    loop {
        tokio::time::sleep(rhythm.due - clock::now()).await;
        if server.admin() == Admin::Maintenance {
            rhythm.next(rules);
            continue;
        }
        let began = clock::now();
        let outcome = probe(&rhythm.check, server.source_ports()).await;
        let duration_ms = clock::now().ms_since(began);
        if outcome == Outcome::Late {
            // At once, but through the scheduler: whoever else is late gets its turn first.
            tokio::task::yield_now().await;
            rhythm.due = clock::now();
            continue;
        }
        let passed = outcome == Outcome::Connected;
        let counts = !matches!(outcome, Outcome::LocalError(_));
        let failure_counts = rules.counts_failure();
        let transition = match &outcome {
            Outcome::LocalError(_) => None,
            _ => rules.observe(if passed { Passed } else { Failed }),
        };
        let transition = transition.map(|transition| match transition {
            Transition::Up => Health::Up,
            Transition::Down => Health::Down,
        });
        let (status, description) = match outcome {
            Outcome::Connected => ("L4OK", String::new()),
            Outcome::Failed(text) => ("L4CON", text),
            Outcome::LocalError(text) => ("SOCKERR", text),
            Outcome::TimedOut | Outcome::Late => ("L4TOUT", String::new()),
        };
        let result = ProbeResult {
            proxy,
            server_index,
            status,
            duration_ms,
            description,
            counted_failure: counts && !passed && failure_counts,
            health: rules.health(),
            transition,
        };
        if results.send(result).await.is_err() {
            return;
        }
        rhythm.next(rules);
    }
}

/// When a server is probed.
struct Rhythm {
    check: Check,
    /// Start of the next probe.
    due: Moment,
    spread_percent: u8,
    seed: u64,
    turns: u64,
}

impl Rhythm {
    /// Goes on to the next probe of a server in this state.
    fn next(&mut self, rules: Rules) {
        let random = hash::sequence(self.seed, self.turns);
        self.turns += 1;
        let interval_ms = interval_ms(rules, &self.check);
        let interval_ms = spread_ms(interval_ms, self.spread_percent, random);
        self.due = next_due(self.due, interval_ms);
    }
}

/// The start after the one at `due`: an interval later, or the next one of that rhythm if this
/// thread is late, so that missed probes are not made up for in a burst.
fn next_due(due: Moment, inter_ms: u32) -> Moment {
    let inter_ms = u64::from(inter_ms.max(1));
    let missed = clock::now().ms_since(due) / inter_ms;
    due.after_ms((missed + 1) * inter_ms)
}

/// One connect. tokio polls the connect once more before it lets the timeout win, so a connection
/// that was made while this thread was not running is seen as made.
async fn probe(check: &Check, ports: Option<&Ports>) -> Outcome {
    let timeout_ms = check.timeout_ms;
    let timeout = Duration::from_millis(u64::from(timeout_ms.max(1)));
    let began = clock::now();
    let connected = tokio::time::timeout(timeout, connect(check, ports)).await;
    match connected {
        Ok(Ok(())) => Outcome::Connected,
        Ok(Err(error)) if is_local(&error) => Outcome::LocalError(error_text(&error)),
        Ok(Err(error)) => Outcome::Failed(error_text(&error)),
        Err(_) => {
            let took_ms = clock::now().ms_since(began);
            if is_late(took_ms, timeout_ms) {
                Outcome::Late
            } else {
                Outcome::TimedOut
            }
        }
    }
}

/// Whether a timeout was seen so late that it tells of this thread, not of the server.
fn is_late(took_ms: u64, timeout_ms: u32) -> bool {
    let late_ms = took_ms.saturating_sub(u64::from(timeout_ms.max(1)));
    late_ms > limits::PROBE_LATE_MS.min(u64::from(timeout_ms / 2).max(2))
}

/// A port of the server's range, given back with the connection.
struct Taken<'a>(&'a Ports, u16);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.give(self.1);
    }
}

async fn connect(check: &Check, ports: Option<&Ports>) -> io::Result<()> {
    let connect = |source| {
        let options = StreamOptions {
            source,
            ..StreamOptions::default()
        };
        stream::connect_socket(&check.address, &options)
    };
    // Declared before the socket, so that it is given back after that is closed.
    let _taken;
    let result = match (ports, check.source) {
        (Some(ports), Some(source)) => {
            let found = ports.find(|port| {
                let result = connect(Some(source.at(port)));
                let taken = result
                    .as_ref()
                    .is_err_and(|errno| stream::is_port_taken(*errno));
                (!taken).then_some(result)
            });
            let (port, result) = found
                .ok_or(nix::libc::EADDRINUSE)
                .map_err(io::Error::from_raw_os_error)?;
            _taken = Taken(ports, port);
            result
        }
        (_, source) => connect(source),
    };
    let (socket, connected) = result.map_err(io::Error::from_raw_os_error)?;
    if !matches!(check.address, Address::Ip(_)) {
        // A Unix connect is decided at once.
        return Ok(());
    }
    // Close by a reset. Failing to set it costs a TIME_WAIT, not the probe.
    let _ = socket.set_linger(Some(Duration::ZERO));
    let stream = TcpStream::from_std(socket.into())?;
    if !connected {
        stream.writable().await?;
    }
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Errors of this side: no descriptor, no memory, no port left.
fn is_local(error: &io::Error) -> bool {
    use nix::libc::{EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
    let local = [
        EMFILE,
        ENFILE,
        ENOBUFS,
        ENOMEM,
        EADDRNOTAVAIL,
        EADDRINUSE,
        EAGAIN,
    ];
    error
        .raw_os_error()
        .is_some_and(|number| local.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: Address, timeout_ms: u32) -> Check {
        Check {
            address,
            inter_ms: 1000,
            fast_inter_ms: 1000,
            down_inter_ms: 1000,
            fall: 3,
            rise: 2,
            timeout_ms,
            source: None,
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn a_listener_passes_and_a_closed_port_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Ip(listener.local_addr().unwrap());
        assert_eq!(
            block_on(probe(&check(address.clone(), 1000), None)),
            Outcome::Connected
        );
        let (stream, _) = listener.accept().unwrap();
        let error = io::Read::read(&mut &stream, &mut [0]).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionReset,
            "closed by a reset"
        );
        drop(listener);
        let refused = block_on(probe(&check(address.clone(), 1000), None));
        assert_eq!(refused, Outcome::Failed("Connection refused".to_owned()));
    }

    #[test]
    fn a_thread_that_did_not_run_is_not_a_failure() {
        assert!(!is_late(1000, 1000));
        assert!(!is_late(1020, 1000));
        assert!(is_late(1026, 1000));
        assert!(is_late(14, 4));
        // A connection made while the thread was held up counts as made.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Ip(listener.local_addr().unwrap());
        let check = check(address, 20);
        let outcome = block_on(async {
            let hold = async {
                let until = clock::now().after_ms(80);
                while clock::now() < until {}
            };
            let (outcome, ()) = tokio::join!(probe(&check, None), hold);
            outcome
        });
        assert_eq!(outcome, Outcome::Connected);
    }

    #[test]
    fn an_interval_is_kept_and_missed_probes_are_not_made_up_for() {
        let now = clock::now();
        assert_eq!(next_due(now, 2000), now.after_ms(2000));
        let long_ago = Moment(now.0 - 5_500_000_000);
        assert_eq!(next_due(long_ago, 1000), long_ago.after_ms(6000));
    }
}
