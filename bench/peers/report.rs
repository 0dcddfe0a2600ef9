//! The tables: medians over the rounds, how far the rounds were apart, ratios to haproxy and to the
//! best peer.

use crate::figures::{self, Results};
use crate::sample::Sample;
use crate::spread::Spread;
use crate::target::{Kind, Target};
use crate::workload::{Better, Workload};

/// CPU of other processes from which on a row is marked: a seventh of one of the two CPUs.
const FOREIGN_PERCENT_MAX: f64 = 15.0;

pub(crate) fn print(results: &Results) {
    let plan = &results.plan;
    println!(
        "\n{} round{} of {} s; medians, and least..most of the rounds. \
         x hap, x best: ratio to haproxy, to the best peer.",
        plan.rounds,
        if plan.rounds == 1 { "" } else { "s" },
        plan.seconds
    );
    for (target, version) in &plan.targets {
        if target.kind != Kind::Direct {
            println!("  {}: {version}", target.name());
        }
    }
    for workload in &plan.workloads {
        print_workload(results, *workload);
    }
}

fn print_workload(results: &Results, workload: Workload) {
    println!("\n{}: {}", workload.name(), workload.title());
    let mut table = vec![heading(workload)];
    let mut remarks: Vec<String> = Vec::new();
    for (row, target, samples) in results.rows(workload) {
        table.push(cells(results, workload, row, target, samples));
        let mut add = |remark: &str| {
            let remark = format!("{}: {remark}", target.name());
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        };
        for sample in samples {
            if let Some(reason) = &sample.void {
                add(&format!("VOID: {reason}"));
            }
            sample.notes.iter().for_each(|note| add(note));
        }
        let foreign = results.spread(workload, row, "foreign_percent");
        let foreign = foreign.map_or(0.0, |spread| spread.median);
        if foreign > FOREIGN_PERCENT_MAX {
            add(&format!(
                "disturbed: other processes used {foreign:.0} % of a CPU"
            ));
        }
    }
    print_aligned(&table);
    if let Some(line) = best_peers(results, workload) {
        println!("  best peer: {line}");
    }
    for (target, _) in &results.plan.targets {
        if let Some(reason) = workload.lacks(target) {
            println!("  ! {}: left out, {reason}", target.name());
        }
    }
    for remark in remarks {
        println!("  ! {remark}");
    }
}

fn heading(workload: Workload) -> Vec<String> {
    let mut cells = vec!["target", "runs"];
    for column in workload.columns() {
        cells.push(column.heading);
        if column.better != Better::Neither {
            cells.extend(["min..max", "x hap", "x best"]);
        }
    }
    if !workload.is_idle() {
        cells.extend(["core %", "load %"]);
    }
    cells.into_iter().map(str::to_owned).collect()
}

fn cells(
    results: &Results,
    workload: Workload,
    row: usize,
    target: &Target,
    samples: &[Sample],
) -> Vec<String> {
    let valid = samples
        .iter()
        .filter(|sample| sample.void.is_none())
        .count();
    let runs = if valid == samples.len() {
        valid.to_string()
    } else {
        format!("{valid}/{}", samples.len())
    };
    let mut cells = vec![target.name(), runs];
    if valid == 0 {
        cells.push("VOID".to_owned());
        return cells;
    }
    let text = |value: Option<f64>, decimals: usize| {
        value.map_or("-".to_owned(), |v| format!("{v:.decimals$}"))
    };
    for column in workload.columns() {
        let (metric, decimals) = (column.metric, column.decimals);
        let spread = results.spread(workload, row, metric);
        // Without a balancer there is no balancer's CPU time or memory.
        let spread = spread.filter(|s| s.median > 0.0 || target.kind != Kind::Direct);
        cells.push(text(spread.map(|s| s.median), decimals));
        if column.better != Better::Neither {
            let range = |s: Spread| format!("{:.decimals$}..{:.decimals$}", s.least, s.most);
            cells.push(spread.map_or("-".to_owned(), range));
            let ratio = |over: Option<usize>| {
                let ratio = results.ratio(workload, row, over?, metric)?;
                Some(ratio.median)
            };
            cells.push(text(ratio(results.reference(target.threads)), 2));
            let best = results.best_peer(workload, column, target.threads);
            cells.push(text(ratio(best), 2));
        }
    }
    if !workload.is_idle() {
        let of = |metric: &str| results.spread(workload, row, metric).map(|s| s.median);
        for metric in ["balancer_percent", "load_percent"] {
            cells.push(text(of(metric), 0));
        }
    }
    cells
}

/// Who it was, for every compared column and number of threads.
fn best_peers(results: &Results, workload: Workload) -> Option<String> {
    let targets = &results.plan.targets;
    let mut counts: Vec<usize> = targets.iter().map(|(target, _)| target.threads).collect();
    counts.sort_unstable();
    counts.dedup();
    let mut words = Vec::new();
    for threads in counts {
        for column in figures::compared(workload) {
            if let Some(best) = results.best_peer(workload, column, threads) {
                words.push(format!("{} {}", column.heading, targets[best].0.name()));
            }
        }
    }
    (!words.is_empty()).then(|| words.join(", "))
}

/// Prints cells in columns: the first to the left, figures to the right.
pub(crate) fn print_aligned(rows: &[Vec<String>]) {
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
    for row in rows {
        let cells: Vec<String> = row.iter().enumerate().map(pad).collect();
        println!("  {}", cells.join("  "));
    }
}
