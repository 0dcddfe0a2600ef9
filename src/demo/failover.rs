//! The demo's timeline: one upstream dies after a third of the time and comes back after two
//! thirds.

use std::time::Duration;

use super::datagrams::DatagramLoad;
use super::load::Load;
use super::screen::{grouped, seconds};
use super::upstreams::{self, Upstreams};
use crate::base::time::Moment;
use crate::lb::{Backend, Health, ServerCounter};

/// Place of the upstream that dies.
pub(super) const VICTIM: usize = 1;

/// What has happened so far.
#[derive(Debug)]
pub(super) struct Failover {
    began: Moment,
    kill_at: Moment,
    start_at: Moment,
    killed: Option<Moment>,
    down: Option<Moment>,
    started: Option<Moment>,
    up: Option<Moment>,
    redispatched_before: u64,
}

impl Failover {
    /// The timeline of a show that began at `began`.
    pub(super) fn new(began: Moment, duration: Duration) -> Failover {
        Failover {
            began,
            kill_at: began + duration / 3,
            start_at: began + duration * 2 / 3,
            killed: None,
            down: None,
            started: None,
            up: None,
            redispatched_before: 0,
        }
    }

    /// Does what is due at `now` and returns a line for each thing that happened.
    pub(super) fn step(
        &mut self,
        now: Moment,
        backend: &Backend,
        upstreams: &Upstreams,
        load: &Load,
        datagrams: &DatagramLoad,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let name = upstreams::name(VICTIM);
        let health = backend.servers[VICTIM].health();
        let mut say =
            |text: String| lines.push(format!("{:>8}  {text}", seconds(now - self.began)));
        if self.killed.is_none() && now >= self.kill_at {
            self.redispatched_before = redispatched(backend);
            load.kill_begins();
            datagrams.kill_begins();
            match upstreams.kill(VICTIM) {
                Ok(at) => load.kill_done(at),
                Err(error) => say(format!("{name} could not be killed: {error}")),
            }
            self.killed = Some(now);
            say(format!(
                "{name} KILLED: its listener and its connections are closed"
            ));
        } else if let (Some(killed), None, Health::Down) = (self.killed, self.down, health) {
            self.down = Some(now);
            say(format!(
                "{name} is DOWN: checks took it out of the balancing {} after the kill; {} connects \
                 were redispatched in between",
                seconds(now - killed),
                grouped(self.redispatched(backend)),
            ));
        }
        if self.started.is_none() && now >= self.start_at {
            if let Err(error) = upstreams.start_again(VICTIM) {
                say(format!("{name} could not be started again: {error}"));
            }
            self.started = Some(now);
            say(format!("{name} STARTED AGAIN"));
        } else if let (Some(started), Some(_), None, Health::Up) =
            (self.started, self.down, self.up, health)
        {
            self.up = Some(now);
            let gap = seconds(now - started);
            say(format!(
                "{name} is UP: back in the balancing {gap} after its start"
            ));
        }
        lines
    }

    /// Connects that were given to another upstream since the kill.
    pub(super) fn redispatched(&self, backend: &Backend) -> u64 {
        redispatched(backend).saturating_sub(self.redispatched_before)
    }

    /// Lines of the summary.
    pub(super) fn report(&self, backend: &Backend) -> [String; 2] {
        let name = upstreams::name(VICTIM);
        let out = match (self.killed, self.down) {
            (None, _) => "no upstream was killed".to_owned(),
            (Some(_), None) => format!("{name} was killed; its checks have not said so yet"),
            (Some(killed), Some(down)) => format!(
                "{name} was out of the balancing {} after the kill; {} connects were redispatched",
                seconds(down - killed),
                grouped(self.redispatched(backend)),
            ),
        };
        let back = match (self.started, self.up) {
            (None, _) if self.killed.is_none() => "the show ended before that".to_owned(),
            (None, _) => format!("{name} was not started again"),
            (Some(_), None) => format!("{name} was started again; it was not UP before the end"),
            (Some(started), Some(up)) => {
                format!(
                    "{name} was served again {} after its start",
                    seconds(up - started)
                )
            }
        };
        [out, back]
    }
}

/// Connects, or flows, that were given to another upstream.
pub(super) fn redispatched(backend: &Backend) -> u64 {
    let servers = backend.servers.iter();
    servers
        .map(|server| server.counters.sum(ServerCounter::Redispatches as usize))
        .sum()
}
