//! Streams without an option: spliced while their shard has no time left, copied again afterwards,
//! and the same bytes all the while.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;

use crate::support::balancer::Setup;
use crate::support::client;
use crate::support::port::free_port;
use crate::support::stream::{Checker, slice};
use crate::support::{Balancer, MockServer, eventually, skip, turn, wait_for};

/// Streams at a time.
const STREAMS: u64 = 8;
/// Bytes read at once.
const READ: usize = 1 << 20;
/// Reads that are dropped unseen between two that are compared: who looks at every byte is slower
/// than the shard, which then has time left.
const UNSEEN: u32 = 7;

/// Keeps the calling thread off the shard's CPU.
fn stay_on_first_cpu() {
    let mut set = CpuSet::new();
    set.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

/// What the test tells the senders.
#[derive(Default)]
struct Orders {
    enough: AtomicBool,
    end: AtomicBool,
}

/// Ends the senders, also after a failed assertion.
struct EndOnDrop<'a>(&'a Orders);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Relaxed);
        self.0.end.store(true, Relaxed);
    }
}

/// Sends stream `seed` as fast as it goes, then, if it `stays`, messages of a few bytes until the
/// end. How many bytes it were.
fn send(mut to: TcpStream, seed: u64, orders: &Orders, stays: bool) -> u64 {
    stay_on_first_cpu();
    let mut position = 0;
    while !orders.enough.load(Relaxed) {
        let piece = slice(seed, position, u64::MAX);
        to.write_all(piece).unwrap();
        position += piece.len() as u64;
    }
    while stays && !orders.end.load(Relaxed) {
        let piece = slice(seed, position, 100);
        to.write_all(piece).unwrap();
        position += piece.len() as u64;
        std::thread::park_timeout(Duration::from_millis(2));
    }
    to.shutdown(Shutdown::Write).unwrap();
    position
}

/// Receives stream `seed` to its end; how many bytes it were.
fn receive(mut from: TcpStream, seed: u64) -> Result<u64, String> {
    stay_on_first_cpu();
    let (mut checker, mut buffer) = (Checker::new(seed), vec![0; READ]);
    loop {
        for _ in 0..UNSEEN {
            // With MSG_TRUNC the kernel drops the bytes of a stream, tcp(7).
            let dropped = recv(from.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC);
            match dropped.map_err(|error| error.to_string())? {
                0 => return Ok(checker.position),
                count => checker.position += count as u64,
            }
        }
        match from.read(&mut buffer).map_err(|error| error.to_string())? {
            0 => return Ok(checker.position),
            count => checker.take(&buffer[..count])?,
        }
    }
}

fn number(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("show activity lacks {name}"))
}

#[test]
fn streams_are_spliced_while_the_shard_has_no_time_left() {
    let _turn = turn::alone();
    if skip("its gauges are others") {
        return;
    }
    let (server, port) = (MockServer::hold(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body).shards(1).global("cpu-map 1/1 1").start();
    let orders = Orders::default();
    std::thread::scope(|scope| {
        let _end = EndOnDrop(&orders);
        let both = (0..STREAMS).map(|seed| {
            let (client, held) = (client::connect_port(port), server.next());
            let orders = &orders;
            let sender = scope.spawn(move || send(held, seed, orders, seed == 0));
            (sender, scope.spawn(move || receive(client, seed)))
        });
        let both: Vec<_> = both.collect();
        // Whatever else runs on that CPU keeps the shard from using all of it.
        let spliced = wait_for(Duration::from_secs(120), || {
            (number(&balancer, "spliced_bytes") > 64 << 20).then_some(())
        });
        assert!(spliced.is_some(), "not within two minutes");
        assert!(number(&balancer, "splice_promotions") > 0);
        orders.enough.store(true, Relaxed);
        eventually("what is left is copied", || {
            number(&balancer, "splice_demotions") > 0
        });
        orders.end.store(true, Relaxed);
        for (sender, receiver) in both {
            assert_eq!(receiver.join().unwrap(), Ok(sender.join().unwrap()));
        }
    });
    balancer.settle();
}
