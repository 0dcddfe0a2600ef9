//! Real programs through the balancer: curl and nginx, redis-benchmark, pgbench, scp.
//!
//! Where a program is absent the test says so on standard error and passes, unless
//! `TIDEGATE_REQUIRE_PROGRAMS=1`: then it fails.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User, chown};

use crate::support::balancer::TempDir;
use crate::support::port::{free_port, wait_listening};
use crate::support::{Balancer, stream, turn, wait_for};

/// Directories in which programs are looked for after those of `PATH`.
const PLACES: [&str; 6] = [
    "/usr/sbin",
    "/sbin",
    "/usr/local/sbin",
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/17/bin",
];

/// Paths of programs, or `None` if one is absent and that is allowed.
pub(crate) fn programs<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let found = names.map(find);
    for (name, path) in names.iter().zip(&found) {
        if path.is_none() {
            assert!(
                !are_required(),
                "{name} is not installed, and TIDEGATE_REQUIRE_PROGRAMS=1"
            );
            eprintln!("NOT TESTED: {name} is not installed");
            return None;
        }
    }
    Some(found.map(|path| path.expect("all were found")))
}

/// Whether this machine is one on which nothing may be left out.
pub(crate) fn are_required() -> bool {
    std::env::var_os("TIDEGATE_REQUIRE_PROGRAMS").is_some_and(|value| value == "1")
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|place| place.join(name))
        .find(|candidate| candidate.is_file())
}

/// A program that runs for as long as the test; ended by the signal that it takes for a quick end.
pub(crate) struct Service {
    child: Child,
    end: Signal,
}

impl Service {
    /// Starts it and waits until it listens.
    pub(crate) fn start(command: &mut Command, port: u16, end: Signal) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let service = Service {
            child: command.spawn().expect("start a service"),
            end,
        };
        assert!(
            wait_listening(port, Duration::from_secs(20)),
            "{command:?} does not listen"
        );
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        let _ = kill(pid, self.end);
        let ended = wait_for(Duration::from_secs(10), || {
            self.child.try_wait().ok().flatten()
        });
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Runs a command that must succeed.
pub(crate) fn must(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A balancer before a service on `server_port`.
fn before(server_port: u16) -> (Balancer, u16) {
    let port = free_port();
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port}\n    balance leastconn\n    \
         server s 127.0.0.1:{server_port} check inter 500\n"
    ));
    (balancer, port)
}

/// A file with bytes of a stream.
fn file_of(dir: &TempDir, name: &str, seed: u64, length: u64) -> PathBuf {
    let path = dir.path().join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    stream::send(&mut file, seed, length).unwrap();
    path
}

fn same(one: &Path, other: &Path) -> bool {
    std::fs::read(one).unwrap() == std::fs::read(other).unwrap()
}

#[test]
fn curl_downloads_from_nginx() {
    let _turn = turn::shared();
    let Some([nginx, curl]) = programs(["nginx", "curl"]) else {
        return;
    };
    let (dir, server_port) = (TempDir::new(), free_port());
    let original = file_of(&dir, "large", 21, 32 << 20);
    file_of(&dir, "small", 22, 700);
    let root = dir.path().display();
    let user = if Uid::effective().is_root() {
        "user root;"
    } else {
        ""
    };
    let config = dir.write(
        "nginx.conf",
        &format!(
            "{user} daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
             events {{ }}\nhttp {{ access_log off; client_body_temp_path {root}/body;\n\
             proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
             uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi; sendfile on;\n\
             server {{ listen 127.0.0.1:{server_port}; root {root}; }} }}\n"
        ),
    );
    let mut command = Command::new(nginx);
    command
        .arg("-e")
        .arg(dir.path().join("start"))
        .arg("-c")
        .arg(config);
    let _service = Service::start(&mut command, server_port, Signal::SIGTERM);
    let (balancer, port) = before(server_port);
    let copy = dir.path().join("copy");
    let url = format!("http://127.0.0.1:{port}");
    must(
        Command::new(&curl)
            .args(["-sSf", "-m", "30", "-o"])
            .arg(&copy)
            .arg(format!("{url}/large")),
    );
    assert!(same(&original, &copy), "the download differs");
    // Thirty requests over kept and new connections.
    let list: Vec<String> = (0..30).map(|_| format!("{url}/small")).collect();
    let output = must(Command::new(&curl).args(["-sSf", "-m", "30"]).args(&list));
    assert_eq!(output.stdout.len(), 30 * 700);
    balancer.settle();
}

#[test]
fn redis_benchmark_runs() {
    let _turn = turn::shared();
    let Some([server, benchmark]) = programs(["redis-server", "redis-benchmark"]) else {
        return;
    };
    let (dir, server_port) = (TempDir::new(), free_port());
    let mut command = Command::new(server);
    command.args(["--bind", "127.0.0.1", "--port", &server_port.to_string()]);
    command
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(dir.path());
    let _service = Service::start(&mut command, server_port, Signal::SIGTERM);
    let (balancer, port) = before(server_port);
    for pipeline in ["1", "16"] {
        let output = must(
            Command::new(&benchmark)
                .args([
                    "-h",
                    "127.0.0.1",
                    "-p",
                    &port.to_string(),
                    "-t",
                    "set,get,lrange_100",
                ])
                .args([
                    "-n", "5000", "-c", "50", "-d", "512", "-P", pipeline, "--csv",
                ]),
        );
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("\"SET\"") && text.contains("\"GET\""),
            "{text}"
        );
    }
    balancer.settle();
}

