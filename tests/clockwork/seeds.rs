//! Which seeds are run: `TIDEGATE_SIM_SEEDS=100000` runs more than the usual ones,
//! `TIDEGATE_SIM_SEED=123` repeats one with everything that happens.

/// Seeds of an ordinary run.
const SEEDS: u64 = 256;
/// Failures after which a run ends.
const FAILURES_MAX: usize = 20;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

/// Runs the seeds, and fails if one does. `run` takes a seed and whether all that happens is to be
/// printed, and gives what the run was, `None` for one that failed; `add` gets those. Says how many
/// there were, where they are enough to say what has to happen in so many.
pub(crate) fn run_all<S>(
    run: impl Fn(u64, bool) -> Option<S>,
    mut add: impl FnMut(u64, S),
) -> Option<u64> {
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        assert!(run(seed, true).is_some(), "seed {seed} fails");
        return None;
    }
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in 0..seeds {
        match run(seed, false) {
            Some(summary) => add(seed, summary),
            None => failed.push(seed),
        }
        if failed.len() == FAILURES_MAX {
            break;
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} fail");
    (seeds >= SEEDS).then_some(seeds)
}
