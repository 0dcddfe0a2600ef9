//! The world in which fuzzed configurations are loaded: it has no files, answers every name and
//! never looks at the system.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use tidegate::config::{Environment, Resolver};

/// See the module.
#[derive(Debug)]
pub struct World;

impl Resolver for World {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host.len() % 3 {
            0 => Err("name not known".to_owned()),
            1 => Ok(vec![IpAddr::from([192, 0, 2, 1])]),
            _ => Ok(vec![IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])]),
        }
    }
}

impl Environment for World {
    fn variable(&self, name: &str) -> Option<String> {
        (name.len() % 2 == 0).then(|| format!(" {name} 1"))
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        (name == "www").then_some(33)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        (name == "www").then_some(33)
    }

    fn local_addresses(&self) -> &[IpAddr] {
        &[]
    }
}
