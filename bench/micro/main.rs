//! Costs of single steps, by criterion: `cargo bench --bench micro [-- FILTER]`.
//!
//! `pick/ALGORITHM/SERVERS` is one pick and its release; `publish/...` builds the table anew, as
//! the control thread does whenever a server comes, goes or changes its weight.

// Of what `criterion_group!` makes.
#![allow(missing_docs)]

mod balancers;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;

use balancers::{ALGORITHMS, Clients, SERVERS, backend};
use tidegate::lb::{Outcome, Pick};

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

criterion_group! {
    name = benches;
    // The figures are for comparing orders of magnitude and finding regressions of a few per cent.
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = pick, publish
}
criterion_main!(benches);
