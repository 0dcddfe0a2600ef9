//! Medians over the rounds, ratios to haproxy and to the best peer, as a table and as a file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::rounds::Plan;
use crate::sample::Sample;
use crate::target::Target;
use crate::workload::{Better, Column, Workload};

/// The samples of every round, void ones too.
pub(crate) type Results = BTreeMap<(Workload, Target), Vec<Sample>>;

/// CPU of other processes from which on a row is marked: a seventh of one of the two CPUs.
const FOREIGN_PERCENT_MAX: f64 = 15.0;

/// The figures of one metric in the rounds that count.
fn figures(samples: &[Sample], metric: &str) -> Vec<f64> {
    let valid = samples.iter().filter(|sample| sample.void.is_none());
    valid.filter_map(|sample| sample.get(metric)).collect()
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        length if length % 2 == 1 => Some(figures[middle]),
        _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
    }
}

fn median_of(results: &Results, workload: Workload, target: Target, metric: &str) -> Option<f64> {
    median(figures(results.get(&(workload, target))?, metric))
}

/// What a figure is compared with: haproxy's, and that of the best peer.
fn references(results: &Results, workload: Workload, column: Column) -> (Option<f64>, Option<f64>) {
    let of = |target| median_of(results, workload, target, column.metric);
    let peers = Target::PEERS.into_iter().filter_map(of);
    let best = match column.better {
        Better::Higher => peers.reduce(f64::max),
        Better::Lower | Better::Neither => peers.reduce(f64::min),
    };
    (of(Target::Haproxy), best)
}

fn ratio(value: f64, reference: Option<f64>) -> Option<f64> {
    reference
        .filter(|reference| *reference > 0.0 && value > 0.0)
        .map(|reference| value / reference)
}

pub(crate) fn print(plan: &Plan, results: &Results) {
    println!(
        "\n{} round{} of {} s; balancer alone on CPU 0; medians. x hap, x best: ratio to haproxy, to the best peer.",
        plan.rounds,
        if plan.rounds == 1 { "" } else { "s" },
        plan.seconds
    );
    for (target, version) in plan
        .targets
        .iter()
        .filter(|(target, _)| *target != Target::Direct)
    {
        println!("  {}: {version}", target.name());
    }
    for workload in &plan.workloads {
        print_workload(plan, results, *workload);
    }
}

fn print_workload(plan: &Plan, results: &Results, workload: Workload) {
    println!("\n{}: {}", workload.name(), workload.title());
    let mut rows = vec![heading(workload)];
    let mut remarks: Vec<String> = Vec::new();
    for (target, _) in &plan.targets {
        let Some(samples) = results.get(&(workload, *target)) else {
            continue;
        };
        rows.push(row(results, workload, *target, samples));
        let mut add = |remark: String| {
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        };
        for sample in samples {
            if let Some(reason) = &sample.void {
                add(format!("{}: VOID: {reason}", target.name()));
            }
            sample
                .notes
                .iter()
                .for_each(|note| add(format!("{}: {note}", target.name())));
        }
        let foreign = median(figures(samples, "foreign_percent")).unwrap_or(0.0);
        if foreign > FOREIGN_PERCENT_MAX {
            add(format!(
                "{}: disturbed: other processes used {foreign:.0} % of a CPU",
                target.name()
            ));
        }
    }
    for row in align(&rows) {
        println!("  {row}");
    }
    for remark in remarks {
        println!("  ! {remark}");
    }
}

fn heading(workload: Workload) -> Vec<String> {
    let mut cells = vec!["target".to_owned(), "runs".to_owned()];
    for column in workload.columns() {
        cells.push(column.heading.to_owned());
        if column.better != Better::Neither {
            cells.extend(["x hap".to_owned(), "x best".to_owned()]);
        }
    }
    if workload != Workload::Idle9000 {
        cells.extend(["core %".to_owned(), "load %".to_owned()]);
    }
    cells
}

