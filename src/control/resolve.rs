//! The outside world of the configuration: files, variables, users, names, the machine's addresses.
//!
//! Names are resolved by the C library's resolver (hosts file, then DNS), which blocks: this runs
//! at start and on the control thread, never on a shard.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::config::plan::{LocalPorts, PortReuse};
use crate::config::{Environment, Options, Resolver};
use crate::sys::process;

/// The files that `-f` arguments stand for: a directory stands for its `*.cfg` files, the hidden
/// ones left out, in the order of their names' bytes. What can't be looked into stands for itself,
/// so that the attempt to read it says why. That there is no file at all is an error, as a message.
pub fn config_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let expand = |path: &PathBuf| match std::fs::read_dir(path) {
        Ok(entries) => config_files_among(entries).unwrap_or_else(|_| vec![path.clone()]),
        Err(_) => vec![path.clone()],
    };
    let files: Vec<PathBuf> = paths.iter().flat_map(expand).collect();
    if files.is_empty() {
        let names: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        return Err(format!(
            "No configuration file in {}: of a directory those whose names end in '.cfg' are read.",
            names.join(", ")
        ));
    }
    Ok(files)
}

fn config_files_among(entries: std::fs::ReadDir) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        // A pipe would block, and a link that leads nowhere is worth an error.
        let other = std::fs::metadata(&file).is_ok_and(|about| !about.is_file());
        if name.ends_with(b".cfg") && !name.starts_with(b".") && !other {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// The real system.
#[derive(Debug, Default)]
pub struct SystemEnvironment {
    local_addresses: Vec<IpAddr>,
    options: Options,
    local_peer: String,
    local_ports: LocalPorts,
    /// A name is asked for once per load, however many servers have it.
    resolved: Mutex<HashMap<String, Result<Vec<IpAddr>, String>>>,
}

impl SystemEnvironment {
    /// Looks at the machine's addresses as they are now.
    pub fn new() -> SystemEnvironment {
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let addresses = interfaces.filter_map(|interface| interface.address);
        let ip = |address: nix::sys::socket::SockaddrStorage| {
            let v4 = address
                .as_sockaddr_in()
                .map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| {
                address
                    .as_sockaddr_in6()
                    .map(|address| IpAddr::V6(address.ip()))
            })
        };
        SystemEnvironment {
            local_addresses: addresses.filter_map(ip).collect(),
            options: Options::default(),
            local_peer: process::host_name().to_owned(),
            local_ports: local_ports(),
            resolved: Mutex::default(),
        }
    }

    /// The same with what the command line says.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> SystemEnvironment {
        self.options = options;
        self
    }

    /// The same under another name among its peers than the host's.
    #[must_use]
    pub fn with_local_peer(mut self, name: &str) -> SystemEnvironment {
        name.clone_into(&mut self.local_peer);
        self
    }
}

impl Resolver for SystemEnvironment {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let Ok(mut resolved) = self.resolved.lock() else {
            return Err("the resolver failed before".to_owned());
        };
        let lookup = || {
            let addresses = (host, 0)
                .to_socket_addrs()
                .map_err(|error| error.to_string())?;
            let wanted = |ip: &IpAddr| ip.is_ipv4() || !self.options.ipv4_only;
            let found: Vec<IpAddr> = addresses.map(|a| a.ip()).filter(wanted).collect();
            if found.is_empty() {
                return Err("it has no address of a wanted family".to_owned());
            }
            Ok(found)
        };
        resolved
            .entry(host.to_owned())
            .or_insert_with(lookup)
            .clone()
    }
}

impl Environment for SystemEnvironment {
    fn options(&self) -> Options {
        self.options
    }

    fn local_peer(&self) -> String {
        self.local_peer.clone()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        let user = nix::unistd::User::from_name(name).ok().flatten();
        user.map(|user| user.uid.as_raw())
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        let group = nix::unistd::Group::from_name(name).ok().flatten();
        group.map(|group| group.gid.as_raw())
    }

    fn local_addresses(&self) -> &[IpAddr] {
        &self.local_addresses
    }

