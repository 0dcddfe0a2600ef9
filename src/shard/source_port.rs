//! The port that a connection to a server comes from: one of its `source`, one that is chosen here,
//! or the system's choice.

use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use super::session::Session;
use crate::base::address::Address;
use crate::base::ports::Ports;
use crate::base::source::Source;
use crate::flow::{Direction, Reading, Side};
use crate::lb::Server;
use crate::ring::{Errno, Fd, Kernel, SocketOptions};
use crate::sys::stream::is_port_taken;

/// A socket, and whether it is connected already.
type Connecting = Result<(Fd, bool), Errno>;

/// The source of a server that has none: a port of any address.
const ANYWHERE: Source = Source {
    ip: None,
    ports: None,
    interface: None,
    foreign: None,
};

impl<K: Kernel> Shard<K> {
    /// Starts the connect, from a port of the server's range where its source has one, or else
    /// from one that is chosen here where that is due.
    pub(super) fn connect_from(
        &mut self,
        slot: u32,
        to: &Address,
        server: &Server,
        mut options: SocketOptions,
    ) -> Connecting {
        let own = options.source.filter(|source| source.foreign.is_none());
        if let (Some(ports), Some(source)) = (server.source_ports(), own) {
            let found = self.connect_by(slot, to, ports, source, options);
            return found.unwrap_or(Err(Errno(libc::EADDRINUSE)));
        }
        let Some(destination) = server.destination() else {
            return self.kernel.connect(to, &options);
        };
        let source = own.unwrap_or(ANYWHERE);
        if let Some(ports) = destination.ports(self.now) {
            if let Some(result) = self.connect_chosen(slot, to, ports, source, options) {
                return result;
            }
            if !destination.exhausted(self.now) {
                return Err(Errno(libc::EADDRINUSE));
            }
        }
        // Another shard may switch it on during the connect.
        let was_on = destination.is_on();
        if was_on {
            self.gauges().sources_left.fetch_add(1, Relaxed);
        }
        // What the system chooses now may be chosen here as soon as the connection has ended.
        options.reuse_address = true;
        let result = self.kernel.connect(to, &options);
        if was_on || !is_taken(&result) {
            return result;
        }
        destination.switch_on();
        let chosen = match destination.ports(self.now) {
            Some(ports) => self.connect_chosen(slot, to, ports, source, options),
            None => None,
        };
        chosen.unwrap_or(result)
    }

    /// The same from a port that is chosen here; `None` if no port was free.
    fn connect_chosen(
        &mut self,
        slot: u32,
        to: &Address,
        ports: &Ports,
        source: Source,
        options: SocketOptions,
    ) -> Option<Connecting> {
        let result = self.connect_by(slot, to, ports, source, options);
        if matches!(result, Some(Ok(_))) {
            self.gauges().sources_chosen.fetch_add(1, Relaxed);
        }
        result
    }

    /// Starts the connect from one of these ports; `None` if no port was free.
    fn connect_by(
        &mut self,
        slot: u32,
        to: &Address,
        ports: &Ports,
        source: Source,
        mut options: SocketOptions,
    ) -> Option<Connecting> {
        let mut in_use = 0;
        let found = ports.find(|port| {
            options.source = Some(source.at(port));
            let result = self.kernel.connect(to, &options);
            let taken = is_taken(&result);
            in_use += u64::from(taken);
            (!taken).then_some(result)
        });
        if in_use > 0 {
            self.gauges().sources_in_use.fetch_add(in_use, Relaxed);
        }
        let (port, result) = found?;
        if result.is_ok() {
            let session = self.sessions.at_mut(slot).expect("a live session");
            session.source_port = Some(port);
        } else {
            ports.give(port);
        }
        Some(result)
    }

    /// Gives the port back that the session's connection to its server had.
    pub(super) fn give_source_port(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        let (Some(port), Some(server)) = (session.source_port.take(), &session.server) else {
            return;
        };
        match (server.source_ports(), server.destination()) {
            (Some(ports), _) => ports.give(port),
            (None, Some(destination)) => destination.give(port),
            (None, None) => debug_assert!(false, "a port of nowhere"),
        }
    }
}

/// Says where it is counted that a session ends with a FIN of ours that the server's own has not
/// preceded: the connection keeps its port for a while.
pub(super) fn note_end(session: &Session) {
    let reading = session.halves[Direction::Down as usize].reading;
    let first = session.closed_first && reading != Reading::Broken;
    if !session.connected() || session.fd(Side::Server) == Fd::NONE {
        return;
    }
    if first || reading == Reading::Open {
        let server = session.server.as_ref();
        let destination = server.and_then(|server| server.destination());
        destination.iter().for_each(|to| to.closed_first());
    }
}

fn is_taken(result: &Connecting) -> bool {
    result.as_ref().is_err_and(|errno| is_port_taken(errno.0))
}
