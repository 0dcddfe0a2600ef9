//! Many threads pick, wait, give up and release while servers change: a test of the whole layer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::testing::{
    ALL, MAGLEV, Patience, address, backend, key, ramping, server, starting_slowly, with_backups,
};
use super::{Backend, Grant, Health, Outcome, Pick, PickRequest, Server, TICK_MS, Waiter};
use crate::base::hash;
use crate::base::ids::{ServerId, ShardId};
use crate::base::time::Moment;
use crate::config::plan::{Balance, SlowStart};

const SHARDS: u16 = 8;
const SESSIONS: u32 = 2_000;

/// What goes on beside the shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Control {
    /// Nothing: whom a release forgot stays forgotten.
    Rests,
    /// The table is published again and again, which serves those whom a release forgot.
    Publishes,
    /// The active servers go down and come up: the two sets take turns.
    TakesTurns,
    /// Servers go down one after the other and return slowly.
    Returns,
}

/// More sessions than the servers take, sessions that give up: no server ever exceeds its bound,
/// everybody is served, nothing is left.
fn everyone_is_served(backend: &Backend, control: Control) {
    let working: Vec<_> = backend
        .servers
        .iter()
        .map(|_| AtomicUsize::new(0))
        .collect();
    let (ports, mut boxes): (Vec<_>, VecDeque<_>) = (0..SHARDS).map(|_| channel()).unzip();
    let done = AtomicBool::new(false);
    let (working, ports, done) = (&working[..], &ports[..], &done);
    std::thread::scope(|scope| {
        let shards: Vec<_> = (0..SHARDS)
            .map(|id| {
                let inbox = boxes.pop_front().expect("one each");
                let shard = Shard {
                    id,
                    backend,
                    working,
                    ports,
                    waiting: VecDeque::new(),
                    served: 0,
                };
                scope.spawn(move || shard.run(&inbox))
            })
            .collect();
        let controller = scope.spawn(move || {
            let mut is_up = true;
            let mut turn = 0;
            while control != Control::Rests && !done.load(SeqCst) {
                if control == Control::TakesTurns {
                    is_up = !is_up;
                    for server in backend.servers.iter().filter(|server| !server.plan.backup) {
                        let health = if is_up { Health::Up } else { Health::Down };
                        server.set_health(health);
                    }
                }
                if control == Control::Returns {
                    change_a_server(backend, turn);
                    turn += 1;
                }
                backend.publish().into_iter().for_each(|g| send(ports, g));
                let ramped = backend.ramp(Moment(turn * TICK_MS * 1_000_000));
                ramped.grants.into_iter().for_each(|g| send(ports, g));
                std::thread::yield_now();
            }
        });
        let results: Vec<_> = shards.into_iter().map(|shard| shard.join()).collect();
        done.store(true, SeqCst);
        controller.join().unwrap();
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
    assert_eq!((backend.active(), backend.queued()), (0, 0));
}

/// One server after the other is down for a tick, and then on its way for a while.
fn change_a_server(backend: &Backend, turn: u64) {
    let servers = backend.servers.len() as u64;
    let server = &backend.servers[(turn / 24 % servers) as usize];
    match turn % 24 {
        0 => server.set_health(Health::Down),
        1 => server.set_health(Health::Up),
        _ => {}
    }
}

fn send(ports: &[Sender<Grant>], grant: Grant) {
    let port = &ports[usize::from(grant.waiter.shard.0)];
    port.send(grant).unwrap();
}

/// A thread with sessions.
struct Shard<'a> {
    id: u16,
    backend: &'a Backend,
    /// Connections that are used now, by server.
    working: &'a [AtomicUsize],
    ports: &'a [Sender<Grant>],
    waiting: VecDeque<Waiter>,
    served: u32,
}

impl Shard<'_> {
    fn run(mut self, inbox: &Receiver<Grant>) {
        let mut started = 0;
        let mut patience = Patience::default();
        while started < SESSIONS || !self.waiting.is_empty() {
            for grant in inbox.try_iter() {
                patience.renew();
                let before = self.waiting.len();
                self.waiting.retain(|w| w.session != grant.waiter.session);
                assert_eq!(self.waiting.len() + 1, before, "a grant for nobody");
                self.work(&grant.server);
            }
            let number = hash::sequence(u64::from(self.id), u64::from(started));
            if started < SESSIONS && self.waiting.len() < 4 {
                started += 1;
                self.start(started, number.is_multiple_of(16));
            } else if started < SESSIONS && number.is_multiple_of(8) {
                self.give_up();
            } else {
                patience.wait("a waiting session was forgotten");
            }
        }
        assert_eq!(self.served, SESSIONS);
    }

    fn start(&mut self, slot: u32, retries: bool) {
        self.backend.enter();
        let request = PickRequest {
            client: address(slot),
            avoid: retries.then_some(ServerId(1)),
            ..PickRequest::ANY
        };
        let only = match self.backend.pick(request) {
            Pick::Server(server) => return self.work(&server),
            Pick::Wait { only } => only,
            Pick::Refuse => panic!("a server is usable at all times"),
        };
        let waiter = Waiter {
            shard: ShardId(self.id),
            session: key(slot),
            only,
        };
        match self.backend.enqueue(waiter) {
            Some(grant) if grant.waiter == waiter => self.work(&grant.server),
            grant => {
                self.waiting.push_back(waiter);
                grant.into_iter().for_each(|grant| send(self.ports, grant));
            }
        }
    }

    /// Uses a connection and gives it back.
    fn work(&mut self, server: &Arc<Server>) {
        let working = &self.working[server.id.0 as usize];
        let now = working.fetch_add(1, SeqCst) + 1;
        assert!(now <= server.maxconn() as usize, "above maxconn");
        assert!(server.active() <= server.maxconn(), "above maxconn");
        std::thread::yield_now();
        working.fetch_sub(1, SeqCst);
        self.backend.leave();
        let grant = self.backend.release(server, Outcome::Completed);
        grant.into_iter().for_each(|grant| send(self.ports, grant));
        self.served += 1;
    }

    /// The session that has waited longest goes, unless a grant is on its way already.
    fn give_up(&mut self) {
        if let Some(waiter) = self.waiting.front()
            && self.backend.dequeue(*waiter)
        {
            self.waiting.pop_front();
            self.backend.leave();
            self.served += 1;
        }
    }
}

