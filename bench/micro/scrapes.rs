//! What it costs to tell of a thousand servers: the table of the runtime socket, the metrics.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tidegate::config::plan::{Level, Plan};
use tidegate::control::pages::offline::Offline;
use tidegate::control::resolve::SystemEnvironment;
use tidegate::control::runtime_api::Rehearsal;
use tidegate::sys::clock;

use crate::config;

/// What a client of the runtime socket asks.
const COMMANDS: [(&str, &str); 4] = [
    ("show-stat", "show stat\n"),
    ("show-stat-typed", "show stat typed\n"),
    ("show-stat-json", "show stat json\n"),
    ("show-servers-state", "show servers state\n"),
];

/// What a client of the metrics asks.
const REQUESTS: [(&str, &str); 2] = [
    ("metrics", "GET /metrics HTTP/1.0\r\n\r\n"),
    (
        "openmetrics",
        "GET /metrics HTTP/1.0\r\nAccept: application/openmetrics-text\r\n\r\n",
    ),
];

/// A frontend of pages before the file with a thousand servers.
fn plan() -> Plan {
    let text = format!(
        "frontend pages\n mode http\n bind :9999\n timeout client 1s\n \
         http-request use-service prometheus-exporter\n{}",
        config::generated()
    );
    let (plan, said) = tidegate::config::load_text("1000", text, &SystemEnvironment::new());
    plan.unwrap_or_else(|| panic!("{said:?}"))
}

/// `scrape/WHAT`: a whole answer, as its client gets it.
pub(crate) fn scrapes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scrape");
    group.sample_size(10);
    for (name, command) in COMMANDS {
        let rehearsal = Rehearsal::new(plan()).expect("a runtime socket");
        let answer = async || rehearsal.answer(Level::Admin, command.as_bytes()).await;
        let length = tokio_uring::start(answer()).len();
        assert!(length > 50_000, "{name}: {length}");
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                tokio_uring::start(async {
                    let began = clock::now();
                    for _ in 0..times {
                        black_box(answer().await);
                    }
                    std::time::Duration::from_micros(clock::now().us_since(began))
                })
            });
        });
    }
    for (name, request) in REQUESTS {
        let offline = Offline::new(plan()).expect("a frontend of pages");
        let length = offline.converse(request.as_bytes()).len();
        assert!(length > 1_000_000, "{name}: {length}");
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(offline.converse(request.as_bytes())));
        });
    }
}
