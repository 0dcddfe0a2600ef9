//! Texts in, plans out: proxies, the process, logs.

use std::net::SocketAddr;
use std::path::Path;

use tidegate::base::address::Address;
use tidegate::base::ids::ProxyId;
use tidegate::base::receive::ReceiveStep;
use tidegate::base::source::ShortName;
use tidegate::config::plan::{
    Balance, Endpoint, HashKind, KeepAlive, Level, LogFormat, LogHost, LogSink, Stage,
};

use crate::world::{back, front, load, plan, printed};

#[test]
fn front_settings() {
    let (plain, _) = front("bind :80");
    assert_eq!(
        (
            plain.maxconn,
            plain.timeout_client_ms,
            plain.timeout_client_fin_ms
        ),
        (0, 0, 0)
    );
    assert_eq!(
        (plain.keepalive, plain.lines.stage, plain.dontlognull),
        (None, Stage::Accepted, false)
    );
    // A listen is its own backend.
    assert_eq!(plain.default_backend, Some(ProxyId(0)));
    let (set, plan) = front(
        "bind :80\nmaxconn 9\nbacklog 8\ntimeout client 1m\ntimeout client-fin 5s\noption tcplog\n\
         option dontlognull\noption clitcpka\nclitcpka-idle 2m\nclitcpka-intvl 10\nclitcpka-cnt 3",
    );
    assert_eq!(
        (
            set.maxconn,
            set.timeout_client_ms,
            set.timeout_client_fin_ms
        ),
        (9, 60_000, 5_000)
    );
    let keepalive = KeepAlive {
        idle_s: Some(120),
        interval_s: Some(10),
        count: Some(3),
    };
    assert_eq!(
        (set.keepalive, set.lines.stage, set.dontlognull),
        (Some(keepalive), Stage::Ended, true)
    );
    assert_eq!(plan.listeners[0].backlog, 8);
    let (both, plan) = front("bind :80\noption tcpka");
    assert_eq!(both.keepalive, Some(KeepAlive::default()));
    assert_eq!(
        plan.proxies[0].back.as_ref().unwrap().keepalive,
        Some(KeepAlive::default())
    );
}

/// As HAProxy has it in a proxy of TCP: the full line of sessions, and not the short one.
#[test]
fn the_log_of_http_is_that_of_sessions() {
    for option in ["option httplog", "option httplog clf", "option httpslog"] {
        let (set, _) = front(&format!("bind :80\n{option}\n"));
        assert_eq!(set.lines.stage, Stage::Ended, "{option}");
    }
    let (unset, _) = front("bind :80\noption httplog\nno option httplog\n");
    assert_eq!(unset.lines.stage, Stage::Accepted);
}

#[test]
fn every_algorithm_has_its_plan() {
    use tidegate::config::plan::{
        Calculation, Converter, Expression, Fetch, Hash, HashFunction, HashKey, HashMethod,
    };
    let balance = |lines: &str| back(lines).balance;
    assert_eq!(balance("balance static-rr"), Balance::StaticRr);
    assert_eq!(balance("balance first"), Balance::First);
    assert_eq!(balance("balance random"), Balance::Random { draws: 2 });
    assert_eq!(balance("balance random(7)"), Balance::Random { draws: 7 });
    assert_eq!(balance("balance random(65)"), Balance::Random { draws: 64 });
    let method = |kind, function, avalanche| HashMethod {
        kind,
        function,
        avalanche,
    };
    let mut expression = Expression::new(Fetch::SourcePort);
    assert!(expression.add(Converter::Calculate(Calculation::Div, 2)));
    let lines = "balance hash src_port,div(2)\nhash-type maglev wt6 avalanche\n\
                 hash-balance-factor 150";
    let hash = Hash {
        key: HashKey::Expression(expression),
        method: method(HashKind::Maglev, HashFunction::Wt6, true),
        factor: 150,
    };
    assert_eq!(balance(lines), Balance::Hash(hash));
    let hash = Hash {
        key: HashKey::Source,
        method: method(HashKind::MapBased, HashFunction::None, false),
        factor: 0,
    };
    let lines = "balance source\nhash-type map-based none\nhash-balance-factor 0";
    assert_eq!(balance(lines), Balance::Hash(hash));
    // Only what a key is made of is asked for.
    let reads = |key: &str| {
        let balance = balance(&format!("balance {key}"));
        (balance.reads_source(), balance.reads_destination())
    };
    assert_eq!(reads("leastconn"), (false, false));
    assert_eq!(reads("source"), (true, false));
    assert_eq!(reads("hash src_port"), (true, false));
    assert_eq!(reads("hash dst,ipmask(24)"), (false, true));
}

