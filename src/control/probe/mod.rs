//! The probe thread: checks and agents, and nothing else.
//!
//! One task per checked server, and one per agent. The first round comes at once, because clients
//! wait for it; the later ones are spread over the interval. Sockets are tokio's, not
//! tokio-uring's: a future of the latter goes on in the kernel after it was dropped, so its timeout
//! would keep the descriptor. A probe's connection is closed by a reset, which leaves no TIME_WAIT
//! on either side.
//!
//! What is not the server's fault never counts: a timeout that is seen late, because this thread
//! was not running, and a lack of local resources lead to another probe instead of a failure.

mod agent;
mod announce;
mod attempt;
mod datagram;
mod recovery;
mod result;
mod script;
mod traffic;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::base::hash;
use crate::base::ids::ServerId;
use crate::base::ports::Ports;
use crate::base::time::Moment;
use crate::config::plan::{Agent, Check};
use crate::control::apply::report_of;
use crate::health::Outcome::{Failed, Passed};
use crate::health::{Rules, first_after, interval_ms, spread_ms};
use crate::lb::{Admin, Server};
use crate::shard::World;
use crate::sys::clock;
use attempt::{Outcome, probe};
pub use recovery::{FromTraffic, Order};
pub use result::{AgentResult, Finding, ProbeResult, status_text};
use traffic::{Cut, Errors};

/// Attempts of the first round that run at a time: each takes a descriptor.
const FIRST_ROUND_MAX: usize = 256;
/// The first attempts of servers that a reload brings are spread over this time at most.
const RENEWED_WITHIN_MS: u32 = 1_000;

/// A server and what is found out about it.
struct Target<T> {
    server: Arc<Server>,
    settings: T,
}

/// What is asked of the servers of a world.
fn targets<T>(world: &World, settings: impl Fn(&Server) -> Option<T>) -> Vec<Target<T>> {
    let servers = world.backends.iter().flatten().flat_map(|b| &b.servers);
    let target = |server: &Arc<Server>| {
        let settings = settings(server)?;
        let server = Arc::clone(server);
        Some(Target { server, settings })
    };
    servers.filter_map(target).collect()
}

fn checks(world: &World) -> Vec<Target<Check>> {
    targets(world, |server| server.plan.check.clone())
}

fn agents(world: &World) -> Vec<Target<Agent>> {
    targets(world, |server| server.plan.watch.agent.clone())
}

/// How many first attempts there will be: one for each [`Finding::First`].
pub fn first_attempts(world: &World) -> usize {
    checks(world).len() + agents(world).len()
}

/// The next world, for the probe thread.
#[derive(Debug)]
pub struct Renewal {
    /// The world.
    pub world: Arc<World>,
    /// Errors of those servers that are observed and whose checks begin or go on otherwise.
    pub errors: HashMap<ServerId, Receiver<()>>,
    /// Servers stay what they were, also those that are checked elsewhere now.
    pub keeps_health: bool,
}

/// When probes begin.
enum Round {
    /// At the start; where clients wait for them, as many at a time as this allows.
    First(Option<Arc<Semaphore>>),
    /// Later.
    Later {
        /// See [`Renewal::keeps_health`].
        keeps_health: bool,
    },
}

/// What is under way for a server.
#[derive(Debug)]
struct Task {
    server: Arc<Server>,
    handle: JoinHandle<()>,
}

/// The probes of a process.
#[derive(Debug)]
struct Probes {
    findings: Sender<Finding>,
    spread_percent: Rc<Cell<u8>>,
    seed: u64,
    /// Tasks begun so far.
    begun: u64,
    checks: HashMap<ServerId, Task>,
    agents: HashMap<ServerId, Task>,
}

