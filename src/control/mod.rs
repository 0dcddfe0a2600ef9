//! Everything slow: probes, logs, the runtime socket, rates. Its threads never hold a shard up.
//!
//! Three threads: `control` (runtime socket, changes, rates; the only writer of shared state that
//! is not a counter), `probe` (checks and nothing else, so that nothing else can make a server look
//! dead) and `log` (formats and ships; targets are non-blocking). The first two run tokio on a
//! tokio-uring runtime. They know of `shard` only what it exports.

mod apply;
mod lines;
pub mod listeners;
pub mod log;
pub mod messages;
pub mod probe;
mod ramp;
pub mod resolve;
pub mod runtime_api;
pub mod stats;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::ids::ServerId;
use crate::base::time::Moment;
use crate::health::Verdicts;
use crate::limits;
use crate::shard::World;
use crate::sys::clock;
use listeners::Registry;
use log::Messages;
use runtime_api::BoundSocket;
use stats::Rates;

/// What was found out at start and never changes.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When the process started.
    pub started: Moment,
    /// The same in Unix seconds.
    pub started_unix_s: u64,
    /// Limit of open descriptors.
    pub descriptors_max: u64,
    /// Descriptors in use when all sessions are.
    pub descriptors_needed: u64,
}

/// What the control threads share.
#[derive(Debug)]
pub struct Shared {
    /// What they share with the shards.
    pub world: Arc<World>,
    /// Messages on their way to the log thread.
    pub messages: Messages,
    /// Facts of the start.
    pub facts: Facts,
    /// Sessions per second.
    pub rates: Rates,
    /// Wakes who takes returning servers through their slow start.
    returns: tokio::sync::Notify,
    /// Who says what of each server, by `ServerId`.
    verdicts: Mutex<Vec<Verdicts>>,
    stopping: AtomicBool,
}

impl Shared {
    /// The shared part of a world.
    pub fn new(world: World, facts: Facts) -> Shared {
        let world = Arc::new(world);
        Shared {
            messages: Messages::new(Arc::clone(&world.log_queue)),
            rates: Rates::default(),
            returns: tokio::sync::Notify::new(),
            verdicts: Mutex::new(vec![Verdicts::default(); world.plan.servers_count as usize]),
            world,
            facts,
            stopping: AtomicBool::new(false),
        }
    }

    /// Looks at, or changes, what is said of a server. Only the control thread changes it.
    fn verdicts_of<T>(&self, server: ServerId, f: impl FnOnce(&mut Verdicts) -> T) -> T {
        let mut verdicts = self
            .verdicts
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        f(&mut verdicts[server.0 as usize])
    }

    /// Whether the process is draining or ending.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Notes that the process is draining or ending.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Relaxed);
    }
}

/// Starts the control and the probe thread and returns when both have their runtimes.
/// `registry` holds the listening sockets that a successor may ask for.
pub fn start(
    shared: &Arc<Shared>,
    api: Vec<BoundSocket>,
    registry: &Arc<Mutex<Registry>>,
) -> io::Result<()> {
    let (changes, results) = tokio::sync::mpsc::channel(limits::CHANGES_MAX);
    let world = Arc::clone(&shared.world);
    start_runtime("probe", move || probe::run(world, changes))?;
    let (shared, registry) = (Arc::clone(shared), Arc::clone(registry));
    start_runtime("control", move || run(shared, api, registry, results))
}

/// The control thread's work.
async fn run(
    shared: Arc<Shared>,
    api: Vec<BoundSocket>,
    registry: Arc<Mutex<Registry>>,
    mut results: tokio::sync::mpsc::Receiver<probe::ProbeResult>,
) {
    runtime_api::serve(&shared, api, &registry);
    tokio_uring::spawn(ramp::run(Arc::clone(&shared)));
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut probing = true;
    loop {
        tokio::select! {
            result = results.recv(), if probing => match result {
                Some(result) => apply::probe_result(&shared, &result),
                None => probing = false,
            },
            _ = second.tick() => {
                shared.rates.tick(&shared.world, clock::now());
                // The wall clock may have been set since.
                shared.world.unix_ms_at_zero.store(clock::unix_ms_at_zero(), Relaxed);
            }
        }
    }
}

/// Starts a thread with a tokio-uring runtime of its own that runs what `main` makes. An error of
/// the runtime is returned here, not on the thread.
fn start_runtime<F, M>(name: &str, main: M) -> io::Result<()>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = ()>,
{
    let (sender, receiver) = crossbeam::channel::bounded(1);
    let body = move || {
        let mut builder = tokio_uring::builder();
        // Few operations go through this ring; the default of 256 entries would be locked for
        // nothing.
        builder.entries(16);
        match tokio_uring::Runtime::new(&builder) {
            Ok(runtime) => {
                let _ = sender.send(Ok(()));
                runtime.block_on(main());
            }
            Err(error) => {
                let _ = sender.send(Err(error));
            }
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)?;
    receiver
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended at once")))
}
