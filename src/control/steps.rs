//! Servers that return in steps, as an operator has said (`ramp server`).
//!
//! A step gives the server a part of its weight. The steps stop, and the server keeps the part that
//! it has, when it goes out of service before the last one: something may be wrong with it, and
//! that is for the operator to decide. Another word about its weight gives it the whole again.
//!
//! Servers are remembered by their names, so that a server that is made anew is still the same.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Shared;
use super::apply::{self, NOTICE};
use super::operator;
use crate::base::time::Moment;
use crate::lb::{Backend, Server};
use crate::sys::clock;

/// Syslog's level of what an operator should look at.
const WARNING: u8 = 4;

/// Where no step is due, a look now and then costs nothing.
const REST: Duration = Duration::from_secs(3600);

/// The whole, percent.
const WHOLE: u8 = 100;

/// What an operator has asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Steps {
    percents: Vec<u8>,
    every_ms: u32,
}

impl Steps {
    /// Rising parts of 1 to 100 percent, each for so long; `None` if they are none.
    pub(super) fn new(percents: Vec<u8>, every_ms: u32) -> Option<Steps> {
        let rising = percents.is_sorted_by(|a, b| a < b);
        let first = *percents.first()?;
        let last = *percents.last()?;
        let fits = rising && first >= 1 && last <= WHOLE && every_ms > 0;
        fits.then_some(Steps { percents, every_ms })
    }
}

/// A server on its way.
#[derive(Clone, Debug)]
struct Way {
    steps: Steps,
    /// The step that it has.
    at: usize,
    next: Next,
}

/// What comes after a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Another one, then.
    Due(Moment),
    /// Nothing: it was the last, and less than the whole.
    Arrived,
    /// Nothing: the server has gone out of service.
    Stopped,
}

impl Way {
    /// Notes what comes after the present step.
    fn rest(&mut self, now: Moment) {
        self.next = match self.at + 1 < self.steps.percents.len() {
            true => Next::Due(now.after_ms(u64::from(self.steps.every_ms))),
            false => Next::Arrived,
        };
    }

    fn due(&self) -> Option<Moment> {
        match self.next {
            Next::Due(at) => Some(at),
            Next::Arrived | Next::Stopped => None,
        }
    }

    fn percent(&self) -> u8 {
        self.steps.percents.get(self.at).copied().unwrap_or(WHOLE)
    }
}

/// The names of a backend and its server.
type Name = (Arc<str>, Arc<str>);

/// All servers that return in steps.
#[derive(Debug, Default)]
pub(super) struct Ways {
    ways: Mutex<BTreeMap<Name, Way>>,
    /// Wakes who takes the steps.
    changed: tokio::sync::Notify,
}

impl Ways {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<Name, Way>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(backend: &Backend, server: &Server) -> Name {
    (
        Arc::clone(&backend.proxy.name),
        Arc::clone(&server.plan.name),
    )
}

fn called(name: &Name) -> String {
    format!("Server {}/{}", name.0, name.1)
}

/// Begins with the first step, at once.
pub(super) fn begin(
    shared: &Shared,
    backend: &Backend,
    server: &Server,
    steps: Steps,
) -> Result<(), &'static str> {
    if !backend.follows_parts() {
        return Err("The balancing algorithm of this backend knows no parts of a weight.");
    }
    if !server.usable() {
        return Err("This server is not in service.");
    }
    let mut way = Way {
        next: Next::Arrived,
        at: 0,
        steps,
    };
    way.rest(clock::now());
    let name = name_of(backend, server);
    let first = way.percent();
    let line = format!(
        "{} returns in {} steps of {} ms, beginning with {first}% of its weight.",
        called(&name),
        way.steps.percents.len(),
        way.steps.every_ms,
    );
    if first < WHOLE {
        shared.ways.locked().insert(name, way);
    } else {
        shared.ways.locked().remove(&name);
    }
    shared.ways.changed.notify_one();
    operator::set_part(shared, backend, server, u32::from(first));
    apply::say(shared, backend, NOTICE, line);
    Ok(())
}

/// Gives a server its whole weight, if it was on its way or has stopped there; false if it was not.
pub(super) fn cancel(shared: &Shared, backend: &Backend, server: &Server) -> bool {
    let name = name_of(backend, server);
    let is_known = shared.ways.locked().remove(&name).is_some();
    if is_known {
        operator::set_part(shared, backend, server, u32::from(WHOLE));
        let line = format!(
            "{} has its whole weight: its steps were cancelled.",
            called(&name)
        );
        apply::say(shared, backend, NOTICE, line);
    }
    is_known
}

