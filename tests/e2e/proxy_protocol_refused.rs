//! Clients whose PROXY header is cut off, late, wrong or no header at all.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use tidegate::flow::proxy_protocol::{PROXY, tlv};

use crate::proxy_protocol::{CLIENT, CLIENT_6, assert_refused, start};
use crate::support::client::{self, connect_port, write};
use crate::support::proxy_header::{TCP4, addresses, binary, checked, field, raw, text};
use crate::support::{Balancer, MockServer, Stopwatch, is_tidegate, skip, turn, wait_for};

fn gauge(balancer: &Balancer, name: &str, expected: usize) {
    if !is_tidegate() {
        return;
    }
    let number = || {
        let number = balancer.activity().number(name)?;
        (number == expected as u64).then_some(())
    };
    let found = wait_for(Duration::from_secs(30), number);
    assert!(
        found.is_some(),
        "{name}: {:?}",
        balancer.activity().number(name)
    );
}

#[test]
fn a_header_that_is_cut_off_is_refused() {
    let _turn = turn::shared();
    let server = MockServer::silent();
    let (balancer, syslog, port) = start(&server, "");
    let mut refused = 0;
    for header in [text(CLIENT), binary(CLIENT_6, &field(0xe0, b"x"))] {
        let clients: Vec<_> = (0..header.len()).map(|_| connect_port(port)).collect();
        for (cut, client) in clients.iter().enumerate() {
            write(client, &header[..cut]);
            // HAProxy has refused what isn't whole by now.
            let ended = client.shutdown(Shutdown::Write);
            assert!(ended.is_ok() || !is_tidegate());
        }
        clients.iter().for_each(assert_refused);
        refused += clients.len();
    }
    assert_eq!(server.accepted(), 0);
    let cut_off = "f/in: Truncated PROXY protocol header received";
    let closed = "f/in: Connection closed while waiting for PROXY protocol header";
    let logged = || {
        // HAProxy takes some for something else.
        let texts = if is_tidegate() {
            [cut_off, closed]
        } else {
            ["PROXY protocol header", closed]
        };
        let counts = texts.map(|text| syslog.count(text));
        let of_first = if is_tidegate() { refused - 2 } else { refused };
        (counts == [of_first, 2]).then_some(())
    };
    let all = wait_for(Duration::from_secs(30), logged);
    assert!(all.is_some(), "{refused}: {:#?}", syslog.lines());
    let stat = balancer.stat();
    assert_eq!(stat.number("f", "FRONTEND", "conn_tot"), refused as u64);
    assert_eq!(stat.number("f", "FRONTEND", "stot"), 0);
    gauge(&balancer, "proxy_headers_closed", refused);
    balancer.settle();
}

#[test]
fn a_header_that_does_not_come_is_waited_for_no_longer_than_it_says() {
    let _turn = turn::shared();
    if skip("2.6 has no 'timeout client-hs'") {
        return;
    }
    let server = MockServer::silent();
    let (balancer, syslog, port) = start(&server, "    timeout client-hs 400ms");
    let mut refused = 0;
    for header in [text(CLIENT_6), checked(CLIENT, &[], 0)] {
        let watch = Stopwatch::start();
        let clients: Vec<_> = (0..header.len()).map(|_| connect_port(port)).collect();
        for (cut, client) in clients.iter().enumerate() {
            write(client, &header[..cut]);
        }
        clients.iter().for_each(assert_refused);
        watch.assert_within(380, 2_500, "timeout client-hs");
        refused += clients.len();
    }
    assert_eq!(server.accepted(), 0);
    let text = "f/in: Timeout while waiting for PROXY protocol header";
    let logged = || (syslog.count(text) == refused).then_some(());
    let all = wait_for(Duration::from_secs(30), logged);
    assert!(all.is_some(), "{refused}: {:#?}", syslog.lines());
    gauge(&balancer, "proxy_headers_timed_out", refused);
    balancer.settle();
}