#[test]
fn identities_of_servers() {
    use tidegate::config::plan::ServerKey;
    let back = back(
        "server a 127.0.0.1:1 guid one hash-key guid\nserver b 127.0.0.1:2\n\
         default-server hash-key id\nserver c 127.0.0.1:3 hash-key addr\n\
         server d 127.0.0.1:4 hash-key id32",
    );
    let servers = back.servers.iter();
    let all: Vec<_> = servers.map(|s| (s.hash_key, s.guid.as_str())).collect();
    let expected = [
        (ServerKey::Guid, "one"),
        (ServerKey::AddressPort, ""),
        (ServerKey::Address, ""),
        (ServerKey::Id, ""),
    ];
    assert_eq!(all, expected);
}

#[test]
fn back_settings() {
    let plain = back("");
    assert_eq!(
        (plain.balance, plain.retries, plain.redispatch),
        (Balance::RoundRobin, 3, None)
    );
    assert_eq!((plain.timeout_connect_ms, plain.timeout_queue_ms), (0, 0));
    let set = back(
        "balance leastconn\nretries 0\noption redispatch\ntimeout connect 1\ntimeout server 2s\n\
         timeout server-fin 3s\ntimeout queue 4s\noption srvtcpka\nsrvtcpka-cnt 2",
    );
    assert_eq!(
        (set.balance, set.retries, set.redispatch),
        (Balance::LeastConn, 0, Some(-1))
    );
    assert_eq!((set.timeout_connect_ms, set.timeout_server_ms), (1, 2_000));
    assert_eq!(
        (set.timeout_server_fin_ms, set.timeout_queue_ms),
        (3_000, 4_000)
    );
    assert_eq!(
        set.keepalive,
        Some(KeepAlive {
            count: Some(2),
            ..KeepAlive::default()
        })
    );
    assert_eq!(
        back("balance source").balance,
        Balance::source(HashKind::MapBased)
    );
    let consistent = back("hash-type consistent sdbm\nbalance source").balance;
    assert_eq!(consistent, Balance::source(HashKind::Consistent));
    for (interval, expected) in [("1", Some(1)), ("-2", Some(-2)), ("0", None)] {
        assert_eq!(
            back(&format!("option redispatch {interval}")).redispatch,
            expected
        );
    }
    assert_eq!(
        back("option redispatch\nno option redispatch").redispatch,
        None
    );
    assert_eq!(
        back("option redispatch\ndefault option redispatch").redispatch,
        None
    );
}

#[test]
fn options_of_connecting_and_closing() {
    let text = "option nolinger\noption independent-streams\noption abortonclose\n\
                option tcp-smart-connect\ntimeout tunnel 1h\nserver a 1.1.1.1:80 cc reno";
    let (front, plan) = front(text);
    let back = plan.proxies[0].back.clone().unwrap();
    assert!(front.nolinger && front.independent_streams);
    assert!(back.nolinger && back.independent_streams);
    assert!(back.abortonclose && back.smart_connect);
    assert_eq!(back.timeout_tunnel_ms, 3_600_000);
    assert_eq!(back.servers[0].congestion, ShortName::new("reno"));
    let off = format!("{text}\nno option nolinger\ndefault option abortonclose");
    let (front, plan) = self::front(&off);
    let back = plan.proxies[0].back.clone().unwrap();
    assert!(!front.nolinger && !back.nolinger && !back.abortonclose);
}

