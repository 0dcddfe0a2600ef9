//! The configuration layer from outside: texts and files in, plans and exact messages out.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tidegate::base::address::Address;
use tidegate::base::ids::{ListenerId, ProxyId, ServerId};
use tidegate::base::receive::ReceiveStep;
use tidegate::base::source::{ShortName, Source};
use tidegate::config::diagnostics::Severity;
use tidegate::config::keywords::{self, Keyword, Side, Standing, reference};
use tidegate::config::plan::{
    Back, Balance, Endpoint, Front, HashType, KeepAlive, Level, LogFormat, LogHost, LogSink, Plan,
    PortRule, Target,
};
use tidegate::config::{self, Diagnostic, Environment, Options, Resolver};

/// A made-up world: two names, two users, a few variables.
struct World {
    options: Options,
    variables: BTreeMap<&'static str, &'static str>,
    local: Vec<IpAddr>,
}

impl World {
    fn new() -> World {
        World {
            options: Options::default(),
            variables: BTreeMap::from([
                ("PORT", "8080"),
                ("LIST", "check inter  3s"),
                ("EMPTY", ""),
            ]),
            local: vec![IpAddr::from([192, 0, 2, 1])],
        }
    }
}

impl Resolver for World {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host {
            "app1" => Ok(vec![IpAddr::from([10, 0, 0, 1])]),
            "app2" => Ok(vec![IpAddr::from([10, 0, 0, 2])]),
            "app3" => Ok(vec![IpAddr::from([10, 0, 0, 3])]),
            "both" => Ok(vec![
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
                IpAddr::from([10, 0, 0, 2]),
            ]),
            _ => Err("name not known".to_owned()),
        }
    }
}

impl Environment for World {
    fn options(&self) -> Options {
        self.options
    }

    fn local_peer(&self) -> String {
        "here".to_owned()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        match name {
            "www" => Some(33),
            "root" => Some(0),
            _ => None,
        }
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        match name {
            "www" => Some(34),
            "root" => Some(0),
            _ => None,
        }
    }

    fn local_addresses(&self) -> &[IpAddr] {
        &self.local
    }
}

fn load(text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
    config::load_text("t.cfg", text, &World::new())
}

#[test]
fn every_shipped_config_loads() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cfg") {
            let (plan, messages) = config::load(std::slice::from_ref(&path), &World::new());
            let texts: Vec<String> = messages.iter().map(|message| message.format(1)).collect();
            assert!(
                plan.is_some_and(|plan| plan.has_listener()),
                "{path:?}: {texts:#?}"
            );
            let bad = messages
                .iter()
                .any(|message| message.severity != Severity::Notice);
            assert!(!bad, "{path:?}: {texts:#?}");
            count += 1;
        }
    }
    assert!(count > 0);
}

/// A case of `tests/data/messages.txt`: `=== title`, a config, `---`, the messages it gets.
struct Case {
    title: String,
    text: String,
    expected: String,
}

fn cases() -> Vec<Case> {
    let data = include_str!("data/messages.txt");
    let case = |part: &str| {
        let (title, rest) = part.split_once('\n').expect("a case has a title");
        let (text, expected) = match rest.strip_prefix("---\n") {
            Some(expected) => ("", expected),
            None => {
                let (text, expected) = rest.split_once("\n---\n").expect("a case has a ---");
                (text, expected)
            }
        };
        let text = if text.is_empty() {
            String::new()
        } else {
            format!("{text}\n")
        };
        Case {
            title: title.to_owned(),
            text,
            expected: expected.to_owned(),
        }
    };
    data.split("=== ").skip(1).map(case).collect()
}

/// The messages as they are printed, less what is the same in all.
fn printed(messages: &[Diagnostic]) -> String {
    let line = |message: &Diagnostic| {
        let text = message.format(7).replacen(" (7) : config : ", " ", 1);
        format!("{text}\n")
    };
    messages.iter().map(line).collect()
}

