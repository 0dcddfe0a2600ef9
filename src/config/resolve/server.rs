//! From the draft of a server to the plan of it: what its proxy says of all, and its check.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use super::check::knows_ports;
use super::udp::datagram_check;
use super::{Builder, numbers};
use crate::base::address::Address;
use crate::base::ids::ServerId;
use crate::base::send_proxy::{SendProxy, Version};
use crate::base::source::Source;
use crate::config::diagnostics::Severity;
use crate::config::draft::{ProxyDraft, ServerDraft, ServerSettings, Settings};
use crate::config::plan::{Agent, Check, PortRule, Server, SlowStart, Target, Watch};

/// `agent-inter` where it isn't set.
const AGENT_INTER_MS: u32 = 2_000;
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
        if let (Some(from), Some(to)) = (
            source.and_then(|source| source.named_ip()),
            ip(&draft.address),
        ) && from.is_ipv4() != to.is_ipv4()
        {
            fault(format!(
                "'source' address '{from}' and the server's address '{to}' are of different \
                 families."
            ));
        }
        let send_proxy = self.send_proxy(draft, proxy);
        self.check_header(send_proxy, draft, proxy);
        self.check_target(draft, proxy);
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
        // As an unresolved server: there is nothing to ask.
        let asked = settings.agent.asked && !proxy.settings.disabled;
        let asked = asked && draft.address != Target::Unresolved;
        let agent = asked.then(|| agent(draft, proxy));
        if agent == Some(None) {
            let text = format!(
                "'server {}/{}' : server {} does not have agent port. Agent check has been \
                 disabled.",
                proxy.name, draft.name, draft.name
            );
            self.report.alert(&draft.place, None, text);
        }
        let watch = Watch {
            agent: agent.flatten(),
            tracks: self.tracks.remove(&server_id),
            ends_sessions: settings.ends_sessions,
            ends_backup_sessions: settings.ends_backup_sessions,
        };
        let slow_start = slow_start(settings);
        if slow_start.is_none() && settings.slow_start_rate > 0 {
            let text = format!(
                "'server {}/{}' : 'slowstart-connrate' has no effect without 'slowstart'.",
                proxy.name, draft.name
            );
            self.report.warning(&draft.place, None, text);
        }
        let (minconn, maxconn) = limits(settings);
        let timeout_ms = check_timeout_ms(settings.inter_ms, &proxy.settings);
        let datagram = datagram_check(draft, proxy);
        // A datagram has no connect before it: there is one time, that of the answer.
        let check_ms = match (&datagram, set(proxy.settings.timeouts.check)) {
            (Some(_), whole_ms) => whole_ms.unwrap_or(settings.inter_ms),
            (None, _) => timeout_ms,
        };
        let check = address.flatten().map(|address| Check {
            address,
            inter_ms: settings.inter_ms,
            fast_inter_ms: settings.fast_inter_ms.unwrap_or(settings.inter_ms),
            down_inter_ms: settings.down_inter_ms.unwrap_or(settings.inter_ms),
            fall: settings.fall,
            rise: settings.rise,
            timeout_ms: check_ms,
            source: source.map(Source::own),
            send_proxy: checks_send(settings, send_proxy),
            init_state: settings.init_state,
            scripted: None,
            datagram,
            header: proxy.settings.udp.header,
        });
        // A probe in a client's stead has the bound of a client's connect.
        let connect_ms = set(proxy.settings.timeouts.connect);
        let trial_ms = connect_ms.map_or(timeout_ms, |ms| ms.min(settings.inter_ms));
        let own = source.map(Source::own);
        let passive = self.passive(draft, proxy, check.as_ref(), trial_ms, own, send_proxy);
        Server {
            server_id,
            sid,
            sid_given: settings.sid.is_some(),
            name: draft.name.as_str().into(),
            address: draft.address.clone(),
            address_text: draft.address_text.clone(),
            weight: settings.weight,
            maxconn,
            minconn,
            maxqueue: settings.maxqueue,
            backup: settings.backup,
            disabled: settings.disabled || proxy.settings.disabled,
            check,
            watch,
            slow_start,
            passive,
            tcp_user_timeout_ms: settings.tcp_user_timeout_ms,
            congestion: settings.congestion,
            source,
            hash_key: settings.hash_key,
            guid: settings.guid.clone().unwrap_or_default(),
            quic_id: settings.quic_id.clone(),
            send_proxy,
            origin: draft.origin,
            place: draft.place.to_string(),
        }
    }

    /// The header that a server gets.
    fn send_proxy(&mut self, draft: &ServerDraft, proxy: &ProxyDraft) -> Option<SendProxy> {
        let words = draft.settings.send_proxy;
        let options = words.tls || words.checksum || words.unique_id || words.authority;
        let version = match (words.second, words.first || options) {
            (true, _) => Version::Two,
            (false, true) => Version::One,
            (false, false) => return None,
        };
        if options && version == Version::One {
            // Which is what HAProxy makes of it, without a word.
            let text = format!(
                "'server {}/{}' : 'proxy-v2-options' without 'send-proxy-v2': the server gets a \
                 header of version 1, which has none of them.",
                proxy.name, draft.name
            );
            self.report.warning(&draft.place, None, text);
        }
        Some(SendProxy {
            version,
            checksum: words.checksum,
            unique_id: words.unique_id,
            authority: words.authority,
            tls: words.tls,
        })
    }
}

