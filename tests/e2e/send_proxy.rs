//! `send-proxy`: the first thing a server gets is a header that says who the client is.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::programs::{Service, programs};
use crate::support::announcement::{AUTHORITY, CRC32C, ProxyHeader, TLS, UNIQUE_ID, read_header};
use crate::support::balancer::{TempDir, skip};
use crate::support::client::{
    self, End, connect, connect_port, local, read_bytes, read_end, try_connect, write,
};
use crate::support::port::free_port;
use crate::support::proxy_header::{checked, field, text};
use crate::support::server::{self, PATIENCE};
use crate::support::{Balancer, MockServer, eventually, sys, turn};

/// The forms of the header, by the words that ask for them.
const FORMS: [&str; 3] = [
    "send-proxy",
    "send-proxy-v2",
    "send-proxy-v2 proxy-v2-options crc32c",
];

/// A balancer on all kinds of addresses, before one server.
struct Setup {
    balancer: Balancer,
    port: u16,
    dir: TempDir,
}

impl Setup {
    fn new(server: &MockServer, words: &str) -> Setup {
        Setup::with(&format!("    server s {} {words}", server.address()))
    }

    fn with(lines: &str) -> Setup {
        let (port, dir) = (free_port(), TempDir::new());
        let path = dir.path().join("front");
        let balancer = Balancer::start(format!(
            "listen l\n    bind 127.0.0.1:{port},[::1]:{port}\n    bind unix@{} mode 666\n\
             {lines}\n",
            path.display()
        ));
        Setup {
            balancer,
            port,
            dir,
        }
    }

    fn unix(&self) -> UnixStream {
        let client = UnixStream::connect(self.dir.path().join("front")).expect("connect");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }
}

fn header(stream: &TcpStream) -> ProxyHeader {
    read_header(stream).expect("a header")
}

/// The header of a connection that a client has made, which must be about that client.
fn about(client: &TcpStream, header: &ProxyHeader) {
    let expected = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    assert_eq!(header.addresses, Some(expected));
}

#[test]
fn a_server_learns_the_addresses_of_clients() {
    let _turn = turn::shared();
    for (words, version) in FORMS.into_iter().zip([1, 2, 2]) {
        let server = MockServer::hold();
        let setup = Setup::new(&server, words);
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, setup.port));
        for address in [local(setup.port), v6] {
            let client = connect(address);
            write(&client, b"after it");
            let stream = server.next();
            let header = header(&stream);
            about(&client, &header);
            assert_eq!(header.version, version);
            assert_eq!(header.field(CRC32C).is_some(), words.ends_with("crc32c"));
            assert_eq!(read_bytes(&stream, 8), b"after it");
        }
        let mut client = setup.unix();
        client.write_all(b"after it").unwrap();
        let stream = server.next();
        let header = header(&stream);
        assert_eq!((header.version, header.addresses), (version, None));
        assert_eq!(read_bytes(&stream, 8), b"after it");
        drop((client, stream));
        setup.balancer.settle();
    }
}

/// On one listener for both families a client of IPv4 is one of IPv4.
#[test]
fn mapped_addresses_are_said_as_what_they_are() {
    if skip("HAProxy says them as IPv6") {
        return;
    }
    let _turn = turn::shared();
    let (server, port) = (MockServer::hold(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind :::{port} v4v6\n    server s {} send-proxy\n",
        server.address()
    ));
    let client = connect_port(port);
    about(&client, &header(&server.next()));
    drop(client);
    balancer.settle();
}

/// The client has sent nothing: the header waits for nobody.
#[test]
fn the_header_comes_although_the_client_is_silent() {
    let _turn = turn::shared();
    for words in FORMS {
        let server = MockServer::hold();
        let setup = Setup::new(&server, words);
        let client = connect_port(setup.port);
        let mut stream = server.next();
        about(&client, &header(&stream));
        // A server that speaks first.
        stream.write_all(b"220 ready").unwrap();
        assert_eq!(read_bytes(&client, 9), b"220 ready");
        write(&client, b"QUIT");
        assert_eq!(read_bytes(&stream, 4), b"QUIT");
        drop((client, stream));
        setup.balancer.settle();
    }
}

