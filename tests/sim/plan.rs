//! What a seed stands for: a configuration, a network, buffer rings, peers and what happens to the
//! shards.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use crate::clockwork::{self, plan_of};
use tidegate::base::receive::ReceiveStep;
use tidegate::config::plan::Plan;
use tidegate::ring::BufferLayout;
use tidegate::ring::scripted::{Random, Scripted, Settings};

/// A simulation to be run.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) text: String,
    pub(crate) plan: Plan,
    pub(crate) settings: Settings,
    pub(crate) step: ReceiveStep,
    pub(crate) layouts: [BufferLayout; 2],
    pub(crate) entries_max: usize,
    pub(crate) shards: u16,
    pub(crate) maxconn: u32,
    pub(crate) memory_max: u64,
    pub(crate) pipes_max: u32,
    pub(crate) listeners: Vec<SocketAddr>,
    /// Who has to send a PROXY header, by listener.
    pub(crate) proxied: Vec<Proxied>,
    pub(crate) clients: u32,
    /// Clients come within this time.
    pub(crate) arrivals_us: u64,
    pub(crate) bytes_max: u64,
    /// Connects may fail: clients may be refused.
    pub(crate) connects_fail: bool,
    /// Timeouts are short: sessions may end by them.
    pub(crate) times_out: bool,
    /// Servers are taken out of service and back, and their sessions ended, at these times.
    pub(crate) admin_us: Vec<u64>,
    /// When the shards are told to drain or to stop.
    pub(crate) drain_us: Option<u64>,
    pub(crate) stop_us: Option<u64>,
}

impl Scenario {
    /// The scenario of a seed, on a receive step. `busy` = much is sent at once, shards have no
    /// time left, and nobody asks for splicing.
    pub(crate) fn new(random: &mut Random, step: ReceiveStep, busy: bool) -> Scenario {
        let connects_fail = random.chance(350);
        let times_out = random.chance(150);
        let shards = random.pick(&[1, 1, 1, 1, 1, 2, 2, 3]);
        let maxconn = random.pick(&[2, 4, 8, 40, 40, 5_000]);
        let returns = random.chance(200);
        let (text, listeners, proxied) =
            configuration(random, maxconn, connects_fail, times_out, returns, !busy);
        let layouts = match busy {
            true => Scripted::layouts(step, 8),
            false => rings(random, step),
        };
        let entries_max = random.pick(&[8, 8, 64, 2048]);
        let floor = u64::from(maxconn) * 16 * 1024;
        let memory_max = floor + random.pick(&[0, 256 << 10, 2 << 20, 64 << 20]);
        let mut admin_us: Vec<u64> = Vec::new();
        if returns || random.chance(200) {
            admin_us.extend((0..random.between(1, 12)).map(|_| random.below(5_000_000)));
        }
        let mut settings = network(random, connects_fail);
        // A header that can't leave whole is a failed attempt, and so is one that a server's
        // reset has overtaken.
        let sends_fail = settings.send_short > 0 || settings.connect_immediate > 0;
        let connects_fail = connects_fail || (sends_fail && text.contains("send-proxy"));
        let mut bytes_max = random.pick(&[2_000, 60_000, 300_000, 1_000_000]);
        if busy {
            settings.queue = [60_000, 200_000];
            settings.load_max = 1_000;
            settings.pipe_refused = 0;
            bytes_max = 3_000_000;
        }
        let ending = random.below(10);
        let ends_us = random.below(3_000_000);
        Scenario {
            settings,
            plan: plan_of(&text),
            text,
            step,
            layouts,
            entries_max,
            shards,
            maxconn,
            memory_max,
            pipes_max: random.pick(&[0, 1, 2, 5, 1_000, 1_000]),
            listeners,
            proxied,
            clients: u32::try_from(random.between(1, 24)).expect("few"),
            arrivals_us: random.pick(&[0, 100_000, 2_000_000]),
            bytes_max,
            connects_fail,
            times_out,
            admin_us,
            drain_us: (ending == 0).then_some(ends_us),
            stop_us: (ending == 1).then_some(ends_us),
        }
    }

