//! Numbers that last: a proxy, a listener or a server keeps its number over all configurations that
//! have it.
//!
//! A plan numbers what it has by position. While the program runs, numbers cross threads, so those
//! of the next plan are made those of the present one wherever the name is the same. What is gone
//! keeps its number until nothing is left of it, and after that the number rests for a while: they
//! are given out in turn.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::{Endpoint, Plan, Proxy, ProxyKind};
use crate::base::ids::{ListenerId, ProxyId, ServerId};

/// What makes a proxy the same. Another kind or mode makes it another one.
type ProxyKey = (Arc<str>, ProxyKind, &'static str);
/// The same of a listener: its frontend, address, interface, and which of equal ones it is.
type ListenerKey = (u32, Endpoint, Option<String>, u32);
/// The same of a server: its backend and its name.
type ServerKey = (u32, Arc<str>);

/// Numbers in a row that are used before the first one is used again, however few there are.
const IN_TURN_MIN: u32 = 64;

/// The numbers of everything there is.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    proxies: Kind<ProxyKey>,
    listeners: Kind<ListenerKey>,
    servers: Kind<ServerKey>,
}

/// The numbers of one kind of thing.
#[derive(Clone, Debug)]
struct Kind<K: Hash + Eq> {
    known: HashMap<K, u32>,
    /// All that are in use, also by what has no name any more.
    taken: HashSet<u32>,
    /// The next one that may be given out.
    next: u32,
}

impl<K: Hash + Eq> Default for Kind<K> {
    fn default() -> Self {
        Kind {
            known: HashMap::new(),
            taken: HashSet::new(),
            next: 0,
        }
    }
}

impl<K: Hash + Eq> Kind<K> {
    /// The number of a thing: its own, or a new one. `used` = what this plan has given out, as two
    /// things may have one name.
    fn number(&mut self, key: K, used: &mut HashSet<u32>) -> u32 {
        if let Some(number) = self.known.get(&key)
            && used.insert(*number)
        {
            return *number;
        }
        let number = self.unused();
        used.insert(number);
        self.known.insert(key, number);
        number
    }

    fn unused(&mut self) -> u32 {
        let count = u32::try_from(self.taken.len()).unwrap_or(u32::MAX / 2);
        // Half of them are free at least, so this ends soon.
        let turn = IN_TURN_MIN.max(2 * (count + 1));
        loop {
            let number = self.next % turn;
            self.next = number + 1;
            if self.taken.insert(number) {
                return number;
            }
        }
    }

    fn keep(&mut self, is_there: impl Fn(u32) -> bool) {
        self.taken.retain(|number| is_there(*number));
        let taken = &self.taken;
        self.known.retain(|_, number| taken.contains(number));
    }
}

impl Numbers {
    /// Gives everything in a plan the number that it has already, or a new one. Within the plan
    /// things refer to each other by the numbers that it comes with, whatever they are.
    ///
    /// The first plan gets the numbers of its positions.
    pub fn carry_over(&mut self, plan: &mut Plan) -> Result<(), String> {
        let mut used = HashSet::new();
        let number = |proxy: &Arc<Proxy>| {
            let key = (Arc::clone(&proxy.name), proxy.kind, proxy.mode());
            self.proxies.number(key, &mut used)
        };
        let proxies: Vec<u32> = plan.proxies.iter().map(number).collect();
        let mut proxy_ids: HashMap<ProxyId, ProxyId> = HashMap::new();
        for (proxy, number) in plan.proxies.iter().zip(&proxies) {
            let number =
                u16::try_from(*number).map_err(|_| "too many proxies come and go".to_owned())?;
            proxy_ids.insert(proxy.proxy_id, ProxyId(number));
        }
        let proxy_id = |own: ProxyId| proxy_ids.get(&own).copied().unwrap_or(own);

        let (mut used, mut seen) = (HashSet::new(), HashMap::new());
        let mut listener_ids: HashMap<ListenerId, ListenerId> = HashMap::new();
        for listener in &mut plan.listeners {
            let mut changed = (**listener).clone();
            changed.proxy_id = proxy_id(listener.proxy_id);
            let owner = u32::from(changed.proxy_id.0);
            let address = (owner, changed.endpoint.clone(), changed.interface.clone());
            let equals = seen.entry(address.clone()).or_insert(0);
            let key = (address.0, address.1, address.2, *equals);
            *equals += 1;
            let number = self.listeners.number(key, &mut used);
            let number =
                u16::try_from(number).map_err(|_| "too many listeners come and go".to_owned())?;
            listener_ids.insert(changed.listener_id, ListenerId(number));
            changed.listener_id = ListenerId(number);
            *listener = Arc::new(changed);
        }

        let mut server_ids: HashMap<ServerId, ServerId> = HashMap::new();
        let mut used = HashSet::new();
        for (proxy, id) in plan.proxies.iter().zip(&proxies) {
            for server in proxy.back.iter().flat_map(|back| &back.servers) {
                let number = self
                    .servers
                    .number((*id, Arc::clone(&server.name)), &mut used);
                server_ids.insert(server.server_id, ServerId(number));
            }
        }
        for proxy in &mut plan.proxies {
            let mut changed = (**proxy).clone();
            changed.proxy_id = proxy_id(changed.proxy_id);
            if let Some(front) = &mut changed.front {
                front.default_backend = front.default_backend.map(proxy_id);
                let ids = front.listeners.iter();
                let next = |id: &ListenerId| listener_ids.get(id).copied();
                front.listeners = ids.filter_map(next).collect();
            }
            for server in changed.back.iter_mut().flat_map(|back| &mut back.servers) {
                let mut next = (**server).clone();
                next.server_id = server_ids[&server.server_id];
                if let Some(tracked) = &mut next.watch.tracks {
                    let next = server_ids.get(&tracked.server_id).copied();
                    tracked.server_id = next.unwrap_or(tracked.server_id);
                    tracked.proxy_id = proxy_id(tracked.proxy_id);
                }
                *server = Arc::new(next);
            }
            *proxy = Arc::new(changed);
        }
        for state in &mut plan.saved {
            state.proxy_id = proxy_id(state.proxy_id);
        }
        plan.servers_count = self.servers_count();
        Ok(())
    }

    /// Numbers of servers are below this.
    pub fn servers_count(&self) -> u32 {
        self.servers.taken.iter().max().map_or(0, |most| most + 1)
    }

    /// The same of proxies.
    pub fn proxies_count(&self) -> usize {
        let most = self.proxies.taken.iter().max();
        most.map_or(0, |most| *most as usize + 1)
    }

    /// The same of listeners.
    pub fn listeners_count(&self) -> usize {
        let most = self.listeners.taken.iter().max();
        most.map_or(0, |most| *most as usize + 1)
    }

    /// A listener is gone: the same address again will be another one. Its number stays taken.
    pub fn forget_listener(&mut self, id: ListenerId) {
        let number = u32::from(id.0);
        self.listeners.known.retain(|_, known| *known != number);
    }

    /// A server is gone: one of the same name will be another one. Its number stays taken.
    pub fn forget_server(&mut self, id: ServerId) {
        self.servers.known.retain(|_, known| *known != id.0);
    }

    /// Gives back the numbers of what is not there any more.
    pub fn keep(
        &mut self,
        proxies: impl Fn(u32) -> bool,
        listeners: impl Fn(u32) -> bool,
        servers: impl Fn(u32) -> bool,
    ) {
        self.proxies.keep(proxies);
        self.listeners.keep(listeners);
        self.servers.keep(servers);
    }
}
