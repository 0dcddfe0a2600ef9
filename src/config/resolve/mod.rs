//! From the draft to the plan: names become ids, inherited values their final form.
//!
//! What concerns more than one line is checked here: names that are taken, backends that don't
//! exist, addresses that collide, timeouts that are missing.

mod check;
mod check_protocols;
mod lines;
mod listeners;
mod loops;
mod passive;
mod saved;
mod server;
mod track;
mod udp;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(super) use check::knows_ports;

use super::diagnostics::{Place, Report, Severity};
use super::draft::{BalanceWord, Draft, LogEntry, Mode, ProxyDraft, Settings};
use super::environment::Environment;
use super::plan::{
    Back, Balance, Front, Hash, HashKey, HashKind, KeepAlive, LogTarget, PAGE_CLIENTS_MAX, Pages,
    Plan, Proxy, ProxyKind, SpliceOptions,
};
use crate::base::ids::{ListenerId, ProxyId, ServerId};

/// HAProxy numbers its proxies from 2; 1 is its internal one, unless a proxy asks for it.
const IID_FIRST: u32 = 2;
/// `retries` where it isn't set.
const RETRIES_DEFAULT: u16 = 3;
/// Of a frontend and a backend with one name.
const ONCE_ALLOWED: &str = " Older versions of HAProxy allowed that; please rename one of them.";

/// Makes the plan. Its alerts, as those before, make it useless; the caller looks at the report.
pub(in crate::config) fn plan(
    draft: &Draft,
    environment: &dyn Environment,
    report: &mut Report,
) -> Plan {
    let mut plan = stateless(draft, environment, report);
    plan.saved = saved::states(draft, &plan, environment, report);
    plan
}

/// The same without the states that servers begin with: no file is read for it.
pub(in crate::config) fn stateless(
    draft: &Draft,
    environment: &dyn Environment,
    report: &mut Report,
) -> Plan {
    if u16::try_from(draft.proxies.len()).is_err() {
        let place = draft.proxies.last().map(|proxy| proxy.place.clone());
        if let Some(place) = place {
            report.alert(&place, None, "more than 65535 proxies.");
        }
        return Plan::default();
    }
    // After an error in a line, that something is missing may be only its consequence.
    let whole = !report.has_fatal();
    let names = names(draft, report);
    let iids = iids(draft, report);
    guids(draft, report);
    let goes_to = |index| backend_of(&names, draft, index);
    loops::check(draft, goes_to, environment, report);
    let tracks = track::resolve(draft, &names, report);
    let mut builder = Builder {
        plan: Plan::default(),
        draft,
        names,
        tracks,
        report,
        whole,
        proxy_maxconn: environment.options().proxy_maxconn,
    };
    builder.plan.global = draft.global.clone();
    builder.plan.global.source_ports.system = environment.local_ports();
    for ((index, proxy), iid) in (0u16..).zip(&draft.proxies).zip(iids) {
        builder.proxy(ProxyId(index), iid, proxy);
    }
    builder.plan
}

/// Where each name is, and whether it can be connected through.
type Names<'a> = HashMap<&'a str, (ProxyId, &'a ProxyDraft)>;

fn names<'a>(draft: &'a Draft, report: &mut Report) -> Names<'a> {
    let mut names: Names<'a> = HashMap::new();
    for (index, proxy) in (0u16..).zip(&draft.proxies) {
        // A header that has no name was reported when it was read.
        if proxy.name.is_empty() {
            continue;
        }
        match names.get(proxy.name.as_str()) {
            None => {
                names.insert(&proxy.name, (ProxyId(index), proxy));
            }
            Some((_, first)) => {
                let (kind, name) = (kind_word(proxy.kind), &proxy.name);
                let mut text = format!(
                    "{kind} '{name}' has the same name as {} '{name}' declared at {}.",
                    kind_word(first.kind),
                    first.place
                );
                match (first.kind, proxy.kind) {
                    (ProxyKind::Frontend, ProxyKind::Backend) => {
                        text.push_str(ONCE_ALLOWED);
                        // Who refers to the backend has made no mistake.
                        names.insert(&proxy.name, (ProxyId(index), proxy));
                    }
                    (ProxyKind::Backend, ProxyKind::Frontend) => text.push_str(ONCE_ALLOWED),
                    _ => {}
                }
                report.alert(&proxy.place, None, text);
            }
        }
    }
    names
}

