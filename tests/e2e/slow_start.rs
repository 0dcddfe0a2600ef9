//! Servers that were down get their share, their limit and their connections back bit by bit.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::spread::{count_sequential, named};
use crate::support::client::{End, ask_name, connect_port, local, read_bytes, read_end, write};
use crate::support::port::free_port;
use crate::support::stats::Stat;
use crate::support::{
    Balancer, MockServer, StopOnDrop, Stopwatch, Syslog, eventually, is_tidegate, skip, turn,
    wait_for,
};

const CHECK: &str = "check inter 100 fall 2 rise 2";

/// Why HAProxy is left out.
const OURS: &str = "the parameter is Tidegate's own";

/// Moments in milliseconds.
type Moments = Arc<Mutex<Vec<u64>>>;

/// A server that notes when sessions begin, by their first byte, and sends it back. Checks send
/// none.
fn noting(watch: Stopwatch) -> (MockServer, Moments) {
    let moments = Moments::default();
    let noted = Arc::clone(&moments);
    let server = MockServer::start(move |mut stream: TcpStream| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        let mut moments = noted.lock().unwrap_or_else(PoisonError::into_inner);
        moments.push(watch.ms());
        drop(moments);
        let _ = stream.write_all(&byte);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    (server, moments)
}

fn noted(moments: &Moments) -> Vec<u64> {
    let mut moments = moments
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    moments.sort_unstable();
    moments
}

/// Takes a server away and brings it back; returns when the balancer has seen both.
fn returns(balancer: &Balancer, server: &mut MockServer, name: &str) {
    let status = || balancer.stat().text("l", name, "status").to_owned();
    server.stop();
    eventually("it is down", || status().starts_with("DOWN"));
    server.restart();
    eventually("it is up", || status() == "UP");
}

/// No more than `rate` a second and a filling of the allowance come to a server that was started
/// again at `from`, as long as its slow start may last. What is noted late counts later, so neither
/// a busy machine nor a late check makes it more.
fn assert_rate(moments: &[u64], from: u64, lasts_ms: u64, rate: u64) {
    let filling = rate.div_ceil(10);
    let after: Vec<u64> = moments.iter().map(|ms| ms.saturating_sub(from)).collect();
    let within = after.iter().take_while(|ms| **ms < lasts_ms);
    for (before, ms) in (0..).zip(within.clone()) {
        let most = filling + rate * ms / 1_000;
        assert!(before < most, "{} by {ms} ms: {after:?}", before + 1);
    }
    // In any second; three more fillings for what is noted up to 300 ms late.
    let within: Vec<u64> = within.copied().collect();
    for (index, start) in within.iter().enumerate() {
        let second = within[index..].iter().take_while(|ms| **ms < start + 1_000);
        let count = second.count() as u64;
        assert!(
            count <= rate + 4 * filling,
            "{count} from {start} ms on: {after:?}"
        );
    }
}

#[test]
fn weight_and_throttle_grow_to_the_whole() {
    let _turn = turn::shared();
    let slow = format!("weight 100 {CHECK} slowstart 3s");
    let (mut servers, lines) = named(&[&slow, "weight 100"]);
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    balance roundrobin\n{lines}",
        syslog.address()
    ));
    // Nothing of the kind at the start.
    assert_eq!(balancer.stat().text("l", "s1", "throttle"), "");
    returns(&balancer, &mut servers[0], "s1");
    let watch = Stopwatch::start();
    let mut seen: Vec<[u64; 2]> = Vec::new();
    let ended = wait_for(Duration::from_secs(10), || {
        let stat = balancer.stat();
        let now = ["throttle", "weight"].map(|column| stat.number("l", "s1", column));
        assert_eq!(stat.number("l", "s1", "uweight"), 100);
        if stat.text("l", "s1", "throttle").is_empty() {
            assert_eq!(now[1], 100);
            return Some(());
        }
        let sums = ["weight", "uweight"].map(|column| stat.number("l", "BACKEND", column));
        assert_eq!(sums, [100 + now[1], 200]);
        seen.push(now);
        None
    });
    assert!(ended.is_some(), "it ends");
    watch.assert_within(2_000, 6_000, "slowstart");
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(
        seen.iter()
            .all(|[throttle, weight]| throttle.abs_diff(*weight) <= 1)
    );
    assert!(seen[0][0] < 60, "{seen:?}");
    seen.dedup();
    assert!(seen.len() >= 3, "{seen:?}");
    assert_eq!(balancer.stat().number("l", "BACKEND", "weight"), 200);
    // HAProxy says twice that the server is up: when it is, and when it has its whole weight.
    syslog.wait_line("Server l/s1 is UP, reason: Layer4 check passed");
    syslog.wait_line("Server l/s1 is UP. 2 active and 0 backup servers online.");
    balancer.settle();
}