#[test]
fn global_settings() {
    let plan = plan(
        "global\nmaxconn 5\nnbthread 3\ndaemon\npidfile /run/p\nhard-stop-after 1h\nlog-tag t\n\
         stats socket /run/s mode 600 uid 1 gid 2 level admin\nstats socket 127.0.0.1:99\n\
         stats timeout 2m\nstats maxconn 4\ntune.rcvbuf.client 1k\ntune.sndbuf.client 2k\n\
         tune.rcvbuf.server 3k\ntune.sndbuf.server 0\ntune.ring.receive plain\n\
         tune.ring.buffers 16\ntune.memory 1G\n",
    );
    let global = &plan.global;
    assert_eq!(
        (global.maxconn, global.nbthread, global.daemon),
        (Some(5), Some(3), true)
    );
    assert_eq!(global.pidfile.as_deref(), Some(Path::new("/run/p")));
    assert_eq!(
        (global.hard_stop_after_ms, global.log_tag.as_str()),
        (Some(3_600_000), "t")
    );
    assert_eq!(
        (global.stats_timeout_ms, global.stats_maxconn),
        (120_000, 4)
    );
    let [first, second] = global.stats_sockets.as_slice() else {
        panic!("two sockets")
    };
    assert_eq!(
        (first.mode, first.uid, first.gid),
        (Some(0o600), Some(1), Some(2))
    );
    assert_eq!((first.level, second.level), (Level::Admin, Level::Operator));
    assert_eq!(second.endpoint.to_string(), "127.0.0.1:99");
    assert_eq!(
        (global.rcvbuf_client, global.sndbuf_client),
        (Some(1_024), Some(2_048))
    );
    assert_eq!(
        (global.rcvbuf_server, global.sndbuf_server),
        (Some(3_072), None)
    );
    assert_eq!(
        (global.receive_step, global.ring_buffers),
        (Some(ReceiveStep::Plain), 16)
    );
    assert_eq!(global.memory_bytes, Some(1 << 30));
    // The runtime sockets are enough to start.
    assert!(plan.has_listener() && plan.listeners.is_empty());
}

#[test]
fn logs() {
    let sinks = [
        ("127.0.0.1", LogSink::Udp("127.0.0.1:514".parse().unwrap())),
        (
            "127.0.0.1:99",
            LogSink::Udp("127.0.0.1:99".parse().unwrap()),
        ),
        ("udp@app1", LogSink::Udp("10.0.0.1:514".parse().unwrap())),
        ("[::1]:99", LogSink::Udp("[::1]:99".parse().unwrap())),
        ("/dev/log", LogSink::UnixDatagram("/dev/log".into())),
        ("stdout", LogSink::Stdout),
        ("stderr", LogSink::Stderr),
        ("fd@2", LogSink::Descriptor(2)),
    ];
    for (text, sink) in sinks {
        let plan = plan(&format!("global\nlog {text} daemon\n"));
        let log = &plan.global.logs[0];
        assert_eq!(
            (&log.sink, log.facility, log.format),
            (&sink, 3, LogFormat::Rfc3164),
            "{text}"
        );
        assert_eq!((log.length_max, log.level_max, log.level_min), (1024, 7, 0));
    }
    let plan = plan(
        "global\nlog stdout len 80 format raw local7 info err\ndefaults\nlog global\n\
         frontend a\nlog stderr format short local0\nfrontend b\nno log\n",
    );
    let log = &plan.global.logs[0];
    assert_eq!(
        (log.length_max, log.facility, log.format),
        (80, 23, LogFormat::Raw)
    );
    assert_eq!((log.level_max, log.level_min), (6, 3));
    assert_eq!(plan.proxies[0].logs.len(), 2);
    assert_eq!(plan.proxies[0].logs[0], *log);
    assert!(plan.proxies[1].logs.is_empty());
}