/// Probes every checked server, and asks every agent, until the process ends.
pub async fn run(
    world: Arc<World>,
    findings: Sender<Finding>,
    mut from_traffic: FromTraffic,
    mut renewals: Receiver<Renewal>,
) {
    let spread_percent = world.plan.global.spread_checks_percent;
    let mut probes = Probes {
        findings,
        spread_percent: Rc::new(Cell::new(spread_percent)),
        // Not the same for two balancers that probe the same servers.
        seed: hash::mix(clock::unix_ms() ^ u64::from(std::process::id()) << 48),
        begun: 0,
        checks: HashMap::new(),
        agents: HashMap::new(),
    };
    let waits = world.plan.global.first_checks_wait_ms > 0;
    let first_round = waits.then(|| Arc::new(Semaphore::new(FIRST_ROUND_MAX)));
    let (checks, agents) = (checks(&world), agents(&world));
    let mut errors = std::mem::take(&mut from_traffic.errors);
    probes.begin(
        &world,
        checks,
        agents,
        &mut errors,
        Round::First(first_round),
    );
    tokio_uring::spawn(recovery::serve(from_traffic.orders, from_traffic.found));
    drop(world);
    while let Some(renewal) = renewals.recv().await {
        probes.renew(renewal);
    }
    std::future::pending::<()>().await;
}

impl Probes {
    /// Begins to probe these.
    fn begin(
        &mut self,
        world: &World,
        checks: Vec<Target<Check>>,
        agents: Vec<Target<Agent>>,
        errors: &mut HashMap<ServerId, Receiver<()>>,
        round: Round,
    ) {
        let (first_round, at_start, keeps_health) = match round {
            Round::First(first_round) => (first_round, true, false),
            Round::Later { keeps_health } => (None, false, keeps_health),
        };
        let of_checks = checks
            .iter()
            .map(|target| interval_ms(Rules::of(&target.settings), &target.settings));
        let of_agents = agents.iter().map(|target| target.settings.inter_ms);
        let smallest_ms = of_checks.chain(of_agents).min().unwrap_or(0);
        let smallest_ms = match at_start {
            true => smallest_ms,
            // Nobody waits for them, and all should be known soon.
            false => smallest_ms.min(RENEWED_WITHIN_MS),
        };
        let count = u64::try_from(checks.len() + agents.len()).unwrap_or(u64::MAX);
        let global = &world.plan.global;
        let (started, seed, begun) = (clock::now(), self.seed, self.begun);
        self.begun += count;
        let rhythm = |position: u64| {
            let after = first_after(position, count, smallest_ms, global.max_spread_checks_ms);
            Rhythm {
                due: started + after,
                // Where clients wait for the first round, it is the second one that is spread, and
                // none of it comes later than an interval.
                second: started
                    + Duration::from_millis(u64::from(smallest_ms)).saturating_sub(after),
                spread_percent: Rc::clone(&self.spread_percent),
                seed: hash::sequence(seed, begun + position),
                turns: u64::from(!at_start),
                first_round: first_round.clone(),
            }
        };
        let mut positions = 0..;
        let mut next = || rhythm(positions.next().unwrap_or(u64::MAX));
        for target in checks {
            let (id, server) = (target.server.id, Arc::clone(&target.server));
            let before = self.checks.remove(&id).map(|task| task.server);
            let errors = Errors::of(&target, errors.remove(&id), &self.findings);
            let rules = rules_of(before.as_deref(), &target, keeps_health);
            let work = probe_server(target, rules, next(), errors, self.findings.clone());
            let handle = tokio_uring::spawn(work);
            self.checks.insert(id, Task { server, handle });
        }
        for target in agents {
            let (id, server) = (target.server.id, Arc::clone(&target.server));
            let handle =
                tokio_uring::spawn(agent::ask_server(target, next(), self.findings.clone()));
            self.agents.insert(id, Task { server, handle });
        }
    }

