//! What traffic says of servers: errors for their checks to act on, and circuits.
//!
//! Shards tell of failed connects through the `ControlPort`. Where `error-limit` is reached, the
//! server's checks are told (`on-error`). Where a circuit opens, the server is out when this has
//! looked at the failure that opened it, whatever its checks say; the probe thread then probes the
//! server's own address once, `fail-timeout` later, and so on until it can be connected to. The
//! last server of a backend is no exception: its clients are refused rather than made to find out
//! for themselves, and the probes come every second then.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::probe::{self, FromTraffic, Order, ProbeResult};
use super::{Shared, apply, batch, lines};
use crate::base::ids::ServerId;
use crate::config::plan::{Observe, OnError};
use crate::health::{Circuit, Outcome, Transition};
use crate::lb::{Backend, Server};
use crate::limits;
use crate::shard::{Observation, World};
use crate::sys::{Awaited, clock};

/// Probes that are ordered or found at a time: servers that are out, and more than there are.
const ORDERS_MAX: usize = 1 << 16;

/// A server whose traffic may say something.
#[derive(Debug)]
struct Watched {
    circuit: Option<Circuit>,
    /// To its checks, if they are to hear of errors.
    errors: Option<Sender<()>>,
}

/// Passive health of all servers; the control thread's own.
#[derive(Debug)]
pub(super) struct Passive {
    /// By `ServerId`.
    watched: Vec<Option<Watched>>,
    orders: Sender<Order>,
    found: Receiver<ProbeResult>,
}

/// The ends of both threads.
pub(super) fn connect(world: &World) -> (Passive, FromTraffic) {
    // Each server has one probe at a time, and of those that come to be only as many more as one
    // that is removed leaves behind: neither way is ever full.
    let (orders, ordered) = channel(ORDERS_MAX);
    let (finder, found) = channel(ORDERS_MAX);
    let mut passive = Passive {
        watched: Vec::new(),
        orders,
        found,
    };
    let errors = passive.watch(world, |_, _| None);
    let from_traffic = FromTraffic {
        errors,
        orders: ordered,
        found: finder,
    };
    (passive, from_traffic)
}

impl Passive {
    /// Follows the servers of the next world: those that it has as they were go on to be counted.
    /// What is returned is for the checks that begin.
    pub(super) fn renew(
        &mut self,
        before: &World,
        world: &World,
    ) -> HashMap<ServerId, Receiver<()>> {
        let mut watched = std::mem::take(&mut self.watched);
        self.watch(world, |server, errors| {
            let (_, old) = before.server_of(server.id)?;
            let mut kept = watched.get_mut(server.id.0 as usize)?.take()?;
            let plans = (&old.plan.passive, &server.plan.passive);
            if !old.is_same(server) || plans.0.breaker != plans.1.breaker {
                kept.circuit = None;
            }
            *errors = probe::check_goes_on(old, server);
            Some(kept)
        })
    }

    /// Watches the servers of a world. `kept` gives what there is of one, and says whether its
    /// checks have the other end for its errors already.
    fn watch(
        &mut self,
        world: &World,
        mut kept: impl FnMut(&Server, &mut bool) -> Option<Watched>,
    ) -> HashMap<ServerId, Receiver<()>> {
        let mut receivers = HashMap::new();
        self.watched.clear();
        let count = world.plan.servers_count as usize;
        self.watched.resize_with(count, || None);
        for server in world.backends.iter().flatten().flat_map(|b| &b.servers) {
            let plan = &server.plan.passive;
            if plan.observe.is_none() && plan.breaker.is_none() {
                continue;
            }
            let mut has_receiver = false;
            let before = kept(server, &mut has_receiver);
            let (circuit, errors) = match before {
                Some(before) => (before.circuit, before.errors),
                None => (None, None),
            };
            let errors = match errors.filter(|_| has_receiver) {
                Some(errors) => Some(errors),
                None => plan.observe.is_some().then(|| {
                    let (sender, receiver) = channel(limits::ERROR_ACTIONS_MAX);
                    receivers.insert(server.id, receiver);
                    sender
                }),
            };
            let circuit = circuit.or_else(|| plan.breaker.as_ref().map(Circuit::of));
            self.watched[server.id.0 as usize] = Some(Watched { circuit, errors });
        }
        receivers
    }

    /// Waits for what probes find; never returns if there are none.
    pub(super) async fn found(&mut self, results: &mut Vec<ProbeResult>) {
        if self.found.recv_many(results, limits::CHANGES_MAX).await == 0 {
            std::future::pending().await
        }
    }

    /// Looks at everything that shards have told.
    pub(super) fn hear(&mut self, shared: &Shared) {
        batch::together(shared, || self.hear_all(shared));
    }

    fn hear_all(&mut self, shared: &Shared) {
        let port = &shared.world().control;
        port.listen();
        // Whatever is told from now on wakes this thread again: what the port holds is enough.
        for _ in 0..limits::OBSERVATIONS_MAX {
            match port.next() {
                Some(observation) => self.observe(shared, observation),
                None => return,
            }
        }
    }

