//! Who the process is and what it may open: `user`, `group`, `chroot`, `ulimit-n`,
//! `strict-limits`. Most of it takes root.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::balancer::{Setup, TempDir, program, run};
use crate::support::client::{self, connect_port};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, eventually, skip, turn};

/// A user and a group that have nothing, by number: their names differ between systems.
const NOBODY: u32 = 65534;

/// Whether to leave a test out because it takes root; says so.
fn not_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("left out: only root can change the user");
    }
    !is_root
}

fn setup() -> (Setup, MockServer, u16) {
    let (server, port) = (MockServer::echo(), free_port());
    let line = format!("server s {}", server.address());
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    {line}\n");
    (Setup::new(body), server, port)
}

/// A field of every thread's status.
fn of_threads(balancer: &Balancer, field: &str) -> Vec<String> {
    let tasks = format!("/proc/{}/task", balancer.pid());
    let tasks = std::fs::read_dir(tasks).expect("its threads");
    let value = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap_or("none").trim().to_owned()
    };
    tasks.map(|task| value(task.expect("a thread"))).collect()
}

#[test]
fn it_becomes_the_user_and_the_group_of_the_file() {
    let _turn = turn::shared();
    if not_root() {
        return;
    }
    let dir = TempDir::new();
    let pid_path = dir.path().join("pid");
    let (setup, _server, port) = setup();
    let mut balancer = setup
        .global(format!("uid {NOBODY}"))
        .global(format!("gid {NOBODY}"))
        .arguments(&["-W", "-p", pid_path.to_str().unwrap()])
        .start();
    client::echo(&connect_port(port), b"served");
    if !skip("its worker is another process") {
        let expected = [NOBODY; 4].map(|id| id.to_string()).join("\t");
        for field in ["Uid:", "Gid:"] {
            let values = of_threads(&balancer, field);
            assert!(values.len() > 4, "{values:?}");
            assert!(
                values.iter().all(|value| *value == expected),
                "{field} {values:?}"
            );
        }
        let groups = of_threads(&balancer, "Groups:");
        assert!(groups.iter().all(String::is_empty), "{groups:?}");
    }
    balancer.signal(Signal::SIGTERM);
    assert_eq!(balancer.wait_exit(Duration::from_secs(5)).code(), Some(0));
    // Its directory is root's: it can't be removed any more, as HAProxy's can't.
    if !skip("its master stays root") {
        assert!(pid_path.exists());
    }
}

