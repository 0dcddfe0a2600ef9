//! The life of the process: budget, bind, threads, READY, drain and stop.
//!
//! Order matters: descriptors are counted before anything is opened, the fork comes before any
//! thread, privileges go when everything is bound and before threads and rings that would keep
//! them, signals are blocked before threads that would inherit them unblocked, clients wait for the
//! first checks, and READY is said only when every address listens. The main thread then waits for
//! signals and for shards that end.

pub mod budget;
mod descriptors;
mod memory;
mod pidfile;
pub mod pinning;
mod pipes;
mod privileges;
mod take_over;
mod threads;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use nix::sys::signal::Signal;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::ids::ShardId;
use crate::base::time::Moment;
use crate::config::plan::{Plan, ProxyKind};
use crate::control::listeners::Registry;
use crate::control::log::LogThread;
use crate::control::messages::{Console, Severity};
use crate::control::reload::{Loader, Origin, Room};
use crate::control::runtime_api::ApiSockets;
use crate::control::{self, Facts, Shared};
use crate::limits;
use crate::ring::{self, Caps, Wanted};
use crate::shard::{Bounds, ControlPort, FrontCounter, LogQueue, Message, ShardPort, World};
use crate::sys::cgroup::CgroupLimits;
use crate::sys::process::{Daemon, ReadyReport};
use crate::sys::{cgroup, clock, process as system};
use budget::Budget;
use memory::{Asked, Shares};
use pidfile::PidFile;
use pipes::KernelLimits;
pub use take_over::TakeOver;
use threads::{spin, start_shard, start_signals, wait_for_first_checks, wait_for_shards};

/// How the command line wants the process to run; it wins over the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Go to the background once ready.
    pub daemon: bool,
    /// Where to write the process id.
    pub pidfile: Option<PathBuf>,
    /// Connections of the process.
    pub maxconn: Option<u32>,
    /// Bytes of memory of the process.
    pub memory_limit: Option<u64>,
    /// End as HAProxy's master process does.
    pub worker: bool,
    /// A running process whose place this one takes.
    pub take_over: Option<TakeOver>,
    /// Once it runs, no messages go to standard error: its owner draws on that terminal.
    pub silent: bool,
    /// Reads the configuration again.
    pub loader: Option<Loader>,
}

/// What the main thread waits for.
#[derive(Debug)]
enum Event {
    Signal(Signal),
    ShardEnded(ShardId, io::Result<()>),
}

/// The running process, for an owner inside the program.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What its threads share.
    pub shared: Arc<Shared>,
    events: Sender<Event>,
}

impl Handle {
    /// Ends the process's threads at once, as SIGTERM does.
    pub fn stop(&self) {
        let _ = self.events.send(Event::Signal(Signal::SIGTERM));
    }
}

/// Runs a plan until the process is told to end; returns its exit code.
pub fn run(plan: Plan, settings: Settings, console: &Console) -> u8 {
    run_owned(plan, settings, console, |_| ())
}

/// The same for an owner: `started` is called once everything runs, and must not block.
pub fn run_owned(
    plan: Plan,
    settings: Settings,
    console: &Console,
    started: impl FnOnce(Handle),
) -> u8 {
    let report = if settings.daemon {
        match system::daemonize() {
            Ok(Daemon::Parent(code)) => return code,
            Ok(Daemon::Child(report)) => Some(report),
            Err(error) => {
                console.alert(&format!("Cannot go to the background: {error}"));
                return 1;
            }
        }
    } else {
        None
    };
    match Running::start(plan, settings, console, report) {
        Ok(running) => {
            started(running.handle());
            running.supervise()
        }
        Err(text) => {
            for line in text.lines() {
                console.alert(line);
            }
            1
        }
    }
}

/// The process while its threads run.
struct Running {
    shared: Arc<Shared>,
    registry: SharedRegistry,
    api: Arc<Mutex<ApiSockets>>,
    log: LogThread,
    events: Receiver<Event>,
    /// The other end, for a handle.
    sender: Sender<Event>,
    pidfile: Option<PidFile>,
    shards_left: usize,
    phase: Phase,
    /// End as HAProxy's master process does.
    worker: bool,
    exit_code: u8,
}

/// The listening sockets, which the control thread may be asked for.
type SharedRegistry = Arc<Mutex<Registry>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    /// Until the shards are done, or the moment given.
    Draining(Moment),
    /// Until the shards have ended, or the moment given.
    Stopping(Moment),
}

