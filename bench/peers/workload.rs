//! The workloads: what each one is called, which columns it has, what it needs.

use std::fmt::Write;
use std::time::Duration;

use clap::ValueEnum;

use crate::columns;
pub(crate) use crate::columns::{Better, Column};
use crate::load::connects::ClosesFirst;
use crate::measure;
use crate::measure_udp;
use crate::run::Bed;
use crate::sample::{Sample, Void};
use crate::server::datagrams::Ends;
use crate::server::http::Page;
use crate::target::{Kind, Splicing, Target};
use crate::tools::{self, Tool};

/// Source ports of the kernel's default range, and of the range of `crc64full`.
pub(crate) const PORTS: u32 = 28_232;
pub(crate) const NARROW_PORTS: u32 = 14_000;

const KIB: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    Rr1,
    Rr64,
    Rr512,
    Rr4k1,
    Rr4k64,
    Rr4k512,
    Rr64k1,
    Rr64k64,
    Rr64k512,
    Paced,
    Bulk1,
    Bulk8,
    Iperf1,
    Iperf8,
    Mixed,
    Crs64,
    Crc64,
    Crc64full,
    Wrk64,
    Wrk64k,
    Wrkclose,
    Redis50,
    Idle9000,
    Udp1,
    Udp64,
    Udp1000,
    Udp1000x64,
    Udpbulk,
    Udp8k,
    Udpone,
    Udptrain,
    Udpnew,
    Udpidle,
}

/// Names for several workloads at once.
const GROUPS: [(&str, &[Workload]); 7] = [
    (
        "messages",
        &[
            Workload::Rr1,
            Workload::Rr64,
            Workload::Rr512,
            Workload::Rr4k1,
            Workload::Rr4k64,
            Workload::Rr4k512,
            Workload::Rr64k1,
            Workload::Rr64k64,
            Workload::Rr64k512,
            Workload::Paced,
        ],
    ),
    ("bulk", &[Workload::Bulk1, Workload::Bulk8, Workload::Mixed]),
    (
        "connections",
        &[
            Workload::Crs64,
            Workload::Crc64,
            Workload::Crc64full,
            Workload::Wrkclose,
        ],
    ),
    ("iperf", &[Workload::Iperf1, Workload::Iperf8]),
    (
        "wrk",
        &[Workload::Wrk64, Workload::Wrk64k, Workload::Wrkclose],
    ),
    (
        "tools",
        &[
            Workload::Iperf1,
            Workload::Iperf8,
            Workload::Wrk64,
            Workload::Wrk64k,
            Workload::Wrkclose,
            Workload::Redis50,
        ],
    ),
    (
        "udp",
        &[
            Workload::Udp1,
            Workload::Udp64,
            Workload::Udp1000,
            Workload::Udp1000x64,
            Workload::Udpbulk,
            Workload::Udp8k,
            Workload::Udpone,
            Workload::Udptrain,
            Workload::Udpnew,
            Workload::Udpidle,
        ],
    ),
];

/// One of each kind, which fit into a minute; the programs of others measure whole seconds.
pub(crate) const QUICK: [Workload; 13] = [
    Workload::Rr1,
    Workload::Rr64,
    Workload::Rr64k64,
    Workload::Bulk1,
    Workload::Bulk8,
    Workload::Iperf8,
    Workload::Mixed,
    Workload::Crs64,
    Workload::Crc64full,
    Workload::Wrkclose,
    Workload::Redis50,
    Workload::Udp64,
    Workload::Udpone,
];

/// Servers of UDP behind a balancer, and how it has to treat them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagrams {
    pub(crate) ends: Ends,
    pub(crate) servers: usize,
    /// Flows that a balancer must have room for.
    pub(crate) flows: u64,
    /// A flow ends with its first reply.
    pub(crate) one_reply: bool,
}

/// What a word of `--only` stands for.
#[derive(Clone, Debug)]
pub(crate) struct Pick(pub(crate) Vec<Workload>);

