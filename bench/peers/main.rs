//! Side-by-side bench of Tidegate, haproxy, nginx (stream) and further peers, with the bare end
//! points as a ceiling.
//!
//! One command plays every workload against every balancer, interleaved round by round. Each
//! measurement is a fresh process of this program (`--role run`) in a network namespace of its own,
//! which starts the end points (`--role server`) on CPU 1 and the balancer on CPU 0, drives the
//! load from CPU 1 and prints one JSON sample. What the workloads are and how to read the table is
//! in `bench/README.md`.
//!
//! | file | holds |
//! |---|---|
//! | `rounds` | the parent: rounds, time limits, what is left out |
//! | `figures`, `spread` | medians, spreads and ratios to haproxy and the best peer |
//! | `report`, `scaling`, `results`, `plot` | the tables, the result file, its picture |
//! | `workload`, `columns` | the list of workloads; the columns of their tables |
//! | `measure`, `measure_udp` | how each workload of our own load is measured |
//! | `tools/` | the same for wrk, iperf3 and redis-benchmark; their output, their servers |
//! | `run` | one measurement: namespace, end points, balancer, CPU window |
//! | `target`, `config`, `balancer` | what is compared: its config text; the running process |
//! | `server/`, `load/` | the end points: services and load generators |
//! | `usage`, `sys`, `sample` | /proc readers; system calls; the value of one measurement |
//!
//! Nothing here may use the library of the crate: the bench sees Tidegate as it sees its peers, as
//! a program with a config file.
#![deny(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "clocks, sleeps and printing are what a bench is made of"
)]

mod balancer;
mod columns;
mod config;
mod figures;
mod load;
mod measure;
mod measure_udp;
mod plot;
mod report;
mod results;
mod rounds;
mod run;
mod sample;
mod scaling;
mod server;
mod spread;
#[allow(unsafe_code)]
mod sys;
mod target;
mod tools;
mod usage;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use server::datagrams::Ends;
use target::{Peer, TargetName, parse_threads};
use workload::{Pick, Workload};

/// What this process is: the parent by default, else one of its own children.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Role {
    Run,
    Server,
}

/// Side-by-side bench of Tidegate and its peers.
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Arguments {
    /// One short round of one workload of each kind, under a minute.
    #[arg(long)]
    quick: bool,
    /// Rounds; the table shows medians over them [default: 5, quick: 1].
    #[arg(long)]
    rounds: Option<usize>,
    /// Measured seconds of one run, warm-up not counted [default: 1.5, quick: 0.4].
    #[arg(long)]
    seconds: Option<f64>,
    /// Play only these workloads or groups of workloads (may be given several times).
    #[arg(long, value_delimiter = ',', value_parser = Pick::parse)]
    only: Vec<Pick>,
    /// Compare only these (may be given several times): BASE[-splice|-copy][-THREADS], the base
    /// being direct, tidegate, haproxy, nginx or the name of a --peer.
    #[arg(long, value_delimiter = ',')]
    target: Vec<TargetName>,
    /// A further peer, NAME=KIND:PATH, with KIND one of tidegate, haproxy, nginx, envoy (may be
    /// given several times).
    #[arg(long, value_name = "NAME=KIND:PATH")]
    peer: Vec<Peer>,
    /// Threads or workers of every target that does not say it, each number a row of its own.
    #[arg(long, value_delimiter = ',', value_parser = parse_threads)]
    threads: Vec<usize>,
    /// Tidegate program to measure instead of the one that was just built.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_tidegate"), hide_default_value = true)]
    tidegate: PathBuf,
    /// haproxy program.
    #[arg(long, default_value = "haproxy")]
    haproxy: PathBuf,
    /// nginx program with the stream module.
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
    /// wrk program.
    #[arg(long, default_value = "wrk")]
    wrk: PathBuf,
    /// iperf3 program.
    #[arg(long, default_value = "iperf3")]
    iperf3: PathBuf,
    /// redis-server program.
    #[arg(long, default_value = "redis-server")]
    redis_server: PathBuf,
    /// redis-benchmark program.
    #[arg(long, default_value = "redis-benchmark")]
    redis_benchmark: PathBuf,
    /// Write the results to FILE, and a picture of them beside it; a bare name goes into
    /// bench/results/.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by `cargo bench`; absent when `cargo test --all-targets` runs this file.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    role: Option<Role>,
    #[arg(long, hide = true, default_value = ".")]
    directory: PathBuf,
    #[arg(long, hide = true)]
    realtime: bool,
    /// What the end points are if they speak UDP, and how many.
    #[arg(long, hide = true)]
    ends: Option<Ends>,
    #[arg(long, hide = true, default_value_t = 1)]
    ends_count: usize,
}

impl Arguments {
    /// The workloads to play, in their usual order and each once.
    fn workloads(&self) -> Vec<Workload> {
        if self.only.is_empty() && self.quick {
            return workload::QUICK.to_vec();
        }
        let all = Workload::value_variants().iter().copied();
        let wanted = |workload: &Workload| {
            self.only.is_empty() || self.only.iter().any(|Pick(some)| some.contains(workload))
        };
        all.filter(wanted).collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Server) => match arguments.ends {
            None => server::serve(arguments.realtime),
            Some(ends) => server::serve_datagrams(ends, arguments.ends_count),
        },
        Some(Role::Run) => {
            println!("{}", run::run(&arguments).to_json());
            ExitCode::SUCCESS
        }
        None if !arguments.bench => {
            println!("peers: nothing measured; run it as `cargo bench --bench peers`");
            ExitCode::SUCCESS
        }
        None => rounds::play(&arguments),
    }
}
