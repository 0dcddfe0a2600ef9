//! Limits and logs over a reload: the new bound counts what is there, and lines go where the file
//! says.

use crate::reload::{Long, change_to};
use crate::support::balancer::Setup;
use crate::support::client::{connect_port, read_bytes, write};
use crate::support::port::free_port;
use crate::support::{MockServer, Syslog, eventually, is_tidegate, turn};

/// Has three clients at a bound of two, which goes up and then below what is there. `setup` makes a
/// configuration with a bound of `n`; `waits` says how many sessions wait for a server then.
fn goes_up_and_down(setup: impl Fn(u16, &MockServer, u32) -> Setup, at_server: bool) {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    // What the process is made for: more than is asked for later.
    let balancer = setup(port, &server, 9).start();
    change_to(&balancer, &setup(port, &server, 2));
    let mut longs: Vec<Long> = (0..2).map(|seed| Long::begin(port, seed)).collect();
    let late = |byte: u8| {
        let late = connect_port(port);
        write(&late, &[byte]);
        late
    };
    let third = late(3);
    if at_server {
        eventually("it waits", || {
            balancer.stat().number("l", "BACKEND", "qcur") == 1
        });
    }
    assert_eq!(server.accepted(), 2);
    change_to(&balancer, &setup(port, &server, 3));
    assert_eq!(read_bytes(&third, 1), [3]);
    assert_eq!(server.accepted(), 3);
    // Nobody is sent away, and who comes has to wait for those who are too many as well.
    change_to(&balancer, &setup(port, &server, 1));
    longs.iter_mut().for_each(Long::go_on);
    write(&third, &[4]);
    assert_eq!(read_bytes(&third, 1), [4]);
    let fourth = late(5);
    let open = |count: u64| {
        eventually("they have ended", || server.running() == count);
    };
    longs.pop();
    open(2);
    longs.pop();
    open(1);
    assert_eq!(server.accepted(), 3, "there was no room");
    drop(third);
    assert_eq!(read_bytes(&fourth, 1), [5]);
    assert_eq!(server.accepted(), 4);
    drop(fourth);
    balancer.settle();
}

fn listen(port: u16, server: &MockServer, front: &str, of_server: &str) -> Setup {
    let address = server.address();
    Setup::new(format!(
        "listen l\n    bind 127.0.0.1:{port} backlog 99\n{front}    server s {address} {of_server}\n"
    ))
}

#[test]
fn the_bound_of_the_process_goes_up_and_down() {
    let setup = |port: u16, server: &MockServer, bound: u32| {
        listen(port, server, "", "").global(format!("maxconn {bound}"))
    };
    goes_up_and_down(setup, false);
}

#[test]
fn the_bound_of_a_frontend_goes_up_and_down() {
    let setup = |port: u16, server: &MockServer, bound: u32| {
        listen(port, server, &format!("    maxconn {bound}\n"), "")
    };
    goes_up_and_down(setup, false);
}

#[test]
fn the_bound_of_a_server_goes_up_and_down() {
    let setup = |port: u16, server: &MockServer, bound: u32| {
        listen(port, server, "", &format!("maxconn {bound}"))
    };
    goes_up_and_down(setup, true);
}

#[test]
fn lines_go_to_the_targets_that_the_file_has() {
    let _turn = turn::shared();
    if !is_tidegate() {
        return;
    }
    let (server, port) = (MockServer::echo(), free_port());
    let targets = [(); 3].map(|()| Syslog::start());
    let with = |which: &[usize], words: &str| {
        let line = |n: &usize| format!("    log {} local0 {words}\n", targets[*n].address());
        let lines: String = which.iter().map(line).collect();
        listen(port, &server, &format!("    option tcplog\n{lines}"), "")
    };
    let sessions = |n: usize| targets[n].count(" l l/s ");
    let expected = |counts: [usize; 3]| {
        eventually("its lines have come", || [0, 1, 2].map(sessions) == counts);
    };
    let session = || Long::begin(port, 1).go_on();
    let balancer = with(&[0], "").start();
    session();
    expected([1, 0, 0]);
    // One that is open across reloads is told of when it ends, where the file says then.
    let across = Long::begin(port, 2);
    change_to(&balancer, &with(&[0, 1], ""));
    session();
    expected([2, 1, 0]);
    change_to(&balancer, &with(&[1], ""));
    session();
    expected([2, 2, 0]);
    drop(across);
    expected([2, 3, 0]);
    change_to(&balancer, &with(&[2], ""));
    session();
    expected([2, 3, 1]);
    // Another level: lines of sessions are `info`, and not among them any more.
    change_to(&balancer, &with(&[2], "notice"));
    session();
    change_to(&balancer, &with(&[2, 0], ""));
    session();
    expected([3, 3, 2]);
    // As many targets as at the start.
    change_to(&balancer, &with(&[0], ""));
    balancer.settle();
}
