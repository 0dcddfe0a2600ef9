//! `server` lines, where they lead and how they are checked.

use tidegate::base::address::Address;
use tidegate::base::ids::ServerId;
use tidegate::base::send_proxy::{SendProxy, Version};
use tidegate::base::source::{Foreign, ShortName, Source};
use tidegate::config::plan::{Observe, OnError, Passive, PortRule, SlowStart, Target};
use tidegate::config::{self, Options};

use crate::world::{World, back, plan, printed};

#[test]
fn servers() {
    let back = back(
        "default-server weight 5 check inter 3s\nserver a app1:80\n\
         default-server rise 7\nserver b [::1]:81 weight 0 no-check maxconn 4 tcp-ut 1s disabled\n\
         server c unix@/run/c enabled fall 9\nserver d 10.0.0.9:82 port 83 addr 10.0.0.8",
    );
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    let [a, b, c, d] = back.servers.as_slice() else {
        panic!("four servers")
    };
    assert_eq!((a.server_id, a.sid, &*a.name), (ServerId(0), 1, "a"));
    assert_eq!(
        (&a.address, a.address_text.as_str()),
        (&Target::Fixed(address("10.0.0.1:80")), "app1:80")
    );
    assert_eq!(
        (a.weight, a.maxconn, a.disabled, a.place.as_str()),
        (5, 0, false, "t.cfg:3")
    );
    let check = a.check.clone().unwrap();
    assert_eq!(
        (check.address, check.inter_ms),
        (address("10.0.0.1:80"), 3_000)
    );
    assert_eq!((check.fall, check.rise), (3, 2));
    assert_eq!(
        (b.server_id, b.sid, b.check.clone()),
        (ServerId(1), 2, None)
    );
    assert_eq!((b.weight, b.maxconn, b.disabled), (0, 4, true));
    assert_eq!(b.tcp_user_timeout_ms, 1_000);
    let check = c.check.clone().unwrap();
    assert_eq!(
        (check.address, check.fall, check.rise),
        (Address::Unix("/run/c".into()), 9, 7)
    );
    assert_eq!(d.check.clone().unwrap().address, address("10.0.0.8:83"));
}

#[test]
fn what_traffic_may_do_to_a_server() {
    let back = back(
        "timeout connect 700\nserver a 1.1.1.1:80 observe layer4\n\
         server b 1.1.1.1:80 check observe layer4\n\
         server c 1.1.1.1:80 check observe layer4 on-error mark-down error-limit 4\n\
         server d 1.1.1.1:80 check port 81 observe layer4 on-error mark-down downinter 7s\n\
         server e 1.1.1.1:80 check port 81 observe layer4\nserver f 1.1.1.1:80 max-fails 3\n\
         server g 1.1.1.1:80 fail-timeout 30s\nserver h 1.1.1.1:80 max-fails 0 fail-timeout 9s\n\
         server i 1.1.1.1:80 check addr 2.2.2.2 observe layer4 on-error mark-down max-fails 2\n\
         server j 1.1.1.1:80 on-error mark-down error-limit 3",
    );
    let observed = |error_limit, on_error| {
        Some(Observe {
            error_limit,
            on_error,
        })
    };
    // What is observed, and a circuit's `max-fails` and `fail-timeout`.
    let expected = [
        (None, None),
        (observed(10, OnError::FailCheck), None),
        (observed(4, OnError::MarkDown), None),
        (observed(10, OnError::MarkDown), Some((0, 7_000))),
        (observed(10, OnError::FailCheck), None),
        (None, Some((3, 10_000))),
        (None, Some((1, 30_000))),
        (None, None),
        (observed(10, OnError::MarkDown), Some((2, 10_000))),
        (None, None),
    ];
    assert_eq!(back.servers.len(), expected.len());
    for (server, (observe, circuit)) in back.servers.iter().zip(expected) {
        let Passive {
            observe: observed,
            breaker,
        } = &server.passive;
        assert_eq!(*observed, observe, "{}", server.name);
        let found = breaker.as_ref().map(|b| (b.max_fails, b.fail_timeout_ms));
        assert_eq!(found, circuit, "{}", server.name);
        if let Some(breaker) = breaker {
            let own = Target::Fixed(breaker.probe.address.clone());
            assert_eq!(
                (own, breaker.probe.timeout_ms),
                (server.address.clone(), 700)
            );
        }
    }
}