/// The steps of "Gradual recovery": 10, 25, 50, 75 and 100 % of its share.
#[test]
fn a_returning_server_gets_exactly_the_parts_of_its_steps() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let slow = format!("{CHECK} slowstart 10s slowstart-steps 10,25,50,75,100");
    let (mut servers, lines) = named(&[&slow, "", ""]);
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance roundrobin\n{lines}"
    ));
    returns(&balancer, &mut servers[0], "s1");
    let throttle = || balancer.stat().number("l", "s1", "throttle");
    let mut measured = Vec::new();
    for step in [10, 25, 50, 75, 100] {
        // On a busy machine it may be over before it is looked at.
        let reached = wait_for(Duration::from_secs(30), || {
            let now = throttle();
            (now >= step || now == 0).then_some(())
        });
        assert!(reached.is_some(), "{step} %");
        // A whole round: whichever turn is first, it has so many of this server's.
        let counts = count_sequential(port, 200 + u32::try_from(step).unwrap());
        // If the next step began meanwhile there is nothing to be said.
        if throttle() == step {
            assert_eq!(u64::from(counts["s1"]), step, "{counts:?}");
            assert_eq!([counts["s2"], counts["s3"]], [100, 100]);
            measured.push(step);
        }
    }
    assert!(!measured.is_empty(), "every step was over too soon");
    let ended = wait_for(Duration::from_secs(30), || (throttle() == 0).then_some(()));
    assert!(ended.is_some());
    let mut counts: Vec<u32> = count_sequential(port, 100).into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [33, 33, 34]);
    balancer.settle();
}

#[test]
fn the_limit_of_connections_grows_and_those_that_wait_get_the_room() {
    let _turn = turn::shared();
    let mut server = MockServer::echo();
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    timeout queue 20s\n    \
         server s {} {CHECK} maxconn 10 slowstart 3s\n",
        server.address()
    ));
    returns(&balancer, &mut server, "s");
    let clients: Vec<TcpStream> = (0..10)
        .map(|_| {
            let client = connect_port(port);
            write(&client, b"x");
            client
        })
        .collect();
    let mut seen = Vec::new();
    let all = wait_for(Duration::from_secs(10), || {
        let stat = balancer.stat();
        let [percent, open, limit] =
            ["throttle", "scur", "slim"].map(|column| stat.number("l", "s", column));
        assert_eq!(limit, 10);
        let whole = stat.text("l", "s", "throttle").is_empty();
        if is_tidegate() && !whole {
            assert!(open <= (10 * percent / 100).max(1), "{open} at {percent} %");
        }
        seen.push(open);
        (open == 10).then_some(())
    });
    assert!(all.is_some(), "{seen:?}");
    assert!(seen[0] < 10 && seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert!(seen.len() >= 3, "{seen:?}");
    for client in &clients {
        assert_eq!(read_bytes(client, 1), b"x");
    }
    drop(clients);
    balancer.settle();
}

