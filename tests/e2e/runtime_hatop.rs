//! hatop, HAProxy's terminal monitor, unchanged in front of the runtime socket: it finds its way
//! about the tables, and its command line works.
//!
//! Where hatop is absent the test says so and passes, unless `TIDEGATE_REQUIRE_PROGRAMS=1`.

use crate::programs::programs;
use crate::spread::{count_sequential, named};
use crate::support::port::free_port;
use crate::support::terminal::{self, Terminal};
use crate::support::{Balancer, turn};

/// Starts of hatop until one is served in time: it gives up on a command after a second, which
/// a busy machine may take.
const STARTS: u32 = 20;

/// What hatop is asked here, in order; false if it ended on its way.
fn walk(hatop: &mut Terminal) -> bool {
    // The status of all, the head with what `show info` says.
    if !hatop.shows(&["Version:", "fe", "s1", "s2", "BACKEND", "STATUS", "MAINT"]) {
        return false;
    }
    for (keys, shown) in [
        ("2", &["RATE", "LBTOT"][..]),
        ("5", &["haproxy command line"]),
        ("show cli level\r", &["admin"]),
        // Escape and a number leave the command line.
        ("\u{1b}4", &["ECONN"]),
    ] {
        hatop.press(keys);
        if !hatop.shows(shown) {
            return false;
        }
    }
    hatop.press("q");
    hatop.wait_exit().success()
}

#[test]
fn hatop_shows_the_servers_and_takes_commands() {
    let _turn = turn::shared();
    if terminal::is_missing() {
        return;
    }
    let Some([program]) = programs(["hatop"]) else {
        return;
    };
    let (servers, lines) = named(&["weight 10", "backup", "disabled"]);
    let port = free_port();
    let balancer = Balancer::start(format!(
        "frontend fe\n    bind 127.0.0.1:{port}\n    default_backend be\n\
         backend be\n    balance roundrobin\n{lines}"
    ));
    count_sequential(port, 5);
    let socket = balancer.stats_path().to_str().unwrap();
    let done = (0..STARTS).any(|_| {
        let mut hatop = Terminal::start(&program, &["-s", socket], 40, 140);
        let done = walk(&mut hatop);
        if !done {
            let why = |lines: &[String]| lines.iter().any(|line| line.contains("timed out"));
            hatop.wait("hatop has ended", why);
        }
        done
    });
    assert!(done, "hatop was never served in time");
    drop(servers);
    balancer.settle();
}
