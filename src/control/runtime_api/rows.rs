//! The rows of `show stat`: what the counters, limits and states of a frontend, its listeners, a
//! server and a backend are in HAProxy's columns.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::condition::{check_columns, server_status, since_change_s};
use super::table::{Object, Row};
use crate::base::address::Address;
use crate::base::limits::LimitKey;
use crate::config::plan::{Endpoint, Level, Proxy};
use crate::control::Shared;
use crate::control::stats::{Subject, backend_active};
use crate::lb::{Backend, Server, ServerCounter};
use crate::shard::{FrontCounter, FrontState, Frontend, ListenerCounter, Listening, World};
use crate::sys::clock;

pub(in crate::control) fn frontend_row(shared: &Shared, front: &Frontend) -> Row {
    let world = &shared.world();
    let sum = |counter: FrontCounter| front.counters.sum(counter as usize);
    let id = front.proxy.proxy_id;
    let mut row = Row::new(&front.proxy, "FRONTEND", Object::Frontend, 0);
    let limits = &world.limits;
    let own = limits.find(LimitKey::Frontend(id)).unwrap_or(front.limit);
    let (current, max) = (limits.current(own), limits.max(own));
    let bound = if max == u32::MAX {
        limits.max(if front.proxy.is_udp() {
            world.flows_limit
        } else {
            world.process_limit
        })
    } else {
        max
    };
    let rate = shared.rates.of(Subject::Frontend(id));
    row.set("scur", current);
    row.set("smax", limits.peak(own));
    row.set("slim", bound);
    row.set("stot", sum(FrontCounter::Sessions));
    row.set("bin", sum(FrontCounter::BytesIn));
    row.set("bout", sum(FrontCounter::BytesOut));
    for column in [
        "dreq",
        "dresp",
        "dcon",
        "dses",
        "req_rate",
        "req_rate_max",
        "req_tot",
        "comp_in",
        "comp_out",
        "comp_byp",
        "comp_rsp",
        "wrew",
    ] {
        row.set(column, 0);
    }
    let planned = front.proxy.front.as_ref();
    row.set("rate_lim", planned.map_or(0, |front| front.session_rate));
    row.set("ereq", sum(FrontCounter::RequestErrors));
    row.set("eint", sum(FrontCounter::ResourceErrors));
    let status = match front.state() {
        FrontState::Shut => "STOP",
        _ if shared.is_stopping() || front.is_removed => "STOP",
        FrontState::Paused => "PAUSED",
        FrontState::Open if current >= bound => "FULL",
        FrontState::Open => "OPEN",
    };
    row.set("status", status);
    row.set("rate", rate.current);
    row.set("rate_max", rate.max);
    row.set("conn_rate", rate.current);
    row.set("conn_rate_max", rate.max);
    row.set("conn_tot", sum(FrontCounter::Connections));
    let datagrams = [FrontCounter::DatagramsIn, FrontCounter::DatagramsOut];
    datagram_columns(&mut row, &front.proxy, datagrams.map(sum));
    row
}

/// The listeners of a frontend that have statistics of their own, in the order of the file.
pub(in crate::control) fn listeners<'w>(
    world: &'w World,
    front: &Frontend,
) -> impl Iterator<Item = &'w Listening> {
    let id = front.proxy.proxy_id;
    let planned = world.plan.listeners.iter();
    let own = planned.filter(move |plan| plan.proxy_id == id);
    let own = own.filter_map(|plan| world.listeners.get(usize::from(plan.listener_id.0)));
    own.flatten().filter(|one| one.counters.is_some())
}

pub(in crate::control) fn listener_row(
    shared: &Shared,
    front: &Frontend,
    listening: &Listening,
    level: Level,
) -> Row {
    let world = &shared.world();
    let plan = &listening.plan;
    let sum = |counter: ListenerCounter| {
        let counters = listening.counters.as_ref();
        counters.map_or(0, |counters| counters.sum(counter as usize))
    };
    let name = match plan.name.as_str() {
        "" => format!("sock-{}", plan.socket_id),
        name => name.to_owned(),
    };
    let mut row = Row::new(&front.proxy, &name, Object::Listener, plan.socket_id);
    let limit = world.limits.find(LimitKey::Listener(plan.listener_id));
    let (current, peak) = limit.map_or((0, 0), |id| {
        (world.limits.current(id), world.limits.peak(id))
    });
    row.set("scur", current);
    row.set("smax", peak);
    row.set("slim", plan.maxconn);
    row.set("stot", sum(ListenerCounter::Connections));
    row.set("bin", sum(ListenerCounter::BytesIn));
    row.set("bout", sum(ListenerCounter::BytesOut));
    row.set("ereq", sum(ListenerCounter::RequestErrors));
    row.set("eint", sum(ListenerCounter::ResourceErrors));
    for column in ["dreq", "dresp", "dcon", "dses", "wrew"] {
        row.set(column, 0);
    }
    let above = match front.proxy.is_udp() {
        true => world.flows_limit,
        false => world.process_limit,
    };
    let waits = [front.limit, above].map(|id| world.limits.free(id) == 0);
    let status = match plan.maxconn {
        maxconn if maxconn > 0 && current >= maxconn => "FULL",
        _ if waits.contains(&true) => "WAITING",
        _ => "OPEN",
    };
    row.set("status", status);
    if level >= Level::Operator {
        row.set("addr", address(&plan.endpoint));
    }
    if let Some(protocol) = protocol(&plan.endpoint) {
        row.set("proto", protocol);
    }
    let datagrams = [ListenerCounter::DatagramsIn, ListenerCounter::DatagramsOut];
    datagram_columns(&mut row, &front.proxy, datagrams.map(sum));
    row
}

