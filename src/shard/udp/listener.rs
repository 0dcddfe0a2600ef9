//! Sockets that clients send to.
//!
//! A listener receives until its shard ends, also while it drains: the datagrams of flows that are
//! there still come by it. Only a successor that has been given the same socket ends that.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::counts::DatagramCount;
use super::{Rest, Shard, Udp};
use crate::base::ids::{ListenerId, ShardId};
use crate::base::limits::{LimitId, LimitKey};
use crate::base::time::Moment;
use crate::config::plan::{self, UdpFront};
use crate::lb::Backend;
use crate::ring::{Arrival, Fd, Inbox, Kernel, Op, Token};
use crate::shard::frontend_backend;
use crate::shard::listener_counters::{ListenerCounter, ListenerCounters};
use crate::shard::spread::Serving;
use crate::shard::world::{FrontState, Frontend, World};

/// How often the kernel is asked what it has dropped.
const DROPS_EVERY_MS: u64 = 1_000;

/// What a socket is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    /// Nothing: it is to be armed.
    Idle,
    /// It receives.
    Armed,
    /// It was cancelled and has not completed yet.
    Ending,
    /// It does not receive any more.
    Ended,
}

/// A listening socket of the shard.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) fd: Fd,
    pub(super) receiving: Receiving,
    pub(super) frontend: Arc<Frontend>,
    /// What the configuration says of it.
    pub(super) plan: Arc<plan::Listener>,
    pub(super) backend: Option<Arc<Backend>>,
    pub(super) rules: UdpFront,
    /// What a flow counts in: process, listener, frontend.
    pub(super) limits: [LimitId; 3],
    pub(super) accepts_proxy: bool,
    /// Datagrams may name their server (`quic-lb`).
    pub(super) names_servers: bool,
    /// What it is bound to.
    bound: Option<SocketAddr>,
    /// Bound to no single address: each datagram says where it went.
    pub(super) wildcard: bool,
    /// Drops of its socket that are counted already.
    dropped: u32,
    /// Its statistics, where its frontend wants them.
    counters: Option<Arc<ListenerCounters>>,
    /// The shards that serve it.
    serving: Arc<Serving>,
    /// It is taken away, or shut down: no flow begins, and it is closed when there is none left.
    pub(super) leaves: bool,
    /// Its shards have been told that this one has no flow of it any more.
    is_quiet: bool,
    /// Flows that it has.
    pub(super) flows: u32,
}

impl Listener {
    /// The address that a client has written to.
    pub(super) fn local(&self, to: Option<IpAddr>) -> Option<SocketAddr> {
        let bound = self.bound?;
        Some(SocketAddr::new(to.unwrap_or(bound.ip()), bound.port()))
    }

    /// Counts for it, where its frontend wants that.
    #[inline]
    pub(super) fn count(&self, shard: ShardId, counter: ListenerCounter, n: u64) {
        if let Some(counters) = &self.counters {
            counters.add(shard, counter as usize, n);
        }
    }

    /// What of it tells flows apart.
    pub(super) fn local_of(&self, arrival: &Arrival) -> Option<IpAddr> {
        arrival.to.filter(|_| self.wildcard)
    }
}

impl Listener {
    /// As a new world has it.
    fn renew(&mut self, world: &World) {
        let listening = world.listeners.get(usize::from(self.plan.listener_id.0));
        let listening = listening.and_then(Option::as_ref);
        let Some(listening) = listening.filter(|one| !one.is_removed) else {
            self.leaves = true;
            return;
        };
        let Some(frontend) = world.frontend(listening.plan.proxy_id) else {
            return;
        };
        let rules = frontend.proxy.front.as_ref().and_then(|front| front.udp);
        self.rules = rules.unwrap_or(self.rules);
        self.backend = frontend_backend(world, frontend);
        let back = self.backend.as_ref().and_then(|b| b.proxy.back.as_ref());
        self.names_servers = back.is_some_and(|back| back.quic_lb.is_some());
        self.accepts_proxy = listening.plan.accept_proxy;
        self.frontend = Arc::clone(frontend);
        self.plan = Arc::clone(&listening.plan);
        self.counters.clone_from(&listening.counters);
    }
}

impl<K: Kernel> Shard<K> {
    /// Takes a socket over; `start_receiving` arms it.
    pub(in crate::shard) fn add_datagram_listener(
        &mut self,
        listener_id: ListenerId,
        fd: Fd,
    ) -> std::io::Result<()> {
        let listening = self.world.listeners[usize::from(listener_id.0)].as_ref();
        let listening = listening.expect("a socket has a listener");
        let plan = &listening.plan;
        let frontend = self.world.frontend(plan.proxy_id);
        let frontend = Arc::clone(frontend.expect("a listener has a frontend"));
        let front = frontend.proxy.front.as_ref().expect("a frontend");
        let rules = front.udp.expect("datagrams come to a frontend of mode udp");
        let listener = self.world.limits.find(LimitKey::Listener(listener_id));
        let limits = [
            self.world.flows_limit,
            listener.expect("every listener has a limit"),
            frontend.limit,
        ];
        let bound = self.kernel.local_address(fd);
        let backend = frontend_backend(&self.world, &frontend);
        let back = backend.as_ref().and_then(|b| b.proxy.back.as_ref());
        let names_servers = back.is_some_and(|back| back.quic_lb.is_some());
        let listener = Listener {
            fd,
            receiving: Receiving::Idle,
            backend,
            names_servers,
            rules,
            limits,
            accepts_proxy: plan.accept_proxy,
            plan: Arc::clone(plan),
            bound: bound.map(crate::flow::udp::normalised),
            wildcard: bound.is_none_or(|bound| bound.ip().is_unspecified()),
            dropped: self.kernel.datagrams_dropped(fd),
            counters: listening.counters.clone(),
            serving: Arc::clone(&listening.serving),
            leaves: false,
            is_quiet: false,
            flows: 0,
            frontend,
        };
        if self.udp.is_none() {
            self.kernel.prepare_datagrams()?;
            self.udp = Some(Box::new(Udp::new(self.id, &self.world, self.now)));
        }
        let udp = self.udp.as_mut().expect("just made");
        udp.listeners.push(listener);
        Ok(())
    }

