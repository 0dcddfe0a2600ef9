//! The tables of the runtime socket beside those of HAProxy, run with the same configuration: the
//! same columns in the same order, and the same values where nothing has happened yet.
//!
//! Where haproxy is absent the test says so and passes, unless `TIDEGATE_REQUIRE_PROGRAMS=1`.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::programs::programs;
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{connect_port, echo, read_end, reset};
use crate::support::port::{free_port, wait_listening};
use crate::support::runtime::exchange;
use crate::support::stats::Stat;
use crate::support::{Balancer, MockServer, eventually, skip, turn, wait_for};

/// HAProxy and the balancer beside each other; no client comes to either.
struct Pair {
    haproxy: Child,
    path: PathBuf,
    balancer: Balancer,
    _dir: TempDir,
}

impl Pair {
    /// `body` makes the proxies for a port of their own.
    fn start(body: impl Fn(u16) -> String) -> Option<Pair> {
        if skip("it would be compared with itself") {
            return None;
        }
        let [program] = programs(["haproxy"])?;
        let dir = TempDir::new();
        let setup = Setup::new(body(free_port()));
        let config = dir.write("haproxy.cfg", &setup.text(dir.path()));
        let mut command = Command::new(program);
        command
            .arg("-f")
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let haproxy = command.spawn().expect("start haproxy");
        let balancer = Balancer::start(body(free_port()));
        let path = dir.path().join("stats");
        let pair = Pair {
            haproxy,
            path,
            balancer,
            _dir: dir,
        };
        let answers = || {
            std::os::unix::net::UnixStream::connect(&pair.path)
                .ok()
                .map(|_| ())
        };
        assert!(
            wait_for(Duration::from_secs(20), answers).is_some(),
            "haproxy doesn't start"
        );
        Some(pair)
    }

