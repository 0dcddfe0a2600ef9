//! Listeners over a reload: whoever waits in a queue is served, options of sockets that listen
//! change where they are, and what is added leaves descriptors for the rest.

use socket2::Socket;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::reload::{Long, change, change_to, reload, rewrite};
use crate::reload_pages::alive;
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{connect_port, echo, local, read_bytes, write};
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::{free_port, free_ports, listeners_on};
use crate::support::sockets::{listens_on, option, sockets_of};
use crate::support::{Balancer, MockServer, eventually, is_tidegate, turn};

fn listen(name: &str, bind: &str, server: &MockServer) -> String {
    let address = server.address();
    format!("listen {name}\n    bind {bind}\n    server s {address}\n")
}

/// Clients who have come and sent their number.
fn queue(port: u16, count: u8) -> Vec<TcpStream> {
    let client = |number: u8| {
        let client = connect_port(port);
        write(&client, &[number]);
        client
    };
    (0..count).map(client).collect()
}

/// Each gets its number back, in whatever order they are let in.
fn all_are_served(clients: Vec<TcpStream>) {
    std::thread::scope(|scope| {
        for (number, client) in (0_u8..).zip(clients) {
            scope.spawn(move || assert_eq!(read_bytes(&client, 1), [number]));
        }
    });
}

#[test]
fn clients_in_the_queue_of_a_listener_that_goes_are_served() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, gone, stays) = (MockServer::echo(), free_port(), free_port());
    let other = listen("m", &format!("127.0.0.1:{stays}"), &server);
    let bounded = listen("l", &format!("127.0.0.1:{gone} backlog 200"), &server);
    let balancer = Balancer::start(format!("{bounded}    maxconn 1\n{other}"));
    let mut holder = Long::begin(gone, 1);
    let queued = queue(gone, 60);
    change(&balancer, &other);
    eventually("the address is closed", || listeners_on(gone) == 0);
    holder.go_on();
    assert_eq!(server.accepted(), 1);
    drop(holder);
    all_are_served(queued);
    eventually("the proxy is gone", || {
        !balancer.stats("show stat").contains("\nl,")
    });
    balancer.settle();
}

/// One with a bound of its own, whose frontend stays.
#[test]
fn clients_in_the_queue_of_one_of_two_listeners_are_served() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, gone, stays) = (MockServer::echo(), free_port(), free_port());
    let one = listen("l", &format!("127.0.0.1:{stays}"), &server);
    let bind = format!("    bind 127.0.0.1:{gone} maxconn 1 backlog 200\n");
    let balancer = Balancer::start(format!("{one}{bind}"));
    let mut holder = Long::begin(gone, 1);
    let queued = queue(gone, 60);
    change(&balancer, &one);
    eventually("the address is closed", || listeners_on(gone) == 0);
    holder.go_on();
    echo(&connect_port(stays), b"the other one serves");
    drop(holder);
    all_are_served(queued);
    balancer.settle();
}

#[test]
fn an_address_that_moves_to_another_frontend_loses_nobody() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (first, second, port) = (MockServer::echo(), MockServer::echo(), free_port());
    let bind = format!("127.0.0.1:{port} backlog 200");
    let balancer = Balancer::start(listen("l", &bind, &first) + "    maxconn 1\n");
    let mut holder = Long::begin(port, 1);
    let queued = queue(port, 60);
    change(&balancer, &listen("o", &bind, &second));
    // Those who come now are the other frontend's.
    let before = second.accepted();
    let mut later = Long::begin(port, 2);
    assert!(second.accepted() > before);
    holder.go_on();
    drop(holder);
    all_are_served(queued);
    later.go_on();
    drop(later);
    assert_eq!(first.accepted() + second.accepted(), 62);
    balancer.settle();
}

