//! Choosing a server: balancer tables, server state, `pick` and `release`.
//!
//! A backend's table is immutable and published whole; picking reads it and touches a few atomics.
//! Only the control thread publishes. This layer never sees a descriptor, a clock or a ring.

mod backend;
mod bound;
mod builder;
mod choose;
pub mod datagram;
mod destination;
mod explain;
mod first;
#[cfg(test)]
mod flows;
mod hashed;
#[cfg(test)]
mod interplay;
mod key;
mod leastconn;
mod load;
mod maglev;
mod map;
mod observed;
mod peak_ewma;
mod queue;
mod ramp;
mod random;
mod ring;
mod roundrobin;
mod sample;
mod sequence;
mod server;
mod sets;
#[cfg(test)]
mod shares;
mod slow_start;
#[cfg(test)]
mod stress;
mod table;
#[cfg(test)]
mod testing;
pub mod timings;
mod tuning;

pub use backend::{Availability, Backend, Grant, Outcome, Pick, PickRequest, Seeds, Waiter};
pub use destination::{Destination, destinations};
pub use explain::{Candidate, Explanation, Home, PlaceKind};
pub use observed::Observed;
pub use sample::{Sampled, sampled};
pub use server::{Admin, CheckReport, Health, Server, ServerCounter};
pub use sets::Usable;
pub use slow_start::{Ramped, TICK_MS};
pub use tuning::{Tuned, Tuning};
