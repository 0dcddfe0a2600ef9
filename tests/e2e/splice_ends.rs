//! Spliced streams end as copied ones do, wherever their bytes are: in the source's socket, in a
//! pipe, in the sink's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::client::{self, End, connect_port};
use crate::support::port::{free_port, listeners_on};
use crate::support::{
    Balancer, MockServer, Stopwatch, balancer::Setup, eventually, is_tidegate, skip, stream, turn,
};

/// Both directions are spliced from their first byte on, or when they are found to be bulk.
const ALWAYS: &str = "    option splice-request\n    option splice-response\n";
const AUTO: &str = "    option splice-auto\n";

struct Stage {
    balancer: Balancer,
    server: MockServer,
    port: u16,
}

impl Stage {
    fn new(lines: &str) -> Stage {
        Stage::with(lines, "", |setup| setup)
    }

    fn with(lines: &str, parameters: &str, change: impl Fn(Setup) -> Setup) -> Stage {
        let (server, port) = (MockServer::hold(), free_port());
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port}\n{lines}    server s {} {parameters}\n",
            server.address()
        );
        let balancer = change(Setup::new(body).shards(1)).start();
        Stage {
            balancer,
            server,
            port,
        }
    }

    /// Both ends of a connection.
    fn open(&self) -> (TcpStream, TcpStream) {
        let client = connect_port(self.port);
        let server = self.server.next();
        (client, server)
    }

    /// Writes stream `seed` until nothing more is taken; the bytes written.
    fn fill(&self, stream: &TcpStream, seed: u64) -> u64 {
        stream.set_nonblocking(true).unwrap();
        let (mut written, mut full) = (0, Stopwatch::start());
        eventually("the way is full", || {
            loop {
                let piece = stream::slice(seed, written, 64 << 10);
                match (&*stream).write(piece) {
                    Ok(count) => {
                        written += count as u64;
                        full = Stopwatch::start();
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("fill: {error}"),
                }
            }
            full.ms() > 100
        });
        stream.set_nonblocking(false).unwrap();
        if is_tidegate() {
            eventually("a pipe holds bytes", || self.balancer.info("PipesUsed") > 0);
        }
        written
    }

    fn settle(self) {
        self.balancer.settle();
        if is_tidegate() {
            assert_eq!(self.balancer.info("PipesUsed"), 0);
            let spliced = self.balancer.activity().number("spliced_bytes");
            assert!(spliced > Some(0), "nothing was spliced");
        }
    }
}

/// Sends and reads stream `seed` at the same time.
fn pass(from: &TcpStream, to: &TcpStream, seed: u64, length: u64) {
    std::thread::scope(|scope| {
        scope.spawn(|| stream::send(&mut &*from, seed, length).unwrap());
        stream::receive(&mut &*to, seed, length).unwrap();
    });
}

/// Reads stream `seed` to whatever end it has.
fn drain(mut stream: &TcpStream, seed: u64) -> (u64, End) {
    let mut checker = stream::Checker::new(seed);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (checker.position, End::Fin),
            Ok(count) => checker.take(&buffer[..count]).unwrap(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (checker.position, End::Reset);
            }
            Err(error) => panic!("after {} bytes: {error}", checker.position),
        }
    }
}

/// Before a byte, at the first one, before and after it is found to be bulk.
const POINTS: [u64; 5] = [0, 1, 40_000, 400_000, 3 << 20];

/// Both ways of a connection: who sends first.
fn ways(stage: &Stage) -> [(TcpStream, TcpStream); 2] {
    let (client, server) = stage.open();
    let (other_client, other_server) = stage.open();
    [(client, server), (other_server, other_client)]
}

#[test]
fn a_half_close_is_passed_on_at_every_point_and_the_other_way_goes_on() {
    let _turn = turn::shared();
    for lines in [ALWAYS, AUTO] {
        let stage = Stage::new(lines);
        for point in POINTS {
            for (from, to) in ways(&stage) {
                if point == 0 {
                    // A client that leaves without a byte wants nothing, as HAProxy has it.
                    pass(&from, &to, 1, 1);
                }
                pass(&from, &to, 2, point);
                from.shutdown(Shutdown::Write).unwrap();
                assert_eq!(drain(&to, 2), (0, End::Fin), "{point} bytes");
                pass(&to, &from, 3, 2 << 20);
                drop(to);
                assert_eq!(drain(&from, 3), (0, End::Fin), "{point} bytes");
            }
        }
        stage.settle();
    }
}