/// The only server there is: everybody else waits, and nobody is lost.
#[test]
fn new_connections_come_at_no_more_than_the_rate() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let watch = Stopwatch::start();
    let (mut server, moments) = noting(watch);
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    timeout queue 20s\n    \
         server s {} {CHECK} slowstart 3s slowstart-connrate 20\n",
        server.address()
    ));
    server.stop();
    eventually("it is down", || {
        balancer.stat().text("l", "s", "status").starts_with("DOWN")
    });
    let from = watch.ms();
    server.restart();
    eventually("it is up", || {
        balancer.stat().text("l", "s", "status") == "UP"
    });
    let clients: Vec<TcpStream> = (0..150)
        .map(|_| {
            let client = connect_port(port);
            write(&client, b"x");
            client
        })
        .collect();
    eventually("most wait", || {
        balancer.stat().number("l", "BACKEND", "qcur") > 100
    });
    for client in &clients {
        assert_eq!(read_bytes(client, 1), b"x");
    }
    let moments = noted(&moments);
    assert_eq!(moments.len(), 150);
    assert_rate(&moments, from, 3_000, 20);
    // Three seconds allow sixty; a busy machine may cost some.
    let first = moments[0];
    let slowly = moments.iter().filter(|ms| **ms < first + 2_700).count();
    assert!((20..=60).contains(&slowly), "{slowly} in the slow start");
    drop(clients);
    balancer.settle();
}

/// Ten servers fail at once and return one after the other under a load that would flood the first
/// of them.
#[test]
fn servers_that_return_one_after_the_other_are_not_flooded() {
    const SERVERS: usize = 10;
    const CLIENTS: usize = 40;
    const RATE: u64 = 20;
    const LASTS_MS: u64 = 2_000;
    let _turn = turn::alone();
    if skip(OURS) {
        return;
    }
    let watch = Stopwatch::start();
    let (mut servers, moments): (Vec<_>, Vec<_>) = (0..SERVERS).map(|_| noting(watch)).unzip();
    let lines: String = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("    server s{index} {}\n", server.address()))
        .collect();
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance leastconn\n    timeout queue 20s\n    \
         default-server {CHECK} slowstart {LASTS_MS}ms slowstart-connrate {RATE}\n{lines}"
    ));
    servers.iter_mut().for_each(MockServer::stop);
    eventually("all are down", || {
        balancer.stat().text("l", "BACKEND", "status") == "DOWN"
    });
    let mut returned = Vec::new();
    let stop = AtomicBool::new(false);
    let exchanges: usize = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let mut clients = Vec::new();
        for (index, server) in servers.iter_mut().enumerate() {
            returned.push(watch.ms());
            server.restart();
            let name = format!("s{index}");
            eventually("it is up", || {
                balancer.stat().text("l", &name, "status") == "UP"
            });
            if index == 0 {
                let client = || {
                    scope.spawn(|| {
                        let mut exchanges = 0;
                        while !stop.load(SeqCst) {
                            let client = connect_port(port);
                            write(&client, b"x");
                            assert_eq!(read_bytes(&client, 1), b"x");
                            exchanges += 1;
                        }
                        exchanges
                    })
                };
                clients = (0..CLIENTS).map(|_| client()).collect();
            }
        }
        let whole = |stat: &Stat| {
            (0..SERVERS).all(|i| stat.text("l", &format!("s{i}"), "throttle").is_empty())
        };
        let ended = wait_for(Duration::from_secs(20), || {
            whole(&balancer.stat()).then_some(())
        });
        assert!(ended.is_some(), "all have their whole weight");
        stop.store(true, SeqCst);
        let joined = clients.into_iter().map(|client| client.join());
        joined.map(|n| n.expect("nobody is lost")).sum()
    });
    let mut served = 0;
    for (moments, from) in moments.iter().zip(returned) {
        let moments = noted(moments);
        served += moments.len();
        assert!(moments.len() as u64 > RATE, "{moments:?}");
        assert_rate(&moments, from, LASTS_MS, RATE);
    }
    assert_eq!(served, exchanges);
    balancer.settle();
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "BACKEND", "econ"), 0, "{stat:?}");
}

