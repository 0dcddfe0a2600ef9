//! The registry of listening sockets, keyed by (endpoint, options, index) and independent of
//! shards.
//!
//! A TCP address has one reuseport member per shard that serves it, unless `shards` asks for fewer:
//! then several shards share a member through duplicates, as they do with Unix and inherited
//! sockets. The registry keeps a descriptor of each, so that a later
//! reload or upgrade can hand them on, and gives them up when the process drains: a shard then
//! accepts what is queued and closes the last descriptor. (`datagram` has what UDP listeners do
//! differently.)

mod datagram;
mod files;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::base::address::Address;
use crate::base::ids::{ListenerId, ProxyId, ShardId};
use crate::config::plan::{Endpoint, Listener, Plan, Proxy, ProxyKind};
use crate::config::threads::ThreadSet;
use crate::limits;
use crate::shard::ShardListener;
use crate::sys::AcceptQueue;
use crate::sys::datagram::DatagramListenOptions;
use crate::sys::socket::{self, ListenError, ListenOptions};
use files::{SocketFile, access_of};

/// Why a reload takes no `fd@`.
pub(super) const INHERITED_AT_START: &str = "inherited descriptors are taken at the start";

/// What makes a listening socket the same across reloads and upgrades.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ListenerKey {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// With which options.
    pub options: Options,
    /// Which member of the group, 0 for a shared socket.
    pub index: u16,
}

impl ListenerKey {
    /// The key as a text, the same in every process of this version: a process of another one
    /// finds no name that fits, and binds by itself.
    pub fn name(&self) -> String {
        format!("{} {self:?}", env!("CARGO_PKG_VERSION"))
    }
}

/// Options of a listening socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Options {
    /// Of one for connections.
    Stream(ListenOptions),
    /// Of one for datagrams.
    Datagram(DatagramListenOptions),
}

