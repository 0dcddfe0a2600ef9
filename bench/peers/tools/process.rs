//! Processes of other programs: a server that is ready, a client that has ended in time.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::balancer;
use crate::sample::{Context, Void};
use crate::server::Service;
use crate::sys;
use crate::usage;

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// A port that nobody has now.
pub(super) fn free_port() -> Result<u16, Void> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// A server that listens.
pub(crate) struct Server {
    child: Child,
    pub(crate) service: Service,
    pub(crate) port: u16,
}

impl Server {
    pub(super) fn start(
        name: &str,
        service: Service,
        port: u16,
        mut command: Command,
        directory: &Path,
    ) -> Result<Server, Void> {
        let messages = directory.join(format!("{name}.server"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&messages)?);
        command.stderr(File::options().append(true).open(&messages)?);
        sys::end_with_parent(&mut command, Signal::SIGKILL);
        let child = command.spawn().context(format!("start {name}"))?;
        let mut server = Server {
            child,
            service,
            port,
        };
        let deadline = Instant::now() + START_MAX;
        // A connection to try it would be its one client to the server of iperf3.
        while !usage::listens(port) {
            if let Some(status) = server.child.try_wait()? {
                let last = last_words(&messages);
                return Err(Void(format!("{name} ended ({status}): {last}")));
            }
            if Instant::now() > deadline {
                return Err(Void(format!("{name} does not listen after 5 s")));
            }
            thread::sleep(POLL);
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let family = usage::family(self.child.id());
        balancer::end(&mut self.child, &family);
    }
}

/// A client that is ended when it is dropped before its time.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let family = usage::family(self.0.id());
        balancer::end(&mut self.0, &family);
    }
}

/// Runs a program to its end and returns what it printed.
pub(super) fn run(
    name: &str,
    mut command: Command,
    directory: &Path,
    limit: Duration,
) -> Result<String, Void> {
    let printed = directory.join(format!("{name}.printed"));
    let messages = directory.join(format!("{name}.messages"));
    command.stdin(Stdio::null());
    command.stdout(File::create(&printed)?);
    command.stderr(File::create(&messages)?);
    sys::end_with_parent(&mut command, Signal::SIGKILL);
    let child = command.spawn().context(format!("start {name}"))?;
    let mut client = Client(child);
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = client.0.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let last = last_words(&messages);
            return Err(Void(format!("{name} is over its time: {last}")));
        }
        thread::sleep(POLL);
    };
    let last = last_words(&messages);
    if !status.success() || !last.is_empty() {
        return Err(Void(format!("{name} ended ({status}): {last}")));
    }
    Ok(fs::read_to_string(&printed)?)
}

/// The last lines of a file with messages.
fn last_words(messages: &Path) -> String {
    let text = fs::read_to_string(messages).unwrap_or_default();
    let mut last: Vec<&str> = text.lines().rev().take(3).collect();
    last.reverse();
    last.join(" / ")
}