/// How long shards may take to end when told to stop at once.
const STOP_MS: u64 = 2_000;

impl Running {
    fn start(
        mut plan: Plan,
        settings: Settings,
        console: &Console,
        report: Option<ReadyReport>,
    ) -> Result<Running, String> {
        let text = |what: &'static str| move |error: io::Error| format!("Cannot {what}: {error}");
        let began = clock::now();
        let cpus = system::allowed_cpus();
        let cgroup = cgroup::limits();
        let shards = budget::shards(&plan.global, cpus.len(), cgroup);
        let pinning = pinning::pinning(&plan.global.cpu_maps, shards, &cpus);
        let alone = pinning.alone(&cpus);
        for warning in &pinning.warnings {
            console.warning(warning);
        }
        if plan.global.busy_polling && alone.contains(&false) {
            console.warning("busy-polling : there are threads that share a CPU and never sleep.");
        }
        let asked = plan.global.clone();
        let maxconn = settings.maxconn.or(plan.global.maxconn);
        plan.global.memory_limit = settings.memory_limit.or(plan.global.memory_limit);
        let (budget, memory) = bounds(&mut plan, shards, maxconn, cgroup, console)?;
        let descriptors_max = budget.descriptors_max;
        let origin = Origin {
            loader: settings.loader,
            asked,
            has_datagrams: plan.has_datagrams(),
            maxconn_is_fixed: settings.maxconn.is_some(),
            room: Room::new(move |plan, maxconn, pipes| {
                budget::fits(plan, shards, maxconn, pipes, descriptors_max).map(drop)
            }),
        };
        system::return_freed_memory();

        let signals = system::block_signals().map_err(text("block signals"))?;
        // Before anything listens: clients of a process that can't run would wait for nothing.
        let caps = Caps::probe(&wanted(&plan)).map_err(|error| error.to_string())?;
        let adopted = match &settings.take_over {
            Some(from) => from.sockets(settings.worker, console)?,
            None => Vec::new(),
        };
        let replacing = settings.take_over.is_some();
        let registry = Registry::bind(&plan, shards, adopted, replacing)
            .map_err(|errors| errors.join("\n"))?;
        for warning in registry.warnings() {
            console.warning(warning);
        }
        let api = ApiSockets::bind(&plan, replacing).map_err(|errors| errors.join("\n"))?;
        let pidfile = settings.pidfile.as_ref().or(plan.global.pidfile.as_ref());
        let mut pidfile = pidfile.map(|path| PidFile::open(path)).transpose()?;
        let mut take_over = settings.take_over.unwrap_or_default();
        let early = take_over.out_of_reach(plan.global.process.user_id);
        if !early.pids.is_empty() {
            // Before one of them removes the file.
            pidfile.as_mut().map_or(Ok(()), PidFile::write)?;
            early.end_old(console);
        }
        privileges::give_up(&plan, console)?;

        ring::rings_allowed().map_err(|error| error.to_string())?;

        let world =
            world(plan, shards, &budget, memory.private).map_err(text("make the shards' ports"))?;
        let shared = Arc::new(Shared::new(
            world,
            facts(&budget, memory.limit, caps.clone()),
        ));
        let on_console = !console.is_quiet() && report.is_none() && !settings.silent;
        let log = LogThread::start(Arc::clone(&shared), on_console, report.is_none())
            .map_err(text("start the log thread"))?;
        let (sender, events) = bounded(usize::from(limits::SHARDS_MAX) + 16);
        start_signals(signals, sender.clone()).map_err(text("start the signal thread"))?;
        let control = control::start(&shared).map_err(text("start the control threads"))?;
        let mut early = Vec::new();
        wait_for_first_checks(&shared, &events, &mut early);
        for ((index, cpus), is_alone) in (0..shards).zip(pinning.cpus).zip(alone) {
            start_shard(
                &shared,
                &registry,
                ShardId(index),
                cpus,
                caps.clone(),
                spin(&shared.world().plan.global, is_alone, cgroup),
                sender.clone(),
            )
            .map_err(text("start a shard"))?;
        }
        wait_for_shards(&shared, &events, &mut early)?;
        pidfile.as_mut().map_or(Ok(()), PidFile::write)?;
        let took_ms = clock::now().ms_since(began);
        shared.startup.note(console.kept(), took_ms);
        // Last, so that whoever can reach the runtime socket sees a process that is complete.
        let registry = Arc::new(Mutex::new(registry));
        let api = Arc::new(Mutex::new(api));
        control.serve(&api, &registry, origin);
        let ready = format!("READY=1\nMAINPID={}\nSTATUS=Ready.", std::process::id());
        system::notify_service(&ready);
        if settings.worker {
            console.say(Severity::Notice, "Loading success.");
        }
        take_over.end_old(console);
        if let Some(report) = report {
            report.ready();
        }
        for event in early {
            // There is room: they came through it.
            let _ = sender.try_send(event);
        }
        Ok(Running {
            shared,
            registry,
            api,
            log,
            events,
            sender,
            pidfile,
            shards_left: usize::from(shards),
            phase: Phase::Running,
            worker: settings.worker,
            exit_code: 0,
        })
    }