    /// Ends what the world has no more or otherwise, and begins what is new. The rest goes on as if
    /// nothing had been.
    fn renew(&mut self, renewal: Renewal) {
        let Renewal {
            world,
            mut errors,
            keeps_health,
        } = renewal;
        let global = &world.plan.global;
        self.spread_percent.set(global.spread_checks_percent);
        let is_there = |before: &Arc<Server>, goes_on: fn(&Server, &Server) -> bool| {
            let now = world.server_of(before.id);
            now.is_some_and(|(_, now)| goes_on(before, now))
        };
        let stop = |task: &Task| task.handle.abort();
        for task in self.checks.values() {
            if !is_there(&task.server, check_goes_on) {
                stop(task);
            }
        }
        self.agents.retain(|_, task| {
            let stays = is_there(&task.server, agent_goes_on);
            if !stays {
                stop(task);
            }
            stays
        });
        let goes_on = |id: ServerId| {
            let task = self.checks.get(&id);
            task.is_some_and(|task| is_there(&task.server, check_goes_on))
        };
        let mut checks = checks(&world);
        checks.retain(|target| !goes_on(target.server.id));
        let mut agents = agents(&world);
        agents.retain(|target| !self.agents.contains_key(&target.server.id));
        self.begin(
            &world,
            checks,
            agents,
            &mut errors,
            Round::Later { keeps_health },
        );
        let checked = |id: &ServerId| {
            let server = world.server_of(*id);
            server.is_some_and(|(_, server)| server.plan.check.is_some())
        };
        self.checks.retain(|id, _| checked(id));
    }
}

/// Whether a server's checks go on as they are.
pub fn check_goes_on(before: &Server, now: &Server) -> bool {
    let (old, new) = (&before.plan, &now.plan);
    before.is_same(now)
        && old.check.is_some()
        && old.check == new.check
        && old.passive.observe == new.passive.observe
        && old.source == new.source
}

/// The same of its agent.
pub fn agent_goes_on(before: &Server, now: &Server) -> bool {
    before.is_same(now) && before.plan.watch.agent == now.plan.watch.agent
}

/// Where the checks of a server begin: where those that it had before have come to, if it is still
/// checked at the same address, or that is no reason to begin anew.
fn rules_of(before: Option<&Server>, target: &Target<Check>, keeps_health: bool) -> Rules {
    let check = &target.settings;
    let known = before.filter(|before| before.is_same(&target.server));
    let known = known.and_then(|before| before.plan.check.as_ref());
    match known.is_some_and(|known| keeps_health || known.address == check.address) {
        // The control thread has put it in terms of these counts.
        true => Rules::of(check).at(report_of(&target.server).health),
        false => begin(&target.server, check).1,
    }
}

async fn probe_server(
    target: Target<Check>,
    rules: Rules,
    mut rhythm: Rhythm,
    mut errors: Errors,
    findings: Sender<Finding>,
) {
    let Target {
        server,
        settings: mut check,
    } = target;
    let configured = check.address.clone();
    let mut rules = rules;
    let mut restarts = server.restarts();
    let mut tunings = 0;
    loop {
        let mut due = rhythm.due;
        let waited = errors.during(rhythm.wait(), &mut rules, &mut due, Cut::Always);
        let waited = waited.await;
        rhythm.due = due;
        let Some(permit) = waited else {
            continue;
        };
        if server.restarts() != restarts {
            (restarts, rules) = begin(&server, &check);
        }
        if let Some(tuning) = server.tuned.news(&mut tunings) {
            check.address = tuning.check_address.unwrap_or_else(|| configured.clone());
        }
        if server.admin() == Admin::Maintenance || server.tuned.checks_stopped() {
            if !rhythm.next(interval_ms(rules, &check), &findings).await {
                return;
            }
            continue;
        }
        let began = clock::now();
        let probed = attempt(&check, server.source_ports());
        let probed = errors.during(probed, &mut rules, &mut rhythm.due, Cut::WhenDown);
        let Some((outcome, farewell)) = probed.await else {
            if !rhythm.next(interval_ms(rules, &check), &findings).await {
                return;
            }
            continue;
        };
        let duration_ms = clock::now().ms_since(began);
        drop(permit);
        if outcome == Outcome::Late {
            // At once, but through the scheduler: whoever else is late gets its turn first.
            tokio::task::yield_now().await;
            rhythm.due = clock::now();
            continue;
        }
        let passed = match &outcome {
            Outcome::Connected => true,
            Outcome::Told(finding) => finding.status.is_pass(),
            _ => false,
        };
        if passed {
            server.observed.succeeded();
        }
        let counts = !matches!(outcome, Outcome::LocalError(_));
        let failure_counts = rules.counts_failure();
        if counts {
            rules.observe(if passed { Passed } else { Failed });
        }
        let (status, code, description) = in_words(outcome);
        let result = ProbeResult {
            server: server.id,
            status,
            code,
            duration_ms,
            description,
            counted_failure: counts && !passed && failure_counts,
            rules,
            restarts,
        };
        if findings.send(Finding::Probe(result)).await.is_err() {
            return;
        }
        if let Some(farewell) = farewell {
            farewell.say().await;
        }
        if !rhythm.next(interval_ms(rules, &check), &findings).await {
            return;
        }
    }
}

