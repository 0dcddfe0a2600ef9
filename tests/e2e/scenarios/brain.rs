//! `conf/brain.cfg`: exact shares, affinity, a rolling restart.

use std::collections::BTreeSet;

use super::{Scenario, named};
use crate::failover::rolling_restart;
use crate::spread::{count_sequential, owners, sorted};
use crate::support::turn;

#[test]
fn brain_spreads_100_connections_34_33_33() {
    let _turn = turn::shared();
    let (_servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    assert_eq!(
        sorted(&count_sequential(brain.ports["api"], 100)),
        [34, 33, 33]
    );
    brain.balancer.settle();
}

#[test]
fn brain_spreads_by_weight_50_33_17() {
    let _turn = turn::shared();
    let (_servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    let counts = count_sequential(brain.ports["api_weighted"], 100);
    assert_eq!((counts["u1"], counts["u2"], counts["u3"]), (50, 33, 17));
    brain.balancer.settle();
}

#[test]
fn brain_keeps_clients_with_their_upstream_and_moves_only_those_of_a_dead_one() {
    let _turn = turn::shared();
    let (mut servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    let port = brain.ports["websocket"];
    let before = owners(port, 40);
    assert_eq!(owners(port, 40), before);
    assert_eq!(
        before.iter().collect::<BTreeSet<_>>().len(),
        3,
        "{before:?}"
    );
    servers[2].stop();
    brain.wait_status("websocket", "instance_3", "DOWN");
    for (then, now) in before.iter().zip(owners(port, 40)) {
        assert!(
            *then == now || then == "u3",
            "a client of {then} moved to {now}"
        );
        assert_ne!(now, "u3");
    }
    servers[2].restart();
    brain.wait_status("websocket", "instance_3", "UP");
    assert_eq!(owners(port, 40), before);
    brain.balancer.settle();
}

#[test]
fn brain_restarts_its_upstreams_without_a_failed_connection() {
    let _turn = turn::alone();
    let (mut servers, addresses) = named(3);
    let brain = Scenario::start("brain.cfg", &addresses);
    let served = rolling_restart(brain.ports["api"], &mut servers, 1);
    assert!(served > 150, "only {served} connections");
    brain.balancer.settle();
}
