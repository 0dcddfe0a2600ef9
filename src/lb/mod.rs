//! Choosing a server: balancer tables, server state, `pick` and `release`.
//!
//! A backend's table is immutable and published whole; picking reads it and touches a few atomics.
//! Only the control thread publishes. This layer never sees a descriptor, a clock or a ring.

mod backend;
mod leastconn;
mod observed;
mod queue;
mod ramp;
mod roundrobin;
mod sequence;
mod server;
mod sets;
mod source;
#[cfg(test)]
mod stress;
mod table;
#[cfg(test)]
mod testing;

pub use backend::{Availability, Backend, Grant, Outcome, Pick, PickRequest, Waiter};
pub use observed::Observed;
pub use server::{Admin, CheckReport, Health, Server, ServerCounter};
pub use sets::Usable;
