//! Tidegate: a layer-4 stream balancer for Linux, built on io_uring.
//!
//! The modules are layers; each may use only those before it. `tests/tidy.rs` checks this table.
//!
//! | layer | may use | holds |
//! |---|---|---|
//! | `base` | – | ids, time, counters, limits, timer wheel, slab, histogram, hash |
//! | `limits` | – | every bound of the process |
//! | `sys` | `base` | the system calls that are not on a ring: sockets, process |
//! | `ring` | `base`, `sys` | the kernel interface of a shard: completions, buffer rings, direct calls |
//! | `config` | `base` | text to `Raw` to `Plan`; diagnostics; `Change` |
//! | `lb` | `base`, `config` | balancer tables, servers, pick and release |
//! | `health` | `base`, `config` | rise/fall rules |
//! | `flow` | `base` | pure session machine: one direction, termination, phases |
//! | `shard` | all above | the data plane: one thread, one ring each |
//! | `control` | all above (of `shard` only what `shard/mod.rs` exports) | probes, logs, runtime API |
//! | `process` | all above | start, pin, drain, stop |
//! | `demo` | all above | a balancer with upstreams and load of its own, to look at |
//! | `ctl` | `base`, `sys` | a client of the runtime socket, and its screen |
//! | `probe_tool` | `base`, `sys` | load for a balancer, from outside |
//! | `cli` | all above | the command line |
#![deny(unsafe_code)]

pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod ctl;
pub mod demo;
pub mod flow;
pub mod health;
pub mod lb;
pub mod limits;
pub mod probe_tool;
pub mod process;
#[allow(unsafe_code)]
pub mod ring;
pub mod shard;
#[allow(unsafe_code)]
pub mod sys;
