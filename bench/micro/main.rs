//! Costs of single steps, by criterion: `cargo bench --bench micro [-- FILTER]`.
//!
//! `pick/ALGORITHM/SERVERS` is one pick and its release; `publish/...` builds the table anew, as
//! the control thread does whenever a server comes, goes or changes its weight. `wheel/STEP/TIMERS`
//! are the timers of a shard, `flow/STEP/FLOWS` the flows of datagrams with their sockets,
//! `key/PROTOCOL` finds the key in a datagram, `config/TEXT` is a configuration from its text to
//! the plan, `scrape/WHAT` an answer that tells of a thousand servers.

// Of what `criterion_group!` makes.
#![allow(missing_docs)]

mod balancers;
mod config;
mod flows;
mod keys;
mod scrapes;
mod timers;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use balancers::{ALGORITHMS, Clients, SERVERS, backend};
use flows::flows;
use keys::keys;
use scrapes::scrapes;
use tidegate::control::resolve::SystemEnvironment;
use tidegate::lb::{Outcome, Pick};
use timers::timers;

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for (name, lines) in ALGORITHMS {
        for servers in SERVERS {
            let backend = backend(lines, servers);
            let mut clients = Clients::new();
            group.bench_function(BenchmarkId::new(name, servers), |bencher| {
                bencher.iter(|| {
                    let Pick::Server(server) = backend.pick(clients.next_request()) else {
                        panic!("every server is usable and unlimited");
                    };
                    black_box(backend.release(&server, Outcome::Completed))
                });
            });
        }
    }
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.sample_size(20);
    for (name, lines) in ALGORITHMS {
        for servers in SERVERS {
            let backend = backend(lines, servers);
            group.bench_function(BenchmarkId::new(name, servers), |bencher| {
                bencher.iter(|| black_box(backend.publish()));
            });
        }
    }
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("config");
    group.sample_size(20);
    let environment = SystemEnvironment::new();
    for (name, text) in config::texts() {
        let load = || tidegate::config::load_text(name, &text, &environment);
        let (plan, diagnostics) = load();
        assert!(plan.is_some(), "{name} does not load: {diagnostics:?}");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(load));
    }
}

criterion_group! {
    name = benches;
    // The figures are for comparing orders of magnitude and finding regressions of a few per cent.
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = pick, publish, keys, timers, flows, parse, scrapes
}
criterion_main!(benches);
