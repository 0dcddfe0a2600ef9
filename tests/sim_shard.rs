//! The shipped shard, relay and buffer code over a scripted ring and a virtual clock, by seed
//! (`clockwork::seeds`); the seeds are spread evenly over the receive steps.

mod clockwork;
mod sim;

use std::collections::BTreeMap;

use tidegate::base::receive::ReceiveStep;

#[test]
fn no_byte_is_lost_and_nothing_leaks() {
    let mut total = sim::Summary::default();
    let mut of_step: BTreeMap<&str, sim::Summary> = BTreeMap::new();
    let seeds = clockwork::seeds::run_all(sim::run, |seed, summary| {
        total.add(&summary);
        let step = sim::step(seed).name();
        of_step.entry(step).or_default().add(&summary);
    });
    eprintln!("{total:?}");
    for (step, summary) in &of_step {
        eprintln!("receive step {step}: {summary:?}");
    }
    // A simulation in which nothing happens finds nothing.
    let Some(seeds) = seeds else {
        return;
    };
    assert!(total.complete > seeds, "{total:?}");
    let least = ReceiveStep::ALL.map(|step| of_step.get(step.name()).map_or(0, |own| own.complete));
    assert!(least.iter().all(|own| *own > seeds / 8), "{of_step:?}");
    let spliced = of_step.values().all(|own| own.spliced > own.bytes / 100);
    assert!(spliced, "{of_step:?}");
    let engines = [total.promotions, total.demotions, total.spliced / 1_000];
    assert!(total.adaptive > seeds / 16, "{total:?}");
    let refusals = [total.unpiped, total.unfit].map(|count| 16 * count);
    let least = engines.into_iter().chain(refusals).min();
    assert!(least > Some(seeds), "{total:?}");
    let headers = total.proxied.min(total.refused);
    assert!(headers > seeds / 4, "{total:?}");
    assert!(total.handed_over > seeds / 4, "{total:?}");
    let ports = total.ported.min(4 * total.portless);
    assert!(ports > seeds / 4, "{total:?}");
}