/// What a client has sent before it closed follows the header, and so does its end.
#[test]
fn a_client_that_closes_at_once_has_its_header() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    let setup = Setup::new(&server, "send-proxy-v2");
    for _ in 0..20 {
        let client = connect_port(setup.port);
        write(&client, b"all of it");
        client.shutdown(Shutdown::Write).unwrap();
        let stream = server.next();
        about(&client, &header(&stream));
        assert_eq!(read_end(&stream), (b"all of it".to_vec(), End::Fin));
    }
    setup.balancer.settle();
}

#[test]
fn large_streams_follow_the_header_and_are_counted_without_it() {
    let _turn = turn::shared();
    for words in FORMS {
        let server = MockServer::start(|stream| {
            if read_header(&stream).is_ok() {
                server::exchange(stream);
            }
        });
        let setup = Setup::new(&server, words);
        let (up, down) = (9 << 20, 7 << 20);
        for seed in 0..4 {
            client::exchange(local(setup.port), up, down, seed).unwrap();
        }
        setup.balancer.settle();
        let stat = setup.balancer.stat();
        for part in ["FRONTEND", "BACKEND", "s"] {
            // A head of three numbers and a verdict of one byte.
            assert_eq!(stat.number("l", part, "bin"), 4 * (up + 24), "{part}");
            assert_eq!(stat.number("l", part, "bout"), 4 * (down + 1), "{part}");
        }
    }
}

/// A connection that fails costs no header: the next server gets it, whole and alone.
#[test]
fn another_server_gets_the_header_too() {
    let _turn = turn::shared();
    for words in FORMS {
        let server = MockServer::hold();
        let dead = free_port();
        let setup = Setup::with(&format!(
            "    option redispatch 1\n    balance roundrobin\n    \
             server dead 127.0.0.1:{dead} {words}\n    server s {} {words}",
            server.address()
        ));
        for _ in 0..4 {
            let client = connect_port(setup.port);
            write(&client, b"once");
            let stream = server.next();
            about(&client, &header(&stream));
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_end(&stream), (b"once".to_vec(), End::Fin));
        }
        let stat = setup.balancer.stat();
        assert!(stat.number("l", "dead", "wredis") > 0, "it was never tried");
        setup.balancer.settle();
    }
}

/// Bytes that wait for the connection share a segment with the header.
#[test]
fn a_header_costs_no_segment_of_its_own() {
    if skip("HAProxy sends the header by itself") {
        return;
    }
    let _turn = turn::shared();
    let mut server = MockServer::hold();
    server.stop();
    let setup = Setup::new(&server, "send-proxy-v2");
    let client = connect_port(setup.port);
    write(&client, b"has waited");
    eventually("an attempt has failed", || {
        setup.balancer.stat().number("l", "s", "wretr") > 0
    });
    server.restart();
    let stream = server.next();
    about(&client, &header(&stream));
    assert_eq!(read_bytes(&stream, 10), b"has waited");
    assert_eq!(sys::data_segments_received(&stream).unwrap(), 1);
    drop((client, stream));
    setup.balancer.settle();
}

/// A client that has sent something and reset its connection before anybody asked who it is: its
/// bytes must not look like the balancer's own.
#[test]
fn a_client_that_is_gone_does_not_pass_for_the_balancer() {
    let _turn = turn::shared();
    let (tell, told) = std::sync::mpsc::channel();
    let server = MockServer::start(move |stream| {
        if let Ok(header) = read_header(&stream) {
            let _ = tell.send(header.addresses);
        }
    });
    let setup = Setup::new(&server, "send-proxy-v2");
    // Nobody looks at them before they are gone.
    setup.balancer.signal(Signal::SIGSTOP);
    for _ in 0..20 {
        let client = connect_port(setup.port);
        write(&client, b"unlike a check");
        client::reset(client);
    }
    setup.balancer.signal(Signal::SIGCONT);
    eventually("all were taken", || {
        setup.balancer.stat().number("l", "FRONTEND", "stot") == 20
    });
    setup.balancer.settle();
    drop(server);
    assert_eq!(told.try_iter().filter(Option::is_none).count(), 0);
}