    fn handle(&self) -> Handle {
        Handle {
            shared: Arc::clone(&self.shared),
            events: self.sender.clone(),
        }
    }

    /// Waits for signals and ending shards until nothing runs any more.
    fn supervise(mut self) -> u8 {
        while self.shards_left > 0 {
            let event = match self.phase {
                Phase::Running => self
                    .events
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Phase::Draining(until) | Phase::Stopping(until) => {
                    let left = until - clock::now();
                    self.events
                        .recv_timeout(left.min(Duration::from_secs(3600)))
                }
            };
            match event {
                Ok(Event::Signal(signal)) => self.signal(signal),
                Ok(Event::ShardEnded(shard, result)) => self.shard_ended(shard, result),
                Err(_) => match self.phase {
                    Phase::Draining(until) if until <= clock::now() => {
                        self.say(
                            Severity::Warning,
                            "Soft stop took too long, ending sessions now.",
                        );
                        self.stop();
                    }
                    Phase::Stopping(until) if until <= clock::now() => break,
                    Phase::Running | Phase::Draining(_) | Phase::Stopping(_) => {}
                },
            }
        }
        self.end()
    }

    fn signal(&mut self, signal: Signal) {
        match signal {
            Signal::SIGUSR1 if self.phase == Phase::Running => self.drain(),
            Signal::SIGUSR1 => {}
            Signal::SIGTTOU | Signal::SIGTTIN => {}
            Signal::SIGHUP => self.shared.reload.ask("SIGHUP"),
            Signal::SIGUSR2 => self.shared.reload.ask("SIGUSR2"),
            signal => {
                // HAProxy's master reports that it was interrupted; the end it was asked for is 0.
                if self.worker && signal == Signal::SIGINT && self.exit_code == 0 {
                    self.exit_code = 128 + 2;
                }
                self.stop();
            }
        }
    }

    fn drain(&mut self) {
        system::notify_service("STOPPING=1");
        self.shared.set_stopping();
        let replaced = self.is_replaced();
        self.shared.world().replaced.store(replaced, Relaxed);
        // Before the shards hear of it: their duplicates are then the last descriptors, and closing
        // them closes the sockets.
        self.release_sockets();
        let bound = self.shared.world().plan.global.hard_stop_after_ms;
        let until = bound.map_or(Moment::NEVER, |ms| clock::now().after_ms(u64::from(ms)));
        self.phase = Phase::Draining(until);
        self.tell_all(|| Message::Drain);
        self.say_stopped();
    }

    fn stop(&mut self) {
        if matches!(self.phase, Phase::Stopping(_)) {
            return;
        }
        system::notify_service("STOPPING=1");
        self.shared.set_stopping();
        self.release_sockets();
        self.phase = Phase::Stopping(clock::now().after_ms(STOP_MS));
        self.tell_all(|| Message::Stop);
    }

    /// Whether somebody else has an address that datagrams come to.
    fn is_replaced(&self) -> bool {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.shares_datagrams()
    }

    fn release_sockets(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.release();
    }

    fn shard_ended(&mut self, shard: ShardId, result: io::Result<()>) {
        self.shards_left -= 1;
        let wrong = match result {
            Err(error) => Some(format!("Shard {} failed: {error}", shard.0)),
            Ok(()) if self.phase == Phase::Running => {
                Some(format!("Shard {} ended without being told to.", shard.0))
            }
            Ok(()) => None,
        };
        if let Some(text) = wrong {
            self.say(Severity::Alert, &text);
            self.exit_code = 1;
            self.stop();
        }
    }

    fn end(mut self) -> u8 {
        self.release_sockets();
        let mut api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        api.unlink();
        drop(api);
        drop(self.pidfile.take());
        self.log.stop();
        self.exit_code
    }

