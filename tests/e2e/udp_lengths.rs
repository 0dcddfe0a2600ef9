//! Datagrams of every length, alone and in trains, pass as they are.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer, LENGTH_MAX, bind, payload};
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, skip, turn};

/// Longest datagram of IPv6, whose header is not part of the length.
const LENGTH_MAX_V6: usize = 65_527;
/// Datagrams under way at a time.
const AT_ONCE: usize = 16;

fn count(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("no {name}"))
}

fn setup(target: SocketAddr, server: SocketAddr) -> Setup {
    Setup::new(format!(
        "listen u\n    mode udp\n    bind udp@{target}\n    timeout udp 2s\n    server s {server}\n"
    ))
}

/// Sends datagrams of these lengths, some at a time, and compares what comes back.
fn exchange(target: SocketAddr, flow: u32, lengths: &[usize]) {
    let own: IpAddr = match target {
        SocketAddr::V4(_) => [127, 0, 0, 1].into(),
        SocketAddr::V6(_) => "::1".parse().unwrap(),
    };
    let socket: UdpSocket = bind((own, 0).into()).expect("bind");
    let patience = Some(Duration::from_secs(5));
    socket.set_read_timeout(patience).expect("read timeout");
    let mut buffer = vec![0; LENGTH_MAX_V6 + 1];
    let mut number = 0;
    for part in lengths.chunks(AT_ONCE) {
        let mut sent = Vec::with_capacity(AT_ONCE);
        for length in part {
            let bytes = payload(flow, number, *length);
            number += 1;
            let count = socket.send_to(&bytes, target);
            let count = count.unwrap_or_else(|e| panic!("send {length} bytes: {e}"));
            assert_eq!(count, *length);
            sent.push(bytes);
        }
        for bytes in &sent {
            let length = bytes.len();
            let received = socket.recv_from(&mut buffer);
            let (count, from) = received.unwrap_or_else(|e| panic!("of {length} bytes: {e}"));
            assert_eq!((count, from), (length, target));
            assert!(
                buffer[..count] == bytes[..],
                "other bytes, {length} of them"
            );
        }
    }
}

#[test]
fn datagrams_of_every_length_pass_unchanged() {
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let (server, port) = (DatagramServer::counting_echo(), free_port());
    let target = SocketAddr::from(([127, 0, 0, 1], port));
    let balancer = setup(target, server.address()).start();
    let odd: Vec<usize> = (0..=LENGTH_MAX).filter(|length| length % 2 == 1).collect();
    let even: Vec<usize> = (0..=LENGTH_MAX).filter(|length| length % 2 == 0).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(target, 1, &odd));
        scope.spawn(|| exchange(target, 2, &even));
    });
    let all = LENGTH_MAX as u64 + 1;
    eventually("all are counted", || {
        ["datagrams_to_servers", "datagrams_to_clients"]
            .iter()
            .all(|name| count(&balancer, name) == all)
    });
    // Each way.
    assert_eq!(count(&balancer, "datagrams_empty"), 2);
    balancer.settle();
}

#[test]
fn the_longest_datagrams_of_ipv6_pass_unchanged() {
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    let own: IpAddr = "::1".parse().unwrap();
    let (server, target) = (DatagramServer::echo_on(own), (own, free_port()).into());
    let balancer = setup(target, server.address()).start();
    // Those that are whole, and those around each border of a fragment or a buffer.
    let mut lengths: Vec<usize> = (0..200).collect();
    lengths.extend(1_400..1_500);
    lengths.extend((65_440 - 20)..=LENGTH_MAX_V6);
    exchange(target, 1, &lengths);
    eventually("all are counted", || {
        count(&balancer, "datagrams_to_clients") == lengths.len() as u64
    });
    assert_eq!(count(&balancer, "datagrams_truncated"), 0);
    balancer.settle();
}

/// A train is cut by the kernel where the balancer may ask for that, and by the balancer elsewhere.
#[test]
fn trains_pass_whatever_the_kernel_joins_and_cuts() {
    const TRAIN: u32 = 16;
    let _turn = turn::alone();
    if skip("it has no UDP") {
        return;
    }
    for without in ["", "gso", "gro", "gso gro"] {
        let (server, port) = (DatagramServer::counting_echo(), free_port());
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        let mut setup = setup(target, server.address()).shards(1);
        if !without.is_empty() {
            setup = setup.global(format!("tune.ring.without {without}"));
        }
        let balancer = setup.start();
        let client = DatagramClient::new(target, 1);
        let mut first = 0;
        for length in [1, 13, 64, 1_200, 1_452, 1_472, 4_000] {
            for last in [1, length / 2 + 1, length] {
                client.send_train(first, TRAIN, length, last);
                for number in first..first + TRAIN {
                    let is_last = number + 1 == first + TRAIN;
                    client.receive_payload(number, if is_last { last } else { length });
                }
                first += TRAIN;
            }
        }
        eventually("all are counted", || {
            ["datagrams_to_servers", "datagrams_to_clients"]
                .iter()
                .all(|name| count(&balancer, name) == u64::from(first))
        });
        let merged = count(&balancer, "datagrams_merged");
        if without.contains("gso") {
            assert_eq!(merged, 0, "{without}");
        } else if without.is_empty() {
            // All on the way to the server.
            assert!(merged >= first.into(), "{merged} of {first}");
        }
        balancer.settle();
    }
}