#[test]
fn peak_ewma_spreads_and_leaves_alone_who_fails() {
    let _turn = turn::shared();
    if skip("the algorithm is Tidegate's own") {
        return;
    }
    let (mut servers, lines) = named(&["", "", ""]);
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance peak-ewma\n    retries 3\n    \
         option redispatch 1\n{lines}"
    ));
    let stat = balancer.stat();
    assert_eq!(stat.text("l", "BACKEND", "algo"), "peak-ewma");
    let clients: Vec<TcpStream> = (0..90).map(|_| connect_port(port)).collect();
    eventually("all are connected", || {
        servers.iter().map(MockServer::accepted).sum::<u64>() == 90
    });
    assert!(servers.iter().all(|server| server.accepted() > 0));
    drop(clients);
    balancer.settle();
    servers[1].stop();
    for _ in 0..60 {
        assert_ne!(ask_name(local(port)).unwrap(), "s2");
    }
    // It is tried once, or once by each shard at the same time.
    let failed = balancer.stat().number("l", "s2", "econ");
    assert!(failed <= 2, "{failed} failed connects");
    balancer.settle();
}

/// Under load ten servers fail together and return together: their circuits open and nobody tries
/// them; when they are back each gets its connections at no more than its rate, everybody is served
/// or refused, and in the end all of them have their whole share.
#[test]
fn ten_servers_that_fail_together_return_without_a_stampede() {
    const SERVERS: usize = 10;
    const CLIENTS: usize = 40;
    const RATE: u64 = 10;
    const LASTS_MS: u64 = 3_000;
    let _turn = turn::alone();
    if skip(OURS) {
        return;
    }
    let watch = Stopwatch::start();
    let (mut servers, moments): (Vec<_>, Vec<_>) = (0..SERVERS).map(|_| noting(watch)).unzip();
    let lines: String = servers
        .iter()
        .enumerate()
        .map(|(index, server)| format!("    server s{index} {}\n", server.address()))
        .collect();
    let (syslog, port) = (Syslog::start(), free_port());
    // No checks: what fails and what returns is found by circuits alone.
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    balance leastconn\n    \
         retries 2\n    option redispatch 1\n    timeout queue 20s\n    default-server max-fails 3 \
         fail-timeout 500ms slowstart {LASTS_MS}ms slowstart-connrate {RATE}\n{lines}",
        syslog.address()
    ));
    let [served, refused] = [(); 2].map(|()| AtomicU64::new(0));
    let attempts = || {
        let stat = balancer.stat();
        let errors = |index| stat.number("l", &format!("s{index}"), "econ");
        (0..SERVERS).map(errors).sum::<u64>()
    };
    let stop = AtomicBool::new(false);
    let returned = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let client = || {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let stream = connect_port(port);
                    // It may be refused before it has said anything.
                    let _ = (&stream).write_all(b"x");
                    let mut byte = [0];
                    let counter = match (&stream).read(&mut byte) {
                        Ok(1) if byte == *b"x" => &served,
                        Ok(0) => &refused,
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => &refused,
                        other => panic!("{other:?}: {byte:?}"),
                    };
                    counter.fetch_add(1, SeqCst);
                }
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
        let more = |counter: &AtomicU64, count| {
            let before = counter.load(SeqCst);
            eventually("clients come", || counter.load(SeqCst) >= before + count);
        };
        more(&served, 500);
        assert_eq!(refused.load(SeqCst), 0);
        servers.iter_mut().for_each(MockServer::stop);
        eventually("all are out", || syslog.count(" is DOWN, ") >= SERVERS);
        more(&refused, CLIENTS as u64);
        let before = attempts();
        more(&refused, 300);
        assert_eq!(attempts(), before, "a client tried a server that is out");
        let returned = watch.ms();
        servers.iter_mut().for_each(MockServer::restart);
        eventually("all are back", || syslog.count(" is UP, ") >= SERVERS);
        more(&served, 200);
        let whole = |stat: &Stat| {
            (0..SERVERS).all(|i| stat.text("l", &format!("s{i}"), "throttle").is_empty())
        };
        eventually("all have their whole share", || whole(&balancer.stat()));
        let refused_so_far = refused.load(SeqCst);
        more(&served, 500);
        assert_eq!(refused.load(SeqCst), refused_so_far);
        stop.store(true, SeqCst);
        for client in clients {
            client.join().expect("everybody is served or refused");
        }
        returned
    });
    let mut seen = 0;
    for (moments, index) in moments.iter().zip(0..) {
        let moments = noted(moments);
        seen += moments.len() as u64;
        let later: Vec<u64> = moments.into_iter().filter(|ms| *ms >= returned).collect();
        assert!(later.len() as u64 > RATE, "s{index}: {later:?}");
        assert_rate(&later, returned, LASTS_MS, RATE);
    }
    assert_eq!(seen, served.load(SeqCst));
    balancer.settle();
    let stat = balancer.stat();
    for index in 0..SERVERS {
        assert_eq!(stat.number("l", &format!("s{index}"), "chkdown"), 1);
    }
    assert_eq!(stat.number("l", "BACKEND", "qcur"), 0);
}