#[test]
fn which_lines_are_logged_and_how() {
    let (front, plan) = front("option dontlog-normal\noption log-separate-errors\nbind :80");
    assert!(front.dontlog_normal && front.log_separate_errors);
    assert_eq!(plan.global.log_host, LogHost::None);
    let host = |line: &str| self::plan(&format!("global\n{line}\n")).global.log_host;
    assert_eq!(host("log-send-hostname"), LogHost::System);
    let named = LogHost::Named("a.example".to_owned());
    assert_eq!(host("log-send-hostname a.example"), named);
    let formats = [
        ("rfc3164", LogFormat::Rfc3164),
        ("local", LogFormat::Local),
        ("rfc5424", LogFormat::Rfc5424),
        ("iso", LogFormat::Iso),
        ("timed", LogFormat::Timed),
    ];
    for (word, format) in formats {
        let plan = self::plan(&format!("global\nlog 127.0.0.1 format {word} local0\n"));
        assert_eq!(plan.global.logs[0].format, format, "{word}");
    }
}

/// What the forms of lines ask for, and which one wins.
#[test]
fn lines_have_the_form_that_is_asked_for_last() {
    let lines = |text: &str| {
        front(&format!("bind :80\nlog stdout local0\n{text}"))
            .0
            .lines
    };
    let is_tcplog = |text: &str| lines(text).line == lines("option tcplog").line;
    assert!(is_tcplog("log-format %f\noption tcplog"));
    assert!(is_tcplog("log-format %f\noption httplog"));
    assert!(!is_tcplog("option tcplog\nlog-format %f"));
    assert!(is_tcplog("option tcplog\nno option tcplog\noption tcplog"));
    let stage = |text: &str| lines(text).stage;
    assert_eq!(stage(""), Stage::Accepted);
    assert_eq!(stage("log-format %f"), Stage::Connected);
    assert_eq!(stage("log-format '%f %B'"), Stage::Ended);
    assert_eq!(stage("log-format %f\nlog-format-sd %B"), Stage::Ended);
    assert_eq!(stage("option tcplog\noption logasap"), Stage::Connected);
    assert_eq!(stage("option logasap"), Stage::Accepted);
    let reads = |text: &str| lines(text).reads;
    let all = reads("log-format '%fi %bp %[fc_pp_authority] %rt'");
    assert!(all.destination && all.source && all.header && all.number);
    assert_eq!(reads("option tcplog"), Default::default());
    assert!(reads("").destination && reads("error-log-format %fi").destination);
    assert!(reads("log-format %ID\nunique-id-format %rt").number);
    let plan = plan("global\nlog-tag all\nfrontend a\nlog-tag own\nbackend b\n");
    let tags: Vec<_> = plan
        .proxies
        .iter()
        .map(|proxy| proxy.log_tag.as_deref())
        .collect();
    assert_eq!(tags, [Some("own"), None]);
}

#[test]
fn samples_of_lines() {
    let plan = plan("global\nlog 127.0.0.1 sample 1,3-4:5 local0\nfrontend a\nlog global\n");
    let sample = plan.proxies[0].logs[0].sample.as_ref().unwrap();
    assert_eq!(
        (&sample.ranges[..], sample.size),
        (&[(1, 1), (3, 4)][..], 5)
    );
}

#[test]
fn defaults_are_inherited() {
    let plan = plan(
        "defaults one\ntimeout client 1s\nretries 1\ndefaults two\ntimeout client 2s\n\
         defaults three from one\nretries 9\nlisten a from one\nlisten b\nlisten c from two\n\
         defaults\nlisten d\n",
    );
    let values: Vec<_> = plan
        .proxies
        .iter()
        .map(|proxy| {
            let (front, back) = (proxy.front.as_ref().unwrap(), proxy.back.as_ref().unwrap());
            (&*proxy.name, front.timeout_client_ms, back.retries)
        })
        .collect();
    assert_eq!(
        values,
        [
            ("a", 1_000, 1),
            ("b", 1_000, 9),
            ("c", 2_000, 3),
            ("d", 0, 3)
        ]
    );
    let ids: Vec<_> = plan
        .proxies
        .iter()
        .map(|proxy| (proxy.proxy_id, proxy.iid))
        .collect();
    assert_eq!(ids[..2], [(ProxyId(0), 2), (ProxyId(1), 3)]);
}

