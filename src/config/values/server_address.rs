//! The address of a `server` line, and what becomes of a name that doesn't resolve (`init-addr`).

use std::net::IpAddr;

use super::address::{Family, Host, Port, Written};
use crate::base::address::Address;
use crate::config::draft::{InitAddr, Mode};
use crate::config::environment::Environment;
use crate::config::plan::{PortRule, Target};

/// A name that has no address: what is said of it, and how loudly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) enum Note {
    /// The server starts without an address.
    Disabled(String),
    /// The server gets the address of its `init-addr`.
    Fallback(String),
}

/// A server's address as it is written, in a form that is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) enum Form {
    /// A Unix socket.
    Unix(Address),
    /// A host and a port.
    Ip(Host, PortRule),
}

impl Form {
    /// Reads an address, of a server of a proxy of a mode.
    pub(in crate::config) fn parse(text: &str, mode: Mode) -> Result<Form, String> {
        let (host, port) = match Written::parse_for(text, mode)? {
            Written::Unix(path) => return Ok(Form::Unix(Address::Unix(path))),
            Written::Abstract(name) => return Ok(Form::Unix(Address::Abstract(name))),
            Written::Descriptor(_) => {
                return Err(format!("a server can't be a descriptor ('{text}')."));
            }
            Written::Ip(host, port) => (host, port),
        };
        let port = match port {
            Port::One(port) if port > 0 => PortRule::Fixed(port),
            Port::None | Port::One(_) => PortRule::Offset(0),
            Port::Relative(offset) => PortRule::Offset(offset),
            Port::Range(..) => {
                return Err(format!("port range not permitted here in '{text}'"));
            }
        };
        Ok(Form::Ip(host, port))
    }

    /// Where the server is at the start. `methods` is the list of its `init-addr`, `preferred`
    /// what its `resolve-prefer` says.
    pub(in crate::config) fn resolve(
        self,
        environment: &dyn Environment,
        methods: &[InitAddr],
        preferred: Option<Family>,
    ) -> Result<(Target, Option<Note>), String> {
        let (host, port) = match self {
            Form::Unix(address) => return Ok((Target::Fixed(address), None)),
            Form::Ip(host, port) => (host, port),
        };
        let target = |ip| target(ip, port);
        if host.is_any() {
            return Ok((Target::OfClient { ip: None, port }, None));
        }
        let Host::Name(name, _) = &host else {
            return host.resolve(environment).map(|ip| (target(ip), None));
        };
        let mut fault = None;
        for method in methods {
            match method {
                InitAddr::Last => {}
                InitAddr::Libc => match host.resolve_preferring(environment, preferred) {
                    Ok(ip) => return Ok((target(ip), None)),
                    Err(text) => fault = Some(text),
                },
                InitAddr::Ip(ip) => {
                    let text = format!(
                        "could not resolve address '{name}', falling back to configured address."
                    );
                    return Ok((target(*ip), fault.map(|_| Note::Fallback(text))));
                }
                InitAddr::None => {
                    let text = format!("could not resolve address '{name}', disabling server.");
                    return Ok((Target::Unresolved, fault.map(|_| Note::Disabled(text))));
                }
            }
        }
        let text = fault.unwrap_or_else(|| format!("could not resolve address '{name}'"));
        Err(format!("{text}."))
    }
}

/// A server at an IP address.
pub(in crate::config) fn target(ip: IpAddr, port: PortRule) -> Target {
    match port {
        PortRule::Fixed(port) => Target::Fixed(Address::Ip((ip, port).into())),
        PortRule::Offset(_) => Target::OfClient { ip: Some(ip), port },
    }
}

/// The list that holds where a line has no `init-addr`.
pub(in crate::config) fn default_methods(environment: &dyn Environment) -> &'static [InitAddr] {
    if environment.options().ignore_resolution_failures {
        &[InitAddr::Last, InitAddr::Libc, InitAddr::None]
    } else {
        &[InitAddr::Last, InitAddr::Libc]
    }
}

/// The value of `init-addr`.
pub(in crate::config) fn methods(value: &str) -> Result<Vec<InitAddr>, String> {
    let method = |word: &str| match word {
        "last" => Ok(InitAddr::Last),
        "libc" => Ok(InitAddr::Libc),
        "none" => Ok(InitAddr::None),
        other => other.parse().map(InitAddr::Ip).map_err(|_| {
            format!(
                "'init-addr' : unknown init-addr method '{other}', supported methods are 'libc', \
                 'last', 'none'."
            )
        }),
    };
    let words = value.split(',').filter(|word| !word.is_empty());
    words.map(method).collect()
}
