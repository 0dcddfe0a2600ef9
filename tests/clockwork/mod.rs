//! What both simulations run by: shards over the scripted ring that take turns with the network, on
//! a virtual clock, until nothing is left to happen. What happens in a simulation, and what must
//! hold in it, are its own.

mod environment;
pub(crate) mod seeds;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub(crate) use environment::plan_of;
use tidegate::base::ids::ShardId;
use tidegate::base::time::Moment;
use tidegate::config::plan::Plan;
use tidegate::lb::{Admin, Backend, Health};
use tidegate::ring::scripted::{Network, Notice, Random, Scripted};
use tidegate::shard::{Bounds, ControlPort, LogQueue, Message, Shard, ShardPort, World};

/// Virtual time a simulation may take: every wait in one is shorter than ten minutes.
const TIME_MAX_MS: u64 = 3_600_000;
/// Turns in a row that find and move nothing: a few happen when buffers or timers come late.
const IDLE_TURNS_MAX: u32 = 50;
/// Records of sessions, and messages to the control thread, that a turn may leave.
const RECORDS_MAX: usize = 4_096;

/// A number up to `most`, or 0: `often` of 1,000 simulations have some.
pub(crate) fn odds(random: &mut Random, often: u32, most: u32) -> u32 {
    let some = random.chance(often);
    let value = u32::try_from(random.below(u64::from(most) + 1)).expect("small");
    if some { value } else { 0 }
}

/// The world of so many shards, each of which may have so many messages waiting.
pub(crate) fn world(plan: &Plan, shards: u16, messages_max: usize, bounds: Bounds) -> Arc<World> {
    let port = |id| Arc::new(ShardPort::new(ShardId(id), messages_max).expect("an eventfd"));
    Arc::new(World::new(
        Arc::new(plan.clone()),
        (0..shards).map(port).collect(),
        Arc::new(ControlPort::new(RECORDS_MAX).expect("an eventfd")),
        Arc::new(LogQueue::new(RECORDS_MAX).expect("an eventfd")),
        bounds,
        0,
    ))
}

/// Whatever has been done to its servers, they are there again; the backend has yet to publish it.
pub(crate) fn make_ready(backend: &Backend) {
    for server in &backend.servers {
        server.set_admin(Admin::Ready);
        server.set_health(Health::Up);
    }
}

/// The moving parts of a simulation.
pub(crate) struct Clockwork {
    pub(crate) random: Random,
    pub(crate) network: Rc<RefCell<Network>>,
    pub(crate) world: Arc<World>,
    pub(crate) shards: Vec<Shard<Scripted>>,
    /// Turns of all shards together.
    pub(crate) turns: u64,
    pub(crate) turns_max: u64,
    /// Turns without a completion since time last went on, by shard.
    idle_turns: Vec<u32>,
    /// No shard is held up for longer.
    pub(crate) held_up_max_us: u64,
    /// The shards were told to drain or to stop.
    pub(crate) told: bool,
    traced: bool,
}

impl Clockwork {
    /// Those of a simulation that may take so many turns; shards are added to it.
    pub(crate) fn new(
        random: Random,
        network: Network,
        world: Arc<World>,
        turns_max: u64,
        traced: bool,
    ) -> Clockwork {
        let network = Rc::new(RefCell::new(network));
        if traced {
            network.borrow_mut().trace = Some(Vec::new());
        }
        Clockwork {
            random,
            network,
            world,
            shards: Vec::new(),
            turns: 0,
            turns_max,
            idle_turns: Vec::new(),
            held_up_max_us: u64::MAX,
            told: false,
            traced,
        }
    }

    /// The number of the next shard.
    pub(crate) fn next_shard(&self) -> ShardId {
        ShardId(u16::try_from(self.shards.len()).expect("few"))
    }

    /// Adds a shard, which starts.
    pub(crate) fn add_shard(&mut self, mut shard: Shard<Scripted>) {
        shard.start();
        self.shards.push(shard);
        self.idle_turns.push(0);
    }

    /// A shard takes its turn, for which it needs some time. False = it has gone to sleep.
    pub(crate) fn turn(&mut self, index: usize) -> bool {
        self.turns += 1;
        assert!(self.turns < self.turns_max, "too many turns");
        let before = self.progress(index);
        let is_awake = self.shards[index].turn().is_ok();
        let is_idle = is_awake && self.progress(index) == before;
        let in_a_row = &mut self.idle_turns[index];
        *in_a_row = if is_idle { *in_a_row + 1 } else { 0 };
        assert!(*in_a_row < IDLE_TURNS_MAX, "a shard runs hot");
        if self.traced {
            let what = if is_awake { "has run" } else { "sleeps" };
            let mut network = self.network.borrow_mut();
            network.note(|| format!("shard {index} {what}"));
        }
        self.print_trace();
        let mut network = self.network.borrow_mut();
        let passed = network.random.below(20_000);
        let to = Moment(network.now().0 + passed);
        network.pass(to);
        is_awake
    }

