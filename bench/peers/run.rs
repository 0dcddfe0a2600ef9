//! One measurement: a fresh namespace, the end points, one balancer, one workload.

use std::time::Instant;

use crate::Arguments;
use crate::balancer::{Balancer, Cpus, EndPoints};
use crate::sample::{Context, Sample, Void};
use crate::server::Service;
use crate::sys;
use crate::target::{self, Target};
use crate::usage::{self, CpuTime, HostTime};
use crate::workload::Workload;

/// Descriptors that a process needs beside its connections.
const DESCRIPTORS_SPARE: u64 = 200;

/// Everything that takes part in a measurement.
pub(crate) struct Bed {
    pub(crate) end_points: EndPoints,
    pub(crate) balancer: Option<Balancer>,
    /// Connections that every process's descriptor limit has room for.
    pub(crate) connections_max: u64,
    pub(crate) seconds: f64,
    pub(crate) quick: bool,
    pub(crate) fresh_network: bool,
    pub(crate) realtime: bool,
}

/// Runs the first workload of the arguments on their first target. Errors become a void sample.
pub(crate) fn run(arguments: &Arguments) -> Sample {
    let targets = match target::chosen(arguments) {
        Ok(targets) => targets,
        Err(reason) => return Sample::voided(reason),
    };
    let (Some(workload), Some(target)) = (arguments.only.first(), targets.first()) else {
        return Sample::voided("a run process needs --only and --target");
    };
    match measure(arguments, *workload, target) {
        Ok(sample) => sample,
        Err(Void(reason)) => Sample::voided(reason),
    }
}

fn measure(arguments: &Arguments, workload: Workload, target: &Target) -> Result<Sample, Void> {
    let fresh_network = sys::enter_fresh_network();
    let descriptor_limit = sys::raise_descriptor_limit().context("descriptor limit")?;
    let cpus = Cpus::divide(target.threads)?;
    // On a CPU of the balancer, realtime ends would keep it from running.
    let realtime = workload == Workload::Mixed && !cpus.shared && sys::set_realtime(true).is_ok();
    sys::set_realtime(false)?;
    let end_points = EndPoints::start(realtime)?;
    let connections_max = (descriptor_limit.saturating_sub(DESCRIPTORS_SPARE)) / 2;
    let balancer = match &target.program {
        None => None,
        Some(program) => {
            let (ports, directory) = (&end_points.ports, &arguments.directory);
            Some(Balancer::start(
                target,
                program,
                ports,
                connections_max,
                directory,
                &cpus,
            )?)
        }
    };
    let mut bed = Bed {
        end_points,
        balancer,
        connections_max,
        seconds: arguments.seconds.unwrap_or(1.0),
        quick: arguments.quick,
        fresh_network: fresh_network.is_ok(),
        realtime,
    };
    let drops_before = usage::drop_counters();
    let outcome = workload.measure(&bed);
    // A balancer that has died says more than the broken connection that followed from it.
    if let Some(balancer) = &mut bed.balancer {
        balancer.check_alive()?;
    }
    let mut sample = outcome.map_err(|Void(reason)| {
        let counters = usage::drop_counters();
        match usage::moved_counters(&drops_before, &counters) {
            Some(moved) => Void(format!("{reason} (kernel: {moved})")),
            None => Void(reason),
        }
    })?;
    if let Err(error) = fresh_network {
        sample
            .notes
            .push(format!("no network namespace of its own ({error})"));
    }
    Ok(sample)
}

impl Bed {
    /// Where a client of a service connects to: the balancer, or the end point itself.
    pub(crate) fn address(&self, service: Service) -> std::net::SocketAddr {
        match &self.balancer {
            Some(balancer) => balancer.address(service),
            None => self.end_points.address(service),
        }
    }

    pub(crate) fn balancer_pids(&self) -> Vec<u32> {
        self.balancer
            .as_ref()
            .map(Balancer::pids)
            .unwrap_or_default()
    }
}

/// The span over which CPU time is counted.
pub(crate) struct Window {
    opened_at: Instant,
    balancer_pids: Vec<u32>,
    load_pids: Vec<u32>,
    balancer: CpuTime,
    load: CpuTime,
    host: HostTime,
    drops: Vec<u64>,
}

/// What was used in a window, in seconds.
pub(crate) struct Used {
    pub(crate) seconds: f64,
    pub(crate) balancer: f64,
    pub(crate) host: f64,
}

impl Window {
    pub(crate) fn open(bed: &Bed) -> Window {
        let balancer_pids = bed.balancer_pids();
        let load_pids = vec![std::process::id(), bed.end_points.pid()];
        Window {
            drops: usage::drop_counters(),
            host: HostTime::now(),
            load: CpuTime::of(&load_pids),
            balancer: CpuTime::of(&balancer_pids),
            opened_at: Instant::now(),
            balancer_pids,
            load_pids,
        }
    }

    /// Closes the window; what is the same for every workload goes into the sample at once.
    pub(crate) fn close(self, sample: &mut Sample) -> Result<Used, Void> {
        let seconds = self.opened_at.elapsed().as_secs_f64();
        let balancer = CpuTime::of(&self.balancer_pids).since(&self.balancer);
        let load = CpuTime::of(&self.load_pids).since(&self.load);
        let now = HostTime::now();
        let host = now.busy - self.host.busy;
        if let Some(moved) = usage::moved_counters(&self.drops, &usage::drop_counters()) {
            return Err(Void(format!("the kernel dropped or skipped: {moved}")));
        }
        sample.set("seconds", seconds);
        sample.set("balancer_percent", 100.0 * balancer / seconds);
        sample.set("load_percent", 100.0 * load / seconds);
        sample.set(
            "foreign_percent",
            (100.0 * (host - balancer - load) / seconds).max(0.0),
        );
        sample.set(
            "stolen_percent",
            100.0 * (now.stolen - self.host.stolen) / seconds,
        );
        sample.set("time_wait_entries", usage::time_wait_entries() as f64);
        sample.set(
            "balancer_rss_mb",
            usage::resident_bytes(&self.balancer_pids) as f64 / 1e6,
        );
        Ok(Used {
            seconds,
            balancer,
            host,
        })
    }
}
