//! `tidegate probe`: connections, or datagrams, to a balancer, and what becomes of them.
//!
//! It sees what a client sees and nothing else: no runtime socket, no configuration, any balancer
//! will do. One thread, bounded in descriptors and memory whatever the other side does. `attempt`
//! is one connection, `drive` a load of them, `tally` counts, `expect` judges, `report` writes.

mod attempt;
mod command;
mod concurrent;
mod drive;
mod expect;
mod options;
mod progress;
mod report;
mod tally;

use crossbeam::channel::Receiver;
use nix::sys::signal::Signal;
use serde_json::json;
use std::cell::RefCell;
use std::io::Write;
use std::net::ToSocketAddrs;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

pub use options::{Options, Test};

use attempt::Plan;
use concurrent::Held;
use drive::Load;
use report::Outcome;
use tally::Tally;

use crate::sys::{clock, interrupt, process};

/// The exit code of what can't be tested.
pub const CANNOT: u8 = 3;

/// Descriptors of the program itself: standard ones, the runtime's, what a command takes.
const DESCRIPTORS_OWN: u64 = 32;

/// How long stress lasts, and failover, and stress among all.
const STRESS_SECONDS: u32 = 60;
const FAILOVER_SECONDS: u32 = 30;
const STRESS_AMONG_ALL_SECONDS: u32 = 10;

/// Attempts per second of a failover.
const FAILOVER_RATE: u32 = 100;

/// What still runs after a failover is waited for so long.
const COMMAND_PATIENCE: Duration = Duration::from_secs(1);

/// How often signals are looked for.
const SIGNALS_LOOK: Duration = Duration::from_millis(50);

/// Tests, and returns the exit code.
pub fn run(options: &Options) -> u8 {
    let outcomes = match prepared(options).and_then(|prepared| all(options, prepared)) {
        Ok(outcomes) => outcomes,
        Err(why) => {
            refuse(options, &why);
            return CANNOT;
        }
    };
    let code = outcomes.iter().map(Outcome::code).max().unwrap_or(CANNOT);
    let text = if options.json {
        let tests: Vec<_> = outcomes.iter().map(report::value).collect();
        let value = match <[_; 1]>::try_from(tests) {
            Ok([one]) => one,
            Err(tests) => json!({ "code": code, "tests": tests }),
        };
        format!("{value}\n")
    } else {
        outcomes
            .iter()
            .map(report::text)
            .collect::<Vec<_>>()
            .join("\n")
    };
    // A reader that goes away early has seen enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    code
}

fn refuse(options: &Options, why: &str) {
    if options.json {
        let value = json!({ "code": CANNOT, "error": why });
        let _ = std::io::stdout()
            .lock()
            .write_all(format!("{value}\n").as_bytes());
    } else {
        let _ = std::io::stderr()
            .lock()
            .write_all(format!("{why}\n").as_bytes());
    }
}

/// What there has to be before a test begins.
struct Prepared {
    plan: Plan,
    signals: Receiver<Signal>,
}

fn prepared(options: &Options) -> Result<Prepared, String> {
    if let Some(text) = options.contradiction() {
        return Err(text.to_owned());
    }
    let target = &options.target;
    let mut addresses = target
        .to_socket_addrs()
        .map_err(|error| format!("'{target}' is no HOST:PORT: {error}"))?;
    let target = addresses
        .next()
        .ok_or_else(|| format!("'{target}' has no address"))?;
    let limit = process::raise_descriptors()
        .map_err(|error| format!("cannot read the descriptor limit: {error}"))?;
    let at_once = match options.test {
        Test::Concurrent | Test::All => options.connections.max(u64::from(options.concurrency)),
        Test::Load | Test::Distribution | Test::Failover | Test::Stress => {
            u64::from(options.concurrency)
        }
    };
    if at_once + DESCRIPTORS_OWN > limit {
        return Err(format!(
            "{at_once} connections at the same time need {} descriptors, and {limit} is the limit \
             here (ulimit -n)",
            at_once + DESCRIPTORS_OWN
        ));
    }
    // Before any other thread is there.
    let signals =
        interrupt::watch().map_err(|error| format!("cannot wait for signals: {error}"))?;
    Ok(Prepared {
        plan: Plan {
            target,
            udp: options.udp,
            payload: options.payload(),
            identify: options.identify,
            timeout: options.timeout,
        },
        signals,
    })
}

