//! The bound of the process's memory holds, and a burst's memory is given back.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::support::balancer::{TempDir, program, run};
use crate::support::client::{self, local};
use crate::support::port::free_port;
use crate::support::{MockServer, balancer::Setup, eventually, skip, stream, turn};

/// What each slow reader is sent.
const DOWNLOAD: u64 = 192 << 10;

/// A client whose kernel takes little until it is read from.
fn connect_slow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let patience = Duration::from_millis(900);
    socket.connect_timeout(&address.into(), patience).unwrap();
    let patience = Some(Duration::from_secs(60));
    socket.set_read_timeout(patience).unwrap();
    socket.into()
}

/// Three times as many slow readers as the bound lets in: the others wait to be accepted, those
/// that are there get their bytes slowly, and nobody loses any.
#[test]
fn thousands_of_slow_readers_stay_within_the_bound() {
    const READERS: usize = 3_000;
    const LIMIT_MIB: u64 = 48;
    let _turn = turn::alone();
    if skip("its bound is another") {
        return;
    }
    let server = MockServer::start(|mut stream| {
        let _ = SockRef::from(&stream).set_send_buffer_size(64 << 10);
        let _ = stream::send(&mut stream, 11, DOWNLOAD);
    });
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port} backlog 4096\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body)
        .shards(1)
        .global("tune.sndbuf.client 16384")
        .global_of_ours(&format!("memory-limit {LIMIT_MIB}m"))
        .start();
    let maxconn = balancer.info("Maxconn");
    assert!((500..READERS as u64 / 2).contains(&maxconn), "{maxconn}");
    assert_eq!(balancer.info("Memmax_MB"), LIMIT_MIB);
    let clients: Vec<TcpStream> = (0..READERS).map(|_| connect_slow(local(port))).collect();
    eventually("as many as may be are there", || {
        balancer.stat().number("l", "FRONTEND", "scur") == maxconn
    });
    eventually("directions wait for memory", || {
        balancer.activity().number("memory_refusals") > Some(0)
    });
    eventually("that is said", || {
        balancer.stderr().contains("bound of private memory")
    });
    let taken = balancer.activity().number("private_taken_bytes").unwrap();
    assert!(
        taken > 2 << 20,
        "{taken} bytes are held: the test asks for nothing"
    );
    std::thread::scope(|scope| {
        for part in clients.chunks(READERS.div_ceil(8)) {
            scope.spawn(move || {
                for mut client in part {
                    assert_eq!(stream::receive_to_end(&mut client, 11), Ok(DOWNLOAD));
                    let _ = client.shutdown(std::net::Shutdown::Both);
                }
            });
        }
    });
    drop(clients);
    balancer.settle();
    let peak_kib = balancer.status_kib("VmHWM");
    assert!(
        peak_kib <= LIMIT_MIB << 10,
        "{peak_kib} KiB of {LIMIT_MIB} MiB"
    );
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "FRONTEND", "stot"), READERS as u64);
    assert!(stat.number("l", "FRONTEND", "smax") <= maxconn);
    // Said once, not once for each.
    let said = balancer.stderr().matches("bound of private memory").count();
    assert!(said <= 2, "{}", balancer.stderr());
}

/// What stays of a burst with two shards: the buffers of their rings, which become resident with
/// the first bytes (2.25 MiB each), free chunks (1.5 MiB each), the timers' table and what lists
/// have grown to.
const STAYS_KIB: u64 = 10 << 10;

