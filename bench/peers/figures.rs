//! What the samples of all rounds say together: medians, spreads, ratios.
//!
//! Targets are compared with haproxy, and with the best peer, of the same number of threads.

use std::collections::BTreeMap;

use crate::rounds::Plan;
use crate::sample::Sample;
use crate::spread::Spread;
use crate::target::Target;
use crate::workload::{Better, Column, Workload};

/// The samples of every round, void ones too, by workload and by the target's place in the plan.
pub(crate) struct Results {
    pub(crate) plan: Plan,
    /// One for each round that was played, in their order.
    pub(crate) samples: BTreeMap<(Workload, usize), Vec<Sample>>,
}

impl Results {
    /// The targets that a workload was played against.
    pub(crate) fn rows(&self, workload: Workload) -> Vec<(usize, &Target, &[Sample])> {
        let targets = self.plan.targets.iter().enumerate();
        targets
            .filter_map(|(row, (target, _))| {
                let samples = self.samples.get(&(workload, row))?;
                Some((row, target, samples.as_slice()))
            })
            .collect()
    }

    /// A metric in the rounds that count.
    pub(crate) fn figures(&self, workload: Workload, row: usize, metric: &str) -> Vec<f64> {
        let samples = self.samples.get(&(workload, row));
        let valid = samples
            .into_iter()
            .flatten()
            .filter(|sample| sample.void.is_none());
        valid.filter_map(|sample| sample.get(metric)).collect()
    }

    pub(crate) fn spread(&self, workload: Workload, row: usize, metric: &str) -> Option<Spread> {
        Spread::of(&self.figures(workload, row, metric))
    }

    /// A metric over that of another row: the ratio of the medians of those rounds in which both
    /// count, and the least and largest ratio within a round. What slows down a whole round is in
    /// neither.
    pub(crate) fn ratio(
        &self,
        workload: Workload,
        row: usize,
        over: usize,
        metric: &str,
    ) -> Option<Spread> {
        let samples = self.samples.get(&(workload, row))?;
        let others = self.samples.get(&(workload, over))?;
        let usable = |sample: &Sample| {
            let counts = sample.void.is_none();
            sample.get(metric).filter(|figure| counts && *figure > 0.0)
        };
        let pairs: Vec<(f64, f64)> = samples
            .iter()
            .zip(others)
            .filter_map(|(sample, other)| Some((usable(sample)?, usable(other)?)))
            .collect();
        Spread::of_ratios(&pairs)
    }

    /// The row of haproxy with so many threads.
    pub(crate) fn reference(&self, threads: usize) -> Option<usize> {
        let mut targets = self.plan.targets.iter();
        targets.position(|(target, _)| target.is_reference() && target.threads == threads)
    }

    /// The row of the peer with so many threads that is best in a column.
    pub(crate) fn best_peer(
        &self,
        workload: Workload,
        column: &Column,
        threads: usize,
    ) -> Option<usize> {
        let peers = self
            .rows(workload)
            .into_iter()
            .filter_map(|(row, target, _)| {
                let spread = self.spread(workload, row, column.metric)?;
                let counts = target.is_peer() && target.threads == threads && spread.median > 0.0;
                counts.then_some((row, spread.median))
            });
        let best = match column.better {
            Better::Higher => peers.max_by(|(_, a), (_, b)| a.total_cmp(b)),
            Better::Lower => peers.min_by(|(_, a), (_, b)| a.total_cmp(b)),
            Better::Neither => None,
        };
        best.map(|(row, _)| row)
    }
}

/// Columns that are compared with the peers'.
pub(crate) fn compared(workload: Workload) -> impl Iterator<Item = &'static Column> {
    let columns = workload.columns().iter();
    columns.filter(|column| column.better != Better::Neither)
}

/// Whether a column is the balancer's CPU time.
pub(crate) fn is_cpu(column: &Column) -> bool {
    column.metric.starts_with("cpu_")
}