#[test]
fn servers_at_the_clients_destination() {
    let back = back("server a app1\nserver b 1.1.1.1:-5\nserver c *:80\nserver d [::]:+1");
    let of = |ip: Option<&str>, port| Target::OfClient {
        ip: ip.map(|ip| ip.parse().unwrap()),
        port,
    };
    let targets: Vec<&Target> = back.servers.iter().map(|server| &server.address).collect();
    assert_eq!(*targets[0], of(Some("10.0.0.1"), PortRule::Offset(0)));
    assert_eq!(*targets[1], of(Some("1.1.1.1"), PortRule::Offset(-5)));
    assert_eq!(*targets[2], of(None, PortRule::Fixed(80)));
    assert_eq!(*targets[3], of(None, PortRule::Offset(1)));
}

#[test]
fn checks_of_servers_without_a_fixed_address() {
    let back = back(
        "server a app1 check port 81\nserver b * check port 82\nserver c *:83 check\n\
         server d * check addr 1.1.1.1:84\nserver e no.such.invalid:1 init-addr none check",
    );
    let checks = back.servers.iter().map(|server| {
        let check = server.check.as_ref();
        check.map(|check| check.address.to_string())
    });
    let expected = ["10.0.0.1:81", "0.0.0.0:82", "0.0.0.0:83", "1.1.1.1:84"].map(Some);
    let checks: Vec<Option<String>> = checks.collect();
    let checks: Vec<Option<&str>> = checks.iter().map(Option::as_deref).collect();
    assert_eq!(checks[..4], expected);
    assert_eq!(checks[4], None, "nothing to check");
    assert_eq!(back.servers[4].address, Target::Unresolved);
}

#[test]
fn the_bound_of_a_check() {
    let bound = |lines: &str| {
        let back = back(&format!("{lines}\nserver a 1.1.1.1:80 check inter 2s"));
        back.servers[0].check.clone().unwrap().timeout_ms
    };
    assert_eq!(bound(""), 2_000);
    assert_eq!(bound("timeout connect 1s"), 2_000);
    assert_eq!(bound("timeout check 4s"), 2_000);
    assert_eq!(bound("timeout connect 1s\ntimeout check 4s"), 1_000);
    assert_eq!(bound("timeout connect 5s\ntimeout check 1s"), 2_000);
}

#[test]
fn intervals_of_checks() {
    let plan = plan(
        "global\nspread-checks 20\nmax-spread-checks 2s\nbackend b\n\
         server a 10.0.0.1:80 check inter 3s\n\
         server b 10.0.0.1:80 check inter 3s fastinter 200ms downinter 9s\n",
    );
    let back = plan.proxies[0].back.as_ref().unwrap();
    let intervals = back.servers.iter().map(|server| {
        let check = server.check.as_ref().unwrap();
        [check.inter_ms, check.fast_inter_ms, check.down_inter_ms]
    });
    let expected = [[3_000, 3_000, 3_000], [3_000, 200, 9_000]];
    assert_eq!(intervals.collect::<Vec<_>>(), expected);
    let global = plan.global;
    assert_eq!(global.spread_checks_percent, 20);
    assert_eq!(global.max_spread_checks_ms, Some(2_000));
}

#[test]
fn backup_servers_and_dynamic_limits() {
    let back = back(
        "option allbackups\nfullconn 70\noption log-health-checks\ndefault-server backup\n\
         server a 10.0.0.1:80\nserver b 10.0.0.2:80 no-backup minconn 2 maxconn 9 maxqueue 4\n\
         server c 10.0.0.3:80 minconn 5\nserver d 10.0.0.4:80 minconn 6 maxconn 3\n\
         no option log-health-checks",
    );
    let backups: Vec<bool> = back.servers.iter().map(|server| server.backup).collect();
    assert_eq!(backups, [true, false, true, true]);
    let limits = back
        .servers
        .iter()
        .map(|s| (s.minconn, s.maxconn, s.maxqueue));
    // A limit that can't move is a plain one.
    let expected = [(0, 0, 0), (2, 9, 4), (0, 5, 0), (0, 6, 0)];
    assert_eq!(limits.collect::<Vec<_>>(), expected);
    assert_eq!((back.allbackups, back.fullconn), (true, 70));
    assert!(!back.log_health_checks);
}

