//! Programs of others that read the runtime socket as they read HAProxy's: socat, a reader of CSV,
//! and the exporter that Prometheus had for HAProxy before it had one itself.
//!
//! Where a program is absent the test says so and passes, unless `TIDEGATE_REQUIRE_PROGRAMS=1`.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;

use crate::agent::Agent;
use crate::metrics::exporter;
use crate::programs::{Service, programs};
use crate::support::client::{connect_port, echo};
use crate::support::http::Samples;
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, eventually, is_tidegate, turn};

/// Runs a program with an input, to its end.
fn run(program: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a program");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input.as_bytes()).expect("write its input");
    drop(stdin);
    child.wait_with_output().expect("its output")
}

fn text(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).expect("text")
}

/// One session with so many bytes there and back.
fn session(port: u16, length: usize) {
    let mut client: TcpStream = connect_port(port);
    echo(&client, &vec![b'x'; length]);
    client.shutdown(Shutdown::Write).expect("half-close");
    client.read_to_end(&mut Vec::new()).expect("its end");
}

#[test]
fn socat_is_answered() {
    let _turn = turn::shared();
    let Some([socat]) = programs(["socat"]) else {
        return;
    };
    let (server, port) = (MockServer::echo(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    ));
    session(port, 10);
    balancer.settle();
    let path = balancer.stats_path().display().to_string();
    // It gives up on an answer half a second after its input has ended, unless told otherwise.
    let ask = |end: &str, input: &str| text(run(&socat, &["-t", "60", end, "STDIO"], input));
    let connect = format!("UNIX-CONNECT:{path}");
    assert_eq!(ask(&connect, "show stat\n"), balancer.stats("show stat"));
    assert_eq!(ask(&path, "show backend\n"), "# name\nl\n\n");
    if is_tidegate() {
        // Without a line feed, as `echo -n` has it: HAProxy answers nothing.
        assert_eq!(ask(&path, "show backend"), "# name\nl\n\n");
    }
    assert_eq!(
        ask(&path, "show backend;disable server l/s;get weight l/s\n"),
        "# name\nl\n\n\n1 (initial 1)\n\n"
    );
    assert_eq!(balancer.stat().text("l", "s", "status"), "MAINT");
    let session = ask(&path, "prompt\nenable server l/s\nshow backend\nquit\n");
    assert_eq!(session, "\n> \n> # name\nl\n\n> ");
    assert_eq!(balancer.stat().text("l", "s", "status"), "no check");
    balancer.settle();
}

/// A table as a program reads it that knows nothing but CSV.
const READER: &str = "import csv, json, sys\n\
    lines = sys.stdin.read().rstrip('\\n').split('\\n')\n\
    assert lines[0].startswith('# '), lines[0]\n\
    lines[0] = lines[0][2:]\n\
    print(json.dumps(list(csv.DictReader(lines))))\n";

/// Whatever texts are in its cells.
#[test]
fn a_reader_of_csv_finds_every_cell() {
    let _turn = turn::shared();
    let Some([python]) = programs(["python3"]) else {
        return;
    };
    let (server, port) = (MockServer::echo(), free_port());
    // What an agent says of a server that is down is a text of its own, with marks and commas.
    let agent = Agent::new("down #\"one\", two, three\n");
    let balancer = Balancer::start(format!(
        "listen l\n    option socket-stats\n    bind 127.0.0.1:{port} name it\n    server s {}\n    \
         server a 127.0.0.1:1 agent-check agent-port {} agent-inter 100\n",
        server.address(),
        agent.port()
    ));
    session(port, 100);
    eventually("the agent has spoken", || {
        balancer.stat().text("l", "a", "agent_status") == "L7STS"
    });
    balancer.settle();
    let table = balancer.stats("show stat");
    let read = text(run(&python, &["-c", READER], &table));
    let rows: serde_json::Value = serde_json::from_str(&read).expect("JSON");
    let rows = rows.as_array().expect("rows");
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["svname"].as_str())
        .collect();
    assert_eq!(names, ["FRONTEND", "it", "s", "a", "BACKEND"]);
    let said = rows[3]["last_agt"].as_str().expect("a text");
    assert!(said.contains("\"one\", two, three"), "{said}");
    // The same by its typed lines, whose texts are as they are.
    let typed = balancer.stats("show stat typed");
    let mut compared = 0;
    for line in typed.lines().filter(|line| !line.is_empty()) {
        let (place, rest) = line.split_once(':').expect("a value");
        let [kind, _, sid, _, column, _] = place.split('.').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let row = match (kind, sid) {
            ("F", _) => 0,
            ("L", _) => 1,
            ("S", "1") => 2,
            ("S", _) => 3,
            _ => 4,
        };
        // What depends on the moment.
        if ["lastchg", "downtime", "lastsess", "agent_duration"].contains(&column)
            || column.contains("rate")
        {
            continue;
        }
        let value = rest.splitn(3, ':').nth(2).expect("a value");
        assert_eq!(rows[row][column], value, "{line}");
        compared += 1;
    }
    assert!(compared > 150, "{compared}");
    balancer.settle();
}

