//! What `bind` parameters make of the sockets, read back from the running program.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use socket2::Socket;

use crate::support::balancer::{Setup, TempDir, run};
use crate::support::client::{self, connect_port};
use crate::support::port::free_port;
use crate::support::sockets::{accepted_on, listens_on, option, sockets_of};
use crate::support::{Balancer, MockServer, eventually, is_tidegate, skip, turn};

/// The level of TCP's options, tcp(7).
const TCP: i32 = libc::IPPROTO_TCP;

fn echo_with(bind: &str) -> (Balancer, u16, MockServer) {
    let (port, server) = (free_port(), MockServer::echo());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} {bind}\n    server s {}\n",
        server.address()
    ));
    (balancer, port, server)
}

/// The listening sockets that the program opened for itself: both shards' duplicates among them.
fn listening(balancer: &Balancer, port: u16) -> Vec<Socket> {
    let sockets = sockets_of(balancer.pid(), |socket| listens_on(socket, port));
    assert!(!sockets.is_empty(), "nobody listens on {port}");
    sockets
}

#[test]
fn options_are_on_every_listening_socket() {
    let _turn = turn::shared();
    let bind = "tfo mss 1234 tcp-ut 4321 backlog 77";
    let (balancer, port, _server) = echo_with(bind);
    for socket in listening(&balancer, port) {
        assert_eq!(option(&socket, TCP, libc::TCP_FASTOPEN), 77, "tfo");
        assert_eq!(option(&socket, TCP, libc::TCP_MAXSEG), 1234, "mss");
        assert_eq!(option(&socket, TCP, libc::TCP_USER_TIMEOUT), 4321, "tcp-ut");
    }
    client::echo(&connect_port(port), b"with options");
    balancer.settle();
}

#[test]
fn options_that_nobody_asks_for_are_not_set() {
    let _turn = turn::shared();
    let (balancer, port, _server) = echo_with("");
    let plain = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let names = [libc::TCP_FASTOPEN, libc::TCP_MAXSEG, libc::TCP_USER_TIMEOUT];
    for socket in listening(&balancer, port) {
        for name in names {
            assert_eq!(
                option(&socket, TCP, name),
                option(&plain, TCP, name),
                "{name}"
            );
        }
        assert_eq!(option(&socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT), 0);
        assert_eq!(socket.device().unwrap(), None);
    }
    balancer.settle();
}

/// The client's side of a session has the algorithm, the size and the delayed acknowledgement that
/// its listener was given.
#[test]
fn sessions_inherit_what_the_listener_has() {
    let _turn = turn::shared();
    if skip("'cc' is younger than the HAProxy of most systems") {
        return;
    }
    let (port, server) = (free_port(), MockServer::echo());
    let (plain, body) = (free_port(), format!("    server s {}\n", server.address()));
    let balancer = Balancer::start(format!(
        "listen smart\n    bind 127.0.0.1:{port} cc reno mss 1111\n    option tcp-smart-accept\n\
         {body}listen plain\n    bind 127.0.0.1:{plain}\n{body}"
    ));
    // Before any data: an exchange of it changes how the kernel acknowledges.
    let session = |port: u16| {
        let client = connect_port(port);
        let accepted = || sockets_of(balancer.pid(), |socket| accepted_on(socket, port));
        eventually("the session is there", || accepted().len() == 1);
        let socket = accepted().remove(0);
        let quick = option(&socket, TCP, libc::TCP_QUICKACK);
        client::echo(&client, b"inherit");
        (quick, socket)
    };
    let (quick, socket) = session(port);
    let name = String::from_utf8(socket.tcp_congestion().unwrap()).unwrap();
    assert!(name.starts_with("reno"), "{name}");
    assert!(option(&socket, TCP, libc::TCP_MAXSEG) <= 1111);
    assert_eq!(quick, 0, "the first data is acknowledged at once");
    let (quick, socket) = session(plain);
    assert!(option(&socket, TCP, libc::TCP_MAXSEG) > 1111);
    assert_eq!(quick, 1);
    drop(socket);
    balancer.settle();
}

