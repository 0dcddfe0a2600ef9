//! The timer wheel as a shard uses it: one timer for each session, most of them moved on or
//! disarmed long before they are due.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

use tidegate::base::time::Moment;
use tidegate::base::wheel::Wheel;

/// Timers that are armed at once.
const TIMERS: [u32; 2] = [10_000, 100_000];

/// Idle timeouts are around a minute; each session was last active at another moment.
const TIMEOUT_MS: u64 = 60_000;

/// Keys that one `expire` may pop.
const POPS_MAX: usize = 64;

/// When the timer of a key is due after its session was active at `now`.
fn deadline(now: Moment, key: u32) -> Moment {
    // Spread over half of the timeout, in an order that is not that of the keys.
    let spread = u64::from(key.wrapping_mul(0x9e37_79b1)) % (TIMEOUT_MS / 2);
    now.after_ms(TIMEOUT_MS / 2 + spread)
}

/// A wheel in which every key below `timers` is armed.
fn armed(timers: u32) -> Wheel {
    let mut wheel = Wheel::new(Moment(0));
    for key in 0..timers {
        wheel.arm(key, deadline(Moment(0), key));
    }
    wheel
}

/// `arm` moves a timer on, `cancel` disarms one and arms it again, `expire` pops all (the figure is
/// for one timer, with the way down the levels that it makes until then).
pub(crate) fn timers(criterion: &mut Criterion) {
    for timers in TIMERS {
        let mut group = criterion.benchmark_group("wheel");
        let mut wheel = armed(timers);
        let mut key = 0;
        let mut next_key = move || {
            key = (key + 7919) % timers;
            key
        };
        let mut step = 0;
        group.bench_function(BenchmarkId::new("arm", timers), |bencher| {
            bencher.iter(|| {
                let key = next_key();
                // Another tick than the last time (a prime), or there would be nothing to move.
                step = (step + 1) % 19_997;
                wheel.arm(key, deadline(Moment(0).after_ms(step), key));
            });
        });
        group.bench_function(BenchmarkId::new("cancel", timers), |bencher| {
            bencher.iter(|| {
                let key = next_key();
                wheel.disarm(black_box(key));
                wheel.arm(key, deadline(Moment(0), key));
            });
        });
        group.throughput(Throughput::Elements(u64::from(timers)));
        group.sample_size(20);
        group.bench_function(BenchmarkId::new("expire", timers), |bencher| {
            bencher.iter_batched_ref(|| armed(timers), expire_all, BatchSize::LargeInput);
        });
        group.finish();
    }
}

/// Lets time pass until no timer is left, from one deadline to the next as a shard does.
fn expire_all(wheel: &mut Wheel) -> u64 {
    let mut keys = Vec::with_capacity(POPS_MAX);
    let mut popped = 0;
    while let Some(moment) = wheel.next_deadline() {
        wheel.expire(moment, &mut keys, POPS_MAX);
        popped += keys.len() as u64;
        keys.clear();
    }
    popped
}
