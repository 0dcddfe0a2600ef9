//! Sockets of UDP listeners in the registry.
//!
//! Each belongs to one shard: two that read from one socket would tear flows apart. Where there are
//! fewer sockets than shards, the first shards serve the listener alone. Clients are steered to the
//! sockets by their address and port, by a program that knows their number.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::{Entry, ListenerKey, Options, Registry, is_in_use, proxy_name, proxy_of};
use crate::base::ids::ListenerId;
use crate::base::receive::Capability;
use crate::config::plan::{Endpoint, Listener, Plan};
use crate::sys::datagram::{self, DatagramListenOptions, listen, steering};
use crate::sys::socket::ListenError;

impl Registry {
    /// Binds a UDP listener for its shards, or takes over sockets of `adopted` that have its name.
    pub(super) fn bind_datagrams(
        &mut self,
        plan: &Plan,
        listener: &Listener,
        address: SocketAddr,
        shards: u16,
        adopted: &mut Vec<(String, OwnedFd)>,
    ) -> Result<(), ListenError> {
        let options = options_of(plan, listener);
        let key = |index| ListenerKey {
            endpoint: listener.endpoint.clone(),
            options: Options::Datagram(options.clone()),
            index,
        };
        let (threads, sockets) = listener.spread(shards, &plan.global);
        let mut group: Vec<OwnedFd> = Vec::new();
        for index in 0..sockets {
            let name = key(index).name();
            match adopted.iter().position(|(found, _)| *found == name) {
                Some(at) => group.push(adopted.swap_remove(at).1),
                None => break,
            }
        }
        if group.is_empty() {
            let bound = self.listen_datagrams(listener, address, &options, sockets)?;
            group = bound.sockets;
            if let Some(short) = bound.short_buffer {
                self.note_short_buffer(plan, listener, short);
            }
        }
        while group.len() < usize::from(sockets) {
            group.push(listen::join(address, &options)?.0);
        }
        if let (Some(first), true) = (group.first(), options.steering) {
            // A group that was taken over may have been steered among another number.
            if let Err(error) = steering::attach(first.as_fd(), sockets)
                && sockets > 1
            {
                log::warn!("clients of udp@{address} can't be steered: {error}");
            }
        }
        for ((index, socket), shard) in (0..sockets).zip(group).zip(threads.iter()) {
            self.entries.push(Entry {
                key: key(index),
                listener_id: listener.listener_id,
                shards: std::iter::once(shard).collect(),
                socket,
            });
        }
        Ok(())
    }

    /// Gives sockets that stay what the plan in force has otherwise. What is less than it was asked
    /// for is among the warnings.
    pub(super) fn follow_datagrams(
        &mut self,
        plan: &Plan,
        planned: &HashMap<ListenerId, &Arc<Listener>>,
    ) {
        let mut short = Vec::new();
        for entry in &mut self.entries {
            let Some(listener) = planned.get(&entry.listener_id) else {
                continue;
            };
            let (Options::Datagram(before), Endpoint::Datagram(address)) =
                (&entry.key.options, &entry.key.endpoint)
            else {
                continue;
            };
            let after = options_of(plan, listener);
            if *before == after {
                continue;
            }
            match listen::renew(entry.socket.as_fd(), *address, &after) {
                Ok(bytes) => {
                    entry.key.options = Options::Datagram(after);
                    let told = short.iter().any(|(told, _)| Arc::ptr_eq(told, listener));
                    if let (Some(bytes), false) = (bytes, told) {
                        short.push((Arc::clone(listener), bytes));
                    }
                }
                Err(error) => log::warn!("options of udp@{address} can't be changed: {error}"),
            }
        }
        for (listener, bytes) in short {
            self.note_short_buffer(plan, &listener, bytes);
        }
    }

    fn listen_datagrams(
        &self,
        listener: &Listener,
        address: SocketAddr,
        options: &DatagramListenOptions,
        members: u16,
    ) -> Result<datagram::Listening, ListenError> {
        if self.replacing {
            return listen::join_all(address, options, members);
        }
        match listen::listen(address, options, members) {
            // `*:53` beside `127.0.0.1:53` in one configuration: the other one is ours.
            Err(refused) if is_in_use(&refused.error) && self.has_beside(listener, address) => {
                listen::join_all(address, options, members)
            }
            other => other,
        }
    }

    /// Whether it has the port on another address or interface. The very same one twice is refused:
    /// the second would be given nothing.
    fn has_beside(&self, listener: &Listener, address: SocketAddr) -> bool {
        let mut beside = false;
        for entry in &self.entries {
            let (Endpoint::Datagram(own), Options::Datagram(options)) =
                (&entry.key.endpoint, &entry.key.options)
            else {
                continue;
            };
            if *own == address && options.interface == listener.interface {
                return false;
            }
            beside |= own.port() == address.port() && address.port() != 0;
        }
        beside
    }

    /// Whether another process has sockets of its own on an address that datagrams come to. Which
    /// of them a client is led to goes by their order in the group: those of this process come
    /// first, and have to be closed before the others get all.
    pub fn shares_datagrams(&self) -> bool {
        self.entries.iter().any(|entry| {
            let Endpoint::Datagram(address) = entry.key.endpoint else {
                return false;
            };
            let own = self.entries.iter();
            let own = own.filter(|own| own.key.endpoint == entry.key.endpoint);
            // Where the kernel doesn't tell, nobody is assumed.
            datagram::sockets_on(address).is_ok_and(|all| all > own.count())
        })
    }

    fn note_short_buffer(&mut self, plan: &Plan, listener: &Listener, bytes: u32) {
        let (proxy, place) = (proxy_name(plan, listener), &listener.place);
        let wanted = plan.global.udp_rcvbuf;
        self.warnings.push(format!(
            "Proxy '{proxy}': the receive buffer of the 'bind' at [{place}] is {bytes} bytes, not \
             {wanted}, and bursts of datagrams may be dropped: raise net.core.rmem_max (sysctl -w \
             net.core.rmem_max={wanted})"
        ));
    }
}

fn options_of(plan: &Plan, listener: &Listener) -> DatagramListenOptions {
    let proxy = proxy_of(plan, listener);
    let front = proxy.and_then(|proxy| proxy.front.as_ref());
    let udp = front.and_then(|front| front.udp);
    let may = |capability| !plan.global.ring_without.contains(&capability);
    DatagramListenOptions {
        v6only: listener.v6only,
        interface: listener.interface.clone(),
        transparent: listener.transparent,
        fragment: udp.is_none_or(|udp| udp.fragment),
        gro: may(Capability::Gro),
        steering: may(Capability::Steering),
        rcvbuf: plan.global.udp_rcvbuf,
        sndbuf: plan.global.sndbuf_client,
    }
}
