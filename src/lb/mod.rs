//! Choosing a server: balancer tables, server state, `pick` and `release`.
//!
//! A backend's table is immutable and published whole; picking reads it and touches a few atomics.
//! Only the control thread publishes. This layer never sees a descriptor, a clock or a ring.

mod backend;
mod server;

pub use backend::{Backend, Grant, Outcome, Pick, PickRequest, Waiter};
pub use server::{Admin, CheckReport, Health, Server, ServerCounter};
