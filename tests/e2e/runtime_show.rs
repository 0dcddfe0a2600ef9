//! What the runtime socket shows: each command against a balancer with traffic.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use crate::spread::{count_sequential, named};
use crate::support::balancer::Setup;
use crate::support::client::connect_port;
use crate::support::port::free_port;
use crate::support::runtime::Runtime;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, skip, turn};

/// A frontend, a backend of two servers and a backup, a listen; what is asked for is in all.
fn three() -> (Balancer, Vec<MockServer>, u16) {
    let (servers, lines) = named(&["weight 10", "id 9", "backup maxconn 5"]);
    let (port, other) = (free_port(), free_port());
    let body = format!(
        "frontend fe\n    bind 127.0.0.1:{port}\n    default_backend be\n\
         backend be\n    id 77\n    balance roundrobin\n{lines}\
         listen l\n    bind 127.0.0.1:{other}\n    server s1 127.0.0.1:1 disabled\n"
    );
    let setup = Setup::new(body).global("description two words");
    (setup.start(), servers, port)
}

/// The lines of an answer without the empty one that ends it.
fn lines(text: &str) -> Vec<&str> {
    let text = text
        .strip_suffix("\n\n")
        .unwrap_or_else(|| panic!("{text:?}"));
    text.split('\n').collect()
}

/// `show info typed`: name to tags, type and value.
fn typed(text: &str) -> Vec<(usize, &str, &str, &str)> {
    let line = |line: &&'_ str| -> (usize, String) {
        let (position, _) = line.split_once('.').expect("a position");
        (position.parse().expect("a number"), (*line).to_owned())
    };
    lines(text)
        .into_iter()
        .map(|text| {
            let (position, _) = line(&text);
            let rest = text.split_once('.').expect("a position").1;
            let (name, rest) = rest.split_once(".1:").expect("a name");
            let mut parts = rest.splitn(3, ':');
            let (_tags, kind) = (parts.next().expect("tags"), parts.next().expect("a type"));
            (position, name, kind, parts.next().expect("a value"))
        })
        .collect()
}

#[test]
fn the_shapes_of_show_info_say_the_same() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    count_sequential(port, 3);
    balancer.settle();
    let plain = balancer.stats("show info");
    let names: Vec<&str> = lines(&plain)
        .into_iter()
        .map(|line| line.split_once(": ").expect("a value").0)
        .collect();
    let text = balancer.stats("show info typed");
    let in_typed: Vec<&str> = typed(&text).iter().map(|(_, name, _, _)| *name).collect();
    assert_eq!(names, in_typed);
    assert!(typed(&text).is_sorted_by_key(|(position, _, _, _)| *position));
    let json = balancer.stats("show info json");
    let values: serde_json::Value = serde_json::from_str(&json).unwrap();
    let values = values.as_array().unwrap();
    let in_json: Vec<&str> = values
        .iter()
        .map(|v| v["field"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, in_json);
    let position = |name: &str| names.iter().position(|known| *known == name).unwrap();
    assert_eq!(
        values[position("description")]["value"]["value"],
        "two words"
    );
    assert_eq!(values[position("Nbthread")]["value"]["value"], 2);
    assert_eq!(values[position("Pid")]["value"]["value"], balancer.pid());
    let described = balancer.stats("show info desc");
    assert!(
        lines(&described)
            .iter()
            .all(|line| line.ends_with('"') && line.contains(":\""))
    );
    let described = balancer.stats("show info typed desc");
    assert!(
        lines(&described)
            .iter()
            .all(|line| line.ends_with('"') && line.contains(":\""))
    );
    balancer.settle();
}

#[test]
fn show_info_counts_what_was_served() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    let requests = balancer.info("CumReq");
    count_sequential(port, 5);
    balancer.settle();
    assert!(balancer.info("CumReq") >= requests + 5);
    assert!(balancer.info("TotalBytesOut") >= 10);
    let floats = balancer.stats("show info typed float");
    let of_kind = typed(&floats)
        .into_iter()
        .filter(|(_, _, kind, _)| *kind == "flt");
    let names: Vec<&str> = of_kind.map(|(_, name, _, _)| name).collect();
    for name in ["Uptime_sec", "ConnRate", "SessRate", "Start_time_sec"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    balancer.settle();
}

