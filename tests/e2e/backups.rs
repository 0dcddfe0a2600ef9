//! Backup servers serve while no other server is usable, and only then; `minconn` and `maxqueue`.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Duration;

use crate::spread::{count_sequential, named, sorted};
use crate::support::balancer::Setup;
use crate::support::client::{self, ask_name, connect_port, local, read_bytes, write};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, turn, wait_for};

/// How servers of these tests are checked.
const CHECK: &str = "check inter 100 fall 2 rise 2";

/// A `listen` that logs, of these lines.
fn balancer(port: u16, syslog: &Syslog, lines: &str) -> Balancer {
    Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} local0\n    balance roundrobin\n    \
         retries 0\n{lines}",
        syslog.address()
    ))
}

/// Waits until a server answers and sees that it goes on to.
fn serves(port: u16, name: &str) {
    eventually(name, || ask_name(local(port)).as_deref() == Ok(name));
    for _ in 0..5 {
        assert_eq!(ask_name(local(port)).unwrap(), name);
    }
}

/// Status, `act` and `bck` of a row.
fn row(balancer: &Balancer, server: &str) -> (String, u64, u64) {
    let stat = balancer.stat();
    (
        stat.text("l", server, "status").to_owned(),
        stat.number("l", server, "act"),
        stat.number("l", server, "bck"),
    )
}

#[test]
fn a_backup_takes_over_and_gives_back() {
    let _turn = turn::shared();
    let backup = format!("{CHECK} backup weight 7");
    let (mut servers, lines) = named(&[CHECK, &backup]);
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = balancer(port, &syslog, &lines);
    serves(port, "s1");
    assert_eq!(row(&balancer, "s1"), ("UP".to_owned(), 1, 0));
    assert_eq!(row(&balancer, "s2"), ("UP".to_owned(), 0, 1));
    assert_eq!(row(&balancer, "BACKEND"), ("UP".to_owned(), 1, 1));
    assert_eq!(balancer.stat().number("l", "BACKEND", "weight"), 1);
    servers[0].stop();
    let line = syslog.wait_line("Server l/s1 is DOWN");
    let end = "0 active and 1 backup servers left. Running on backup. 0 sessions active, 0 \
               requeued, 0 remaining in queue.";
    assert!(line.ends_with(end), "{line}");
    serves(port, "s2");
    assert_eq!(row(&balancer, "BACKEND"), ("UP".to_owned(), 0, 1));
    assert_eq!(balancer.stat().number("l", "BACKEND", "weight"), 7);
    servers[0].restart();
    let line = syslog.wait_line("Server l/s1 is UP");
    let end = "1 active and 1 backup servers online. 0 sessions requeued, 0 total in queue.";
    assert!(line.ends_with(end), "{line}");
    serves(port, "s1");
    assert_eq!(row(&balancer, "BACKEND"), ("UP".to_owned(), 1, 1));
    balancer.settle();
}

#[test]
fn backups_serve_one_after_the_other() {
    let _turn = turn::shared();
    let backup = format!("{CHECK} backup");
    let (mut servers, lines) = named(&[CHECK, &backup, &backup, &backup]);
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = balancer(port, &syslog, &lines);
    serves(port, "s1");
    for (index, next) in [(0, "s2"), (1, "s3"), (2, "s4")] {
        servers[index].stop();
        syslog.wait_line(&format!("Server l/s{} is DOWN", index + 1));
        serves(port, next);
    }
    let line = syslog.wait_line("Backup Server l/s3 is DOWN");
    let counts = "0 active and 1 backup servers left. Running on backup.";
    assert!(line.contains(counts), "{line}");
    servers[3].stop();
    let line = syslog.wait_line("Backup Server l/s4 is DOWN");
    assert!(
        line.contains("0 active and 0 backup servers left. 0"),
        "{line}"
    );
    let line = syslog.wait_line("has no server available!");
    // local0.emerg = 16 * 8 + 0.
    assert!(line.starts_with("<128>"), "{line}");
    assert!(line.ends_with("proxy l has no server available!"), "{line}");
    eventually("the backend is down", || {
        row(&balancer, "BACKEND") == ("DOWN".to_owned(), 0, 0)
    });
    assert_eq!(balancer.stat().number("l", "BACKEND", "chkdown"), 1);
    assert!(ask_name(local(port)).is_err());
    // A later backup serves until an earlier one is back.
    servers[2].restart();
    let line = syslog.wait_line("Backup Server l/s3 is UP");
    let counts = "0 active and 1 backup servers online. Running on backup.";
    assert!(line.contains(counts), "{line}");
    serves(port, "s3");
    servers[1].restart();
    syslog.wait_line("Backup Server l/s2 is UP");
    serves(port, "s2");
    balancer.settle();
}

