//! What can be listened on and connected to: IPv6, both families, Unix sockets, inherited
//! descriptors.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{self, connect, connect_port, local, try_connect};
use crate::support::port::{free_port, listeners_on};
use crate::support::server::listen;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, turn};

fn local_six(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, port))
}

#[test]
fn ipv6_to_ipv6() {
    let _turn = turn::shared();
    let port = free_port();
    let server = MockServer::start_on(IpAddr::V6(Ipv6Addr::LOCALHOST), |mut stream| {
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut stream);
    });
    let body = format!(
        "listen l\n    bind [::1]:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    let client = connect(local_six(port));
    client::echo(&client, b"six");
    drop(client);
    balancer.settle();
    assert_eq!(
        balancer.stat().text("l", "s", "addr"),
        server.address().to_string()
    );
}

#[test]
fn ipv6_to_ipv4() {
    let _turn = turn::shared();
    let (port, server) = (free_port(), MockServer::echo());
    let body = format!(
        "listen l\n    bind ::1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    client::echo(&connect(local_six(port)), b"six to four");
    balancer.settle();
}

#[test]
fn v6only_leaves_ipv4_alone() {
    let _turn = turn::shared();
    let (port, server) = (free_port(), MockServer::echo());
    let body = format!(
        "listen l\n    bind :::{port} v6only\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    client::echo(&connect(local_six(port)), b"six");
    assert!(
        try_connect(local(port)).is_err(),
        "IPv4 reaches a v6only listener"
    );
    balancer.settle();
}

#[test]
fn v4v6_takes_both() {
    let _turn = turn::shared();
    let (port, server) = (free_port(), MockServer::echo());
    let body = format!(
        "listen l\n    bind :::{port} v4v6\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    client::echo(&connect(local_six(port)), b"six");
    client::echo(&connect_port(port), b"four");
    balancer.settle();
}

#[test]
fn the_wildcard_takes_every_address() {
    let _turn = turn::shared();
    let (port, server) = (free_port(), MockServer::echo());
    let body = format!(
        "listen l\n    bind *:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    for last in 1..5 {
        client::echo(
            &connect(SocketAddr::from(([127, 0, 0, last], port))),
            b"any",
        );
    }
    balancer.settle();
}

#[test]
fn several_binds_and_a_port_range() {
    let _turn = turn::shared();
    let (one, two, server) = (free_port(), free_port(), MockServer::echo());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{one},127.0.0.2:{one}\n    bind 127.0.0.1:{two}\n    \
         server s {}\n",
        server.address()
    );
    let balancer = Balancer::start(body);
    for address in [
        local(one),
        SocketAddr::from(([127, 0, 0, 2], one)),
        local(two),
    ] {
        client::echo(&connect(address), b"here too");
    }
    balancer.settle();
    assert_eq!(balancer.stat().number("l", "FRONTEND", "stot"), 3);
}

#[test]
fn a_unix_listener_and_a_unix_server() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let (front, back) = (dir.path().join("front"), dir.path().join("back"));
    let listener = UnixListener::bind(&back).unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes.reverse();
            stream.write_all(&bytes).unwrap();
        }
    });
    let balancer = Balancer::start(format!(
        "listen l\n    bind unix@{} mode 666\n    server s unix@{}\n",
        front.display(),
        back.display()
    ));
    eventually("the path is there", || front.exists());
    assert_eq!(
        front.metadata().unwrap().permissions().mode() & 0o777,
        0o666
    );
    for _ in 0..3 {
        let mut client = UnixStream::connect(&front).unwrap();
        client.write_all(b"stressed").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "desserts");
    }
    server.join().unwrap();
    balancer.settle();
    assert_eq!(balancer.stat().number("l", "s", "stot"), 3);
}

#[test]
fn a_unix_path_is_a_server_for_tcp_clients() {
    let _turn = turn::shared();
    let (dir, port) = (TempDir::new(), free_port());
    let back = dir.path().join("back");
    let listener = UnixListener::bind(&back).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        back.display()
    ));
    client::echo(&connect_port(port), b"unix");
    server.join().unwrap();
    balancer.settle();
}

/// A supervisor opened the socket: nothing is bound, all shards accept from it.
#[test]
fn an_inherited_listener_is_used() {
    let _turn = turn::shared();
    let (port, server) = (free_port(), MockServer::echo());
    let listener: TcpListener = listen(local(port), 1_024);
    let body = format!(
        "listen l\n    bind fd@0\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body).stdin(listener.into()).start();
    for _ in 0..20 {
        client::echo(&connect_port(port), b"inherited");
    }
    balancer.settle();
    assert_eq!(balancer.stat().number("l", "FRONTEND", "stot"), 20);
}

#[test]
fn nbthread_says_how_many_shards() {
    let _turn = turn::shared();
    for shards in [1, 2, 4] {
        let (port, server) = (free_port(), MockServer::echo());
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
            server.address()
        );
        let balancer = Setup::new(body).shards(shards).start();
        assert!(
            balancer
                .stats("show info")
                .contains(&format!("\nNbthread: {shards}\n"))
        );
        for _ in 0..20 {
            client::echo(&connect_port(port), b"shard");
        }
        if is_tidegate() {
            // A reuseport member each, so that the kernel spreads connections.
            assert_eq!(listeners_on(port), usize::try_from(shards).unwrap());
        }
        balancer.settle();
    }
}

/// Keep-alive options are on the sockets, as `ss` sees them: `timer:(keepalive,...)`.
#[test]
fn keep_alive_is_set_on_both_sides() {
    let _turn = turn::shared();
    if Command::new("ss").arg("-V").output().is_err() {
        eprintln!("`ss` is not here: not tested");
        return;
    }
    let (port, server) = (free_port(), MockServer::hold());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    option tcpka\n    clitcpka-idle 77\n    \
         srvtcpka-idle 99\n    server s {}\n",
        server.address()
    ));
    let client = connect_port(port);
    let end = server.next();
    let timer = |filter: String| {
        let output = Command::new("ss")
            .args(["-Htno", "state", "established"])
            .arg(filter)
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    let client_side = timer(format!("( sport = :{port} )"));
    assert!(client_side.contains("keepalive,1min1"), "{client_side}");
    let server_side = timer(format!("( dport = :{} )", server.address().port()));
    assert!(server_side.contains("keepalive,1min3"), "{server_side}");
    drop((client, end));
    balancer.settle();
}
