//! What a shard tells of servers: attempts to connect that failed.
//!
//! Only the server's own failures count. Where this side lacks a descriptor, memory or a port,
//! nothing is told. Nor does the end of an established connection count, however early: a client
//! whose bytes make a server reset would otherwise decide who is served.

use super::Shard;
use super::control_port::Observation;
use crate::base::time::Moment;
use crate::lb::{Outcome, Server};
use crate::ring::{ConnectError, Kernel};

impl<K: Kernel> Shard<K> {
    /// An attempt that began at this moment has failed.
    pub(super) fn observe_failure(&self, server: &Server, error: ConnectError, began: Moment) {
        if outcome_of(error) != Outcome::ConnectFailed {
            return;
        }
        let (id, control) = (server.id, &self.world.control);
        if server.observed.tells_failures() {
            control.tell(Observation::Failed {
                server: id,
                began,
                at: self.now,
            });
        }
        if server.observed.failed() {
            control.tell(Observation::ErrorLimit { server: id });
        }
    }
}

/// What a failed attempt says of the server.
pub(super) fn outcome_of(error: ConnectError) -> Outcome {
    match error {
        ConnectError::Resource | ConnectError::NoPort => Outcome::Abandoned,
        ConnectError::Refused
        | ConnectError::Unreachable
        | ConnectError::TimedOut
        | ConnectError::Unexpected(_) => Outcome::ConnectFailed,
    }
}