#[test]
fn options_of_a_listener_change_while_it_listens() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let with = |words: &str| listen("l", &format!("127.0.0.1:{port} {words}"), &server);
    let balancer = Balancer::start(with(""));
    let inodes = || {
        let mut inodes: Vec<u64> = sockets_of(balancer.pid(), |one| listens_on(one, port))
            .into_iter()
            .map(|socket| {
                let file = std::fs::File::from(OwnedFd::from(socket));
                file.metadata().expect("a socket's inode").ino()
            })
            .collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    };
    let tcp = |name: i32| {
        let sockets = sockets_of(balancer.pid(), |one| listens_on(one, port));
        let each = sockets
            .iter()
            .map(|one| option(one, libc::IPPROTO_TCP, name));
        let each: Vec<i32> = each.collect();
        assert!(each.windows(2).all(|pair| pair[0] == pair[1]), "{each:?}");
        each[0]
    };
    let backlog = || {
        let text = balancer.stats("show listeners");
        let line = text.lines().find(|line| line.starts_with("l "));
        let limit = line.and_then(|line| line.split_whitespace().nth(6));
        limit.map(str::to_owned).expect("a line of the listener")
    };
    let mut long = Long::begin(port, 1);
    let (sockets, default) = (inodes(), backlog());
    let answer = change(&balancer, &with("defer-accept tcp-ut 7s backlog 33"));
    assert!(answer.contains("1 object has changed"), "{answer}");
    assert!(tcp(libc::TCP_DEFER_ACCEPT) > 0);
    assert_eq!(tcp(libc::TCP_USER_TIMEOUT), 7_000);
    assert_eq!(backlog(), "33");
    echo(&connect_port(port), b"a client that speaks is served");
    // Back again, with a bound.
    change(&balancer, &with("maxconn 2"));
    assert_eq!(tcp(libc::TCP_DEFER_ACCEPT), 0);
    assert_eq!(tcp(libc::TCP_USER_TIMEOUT), 0);
    assert_eq!(backlog(), default);
    let second = connect_port(port);
    echo(&second, b"2");
    let third = connect_port(port);
    write(&third, b"3");
    assert_eq!(balancer.stat().number("l", "FRONTEND", "scur"), 2);
    drop(second);
    assert_eq!(read_bytes(&third, 1), *b"3");
    long.go_on();
    // The same sockets all the time.
    assert_eq!(inodes(), sockets);
    drop((long, third));
    balancer.settle();
}

#[test]
fn options_of_a_listener_of_datagrams_change_while_it_listens() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (DatagramServer::echo(), free_port());
    let with = |rcvbuf: u32, fragment: &str| {
        let address = server.address();
        let text = format!(
            "listen u\n    mode udp\n    bind 127.0.0.1:{port}\n    udp-fragment {fragment}\n    \
             timeout client 60s\n    timeout server 60s\n    server s {address}\n"
        );
        Setup::new(text).global(format!("tune.udp.rcvbuf {rcvbuf}"))
    };
    let balancer = with(140_000, "on").start();
    let all = |level: i32, name: i32| {
        let is_its = |socket: &Socket| {
            let local = socket.local_addr().ok().and_then(|a| a.as_socket());
            local.is_some_and(|address| address.port() == port)
        };
        let sockets = sockets_of(balancer.pid(), is_its);
        let each: Vec<i32> = sockets.iter().map(|one| option(one, level, name)).collect();
        assert!(each.windows(2).all(|pair| pair[0] == pair[1]), "{each:?}");
        each[0]
    };
    // The kernel doubles what is asked for.
    let now = || {
        let buffer = all(libc::SOL_SOCKET, libc::SO_RCVBUF) / 2;
        (buffer, all(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER))
    };
    let client = DatagramClient::new(local(port), 1);
    client.exchange(0, 100);
    assert_eq!(now(), (140_000, libc::IP_PMTUDISC_WANT));
    for (number, rcvbuf, fragment, discovery) in [
        (1, 200_000, "off", libc::IP_PMTUDISC_PROBE),
        (2, 150_000, "on", libc::IP_PMTUDISC_WANT),
    ] {
        change_to(&balancer, &with(rcvbuf, fragment));
        let expected = i32::try_from(rcvbuf).expect("some bytes");
        assert_eq!(now(), (expected, discovery));
        client.exchange(number, 100);
    }
    assert_eq!(balancer.stat().number("u", "FRONTEND", "stot"), 1);
}

#[test]
fn who_may_connect_to_a_socket_file_changes_where_it_is() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (dir, server) = (TempDir::new(), MockServer::echo());
    let path = dir.path().join("clients");
    let with = |words: &str| listen("l", &format!("unix@{} {words}", path.display()), &server);
    let balancer = Balancer::start(with("mode 600"));
    let file = || std::fs::metadata(&path).expect("the file of the socket");
    let inode = file().ino();
    let answer = change(&balancer, &with("mode 622"));
    assert!(!answer.contains("keeps"), "{answer}");
    assert_eq!(
        (file().ino(), file().permissions().mode() & 0o777),
        (inode, 0o622)
    );
    let shown = balancer.stats("show reload");
    assert!(shown.contains("changed: mode"), "{shown}");
    // What it was without is not known: that is said, as long as it is so.
    for _ in 0..2 {
        let answer = change(&balancer, &with(""));
        assert!(answer.contains("keeps its old mode and owner"), "{answer}");
        assert_eq!(file().permissions().mode() & 0o777, 0o622);
    }
    drop(std::os::unix::net::UnixStream::connect(&path).expect("a connection"));
    balancer.settle();
}