/// Unix sockets are not told apart, as HAProxy has it.
fn address(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Address(Address::Ip(address)) | Endpoint::Datagram(address) => {
            address.to_string()
        }
        Endpoint::Address(_) => "unix".to_owned(),
        Endpoint::Descriptor(_) => endpoint.to_string(),
    }
}

/// HAProxy's names of protocols; that of a socket that was inherited is not known.
fn protocol(endpoint: &Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::Address(Address::Ip(address)) if address.is_ipv4() => Some("tcpv4"),
        Endpoint::Address(Address::Ip(_)) => Some("tcpv6"),
        Endpoint::Address(_) => Some("unix_stream"),
        Endpoint::Datagram(address) if address.is_ipv4() => Some("udp4"),
        Endpoint::Datagram(_) => Some("udp6"),
        Endpoint::Descriptor(_) => None,
    }
}

/// Of proxies that have datagrams.
fn datagram_columns(row: &mut Row, proxy: &Proxy, [to_servers, to_clients]: [u64; 2]) {
    if proxy.is_udp() {
        row.set("udp_datagrams_in", to_servers);
        row.set("udp_datagrams_out", to_clients);
    }
}

pub(in crate::control) fn server_row(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    level: Level,
) -> Row {
    let sum = |counter: ServerCounter| server.counters.sum(counter as usize);
    let mut row = Row::new(
        &backend.proxy,
        &server.plan.name,
        Object::Server,
        server.plan.sid,
    );
    let sessions = sum(ServerCounter::Sessions);
    let rate = shared.rates.of(Subject::Server(server.id));
    row.set("qcur", backend.queued_for(server.id));
    row.set("qmax", 0);
    row.set("scur", server.active());
    row.set("smax", server.active_peak());
    if server.maxconn() != u32::MAX {
        row.set("slim", server.maxconn());
    }
    row.set("stot", sessions);
    row.set("bin", sum(ServerCounter::BytesIn));
    row.set("bout", sum(ServerCounter::BytesOut));
    row.set("dresp", 0);
    row.set("econ", sum(ServerCounter::ConnectErrors));
    row.set("eresp", sum(ServerCounter::ResponseErrors));
    row.set("wretr", sum(ServerCounter::Retries));
    row.set("wredis", sum(ServerCounter::Redispatches));
    row.set("status", server_status(shared, server));
    row.set("weight", backend.present_weight(server));
    row.set("uweight", server.weight());
    if let Some(percent) = backend.throttle(server) {
        row.set("throttle", percent);
    }
    row.set("act", u8::from(!server.plan.backup));
    row.set("bck", u8::from(server.plan.backup));
    if server.plan.maxqueue > 0 {
        row.set("qlimit", server.plan.maxqueue);
    }
    row.set("lbtot", sum(ServerCounter::Chosen));
    row.set("rate", rate.current);
    row.set("rate_max", rate.max);
    row.set("cli_abrt", sum(ServerCounter::ClientAborts));
    row.set("srv_abrt", sum(ServerCounter::ServerAborts));
    row.set(
        "lastsess",
        seconds_since(server.last_session_ms.load(Relaxed)),
    );
    row.set("connect", sum(ServerCounter::Connects));
    for column in [
        "reuse",
        "eint",
        "wrew",
        "srv_icur",
        "idle_conn_cur",
        "safe_conn_cur",
        "need_conn_est",
        "rtime_max",
    ] {
        row.set(column, 0);
    }
    row.set("used_conn_cur", server.active());
    times(
        &mut row,
        sessions,
        sum(ServerCounter::QueueTimeUs),
        sum(ServerCounter::ConnectTimeUs),
        sum(ServerCounter::SessionTimeMs),
    );
    let max = |counter: ServerCounter| server.counters.max(counter as usize);
    row.set("qtime_max", max(ServerCounter::QueueTimeMaxUs) / 1000);
    row.set("ctime_max", max(ServerCounter::ConnectTimeMaxUs) / 1000);
    row.set("ttime_max", max(ServerCounter::SessionTimeMaxMs));
    if level >= Level::Operator {
        row.set("addr", server.plan.address.to_string());
    }
    check_columns(&mut row, shared, server);
    let datagrams = [ServerCounter::DatagramsIn, ServerCounter::DatagramsOut];
    datagram_columns(&mut row, &backend.proxy, datagrams.map(sum));
    row
}

