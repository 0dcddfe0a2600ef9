//! What the kernel allows: every receive step carries the same bytes, and where io_uring is
//! forbidden or missing the program says so and how to allow it.

use std::process::Command;

use crate::support::balancer::{Setup, TempDir, program, run};
use crate::support::client::{self, local};
use crate::support::port::free_port;
use crate::support::{MockServer, skip, sys, turn};

/// Streams of all sizes, many at once, over a shard with `buffers` buffers and a forced receive
/// step.
fn carries(step: &str, buffers: u32) {
    let _turn = turn::shared();
    if skip("receive steps are Tidegate's") {
        return;
    }
    let (server, port) = (MockServer::exchange(), free_port());
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
        server.address()
    );
    let balancer = Setup::new(body)
        .shards(1)
        .global(format!("tune.ring.receive {step}"))
        .global(format!("tune.ring.buffers {buffers}"))
        .start();
    std::thread::scope(|scope| {
        for seed in 0..48u64 {
            scope.spawn(move || {
                let (up, down) = (seed * 60_013, (48 - seed) * 60_013);
                client::exchange(local(port), up, down, seed).unwrap();
            });
        }
        for seed in 100..104 {
            scope.spawn(move || {
                client::exchange(local(port), 24 << 20, 24 << 20, seed).unwrap();
            });
        }
    });
    balancer.settle();
}

#[test]
fn the_limit_step_carries_every_byte() {
    carries("limit", 8);
    carries("limit", 2);
}

#[test]
fn the_incremental_step_carries_every_byte() {
    carries("incremental", 8);
    carries("incremental", 2);
}

#[test]
fn the_bundle_step_carries_every_byte() {
    carries("bundle", 8);
    carries("bundle", 2);
}

#[test]
fn the_plain_step_carries_every_byte() {
    carries("plain", 8);
    carries("plain", 2);
}

#[test]
fn the_receive_step_is_shown() {
    let _turn = turn::shared();
    if skip("receive steps are Tidegate's") {
        return;
    }
    let (code, output, errors) = run(&["-vv"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(output.contains("self-test passed"), "{output}");
}

/// Starts the program with io_uring_setup answered by `errno`, and returns its exit code and
/// messages.
fn without_io_uring(errno: i32) -> (Option<i32>, String) {
    let dir = TempDir::new();
    let text = format!(
        "defaults\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n\
         listen l\n    bind 127.0.0.1:{}\n    server s 127.0.0.1:{}\n",
        free_port(),
        free_port()
    );
    let config = dir.write("denied.cfg", &text);
    let mut command = Command::new(program());
    command.arg("-f").arg(config);
    sys::deny_io_uring(&mut command, errno);
    let output = command.output().expect("start the program");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

#[test]
fn forbidden_io_uring_is_explained() {
    let _turn = turn::shared();
    if skip("only Tidegate needs io_uring") {
        return;
    }
    let (code, errors) = without_io_uring(libc::EPERM);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("io_uring is forbidden"), "{errors}");
    assert!(errors.contains("kernel.io_uring_disabled"), "{errors}");
    assert!(errors.contains("seccomp"), "{errors}");
}

#[test]
fn missing_io_uring_is_explained() {
    let _turn = turn::shared();
    if skip("only Tidegate needs io_uring") {
        return;
    }
    let (code, errors) = without_io_uring(libc::ENOSYS);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("io_uring is missing"), "{errors}");
}