#[test]
fn all_backups_share_by_weight_where_told() {
    let _turn = turn::shared();
    let (_servers, lines) = named(&["backup weight 3", "backup weight 2", "backup weight 1"]);
    let (syslog, port, nobody) = (Syslog::start(), free_port(), free_port());
    let dead = format!("    server dead 127.0.0.1:{nobody} {CHECK}\n");
    let lines = format!("    option allbackups\n{dead}{lines}");
    let balancer = balancer(port, &syslog, &lines);
    let line = syslog.wait_line("Server l/dead is DOWN");
    assert!(
        line.contains("0 active and 3 backup servers left."),
        "{line}"
    );
    let counts = count_sequential(port, 60);
    assert_eq!(sorted(&counts), [30, 20, 10], "{counts:?}");
    assert_eq!(balancer.stat().number("l", "BACKEND", "weight"), 6);
    balancer.settle();
}

#[test]
fn a_session_stays_on_the_backup_it_began_on() {
    let _turn = turn::shared();
    let (mut active, backup) = (MockServer::echo(), MockServer::echo());
    let (syslog, port) = (Syslog::start(), free_port());
    let lines = format!(
        "    server a {} {CHECK}\n    server b {} backup\n",
        active.address(),
        backup.address()
    );
    let balancer = balancer(port, &syslog, &lines);
    active.stop();
    syslog.wait_line("Server l/a is DOWN");
    let stays = connect_port(port);
    client::echo(&stays, b"before");
    active.restart();
    syslog.wait_line("Server l/a is UP");
    let newcomer = connect_port(port);
    client::echo(&newcomer, b"new");
    let open = |server: &str| balancer.stat().number("l", server, "scur");
    assert_eq!((open("a"), open("b")), (1, 1));
    client::echo(&stays, b"after");
    drop((stays, newcomer));
    balancer.settle();
}

#[test]
fn a_full_active_server_is_waited_for() {
    let _turn = turn::shared();
    let (active, backup) = (MockServer::hold(), MockServer::hold());
    let (syslog, port) = (Syslog::start(), free_port());
    let lines = format!(
        "    server a {} maxconn 1\n    server b {} backup\n",
        active.address(),
        backup.address()
    );
    let balancer = balancer(port, &syslog, &lines);
    let first = connect_port(port);
    let first_end = active.next();
    let second = connect_port(port);
    eventually("the second waits", || {
        balancer.stat().number("l", "BACKEND", "qcur") == 1
    });
    drop((first, first_end));
    let second_end = active.next();
    write(&second, b"?");
    assert_eq!(read_bytes(&second_end, 1), b"?");
    assert_eq!(backup.accepted(), 0);
    drop((second, second_end));
    balancer.settle();
}

