//! Which CPUs each shard runs on: `cpu-map`, else one CPU for each shard in order.

use crate::base::ids::ShardId;
use crate::config::threads::CpuMap;

/// The CPUs of each shard, and what is to be said about them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pinning {
    /// By shard; none = the shard runs wherever the process may.
    pub cpus: Vec<Vec<usize>>,
    /// Warnings.
    pub warnings: Vec<String>,
}

impl Pinning {
    /// Which shards have a CPU for themselves: where as many or more CPUs than shards can run on
    /// them.
    pub fn alone(&self, allowed: &[usize]) -> Vec<bool> {
        let runs_on = |cpus: &[usize], cpu: &usize| cpus.is_empty() || cpus.contains(cpu);
        let alone = |own: &Vec<usize>| {
            let own = if own.is_empty() { allowed } else { own };
            let meets = |other: &&Vec<usize>| own.iter().any(|cpu| runs_on(other, cpu));
            self.cpus.iter().filter(meets).count() <= own.len()
        };
        self.cpus.iter().map(alone).collect()
    }
}

/// Distributes the CPUs in `allowed` over the shards.
pub fn pinning(maps: &[CpuMap], shards: u16, allowed: &[usize]) -> Pinning {
    if maps.is_empty() {
        return Pinning {
            cpus: one_each(shards, allowed),
            warnings: Vec::new(),
        };
    }
    let mut pinning = Pinning {
        cpus: vec![Vec::new(); usize::from(shards)],
        warnings: Vec::new(),
    };
    let mut missing: Vec<u16> = Vec::new();
    for map in maps {
        let mapped = (0..shards).map(ShardId).filter(|s| map.threads.has(*s));
        for (position, shard) in mapped.enumerate() {
            // A line with as many CPUs as threads may name more threads than there are.
            let wanted = match map.cpus.get(position..=position) {
                Some(own) if map.auto => own,
                None if map.auto => &[],
                _ => &map.cpus,
            };
            let there = |cpu: &u16| allowed.contains(&usize::from(*cpu));
            let (usable, absent): (Vec<u16>, Vec<u16>) = wanted.iter().copied().partition(there);
            missing.extend(absent);
            if usable.is_empty() {
                let text = format!(
                    "cpu-map : no CPU is left for thread {}: it is not pinned.",
                    shard.0 + 1
                );
                pinning.warnings.push(text);
            }
            pinning.cpus[usize::from(shard.0)] = usable.into_iter().map(usize::from).collect();
        }
    }
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(u16::to_string).collect();
        let text = format!(
            "cpu-map : CPUs that don't exist or that this process may not use: {}.",
            names.join(", ")
        );
        pinning.warnings.insert(0, text);
    }
    pinning
}

fn one_each(shards: u16, allowed: &[usize]) -> Vec<Vec<usize>> {
    let enough = usize::from(shards) <= allowed.len();
    (0..usize::from(shards))
        .map(|index| match allowed.get(index) {
            Some(cpu) if enough => vec![*cpu],
            _ => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::threads::ThreadSet;

    fn map(auto: bool, threads: &[u16], cpus: &[u16]) -> CpuMap {
        CpuMap {
            auto,
            threads: threads.iter().map(|thread| ShardId(thread - 1)).collect(),
            cpus: cpus.to_vec(),
        }
    }

    #[test]
    fn without_a_map_each_shard_has_a_cpu_if_there_are_enough() {
        assert_eq!(pinning(&[], 2, &[3, 5, 7]).cpus, [vec![3], vec![5]]);
        assert_eq!(
            pinning(&[], 2, &[3]).cpus,
            [Vec::<usize>::new(), Vec::new()]
        );
    }

    #[test]
    fn maps_give_sets_or_one_each_and_the_last_wins() {
        let all = CpuMap {
            auto: false,
            threads: ThreadSet::ALL,
            cpus: vec![0, 1],
        };
        let pinned = pinning(&[all, map(true, &[2, 3], &[2, 3])], 4, &[0, 1, 2, 3]);
        assert_eq!(pinned.cpus, [vec![0, 1], vec![2], vec![3], vec![0, 1]]);
        assert_eq!(pinned.warnings, Vec::<String>::new());
    }

    #[test]
    fn shards_that_no_line_maps_are_not_pinned() {
        let pinned = pinning(&[map(false, &[2], &[1])], 2, &[0, 1]);
        assert_eq!(pinned.cpus, [vec![], vec![1]]);
        assert_eq!(pinned.warnings, Vec::<String>::new());
    }

    #[test]
    fn cpus_that_are_not_there_are_named() {
        let pinned = pinning(&[map(false, &[1, 2], &[1, 7, 9])], 2, &[0, 1]);
        assert_eq!(pinned.cpus, [vec![1], vec![1]]);
        assert_eq!(pinned.warnings.len(), 1);
        assert!(pinned.warnings[0].ends_with(": 7, 9."), "{pinned:?}");
        let none = pinning(&[map(true, &[1, 2], &[0, 8])], 2, &[0, 1]);
        assert_eq!(none.cpus, [vec![0], vec![]]);
        assert_eq!(none.warnings.len(), 2);
        assert!(none.warnings[1].contains("thread 2"), "{none:?}");
    }

    #[test]
    fn a_shard_is_alone_where_no_more_shards_than_cpus_may_run() {
        let alone = |cpus: &[&[usize]], allowed: &[usize]| {
            let cpus = cpus.iter().map(|own| own.to_vec()).collect();
            let warnings = Vec::new();
            Pinning { cpus, warnings }.alone(allowed)
        };
        assert_eq!(alone(&[&[0], &[1]], &[0, 1]), [true, true]);
        assert_eq!(alone(&[&[0], &[0]], &[0, 1]), [false, false]);
        assert_eq!(alone(&[&[0, 1], &[0, 1]], &[0, 1]), [true, true]);
        assert_eq!(alone(&[&[], &[], &[]], &[0, 1]), [false, false, false]);
        assert_eq!(alone(&[&[], &[]], &[0, 1]), [true, true]);
        // The one that may run anywhere may run beside the pinned one.
        assert_eq!(alone(&[&[0], &[]], &[0, 1]), [false, true]);
        assert_eq!(alone(&[&[0]], &[0]), [true]);
    }

    #[test]
    fn an_automatic_map_may_name_more_threads_than_run() {
        let pinned = pinning(&[map(true, &[1, 2, 3, 4], &[0, 1, 2, 3])], 2, &[0, 1]);
        assert_eq!(pinned.cpus, [vec![0], vec![1]]);
        assert_eq!(pinned.warnings, Vec::<String>::new());
    }
}