    fn progress(&self, index: usize) -> u64 {
        let gauges = &self.world.ports[index].gauges;
        gauges.completions.load(Relaxed) + gauges.spliced_bytes.load(Relaxed)
    }

    fn can_run(&mut self, index: usize, now: Moment) -> bool {
        let shard = &mut self.shards[index];
        if shard.has_ended() {
            return false;
        }
        let kernel = shard.kernel_mut();
        kernel.sleeps_until().is_none_or(|until| until <= now) || kernel.is_ready()
    }

    /// What is next: time may have passed until then.
    fn next(&mut self) -> Next {
        let (now, next_at) = {
            let network = self.network.borrow();
            (network.now(), network.next_at().unwrap_or(Moment::NEVER))
        };
        assert!(now.ms_since(Moment(0)) < TIME_MAX_MS, "not quiet in time");
        let can_run: Vec<usize> = (0..self.shards.len())
            .filter(|index| self.can_run(*index, now))
            .collect();
        let due = next_at <= now;
        if !can_run.is_empty() && (!due || self.random.chance(500)) {
            // Seldom a shard is held up: time passes although it has something to do.
            let held_up_max = self.held_up_max_us.saturating_mul(1_000);
            let soon = next_at.0 < now.0.saturating_add(held_up_max);
            if due || !soon || !self.random.chance(20) {
                return Next::Turn(self.random.pick(&can_run));
            }
        }
        let awake = self.shards.iter_mut().filter(|shard| !shard.has_ended());
        let until = awake
            .filter_map(|shard| shard.kernel_mut().sleeps_until())
            .min()
            .unwrap_or(Moment::NEVER);
        if next_at == Moment::NEVER && until == Moment::NEVER {
            return Next::Nothing;
        }
        if next_at <= until {
            return Next::Notice(self.network.borrow_mut().step());
        }
        // A sleeper wakes at its time or a little later.
        let late = self.random.below(2) * self.random.below(3_000_000);
        self.network.borrow_mut().pass(Moment(until.0 + late));
        Next::Time
    }

    /// Tells every shard to drain or to stop.
    pub(crate) fn tell_all(&mut self, message: impl Fn() -> Message) {
        self.told = true;
        for port in &self.world.ports {
            port.send(message()).expect("room for a message");
        }
    }

    /// Prints what has happened, if somebody wants to see it.
    pub(crate) fn print_trace(&self) {
        if let Some(trace) = &mut self.network.borrow_mut().trace {
            for line in trace.drain(..) {
                eprintln!("{line}");
            }
        }
    }
}

/// What happens next.
enum Next {
    /// A shard's turn.
    Turn(usize),
    /// Something on the network.
    Notice(Notice),
    /// Only time has passed.
    Time,
    /// Never anything more.
    Nothing,
}

/// A simulation.
pub(crate) trait Simulated {
    /// What it runs by.
    fn works(&mut self) -> &mut Clockwork;

    /// All of it; it fails by a panic.
    fn run(&mut self);

    /// A shard has its turn.
    fn turn(&mut self, index: usize);

    /// Something has happened on the network.
    fn handle(&mut self, notice: Notice);

    /// What is where, for a failed run.
    fn state(&mut self) -> String;

    /// Runs it; false if anything is wrong, which has then been printed.
    fn holds(&mut self, seed: u64) -> bool {
        let result = catch_unwind(AssertUnwindSafe(|| self.run()));
        if result.is_err() {
            self.works().print_trace();
            let state = self.state();
            eprintln!("seed {seed} fails; TIDEGATE_SIM_SEED={seed} repeats it\n{state}");
        }
        result.is_ok()
    }

    /// Lets shards and network take turns until nothing is left to happen.
    fn until_quiet(&mut self) {
        loop {
            match self.works().next() {
                Next::Turn(index) => self.turn(index),
                Next::Notice(notice) => {
                    self.handle(notice);
                    self.works().print_trace();
                }
                Next::Time => {}
                Next::Nothing => return,
            }
        }
    }

    /// Has all shards drain, and end.
    fn end_shards(&mut self) {
        {
            let mut network = self.works().network.borrow_mut();
            network.settings.cancel_max_us = 0;
            network.settings.late = 0;
        }
        self.works().tell_all(|| Message::Drain);
        self.until_quiet();
        for shard in &mut self.works().shards {
            assert!(shard.has_ended(), "a drained shard has not ended");
            shard.retire();
        }
    }
}