impl Options {
    fn interface(&self) -> Option<&str> {
        match self {
            Options::Stream(options) => options.interface.as_deref(),
            Options::Datagram(options) => options.interface.as_deref(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    key: ListenerKey,
    listener_id: ListenerId,
    /// The shards that accept from it.
    shards: ThreadSet,
    socket: OwnedFd,
}

/// A listening socket of a frontend that answers by itself.
#[derive(Debug)]
pub struct PageListener {
    /// Which listener it serves.
    pub listener_id: ListenerId,
    /// The socket.
    pub socket: OwnedFd,
}

/// A listening socket as the kernel has it.
#[derive(Debug)]
pub struct Listening {
    /// Which listener it serves.
    pub listener_id: ListenerId,
    /// Which of its sockets.
    pub index: u16,
    /// The shards that accept from it.
    pub shards: ThreadSet,
    /// Its accept queue or its receive buffer, where the kernel tells.
    pub queue: Option<AcceptQueue>,
}

/// Every listening socket of the process's frontends.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Vec<Entry>,
    /// The place of a running process is taken: what it listens on is no obstacle.
    replacing: bool,
    socket_files: Vec<SocketFile>,
    warnings: Vec<String>,
    /// The process has started: numbers of descriptors that it was given may be anything's.
    has_started: bool,
}

impl Registry {
    /// Binds every listener of a plan for `shards` shards, taking sockets of `adopted` where the
    /// key has the name; when `replacing` a running process, addresses are shared with it. On
    /// errors all of them are returned, as texts, and nothing stays bound.
    pub fn bind(
        plan: &Plan,
        shards: u16,
        mut adopted: Vec<(String, OwnedFd)>,
        replacing: bool,
    ) -> Result<Registry, Vec<String>> {
        let mut registry = Registry {
            replacing,
            ..Registry::default()
        };
        let mut errors = Vec::new();
        for listener in &plan.listeners {
            if let Err(error) = registry.bind_one(plan, listener, shards, &mut adopted) {
                errors.push(error);
            }
        }
        if errors.is_empty() {
            Ok(registry)
        } else {
            Err(errors)
        }
    }

    /// Binds the listeners of the next plan that there are no sockets for. Those that it has no
    /// more hand theirs on where the address is the same; those of frontends that are shut have
    /// none. On errors nothing has changed.
    pub fn add(
        &mut self,
        plan: &Plan,
        shards: u16,
        is_shut: impl Fn(ProxyId) -> bool,
    ) -> Result<Vec<ListenerId>, Vec<String>> {
        let known: HashSet<ListenerId> = self.entries.iter().map(|e| e.listener_id).collect();
        let planned: HashSet<ListenerId> = plan.listeners.iter().map(|l| l.listener_id).collect();
        let added = plan.listeners.iter();
        let is_new = |l: &&Arc<Listener>| !known.contains(&l.listener_id) && !is_shut(l.proxy_id);
        let added: Vec<_> = added.filter(is_new).collect();
        let (sockets, files) = (self.entries.len(), self.socket_files.len());
        self.warnings.clear();
        self.has_started = true;
        let mut errors = Vec::new();
        for listener in &added {
            let bound = self
                .leaving(plan, listener, &planned)
                .and_then(|mut adopted| self.bind_one(plan, listener, shards, &mut adopted));
            errors.extend(bound.err());
        }
        if errors.is_empty() {
            return Ok(added.iter().map(|listener| listener.listener_id).collect());
        }
        self.entries.truncate(sockets);
        self.socket_files
            .drain(files..)
            .for_each(|file| file.unlink());
        Err(errors)
    }

    /// Gives listeners up that were added and will not be used.
    pub fn give_up(&mut self, added: &HashSet<ListenerId>) {
        self.entries
            .retain(|entry| !added.contains(&entry.listener_id));
        self.drop_files();
    }

    /// Duplicates of the sockets of an address that a listener has no more, for the one that has it
    /// next, under its names.
    fn leaving(
        &self,
        plan: &Plan,
        listener: &Listener,
        planned: &HashSet<ListenerId>,
    ) -> Result<Vec<(String, OwnedFd)>, String> {
        let options = options_of(plan, listener);
        let leaving = self.entries.iter().filter(|entry| {
            !planned.contains(&entry.listener_id)
                && entry.key.endpoint == listener.endpoint
                && entry.key.options.interface() == listener.interface.as_deref()
        });
        let mut adopted = Vec::new();
        for entry in leaving {
            if let Endpoint::Datagram(_) = entry.key.endpoint {
                return Err(format!(
                    "Proxy '{}': the address of the 'bind' at [{}] is that of a listener which is \
                     taken away: what its flows still send would come to both. Restart, or reload \
                     once without it.",
                    proxy_name(plan, listener),
                    listener.place
                ));
            }
            let own = key_of(listener, &options, entry.key.index);
            let is_tcp = matches!(entry.key.endpoint, Endpoint::Address(Address::Ip(_)));
            // Another socket can join it with other options.
            if is_tcp && own.options != entry.key.options {
                continue;
            }
            let socket = entry.socket.try_clone();
            adopted.push((own.name(), socket.map_err(|error| error.to_string())?));
        }
        Ok(adopted)
    }

    /// Follows the plan in force: listeners that it has no more are given up, and what options of
    /// the others can be changed while they listen is. Returns what can't.
    pub fn follow(&mut self, plan: &Plan) -> Vec<String> {
        let planned = plan.listeners.iter().map(|l| (l.listener_id, l));
        let planned: HashMap<ListenerId, &Arc<Listener>> = planned.collect();
        self.entries
            .retain(|entry| planned.contains_key(&entry.listener_id));
        self.drop_files();
        let mut refused = self.follow_files(plan);
        self.follow_datagrams(plan, &planned);
        for entry in &mut self.entries {
            let listener = planned[&entry.listener_id];
            let (Options::Stream(before), Endpoint::Address(Address::Ip(_))) =
                (&entry.key.options, &entry.key.endpoint)
            else {
                continue;
            };
            let after = options_of(plan, listener);
            if *before == after {
                continue;
            }
            match socket::renew_tcp(entry.socket.as_fd(), before, &after) {
                Ok(()) => entry.key.options = Options::Stream(after),
                Err(error) => {
                    let text = format!(
                        "listener {}/{} keeps its old options until a restart: {}",
                        proxy_name(plan, listener),
                        listener.endpoint,
                        match &error.parameter {
                            Some(parameter) => format!("'{parameter}' can't be changed"),
                            None => error_text(&error.error),
                        }
                    );
                    if !refused.contains(&text) {
                        refused.push(text);
                    }
                }
            }
        }
        refused
    }

    fn bind_one(
        &mut self,
        plan: &Plan,
        listener: &Listener,
        shards: u16,
        adopted: &mut Vec<(String, OwnedFd)>,
    ) -> Result<(), String> {
        let options = options_of(plan, listener);
        let failed = |refused: ListenError| bind_error(plan, listener, &refused);
        let (threads, sockets) = listener.spread(shards, &plan.global);
        if threads.is_empty() {
            return Err(format!(
                "Proxy '{}': 'thread' of the 'bind' at [{}] names none of the {shards} threads",
                proxy_name(plan, listener),
                listener.place
            ));
        }
        let add = |registry: &mut Registry, index: u16, socket: OwnedFd| {
            let sharing = |shard: &ShardId| threads.position(*shard) % sockets == index;
            let shards = match plan.pages_of(listener) {
                // Another thread accepts from it.
                Some(_) => ThreadSet::NONE,
                None => threads.iter().filter(sharing).collect(),
            };
            registry.entries.push(Entry {
                key: key_of(listener, &options, index),
                listener_id: listener.listener_id,
                shards,
                socket,
            });
        };
        match &listener.endpoint {
            Endpoint::Address(Address::Ip(address)) => {
                let mut group: Vec<OwnedFd> = Vec::new();
                for index in 0..sockets {
                    let name = key_of(listener, &options, index).name();
                    match adopted.iter().position(|(found, _)| *found == name) {
                        Some(at) => group.push(adopted.swap_remove(at).1),
                        None => break,
                    }
                }
                if group.is_empty() {
                    group = self
                        .listen_tcp(listener, *address, &options, usize::from(sockets))
                        .map_err(failed)?;
                }
                while group.len() < usize::from(sockets) {
                    group.push(socket::join_tcp(*address, &options).map_err(failed)?);
                }
                for (index, socket) in (0..sockets).zip(group) {
                    add(self, index, socket);
                }
            }
            Endpoint::Address(Address::Unix(path)) => {
                let access = access_of(listener);
                let own = key_of(listener, &options, 0).name();
                if let Some(at) = adopted.iter().position(|(found, _)| *found == own) {
                    add(self, 0, adopted.swap_remove(at).1);
                    return Ok(());
                }
                let replacing = self.replacing;
                let bound = socket::listen_unix(path, options.backlog, access, replacing)
                    .map_err(|error| failed(error.into()))?;
                self.socket_files.push(SocketFile {
                    path: path.clone(),
                    file: bound.file,
                    access,
                });
                add(self, 0, bound.socket);
            }
            Endpoint::Address(Address::Abstract(name)) => {
                let key = key_of(listener, &options, 0).name();
                let socket = match adopted.iter().position(|(found, _)| *found == key) {
                    Some(at) => adopted.swap_remove(at).1,
                    None => socket::listen_abstract(name, options.backlog)
                        .map_err(|error| failed(error.into()))?,
                };
                add(self, 0, socket);
            }
            Endpoint::Datagram(address) => {
                self.bind_datagrams(plan, listener, *address, shards, adopted)
                    .map_err(failed)?;
            }
            Endpoint::Descriptor(number) => {
                let adopted_before = self
                    .entries
                    .iter()
                    .any(|entry| entry.key.endpoint == listener.endpoint);
                let own = key_of(listener, &options, 0).name();
                let socket = if let Some(at) = adopted.iter().position(|(found, _)| *found == own) {
                    Ok(adopted.swap_remove(at).1)
                } else if adopted_before {
                    Err(io::Error::from_raw_os_error(nix::libc::EADDRINUSE))
                } else if self.has_started {
                    Err(io::Error::other(INHERITED_AT_START))
                } else {
                    socket::adopt_listener(*number)
                };
                add(self, 0, socket.map_err(|error| failed(error.into()))?);
            }
        }
        Ok(())
    }

    /// Binds a group. A second `bind` of this process on an address that it already has, as one
    /// frontend may write it twice, joins the group instead of finding itself in the way.
    fn listen_tcp(
        &self,
        listener: &Listener,
        address: SocketAddr,
        options: &ListenOptions,
        members: usize,
    ) -> Result<Vec<OwnedFd>, ListenError> {
        let own = self.entries.iter().any(|entry| {
            // Sockets of different interfaces are not in each other's way.
            entry.key.endpoint == listener.endpoint
                && entry.key.options.interface() == options.interface.as_deref()
        });
        if own || self.replacing {
            return (0..members)
                .map(|_| socket::join_tcp(address, options))
                .collect();
        }
        match socket::listen_tcp(address, options, members) {
            // `*:80` beside `127.0.0.1:80` in one configuration: the other one is ours.
            Err(refused) if is_in_use(&refused.error) && self.has_port(address.port()) => (0
                ..members)
                .map(|_| socket::join_tcp(address, options))
                .collect(),
            other => other,
        }
    }

    fn has_port(&self, port: u16) -> bool {
        self.entries.iter().any(|entry| match &entry.key.endpoint {
            Endpoint::Address(Address::Ip(address)) => address.port() == port && port != 0,
            _ => false,
        })
    }

    /// Duplicates of the sockets that `shard` accepts from, of those listeners that are `wanted`.
    pub fn for_shard(
        &self,
        shard: ShardId,
        wanted: impl Fn(ListenerId) -> bool,
    ) -> io::Result<Vec<ShardListener>> {
        self.entries
            .iter()
            .filter(|entry| entry.shards.has(shard) && wanted(entry.listener_id))
            .map(|entry| {
                let socket = entry.socket.try_clone()?;
                Ok(ShardListener {
                    listener_id: entry.listener_id,
                    socket,
                    shared: entry.shards.len() > 1,
                })
            })
            .collect()
    }

    /// Duplicates of the sockets that no shard accepts from, of those listeners that are `wanted`:
    /// of frontends in `mode http`.
    pub fn for_pages(&self, wanted: impl Fn(ListenerId) -> bool) -> io::Result<Vec<PageListener>> {
        let entries = self.entries.iter();
        let entries = entries.filter(|one| one.shards.is_empty() && wanted(one.listener_id));
        let listener = |entry: &Entry| {
            let socket = entry.socket.try_clone()?;
            let listener_id = entry.listener_id;
            Ok(PageListener {
                listener_id,
                socket,
            })
        };
        entries.map(listener).collect()
    }

    /// The sockets that a successor is given, with their keys. Those in files are not among them:
    /// the files are removed with the process that bound them.
    pub fn export(&self) -> impl Iterator<Item = (&ListenerKey, BorrowedFd<'_>)> {
        self.entries
            .iter()
            .filter(|entry| entry.key.endpoint.is_handed_over())
            .map(|entry| (&entry.key, entry.socket.as_fd()))
    }

    /// What was granted less of than asked for.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The sockets and what waits on them.
    pub fn listening(&self) -> Vec<Listening> {
        let queue = |entry: &Entry| {
            let socket = entry.socket.as_fd();
            match entry.key.options {
                Options::Stream(_) => AcceptQueue::of(socket),
                Options::Datagram(_) => AcceptQueue::of_datagrams(socket),
            }
        };
        let listening = |entry: &Entry| Listening {
            listener_id: entry.listener_id,
            index: entry.key.index,
            shards: entry.shards,
            queue: queue(entry).ok(),
        };
        self.entries.iter().map(listening).collect()
    }

    /// Gives up those of some listeners: the shards that have them close the last descriptors.
    pub fn release_some(&mut self, wanted: impl Fn(ListenerId) -> bool) {
        for entry in self
            .entries
            .extract_if(.., |entry| wanted(entry.listener_id))
        {
            let Endpoint::Address(Address::Unix(path)) = &entry.key.endpoint else {
                continue;
            };
            let files = &mut self.socket_files;
            files
                .extract_if(.., |file| file.path == *path)
                .for_each(|file| file.unlink());
        }
    }

    /// Gives the sockets up: those of the shards are the last ones then. Socket files are removed,
    /// so that no new client finds them.
    pub fn release(&mut self) {
        self.entries.clear();
        self.socket_files.drain(..).for_each(|file| file.unlink());
    }
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn key_of(listener: &Listener, options: &ListenOptions, index: u16) -> ListenerKey {
    ListenerKey {
        endpoint: listener.endpoint.clone(),
        options: Options::Stream(options.clone()),
        index,
    }
}

fn options_of(plan: &Plan, listener: &Listener) -> ListenOptions {
    let front = proxy_of(plan, listener).and_then(|p| p.front.as_ref());
    let keepalive = front.and_then(|front| front.keepalive);
    ListenOptions {
        backlog: if listener.backlog > 0 {
            listener.backlog
        } else {
            limits::BACKLOG_DEFAULT
        },
        defer_accept: listener.defer_accept,
        v6only: listener.v6only,
        tcp_user_timeout_ms: listener.tcp_user_timeout_ms,
        keepalive: keepalive.map(|k| [k.idle_s, k.interval_s, k.count]),
        interface: listener.interface.clone(),
        transparent: listener.transparent,
        fast_open: listener.fast_open,
        mss: listener.mss,
        congestion: listener.congestion.clone(),
        delayed_ack: listener.delayed_ack,
        rcvbuf: plan.global.rcvbuf_client,
        sndbuf: plan.global.sndbuf_client,
    }
}

fn proxy_name<'a>(plan: &'a Plan, listener: &Listener) -> &'a str {
    proxy_of(plan, listener).map_or("?", |proxy| &proxy.name)
}

fn proxy_of<'a>(plan: &'a Plan, listener: &Listener) -> Option<&'a Proxy> {
    let mut proxies = plan.proxies.iter().map(|proxy| &**proxy);
    proxies.find(|proxy| proxy.proxy_id == listener.proxy_id)
}