/// How often the checks of a server have begun anew, and from where.
fn begin(server: &Server, check: &Check) -> (u32, Rules) {
    let (restarts, rules) = (server.restarts(), Rules::of(check));
    let at = server.restarted_at();
    (restarts, at.map_or(rules, |position| rules.at(position)))
}

/// One attempt of a check, and what is left to be said to the server after the result.
async fn attempt<'a>(
    check: &Check,
    ports: Option<&'a Ports>,
) -> (Outcome, Option<script::Farewell<'a>>) {
    match (&check.datagram, &check.scripted) {
        (Some(how), _) => (datagram::run(check, how).await, None),
        (None, None) => (probe(check, ports).await, None),
        (None, Some(scripted)) => script::run(check, scripted, ports).await,
    }
}

/// An outcome as HAProxy words it: status, the server's own code, and text.
fn in_words(outcome: Outcome) -> (&'static str, Option<u16>, String) {
    match outcome {
        Outcome::Told(finding) => (finding.status.name(), finding.code, finding.text),
        Outcome::Connected => ("L4OK", None, String::new()),
        Outcome::Failed(text) => ("L4CON", None, text),
        Outcome::LocalError(text) => ("SOCKERR", None, text),
        Outcome::TimedOut | Outcome::Late => ("L4TOUT", None, String::new()),
    }
}

/// When a server is probed.
struct Rhythm {
    /// Start of the next probe.
    due: Moment,
    /// Start of the second probe where the first one comes at once.
    second: Moment,
    /// `spread-checks`, as the world in force has it.
    spread_percent: Rc<Cell<u8>>,
    seed: u64,
    turns: u64,
    /// Until the first probe is over, where clients wait for it: who may probe at once.
    first_round: Option<Arc<Semaphore>>,
}

impl Rhythm {
    /// Waits for the next probe's time. What is returned is held while it runs.
    async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        match &self.first_round {
            // It is never closed.
            Some(round) if self.turns == 0 => Arc::clone(round).acquire_owned().await.ok(),
            _ => {
                tokio::time::sleep(self.due - clock::now()).await;
                None
            }
        }
    }

    /// Goes on to the next probe, an interval later; false if nobody hears of it any more.
    async fn next(&mut self, interval_ms: u32, findings: &Sender<Finding>) -> bool {
        let is_first = self.turns == 0;
        let random = hash::sequence(self.seed, self.turns);
        self.turns += 1;
        if !is_first {
            let interval_ms = spread_ms(interval_ms, self.spread_percent.get(), random);
            self.due = next_due(self.due, interval_ms);
            return true;
        }
        if self.first_round.take().is_some() {
            self.due = self.second;
        } else {
            self.due = next_due(self.due, interval_ms);
        }
        findings.send(Finding::First).await.is_ok()
    }
}

/// The start after the one at `due`: an interval later, or the next one of that rhythm if this
/// thread is late, so that missed probes are not made up for in a burst.
fn next_due(due: Moment, inter_ms: u32) -> Moment {
    let inter_ms = u64::from(inter_ms.max(1));
    let missed = clock::now().ms_since(due) / inter_ms;
    due.after_ms((missed + 1) * inter_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_kept_and_missed_probes_are_not_made_up_for() {
        let now = clock::now();
        assert_eq!(next_due(now, 2000), now.after_ms(2000));
        let long_ago = Moment(now.0 - 5_500_000_000);
        assert_eq!(next_due(long_ago, 1000), long_ago.after_ms(6000));
    }
}
