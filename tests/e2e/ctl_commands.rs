//! The commands of `tidegate ctl` that change something or list what is open: what is sent, and
//! what is made of the answers.

use crate::ctl::stat;
use crate::support::control::{Scripted, ctl};
use crate::support::turn;

/// Answers a look by a server's status, everything else by `answer`.
fn scripted(status: &'static str, answer: &'static str) -> Scripted {
    Scripted::start(move |line| match line {
        "show info;show stat" => stat(&[("s1", status, 5), ("s2", "UP", 5)]),
        _ => answer.to_owned(),
    })
}

#[test]
fn servers_are_changed_by_haproxys_commands() {
    let _turn = turn::shared();
    for (words, sent) in [
        (&["drain", "s1"][..], "set server web/s1 state drain"),
        (&["maint", "web/s1"], "set server web/s1 state maint"),
        (&["ready", "s1"], "set server web/s1 state ready"),
        (&["weight", "s1", "50%"], "set weight web/s1 50%"),
        (
            &["ramp", "s1", "--steps", "50,100", "--every", "2m"],
            "ramp server web/s1 50,100 every 120000ms",
        ),
        (&["ramp", "s1", "--cancel"], "ramp server web/s1 cancel"),
    ] {
        let balancer = scripted("DRAIN", "\n");
        let outcome = ctl(&balancer.path(), words);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert_eq!(outcome.out, "web/s1: DRAIN, weight 1, 0 sessions open\n");
        let look = "show info;show stat";
        assert_eq!(balancer.asked(), [look, sent, look]);
    }
    let balancer = scripted("MAINT", "\n");
    let value = ctl(
        &balancer.path(),
        &["maint", "s1", "--wait", "10s", "--json"],
    )
    .json();
    assert_eq!(
        (value["server"].as_str(), value["status"].as_str()),
        (Some("web/s1"), Some("MAINT"))
    );
}

#[test]
fn what_the_balancer_refuses_is_told_with_its_words() {
    let _turn = turn::shared();
    for (answer, reason) in [
        (
            "Permission denied\n\n",
            "set server web/s1 state drain: Permission denied\n",
        ),
        (
            "Unknown command: 'x'. Please\n  help\n\n",
            ": Unknown command: 'x'. Please\n",
        ),
        ("No such server.\n\n", ": No such server.\n"),
    ] {
        let balancer = scripted("UP", answer);
        let outcome = ctl(&balancer.path(), &["drain", "s1"]);
        assert_eq!(
            (outcome.code, outcome.out.as_str()),
            (Some(3), ""),
            "{outcome:?}"
        );
        assert!(outcome.err.ends_with(reason), "{outcome:?}");
    }
    let balancer = scripted("UP", "\n");
    let outcome = ctl(&balancer.path(), &["drain", "s9"]);
    assert_eq!(outcome.code, Some(3));
    assert_eq!(outcome.err, "UNKNOWN: there is no server 's9'\n");
    assert_eq!(balancer.asked().len(), 1);
}

#[test]
fn the_end_of_sessions_is_waited_for_no_longer_than_wanted() {
    let _turn = turn::shared();
    let balancer = Scripted::start(|line| match line {
        "show info;show stat" => stat(&[("s1", "DRAIN", 5)]).replace("web,s1,0,", "web,s1,2,"),
        _ => "\n".to_owned(),
    });
    let outcome = ctl(&balancer.path(), &["drain", "s1", "--wait", "1ms"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.out, "web/s1: DRAIN, weight 1, 2 sessions open\n");
}

#[test]
fn a_reload_ends_as_it_went() {
    let _turn = turn::shared();
    for (answer, code) in [
        ("Success=1\n--\n\n", Some(0)),
        ("Success=0\n--\n[ALERT] wrong\n\n", Some(1)),
        ("Unknown command: 'reload'.\n\n", Some(3)),
    ] {
        let balancer = scripted("UP", answer);
        let outcome = ctl(&balancer.path(), &["reload"]);
        assert_eq!(outcome.code, code, "{outcome:?}");
        if code != Some(3) {
            assert_eq!(outcome.out, answer.strip_suffix('\n').unwrap());
        }
        assert_eq!(balancer.asked(), ["reload"]);
    }
}

#[test]
fn sessions_and_flows_are_listed_and_chosen() {
    let _turn = turn::shared();
    let answer = "0x1: proto=tcpv4 src=192.0.2.1:5 fe=web be=web srv=s1 age=3s rq[f=1h,i=0] exp=1m\n\
                  0x2: proto=tcpv4 src=192.0.2.2:6 fe=web be=web srv=s2 age=4s rq[f=1h,i=0] exp=\n\n";
    let balancer = scripted("UP", answer);
    let all = ctl(&balancer.path(), &["sessions"]);
    assert_eq!(all.code, Some(0));
    assert!(all.out.ends_with("2 sessions\n"), "{all:?}");
    let one = ctl(
        &balancer.path(),
        &["sessions", "--server", "web/s2", "--json"],
    )
    .json();
    assert_eq!(one["count"], 1);
    let session = &one["sessions"][0];
    assert_eq!(
        (session["id"].as_str(), session["src"].as_str()),
        (Some("0x2"), Some("192.0.2.2:6"))
    );
    assert_eq!(
        (session["rq"].as_str(), session["exp"].as_str()),
        (Some("[f=1h,i=0]"), Some(""))
    );
    let flows = ctl(&balancer.path(), &["flows", "--limit", "1"]);
    assert!(
        flows.out.ends_with("2 flows, the first 1 of them shown\n"),
        "{flows:?}"
    );
    assert_eq!(balancer.asked(), ["show sess", "show sess", "show flows"]);
}