/// A slow start begins whatever took the server out: its circuit, the server that it tracks, its
/// agent, maintenance.
#[test]
fn every_way_back_is_a_slow_one() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (port, nobody) = (free_port(), free_port());
    let (mut tracked, mut server) = (MockServer::silent(), MockServer::named("s"));
    let word = Arc::new(Mutex::new("up\n"));
    let says = Arc::clone(&word);
    let agent = MockServer::start(move |mut stream: TcpStream| {
        let line = *says.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.write_all(line.as_bytes());
    });
    let slow = "weight 8 slowstart 2s slowstart-steps 50,100";
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    retries 0\n    \
         server traffic {} max-fails 1 fail-timeout 300ms {slow}\n\
         backend b\n    server t {} {CHECK}\n    \
         server tracking 127.0.0.1:{nobody} track t {slow}\n    \
         server asked 127.0.0.1:{nobody} agent-check agent-port {} agent-inter 100 {slow}\n",
        server.address(),
        tracked.address(),
        agent.address().port(),
    ));
    let cell = |(proxy, name): (&str, &str), column: &str| {
        let stat = balancer.stat();
        stat.text(proxy, name, column).to_owned()
    };
    let is_out = |server, word: &str| {
        eventually("it is out", || cell(server, "status").starts_with(word));
    };
    let returns_slowly = |server| {
        let numbers = || ["throttle", "weight"].map(|column| cell(server, column));
        eventually("it begins", || numbers() == ["50", "4"]);
        eventually("it is whole", || numbers() == ["", "8"]);
    };
    let [traffic, tracking, asked] = [("l", "traffic"), ("b", "tracking"), ("b", "asked")];
    for server in [traffic, tracking, asked] {
        assert_eq!(cell(server, "throttle"), "");
    }
    server.stop();
    let (bytes, _) = read_end(&connect_port(port));
    assert!(bytes.is_empty());
    is_out(traffic, "DOWN");
    server.restart();
    returns_slowly(traffic);
    tracked.stop();
    is_out(tracking, "DOWN");
    tracked.restart();
    returns_slowly(tracking);
    let say = |line| *word.lock().unwrap_or_else(PoisonError::into_inner) = line;
    for (out, status, back) in [("down\n", "DOWN", "up\n"), ("maint\n", "MAINT", "ready\n")] {
        say(out);
        is_out(asked, status);
        say(back);
        returns_slowly(asked);
    }
    balancer.settle();
}

/// Who can't be served at the rate in `timeout queue` is told so; the others are served.
#[test]
fn whoever_the_rate_keeps_waiting_too_long_is_let_go() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (mut server, syslog, port) = (MockServer::named("s"), Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    option tcplog\n    timeout \
         queue 700ms\n    server s {} {CHECK} slowstart 20s slowstart-connrate 5\n",
        syslog.address(),
        server.address()
    ));
    returns(&balancer, &mut server, "s");
    let clients: Vec<TcpStream> = (0..30).map(|_| connect_port(port)).collect();
    let watch = Stopwatch::start();
    let served = clients
        .iter()
        .filter(|client| match read_end(client) {
            (bytes, End::Fin) if bytes == b"s" => true,
            (bytes, _) if bytes.is_empty() => false,
            other => panic!("{other:?}"),
        })
        .count();
    watch.assert_within(600, 5_000, "timeout queue");
    // 700 ms at 5 a second, and what came before the first client.
    assert!((1..=8).contains(&served), "{served}");
    drop(clients);
    balancer.settle();
    let stat = balancer.stat();
    assert_eq!(stat.number("l", "s", "stot"), served as u64);
    eventually("all have their lines", || {
        syslog.count(" sQ ") == 30 - served
    });
}