#[test]
fn sources_of_backend_and_server() {
    let back = back(
        "source 10.0.0.5:1000 interface eth0\nserver a 1.1.1.1:80 check\n\
         server b 1.1.1.1:80 source 10.0.0.6:2000-3000\nserver c 1.1.1.1:80 source *\n\
         default-server source 10.0.0.7 interface eth1\nserver d 1.1.1.1:80",
    );
    let source = |ip: Option<&str>, ports, interface: Option<&str>| {
        Some(Source {
            ip: ip.map(|ip| ip.parse().unwrap()),
            ports,
            interface: interface.and_then(ShortName::new),
            foreign: None,
        })
    };
    let backends = source(Some("10.0.0.5"), Some((1000, 1000)), Some("eth0"));
    assert_eq!(back.servers[0].source, backends);
    assert_eq!(back.servers[0].check.as_ref().unwrap().source, backends);
    let own = source(Some("10.0.0.6"), Some((2000, 3000)), None);
    assert_eq!(back.servers[1].source, own);
    assert_eq!(back.servers[2].source, source(None, None, None));
    let inherited = source(Some("10.0.0.7"), None, Some("eth1"));
    assert_eq!(back.servers[3].source, inherited);
}

#[test]
fn sources_that_take_anothers_address() {
    let back = back(
        "source 10.0.0.5 usesrc clientip interface eth0\nserver a 1.1.1.1:80 check\n\
         server b 1.1.1.1:80 source * usesrc client\n\
         server c 1.1.1.1:80 source 10.0.0.6:2000-3000 usesrc 192.0.2.9:53 interface eth1\n\
         server d 1.1.1.1:80 source 10.0.0.6 usesrc 192.0.2.9",
    );
    let foreign = |server: usize| back.servers[server].source.unwrap().foreign.unwrap();
    assert_eq!(foreign(0), Foreign::ClientIp);
    assert_eq!(foreign(1), Foreign::Client);
    assert_eq!(foreign(2), Foreign::Fixed("192.0.2.9:53".parse().unwrap()));
    assert_eq!(foreign(3), Foreign::Fixed("192.0.2.9:0".parse().unwrap()));
    let interface = back.servers[0].source.unwrap().interface;
    assert_eq!(interface, ShortName::new("eth0"));
    // Checks are nobody's but ours.
    let check = back.servers[0].check.as_ref().unwrap().source.unwrap();
    assert_eq!(
        (check.ip, check.foreign),
        (Some([10, 0, 0, 5].into()), None)
    );
    let text = "listen l\nbind :1\nserver a 1.1.1.1:1\nserver b 1.1.1.1:1 source *";
    assert!(plan(&format!("{text}\n")).first_foreign().is_none());
    let plan = plan(&format!("{text} usesrc client\n"));
    let (proxy, server) = plan.first_foreign().unwrap();
    assert_eq!((&*proxy.name, &*server.name), ("l", "b"));
}

