//! What the configuration needs from outside, as the caller provides it.
//!
//! The config layer opens nothing and asks the system nothing: files, variables, users, names and
//! the machine's own addresses come through these traits, so that tests can make them up.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::plan::LocalPorts;

/// Turns host names into addresses.
pub trait Resolver {
    /// The addresses of a name, the preferred one first, or why there is none.
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String>;
}

/// What the command line says about how a configuration is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `-dr`: a server whose name doesn't resolve is no error; it starts without an address, in
    /// maintenance, unless its `init-addr` says otherwise.
    pub ignore_resolution_failures: bool,
    /// `-4`: names have IPv4 addresses only.
    pub ipv4_only: bool,
    /// `-dD`: what is only suspicious is said too.
    pub diagnose: bool,
    /// `-N`: `maxconn` of proxies that set none.
    pub proxy_maxconn: Option<u32>,
}

/// The outside world of a load.
pub trait Environment: Resolver {
    /// What the command line says.
    fn options(&self) -> Options {
        Options::default()
    }
    /// The name of this instance among its peers: `-L`, else the name of the host.
    fn local_peer(&self) -> String {
        String::new()
    }
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The number of a user.
    fn user_id(&self, name: &str) -> Option<u32>;
    /// The number of a group.
    fn group_id(&self, name: &str) -> Option<u32>;
    /// The addresses of this machine's interfaces; loopback need not be among them.
    fn local_addresses(&self) -> &[IpAddr];
    /// The ports that the system chooses from for connections.
    fn local_ports(&self) -> LocalPorts {
        LocalPorts::default()
    }
}
