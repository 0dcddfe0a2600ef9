//! The workloads: what each one is, which columns it has, and how it is measured.

use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::load::bulk::Bulk;
use crate::load::connects::{self, ClosesFirst, Connects};
use crate::load::exchange::{self, Exchange};
use crate::load::set_percentiles;
use crate::run::{Bed, Window};
use crate::sample::{Sample, Void};
use crate::server::Service;
use crate::sys;
use crate::target::{Kind, Target};
use crate::usage;

/// Warm-up of every workload: buffers, autotuning and caches settle.
const WARM_UP: Duration = Duration::from_millis(200);

/// Warm-up of `crc64`: one pass over the kernel's default range of 28,232 source ports, so that all
/// are measured with the table as full as it stays; bounded for slow ones.
const PORT_PASS_CONNECTIONS: u64 = 30_000;
const PORT_PASS_MAX: Duration = Duration::from_secs(4);

/// Exchanges a second of `paced`: the rate of the deployment that `conf/hft.cfg` stands for.
const PACE_PER_SECOND: f64 = 10_612.0;

/// Idle connections, if the descriptor limit allows them.
const IDLE_CONNECTIONS: u64 = 9_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    Rr1,
    Rr64,
    Paced,
    Bulk1,
    Bulk8,
    Mixed,
    Crs64,
    Crc64,
    Idle9000,
}

/// Which way a figure is better, for the ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Shown without ratios.
    Neither,
}

/// A column of a workload's table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) metric: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) better: Better,
    pub(crate) decimals: usize,
}

const fn column(
    metric: &'static str,
    heading: &'static str,
    better: Better,
    decimals: usize,
) -> Column {
    Column {
        metric,
        heading,
        better,
        decimals,
    }
}

const EXCHANGE_COLUMNS: [Column; 6] = [
    column("per_second", "req/s", Better::Higher, 0),
    column("cpu_us", "CPU us/req", Better::Lower, 2),
    column("host_us", "host us/req", Better::Neither, 2),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("p99_us", "p99 us", Better::Neither, 0),
    column("p999_us", "p99.9 us", Better::Neither, 0),
];

const BULK_COLUMNS: [Column; 5] = [
    column("gbit_per_second", "Gbit/s", Better::Higher, 2),
    column("cpu_s_per_gb", "CPU s/GB", Better::Lower, 3),
    column("host_s_per_gb", "host s/GB", Better::Neither, 3),
    column("share_min", "share min", Better::Neither, 3),
    column("share_max", "max", Better::Neither, 3),
];

const MIXED_COLUMNS: [Column; 6] = [
    column("p99_us", "p99 us", Better::Lower, 0),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("per_second", "req/s", Better::Higher, 0),
    column("gbit_per_second", "Gbit/s", Better::Higher, 2),
    column("share_min", "share min", Better::Neither, 3),
    column("share_max", "max", Better::Neither, 3),
];

const CONNECTS_COLUMNS: [Column; 5] = [
    column("per_second", "conn/s", Better::Higher, 0),
    column("cpu_us", "CPU us/conn", Better::Lower, 2),
    column("host_us", "host us/conn", Better::Neither, 2),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("p99_us", "p99 us", Better::Neither, 0),
];

