//! The listeners of a frontend: what its `bind` lines, its own settings and the global ones make
//! together.

use std::collections::HashMap;

use super::numbers;
use crate::base::ids::{ListenerId, ProxyId};
use crate::config::diagnostics::{Report, Severity};
use crate::config::draft::{BindDraft, Draft, Mode, ProxyDraft};
use crate::config::plan::{Endpoint, Listener, ProxyKind, Sockets};
use crate::config::values::threads::ThreadSet;

/// The listeners of a proxy, not yet numbered among those of the plan. A disabled proxy has none.
pub(in crate::config) fn build(
    proxy_id: ProxyId,
    proxy: &ProxyDraft,
    draft: &Draft,
    report: &mut Report,
) -> Vec<Listener> {
    if proxy.settings.disabled {
        return Vec::new();
    }
    let mut taken: HashMap<u32, &BindDraft> = HashMap::new();
    for bind in &proxy.binds {
        let Some(id) = bind.settings.socket_id else {
            continue;
        };
        if let Some(first) = taken.insert(id, bind) {
            let section = match proxy.kind {
                ProxyKind::Listen => "listen",
                ProxyKind::Frontend | ProxyKind::Backend => "frontend",
            };
            let text = format!(
                "'bind {}' in section '{section}' : 'id' : custom id {id} already used at {} ('bind {}')",
                bind.addresses, first.place, first.addresses
            );
            report.alert(&bind.place, None, text);
        }
    }
    let ids = proxy.binds.iter().flat_map(|bind| {
        let own = bind.settings.socket_id;
        bind.endpoints.iter().map(move |_| own)
    });
    let mut ids = numbers(1, ids.collect()).into_iter();
    let mut listeners = Vec::new();
    for bind in &proxy.binds {
        check_threads(proxy, bind, draft, report);
        for endpoint in &bind.endpoints {
            listeners.push(Listener {
                socket_id: ids.next().unwrap_or(0),
                sockets: match proxy.settings.mode {
                    // Served by one thread, which is no shard.
                    Mode::Http => Sockets::Number(1),
                    Mode::Tcp | Mode::Udp => bind
                        .settings
                        .sockets
                        .or(draft.default_sockets)
                        .unwrap_or(Sockets::ByThread),
                },
                ..listener(proxy_id, proxy, bind, endpoint)
            });
        }
    }
    listeners
}

/// Where the number of threads is written down, a listener that none of them serves is found here;
/// otherwise when the process starts.
fn check_threads(proxy: &ProxyDraft, bind: &BindDraft, draft: &Draft, report: &mut Report) {
    let Some(threads) = draft.global.nbthread else {
        return;
    };
    let threads = draft
        .global
        .thread_hard_limit
        .unwrap_or(threads)
        .min(threads);
    let wanted = bind.settings.threads.unwrap_or(ThreadSet::ALL);
    if wanted.and(ThreadSet::first(threads)).is_empty() {
        let text = format!(
            "Proxy '{}': 'thread' directive contains threads that belong to no group in 'bind {}' \
             at [{}].",
            proxy.name, bind.addresses, bind.place
        );
        report.bare(Severity::Alert, &bind.place, text);
    }
}

fn listener(
    proxy_id: ProxyId,
    proxy: &ProxyDraft,
    bind: &BindDraft,
    endpoint: &Endpoint,
) -> Listener {
    let (parameters, settings) = (&bind.settings, &proxy.settings);
    Listener {
        listener_id: ListenerId(0),
        proxy_id,
        endpoint: endpoint.clone(),
        socket_id: 0,
        name: parameters.name.clone(),
        has_stats: settings.socket_stats && settings.mode != Mode::Http,
        threads: parameters.threads.unwrap_or(ThreadSet::ALL),
        sockets: Sockets::ByThread,
        interface: parameters.interface.clone(),
        transparent: parameters.transparent,
        fast_open: parameters.fast_open,
        mss: parameters.mss,
        congestion: parameters.congestion.clone(),
        delayed_ack: settings.smart_accept && settings.mode != Mode::Udp,
        nice: parameters.nice,
        backlog: parameters
            .backlog
            .or(settings.backlog)
            .or(settings.maxconn)
            .unwrap_or(0),
        maxconn: parameters.maxconn,
        accept_proxy: parameters.accept_proxy,
        defer_accept: parameters.defer_accept,
        v6only: parameters.v6only,
        tcp_user_timeout_ms: parameters.tcp_user_timeout_ms,
        unix_mode: parameters.owner.mode,
        unix_uid: parameters.owner.uid,
        unix_gid: parameters.owner.gid,
        place: bind.place.to_string(),
    }
}
