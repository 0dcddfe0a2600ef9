//! `tidegate ctl top` in a terminal: what it shows, what keys do, and that the terminal is given
//! back however it ends.

use nix::sys::signal::Signal;

use crate::ctl::stat;
use crate::spread::named;
use crate::support::control::{Scripted, program};
use crate::support::port::free_port;
use crate::support::terminal::{self, Terminal};
use crate::support::{Balancer, turn};

const WIDE: u16 = 120;

/// `ctl top` on a socket, in a terminal of such a size.
pub(crate) fn top(socket: &std::path::Path, rows: u16, columns: u16) -> Terminal {
    let socket = socket.to_str().unwrap();
    let words = [
        "ctl",
        "--timeout",
        "30s",
        "--socket",
        socket,
        "top",
        "--interval",
        "100ms",
    ];
    Terminal::start(&program(), &words, rows, columns)
}

/// The names in the first column, in their order.
fn names(lines: &[String]) -> Vec<&str> {
    let rows = lines.iter().skip(3).take(lines.len().saturating_sub(4));
    rows.filter_map(|line| line.split_whitespace().next())
        .collect()
}

fn last(lines: &[String]) -> &str {
    lines.last().map_or("", String::as_str)
}

#[test]
fn servers_are_shown_sorted_filtered_and_the_terminal_is_given_back() {
    let _turn = turn::shared();
    if terminal::is_missing() {
        return;
    }
    let (_servers, lines) = named(&["weight 1", "weight 2", "weight 3"]);
    let port = free_port();
    let balancer = Balancer::start(format!("listen web\n    bind 127.0.0.1:{port}\n{lines}"));
    let mut terminal = top(balancer.stats_path(), 24, 80);
    let shown = terminal.wait("all rows", |lines| {
        names(lines) == ["web", "s1", "s2", "s3", "web"]
    });
    assert!(
        shown[0].contains(&format!("pid {} ", balancer.pid())),
        "{shown:#?}"
    );
    assert!(
        shown[1].starts_with(" [by file] OK: 3 of 3 servers up"),
        "{shown:#?}"
    );
    assert!(
        shown[2].starts_with("NAME             STATUS    WGT"),
        "{shown:#?}"
    );
    assert!(
        shown[4].starts_with("  s1             no check  1"),
        "{shown:#?}"
    );
    assert!(last(&shown).contains("q quit"), "{shown:#?}");

    terminal.press("r");
    terminal.wait("reversed", |lines| {
        names(lines) == ["web", "s3", "s2", "s1", "web"]
    });
    terminal.press("s");
    let sorted = terminal.wait("by name", |lines| {
        lines[1].starts_with(" [by name, reversed]")
    });
    assert_eq!(names(&sorted), ["web", "s3", "s2", "s1", "web"]);
    terminal.press("/s2\r");
    terminal.wait("only one", |lines| names(lines) == ["s2"]);
    terminal.press("/\x7f\x08\r");
    terminal.wait("all again", |lines| names(lines).len() == 5);
    terminal.press("?");
    terminal.wait("help", |lines| {
        lines
            .iter()
            .any(|line| line.contains("any key closes this"))
    });
    terminal.press("x");
    terminal.wait("no help", |lines| names(lines).len() == 5);

    terminal.resize(10, WIDE);
    terminal.wait("more columns", |lines| {
        lines[2].ends_with("RETRY TOTAL FOR     LIMIT")
    });
    terminal.press("q");
    assert_eq!(terminal.wait_exit().code(), Some(0));
    terminal.assert_restored();
    balancer.settle();
}

#[test]
fn a_server_is_drained_after_a_yes() {
    let _turn = turn::shared();
    if terminal::is_missing() {
        return;
    }
    let (done, changed) = (
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
        std::sync::atomic::Ordering::SeqCst,
    );
    let scripted = Scripted::start(move |line| match line {
        "show info;show stat" if done.load(changed) => stat(&[("s1", "DRAIN", 1)]),
        "show info;show stat" => stat(&[("s1", "UP", 1)]),
        "set server web/s1 state drain" => {
            done.store(true, changed);
            "\n".to_owned()
        }
        _ => "Permission denied\n\n".to_owned(),
    });
    let mut terminal = top(&scripted.path(), 24, 80);
    terminal.wait("the server", |lines| names(lines).first() == Some(&"s1"));
    terminal.press("d");
    terminal.wait("a question", |lines| last(lines) == " drain web/s1? y/n");
    terminal.press("n");
    terminal.wait("an answer", |lines| last(lines) == " left as it is");
    terminal.press("d");
    terminal.wait("a question", |lines| last(lines) == " drain web/s1? y/n");
    terminal.press("y");
    terminal.wait("drained", |lines| {
        last(lines) == " done: set server web/s1 state drain" && lines[3].contains(" DRAIN ")
    });
    terminal.press("e");
    terminal.wait("a question", |lines| last(lines) == " ready web/s1? y/n");
    terminal.press("y");
    terminal.wait("refused", |lines| {
        last(lines) == " not done: set server web/s1 state ready: Permission denied"
    });
    let changes = |line: &String| line.starts_with("set server");
    let sent: Vec<String> = scripted.asked().into_iter().filter(changes).collect();
    assert_eq!(sent.len(), 2, "{sent:?}");
    terminal.press("\x03");
    assert_eq!(terminal.wait_exit().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn a_lost_balancer_is_said_and_found_again() {
    let _turn = turn::shared();
    if terminal::is_missing() {
        return;
    }
    let (_servers, lines) = named(&[""]);
    let port = free_port();
    let body = format!("listen web\n    bind 127.0.0.1:{port}\n{lines}");
    let balancer = Balancer::start(body.clone());
    let socket = balancer.stats_path().to_owned();
    let aside = socket.with_extension("aside");
    let mut terminal = top(&socket, 24, 80);
    terminal.wait("rows", |lines| names(lines) == ["web", "s1", "web"]);
    std::fs::rename(&socket, &aside).unwrap();
    let lost = terminal.wait("it is lost", |lines| {
        lines[1].starts_with(" LOST, trying again:")
    });
    // What was known stays.
    assert_eq!(names(&lost), ["web", "s1", "web"]);
    std::fs::rename(&aside, &socket).unwrap();
    terminal.wait("it is back", |lines| lines[1].starts_with(" [by file] OK"));
    terminal.signal(Signal::SIGTERM);
    assert_eq!(terminal.wait_exit().code(), Some(0));
    terminal.assert_restored();
    balancer.settle();
}

#[test]
fn signals_give_the_terminal_back() {
    let _turn = turn::shared();
    if terminal::is_missing() {
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut terminal = top("/nowhere/stats".as_ref(), 24, 80);
        terminal.wait("the reason", |lines| {
            lines[0].contains("cannot connect to /nowhere/stats")
        });
        terminal.signal(signal);
        assert_eq!(terminal.wait_exit().code(), Some(0), "{signal}");
        terminal.assert_restored();
    }
    // A screen with one cell is one, too.
    let mut terminal = top("/nowhere/stats".as_ref(), 1, 1);
    terminal.wait_raw();
    terminal.press("q");
    assert_eq!(terminal.wait_exit().code(), Some(0));
    terminal.assert_restored();
}
