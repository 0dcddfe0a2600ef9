//! Taking the place of a running process: its listening sockets (`-x`), and its end once this one
//! listens (`-sf`, `-st`).

use nix::sys::signal::Signal;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::control::messages::Console;
use crate::control::runtime_api::sockets;
use crate::sys::process as system;

/// Whose place is taken, and how they end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TakeOver {
    /// The processes to end.
    pub pids: Vec<i32>,
    /// They end at once (`-st`), not when their sessions have (`-sf`).
    pub hard: bool,
    /// Runtime socket of the one whose listening sockets are taken.
    pub socket: Option<PathBuf>,
}

impl TakeOver {
    /// The listening sockets of the old process, with their names.
    pub(super) fn sockets(
        &self,
        worker: bool,
        console: &Console,
    ) -> Result<Vec<(String, OwnedFd)>, String> {
        let Some(path) = &self.socket else {
            return Ok(Vec::new());
        };
        match sockets::fetch(path) {
            Ok(sockets) => Ok(sockets),
            Err(error) => {
                let path = path.display();
                console.warning(&format!(
                    "Failed to connect to the old process socket '{path}' ({error})"
                ));
                let text = "Failed to get the sockets from the old process!";
                // HAProxy's master goes on and binds by itself; without one it gives up.
                if worker {
                    console.alert(text);
                    return Ok(Vec::new());
                }
                Err(text.to_owned())
            }
        }
    }

    /// Takes out the processes that a process of user `to` may not signal, if we are to become
    /// that.
    pub(super) fn out_of_reach(&mut self, to: Option<u32>) -> TakeOver {
        let mut early = TakeOver {
            pids: Vec::new(),
            hard: self.hard,
            socket: None,
        };
        // Who becomes nobody else keeps its rights, and root has all.
        if let Some(to) = to.filter(|to| *to != 0 && system::is_root()) {
            let reachable = |pid: &i32| system::may_signal(to, *pid);
            (self.pids, early.pids) = self.pids.iter().partition(|pid| reachable(pid));
        }
        early
    }

    /// Ends the old processes. A number may have come to be our own, where the one that wrote it
    /// down is gone.
    pub(super) fn end_old(&self, console: &Console) {
        let signal = if self.hard {
            Signal::SIGTERM
        } else {
            Signal::SIGUSR1
        };
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        for pid in self.pids.iter().filter(|pid| **pid != own) {
            if let Err(error) = system::signal(*pid, signal) {
                console.warning(&format!("Cannot send {signal} to process {pid}: {error}"));
            }
        }
    }
}
