//! Directions that are spliced: the same bytes, ends, resets, timeouts and accounts as copied ones.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use crate::support::client::{self, End, local};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, Stopwatch, balancer::Setup, eventually, skip, stream, turn,
};

// The engine itself.

/// A balancer that splices whatever it can, with more lines for its proxy.
fn splicing(server: &MockServer, lines: &str, global: &str) -> (Balancer, u16) {
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    option splice-request\n    \
         option splice-response\n{lines}    server s {}\n",
        server.address()
    );
    let setup = Setup::new(body).shards(1);
    let setup = match global {
        "" => setup,
        line => setup.global(line),
    };
    (setup.start(), port)
}

/// What a sender sends that nobody reads from: more than all sockets on the way take.
const ENDLESS: u64 = 64 << 20;

/// A number of `show activity`.
fn number(balancer: &Balancer, name: &str) -> u64 {
    let number = balancer.activity().number(name);
    number.unwrap_or_else(|| panic!("show activity lacks {name}"))
}

/// Sends all of that and a FIN, or until the other end is gone, on a thread of its own.
fn send_endlessly(stream: &TcpStream, seed: u64) -> JoinHandle<io::Result<()>> {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        stream::send(&mut stream, seed, ENDLESS)?;
        stream.shutdown(Shutdown::Write)
    })
}

/// A session whose client reads nothing, with bytes in a pipe: both ends and the sender.
fn blocked(
    balancer: &Balancer,
    server: &MockServer,
    port: u16,
) -> (TcpStream, TcpStream, JoinHandle<io::Result<()>>) {
    let client = client::connect_port(port);
    let held = server.next();
    let sender = send_endlessly(&held, 7);
    eventually("bytes are in a pipe and stay there", || {
        number(balancer, "pipes_used") == 1
    });
    (client, held, sender)
}

#[test]
fn spliced_bytes_arrive_once_and_in_order_and_are_counted() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let (balancer, port) = splicing(&server, "", "");
    let sizes = [0, 1, 1 << 10, 65_537, 1 << 20, 64 << 20];
    for (seed, &size) in (1..).zip(&sizes) {
        client::exchange(local(port), size, size, seed)
            .unwrap_or_else(|e| panic!("{size} bytes both ways: {e}"));
    }
    balancer.settle();
    let stat = balancer.stat();
    let total: u64 = sizes.iter().sum();
    let count = sizes.len() as u64;
    assert_eq!(stat.number("l", "FRONTEND", "bin"), total + 24 * count);
    assert_eq!(stat.number("l", "BACKEND", "bout"), total + count);
    assert_eq!(stat.number("l", "s", "bin"), total + 24 * count);
    if skip("its gauges are others") {
        return;
    }
    let spliced = number(&balancer, "spliced_bytes");
    assert!(spliced > total, "{spliced} of twice {total}");
    assert_eq!(number(&balancer, "splice_unfit"), 0);
    // They are not kept for ever.
    eventually("pipes are given back", || {
        number(&balancer, "pipes_free") == 0
    });
}

#[test]
fn small_messages_are_spliced_too_where_that_is_asked_for() {
    let _turn = turn::shared();
    let server = MockServer::echo();
    let (balancer, port) = splicing(&server, "", "");
    let client = client::connect_port(port);
    for length in 1..500 {
        client::echo(&client, stream::slice(3, 0, length));
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client::read_end(&client), (Vec::new(), End::Fin));
    balancer.settle();
    if !skip("its gauges are others") {
        // Down from its first byte; up once a receive that was armed before has ended.
        assert!(number(&balancer, "spliced_bytes") > 499 * 500 / 2);
    }
}

#[test]
fn what_a_blocked_reader_leaves_in_a_pipe_arrives_before_the_end() {
    let _turn = turn::shared();
    if skip("it shows what is in its pipes otherwise") {
        return;
    }
    let server = MockServer::hold();
    let (balancer, port) = splicing(&server, "", "");
    let (mut client, held, sender) = blocked(&balancer, &server, port);
    drop(held);
    assert_eq!(stream::receive_to_end(&mut client, 7), Ok(ENDLESS));
    sender.join().unwrap().unwrap();
    drop(client);
    balancer.settle();
}

#[test]
fn a_reset_of_a_blocked_reader_is_passed_on_within_a_second() {
    let _turn = turn::shared();
    if skip("it shows what is in its pipes otherwise") {
        return;
    }
    let server = MockServer::hold();
    let (balancer, port) = splicing(&server, "", "");
    let (client, held, sender) = blocked(&balancer, &server, port);
    let clock = Stopwatch::start();
    client::reset(client);
    let error = sender.join().unwrap().unwrap_err();
    clock.assert_within(0, 1_000, "the server hears of it");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop(held);
    balancer.settle();
}

#[test]
fn a_reset_of_a_sender_that_is_held_back_is_passed_on() {
    let _turn = turn::shared();
    if skip("it shows what is in its pipes otherwise") {
        return;
    }
    let server = MockServer::hold();
    for (global, gauge) in [("", "pipes_used"), ("nosplice", "private_bytes")] {
        let (balancer, port) = splicing(&server, "", global);
        held_back(&balancer, &server, port, gauge);
        balancer.settle();
    }
}