/// A server has gone out of service: it takes no more steps.
pub(super) fn stop(shared: &Shared, backend: &Backend, server: &Server) {
    let name = name_of(backend, server);
    let stopped = match shared.ways.locked().get_mut(&name) {
        Some(way) if way.due().is_some() => {
            way.next = Next::Stopped;
            way.percent()
        }
        Some(_) | None => return,
    };
    let line = format!(
        "{} has left service on its way back, and keeps {stopped}% of its weight.",
        called(&name)
    );
    apply::say(shared, backend, WARNING, line);
}

/// Forgets those of servers that don't stay, by the names of backend and server.
pub(super) fn keep(shared: &Shared, stays: impl Fn(&str, &str) -> bool) {
    let mut ways = shared.ways.locked();
    ways.retain(|(backend, server), _| stays(backend, server));
}

/// Takes the steps until the process ends.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let next = shared.ways.locked().values().filter_map(Way::due).min();
        let rest = match next {
            Some(due) => due - clock::now(),
            None => REST,
        };
        // Whichever is first; a step that isn't due yet is looked at again.
        let _ = tokio::time::timeout(rest, shared.ways.changed.notified()).await;
        step(&shared, clock::now());
    }
}

/// Takes every step that is due.
fn step(shared: &Shared, now: Moment) {
    let is_due = |way: &Way| way.due().is_some_and(|due| due <= now);
    let due: Vec<Name> = {
        let ways = shared.ways.locked();
        let due = ways.iter().filter(|(_, way)| is_due(way));
        due.map(|(name, _)| name.clone()).collect()
    };
    for name in due {
        let world = shared.world();
        let mut backends = world.backends.iter().flatten();
        let backend = backends.find(|backend| backend.proxy.name == name.0);
        let found = backend.and_then(|backend| {
            let mut servers = backend.servers.iter();
            Some((backend, servers.find(|server| server.plan.name == name.1)?))
        });
        let Some((backend, server)) = found else {
            shared.ways.locked().remove(&name);
            continue;
        };
        take_step(shared, backend, server, &name, now);
    }
}

fn take_step(shared: &Shared, backend: &Backend, server: &Server, name: &Name, now: Moment) {
    let (percent, is_last) = {
        let mut ways = shared.ways.locked();
        let Some(way) = ways.get_mut(name) else {
            return;
        };
        way.at += 1;
        way.rest(now);
        let (percent, is_last) = (way.percent(), way.next == Next::Arrived);
        if percent == WHOLE {
            ways.remove(name);
        }
        (percent, is_last)
    };
    operator::set_part(shared, backend, server, u32::from(percent));
    let arrives = if is_last { ", its last step" } else { "" };
    let line = format!(
        "{} now has {percent}% of its weight{arrives}.",
        called(name)
    );
    apply::say(shared, backend, NOTICE, line);
}

/// The answer to `show ramp`: a line per server.
pub(super) fn show(shared: &Shared) -> String {
    let now = clock::now();
    let mut text = "# server percent step steps every_ms next_ms\n".to_owned();
    for ((backend, server), way) in shared.ways.locked().iter() {
        let next = match way.next {
            Next::Due(at) => at.ms_since(now).to_string(),
            Next::Arrived => "-".to_owned(),
            Next::Stopped => "stopped".to_owned(),
        };
        let _ = writeln!(
            text,
            "{backend}/{server} {} {} {} {} {next}",
            way.percent(),
            way.at + 1,
            way.steps.percents.len(),
            way.steps.every_ms,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise() {
        let steps = |percents: &[u8], every_ms| Steps::new(percents.to_vec(), every_ms);
        assert!(steps(&[10, 25, 50, 75, 100], 60_000).is_some());
        assert!(steps(&[50], 1).is_some());
        for (percents, every_ms) in [
            (&[][..], 1),
            (&[0, 10], 1),
            (&[10, 10], 1),
            (&[20, 10], 1),
            (&[10, 101], 1),
            (&[10, 100], 0),
        ] {
            assert!(steps(percents, every_ms).is_none(), "{percents:?}");
        }
    }
}
