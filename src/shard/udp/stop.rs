//! Draining, stopping, servers that flows have to leave.

use std::sync::atomic::Ordering::Relaxed;

use super::end::who;
use super::listener::Receiving;
use super::{Shard, Udp};
use crate::base::ids::ServerId;
use crate::flow::Who;
use crate::flow::udp::Reason;
use crate::ring::{Fd, Kernel};

impl<K: Kernel> Shard<K> {
    /// No flow begins any more; those there are go on, and for them the listeners stay open. A
    /// successor that has been given the same sockets gets what clients send from now on. For one
    /// that has made its own the sockets are closed: while they are there, it hears nothing.
    pub(in crate::shard) fn drain_datagrams(&mut self) {
        let Some(mut udp) = self.udp.take() else {
            return;
        };
        let handed_over = self.world.handed_over.load(Relaxed);
        if handed_over {
            self.end_receiving(&mut udp);
        }
        self.udp = Some(udp);
        if !handed_over && self.world.replaced.load(Relaxed) {
            self.stop_datagrams();
        }
    }

    /// Ends everything at once.
    pub(in crate::shard) fn stop_datagrams(&mut self) {
        let Some(mut udp) = self.udp.take() else {
            return;
        };
        self.end_receiving(&mut udp);
        let all: Vec<_> = udp.flows.iter().map(|(id, _)| id).collect();
        let reason = Reason::Shutdown;
        for id in all {
            self.end_flow(&mut udp, id, reason, who(reason));
        }
        self.udp = Some(udp);
    }

    /// Ends the flows of a server, because somebody wants it.
    pub(in crate::shard) fn end_flows_of(&mut self, server: ServerId, who: Who) {
        let Some(mut udp) = self.udp.take() else {
            return;
        };
        let reason = match who {
            Who::Killed => Reason::Shutdown,
            _ => Reason::ServerDown,
        };
        if let Some(upstream) = udp.upstreams.of_server(server) {
            while let Some(id) = udp.flows.first_of(upstream) {
                self.end_flow(&mut udp, id, reason, who);
            }
        }
        self.udp = Some(udp);
    }

    /// Gives the sockets up once a shard that drains has no flow left.
    pub(super) fn give_up_sockets(&mut self, udp: &mut Udp) {
        if !self.draining || !udp.flows.is_empty() {
            return;
        }
        self.end_receiving(udp);
        let keys: Vec<_> = udp.sockets.iter().map(|(key, _)| key).collect();
        for key in keys {
            udp.abandon(key);
        }
        for shared in &mut udp.pools {
            shared.clear();
        }
        self.close_sockets(udp);
        for listener in &mut udp.listeners {
            if listener.receiving == Receiving::Ended && listener.fd != Fd::NONE {
                self.kernel
                    .close(std::mem::replace(&mut listener.fd, Fd::NONE));
            }
        }
    }
}