/// The exporter of Prometheus for HAProxies without one of their own: it reads the columns of the
/// table by their places, from the runtime socket or from the page of statistics.
#[test]
fn an_exporter_reads_the_table_by_its_places() {
    let _turn = turn::shared();
    let Some([program]) = programs(["prometheus-haproxy-exporter"]) else {
        return;
    };
    let (server, port, page) = (MockServer::echo(), free_port(), free_port());
    let balancer = Balancer::start(format!(
        "{}    stats uri /stats\nlisten l\n    option socket-stats\n    bind 127.0.0.1:{port} name \
         it\n    server s {} weight 7 maxconn 9\n    server out 127.0.0.1:1 disabled\n",
        exporter(page),
        server.address()
    ));
    for _ in 0..3 {
        session(port, 1_000);
    }
    let held = connect_port(port);
    echo(&held, b"held");
    eventually("one is left", || {
        balancer.stat().number("l", "FRONTEND", "scur") == 1
    });
    let from = [
        format!("unix:{}", balancer.stats_path().display()),
        format!("http://127.0.0.1:{page}/stats;csv"),
    ];
    for uri in from {
        let metrics = free_port();
        let mut command = Command::new(&program);
        command
            .arg(format!("--haproxy.scrape-uri={uri}"))
            .arg("--haproxy.timeout=60s")
            .arg(format!("--web.listen-address=127.0.0.1:{metrics}"));
        let _service = Service::start(&mut command, metrics, Signal::SIGTERM);
        let samples = Samples::scrape(metrics, "");
        let stat = balancer.stat();
        let bytes = stat.number("l", "s", "bin") as f64;
        assert!(bytes >= 3_000.0);
        for (name, value) in [
            ("haproxy_up", 1.0),
            ("haproxy_exporter_csv_parse_failures_total", 0.0),
            ("haproxy_frontend_sessions_total{frontend=\"l\"}", 4.0),
            ("haproxy_frontend_current_sessions{frontend=\"l\"}", 1.0),
            ("haproxy_frontend_bytes_in_total{frontend=\"l\"}", bytes),
            ("haproxy_backend_current_server{backend=\"l\"}", 1.0),
            ("haproxy_backend_up{backend=\"l\"}", 1.0),
            ("haproxy_backend_weight{backend=\"l\"}", 7.0),
            (
                "haproxy_server_sessions_total{backend=\"l\",server=\"s\"}",
                4.0,
            ),
            (
                "haproxy_server_bytes_in_total{backend=\"l\",server=\"s\"}",
                bytes,
            ),
            (
                "haproxy_server_limit_sessions{backend=\"l\",server=\"s\"}",
                9.0,
            ),
            ("haproxy_server_weight{backend=\"l\",server=\"s\"}", 7.0),
            ("haproxy_server_up{backend=\"l\",server=\"s\"}", 1.0),
            ("haproxy_server_up{backend=\"l\",server=\"out\"}", 0.0),
        ] {
            assert_eq!(samples.value(name), value, "{name} from {uri}");
        }
    }
    drop(held);
    balancer.settle();
}