    fn observe(&mut self, shared: &Shared, observation: Observation) {
        let (Observation::Failed { server: id, .. } | Observation::ErrorLimit { server: id }) =
            observation;
        let Some((watched, backend, server)) = self.at(shared, id) else {
            return;
        };
        let plan = &server.plan.passive;
        let opened = match observation {
            Observation::Failed { began, at, .. } => {
                let opens = |circuit: &mut Circuit| circuit.failed(began, at);
                let opened = watched.circuit.as_mut().and_then(opens);
                server
                    .observed
                    .analyzed
                    .fetch_add(u64::from(opened.is_some()), Relaxed);
                opened.and(plan.breaker.as_ref()).map(|breaker| {
                    let (fails, within_ms) = (breaker.max_fails, breaker.fail_timeout_ms);
                    let s = if fails == 1 { "" } else { "s" };
                    // Datagrams fail by what the network says of them.
                    let is_udp = backend.proxy.back.as_ref().is_some_and(|b| b.udp.is_some());
                    let what = if is_udp {
                        "refusal"
                    } else {
                        "failed connection"
                    };
                    format!("{fails} {what}{s} in {within_ms} ms")
                })
            }
            Observation::ErrorLimit { .. } => {
                server.observed.analyzed.fetch_add(1, Relaxed);
                if let Some(errors) = &watched.errors {
                    // Full = the checks have as much as they can act on.
                    let _ = errors.try_send(());
                }
                let marked_down = plan.observe.filter(|o| o.on_error == OnError::MarkDown);
                let trips = |circuit: &mut Circuit| circuit.trip(clock::now());
                let opened = marked_down.and(watched.circuit.as_mut()).and_then(trips);
                opened.and(marked_down).map(errors_text)
            }
        };
        if let Some(info) = opened {
            self.opened(shared, &backend, &server, &info);
        }
    }

    /// A circuit has opened: the server is out, and its probe is ordered.
    fn opened(
        &mut self,
        shared: &Shared,
        backend: &Arc<Backend>,
        server: &Arc<Server>,
        info: &str,
    ) {
        note(server, "HANA", info, 0);
        let reason = lines::reason_of("HANA", None, info, None);
        apply::traffic(shared, backend, server, Transition::Down, &reason);
        self.order_probe(backend, server);
    }

    fn order_probe(&mut self, backend: &Arc<Backend>, server: &Arc<Server>) {
        let Some(Some(watched)) = self.watched.get(server.id.0 as usize) else {
            return;
        };
        let Some(due) = watched.circuit.as_ref().and_then(Circuit::probe_at) else {
            return;
        };
        let sent = self.orders.try_send(Order {
            backend: Arc::clone(backend),
            server: Arc::clone(server),
            due,
        });
        debug_assert!(sent.is_ok(), "one order per server at a time");
    }

    /// Servers that are out were probed: applies what was found, and takes it.
    pub(super) fn probed(&mut self, shared: &Shared, results: &mut Vec<ProbeResult>) {
        batch::together(shared, || {
            results
                .drain(..)
                .for_each(|result| self.probed_one(shared, &result));
        });
    }

    fn probed_one(&mut self, shared: &Shared, result: &ProbeResult) {
        let Some((watched, backend, server)) = self.at(shared, result.server) else {
            return;
        };
        let outcome = match result.status {
            "L4OK" => Some(Outcome::Passed),
            "SOCKERR" => None,
            _ => Some(Outcome::Failed),
        };
        let now = clock::now();
        let closes = |circuit: &mut Circuit| circuit.probed(outcome, now);
        let closed = watched.circuit.as_mut().and_then(closes);
        note(
            &server,
            result.status,
            &result.description,
            result.duration_ms,
        );
        // A failure takes a server out again whose maintenance has made forget what was known.
        let says = match (closed, outcome) {
            (Some(to), _) => Some(to),
            (None, Some(_)) => Some(Transition::Down),
            (None, None) => None,
        };
        if let Some(says) = says {
            apply::traffic(shared, &backend, &server, says, &lines::reason(result));
        }
        self.order_probe(&backend, &server);
    }

    fn at(
        &mut self,
        shared: &Shared,
        server: ServerId,
    ) -> Option<(&mut Watched, Arc<Backend>, Arc<Server>)> {
        let watched = self.watched.get_mut(server.0 as usize)?.as_mut()?;
        let world = shared.world();
        let (backend, server) = world.server_of(server)?;
        Some((watched, Arc::clone(backend), Arc::clone(server)))
    }
}

/// HAProxy's text for errors in a row.
pub(super) fn errors_text(observe: Observe) -> String {
    let errors = observe.error_limit;
    format!("Detected {errors} consecutive errors, last one was: L4 unsuccessful connection")
}

/// Enters what was found into the report of a server that has no checks to fill it.
fn note(server: &Server, status: &'static str, description: &str, duration_ms: u64) {
    if server.plan.check.is_some() {
        return;
    }
    let mut report = server
        .check
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    report.status = status;
    report.duration_ms = duration_ms;
    report.description = description.to_owned();
}

/// Waits until shards have told something.
#[derive(Debug)]
pub(super) struct Told(Option<Awaited>);

impl Told {
    /// To be made on the runtime that waits. Should it refuse, little is lost: what was told is
    /// looked at every second as well.
    pub(super) fn new(world: &World) -> Told {
        Told(Awaited::new(world.control.wake()).ok())
    }

    /// Returns when something was told since the last `ControlPort::listen`.
    pub(super) async fn wait(&self) {
        match &self.0 {
            Some(wake) => wake.wait().await,
            None => std::future::pending().await,
        }
    }
}
