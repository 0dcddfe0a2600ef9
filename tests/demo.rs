//! The demo from outside: the real program, its summary and its exit code.

use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output};

/// A port that was free a moment ago for connections and datagrams, below the range of outgoing
/// ones, so that none takes it.
fn free_port() -> u16 {
    (21_000..32_000)
        .step_by(7)
        .find(|port| {
            let address = ("127.0.0.1", *port);
            TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
        })
        .unwrap()
}

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("demo")
        .args(arguments)
        .output()
        .unwrap()
}

/// The text between two words of the line that holds both.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let line = text
        .lines()
        .find(|line| line.contains(before) && line.contains(after));
    let line = line.unwrap_or_else(|| panic!("no line with {before:?} and {after:?} in:\n{text}"));
    let rest = line.split_once(before).unwrap().1;
    rest.split_once(after).unwrap().0.trim()
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap()
}

#[test]
fn a_failover_is_shown_and_no_new_connection_fails() {
    let port = free_port().to_string();
    let output = demo(&["--for", "3s", "--port", &port, "--udp-port", &port]);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}\n{errors}");
    let place = |words: &str| {
        text.find(words)
            .unwrap_or_else(|| panic!("{words:?} is not in:\n{text}"))
    };
    let events = [
        "u2 KILLED",
        "u2 is DOWN",
        "u2 STARTED AGAIN",
        "u2 is UP",
        "Summary of 3.",
    ];
    assert!(events.map(place).is_sorted(), "{text}");
    let connections = between(&text, "connections ", " answered");
    assert!(number(connections) > 100, "{text}");
    assert_eq!(between(&text, "answered, ", " failed"), "0");
    assert!(number(between(&text, "kill; ", " connects were redispatched")) > 0);
    let requests = number(between(&text, "datagrams    ", " requests"));
    let answers = number(between(&text, "requests, ", " answers"));
    let lost = number(between(&text, "answers, ", " lost"));
    let excused = number(between(&text, "dead upstream: ", ")"));
    assert!(answers > 100 && requests == answers + lost, "{text}");
    // Whoever was on u2 when it was killed, and nobody else.
    assert!(
        (1..requests / 4).contains(&lost) && lost == excused,
        "{text}"
    );
    assert!(
        number(
            between(&text, "upstream: ", " flows moved")
                .split_once(' ')
                .unwrap()
                .1
        ) > 0
    );
    for upstream in ["u1", "u2", "u3"] {
        let summary = &text[place("Summary of")..];
        let row = summary
            .lines()
            .find(|line| line.trim_start().starts_with(upstream))
            .unwrap_or_else(|| panic!("no row of {upstream} in:\n{text}"));
        let answers = row.split_whitespace().nth(1).unwrap();
        assert!(number(answers) > 0, "{row}");
    }
    let (before, _) = text.split_once("Summary of").unwrap();
    let mut rows = before
        .lines()
        .filter(|line| line.ends_with("bytes/s") || line.contains(" UP "));
    assert!(rows.all(|row| row.len() < 80), "{before}");
    place(&format!("curl http://127.0.0.1:{port}/"));
    place(&format!("UDP:127.0.0.1:{port}"));
    assert!(before.contains("requests/s  lost 0  flows u1 "), "{before}");
}

#[test]
fn a_port_in_use_is_said_and_nothing_runs() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let udp_port = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let udp_port = udp_port.local_addr().unwrap().port().to_string();
    let output = demo(&[
        "--for",
        "3s",
        "--port",
        &port.to_string(),
        "--udp-port",
        &udp_port,
    ]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("Address already in use"), "{errors}");
    let hint = format!("Port {port} of 127.0.0.1 is in use");
    assert!(
        errors.contains(&hint) && errors.contains("--port"),
        "{errors}"
    );
    assert!(output.stdout.is_empty());
}