/// The number of each proxy: its own `id`, else the next one that nobody has asked for.
fn iids(draft: &Draft, report: &mut Report) -> Vec<u32> {
    let mut owners: HashMap<u32, &ProxyDraft> = HashMap::new();
    for proxy in &draft.proxies {
        let Some((id, place)) = &proxy.id else {
            continue;
        };
        if let Some(first) = owners.insert(*id, proxy) {
            let text = format!(
                "{} '{}' has the same id {id} as {} '{}' declared at {}.",
                kind_word(proxy.kind),
                proxy.name,
                kind_word(first.kind),
                first.name,
                first.place
            );
            report.alert(place, None, text);
        }
    }
    let own = |proxy: &ProxyDraft| proxy.id.as_ref().map(|(id, _)| *id);
    numbers(IID_FIRST, draft.proxies.iter().map(own).collect())
}

/// Identities are those of one thing, proxy or server, in all the files.
fn guids(draft: &Draft, report: &mut Report) {
    let mut owners: HashMap<&str, String> = HashMap::new();
    let mut claim = |guid, owner: String, place: &Place| {
        let text = owners
            .get(guid)
            .map(|first| format!("{owner} : 'guid' : '{guid}' is that of {first} already."));
        match text {
            Some(text) => report.alert(place, None, text),
            None => {
                owners.insert(guid, format!("{owner} ({place})"));
            }
        }
    };
    for proxy in &draft.proxies {
        if let Some((guid, place)) = &proxy.guid {
            let owner = format!("{} '{}'", kind_word(proxy.kind), proxy.name);
            claim(guid, owner, place);
        }
        for server in &proxy.servers {
            if let Some(guid) = &server.settings.guid {
                let owner = format!("'server {}/{}'", proxy.name, server.name);
                claim(guid, owner, &server.place);
            }
        }
    }
}

/// The numbers of things that may have one of their own: the others get the next free one. As
/// HAProxy counts, what is looked at first goes on with every thing, whether it gets it or not.
pub(in crate::config) fn numbers(first: u32, own: Vec<Option<u32>>) -> Vec<u32> {
    let taken: HashSet<u32> = own.iter().copied().flatten().collect();
    let mut next = first;
    let number = |own: Option<u32>| {
        let number = own.unwrap_or_else(|| {
            while taken.contains(&next) {
                next = next.saturating_add(1);
            }
            next
        });
        next = next.saturating_add(1);
        number
    };
    own.into_iter().map(number).collect()
}

/// How HAProxy's messages call a proxy.
fn kind_word(kind: ProxyKind) -> &'static str {
    match kind {
        ProxyKind::Frontend => "frontend",
        ProxyKind::Backend => "backend",
        ProxyKind::Listen => "proxy",
    }
}

/// Where the connections of a proxy go: a `listen` without `default_backend` is its own backend.
fn backend_of(names: &Names<'_>, draft: &Draft, index: usize) -> Option<usize> {
    let proxy = draft.proxies.get(index)?;
    match leads_to(&proxy.settings) {
        Some((wanted, _)) => names.get(wanted.as_str()).map(|(id, _)| usize::from(id.0)),
        None => Some(index).filter(|_| proxy.kind == ProxyKind::Listen),
    }
}

/// Which backend is asked for, and where: rules come before the default.
fn leads_to(settings: &Settings) -> Option<&(String, Place)> {
    let rule = settings.use_backend.as_ref();
    rule.or(settings.default_backend.as_ref())
}

/// The plan in the making.
pub(in crate::config) struct Builder<'a, 'r> {
    plan: Plan,
    draft: &'a Draft,
    names: Names<'a>,
    /// `track`, looked up.
    tracks: track::Tracks,
    pub(in crate::config) report: &'r mut Report,
    /// Whether every line was understood.
    whole: bool,
    /// `maxconn` of proxies that set none.
    proxy_maxconn: Option<u32>,
}

