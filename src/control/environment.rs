//! The outside world as the config layer asks for it: variables, files, names, users, addresses.

use nix::ifaddrs::getifaddrs;
use nix::unistd::{Group, User};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use crate::config::{Environment, Resolver};

/// The system this process runs on. Names are resolved by the C library, once, at the load.
#[derive(Debug)]
pub struct SystemEnvironment {
    local: Vec<IpAddr>,
}

impl SystemEnvironment {
    /// Reads the addresses of the machine's interfaces.
    pub fn new() -> SystemEnvironment {
        let mut local = Vec::new();
        for interface in getifaddrs().into_iter().flatten() {
            let Some(address) = interface.address else {
                continue;
            };
            if let Some(v4) = address.as_sockaddr_in() {
                local.push(IpAddr::V4(v4.ip()));
            } else if let Some(v6) = address.as_sockaddr_in6() {
                local.push(IpAddr::V6(v6.ip()));
            }
        }
        SystemEnvironment { local }
    }
}

impl Default for SystemEnvironment {
    fn default() -> SystemEnvironment {
        SystemEnvironment::new()
    }
}

impl Resolver for SystemEnvironment {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let found = (host, 0)
            .to_socket_addrs()
            .map_err(|error| error.to_string())?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.map(|address| address.ip()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

impl Environment for SystemEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        User::from_name(name)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        Group::from_name(name)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    }

    fn local_addresses(&self) -> &[IpAddr] {
        &self.local
    }
}
