//! What the words of `mode udp` make of a plan: each value that may be set, and what is there
//! where nothing is.

use tidegate::config::plan::{
    Back, Balance, Fetch, HashKey, HashKind, QuicLb, UdpBack, UdpFront, UdpHeader, UdpSockets,
};

use crate::world::{back, front, plan};

fn front_of(lines: &str) -> UdpFront {
    let (front, _) = front(&format!("mode udp\nbind :53\n{lines}"));
    front.udp.expect("mode udp")
}

fn back_of(lines: &str) -> (Back, UdpBack) {
    let back = back(&format!("mode udp\n{lines}"));
    let udp = back.udp.expect("mode udp");
    (back, udp)
}

#[test]
fn what_is_not_set() {
    let nothing = UdpFront {
        idle_ms: 0,
        unconfirmed_ms: UdpFront::UNCONFIRMED_DEFAULT_MS,
        requests_max: None,
        responses_max: None,
        source_flows_max: 0,
        log: false,
        fragment: true,
        header: UdpHeader::First,
    };
    assert_eq!(front_of(""), nothing);
    let (back, udp) = back_of("server s 10.0.0.1:53");
    let nothing = UdpBack {
        idle_ms: 0,
        sockets: UdpSockets::Pool,
        mapping_ms: None,
        fragment: true,
        header: UdpHeader::First,
    };
    assert_eq!((udp, back.quic_lb), (nothing, None));
    let (tcp, plan) = front("bind :53");
    assert_eq!(tcp.udp, None);
    assert_eq!(plan.proxies[0].back.as_ref().unwrap().udp, None);
    assert_eq!(plan.global.udp_rcvbuf, 4 << 20);
    let of_machine = (plan.global.udp_flows_max, plan.global.udp_sockets_max);
    assert_eq!(of_machine, (None, None));
}

#[test]
fn each_value_of_a_front() {
    let set = front_of(
        "timeout udp 7s\ntimeout udp-unconfirmed 300\nudp-requests 3\nudp-responses 0\n\
         udp-source-flows 9\noption udplog\nudp-fragment off\nudp-proxy-header every",
    );
    let expected = UdpFront {
        idle_ms: 7_000,
        unconfirmed_ms: 300,
        requests_max: Some(3),
        responses_max: Some(0),
        source_flows_max: 9,
        log: true,
        fragment: false,
        header: UdpHeader::Every,
    };
    assert_eq!(set, expected);
    assert_eq!(front_of("udp-responses 2").responses_max, Some(2));
    assert_eq!(front_of("udp-proxy-header first").header, UdpHeader::First);
}

#[test]
fn each_value_of_a_back() {
    let (_, set) = back_of(
        "timeout udp 7s\nudp-sockets dedicated\nudp-fragment off\nudp-proxy-header every\n\
         server s 10.0.0.1:53",
    );
    let expected = UdpBack {
        idle_ms: 7_000,
        sockets: UdpSockets::Dedicated,
        mapping_ms: None,
        fragment: false,
        header: UdpHeader::Every,
    };
    assert_eq!(set, expected);
    let mapping = |lines: &str| back_of(lines).1.mapping_ms;
    let five_minutes = Some(UdpBack::MAPPING_DEFAULT_MS);
    assert_eq!(mapping("option udp-bidirectional"), five_minutes);
    let lines = "option udp-bidirectional\ntimeout udp-mapping 2m";
    assert_eq!(mapping(lines), Some(120_000));
    assert_eq!(mapping("timeout udp-mapping 2m"), None);
    // A socket of its own ends with its flow.
    let lines = "option udp-bidirectional\nudp-sockets dedicated";
    assert_eq!(mapping(lines), None);
}

#[test]
fn idle_times_are_those_of_streams_where_there_are_none_of_their_own() {
    let idle = |lines: &str| {
        let text = format!("listen l\nmode udp\nbind :53\n{lines}\n");
        let plan = plan(&text);
        let proxy = &plan.proxies[0];
        let front = proxy.front.as_ref().unwrap().udp.unwrap();
        let back = proxy.back.as_ref().unwrap().udp.unwrap();
        [front.idle_ms, back.idle_ms]
    };
    let streams = "timeout client 30s\ntimeout server 20s";
    assert_eq!(idle(streams), [30_000, 20_000]);
    assert_eq!(idle(&format!("{streams}\ntimeout udp 5s")), [5_000; 2]);
    assert_eq!(idle("timeout client 30s"), [30_000, 0]);
}

