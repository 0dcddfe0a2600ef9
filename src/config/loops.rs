//! Finds listeners that collide and servers that are the program itself.
//!
//! A server whose address is one of our own listeners would make each connection cause another,
//! until the descriptors are used up. Whether an address is ours includes wildcards: `:80` takes
//! what is sent to 127.0.0.0/8, to ::1 and to any address of the machine.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::diagnostics::{Place, Report};
use super::draft::{BindDraft, ServerDraft};
use super::environment::Environment;
use super::plan::Endpoint;
use crate::base::address::Address;

/// The listening addresses of a configuration.
#[derive(Default)]
pub(super) struct Listening {
    exact: HashMap<Endpoint, Place>,
    /// Ports of wildcards that take IPv4, and of those that take IPv6.
    wildcard_v4: HashMap<u16, Place>,
    wildcard_v6: HashMap<u16, Place>,
}

impl Listening {
    /// Adds a bind's addresses; says which of them are taken already.
    pub(super) fn add(&mut self, bind: &BindDraft, report: &mut Report) {
        for endpoint in &bind.endpoints {
            let key = canonical(endpoint);
            if let Some(other) = self.exact.get(&key) {
                let what = match endpoint {
                    Endpoint::Address(address) => format!("address '{address}'"),
                    Endpoint::Descriptor(number) => format!("descriptor 'fd@{number}'"),
                };
                let text = format!("'bind' : {what} is already used by the 'bind' at {other}.");
                report.alert(&bind.place, None, text);
                continue;
            }
            self.exact.insert(key, bind.place.clone());
            let Endpoint::Address(Address::Ip(address)) = endpoint else {
                continue;
            };
            if !address.ip().is_unspecified() {
                continue;
            }
            let port = address.port();
            if address.is_ipv6() {
                self.wildcard_v6
                    .entry(port)
                    .or_insert_with(|| bind.place.clone());
            }
            // The kernel's default is that an IPv6 wildcard takes IPv4 as well.
            if address.is_ipv4() || bind.settings.v6only != Some(true) {
                self.wildcard_v4
                    .entry(port)
                    .or_insert_with(|| bind.place.clone());
            }
        }
    }

    /// Says so if a server is one of our own listeners.
    pub(super) fn check_server(
        &self,
        backend: &str,
        server: &ServerDraft,
        environment: &dyn Environment,
        report: &mut Report,
    ) {
        if let Some(place) = self.find(&server.address, environment) {
            let text = format!(
                "'server {backend}/{}' : '{}' is this program's own listener, the 'bind' at \
                 {place}: connections would go round in a circle.",
                server.name, server.address_text
            );
            report.alert(&server.place, None, text);
        }
    }

    fn find(&self, address: &Address, environment: &dyn Environment) -> Option<&Place> {
        let key = canonical(&Endpoint::Address(address.clone()));
        if let Some(place) = self.exact.get(&key) {
            return Some(place);
        }
        let Address::Ip(address) = address else {
            return None;
        };
        let ip = address.ip().to_canonical();
        let ours = environment
            .local_addresses()
            .iter()
            .any(|local| local.to_canonical() == ip);
        if !ip.is_loopback() && !ours {
            return None;
        }
        match ip {
            IpAddr::V4(_) => self.wildcard_v4.get(&address.port()),
            IpAddr::V6(_) => self.wildcard_v6.get(&address.port()),
        }
    }
}

/// An IPv4 address written in IPv6 is the same address.
fn canonical(endpoint: &Endpoint) -> Endpoint {
    match endpoint {
        Endpoint::Address(Address::Ip(address)) => {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            Endpoint::Address(Address::Ip(address))
        }
        other => other.clone(),
    }
}
