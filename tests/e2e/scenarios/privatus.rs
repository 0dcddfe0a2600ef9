//! `conf/privatus.cfg`, its TCP part: least connections, nginx's failure limits, idle times.

use std::time::Duration;

use super::{Scenario, named};
use crate::spread::{count_idle, count_sequential, sorted};
use crate::support::client::{self, local};
use crate::support::{MockServer, Stopwatch, turn, wait_for};

/// `fail-timeout` and the next probe.
const RETURN_BOUND: Duration = Duration::from_secs(45);

/// Three failed connections take a node out, before three checks have failed; it returns by itself
/// when `fail-timeout` has passed, with the first part of its share.
#[test]
fn privatus_loses_a_node_after_three_failures_and_takes_it_back_in_steps() {
    let turn = turn::shared();
    let (mut servers, addresses) = named(3);
    let privatus = Scenario::start("privatus.cfg", &addresses);
    let port = privatus.ports["privatus_frontend"];
    let counts = count_idle(&privatus.balancer, "privatus_backend", port, 30);
    assert_eq!(sorted(&counts), [10, 10, 10]);
    servers[1].stop();
    let watch = Stopwatch::start();
    let number = |column: &str| {
        privatus
            .balancer
            .stat()
            .number("privatus_backend", "app2", column)
    };
    // Each failure is another client's first attempt, who is served by another node.
    let down = wait_for(Duration::from_secs(8), || {
        client::ask_name(local(port)).expect("the other nodes are well");
        let status = privatus.status("privatus_backend", "app2");
        status.starts_with("DOWN").then_some(())
    });
    assert!(down.is_some(), "three failures did not take it out");
    assert!(number("econ") >= 3);
    let errors = number("econ");
    let counts = count_sequential(port, 30);
    assert_eq!((number("econ"), counts.get("u2")), (errors, None));
    servers[1].restart();
    // Half a minute of rest, which disturbs nobody.
    drop(turn);
    let up = wait_for(RETURN_BOUND, || {
        let status = privatus.status("privatus_backend", "app2");
        status.starts_with("UP").then_some(())
    });
    assert!(up.is_some(), "it did not return");
    watch.assert_within(30_000, 46_000, "out for its fail-timeout");
    assert_eq!(number("throttle"), 10);
    privatus.balancer.settle();
}

#[test]
fn privatus_ends_connections_that_rest_for_30_s() {
    let turn = turn::shared();
    let servers: Vec<MockServer> = (0..3).map(|_| MockServer::silent()).collect();
    let addresses: Vec<_> = servers.iter().map(MockServer::address).collect();
    let privatus = Scenario::start("privatus.cfg", &addresses);
    let stream = client::connect_port(privatus.ports["privatus_frontend"]);
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).expect("a read timeout");
    client::write(&stream, b"the last for a while");
    let watch = Stopwatch::start();
    // Half a minute of rest, which disturbs nobody.
    drop(turn);
    let (bytes, end) = client::read_end(&stream);
    assert_eq!((bytes.len(), end), (0, client::End::Fin));
    watch.assert_within(29_000, 35_000, "idle time");
    privatus.balancer.settle();
}
