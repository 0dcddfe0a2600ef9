//! `conf/mandi.cfg`: least connections, a backup server, affinity, a backend killed under load.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Scenario, named};
use crate::spread::owners;
use crate::support::client::{self, local};
use crate::support::{MockServer, StopOnDrop, turn, wait_for};

/// Backends of each port; the backup is the one after them.
const BACKENDS: usize = 3;

#[test]
fn mandi_holds_many_connections_evenly() {
    const CONNECTIONS: u64 = 1_500;
    let _turn = turn::alone();
    let servers: Vec<MockServer> = (0..=BACKENDS).map(|_| MockServer::hold()).collect();
    let addresses: Vec<_> = servers.iter().map(MockServer::address).collect();
    let mandi = Scenario::start("mandi.cfg", &addresses);
    let port = mandi.ports["web"];
    let clients: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| client::connect_port(port))
        .collect();
    let open = |name: &str| mandi.balancer.stat().number("web", name, "scur");
    let settled = wait_for(Duration::from_secs(10), || {
        (open("BACKEND") == CONNECTIONS).then_some(())
    });
    assert!(settled.is_some(), "{} of {CONNECTIONS}", open("BACKEND"));
    for name in ["backend_1", "backend_2", "backend_3"] {
        assert_eq!(open(name), CONNECTIONS / BACKENDS as u64, "{name}");
    }
    assert_eq!(open("backend_4"), 0);
    assert_eq!(mandi.balancer.stat().number("web", "FRONTEND", "ereq"), 0);
    drop((clients, servers));
    mandi.balancer.settle();
}

#[test]
fn mandi_uses_its_backup_only_while_no_backend_is_up() {
    let _turn = turn::shared();
    let (mut servers, addresses) = named(BACKENDS + 1);
    let mandi = Scenario::start("mandi.cfg", &addresses);
    let port = mandi.ports["web"];
    let ask = || client::ask_name(local(port)).expect("somebody answers");
    let answered: BTreeSet<String> = (0..30).map(|_| ask()).collect();
    assert_eq!(
        answered,
        BTreeSet::from(["u1", "u2", "u3"].map(str::to_owned))
    );
    for server in &mut servers[..BACKENDS] {
        server.stop();
    }
    for name in ["backend_1", "backend_2", "backend_3"] {
        mandi.wait_status("web", name, "DOWN");
    }
    assert_eq!((0..10).map(|_| ask()).collect::<BTreeSet<_>>().len(), 1);
    assert_eq!(ask(), "u4");
    servers[1].restart();
    mandi.wait_status("web", "backend_2", "UP");
    assert_eq!(ask(), "u2");
    mandi.balancer.settle();
}

#[test]
fn mandi_keeps_clients_with_their_backend() {
    let _turn = turn::shared();
    let (_servers, addresses) = named(BACKENDS + 1);
    let mandi = Scenario::start("mandi.cfg", &addresses);
    let before = owners(mandi.ports["web_affinity"], 40);
    assert_eq!(owners(mandi.ports["web_affinity"], 40), before);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), BACKENDS);
    mandi.balancer.settle();
}

/// What the clients of a load saw.
#[derive(Default)]
struct Load {
    served: AtomicU64,
    failed: AtomicU64,
    done: AtomicBool,
}

impl Load {
    fn run(&self, port: u16) {
        while !self.done.load(Relaxed) {
            match client::ask_name(local(port)) {
                Ok(_) => self.served.fetch_add(1, Relaxed),
                Err(_) => self.failed.fetch_add(1, Relaxed),
            };
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn wait_served(&self, more: u64) {
        let target = self.served.load(Relaxed) + more;
        let reached = wait_for(Duration::from_secs(30), || {
            (self.served.load(Relaxed) >= target).then_some(())
        });
        assert!(reached.is_some(), "the load stands still");
    }
}

/// All are served while the backends are well, and at least 99 of 100 while one is killed and
/// started again.
#[test]
fn mandi_serves_through_the_death_and_return_of_a_backend() {
    let _turn = turn::alone();
    let (mut servers, addresses) = named(BACKENDS + 1);
    let mandi = Scenario::start("mandi.cfg", &addresses);
    let (port, load) = (mandi.ports["web"], Load::default());
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&load.done);
        for _ in 0..8 {
            scope.spawn(|| load.run(port));
        }
        load.wait_served(500);
        assert_eq!(load.failed.load(Relaxed), 0);
        let before = load.served.load(Relaxed);
        servers[1].stop();
        mandi.wait_status("web", "backend_2", "DOWN");
        load.wait_served(500);
        servers[1].restart();
        load.wait_served(500);
        let (served, failed) = (
            load.served.load(Relaxed) - before,
            load.failed.load(Relaxed),
        );
        assert!(
            failed * 100 <= served + failed,
            "{failed} failed, {served} served"
        );
    });
    mandi.balancer.settle();
}
