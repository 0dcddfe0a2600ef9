//! Every byte arrives, once and in order, whatever the size and whoever closes first.

use std::io::Write;
use std::net::Shutdown;

use crate::support::client::{self, End, local};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, balancer::Setup, stream, turn};

fn through(server: &MockServer) -> (Balancer, u16) {
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    (Balancer::start(body), port)
}

/// Both ways at once, in one connection after the other.
fn both_ways(sizes: &[u64]) {
    let server = MockServer::exchange();
    let (balancer, port) = through(&server);
    for (seed, &size) in (1..).zip(sizes) {
        client::exchange(local(port), size, size, seed)
            .unwrap_or_else(|e| panic!("{size} bytes both ways: {e}"));
    }
    balancer.settle();
    let stat = balancer.stat();
    let total: u64 = sizes.iter().sum();
    let heads = 24 * sizes.len() as u64;
    assert_eq!(stat.number("l", "FRONTEND", "bin"), total + heads);
    assert_eq!(
        stat.number("l", "BACKEND", "bout"),
        total + sizes.len() as u64
    );
    assert_eq!(stat.number("l", "s", "stot"), sizes.len() as u64);
}

#[test]
fn one_byte_to_one_mebibyte_both_ways() {
    let _turn = turn::shared();
    both_ways(&[0, 1, 1 << 10, 16_384, 65_536, 65_537, 1 << 20]);
}

#[test]
fn sixty_four_mebibytes_both_ways() {
    let _turn = turn::shared();
    both_ways(&[64 << 20]);
}

#[test]
fn one_gibibyte_down() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let (balancer, port) = through(&server);
    client::exchange(local(port), 0, 1 << 30, 3).unwrap();
    balancer.settle();
}

#[test]
fn one_gibibyte_up() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let (balancer, port) = through(&server);
    client::exchange(local(port), 1 << 30, 0, 4).unwrap();
    balancer.settle();
}

#[test]
fn sixty_four_streams_at_once_do_not_mix() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let (balancer, port) = through(&server);
    std::thread::scope(|scope| {
        for seed in 0..64 {
            scope.spawn(move || {
                let (up, down) = (seed * 40_009, (64 - seed) * 40_009);
                client::exchange(local(port), up, down, seed).unwrap();
            });
        }
    });
    balancer.settle();
}

#[test]
fn pools_of_two_buffers_carry_as_much() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body)
        .global_of_ours("tune.ring.buffers 2")
        .start();
    std::thread::scope(|scope| {
        for seed in 0..16 {
            scope.spawn(move || client::exchange(local(port), 4 << 20, 4 << 20, seed).unwrap());
        }
    });
    balancer.settle();
}

#[test]
fn bytes_sent_before_the_server_is_connected_arrive_first() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let (balancer, port) = through(&server);
    // The whole request and the FIN are in the first flight, before the balancer has picked.
    for seed in 0..50 {
        let mut stream = client::connect_port(port);
        let mut request = Vec::new();
        for number in [300_u64, 5, seed] {
            request.extend_from_slice(&number.to_be_bytes());
        }
        request.extend_from_slice(stream::slice(seed, 0, 300));
        stream.write_all(&request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream::receive(&mut stream, !seed, 5).unwrap();
        assert_eq!(client::read_end(&stream), (vec![1], End::Fin));
    }
    balancer.settle();
}

/// The server answers 1 MiB and closes at once while the client still uploads: closing a socket
/// with unread input turns the answer into a reset unless the balancer keeps draining.
#[test]
fn an_answer_survives_a_server_that_closes_during_the_upload() {
    const ANSWER: u64 = 1 << 20;
    let _turn = turn::shared();
    let server = MockServer::start(|mut stream| {
        let mut first = [0; 1];
        let _ = std::io::Read::read_exact(&mut stream, &mut first);
        let _ = stream::send(&mut stream, 9, ANSWER);
        let _ = stream.shutdown(Shutdown::Write);
        // Reads on like a server that lingers on close does, but gives the upload away.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let (balancer, port) = through(&server);
    for _ in 0..5 {
        let stream = client::connect_port(port);
        let mut uploading = stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Goes on for as long as it is let; how the upload ends is the server's business.
                let _ = stream::send(&mut uploading, 1, 32 << 20);
                let _ = uploading.shutdown(Shutdown::Write);
            });
            assert_eq!(stream::receive_to_end(&mut &stream, 9), Ok(ANSWER));
        });
    }
    balancer.settle();
}
