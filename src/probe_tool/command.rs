//! The command of `failover`, which takes a server away: a shell runs it while the load goes on.

use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::sync::oneshot;

use crate::sys::interrupt;

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// With this exit code.
    Code(i32),
    /// By a signal, or it could not be started.
    Otherwise(String),
    /// It has not, by the end of the test.
    No,
}

impl Ended {
    /// In a report.
    pub(super) fn text(&self) -> String {
        match self {
            Ended::Code(code) => format!("ended with {code}"),
            Ended::Otherwise(text) => text.clone(),
            Ended::No => "has not ended".to_owned(),
        }
    }
}

/// A command that runs, or has run.
pub(super) struct Running(oneshot::Receiver<Ended>);

/// Starts it. What it prints goes to standard error: standard output is the report's.
pub(super) fn start(command: &str) -> Running {
    let (sender, receiver) = oneshot::channel();
    let command = command.to_owned();
    let run = move || {
        // The thread's signals are the child's: what it starts has to be able to end by them.
        let unblocked = interrupt::unblock_all();
        let status = unblocked.and_then(|()| {
            Command::new("/bin/sh")
                .arg("-c")
                .arg(&command)
                .stdin(Stdio::null())
                .stdout(std::io::stderr())
                .status()
        });
        let ended = match status {
            Ok(status) => match status.code() {
                Some(code) => Ended::Code(code),
                None => Ended::Otherwise(status.to_string()),
            },
            Err(error) => Ended::Otherwise(format!("could not be run: {error}")),
        };
        let _ = sender.send(ended);
    };
    if let Err(error) = std::thread::Builder::new()
        .name("command".to_owned())
        .spawn(run)
    {
        // The sender went with the thread that isn't there.
        log::warn!("no thread for the command: {error}");
    }
    Running(receiver)
}

impl Running {
    /// How it ended; what still runs is left alone after `patience`.
    pub(super) async fn end(self, patience: Duration) -> Ended {
        match tokio::time::timeout(patience, self.0).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Ended::Otherwise("could not be run".to_owned()),
            Err(_) => Ended::No,
        }
    }
}