/// The exact messages of every case. What they are now is left in the target directory, so that a
/// wanted change of many messages can be looked at and copied.
#[test]
fn messages_are_exact() {
    let mut now = String::new();
    let mut wrong = Vec::new();
    for Case {
        title,
        text,
        expected,
    } in cases()
    {
        let (plan, messages) = load(&text);
        let got = printed(&messages);
        assert_eq!(
            plan.is_some(),
            !messages.iter().any(Diagnostic::is_fatal),
            "{title}"
        );
        now.push_str(&format!("=== {title}\n{text}---\n{got}"));
        if got != expected {
            wrong.push(format!("{title}\n--- expected\n{expected}--- got\n{got}"));
        }
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("messages.txt");
    std::fs::write(&copy, now).unwrap();
    assert!(
        wrong.is_empty(),
        "{}\nall as they are now: {}",
        wrong.join("\n"),
        copy.display()
    );
}

/// The plan of a text that must load without an error.
fn plan(text: &str) -> Plan {
    let (plan, messages) = load(text);
    plan.unwrap_or_else(|| panic!("{text}\n{}", printed(&messages)))
}

/// A proxy's front, from lines of a `listen`.
fn front(lines: &str) -> (Front, Plan) {
    let plan = plan(&format!("listen l\n{lines}\n"));
    (plan.proxies[0].front.clone().unwrap(), plan)
}

/// A proxy's back, from lines of a `backend`.
fn back(lines: &str) -> Back {
    plan(&format!("backend b\n{lines}\n")).proxies[0]
        .back
        .clone()
        .unwrap()
}

fn endpoints(bind: &str) -> Vec<String> {
    let (_, plan) = front(&format!("bind {bind}"));
    let text = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Descriptor(number) => format!("fd@{number}"),
    };
    plan.listeners
        .iter()
        .map(|listener| text(&listener.endpoint))
        .collect()
}

#[test]
fn bind_addresses() {
    let table: &[(&str, &[&str])] = &[
        (":80", &["0.0.0.0:80"]),
        ("*:80", &["0.0.0.0:80"]),
        ("0.0.0.0:80", &["0.0.0.0:80"]),
        ("127.0.0.1:80", &["127.0.0.1:80"]),
        ("[::1]:80", &["[::1]:80"]),
        ("::1:80", &["[::1]:80"]),
        (":::80", &["[::]:80"]),
        ("[::]:80", &["[::]:80"]),
        ("ipv6@:80", &["[::]:80"]),
        ("ipv6@*:80", &["[::]:80"]),
        ("ipv4@:80", &["0.0.0.0:80"]),
        ("tcp@127.0.0.1:80", &["127.0.0.1:80"]),
        ("tcp6@[::1]:80", &["[::1]:80"]),
        ("app1:80", &["10.0.0.1:80"]),
        ("both:80", &["[2001:db8::1]:80"]),
        ("ipv4@both:80", &["10.0.0.2:80"]),
        ("unix@/run/a", &["unix@/run/a"]),
        ("/run/a@b", &["unix@/run/a@b"]),
        ("fd@3", &["fd@3"]),
        ("abns@web", &["abns@web"]),
        ("abnsz@web", &["abnsz@web"]),
        (
            ":80,:81,[::1]:82",
            &["0.0.0.0:80", "0.0.0.0:81", "[::1]:82"],
        ),
        (":80-82", &["0.0.0.0:80", "0.0.0.0:81", "0.0.0.0:82"]),
    ];
    for (bind, expected) in table {
        assert_eq!(endpoints(bind), *expected, "{bind}");
    }
}

#[test]
fn bind_parameters() {
    let (front, plan) = front(
        "maxconn 7\nbind :80 name n backlog 5 maxconn 6 defer-accept v4v6 tcp-ut 2s\n\
         bind /run/a mode 660 user www group www\nbind :81 v6only",
    );
    assert_eq!(
        front.listeners,
        [ListenerId(0), ListenerId(1), ListenerId(2)]
    );
    let first = &plan.listeners[0];
    assert_eq!(
        (first.name.as_str(), first.backlog, first.maxconn),
        ("n", 5, 6)
    );
    assert_eq!((first.defer_accept, first.v6only), (true, Some(false)));
    assert_eq!(
        (first.tcp_user_timeout_ms, first.place.as_str()),
        (2_000, "t.cfg:3")
    );
    let second = &plan.listeners[1];
    assert_eq!(
        (second.unix_mode, second.unix_uid, second.unix_gid),
        (Some(0o660), Some(33), Some(34))
    );
    // Without a backlog of its own a listener has its proxy's maxconn.
    assert_eq!((second.backlog, second.maxconn), (7, 0));
    assert_eq!(plan.listeners[2].v6only, Some(true));
}

/// Ids of the file stay, the other sockets get what is left; each frontend counts for itself.
#[test]
fn sockets_are_numbered() {
    let plan =
        plan("listen a\nbind :1-2\nbind :3 id 2\nbind abns@a\nbind :4 id 9\nlisten b\nbind :5\n");
    let ids: Vec<u32> = plan.listeners.iter().map(|l| l.socket_id).collect();
    assert_eq!(ids, [1, 3, 2, 4, 9, 1]);
}