/// Servers that reset what they accept: attempts that fail, never a client's byte without a
/// header.
#[test]
fn servers_that_reset_get_no_bytes_without_a_header() {
    let _turn = turn::shared();
    let resetting = MockServer::resetting();
    let server = MockServer::start(|stream| {
        if read_header(&stream).is_ok() {
            server::echo(stream);
        }
    });
    let setup = Setup::with(&format!(
        "    option redispatch 1\n    server r {} send-proxy-v2\n    server s {} send-proxy-v2",
        resetting.address(),
        server.address()
    ));
    let mut served = 0;
    for _ in 0..100 {
        // The reset may come before the client's connect has returned.
        let Ok(client) = try_connect(local(setup.port)) else {
            continue;
        };
        let _ = (&client).write_all(b"hello");
        let mut answer = [0; 5];
        if (&client).read_exact(&mut answer).is_ok() {
            assert_eq!(&answer, b"hello");
            served += 1;
        }
    }
    assert!(served >= 50, "{served}");
    setup.balancer.settle();
}

#[test]
fn every_connection_has_an_id_of_its_own() {
    if skip("HAProxy's comes from 'unique-id-format'") {
        return;
    }
    let _turn = turn::shared();
    let server = MockServer::hold();
    let words = "send-proxy-v2 proxy-v2-options unique-id,crc32c,authority";
    let setup = Setup::new(&server, words);
    let count = 1_000;
    let mut ids = BTreeSet::new();
    for _ in 0..count {
        let client = connect_port(setup.port);
        let header = header(&server.next());
        about(&client, &header);
        assert_eq!(header.field(AUTHORITY), None, "nobody has named a host");
        let id = header.field(UNIQUE_ID).expect("an id").to_vec();
        assert!((1..=128).contains(&id.len()), "{id:?}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), count);
    setup.balancer.settle();
}

/// Two balancers in a row: the second believes the first, and what the client's own header said
/// arrives at the end, addresses and fields.
#[test]
fn what_a_client_came_with_goes_through_a_chain() {
    if skip("HAProxy passes on addresses only") {
        return;
    }
    let _turn = turn::shared();
    let (server, second_port) = (MockServer::hold(), free_port());
    let words = "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority";
    let second = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{second_port} accept-proxy\n    server s {} {words}\n",
        server.address()
    ));
    let first_port = free_port();
    let first = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{first_port} accept-proxy\n    \
         server s 127.0.0.1:{second_port} {words}\n"
    ));
    let source: SocketAddr = "192.0.2.1:4711".parse().unwrap();
    let mut ids = BTreeSet::new();
    for own_id in [&b"the client's"[..], b""] {
        let mut fields = field(AUTHORITY, b"host.example");
        if !own_id.is_empty() {
            fields.extend(field(UNIQUE_ID, own_id));
        }
        let client = connect_port(first_port);
        write(&client, &checked("192.0.2.1:4711", &fields, 0));
        write(&client, b"through both");
        let stream = server.next();
        let header = header(&stream);
        assert_eq!(header.source(), source);
        assert_eq!(header.field(AUTHORITY), Some(&b"host.example"[..]));
        let id = header.field(UNIQUE_ID).expect("an id").to_vec();
        // Its own where it has one, otherwise the first balancer's.
        assert!(own_id.is_empty() || id == own_id, "{id:?}");
        ids.insert(id);
        assert_eq!(read_bytes(&stream, 12), b"through both");
    }
    assert_eq!(ids.len(), 2);
    for seed in 0..3 {
        let client = connect_port(first_port);
        write(&client, &text("192.0.2.1:4711"));
        let served = server.next();
        assert_eq!(header(&served).source(), source);
        let behind = std::thread::spawn(move || server::exchange(served));
        client::exchange_on(client, 3 << 20, 2 << 20, seed).unwrap();
        behind.join().unwrap();
    }
    first.settle();
    second.settle();
}

#[test]
fn options_that_speak_of_tls_say_that_there_is_none() {
    let _turn = turn::shared();
    for words in [
        "send-proxy-v2-ssl",
        "send-proxy-v2-ssl-cn",
        "send-proxy-v2 proxy-v2-options cert-cn",
    ] {
        let server = MockServer::hold();
        let setup = Setup::new(&server, words);
        let client = connect_port(setup.port);
        let header = header(&server.next());
        about(&client, &header);
        assert_eq!(header.field(TLS), Some(&[0; 5][..]), "{words}");
        drop(client);
        setup.balancer.settle();
    }
}

