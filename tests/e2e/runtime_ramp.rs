//! `ramp server`: servers that return in steps.

use crate::spread::{count_sequential, named};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, skip, turn};

struct Test {
    balancer: Balancer,
    syslog: Syslog,
    port: u16,
    _servers: Vec<MockServer>,
}

impl Test {
    fn new(balance: &str) -> Option<Test> {
        if skip("it has no such command") {
            return None;
        }
        let (servers, lines) = named(&["", ""]);
        let (syslog, port) = (Syslog::start(), free_port());
        let balancer = Balancer::start(format!(
            "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    balance {balance}\n{lines}",
            syslog.address()
        ));
        Some(Test {
            balancer,
            syslog,
            port,
            _servers: servers,
        })
    }

    fn shares(&self, clients: u32) -> [u32; 2] {
        let counts = count_sequential(self.port, clients);
        ["s1", "s2"].map(|name| counts.get(name).copied().unwrap_or(0))
    }

    fn ask(&self, command: &str) -> String {
        self.balancer.stats(command).trim_end().to_owned()
    }

    fn throttle(&self) -> String {
        self.balancer.stat().text("l", "s1", "throttle").to_owned()
    }
}

#[test]
fn a_step_is_a_share_of_clients() {
    let _turn = turn::shared();
    let Some(test) = Test::new("roundrobin") else {
        return;
    };
    assert_eq!(test.ask("ramp server l/s1 25,50,100 every 600s"), "");
    assert_eq!(test.throttle(), "25");
    assert_eq!(test.shares(50), [10, 40]);
    let shown = test.ask("show ramp");
    let row: Vec<&str> = shown.lines().nth(1).expect("a row").split(' ').collect();
    assert_eq!(row[..5], ["l/s1", "25", "1", "3", "600000"], "{shown}");
    test.syslog.wait_line(
        "Server l/s1 returns in 3 steps of 600000 ms, beginning with 25% of its weight.",
    );
    // Once more, from the beginning.
    assert_eq!(test.ask("ramp server l/s1 50,100 every 600s"), "");
    assert_eq!(test.shares(30), [10, 20]);
    assert_eq!(test.ask("ramp server l/s1 cancel"), "");
    assert_eq!(
        (test.shares(20), test.throttle()),
        ([10, 10], String::new())
    );
    assert_eq!(test.ask("show ramp").lines().count(), 1);
    let answer = test.ask("ramp server l/s1 cancel");
    assert_eq!(answer, "This server doesn't return in steps.");
    // A word about its weight is the last one.
    test.ask("ramp server l/s1 10,100 every 600s; set weight l/s1 2");
    assert_eq!(test.shares(30), [20, 10]);
    test.balancer.settle();
}

#[test]
fn the_last_step_is_the_whole() {
    let _turn = turn::shared();
    let Some(test) = Test::new("roundrobin") else {
        return;
    };
    assert_eq!(test.ask("ramp server l/s1 10,25,50,75,100 every 20ms"), "");
    eventually("it has arrived", || {
        test.ask("show ramp").lines().count() == 1
    });
    assert_eq!(
        (test.shares(20), test.throttle()),
        ([10, 10], String::new())
    );
    for percent in [25, 50, 75] {
        test.syslog
            .wait_line(&format!("Server l/s1 now has {percent}% of its weight."));
    }
    test.syslog
        .wait_line("Server l/s1 now has 100% of its weight, its last step.");
    // Where the last one is less, it stays.
    assert_eq!(test.ask("ramp server l/s1 20,50 every 20ms"), "");
    eventually("it has arrived", || test.ask("show ramp").ends_with(" -"));
    assert_eq!(
        (test.shares(30), test.throttle()),
        ([10, 20], "50".to_owned())
    );
    test.balancer.settle();
}

#[test]
fn a_server_that_leaves_service_takes_no_more_steps() {
    let _turn = turn::shared();
    let Some(test) = Test::new("leastconn") else {
        return;
    };
    for leave in ["health down", "state drain", "state maint"] {
        test.ask("ramp server l/s1 50,60,70,80,90,100 every 600s");
        test.ask(&format!("set server l/s1 {leave}"));
        assert!(test.ask("show ramp").ends_with(" stopped"), "{leave}");
        test.ask("set server l/s1 state ready; set server l/s1 health up");
        assert_eq!(test.throttle(), "50", "{leave}");
        let line = "Server l/s1 has left service on its way back, and keeps 50% of its weight.";
        test.syslog.wait_line(line);
        test.ask("ramp server l/s1 cancel");
    }
    test.balancer.settle();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let _turn = turn::shared();
    let Some(test) = Test::new("static-rr") else {
        return;
    };
    let answer = test.ask("ramp server l/s1 50,100 every 1s");
    assert_eq!(
        answer,
        "The balancing algorithm of this backend knows no parts of a weight."
    );
    for command in [
        "ramp server l/s1",
        "ramp server l/s1 50,100",
        "ramp server l/s1 100,50 every 1s",
        "ramp server l/s1 50,100 every now",
    ] {
        assert!(
            test.ask(command).starts_with("Usage: ramp server"),
            "{command}"
        );
    }
    assert_eq!(test.ask("ramp server l/nobody cancel"), "No such server.");
    test.balancer.settle();
    let Some(test) = Test::new("roundrobin") else {
        return;
    };
    test.ask("disable server l/s1");
    let answer = test.ask("ramp server l/s1 50,100 every 1s");
    assert_eq!(answer, "This server is not in service.");
    test.balancer.settle();
}
