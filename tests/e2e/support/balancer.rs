//! The real program, started with a config of the test's.
//!
//! `TIDEGATE_BIN` names another program to run instead (HAProxy: same config language, same stats
//! socket); what only Tidegate answers is then not asserted.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::wait_for;
use super::stats::{Activity, Stat};
use super::{port, variant};

/// The program under test.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("TIDEGATE_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_tidegate")),
        PathBuf::from,
    )
}

/// Whether the program under test is Tidegate itself.
pub(crate) fn is_tidegate() -> bool {
    program()
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("tidegate"))
}

/// Whether to leave out what only Tidegate does; says so.
pub(crate) fn skip(reason: &str) -> bool {
    if !is_tidegate() {
        eprintln!(
            "left out, {} is not Tidegate: {reason}",
            program().display()
        );
    }
    !is_tidegate()
}

/// A directory of one test, removed when dropped.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Makes one.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tidegate-e2e-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("temporary directory");
        TempDir(path)
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("write into the temporary directory");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How to start the balancer.
#[derive(Debug)]
pub(crate) struct Setup {
    global: String,
    body: String,
    shards: u32,
    stdin: Option<OwnedFd>,
    niceness: Option<u8>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// The proxies of the config; the other sections are made from the settings below.
    pub(crate) fn new(body: impl Into<String>) -> Self {
        Setup {
            global: String::new(),
            body: body.into(),
            shards: 2,
            stdin: None,
            niceness: None,
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Adds sections behind the proxies.
    pub(crate) fn body_more(mut self, text: impl AsRef<str>) -> Self {
        self.body.push_str(text.as_ref());
        self
    }

    /// Adds words to the command line.
    pub(crate) fn arguments(mut self, words: &[&str]) -> Self {
        self.arguments
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Sets an environment variable.
    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.variables
            .push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds a line to the global section.
    pub(crate) fn global(mut self, line: impl AsRef<str>) -> Self {
        self.global.push_str(&format!("    {}\n", line.as_ref()));
        self
    }

    /// Adds a line that only Tidegate knows to the global section.
    pub(crate) fn global_of_ours(self, line: &str) -> Self {
        if is_tidegate() {
            self.global(line)
        } else {
            self
        }
    }

    /// How many shards; two unless told.
    pub(crate) fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// The standard input of the program (a listening socket for `fd@0`).
    pub(crate) fn stdin(mut self, descriptor: OwnedFd) -> Self {
        self.stdin = Some(descriptor);
        self
    }

    /// Starts it with less right to a core than the test itself.
    pub(crate) fn niceness(mut self, niceness: u8) -> Self {
        self.niceness = Some(niceness);
        self
    }

    /// The config text with its stats socket in `dir`.
    pub(crate) fn text(&self, dir: &Path) -> String {
        variant::apply(&format!(
            "global\n    stats socket {}/stats level admin\n    nbthread {}\n{}\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 30s\n    \
             timeout server 30s\n\n{}\n",
            dir.display(),
            self.shards,
            self.global,
            self.body,
        ))
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn start(self) -> Balancer {
        let dir = TempDir::new();
        let text = self.text(dir.path());
        Balancer::spawn(dir, "balancer.cfg", &text, self)
    }
}

/// A running balancer; ended when dropped.
#[derive(Debug)]
pub(crate) struct Balancer {
    child: Child,
    _dir: TempDir,
    stats_path: PathBuf,
    stderr: Arc<Mutex<String>>,
    /// Reads it, until its last writer has closed it.
    stderr_reader: JoinHandle<()>,
    /// Descriptors it had when it was ready and idle.
    descriptors_idle: usize,
    /// Descriptors that it opens for good at a later time: the sockets of Unix log targets at the
    /// first line; HAProxy's of all log targets.
    descriptors_late: usize,
}

impl Balancer {
    /// Starts one with two shards and default settings.
    pub(crate) fn start(body: impl Into<String>) -> Self {
        Setup::new(body).start()
    }

    /// Starts one with a whole config; `stats_path` is the stats socket that the text names.
    pub(crate) fn start_text(dir: TempDir, text: &str) -> Self {
        Balancer::start_file(dir, "balancer.cfg", &variant::apply(text))
    }

    /// The same with a name for the file, whose extension says what it is written in.
    pub(crate) fn start_file(dir: TempDir, file: &str, text: &str) -> Self {
        Balancer::spawn(dir, file, text, Setup::new(""))
    }

    fn spawn(dir: TempDir, file: &str, text: &str, setup: Setup) -> Self {
        let config = dir.write(file, text);
        let stats_path = dir.path().join("stats");
        let mut command = match setup.niceness {
            None => Command::new(program()),
            Some(niceness) => {
                // `nice` executes the program in its own place: the process id stays.
                let mut command = Command::new("nice");
                command.arg(format!("-n{niceness}")).arg(program());
                command
            }
        };
        command.arg("-f").arg(&config).args(&setup.arguments);
        command.envs(setup.variables);
        command.stdin(setup.stdin.map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the balancer");
        let (stderr, stderr_reader) = collect(child.stderr.take().expect("stderr is piped"));
        let unix_logs = text
            .lines()
            .filter(|line| line.trim().starts_with("log /"))
            .count();
        let mut balancer = Balancer {
            child,
            _dir: dir,
            stats_path,
            stderr,
            stderr_reader,
            descriptors_idle: 0,
            descriptors_late: if is_tidegate() { unix_logs } else { 4 },
        };
        balancer.wait_ready(text);
        balancer.descriptors_idle = balancer.descriptors_at_rest();
        balancer
    }

    /// Waits until the runtime socket answers and every bound port listens.
    fn wait_ready(&mut self, text: &str) {
        let bound = Duration::from_secs(30);
        let ready = wait_for(bound, || {
            if let Some(status) = self.child.try_wait().expect("wait for the balancer") {
                // What it said last may still be in the pipe.
                wait_for(Duration::from_secs(1), || {
                    self.stderr_reader.is_finished().then_some(())
                });
                panic!(
                    "the balancer ended at start: {status}\n{text}\n{}",
                    self.stderr()
                );
            }
            self.ask("show info")
                .ok()
                .filter(|answer| !answer.is_empty())
        });
        assert!(
            ready.is_some(),
            "not ready in {bound:?}\n{text}\n{}",
            self.stderr()
        );
        if is_tidegate() {
            variant::check(&self.activity());
            // A shard that has an operation in the kernel has all its descriptors.
            let armed = || {
                self.activity()
                    .nonzero_on_all_shards("operations")
                    .then_some(())
            };
            assert!(
                wait_for(bound, armed).is_some(),
                "a shard does not run: {}",
                self.stderr()
            );
        }
        for (address, protocol) in bound_addresses(text) {
            let port = address
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse().ok());
            let listening = port.is_none_or(|port| match protocol {
                Protocol::Stream => port::wait_listening(port, bound),
                Protocol::Datagram => port::wait_datagrams(port, bound),
            });
            assert!(listening, "nobody listens on {address}\n{}", self.stderr());
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Path of its runtime socket.
    pub(crate) fn stats_path(&self) -> &Path {
        &self.stats_path
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the balancer");
    }

    /// Stops it where it is, as if it got no core, while `during` runs.
    pub(crate) fn paused(&self, during: impl FnOnce()) {
        self.signal(Signal::SIGSTOP);
        let path = format!("/proc/{}/task", self.pid());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // The state follows the name in parentheses.
            Some(stat.rsplit_once(") ")?.1.starts_with('T'))
        };
        let all = || {
            let mut tasks = std::fs::read_dir(&path).ok()?;
            tasks
                .all(|task| is_stopped(task) != Some(false))
                .then_some(())
        };
        let stopped = wait_for(Duration::from_secs(30), all);
        assert!(stopped.is_some(), "it goes on");
        during();
        self.signal(Signal::SIGCONT);
    }

    /// Waits for its end.
    pub(crate) fn wait_exit(&mut self, bound: Duration) -> ExitStatus {
        let status = wait_for(bound, || {
            self.child.try_wait().expect("wait for the balancer")
        });
        status.unwrap_or_else(|| panic!("still running after {bound:?}\n{}", self.stderr()))
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("wait for the balancer")
            .is_none()
    }

    /// Changes its descriptor limit while it runs.
    pub(crate) fn limit_descriptors(&self, limit: usize) {
        let status = Command::new("prlimit")
            .arg(format!("--pid={}", self.pid()))
            .arg(format!("--nofile={limit}:20000"))
            .status()
            .expect("run prlimit");
        assert!(status.success(), "prlimit: {status}");
    }

    /// How many descriptors it has.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid());
        std::fs::read_dir(path).map_or(0, std::iter::Iterator::count)
    }

    /// The least that it has within a few milliseconds: the end of the last question to its runtime
    /// socket may not have been closed yet.
    fn descriptors_at_rest(&self) -> usize {
        let mut least = usize::MAX;
        wait_for(Duration::from_millis(15), || {
            least = least.min(self.descriptors());
            None::<()>
        });
        least
    }

    /// User and system time of the process in clock ticks of 10 ms.
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // Fields 14 and 15, counted after the name in parentheses, which is the second.
        let rest = text.rsplit_once(')').unwrap().1;
        let times = rest.split_whitespace().skip(11).take(2);
        times.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS")
    }

    /// A number of `/proc/PID/status` that is in KiB.
    pub(crate) fn status_kib(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }

    /// Sends a command to the runtime socket and returns the whole answer.
    pub(crate) fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut socket = UnixStream::connect(&self.stats_path)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Answer of a command that must work.
    pub(crate) fn stats(&self, command: &str) -> String {
        self.ask(command)
            .unwrap_or_else(|e| panic!("{command}: {e}\n{}", self.stderr()))
    }

    /// A number of `show info`.
    pub(crate) fn info(&self, name: &str) -> u64 {
        let text = self.stats("show info");
        let mut lines = text.lines();
        let number = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let number = number.and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("no number {name} in {text}"))
    }

    /// `show stat`, parsed.
    pub(crate) fn stat(&self) -> Stat {
        Stat::parse(&self.stats("show stat"))
    }

    /// `show activity`, parsed; empty where the program under test is not Tidegate.
    pub(crate) fn activity(&self) -> Activity {
        if is_tidegate() {
            Activity::parse(self.stats("show activity"))
        } else {
            Activity::none()
        }
    }

    /// Waits until nothing of any session is left: every test ends with it. What is still there
    /// after thirty seconds leaked.
    pub(crate) fn settle(&self) {
        let settled = wait_for(Duration::from_secs(30), || {
            self.leftovers().is_empty().then_some(())
        });
        assert!(
            settled.is_some(),
            "not settled after 30 s: {}\n{}\n{}\n{}",
            self.leftovers().join(", "),
            self.stats("show activity"),
            self.stats("show stat"),
            self.stderr(),
        );
        variant::note(&self.activity());
    }

    /// What of past sessions is still there, in words.
    fn leftovers(&self) -> Vec<String> {
        // Before the runtime socket is asked, which takes a descriptor itself.
        let descriptors = self.descriptors();
        let mut left = self.activity().leftovers();
        let open = self.stat().total_sessions_open();
        if open != 0 {
            left.push(format!("{open} sessions in show stat"));
        }
        // Fewer is no leak: a probe or the runtime socket may have had one open at the start.
        // Sockets that flows have had are kept for the next ones.
        let kept = self.activity().number("flow_sockets").unwrap_or(0);
        let kept = usize::try_from(kept).expect("some sockets");
        if descriptors > self.descriptors_idle + self.descriptors_late + kept {
            left.push(format!(
                "{descriptors} descriptors, {} at start",
                self.descriptors_idle
            ));
        }
        left
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("balancer's stderr:\n{}", self.stderr());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program to its end and returns exit code, stdout and stderr.
pub(crate) fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(program())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("run the program");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// What a `bind` line is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Stream,
    Datagram,
}

/// The addresses of the `bind` lines of a config, with what they are for: the address says it,
/// else the mode of the section, or of the defaults before it.
fn bound_addresses(text: &str) -> Vec<(String, Protocol)> {
    const HEADS: [&str; 5] = ["global", "defaults", "frontend", "backend", "listen"];
    let lines: Vec<[&str; 2]> = text
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            [words.next().unwrap_or(""), words.next().unwrap_or("")]
        })
        .collect();
    let mut of_defaults = Protocol::Stream;
    let mut found = Vec::new();
    // A section begins at each head; what is before the first one is empty.
    for section in lines.chunk_by(|_, [next, _]| !HEADS.contains(next)) {
        let is_defaults = section[0][0] == "defaults";
        let inherited = if is_defaults {
            Protocol::Stream
        } else {
            of_defaults
        };
        let told = section.iter().find(|[word, _]| *word == "mode");
        let mode = match told {
            Some([_, "udp"]) => Protocol::Datagram,
            Some(_) => Protocol::Stream,
            None => inherited,
        };
        if is_defaults {
            of_defaults = mode;
        }
        for [_, address] in section.iter().filter(|[word, _]| *word == "bind") {
            let protocol = if address.starts_with("udp") {
                Protocol::Datagram
            } else {
                mode
            };
            found.push(((*address).to_owned(), protocol));
        }
    }
    found
}

#[test]
fn bound_addresses_are_told_apart() {
    let text = "\n defaults\n mode udp\n listen a\n bind :1\n listen b\n bind :2\n mode tcp\n\
                defaults\nfrontend c\n bind :3\n bind udp@:4 x\n";
    let found = bound_addresses(text);
    let found: Vec<(&str, Protocol)> = found.iter().map(|(a, p)| (a.as_str(), *p)).collect();
    let expected = [
        (":1", Protocol::Datagram),
        (":2", Protocol::Stream),
        (":3", Protocol::Stream),
        ("udp@:4", Protocol::Datagram),
    ];
    assert_eq!(found, expected);
}

fn collect(mut pipe: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let piece = String::from_utf8_lossy(&buffer[..count]);
            shared
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push_str(&piece);
        }
    });
    (text, reader)
}