impl Pick {
    pub(crate) fn parse(word: &str) -> Result<Pick, String> {
        if let Some((_, workloads)) = GROUPS.iter().find(|(name, _)| *name == word) {
            return Ok(Pick(workloads.to_vec()));
        }
        let one = Workload::from_str(word, false);
        one.map(|workload| Pick(vec![workload])).map_err(|_| {
            let mut names = String::from("workloads:");
            for workload in Workload::value_variants() {
                let _ = write!(names, " {}", workload.name());
            }
            names.push_str("; groups:");
            for (name, _) in GROUPS {
                let _ = write!(names, " {name}");
            }
            names
        })
    }
}

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .expect("no variant is skipped")
            .get_name()
            .to_owned()
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Workload::Rr1 => "64 B request and answer on 1 kept connection",
            Workload::Rr64 => "64 B request and answer on 64 kept connections",
            Workload::Rr512 => "64 B request and answer on 512 kept connections",
            Workload::Rr4k1 => "4 KiB request and answer on 1 kept connection",
            Workload::Rr4k64 => "4 KiB request and answer on 64 kept connections",
            Workload::Rr4k512 => "4 KiB request and answer on 512 kept connections",
            Workload::Rr64k1 => "64 KiB request and answer on 1 kept connection",
            Workload::Rr64k64 => "64 KiB request and answer on 64 kept connections",
            Workload::Rr64k512 => "64 KiB request and answer on 512 kept connections",
            Workload::Paced => "10,612 exchanges of 64 B a second on 64 kept connections",
            Workload::Bulk1 => "1 bulk download",
            Workload::Bulk8 => "8 bulk downloads",
            Workload::Iperf1 => "1 upload of iperf3",
            Workload::Iperf8 => "8 uploads of iperf3",
            Workload::Mixed => {
                "32 connections with 64 B request and answer beside 8 bulk downloads"
            }
            Workload::Crs64 => "connect, 64 B each way, server closes first; 64 at a time",
            Workload::Crc64 => "connect, 64 B each way, client closes first; 64 at a time",
            Workload::Crc64full => "the same with the port range towards the server full",
            Workload::Wrk64 => "HTTP, 64 B answers on 64 kept connections, by wrk",
            Workload::Wrk64k => "HTTP, 64 KiB answers on 64 kept connections, by wrk",
            Workload::Wrkclose => "HTTP, one 64 B answer per connection, 64 at a time, by wrk",
            Workload::Redis50 => "SET, then GET on 50 kept connections, by redis-benchmark",
            Workload::Idle9000 => "9,000 idle connections after one 64 B exchange each",
            Workload::Udp1 => "UDP, 64 B echo, 1 flow",
            Workload::Udp64 => "UDP, 64 B echo, 64 flows",
            Workload::Udp1000 => "UDP, 64 B echo, 1,000 flows",
            Workload::Udp1000x64 => "UDP, 64 B echo, 1,000 flows over 64 servers",
            Workload::Udpbulk => "UDP, 1,200 B echo, 4 flows with 32 in flight each",
            Workload::Udp8k => "UDP, 8,000 B echo, 1 flow with 16 in flight",
            Workload::Udpone => "UDP, 1,200 B one way at full rate, 4 flows",
            Workload::Udptrain => "the same in trains of 16, cut by the sender's kernel",
            Workload::Udpnew => "UDP, a flow for each 64 B echo, ends with the reply; 64 at a time",
            Workload::Udpidle => "UDP, 50,000 idle flows over 16 servers after one 64 B echo each",
        }
    }

    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Workload::Rr1
            | Workload::Rr64
            | Workload::Rr512
            | Workload::Rr4k1
            | Workload::Rr4k64
            | Workload::Rr4k512
            | Workload::Rr64k1
            | Workload::Rr64k64
            | Workload::Rr64k512
            | Workload::Paced
            | Workload::Wrk64
            | Workload::Wrk64k
            | Workload::Wrkclose => &columns::EXCHANGE,
            Workload::Bulk1 | Workload::Bulk8 | Workload::Iperf1 | Workload::Iperf8 => {
                &columns::BULK
            }
            Workload::Mixed => &columns::MIXED,
            Workload::Crs64 | Workload::Crc64 | Workload::Crc64full => &columns::CONNECTS,
            Workload::Redis50 => &columns::REDIS,
            Workload::Idle9000 => &columns::IDLE,
            Workload::Udp1
            | Workload::Udp64
            | Workload::Udp1000
            | Workload::Udp1000x64
            | Workload::Udpbulk
            | Workload::Udp8k => &columns::DATAGRAMS,
            Workload::Udpnew => &columns::FLOWS,
            Workload::Udpone | Workload::Udptrain => &columns::ONE_WAY,
            Workload::Udpidle => &columns::IDLE_FLOWS,
        }
    }

    /// The servers of a workload of UDP.
    pub(crate) fn datagrams(self) -> Option<Datagrams> {
        let plain = Datagrams {
            ends: Ends::Echo,
            servers: 1,
            flows: 10_000,
            one_reply: false,
        };
        let datagrams = match self {
            Workload::Udp1
            | Workload::Udp64
            | Workload::Udp1000
            | Workload::Udpbulk
            | Workload::Udp8k => plain,
            Workload::Udp1000x64 => Datagrams {
                servers: 64,
                ..plain
            },
            Workload::Udpone => Datagrams {
                ends: Ends::Sink,
                ..plain
            },
            Workload::Udptrain => Datagrams {
                ends: Ends::JoiningSink,
                ..plain
            },
            Workload::Udpnew => Datagrams {
                one_reply: true,
                ..plain
            },
            Workload::Udpidle => Datagrams {
                servers: 16,
                flows: measure_udp::IDLE_FLOWS_MAX,
                ..plain
            },
            _ => return None,
        };
        Some(datagrams)
    }

    /// Whether its rows are about memory, and nothing is done while it is measured.
    pub(crate) fn is_idle(self) -> bool {
        matches!(self, Workload::Idle9000 | Workload::Udpidle)
    }

    /// The programs of others that take part, beside the balancer.
    pub(crate) fn tools(self) -> &'static [Tool] {
        match self {
            Workload::Iperf1 | Workload::Iperf8 => &[Tool::Iperf3],
            Workload::Wrk64 | Workload::Wrk64k | Workload::Wrkclose => &[Tool::Wrk],
            Workload::Redis50 => &[Tool::RedisServer, Tool::RedisBenchmark],
            _ => &[],
        }
    }

    /// Whether a target can be measured: without a balancer, nobody's memory grows, and the
    /// realtime end points of `mixed` would leave nothing to the bulk ones. Nothing of UDP is
    /// spliced.
    pub(crate) fn applies_to(self, target: &Target) -> bool {
        if target.kind == Kind::Direct {
            return !self.is_idle() && self != Workload::Mixed;
        }
        let Some(datagrams) = self.datagrams() else {
            return true;
        };
        let can = self.unable(target, datagrams).is_none();
        can && target.splicing == Splicing::Unsaid
    }

    /// What a target lacks for a workload of UDP.
    fn unable(self, target: &Target, datagrams: Datagrams) -> Option<&'static str> {
        match target.kind {
            Kind::Haproxy => Some("has no UDP"),
            Kind::Envoy if datagrams.one_reply => Some("cannot end a flow with a reply"),
            _ => None,
        }
    }

    /// Why a target has no row, where that is for what it lacks.
    pub(crate) fn lacks(self, target: &Target) -> Option<&'static str> {
        self.unable(target, self.datagrams()?)
    }

    /// Whether the namespace is left with a table full of TIME_WAIT entries.
    pub(crate) fn leaves_time_wait(self) -> bool {
        matches!(
            self,
            Workload::Crs64 | Workload::Crc64 | Workload::Crc64full | Workload::Wrkclose
        )
    }

    /// How many source ports the namespace has, where it is not the kernel's default.
    pub(crate) fn source_ports(self) -> Option<u32> {
        (self == Workload::Crc64full).then_some(NARROW_PORTS)
    }

    /// Seconds that a run of this workload may take at most, start and stop included.
    pub(crate) fn time_limit(self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds) + Duration::from_secs(25)
    }

    pub(crate) fn measure(self, bed: &Bed) -> Result<Sample, Void> {
        match self {
            Workload::Rr1 => measure::exchange(bed, 1, 64),
            Workload::Rr64 => measure::exchange(bed, 64, 64),
            Workload::Rr512 => measure::exchange(bed, 512, 64),
            Workload::Rr4k1 => measure::exchange(bed, 1, 4 * KIB),
            Workload::Rr4k64 => measure::exchange(bed, 64, 4 * KIB),
            Workload::Rr4k512 => measure::exchange(bed, 512, 4 * KIB),
            Workload::Rr64k1 => measure::exchange(bed, 1, 64 * KIB),
            Workload::Rr64k64 => measure::exchange(bed, 64, 64 * KIB),
            Workload::Rr64k512 => measure::exchange(bed, 512, 64 * KIB),
            Workload::Paced => measure::paced(bed, 64),
            Workload::Bulk1 => measure::bulk(bed, 1),
            Workload::Bulk8 => measure::bulk(bed, 8),
            Workload::Iperf1 => tools::measure_iperf(bed, 1),
            Workload::Iperf8 => tools::measure_iperf(bed, 8),
            Workload::Mixed => measure::mixed(bed, 32, 8),
            Workload::Crs64 => measure::connects(bed, 64, ClosesFirst::Server, PORTS),
            Workload::Crc64 => measure::connects(bed, 64, ClosesFirst::Client, PORTS),
            Workload::Crc64full => measure::connects(bed, 64, ClosesFirst::Client, NARROW_PORTS),
            Workload::Wrk64 => tools::measure_wrk(bed, 64, Page::Small, false),
            Workload::Wrk64k => tools::measure_wrk(bed, 64, Page::Large, false),
            Workload::Wrkclose => tools::measure_wrk(bed, 64, Page::Small, true),
            Workload::Redis50 => tools::measure_redis(bed, 50),
            Workload::Idle9000 => measure::idle(bed),
            Workload::Udp1 => measure_udp::exchange(bed, 1, 1, 64),
            Workload::Udp64 => measure_udp::exchange(bed, 64, 1, 64),
            Workload::Udp1000 | Workload::Udp1000x64 => measure_udp::exchange(bed, 1_000, 1, 64),
            Workload::Udpbulk => measure_udp::exchange(bed, 4, 32, 1_200),
            Workload::Udp8k => measure_udp::exchange(bed, 1, 16, 8_000),
            Workload::Udpone => measure_udp::one_way(bed, false),
            Workload::Udptrain => measure_udp::one_way(bed, true),
            Workload::Udpnew => measure_udp::new_flows(bed, 64),
            Workload::Udpidle => measure_udp::idle(bed),
        }
    }
}
