//! The shipped shard, relay and buffer code over a scripted ring and a virtual clock, by seed.
//!
//! `TIDEGATE_SIM_SEEDS=100000` runs more seeds than the usual ones, `TIDEGATE_SIM_SEED=123` repeats one with
//! everything that happens.

mod sim;

/// Seeds of an ordinary run.
const SEEDS: u64 = 256;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
    )
}

#[test]
fn no_byte_is_lost_and_nothing_leaks() {
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        eprintln!("{:?}", sim::run(seed, true));
        return;
    }
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let mut total = sim::Summary::default();
    for seed in 0..seeds {
        let summary = sim::run(seed, false);
        total.turns += summary.turns;
        total.bytes += summary.bytes;
        total.sessions += summary.sessions;
        total.complete += summary.complete;
    }
    eprintln!("{seeds} seeds: {total:?}");
    assert!(seeds < SEEDS || total.complete > seeds, "{total:?}");
}