#[test]
fn names_of_users_and_groups_are_looked_up() {
    let _turn = turn::shared();
    if not_root() {
        return;
    }
    let (setup, _server, port) = setup();
    let balancer = setup.global("user root").global("group root").start();
    client::echo(&connect_port(port), b"served");
    balancer.settle();
    let dir = TempDir::new();
    let text = "global\n    user no-such-user\n    group no-such-group\n";
    let config = dir.write("a.cfg", text);
    let (code, _, errors) = run(&["-c", "-f", config.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    for what in ["user id for 'no-such-user'", "group id for 'no-such-group'"] {
        assert!(errors.contains(&format!("cannot find {what}")), "{errors}");
    }
}

#[test]
fn it_is_confined_to_the_directory_of_the_file() {
    let _turn = turn::shared();
    if not_root() {
        return;
    }
    let dir = TempDir::new();
    let jail = dir.path().to_str().unwrap().to_owned();
    let (setup, _server, port) = setup();
    let mut balancer = setup.global(format!("chroot {jail}")).start();
    client::echo(&connect_port(port), b"served");
    let root = std::fs::read_link(format!("/proc/{}/root", balancer.pid())).unwrap();
    assert_eq!(root.to_str(), Some(jail.as_str()));
    balancer.signal(Signal::SIGUSR1);
    balancer.wait_exit(Duration::from_secs(5));
}

/// What is outside of the jail and still needed: the service manager, the time zone.
#[test]
fn a_confined_process_speaks_to_its_manager_and_knows_the_time() {
    let _turn = turn::shared();
    if not_root() || skip("2.6 looks the zone up inside") {
        return;
    }
    let (dir, jail, syslog) = (TempDir::new(), TempDir::new(), Syslog::start());
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let (server, port) = (MockServer::echo(), free_port());
    let (bind, address) = (format!("bind 127.0.0.1:{port}"), server.address());
    let body = format!(
        "listen l\n    {bind}\n    log global\n    option tcplog\n    server s {address}\n"
    );
    let mut balancer = Setup::new(body)
        .global(format!("chroot {}", jail.path().display()))
        .global(format!("log {} local0", syslog.address()))
        .arguments(&["-Ws"])
        .variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .variable("TZ", "Etc/GMT-9")
        .start();
    let mut buffer = [0; 256];
    let count = manager.recv(&mut buffer).expect("a notification");
    assert!(buffer[..count].starts_with(b"READY=1\n"));
    client::echo(&connect_port(port), b"served");
    // Without its database a zone is taken for UTC.
    if Path::new("/usr/share/zoneinfo/Etc/GMT-9").exists() {
        let line = syslog.wait_line("l/s");
        let hour = |unix_s: u64| unix_s / 3600 % 24;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let expected = [now - 60, now].map(|at| format!(":{:02}:", (hour(at) + 9) % 24));
        assert!(expected.iter().any(|hour| line.contains(hour)), "{line}");
    }
    balancer.signal(Signal::SIGTERM);
    let count = manager.recv(&mut buffer).expect("a notification");
    assert_eq!(&buffer[..count], b"STOPPING=1");
    balancer.wait_exit(Duration::from_secs(5));
}

/// The terminal of its starter is left, although there is no /dev/null inside.
#[test]
fn a_confined_daemon_leaves_its_terminal() {
    let _turn = turn::shared();
    if not_root() {
        return;
    }
    let (dir, jail) = (TempDir::new(), TempDir::new());
    let (setup, _server, port) = setup();
    let setup = setup.global(format!("chroot {}", jail.path().display()));
    let config = dir.write("a.cfg", &setup.text(dir.path()));
    let (pid_path, terminal) = (dir.path().join("pid"), dir.path().join("terminal"));
    let terminal = std::fs::File::create(terminal).unwrap();
    let status = Command::new(program())
        .args(["-D", "-f", config.to_str().unwrap()])
        .args(["-p", pid_path.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    client::echo(&connect_port(port), b"served");
    let pid: i32 = std::fs::read_to_string(&pid_path)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let leads_to = |number: u32| std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
    eventually("it has left the terminal", || {
        (0..3).all(|number| leads_to(number).is_ok_and(|to| to == Path::new("/dev/null")))
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("it is gone", || {
        !Path::new(&format!("/proc/{pid}/fd/0")).exists()
    });
}

/// Whoever becomes another user may not signal a predecessor that stayed root.
#[test]
fn a_predecessor_of_another_user_is_ended_as_well() {
    let _turn = turn::shared();
    if not_root() {
        return;
    }
    let dir = TempDir::new();
    let pid_path = dir.path().join("pid");
    let (setup, server, port) = setup();
    let mut old = setup.start();
    let pid = old.pid().to_string();
    let line = format!("server s {}", server.address());
    let new = Setup::new(format!("listen l\n    bind 127.0.0.1:{port}\n    {line}\n"))
        .global(format!("uid {NOBODY}"))
        .arguments(&["-p", pid_path.to_str().unwrap(), "-sf", &pid])
        .start();
    assert_eq!(old.wait_exit(Duration::from_secs(5)).code(), Some(0));
    client::echo(&connect_port(port), b"by the new one");
    let text = std::fs::read_to_string(&pid_path).unwrap();
    assert_eq!(text.trim(), new.pid().to_string());
    new.settle();
}

#[test]
fn a_start_that_fails_leaves_the_pid_file_of_who_runs() {
    let _turn = turn::shared();
    if not_root() || skip("it has written it by then") {
        return;
    }
    let dir = TempDir::new();
    let pid_path = dir.write("pid", "1\n");
    let (setup, _server, _port) = setup();
    let setup = setup.global("chroot /nowhere/at/all");
    let config = dir.write("a.cfg", &setup.text(dir.path()));
    let pid_file = pid_path.to_str().unwrap();
    let (code, _, errors) = run(&["-f", config.to_str().unwrap(), "-p", pid_file]);
    assert_eq!(code, Some(1), "{errors}");
    assert_eq!(std::fs::read_to_string(&pid_path).unwrap(), "1\n");
}

#[test]
fn it_is_confined_to_an_empty_directory_that_is_gone() {
    let _turn = turn::shared();
    if not_root() || skip("2.6 has no 'auto'") {
        return;
    }
    let (setup, _server, port) = setup();
    let balancer = setup
        .global("chroot auto")
        .global(format!("uid {NOBODY}"))
        .global(format!("gid {NOBODY}"))
        .start();
    client::echo(&connect_port(port), b"served");
    let root = std::fs::read_link(format!("/proc/{}/root", balancer.pid())).unwrap();
    assert!(root.to_string_lossy().ends_with(" (deleted)"), "{root:?}");
    balancer.settle();
}

#[test]
fn a_directory_that_is_not_there_ends_the_start() {
    let _turn = turn::shared();
    if not_root() {
        return;
    }
    let (setup, _server, _port) = setup();
    let dir = TempDir::new();
    let setup = setup.global("chroot /nowhere/at/all");
    let config = dir.write("a.cfg", &setup.text(dir.path()));
    let (code, _, errors) = run(&["-f", config.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("Cannot chroot(/nowhere/at/all)"),
        "{errors}"
    );
}

/// Runs the program as a user without rights; `None` where that user can't execute it.
fn run_as_nobody(arguments: &[&str]) -> Option<(Option<i32>, String)> {
    let mut command = Command::new(program());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY);
    match command.output() {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            Some((output.status.code(), errors))
        }
        Err(error) => {
            eprintln!("left out: {} as nobody: {error}", program().display());
            None
        }
    }
}

#[test]
fn without_rights_it_checks_and_does_not_change_the_user() {
    let _turn = turn::shared();
    if not_root() {
        return;
    }
    let (setup, _server, _port) = setup();
    let dir = TempDir::new();
    // In the directory of the test it may not make a socket.
    let text = setup.global("uid 0").global("gid 0").text(dir.path());
    let text = text.replace(
        &format!("stats socket {}/stats level admin", dir.path().display()),
        "",
    );
    let config = dir.write("a.cfg", &text);
    let config = config.to_str().unwrap();
    let Some((code, errors)) = run_as_nobody(&["-c", "-f", config]) else {
        return;
    };
    assert_eq!(code, Some(0), "{errors}");
    // HAProxy takes 0 for what isn't set.
    if !skip("it takes uid 0 for no uid") {
        let (code, errors) = run_as_nobody(&["-f", config]).expect("it ran before");
        assert_eq!(code, Some(1), "{errors}");
        assert!(
            errors.contains("Cannot set gid 0: Operation not permitted."),
            "{errors}"
        );
    }
}

fn descriptor_limit(balancer: &Balancer) -> String {
    let path = format!("/proc/{}/limits", balancer.pid());
    let text = std::fs::read_to_string(path).expect("its limits");
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.unwrap_or("none").to_owned()
}

#[test]
fn the_descriptor_limit_is_the_files() {
    let _turn = turn::shared();
    if skip("2.6 raises the limit and never lowers it") {
        return;
    }
    let (setup, _server, port) = setup();
    let balancer = setup.global("maxconn 50").global("ulimit-n 1234").start();
    assert_eq!(descriptor_limit(&balancer), "1234");
    let info = balancer.stats("show info");
    assert!(info.contains("\nUlimit-n: 1234\n"), "{info}");
    client::echo(&connect_port(port), b"served");
    balancer.settle();
}

#[test]
fn a_limit_that_can_not_be_set_is_an_error_only_where_limits_are_strict() {
    let _turn = turn::shared();
    let most: u64 = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("the kernel's bound");
    let line = format!("ulimit-n {}", most + 1);
    let (strict, _server, _port) = setup();
    let dir = TempDir::new();
    let config = dir.write("a.cfg", &strict.global(&line).text(dir.path()));
    let (code, _, errors) = run(&["-f", config.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("Cannot raise FD limit to"), "{errors}");
    let (lax, _server, port) = setup();
    let balancer = lax.global("no strict-limits").global(&line).start();
    client::echo(&connect_port(port), b"served");
    let errors = balancer.stderr();
    assert!(errors.contains("Cannot raise FD limit to"), "{errors}");
    balancer.settle();
}

#[test]
fn a_maxconn_beyond_the_descriptors_is_lowered_where_limits_are_not_strict() {
    let _turn = turn::shared();
    if skip("it keeps its maxconn and warns") {
        return;
    }
    let (setup, _server, port) = setup();
    let balancer = setup
        .global("no strict-limits")
        .global("maxconn 10000000")
        .start();
    client::echo(&connect_port(port), b"served");
    let errors = balancer.stderr();
    assert!(errors.contains("[WARNING]"), "{errors}");
    assert!(errors.contains("maxconn 10000000 needs"), "{errors}");
    assert!(
        !balancer
            .stats("show info")
            .contains("\nMaxconn: 10000000\n")
    );
    balancer.settle();
}
