//! Changes that are found at the same time reach the tables together.
//!
//! A table of many servers takes up to a tenth of a second to build, so when hundreds of servers
//! fail at once, a table for each would keep clients on dead servers for longer than the checks
//! took to find out. What the control thread finds in its queues is therefore applied as one
//! batch, and each backend's table is published once, at its end. Alone a change is as quick as
//! ever.
//!
//! A change is put in force at once where something that follows it rests on that: sessions that
//! wait, which its line counts, and sessions that are ended.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Shared, apply};
use crate::base::ids::ProxyId;
use crate::lb::{Backend, Server};

/// The batch under way, if there is one. Only the control thread touches it.
#[derive(Debug, Default)]
pub(super) struct Batch(Mutex<Option<BTreeSet<ProxyId>>>);

impl Batch {
    /// Leaves a backend's table to the end of the batch; false if there is no batch.
    fn add(&self, backend: &Backend) -> bool {
        let mut batch = self.locked();
        let Some(backends) = batch.as_mut() else {
            return false;
        };
        backends.insert(backend.proxy.proxy_id);
        true
    }

    fn locked(&self) -> MutexGuard<'_, Option<BTreeSet<ProxyId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes changes as one batch: they are in force when this returns.
pub(super) fn together(shared: &Shared, changes: impl FnOnce()) {
    *shared.batch.locked() = Some(BTreeSet::new());
    changes();
    let backends = shared.batch.locked().take().unwrap_or_default();
    for backend in backends {
        if let Some(backend) = shared.world().backend(backend) {
            apply::publish_now(shared, backend);
        }
    }
}

/// Leaves the publication of a change to the end of the batch under way, if it may be left;
/// `server` is the one that goes out of service or comes back, if one does.
pub(super) fn defers(shared: &Shared, backend: &Backend, server: Option<&Server>) -> bool {
    let ends_sessions = server.is_some_and(|server| {
        let watch = &server.plan.watch;
        watch.ends_sessions || watch.ends_backup_sessions
    });
    !ends_sessions && backend.queued() == 0 && shared.batch.add(backend)
}
