//! Servers whose address or port is the client's destination, servers made by a template, and
//! servers whose name doesn't resolve.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::balancer::{TempDir, is_tidegate, skip};
use crate::support::client::{ask_name, connect, connect_port, echo, read_end};
use crate::support::port::free_port;
use crate::support::server::echo as echo_back;
use crate::support::{Balancer, MockServer, Syslog, eventually, turn};

/// Another address of this machine than the listener's, so that both may have one port.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

#[test]
fn a_server_without_a_port_has_the_clients() {
    let _turn = turn::shared();
    let server = MockServer::start_on(ELSEWHERE, echo_back);
    let port = server.address().port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s 127.0.0.2\n"
    ));
    echo(&connect_port(port), b"same port");
    assert_eq!(server.accepted(), 1);
    balancer.settle();
}

#[test]
fn a_server_at_an_offset_has_the_clients_port_plus_it() {
    let _turn = turn::shared();
    let server = MockServer::start_on(ELSEWHERE, echo_back);
    let port = free_port();
    let offset = i32::from(server.address().port()) - i32::from(port);
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s 127.0.0.2:{offset:+}\n"
    ));
    echo(&connect_port(port), b"another port");
    assert_eq!(server.accepted(), 1);
    balancer.settle();
}

#[test]
fn a_server_without_an_address_has_the_clients_destination() {
    let _turn = turn::shared();
    for ip in [ELSEWHERE, IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let server = MockServer::start_on(ip, echo_back);
        let port = free_port();
        let any = if ip.is_ipv4() { "0.0.0.0" } else { "[::]" };
        let balancer = Balancer::start(format!(
            "listen l\n    bind {any}:{port}\n    server s *:{}\n",
            server.address().port()
        ));
        echo(&connect(SocketAddr::new(ip, port)), b"as intended");
        assert_eq!(server.accepted(), 1);
        balancer.settle();
    }
}

#[test]
fn an_offset_beyond_the_last_port_is_a_failure_with_a_name() {
    if skip("HAProxy's port wraps round") {
        return;
    }
    let _turn = turn::shared();
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    \
         server s 127.0.0.2:+65535\n",
        syslog.address()
    ));
    assert!(read_end(&connect_port(port)).0.is_empty());
    let line = syslog.take_session();
    assert_eq!(line.end, "SC");
    // At once: trying again would change nothing.
    assert!(line.total_ms() < 900, "{line:?}");
    assert_eq!(balancer.stat().number("l", "s", "econ"), 1);
    let activity = balancer.activity();
    assert_eq!(activity.number("destinations_missing"), Some(1));
    balancer.settle();
}

#[test]
fn a_unix_client_has_no_port_to_give() {
    if skip("HAProxy takes port 0") {
        return;
    }
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.path().join("socket");
    let balancer = Balancer::start(format!(
        "listen l\n    bind {}\n    server s 127.0.0.2\n",
        path.display()
    ));
    let mut client = UnixStream::connect(&path).unwrap();
    let patience = Some(Duration::from_secs(5));
    client.set_read_timeout(patience).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "closed");
    let activity = balancer.activity();
    assert_eq!(activity.number("destinations_missing"), Some(1));
    balancer.settle();
}

#[test]
fn a_server_without_a_port_is_checked_at_its_check_port() {
    let _turn = turn::shared();
    let mut checked = MockServer::silent();
    let server = MockServer::start_on(ELSEWHERE, echo_back);
    let port = server.address().port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    \
         server s 127.0.0.2 check inter 100ms fall 1 rise 1 addr 127.0.0.1 port {}\n",
        checked.address().port()
    ));
    let is = |column: &str, word: &str| balancer.stat().text("l", "s", column) == word;
    eventually("a first check", || is("check_status", "L4OK"));
    echo(&connect_port(port), b"up");
    checked.stop();
    eventually("down", || is("status", "DOWN"));
    assert!(read_end(&connect_port(port)).0.is_empty());
    balancer.settle();
}

#[test]
fn a_template_makes_servers_in_order() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    \
         server first {0} id 2 weight 7\n    server-template copy 3-5 {0} weight 7\n",
        server.address()
    ));
    for _ in 0..8 {
        echo(&connect_port(port), b"one of four");
    }
    let stat = balancer.stat();
    for (name, sid) in [("first", 2), ("copy3", 3), ("copy4", 4), ("copy5", 5)] {
        assert_eq!(stat.number("l", name, "sid"), sid, "{name}");
        assert!(stat.number("l", name, "stot") > 0, "{name} was not used");
    }
    assert_eq!(stat.number("l", "copy5", "weight"), 7);
    balancer.settle();
}

#[test]
fn a_name_that_does_not_resolve_may_wait_in_maintenance() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::named("other"), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n    \
         server lost no.such.invalid:80 init-addr libc,none check\n    server other {}\n",
        server.address()
    ));
    let never_used = || {
        for _ in 0..4 {
            assert_eq!(ask_name(([127, 0, 0, 1], port).into()).unwrap(), "other");
        }
        let stat = balancer.stat();
        assert_eq!(stat.text("l", "lost", "status"), "MAINT (resolution)");
        assert_eq!(stat.number("l", "lost", "lbtot"), 0);
    };
    never_used();
    if is_tidegate() {
        // An operator can't put it into service either: there is nothing to connect to.
        balancer.stats("set server l/lost state ready");
        never_used();
    }
    balancer.settle();
}

#[test]
fn a_name_that_does_not_resolve_falls_back_to_an_address() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    \
         server s no.such.invalid:{} init-addr libc,127.0.0.1\n",
        server.address().port()
    ));
    echo(&connect_port(port), b"fallback");
    balancer.settle();
}
