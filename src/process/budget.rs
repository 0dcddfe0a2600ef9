//! How many connections fit: descriptors and shards, computed before anything is opened.
//!
//! Running out of descriptors in operation would hit probes and logs as well as sessions. So the
//! sum is made at start, and a configuration that can't fit is refused with the numbers.

use super::pipes::Wanted;
use crate::config::plan::{Global, LogSink, Plan};
use crate::config::threads::THREADS_MAX;
use crate::control::reload::Short;
use crate::limits;
use crate::sys::cgroup::CgroupLimits;

/// What the process may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Connections of the process.
    pub maxconn: u32,
    /// Pipes of the process.
    pub pipes_max: u32,
    /// Sockets towards servers of datagrams.
    pub flow_sockets_max: u32,
    /// Limit of open descriptors.
    pub descriptors_max: u64,
    /// Descriptors for everything but sessions.
    pub descriptors_fixed: u64,
}

/// Shards to run: as configured, else one for each CPU that may be used and paid for.
pub fn shards(global: &Global, cpus_allowed: usize, cgroup: CgroupLimits) -> u16 {
    let cpus = u16::try_from(cpus_allowed.max(1)).unwrap_or(u16::MAX);
    let paid = cgroup
        .cpus
        .map_or(u16::MAX, |cpus| u16::try_from(cpus).unwrap_or(u16::MAX));
    global
        .nbthread
        .unwrap_or(cpus.min(paid))
        .min(global.thread_hard_limit.unwrap_or(limits::SHARDS_MAX))
        .clamp(1, limits::SHARDS_MAX)
}

/// What the configuration accepts is what can run.
const _: () = assert!(THREADS_MAX == limits::SHARDS_MAX);

/// Descriptors that a number of connections and pipes needs with everything beside them.
pub fn needed(plan: &Plan, shards: u16, maxconn: u32, pipes: u32) -> u64 {
    let fixed: u64 = fixed_items(plan, shards, pipes)
        .iter()
        .map(|item| item.1)
        .sum();
    u64::from(maxconn) * limits::DESCRIPTORS_PER_SESSION + fixed
}

/// Distributes the descriptors, or says why they don't suffice. `maxconn` is the configured one,
/// which pipes that nobody has asked for take nothing of.
pub fn descriptors(
    plan: &Plan,
    shards: u16,
    maxconn: Option<u32>,
    pipes: Wanted,
    descriptors_max: u64,
) -> Result<Budget, String> {
    let items = fixed_items(plan, shards, pipes.configured());
    let fixed: u64 = items.iter().map(|(_, count)| count).sum();
    let room = |limit: u64| limit.saturating_sub(fixed) / limits::DESCRIPTORS_PER_SESSION;
    let Some(wanted) = maxconn else {
        let most = plan.global.process.descriptors_max;
        let most = most.unwrap_or(limits::DESCRIPTORS_DEFAULT_MAX);
        let limit = descriptors_max.min(most);
        if room(limit) == 0 {
            return Err(format!(
                "The limit of {descriptors_max} open descriptors leaves none for sessions: {fixed} \
                 are needed beside them ({}). Raise it (ulimit -n, LimitNOFILE=).",
                explained(&items).trim_start_matches(" + ")
            ));
        }
        // A quarter of what sessions and flows have together.
        let more = more_flow_sockets(plan, room(limit) * limits::DESCRIPTORS_PER_SESSION / 4);
        let room = room(limit - u64::from(more));
        let maxconn = computed(room, pipes);
        let spare = (room - u64::from(maxconn)) * limits::DESCRIPTORS_PER_SESSION;
        return Ok(Budget {
            maxconn,
            pipes_max: pipes.number(maxconn, spare / limits::DESCRIPTORS_PER_PIPE),
            flow_sockets_max: flow_sockets_min(plan) + more,
            descriptors_max,
            descriptors_fixed: fixed + u64::from(more),
        });
    };
    let spare = fits(plan, shards, wanted, pipes.configured(), descriptors_max);
    let spare = spare.map_err(|short| short.text)?;
    let more = more_flow_sockets(plan, spare / 2);
    let spare = spare - u64::from(more);
    Ok(Budget {
        maxconn: wanted,
        pipes_max: pipes.number(wanted, spare / limits::DESCRIPTORS_PER_PIPE),
        flow_sockets_max: flow_sockets_min(plan) + more,
        descriptors_max,
        descriptors_fixed: fixed + u64::from(more),
    })
}

