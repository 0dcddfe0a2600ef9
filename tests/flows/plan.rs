//! What a seed stands for: a configuration, a network, clients, servers and what happens to them.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::clockwork::{self, plan_of};
use tidegate::config::plan::Plan;
use tidegate::ring::scripted::{DatagramSettings, Random, Settings};

/// Longest time that a server takes for an answer, microseconds. With what the network takes it
/// stays below the second that a pair rests.
pub(crate) const ANSWER_MAX_US: u64 = 300_000;

/// A frontend and its backend.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    /// Where its listeners are bound.
    pub(crate) binds: Vec<SocketAddr>,
    pub(crate) servers: Vec<SocketAddr>,
    /// It, or a listener of it, may have so many flows.
    pub(crate) limited: bool,
    /// How long a server may speak first.
    pub(crate) mapping_ms: Option<u64>,
}

/// A simulation to be run.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) text: String,
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    pub(crate) datagrams: DatagramSettings,
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) shards: u16,
    pub(crate) entries_max: usize,
    pub(crate) inbox_buffers: u16,
    /// Nothing goes wrong, and there is room for everybody: not a datagram is dropped.
    pub(crate) clean: bool,
    /// There are always sockets: a pair rests before it is another client's.
    pub(crate) rests: bool,
    pub(crate) clients: u32,
    /// Clients that send once, and of whom nobody hears again.
    pub(crate) forged: u32,
    /// Clients come within this time.
    pub(crate) arrivals_us: u64,
    pub(crate) lengths: Vec<usize>,
    /// Empty datagrams, per thousand.
    pub(crate) empty: u32,
    /// Servers are taken out of service and back, and their flows ended, at these times.
    pub(crate) admin_us: Vec<u64>,
    /// Servers end, and come back, at these times.
    pub(crate) ends_us: Vec<u64>,
    /// When the shards are told to drain or to stop.
    pub(crate) drain_us: Option<u64>,
    pub(crate) stop_us: Option<u64>,
    /// A successor has the listeners.
    pub(crate) handed_over: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn new(random: &mut Random, clean: bool) -> Scenario {
        let shards = random.pick(&[1, 1, 1, 2, 3]);
        let tight = !clean && random.chance(300);
        let rests = !tight;
        let sockets = if tight {
            u64::from(shards) * random.between(1, 6)
        } else {
            3_000
        };
        let (text, proxies) = configuration(random, clean, sockets);
        let mut datagrams = network(random, clean);
        if tight {
            datagrams.open_refused = random.pick(&[0, 0, 300]);
        }
        let mut times = |often: u32, most: u64| -> Vec<u64> {
            let some = !clean && random.chance(often);
            let count = if some { random.between(1, most) } else { 0 };
            let until_us = random.pick(&[2_000_000, 8_000_000]);
            (0..count).map(|_| random.below(until_us)).collect()
        };
        let (admin_us, ends_us) = (times(500, 12), times(300, 4));
        let ending = if clean { 9 } else { random.below(10) };
        let ending_us = random.below(20_000_000);
        let settings = streams(random, clean);
        let sizes = random.between(1, 3);
        let lengths = (0..sizes).map(|_| length(random)).collect();
        Scenario {
            datagrams,
            plan: plan_of(&text),
            text,
            proxies,
            shards,
            entries_max: random.pick(&[8, 64, 2048]),
            inbox_buffers: if clean {
                128
            } else {
                random.pick(&[2, 4, 128])
            },
            clean,
            // A socket that can't be had is another reason to take a pair too early.
            rests: rests && settings.descriptors_max > 1_000,
            settings,
            clients: u32::try_from(random.between(1, 12)).expect("few"),
            forged: match random.chance(250) && !clean {
                true => u32::try_from(random.below(30)).expect("few"),
                false => 0,
            },
            arrivals_us: random.pick(&[0, 100_000, 5_000_000]),
            lengths,
            empty: random.pick(&[0, 50, 300]),
            admin_us,
            ends_us,
            drain_us: (ending == 0).then_some(ending_us),
            stop_us: (ending == 1).then_some(ending_us),
            handed_over: random.chance(300),
        }
    }

    /// Whether a listener leads to a server.
    pub(crate) fn leads_to(&self, proxy: usize, server: SocketAddr) -> bool {
        self.proxies[proxy].servers.contains(&server)
    }
}

fn length(random: &mut Random) -> usize {
    match random.below(8) {
        0 => 8,
        1 => 1_472,
        2 => 2_000,
        3 => random.place(20_000) + 8,
        _ => random.place(1_400) + 8,
    }
}

fn configuration(random: &mut Random, clean: bool, sockets: u64) -> (String, Vec<Proxy>) {
    let mut text = String::new();
    let flows_max = match !clean && random.chance(250) {
        true => random.between(1, 8),
        false => 2_000,
    };
    text += "global\n log stdout local0\n";
    text += &format!(" tune.udp.sockets {}\n", sockets);
    text += &format!(" tune.udp.maxflows {flows_max}\n");
    if !clean && random.chance(100) {
        text += &format!(" maxconnrate {}\n", random.between(1, 20));
    }
    text += "defaults\n mode udp\n log global\n option udplog\n";
    // Some backends have their servers in common.
    let common = random.chance(300);
    let proxies = (0..random.between(1, 3)).map(|number| {
        let servers_of = if common { 0 } else { number };
        proxy(random, &mut text, clean, number, servers_of)
    });
    let proxies = proxies.collect();
    (text, proxies)
}