/// Read off haproxy's wire: which words make which header, for clients and for checks.
#[test]
fn headers_of_servers_and_of_their_checks() {
    let of = |words: &str| {
        let back = back(&format!("server a 1.1.1.1:80 check {words}"));
        let server = &back.servers[0];
        let version = |wanted: Option<SendProxy>| wanted.map(|wanted| wanted.version);
        let check = server.check.as_ref().unwrap().send_proxy;
        (version(server.send_proxy), version(check))
    };
    let (one, two) = (Some(Version::One), Some(Version::Two));
    assert_eq!(of(""), (None, None));
    assert_eq!(of("send-proxy"), (one, one));
    assert_eq!(of("send-proxy-v2"), (two, two));
    assert_eq!(of("send-proxy-v2-ssl"), (two, two));
    assert_eq!(of("send-proxy-v2 send-proxy"), (two, two));
    assert_eq!(of("send-proxy-v2 no-send-proxy"), (two, two));
    assert_eq!(of("send-proxy no-send-proxy-v2"), (one, one));
    assert_eq!(of("send-proxy-v2 no-send-proxy-v2-ssl"), (None, None));
    assert_eq!(of("send-proxy no-send-proxy"), (None, None));
    assert_eq!(of("proxy-v2-options crc32c"), (one, one));
    assert_eq!(of("send-proxy port 81"), (one, None));
    assert_eq!(of("send-proxy-v2 addr 1.1.1.1"), (two, None));
    assert_eq!(of("send-proxy-v2 port 81 check-send-proxy"), (two, two));
    assert_eq!(of("check-send-proxy"), (None, one));
    assert_eq!(
        of("send-proxy-v2 check-send-proxy no-check-send-proxy"),
        (two, two)
    );
    assert_eq!(of("check-send-proxy no-check-send-proxy"), (None, None));
}

#[test]
fn what_a_header_holds() {
    let of = |words: &str| {
        let back = back(&format!(
            "default-server send-proxy-v2\nserver a 1.1.1.1:80 {words}"
        ));
        let wanted = back.servers[0].send_proxy.unwrap();
        [
            wanted.checksum,
            wanted.unique_id,
            wanted.authority,
            wanted.tls,
        ]
    };
    assert_eq!(of(""), [false; 4]);
    assert_eq!(
        of("proxy-v2-options crc32c,authority"),
        [true, false, true, false]
    );
    assert_eq!(
        of("proxy-v2-options unique-id"),
        [false, true, false, false]
    );
    assert_eq!(of("proxy-v2-options cert-cn"), [false, false, false, true]);
    assert_eq!(of("send-proxy-v2-ssl-cn"), [false, false, false, true]);
}

#[test]
fn a_template_numbers_its_servers() {
    let back = back(
        "server-template web 2-3 app1:80 weight 9\nserver x 1.1.1.1:80 id 1\n\
         server-template api 2 1.1.1.2:80",
    );
    let servers: Vec<(&str, u32, u16)> = back
        .servers
        .iter()
        .map(|server| (&*server.name, server.sid, server.weight))
        .collect();
    let expected = [
        ("web2", 2, 9),
        ("web3", 3, 9),
        ("x", 1, 1),
        ("api1", 5, 1),
        ("api2", 6, 1),
    ];
    // HAProxy counts on at a server that has a number of its own.
    assert_eq!(servers, expected);
}

#[test]
fn resolution_failures_can_be_ignored_where_no_init_addr_says_otherwise() {
    let options = Options {
        ignore_resolution_failures: true,
        ..Options::default()
    };
    let world = World {
        options,
        ..World::new()
    };
    let load = |line: &str| {
        let text = format!("backend b\ntimeout connect 1s\ntimeout server 1s\n{line}\n");
        let (plan, messages) = config::load_text("t.cfg", text, &world);
        let proxies = plan.map(|plan| plan.proxies);
        let server = proxies.map(|proxies| proxies[0].back.as_ref().unwrap().servers[0].clone());
        (server, printed(&messages))
    };
    let (server, messages) = load("server a no.such.invalid:80");
    assert_eq!(server.unwrap().address, Target::Unresolved);
    assert!(messages.contains("[NOTICE]") && messages.contains("disabling server."));
    let (server, messages) = load("server a no.such.invalid:80 init-addr libc");
    assert!(server.is_none() && messages.contains("could not resolve address"));
}

#[test]
fn a_name_with_both_families_gives_the_preferred_one() {
    let addresses = |parameters: &str| {
        let back = back(&format!("server a both:80 {parameters}"));
        back.servers[0].address.to_string()
    };
    assert_eq!(addresses(""), "[2001:db8::1]:80");
    assert_eq!(addresses("resolve-prefer ipv4"), "10.0.0.2:80");
    assert_eq!(addresses("resolve-prefer ipv6"), "[2001:db8::1]:80");
}