pub(in crate::control) fn backend_row(shared: &Shared, backend: &Backend, level: Level) -> Row {
    let world = &shared.world();
    let id = backend.proxy.proxy_id;
    let counters = &world.back_counters[usize::from(id.0)];
    let sum = |counter: FrontCounter| counters.sum(counter as usize);
    let mut row = Row::new(&backend.proxy, "BACKEND", Object::Backend, 0);
    let sessions = sum(FrontCounter::Sessions);
    let rate = shared.rates.of(Subject::Backend(id));
    row.set("qcur", backend.queued());
    row.set("qmax", backend.queued_peak());
    row.set("scur", backend_active(world, id));
    row.set("smax", shared.rates.backend_peak(world, id));
    row.set("slim", backend.fullconn());
    row.set("stot", sessions);
    row.set("bin", sum(FrontCounter::BytesIn));
    row.set("bout", sum(FrontCounter::BytesOut));
    for column in [
        "dreq",
        "dresp",
        "reuse",
        "comp_in",
        "comp_out",
        "comp_byp",
        "comp_rsp",
        "wrew",
        "rtime_max",
    ] {
        row.set(column, 0);
    }
    row.set("econ", sum(FrontCounter::ConnectErrors));
    row.set("eresp", sum(FrontCounter::ResponseErrors));
    row.set("wretr", sum(FrontCounter::Retries));
    row.set("wredis", sum(FrontCounter::Redispatches));
    let usable = backend.usable_servers();
    // A backend that was never given a server is up, as HAProxy has it.
    let up = !usable.is_none() || backend.servers.is_empty();
    row.set("status", if up { "UP" } else { "DOWN" });
    row.set("weight", backend.usable_weight());
    row.set("uweight", backend.usable_user_weight());
    row.set("act", usable.active);
    row.set("bck", usable.backup);
    let availability = backend.availability();
    let since_s = since_change_s(shared, availability.changed_at_s);
    let down_now_s = if availability.is_down { since_s } else { 0 };
    row.set("chkdown", availability.downs);
    row.set("lastchg", since_s);
    if !backend.servers.is_empty() {
        row.set("downtime", availability.downtime_s + down_now_s);
    }
    row.set("lbtot", servers_sum(backend, ServerCounter::Chosen));
    row.set("rate", rate.current);
    row.set("rate_max", rate.max);
    row.set("cli_abrt", sum(FrontCounter::ClientAborts));
    row.set("srv_abrt", sum(FrontCounter::ServerAborts));
    let last = backend
        .servers
        .iter()
        .map(|server| server.last_session_ms.load(Relaxed))
        .max();
    row.set("lastsess", seconds_since(last.unwrap_or(0)));
    row.set("connect", servers_sum(backend, ServerCounter::Connects));
    row.set("eint", sum(FrontCounter::ResourceErrors));
    times(
        &mut row,
        sessions,
        sum(FrontCounter::QueueTimeUs),
        sum(FrontCounter::ConnectTimeUs),
        sum(FrontCounter::SessionTimeMs),
    );
    row.set(
        "qtime_max",
        servers_max(backend, ServerCounter::QueueTimeMaxUs) / 1000,
    );
    row.set(
        "ctime_max",
        servers_max(backend, ServerCounter::ConnectTimeMaxUs) / 1000,
    );
    row.set(
        "ttime_max",
        servers_max(backend, ServerCounter::SessionTimeMaxMs),
    );
    if level >= Level::Operator {
        row.set("algo", backend.algorithm());
    }
    let datagrams = [FrontCounter::DatagramsIn, FrontCounter::DatagramsOut];
    datagram_columns(&mut row, &backend.proxy, datagrams.map(sum));
    row
}

fn servers_sum(backend: &Backend, counter: ServerCounter) -> u64 {
    backend
        .servers
        .iter()
        .map(|server| server.counters.sum(counter as usize))
        .sum()
}

fn servers_max(backend: &Backend, counter: ServerCounter) -> u64 {
    let servers = backend.servers.iter();
    let each = servers.map(|server| server.counters.max(counter as usize));
    each.max().unwrap_or(0)
}

/// Averages over all sessions, in milliseconds.
fn times(row: &mut Row, sessions: u64, queue_us: u64, connect_us: u64, session_ms: u64) {
    let average = |sum: u64| sum.checked_div(sessions).unwrap_or(0);
    row.set("qtime", average(queue_us) / 1000);
    row.set("ctime", average(connect_us) / 1000);
    row.set("rtime", 0);
    row.set("ttime", average(session_ms));
}

/// Whole seconds since a Unix time in milliseconds, -1 = never.
fn seconds_since(unix_ms: u64) -> i64 {
    if unix_ms == 0 {
        return -1;
    }
    i64::try_from(clock::unix_ms().saturating_sub(unix_ms) / 1000).unwrap_or(i64::MAX)
}
