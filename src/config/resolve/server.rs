//! From the draft of a server to the plan of it: what its proxy says of all, and its check.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::check::knows_ports;
use super::{Builder, numbers};
use crate::base::address::Address;
use crate::base::ids::ServerId;
use crate::config::diagnostics::Severity;
use crate::config::draft::{ProxyDraft, ServerDraft, ServerSettings, Settings};
use crate::config::plan::{Check, PortRule, Server, Target};

/// HAProxy numbers the servers of a backend from 1.
const SID_FIRST: u32 = 1;

impl Builder<'_, '_> {
    /// The servers' numbers: those that are written, and for the others the next free ones.
    pub(in crate::config) fn server_ids(&mut self, draft: &ProxyDraft) -> Vec<u32> {
        let mut taken: HashMap<u32, &ServerDraft> = HashMap::new();
        for server in &draft.servers {
            let Some(sid) = server.settings.sid else {
                continue;
            };
            if let Some(first) = taken.insert(sid, server) {
                let text = format!(
                    "'server {}/{}' : 'id' : custom id {sid} already used at {} ('server {}').",
                    draft.name, server.name, first.place, first.name
                );
                self.report.alert(&server.place, None, text);
            }
        }
        let own = draft.servers.iter().map(|server| server.settings.sid);
        numbers(SID_FIRST, own.collect())
    }

    /// One server, with what its proxy says of all.
    pub(in crate::config) fn server(
        &mut self,
        server_id: ServerId,
        sid: u32,
        draft: &ServerDraft,
        proxy: &ProxyDraft,
    ) -> Server {
        let settings = &draft.settings;
        let source = settings.source.or(proxy.settings.source);
        let mut fault = |text: String| {
            let what = format!("'server {}/{}'", proxy.name, draft.name);
            self.report
                .alert(&draft.place, None, format!("{what} : {text}"));
        };
        if let (Some(from), Some(to)) = (source.and_then(|source| source.ip), ip(&draft.address))
            && from.is_ipv4() != to.is_ipv4()
        {
            fault(format!(
                "'source' address '{from}' and the server's address '{to}' are of different \
                 families."
            ));
        }
        // The servers of a disabled proxy are read, so that its errors show, and never used.
        let wanted = settings.check && !proxy.settings.disabled;
        let checked = wanted && draft.address != Target::Unresolved;
        let own_ports = knows_ports(&proxy.settings.check_kind);
        let address = checked.then(|| check_address(draft, own_ports));
        if address == Some(None) {
            let text = format!(
                "proxy '{}': server '{}' has neither service port nor check port.",
                proxy.name, draft.name
            );
            self.report.bare(Severity::Alert, &draft.place, text);
        }
        let (minconn, maxconn) = limits(settings);
        Server {
            server_id,
            sid,
            name: draft.name.as_str().into(),
            address: draft.address.clone(),
            address_text: draft.address_text.clone(),
            weight: settings.weight,
            maxconn,
            minconn,
            maxqueue: settings.maxqueue,
            backup: settings.backup,
            disabled: settings.disabled || proxy.settings.disabled,
            check: address.flatten().map(|address| Check {
                address,
                inter_ms: settings.inter_ms,
                fast_inter_ms: settings.fast_inter_ms.unwrap_or(settings.inter_ms),
                down_inter_ms: settings.down_inter_ms.unwrap_or(settings.inter_ms),
                fall: settings.fall,
                rise: settings.rise,
                timeout_ms: check_timeout_ms(settings.inter_ms, &proxy.settings),
                source,
                scripted: None,
            }),
            tcp_user_timeout_ms: settings.tcp_user_timeout_ms,
            congestion: settings.congestion,
            source,
            place: draft.place.to_string(),
        }
    }
}

/// `minconn` and `maxconn` with what one says of the other. A `minconn` that isn't below `maxconn`,
/// or is alone, is the limit at all times.
fn limits(settings: &ServerSettings) -> (u32, u32) {
    match (settings.minconn, settings.maxconn) {
        (0, maxconn) => (0, maxconn),
        (minconn, maxconn) if minconn >= maxconn => (0, minconn),
        (minconn, maxconn) => (minconn, maxconn),
    }
}

/// A server's IP address, as far as it has one of its own.
fn ip(target: &Target) -> Option<IpAddr> {
    match target {
        Target::Fixed(Address::Ip(address)) => Some(address.ip()),
        Target::OfClient { ip, .. } => *ip,
        Target::Fixed(Address::Unix(_) | Address::Abstract(_)) | Target::Unresolved => None,
    }
}

/// The server's address with `addr` and `port` applied; `None` if no port is known, unless the
/// steps of its check have their own. A Unix socket has no port to apply.
fn check_address(draft: &ServerDraft, own_ports: bool) -> Option<Address> {
    let settings = &draft.settings;
    let (ip, port) = match &draft.address {
        Target::Fixed(Address::Ip(address)) => (Some(address.ip()), Some(address.port())),
        Target::Fixed(unix @ (Address::Unix(_) | Address::Abstract(_))) => {
            return Some(match (settings.check_address, settings.check_port) {
                (Some(ip), Some(port)) => Address::Ip((ip, port).into()),
                _ => unix.clone(),
            });
        }
        Target::OfClient { ip, port } => (
            *ip,
            match port {
                PortRule::Fixed(port) => Some(*port),
                PortRule::Offset(_) => None,
            },
        ),
        Target::Unresolved => return None,
    };
    // Without any address it is this machine that is checked, as HAProxy has it.
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = settings.check_address.or(ip).unwrap_or(any);
    let port = settings.check_port.or(port);
    let port = port.or(own_ports.then_some(0))?;
    Some(Address::Ip((ip, port).into()))
}

fn check_timeout_ms(inter_ms: u32, proxy: &Settings) -> u32 {
    let set = |timeout: Option<u32>| timeout.filter(|ms| *ms > 0);
    match (set(proxy.timeouts.check), set(proxy.timeouts.connect)) {
        (Some(check), _) => check,
        (None, Some(connect)) => connect.min(inter_ms),
        (None, None) => inter_ms,
    }
}
