//! Rules and their conditions: for whom they hold in the end.

use std::path::PathBuf;

use tidegate::config;
use tidegate::config::plan::Front;

use crate::world::{World, front, printed};

fn expects(front: &Front, client: &str) -> bool {
    let ip = client.parse().ok();
    front.expect_proxy.iter().any(|rule| rule.holds(ip))
}

#[test]
fn a_rule_without_a_condition_holds_for_all() {
    let rule = "tcp-request connection expect-proxy layer4";
    let (always, plan) = front(&format!("bind :80\n bind :81 accept-proxy\n {rule}"));
    assert!(expects(&always, "192.0.2.1") && expects(&always, "of a Unix socket"));
    let accept: Vec<bool> = plan.listeners.iter().map(|l| l.accept_proxy).collect();
    assert_eq!(accept, [false, true]);
    let (never, _) = front("bind :80 accept-proxy");
    assert!(never.expect_proxy.is_empty() && never.timeout_client_hs_ms == 0);
    let (some, _) = front("bind :80\n timeout client-hs 3s");
    assert_eq!(some.timeout_client_hs_ms, 3_000);
}

#[test]
fn conditions_hold_as_they_are_written() {
    let table: &[(&str, &[&str], &[&str])] = &[
        (
            "if { src 10.0.0.0/8 ::1 }",
            &["10.1.2.3", "::1"],
            &["11.0.0.1", "unix"],
        ),
        (
            "unless { src 10.0.0.0/8 }",
            &["11.0.0.1", "unix"],
            &["10.1.2.3"],
        ),
        (
            "if !{ src 10.0.0.1 } ! { src 10.0.0.2 }",
            &["10.0.0.3"],
            &["10.0.0.1", "10.0.0.2"],
        ),
        (
            "if { src 10.0.0.1 } || { src 10.0.0.2 }",
            &["10.0.0.1", "10.0.0.2"],
            &["10.0.0.3"],
        ),
        (
            "if { src app1 app2 } or FALSE",
            &["10.0.0.1", "10.0.0.2"],
            &["10.0.0.3"],
        ),
        (
            "if a !b",
            &["10.0.0.1", "10.0.0.3"],
            &["10.0.0.2", "10.0.0.4"],
        ),
        ("if a TRUE", &["10.0.0.2"], &["10.0.0.4"]),
        ("if LOCALHOST", &["127.1.2.3", "::1"], &["10.0.0.1"]),
        (
            "if { src -f list 192.0.2.1 }",
            &["198.51.100.9", "192.0.2.1"],
            &["192.0.2.2"],
        ),
    ];
    for (condition, who, who_not) in table {
        let text = format!(
            "listen l\n bind :80\n acl a src 10.0.0.1 10.0.0.2\n acl a src 10.0.0.3\n \
             acl b src 10.0.0.2\n tcp-request connection expect-proxy layer4 {condition}\n"
        );
        let mut world = World::new();
        let list = "# ours\n\n  198.51.100.0/24  \n2001:db8::/32\n";
        world.files.insert(PathBuf::from("list"), list.to_owned());
        let (plan, messages) = config::load_text("t.cfg", &text, &world);
        let plan = plan.unwrap_or_else(|| panic!("{text}{}", printed(&messages)));
        let front = plan.proxies[0].front.as_ref().unwrap();
        for (clients, expected) in [(who, true), (who_not, false)] {
            for client in *clients {
                assert_eq!(expects(front, client), expected, "{client} {condition}");
            }
        }
    }
}

#[test]
fn rules_and_conditions_are_inherited() {
    let text = "defaults d\n acl a src 10.0.0.1\n \
                tcp-request connection expect-proxy layer4 if a\nlisten l from d\n bind :80\n \
                tcp-request connection expect-proxy layer4 if { src 10.0.0.2 }\n";
    let (plan, messages) = config::load_text("t.cfg", text, &World::new());
    let plan = plan.unwrap_or_else(|| panic!("{}", printed(&messages)));
    let front = plan.proxies[0].front.as_ref().unwrap();
    assert!(expects(front, "10.0.0.1") && expects(front, "10.0.0.2"));
    assert!(!expects(front, "10.0.0.3"));
}

/// Where clients say where they go, a server there need not be the listener itself.
#[test]
fn a_header_says_where_a_server_is() {
    let rule = " tcp-request connection expect-proxy layer4 if LOCALHOST\n";
    for (words, rule, is_circle) in [
        ("", "", true),
        (" accept-proxy", "", false),
        ("", rule, false),
        (" transparent", "", false),
    ] {
        let text = format!("listen l\n bind :80{words}\n{rule} server s *\n");
        let (_, messages) = config::load_text("t.cfg", &text, &World::new());
        let printed = printed(&messages);
        assert_eq!(
            printed.contains("in a circle"),
            is_circle,
            "{text}{printed}"
        );
    }
}

#[test]
fn what_is_wrong_in_a_file_has_its_place() {
    let text = "listen l\n bind :80\n acl a src -f list\n";
    let mut world = World::new();
    world
        .files
        .insert(PathBuf::from("list"), "10.0.0.1\nten\n".to_owned());
    let (_, messages) = config::load_text("t.cfg", text, &world);
    let printed = printed(&messages);
    assert!(
        printed.contains("[t.cfg:3] : 'acl a' : 'ten' is not a valid IPv4 or IPv6 address at line 2 of file <list>"),
        "{printed}"
    );
}