fn row(results: &Results, workload: Workload, target: Target, samples: &[Sample]) -> Vec<String> {
    let valid = samples
        .iter()
        .filter(|sample| sample.void.is_none())
        .count();
    let runs = if valid == samples.len() {
        valid.to_string()
    } else {
        format!("{valid}/{}", samples.len())
    };
    let mut cells = vec![target.name().to_owned(), runs];
    if valid == 0 {
        cells.push("VOID".to_owned());
        return cells;
    }
    let text = |value: Option<f64>, decimals: usize| {
        value.map_or("-".to_owned(), |v| format!("{v:.decimals$}"))
    };
    for column in workload.columns() {
        let value = median(figures(samples, column.metric));
        // Without a balancer there is no balancer's CPU time.
        let shown = value.filter(|value| *value > 0.0 || target != Target::Direct);
        cells.push(text(shown, column.decimals));
        if column.better != Better::Neither {
            let (haproxy, best) = references(results, workload, *column);
            cells.push(text(value.and_then(|value| ratio(value, haproxy)), 2));
            cells.push(text(value.and_then(|value| ratio(value, best)), 2));
        }
    }
    if workload != Workload::Idle9000 {
        for metric in ["balancer_percent", "load_percent"] {
            cells.push(text(median(figures(samples, metric)), 0));
        }
    }
    cells
}

/// Pads cells to columns: the first to the left, figures to the right.
fn align(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |index: usize| {
        rows.iter()
            .filter_map(|row| row.get(index))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let pad = |(index, cell): (usize, &String)| match index {
        0 => format!("{cell:<width$}", width = widths[0]),
        _ => format!("{cell:>width$}", width = widths[index]),
    };
    rows.iter()
        .map(|row| {
            row.iter()
                .enumerate()
                .map(pad)
                .collect::<Vec<_>>()
                .join("  ")
        })
        .collect()
}

/// Writes everything that was measured; returns where.
pub(crate) fn write_json(file: &Path, plan: &Plan, results: &Results) -> io::Result<PathBuf> {
    let bare = file
        .parent()
        .is_none_or(|parent| parent.as_os_str().is_empty());
    let path = if bare {
        Path::new("bench/results").join(file)
    } else {
        file.to_owned()
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let rows: Vec<Value> = results
        .iter()
        .map(|((workload, target), samples)| row_json(results, *workload, *target, samples))
        .collect();
    let versions: BTreeMap<&str, &str> = plan
        .targets
        .iter()
        .map(|(target, version)| (target.name(), version.as_str()))
        .collect();
    let document = json!({
        "measured_at": jiff::Timestamp::now().to_string(),
        "host": host_json(),
        "versions": versions,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "rows": rows,
    });
    fs::write(
        &path,
        serde_json::to_string_pretty(&document).map_err(io::Error::other)? + "\n",
    )?;
    Ok(path)
}

fn row_json(results: &Results, workload: Workload, target: Target, samples: &[Sample]) -> Value {
    let mut metrics = BTreeMap::new();
    for name in samples.iter().flat_map(|sample| sample.metrics.keys()) {
        let all = figures(samples, name);
        metrics.insert(name, json!({ "median": median(all.clone()), "runs": all }));
    }
    let mut ratios = BTreeMap::new();
    for column in workload
        .columns()
        .iter()
        .filter(|column| column.better != Better::Neither)
    {
        let value = median(figures(samples, column.metric)).unwrap_or(0.0);
        let (haproxy, best) = references(results, workload, *column);
        let entry = json!({ "haproxy": ratio(value, haproxy), "best_peer": ratio(value, best) });
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
        "metrics": metrics,
        "ratios": ratios,
        "void": void,
        "notes": notes,
    })
}

/// What figures depend on, beside the programs.
fn host_json() -> Value {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let cpus = read("/proc/cpuinfo");
    let models = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let models: Vec<&str> = models.map(|(_, model)| model).collect();
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": models.len(),
        "cpu_model": models.first(),
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control"),
    })
}
