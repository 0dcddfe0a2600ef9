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

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::base::address::Address;
use crate::base::ids::{ListenerId, ShardId};
use crate::config::plan::{Endpoint, Listener, Plan, ProxyKind};
use crate::config::threads::ThreadSet;
use crate::limits;
use crate::shard::ShardListener;
use crate::sys::AcceptQueue;
use crate::sys::datagram::DatagramListenOptions;
use crate::sys::socket::{self, ListenError, ListenOptions};

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
    socket_files: Vec<(PathBuf, (u64, u64))>,
    warnings: Vec<String>,
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
                let (mode, uid, gid) = (listener.unix_mode, listener.unix_uid, listener.unix_gid);
                let replacing = self.replacing;
                let bound = socket::listen_unix(path, options.backlog, mode, uid, gid, replacing)
                    .map_err(|error| failed(error.into()))?;
                self.socket_files.push((path.clone(), bound.file));
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
                let socket = if adopted_before {
                    Err(io::Error::from_raw_os_error(nix::libc::EADDRINUSE))
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

    /// Duplicates of the sockets that `shard` accepts from.
    pub fn for_shard(&self, shard: ShardId) -> io::Result<Vec<ShardListener>> {
        self.entries
            .iter()
            .filter(|entry| entry.shards.has(shard))
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

    /// Duplicates of the sockets that no shard accepts from: those of frontends in `mode http`.
    pub fn for_pages(&self) -> io::Result<Vec<PageListener>> {
        let entries = self.entries.iter().filter(|entry| entry.shards.is_empty());
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
            for (path, file) in files.extract_if(.., |(known, _)| known == path) {
                socket::unlink_unix(&path, file);
            }
        }
    }

    /// Gives the sockets up: those of the shards are the last ones then. Socket files are removed,
    /// so that no new client finds them.
    pub fn release(&mut self) {
        self.entries.clear();
        for (path, file) in self.socket_files.drain(..) {
            socket::unlink_unix(&path, file);
        }
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
    let front = plan
        .proxies
        .get(usize::from(listener.proxy_id.0))
        .and_then(|p| p.front.as_ref());
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
    let proxy = plan.proxies.get(usize::from(listener.proxy_id.0));
    proxy.map_or("?", |proxy| &proxy.name)
}

fn bind_error(plan: &Plan, listener: &Listener, refused: &ListenError) -> String {
    let kind = match plan.proxies.get(usize::from(listener.proxy_id.0)) {
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
