//! Directions that are spliced: the same bytes, ends, resets, timeouts and accounts as copied ones.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::support::client::{self, End, local};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, balancer::Setup, eventually, skip, stream, turn};

// The engine itself.

/// A balancer that splices whatever it can, with more lines for its proxy.
fn splicing(server: &MockServer, lines: &str, global: &str) -> (Balancer, u16) {
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    option splice-request\n    \
         option splice-response\n{lines}    server s {}\n",
        server.address()
    );
    let setup = Setup::new(body).shards(1);
    let setup = match global {
        "" => setup,
        line => setup.global(line),
    };
    (setup.start(), port)
}

fn spliced_bytes(balancer: &Balancer) -> u64 {
    balancer.activity().number("spliced_bytes").unwrap_or(0)
}

#[test]
fn spliced_bytes_arrive_once_and_in_order_and_are_counted() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let (balancer, port) = splicing(&server, "", "");
    let sizes = [0, 1, 1 << 10, 65_537, 1 << 20, 64 << 20];
    for (seed, &size) in (1..).zip(&sizes) {
        client::exchange(local(port), size, size, seed)
            .unwrap_or_else(|e| panic!("{size} bytes both ways: {e}"));
    }
    balancer.settle();
    let stat = balancer.stat();
    let total: u64 = sizes.iter().sum();
    let count = sizes.len() as u64;
    assert_eq!(stat.number("l", "FRONTEND", "bin"), total + 24 * count);
    assert_eq!(stat.number("l", "BACKEND", "bout"), total + count);
    assert_eq!(stat.number("l", "s", "bin"), total + 24 * count);
    if skip("its gauges are others") {
        return;
    }
    let spliced = spliced_bytes(&balancer);
    assert!(spliced > total, "{spliced} of twice {total}");
    let activity = balancer.activity();
    assert_eq!(activity.number("pipes_used"), Some(0));
    assert_eq!(activity.number("splice_unfit"), Some(0));
}
