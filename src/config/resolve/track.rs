//! `track`: which server takes the state of which other.

use std::collections::HashMap;
use std::sync::Arc;

use super::Names;
use crate::base::ids::{ProxyId, ServerId};
use crate::config::diagnostics::Report;
use crate::config::draft::{Draft, ProxyDraft, ServerDraft};
use crate::config::plan::{ProxyKind, Tracked};

/// The longest row of servers that track one another: a change passes through all of them at once.
const CHAIN_MAX: usize = 100;

/// Who tracks whom.
pub(super) type Tracks = HashMap<ServerId, Tracked>;

/// Looks up what the servers track. Servers have their numbers in the order of the files, as the
/// plan gives them.
pub(super) fn resolve(draft: &Draft, names: &Names<'_>, report: &mut Report) -> Tracks {
    let first_ids = first_ids(draft);
    let mut tracks = Tracks::new();
    for (proxy_index, proxy) in draft.proxies.iter().enumerate() {
        if proxy.kind == ProxyKind::Frontend {
            continue;
        }
        for (server_id, server) in (first_ids[proxy_index]..).zip(&proxy.servers) {
            let Some((backend, name)) = &server.settings.tracks else {
                continue;
            };
            let found = find(
                draft,
                names,
                &first_ids,
                (proxy_index, proxy),
                backend,
                name,
            );
            let result = found.and_then(|(tracked, other)| {
                check(
                    &tracks,
                    ServerId(server_id),
                    (proxy, server),
                    &tracked,
                    other,
                )?;
                Ok(tracked)
            });
            match result {
                Ok(tracked) => {
                    tracks.insert(ServerId(server_id), tracked);
                }
                Err(text) => {
                    let text = format!("'server {}/{}' : {text}", proxy.name, server.name);
                    report.alert(&server.place, None, text);
                }
            }
        }
    }
    tracks
}

/// The number of the first server of each proxy.
fn first_ids(draft: &Draft) -> Vec<u32> {
    let mut next: u32 = 0;
    let mut first = |proxy: &ProxyDraft| {
        let first = next;
        if proxy.kind != ProxyKind::Frontend {
            let count = u32::try_from(proxy.servers.len()).unwrap_or(u32::MAX);
            next = next.saturating_add(count);
        }
        first
    };
    draft.proxies.iter().map(&mut first).collect()
}

/// The server of this name, in the backend that is named or in the proxy itself.
fn find<'a>(
    draft: &'a Draft,
    names: &Names<'_>,
    first_ids: &[u32],
    (own_index, own): (usize, &'a ProxyDraft),
    backend: &Option<String>,
    name: &str,
) -> Result<(Tracked, &'a ServerDraft), String> {
    let (proxy_index, proxy) = match backend {
        None => (own_index, own),
        Some(backend) => {
            let found = names.get(backend.as_str()).map(|(id, _)| usize::from(id.0));
            let found = found.map(|index| (index, &draft.proxies[index]));
            found
                .filter(|(_, proxy)| proxy.kind != ProxyKind::Frontend)
                .ok_or_else(|| format!("unable to find required proxy '{backend}' for tracking."))?
        }
    };
    let mut servers = proxy.servers.iter().enumerate();
    let (index, server) = servers
        .find(|(_, server)| server.name == name)
        .ok_or_else(|| format!("unable to find required server '{name}' for tracking."))?;
    let server_id = u32::try_from(index)
        .ok()
        .and_then(|index| first_ids[proxy_index].checked_add(index));
    let tracked = Tracked {
        server_id: ServerId(server_id.unwrap_or(u32::MAX)),
        proxy_id: ProxyId(u16::try_from(proxy_index).unwrap_or(u16::MAX)),
        index,
        name: Arc::from(format!("{}/{}", proxy.name, server.name)),
    };
    Ok((tracked, server))
}

/// Whether a server may track another: it has no checks of its own, the other one has a state to
/// take, and doesn't track this one in turn.
fn check(
    tracks: &Tracks,
    own_id: ServerId,
    (proxy, server): (&ProxyDraft, &ServerDraft),
    tracked: &Tracked,
    other: &ServerDraft,
) -> Result<(), String> {
    if server.settings.check {
        return Err("unable to enable checks and tracking at the same time!".to_owned());
    }
    let name = &tracked.name;
    let has_state = other.settings.check || other.settings.agent.asked;
    if !has_state && other.settings.tracks.is_none() {
        return Err(format!(
            "unable to use {name} for tracking as it does not have any check nor agent enabled."
        ));
    }
    // Those before are without circles, so this ends.
    let mut next = Some(tracked.server_id);
    let mut length = 1;
    while let Some(id) = next {
        if id == own_id {
            let own = format!("{}/{}", proxy.name, server.name);
            return Err(format!(
                "unable to track {name} as it belongs to a tracking chain looping back to {own}."
            ));
        }
        next = tracks.get(&id).map(|tracked| tracked.server_id);
        length += 1;
    }
    if length > CHAIN_MAX {
        return Err(format!(
            "unable to track {name}: more than {CHAIN_MAX} servers track one another in a row."
        ));
    }
    Ok(())
}