fn bind_error(plan: &Plan, listener: &Listener, refused: &ListenError) -> String {
    let kind = match proxy_of(plan, listener) {
        Some(proxy) if proxy.kind == ProxyKind::Listen => "proxy",
        Some(_) | None => "frontend",
    };
    let what = match &listener.endpoint {
        Endpoint::Address(Address::Ip(address)) => address.to_string(),
        Endpoint::Address(Address::Unix(path)) => path.display().to_string(),
        Endpoint::Address(Address::Abstract(name)) => name.to_string(),
        Endpoint::Descriptor(number) => format!("fd@{number}"),
        Endpoint::Datagram(address) => address.to_string(),
    };
    let verb = match (&listener.endpoint, &refused.parameter) {
        (_, Some(parameter)) => format!("cannot set '{parameter}'"),
        (Endpoint::Address(Address::Ip(_)) | Endpoint::Datagram(_), None) => {
            "cannot bind socket".to_owned()
        }
        (Endpoint::Address(_), None) => "cannot bind UNIX socket".to_owned(),
        (Endpoint::Descriptor(_), None) => "cannot use inherited socket".to_owned(),
    };
    let (place, name) = (&listener.place, proxy_name(plan, listener));
    format!(
        "Binding [{place}] for {kind} {name}: {verb} ({}) for [{what}]",
        error_text(&refused.error)
    )
}

/// An error's text as the C library has it, without Rust's `(os error N)`.
pub(crate) fn error_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