/// Numbers of descriptors mean something at the start alone: later they may be anything's.
#[test]
fn an_inherited_socket_is_not_taken_by_a_reload() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let body = listen("l", &format!("127.0.0.1:{port}"), &server);
    let balancer = Balancer::start(body.as_str());
    let long = Long::begin(port, 1);
    for number in 0..balancer.descriptors() {
        let more = [
            listen("m", &format!("fd@{number}"), &server),
            format!("    log fd@{number} local0\n"),
        ];
        for more in more {
            rewrite(&balancer, &Setup::new(format!("{body}{more}")));
            let answer = reload(&balancer);
            assert!(answer.starts_with("Success=0\n--\n"), "{answer}");
            let why = "inherited descriptors are taken at the start";
            assert!(answer.contains(why), "{answer}");
        }
    }
    echo(&connect_port(port), b"nothing has happened");
    drop(long);
    balancer.settle();
}

/// What a reload adds needs descriptors that connections don't have any more.
#[test]
fn listeners_that_are_added_leave_room_for_fewer_connections() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let more = free_ports(20);
    let one = listen("l", &format!("127.0.0.1:{port}"), &server);
    let binds = more
        .clone()
        .map(|port| format!("    bind 127.0.0.1:{port}\n"));
    let all = format!("{one}{}", binds.collect::<String>());
    let limited = |body: &str| Setup::new(body).global("ulimit-n 600");
    let balancer = limited(&one).start();
    let maxconn = || balancer.info("Maxconn");
    let before = maxconn();
    let mut longs: Vec<Long> = (0..20).map(|seed| Long::begin(port, seed)).collect();
    let answer = change_to(&balancer, &limited(&all));
    let fewer = maxconn();
    // Two descriptors each of a connection; a listener has one for the registry and one for each
    // shard at least.
    assert!(fewer <= before - 20, "{fewer} of {before}");
    let told = format!("global maxconn is {fewer}, not {before}");
    assert!(answer.contains(&told), "{answer}");
    longs.iter_mut().for_each(Long::go_on);
    for port in more.clone() {
        echo(&connect_port(port), b"each is served");
    }
    // That is said once.
    let answer = reload(&balancer);
    assert!(!answer.contains("maxconn is"), "{answer}");
    change_to(&balancer, &limited(&one));
    assert_eq!(maxconn(), before);

    // A number that the file asks for is not lowered: there is room for it, or nothing changes.
    let asking = |body: &str| limited(body).global(format!("maxconn {before}"));
    change_to(&balancer, &asking(&one));
    rewrite(&balancer, &asking(&all));
    let answer = reload(&balancer);
    assert!(answer.starts_with("Success=0\n--\n"), "{answer}");
    let why = format!("maxconn {before} needs ");
    assert!(
        answer.contains(&why) && answer.contains("the limit is 600"),
        "{answer}"
    );
    assert_eq!((maxconn(), listeners_on(*more.start())), (before, 0));
    longs.iter_mut().for_each(Long::go_on);
    drop(longs);
    assert!(crate::support::client::try_connect(local(*more.start())).is_err());
    balancer.settle();
}

/// What an operator has shut down stays so, and goes with the file.
#[test]
fn a_frontend_that_is_shut_has_no_new_listeners() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let server = MockServer::echo();
    let [stays, of_l, next_of_l, of_p, next_of_p] = [(); 5].map(|()| free_port());
    let other = listen("m", &format!("127.0.0.1:{stays}"), &server);
    let with = |of_l: u16, of_p: u16| {
        let listen = listen("l", &format!("127.0.0.1:{of_l}"), &server);
        format!("{listen}{}{other}", alive(of_p, "/alive"))
    };
    let balancer = Balancer::start(with(of_l, of_p));
    for frontend in ["l", "p"] {
        balancer.stats(&format!("shutdown frontend {frontend}"));
    }
    change(&balancer, &with(next_of_l, next_of_p));
    for port in [of_l, of_p, next_of_l, next_of_p] {
        eventually("nobody listens there", || listeners_on(port) == 0);
    }
    change(&balancer, &other);
    eventually("they are gone", || {
        let text = balancer.stats("show stat");
        !text.contains("\nl,") && !text.contains("\np,")
    });
    echo(&connect_port(stays), b"the other one serves");
    balancer.settle();
}
