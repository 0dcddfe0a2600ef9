//! The shipped shard with datagrams over a scripted ring, a virtual network and a virtual clock, by
//! seed (`clockwork::seeds`).

mod clockwork;
mod flows;

#[test]
fn datagrams_reach_whom_they_are_for_and_nothing_leaks() {
    let mut total = flows::Summary::default();
    let seeds = clockwork::seeds::run_all(flows::run, |_, summary| total.add(&summary));
    eprintln!("{total:?}");
    // A simulation in which nothing happens finds nothing.
    let missing = seeds.map(|seeds| total.missing(seeds)).unwrap_or_default();
    assert!(missing.is_empty(), "no {missing:?}");
}
