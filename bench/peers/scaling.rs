//! From one thread to several: what a unit costs then, for every target measured with both.
//!
//! Where no CPU is left for the load generator, it shares those of the balancer, and the rate says
//! nothing. CPU per unit does.

use serde_json::{Value, json};

use crate::figures::{self, Results};
use crate::report;
use crate::spread::Spread;
use crate::workload::{Better, Workload};

/// One workload against one target with several threads.
struct Growth {
    workload: Workload,
    /// Without the number of threads.
    target: String,
    threads: usize,
    /// CPU per unit and units a second, over those of one thread.
    cpu: Option<Spread>,
    rate: Option<Spread>,
}

fn growths(results: &Results) -> Vec<Growth> {
    let mut growths = Vec::new();
    for workload in &results.plan.workloads {
        let rows = results.rows(*workload);
        let cpu = figures::compared(*workload).find(|column| figures::is_cpu(column));
        let rate = figures::compared(*workload).find(|column| column.better == Better::Higher);
        for (row, target, _) in rows.iter().filter(|(_, target, _)| target.threads > 1) {
            let single = rows.iter().find(|(_, other, _)| {
                other.threads == 1 && other.single_name() == target.single_name()
            });
            let (Some((single, ..)), Some(cpu), Some(rate)) = (single, cpu, rate) else {
                continue;
            };
            let growth = |metric| results.ratio(*workload, *row, *single, metric);
            growths.push(Growth {
                workload: *workload,
                target: target.single_name(),
                threads: target.threads,
                cpu: growth(cpu.metric),
                rate: growth(rate.metric),
            });
        }
    }
    growths
}

/// A table, if anything was measured with one thread and with more.
pub(crate) fn print(results: &Results) {
    let growths = growths(results);
    if growths.is_empty() {
        return;
    }
    println!("\nscaling: CPU per unit and rate with N threads, over those with 1 thread");
    let heading = [
        "workload",
        "target",
        "N",
        "x CPU/unit",
        "min..max",
        "x rate",
        "min..max",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for growth in &growths {
        let mut cells = vec![
            growth.workload.name(),
            growth.target.clone(),
            growth.threads.to_string(),
        ];
        for spread in [growth.cpu, growth.rate] {
            let text = |s: Spread| {
                let range = format!("{:.2}..{:.2}", s.least, s.most);
                [format!("{:.2}", s.median), range]
            };
            cells.extend(spread.map_or(["VOID".to_owned(), "-".to_owned()], text));
        }
        rows.push(cells);
    }
    report::print_aligned(&rows);
}

pub(crate) fn to_json(results: &Results) -> Vec<Value> {
    let value = |spread: Option<Spread>| {
        spread.map(|s| json!({ "median": s.median, "min": s.least, "max": s.most }))
    };
    let growths = growths(results).into_iter().map(|growth| {
        json!({
            "workload": growth.workload.name(),
            "target": growth.target,
            "threads": growth.threads,
            "cpu_per_unit": value(growth.cpu),
            "rate": value(growth.rate),
        })
    });
    growths.collect()
}
