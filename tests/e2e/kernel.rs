//! What the kernel allows: every receive step carries the same bytes, and where io_uring is
//! forbidden or missing the program says so and how to allow it.

use std::process::Command;

use crate::support::balancer::{Balancer, Setup, TempDir, program, run};
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

/// A balancer with these lines in its global section, to ask what it uses of the kernel.
fn with(lines: &[&str]) -> Balancer {
    let body = format!(
        "listen l\n    bind 127.0.0.1:{}\n    server s 127.0.0.1:{}\n",
        free_port(),
        free_port()
    );
    let setup = Setup::new(body);
    lines
        .iter()
        .fold(setup, |setup, line| setup.global(line))
        .start()
}

/// What `show activity` says of `name`.
fn shown(balancer: &Balancer, name: &str) -> String {
    let answer = balancer.stats("show activity");
    let mut lines = answer.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value
        .unwrap_or_else(|| panic!("no {name} in {answer}"))
        .to_owned()
}

#[test]
fn what_is_used_and_what_each_step_would_be_is_shown() {
    let _turn = turn::shared();
    if skip("receive steps are Tidegate's") {
        return;
    }
    let (code, output, errors) = run(&["-vv"]);
    assert_eq!(code, Some(0), "{errors}");
    let line = output
        .lines()
        .find_map(|l| l.strip_prefix("Receive step: "));
    let best = line.unwrap_or_else(|| panic!("no step in {output}"));
    let mut passing = Vec::new();
    for step in STEPS {
        let found = output
            .lines()
            .find(|l| l.starts_with(&format!("  {step} (Linux ")));
        let found = found.unwrap_or_else(|| panic!("no {step} in {output}"));
        if found.ends_with(": self-test passed") {
            passing.push(step);
        }
    }
    assert_eq!(passing.first(), Some(&best), "{output}");
    for optional in OPTIONAL {
        let name = optional.replace('-', " ");
        assert!(output.contains(&format!("{name}: ")), "{output}");
    }
    let balancer = with(&[]);
    assert_eq!(shown(&balancer, "receive_step"), best);
}

/// All steps, best first.
const STEPS: [&str; 4] = ["limit", "incremental", "bundle", "plain"];
/// What is worked around where it is missing.
const OPTIONAL: [&str; 6] = [
    "deferred-work",
    "registered-ring",
    "multishot-accept",
    "gso",
    "gro",
    "steering",
];

#[test]
fn the_next_lower_step_is_taken_where_one_is_missing() {
    let _turn = turn::shared();
    if skip("receive steps are Tidegate's") {
        return;
    }
    for missing in 0..3 {
        let without = format!(
            "tune.ring.without registered-ring {}",
            STEPS[..missing].join(" ")
        );
        let balancer = with(&[&without]);
        assert_eq!(shown(&balancer, "receive_step"), STEPS[missing]);
        balancer.settle();
    }
}

#[test]
fn a_forced_step_that_the_kernel_lacks_is_an_error_that_says_so() {
    let _turn = turn::shared();
    if skip("receive steps are Tidegate's") {
        return;
    }
    let lines = "    tune.ring.receive bundle\n    tune.ring.without bundle\n";
    let (code, errors) = start_with(lines, |_| ());
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("'tune.ring.receive bundle' can't be had"),
        "{errors}"
    );
    assert!(errors.contains("Linux 6.10"), "{errors}");
    let lines = format!("    tune.ring.without {}\n", STEPS.join(" "));
    let (code, errors) = start_with(&lines, |_| ());
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("none of the io_uring receive self-tests"),
        "{errors}"
    );
    assert!(errors.contains("Linux 6.0 or later is needed"), "{errors}");
}

#[test]
fn what_is_optional_is_worked_around_and_shown() {
    let _turn = turn::shared();
    if skip("rings are Tidegate's") {
        return;
    }
    let server = MockServer::exchange();
    for missing in OPTIONAL {
        // A port each: the rings of a process that was killed let go of their sockets a little
        // later than it ends.
        let port = free_port();
        let body = format!(
            "listen l\n    bind 127.0.0.1:{port}\n    server s {}\n",
            server.address()
        );
        let without = format!("tune.ring.without {missing}");
        let balancer = Setup::new(body).global(without).start();
        for optional in OPTIONAL {
            let has = if optional == missing { "0" } else { "1" };
            assert_eq!(shown(&balancer, &optional.replace('-', "_")), has);
        }
        std::thread::scope(|scope| {
            for seed in 0..40u64 {
                scope.spawn(move || {
                    let (up, down) = (seed * 40_013, (40 - seed) * 40_013);
                    client::exchange(local(port), up, down, seed).unwrap();
                });
            }
        });
        balancer.settle();
    }
}

#[test]
fn a_kernel_that_registers_no_ring_is_worked_around() {
    let _turn = turn::shared();
    if skip("only Tidegate needs io_uring") {
        return;
    }
    // IORING_REGISTER_RING_FDS, io_uring_register(2).
    let mut command = Command::new(program());
    sys::deny_registering(command.arg("-vv"), 20, libc::EINVAL);
    let output = command.output().expect("start the program");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("registered ring: no"), "{text}");
    assert!(text.contains("Receive step: "), "{text}");
}

#[test]
fn a_kernel_without_buffer_rings_is_refused_by_name() {
    let _turn = turn::shared();
    if skip("only Tidegate needs io_uring") {
        return;
    }
    // IORING_REGISTER_PBUF_RING.
    let deny = |command: &mut Command| sys::deny_registering(command, 22, libc::EINVAL);
    let (code, errors) = start_with("", deny);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("Linux 6.0 or later is needed"), "{errors}");
}

/// Starts the program with these lines in its global section, after `prepare`, and returns its
/// exit code and messages.
fn start_with(lines: &str, prepare: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
    let dir = TempDir::new();
    let text = format!(
        "global\n{lines}defaults\n    timeout connect 1s\n    timeout client 1s\n    \
         timeout server 1s\nlisten l\n    bind 127.0.0.1:{}\n    server s 127.0.0.1:{}\n",
        free_port(),
        free_port()
    );
    let config = dir.write("refused.cfg", &text);
    let mut command = Command::new(program());
    command.arg("-f").arg(config);
    prepare(&mut command);
    let output = command.output().expect("start the program");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// The same with io_uring_setup answered by `errno`.
fn without_io_uring(errno: i32) -> (Option<i32>, String) {
    start_with("", |command| sys::deny_io_uring(command, errno))
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

#[test]
fn a_ring_that_no_flags_make_is_explained() {
    let _turn = turn::shared();
    if skip("only Tidegate needs io_uring") {
        return;
    }
    let (code, errors) = without_io_uring(libc::EINVAL);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("a ring is refused"), "{errors}");
    assert!(errors.contains("Linux 6.0 or later is needed"), "{errors}");
}