impl Builder<'_, '_> {
    fn proxy(&mut self, proxy_id: ProxyId, iid: u32, draft: &ProxyDraft) {
        if self.whole && !draft.settings.disabled {
            self.warn(draft);
        }
        let logs = self.logs(&draft.settings.logs);
        let has_logs = !logs.is_empty();
        let front =
            (draft.kind != ProxyKind::Backend).then(|| self.front(proxy_id, draft, has_logs));
        let back = (draft.kind != ProxyKind::Frontend).then(|| self.back(draft));
        self.plan.proxies.push(Arc::new(Proxy {
            proxy_id,
            iid,
            iid_given: draft.id.is_some(),
            description: draft.description.clone(),
            name: draft.name.as_str().into(),
            kind: draft.kind,
            front,
            back,
            guid: draft
                .guid
                .clone()
                .map_or_else(String::new, |(guid, _)| guid),
            logs,
            log_tag: draft.settings.lines.tag.clone(),
            splice: match draft.settings.mode {
                Mode::Udp | Mode::Http => SpliceOptions::default(),
                Mode::Tcp => draft.settings.splice,
            },
        }));
    }

    /// What is allowed and probably not meant.
    fn warn(&mut self, draft: &ProxyDraft) {
        let (kind, name) = (kind_word(draft.kind), &draft.name);
        let mut warning = |text: String| self.report.bare(Severity::Warning, &draft.place, text);
        if draft.kind != ProxyKind::Backend && draft.binds.is_empty() {
            warning(format!(
                "{kind} '{name}' has no 'bind' directive. Please declare it as a backend if this \
                 was intended."
            ));
        }
        let end = match draft.settings.mode {
            Mode::Udp => Some("its datagrams will be dropped"),
            Mode::Tcp => Some("its connections will be closed"),
            Mode::Http => None,
        };
        if draft.kind == ProxyKind::Frontend
            && leads_to(&draft.settings).is_none()
            && let Some(end) = end
        {
            warning(format!("{kind} '{name}' has no 'default_backend': {end}."));
        }
        let timeouts = draft.settings.timeouts;
        let unset = |timeout: Option<u32>| timeout.unwrap_or(0) == 0;
        let front = draft.kind != ProxyKind::Backend && unset(timeouts.client);
        let silent = unset(timeouts.server) && unset(timeouts.tunnel);
        let back = !draft.servers.is_empty() && (unset(timeouts.connect) || silent);
        // Flows have an idle time in any case.
        if (front || back) && draft.settings.mode != Mode::Udp {
            warning(format!(
                "missing timeouts for {kind} '{name}'.\n   \
                 | While not properly invalid, you will certainly encounter various problems\n   \
                 | with such a configuration. To fix this, please ensure that all following\n   \
                 | timeouts are set to a non-zero value: 'client', 'connect', 'server'."
            ));
        }
        let settings = &draft.settings;
        let hashes = matches!(
            settings.balance,
            Some(BalanceWord::Source | BalanceWord::Hash(_))
        );
        let kind_of_hash = settings.hash_method.unwrap_or_default().kind;
        if hashes && settings.hash_factor > 0 && kind_of_hash == HashKind::MapBased {
            let text = format!(
                "{kind} '{name}' : 'hash-balance-factor' has no effect with 'hash-type map-based'."
            );
            self.report.bare(Severity::Notice, &draft.place, text);
        }
        if draft.servers.len() > 1 && draft.settings.balance.is_none() {
            let text = format!("{kind} '{name}' has no 'balance': 'roundrobin' is used.");
            self.report.bare(Severity::Notice, &draft.place, text);
        }
    }

