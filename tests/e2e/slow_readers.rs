//! Readers that stall must cost memory within the budget and nobody else anything; bulk streams
//! share.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::client::{self, End, local};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, StopOnDrop, Stopwatch, balancer::Setup, balancer::TempDir, eventually,
    is_tidegate, stream, turn, wait_for,
};

/// What each slow reader is sent: with 2,000 of them 500 MiB, which stays below the memory at which
/// the kernel itself would begin to drop segments.
const DOWNLOAD: u64 = 256 << 10;
/// Budget of private memory, and what the rest of the process may grow by.
const BUDGET_KIB: u64 = 64 << 10;
const REST_KIB: u64 = 48 << 10;

/// A client whose kernel takes little until it is read from.
fn connect_slow(address: SocketAddr) -> TcpStream {
    connect_with_buffer(address, 8 << 10)
}

fn connect_with_buffer(address: SocketAddr, receive_bytes: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(receive_bytes).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    let stream = client::connect_socket(socket, address).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    stream
}

struct Stage {
    balancer: Balancer,
    echo_port: u16,
    download_port: u16,
    _servers: [MockServer; 2],
}

/// One shard with an echo service and a download service.
fn stage(buffers: u32) -> Stage {
    let echo = MockServer::echo();
    let download = MockServer::start(|mut stream| {
        // A small send buffer keeps what is not yet read on this side.
        let _ = SockRef::from(&stream).set_send_buffer_size(64 << 10);
        let _ = stream::send(&mut stream, 11, DOWNLOAD);
    });
    let (echo_port, download_port) = (free_port(), free_port());
    let body = format!(
        "listen fast\n    bind 127.0.0.1:{echo_port}\n    server s {}\n\
         listen slow\n    bind 127.0.0.1:{download_port}\n    server s {}\n",
        echo.address(),
        download.address(),
    );
    let balancer = Setup::new(body)
        .shards(1)
        .global("tune.sndbuf.client 16384")
        .global_of_ours(&format!("tune.ring.buffers {buffers}"))
        .global_of_ours("tune.memory 64m")
        .start();
    Stage {
        balancer,
        echo_port,
        download_port,
        _servers: [echo, download],
    }
}

/// Exchanges on eight connections at once; they must end soon whatever else the shard holds.
fn exchange_fast(port: u16) {
    let watch = Stopwatch::start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let stream = client::connect_port(port);
                for round in 0..100 {
                    client::echo(&stream, &vec![round; 64 + usize::from(round) * 40]);
                }
            });
        }
    });
    watch.assert_within(0, 5_000, "800 small exchanges beside the slow readers");
}

fn slow_readers(count: usize, buffers: u32) {
    let stage = stage(buffers);
    let before_kib = stage.balancer.resident_kib();
    let slow: Vec<TcpStream> = (0..count)
        .map(|_| connect_slow(local(stage.download_port)))
        .collect();
    // Some write and don't read: their echoes stall in the other direction too.
    let writers: Vec<(TcpStream, usize)> = (0..count.div_ceil(8).min(64))
        .map(|_| {
            let mut stream = connect_slow(local(stage.echo_port));
            stream.set_nonblocking(true).unwrap();
            let mut written = 0;
            while let Ok(count) = stream.write(&[5; 16 << 10]) {
                written += count;
            }
            stream.set_nonblocking(false).unwrap();
            (stream, written)
        })
        .collect();
    let open = count as u64;
    eventually("all slow readers are open", || {
        stage.balancer.stat().number("slow", "s", "scur") == open
    });
    exchange_fast(stage.echo_port);
    let grown_kib = stage.balancer.resident_kib().saturating_sub(before_kib);
    // A bundle may bring more than was asked for (docs/memory.md).
    let bundles = stage.balancer.activity().has_line("receive_step: bundle");
    let budget_kib = BUDGET_KIB * if bundles { 2 } else { 1 };
    assert!(
        grown_kib <= budget_kib + REST_KIB,
        "grew by {grown_kib} KiB with {count} slow readers"
    );
    // Now everybody reads: nothing may be missing.
    std::thread::scope(|scope| {
        for (stream, written) in &writers {
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client::read_bytes(stream, *written), vec![5; *written]);
            assert_eq!(client::read_end(stream), (vec![], End::Fin));
        }
        for part in slow.chunks(count.div_ceil(4)) {
            scope.spawn(move || {
                for mut stream in part {
                    assert_eq!(stream::receive_to_end(&mut stream, 11), Ok(DOWNLOAD));
                }
            });
        }
    });
    drop(slow);
    stage.balancer.settle();
    if is_tidegate() {
        assert_eq!(stage.balancer.activity().number("cq_overflows"), Some(0));
    }
}