    fn local_ports(&self) -> LocalPorts {
        self.local_ports.clone()
    }
}

/// What the kernel says of its ports, ip-sysctl. What can't be read is as Linux has it by default.
fn local_ports() -> LocalPorts {
    let setting = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        text.unwrap_or_default()
    };
    local_ports_of(
        &setting("ip_local_port_range"),
        &setting("ip_local_reserved_ports"),
        &setting("tcp_tw_reuse"),
    )
}

fn local_ports_of(range: &str, reserved: &str, reuse: &str) -> LocalPorts {
    let usual = LocalPorts::default();
    let port = |word: &str| word.parse::<u16>().ok().filter(|port| *port > 0);
    let mut ends = range.split_whitespace().map(port);
    let (low, high) = match (ends.next().flatten(), ends.next().flatten()) {
        (Some(low), Some(high)) if low <= high => (low, high),
        _ => (usual.low, usual.high),
    };
    let ranges = reserved.trim().split(',').filter_map(|words| {
        let (low, high) = words.split_once('-').unwrap_or((words, words));
        Some((port(low)?, port(high)?))
    });
    LocalPorts {
        low,
        high,
        reserved: ranges.collect(),
        reuse: match reuse.trim() {
            "0" => PortReuse::Never,
            "1" => PortReuse::Always,
            _ => PortReuse::Loopback,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_answers() {
        let system = SystemEnvironment::new();
        assert!(system.local_addresses().iter().any(IpAddr::is_loopback));
        assert!(
            system
                .resolve("localhost")
                .unwrap()
                .iter()
                .all(IpAddr::is_loopback)
        );
        assert!(system.resolve("no.such.name.invalid").is_err());
        assert_eq!(
            (system.user_id("root"), system.group_id("no-such-group")),
            (Some(0), None)
        );
    }

    #[test]
    fn the_kernels_ports_are_understood() {
        let system = SystemEnvironment::new().local_ports();
        assert!(system.low < system.high && system.count() > 1);
        let ports = local_ports_of("10000\t65000\n", "8080,9148,20000-20010\n", "1\n");
        assert_eq!((ports.low, ports.high), (10_000, 65_000));
        let reserved = [(8080, 8080), (9148, 9148), (20_000, 20_010)];
        assert_eq!(ports.reserved, reserved);
        assert_eq!(ports.reuse, PortReuse::Always);
        assert_eq!(local_ports_of("\n", "\n", "\n"), LocalPorts::default());
        let odd = local_ports_of("7 5", "x-2,3-,70000", "0");
        let never = LocalPorts {
            reuse: PortReuse::Never,
            ..LocalPorts::default()
        };
        assert_eq!(odd, never);
    }

    #[test]
    fn with_ipv4_only_a_name_has_no_other_addresses() {
        let options = Options {
            ipv4_only: true,
            ..Options::default()
        };
        let system = SystemEnvironment::new().with_options(options);
        assert_eq!(system.options(), options);
        let addresses = system.resolve("localhost").unwrap();
        assert!(addresses.iter().all(IpAddr::is_ipv4));
        assert!(system.resolve("::1").is_err());
    }

    #[test]
    fn a_directory_stands_for_its_configs() {
        let directory = std::env::temp_dir().join(format!("tidegate-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["b.cfg", "a.cfg", "B.cfg", ".c.cfg", "d.txt"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        // Neither is a file to read, and opening the pipe would block.
        std::fs::create_dir_all(directory.join("e.cfg")).unwrap();
        nix::unistd::mkfifo(&directory.join("f.cfg"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let other = PathBuf::from("other.conf");
        let files = config_files(&[directory.clone(), other.clone()]).unwrap();
        let expected = ["B.cfg", "a.cfg", "b.cfg"].map(|name| directory.join(name));
        assert_eq!(files[..3], expected);
        assert_eq!((files.len(), &files[3]), (4, &other));
        let empty = directory.join("e.cfg");
        assert!(config_files(std::slice::from_ref(&empty)).is_err());
        assert_eq!(config_files(&[empty, other.clone()]).unwrap(), [other]);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