    /// Whether a client has to send a PROXY header to a listener.
    pub(crate) fn expects_header(&self, client: SocketAddr, listener: SocketAddr) -> bool {
        let place = self.listeners.iter().position(|known| *known == listener);
        match self.proxied[place.expect("a listener")] {
            Proxied::Nobody => false,
            Proxied::Everybody => true,
            Proxied::Some => match client.ip() {
                IpAddr::V4(ip) => ip.octets()[3] < 8,
                IpAddr::V6(_) => false,
            },
        }
    }

    /// Whether every session goes its whole way unless a peer breaks it off.
    pub(crate) fn strict(&self) -> bool {
        !self.times_out && self.stop_us.is_none()
    }
}

/// A timeout that nothing should run into.
pub(crate) const LONG_MS: i64 = 600_000;

/// Who has to send a PROXY header.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proxied {
    Nobody,
    Everybody,
    /// Clients whose address ends in less than 8.
    Some,
}

fn configuration(
    random: &mut Random,
    maxconn: u32,
    connects_fail: bool,
    times_out: bool,
    returns: bool,
    splices: bool,
) -> (String, Vec<SocketAddr>, Vec<Proxied>) {
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("a string takes all");
    line(format!("global\n maxconn {maxconn}\n log stdout local0"));
    if random.chance(300) {
        line(format!(" tune.maxaccept {}", random.between(1, 3)));
    }
    if random.chance(300) {
        let how = random.pick(&["fair", "fair", "off"]);
        line(format!(" tune.listener.multi-queue {how}"));
    }
    if random.chance(150) {
        line(format!(" maxconnrate {}", random.between(1, 40)));
    }
    line(format!(
        " tune.pipesize {}",
        random.pick(&["4k", "64k", "1m"])
    ));
    // Where connects may fail, so few that they don't suffice.
    let ports = if connects_fail {
        "50000-50001"
    } else {
        "50000-50999"
    };
    if random.chance(300) {
        let when = random.pick(&["always", "always", "auto"]);
        line(format!(" tune.source-ports {when} {ports}"));
    }
    let long = format!("{LONG_MS}ms");
    let long = long.as_str();
    let time = |random: &mut Random| {
        if times_out {
            random.pick(&["20ms", "300ms", "2s", "10s"])
        } else {
            long
        }
    };
    line("defaults\n log global\n option tcplog".to_owned());
    let connect = if connects_fail || times_out {
        random.pick(&["50ms", "500ms", "3s"])
    } else {
        long
    };
    line(format!(" timeout connect {connect}"));
    for what in ["client", "client-hs", "server", "queue"] {
        let time = time(random);
        line(format!(" timeout {what} {time}"));
    }
    if times_out && random.chance(500) {
        let time = time(random);
        line(format!(
            " timeout client-fin {time}\n timeout server-fin {time}"
        ));
    }
    line(format!(" retries {}", random.below(4)));
    if random.chance(500) {
        line(format!(
            " option redispatch {}",
            random.pick(&["", "1", "2", "-1"])
        ));
    }
    let mut listeners = Vec::new();
    let mut proxied = Vec::new();
    for proxy in 0..random.between(1, 3) {
        line(format!("listen l{proxy}"));
        if random.chance(300) {
            line(format!(" maxconn {}", random.between(1, 6)));
        }
        let port = 8_000 + u16::try_from(proxy).expect("few");
        let bound = if random.chance(200) {
            format!(" maxconn {}", random.between(1, 4))
        } else {
            String::new()
        };
        if random.chance(150) {
            line(format!(" rate-limit sessions {}", random.between(1, 40)));
        }
        let nice = random.pick(&[0, 0, -1024, 1024]);
        let who = match random.below(8) {
            0 | 1 => Proxied::Everybody,
            2 => Proxied::Some,
            _ => Proxied::Nobody,
        };
        let accept = match who {
            Proxied::Everybody => " accept-proxy",
            Proxied::Some | Proxied::Nobody => "",
        };
        if let Proxied::Some = who {
            let rule = "tcp-request connection expect-proxy layer4 if { src 192.168.0.0/29 }";
            line(format!(" {rule}"));
        }
        proxied.push(who);
        line(format!(" bind 127.0.0.1:{port}{bound} nice {nice}{accept}"));
        listeners.push(SocketAddr::from(([127, 0, 0, 1], port)));
        let balance = random.pick(&[
            "roundrobin",
            "leastconn",
            "peak-ewma",
            "random",
            "first",
            "source",
        ]);
        line(format!(" balance {balance}"));
        if random.chance(500) {
            line(" hash-type consistent".to_owned());
        }
        let bounded = random.chance(400);
        // Some servers are backups, perhaps all.
        let backups = if random.chance(300) {
            random.pick(&[300, 700, 1000])
        } else {
            0
        };
        if random.chance(500) {
            line(" option allbackups".to_owned());
        }
        let ramps = bounded && random.chance(400);
        if ramps {
            line(format!(" fullconn {}", random.between(1, 12)));
        }
        for splice in ["splice-auto", "splice-request", "splice-response"] {
            if splices && random.chance(300) {
                line(format!(" option {splice}"));
            }
        }
        let announced = random.pick(&[0, 0, 500, 1000]);
        for server in 0..random.between(1, 4) {
            let mut words = format!(" server s{server} 10.0.{proxy}.{server}:80");
            if bounded {
                let most = random.between(1, 3);
                write!(words, " maxconn {most}").expect("a string takes all");
                if ramps && most > 1 {
                    words += " minconn 1";
                }
                if random.chance(300) {
                    words += " maxqueue 1";
                }
            }
            if random.chance(announced) {
                words += random.pick(&[
                    " send-proxy",
                    " send-proxy-v2",
                    " send-proxy-v2 proxy-v2-options crc32c",
                    " send-proxy-v2 proxy-v2-options crc32c,unique-id",
                ]);
            }
            if random.chance(backups) {
                words += " backup";
            }
            if random.chance(200) {
                words += " source 10.9.9.9";
                if random.chance(500) {
                    write!(words, ":{ports}").expect("a string takes all");
                }
            }
            if returns {
                words += &slow_start(random);
            }
            line(words);
        }
    }
    (text, listeners, proxied)
}

