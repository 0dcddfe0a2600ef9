//! The shipped shard with datagrams over a scripted ring, a virtual network and a virtual clock, by
//! seed.
//!
//! `TIDEGATE_SIM_SEEDS=100000` runs more seeds than the usual ones, `TIDEGATE_SIM_SEED=123` repeats
//! one with everything that happens.

mod flows;

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

#[test]
fn datagrams_reach_whom_they_are_for_and_nothing_leaks() {
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        assert!(flows::run(seed, true).is_some(), "seed {seed} fails");
        return;
    }
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let mut total = flows::Summary::default();
    let mut failed = Vec::new();
    for seed in 0..seeds {
        match flows::run(seed, false) {
            Some(summary) => total.add(&summary),
            None => failed.push(seed),
        }
        if failed.len() == FAILURES_MAX {
            break;
        }
    }
    eprintln!("{seeds} seeds: {total:?}");
    assert!(failed.is_empty(), "seeds {failed:?} fail");
    // A simulation in which nothing happens finds nothing.
    let missing = total.missing(seeds);
    assert!(seeds < SEEDS || missing.is_empty(), "no {missing:?}");
}
