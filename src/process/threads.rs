//! The threads that the main one starts and waits for: the shards, and the one that waits for
//! signals.

use crossbeam::channel::{Receiver, Sender};
use nix::sys::signal::SigSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Event;
use crate::base::ids::ShardId;
use crate::base::spin::Spin;
use crate::config::plan::Global;
use crate::control::Shared;
use crate::control::listeners::Registry;
use crate::control::messages::Severity;
use crate::ring::Caps;
use crate::shard;
use crate::sys::cgroup::CgroupLimits;
use crate::sys::process as system;

/// The bound of `tune.spin-us auto`: what work that follows work takes to come from across a room.
const SPIN_AUTO_US: u16 = 50;

/// How a shard waits. Only one that has a CPU for itself looks for work before it sleeps, unless
/// it is never to sleep: it would take the CPU from others. With a quota, CPU time is paid for,
/// and left for what has to be done.
pub(super) fn spin(global: &Global, is_alone: bool, cgroup: CgroupLimits) -> Spin {
    if global.busy_polling {
        return Spin::Always;
    }
    let us = match global.spin_us {
        Some(us) => us,
        None if cgroup.cpus.is_some() => 0,
        None => SPIN_AUTO_US,
    };
    if is_alone && us > 0 {
        Spin::UpTo(u32::from(us))
    } else {
        Spin::Never
    }
}

pub(super) fn start_shard(
    shared: &Arc<Shared>,
    registry: &Registry,
    id: ShardId,
    cpus: Vec<usize>,
    caps: Caps,
    spin: Spin,
    events: Sender<Event>,
) -> io::Result<()> {
    let listeners = registry.for_shard(id, |_| true)?;
    let shared = Arc::clone(shared);
    let world = shared.world();
    let body = move || {
        if !cpus.is_empty()
            && let Err(error) = system::pin(&cpus)
        {
            let text = format!("Shard {} is not pinned to CPUs {cpus:?}: {error}", id.0);
            shared.messages.console(Severity::Warning, &text);
        }
        let result = shard::run(id, world, listeners, &caps, spin);
        let _ = events.send(Event::ShardEnded(id, result));
    };
    std::thread::Builder::new()
        .name(format!("shard-{}", id.0))
        .spawn(body)
        .map(drop)
}

/// Waits until every server that can be checked was checked once, or as long as the configuration
/// allows. Clients wait meanwhile, in the queues of the sockets: none goes to a server that is dead
/// from the start. What comes through `events` is left in `early`; a signal ends the waiting.
pub(super) fn wait_for_first_checks(
    shared: &Shared,
    events: &Receiver<Event>,
    early: &mut Vec<Event>,
) {
    let bound_ms = u64::from(shared.world().plan.global.first_checks_wait_ms);
    if bound_ms == 0 {
        return;
    }
    crossbeam::select! {
        recv(shared.first_checks.over()) -> _ => {}
        recv(events) -> event => early.extend(event),
        default(Duration::from_millis(bound_ms)) => {
            let left = shared.first_checks.left();
            let text = format!(
                "The first checks take longer than {bound_ms} ms ('tune.first-checks-wait'): {left} \
                 are not over, clients are let in."
            );
            shared.messages.console(Severity::Warning, &text);
        }
    }
}

/// Waits until every shard has its ring and its listeners armed. Signals are left in `early`.
pub(super) fn wait_for_shards(
    shared: &Shared,
    events: &Receiver<Event>,
    early: &mut Vec<Event>,
) -> Result<(), String> {
    let started = |shared: &Shared| {
        let world = shared.world();
        let mut ports = world.ports.iter();
        ports.all(|port| port.gauges.turns.load(Relaxed) > 0)
    };
    while !started(shared) {
        match events.recv_timeout(Duration::from_millis(1)) {
            Ok(Event::ShardEnded(shard, Err(error))) => {
                return Err(format!("Shard {} can't start: {error}", shard.0));
            }
            Ok(event) => early.push(event),
            Err(_) => {}
        }
    }
    Ok(())
}

pub(super) fn start_signals(signals: SigSet, events: Sender<Event>) -> io::Result<()> {
    let body = move || {
        while let Ok(signal) = signals.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(body)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shard_alone_on_its_cpu_looks_before_it_sleeps() {
        let quota = |cpus| CgroupLimits {
            cpus,
            memory_bytes: None,
        };
        let with = |spin_us, busy_polling| Global {
            spin_us,
            busy_polling,
            ..Global::default()
        };
        let auto = Spin::UpTo(u32::from(SPIN_AUTO_US));
        assert_eq!(spin(&with(None, false), true, quota(None)), auto);
        assert_eq!(spin(&with(None, false), false, quota(None)), Spin::Never);
        assert_eq!(spin(&with(None, false), true, quota(Some(1))), Spin::Never);
        let asked = with(Some(20), false);
        assert_eq!(spin(&asked, true, quota(Some(1))), Spin::UpTo(20));
        assert_eq!(spin(&asked, false, quota(None)), Spin::Never);
        assert_eq!(spin(&with(Some(0), false), true, quota(None)), Spin::Never);
        assert_eq!(spin(&with(Some(0), true), false, quota(None)), Spin::Always);
    }
}