/// How a server returns that was out of service: bit by bit, and few sessions at a time.
fn slow_start(random: &mut Random) -> String {
    let time = random.pick(&["300ms", "3s", "20s"]);
    let mut words = format!(" slowstart {time}");
    if random.chance(800) {
        let rate = random.pick(&[1, 2, 15, 200]);
        write!(words, " slowstart-connrate {rate}").expect("a string takes all");
    }
    if random.chance(300) {
        words += " slowstart-steps 10,25,50,75,100";
    }
    words
}

fn rings(random: &mut Random, step: ReceiveStep) -> [BufferLayout; 2] {
    let mut layouts = Scripted::layouts(step, random.pick(&[2, 8]));
    if random.chance(400) {
        for layout in &mut layouts {
            layout.count = 2;
            layout.size = 4 << 10;
        }
    }
    layouts
}

fn network(random: &mut Random, connects_fail: bool) -> Settings {
    let mut odds = |often, most| clockwork::odds(random, often, most);
    let [send_short, late, overflow] = [odds(500, 100), odds(700, 400), odds(400, 60)];
    let [spurious, accept_error, connect_immediate] =
        [odds(400, 30), odds(300, 100), odds(300, 1000)];
    let [connect_refused, connect_never, connect_error] =
        [odds(700, 600), odds(500, 500), odds(500, 200)];
    let pipe_refused = odds(200, 500);
    // Seldom all that a shard tries for one connection.
    let port_taken = odds(500, if connects_fail { 950 } else { 300 });
    let if_fails = |odds: u32| if connects_fail { odds } else { 0 };
    let low = random.pick(&[200, 4_000, 60_000]);
    let high = low * random.pick(&[1, 4, 40]);
    let tight = connects_fail && random.chance(200);
    Settings {
        latency_max_us: random.pick(&[0, 20, 300, 20_000]),
        queue: [low, high],
        descriptors_max: if tight { 12 } else { 1 << 16 },
        backlog: random.pick(&[1, 4, 4096]),
        connect_immediate,
        connect_refused: if_fails(connect_refused),
        connect_never: if_fails(connect_never),
        connect_error: if_fails(connect_error),
        port_taken,
        accept_error,
        send_short,
        late,
        overflow,
        spurious,
        cancel_max_us: random.pick(&[0, 0, 50, 5_000]),
        pipe_refused,
        splice_unfit: random.chance(150),
        load_max: random.pick(&[300, 1_000, 1_000]),
    }
}