/// Typed lines and JSON have each cell of the table that has a value, and no other.
#[test]
fn the_shapes_of_show_stat_say_the_same() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    count_sequential(port, 3);
    balancer.settle();
    let table = balancer.stats("show stat");
    let text = balancer.stats("show stat typed");
    let json: serde_json::Value = serde_json::from_str(&balancer.stats("show stat json")).unwrap();
    let rows = &lines(&table)[1..];
    assert_eq!(rows.len(), 8, "{table}");
    let mut cells: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in lines(&text) {
        let (place, rest) = line.split_once(':').expect("a value");
        let parts: Vec<&str> = place.split('.').collect();
        let [kind, iid, sid, _at, name, "1"] = parts[..] else {
            panic!("{line}");
        };
        let (tags, _) = rest.split_once(':').expect("tags");
        assert_eq!(tags.len(), if is_tidegate() { 4 } else { 3 }, "{line}");
        *cells
            .entry((format!("{kind}.{iid}.{sid}"), name.to_owned()))
            .or_default() += 1;
    }
    assert!(cells.values().all(|count| *count == 1));
    assert!(
        cells.contains_key(&("S.77.9".to_owned(), "status".to_owned())),
        "{text}"
    );
    let objects = json.as_array().unwrap();
    assert_eq!(objects.len(), rows.len());
    let values = objects
        .iter()
        .map(|object| object.as_array().unwrap().len());
    assert_eq!(values.sum::<usize>(), cells.len());
    let status = objects[2].as_array().unwrap().iter();
    let status = status
        .clone()
        .find(|value| value["field"]["name"] == "status")
        .unwrap();
    assert_eq!(status["objType"], "Server");
    assert_eq!(status["value"]["value"], "no check");
    balancer.settle();
}

#[test]
fn show_stat_is_narrowed_by_proxy_type_and_server() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let names = |command: &str| -> Vec<String> {
        let text = balancer.stats(command);
        let cells = |line: &str| line.split(',').take(2).collect::<Vec<_>>().join("/");
        lines(&text)[1..].iter().map(|line| cells(line)).collect()
    };
    assert_eq!(names("show stat fe 1 -1"), ["fe/FRONTEND"]);
    assert_eq!(names("show stat be 4 9"), ["be/s2"]);
    assert_eq!(names("show stat 77 2 -1"), ["be/BACKEND"]);
    assert_eq!(names("show stat -1 2 -1"), ["be/BACKEND", "l/BACKEND"]);
    let servers = ["be/s1", "be/s2", "be/s3"];
    assert_eq!(names("show stat -1 4 -1 no-maint"), servers);
    assert_eq!(names("show stat domain proxy -1 4 -1 up"), servers);
    assert_eq!(
        balancer.stats("show stat nosuch 1 -1"),
        "No such proxy.\n\n"
    );
    assert_eq!(
        balancer.stats("show stat domain x"),
        "Invalid statistics domain.\n\n"
    );
    balancer.settle();
}

#[test]
fn addresses_are_for_operators() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let mut client = Runtime::open(balancer.stats_path());
    client.prompted("prompt");
    assert!(client.prompted("show stat typed").contains(".addr.1:"));
    client.prompted("user");
    let text = client.prompted("show stat typed");
    assert!(
        !text.contains(".addr.1:") && text.contains(".status.1:"),
        "{text}"
    );
    drop(client);
    balancer.settle();
}

#[test]
fn backends_and_the_connections_of_servers_are_listed() {
    let _turn = turn::shared();
    let (balancer, _servers, port) = three();
    assert_eq!(balancer.stats("show backend"), "# name\nbe\nl\n\n");
    assert_eq!(
        balancer.stats("show servers conn nosuch"),
        "Can't find backend.\n\n"
    );
    assert_eq!(
        balancer.stats("show servers state nosuch"),
        "Can't find backend.\n\n"
    );
    let state = balancer.stats("show servers state l");
    assert_eq!(lines(&state).len(), 3, "{state}");
    let mut client = connect_port(port);
    let mut name = [0; 2];
    client.read_exact(&mut name).unwrap();
    let at = if name == *b"s1" { 1 } else { 2 };
    eventually("a session is counted", || {
        let text = balancer.stats("show servers conn be");
        let header: Vec<String> = lines(&text)[0].split(' ').map(str::to_owned).collect();
        let used = header
            .iter()
            .position(|column| column == "used_cur")
            .unwrap()
            - 1;
        let row: Vec<String> = lines(&text)[at].split(' ').map(str::to_owned).collect();
        // The idle connections have a number per thread.
        assert_eq!(row.len(), header.len(), "{text}");
        // HAProxy counts none of mode tcp.
        row[used] == "1" || !is_tidegate()
    });
    client.write_all(b"bye").unwrap();
    drop(client);
    balancer.settle();
}