/// Descriptors that a number of connections and pipes leaves beside what the plan needs, or how
/// many connections there are enough for, and why.
pub fn fits(
    plan: &Plan,
    shards: u16,
    maxconn: u32,
    pipes: u32,
    descriptors_max: u64,
) -> Result<u64, Short> {
    let items = fixed_items(plan, shards, pipes);
    let fixed: u64 = items.iter().map(|(_, count)| count).sum();
    let needed = needed(plan, shards, maxconn, pipes);
    descriptors_max.checked_sub(needed).ok_or_else(|| {
        let room = descriptors_max.saturating_sub(fixed) / limits::DESCRIPTORS_PER_SESSION;
        let text = format!(
            "maxconn {maxconn} needs {needed} open descriptors and the limit is \
             {descriptors_max}: {} x {maxconn} for sessions{}. Raise the limit (ulimit -n \
             {needed}, LimitNOFILE={needed}) or lower maxconn to {room} at most.",
            limits::DESCRIPTORS_PER_SESSION,
            explained(&items),
        );
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        Short { room, text }
    })
}

/// What descriptors are for, as a sum.
fn explained(items: &[(&str, u64)]) -> String {
    let items = items.iter().filter(|(_, count)| *count > 0);
    let texts = items.map(|(name, count)| format!(" + {count} {name}"));
    texts.collect()
}

/// Connections that share `room` pairs of descriptors with their pipes.
fn computed(room: u64, pipes: Wanted) -> u32 {
    let connections = match pipes {
        Wanted::None | Wanted::Configured(_) => room,
        // Four and their pipe of each five, unless there are to be fewer pipes.
        Wanted::Computed { most } => (room - room / 5).max(room.saturating_sub(u64::from(most))),
    };
    u32::try_from(connections).unwrap_or(u32::MAX)
}

/// Sockets towards servers of datagrams that are counted on: those that are asked for.
fn flow_sockets_min(plan: &Plan) -> u32 {
    match plan.global.udp_sockets_max {
        _ if !plan.has_datagrams() => 0,
        Some(asked) => asked,
        None => limits::FLOW_SOCKETS_MIN,
    }
}

/// How many more may be made of `descriptors` that are left, where nobody says.
fn more_flow_sockets(plan: &Plan, descriptors: u64) -> u32 {
    if !plan.has_datagrams() || plan.global.udp_sockets_max.is_some() {
        return 0;
    }
    let most = limits::FLOW_SOCKETS_COMPUTED_MAX - limits::FLOW_SOCKETS_MIN;
    u32::try_from(descriptors).unwrap_or(most).min(most)
}