fn proxy(
    random: &mut Random,
    text: &mut String,
    clean: bool,
    number: u64,
    servers_of: u64,
) -> Proxy {
    let begin = text.len();
    writeln!(text, "listen l{number}").expect("a string takes all");
    let mut line = |words: String| writeln!(text, " {words}").expect("a string takes all");
    let port = 7_000 + 10 * u16::try_from(number).expect("few");
    let binds: Vec<SocketAddr> = match random.below(4) {
        0 => vec![SocketAddr::from(([0, 0, 0, 0], port))],
        1 => vec![SocketAddr::from(([0; 16], port))],
        2 => vec![
            SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::from(([127, 0, 0, 2], port + 1)),
        ],
        _ => vec![SocketAddr::from(([127, 0, 0, 1], port))],
    };
    for bind in &binds {
        let both = if bind.is_ipv6() { " v4v6" } else { "" };
        let most = match !clean && random.chance(150) {
            true => format!(" maxconn {}", random.between(1, 4)),
            false => String::new(),
        };
        line(format!("bind {bind}{both}{most}"));
    }
    for what in ["client", "server"] {
        let times = ["60s", "20s", "20s", "5s", "300ms"];
        let time = if clean { "60s" } else { random.pick(&times) };
        line(format!("timeout {what} {time}"));
    }
    if !clean {
        let time = random.pick(&["10s", "2s", "500ms"]);
        line(format!("timeout udp-unconfirmed {time}"));
        let mut rule = |often: u32, name: &str, least: u64, most: u64| {
            if random.chance(often) {
                line(format!("{name} {}", random.between(least, most)));
            }
        };
        rule(150, "maxconn", 1, 6);
        rule(250, "udp-requests", 1, 4);
        rule(250, "udp-responses", 0, 3);
        rule(250, "udp-source-flows", 1, 3);
        rule(100, "rate-limit sessions", 1, 20);
    }
    line(format!("balance {}", random.pick(&BALANCE)));
    if !clean && random.chance(300) {
        line("udp-fragment off".to_owned());
    }
    if random.chance(250) {
        line("udp-sockets dedicated".to_owned());
    }
    let mapping_ms = random
        .chance(400)
        .then(|| random.pick(&[2_000, 5_000, 30_000]));
    if let Some(ms) = mapping_ms {
        line(format!(
            "option udp-bidirectional\n timeout udp-mapping {ms}ms"
        ));
    }
    let mut servers = Vec::new();
    for server in 0..random.pick(&[1, 2, 3, 3]) {
        let address = match server {
            2 => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 9, 1], 53)),
            _ => SocketAddr::from(([10, 9, servers_of.to_le_bytes()[0], server], 53)),
        };
        let most = match !clean && random.chance(150) {
            true => format!(" maxconn {}", random.between(1, 4)),
            false => String::new(),
        };
        line(format!("server s{server} {address}{most}"));
        servers.push(address);
    }
    let mut lines = text[begin..].lines().map(str::trim);
    let limited = lines.any(|line| !line.starts_with("server") && line.contains("maxconn"));
    Proxy {
        binds,
        servers,
        limited,
        mapping_ms,
    }
}

const BALANCE: [&str; 6] = [
    "roundrobin",
    "leastconn",
    "random",
    "first",
    "source",
    "hash src+port",
];

fn network(random: &mut Random, clean: bool) -> DatagramSettings {
    let mut odds = |often, most| match clean {
        true => 0,
        false => clockwork::odds(random, often, most),
    };
    let mut settings = DatagramSettings {
        lost: odds(400, 200),
        doubled: odds(400, 200),
        overtaken: odds(400, 300),
        full: odds(400, 200),
        unreachable: odds(300, 300),
        truncated: odds(200, 50),
        ..DatagramSettings::default()
    };
    settings.segments_refused = match random.below(4) {
        0 => 200,
        1 => 1_000,
        _ => 0,
    };
    settings.refusals_told = random.pick(&[0, 500, 1_000]);
    settings.joined = random.pick(&[0, 500, 1_000]);
    if !clean {
        settings.path_max = random.pick(&[usize::MAX, 1_000]);
    }
    settings.queue_max = if clean {
        1_024
    } else {
        random.pick(&[2, 20, 1_024])
    };
    settings
}

/// What all operations of the ring meet.
fn streams(random: &mut Random, clean: bool) -> Settings {
    let mut odds = |often, most| clockwork::odds(random, often, most);
    let (late, overflow) = (odds(700, 400), odds(400, 60));
    let tight = !clean && random.chance(100);
    Settings {
        latency_max_us: random.pick(&[0, 20, 300, 20_000]),
        queue: [4_000, 64_000],
        descriptors_max: if tight { 24 } else { 1 << 16 },
        backlog: 1,
        connect_immediate: 0,
        connect_refused: 0,
        connect_never: 0,
        connect_error: 0,
        port_taken: 0,
        accept_error: 0,
        send_short: 0,
        late,
        overflow,
        spurious: 0,
        cancel_max_us: random.pick(&[0, 0, 50, 5_000]),
        pipe_refused: 0,
        splice_unfit: false,
        load_max: random.pick(&[300, 1_000]),
    }
}
