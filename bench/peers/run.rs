//! One measurement: a fresh namespace, the end points, one balancer, one workload.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::Arguments;
use crate::balancer::{Balancer, Cpus, EndPoints};
use crate::config::Size;
use crate::sample::{Context, Sample, Void};
use crate::server::Service;
use crate::sys;
use crate::target::{self, Kind, Splicing, Target};
use crate::tools::{Server, Tool};
use crate::usage::{self, CpuTime, HostTime};
use crate::workload::Workload;

/// Descriptors that a process needs beside its connections.
const DESCRIPTORS_SPARE: u64 = 200;

/// Warm-up of most workloads: buffers, autotuning and caches settle.
const WARM_UP: Duration = Duration::from_millis(200);
const WARM_UP_QUICK: Duration = Duration::from_millis(100);

/// The first port of a narrowed range: the kernel's default.
const PORT_FIRST: u32 = 32_768;

/// Connections that a balancer is set up for: those of the largest workload and some more. It is
/// no larger where the descriptor limit is, because some balancers have memory for each from the
/// start.
const CONNECTIONS_MAX: u64 = 10_000;
/// The same for workloads of UDP, which have none.
const CONNECTIONS_BESIDE_FLOWS: u64 = 1_000;

/// Descriptors of ten connections: two for each, and, where the balancer splices, two more for the
/// pipe that haproxy wants for every fourth.
const DESCRIPTORS_PER_TEN: u64 = 20;
const DESCRIPTORS_PER_TEN_SPLICED: u64 = 25;

/// Everything that takes part in a measurement.
pub(crate) struct Bed<'a> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) end_points: EndPoints,
    /// The server of another program, where the workload has one.
    pub(crate) tool_server: Option<Server>,
    /// Where each service listens that the balancer passes connections on to.
    pub(crate) servers: Vec<(Service, u16)>,
    pub(crate) balancer: Option<Balancer>,
    /// Connections that every process's descriptor limit has room for.
    pub(crate) connections_max: u64,
    /// Flows of UDP that the balancer has room for.
    pub(crate) flows_max: u64,
    pub(crate) seconds: f64,
    pub(crate) warm_up: Duration,
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
    let ([workload], [target]) = (&arguments.workloads()[..], &targets[..]) else {
        return Sample::voided("a run process needs one workload and one target");
    };
    match measure(arguments, *workload, target) {
        Ok(sample) => sample,
        Err(Void(reason)) => Sample::voided(reason),
    }
}

fn measure(arguments: &Arguments, workload: Workload, target: &Target) -> Result<Sample, Void> {
    let fresh_network = sys::enter_fresh_network();
    if let (Some(ports), true) = (workload.source_ports(), fresh_network.is_ok()) {
        let range = format!("{PORT_FIRST} {}", PORT_FIRST + ports - 1);
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).context("port range")?;
    }
    let datagrams = workload.datagrams();
    let connections_max = match datagrams {
        None => make_room(target.splicing == Splicing::Auto)?,
        // What connections are set aside is not there for the sockets of flows.
        Some(_) => CONNECTIONS_BESIDE_FLOWS,
    };
    let cpus = Cpus::divide(target.threads)?;
    // On a CPU of the balancer, realtime ends would keep it from running.
    let realtime = workload == Workload::Mixed && !cpus.shared && sys::set_realtime(true).is_ok();
    sys::set_realtime(false)?;
    let end_points = match datagrams {
        None => EndPoints::start(realtime)?,
        Some(datagrams) => EndPoints::start_datagrams(datagrams.ends, datagrams.servers)?,
    };
    let tool_server = Tool::start_server(workload.tools(), arguments)?;
    let mut servers: Vec<(Service, u16)> = Vec::new();
    let ports = end_points.ports.iter().copied();
    match datagrams {
        None => servers.extend(Service::OWN.into_iter().zip(ports)),
        Some(datagrams) => {
            let ports = ports.take(datagrams.servers);
            servers.extend(ports.map(|port| (Service::Datagrams, port)));
        }
    }
    servers.extend(
        tool_server
            .iter()
            .map(|server| (server.service, server.port)),
    );
    let flows_max = match datagrams {
        None => 0,
        Some(datagrams) => flows_max(target.kind, datagrams.flows)?,
    };
    let size = Size {
        connections: connections_max,
        flows: flows_max,
        one_reply: datagrams.is_some_and(|datagrams| datagrams.one_reply),
    };
    let balancer = match &target.program {
        None => None,
        Some(program) => {
            let directory = &arguments.directory;
            Some(Balancer::start(
                target, program, &servers, size, directory, &cpus,
            )?)
        }
    };
    let mut bed = Bed {
        arguments,
        end_points,
        tool_server,
        servers,
        balancer,
        connections_max,
        flows_max,
        seconds: arguments.seconds.unwrap_or(1.0),
        warm_up: if arguments.quick {
            WARM_UP_QUICK
        } else {
            WARM_UP
        },
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

/// Raises the descriptor limit; returns how many connections there is room for.
fn make_room(splice: bool) -> Result<u64, Void> {
    let per_ten = if splice {
        DESCRIPTORS_PER_TEN_SPLICED
    } else {
        DESCRIPTORS_PER_TEN
    };
    let wanted = CONNECTIONS_MAX * per_ten / 10 + DESCRIPTORS_SPARE;
    let limit = sys::raise_descriptor_limit(wanted).context("descriptor limit")?;
    let room = limit.saturating_sub(DESCRIPTORS_SPARE) * 10 / per_ten;
    Ok(room.min(CONNECTIONS_MAX))
}

/// How many flows of UDP a balancer can have: all that are wanted, or as many as it may open
/// descriptors where it needs one for each.
fn flows_max(kind: Kind, wanted: u64) -> Result<u64, Void> {
    let limit = sys::raise_descriptor_limit(wanted + DESCRIPTORS_SPARE);
    let room = limit.context("descriptor limit")? - DESCRIPTORS_SPARE;
    Ok(match kind {
        Kind::Nginx | Kind::Envoy => wanted.min(room),
        Kind::Direct | Kind::Tidegate | Kind::Haproxy => wanted,
    })
}

impl Bed<'_> {
    /// Where a client of the servers of UDP sends to.
    pub(crate) fn datagram_address(&self) -> SocketAddrV4 {
        let port = self.address(Service::Datagrams).port();
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    /// Where a client of a service connects to: the balancer, or the end point itself.
    pub(crate) fn address(&self, service: Service) -> SocketAddr {
        if let Some(balancer) = &self.balancer {
            return balancer.address(service);
        }
        let server = self.servers.iter().find(|(of, _)| *of == service);
        let (_, port) = server.expect("a workload names the programs that it needs");
        SocketAddr::from((Ipv4Addr::LOCALHOST, *port))
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
    /// CPU time of the children of this process that have ended: load generators of others.
    ended_children: f64,
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
        let mut load_pids = vec![std::process::id(), bed.end_points.pid()];
        load_pids.extend(bed.tool_server.iter().map(Server::pid));
        Window {
            drops: usage::drop_counters(),
            host: HostTime::now(),
            load: CpuTime::of(&load_pids),
            ended_children: usage::ended_children_seconds(),
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
        let load = CpuTime::of(&self.load_pids).since(&self.load)
            + (usage::ended_children_seconds() - self.ended_children);
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