/// How many sockets a listener has and which shards use them, with what the global section says.
#[test]
fn shards_share_sockets() {
    let spread = |global: &str, bind: &str| {
        let plan = plan(&format!("global\n{global}\nlisten l\nbind {bind}\n"));
        let (threads, sockets) = plan.listeners[0].spread(4, &plan.global);
        let shards: Vec<u16> = threads.iter().map(|shard| shard.0).collect();
        (shards, sockets)
    };
    let by_group = "tune.listener.default-shards by-group";
    let table: &[(&str, &str, &[u16], u16)] = &[
        ("", ":1", &[0, 1, 2, 3], 4),
        ("", ":1 thread 2-", &[1, 2, 3], 3),
        ("", ":1 thread even shards 9", &[1, 3], 2),
        ("", ":1 shards by-group", &[0, 1, 2, 3], 1),
        ("", ":1 thread 9", &[], 0),
        ("", "abns@a shards 3 thread 1/3", &[2], 1),
        (by_group, ":1", &[0, 1, 2, 3], 1),
        (by_group, ":1 shards by-thread", &[0, 1, 2, 3], 4),
        ("noreuseport", ":1 thread 1,4 shards 2", &[0, 3], 1),
    ];
    for (global, bind, shards, sockets) in table {
        let expected = (shards.to_vec(), *sockets);
        assert_eq!(spread(global, bind), expected, "{global}: {bind}");
    }
}

/// `unix-bind` concerns the lines after it, and what a line says itself wins.
#[test]
fn unix_sockets_have_defaults() {
    let plan = plan(
        "listen a\nbind /a\nglobal\nunix-bind prefix /run mode 640 gid 5\nlisten b\n\
         bind /b\nbind unix@c mode 600\nbind abns@d\n",
    );
    let shown = |at: usize| {
        let listener = &plan.listeners[at];
        let Endpoint::Address(address) = &listener.endpoint else {
            panic!("an address");
        };
        (address.to_string(), listener.unix_mode, listener.unix_gid)
    };
    assert_eq!(shown(0), ("unix@/a".to_owned(), None, None));
    assert_eq!(shown(1), ("unix@/run/b".to_owned(), Some(0o640), Some(5)));
    assert_eq!(shown(2), ("unix@/runc".to_owned(), Some(0o600), Some(5)));
    assert_eq!(shown(3).0, "abns@d");
}

#[test]
fn tune_maxaccept_as_haproxy_has_it() {
    let most = |words: &str| plan(&format!("global\n{words}\n")).global.maxaccept;
    assert_eq!(most(""), None);
    assert_eq!(most("tune.maxaccept 7"), Some(7));
    assert_eq!(most("tune.maxaccept -1"), Some(u32::MAX));
    assert_eq!(most("tune.maxaccept 7\ntune.maxaccept 0"), None);
}

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
        (plain.keepalive, plain.tcplog, plain.dontlognull),
        (None, false, false)
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
        (set.keepalive, set.tcplog, set.dontlognull),
        (Some(keepalive), true, true)
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
        assert!(set.tcplog, "{option}");
    }
    let (unset, _) = front("bind :80\noption httplog\nno option httplog\n");
    assert!(!unset.tcplog);
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
        Balance::Source(HashType::MapBased)
    );
    let consistent = back("hash-type consistent sdbm\nbalance source").balance;
    assert_eq!(consistent, Balance::Source(HashType::Consistent));
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

/// The made-up world with a command line.
struct Told(World, config::Options);

impl Resolver for Told {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        self.0.resolve(host)
    }
}

impl Environment for Told {
    fn options(&self) -> config::Options {
        self.1
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.0.variable(name)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.read(path)
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        self.0.user_id(name)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.0.group_id(name)
    }

    fn local_addresses(&self) -> &[IpAddr] {
        self.0.local_addresses()
    }
}

