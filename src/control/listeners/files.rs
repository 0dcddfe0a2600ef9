//! Files of Unix sockets in the registry: who may connect, and when they are removed.

use std::path::PathBuf;

use super::{Entry, Registry, error_text, proxy_name};
use crate::base::address::Address;
use crate::config::plan::{Endpoint, Listener, Plan};
use crate::sys::socket::{self, UnixAccess};

/// The file of a Unix socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    /// Device and inode.
    pub(super) file: (u64, u64),
    pub(super) access: UnixAccess,
}

impl SocketFile {
    pub(super) fn unlink(&self) {
        socket::unlink_unix(&self.path, self.file);
    }
}

impl Registry {
    /// Removes the socket files that no listener has any more.
    pub(super) fn drop_files(&mut self) {
        let entries = &self.entries;
        self.socket_files.retain(|file| {
            let is_here = |entry: &Entry| match &entry.key.endpoint {
                Endpoint::Address(Address::Unix(own)) => *own == file.path,
                _ => false,
            };
            let stays = entries.iter().any(is_here);
            if !stays {
                file.unlink();
            }
            stays
        });
    }

    /// Gives the files of Unix sockets the mode and the owner that the plan in force has. Returns
    /// what can't be changed.
    pub(super) fn follow_files(&mut self, plan: &Plan) -> Vec<String> {
        let mut refused = Vec::new();
        for listener in &plan.listeners {
            let Endpoint::Address(Address::Unix(path)) = &listener.endpoint else {
                continue;
            };
            let mut files = self.socket_files.iter_mut();
            let (Some(known), wanted) = (files.find(|f| f.path == *path), access_of(listener))
            else {
                continue;
            };
            if known.access == wanted {
                continue;
            }
            match socket::renew_unix(path, known.file, known.access, wanted) {
                Ok(()) => known.access = wanted,
                // The next reload tries again.
                Err(error) => refused.push(format!(
                    "listener {}/{} keeps its old mode and owner: {}",
                    proxy_name(plan, listener),
                    listener.endpoint,
                    error_text(&error)
                )),
            }
        }
        refused
    }
}

/// Who may connect to a Unix listener.
pub(super) fn access_of(listener: &Listener) -> UnixAccess {
    UnixAccess {
        mode: listener.unix_mode,
        uid: listener.unix_uid,
        gid: listener.unix_gid,
    }
}
