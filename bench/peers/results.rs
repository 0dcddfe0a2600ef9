//! The result file: everything that was measured, as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::figures::{self, Results};
use crate::sample::Sample;
use crate::scaling;
use crate::target::Target;
use crate::workload::Workload;

/// Where a result file goes: a bare name into the folder of all results.
pub(crate) fn place(file: &Path) -> PathBuf {
    let bare = file
        .parent()
        .is_none_or(|parent| parent.as_os_str().is_empty());
    if bare {
        Path::new("bench/results").join(file)
    } else {
        file.to_owned()
    }
}

/// Writes everything that was measured.
pub(crate) fn write(path: &Path, results: &Results) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut rows = Vec::new();
    for workload in &results.plan.workloads {
        for (row, target, samples) in results.rows(*workload) {
            rows.push(row_json(results, *workload, row, target, samples));
        }
    }
    let versions: BTreeMap<String, &str> = results
        .plan
        .targets
        .iter()
        .map(|(target, version)| (target.name(), version.as_str()))
        .collect();
    let document = json!({
        "measured_at": jiff::Timestamp::now().to_string(),
        "host": host_json(),
        "versions": versions,
        "tools": results.plan.tools,
        "rounds": results.plan.rounds,
        "seconds": results.plan.seconds,
        "rows": rows,
        "scaling": scaling::to_json(results),
    });
    let text = serde_json::to_string_pretty(&document).map_err(io::Error::other)?;
    fs::write(path, text + "\n")
}

fn row_json(
    results: &Results,
    workload: Workload,
    row: usize,
    target: &Target,
    samples: &[Sample],
) -> Value {
    let mut metrics = BTreeMap::new();
    for name in samples.iter().flat_map(|sample| sample.metrics.keys()) {
        let spread = results.spread(workload, row, name);
        let entry = json!({
            "median": spread.map(|spread| spread.median),
            "runs": results.figures(workload, row, name),
        });
        metrics.insert(name, entry);
    }
    let mut ratios = BTreeMap::new();
    for column in figures::compared(workload) {
        let best = results.best_peer(workload, column, target.threads);
        let ratio = |over: Option<usize>| {
            let spread = results.ratio(workload, row, over?, column.metric)?;
            let (name, median) = (results.plan.targets[over?].0.name(), spread.median);
            Some(json!({ "of": name, "median": median, "min": spread.least, "max": spread.most }))
        };
        let entry = json!({
            "haproxy": ratio(results.reference(target.threads)),
            "best_peer": ratio(best),
        });
        ratios.insert(column.metric, entry);
    }
    let void: Vec<&String> = samples
        .iter()
        .filter_map(|sample| sample.void.as_ref())
        .collect();
    let notes: Vec<&String> = samples.iter().flat_map(|sample| &sample.notes).collect();
    json!({
        "workload": workload.name(),
        "target": target.name(),
        "threads": target.threads,
        "metrics": metrics,
        "ratios": ratios,
        "void": void,
        "notes": notes,
    })
}

/// What figures depend on, beside the programs.
fn host_json() -> Value {
    let (count, model) = cpus();
    json!({
        "kernel": kernel(),
        "cpus": count,
        "cpu_model": model,
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
        "receive_buffer": read("/proc/sys/net/ipv4/tcp_rmem"),
        "send_buffer": read("/proc/sys/net/ipv4/tcp_wmem"),
    })
}

pub(crate) fn kernel() -> String {
    read("/proc/sys/kernel/osrelease")
}

/// How many CPUs there are, and what the first one is.
pub(crate) fn cpus() -> (usize, String) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1))
        .collect();
    let model = models.first().copied().unwrap_or_default();
    (models.len(), model.to_owned())
}

/// A file's words on one line.
fn read(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