    /// Takes up what a new world says of listeners and servers. Flows stay with what they have.
    pub(in crate::shard) fn renew_datagrams(&mut self) {
        let Some(mut udp) = self.udp.take() else {
            return;
        };
        for listener in udp.listeners.iter_mut().filter(|one| !one.leaves) {
            listener.renew(&self.world);
        }
        udp.renew_upstreams(&self.world, self.now);
        self.udp = Some(udp);
    }

    /// An operator may have shut frontends down: no flow of theirs begins any more, and their
    /// listeners stay for the flows that are there.
    pub(in crate::shard) fn leave_shut_listeners(&mut self) {
        let listeners = self.udp.iter_mut().flat_map(|udp| &mut udp.listeners);
        for listener in listeners.filter(|one| one.frontend.state() == FrontState::Shut) {
            listener.leaves = true;
        }
    }

    /// Closes the listeners that were taken away and have no flow any more.
    pub(super) fn close_left(&mut self, udp: &mut Udp) {
        for (index, listener) in udp.listeners.iter_mut().enumerate() {
            if !listener.leaves || listener.flows > 0 || listener.fd == Fd::NONE {
                continue;
            }
            if !std::mem::replace(&mut listener.is_quiet, true) {
                listener.serving.one_is_quiet();
            }
            if !listener.serving.is_quiet() {
                continue;
            }
            match listener.receiving {
                Receiving::Armed => {
                    listener.receiving = Receiving::Ending;
                    self.kernel.cancel(token_of(index));
                }
                Receiving::Ending => {}
                Receiving::Idle | Receiving::Ended => {
                    listener.receiving = Receiving::Ended;
                    let fd = std::mem::replace(&mut listener.fd, Fd::NONE);
                    self.kernel.close(fd);
                    listener.serving.one_has_ended();
                }
            }
        }
    }

    /// Arms every listener.
    pub(in crate::shard) fn start_receiving(&mut self) {
        let Some(mut udp) = self.udp.take() else {
            return;
        };
        for index in 0..udp.listeners.len() {
            self.arm_listener(&mut udp, index);
        }
        self.udp = Some(udp);
    }

    pub(super) fn arm_listener(&mut self, udp: &mut Udp, index: usize) {
        let listener = &mut udp.listeners[index];
        if listener.receiving == Receiving::Idle {
            listener.receiving = Receiving::Armed;
            let token = token_of(index);
            self.kernel
                .receive_datagrams(listener.fd, Inbox::Clients, token);
        }
    }

    /// A listener's receive has ended, for this reason.
    pub(super) fn listener_rests(&mut self, udp: &mut Udp, index: usize, rest: Rest) {
        let listener = &mut udp.listeners[index];
        match listener.receiving {
            Receiving::Ending => listener.receiving = Receiving::Ended,
            Receiving::Armed => {
                listener.receiving = Receiving::Idle;
                match rest {
                    Rest::None => udp.idle_listeners.push(index),
                    Rest::NoBuffer => {
                        udp.counts.one(DatagramCount::InboxesExhausted);
                        udp.idle_listeners.push(index);
                    }
                    Rest::Failed => udp.rest_until = udp.rest_until.min(self.rest_end()),
                }
            }
            Receiving::Idle | Receiving::Ended => {
                debug_assert!(false, "a completion of what isn't armed");
            }
        }
    }

    /// Ends the receiving of all listeners: flows that are there get no more of their clients.
    pub(super) fn end_receiving(&mut self, udp: &mut Udp) {
        for (index, listener) in udp.listeners.iter_mut().enumerate() {
            match listener.receiving {
                Receiving::Armed => {
                    listener.receiving = Receiving::Ending;
                    self.kernel.cancel(token_of(index));
                }
                Receiving::Idle => listener.receiving = Receiving::Ended,
                Receiving::Ending | Receiving::Ended => {}
            }
        }
    }

    /// Counts what the kernel has dropped at listeners whose buffer was full, every second.
    pub(super) fn look_at_drops(&mut self, udp: &mut Udp) {
        if self.now < udp.drops_at {
            return;
        }
        udp.drops_at = self.now.after_ms(DROPS_EVERY_MS);
        for listener in udp.listeners.iter_mut().filter(|l| l.fd != Fd::NONE) {
            let dropped = self.kernel.datagrams_dropped(listener.fd);
            let more = dropped.wrapping_sub(std::mem::replace(&mut listener.dropped, dropped));
            udp.counts.add(DatagramCount::Overflowed, more);
        }
    }

    /// When a receive that has failed for a reason nobody knows is tried again.
    pub(super) fn rest_end(&self) -> Moment {
        self.now.after_ms(super::REST_MS)
    }
}

fn token_of(index: usize) -> Token {
    Token::plain(
        Op::DatagramsOfClients,
        u32::try_from(index).expect("few listeners"),
    )
}