#[test]
fn what_defaults_say_is_inherited_and_may_be_changed() {
    let plan = plan(
        "defaults\nmode udp\ntimeout udp 9s\nudp-requests 1\nudp-sockets dedicated\n\
         option udp-bidirectional\noption udplog\n\
         listen a\nbind :53\nudp-sockets pool\n\
         listen b\nbind :54\nno option udplog\nno option udp-bidirectional\ntimeout udp 1s\n",
    );
    let of = |index: usize| {
        let proxy = &plan.proxies[index];
        let front = proxy.front.as_ref().unwrap().udp.unwrap();
        (front, proxy.back.as_ref().unwrap().udp.unwrap())
    };
    let ((front_a, back_a), (front_b, back_b)) = (of(0), of(1));
    assert_eq!((front_a.idle_ms, front_b.idle_ms), (9_000, 1_000));
    assert_eq!((front_a.log, front_b.log), (true, false));
    assert_eq!(
        (front_a.requests_max, front_b.requests_max),
        (Some(1), Some(1))
    );
    assert_eq!(back_a.sockets, UdpSockets::Pool);
    assert_eq!(back_b.sockets, UdpSockets::Dedicated);
    assert_eq!(back_a.mapping_ms, Some(UdpBack::MAPPING_DEFAULT_MS));
    assert_eq!(back_b.mapping_ms, None);
}

#[test]
fn keys_of_datagrams() {
    let fetch = |line: &str| {
        let (back, _) = back_of(&format!("{line}\nserver s 10.0.0.1:53"));
        match back.balance.hash().map(|hash| hash.key) {
            Some(HashKey::Expression(expression)) => expression.fetch,
            other => panic!("{line}: {other:?}"),
        }
    };
    let payload = |offset, length| Fetch::UdpPayload { offset, length };
    let cid = |length| Fetch::QuicCid { length };
    for (line, expected) in [
        ("balance hash src+port", Fetch::SourceAndPort),
        ("balance hash dst_port", Fetch::DestinationPort),
        ("balance hash udp.payload(4,16)", payload(4, 16)),
        ("balance hash udp.payload(4)", payload(4, 0)),
        ("balance hash udp.payload(4,0)", payload(4, 0)),
        ("balance hash udp.dht_target", Fetch::DhtTarget),
        ("balance hash udp.quic_cid", cid(Fetch::CID_LENGTH_DEFAULT)),
        ("quic-cid-length 20\nbalance hash udp.quic_cid", cid(20)),
        ("balance hash udp.quic_cid\nquic-cid-length 1", cid(1)),
    ] {
        assert_eq!(fetch(line), expected, "{line}");
    }
    let (back, _) = back_of("balance source\nhash-type maglev\nserver s 10.0.0.1:53");
    assert_eq!(back.balance, Balance::source(HashKind::Maglev));
}

/// QUIC looks for the path's MTU by datagrams that must not arrive.
#[test]
fn where_quic_chooses_nothing_is_fragmented_unless_told() {
    let fragments = |lines: &str| {
        let text = format!(
            "frontend f\nmode udp\nbind :443\ndefault_backend b\n\
             backend b\nmode udp\n{lines}\n"
        );
        let plan = plan(&text);
        let front = plan.proxies[0].front.as_ref().unwrap().udp.unwrap();
        let back = plan.proxies[1].back.as_ref().unwrap().udp.unwrap();
        [front.fragment, back.fragment]
    };
    let server = "server s 10.0.0.1:443 quic-id 0a0b";
    assert_eq!(fragments("balance roundrobin"), [true; 2]);
    assert_eq!(fragments("balance hash udp.quic_cid"), [false; 2]);
    let named = format!("quic-lb 1,2\n{server}");
    assert_eq!(fragments(&named), [false; 2]);
    // Each side has its own say.
    assert_eq!(
        fragments(&format!("{named}\nudp-fragment on")),
        [false, true]
    );
    let (back, _) = back_of(&named);
    assert_eq!(
        back.quic_lb,
        Some(QuicLb {
            offset: 1,
            length: 2
        })
    );
    assert_eq!(back.servers[0].quic_id, [10, 11]);
}

#[test]
fn limits_of_the_process() {
    let plan = plan(
        "global\ntune.udp.maxflows 1000\ntune.udp.sockets 20\ntune.udp.rcvbuf 1m\n\
         listen l\nmode udp\nbind :53\n",
    );
    assert_eq!(plan.global.udp_flows_max, Some(1_000));
    assert_eq!(plan.global.udp_sockets_max, Some(20));
    assert_eq!(plan.global.udp_rcvbuf, 1 << 20);
}
