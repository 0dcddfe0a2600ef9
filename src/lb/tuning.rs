//! What operators have changed of a server's checks and its agent, in the place of what the
//! configuration says. Who probes looks before every probe; shards never do.

use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::address::Address;

/// Other words for a server's checks and its agent; `None` = those of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tuning {
    /// Where checks connect to.
    pub check_address: Option<Address>,
    /// There are none for the time being.
    pub checks_stopped: bool,
    /// Where the agent listens.
    pub agent_address: Option<Address>,
    /// What it is asked.
    pub agent_question: Option<Arc<str>>,
    /// It is not asked for the time being.
    pub agent_stopped: bool,
}

/// The same, shared.
#[derive(Debug, Default)]
pub struct Tuned {
    tuning: Mutex<Tuning>,
    changes: AtomicU32,
}

impl Tuned {
    /// What was changed.
    pub fn get(&self) -> Tuning {
        self.locked().clone()
    }

    /// Changes something.
    pub fn change(&self, change: impl FnOnce(&mut Tuning)) {
        change(&mut self.locked());
        self.changes.fetch_add(1, Release);
    }

    /// What was changed, unless that is known from as many changes as `seen`, which is brought up
    /// to date.
    pub fn news(&self, seen: &mut u32) -> Option<Tuning> {
        let changes = self.changes.load(Acquire);
        (std::mem::replace(seen, changes) != changes).then(|| self.get())
    }

    /// Whether operators have stopped the checks.
    pub fn checks_stopped(&self) -> bool {
        self.locked().checks_stopped
    }

    /// Whether they have stopped asking the agent.
    pub fn agent_stopped(&self) -> bool {
        self.locked().agent_stopped
    }

    fn locked(&self) -> MutexGuard<'_, Tuning> {
        self.tuning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_heard_once() {
        let (tuned, mut seen) = (Tuned::default(), 0);
        assert_eq!(tuned.news(&mut seen), None);
        tuned.change(|tuning| tuning.checks_stopped = true);
        tuned.change(|tuning| tuning.agent_question = Some("how".into()));
        let news = tuned.news(&mut seen).unwrap();
        assert!(news.checks_stopped && !news.agent_stopped);
        assert_eq!((tuned.news(&mut seen), tuned.get()), (None, news));
    }
}