/// A parameter that the kernel refuses is named, with the line, the address and the reason.
#[test]
fn what_the_kernel_refuses_is_named_at_start() {
    let _turn = turn::shared();
    if skip("HAProxy warns and goes on without the parameter") {
        return;
    }
    let dir = TempDir::new();
    let refused = [
        (
            "cc nosuch",
            "cannot set 'cc nosuch' (No such file or directory)",
        ),
        ("mss 20", "cannot set 'mss 20' (Invalid argument)"),
        (
            "interface nosuch0",
            "cannot set 'interface nosuch0' (No such device)",
        ),
        ("thread 7", "'thread' of the 'bind' at"),
    ];
    for (parameter, expected) in refused {
        let port = free_port();
        let text = format!(
            "global\n    thread-hard-limit 2\ndefaults\n    timeout client 1s\n    timeout server 1s\n    \
             timeout connect 1s\nlisten l\n    bind 127.0.0.1:{port} {parameter}\n    \
             server s 127.0.0.1:1\n"
        );
        let config = dir.write("refused.cfg", &text);
        let (code, _, stderr) = run(&["-f", &config.to_string_lossy()]);
        assert_eq!(code, Some(1), "{parameter}: {stderr}");
        assert!(stderr.contains(expected), "{parameter}: {stderr}");
        assert!(stderr.contains("refused.cfg:8"), "{parameter}: {stderr}");
    }
}

/// A name as HAProxy has it: the whole of `sun_path`, filled with NULs.
fn padded(name: &str) -> SocketAddr {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(107, 0);
    SocketAddr::from_abstract_name(bytes).unwrap()
}

#[test]
fn abstract_names_on_both_sides() {
    let _turn = turn::shared();
    let (pid, port) = (std::process::id(), free_port());
    let (front, back) = (format!("tidegate-f-{pid}"), format!("tidegate-b-{pid}"));
    let listener = UnixListener::bind_addr(&padded(&back)).unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    });
    let balancer = Balancer::start(format!(
        "listen l\n    bind abns@{front}\n    bind 127.0.0.1:{port}\n    server s abns@{back}\n"
    ));
    let mut client = UnixStream::connect_addr(&padded(&front)).unwrap();
    client.write_all(b"abns").unwrap();
    let mut bytes = [0; 4];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"abns");
    drop(client);
    client::echo(&connect_port(port), b"over");
    server.join().unwrap();
    balancer.settle();
    assert_eq!(balancer.stat().number("l", "s", "stot"), 2);
}

/// `abnsz@` is the name as it stands, and a runtime socket can have one, as can a checked server.
#[test]
fn plain_abstract_names_and_checks() {
    let _turn = turn::shared();
    if skip("'abnsz@' is younger than the HAProxy of most systems") {
        return;
    }
    let pid = std::process::id();
    let (front, stats) = (format!("tidegate-z-{pid}"), format!("tidegate-s-{pid}"));
    let (port, server) = (free_port(), MockServer::echo());
    let balancer = Setup::new(format!(
        "frontend f\n    bind abnsz@{front}\n    default_backend b\nbackend b\n    \
         server s {}\nlisten l\n    bind 127.0.0.1:{port}\n    \
         server up abnsz@{front} check inter 20ms rise 1\n    \
         server down abns@{front} check inter 20ms fall 1\n",
        server.address()
    ))
    .global(format!("stats socket abns@{stats} level user"))
    .start();
    eventually("the check of a name that nobody has fails", || {
        balancer.stat().text("l", "down", "status") == "DOWN"
    });
    assert_eq!(balancer.stat().text("l", "up", "status"), "UP");
    assert_eq!(
        balancer.stat().text("l", "up", "addr"),
        format!("abnsz@{front}")
    );
    client::echo(&connect_port(port), b"checked");
    let mut runtime = UnixStream::connect_addr(&padded(&stats)).unwrap();
    runtime.write_all(b"show info\n").unwrap();
    let mut answer = String::new();
    runtime.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("Nbthread: 2"), "{answer}");
}

/// A name that somebody else has is an error with the name in it.
#[test]
fn an_abstract_name_in_use_is_refused() {
    let _turn = turn::shared();
    let name = format!("tidegate-u-{}", std::process::id());
    let _taken = UnixListener::bind_addr(&padded(&name)).unwrap();
    let dir = TempDir::new();
    let config = dir.write(
        "used.cfg",
        &format!("listen l\n    bind abns@{name}\n    timeout client 1s\n"),
    );
    let (code, _, stderr) = run(&["-f", &config.to_string_lossy()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot bind UNIX socket"), "{stderr}");
    assert!(stderr.contains(&name) || !is_tidegate(), "{stderr}");
}

#[test]
fn unix_bind_gives_listeners_a_prefix_and_a_mode() {
    let _turn = turn::shared();
    let (dir, server) = (TempDir::new(), MockServer::echo());
    let prefix = format!("{}/", dir.path().display());
    let balancer = Setup::new(format!(
        "listen l\n    bind unix@one\n    bind unix@two mode 604\n    server s {}\n",
        server.address()
    ))
    .global(format!("unix-bind prefix {prefix} mode 640"))
    .start();
    for (name, mode) in [("one", 0o640), ("two", 0o604)] {
        let path = dir.path().join(name);
        eventually("the path is there", || path.exists());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"ping").unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"ping");
    }
    balancer.settle();
}