#[test]
fn a_reset_is_passed_on_at_every_point_after_what_came_before() {
    let _turn = turn::shared();
    if skip("it passes a reset on as a FIN") {
        return;
    }
    for lines in [ALWAYS, AUTO] {
        let stage = Stage::new(lines);
        for point in POINTS {
            for (from, to) in ways(&stage) {
                pass(&from, &to, 1, 1);
                pass(&from, &to, 2, point);
                client::reset(from);
                let noticed = Stopwatch::start();
                assert_eq!(drain(&to, 2), (0, End::Reset), "{point} bytes");
                noticed.assert_within(0, 1_500, "a reset");
            }
        }
        stage.settle();
    }
}

#[test]
fn what_is_in_a_pipe_arrives_before_the_end() {
    let _turn = turn::shared();
    let stage = Stage::new(ALWAYS);
    for (from, to) in ways(&stage) {
        pass(&from, &to, 1, 1);
        let written = stage.fill(&from, 4);
        from.shutdown(Shutdown::Write).unwrap();
        // The other way isn't held up by it.
        pass(&to, &from, 5, 1 << 20);
        assert_eq!(drain(&to, 4), (written, End::Fin));
    }
    stage.settle();
}

#[test]
fn a_reset_behind_a_full_pipe_is_no_clean_end() {
    let _turn = turn::shared();
    if skip("it passes a reset on as a FIN") {
        return;
    }
    let stage = Stage::new(ALWAYS);
    for (from, to) in ways(&stage) {
        pass(&from, &to, 1, 1);
        let written = stage.fill(&from, 4);
        client::reset(from);
        let (arrived, end) = drain(&to, 4);
        assert!(
            arrived <= written && end == End::Reset,
            "{arrived} of {written}, {end:?}"
        );
    }
    stage.settle();
}

/// What moves is waited for: a server that reads, though slowly, gets all that was received.
#[test]
fn what_came_before_a_reset_arrives_at_a_slow_server() {
    let _turn = turn::shared();
    if skip("it passes a reset on as a FIN") {
        return;
    }
    let stage = Stage::new(ALWAYS);
    let (client, server) = stage.open();
    pass(&client, &server, 1, 1);
    stage.fill(&client, 4);
    client::reset(client);
    let mut checker = stream::Checker::new(4);
    let mut buffer = vec![0; 64 << 10];
    let end = loop {
        match (&server).read(&mut buffer) {
            Ok(0) => break End::Fin,
            Ok(count) => checker.take(&buffer[..count]).unwrap(),
            Err(_) => break End::Reset,
        }
        std::thread::park_timeout(Duration::from_millis(10));
    };
    assert_eq!(end, End::Reset);
    drop(server);
    stage.balancer.settle();
    let received = stage.balancer.stat().number("l", "FRONTEND", "bin");
    assert_eq!(checker.position + 1, received);
    stage.settle();
}

#[test]
fn a_sink_that_goes_while_bytes_are_in_a_pipe_ends_the_session() {
    let _turn = turn::shared();
    if skip("it passes a reset on as a FIN") {
        return;
    }
    let stage = Stage::new(ALWAYS);
    for (from, to) in ways(&stage) {
        pass(&from, &to, 1, 1);
        stage.fill(&from, 4);
        let noticed = Stopwatch::start();
        client::reset(to);
        let (_, end) = drain(&from, 9);
        assert_eq!(end, End::Reset);
        noticed.assert_within(0, 1_500, "the death of a sink");
    }
    stage.settle();
}

/// The same stream through both engines, again and again.
#[test]
fn streams_are_whole_over_promotions_and_demotions() {
    const ROUNDS: u64 = 8;
    let _turn = turn::shared();
    let stage = Stage::new(AUTO);
    let (client, server) = stage.open();
    for round in 0..ROUNDS {
        std::thread::scope(|scope| {
            scope.spawn(|| pass(&client, &server, round, 3 << 20));
            pass(&server, &client, !round, 3 << 20);
        });
        for step in 0..12 {
            pass(&client, &server, step, 100);
            pass(&server, &client, !step, 3_000);
        }
    }
    if is_tidegate() {
        let activity = stage.balancer.activity();
        let [up, down] = ["splice_promotions", "splice_demotions"];
        assert!(activity.number(up) >= Some(ROUNDS), "{activity:?}");
        assert!(activity.number(down) >= Some(ROUNDS / 2), "{activity:?}");
    }
    drop((client, server));
    stage.settle();
}

