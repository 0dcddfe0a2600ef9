//! Configurations of simulations: read without anything around them.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use tidegate::config::plan::Plan;
use tidegate::config::{self, Environment, Resolver};

/// The plan of a configuration.
pub(crate) fn plan_of(text: &str) -> Plan {
    let plan = config::load_text("sim.cfg", text, &Nothing).0;
    plan.unwrap_or_else(|| panic!("not a configuration:\n{text}"))
}

/// An environment without anything.
struct Nothing;

impl Resolver for Nothing {
    fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        Err("no names here".to_owned())
    }
}

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn user_id(&self, _: &str) -> Option<u32> {
        None
    }
    fn group_id(&self, _: &str) -> Option<u32> {
        None
    }
    fn local_addresses(&self) -> &[IpAddr] {
        &[]
    }
}