/// The server's window isn't quite full yet: what the kernel's window probes go on bringing to it
/// doesn't count as moving.
fn held_back(balancer: &Balancer, server: &MockServer, port: u16, gauge: &str) {
    let client = client::connect_port(port);
    let held = server.next();
    let sender = send_endlessly(&client, 7);
    eventually("bytes are held and stay there", || {
        number(balancer, gauge) > 0
    });
    let clock = Stopwatch::start();
    // A zero linger and a shutdown of both ways: the thread's copy is reset as well.
    let linger = SockRef::from(&client).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    client.shutdown(Shutdown::Both).unwrap();
    assert!(sender.join().unwrap().is_err());
    drop(client);
    eventually("the session ends", || number(balancer, "sessions") == 0);
    clock.assert_within(0, 1_500, "the server is told");
    // What it hadn't taken is lost, and that shows.
    assert_eq!(client::read_end(&held).1, End::Reset);
}

#[test]
fn bytes_before_a_servers_reset_arrive_and_then_the_reset() {
    const ANSWER: u64 = 256 << 10;
    let _turn = turn::shared();
    let server = MockServer::hold();
    let (balancer, port) = splicing(&server, "", "");
    let mut client = client::connect_port(port);
    let mut held = server.next();
    stream::send(&mut held, 5, ANSWER).unwrap();
    eventually("the balancer has them", || {
        balancer.stat().number("l", "BACKEND", "bout") == ANSWER
    });
    client::reset(held);
    stream::receive(&mut client, 5, ANSWER).unwrap();
    assert_eq!(client::read_end(&client), (Vec::new(), End::Reset));
    drop(client);
    balancer.settle();
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_reset() {
    let _turn = turn::shared();
    if skip("it shows what is in its pipes otherwise") {
        return;
    }
    let server = MockServer::hold();
    let (balancer, port) = splicing(&server, "    timeout client 700ms\n", "");
    let (client, held, sender) = blocked(&balancer, &server, port);
    // Now only what it doesn't take can run out of time.
    client.shutdown(Shutdown::Write).unwrap();
    eventually("the session ends", || number(&balancer, "sessions") == 0);
    assert!(sender.join().unwrap().is_err());
    // Cut short, it must not look complete.
    assert_eq!(client::read_end(&client).1, End::Reset);
    drop((client, held));
    balancer.settle();
}

#[test]
fn a_session_with_bytes_in_a_pipe_can_be_ended() {
    let _turn = turn::shared();
    if skip("it shows what is in its pipes otherwise") {
        return;
    }
    let server = MockServer::hold();
    let (balancer, port) = splicing(&server, "", "");
    let (client, held, sender) = blocked(&balancer, &server, port);
    balancer.stats("shutdown sessions server l/s");
    assert!(sender.join().unwrap().is_err());
    assert_eq!(client::read_end(&client).1, End::Reset);
    drop((client, held));
    balancer.settle();
}

#[test]
fn who_gets_no_pipe_is_copied() {
    let _turn = turn::shared();
    if skip("it shows what is in its pipes otherwise") {
        return;
    }
    let server = MockServer::hold();
    let (balancer, port) = splicing(&server, "", "maxpipes 1");
    // It goes over to splicing while the one pipe is free.
    let mut other = client::connect_port(port);
    let mut other_held = server.next();
    stream::send(&mut other_held, 9, 10).unwrap();
    stream::receive(&mut other, 9, 10).unwrap();
    let (mut client, held, sender) = blocked(&balancer, &server, port);
    let before = number(&balancer, "pipes_refused");
    let length = 4 << 20;
    let sending = std::thread::spawn(move || stream::send(&mut other_held, 8, length));
    stream::receive(&mut other, 8, length).unwrap();
    sending.join().unwrap().unwrap();
    assert!(number(&balancer, "pipes_refused") > before);
    assert_eq!(number(&balancer, "pipes_used"), 1);
    drop(held);
    assert_eq!(stream::receive_to_end(&mut client, 7), Ok(ENDLESS));
    sender.join().unwrap().unwrap();
    drop((client, other));
    balancer.settle();
}

/// Splice stops in front of an urgent byte for good, while polls go on saying that there is
/// something: who sends one must not keep a shard busy, whichever side it is.
#[test]
fn urgent_data_does_not_stop_a_spliced_stream() {
    let _turn = turn::shared();
    let server = MockServer::hold();
    for from_client in [true, false] {
        let (balancer, port) = splicing(&server, "", "");
        let (client, held) = (client::connect_port(port), server.next());
        let (mut from, mut to) = match from_client {
            true => (client, held),
            false => (held, client),
        };
        // Enough for the receive that was armed before the server was there.
        let length = 256 << 10;
        let mut sending = from.try_clone().unwrap();
        let sender = std::thread::spawn(move || stream::send(&mut sending, 4, length));
        stream::receive(&mut to, 4, length).unwrap();
        sender.join().unwrap().unwrap();
        SockRef::from(&from).send_out_of_band(b"!").unwrap();
        from.write_all(b"what follows").unwrap();
        assert_eq!(client::read_bytes(&to, 12), b"what follows");
        from.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client::read_end(&to), (Vec::new(), End::Fin));
        if !skip("its gauges are others") {
            assert_eq!(number(&balancer, "splice_unfit"), 1);
        }
        drop((from, to));
        balancer.settle();
    }
}
