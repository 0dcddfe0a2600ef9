//! The runtime sockets, from the configuration to sockets that listen.
//!
//! A reload adds and removes some. One that stays keeps its socket and its file; what its clients
//! may do, and who may connect, is changed where it is.

use std::io;
use std::os::fd::OwnedFd;

use tokio::sync::{oneshot, watch};

use crate::base::address::Address;
use crate::config::plan::{Endpoint, Level, Plan, SeverityOutput, StatsSocket};
use crate::control::listeners::{INHERITED_AT_START, error_text};
use crate::limits;
use crate::sys::socket::{self, ListenOptions, UnixAccess};

/// A runtime socket that listens, on its way to the control thread.
#[derive(Debug)]
pub(in crate::control) struct BoundSocket {
    pub(super) socket: OwnedFd,
    pub(super) is_unix: bool,
    pub(super) terms: watch::Receiver<Terms>,
    /// Dropped when nobody comes by it any more.
    pub(super) empties: oneshot::Sender<()>,
}

/// How a socket goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    /// What clients may do that come from now on.
    pub(super) grant: Grant,
    /// There shall be no more of them.
    pub(super) is_over: bool,
}

/// What the clients of a socket may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    pub(super) level: Level,
    /// `expose-fd listeners`: a successor may take the listening sockets.
    pub(super) exposes_listeners: bool,
    /// It stands for the socket of HAProxy's master: commands may begin with a process's name.
    pub(super) is_master: bool,
    /// How messages are marked until a client wants it otherwise.
    pub(super) severity_output: SeverityOutput,
}

impl Grant {
    fn of(wanted: &StatsSocket) -> Grant {
        Grant {
            level: wanted.level,
            exposes_listeners: wanted.exposes_listeners,
            is_master: wanted.is_master,
            severity_output: wanted.severity_output,
        }
    }
}

/// A socket of the configuration.
#[derive(Debug)]
struct Entry {
    wanted: StatsSocket,
    /// Its file, by device and inode.
    file: Option<(u64, u64)>,
    terms: watch::Sender<Terms>,
    emptied: oneshot::Receiver<()>,
    /// Until who serves it takes it.
    bound: Option<BoundSocket>,
}

/// The runtime sockets of the process.
#[derive(Debug, Default)]
pub struct ApiSockets {
    entries: Vec<Entry>,
    /// Each ends when nobody comes any more by a socket that was given up.
    leaving: Vec<oneshot::Receiver<()>>,
}

impl ApiSockets {
    /// Binds every `stats socket`; on errors returns all of them as texts.
    /// Those of a running process whose place is taken are replaced.
    pub fn bind(plan: &Plan, replacing: bool) -> Result<ApiSockets, Vec<String>> {
        let mut sockets = ApiSockets::default();
        let wanted = &plan.global.stats_sockets;
        let listeners = plan.listeners.iter().map(|listener| &listener.endpoint);
        let taken: Vec<&Endpoint> = listeners
            .chain(wanted.iter().map(|w| &w.endpoint))
            .collect();
        let adopt = |endpoint: &Endpoint, number| match count_of(&taken, endpoint) {
            1 => socket::adopt_listener(number),
            // A number has one owner.
            _ => Err(io::ErrorKind::AddrInUse.into()),
        };
        sockets.bind_all(wanted.iter(), replacing, adopt)?;
        Ok(sockets)
    }

    /// Binds those of the next plan that there are none of yet. On errors nothing has changed.
    pub(in crate::control) fn add(&mut self, plan: &Plan) -> Result<(), Vec<String>> {
        let known = self.entries.len();
        let wanted = plan.global.stats_sockets.iter().enumerate();
        let is_new = |(place, wanted): &(usize, &StatsSocket)| {
            let before = &plan.global.stats_sockets[..*place];
            let is_first = before.iter().all(|one| one.endpoint != wanted.endpoint);
            !is_first || self.entry_of(&wanted.endpoint).is_none()
        };
        let added: Vec<&StatsSocket> = wanted.filter(is_new).map(|(_, wanted)| wanted).collect();
        // The number may be anything's of this process by now.
        let adopt = |_: &Endpoint, _| Err(io::Error::other(INHERITED_AT_START));
        let bound = self.bind_all(added.into_iter(), false, adopt);
        if bound.is_err() {
            self.truncate(known);
        }
        bound
    }

    /// How many there are.
    pub(in crate::control) fn count(&self) -> usize {
        self.entries.len()
    }

    /// Gives up those behind the first ones: they were added and will not be used.
    pub(in crate::control) fn truncate(&mut self, count: usize) {
        for entry in self.entries.drain(count..) {
            entry.unlink();
        }
    }