    /// The answers of both to a command.
    fn ask(&self, command: &str) -> [String; 2] {
        let theirs = exchange(&self.path, format!("{command}\n"));
        [theirs, self.balancer.stats(command)]
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

fn body(port: u16) -> String {
    format!(
        "frontend fe\n    bind 127.0.0.1:{port} name here\n    option socket-stats\n    \
         bind 127.0.0.1:{more} maxconn 7\n    maxconn 100\n    default_backend be\n\
         backend be\n    id 77\n    balance roundrobin\n    fullconn 50\n    \
         server s1 127.0.0.1:1 weight 10 maxconn 20 maxqueue 7\n    \
         server s2 127.0.0.1:2 id 9 backup\n    server s3 127.0.0.1:3 disabled\n\
         listen l\n    bind 127.0.0.1:{other}\n    balance source\n    fullconn 50\n    \
         server s1 localhost:80 check port 99 addr 127.0.0.2 inter 1h disabled\n    \
         server s2 127.0.0.1:3 agent-check agent-port 5 agent-inter 1h disabled\n",
        other = free_port(),
        more = free_port()
    )
}

fn rows(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_lines_of_show_info_are_haproxys() {
    let _turn = turn::shared();
    let Some(pair) = Pair::start(body) else {
        return;
    };
    let [theirs, ours] = pair.ask("show info typed");
    // Place, name and type of each line; theirs has three letters of tags, ours the fourth of 3.x.
    let parse = |text: &str| -> BTreeMap<usize, (String, String, String)> {
        let line = |line: &str| {
            let (place, rest) = line.split_once(':').unwrap();
            let (at, name) = place.split_once('.').unwrap();
            let name = name.strip_suffix(".1").unwrap().to_owned();
            let mut parts = rest.split(':');
            let tags = parts.next().unwrap()[..3].to_owned();
            (
                at.parse().unwrap(),
                (name, tags, parts.next().unwrap().to_owned()),
            )
        };
        rows(text).into_iter().map(line).collect()
    };
    let (theirs, ours) = (parse(&theirs), parse(&ours));
    assert!(theirs.len() > 60, "{theirs:?}");
    for (at, mut line) in theirs {
        // 2.6 has a slip of the pen there.
        line.0 = line.0.replace("Splicded", "Spliced");
        assert_eq!(ours.get(&at), Some(&line), "{at}");
    }
    pair.balancer.settle();
}

#[test]
fn the_table_of_show_stat_has_haproxys_columns() {
    let _turn = turn::shared();
    let Some(pair) = Pair::start(body) else {
        return;
    };
    let [theirs, ours] = pair.ask("show stat");
    let header = |text: &str| -> Vec<String> {
        let line = rows(text)[0].strip_prefix("# ").unwrap().to_owned();
        line.split(',')
            .take_while(|name| *name != "-")
            .map(str::to_owned)
            .collect()
    };
    let (names, own) = (header(&theirs), header(&ours));
    assert!(names.len() > 90, "{theirs}");
    // What 2.6 has is where it was in every later version.
    let known = names.iter().take_while(|name| *name != "h1sess").count();
    assert_eq!(own[..known.min(100)], names[..known.min(100)]);

    let cells = |text: &str| -> Vec<Vec<String>> {
        let line = |line: &&str| line.split(',').map(str::to_owned).collect();
        rows(text)[1..].iter().map(line).collect()
    };
    let (theirs, ours) = (cells(&theirs), cells(&ours));
    assert_eq!(theirs.len(), ours.len());
    // What depends on the moment, on addresses or on later versions' ideas.
    let free = [
        "lastchg",
        "downtime",
        "addr",
        "algo",
        "slim",
        "check_desc",
        "agent_desc",
        "status",
    ];
    // An agent may have been asked by now.
    let unknown = [
        "agent_status",
        "agent_code",
        "agent_duration",
        "agent_desc",
        "last_agt",
    ];
    let mut differences = Vec::new();
    for (theirs, ours) in theirs.iter().zip(&ours) {
        for (at, name) in names[..100].iter().enumerate() {
            if unknown.contains(&name.as_str()) {
                continue;
            }
            let same = match free.contains(&name.as_str()) {
                true => theirs[at].is_empty() == ours[at].is_empty(),
                false => theirs[at] == ours[at],
            };
            if !same {
                let of = format!("{}/{} {name}", theirs[0], theirs[1]);
                differences.push(format!("{of}: {:?}, haproxy {:?}", ours[at], theirs[at]));
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    pair.balancer.settle();
}

#[test]
fn the_tags_of_show_stat_are_haproxys() {
    let _turn = turn::shared();
    let Some(pair) = Pair::start(body) else {
        return;
    };
    let [theirs, ours] = pair.ask("show stat typed");
    let parse = |text: &str| -> BTreeMap<String, (String, String)> {
        let line = |line: &str| {
            let (place, rest) = line.split_once(':').unwrap();
            let mut parts = rest.split(':');
            let tags = parts.next().unwrap()[..3].to_owned();
            (place.to_owned(), (tags, parts.next().unwrap().to_owned()))
        };
        rows(text).into_iter().map(line).collect()
    };
    let (theirs, ours) = (parse(&theirs), parse(&ours));
    let mut compared = 0;
    for (place, value) in &ours {
        // Rates of backends are gauges in 2.6.
        let is_slip = place.starts_with("B.") && place.contains(".rate");
        if let Some(known) = theirs.get(place)
            && !is_slip
        {
            assert_eq!(value, known, "{place}");
            compared += 1;
        }
    }
    assert!(compared > 200, "{compared}");
    pair.balancer.settle();
}

/// All of it but the time of the last change.
#[test]
fn the_state_of_servers_is_haproxys() {
    let _turn = turn::shared();
    let Some(pair) = Pair::start(body) else {
        return;
    };
    let parse = |text: &str| -> Vec<Vec<String>> {
        let line = |line: &str| {
            let mut cells: Vec<String> = line.split(' ').map(str::to_owned).collect();
            if cells.len() > 20 && cells[0] != "#" {
                cells[9] = "-".to_owned();
            }
            cells
        };
        rows(text).into_iter().map(line).collect()
    };
    let [theirs, ours] = pair.ask("show servers state").map(|text| parse(&text));
    assert_eq!(theirs.len(), 2 + 5, "{theirs:?}");
    assert_eq!(ours[..2], theirs[..2]);
    for (ours, theirs) in ours[2..].iter().zip(&theirs[2..]) {
        let (mut ours, mut theirs) = (ours.clone(), theirs.clone());
        // With `addr` and `port` 2.6 says the same of an agent that isn't there.
        if theirs[14] == "0" {
            for cells in [&mut ours, &mut theirs] {
                cells.truncate(23);
            }
        }
        assert_eq!(ours, theirs);
    }
    for command in [
        "show backend",
        "show servers state be x",
        "show errors be",
        "show table",
    ] {
        let [theirs, ours] = pair.ask(command).map(|text| parse(&text));
        assert_eq!(ours.len(), theirs.len(), "{command}");
    }
    let [theirs, ours] = pair.ask("show backend");
    assert_eq!(ours, theirs);
    pair.balancer.settle();
}

/// The same clients at both: whole sessions, one that its client breaks off, one that is open, one
/// that waits for a server, and one that is put out of service beside them.
#[test]
fn the_same_traffic_makes_the_same_table() {
    let _turn = turn::shared();
    let servers = [(); 3].map(|()| MockServer::echo());
    let ports = [(); 2].map(|()| [(); 2].map(|()| free_port()));
    let started = std::cell::Cell::new(0);
    let pair = Pair::start(|_| {
        let [whole, narrow] = ports[started.replace(1)];
        format!(
            "frontend fe\n    option socket-stats\n    bind 127.0.0.1:{whole} name one\n    \
             maxconn 100\n    default_backend be\nbackend be\n    fullconn 50\n    \
             balance roundrobin\n    server s1 {} weight 5\n    server s2 {} weight 5\n    \
             server s3 127.0.0.1:1 backup\nlisten narrow\n    bind 127.0.0.1:{narrow}\n    \
             maxconn 10\n    fullconn 50\n    balance roundrobin\n    server s1 {} maxconn 1\n",
            servers[0].address(),
            servers[1].address(),
            servers[2].address()
        )
    });
    let Some(pair) = pair else {
        return;
    };
    let mut held = Vec::new();
    for [whole, narrow] in ports {
        assert!(wait_listening(whole, Duration::from_secs(20)));
        for length in [10, 2_000, 300, 7] {
            let client = connect_port(whole);
            echo(&client, &vec![b'x'; length]);
            client.shutdown(Shutdown::Write).unwrap();
            read_end(&client);
        }
        let client = connect_port(whole);
        echo(&client, b"not to its end");
        reset(client);
        held.extend([whole, narrow, narrow].map(connect_port));
    }
    let is_there = |text: &String| {
        let stat = Stat::parse(text);
        let number = |proxy, row, column| stat.number(proxy, row, column);
        number("fe", "FRONTEND", "scur") == 1
            && number("fe", "FRONTEND", "stot") == 6
            && number("be", "BACKEND", "cli_abrt") == 1
            && number("narrow", "BACKEND", "qcur") == 1
            && number("narrow", "s1", "scur") == 1
    };
    eventually("all but three have ended", || {
        pair.ask("show stat").iter().all(is_there)
    });
    for command in ["disable server be/s2", "set server be/s1 weight 3"] {
        assert_eq!(pair.ask(command), ["\n", "\n"], "{command}");
    }
    // What depends on the moment; what HAProxy has of sessions in HTTP only.
    let free = |column: &str| {
        let times = ["time", "rate", "last", "_max"];
        let others = ["smax", "addr", "downtime", "used_conn_cur", "need_conn_est"];
        times.iter().any(|part| column.contains(part)) || others.contains(&column)
    };
    let [theirs, ours] = pair.ask("show stat");
    let cells = |text: &str| -> Vec<Vec<String>> {
        let line = |line: &str| line.split(',').map(str::to_owned).collect();
        rows(text).into_iter().map(line).collect()
    };
    let (theirs, ours) = (cells(&theirs), cells(&ours));
    let names: Vec<&str> = ours[0].iter().map(String::as_str).collect();
    let mut compared = 0;
    for (theirs, ours) in theirs[1..].iter().zip(&ours[1..]) {
        for (at, name) in names[..100].iter().enumerate() {
            let of = format!("{}/{} {name}: haproxy {:?}", ours[0], ours[1], theirs[at]);
            if free(name) {
                assert_eq!(ours[at].is_empty(), theirs[at].is_empty(), "{of}");
            } else {
                assert_eq!(ours[at], theirs[at], "{of}");
                compared += usize::from(!ours[at].is_empty());
            }
        }
    }
    assert_eq!(theirs.len(), 1 + 2 + 4 + 3);
    assert!(compared > 150, "{compared}");
    drop(held);
    pair.balancer.settle();
}

/// What is answered to what is wrong.
#[test]
fn refusals_are_worded_as_haproxys() {
    let _turn = turn::shared();
    let Some(pair) = Pair::start(body) else {
        return;
    };
    for command in [
        "show stat nosuch 1 -1",
        "show stat domain nosuch",
        "show servers state nosuch",
        "show servers conn nosuch",
        "show errors nosuch",
        "show table nosuch",
        "set severity-output loud",
        "set timeout cli",
        "set timeout cli x",
        "set timeout nosuch",
        "show cli level",
        "operator",
    ] {
        let [theirs, ours] = pair.ask(command);
        assert_eq!(ours, theirs, "{command}");
    }
    pair.balancer.settle();
}