/// What the checks of a server begin with: nothing, or a header of their own.
#[test]
fn checks_begin_with_a_header_where_servers_expect_one() {
    let _turn = turn::shared();
    let (one, two, none) = (Some(1), Some(2), None);
    for (words, expected) in [
        ("", none),
        ("send-proxy", one),
        ("send-proxy-v2", two),
        ("check-send-proxy", one),
        ("check-send-proxy send-proxy-v2 port PORT", two),
        ("send-proxy port PORT", none),
        ("send-proxy addr 127.0.0.1", none),
    ] {
        let server = MockServer::hold();
        let words = words.replace("PORT", &server.address().port().to_string());
        let line = format!("    server s {} check inter 100 {words}", server.address());
        // A check without a header is reset before anybody can take it, or just after.
        let setup = Setup::with(&line);
        if expected.is_some() {
            let stream = server.next();
            let from = stream.peer_addr();
            let header = header(&stream);
            assert_eq!(Some(header.version), expected, "{words}");
            let own = from.ok().map(|from| (from, server.address()));
            match header.version {
                // Its own addresses, for which the first version has no other word.
                1 => assert!(own.is_none() || header.addresses == own, "{header:?}"),
                _ => assert_eq!(header.addresses, None, "{words}"),
            }
        }
        eventually("a check has passed", || {
            setup.balancer.stat().text("l", "s", "check_status") == "L4OK"
        });
        if expected.is_none() && server.accepted() > 0 {
            let (bytes, _) = read_end(&server.next());
            assert!(bytes.is_empty(), "{words}: {bytes:?}");
        }
        setup.balancer.settle();
    }
}

/// nginx reads both versions, and says back what it read.
#[test]
fn nginx_reads_the_header() {
    let _turn = turn::shared();
    let Some([nginx]) = programs(["nginx"]) else {
        return;
    };
    let (dir, port) = (TempDir::new(), free_port());
    let root = dir.path().display();
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let module = if module.exists() {
        format!("load_module {};", module.display())
    } else {
        String::new()
    };
    let config = dir.write(
        "nginx.conf",
        &format!(
            "{module} daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
             events {{ }}\nstream {{ server {{ listen 127.0.0.1:{port} proxy_protocol;\n\
             return \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr \
             $proxy_protocol_server_port\"; }} }}\n"
        ),
    );
    let mut command = Command::new(nginx);
    command.arg("-e").arg(dir.path().join("start"));
    command.arg("-c").arg(config);
    let _service = Service::start(&mut command, port, Signal::SIGTERM);
    for words in FORMS {
        let setup = Setup::with(&format!("    server s 127.0.0.1:{port} {words}"));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, setup.port));
        for address in [local(setup.port), v6] {
            let client = connect(address);
            let (answer, end) = read_end(&client);
            let [from, to] = [client.local_addr(), client.peer_addr()].map(Result::unwrap);
            let (from_ip, to_ip) = (from.ip(), to.ip());
            let expected = format!("{from_ip} {} {to_ip} {}", from.port(), to.port());
            assert_eq!(
                (String::from_utf8_lossy(&answer), end),
                (expected.into(), End::Fin)
            );
        }
        // Unknown to the first version, local to the second: nginx has no address then.
        let mut client = setup.unix();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.trim(), "", "{words}");
        drop(client);
        setup.balancer.settle();
    }
}

/// haproxy reads both versions, checksums included, and passes on what it read.
#[test]
fn haproxy_reads_the_header() {
    let _turn = turn::shared();
    let Some([haproxy]) = programs(["haproxy"]) else {
        return;
    };
    let (dir, port, server) = (TempDir::new(), free_port(), MockServer::hold());
    let config = dir.write(
        "haproxy.cfg",
        &format!(
            "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    \
             timeout server 30s\nlisten l\n    bind 127.0.0.1:{port} accept-proxy\n    \
             server s {} send-proxy-v2\n",
            server.address()
        ),
    );
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(config);
    let _service = Service::start(&mut command, port, Signal::SIGTERM);
    for words in FORMS {
        let setup = Setup::with(&format!("    server s 127.0.0.1:{port} {words}"));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, setup.port));
        for address in [local(setup.port), v6] {
            let client = connect(address);
            write(&client, b"through both");
            let stream = server.next();
            about(&client, &header(&stream));
            assert_eq!(read_bytes(&stream, 12), b"through both");
        }
        let mut client = setup.unix();
        client.write_all(b"through both").unwrap();
        let stream = server.next();
        let header = header(&stream);
        // Whom it takes for the source then is the balancer.
        assert!(
            header
                .addresses
                .is_none_or(|(from, _)| from.ip() == local(1).ip())
        );
        assert_eq!(read_bytes(&stream, 12), b"through both");
        drop((client, stream));
        setup.balancer.settle();
    }
}
