//! Everything slow: probes, logs, the runtime socket, rates. Its threads never hold a shard up.
//!
//! Three threads: `control` (runtime socket, changes, reloads, rates; the only writer of shared
//! state that is not a counter), `probe` (checks and nothing else, so that nothing else can make a
//! server look dead) and `log` (formats and ships; targets are non-blocking). The first two run
//! tokio on a tokio-uring runtime. They know of `shard` only what it exports.

mod admin;
mod agent;
mod apply;
mod batch;
mod clear;
mod first_checks;
mod followers;
#[cfg(test)]
mod health_simulation;
mod lines;
pub mod listeners;
pub mod log;
pub mod messages;
mod operator;
pub mod pages;
mod passive;
mod pressure;
pub mod probe;
mod ramp;
pub mod reload;
pub mod resolve;
pub mod runtime_api;
mod saved;
pub mod stats;
mod steps;

use arc_swap::ArcSwap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::base::ids::ServerId;
use crate::base::time::Moment;
use crate::health::Verdicts;
use crate::limits;
use crate::ring::Caps;
use crate::shard::World;
use crate::sys::clock;
use admin::Standing;
use agent::Agents;
use batch::Batch;
use first_checks::FirstChecks;
use followers::Followers;
use listeners::Registry;
use log::Messages;
use messages::StartupLog;
use passive::{Passive, Told};
use pressure::Pressure;
use reload::{Origin, Reloader};
use runtime_api::ApiSockets;
use stats::Rates;

/// Time from one reading of the counters to the next.
const SECOND_MS: u64 = 1_000;

/// What was found out at start and never changes.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When the process started.
    pub started: Moment,
    /// The same in Unix seconds.
    pub started_unix_s: u64,
    /// Limit of open descriptors.
    pub descriptors_max: u64,
    /// Descriptors in use when all sessions and pipes are.
    pub descriptors_needed: u64,
    /// The bound of the process's memory, bytes.
    pub memory_limit: u64,
    /// What the shards use of the kernel.
    pub caps: Caps,
}

/// How the start went, once it is known.
#[derive(Debug, Default)]
pub struct Startup {
    log: OnceLock<Arc<StartupLog>>,
    took_ms: OnceLock<u64>,
}

impl Startup {
    /// Notes what was said, and how long it took.
    pub fn note(&self, log: Arc<StartupLog>, took_ms: u64) {
        let _ = self.log.set(log);
        let _ = self.took_ms.set(took_ms);
    }

    /// What was said, a line each.
    pub fn text(&self) -> String {
        self.log.get().map_or_else(String::new, |log| log.text())
    }

    /// How many warnings there were.
    pub fn warnings(&self) -> usize {
        self.log.get().map_or(0, |log| log.warnings())
    }

    /// How long it took, from the first thread to the last.
    pub fn took_ms(&self) -> u64 {
        self.took_ms.get().copied().unwrap_or(0)
    }
}

/// What the control threads share.
#[derive(Debug)]
pub struct Shared {
    /// What they share with the shards, as it is now.
    world: ArcSwap<World>,
    /// Messages on their way to the log thread.
    pub messages: Messages,
    /// Facts of the start.
    pub facts: Facts,
    /// Sessions per second.
    pub rates: Rates,
    /// How the start went.
    pub startup: Startup,
    /// Wakes who takes returning servers through their slow start.
    returns: tokio::sync::Notify,
    /// Who says what of each server, by `ServerId`.
    verdicts: Mutex<Vec<Verdicts>>,
    /// What operators and tracked servers say of each server, by `ServerId`.
    standings: Mutex<Vec<Standing>>,
    /// Who tracks each server, by `ServerId`.
    followers: ArcSwap<Followers>,
    /// Servers that return in steps.
    ways: steps::Ways,
    /// What agents say.
    agents: Agents,
    /// Changes that are to be published together.
    batch: Batch,
    /// The first round of checks, which clients wait for.
    pub first_checks: FirstChecks,
    /// Where reloads are asked for.
    pub reload: reload::Gate,
    /// The listening sockets, once the runtime sockets are served.
    registry: OnceLock<Arc<Mutex<Registry>>>,
    /// Whether the process is draining or ending.
    stopping: watch::Sender<bool>,
}

impl Shared {
    /// The shared part of a world.
    pub fn new(world: World, facts: Facts) -> Shared {
        let world = Arc::new(world);
        let (verdicts, standings, followers) = followers::at_start(&world);

        Shared {
            messages: Messages::new(Arc::clone(&world.log_queue)),
            rates: Rates::default(),
            startup: Startup::default(),
            returns: tokio::sync::Notify::new(),
            verdicts: Mutex::new(verdicts),
            standings: Mutex::new(standings),
            followers: ArcSwap::from_pointee(followers),
            ways: steps::Ways::default(),
            agents: Agents::default(),
            batch: Batch::default(),
            first_checks: FirstChecks::new(probe::first_attempts(&world)),
            world: ArcSwap::new(world),
            facts,
            reload: reload::Gate::new(),
            registry: OnceLock::new(),
            stopping: watch::Sender::new(false),
        }
    }

    /// What the threads share, as it is now: a reload makes another one.
    pub fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// Looks at, or changes, what is said of a server. Only the control thread changes it.
    fn verdicts_of<T>(&self, server: ServerId, f: impl FnOnce(&mut Verdicts) -> T) -> T {
        f(&mut self.verdicts_locked()[server.0 as usize])
    }