/// What is said of a client is what it gets.
#[test]
fn the_choice_of_a_server_is_explained() {
    let _turn = turn::shared();
    if skip("the command is ours") {
        return;
    }
    let (servers, lines) = named(&["weight 3", "weight 2", "disabled"]);
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance hash src,mul(7)\n    \
         hash-type consistent wt6\n{lines}"
    ));
    let said = balancer.stats("show balance l key 127.0.0.1");
    assert!(said.contains("algorithm: hash, consistent wt6\n"), "{said}");
    assert!(
        said.contains("server: s1 weight 3 share 60.0% connections 0 limit -\n"),
        "{said}"
    );
    assert!(said.contains("not chosen: s3 MAINT\n"), "{said}");
    let chosen = said
        .lines()
        .find_map(|line| line.strip_prefix("chosen: "))
        .unwrap();
    let counts = count_sequential(port, 5);
    assert_eq!(counts.get(chosen), Some(&5), "{counts:?}: {said}");
    let refused = balancer.stats("show balance l key nothing");
    assert!(refused.starts_with("A key is an address"), "{refused}");
    drop(servers);
    balancer.settle();
}

#[test]
fn the_environment_is_shown_as_the_configuration_has_made_it() {
    let _turn = turn::shared();
    let (port, name) = (free_port(), "TIDEGATE_TEST_OUTER");
    let balancer = Setup::new(format!("listen l\n    bind 127.0.0.1:{port}\n"))
        .variable(name, "outer")
        .variable("TIDEGATE_TEST_GONE", "x")
        .global("setenv TIDEGATE_TEST_INNER \"two words\"")
        .global("unsetenv TIDEGATE_TEST_GONE")
        .start();
    assert_eq!(
        balancer.stats(&format!("show env {name}")),
        format!("{name}=outer\n\n")
    );
    assert_eq!(
        balancer.stats("show env TIDEGATE_TEST_INNER"),
        "TIDEGATE_TEST_INNER=two words\n\n"
    );
    let gone = balancer.stats("show env TIDEGATE_TEST_GONE");
    assert_eq!(gone.trim_end(), "Variable not found");
    let all = balancer.stats("show env");
    assert!(
        lines(&all).contains(&"TIDEGATE_TEST_INNER=two words"),
        "{all}"
    );
    assert!(
        all.contains("\nHAPROXY_CLI=unix@") || all.starts_with("HAPROXY_CLI=unix@"),
        "{all}"
    );
    balancer.settle();
}

#[test]
fn what_the_start_has_said_is_kept() {
    let _turn = turn::shared();
    let port = free_port();
    // No timeouts of its own: a warning.
    let balancer = Setup::new(format!(
        "defaults new\n    mode tcp\nlisten l from new\n    bind 127.0.0.1:{port}\n    \
         server s1 127.0.0.1:1\n"
    ))
    .start();
    let said = balancer.stats("show startup-logs");
    assert!(
        said.contains("[WARNING]") && said.contains("'l'"),
        "{said:?}"
    );
    assert!(said.ends_with("\n\n"), "{said:?}");
    if is_tidegate() {
        assert_eq!(
            balancer.info("TotalWarnings"),
            lines(&said)
                .iter()
                .filter(|line| line.starts_with("[WARNING]"))
                .count() as u64
        );
    }
    balancer.settle();
}

