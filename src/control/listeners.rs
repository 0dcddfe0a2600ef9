//! The registry of listening sockets, keyed by (endpoint, options, index) and independent of
//! shards.
//!
//! A TCP address has one reuseport member per shard; Unix and inherited sockets are one socket that
//! all shards share through duplicates. The registry keeps a descriptor of each, so that a later
//! reload or upgrade can hand them on, and gives them up when the process drains: a shard then
//! accepts what is queued and closes the last descriptor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::base::address::Address;
use crate::base::ids::{ListenerId, ShardId};
use crate::config::plan::{Endpoint, Listener, Plan, ProxyKind};
use crate::limits;
use crate::shard::ShardListener;
use crate::sys::socket::{self, ListenOptions};

/// What makes a listening socket the same across reloads and upgrades.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ListenerKey {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// With which options.
    pub options: ListenOptions,
    /// Which member of the group, 0 for a shared socket.
    pub index: u16,
}

#[derive(Debug)]
struct Entry {
    key: ListenerKey,
    listener_id: ListenerId,
    /// Used by every shard, not by the shard of its index alone.
    shared: bool,
    socket: OwnedFd,
}

/// Every listening socket of the process's frontends.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Vec<Entry>,
    socket_files: Vec<(PathBuf, (u64, u64))>,
}

impl Registry {
    /// Binds every listener of a plan for `shards` shards, taking sockets of `adopted` where the
    /// key fits. On errors all of them are returned, as texts, and nothing stays bound.
    pub fn bind(
        plan: &Plan,
        shards: u16,
        mut adopted: Vec<(ListenerKey, OwnedFd)>,
    ) -> Result<Registry, Vec<String>> {
        let mut registry = Registry::default();
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
        adopted: &mut Vec<(ListenerKey, OwnedFd)>,
    ) -> Result<(), String> {
        let options = options_of(plan, listener);
        let failed = |error: &io::Error| bind_error(plan, listener, error);
        match &listener.endpoint {
            Endpoint::Address(Address::Ip(address)) => {
                let mut group: Vec<OwnedFd> = Vec::new();
                for index in 0..shards {
                    let key = key_of(listener, &options, index);
                    match adopted.iter().position(|(found, _)| *found == key) {
                        Some(at) => group.push(adopted.swap_remove(at).1),
                        None => break,
                    }
                }
                if group.is_empty() {
                    group = self
                        .listen_tcp(listener, *address, &options, usize::from(shards))
                        .map_err(|error| failed(&error))?;
                }
                while group.len() < usize::from(shards) {
                    let member = socket::join_tcp(*address, &options);
                    group.push(member.map_err(|error| failed(&error))?);
                }
                for (index, socket) in (0..shards).zip(group) {
                    self.enter(listener, key_of(listener, &options, index), false, socket);
                }
            }
            Endpoint::Address(Address::Unix(path)) => {
                let (mode, uid, gid) = (listener.unix_mode, listener.unix_uid, listener.unix_gid);
                let bound = socket::listen_unix(path, options.backlog, mode, uid, gid)
                    .map_err(|error| failed(&error))?;
                self.socket_files.push((path.clone(), bound.file));
                self.enter(listener, key_of(listener, &options, 0), true, bound.socket);
            }
            Endpoint::Descriptor(number) => {
                if self
                    .entries
                    .iter()
                    .any(|entry| entry.key.endpoint == listener.endpoint)
                {
                    return Err(failed(&io::Error::from_raw_os_error(nix::libc::EADDRINUSE)));
                }
                let socket = socket::adopt_listener(*number).map_err(|error| failed(&error))?;
                self.enter(listener, key_of(listener, &options, 0), true, socket);
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
    ) -> io::Result<Vec<OwnedFd>> {
        let own = self
            .entries
            .iter()
            .any(|entry| entry.key.endpoint == listener.endpoint);
        if own {
            return (0..members)
                .map(|_| socket::join_tcp(address, options))
                .collect();
        }
        match socket::listen_tcp(address, options, members) {
            // `*:80` beside `127.0.0.1:80` in one configuration: the other one is ours.
            Err(error) if is_in_use(&error) && self.has_port(address.port()) => (0..members)
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

    fn enter(&mut self, listener: &Listener, key: ListenerKey, shared: bool, socket: OwnedFd) {
        self.entries.push(Entry {
            key,
            listener_id: listener.listener_id,
            shared,
            socket,
        });
    }

    /// Duplicates of the sockets that `shard` accepts from.
    pub fn for_shard(&self, shard: ShardId) -> io::Result<Vec<ShardListener>> {
        self.entries
            .iter()
            .filter(|entry| entry.shared || entry.key.index == shard.0)
            .map(|entry| {
                let socket = entry.socket.try_clone()?;
                Ok(ShardListener {
                    listener_id: entry.listener_id,
                    socket,
                })
            })
            .collect()
    }

    /// Every socket with its key, to be handed to a successor.
    pub fn export(&self) -> impl Iterator<Item = (&ListenerKey, BorrowedFd<'_>)> {
        self.entries
            .iter()
            .map(|entry| (&entry.key, entry.socket.as_fd()))
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
        options: options.clone(),
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
        rcvbuf: plan.global.rcvbuf_client,
        sndbuf: plan.global.sndbuf_client,
    }
}

fn bind_error(plan: &Plan, listener: &Listener, error: &io::Error) -> String {
    let (kind, name) = match plan.proxies.get(usize::from(listener.proxy_id.0)) {
        Some(proxy) if proxy.kind == ProxyKind::Listen => ("proxy", &*proxy.name),
        Some(proxy) => ("frontend", &*proxy.name),
        None => ("frontend", "?"),
    };
    let what = match &listener.endpoint {
        Endpoint::Address(Address::Ip(address)) => address.to_string(),
        Endpoint::Address(Address::Unix(path)) => path.display().to_string(),
        Endpoint::Descriptor(number) => format!("fd@{number}"),
    };
    let verb = match listener.endpoint {
        Endpoint::Address(Address::Ip(_)) => "cannot bind socket",
        Endpoint::Address(Address::Unix(_)) => "cannot bind UNIX socket",
        Endpoint::Descriptor(_) => "cannot use inherited socket",
    };
    let place = &listener.place;
    format!(
        "Binding [{place}] for {kind} {name}: {verb} ({}) for [{what}]",
        error_text(error)
    )
}

/// An error's text as the C library has it, without Rust's `(os error N)`.
pub(crate) fn error_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
