//! `bind` lines and what they make.

use tidegate::base::ids::ListenerId;
use tidegate::config::plan::Endpoint;

use crate::world::{front, plan};

fn endpoints(bind: &str) -> Vec<String> {
    let (_, plan) = front(&format!("bind {bind}"));
    let text = |endpoint: &Endpoint| match endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Descriptor(number) => format!("fd@{number}"),
        Endpoint::Datagram(address) => format!("udp@{address}"),
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
    assert_eq!(ids, [1, 3, 2, 5, 9, 1]);
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