#[test]
fn memory_is_given_back_after_a_burst() {
    const SESSIONS: usize = 9_000;
    let _turn = turn::alone();
    if skip("it keeps more") {
        return;
    }
    let (server, port) = (MockServer::hold(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body)
        .global(format!("maxconn {SESSIONS}"))
        .global("tune.sndbuf.client 4096")
        .start();
    // Whatever is there from the first session on.
    let ends = [connect_slow(local(port)), server.next()];
    drop(ends);
    balancer.settle();
    let before_kib = balancer.resident_kib();
    let clients: Vec<TcpStream> = (0..SESSIONS).map(|_| connect_slow(local(port))).collect();
    let ends: Vec<TcpStream> = clients.iter().map(|_| server.next()).collect();
    for mut end in &ends {
        end.set_nonblocking(true).unwrap();
        let _ = end.write(&[7; 48 << 10]);
    }
    eventually("bytes are held", || {
        balancer.resident_kib() > before_kib + (32 << 10)
    });
    drop((clients, ends));
    balancer.settle();
    let most_kib = before_kib + STAYS_KIB;
    let peak_kib = balancer.status_kib("VmHWM");
    eventually("the memory is back", || balancer.resident_kib() <= most_kib);
    let after_kib = balancer.resident_kib();
    eprintln!("{before_kib} KiB before, {peak_kib} at the peak, {after_kib} after");
}

#[test]
fn a_bound_that_is_too_low_is_refused_with_the_numbers() {
    let _turn = turn::shared();
    if skip("it takes any") {
        return;
    }
    let dir = TempDir::new();
    let file = |global: &str| {
        let port = free_port();
        let text = Setup::new(format!("listen l\n    bind 127.0.0.1:{port}\n"))
            .global(global)
            .text(dir.path());
        dir.write("a.cfg", &text).display().to_string()
    };
    let (code, _, errors) = run(&["-f", &file("memory-limit 8m")]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("memory-limit 8 MiB is too low"), "{errors}");
    // The command line has the last word.
    let (code, _, errors) = run(&["-f", &file("memory-limit 1g"), "-m", "9"]);
    assert_eq!(code, Some(1), "{}", program().display());
    assert!(errors.contains("memory-limit 9 MiB is too low"), "{errors}");
}

#[test]
fn a_maxconn_that_does_not_fit_into_memory_is_lowered_with_a_warning() {
    let _turn = turn::shared();
    if skip("it keeps to -m") {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body)
        .global("maxconn 9000")
        .global("memory-limit 60m")
        .start();
    assert!(balancer.info("Maxconn") < 4_000);
    let errors = balancer.stderr();
    assert!(errors.contains("maxconn 9000 needs"), "{errors}");
    client::echo(&client::connect_port(port), b"served");
    balancer.settle();
}

#[test]
fn pipes_are_within_the_bound() {
    const LIMIT_MIB: u64 = 64;
    let _turn = turn::shared();
    if skip("it bounds no pipes") {
        return;
    }
    let server = MockServer::exchange();
    let setup = |lines: &str| {
        let port = free_port();
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port}\n    option splice-response\n    server s {}\n",
            server.address()
        );
        let setup = Setup::new(body).shards(1).global("maxconn 100");
        let setup = setup.global(format!("memory-limit {LIMIT_MIB}m"));
        (setup.global(lines), port)
    };
    for (size, kib) in [("tune.pipesize 256k", 256), ("tune.pipesize 64k", 64)] {
        let (setup, port) = setup(size);
        let balancer = setup.start();
        let pipes = balancer.info("Maxpipes");
        assert!(pipes > 0 && pipes <= 25, "a quarter of maxconn: {pipes}");
        assert!(pipes * kib <= (LIMIT_MIB << 10) / 8, "{pipes} of {kib} KiB");
        client::exchange(local(port), 1, 8 << 20, 3).unwrap();
        assert!(balancer.info("TotalSplicedBytesOut") > 0);
        balancer.settle();
    }
    let dir = TempDir::new();
    let file = dir.write("a.cfg", &setup("maxpipes 100").0.text(dir.path()));
    let (code, _, errors) = run(&["-f", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("maxpipes 100 takes"), "{errors}");
    let (setup, port) = setup("maxpipes 100\n    no strict-limits");
    let balancer = setup.start();
    let pipes = balancer.info("Maxpipes");
    assert!((1..=LIMIT_MIB / 2).contains(&pipes), "{pipes}");
    client::exchange(local(port), 1, 8 << 20, 3).unwrap();
    balancer.settle();
}
