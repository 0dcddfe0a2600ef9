//! `conf/hft.cfg`: kept connections, an upstream that dies and returns.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{CHECKS_BOUND, Scenario};
use crate::support::client::{self, local};
use crate::support::{MockServer, StopOnDrop, Stopwatch, turn, wait_for};

/// An upstream whose open connections can be cut, as when its host dies.
struct Upstream {
    server: MockServer,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Upstream {
    fn start() -> Self {
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let kept = Arc::clone(&open);
        let server = MockServer::start(move |mut stream| {
            kept.lock().unwrap().push(stream.try_clone().unwrap());
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            // The kept copy of the descriptor would hold the connection open.
            let _ = stream.shutdown(Shutdown::Both);
        });
        Upstream { server, open }
    }

    fn die(&mut self) {
        self.server.stop();
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// What sixteen clients with kept connections saw.
#[derive(Default)]
struct Load {
    requests: AtomicU64,
    /// Connections that ended under a request, which is the fate of those with the dead upstream.
    cut: AtomicU64,
    /// Connects that failed.
    refused: AtomicU64,
    done: AtomicBool,
}

impl Load {
    /// One client: requests of 64 bytes over a kept connection; connects anew when it is cut.
    fn run(&self, port: u16) {
        let mut connection = None;
        while !self.done.load(Relaxed) {
            let Some(stream) = &mut connection else {
                match client::try_connect(local(port)) {
                    Ok(stream) => connection = Some(stream),
                    Err(_) => drop(self.refused.fetch_add(1, Relaxed)),
                }
                continue;
            };
            let request = [9; 64];
            let mut answer = [0; 64];
            let answered = stream
                .write_all(&request)
                .and_then(|()| stream.read_exact(&mut answer));
            if answered.is_ok() {
                assert_eq!(request, answer);
                self.requests.fetch_add(1, Relaxed);
                std::thread::park_timeout(Duration::from_millis(1));
            } else {
                self.cut.fetch_add(1, Relaxed);
                connection = None;
            }
        }
    }

    fn wait_requests(&self, more: u64) {
        let target = self.requests.load(Relaxed) + more;
        let reached = wait_for(Duration::from_secs(10), || {
            (self.requests.load(Relaxed) >= target).then_some(())
        });
        assert!(reached.is_some(), "the load stands still");
    }
}

#[test]
fn hft_loses_one_of_four_upstreams_under_load_and_takes_it_back() {
    const CLIENTS: u64 = 16;
    let _turn = turn::alone();
    let mut upstreams: Vec<Upstream> = (0..4).map(|_| Upstream::start()).collect();
    let addresses: Vec<SocketAddr> = upstreams.iter().map(|u| u.server.address()).collect();
    let hft = Scenario::start("hft.cfg", &addresses);
    let (port, load) = (hft.ports["orders"], Load::default());
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&load.done);
        for _ in 0..CLIENTS {
            scope.spawn(|| load.run(port));
        }
        load.wait_requests(2_000);
        assert_eq!(load.cut.load(Relaxed), 0);
        let shares: Vec<u64> = upstreams.iter().map(|u| u.server.accepted()).collect();
        // Probes are counted too, but least connections gives each a quarter of the clients.
        let open = |name: &str| hft.balancer.stat().number("order_backends", name, "scur");
        assert_eq!(open("backend_2"), CLIENTS / 4, "{shares:?}");

        // A server starts in the middle of the scale: three failures take it out once it is at the
        // top.
        let health = || {
            hft.balancer
                .stat()
                .number("order_backends", "backend_2", "check_health")
        };
        assert!(wait_for(CHECKS_BOUND, || (health() == 4).then_some(())).is_some());
        upstreams[1].die();
        let watch = Stopwatch::start();
        load.wait_requests(2_000);
        hft.wait_status("order_backends", "backend_2", "DOWN");
        // Three failed probes a second apart: not out before two seconds, and out soon after three.
        watch.assert_within(1_500, 6_000, "out after three failed checks");
        assert_eq!(open("backend_2"), 0);
        // Only those of the dead upstream were cut. A connect that it still gets before it is out
        // is retried on another one.
        assert_eq!(load.cut.load(Relaxed), CLIENTS / 4);
        assert_eq!(load.refused.load(Relaxed), 0);

        upstreams[1].server.restart();
        hft.wait_status("order_backends", "backend_2", "UP");
        // The least loaded one gets the next connections.
        let fresh: Vec<TcpStream> = (0..4).map(|_| client::connect_port(port)).collect();
        fresh
            .iter()
            .for_each(|stream| client::echo(stream, b"order"));
        assert_eq!(open("backend_2"), 4);
        load.wait_requests(500);
    });
    assert_eq!(load.cut.load(Relaxed), CLIENTS / 4);
    hft.balancer.settle();
}
