//! The rows of `show stat`, for whoever shows them otherwise.

use std::sync::Arc;

use crate::config::plan::{Level, Proxy};
use crate::control::Shared;
use crate::control::runtime_api::rows::{
    backend_row, frontend_row, listener_row, listeners, server_row,
};
use crate::control::runtime_api::table::{self, Row};
use crate::lb::{Backend, Server};

/// What a row is of.
#[derive(Clone, Debug)]
pub(super) enum Of {
    Frontend,
    Listener,
    Server(Arc<Server>),
    Backend(Arc<Backend>),
}

/// A row.
pub(super) struct Object {
    pub(super) of: Of,
    pub(super) proxy: Arc<Proxy>,
    pub(super) row: Row,
}

/// The rows of all proxies that `wants` says are wanted, in the order of `show stat`.
pub(super) fn objects(shared: &Shared, wants: impl Fn(&Proxy) -> bool) -> Vec<Object> {
    let world = &shared.world();
    let level = Level::User;
    let mut objects = Vec::new();
    for proxy in world.plan.proxies.iter().filter(|proxy| wants(proxy)) {
        let index = usize::from(proxy.proxy_id.0);
        let mut add = |of, row| {
            let proxy = Arc::clone(proxy);
            objects.push(Object { of, proxy, row });
        };
        if let Some(Some(front)) = world.frontends.get(index) {
            add(Of::Frontend, frontend_row(shared, front));
            for listening in listeners(world, front) {
                let row = listener_row(shared, front, listening, level);
                add(Of::Listener, row);
            }
        }
        let Some(Some(backend)) = world.backends.get(index) else {
            continue;
        };
        for server in &backend.servers {
            let row = server_row(shared, backend, server, level);
            add(Of::Server(Arc::clone(server)), row);
        }
        let row = backend_row(shared, backend, level);
        add(Of::Backend(Arc::clone(backend)), row);
    }
    objects
}

/// The table as `show stat` has it.
pub(super) fn csv(objects: Vec<Object>) -> String {
    let mut text = table::header();
    for object in objects {
        object.row.write_plain(&mut text);
    }
    text
}
