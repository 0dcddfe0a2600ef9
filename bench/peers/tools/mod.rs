//! Load and end points that are programs of others: wrk, iperf3, redis-benchmark and redis-server.
//!
//! They run on the load's CPU, in the namespace of the measurement and with their files in its
//! directory; the servers listen on a port of their own that nobody had. They are ended by pid.

mod check;
mod output;
mod process;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Arguments;
use crate::run::{Bed, Window};
use crate::sample::{Sample, Void};
use crate::server::Service;
use crate::server::http::{self, Page};
use check::{HttpCheck, RedisCheck};
pub(crate) use process::Server;

/// Requests of each test of redis-benchmark for every second that a run should last: it takes a
/// number and no time. About what one CPU is good for that holds both of its ends.
const REDIS_REQUESTS_PER_SECOND: f64 = 60_000.0;

/// A program of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Wrk,
    Iperf3,
    RedisServer,
    RedisBenchmark,
}

impl Tool {
    pub(crate) const ALL: [Tool; 4] = [
        Tool::Wrk,
        Tool::Iperf3,
        Tool::RedisServer,
        Tool::RedisBenchmark,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::Wrk => "wrk",
            Tool::Iperf3 => "iperf3",
            Tool::RedisServer => "redis-server",
            Tool::RedisBenchmark => "redis-benchmark",
        }
    }

    pub(crate) fn program(self, arguments: &Arguments) -> &Path {
        match self {
            Tool::Wrk => &arguments.wrk,
            Tool::Iperf3 => &arguments.iperf3,
            Tool::RedisServer => &arguments.redis_server,
            Tool::RedisBenchmark => &arguments.redis_benchmark,
        }
    }

    /// The first line that the program prints about its version; None if it cannot be started.
    pub(crate) fn version(self, arguments: &Arguments) -> Option<String> {
        let option = match self {
            // It prints its version with the help for the arguments that it misses.
            Tool::Wrk => "-v",
            Tool::Iperf3 | Tool::RedisServer | Tool::RedisBenchmark => "--version",
        };
        let mut command = Command::new(self.program(arguments));
        let output = command.arg(option).stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().next().unwrap_or("says no version").to_owned())
    }

    /// What the program offers, if it is a server.
    fn service(self) -> Option<Service> {
        match self {
            Tool::Iperf3 => Some(Service::Iperf),
            Tool::RedisServer => Some(Service::Redis),
            Tool::Wrk | Tool::RedisBenchmark => None,
        }
    }

    /// Starts the server among `tools`, if there is one.
    pub(crate) fn start_server(
        tools: &[Tool],
        arguments: &Arguments,
    ) -> Result<Option<Server>, Void> {
        let found = tools.iter().find_map(|tool| Some((*tool, tool.service()?)));
        let Some((tool, service)) = found else {
            return Ok(None);
        };
        let port = process::free_port()?;
        let mut command = Command::new(tool.program(arguments));
        let directory = &arguments.directory;
        match service {
            // One client, then it ends by itself.
            Service::Iperf => command.args(["-s", "-1", "-B", "127.0.0.1"]),
            _ => command
                .args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
                .args(["--appendonly", "no", "--tcp-backlog", "4096"])
                .arg("--dir")
                .arg(directory),
        };
        command
            .arg(if service == Service::Iperf {
                "-p"
            } else {
                "--port"
            })
            .arg(port.to_string());
        Server::start(tool.name(), service, port, command, directory).map(Some)
    }
}

/// HTTP by wrk. It reads status and length of its answers, and their bytes are counted.
pub(crate) fn measure_wrk(
    bed: &Bed,
    connections: u32,
    page: Page,
    closes: bool,
) -> Result<Sample, Void> {
    if closes && !bed.fresh_network {
        return Err(Void("needs a network namespace of its own".to_owned()));
    }
    let mut check = HttpCheck::new(bed.address(Service::Http), page, closes);
    let script = bed.arguments.directory.join("figures.lua");
    fs::write(&script, output::WRK_SCRIPT)?;
    let seconds = whole_seconds(bed);
    let mut command = Command::new(Tool::Wrk.program(bed.arguments));
    command.args(["-t", "1", "-c", &connections.to_string()]);
    command.args(["-d", &format!("{seconds}s"), "--timeout", "5s"]);
    command.arg("-s").arg(&script);
    if closes {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!(
        "http://{}{}",
        bed.address(Service::Http),
        page.path()
    ));
    let mut sample = Sample::default();
    let window = Window::open(bed);
    let name = Tool::Wrk.name();
    let (text, checked) = check::beside(
        || process::run(name, command, &bed.arguments.directory, limit(seconds)),
        || check.run(),
    )?;
    let used = window.close(&mut sample)?;
    let wrk = output::read_wrk(&text).map_err(Void)?;
    let answer = http::answer(page, closes);
    if !wrk.bytes_fit(answer.len() as u64, u64::from(connections)) {
        return Err(Void(format!(
            "wrk received {} bytes in {} answers of {}",
            wrk.bytes,
            wrk.requests,
            answer.len()
        )));
    }
    sample.set("per_second", wrk.requests as f64 / wrk.seconds);
    let done = (wrk.requests + checked) as f64;
    sample.set("cpu_us", used.balancer * 1e6 / done);
    sample.set("host_us", used.host * 1e6 / done);
    sample.set("p50_us", wrk.p50_us);
    sample.set("p99_us", wrk.p99_us);
    sample.set("p999_us", wrk.p999_us);
    Ok(sample)
}

