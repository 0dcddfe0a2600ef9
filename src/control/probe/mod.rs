//! The probe thread: checks of servers and nothing else.
//!
//! One task per checked server. Sockets are tokio's, not tokio-uring's: a future of the latter goes
//! on in the kernel after it was dropped, so its timeout would keep the descriptor. A probe's
//! connection is closed by a reset, which leaves no TIME_WAIT on either side.
//!
//! What is not the server's fault never counts: a timeout that is seen late, because this thread
//! was not running, and a lack of local resources lead to another probe instead of a failure.

mod attempt;
mod result;
mod script;

use std::sync::Arc;
use tokio::sync::mpsc::Sender;

use crate::base::hash;
use crate::base::ids::ProxyId;
use crate::base::time::Moment;
use crate::config::plan::Check;
use crate::health::Outcome::{Failed, Passed};
use crate::health::{Rules, Transition, first_after, interval_ms, spread_ms};
use crate::lb::{Admin, Health, Server};
use crate::shard::World;
use crate::sys::clock;
use attempt::{Outcome, probe};
pub use result::{ProbeResult, status_text};

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
        let ports = server.source_ports();
        let (outcome, farewell) = match &rhythm.check.scripted {
            None => (probe(&rhythm.check, ports).await, None),
            Some(scripted) => script::run(&rhythm.check, scripted, ports).await,
        };
        let duration_ms = clock::now().ms_since(began);
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
        let mut code = None;
        let (status, description) = match outcome {
            Outcome::Told(finding) => {
                code = finding.code;
                (finding.status.name(), finding.text)
            }
            Outcome::Connected => ("L4OK", String::new()),
            Outcome::Failed(text) => ("L4CON", text),
            Outcome::LocalError(text) => ("SOCKERR", text),
            Outcome::TimedOut | Outcome::Late => ("L4TOUT", String::new()),
        };
        let result = ProbeResult {
            proxy,
            server_index,
            status,
            code,
            duration_ms,
            description,
            counted_failure: counts && !passed && failure_counts,
            health: rules.health(),
            transition,
        };
        if results.send(result).await.is_err() {
            return;
        }
        if let Some(farewell) = farewell {
            farewell.say().await;
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