const IDLE_COLUMNS: [Column; 4] = [
    column("rss_kb_per_connection", "RSS kB/conn", Better::Lower, 2),
    column("rss_before_mb", "before MB", Better::Neither, 1),
    column("rss_after_mb", "after MB", Better::Neither, 1),
    column("descriptors", "descriptors", Better::Neither, 0),
];

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .expect("no variant is skipped")
            .get_name()
            .to_owned()
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Workload::Rr1 => "64 B request and answer on 1 kept connection",
            Workload::Rr64 => "64 B request and answer on 64 kept connections",
            Workload::Paced => "10,612 exchanges of 64 B a second on 64 kept connections",
            Workload::Bulk1 => "1 bulk download",
            Workload::Bulk8 => "8 bulk downloads",
            Workload::Mixed => {
                "32 connections with 64 B request and answer beside 8 bulk downloads"
            }
            Workload::Crs64 => "connect, 64 B each way, server closes first; 64 at a time",
            Workload::Crc64 => "connect, 64 B each way, client closes first; 64 at a time",
            Workload::Idle9000 => "9,000 idle connections after one 64 B exchange each",
        }
    }

    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Workload::Rr1 | Workload::Rr64 | Workload::Paced => &EXCHANGE_COLUMNS,
            Workload::Bulk1 | Workload::Bulk8 => &BULK_COLUMNS,
            Workload::Mixed => &MIXED_COLUMNS,
            Workload::Crs64 | Workload::Crc64 => &CONNECTS_COLUMNS,
            Workload::Idle9000 => &IDLE_COLUMNS,
        }
    }

    /// Whether a target can be measured: without a balancer, nobody's memory grows, and the
    /// realtime end points of `mixed` would leave nothing to the bulk ones.
    pub(crate) fn applies_to(self, target: &Target) -> bool {
        target.kind != Kind::Direct || !matches!(self, Workload::Mixed | Workload::Idle9000)
    }

    /// Seconds that a run of this workload may take at most, start and stop included.
    pub(crate) fn time_limit(self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds) + Duration::from_secs(25)
    }

    pub(crate) fn measure(self, bed: &Bed) -> Result<Sample, Void> {
        match self {
            Workload::Rr1 => measure_exchange(bed, 1),
            Workload::Rr64 => measure_exchange(bed, 64),
            Workload::Paced => measure_paced(bed, 64),
            Workload::Bulk1 => measure_bulk(bed, 1),
            Workload::Bulk8 => measure_bulk(bed, 8),
            Workload::Mixed => measure_mixed(bed, 32, 8),
            Workload::Crs64 => measure_connects(bed, 64, ClosesFirst::Server),
            Workload::Crc64 => measure_connects(bed, 64, ClosesFirst::Client),
            Workload::Idle9000 => measure_idle(bed),
        }
    }
}

fn measure_exchange(bed: &Bed, connections: u32) -> Result<Sample, Void> {
    measure_exchanges(bed, connections, Exchange::run_until)
}

/// Far from saturation, so that the percentiles are the balancer's latency and not its queue.
fn measure_paced(bed: &Bed, connections: u32) -> Result<Sample, Void> {
    measure_exchanges(bed, connections, |load, deadline| {
        load.run_paced(deadline, PACE_PER_SECOND)
    })
}

fn measure_exchanges(
    bed: &Bed,
    connections: u32,
    run: impl Fn(&mut Exchange, Instant) -> Result<(), Void>,
) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let mut load = Exchange::open(bed.address(Service::Echo), connections)?;
    run(&mut load, Instant::now() + WARM_UP)?;
    load.reset();
    let window = Window::open(bed);
    run(
        &mut load,
        Instant::now() + Duration::from_secs_f64(bed.seconds),
    )?;
    let used = window.close(&mut sample)?;
    let done = load.done.max(1) as f64;
    sample.set("per_second", load.done as f64 / used.seconds);
    sample.set("cpu_us", used.balancer * 1e6 / done);
    sample.set("host_us", used.host * 1e6 / done);
    set_percentiles(&mut sample, &load.latency);
    Ok(sample)
}

fn measure_bulk(bed: &Bed, streams: u32) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let mut load = Bulk::open(bed.address(Service::Source), streams)?;
    load.run_until(Instant::now() + WARM_UP)?;
    load.reset();
    let window = Window::open(bed);
    load.run_until(Instant::now() + Duration::from_secs_f64(bed.seconds))?;
    let used = window.close(&mut sample)?;
    set_bulk(&mut sample, &load, used.seconds);
    let gigabytes = load.bytes().max(1) as f64 / 1e9;
    sample.set("cpu_s_per_gb", used.balancer / gigabytes);
    sample.set("host_s_per_gb", used.host / gigabytes);
    Ok(sample)
}

