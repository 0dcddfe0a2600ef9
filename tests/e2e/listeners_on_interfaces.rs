//! `interface`, `transparent` and `tfo`, with a client in another network namespace behind a pair
//! of veth devices.
//!
//! Each side is a thread in a namespace of its own, so nothing of the host's network changes and
//! all is gone when the threads end. That needs root and the `ip` program.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::mpsc::channel;

use nix::unistd::gettid;
use socket2::{Domain, Socket, Type};

use crate::support::client::{self, connect, local, try_connect};
use crate::support::networks::{ip, may_have_networks};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, sys, turn};

/// Runs `near` in a namespace of its own and gives it a way to have things done in another one:
/// 10.77.0.1 on `near0` is connected with 10.77.0.2 on `far0`.
fn in_two_networks(near: impl FnOnce(&dyn Fn(Box<dyn FnOnce() + Send>)) + Send) {
    if !may_have_networks() {
        return;
    }
    std::thread::scope(|scope| {
        let (tell, told) = channel::<Box<dyn FnOnce() + Send>>();
        let (done, wait) = channel();
        let (name, named) = channel();
        scope.spawn(move || {
            sys::leave_network().expect("a network namespace");
            name.send(gettid()).unwrap();
            while let Ok(work) = told.recv() {
                work();
                done.send(()).unwrap();
            }
        });
        scope.spawn(move || {
            sys::leave_network().expect("a network namespace");
            let far = named.recv().expect("the other thread's id");
            ip("link set lo up");
            ip("link add near0 type veth peer name far0");
            ip(&format!("link set far0 netns {far}"));
            ip("addr add 10.77.0.1/24 dev near0");
            ip("link set near0 up");
            let there = move |work: Box<dyn FnOnce() + Send>| {
                tell.send(work).unwrap();
                wait.recv().expect("the other side has failed");
            };
            there(Box::new(|| {
                ip("addr add 10.77.0.2/24 dev far0");
                ip("link set far0 up");
            }));
            near(&there);
        });
    });
}

fn listen(bind: &str, server: &MockServer) -> Balancer {
    let server = server.address();
    Balancer::start(format!(
        "listen l\n    bind {bind}\n    server s {server}\n"
    ))
}

#[test]
fn a_listener_on_an_interface_takes_only_what_comes_in_there() {
    let _turn = turn::shared();
    in_two_networks(|there| {
        let (server, port) = (MockServer::echo(), free_port());
        let balancer = listen(&format!("*:{port} interface near0"), &server);
        let address = SocketAddr::from(([10, 77, 0, 1], port));
        there(Box::new(move || {
            client::echo(&connect(address), b"from afar")
        }));
        assert!(
            try_connect(local(port)).is_err(),
            "the loopback is another interface"
        );
        balancer.settle();
    });
}

/// Two listeners have the same address and port on different interfaces.
#[test]
fn one_address_on_two_interfaces() {
    let _turn = turn::shared();
    in_two_networks(|there| {
        let port = free_port();
        let (far, near) = (MockServer::named("far"), MockServer::named("near"));
        let balancer = Balancer::start(format!(
            "listen a\n    bind *:{port} interface near0\n    server s {}\n\
             listen b\n    bind *:{port} interface lo\n    server s {}\n",
            far.address(),
            near.address()
        ));
        let address = SocketAddr::from(([10, 77, 0, 1], port));
        there(Box::new(move || {
            for _ in 0..20 {
                assert_eq!(client::ask_name(address).unwrap(), "far");
            }
        }));
        for _ in 0..20 {
            assert_eq!(client::ask_name(local(port)).unwrap(), "near");
        }
        balancer.settle();
    });
}

/// An address that the machine doesn't have can be bound, and serves who is routed there.
#[test]
fn a_transparent_listener_has_a_foreign_address() {
    let _turn = turn::shared();
    in_two_networks(|there| {
        let (server, port) = (MockServer::echo(), free_port());
        assert!(
            std::net::TcpListener::bind(("192.0.2.7", port)).is_err(),
            "the address is not ours"
        );
        let balancer = listen(&format!("192.0.2.7:{port} transparent"), &server);
        ip("route add local 192.0.2.7/32 dev lo");
        let address = SocketAddr::from(([192, 0, 2, 7], port));
        there(Box::new(move || {
            ip("route add 192.0.2.7/32 via 10.77.0.1");
            client::echo(&connect(address), b"to a foreign address");
        }));
        balancer.settle();
    });
}

/// A counter of the namespace of the calling thread.
fn tcp_counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("counters");
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut pairs = names.split(' ').zip(numbers.split(' '));
    let found = pairs.find(|(found, _)| *found == name);
    let (_, number) = found.unwrap_or_else(|| panic!("no counter {name}"));
    number.parse().expect("a number")
}

/// With `tfo` the data of a client that has a cookie is taken with its SYN, without it is not.
#[test]
fn fast_open_takes_data_with_the_syn() {
    let _turn = turn::shared();
    in_two_networks(|there| {
        let allow = || std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3");
        if let Err(error) = allow() {
            eprintln!("left out: the namespace's tcp_fastopen can't be set: {error}");
            return;
        }
        there(Box::new(move || {
            allow().expect("as in the other namespace")
        }));
        for (bind, expected) in [("", 0), ("tfo", 1)] {
            let (server, port) = (MockServer::echo(), free_port());
            let balancer = listen(&format!("*:{port} {bind}"), &server);
            let address = SocketAddr::from(([10, 77, 0, 1], port));
            let before = tcp_counter("TCPFastOpenPassive");
            // The first of the two fetches the cookie.
            there(Box::new(move || (0..2).for_each(|_| say_early(address))));
            let taken = tcp_counter("TCPFastOpenPassive") - before;
            assert_eq!(taken, expected, "'{bind}'");
            balancer.settle();
        }
    });
}

/// Sends data with the SYN, if there is a cookie, and reads it back.
fn say_early(address: SocketAddr) {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let sent = client.send_to_with_flags(b"early", &address.into(), libc::MSG_FASTOPEN);
    assert_eq!(sent.expect("data with the SYN"), 5);
    let mut bytes = [0; 5];
    (&client).read_exact(&mut bytes).expect("an answer");
    assert_eq!(&bytes, b"early");
}