#[test]
fn broken_headers_are_kept_by_frontend() {
    let _turn = turn::shared();
    if skip("HAProxy keeps errors of HTTP only") {
        return;
    }
    let (fe, other) = (free_port(), free_port());
    let balancer = Balancer::start(format!(
        "listen fe\n    bind 127.0.0.1:{fe} accept-proxy\n    server s1 127.0.0.1:1\n\
         listen other\n    bind 127.0.0.1:{other} accept-proxy\n    server s1 127.0.0.1:1\n"
    ));
    let none = balancer.stats("show errors");
    assert!(none.starts_with("Total events captured on [") && none.ends_with("] : 0\n\n"));
    let mut from = String::new();
    for _ in 0..3 {
        let mut client = connect_port(fe);
        from = client.local_addr().unwrap().to_string();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    }
    eventually("the errors are counted", || {
        balancer.stats("show errors").contains("] : 3\n")
    });
    let shown = balancer.stats("show errors fe");
    assert!(
        shown.contains("] frontend fe (#2): no PROXY header\n"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("  src {from}, listener #1, 3 in all\n")),
        "{shown}"
    );
    assert!(balancer.stats("show errors other").contains("] : 0\n"));
    assert_eq!(balancer.stats("show errors nosuch"), "No such proxy.\n\n");
    balancer.settle();
}

#[test]
fn events_are_kept_and_followed() {
    let _turn = turn::shared();
    if skip("2.6 keeps traces only") {
        return;
    }
    let server = MockServer::named("s1");
    let (port, check) = (free_port(), server.address());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s1 {check} check inter 50 fall 1 rise 1\n"
    ));
    let sinks = balancer.stats("show events");
    assert!(sinks.contains("\n    buf0 "), "{sinks}");
    assert_eq!(
        balancer.stats("show events nosuch"),
        "No such event sink\n\n"
    );
    assert!(
        balancer
            .stats("show events buf0 -x")
            .starts_with("Only '-w', '-n' and '-0'")
    );
    let mut follower = Runtime::open(balancer.stats_path());
    follower.send("show events buf0 -w -n\n");
    let mut second = Runtime::open(balancer.stats_path());
    second.send("prompt; show events buf0 -wn\n");
    assert_eq!(second.until("> "), "\n> ");
    drop(server);
    let said = follower.until("\n");
    assert!(
        said.contains("[WARNING]") && said.contains("Server l/s1 is DOWN"),
        "{said}"
    );
    // Its second line says that the backend has no server left.
    assert!(
        second
            .until("no server available!\n")
            .contains("l/s1 is DOWN")
    );
    // Any key ends it, and the session goes on.
    second.send("\n");
    assert_eq!(second.until("> "), "\n> ");
    assert_eq!(second.prompted("show cli level"), "admin\n\n");
    drop((follower, second));
    let kept = balancer.stats("show events buf0");
    assert!(kept.contains("Server l/s1 is DOWN"), "{kept}");
    // Messages for programs end with a NUL each.
    let apart = balancer.stats("show events buf0 -0");
    let messages: Vec<&str> = apart
        .trim_end_matches('\n')
        .split_terminator('\0')
        .collect();
    assert_eq!(
        messages,
        kept.trim_end_matches('\n').lines().collect::<Vec<_>>()
    );
    assert!(!messages.is_empty() && !apart.trim_end_matches('\n').contains('\n'));
    balancer.settle();
}

#[test]
fn what_there_is_none_of_is_answered_so() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    assert_eq!(balancer.stats("show table"), "\n");
    assert_eq!(balancer.stats("show table x"), "No such table\n\n");
    let version = balancer.stats("show version");
    assert_eq!(lines(&version).len(), 1);
    if is_tidegate() {
        assert_eq!(version.trim_end(), env!("CARGO_PKG_VERSION"));
        for command in ["show tasks", "show fd", "show pools", "show threads"] {
            let answer = balancer.stats(command);
            assert!(
                answer.starts_with(&format!("Unknown command: '{command}', but")),
                "{answer}"
            );
        }
    }
    let schema = balancer.stats("show schema json");
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap_or_default();
    assert!(
        !is_tidegate() || schema["oneOf"][1]["title"] == "Stat",
        "{schema}"
    );
    balancer.settle();
}

#[test]
fn help_knows_the_commands_of_the_level() {
    let _turn = turn::shared();
    let (balancer, _servers, _port) = three();
    let all = balancer.stats("help");
    assert!(lines(&all)[0].ends_with("The following commands are valid at this level:"));
    for command in [
        "show info",
        "show stat",
        "show servers state",
        "show env",
        "prompt",
        "quit",
    ] {
        assert!(all.contains(&format!("\n  {command}")), "{command}: {all}");
    }
    let some = balancer.stats("help show servers");
    assert!(
        some.contains("  show servers conn") && !some.contains("  show env"),
        "{some}"
    );
    balancer.settle();
}