/// The limit is half the backend's sessions here: `maxconn` 10 at `fullconn` 20.
#[test]
fn connections_grow_from_minconn_to_maxconn() {
    let _turn = turn::shared();
    let (server, syslog, port) = (MockServer::hold(), Syslog::start(), free_port());
    let lines = format!(
        "    fullconn 20\n    server a {} minconn 2 maxconn 10\n",
        server.address()
    );
    let balancer = balancer(port, &syslog, &lines);
    assert_eq!(balancer.stat().number("l", "BACKEND", "slim"), 20);
    let count = |row: &str| balancer.stat().number("l", row, "scur");
    let (mut clients, mut ends) = (BTreeMap::new(), Vec::new());
    let mut numbers = 0u64..;
    let mut open_up_to = |clients: &mut BTreeMap<u64, TcpStream>, total: u64| {
        while clients.len() as u64 != total {
            let number = numbers.next().unwrap();
            let client = connect_port(port);
            write(&client, &number.to_be_bytes());
            clients.insert(number, client);
        }
        eventually("all are in the backend", || count("BACKEND") == total);
    };
    for (total, limit) in [(5, 2), (9, 4), (13, 6), (21, 10), (25, 10)] {
        open_up_to(&mut clients, total);
        // One goes and one comes: HAProxy looks at the limit only when a session ends.
        let end = ends.pop().unwrap_or_else(|| server.next());
        let number = u64::from_be_bytes(read_bytes(&end, 8).try_into().unwrap());
        drop((end, clients.remove(&number).unwrap()));
        eventually("it is gone", || count("BACKEND") == total - 1);
        open_up_to(&mut clients, total);
        eventually("the limit is reached", || count("a") == limit);
        let more = || (count("a") > limit).then_some(());
        assert!(
            wait_for(Duration::from_millis(100), more).is_none(),
            "{total}"
        );
        while (ends.len() as u64) < limit {
            ends.push(server.next());
        }
    }
    drop((clients, ends, server));
    balancer.settle();
}

#[test]
fn a_backend_is_full_at_a_tenth_of_what_its_frontends_bring() {
    let _turn = turn::shared();
    let [one, two, three, nobody] = [(); 4].map(|()| free_port());
    let body = format!(
        "frontend f1\n    bind 127.0.0.1:{one}\n    maxconn 77\n    default_backend b\n\
         frontend f2\n    bind 127.0.0.1:{two}\n    default_backend b\n\
         backend b\n    server s 127.0.0.1:{nobody}\nbackend unused\n    \
         server s 127.0.0.1:{nobody}\n\
         listen l\n    bind 127.0.0.1:{three}\n    maxconn 30\n    fullconn 12\n    \
         server s 127.0.0.1:{nobody}\n"
    );
    let balancer = Setup::new(body).global("maxconn 1000").start();
    let full = |name: &str| balancer.stat().number(name, "BACKEND", "slim");
    assert_eq!((full("b"), full("unused"), full("l")), (108, 1, 12));
    balancer.settle();
}

/// `balance source` makes a client wait for its server; beyond `maxqueue` it takes another one.
#[test]
fn more_than_maxqueue_do_not_wait_for_their_server() {
    let _turn = turn::shared();
    if crate::support::skip("HAProxy's queue of a server has other rules") {
        return;
    }
    let (one, two, port) = (MockServer::hold(), MockServer::hold(), free_port());
    let limits = "maxconn 1 maxqueue 2";
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance source\n    \
         server a {} {limits}\n    server b {} {limits}\n",
        one.address(),
        two.address()
    ));
    let queued = |row: &str| balancer.stat().number("l", row, "qcur");
    let first = connect_port(port);
    eventually("one is served", || one.accepted() + two.accepted() == 1);
    let (home, name) = if one.accepted() == 1 {
        (&one, "a")
    } else {
        (&two, "b")
    };
    let other = if name == "a" { &two } else { &one };
    let waiting = [connect_port(port), connect_port(port)];
    eventually("two wait for it", || queued(name) == 2);
    assert_eq!(other.accepted(), 0);
    let elsewhere = connect_port(port);
    eventually("the third goes elsewhere", || other.accepted() == 1);
    let any = connect_port(port);
    eventually("the fourth waits for any", || queued("BACKEND") == 3);
    assert_eq!((queued(name), home.accepted()), (2, 1));
    drop((first, waiting, elsewhere, any));
    drop((one, two));
    balancer.settle();
}