/// Runs the tests on a runtime of this thread.
fn all(options: &Options, prepared: Prepared) -> Result<Vec<Outcome>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let tests: Vec<Test> = match options.test {
        Test::All => {
            let failover = options.command.is_some().then_some(Test::Failover);
            let tests = [
                Test::Load,
                Test::Distribution,
                Test::Concurrent,
                Test::Stress,
            ];
            let nameless = options.identify == options::Identify::Nothing;
            let is_possible = |test: &Test| !(nameless && *test == Test::Distribution);
            tests
                .into_iter()
                .filter(is_possible)
                .chain(failover)
                .collect()
        }
        one => vec![one],
    };
    let local = tokio::task::LocalSet::new();
    let outcomes = local.block_on(&runtime, async move {
        let (told, stop) = watch::channel(false);
        let signals = prepared.signals;
        tokio::task::spawn_local(async move {
            // The first signal ends the test that runs, and those after it.
            while signals.try_recv().is_err() {
                tokio::time::sleep(SIGNALS_LOOK).await;
            }
            let _ = told.send(true);
        });
        let mut outcomes = Vec::new();
        for test in tests {
            if !*stop.borrow() {
                outcomes.push(one(options, test, &prepared.plan, &stop).await);
            }
        }
        outcomes
    });
    Ok(outcomes)
}

/// Runs one test to its end.
async fn one(options: &Options, test: Test, plan: &Plan, stop: &watch::Receiver<bool>) -> Outcome {
    let name = name(test);
    let begun = clock::now();
    let tally = Rc::new(RefCell::new(Tally::new(begun)));
    let (mut held, mut failover) = (None, None);
    let test_itself = async {
        match test {
            Test::Concurrent => held = Some(concurrent(options, plan, &tally, stop).await),
            Test::Failover => failover = Some(fail_over(options, plan, &tally, stop).await),
            Test::Load | Test::Distribution | Test::Stress | Test::All => {
                drive::drive(plan, load(options, test), &tally, stop).await;
            }
        }
    };
    tokio::select! {
        () = test_itself => {}
        () = progress::tell(name, &tally) => {}
    }
    progress::clear();
    let now = clock::now();
    let mut tally = tally.borrow().clone();
    tally.end(now);
    Outcome {
        name,
        target: plan.target.to_string(),
        took: now - begun,
        expectations: expect::expectations(options, &tally, test == Test::Failover),
        tally,
        held,
        failover,
        is_interrupted: *stop.borrow(),
    }
}

fn name(test: Test) -> &'static str {
    match test {
        Test::Load => "load",
        Test::Distribution => "distribution",
        Test::Failover => "failover",
        Test::Concurrent => "concurrent",
        Test::Stress => "stress",
        Test::All => "all",
    }
}

/// How much load a test is.
fn load(options: &Options, test: Test) -> Load {
    let seconds = |unless_told| {
        let seconds = options.seconds.unwrap_or(unless_told);
        Some(Duration::from_secs(u64::from(seconds)))
    };
    let (count, time, rate) = match test {
        Test::Stress if options.test == Test::All => {
            (None, seconds(STRESS_AMONG_ALL_SECONDS), options.rate)
        }
        Test::Stress => (None, seconds(STRESS_SECONDS), options.rate),
        Test::Failover => {
            let rate = options.rate.unwrap_or(FAILOVER_RATE);
            (None, seconds(FAILOVER_SECONDS), Some(rate))
        }
        Test::Load | Test::Distribution | Test::Concurrent | Test::All => {
            (Some(options.connections), None, options.rate)
        }
    };
    Load {
        count,
        time,
        rate,
        concurrency: options.concurrency,
    }
}

async fn concurrent(
    options: &Options,
    plan: &Plan,
    tally: &Rc<RefCell<Tally>>,
    stop: &watch::Receiver<bool>,
) -> Held {
    let (count, at_a_time) = (options.connections, options.concurrency);
    concurrent::run(plan, count, at_a_time, options.hold, tally, stop).await
}

/// The load of a failover, and the command in the midst of it.
async fn fail_over(
    options: &Options,
    plan: &Plan,
    tally: &Rc<RefCell<Tally>>,
    stop: &watch::Receiver<bool>,
) -> Option<command::Ended> {
    let load = load(options, Test::Failover);
    let Some(text) = &options.command else {
        let seconds = load.time.unwrap_or_default().as_secs();
        let asked = format!(
            "Take a server away now, and bring it back: the load lasts {seconds} s, or until it is \
             interrupted.\n"
        );
        let _ = std::io::stderr().lock().write_all(asked.as_bytes());
        drive::drive(plan, load, tally, stop).await;
        return None;
    };
    let start = async {
        tokio::time::sleep(options.after).await;
        command::start(text)
    };
    let load = drive::drive(plan, load, tally, stop);
    tokio::pin!(start, load);
    let running = tokio::select! {
        running = &mut start => Some(running),
        () = &mut load => None,
    };
    match running {
        Some(running) => {
            load.await;
            Some(running.end(COMMAND_PATIENCE).await)
        }
        // It was interrupted, or too short.
        None => Some(command::Ended::Otherwise(
            "was not run: the load ended before".to_owned(),
        )),
    }
}