fn fixed_items(plan: &Plan, shards: u16, pipes: u32) -> [(&'static str, u64); 11] {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    // The registry's own descriptor of each socket, and one for each shard that accepts from it.
    let listening = plan.listeners.iter().map(|listener| {
        let (threads, sockets) = listener.spread(shards, &plan.global);
        u64::from(sockets) + u64::from(threads.len())
    });
    let shards = u64::from(shards);
    let servers = plan.proxies.iter().filter_map(|proxy| proxy.back.as_ref());
    let probes = servers.flat_map(|back| &back.servers).map(|server| {
        let probes = [
            server.check.is_some(),
            server.watch.agent.is_some(),
            server.passive.breaker.is_some(),
        ];
        count(probes.into_iter().filter(|wanted| *wanted).count())
    });
    let targets = plan
        .proxies
        .iter()
        .flat_map(|proxy| &proxy.logs)
        .chain(&plan.global.logs);
    let mut sinks: Vec<&LogSink> = Vec::new();
    for target in targets {
        if !sinks.contains(&&target.sink) {
            sinks.push(&target.sink);
        }
    }
    let fronts = plan.proxies.iter().filter_map(|proxy| proxy.front.as_ref());
    let pages = fronts.filter(|front| front.pages.is_some());
    let page_clients = pages.map(|front| u64::from(front.maxconn));
    let of_pages = page_clients.fold(0, |sum, clients| {
        sum.max(limits::DESCRIPTORS_OF_PAGES) + clients
    });
    let api = plan.global.stats_sockets.len();
    let api_clients = if api == 0 {
        0
    } else {
        // At the bound each socket has one that waits.
        u64::from(plan.global.stats_maxconn) + api as u64
    };
    [
        ("for listening sockets", listening.sum()),
        ("for flows of datagrams", flow_sockets_min(plan).into()),
        ("for pipes", u64::from(pipes) * limits::DESCRIPTORS_PER_PIPE),
        ("for probes in flight", probes.sum()),
        ("for log targets", count(sinks.len()) + 1),
        ("for runtime sockets", count(api)),
        ("for their clients", api_clients * count(api).max(1)),
        ("for metrics and statistics", of_pages),
        ("for shards", shards * limits::DESCRIPTORS_PER_SHARD),
        (
            "for threads and standard streams",
            limits::DESCRIPTORS_OF_THREADS + limits::DESCRIPTORS_STANDARD,
        ),
        ("in reserve", limits::DESCRIPTORS_RESERVE),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::address::Address;
    use crate::base::ids::{ListenerId, ProxyId};
    use crate::config::plan::{Endpoint, Listener, Sockets};
    use crate::config::threads::ThreadSet;
    use std::sync::Arc;

    fn plan() -> Plan {
        let listener = Listener {
            listener_id: ListenerId(0),
            proxy_id: ProxyId(0),
            endpoint: Endpoint::Address(Address::Ip("127.0.0.1:80".parse().unwrap())),
            socket_id: 1,
            name: String::new(),
            has_stats: false,
            threads: ThreadSet::ALL,
            sockets: Sockets::ByThread,
            interface: None,
            transparent: false,
            fast_open: false,
            mss: 0,
            congestion: None,
            delayed_ack: false,
            nice: 0,
            backlog: 0,
            maxconn: 0,
            accept_proxy: false,
            defer_accept: false,
            v6only: None,
            tcp_user_timeout_ms: 0,
            unix_mode: None,
            unix_uid: None,
            unix_gid: None,
            place: "a.cfg:1".to_owned(),
        };
        Plan {
            listeners: vec![Arc::new(listener)],
            ..Plan::default()
        }
    }

    /// The same for datagrams.
    pub(in crate::process) fn datagrams() -> Plan {
        let mut plan = plan();
        let listener = Arc::make_mut(&mut plan.listeners[0]);
        listener.endpoint = Endpoint::Datagram("127.0.0.1:53".parse().unwrap());
        plan
    }

    #[test]
    fn a_computed_maxconn_uses_what_is_left() {
        // 2 shards: 4 for the listener, 8 for rings, 1 for standard error, 14 + 64 in general.
        let fixed = 4 + 8 + 1 + 14 + 64;
        let budget = descriptors(&plan(), 2, None, Wanted::None, 20_000).unwrap();
        assert_eq!(budget.descriptors_fixed, fixed);
        assert_eq!(u64::from(budget.maxconn), (20_000 - fixed) / 2);
        let large = descriptors(&plan(), 2, None, Wanted::None, 1 << 30).unwrap();
        assert!(large.maxconn < 1 << 19);
        assert!(descriptors(&plan(), 2, None, Wanted::None, 60).is_err());
    }

    #[test]
    fn a_configured_maxconn_that_does_not_fit_is_refused_with_the_numbers() {
        assert_eq!(
            descriptors(&plan(), 2, Some(9_954), Wanted::None, 20_000)
                .unwrap()
                .maxconn,
            9_954
        );
        let error = descriptors(&plan(), 2, Some(9_955), Wanted::None, 20_000).unwrap_err();
        for number in [
            "9955",
            "20001",
            "20000",
            "9954 at most",
            "4 for listening sockets",
        ] {
            assert!(error.contains(number), "{number} is not in: {error}");
        }
    }

    #[test]
    fn pipes_take_nothing_of_a_configured_maxconn() {
        let with = |maxconn, pipes| {
            let budget = descriptors(&plan(), 2, maxconn, pipes, 20_000);
            budget.map(|budget| (budget.maxconn, budget.pipes_max))
        };
        // 19,909 are left, 9,954 pairs.
        let any = Wanted::Computed { most: u32::MAX };
        assert_eq!(with(Some(9_000), any), Ok((9_000, 954)));
        assert_eq!(with(Some(9_954), any), Ok((9_954, 0)));
        assert_eq!(with(Some(100), any), Ok((100, 25)));
        assert_eq!(with(None, any), Ok((7_964, 1_990)));
        assert_eq!(with(None, Wanted::Computed { most: 32 }), Ok((9_922, 32)));
        // Those that are asked for are counted on.
        assert_eq!(with(None, Wanted::Configured(954)), Ok((9_000, 954)));
        assert_eq!(with(Some(9_000), Wanted::Configured(954)), Ok((9_000, 954)));
        let error = with(Some(9_000), Wanted::Configured(955)).unwrap_err();
        assert!(
            error.contains("1910 for pipes") && error.contains("8999 at most"),
            "{error}"
        );
        assert!(with(None, Wanted::Configured(9_999)).is_err());
    }

    #[test]
    fn flows_of_datagrams_have_their_sockets() {
        let with = |sockets: Option<u32>, maxconn| {
            let mut plan = datagrams();
            plan.global.udp_sockets_max = sockets;
            let budget = descriptors(&plan, 2, maxconn, Wanted::None, 20_000);
            budget.map(|budget| (budget.maxconn, budget.flow_sockets_max))
        };
        // 19,909 are left: 64 in any case, and a quarter of the rest.
        let rest = 19_909 - 64;
        let more = rest / 2 * 2 / 4;
        assert_eq!(with(None, None), Ok(((rest - more) / 2, 64 + more)));
        // Of what sessions leave the half.
        assert_eq!(
            with(None, Some(9_000)),
            Ok((9_000, 64 + (rest - 18_000) / 2))
        );
        assert_eq!(with(Some(1_909), Some(9_000)), Ok((9_000, 1_909)));
        let error = with(Some(1_910), Some(9_000)).unwrap_err();
        assert!(error.contains("1910 for flows of datagrams"), "{error}");
        // Streams alone leave them nothing, and lose nothing.
        let budget = descriptors(&plan(), 2, Some(9_000), Wanted::None, 20_000);
        assert_eq!(budget.unwrap().flow_sockets_max, 0);
    }

    #[test]
    fn shards_follow_the_tighter_of_machine_and_cgroup() {
        let cgroup = CgroupLimits {
            cpus: Some(2),
            memory_bytes: Some(1 << 30),
        };
        let count = |nbthread: Option<u16>, limit: Option<u16>| Global {
            nbthread,
            thread_hard_limit: limit,
            ..Global::default()
        };
        assert_eq!(shards(&count(None, None), 8, cgroup), 2);
        assert_eq!(shards(&count(None, None), 1, cgroup), 1);
        assert_eq!(shards(&count(Some(4), None), 1, cgroup), 4);
        assert_eq!(shards(&count(Some(4), Some(3)), 1, cgroup), 3);
        assert_eq!(shards(&count(None, None), 0, CgroupLimits::default()), 1);
    }
}
