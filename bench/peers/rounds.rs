//! The parent: who takes part, the rounds, the time limits.
//!
//! Within a round every workload goes over all targets before the next one begins, and the order of
//! the targets turns from round to round, so that a slow spell of the machine hits all of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::Arguments;
use crate::balancer;
use crate::columns::Better;
use crate::figures::Results;
use crate::sample::{Sample, Void};
use crate::sys;
use crate::target::{self, Target};
use crate::tools::Tool;
use crate::usage;
use crate::workload::Workload;
use crate::{plot, report, results, scaling};

/// How much of everything is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) workloads: Vec<Workload>,
    /// The version lines of the programs of others that take part.
    pub(crate) tools: BTreeMap<&'static str, String>,
    /// With the version line of its program.
    pub(crate) targets: Vec<(Target, String)>,
}

/// Pause after a connection-rate run, in which the kernel takes its namespace with up to 100,000
/// TIME_WAIT entries apart.
const NAMESPACE_CLEANUP: Duration = Duration::from_millis(300);

/// A run process that is this much over its time is ended, with everything it has started.
const POLL: Duration = Duration::from_millis(10);

/// A directory for config files that goes away at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn play(arguments: &Arguments) -> ExitCode {
    let scratch =
        Scratch(std::env::temp_dir().join(format!("tidegate-peers-{}", std::process::id())));
    if let Err(error) = fs::create_dir_all(&scratch.0) {
        eprintln!("peers: cannot make {}: {error}", scratch.0.display());
        return ExitCode::FAILURE;
    }
    let wanted = match target::chosen(arguments) {
        Ok(wanted) => wanted,
        Err(reason) => {
            eprintln!("peers: {reason}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(errno) = sys::catch_interrupts() {
        eprintln!("peers: cannot catch signals: {errno}");
        return ExitCode::FAILURE;
    }
    let count = wanted.len();
    let targets: Vec<(Target, String)> = wanted
        .into_iter()
        .filter_map(|target| {
            let version = admit(arguments, &target, &scratch.0)?;
            Some((target, version))
        })
        .collect();
    let (workloads, tools) = admit_workloads(arguments);
    let complete = targets.len() == count && workloads.len() == arguments.workloads().len();
    let plan = Plan {
        rounds: arguments
            .rounds
            .unwrap_or(if arguments.quick { 1 } else { 5 })
            .max(1),
        seconds: arguments
            .seconds
            .unwrap_or(if arguments.quick { 0.4 } else { 1.5 })
            .clamp(0.05, 60.0),
        workloads,
        tools,
        targets,
    };
    let started_at = Instant::now();
    let results = play_rounds(arguments, plan, &scratch.0);
    if sys::interrupted() {
        eprintln!("peers: interrupted");
        return ExitCode::FAILURE;
    }
    eprintln!("peers: {:.0} s for all", started_at.elapsed().as_secs_f64());
    report::print(&results);
    scaling::print(&results);
    if let Some(file) = &arguments.json
        && let Err(error) = write_files(&results::place(file), &results)
    {
        eprintln!("peers: cannot write {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    let void = results
        .samples
        .values()
        .flatten()
        .any(|sample| sample.void.is_some());
    if void || !complete {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The result file, and the picture of it beside.
fn write_files(path: &Path, results: &Results) -> Result<(), Box<dyn Error>> {
    results::write(path, results)?;
    println!("\nresults written to {}", path.display());
    let picture = path.with_extension("svg");
    if plot::write(&picture, results)? {
        println!("picture written to {}", picture.display());
    } else {
        println!("no picture: nothing was compared with haproxy");
    }
    Ok(())
}

/// Asks a target for its version and tries it once; None, and a loud line, if it cannot be
/// measured.
fn admit(arguments: &Arguments, target: &Target, scratch: &Path) -> Option<String> {
    let refuse = |reason: &str| {
        eprintln!(
            "peers: *** {} IS LEFT OUT: {reason} ***",
            target.name().to_uppercase()
        );
        None
    };
    if sys::interrupted() {
        return None;
    }
    let version = match &target.program {
        None => String::new(),
        Some(program) => match target.version(program) {
            None => return refuse(&format!("cannot start {}", program.display())),
            Some(version) => version,
        },
    };
    match run_child(arguments, Workload::Rr1, target, 0.05, scratch).void {
        None => Some(version),
        Some(reason) => refuse(&reason),
    }
}

/// The workloads whose programs can be started, and the versions of these; a loud line for each
/// that cannot.
fn admit_workloads(arguments: &Arguments) -> (Vec<Workload>, BTreeMap<&'static str, String>) {
    let mut workloads = arguments.workloads();
    let mut versions = BTreeMap::new();
    for tool in Tool::ALL {
        let (without, with): (Vec<Workload>, Vec<Workload>) = workloads
            .iter()
            .partition(|workload| !workload.tools().contains(&tool));
        if with.is_empty() {
            continue;
        }
        if let Some(version) = tool.version(arguments) {
            versions.insert(tool.name(), version);
            continue;
        }
        let names: Vec<String> = with.iter().map(|workload| workload.name()).collect();
        eprintln!(
            "peers: *** LEFT OUT: {}: cannot start {} ***",
            names.join(", "),
            tool.program(arguments).display()
        );
        workloads = without;
    }
    (workloads, versions)
}

fn play_rounds(arguments: &Arguments, plan: Plan, scratch: &Path) -> Results {
    let mut samples: BTreeMap<(Workload, usize), Vec<Sample>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for workload in &plan.workloads {
            for place in 0..plan.targets.len() {
                let row = (place + round) % plan.targets.len();
                let (target, _) = &plan.targets[row];
                if !workload.applies_to(target) || sys::interrupted() {
                    continue;
                }
                let sample = run_child(arguments, *workload, target, plan.seconds, scratch);
                let sample = with_work(sample, *workload);
                let first = workload.columns()[0];
                let outcome = match (&sample.void, sample.get(first.metric)) {
                    (Some(reason), _) => format!("VOID: {reason}"),
                    (None, value) => format!(
                        "{:.*} {}",
                        first.decimals,
                        value.unwrap_or(0.0),
                        first.heading
                    ),
                };
                let (of, name) = (plan.rounds, workload.name());
                eprintln!(
                    "round {}/{of} {name:9} {:14} {outcome}",
                    round + 1,
                    target.name()
                );
                samples.entry((*workload, row)).or_default().push(sample);
            }
        }
    }
    Results { plan, samples }
}

/// Whoever did nothing was not fast, and used no CPU time for it either.
fn with_work(sample: Sample, workload: Workload) -> Sample {
    let mut rates = workload
        .columns()
        .iter()
        .filter(|column| column.better == Better::Higher);
    if rates.any(|column| sample.get(column.metric) == Some(0.0)) {
        return Sample::voided("nothing was done in the measured time");
    }
    sample
}

/// Measures once, in a fresh process.
fn run_child(
    arguments: &Arguments,
    workload: Workload,
    target: &Target,
    seconds: f64,
    scratch: &Path,
) -> Sample {
    let outcome = try_run_child(arguments, workload, target, seconds, scratch);
    if workload.leaves_time_wait() {
        thread::sleep(NAMESPACE_CLEANUP);
    }
    outcome.unwrap_or_else(|Void(reason)| Sample::voided(reason))
}

fn try_run_child(
    arguments: &Arguments,
    workload: Workload,
    target: &Target,
    seconds: f64,
    scratch: &Path,
) -> Result<Sample, Void> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "--role",
        "run",
        "--only",
        &workload.name(),
        "--target",
        &target.name(),
    ]);
    command.args(["--seconds", &seconds.to_string()]);
    command.arg("--directory").arg(scratch);
    command.arg("--tidegate").arg(&arguments.tidegate);
    command.arg("--haproxy").arg(&arguments.haproxy);
    command.arg("--nginx").arg(&arguments.nginx);
    for peer in &arguments.peer {
        command.args(["--peer", &peer.to_string()]);
    }
    command.arg("--wrk").arg(&arguments.wrk);
    command.arg("--iperf3").arg(&arguments.iperf3);
    command.arg("--redis-server").arg(&arguments.redis_server);
    command.arg("--redis-benchmark");
    command.arg(&arguments.redis_benchmark);
    if arguments.quick {
        command.arg("--quick");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    sys::end_with_parent(&mut command, Signal::SIGKILL);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + workload.time_limit(seconds);
    while child.try_wait()?.is_none() {
        let reason = if sys::interrupted() {
            Some("interrupted")
        } else if Instant::now() > deadline {
            Some("over its time limit")
        } else {
            None
        };
        if let Some(reason) = reason {
            let family = usage::family(child.id());
            balancer::end(&mut child, &family);
            return Ok(Sample::voided(reason));
        }
        thread::sleep(POLL);
    }
    // One line, which fits into the pipe: nothing is lost by reading it only now.
    let mut line = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut line)?;
    }
    Ok(Sample::from_line(&line))
}