#[test]
fn the_first_rule_without_a_condition_comes_before_the_default() {
    let rules = "use_backend b\nuse_backend c\ndefault_backend a\n";
    let backends = "backend a\nbackend b\nbackend c\n";
    let plan = self::plan(&format!("frontend f\n{rules}listen l\n{rules}{backends}"));
    for proxy in &plan.proxies[..2] {
        let front = proxy.front.as_ref().unwrap();
        assert_eq!(front.default_backend, Some(ProxyId(3)), "{}", proxy.name);
    }
}

#[test]
fn disabled_proxies_have_no_listener_and_no_usable_server() {
    let plan = plan("listen l\ndisabled\nbind :80\nserver a 1.1.1.1:80 check\n");
    assert!(!plan.has_listener());
    let server = &plan.proxies[0].back.as_ref().unwrap().servers[0];
    assert!(server.disabled && server.check.is_none());
    assert_eq!(plan.servers_count, 1);
}

#[test]
fn a_frontend_finds_its_backend() {
    let plan = plan("frontend f\ndefault_backend b\nbackend a\nbackend b\n");
    assert_eq!(
        plan.proxies[0].front.as_ref().unwrap().default_backend,
        Some(ProxyId(2))
    );
    assert!(plan.proxies[0].back.is_none() && plan.proxies[2].front.is_none());
}

#[test]
fn ids_that_are_asked_for_are_not_given_to_others() {
    let text = "defaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n\
                listen a\n bind :1\n server s :2\nlisten b\n id 2\n description two words\n\
                backend c\nbackend d\n id 4\nbackend e\n";
    let text = text.replace("s :2", "s 10.0.0.1:2");
    let plan = plan(&text);
    let iids: Vec<u32> = plan.proxies.iter().map(|proxy| proxy.iid).collect();
    // HAProxy counts on at a proxy that has a number of its own.
    assert_eq!(iids, [3, 2, 5, 4, 7]);
    assert_eq!(plan.proxies[1].description, "two words");
}

/// A deployment's own file, as it stands, with its DHT part.
#[test]
fn the_privatus_file_loads_as_it_stands() {
    let text = include_str!("../data/privatus.cfg");
    let (plan, messages) = load(text);
    let plan = plan.unwrap_or_else(|| panic!("{}", printed(&messages)));
    let any = |port: u16| SocketAddr::from(([0, 0, 0, 0], port));
    let listeners = plan.listeners.iter();
    assert_eq!(
        listeners
            .map(|listener| listener.endpoint.clone())
            .collect::<Vec<_>>(),
        [
            Endpoint::Address(Address::Ip(any(8080))),
            Endpoint::Datagram(any(6881))
        ]
    );
    let names = plan.proxies.iter().map(|proxy| &*proxy.name);
    assert_eq!(
        names.collect::<Vec<_>>(),
        [
            "privatus_frontend",
            "privatus_dht_frontend",
            "privatus_backend",
            "privatus_dht_backend"
        ]
    );
    for (index, port, is_udp) in [(2, 8080, false), (3, 6881, true)] {
        let back = plan.proxies[index].back.as_ref().unwrap();
        assert_eq!(back.balance, Balance::LeastConn);
        assert_eq!(back.udp.is_some(), is_udp);
        let checks = back.servers.iter().map(|server| {
            let check = server.check.as_ref().unwrap();
            let at = check.address.to_string();
            let port_at = at.rsplit_once(':').unwrap().1.parse().unwrap();
            (port_at, check.inter_ms, check.fall, check.rise)
        });
        assert!(checks.eq([(port, 10_000, 3, 2); 3]));
    }
    let fronts = plan.proxies[..2].iter().map(|p| p.front.as_ref().unwrap());
    assert!(fronts.map(|front| front.udp.is_some()).eq([false, true]));
    // Flows have an idle time in any case: only the connections lack theirs.
    let missing = messages
        .iter()
        .filter(|m| m.text.contains("missing timeouts"));
    assert_eq!(missing.count(), 2);
}
