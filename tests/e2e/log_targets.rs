//! Which lines a target gets, and how much of them.

use std::net::Shutdown;

use crate::support::balancer::Setup;
use crate::support::client::{connect_port, echo, read_end};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, turn};

/// One session, to its end.
fn session(port: u16) {
    let client = connect_port(port);
    echo(&client, b"12345");
    client.shutdown(Shutdown::Write).unwrap();
    read_end(&client);
}

#[test]
fn a_target_gets_no_more_of_a_line_than_its_length() {
    let _turn = turn::shared();
    let (server, port) = (MockServer::echo(), free_port());
    let (short, whole) = (Syslog::start(), Syslog::start());
    let text = "0123456789".repeat(30);
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    log {} len 120 local0\n    log {} local0\n    \
         log-format \"%s {text} end\"\n    server s {}\n",
        short.address(),
        whole.address(),
        server.address()
    ));
    session(port);
    let line = whole.wait_line("0123456789");
    assert!(line.ends_with(" end"), "{line}");
    eventually("the short one is there", || short.received() == 1);
    let cut = short.lines().remove(0);
    assert!((100..=120).contains(&cut.len()), "{}: {cut}", cut.len());
    assert!(line.starts_with(&cut), "{cut} of {line}");
    balancer.settle();
}

#[test]
fn a_proxy_may_have_none_of_the_targets_of_all() {
    let _turn = turn::shared();
    let (server, everywhere, own) = (MockServer::echo(), Syslog::start(), Syslog::start());
    let [silent, global, both] = [(); 3].map(|()| free_port());
    let listen = |name: &str, port: u16, log: &str| {
        format!(
            "listen {name}\n    bind 127.0.0.1:{port}\n{log}    server s {}\n",
            server.address()
        )
    };
    let more = format!("    log {} local1\n", own.address());
    let balancer = Setup::new(format!(
        "defaults\n    mode tcp\n    log global\n    option tcplog\n    timeout connect 5s\n    \
         timeout client 30s\n    timeout server 30s\n{}{}{}",
        listen("silent", silent, "    no log\n"),
        listen("global", global, ""),
        listen("both", both, &more)
    ))
    .global(format!("log {} local0", everywhere.address()))
    .start();
    // One after the other: what comes last says that nothing else comes.
    for port in [silent, global, both] {
        session(port);
        balancer.settle();
    }
    everywhere.wait_line(" both both/s ");
    own.wait_line(" both both/s ");
    let lines = everywhere.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains(" global global/s "), "{lines:#?}");
    assert_eq!(own.lines().len(), 1, "{:#?}", own.lines());
    assert!(own.lines()[0].starts_with("<142>"), "local1.info");
}
