//! How the workloads of UDP are measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::datagrams::{self, Datagrams, Shape};
use crate::load::one_way::OneWay;
use crate::load::set_percentiles;
use crate::run::{Bed, Window};
use crate::sample::{Sample, Void};
use crate::usage;

/// Idle flows, where the descriptor limit allows them to a balancer that has one for each; and
/// those before them, for what a balancer sets up once.
const IDLE_FLOWS: u64 = 50_000;
const FLOWS_BEFORE: u32 = 64;
/// What a balancer must have room for.
pub(crate) const IDLE_FLOWS_MAX: u64 = IDLE_FLOWS + FLOWS_BEFORE as u64;

/// Flows that have their turn in `udpnew`: each has rested for a while when it comes again.
const TURNS: u32 = 1_024;

/// Datagrams of `bytes` there and back, `in_flight` of them on each of some flows.
pub(crate) fn exchange(
    bed: &Bed,
    flows: u32,
    in_flight: u32,
    bytes: usize,
) -> Result<Sample, Void> {
    let shape = Shape {
        flows,
        in_flight,
        bytes,
        at_a_time: None,
    };
    exchanges(bed, shape)
}

/// One datagram there and back on each flow, which ends with that.
pub(crate) fn new_flows(bed: &Bed, at_a_time: u32) -> Result<Sample, Void> {
    let shape = Shape {
        flows: TURNS,
        in_flight: 1,
        bytes: 64,
        at_a_time: Some(at_a_time),
    };
    exchanges(bed, shape)
}

fn exchanges(bed: &Bed, shape: Shape) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let mut load = Datagrams::open(bed.datagram_address(), shape)?;
    load.run_until(Instant::now() + bed.warm_up)?;
    load.reset();
    let window = Window::open(bed);
    load.run_until(Instant::now() + Duration::from_secs_f64(bed.seconds))?;
    let used = window.close(&mut sample)?;
    let done = load.done;
    set_percentiles(&mut sample, &load.latency);
    load.finish()?;
    sample.set("per_second", done as f64 / used.seconds);
    sample.set("cpu_us", used.balancer * 1e6 / done.max(1) as f64);
    sample.set("host_us", used.host * 1e6 / done.max(1) as f64);
    set_loss(&mut sample, load.lost, done + load.lost);
    Ok(sample)
}

fn set_loss(sample: &mut Sample, lost: u64, of: u64) {
    sample.set("lost", lost as f64);
    sample.set("loss_percent", 100.0 * lost as f64 / of.max(1) as f64);
}

/// Datagrams one way at full rate; the loss is that of the whole run.
pub(crate) fn one_way(bed: &Bed, trains: bool) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let control = bed.end_points.ports.last().copied();
    let control = control.ok_or(Void("the end points tell nothing".to_owned()))?;
    let control = SocketAddr::from((Ipv4Addr::LOCALHOST, control));
    let mut load = OneWay::open(bed.datagram_address(), control, trains)?;
    load.run_until(Instant::now() + bed.warm_up)?;
    let (sent, arrived) = (load.sent, load.arrived()?);
    let window = Window::open(bed);
    load.run_until(Instant::now() + Duration::from_secs_f64(bed.seconds))?;
    let (sent, now) = (load.sent - sent, load.arrived()?);
    let used = window.close(&mut sample)?;
    let done = now.datagrams - arrived.datagrams;
    let all = load.arrived_in_the_end()?;
    if all.wrong > 0 {
        return Err(Void(format!("{} datagrams arrived wrong", all.wrong)));
    }
    if all.datagrams > load.sent {
        return Err(Void("more datagrams arrived than were sent".to_owned()));
    }
    sample.set("per_second", done as f64 / used.seconds);
    sample.set("sent_per_second", sent as f64 / used.seconds);
    sample.set("cpu_us", used.balancer * 1e6 / done.max(1) as f64);
    sample.set("host_us", used.host * 1e6 / done.max(1) as f64);
    set_loss(&mut sample, load.sent - all.datagrams, load.sent);
    Ok(sample)
}

/// Memory of flows that have made one exchange each.
pub(crate) fn idle(bed: &Bed) -> Result<Sample, Void> {
    let mut sample = Sample::default();
    let room = bed.flows_max.min(u64::from(datagrams::IDLE_FLOWS_MAX));
    let count = IDLE_FLOWS.min(room - u64::from(FLOWS_BEFORE));
    datagrams::exchange_once(bed.datagram_address(), 0..FLOWS_BEFORE)?;
    let settle = Duration::from_millis(if bed.quick { 100 } else { 500 });
    thread::sleep(settle);
    let pids = bed.balancer_pids();
    let before = (usage::resident_bytes(&pids), usage::slab_bytes());
    let descriptors_before = usage::descriptors(&pids);
    let flows = FLOWS_BEFORE..FLOWS_BEFORE + count as u32;
    datagrams::exchange_once(bed.datagram_address(), flows)?;
    thread::sleep(settle);
    let after = (usage::resident_bytes(&pids), usage::slab_bytes());
    let per_flow = |before: u64, after: u64| after.saturating_sub(before) as f64 / count as f64;
    let resident = per_flow(before.0, after.0);
    sample.set("rss_bytes_per_flow", resident);
    match (before.1, after.1) {
        (Some(before), Some(after)) => {
            let slab = per_flow(before, after);
            sample.set("slab_bytes_per_flow", slab);
            sample.set("bytes_per_flow", resident + slab);
        }
        _ => {
            sample.set("bytes_per_flow", resident);
            let note = "no right to see the kernel's memory: B/flow is the process's alone";
            sample.notes.push(note.to_owned());
        }
    }
    sample.set("flows", count as f64);
    sample.set("rss_after_mb", after.0 as f64 / 1e6);
    let descriptors = usage::descriptors(&pids).saturating_sub(descriptors_before);
    sample.set("descriptors", descriptors as f64);
    if count < IDLE_FLOWS {
        sample.notes.push(format!(
            "only {count} flows: the descriptor limit allows no more with one for each"
        ));
    }
    Ok(sample)
}
