//! Flows of datagrams as a shard has them: found for each datagram, opened and closed with a pair
//! of the pool, and ended by time.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

use tidegate::base::time::Moment;
use tidegate::flow::udp::{
    EXPIRED_PER_TURN, FlowKey, FlowTable, Opening, Pool, PoolLimits, Reason, Rest, Rules, Take,
};

/// Flows there are.
const FLOWS: u32 = 100_000;
/// Servers they are spread over, and so how many share a socket.
const SERVERS: u32 = 16;

const RULES: Rules = Rules {
    idle_ms: 60_000,
    unconfirmed_ms: 10_000,
    requests_max: None,
    responses_max: None,
};

/// Clients in an order that is not that of their flows.
fn client(number: u32) -> FlowKey {
    let ip = std::net::Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b1));
    FlowKey::new(0, (ip, 6881).into(), None, None)
}

/// A table and a pool, and how a flow begins and ends with both.
struct Flows {
    table: FlowTable<u64>,
    pool: Pool,
}

impl Flows {
    fn new() -> Flows {
        let mut pool = Pool::new(0, PoolLimits::of(u16::MAX));
        for server in 0..SERVERS {
            let address = ([192, 0, 2, server as u8], 6881).into();
            assert!(pool.add_upstream(server, address, Moment(0)));
        }
        Flows {
            table: FlowTable::new(2 * FLOWS, Moment(0)),
            pool,
        }
    }

    /// With so many flows, begun within ten seconds.
    fn with(flows: u32) -> Flows {
        let mut all = Flows::new();
        for number in 0..flows {
            let spread_ms = u64::from(number.wrapping_mul(0x85eb_ca6b)) % 10_000;
            all.open(number, Moment(0).after_ms(spread_ms));
        }
        all
    }

    fn open(&mut self, number: u32, now: Moment) {
        self.pool.begin_turn();
        let (key, upstream) = (client(number), number % SERVERS);
        let flow = self.table.vacant().expect("there is room");
        let pair = loop {
            match self.pool.take(upstream, &key, flow, now, true) {
                Take::Pair(pair) => break pair,
                Take::Grow => assert!(self.pool.add_socket(now).is_some()),
                Take::Refused(why) => panic!("{why:?}"),
            }
        };
        let opening = Opening {
            upstream,
            pair: Some(pair),
            rules: RULES,
        };
        let opened = self.table.open(key, opening, 0, now);
        assert!(opened.is_ok());
    }

    fn close(&mut self, number: u32, now: Moment) {
        let flow = self.table.find(&client(number)).expect("it is open");
        let closed = self
            .table
            .close(flow, Reason::Responses)
            .expect("it is open");
        let pair = closed.flow.pair().expect("it has a pair");
        self.pool.release(pair, Rest::Quarantine, now);
    }

    /// Lets time pass until no flow is left.
    fn expire(&mut self) -> usize {
        let mut ended = Vec::with_capacity(EXPIRED_PER_TURN);
        let mut count = 0;
        while let Some(now) = self.table.next_deadline() {
            self.table.expire(now, &mut ended);
            count += ended.len();
            for (flow, reason) in ended.drain(..) {
                let closed = self.table.close(flow, reason).expect("it is open");
                let pair = closed.flow.pair().expect("it has a pair");
                self.pool.release(pair, Rest::Quarantine, now);
            }
        }
        count
    }
}

/// `find` is the look-up and the note of a datagram, `open-close` a flow's whole life but the
/// datagrams, `expire` the end of one of all that end by time.
pub(crate) fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow");
    let mut all = Flows::with(FLOWS);
    let now = Moment(0).after_ms(10_000);
    let mut number = 0;
    group.bench_function(BenchmarkId::new("find", FLOWS), |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % FLOWS;
            let flow = all.table.find(&client(number)).expect("it is open");
            black_box(all.table.on_request(flow, 1, 64, now))
        });
    });
    let mut now = now;
    group.bench_function(BenchmarkId::new("open-close", FLOWS), |bencher| {
        bencher.iter(|| {
            number = (number + 7919) % FLOWS;
            // So that the pairs of a second are enough.
            now = now.after_ms(1);
            all.close(number, now);
            all.open(number, now);
        });
    });
    group.throughput(Throughput::Elements(FLOWS.into()));
    group.sample_size(10);
    group.bench_function(BenchmarkId::new("expire", FLOWS), |bencher| {
        let made = || Flows::with(FLOWS);
        bencher.iter_batched_ref(made, Flows::expire, BatchSize::LargeInput);
    });
    group.finish();
}
