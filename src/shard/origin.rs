//! What a server learns of the client behind a connection: the PROXY header before its bytes, its
//! address as where the connection comes from, its destination as where the server is.
//!
//! A client's addresses cost a system call each and are asked for here, when the first server
//! needs them. The header is no byte of the client: an attempt whose header did not leave whole is
//! a failed attempt, and its connection is reset, so that no server takes half a header for one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Shard;
use crate::base::address::Address;
use crate::base::source::Source;
use crate::config::plan::Target;
use crate::flow::proxy_protocol::{self, Fields, UniqueId, tlv};
use crate::flow::{Direction, Side};
use crate::lb::{Outcome, Server, ServerCounter};
use crate::ring::{ConnectError, Kernel, SendError};

/// Why a server did not get its header.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The client has reset its connection, whose address nobody has asked for. Without it its
    /// bytes would look like the balancer's own.
    ClientGone,
    /// The server's connection did not take it whole.
    Failed(ConnectError),
}

impl<K: Kernel> Shard<K> {
    /// The address that the client connected from.
    fn origin(&mut self, slot: u32) -> Option<SocketAddr> {
        let session = self.sessions.at_mut(slot).expect("a live session");
        if session.client.is_none() {
            session.client = self.kernel.peer_address(session.fd(Side::Client));
        }
        session.client
    }

    /// The address that the client connected to.
    pub(super) fn destination(&mut self, slot: u32) -> Option<SocketAddr> {
        let session = self.sessions.at_mut(slot).expect("a live session");
        if session.local.is_none() {
            session.local = self.kernel.local_address(session.fd(Side::Client));
        }
        session.local
    }

    /// The server at the client's destination.
    pub(super) fn server_of_client(&mut self, slot: u32, target: &Target) -> Option<Address> {
        let address = target.of_client(self.destination(slot)?)?;
        (!self.is_listener_itself(slot, &address)).then_some(address)
    }

    /// Whether a connection there would come back to the listener. Where headers say where clients
    /// want to go the configuration can't know, and one client could use up all connections.
    fn is_listener_itself(&self, slot: u32, to: &Address) -> bool {
        let session = self.sessions.at(slot).expect("a live session");
        let acceptor = &self.acceptors[usize::from(session.acceptor)];
        let front = session.frontend.proxy.front.as_ref().expect("a frontend");
        if !acceptor.accepts_proxy && front.expect_proxy.is_empty() {
            return false;
        }
        // What comes to a transparent one was meant for others.
        let own = self.kernel.local_address(session.fd(Side::Client));
        !acceptor.plan.transparent && own.is_some_and(|own| *to == Address::Ip(own))
    }

    /// The client's destination gives the server no address: a Unix client has none, the port with
    /// its offset is none, or it is the listener itself.
    pub(super) fn no_destination(&mut self, slot: u32, server: &Arc<Server>) {
        self.gauges().destinations_missing.fetch_add(1, Relaxed);
        self.no_way(slot, server);
    }

    /// A source with what it takes of the client, for a server there: `None`, counted, where the
    /// client has no address, or none of the server's family.
    pub(super) fn source_of(
        &mut self,
        slot: u32,
        source: Source,
        to: &SocketAddr,
    ) -> Option<Source> {
        if !source.is_of_client() {
            return Some(source);
        }
        let client = self.origin(slot);
        let gauges = self.gauges();
        match client {
            None => gauges.client_addresses_missing.fetch_add(1, Relaxed),
            Some(client) if client.is_ipv4() != to.is_ipv4() => {
                gauges.client_families_other.fetch_add(1, Relaxed)
            }
            client => return source.of_client(client),
        };
        None
    }

    /// There is no way from this client to that server, and trying again would change nothing.
    pub(super) fn no_way(&mut self, slot: u32, server: &Arc<Server>) {
        let errors = ServerCounter::ConnectErrors as usize;
        server.counters.add(self.id, errors, 1);
        self.drop_server(slot, Outcome::Abandoned);
        self.give_up(slot, ConnectError::Unreachable);
    }

    /// Sends the PROXY header that the session's server wants, if it wants one, as the first thing
    /// of all.
    pub(super) fn send_header(&mut self, slot: u32) -> Result<(), Unsent> {
        let session = self.sessions.at(slot).expect("a live session");
        let server = session.server.as_ref().expect("connected to a server");
        let Some(wanted) = server.plan.send_proxy else {
            return Ok(());
        };
        let (from, to) = (self.origin(slot), self.destination(slot));
        // A Unix client has neither; of a connection that is reset only the peer's is gone.
        if from.is_none() && to.is_some() {
            return Err(Unsent::ClientGone);
        }
        let own_id = (wanted.unique_id && self.received(slot, tlv::UNIQUE_ID).is_empty())
            .then(|| self.unique_id(slot));
        let fields = Fields {
            unique_id: match &own_id {
                Some(id) => id.as_bytes(),
                None => self.received(slot, tlv::UNIQUE_ID),
            },
            authority: self.received(slot, tlv::AUTHORITY),
        };
        let header = proxy_protocol::header(wanted, from.zip(to), fields);
        let session = self.sessions.at(slot).expect("a live session");
        let d = Direction::Up as usize;
        // The end of this turn sends what is there of the client: in one segment with the header.
        let more = session.halves[d].held > 0 || !session.pieces[d].is_empty();
        let fd = session.fd(Side::Server);
        let error = match self.kernel.send_ahead(fd, header.as_bytes(), more) {
            Ok(sent) if sent == header.as_bytes().len() => return Ok(()),
            // A fresh socket that has no room is short of memory.
            Ok(_) => ConnectError::Resource,
            Err(errno) => match SendError::of(errno) {
                SendError::Full => ConnectError::Resource,
                SendError::Broken => ConnectError::Refused,
                SendError::Unexpected(errno) => ConnectError::Unexpected(errno),
            },
        };
        self.gauges().headers_unsent.fetch_add(1, Relaxed);
        Err(Unsent::Failed(error))
    }

    /// A field of the header that the client came with, which is passed on; empty = none.
    fn received(&self, slot: u32, kind: u8) -> &[u8] {
        let session = self.sessions.at(slot).expect("a live session");
        tlv::value(session.tlvs.as_deref().unwrap_or_default(), kind)
    }

    /// The session's id for its servers: one for all of them.
    fn unique_id(&mut self, slot: u32) -> UniqueId {
        let session = self.sessions.at_mut(slot).expect("a live session");
        if session.unique_number == 0 {
            session.unique_number = self.unique_ids.number();
        }
        self.unique_ids.id(session.unique_number)
    }
}