/// All algorithms but those that differ from another one only in what a table is made of, which
/// takes Maglev's 10 ms each time.
fn quick() -> impl Iterator<Item = Balance> {
    let same = [Balance::StaticRr, MAGLEV];
    ALL.into_iter()
        .filter(move |balance| !same.contains(balance))
}

#[test]
fn everyone_who_waits_is_served_and_no_bound_is_exceeded() {
    for balance in quick() {
        for control in [Control::Rests, Control::Publishes] {
            let backend = backend(balance, &[server(1, 2), server(2, 3), server(3, 1)]);
            everyone_is_served(&backend, control);
        }
    }
}

#[test]
fn everyone_is_served_while_limits_follow_the_sessions() {
    for balance in quick() {
        for control in [Control::Rests, Control::Publishes] {
            everyone_is_served(&ramping(balance, &[(1, 5), (2, 3), (1, 2)], 24), control);
        }
    }
}

#[test]
fn everyone_is_served_while_active_and_backup_servers_take_turns() {
    for balance in quick() {
        for allbackups in [false, true] {
            let (active, backup) = ([server(1, 2), server(2, 3)], [server(3, 1), server(1, 3)]);
            let backend = with_backups(balance, allbackups, &active, &backup);
            everyone_is_served(&backend, Control::TakesTurns);
        }
    }
}

/// Servers come and go, and those that return are short of connections and of allowance.
#[test]
fn everyone_is_served_while_servers_return_slowly() {
    for balance in ALL {
        for connections_per_second in [0, 10, 1_000] {
            let slow_start = SlowStart {
                duration_ms: 1_500,
                steps: Vec::new(),
                connections_per_second,
            };
            let servers = [server(1, 2), server(2, 40), server(3, 0)];
            let backend = starting_slowly(balance, &servers, &slow_start);
            everyone_is_served(&backend, Control::Returns);
        }
    }
}
