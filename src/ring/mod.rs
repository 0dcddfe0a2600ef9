//! The kernel interface of a shard. Everything a shard asks of the kernel goes through [`Kernel`], which
//! has two implementations: the real ring, and a scripted one for simulation.

mod caps;

pub use caps::{Caps, SetupError};
