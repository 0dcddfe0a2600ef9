//! What processes and the host have used: CPU time, memory, descriptors, kernel drop counters.
//!
//! Readers of /proc only. CPU time comes from the scheduler's nanosecond counter of every thread
//! (io_uring's worker threads are threads of the process and are in it); the tick counters of the
//! process are kept beside it because they also hold the threads that have ended meanwhile.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Ticks per second of /proc/stat and /proc/PID/stat: USER_HZ, 100 on every current architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// The process and everything that descends from it, found by parent pid.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some(parent) = stat_fields(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok())
        {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

/// Fields of /proc/PID/stat from the state on (the command name before it may hold blanks).
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// CPU time used so far by some processes.
#[derive(Debug, Default)]
pub(crate) struct CpuTime {
    nanoseconds_by_thread: BTreeMap<u32, u64>,
    seconds_by_ticks: f64,
}

impl CpuTime {
    pub(crate) fn of(pids: &[u32]) -> CpuTime {
        let mut used = CpuTime::default();
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let spent = text
                    .split_whitespace()
                    .next()
                    .and_then(|field| field.parse().ok());
                if let (Some(thread), Some(spent)) = (thread, spent) {
                    used.nanoseconds_by_thread.insert(thread, spent);
                }
            }
            if let Some(fields) = stat_fields(*pid) {
                // utime and stime are fields 14 and 15 of the line, 11 and 12 from the state on.
                let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
                used.seconds_by_ticks +=
                    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS_PER_SECOND;
            }
        }
        used
    }

    /// Seconds used since `earlier`.
    pub(crate) fn since(&self, earlier: &CpuTime) -> f64 {
        let mut nanoseconds = 0;
        for (thread, spent) in &self.nanoseconds_by_thread {
            let before = earlier
                .nanoseconds_by_thread
                .get(thread)
                .copied()
                .unwrap_or(0);
            nanoseconds += spent.saturating_sub(before);
        }
        let exact = nanoseconds as f64 / 1e9;
        let by_ticks = self.seconds_by_ticks - earlier.seconds_by_ticks;
        // Ticks are coarse (two counters of 10 ms). Only a larger gap means that threads have
        // ended.
        if by_ticks > exact + 0.05 {
            by_ticks
        } else {
            exact
        }
    }
}

/// CPU seconds of the children of this process that have ended and were waited for.
pub(crate) fn ended_children_seconds() -> f64 {
    let Ok(used) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return 0.0;
    };
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(used.user_time()) + seconds(used.system_time())
}

/// Seconds in which the CPUs of the host were busy, and in which the hypervisor took them away.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostTime {
    pub(crate) busy: f64,
    pub(crate) stolen: f64,
}

impl HostTime {
    pub(crate) fn now() -> HostTime {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        // cpu user nice system idle iowait irq softirq steal ...
        let ticks: Vec<f64> = first
            .split_whitespace()
            .skip(1)
            .flat_map(str::parse)
            .collect();
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0.0) / TICKS_PER_SECOND;
        HostTime {
            busy: at(0) + at(1) + at(2) + at(5) + at(6),
            stolen: at(7),
        }
    }
}

/// Resident memory of some processes together, in bytes.
pub(crate) fn resident_bytes(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    pids.iter().filter_map(of).sum::<u64>() * 1024
}

/// Open descriptors of some processes together.
pub(crate) fn descriptors(pids: &[u32]) -> usize {
    pids.iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")))
        .map(Iterator::count)
        .sum()
}

/// A thread of some processes that may run on a CPU other than these, as text.
pub(crate) fn stray_thread(pids: &[u32], cpus: &[usize]) -> Option<String> {
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let value = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key));
                line.map(str::trim)
            };
            if let Some(list) = value("Cpus_allowed_list:")
                && !cpu_list(list).all(|cpu| cpus.contains(&cpu))
            {
                let name = value("Name:").unwrap_or("?");
                return Some(format!("its thread {name} may run on CPU {list}"));
            }
        }
    }
    None
}

/// The numbers of a list like "0-2,5".
fn cpu_list(list: &str) -> impl Iterator<Item = usize> {
    list.split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        // What is no number is on no list of CPUs either.
        let number = |text: &str| text.parse().unwrap_or(usize::MAX - 1);
        number(first)..=number(last)
    })
}

/// Whether anybody in this network namespace listens on a port.
pub(crate) fn listens(port: u16) -> bool {
    const LISTENING: &str = "0A";
    // Server and balancers are told IPv4 addresses; Linux lists them here.
    has_socket("tcp", port, LISTENING)
}

/// Whether anybody in this network namespace has a socket of UDP on a port.
pub(crate) fn receives(port: u16) -> bool {
    const UNCONNECTED: &str = "07";
    has_socket("udp", port, UNCONNECTED)
}

fn has_socket(table: &str, port: u16, state: &str) -> bool {
    let suffix = format!(":{port:04X}");
    let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
    text.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, found) = (fields.next(), fields.nth(1));
        local.is_some_and(|local| local.ends_with(&suffix)) && found == Some(state)
    })
}

/// Bytes of all objects of the kernel's slab caches, of the whole machine; `None` without the
/// right to see them.
pub(crate) fn slab_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/slabinfo").ok()?;
    let of = |line: &str| {
        // name active_objs num_objs objsize ...
        let mut fields = line.split_whitespace().skip(1);
        let active: u64 = fields.next()?.parse().ok()?;
        let bytes: u64 = fields.nth(1)?.parse().ok()?;
        Some(active * bytes)
    };
    let caches = text.lines().filter(|line| !line.starts_with('#'));
    Some(caches.filter_map(of).sum())
}

/// TIME_WAIT entries of this network namespace.
pub(crate) fn time_wait_entries() -> u64 {
    let text = fs::read_to_string("/proc/self/net/sockstat").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))
        .unwrap_or_default();
    let mut words = line
        .split_whitespace()
        .skip_while(|word| *word != "tw")
        .skip(1);
    words
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// Counters of the namespace that make a connection-rate run worthless when they move: a full
/// accept queue, a full SYN queue, or a full TIME_WAIT table (after which TIME_WAIT is skipped and
/// everything suddenly looks twice as fast).
const DROP_COUNTERS: [&str; 5] = [
    "ListenOverflows",
    "ListenDrops",
    "TCPTimeWaitOverflow",
    "TCPReqQFullDrop",
    "TCPReqQFullDoCookies",
];

/// Values of the drop counters, in their order.
pub(crate) fn drop_counters() -> Vec<u64> {
    let text = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let table: BTreeMap<&str, &str> = names
        .split_whitespace()
        .zip(values.split_whitespace())
        .collect();
    let value = |name: &&str| {
        table
            .get(*name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0)
    };
    DROP_COUNTERS.iter().map(value).collect()
}

/// Which of the drop counters moved, as text.
pub(crate) fn moved_counters(before: &[u64], after: &[u64]) -> Option<String> {
    let moved: Vec<String> = DROP_COUNTERS
        .iter()
        .zip(before.iter().zip(after))
        .filter(|(_, (before, after))| after > before)
        .map(|(name, (before, after))| format!("{name} +{}", after - before))
        .collect();
    (!moved.is_empty()).then(|| moved.join(", "))
}
