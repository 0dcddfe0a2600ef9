//! The runtime sockets, from the configuration to sockets that listen.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::base::address::Address;
use crate::config::plan::{Endpoint, Level, Plan, SeverityOutput, StatsSocket};
use crate::control::listeners::error_text;
use crate::limits;
use crate::sys::socket::{self, ListenOptions};

/// A runtime socket that listens, on its way to the control thread.
#[derive(Debug)]
pub struct BoundSocket {
    pub(super) socket: OwnedFd,
    pub(super) is_unix: bool,
    pub(super) grant: Grant,
}

/// What the clients of a socket may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) level: Level,
    /// `expose-fd listeners`: a successor may take the listening sockets.
    pub(super) exposes_listeners: bool,
    /// It stands for the socket of HAProxy's master: commands may begin with a process's name.
    pub(super) is_master: bool,
    /// How messages are marked until a client wants it otherwise.
    pub(super) severity_output: SeverityOutput,
}

/// The runtime sockets of the process.
#[derive(Debug, Default)]
pub struct ApiSockets {
    bound: Vec<BoundSocket>,
    files: Vec<(PathBuf, (u64, u64))>,
}

impl ApiSockets {
    /// Binds every `stats socket`; on errors returns all of them as texts.
    /// Those of a running process whose place is taken are replaced.
    pub fn bind(plan: &Plan, replacing: bool) -> Result<ApiSockets, Vec<String>> {
        let mut sockets = ApiSockets::default();
        let mut errors = Vec::new();
        let wanted = &plan.global.stats_sockets;
        let listeners = plan.listeners.iter().map(|listener| &listener.endpoint);
        let taken: Vec<&Endpoint> = listeners
            .chain(wanted.iter().map(|w| &w.endpoint))
            .collect();
        for socket in wanted {
            let bound = match &socket.endpoint {
                // A number has one owner.
                Endpoint::Descriptor(_) if count_of(&taken, &socket.endpoint) > 1 => {
                    Err(io::ErrorKind::AddrInUse.into())
                }
                _ => sockets.bind_one(socket, replacing),
            };
            if let Err(error) = bound {
                let what = &socket.endpoint;
                let text = error_text(&error);
                errors.push(format!("cannot bind stats socket ({text}) for [{what}]"));
            }
        }
        if errors.is_empty() {
            Ok(sockets)
        } else {
            Err(errors)
        }
    }

    fn bind_one(&mut self, wanted: &StatsSocket, replacing: bool) -> io::Result<()> {
        let grant = Grant {
            level: wanted.level,
            exposes_listeners: wanted.exposes_listeners,
            is_master: wanted.is_master,
            severity_output: wanted.severity_output,
        };
        let backlog = u32::try_from(limits::API_BACKLOG).unwrap_or(0);
        let mut add = |socket: OwnedFd, is_unix: bool| {
            self.bound.push(BoundSocket {
                socket,
                is_unix,
                grant,
            });
        };
        match &wanted.endpoint {
            Endpoint::Address(Address::Unix(path)) => {
                let (mode, uid, gid) = (wanted.mode, wanted.uid, wanted.gid);
                let bound = socket::listen_unix(path, backlog, mode, uid, gid, replacing)?;
                self.files.push((path.clone(), bound.file));
                add(bound.socket, true);
            }
            Endpoint::Address(Address::Abstract(name)) => {
                add(socket::listen_abstract(name, backlog)?, true);
            }
            Endpoint::Address(Address::Ip(address)) => {
                let options = ListenOptions {
                    backlog,
                    ..ListenOptions::default()
                };
                let sockets = if replacing {
                    socket::join_tcp(*address, &options).map(|socket| vec![socket])
                } else {
                    socket::listen_tcp(*address, &options, 1)
                };
                for socket in sockets.map_err(|refused| refused.error)? {
                    add(socket, false);
                }
            }
            Endpoint::Descriptor(number) => {
                let socket = socket::adopt_listener(*number)?;
                let address = socket2::SockRef::from(&socket).local_addr()?;
                add(socket, address.is_unix());
            }
            // The configuration has refused it.
            Endpoint::Datagram(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    /// The sockets, for the control thread.
    pub fn take(&mut self) -> Vec<BoundSocket> {
        std::mem::take(&mut self.bound)
    }

    /// Removes the socket files that are still ours.
    pub fn unlink(&mut self) {
        for (path, file) in self.files.drain(..) {
            socket::unlink_unix(&path, file);
        }
    }
}

fn count_of(taken: &[&Endpoint], wanted: &Endpoint) -> usize {
    taken.iter().filter(|endpoint| **endpoint == wanted).count()
}