#[test]
fn resolution_failures_can_be_ignored_where_no_init_addr_says_otherwise() {
    let options = config::Options {
        ignore_resolution_failures: true,
        ..config::Options::default()
    };
    let world = Told(World::new(), options);
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
fn the_bound_of_a_check() {
    let bound = |lines: &str| {
        let back = back(&format!("{lines}\nserver a 1.1.1.1:80 check inter 2s"));
        back.servers[0].check.clone().unwrap().timeout_ms
    };
    assert_eq!(bound(""), 2_000);
    assert_eq!(bound("timeout connect 1s"), 1_000);
    assert_eq!(bound("timeout connect 5s"), 2_000);
    assert_eq!(bound("timeout connect 1s\ntimeout check 4s"), 4_000);
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
    assert_eq!(second.address.to_string(), "127.0.0.1:99");
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
fn words() {
    let tag = |word: &str| plan(&format!("global\nlog-tag {word}\n")).global.log_tag;
    let table = [
        (r"plain", "plain"),
        (r"'single $PORT \n'", r"single $PORT \n"),
        (r#"a"b c"d'e f'"#, "ab cde f"),
        (r#""$PORT""#, "8080"),
        (r#""${PORT}x""#, "8080x"),
        (r#""${UNSET-de fault}""#, "de fault"),
        (r#""${PORT-default}""#, "8080"),
        (r#"x"$UNSET""#, "x"),
        (r"$PORT", "$PORT"),
        (r#""\$PORT""#, "$PORT"),
        (r"\$PORT", r"\$PORT"),
        (r"a\ b\\c\#d\'e\x41", r"a b\c#d'eA"),
        (r"a\tb", "a\tb"),
        (r"\q\1", r"\q\1"),
        (r"end\", r"end\"),
        (r"a#b", "a"),
        ("tag\r", "tag"),
        ("\ttag \t ", "tag"),
    ];
    for (word, expected) in table {
        assert_eq!(tag(word), expected, "{word}");
    }
    let server = back(r#"server a 1.1.1.1:80 "${LIST[*]}" weight 3"#).servers[0].clone();
    assert_eq!(
        (server.check.clone().unwrap().inter_ms, server.weight),
        (3_000, 3)
    );
}

#[test]
fn bytes_that_are_no_text() {
    let messages = |bytes: &[u8]| printed(&config::load_text("t.cfg", bytes, &World::new()).1);
    let first = |bytes: &[u8]| {
        let end = "[ALERT]    Error(s) found";
        let text = messages(bytes);
        text.split_once(end)
            .map(|(first, _)| first.trim_end().to_owned())
    };
    let cases: &[(&[u8], &str)] = &[
        (
            b"global\n maxconn 3",
            "Missing LF on last line, file might have been truncated at position 11.",
        ),
        (
            b"global\n max\0conn 3\n",
            "Stray NUL character at position 5.",
        ),
        (
            b"global\n log-tag a\rb\n",
            "Stray carriage return at position 11:\n  log-tag a?b\n           ^",
        ),
        (
            b"global\n log-tag \xff\n",
            "word at position 10 is not valid UTF-8.",
        ),
    ];
    for (bytes, expected) in cases {
        let line = 2;
        let expected = format!("[ALERT]    parsing [t.cfg:{line}]: {expected}");
        assert_eq!(first(bytes).as_deref(), Some(expected.as_str()));
    }
    assert_eq!(messages(b"global\r\n maxconn 3\r\n# \xff\r\n\r\n"), "");
    let long = format!("global\n log-tag {}\n", "x".repeat(70_000));
    let expected = "[ALERT]    parsing [t.cfg:2]: line is longer than 65536 bytes.";
    assert_eq!(first(long.as_bytes()).as_deref(), Some(expected));
}

#[test]
fn files_are_read_as_one() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (first, second) = (directory.join("a.cfg"), directory.join("b.cfg"));
    std::fs::write(
        &first,
        "defaults\n timeout client 3s\nfrontend f\n default_backend b\n foo\n",
    )
    .unwrap();
    std::fs::write(&second, " bar\nbackend b\nlisten l\n bind :80\n baz\n").unwrap();
    let missing = directory.join("missing.cfg");
    let (plan, messages) = config::load(
        &[first.clone(), second.clone(), missing.clone()],
        &World::new(),
    );
    assert!(plan.is_none());
    let (first, second) = (first.display(), second.display());
    let expected = format!(
        "[ALERT]    parsing [{first}:5] : unknown keyword 'foo' in 'frontend' section\n\
         [ALERT]    parsing [{second}:1]: unknown keyword 'bar' out of section.\n\
         [ALERT]    parsing [{second}:5] : unknown keyword 'baz' in 'listen' section\n\
         [ALERT]    Could not open configuration file {} : No such file or directory (os error 2)\n\
         [ALERT]    Error(s) found in configuration file : {first}\n\
         [ALERT]    Error(s) found in configuration file : {second}\n\
         [ALERT]    Fatal errors found in configuration.\n",
        missing.display()
    );
    assert_eq!(printed(&messages), expected);
}

/// What one file says about variables and defaults holds in the next; its branches end with it.
#[test]
fn what_a_file_leaves_to_the_next() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (first, second) = (directory.join("c.cfg"), directory.join("d.cfg"));
    std::fs::write(&first, "global\n setenv NAME x\n.if 0\n").unwrap();
    std::fs::write(&second, ".notice \"$NAME\"\nglobal\n maxconn x\n").unwrap();
    let (_, messages) = config::load(&[first.clone(), second.clone()], &World::new());
    let (first, second) = (first.display(), second.display());
    let expected = format!(
        "[ALERT]    parsing [{first}:3]: non-terminated '.if' block.\n   \
         | The innermost begins at line 3.\n\
         [NOTICE]   parsing [{second}:1]: 'x'.\n\
         [ALERT]    parsing [{second}:3] : 'maxconn' expects an integer argument.\n\
         [ALERT]    Error(s) found in configuration file : {first}\n\
         [ALERT]    Error(s) found in configuration file : {second}\n\
         [ALERT]    Fatal errors found in configuration.\n"
    );
    assert_eq!(printed(&messages), expected);
}

#[test]
fn what_is_only_suspicious_is_said_on_request() {
    let text = ".diag \"look here\"\nlisten l\n disabled\n";
    assert_eq!(printed(&load(text).1), "");
    let mut world = World::new();
    world.options.diagnose = true;
    let (plan, messages) = config::load_text("t.cfg", text, &world);
    assert!(plan.is_some());
    assert_eq!(
        printed(&messages),
        "[DIAG]     parsing [t.cfg:1]: 'look here'.\n"
    );
}

#[test]
fn conditions_of_the_command_line() {
    let condition = |text: &str| config::condition(text, &World::new());
    for text in [
        "1",
        " 1 ",
        "defined(PORT)",
        "streq(\"$PORT\",8080)",
        "streq(a#b,a#b)",
        "!0",
    ] {
        assert_eq!(condition(text), Ok(true), "{text}");
    }
    for text in [
        "",
        "0",
        "defined(UNSET)",
        "feature(OPENSSL)",
        "version_before(3.0)",
    ] {
        assert_eq!(condition(text), Ok(false), "{text}");
    }
    for (text, expected) in [
        (
            " ",
            "Failed to evaluate condition at position 2: a number, a predicate, '!' or '(' \
               expected before the end\n  \n  ^",
        ),
        (
            "1 foo",
            "Failed to evaluate condition at position 3: unexpected 'foo'\n  1 foo\n    ^",
        ),
        (
            "streq(\"a",
            "Syntax error in condition: unmatched quote at position 7:\n  \
                      streq(\"a\n        ^",
        ),
        (
            "\"${PORT\"",
            "Syntax error in condition: unmatched brace in environment variable name \
                        at position 3:\n  \"${PORT\"\n    ^",
        ),
    ] {
        assert_eq!(condition(text).unwrap_err(), expected, "{text}");
    }
}

/// Nothing that nests goes deeper than its bound, and what is open doesn't end in more errors.
#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| ".if 1\n".repeat(depth) + &".endif\n".repeat(depth);
    assert_eq!(printed(&load(&nested(100)).1), "");
    let messages = printed(&load(&nested(101)).1);
    assert_eq!(
        messages.lines().next(),
        Some("[ALERT]    parsing [t.cfg:101]: too many nested '.if', at most 100 are allowed.")
    );
    assert_eq!(messages.lines().count(), 3);
    let nested = |depth: usize| "(".repeat(depth) + "1" + &")".repeat(depth);
    let condition = |text: &str| config::condition(text, &World::new());
    assert_eq!(condition(&nested(100)), Ok(true));
    assert!(
        condition(&nested(101))
            .unwrap_err()
            .contains("more than 100 nested parentheses")
    );
}

/// A file can't make itself longer than memory by variables that double.
#[test]
fn what_variables_bring_is_bounded() {
    let mut text = String::from("global\n setenv A 1234567890123456\n");
    text.push_str(&" setenv A \"$A$A\"\n".repeat(11));
    let unread = " foo\n";
    text.push_str(&" log-tag \"$A\"\n".repeat(1_000));
    text.push_str(unread);
    let (plan, messages) = load(&text);
    assert!(plan.is_none());
    let messages = printed(&messages);
    assert!(
        messages.contains("variables make the file longer by"),
        "{messages}"
    );
    assert!(!messages.contains("foo"));
}

#[test]
fn messages_have_haproxys_form() {
    let (_, messages) = load("global\n foo\n noepoll\n");
    let word = messages[0].word.clone().unwrap();
    assert_eq!((word.text.as_str(), word.column), ("foo", 1));
    let line =
        "[ALERT]    (42) : config : parsing [t.cfg:2] : unknown keyword 'foo' in 'global' section";
    assert_eq!(messages[0].format(42), line);
    assert!(
        messages[1]
            .format(42)
            .starts_with("[WARNING]  (42) : config : parsing [t.cfg:3] : ")
    );
}

/// A deployment's own file, as it stands: its DHT part is read and not started yet.
#[test]
fn the_privatus_file_loads_as_it_stands() {
    let text = include_str!("data/privatus.cfg");
    let (plan, messages) = load(text);
    let plan = plan.unwrap_or_else(|| panic!("{}", printed(&messages)));
    let not_started = |message: &&Diagnostic| message.text.contains("'mode udp'");
    assert_eq!(messages.iter().filter(not_started).count(), 2);
    let ports: Vec<&Endpoint> = plan
        .listeners
        .iter()
        .map(|listener| &listener.endpoint)
        .collect();
    assert_eq!(
        ports,
        [&Endpoint::Address(Address::Ip(([0, 0, 0, 0], 8080).into()))]
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
    let back = plan.proxies[2].back.as_ref().unwrap();
    assert_eq!(back.balance, Balance::LeastConn);
    let checks = back.servers.iter().map(|server| {
        let check = server.check.as_ref().unwrap();
        (check.inter_ms, check.fall, check.rise)
    });
    assert!(checks.eq([(10_000, 3, 2); 3]));
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

/// `conf/full.cfg` shows every keyword and every parameter that works. That it loads without a
/// warning is another test.
#[test]
fn full_config_has_every_keyword() {
    let text = include_str!("../conf/full.cfg");
    let lines = || text.lines().map(str::trim_start);
    let working = |standing: Standing| standing == Standing::Works;
    for keyword in keywords::keywords().filter(|keyword| working(keyword.standing())) {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
        let wanted = format!("{} ", keyword.name);
        let shown = lines().map(|line| line.trim_start_matches("no "));
        assert!(
            shown.map(words).any(|line| line.starts_with(&wanted)),
            "{}",
            keyword.name
        );
        assert!(!keyword.help.is_empty());
        assert_eq!(
            keyword.args_max == 0,
            keyword.syntax.is_empty(),
            "{}",
            keyword.name
        );
    }
    let has = |starts: &[&str], name: &str| {
        let mut wanted = lines().map(|line| line.trim_start_matches("# "));
        wanted.any(|line| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(|word| starts.contains(&word))
                && words.any(|word| word == name)
        })
    };
    for parameter in keywords::bind_parameters().filter(|p| working(p.standing)) {
        assert!(has(&["bind"], parameter.name), "bind {}", parameter.name);
    }
    for parameter in keywords::server_parameters().filter(|p| working(p.standing)) {
        assert!(
            has(&["server", "default-server"], parameter.name),
            "server {}",
            parameter.name
        );
    }
}

/// A config of one line that holds a keyword, in a section where it has a meaning.
fn config_with(keyword: &Keyword) -> String {
    let name = keyword.name.replace('*', "x");
    let section = match keyword.side {
        Side::Global | Side::Everywhere => "global",
        Side::Front => "frontend f",
        Side::Back | Side::Both => "backend b",
    };
    format!("{section}\n    {name} 1 2\n")
}

/// A config of one line that holds a keyword with an argument that isn't there yet.
fn config_with_argument(keyword: &Keyword, argument: &str) -> String {
    let args = match (keyword.name, argument) {
        ("hash-type", "avalanche") => "map-based sdbm avalanche".to_owned(),
        ("hash-type", function) => format!("map-based {function}"),
        ("source", usesrc) => format!("0.0.0.0 {usesrc} client"),
        ("log", target) if target.ends_with('@') => format!("{target}x local0"),
        ("log", parameter) => format!("stdout {parameter} 1:2 local0"),
        ("bind", prefix) => format!("{prefix}:1"),
        _ => argument.to_owned(),
    };
    format!("listen l\n    {} {args}\n", keyword.name)
}

/// What the table says of a word that doesn't work is what happens to it, and `help --missing`
/// lists exactly those that aren't there yet.
#[test]
fn words_that_do_nothing_say_so() {
    let mut missing = Vec::new();
    let mut check = |name: String, standing: Standing, text: &str| {
        let (_, messages) = load(text);
        let severity = match standing {
            Standing::Works => return,
            Standing::NoEffect(_) | Standing::Later(_) => Severity::Warning,
            Standing::Needed | Standing::Never(_) => Severity::Alert,
        };
        let said = match standing {
            Standing::Works => return,
            Standing::NoEffect(reason) => format!("has no effect: {reason}."),
            Standing::Later("") => "not implemented in Tidegate yet and is left out.".to_owned(),
            Standing::Later(meaning) => format!("yet and is left out: {meaning}."),
            Standing::Needed => "is not implemented in Tidegate yet, and without".to_owned(),
            Standing::Never(reason) => format!(" : {reason}."),
        };
        let found = messages.iter().any(|message| {
            message.severity == severity
                && message.text.contains(&format!("{name}' "))
                && message.text.contains(&said)
        });
        assert!(found, "{text}{}", printed(&messages));
        if matches!(standing, Standing::Later(_) | Standing::Needed) {
            missing.push(name);
        }
    };
    for keyword in keywords::keywords() {
        let name = keyword.name.replace('*', "x");
        check(name, keyword.standing(), &config_with(keyword));
    }
    for parameter in keywords::bind_parameters() {
        let name = parameter.name.replace('*', "x");
        let text = format!("listen l\n bind :1 {name} 1 2\n");
        check(name, parameter.standing, &text);
    }
    for parameter in keywords::server_parameters() {
        let name = parameter.name.replace('*', "x");
        let text = format!("listen l\n server s 1.1.1.1:1 {name} 1 2\n");
        check(name, parameter.standing, &text);
    }
    for section in keywords::sections() {
        let text = format!("{} x\n", section.name);
        check(section.name.to_owned(), section.standing, &text);
    }
    for keyword in keywords::keywords() {
        for lacking in keyword.lacks {
            let text = config_with_argument(keyword, lacking);
            let (_, messages) = load(&text);
            let bare = lacking.trim_end_matches('@');
            let said = messages.iter().any(|message| {
                message.text.contains("is not implemented") && message.text.contains(bare)
            });
            assert!(said, "{text}{}", printed(&messages));
            missing.push(format!("{} {lacking}", keyword.name));
        }
    }
    let listed = reference::missing();
    let listed = listed.lines().map(|line| {
        let (_, word) = line.split_once(": ").expect("a place and a word");
        word.trim_end_matches(" (error)").replace('*', "x")
    });
    let mut listed: Vec<String> = listed.collect();
    listed.sort();
    missing.sort();
    assert_eq!(listed, missing);
}

/// No word of HAProxy's, of whichever version, is a typing error: `haproxy_keywords.txt` has a
/// place and a word per line.
#[test]
fn every_word_of_haproxys_is_known() {
    let data = include_str!("data/haproxy_keywords.txt");
    let mut unknown = Vec::new();
    for line in data.lines() {
        let (place, word) = line.split_once(' ').expect("a place and a word");
        let text = match place {
            "global" => format!("global\n {word} 1\n"),
            "proxy" => format!("listen l\n {word} 1\n"),
            "bind" => format!("listen l\n bind :1 {word} 1\n"),
            "server" => format!("listen l\n server s 1.1.1.1:1 {word} 1\n"),
            _ => panic!("{line}"),
        };
        let (_, messages) = load(&text);
        let about_it = |message: &Diagnostic| {
            let last = word.rsplit(' ').next().unwrap_or_default();
            ["keyword", "option"]
                .iter()
                .any(|kind| message.text.contains(&format!("unknown {kind} '{last}'")))
                || message.text.contains(&format!("(got '{last}')"))
        };
        if messages.iter().any(about_it) {
            unknown.push(line);
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// `docs/keywords.md` is the table. What it should be is left in the target directory.
#[test]
fn the_reference_page_is_the_table() {
    let page = reference::page();
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keywords.md");
    std::fs::write(&copy, &page).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keywords.md");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/keywords.md should be {}",
        copy.display()
    );
}

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Whatever the bytes, loading gives a plan or says why not, and never panics.
#[test]
fn no_input_panics() {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for text in [
        include_str!("../conf/full.cfg"),
        include_str!("data/messages.txt"),
    ] {
        lines.extend(text.lines().map(|line| line.as_bytes().to_vec()));
    }
    let special = b" \t\"'\\$#{}[]*-@:/,.0129\r\n\0\x80\xffxnk";
    for seed in 1..=400u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut bytes = Vec::new();
        if seed % 4 == 0 {
            let length = random.below(4_000);
            bytes.extend((0..length).map(|_| special[random.below(special.len())]));
        } else {
            for _ in 0..random.below(60) {
                let mut line = lines[random.below(lines.len())].clone();
                for _ in 0..random.below(4) {
                    let at = random.below(line.len() + 1);
                    match random.below(4) {
                        0 => line.insert(at, special[random.below(special.len())]),
                        1 if at < line.len() => drop(line.remove(at)),
                        2 => line.truncate(at),
                        _ => {
                            let word = lines[random.below(lines.len())].clone();
                            line.splice(at..at, word);
                        }
                    }
                }
                bytes.extend(line);
                bytes.push(b'\n');
            }
        }
        let (plan, messages) = config::load_text("t.cfg", &bytes, &World::new());
        assert_eq!(
            plan.is_some(),
            !messages.iter().any(Diagnostic::is_fatal),
            "seed {seed}"
        );
        assert!(messages.len() < 1_000, "seed {seed}");
    }
}

/// CPU time of this thread so far; other programs on the machine don't count.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(now)
}

/// A text of a number of lines.
type Long = fn(usize) -> String;

/// Files that are long in one way each.
#[rustfmt::skip]
const LONG: &[(&str, Long)] = &[
    ("sections", |n| lines(n, |i| format!("listen l{i}\n bind 127.0.0.1:{}\n", i % 60_000 + 1))),
    ("servers", |n| format!("backend b\n{}", lines(n, |i| format!("server s{i} 10.0.0.1:80 check\n")))),
    ("names taken twice", |n| lines(n, |_| "backend b\n server s 10.0.0.1:80\n".to_owned())),
    ("warnings", |n| format!("defaults\n{}", lines(n, |_| "option httpclose\n".to_owned()))),
    ("defaults", |n| lines(n, |i| format!("defaults d{i}\n timeout client {i}\n"))),
    ("defaults from defaults", |n| format!("defaults d0\n{}", lines(n, |i| format!("defaults d{} from d{i}\n log 127.0.0.1 local0\n", i + 1)))),
    ("inherited logs", |n| format!("defaults\n{}{}", lines(n / 2, |_| "log 127.0.0.1 local0\n".to_owned()), lines(n / 2, |i| format!("backend b{i}\n")))),
    ("globals' logs", |n| format!("global\n{}defaults\nlog global\n{}", lines(n / 2, |_| "log 127.0.0.1 local0\n".to_owned()), lines(n / 2, |i| format!("backend b{i}\n")))),
    ("ports", |n| format!("frontend f\n{}", lines(n, |_| "bind :1-4096\n".to_owned()))),
    ("addresses", |n| format!("frontend f\n{}", lines(n, |i| format!("bind 10.{}.{}.{}:80\n", i / 65_536, i / 256 % 256, i % 256)))),
    ("variables", |n| format!("global\n{}", lines(n, |_| "log-tag \"$PORT$PORT$PORT${LIST}\"\n".to_owned()))),
    ("default servers", |n| format!("backend b\n{}", lines(n, |_| "default-server check inter 3s\n".to_owned()))),
    ("blank", |n| "\n".repeat(n)),
    ("comments", |n| lines(n, |_| "# \"'$\n".to_owned())),
    ("branches", |n| lines(n, |_| ".if 1\n.if streq(a,b)\nx\n.elif 1\n.else\n.endif\n.endif\n".to_owned())),
    ("conditions", |n| format!(".if 1{}\n.endif\n", lines(n, |_| "&&1".to_owned()))),
    ("arguments", |n| format!(".if defined({}\n.endif\n", lines(n, |_| "'\"a\",'".to_owned()))),
    ("setenv", |n| format!("global\n{}", lines(n, |i| format!("setenv V{i} \"$PORT\"\nunsetenv V{}\n", i / 2)))),
    ("doubled variables", |n| format!("global\nsetenv A a\n{}", lines(n, |_| "setenv A \"$A$A\"\n".to_owned()))),
    ("messages", |n| lines(n, |_| ".notice a\n".to_owned())),
    ("skipped sections", |n| lines(n, |_| "peers p\npeer a 127.0.0.1:80\n".to_owned())),
    ("defaults of one name", |n| lines(n, |i| format!("defaults d\nlisten l{i} from d\n"))),
    ("ids of sockets", |n| format!("frontend f\n{}", lines(n, |i| format!("bind abns@{i} id {}\n", i + 1)))),
    ("interfaces", |n| format!("frontend f\n{}", lines(n, |i| format!("bind :1 interface i{i}\n")))),
    ("sets", |n| format!("global\ncpu-map 1/{} 0-{}\n", "1-,".repeat(n) + "1", ",0-".repeat(n))),
    ("proxies that pass connections on", |n| lines(n, |i| format!("listen l{i}\n bind abns@{i}\n server s abns@{}\n", i + 1))),
    ("proxies that pass connections round", |n| lines(n, |i| format!("listen l{i}\n bind abns@{i}\n server s abns@{}\n", (i + 1) % n))),
    ("ids", |n| lines(n, |i| format!("backend b{i}\n id {}\n", i + 1))),
];

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

/// Eight times the lines take about eight times the time; a loop within a loop over them would
/// take sixty-four times. The time is the thread's own, so a busy machine doesn't disturb it.
#[test]
fn time_is_linear_in_the_length() {
    for (name, text) in LONG {
        let time = |count: usize| {
            let text = text(count);
            let begun = cpu_time();
            let (plan, messages) = load(&text);
            assert!(plan.is_some() || !messages.is_empty());
            cpu_time() - begun
        };
        // Long enough to be measured: at least 5 ms, unless the reading stops early.
        let mut count = 500;
        let mut short = time(count);
        while short < Duration::from_millis(5) && count < 64_000 {
            count *= 2;
            short = time(count);
        }
        let short = short.max(Duration::from_millis(5));
        // The better of two, for what the allocator and the caches do once.
        let long = time(count * 8).min(time(count * 8));
        assert!(
            long < short * 8 * 4,
            "{name}: {count} lines {short:?}, 8 times {long:?}"
        );
    }
}
