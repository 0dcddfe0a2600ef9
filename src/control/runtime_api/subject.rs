//! What commands name: servers and frontends, by name or by `#` and number.

use std::sync::Arc;

use super::command::Answer;
use crate::config::plan::Proxy;
use crate::control::Shared;
use crate::lb::{Backend, Server};
use crate::shard::Frontend;

/// The server of a word `backend/server`.
pub(super) fn server(
    shared: &Shared,
    word: Option<&&str>,
) -> Result<(Arc<Backend>, Arc<Server>), Answer> {
    let Some((backend, server)) = word.and_then(|word| word.split_once('/')) else {
        return Err(Answer::error("Require 'backend/server'."));
    };
    let world = shared.world();
    let mut backends = world.backends.iter().flatten();
    let Some(backend) = backends.find(|known| is_called(&known.proxy, backend)) else {
        return Err(Answer::error("No such backend."));
    };
    let number = server
        .strip_prefix('#')
        .and_then(|id| id.parse::<u32>().ok());
    let is_meant = |known: &&Arc<Server>| match number {
        Some(sid) => known.plan.sid == sid,
        None => *known.plan.name == *server,
    };
    match backend.servers.iter().find(is_meant) {
        Some(server) => Ok((Arc::clone(backend), Arc::clone(server))),
        None => Err(Answer::error("No such server.")),
    }
}

/// The frontend of a word.
pub(super) fn frontend(shared: &Shared, word: Option<&&str>) -> Result<Arc<Frontend>, Answer> {
    let Some(word) = word else {
        return Err(Answer::error("A frontend name is expected."));
    };
    let world = shared.world();
    let mut frontends = world.frontends.iter().flatten();
    match frontends.find(|known| is_called(&known.proxy, word)) {
        Some(frontend) => Ok(Arc::clone(frontend)),
        None => Err(Answer::error("No such frontend.")),
    }
}

/// Whether a proxy is the one that a word names.
pub(super) fn is_called(proxy: &Proxy, word: &str) -> bool {
    match word.strip_prefix('#').map(str::parse::<u32>) {
        Some(Ok(number)) => proxy.iid == number,
        Some(Err(_)) | None => *proxy.name == *word,
    }
}