#[test]
fn sixteen_slow_readers_and_eight_buffers() {
    let _turn = turn::shared();
    slow_readers(16, 8);
}

#[test]
fn two_thousand_slow_readers_and_eight_buffers() {
    let _turn = turn::alone();
    slow_readers(2_000, 8);
}

#[test]
fn two_thousand_slow_readers_and_two_buffers() {
    let _turn = turn::alone();
    slow_readers(2_000, 2);
}

/// What a client wrote while nobody read comes back whole once it reads.
#[test]
fn a_writer_that_did_not_read_gets_its_echo() {
    let _turn = turn::shared();
    let stage = stage(2);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let port = stage.echo_port;
            scope.spawn(move || {
                const LENGTH: u64 = 2 << 20;
                let stream = connect_slow(local(port));
                let mut writing = stream.try_clone().unwrap();
                scope.spawn(move || stream::send(&mut writing, seed, LENGTH).unwrap());
                // Reads only after the writer has filled all there is to fill.
                let full = Stopwatch::start();
                wait_for(Duration::from_millis(300), || {
                    (full.ms() > 250).then_some(())
                });
                stream::receive(&mut &stream, seed, LENGTH).unwrap();
            });
        }
    });
    stage.balancer.settle();
}

/// The end points cost next to nothing (`sendfile` from the page cache, reading without a copy) and
/// the balancer runs when nobody else wants to: so every stream always has bytes waiting and room
/// behind, and the shares are the balancer's own choice.
#[test]
fn eight_bulk_streams_share_a_shard_equally() {
    const STREAMS: usize = 8;
    const MEASURED: u64 = 2 << 30;
    let _turn = turn::alone();
    let dir = TempDir::new();
    let file = dir.write("bulk", "");
    File::create(&file).unwrap().set_len(64 << 20).unwrap();
    let server = MockServer::start(move |mut stream| {
        SockRef::from(&stream)
            .set_send_buffer_size(1 << 20)
            .unwrap();
        while io::copy(&mut File::open(&file).unwrap(), &mut stream).is_ok() {}
    });
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body)
        .shards(1)
        .niceness(19)
        .global("tune.rcvbuf.server 1048576")
        .global("tune.sndbuf.client 1048576")
        .start();
    let received: [AtomicU64; STREAMS] = Default::default();
    let done = AtomicBool::new(false);
    let snapshot = || received.each_ref().map(|bytes| bytes.load(Relaxed));
    let moved = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&done);
        for mine in &received {
            let done = &done;
            scope.spawn(move || {
                let stream = connect_with_buffer(local(port), 1 << 20);
                let mut buffer = vec![0; 1 << 20];
                while !done.load(Relaxed) {
                    let count = recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC);
                    mine.fetch_add(count.expect("bulk goes on") as u64, Relaxed);
                }
            });
        }
        eventually("all streams run", || {
            snapshot().iter().all(|bytes| *bytes > 1 << 20)
        });
        let begin = snapshot();
        wait_for(Duration::from_secs(90), || {
            let moved: Vec<u64> = snapshot()
                .iter()
                .zip(begin)
                .map(|(now, then)| now - then)
                .collect();
            (moved.iter().sum::<u64>() >= MEASURED).then_some(moved)
        })
    });
    let moved = moved.expect("2 GiB within 90 s");
    let total: u64 = moved.iter().sum();
    let per_mille: Vec<u64> = moved.iter().map(|bytes| bytes * 1_000 / total).collect();
    assert!(
        per_mille.iter().all(|share| (100..=150).contains(share)),
        "shares in per mille: {per_mille:?}"
    );
    balancer.settle();
}