/// Uploads by iperf3. Its server does not look at the bytes; they are counted on both ends.
pub(crate) fn measure_iperf(bed: &Bed, streams: usize) -> Result<Sample, Void> {
    let address = bed.address(Service::Iperf);
    let seconds = whole_seconds(bed);
    let mut command = Command::new(Tool::Iperf3.program(bed.arguments));
    command.args(["-c", &address.ip().to_string()]);
    command.args(["-p", &address.port().to_string()]);
    command.args(["-P", &streams.to_string(), "-t", &seconds.to_string()]);
    command.args(["-i", "0", "--json"]);
    let mut sample = Sample::default();
    let window = Window::open(bed);
    let name = Tool::Iperf3.name();
    let text = process::run(name, command, &bed.arguments.directory, limit(seconds))?;
    let used = window.close(&mut sample)?;
    let iperf = output::read_iperf(&text, streams).map_err(Void)?;
    let bytes = iperf.streams.iter().sum::<u64>() as f64;
    let share = |bytes_of_one: Option<&u64>| bytes_of_one.map_or(0.0, |one| *one as f64 / bytes);
    sample.set("gbit_per_second", bytes * 8.0 / 1e9 / iperf.seconds);
    sample.set("cpu_s_per_gb", used.balancer / (bytes / 1e9));
    sample.set("host_s_per_gb", used.host / (bytes / 1e9));
    sample.set("share_min", share(iperf.streams.iter().min()));
    sample.set("share_max", share(iperf.streams.iter().max()));
    Ok(sample)
}

/// Redis: SET, then GET. An error answer or a lost connection ends redis-benchmark.
pub(crate) fn measure_redis(bed: &Bed, connections: u32) -> Result<Sample, Void> {
    let address = bed.address(Service::Redis);
    let requests = (bed.seconds * REDIS_REQUESTS_PER_SECOND / 2.0).ceil();
    let mut command = Command::new(Tool::RedisBenchmark.program(bed.arguments));
    command.args(["-h", &address.ip().to_string()]);
    command.args(["-p", &address.port().to_string()]);
    command.args(["-c", &connections.to_string(), "-n", &requests.to_string()]);
    command.args(["-t", "set,get", "--csv"]);
    let mut sample = Sample::default();
    let window = Window::open(bed);
    let name = Tool::RedisBenchmark.name();
    let time_limit = limit(bed.seconds.ceil() as u64);
    let mut check = RedisCheck::new(address);
    let (text, checked) = check::beside(
        || process::run(name, command, &bed.arguments.directory, time_limit),
        || check.run(),
    )?;
    let used = window.close(&mut sample)?;
    let set = output::read_redis(&text, "SET").map_err(Void)?;
    let get = output::read_redis(&text, "GET").map_err(Void)?;
    for (test, name) in [(&set, "set"), (&get, "get")] {
        sample.set(&format!("{name}_per_second"), test.per_second);
        sample.set(&format!("{name}_p50_us"), test.p50_us);
        sample.set(&format!("{name}_p99_us"), test.p99_us);
    }
    // A check is a SET and a GET too.
    let done = 2.0 * (requests + checked as f64);
    sample.set("cpu_us", used.balancer * 1e6 / done);
    sample.set("host_us", used.host * 1e6 / done);
    Ok(sample)
}

/// The seconds of a run for programs that know only whole ones.
fn whole_seconds(bed: &Bed) -> u64 {
    bed.seconds.ceil() as u64
}

/// How long a program may take that should take some seconds.
fn limit(seconds: u64) -> Duration {
    Duration::from_secs(seconds + 10)
}