    /// Follows the plan in force: no client comes to what it has no more, and what can be changed
    /// of the others is. Returns what can't.
    pub(in crate::control) fn follow(&mut self, plan: &Plan) -> Vec<String> {
        let wanted_of = |entry: &Entry| {
            let mut wanted = plan.global.stats_sockets.iter();
            wanted.find(|wanted| wanted.endpoint == entry.wanted.endpoint)
        };
        let gone = self.entries.extract_if(.., |one| wanted_of(one).is_none());
        for entry in gone {
            // First the file, so that nobody comes while the rest is answered.
            entry.unlink();
            entry.terms.send_modify(|terms| terms.is_over = true);
            self.leaving.push(entry.emptied);
        }
        let stay = self.entries.iter_mut();
        stay.filter_map(|entry| entry.follow(wanted_of(entry)?))
            .collect()
    }

    /// What is waited for before it is said that nobody comes by what was given up.
    pub(in crate::control) fn take_leaving(&mut self) -> Vec<oneshot::Receiver<()>> {
        std::mem::take(&mut self.leaving)
    }

    fn entry_of(&self, endpoint: &Endpoint) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.wanted.endpoint == *endpoint)
    }

    fn bind_all<'a>(
        &mut self,
        wanted: impl Iterator<Item = &'a StatsSocket>,
        replacing: bool,
        adopt: impl Fn(&Endpoint, i32) -> io::Result<OwnedFd>,
    ) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        for socket in wanted {
            match bind_one(socket, replacing, &adopt) {
                Ok(entry) => self.entries.push(entry),
                Err(error) => {
                    let what = &socket.endpoint;
                    let text = error_text(&error);
                    errors.push(format!("cannot bind stats socket ({text}) for [{what}]"));
                }
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }

    /// Those that nobody serves yet, for the control thread.
    pub(in crate::control) fn take(&mut self) -> Vec<BoundSocket> {
        let entries = self.entries.iter_mut();
        entries.filter_map(|entry| entry.bound.take()).collect()
    }

    /// Removes the socket files that are still ours.
    pub fn unlink(&mut self) {
        self.entries.iter_mut().for_each(Entry::forget);
    }
}

impl Entry {
    fn unlink(&self) {
        if let (Endpoint::Address(Address::Unix(path)), Some(file)) =
            (&self.wanted.endpoint, self.file)
        {
            socket::unlink_unix(path, file);
        }
    }

    /// The same, once.
    fn forget(&mut self) {
        self.unlink();
        self.file = None;
    }

    /// Becomes what is wanted, at the address that it has; returns what it can't.
    fn follow(&mut self, wanted: &StatsSocket) -> Option<String> {
        let grant = Grant::of(wanted);
        self.terms.send_modify(|terms| terms.grant = grant);
        let (before, after) = (access(&self.wanted), access(wanted));
        let Endpoint::Address(Address::Unix(path)) = &wanted.endpoint else {
            return None;
        };
        if before == after {
            return None;
        }
        match socket::renew_unix(path, self.file?, before, after) {
            Ok(()) => {
                self.wanted = wanted.clone();
                None
            }
            // The next reload tries again.
            Err(error) => Some(format!(
                "stats socket {} keeps its old mode and owner: {}",
                path.display(),
                error_text(&error)
            )),
        }
    }
}

fn bind_one(
    wanted: &StatsSocket,
    replacing: bool,
    adopt: impl Fn(&Endpoint, i32) -> io::Result<OwnedFd>,
) -> io::Result<Entry> {
    let backlog = u32::try_from(limits::API_BACKLOG).unwrap_or(0);
    let (socket, file) = match &wanted.endpoint {
        Endpoint::Address(Address::Unix(path)) => {
            let bound = socket::listen_unix(path, backlog, access(wanted), replacing)?;
            (bound.socket, Some(bound.file))
        }
        Endpoint::Address(Address::Abstract(name)) => {
            (socket::listen_abstract(name, backlog)?, None)
        }
        Endpoint::Address(Address::Ip(address)) => {
            let options = ListenOptions {
                backlog,
                ..ListenOptions::default()
            };
            let socket = match replacing {
                true => socket::join_tcp(*address, &options).map(Some),
                false => socket::listen_tcp(*address, &options, 1).map(|mut one| one.pop()),
            };
            let socket = socket.map_err(|refused| refused.error)?;
            (socket.ok_or(io::ErrorKind::AddrNotAvailable)?, None)
        }
        Endpoint::Descriptor(number) => (adopt(&wanted.endpoint, *number)?, None),
        // The configuration has refused it.
        Endpoint::Datagram(_) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let is_unix = socket2::SockRef::from(&socket).local_addr()?.is_unix();
    let (empties, emptied) = oneshot::channel();
    let (sender, terms) = watch::channel(Terms {
        grant: Grant::of(wanted),
        is_over: false,
    });
    Ok(Entry {
        wanted: wanted.clone(),
        file,
        terms: sender,
        emptied,
        bound: Some(BoundSocket {
            socket,
            is_unix,
            terms,
            empties,
        }),
    })
}

fn access(socket: &StatsSocket) -> UnixAccess {
    UnixAccess {
        mode: socket.mode,
        uid: socket.uid,
        gid: socket.gid,
    }
}

fn count_of(taken: &[&Endpoint], wanted: &Endpoint) -> usize {
    taken.iter().filter(|endpoint| **endpoint == wanted).count()
}