    fn front(&mut self, proxy_id: ProxyId, draft: &ProxyDraft, has_logs: bool) -> Front {
        let settings = &draft.settings;
        let rule = settings.use_backend.as_ref();
        let rule = rule.and_then(|rule| self.backend("use_backend", rule, draft));
        let default = settings.default_backend.as_ref();
        let default = default.and_then(|rule| self.backend("default_backend", rule, draft));
        // A `listen` that names no other is its own backend.
        let is_of_pages = settings.mode == Mode::Http;
        let own = draft.kind == ProxyKind::Listen && leads_to(settings).is_none() && !is_of_pages;
        let built = listeners::build(proxy_id, draft, self.draft, self.report);
        let leads_to = backend_of(&self.names, self.draft, usize::from(proxy_id.0))
            .and_then(|index| self.draft.proxies.get(index));
        let mut listeners = Vec::new();
        for mut listener in built {
            // As many as fit were let through when the lines were read.
            let index = u16::try_from(self.plan.listeners.len()).unwrap_or(u16::MAX);
            listener.listener_id = ListenerId(index);
            self.plan.listeners.push(Arc::new(listener));
            listeners.push(ListenerId(index));
        }
        Front {
            listeners,
            default_backend: rule.or(default).or(own.then_some(proxy_id)),
            maxconn: match settings.maxconn.or(self.proxy_maxconn).unwrap_or(0) {
                0 if is_of_pages => PAGE_CLIENTS_MAX,
                maxconn if is_of_pages => maxconn.min(PAGE_CLIENTS_MAX),
                maxconn => maxconn,
            },
            session_rate: if is_of_pages {
                0
            } else {
                settings.session_rate
            },
            timeout_client_ms: settings.timeouts.client.unwrap_or(0),
            timeout_client_fin_ms: settings.timeouts.client_fin.unwrap_or(0),
            timeout_client_hs_ms: settings.timeouts.client_hs.unwrap_or(0),
            expect_proxy: match settings.mode {
                Mode::Udp | Mode::Http => Vec::new(),
                Mode::Tcp => settings.expect_proxy.clone(),
            },
            keepalive: keepalive(settings.keepalive_client, settings, Side::Client),
            lines: self.session_lines(draft, has_logs),
            dontlognull: settings.dontlognull,
            dontlog_normal: settings.dontlog_normal,
            log_separate_errors: settings.log_separate_errors,
            nolinger: settings.nolinger,
            independent_streams: settings.independent_streams,
            udp: self.udp_front(draft, leads_to),
            pages: is_of_pages.then(|| self.pages(draft)),
        }
    }

    /// What a proxy in `mode http` answers with.
    fn pages(&mut self, draft: &ProxyDraft) -> Pages {
        for bind in draft.binds.iter().filter(|bind| bind.settings.accept_proxy) {
            let text = format!(
                "'bind {}' : 'accept-proxy' is not supported in 'mode http'.",
                bind.addresses
            );
            self.report.alert(&bind.place, None, text);
        }
        let timeouts = draft.settings.timeouts;
        Pages {
            timeout_request_ms: timeouts.http_request.unwrap_or(0),
            timeout_keep_alive_ms: timeouts.http_keep_alive.unwrap_or(0),
            ..draft.settings.pages.clone()
        }
    }

    /// The backend that a keyword of a proxy names.
    fn backend(
        &mut self,
        keyword: &str,
        (wanted, place): &(String, Place),
        draft: &ProxyDraft,
    ) -> Option<ProxyId> {
        match self.names.get(wanted.as_str()) {
            Some((id, proxy)) if proxy.kind != ProxyKind::Frontend => {
                let (own, other) = (draft.settings.mode, proxy.settings.mode);
                if own != other {
                    let text = format!(
                        "{} '{}' is in mode {} and its {keyword} '{wanted}' ({}) in mode {}.",
                        kind_word(draft.kind),
                        draft.name,
                        own.name(),
                        proxy.place,
                        other.name()
                    );
                    self.report.alert(place, None, text);
                }
                Some(*id)
            }
            _ => {
                let name = &draft.name;
                let text =
                    format!("Proxy '{name}': unable to find required {keyword}: '{wanted}'.");
                self.report.bare(Severity::Alert, place, text);
                None
            }
        }
    }