/// The ping-pong ends run at realtime priority: they preempt the bulk ends with which they share a
/// CPU, so that what a small exchange waits for is the balancer and not the scheduler.
fn measure_mixed(bed: &Bed, connections: u32, streams: u32) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let mut bulk = Bulk::open(bed.address(Service::Source), streams)?;
    let mut load = Exchange::open(bed.address(Service::Echo), connections)?;
    let warm_at = Instant::now() + WARM_UP;
    let done_at = warm_at + Duration::from_secs_f64(bed.seconds);
    let bulk_thread = thread::spawn(move || {
        bulk.run_until(warm_at)?;
        bulk.reset();
        bulk.run_until(done_at)?;
        Ok::<_, Void>((bulk, warm_at.elapsed().as_secs_f64()))
    });
    if bed.realtime {
        sys::set_realtime(true)?;
    } else {
        sample.notes.push(
            "end points without realtime priority: latency includes their scheduling".to_owned(),
        );
    }
    load.run_until(warm_at)?;
    load.reset();
    let window = Window::open(bed);
    load.run_until(done_at)?;
    let used = window.close(&mut sample)?;
    if bed.realtime {
        sys::set_realtime(false)?;
    }
    let (bulk, bulk_seconds) = bulk_thread
        .join()
        .unwrap_or_else(|_| Err(Void("the bulk thread panicked".to_owned())))?;
    sample.set("per_second", load.done as f64 / used.seconds);
    set_percentiles(&mut sample, &load.latency);
    set_bulk(&mut sample, &bulk, bulk_seconds);
    Ok(sample)
}

fn set_bulk(sample: &mut Sample, bulk: &Bulk, seconds: f64) {
    let (least, most) = bulk.shares();
    sample.set("gbit_per_second", bulk.bytes() as f64 * 8.0 / 1e9 / seconds);
    sample.set("share_min", least);
    sample.set("share_max", most);
}

fn measure_connects(bed: &Bed, places: u32, closes_first: ClosesFirst) -> Result<Sample, Void> {
    if !bed.fresh_network || !connects::time_wait_table_suffices()? {
        return Err(Void(
            "needs a network namespace of its own with a TIME_WAIT table of 131,072".to_owned(),
        ));
    }
    let mut sample = Sample::default();
    // The echo service leaves the closing to its client.
    let (service, warm_connections, warm_max) = match closes_first {
        ClosesFirst::Client => (Service::Echo, PORT_PASS_CONNECTIONS, PORT_PASS_MAX),
        ClosesFirst::Server => (Service::Farewell, u64::MAX, WARM_UP),
    };
    let mut load = Connects::open(bed.address(service), places, closes_first)?;
    load.run_until(Instant::now() + warm_max, warm_connections)?;
    load.reset();
    let window = Window::open(bed);
    load.run_until(
        Instant::now() + Duration::from_secs_f64(bed.seconds),
        u64::MAX,
    )?;
    let used = window.close(&mut sample)?;
    let done = load.done.max(1) as f64;
    sample.set("per_second", load.done as f64 / used.seconds);
    sample.set("cpu_us", used.balancer * 1e6 / done);
    sample.set("host_us", used.host * 1e6 / done);
    set_percentiles(&mut sample, &load.latency);
    Ok(sample)
}

fn measure_idle(bed: &Bed) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let count = IDLE_CONNECTIONS.min(bed.connections_max - 100);
    // One exchange first: what a balancer sets up once is not paid per connection.
    drop(exchange::open_idle(bed.address(Service::Echo), 1)?);
    let settle = Duration::from_millis(if bed.quick { 100 } else { 300 });
    thread::sleep(settle);
    let pids = bed.balancer_pids();
    let (rss_before, descriptors_before) =
        (usage::resident_bytes(&pids), usage::descriptors(&pids));
    let open = exchange::open_idle(bed.address(Service::Echo), count as u32)?;
    thread::sleep(settle);
    let rss_after = usage::resident_bytes(&pids);
    let growth = rss_after.saturating_sub(rss_before) as f64;
    sample.set("rss_kb_per_connection", growth / 1e3 / count as f64);
    sample.set("rss_before_mb", rss_before as f64 / 1e6);
    sample.set("rss_after_mb", rss_after as f64 / 1e6);
    sample.set("connections", open.len() as f64);
    sample.set(
        "descriptors",
        (usage::descriptors(&pids) - descriptors_before) as f64,
    );
    if count < IDLE_CONNECTIONS {
        sample.notes.push(format!(
            "only {count} connections: the descriptor limit allows no more"
        ));
    }
    Ok(sample)
}