    /// Who tracks whom.
    fn followers(&self) -> Arc<Followers> {
        self.followers.load_full()
    }

    /// The same for what operators and tracked servers say.
    fn standing_of<T>(&self, server: ServerId, f: impl FnOnce(&mut Standing) -> T) -> T {
        f(&mut self.standings_locked()[server.0 as usize])
    }

    fn verdicts_locked(&self) -> MutexGuard<'_, Vec<Verdicts>> {
        let poisoned = PoisonError::into_inner;
        self.verdicts.lock().unwrap_or_else(poisoned)
    }

    fn standings_locked(&self) -> MutexGuard<'_, Vec<Standing>> {
        let poisoned = PoisonError::into_inner;
        self.standings.lock().unwrap_or_else(poisoned)
    }

    /// Whether another server takes its state from this one.
    fn is_followed(&self, server: ServerId) -> bool {
        let followers = self.followers();
        let followers = followers.get(server.0 as usize);
        followers.is_some_and(|followers| !followers.is_empty())
    }

    /// Whether the process is draining or ending.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Tells who serves pages that a frontend is open, paused or shut now.
    fn frontends_changed(&self) {
        self.stopping.send_modify(|_| {});
    }

    /// Tells when that begins, and when a frontend changes.
    fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Notes that the process is draining or ending.
    pub fn set_stopping(&self) {
        self.stopping.send_replace(true);
    }
}

/// What the control thread serves and changes once the process runs.
#[derive(Debug)]
struct Api {
    sockets: Arc<Mutex<ApiSockets>>,
    /// The listening sockets, which a successor may ask for.
    registry: Arc<Mutex<Registry>>,
    origin: Origin,
}

/// The control thread, before its runtime sockets are served.
#[derive(Debug)]
pub struct Control {
    api: tokio::sync::oneshot::Sender<Api>,
}

impl Control {
    /// Serves the runtime sockets and the pages from now on, and follows reloads. `registry` holds
    /// the listening sockets that a successor may ask for.
    pub fn serve(
        self,
        sockets: &Arc<Mutex<ApiSockets>>,
        registry: &Arc<Mutex<Registry>>,
        origin: Origin,
    ) {
        // The control thread waits for it as long as the process runs.
        let _ = self.api.send(Api {
            sockets: Arc::clone(sockets),
            registry: Arc::clone(registry),
            origin,
        });
    }
}

/// Gives servers the state that files say they had, starts the control and the probe thread and
/// returns when both have their runtimes: the first checks are under way.
pub fn start(shared: &Arc<Shared>) -> io::Result<Control> {
    saved::begin(shared, |_| true);
    let (changes, findings) = tokio::sync::mpsc::channel(limits::CHANGES_MAX);
    let (api, api_comes) = tokio::sync::oneshot::channel();
    let world = shared.world();
    let (passive, from_traffic) = passive::connect(&world);
    let (probes, renewals) = tokio::sync::mpsc::channel(1);
    start_runtime("probe", move || {
        probe::run(world, changes, from_traffic, renewals)
    })?;
    let shared = Arc::clone(shared);
    start_runtime("control", move || {
        run(shared, api_comes, findings, passive, probes)
    })?;
    Ok(Control { api })
}

/// The control thread's work.
async fn run(
    shared: Arc<Shared>,
    mut api_comes: tokio::sync::oneshot::Receiver<Api>,
    mut findings: tokio::sync::mpsc::Receiver<probe::Finding>,
    mut passive: Passive,
    probes: tokio::sync::mpsc::Sender<probe::Renewal>,
) {
    tokio_uring::spawn(ramp::run(Arc::clone(&shared)));
    tokio_uring::spawn(steps::run(Arc::clone(&shared)));
    let mut second = tokio::time::interval(Duration::from_millis(SECOND_MS));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let told = Told::new(&shared.world());
    let (mut probing, mut serving) = (true, false);
    let (mut found, mut of_traffic) = (Vec::new(), Vec::new());
    let mut pressure = Pressure::default();
    let mut reloader = Reloader::new(&shared, probes);
    loop {
        tokio::select! {
            count = findings.recv_many(&mut found, limits::CHANGES_MAX), if probing => {
                probing = count > 0;
                apply::findings(&shared, &mut found);
            }
            api = &mut api_comes, if !serving => {
                serving = true;
                if let Ok(api) = api {
                    let _ = shared.registry.set(Arc::clone(&api.registry));
                    reloader.serve(&shared, api);
                }
            }
            () = told.wait() => {
                passive.hear(&shared);
                reloader.look(&shared, &mut passive);
            }
            event = reloader.next() => {
                reloader.on(&shared, event);
                // All of them may have been quicker.
                reloader.look(&shared, &mut passive);
            }
            () = passive.found(&mut of_traffic) => passive.probed(&shared, &mut of_traffic),
            _ = second.tick() => {
                passive.hear(&shared);
                reloader.look(&shared, &mut passive);
                reloader.sweep(&shared);
                shared.rates.tick(&shared.world(), clock::now());
                shared.world().destinations.iter().for_each(|to| to.tick(SECOND_MS));
                pressure.tick(&shared, clock::now());
                // The wall clock may have been set since.
                shared.world().unix_ms_at_zero.store(clock::unix_ms_at_zero(), Relaxed);
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
