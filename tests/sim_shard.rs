//! The shipped shard, relay and buffer code over a scripted ring and a virtual clock, by seed; the
//! seeds are spread evenly over the receive steps.
//!
//! `TIDEGATE_SIM_SEEDS=100000` runs more seeds than the usual ones, `TIDEGATE_SIM_SEED=123` repeats
//! one with everything that happens.

mod sim;

use std::collections::BTreeMap;

use tidegate::base::receive::ReceiveStep;

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
fn no_byte_is_lost_and_nothing_leaks() {
    if let Some(seed) = number("TIDEGATE_SIM_SEED") {
        assert!(sim::run(seed, true).is_some(), "seed {seed} fails");
        return;
    }
    let seeds = number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS);
    let mut total = sim::Summary::default();
    let mut of_step: BTreeMap<&str, sim::Summary> = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in 0..seeds {
        match sim::run(seed, false) {
            Some(summary) => {
                total.add(&summary);
                let step = sim::step(seed).name();
                of_step.entry(step).or_default().add(&summary);
            }
            None => failed.push(seed),
        }
        if failed.len() == FAILURES_MAX {
            break;
        }
    }
    eprintln!("{seeds} seeds: {total:?}");
    for (step, summary) in &of_step {
        eprintln!("receive step {step}: {summary:?}");
    }
    assert!(failed.is_empty(), "seeds {failed:?} fail");
    // A simulation in which nothing happens finds nothing.
    assert!(seeds < SEEDS || total.complete > seeds, "{total:?}");
    let least = ReceiveStep::ALL.map(|step| of_step.get(step.name()).map_or(0, |own| own.complete));
    assert!(
        seeds < SEEDS || least.iter().all(|own| *own > seeds / 8),
        "{of_step:?}"
    );
    let spliced = of_step.values().all(|own| own.spliced > own.bytes / 100);
    assert!(seeds < SEEDS || spliced, "{of_step:?}");
    let engines = [total.promotions, total.demotions, total.spliced / 1_000];
    assert!(seeds < SEEDS || total.adaptive > seeds / 16, "{total:?}");
    let refusals = [total.unpiped, total.unfit].map(|count| 16 * count);
    let least = engines.into_iter().chain(refusals).min();
    assert!(seeds < SEEDS || least > Some(seeds), "{total:?}");
    let headers = total.proxied.min(total.refused);
    assert!(seeds < SEEDS || headers > seeds / 4, "{total:?}");
    assert!(seeds < SEEDS || total.handed_over > seeds / 4, "{total:?}");
    let ports = total.ported.min(4 * total.portless);
    assert!(seeds < SEEDS || ports > seeds / 4, "{total:?}");
}