    fn back(&mut self, draft: &ProxyDraft) -> Back {
        let settings = &draft.settings;
        let timeouts = settings.timeouts;
        let hash = |key| {
            Balance::Hash(Hash {
                key,
                method: settings.hash_method.unwrap_or_default(),
                factor: settings.hash_factor,
            })
        };
        let mut seen: HashMap<&str, &Place> = HashMap::new();
        let mut servers = Vec::new();
        let ids = self.server_ids(draft);
        let script = self.script(draft);
        for (sid, server) in ids.into_iter().zip(&draft.servers) {
            if let Some(first) = seen.insert(&server.name, &server.place) {
                let text = format!(
                    "{} '{}', another server named '{}' was already defined at line {}, please use \
                     distinct names.",
                    kind_word(draft.kind),
                    draft.name,
                    server.name,
                    first.line
                );
                self.report.alert(&server.place, None, text);
            }
            let server_id = ServerId(self.plan.servers_count);
            self.plan.servers_count = self.plan.servers_count.saturating_add(1);
            let mut server = self.server(server_id, sid, server, draft);
            if let (Some(check), Some(script)) = (&mut server.check, &script)
                && check.datagram.is_none()
            {
                let scripted =
                    check::scripted(script, check.timeout_ms, timeouts, server.send_proxy);
                check.scripted = Some(scripted);
            }
            servers.push(Arc::new(server));
        }
        Back {
            balance: match settings.balance {
                None | Some(BalanceWord::RoundRobin) => Balance::RoundRobin,
                Some(BalanceWord::StaticRr) => Balance::StaticRr,
                Some(BalanceWord::LeastConn) => Balance::LeastConn,
                Some(BalanceWord::First) => Balance::First,
                Some(BalanceWord::PeakEwma) => Balance::PeakEwma,
                Some(BalanceWord::Random(draws)) => Balance::Random { draws },
                Some(BalanceWord::Source) => hash(HashKey::Source),
                Some(BalanceWord::Hash(expression)) => {
                    hash(HashKey::Expression(udp::with_cid_length(expression, draft)))
                }
            },
            quic_lb: settings.udp.quic_lb,
            servers,
            timeout_connect_ms: timeouts.connect.unwrap_or(0),
            timeout_server_ms: timeouts.server.unwrap_or(0),
            timeout_server_fin_ms: timeouts.server_fin.unwrap_or(0),
            timeout_queue_ms: timeouts.queue.unwrap_or(0),
            retries: settings.retries.unwrap_or(RETRIES_DEFAULT),
            redispatch: settings.redispatch,
            allbackups: settings.allbackups,
            log_health_checks: settings.log_health_checks,
            fullconn: settings.fullconn,
            keepalive: keepalive(settings.keepalive_server, settings, Side::Server),
            timeout_tunnel_ms: timeouts.tunnel.unwrap_or(0),
            nolinger: settings.nolinger,
            independent_streams: settings.independent_streams,
            abortonclose: settings.abortonclose,
            smart_connect: settings.smart_connect,
            udp: self.udp_back(draft),
        }
    }

    /// The targets of a proxy; `log global` counts once, however often it is written.
    fn logs(&self, entries: &[LogEntry]) -> Vec<Arc<LogTarget>> {
        let mut logs = Vec::new();
        let mut has_global = false;
        for entry in entries {
            match entry {
                LogEntry::Target(target) => logs.push(Arc::clone(target)),
                LogEntry::Global if has_global => {}
                LogEntry::Global => {
                    has_global = true;
                    logs.extend_from_slice(&self.plan.global.logs);
                }
            }
        }
        logs
    }
}

enum Side {
    Client,
    Server,
}

fn keepalive(own: bool, settings: &Settings, side: Side) -> Option<KeepAlive> {
    let values = match side {
        Side::Client => settings.keepalive_client_values,
        Side::Server => settings.keepalive_server_values,
    };
    let wanted = (own || settings.keepalive_both) && settings.mode != Mode::Udp;
    wanted.then_some(values)
}
