//! What a reload makes of another configuration: numbers that last, what is different, what stays.

use std::sync::Arc;

use tidegate::base::ids::ServerId;
use tidegate::config::change::{differences, settle};
use tidegate::config::plan::{Numbers, Plan};

use crate::world::World;

fn plan(text: &str) -> Plan {
    let text = format!("defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1s\n{text}");
    let (plan, said) = tidegate::config::load_text("t.cfg", text, &World::new());
    plan.unwrap_or_else(|| panic!("{said:?}"))
}

/// A process: the plan in force and the numbers of what there is.
struct Process {
    plan: Plan,
    asked: Plan,
    numbers: Numbers,
}

impl Process {
    fn start(text: &str) -> Process {
        let mut plan = plan(text);
        let mut numbers = Numbers::default();
        let asked = plan.clone();
        numbers.carry_over(&mut plan).unwrap();
        Process {
            plan,
            asked,
            numbers,
        }
    }

    /// What is said of a reload: changes, and what was kept.
    fn reload(&mut self, text: &str) -> (Vec<String>, Vec<String>) {
        let mut next = plan(text);
        self.numbers.carry_over(&mut next).unwrap();
        let words = |changes: Vec<tidegate::config::change::Change>| {
            changes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let kept = words(settle(&self.asked.global, &self.plan, &mut next));
        let changes = words(differences(&self.plan, &next));
        self.plan = next;
        (changes, kept)
    }

    fn proxy(&self, name: &str) -> &Arc<tidegate::config::plan::Proxy> {
        let mut proxies = self.plan.proxies.iter();
        proxies.find(|proxy| *proxy.name == *name).unwrap()
    }

    fn number(&self, name: &str) -> u16 {
        self.proxy(name).proxy_id.0
    }

    fn server(&self, proxy: &str, name: &str) -> u32 {
        let back = self.proxy(proxy).back.as_ref().unwrap();
        let mut servers = back.servers.iter();
        let server = servers.find(|server| *server.name == *name).unwrap();
        server.server_id.0
    }
}

const FIRST: &str = "frontend f\n  bind 127.0.0.1:1\n  bind 127.0.0.1:2\n  default_backend b\n\
                     backend b\n  server s 127.0.0.1:10 weight 2\n  server t 127.0.0.1:11\n";

#[test]
fn the_same_file_and_one_that_is_written_otherwise_change_nothing() {
    let mut process = Process::start(FIRST);
    assert_eq!(process.reload(FIRST), Default::default());
    let moved = format!("# a comment\n\n\n{}", FIRST.replace("  ", "     "));
    assert_eq!(process.reload(&moved), Default::default());
}

#[test]
fn numbers_last_wherever_something_stands() {
    let mut process = Process::start(FIRST);
    let of = |process: &Process| {
        let server = |name| process.server("b", name);
        let names = (process.number("f"), process.number("b"));
        (names, server("s"), server("t"))
    };
    let before = of(&process);
    let (changes, _) = process.reload(
        "backend c\n  server x 127.0.0.1:12 check\nbackend b\n  server new 127.0.0.1:13\n  \
         server t 127.0.0.1:11\n  server s 127.0.0.1:10 weight 2 track c/x\n\
         frontend f\n  bind 127.0.0.1:2\n  bind 127.0.0.1:1\n  default_backend b\n",
    );
    assert_eq!(of(&process), before);
    assert_eq!(
        changes,
        [
            "backend c added",
            "server b/new added",
            "server b/s changed: agent, track or on-marked"
        ]
    );
    let front = process.proxy("f").front.as_ref().unwrap();
    assert_eq!(front.default_backend.unwrap().0, process.number("b"));
    let listeners: Vec<_> = process.plan.listeners.iter().collect();
    assert!(
        listeners
            .iter()
            .all(|l| l.proxy_id.0 == process.number("f"))
    );
    let mut ids = front.listeners.clone();
    ids.sort();
    assert_eq!(ids.iter().map(|id| id.0).collect::<Vec<_>>(), [0, 1]);
    // Whom it tracks is known by its lasting number too.
    let back = process.proxy("b").back.as_ref().unwrap();
    let tracked = back.servers[2].watch.tracks.as_ref().unwrap();
    assert_eq!(tracked.server_id.0, process.server("c", "x"));
    assert_eq!(tracked.proxy_id.0, process.number("c"));
}

#[test]
fn a_number_is_given_out_again_only_when_nothing_is_left_and_not_at_once() {
    let mut process = Process::start(FIRST);
    let gone = process.server("b", "t");
    let with = |name: &str| FIRST.replace("server t", &format!("server {name}"));
    let (changes, _) = process.reload(&with("u"));
    assert_eq!(changes, ["server b/u added", "server b/t removed"]);
    assert_ne!(process.server("b", "u"), gone);
    // It is still there: another one again, and then itself.
    process.reload(&with("v"));
    assert_ne!(process.server("b", "v"), gone);
    process.reload(FIRST);
    assert_eq!(process.server("b", "t"), gone);
    // Servers that come and go one by one use few numbers, each after many others.
    let mut last: Vec<u32> = Vec::new();
    for turn in 0..1_000 {
        process.reload(&with(&format!("w{turn}")));
        let there = [
            process.server("b", "s"),
            process.server("b", &format!("w{turn}")),
        ];
        process
            .numbers
            .keep(|_| true, |_| true, |server| there.contains(&server));
        assert!(!last.contains(&there[1]), "{turn}");
        last.push(there[1]);
        if last.len() > 50 {
            last.remove(0);
        }
    }
    assert!(process.numbers.servers_count() <= 64);
}

#[test]
fn every_object_is_told_of_once() {
    let mut process = Process::start(FIRST);
    let (changes, kept) = process.reload(
        "frontend f\n  bind 127.0.0.1:1 maxconn 5 name x\n  bind 127.0.0.1:3\n  \
         default_backend b\n  timeout client 9s\n  maxconn 7\n\
         backend b\n  balance leastconn\n  retries 9\n  \
         server s 127.0.0.1:20 weight 3 maxconn 4 check\n  server t 127.0.0.1:11 disabled\n",
    );
    assert_eq!(
        changes,
        [
            "frontend f changed: maxconn, timeout client",
            "backend b changed: balance, retries",
            "server b/s changed: address 127.0.0.1:10 -> 127.0.0.1:20, weight 2 -> 3, maxconn 0 \
             -> 4, check",
            "server b/t changed: disabled",
            "listener f/127.0.0.1:1 changed: name, backlog, maxconn",
            "listener f/127.0.0.1:3 added",
            "listener f/127.0.0.1:2 removed",
        ]
    );
    assert_eq!(kept, [""; 0]);
    // Another section of that name is another proxy.
    let (changes, _) = process.reload("listen f\n  bind 127.0.0.1:1\n  server s 127.0.0.1:10\n");
    assert_eq!(
        changes,
        [
            "listen f added",
            "listener f/127.0.0.1:1 added",
            "listener f/127.0.0.1:1 removed",
            "listener f/127.0.0.1:3 removed",
            "frontend f removed",
            "backend b removed",
        ]
    );
}

#[test]
fn what_needs_a_restart_keeps_its_value_and_is_named() {
    let mut process = Process::start(&format!("global\n  nbthread 2\n  maxconn 10\n{FIRST}"));
    let text = format!(
        "global\n  nbthread 3\n  maxconn 9\n  busy-polling\n  user root\n{}",
        FIRST.replace("127.0.0.1:1\n", "127.0.0.1:1 shards 1\n")
    );
    for turn in 0..2 {
        let (changes, kept) = process.reload(&text);
        let expected: &[&str] = if turn == 0 {
            &["global changed: maxconn"]
        } else {
            &[]
        };
        assert_eq!(changes, expected);
        // As long as the file says so, it is said.
        assert_eq!(kept.len(), 3, "{kept:?}");
        assert!(
            kept[0].contains("old nbthread, busy-polling until a restart"),
            "{kept:?}"
        );
        assert!(kept[1].contains("old user until a restart"), "{kept:?}");
        assert!(
            kept[2].starts_with("listener f/127.0.0.1:1 keeps its old shards"),
            "{kept:?}"
        );
        assert_eq!(process.plan.global.nbthread, Some(2));
        assert!(!process.plan.global.busy_polling);
        assert_eq!(process.plan.global.maxconn, Some(9));
    }
}

#[test]
fn a_server_that_was_forgotten_is_another_one_next_time() {
    let mut process = Process::start(FIRST);
    let before = process.server("b", "t");
    let without = FIRST.replace("  server t 127.0.0.1:11\n", "");
    process.reload(&without);
    process.numbers.forget_server(ServerId(before));
    process.reload(FIRST);
    assert_ne!(process.server("b", "t"), before);
    assert_eq!(process.numbers.servers_count(), 3, "its number is taken");
}

#[test]
fn pages_and_runtime_sockets_are_told_of_like_all_else() {
    let pages = |uri: &str| {
        format!("frontend p\n  mode http\n  bind 127.0.0.1:9\n  monitor-uri {uri}\n{FIRST}")
    };
    let mut process = Process::start(&pages("/a"));
    let number = process.number("p");
    let (changes, kept) = process.reload(&format!(
        "global\n  stats socket /a level admin\n  stats maxconn 3\n  spread-checks 5\n  \
         tune.udp.rcvbuf 200000\n{}",
        pages("/b")
    ));
    let global = "global changed: stats socket, stats maxconn, spread-checks, tune.udp.rcvbuf";
    assert_eq!(changes, [global, "frontend p changed: pages"]);
    assert_eq!(kept, [""; 0]);
    assert_eq!(process.number("p"), number);
    // Another mode makes it another one.
    let (changes, _) = process.reload(&format!(
        "frontend p\n  bind 127.0.0.1:9\n  default_backend b\n{FIRST}"
    ));
    assert_ne!(process.number("p"), number);
    assert_eq!(
        changes[1..3],
        ["frontend p added", "listener p/127.0.0.1:9 added"]
    );
    assert_eq!(
        changes[3..],
        ["listener p/127.0.0.1:9 removed", "frontend p removed"]
    );
}
