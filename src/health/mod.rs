//! Whether a server is well: pure rules over the outcomes of probes and connections.
//!
//! Nothing here probes, waits or tells the balancer: the probe thread feeds outcomes in and acts on
//! the transitions that come out.

mod agent;
mod answer;
mod circuit;
mod datagram;
mod rules;
mod schedule;
mod script;
mod verdicts;

pub use agent::{AgentWeight, Answer};
pub use circuit::Circuit;
pub use datagram::{DatagramRun, NextDatagram};
pub use rules::{Outcome, Rules, Transition};
pub use schedule::{first_after, interval_ms, spread_ms};
pub use script::{ANSWER_BYTES_MAX, Finding, Next, Problem, Run};
pub use verdicts::{Verdicts, Witness};