/// A directory that a user of the system may use, where the tests run as root.
pub(crate) fn given_to(path: &Path, user: &str) {
    if Uid::effective().is_root() {
        let user = User::from_name(user).unwrap();
        let user = user.expect("the program's user");
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// PostgreSQL with such a superuser on a port; `rules` say who is let in, without any it is
/// everybody. `None` where it is absent.
pub(crate) fn start_postgres(
    dir: &TempDir,
    port: u16,
    user: &str,
    rules: Option<&str>,
) -> Option<Service> {
    let [initdb, postgres, setpriv] = programs(["initdb", "postgres", "setpriv"])?;
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    // It refuses to run as root, and wants its directory to itself.
    given_to(&data, "postgres");
    std::fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    let as_postgres = |program: &Path| {
        let mut command = Command::new(program);
        if Uid::effective().is_root() {
            // Executes in its own place, so that the child is the server itself.
            command = Command::new(&setpriv);
            let who = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
            command.args(who).arg("--").arg(program);
        }
        command.current_dir("/");
        command
    };
    let mut command = as_postgres(&initdb);
    command.args(["-A", "trust", "-U", user, "--no-sync", "--locale=C"]);
    must(command.args(["-E", "UTF8", "-D"]).arg(&data));
    if let Some(rules) = rules {
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
    }
    let mut command = as_postgres(&postgres);
    command.arg("-D").arg(&data).arg("-k").arg(&data);
    command.args(["-p", &port.to_string()]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "fsync=off",
        "shared_buffers=16MB",
        "max_connections=20",
    ] {
        command.args(["-c", setting]);
    }
    Some(Service::start(&mut command, port, Signal::SIGINT))
}

#[test]
fn pgbench_runs() {
    let _turn = turn::shared();
    let Some([pgbench]) = programs(["pgbench"]) else {
        return;
    };
    let (dir, server_port) = (TempDir::new(), free_port());
    let Some(_service) = start_postgres(&dir, server_port, "bench", None) else {
        return;
    };
    let (balancer, port) = before(server_port);
    let through = |extra: &[&str]| {
        must(
            Command::new(&pgbench)
                .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "bench"])
                .args(extra)
                .arg("postgres"),
        )
    };
    through(&["-i", "-q", "-s", "1"]);
    let output = through(&["-c", "8", "-j", "2", "-t", "100"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("transactions actually processed: 800/800"),
        "{text}"
    );
    // A connection per transaction.
    let output = through(&["-c", "4", "-t", "25", "-C", "-S"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("transactions actually processed: 100/100"),
        "{text}"
    );
    balancer.settle();
}

#[test]
fn scp_copies_there_and_back() {
    let _turn = turn::shared();
    let Some([sshd, keygen, scp]) = programs(["sshd", "ssh-keygen", "scp"]) else {
        return;
    };
    let (dir, server_port) = (TempDir::new(), free_port());
    let path = |name: &str| dir.path().join(name);
    for name in ["host_key", "client_key"] {
        must(
            Command::new(&keygen)
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(path(name)),
        );
    }
    std::fs::copy(path("client_key.pub"), path("authorized")).unwrap();
    let root = dir.path().display();
    let config = dir.write(
        "sshd_config",
        &format!(
            "ListenAddress 127.0.0.1:{server_port}\nHostKey {root}/host_key\n\
             PidFile {root}/sshd.pid\nAuthorizedKeysFile {root}/authorized\nStrictModes no\n\
             PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
        ),
    );
    // Where the service was never started its privilege separation directory is absent.
    let _ = std::fs::create_dir_all("/run/sshd");
    let mut command = Command::new(sshd);
    command.args(["-D", "-e", "-f"]).arg(config);
    let _service = Service::start(&mut command, server_port, Signal::SIGTERM);
    let (balancer, port) = before(server_port);
    let user = User::from_uid(Uid::effective())
        .unwrap()
        .expect("a user")
        .name;
    let copy = |from: String, to: String| {
        let mut command = Command::new(&scp);
        command.args(["-q", "-B", "-P", &port.to_string(), "-F", "/dev/null", "-i"]);
        command
            .arg(path("client_key"))
            .args(["-o", "StrictHostKeyChecking=no"]);
        command.args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "ConnectTimeout=5",
        ]);
        must(command.arg(from).arg(to));
    };
    let original = file_of(&dir, "original", 31, 24 << 20);
    copy(
        original.display().to_string(),
        format!("{user}@127.0.0.1:{root}/there"),
    );
    assert!(same(&original, &path("there")), "the upload differs");
    copy(
        format!("{user}@127.0.0.1:{root}/there"),
        path("back").display().to_string(),
    );
    assert!(same(&original, &path("back")), "the download differs");
    balancer.settle();
}