    /// Sends a message to every shard. A port holds more than its shard's sessions can need; should
    /// it be full all the same, the shard is given time to empty it.
    fn tell_all(&self, message: impl Fn() -> Message) {
        for port in &self.shared.world().ports {
            let mut unsent = port.send(message());
            for _ in 0..10_000 {
                let Err(back) = unsent else { break };
                std::thread::yield_now();
                unsent = port.send(back);
            }
        }
    }

    fn say(&self, severity: Severity, text: &str) {
        self.shared.messages.console(severity, text);
    }

    fn say_stopped(&self) {
        let world = &self.shared.world();
        for proxy in &world.plan.proxies {
            let index = usize::from(proxy.proxy_id.0);
            let sessions = FrontCounter::Sessions as usize;
            let front = world.frontends[index]
                .as_ref()
                .map_or(0, |f| f.counters.sum(sessions));
            let back = world.back_counters[index].sum(sessions);
            let name = &proxy.name;
            let kind = if proxy.kind == ProxyKind::Backend {
                ""
            } else {
                "Proxy "
            };
            if kind.is_empty() {
                continue;
            }
            let text = format!("{kind}{name} stopped (cumulated conns: FE: {front}, BE: {back}).");
            self.shared
                .messages
                .for_proxy(proxy.proxy_id, 4, Severity::Warning, text);
        }
    }
}

fn world(plan: Plan, shards: u16, budget: &Budget, memory_max: u64) -> io::Result<World> {
    let capacity = budget.maxconn as usize + limits::PORT_RESERVE;
    let ports: io::Result<Vec<Arc<ShardPort>>> = (0..shards)
        .map(|index| Ok(Arc::new(ShardPort::new(ShardId(index), capacity)?)))
        .collect();
    let queue = Arc::new(LogQueue::new(limits::LOG_RECORDS_MAX)?);
    let control = Arc::new(ControlPort::new(limits::OBSERVATIONS_MAX)?);
    let zero = clock::unix_ms_at_zero();
    Ok(World::new(
        Arc::new(plan),
        ports?,
        control,
        queue,
        Bounds {
            maxconn: budget.maxconn,
            memory_max,
            pipes_max: budget.pipes_max,
        },
        zero,
    ))
}

/// What descriptors and memory let the process have. The size of pipes becomes what this user can
/// have, and the numbers of flows and their sockets what there is room for.
fn bounds(
    plan: &mut Plan,
    shards: u16,
    maxconn: Option<u32>,
    cgroup: CgroupLimits,
    console: &Console,
) -> Result<(Budget, Shares), String> {
    let kernel = KernelLimits::read();
    let (pipe_size, told) = kernel.size(&plan.global);
    plan.global.pipe_size = pipe_size;
    let ram = system::memory_total();
    let asked = Asked {
        plan,
        shards,
        there: cgroup.memory_bytes.map_or(ram, |bytes| bytes.min(ram)),
    };
    let pipes = kernel.wanted(plan, pipe_size, asked.for_pipes());
    let mut budget = descriptors::limit(plan, shards, maxconn, pipes, console)?;
    let for_pipes = (budget.pipes_max, pipes, pipe_size);
    let shares = asked.share(budget.maxconn, maxconn.is_some(), for_pipes)?;
    for warning in told.iter().chain(&shares.warnings) {
        console.warning(warning);
    }
    budget.maxconn = shares.maxconn;
    budget.pipes_max = shares.pipes;
    plan.global.udp_flows_max = Some(shares.flows);
    plan.global.udp_sockets_max = Some(budget.flow_sockets_max);
    Ok((budget, shares))
}

fn facts(budget: &Budget, memory_limit: u64, caps: Caps) -> Facts {
    Facts {
        started: clock::now(),
        started_unix_s: clock::unix_ms() / 1000,
        descriptors_max: budget.descriptors_max,
        descriptors_needed: u64::from(budget.maxconn) * limits::DESCRIPTORS_PER_SESSION
            + u64::from(budget.pipes_max) * limits::DESCRIPTORS_PER_PIPE
            + budget.descriptors_fixed,
        memory_limit,
        caps,
    }
}

/// What the configuration says about the rings.
fn wanted(plan: &Plan) -> Wanted {
    Wanted {
        forced: plan.global.receive_step,
        without: plan.global.ring_without.clone(),
        buffers: plan.global.ring_buffers,
    }
}