#[test]
fn what_is_no_header_is_refused_at_once() {
    let _turn = turn::shared();
    let server = MockServer::silent();
    let (balancer, syslog, port) = start(&server, "");
    let no_header = "Received something which does not look like a PROXY protocol header";
    let invalid = "Received an invalid PROXY protocol header";
    let protocol = "Received an unhandled protocol in the PROXY protocol header";
    let unordered = |text: &str| text.as_bytes().to_vec();
    let mut wrong = vec![
        (unordered("GET / HTTP/1.1\r\nHost: www\r\n\r\n"), no_header),
        (
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03random".to_vec(),
            no_header,
        ),
        (vec![0; 200], no_header),
        (raw(0x11, TCP4, &addresses(CLIENT)), no_header),
        (unordered("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n"), invalid),
        (unordered("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"), invalid),
        (unordered("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"), protocol),
        (raw(0x22, TCP4, &addresses(CLIENT)), invalid),
        (raw(PROXY, 0x12, &addresses(CLIENT)), invalid),
        (raw(PROXY, TCP4, &addresses(CLIENT)[..11]), invalid),
        (binary(CLIENT, &[4, 0, 9, 1]), invalid),
        (checked(CLIENT, &[], 1), invalid),
        (binary(CLIENT, &field(tlv::UNIQUE_ID, &[0; 129])), invalid),
    ];
    if is_tidegate() {
        // HAProxy's buffer, where it says that they are cut off.
        wrong.push((binary(CLIENT, &field(0xe0, &[0; 17_000])), invalid));
        wrong.push((vec![b'P'; 17_000], no_header));
        wrong.push((
            unordered(&format!("PROXY UNKNOWN {}", "x".repeat(93))),
            invalid,
        ));
    }
    for (index, (bytes, text)) in wrong.iter().enumerate() {
        let mut client = connect_port(port);
        let watch = Stopwatch::start();
        // A large one may be refused while it is being sent.
        let _ = client.write_all(bytes);
        assert_refused(&client);
        watch.assert_within(0, 1_000, "a refusal");
        let own = client.local_addr().unwrap();
        let line = wait_for(Duration::from_secs(30), || {
            syslog.lines().get(index).cloned()
        });
        let line = line.unwrap_or_else(|| panic!("not logged: {bytes:?}"));
        // HAProxy has a wrong header's address already.
        assert!(line.contains(&own.to_string()) || !is_tidegate(), "{line}");
        assert!(
            line.ends_with(&format!("f/in: {text}")),
            "{line} of {bytes:?}"
        );
    }
    assert_eq!(server.accepted(), 0);
    assert_eq!(balancer.stat().number("f", "FRONTEND", "stot"), 0);
    gauge(&balancer, "proxy_headers_malformed", wrong.len());
    balancer.settle();
}

#[test]
fn refusals_are_logged_as_other_errors_are() {
    let _turn = turn::shared();
    let server = MockServer::silent();
    let lines = "    option dontlognull\n    option log-separate-errors\n    option dontlog-normal";
    let (balancer, syslog, port) = start(&server, lines);
    for bytes in [&b""[..], b"garbage in place of a header"] {
        let client = connect_port(port);
        write(&client, bytes);
        // One may be refused by then.
        let _ = client.shutdown(Shutdown::Write);
        assert_refused(&client);
    }
    // local0.err, and nothing of the one that sent nothing.
    let line = syslog.wait_line("does not look like");
    assert!(line.starts_with("<131>"), "{line}");
    assert_eq!(syslog.lines().len(), 1, "{:#?}", syslog.lines());
    balancer.settle();
}

#[test]
fn a_reset_while_a_header_is_awaited_is_the_end() {
    let _turn = turn::shared();
    let server = MockServer::silent();
    let (balancer, syslog, port) = start(&server, "");
    let texts = ["Connection error while waiting for", "Truncated"];
    for (bytes, text) in [&b""[..], b"PROXY TCP4 1.2"].into_iter().zip(texts) {
        let client = connect_port(port);
        let own = client.local_addr().unwrap();
        write(&client, bytes);
        // HAProxy refuses a part at once. Here it has looked at the end of a turn.
        let waits = || (balancer.activity().number("sessions") == Some(1)).then_some(());
        if is_tidegate() {
            assert!(wait_for(Duration::from_secs(30), waits).is_some());
        }
        client::reset(client);
        let line = syslog.wait_line(text);
        assert!(!is_tidegate() || line.contains(&own.to_string()), "{line}");
        balancer.settle();
    }
    gauge(&balancer, "proxy_headers_closed", 2);
    assert_eq!(server.accepted(), 0);
}