#[test]
fn slow_readers_of_spliced_streams_get_all_of_it() {
    const LENGTH: u64 = 3 << 20;
    let _turn = turn::shared();
    let stage = Stage::new(ALWAYS);
    let pairs: Vec<_> = (0..30).map(|_| stage.open()).collect();
    std::thread::scope(|scope| {
        for (client, server) in &pairs {
            scope.spawn(move || stream::send(&mut &*server, 6, LENGTH).unwrap());
            scope.spawn(move || {
                let mut checker = stream::Checker::new(6);
                let mut buffer = vec![0; 9_000];
                while checker.position < LENGTH {
                    // A little at a time: the pipe is never empty for long.
                    let count = (&*client).read(&mut buffer).unwrap();
                    checker.take(&buffer[..count]).unwrap();
                    std::thread::yield_now();
                }
            });
        }
    });
    drop(pairs);
    stage.settle();
}

#[test]
fn timeouts_hold_for_spliced_sessions() {
    let _turn = turn::shared();
    let lines = format!("{ALWAYS}    timeout client 800ms\n    timeout server 800ms\n");
    let stage = Stage::new(&lines);
    // At rest, and with bytes in a pipe that nobody takes.
    let (client, server) = stage.open();
    pass(&client, &server, 1, 1 << 20);
    let (watch, patience) = (Stopwatch::start(), Duration::from_secs(10));
    client.set_read_timeout(Some(patience)).unwrap();
    assert_eq!(drain(&client, 9).0, 0);
    watch.assert_within(700, 4_000, "a timeout at rest");
    let (other, held) = stage.open();
    pass(&other, &held, 1, 1);
    stage.fill(&held, 4);
    let watch = Stopwatch::start();
    eventually("both are ended", || {
        stage.balancer.stat().number("l", "s", "scur") == 0
    });
    watch.assert_within(300, 4_000, "a timeout with a full pipe");
    drop((server, other, held));
    stage.settle();
}

#[test]
fn sessions_of_a_server_that_goes_down_end_with_their_pipes() {
    let _turn = turn::shared();
    if skip("it ends those that wait for a sink later") {
        return;
    }
    let mut checked = MockServer::silent();
    let parameters = format!(
        "check inter 200ms fall 1 rise 1 port {} on-marked-down shutdown-sessions",
        checked.address().port()
    );
    let stage = Stage::with(ALWAYS, &parameters, |setup| setup);
    let [(first, to), (second, from)] = ways(&stage);
    for pair in [(&first, &to), (&second, &from)] {
        pass(pair.0, pair.1, 1, 1);
        stage.fill(pair.0, 4);
    }
    checked.stop();
    eventually("its sessions are ended", || {
        stage.balancer.stat().number("l", "s", "scur") == 0
    });
    // Cut short, and it shows.
    for end in [&to, &from] {
        assert_eq!(drain(end, 4).1, End::Reset);
    }
    drop((first, second));
    stage.settle();
}

#[test]
fn a_soft_stop_waits_for_spliced_sessions() {
    let _turn = turn::shared();
    let stage = Stage::new(ALWAYS);
    let Stage {
        mut balancer,
        server,
        port,
    } = stage;
    let client = connect_port(port);
    let end = server.next();
    pass(&client, &end, 1, 1 << 20);
    balancer.signal(Signal::SIGUSR1);
    eventually("it listens no more", || listeners_on(port) == 0);
    pass(&client, &end, 2, 8 << 20);
    pass(&end, &client, 3, 8 << 20);
    assert!(balancer.is_running());
    drop((client, end));
    let status = balancer.wait_exit(Duration::from_secs(5));
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_proxy_header_comes_before_spliced_bytes() {
    let _turn = turn::shared();
    let stage = Stage::with(ALWAYS, "send-proxy", |setup| setup);
    let client = connect_port(stage.port);
    client::write(&client, b"x");
    let server = stage.server.next();
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(client::read_bytes(&server, 1));
    }
    assert!(
        line.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "),
        "{line:?}"
    );
    assert_eq!(client::read_bytes(&server, 1), b"x");
    pass(&client, &server, 2, 4 << 20);
    pass(&server, &client, 3, 4 << 20);
    drop((client, server));
    stage.settle();
}
