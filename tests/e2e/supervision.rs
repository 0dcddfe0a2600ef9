//! What whoever starts and watches the process sees: exit status, pid file, notifications, the
//! socket in place of HAProxy's master's.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::runtime_set::ask_at;
use crate::support::balancer::{Setup, TempDir, program, run};
use crate::support::client::{self, connect_port};
use crate::support::port::{free_port, listeners_on};
use crate::support::{MockServer, eventually, skip, turn};

fn echo_setup() -> (Setup, MockServer, u16) {
    let (server, port) = (MockServer::echo(), free_port());
    let line = format!("server s {}", server.address());
    let body = format!("listen l\n    bind 127.0.0.1:{port}\n    {line}\n");
    (Setup::new(body), server, port)
}

fn status_after(arguments: &[&str], signal: Signal) -> Option<i32> {
    let (setup, _server, port) = echo_setup();
    let mut balancer = setup.arguments(arguments).start();
    client::echo(&connect_port(port), b"served");
    balancer.signal(signal);
    balancer.wait_exit(Duration::from_secs(5)).code()
}

#[test]
fn an_interrupted_worker_reports_130_as_haproxys_master_does() {
    let _turn = turn::shared();
    assert_eq!(status_after(&["-W"], Signal::SIGINT), Some(130));
    assert_eq!(status_after(&["-Ws"], Signal::SIGINT), Some(130));
}

/// HAProxy tells a predecessor so that is in its way; by default they stop a process.
#[test]
fn signals_that_pause_haproxy_do_not_stop_the_process() {
    let _turn = turn::shared();
    if skip("it pauses its listeners") {
        return;
    }
    let (setup, _server, port) = echo_setup();
    let balancer = setup.start();
    for signal in [Signal::SIGTTOU, Signal::SIGTTIN] {
        balancer.signal(signal);
        client::echo(&connect_port(port), b"served");
    }
    balancer.settle();
}

#[test]
fn a_worker_that_is_told_to_end_reports_0() {
    let _turn = turn::shared();
    for signal in [Signal::SIGTERM, Signal::SIGUSR1] {
        assert_eq!(status_after(&["-W"], signal), Some(0), "{signal}");
        assert_eq!(status_after(&["-Ws"], signal), Some(0), "{signal}");
    }
}

#[test]
fn the_keyword_does_what_the_flag_does() {
    let _turn = turn::shared();
    let (setup, _server, _port) = echo_setup();
    let mut balancer = setup.global("master-worker").start();
    balancer.signal(Signal::SIGINT);
    let status = balancer.wait_exit(Duration::from_secs(5));
    assert_eq!(status.code(), Some(130));
}

/// A service manager's end of the notifications.
fn manager(dir: &TempDir) -> (UnixDatagram, String) {
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    (socket, path.to_str().unwrap().to_owned())
}

fn next(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let count = manager.recv(&mut buffer).expect("a notification");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[test]
fn the_service_manager_hears_first_that_it_is_ready() {
    let _turn = turn::shared();
    if skip("it says RELOADING=1 first") {
        return;
    }
    let dir = TempDir::new();
    let (manager, path) = manager(&dir);
    let (setup, _server, port) = echo_setup();
    let setup = setup.global("daemon").arguments(&["-Ws"]);
    let mut balancer = setup.variable("NOTIFY_SOCKET", path).start();
    let ready = next(&manager);
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    // The foreground, in spite of `daemon`: the process is the one that was started.
    let main = format!("\nMAINPID={}\n", balancer.pid());
    assert!(ready.contains(&main), "{ready}");
    client::echo(&connect_port(port), b"served");
    balancer.signal(Signal::SIGTERM);
    assert_eq!(next(&manager), "STOPPING=1");
    balancer.wait_exit(Duration::from_secs(5));
}

#[test]
fn the_pid_file_names_the_started_process() {
    let _turn = turn::shared();
    for mode in ["-W", "-Ws"] {
        let dir = TempDir::new();
        let path = dir.path().join("pid");
        let (setup, _server, _port) = echo_setup();
        let arguments = [mode, "-p", path.to_str().unwrap()];
        let mut balancer = setup.arguments(&arguments).start();
        let text = std::fs::read_to_string(&path).expect("pid file");
        assert_eq!(text.trim(), balancer.pid().to_string(), "{mode}");
        balancer.signal(Signal::SIGTERM);
        balancer.wait_exit(Duration::from_secs(5));
        assert!(!path.exists() || skip("2.6 leaves it"), "{mode}");
    }
}

#[test]
fn the_pid_file_of_a_worker_in_the_background_names_the_background() {
    let _turn = turn::shared();
    let (setup, _server, port) = echo_setup();
    let dir = TempDir::new();
    let config = dir.write("daemon.cfg", &setup.text(dir.path()));
    let path = dir.path().join("pid");
    let (config, pid_file) = (config.to_str().unwrap(), path.to_str().unwrap());
    let (code, _, errors) = run(&["-W", "-D", "-f", config, "-p", pid_file]);
    assert_eq!(code, Some(0), "{errors}");
    let pid = std::fs::read_to_string(&path).expect("pid file");
    let pid = Pid::from_raw(pid.trim().parse().expect("a pid"));
    client::echo(&connect_port(port), b"served");
    kill(pid, Signal::SIGTERM).unwrap();
    eventually("the daemon is gone", || listeners_on(port) == 0);
}

#[test]
fn a_closed_standard_input_does_not_matter() {
    let _turn = turn::shared();
    let (setup, _server, port) = echo_setup();
    let dir = TempDir::new();
    let config = dir.write("closed.cfg", &setup.text(dir.path()));
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" -W -f \"$1\" <&-"]);
    shell.arg(program()).arg(config);
    let mut child = shell.stderr(Stdio::null()).spawn().unwrap();
    eventually("it listens", || listeners_on(port) > 0);
    client::echo(&connect_port(port), b"served");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_masters_socket_lists_the_process_and_passes_commands_on() {
    let _turn = turn::shared();
    let dir = TempDir::new();
    let path = dir.path().join("master");
    let (setup, _server, _port) = echo_setup();
    let address = format!("{},mode,600", path.display());
    let mut balancer = setup.arguments(&["-W", "-S", &address]).start();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    if skip("2.6 keeps the connection open") {
        return;
    }
    let table = ask_at(&path, "show proc");
    let pid = balancer.pid().to_string();
    let master = table.lines().find(|line| line.contains("master"));
    assert!(master.is_some_and(|line| line.starts_with(&pid)), "{table}");
    assert!(table.contains("worker"), "{table}");
    let info = ask_at(&path, "@1 show info");
    assert!(info.contains("\nPid: "), "{info}");
    let info = ask_at(&path, "@master show info;@1 show version");
    assert!(info.contains("\nPid: "), "{info}");
    balancer.signal(Signal::SIGTERM);
    balancer.wait_exit(Duration::from_secs(5));
    assert!(!path.exists());
}

#[test]
fn a_wrong_address_of_the_masters_socket_is_an_error() {
    let _turn = turn::shared();
    if skip("it does not look at it with -c") {
        return;
    }
    let (setup, _server, _port) = echo_setup();
    let dir = TempDir::new();
    let config = dir.write("a.cfg", &setup.text(dir.path()));
    let config = config.to_str().unwrap();
    let (code, _, errors) = run(&["-c", "-W", "-S", "/run/x,mode,9", "-f", config]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("invalid mode '9'"), "{errors}");
}