/// The header of a server's checks: as HAProxy has it, the server's own, unless they go elsewhere;
/// with `check-send-proxy` in any case, by itself one of version 1.
fn checks_send(settings: &ServerSettings, send_proxy: Option<SendProxy>) -> Option<SendProxy> {
    let elsewhere = settings.check_address.is_some() || settings.check_port.is_some();
    match (settings.send_proxy.checks, elsewhere) {
        (true, _) => Some(send_proxy.unwrap_or(SendProxy::of(Version::One))),
        (false, false) => send_proxy,
        (false, true) => None,
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

fn slow_start(settings: &ServerSettings) -> Option<SlowStart> {
    (settings.slow_start_ms > 0).then(|| SlowStart {
        duration_ms: settings.slow_start_ms,
        steps: settings.slow_start_steps.clone(),
        connections_per_second: settings.slow_start_rate,
    })
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
    let own_ip = match &settings.check_address {
        Some(Address::Ip(address)) => Some(address.ip()),
        Some(unix) => return Some(unix.clone()),
        None => None,
    };
    let own_port = settings.check_port.or(settings.check_address_port);
    let port = match &draft.address {
        Target::Fixed(Address::Ip(address)) => Some(address.port()),
        Target::Fixed(unix @ (Address::Unix(_) | Address::Abstract(_))) => {
            return Some(match (own_ip, own_port) {
                (Some(ip), Some(port)) => Address::Ip((ip, port).into()),
                _ => unix.clone(),
            });
        }
        Target::OfClient { port, .. } => match port {
            PortRule::Fixed(port) => Some(*port),
            PortRule::Offset(_) => None,
        },
        Target::Unresolved => return None,
    };
    // Without any address it is this machine that is checked, as HAProxy has it.
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = own_ip.or(ip(&draft.address)).unwrap_or(any);
    let port = own_port.or(port).or(own_ports.then_some(0))?;
    Some(Address::Ip((ip, port).into()))
}

/// The server's agent; `None` if no port is known.
fn agent(draft: &ServerDraft, proxy: &ProxyDraft) -> Option<Agent> {
    let settings = &draft.settings;
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ip = settings.agent.address.or(ip(&draft.address));
    let inter_ms = settings.agent.inter_ms.unwrap_or(AGENT_INTER_MS);
    Some(Agent {
        address: Address::Ip((ip.unwrap_or(any), settings.agent.port?).into()),
        inter_ms,
        question: settings.agent.question.as_str().into(),
        timeout_connect_ms: check_timeout_ms(inter_ms, &proxy.settings),
        timeout_check_ms: set(proxy.settings.timeouts.check),
        source: settings.source.or(proxy.settings.source),
    })
}

/// Longest time of a check's connect. Without `timeout check`, `inter` bounds all of a check;
/// with it, that bounds the answer alone, and the connect has the bound of clients' connects, too.
fn check_timeout_ms(inter_ms: u32, proxy: &Settings) -> u32 {
    match (set(proxy.timeouts.check), set(proxy.timeouts.connect)) {
        (Some(_), Some(connect)) => connect.min(inter_ms),
        (Some(_), None) | (None, _) => inter_ms,
    }
}

/// A timeout, unless it is infinite.
pub(super) fn set(timeout: Option<u32>) -> Option<u32> {
    timeout.filter(|ms| *ms > 0)
}
