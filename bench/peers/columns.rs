//! The columns of the tables.

/// Which way a figure is better, for the ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Shown without ratios.
    Neither,
}

/// A column of a workload's table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) metric: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) better: Better,
    pub(crate) decimals: usize,
}

const fn column(
    metric: &'static str,
    heading: &'static str,
    better: Better,
    decimals: usize,
) -> Column {
    Column {
        metric,
        heading,
        better,
        decimals,
    }
}

/// Resident memory of the balancer at the end of the measured time.
const RESIDENT: Column = column("balancer_rss_mb", "RSS MB", Better::Neither, 1);

pub(crate) const EXCHANGE: [Column; 7] = [
    column("per_second", "req/s", Better::Higher, 0),
    column("cpu_us", "CPU us/req", Better::Lower, 2),
    column("host_us", "host us/req", Better::Neither, 2),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("p99_us", "p99 us", Better::Neither, 0),
    column("p999_us", "p99.9 us", Better::Neither, 0),
    RESIDENT,
];

pub(crate) const BULK: [Column; 6] = [
    column("gbit_per_second", "Gbit/s", Better::Higher, 2),
    column("cpu_s_per_gb", "CPU s/GB", Better::Lower, 3),
    column("host_s_per_gb", "host s/GB", Better::Neither, 3),
    column("share_min", "share min", Better::Neither, 3),
    column("share_max", "max", Better::Neither, 3),
    RESIDENT,
];

pub(crate) const MIXED: [Column; 8] = [
    column("p99_us", "p99 us", Better::Lower, 0),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("p999_us", "p99.9 us", Better::Neither, 0),
    column("per_second", "req/s", Better::Higher, 0),
    column("gbit_per_second", "Gbit/s", Better::Higher, 2),
    column("share_min", "share min", Better::Neither, 3),
    column("share_max", "max", Better::Neither, 3),
    RESIDENT,
];

pub(crate) const CONNECTS: [Column; 7] = [
    column("per_second", "conn/s", Better::Higher, 0),
    column("cpu_us", "CPU us/conn", Better::Lower, 2),
    column("host_us", "host us/conn", Better::Neither, 2),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("p99_us", "p99 us", Better::Neither, 0),
    column("p999_us", "p99.9 us", Better::Neither, 0),
    RESIDENT,
];

pub(crate) const IDLE: [Column; 4] = [
    column("rss_kb_per_connection", "RSS kB/conn", Better::Lower, 2),
    column("rss_before_mb", "before MB", Better::Neither, 1),
    column("rss_after_mb", "after MB", Better::Neither, 1),
    column("descriptors", "descriptors", Better::Neither, 0),
];

/// Answers that did not come, or datagrams that did not arrive, of a hundred.
const LOSS: Column = column("loss_percent", "loss %", Better::Neither, 3);

pub(crate) const DATAGRAMS: [Column; 8] = [
    column("per_second", "req/s", Better::Higher, 0),
    column("cpu_us", "CPU us/req", Better::Lower, 2),
    column("host_us", "host us/req", Better::Neither, 2),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("p99_us", "p99 us", Better::Neither, 0),
    column("p999_us", "p99.9 us", Better::Neither, 0),
    LOSS,
    RESIDENT,
];

pub(crate) const FLOWS: [Column; 8] = [
    column("per_second", "flows/s", Better::Higher, 0),
    column("cpu_us", "CPU us/flow", Better::Lower, 2),
    column("host_us", "host us/flow", Better::Neither, 2),
    column("p50_us", "p50 us", Better::Neither, 0),
    column("p99_us", "p99 us", Better::Neither, 0),
    column("p999_us", "p99.9 us", Better::Neither, 0),
    LOSS,
    RESIDENT,
];

/// What arrived, and what that cost.
pub(crate) const ONE_WAY: [Column; 6] = [
    column("per_second", "arrived/s", Better::Higher, 0),
    column("cpu_us", "CPU us/dgram", Better::Lower, 2),
    column("host_us", "host us/dgram", Better::Neither, 2),
    column("sent_per_second", "sent/s", Better::Neither, 0),
    LOSS,
    RESIDENT,
];

pub(crate) const IDLE_FLOWS: [Column; 6] = [
    column("bytes_per_flow", "B/flow", Better::Lower, 0),
    column("rss_bytes_per_flow", "RSS B/flow", Better::Neither, 0),
    column("slab_bytes_per_flow", "slab B/flow", Better::Neither, 0),
    column("flows", "flows", Better::Neither, 0),
    column("rss_after_mb", "after MB", Better::Neither, 1),
    column("descriptors", "descriptors", Better::Neither, 0),
];

/// The two tests of redis-benchmark; CPU is per request of either.
pub(crate) const REDIS: [Column; 9] = [
    column("set_per_second", "SET/s", Better::Higher, 0),
    column("get_per_second", "GET/s", Better::Higher, 0),
    column("cpu_us", "CPU us/req", Better::Lower, 2),
    column("host_us", "host us/req", Better::Neither, 2),
    column("set_p50_us", "SET p50 us", Better::Neither, 0),
    column("set_p99_us", "p99", Better::Neither, 0),
    column("get_p50_us", "GET p50 us", Better::Neither, 0),
    column("get_p99_us", "p99", Better::Neither, 0),
    RESIDENT,
];
