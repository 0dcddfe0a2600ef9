//! How each workload is measured: the loads of this program against the services of its own.

use std::thread;
use std::time::{Duration, Instant};

use crate::load::bulk::Bulk;
use crate::load::connects::{self, ClosesFirst, Connects};
use crate::load::exchange::{self, Exchange};
use crate::load::{MESSAGE_BYTES, set_percentiles};
use crate::run::{Bed, Window};
use crate::sample::{Sample, Void};
use crate::server::Service;
use crate::sys;
use crate::usage;
use crate::workload::{NARROW_PORTS, PORTS};

/// Bounds the warm-up of the workloads that first pass over the port range.
const PORT_PASS_MAX: Duration = Duration::from_secs(4);
const PORT_PASS_QUICK_MAX: Duration = Duration::from_millis(500);

/// Exchanges a second of `paced`: the rate of the deployment that `conf/hft.cfg` stands for.
const PACE_PER_SECOND: f64 = 10_612.0;

/// Idle connections, if the descriptor limit allows them.
const IDLE_CONNECTIONS: u64 = 9_000;

pub(crate) fn exchange(bed: &Bed, connections: u32, bytes: usize) -> Result<Sample, Void> {
    exchanges(bed, connections, bytes, Exchange::run_until)
}

/// Far from saturation, so that the percentiles are the balancer's latency and not its queue.
pub(crate) fn paced(bed: &Bed, connections: u32) -> Result<Sample, Void> {
    exchanges(bed, connections, MESSAGE_BYTES, |load, deadline| {
        load.run_paced(deadline, PACE_PER_SECOND)
    })
}

fn exchanges(
    bed: &Bed,
    connections: u32,
    bytes: usize,
    run: impl Fn(&mut Exchange, Instant) -> Result<(), Void>,
) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let mut load = Exchange::open(bed.address(Service::Echo), connections, bytes)?;
    run(&mut load, Instant::now() + bed.warm_up)?;
    load.reset();
    let window = Window::open(bed);
    run(
        &mut load,
        Instant::now() + Duration::from_secs_f64(bed.seconds),
    )?;
    let used = window.close(&mut sample)?;
    load.finish()?;
    let done = load.done.max(1) as f64;
    sample.set("per_second", load.done as f64 / used.seconds);
    sample.set("cpu_us", used.balancer * 1e6 / done);
    sample.set("host_us", used.host * 1e6 / done);
    set_percentiles(&mut sample, &load.latency);
    Ok(sample)
}

pub(crate) fn bulk(bed: &Bed, streams: u32) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let mut load = Bulk::open(bed.address(Service::Source), streams)?;
    load.run_until(Instant::now() + bed.warm_up)?;
    load.reset();
    let window = Window::open(bed);
    load.run_until(Instant::now() + Duration::from_secs_f64(bed.seconds))?;
    let used = window.close(&mut sample)?;
    set_bulk(&mut sample, &load, used.seconds);
    let gigabytes = load.bytes().max(1) as f64 / 1e9;
    sample.set("cpu_s_per_gb", used.balancer / gigabytes);
    sample.set("host_s_per_gb", used.host / gigabytes);
    load.finish()?;
    Ok(sample)
}

/// The ping-pong ends run at realtime priority: they preempt the bulk ends with which they share a
/// CPU, so that what a small exchange waits for is the balancer and not the scheduler.
pub(crate) fn mixed(bed: &Bed, connections: u32, streams: u32) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let mut bulk = Bulk::open(bed.address(Service::Source), streams)?;
    let mut load = Exchange::open(bed.address(Service::Echo), connections, MESSAGE_BYTES)?;
    let warm_at = Instant::now() + bed.warm_up;
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
    let (mut bulk, bulk_seconds) = bulk_thread
        .join()
        .unwrap_or_else(|_| Err(Void("the bulk thread panicked".to_owned())))?;
    sample.set("per_second", load.done as f64 / used.seconds);
    set_percentiles(&mut sample, &load.latency);
    set_bulk(&mut sample, &bulk, bulk_seconds);
    load.finish()?;
    bulk.finish()?;
    Ok(sample)
}

fn set_bulk(sample: &mut Sample, bulk: &Bulk, seconds: f64) {
    let (least, most) = bulk.shares();
    sample.set("gbit_per_second", bulk.bytes() as f64 * 8.0 / 1e9 / seconds);
    sample.set("share_min", least);
    sample.set("share_max", most);
}

/// `ports` is how many source ports the balancer has towards its server.
pub(crate) fn connects(
    bed: &Bed,
    places: u32,
    closes_first: ClosesFirst,
    ports: u32,
) -> Result<Sample, Void> {
    if !bed.fresh_network || !connects::time_wait_table_suffices()? {
        return Err(Void(
            "needs a network namespace of its own with a TIME_WAIT table of 131,072".to_owned(),
        ));
    }
    let mut sample = Sample::default();
    // Where the client closes first, one pass over the port range warms up: all are measured with
    // the table as full as it stays. The echo service leaves the closing to its client.
    let pass_max = if bed.quick {
        PORT_PASS_QUICK_MAX
    } else {
        PORT_PASS_MAX
    };
    let (service, warm_connections, warm_max) = match closes_first {
        ClosesFirst::Client => (Service::Echo, u64::from(ports), pass_max),
        ClosesFirst::Server => (Service::Farewell, u64::MAX, bed.warm_up),
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
    load.finish()?;
    let done = load.done.max(1) as f64;
    let per_second = load.done as f64 / used.seconds;
    sample.set("per_second", per_second);
    sample.set("cpu_us", used.balancer * 1e6 / done);
    sample.set("host_us", used.host * 1e6 / done);
    set_percentiles(&mut sample, &load.latency);
    // The kernel takes ports of one parity first, and one that was used rests for a second.
    if ports < PORTS && bed.balancer.is_some() && per_second < f64::from(NARROW_PORTS / 2) {
        sample.notes.push(format!(
            "below {} connections a second: the port range was not full",
            NARROW_PORTS / 2
        ));
    }
    Ok(sample)
}

pub(crate) fn idle(bed: &Bed) -> Result<Sample, Void> {
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
