//! What a reload opens and closes: listening sockets, of shards and of pages, and runtime sockets.
//!
//! Either all that is new is opened, and then what is gone is given up, or nothing has changed.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::STOPPING;
use crate::base::ids::{ListenerId, ProxyId};
use crate::config::plan::Plan;
use crate::control::listeners::{PageListener, Registry};
use crate::control::runtime_api::{ApiSockets, Service};
use crate::control::{Shared, pages};
use crate::shard::{FrontState, ShardListener, World};

/// New sockets, for who accepts from them.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// By shard.
    pub(super) of_shards: Vec<Vec<ShardListener>>,
    /// Of the thread that serves pages.
    pub(super) of_pages: Vec<PageListener>,
    /// New listeners without sockets, as their frontends are shut.
    pub(super) without: Vec<ListenerId>,
    /// What is less than it was asked for.
    pub(super) short: Vec<String>,
}

/// The sockets of the process, with those who serve them and are no shards.
#[derive(Debug)]
pub(super) struct Sockets {
    registry: Arc<Mutex<Registry>>,
    api: Arc<Mutex<ApiSockets>>,
    service: Service,
    pages: pages::Thread,
}

impl Sockets {
    /// Those that the start has opened: they are served from now on. The error says what isn't.
    pub(super) fn serve_first(
        shared: &Arc<Shared>,
        registry: Arc<Mutex<Registry>>,
        api: Arc<Mutex<ApiSockets>>,
    ) -> (Sockets, io::Result<()>) {
        let service = Service::new(shared, &registry);
        let mut sockets = Sockets {
            registry,
            api,
            service,
            pages: pages::Thread::default(),
        };
        let of_pages = locked(&sockets.registry).for_pages(|_| true);
        let started = of_pages.and_then(|of_pages| {
            sockets.start_pages(shared, &of_pages)?;
            Ok(of_pages)
        });
        let (of_pages, result) = match started {
            Ok(of_pages) => (of_pages, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        // Nothing leaves.
        let _ = sockets.serve(of_pages);
        (sockets, result)
    }

    fn start_pages(&mut self, shared: &Arc<Shared>, listeners: &[PageListener]) -> io::Result<()> {
        match listeners.is_empty() {
            true => Ok(()),
            false => self.pages.start(shared),
        }
    }

    /// Opens what the next plan has more than the present world, and gives up what it has less.
    pub(super) fn exchange(
        &mut self,
        shared: &Arc<Shared>,
        before: &World,
        plan: &Plan,
    ) -> Result<Opened, Vec<String>> {
        let registry = Arc::clone(&self.registry);
        let mut registry = locked(&registry);
        if shared.is_stopping() {
            // The sockets have been given up while the files were read, or will be next.
            return Err(vec![STOPPING.to_owned()]);
        }
        // What an operator has shut down stays so.
        let is_shut = |id: ProxyId| {
            let frontend = before.frontend(id);
            frontend.is_some_and(|frontend| frontend.state() == FrontState::Shut)
        };
        let shards = u16::try_from(before.ports.len()).unwrap_or(u16::MAX);
        let added = registry.add(plan, shards, is_shut)?;
        let added: HashSet<ListenerId> = added.into_iter().collect();
        let known = locked(&self.api).count();
        let opened = self.open(shared, before, plan, &registry, &added);
        match opened {
            Ok(mut opened) => {
                let new = plan
                    .listeners
                    .iter()
                    .map(|one| (one.listener_id, one.proxy_id));
                let new = new.filter(|(id, _)| before.listener(*id).is_none());
                let without = new.filter(|(_, owner)| is_shut(*owner)).map(|(id, _)| id);
                opened.without = without.collect();
                opened.short.extend(registry.follow(plan));
                opened.short.extend(registry.warnings().iter().cloned());
                opened.short.extend(locked(&self.api).follow(plan));
                Ok(opened)
            }
            Err(errors) => {
                registry.give_up(&added);
                locked(&self.api).truncate(known);
                Err(errors)
            }
        }
    }

    fn open(
        &mut self,
        shared: &Arc<Shared>,
        before: &World,
        plan: &Plan,
        registry: &Registry,
        added: &HashSet<ListenerId>,
    ) -> Result<Opened, Vec<String>> {
        locked(&self.api).add(plan)?;
        let is_added = |id| added.contains(&id);
        let failed = |error| vec![format!("Cannot duplicate listening sockets: {error}")];
        let ports = before.ports.iter();
        let of_shards = ports.map(|port| registry.for_shard(port.shard, is_added));
        let of_shards: Result<_, _> = of_shards.collect();
        let opened = Opened {
            of_shards: of_shards.map_err(failed)?,
            of_pages: registry.for_pages(is_added).map_err(failed)?,
            ..Opened::default()
        };
        self.start_pages(shared, &opened.of_pages)
            .map_err(|error| {
                vec![format!(
                    "Cannot serve the frontends in 'mode http': {error}"
                )]
            })?;
        Ok(opened)
    }

    /// Has those go on who serve pages and runtime sockets, by the world that is in force now. When
    /// all has ended that is returned, nobody comes by what is no more.
    pub(super) fn serve(&mut self, of_pages: Vec<PageListener>) -> Vec<oneshot::Receiver<()>> {
        let mut api = locked(&self.api);
        let mut leaving = api.take_leaving();
        self.service.renew(api.take());
        leaving.push(self.pages.renew(of_pages));
        leaving
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