#[test]
fn where_checks_and_agents_go() {
    let back = back(
        "default-server check\nserver a 1.1.1.1:80 addr :90\nserver b 1.1.1.1:80 addr 2.2.2.2\n\
         server c 1.1.1.1:80 port 90 addr 2.2.2.2:91\nserver d 1.1.1.1:80 addr 2.2.2.2:91\n\
         server e /run/e addr 2.2.2.2:91\nserver f /run/f port 91\nserver g 1.1.1.1:80 addr /run/g\n\
         server h 1.1.1.1:80 agent-check agent-port 5\n\
         server i 1.1.1.1:80 agent-check agent-port 5 agent-addr app1 agent-inter 1s agent-send x",
    );
    let check = |index: usize| {
        back.servers[index]
            .check
            .clone()
            .unwrap()
            .address
            .to_string()
    };
    let checks: Vec<_> = (0..7).map(check).collect();
    let expected = [
        "1.1.1.1:90",
        "2.2.2.2:80",
        "2.2.2.2:90",
        "2.2.2.2:91",
        "2.2.2.2:91",
        "unix@/run/f",
        "unix@/run/g",
    ];
    assert_eq!(checks, expected);
    let agent = |index: usize| back.servers[index].watch.agent.clone().unwrap();
    let (h, i) = (agent(7), agent(8));
    assert_eq!(
        (h.address.to_string().as_str(), h.inter_ms),
        ("1.1.1.1:5", 2_000)
    );
    assert_eq!(
        (i.address.to_string().as_str(), i.inter_ms),
        ("10.0.0.1:5", 1_000)
    );
    assert_eq!((&*h.question, &*i.question), ("", "x"));
    assert_eq!([h.timeout_connect_ms, i.timeout_connect_ms], [2_000, 1_000]);
    assert_eq!(h.timeout_check_ms, None);
}

#[test]
fn servers_track_others_of_any_backend() {
    let plan = plan(
        "listen a\nbind :80\nserver a1 1.1.1.1:80 track b/b2\nserver a2 1.1.1.1:80 track a1\n\
         frontend f\nbind :81\ndefault_backend a\n\
         backend b\nserver b1 1.1.1.1:80\nserver b2 1.1.1.1:80 check\n",
    );
    let tracked = |index: usize| {
        let back = plan.proxies[0].back.as_ref().unwrap();
        back.servers[index].watch.tracks.clone().unwrap()
    };
    let (first, second) = (tracked(0), tracked(1));
    assert_eq!(
        (first.server_id, first.index, &*first.name),
        (ServerId(3), 1, "b/b2")
    );
    assert_eq!(
        (second.server_id, second.index, &*second.name),
        (ServerId(0), 0, "a/a1")
    );
    let ids = plan.proxies[2].back.as_ref().unwrap().servers.iter();
    assert_eq!(
        ids.map(|server| server.server_id.0).collect::<Vec<_>>(),
        [2, 3]
    );
    let mut row = "backend c\nserver s0 1.1.1.1:80 check\n".to_owned();
    for index in 1..=100 {
        row.push_str(&format!(
            "server s{index} 1.1.1.1:80 track s{}\n",
            index - 1
        ));
    }
    let (refused, messages) = crate::world::load(&row);
    assert!(refused.is_none());
    let text = printed(&messages);
    assert!(
        text.contains("s100' : unable to track c/s99: more than 100 servers"),
        "{text}"
    );
}

#[test]
fn slow_starts() {
    let back = back(
        "server a 1.1.1.1:80\nserver b 1.1.1.1:80 slowstart 1500us\n\
         default-server slowstart 1m slowstart-steps 10,50,100\nserver c 1.1.1.1:80\n\
         server d 1.1.1.1:80 slowstart-steps 0 slowstart-connrate 7\n\
         server e 1.1.1.1:80 slowstart 0",
    );
    let slow_start = |duration_ms, steps: &[u8], connections_per_second| {
        Some(SlowStart {
            duration_ms,
            steps: steps.to_vec(),
            connections_per_second,
        })
    };
    let expected = [
        None,
        slow_start(2, &[], 0),
        slow_start(60_000, &[10, 50, 100], 0),
        slow_start(60_000, &[], 7),
        None,
    ];
    for (server, expected) in back.servers.iter().zip(expected) {
        assert_eq!(server.slow_start, expected, "{}", server.name);
    }
}
