//! `show servers state`, `show servers conn`, `show backend`: servers one per line, in HAProxy's
//! columns. The first is also the format of the file that servers' state is read from at a start.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use super::command::{Answer, Call, Command, Run};
use super::condition::since_change_s;
use super::subject::is_called;
use crate::base::address::Address;
use crate::config::plan::{Level, Target};
use crate::control::Shared;
use crate::control::apply::report_of;
use crate::lb::{Admin, Backend, Health, Server};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "backend"], level: Level::User, usage: "show backend",
        help: "list the backends", run: Run::Now(show_backend) },
    Command { words: &["show", "servers", "conn"], level: Level::User,
        usage: "show servers conn [<backend>]",
        help: "list the servers with their connections", run: Run::Now(show_conn) },
    Command { words: &["show", "servers", "state"], level: Level::User,
        usage: "show servers state [<backend>]",
        help: "list the servers with their state, as a start can read it",
        run: Run::Now(show_state) },
];

/// Version of the format, and its columns.
const STATE_HEADER: &str = "\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state \
srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl \
srv_check_port srv_check_addr srv_agent_addr srv_agent_port
";

/// HAProxy's bits of `srv_check_state` and `srv_agent_state`.
const CONFIGURED: u8 = 0x02;
const ENABLED: u8 = 0x04;
const PAUSED: u8 = 0x08;
const AGENT: u8 = 0x10;

/// HAProxy's bits of `srv_admin_state`.
const FORCED_MAINTENANCE: u8 = 0x01;
const INHERITED_MAINTENANCE: u8 = 0x02;
const CONFIGURED_MAINTENANCE: u8 = 0x04;
const FORCED_DRAIN: u8 = 0x08;
const INHERITED_DRAIN: u8 = 0x10;
const UNRESOLVED: u8 = 0x20;

fn show_backend(call: &mut Call<'_>) -> Answer {
    let mut text = "# name\n".to_owned();
    for backend in call.shared.world().backends.iter().flatten() {
        let _ = writeln!(text, "{}", backend.proxy.name);
    }
    Answer::Text(text)
}

/// The backends that a command is about: one, or all.
fn wanted(call: &Call<'_>) -> Result<Vec<Arc<Backend>>, Answer> {
    let world = call.shared.world();
    let all = world.backends.iter().flatten();
    let Some(name) = call.words.first() else {
        return Ok(all.cloned().collect());
    };
    let is_meant = |backend: &&Arc<Backend>| is_called(&backend.proxy, name);
    let found: Vec<_> = all.filter(is_meant).cloned().collect();
    match found.is_empty() {
        true => Err(Answer::error("Can't find backend.")),
        false => Ok(found),
    }
}

fn show_state(call: &mut Call<'_>) -> Answer {
    let backends = match wanted(call) {
        Ok(backends) => backends,
        Err(answer) => return answer,
    };
    let mut text = STATE_HEADER.to_owned();
    for backend in &backends {
        for server in backend.servers.iter() {
            state_line(&mut text, call.shared, backend, server);
        }
    }
    Answer::Text(text)
}

fn state_line(text: &mut String, shared: &Shared, backend: &Backend, server: &Arc<Server>) {
    let (proxy, plan) = (&backend.proxy, &server.plan);
    let report = report_of(server).clone();
    let is_out = server.admin() == Admin::Maintenance;
    let (address, port) = place(server);
    let (status, result, health) = match &plan.check {
        // Never checked: HAProxy has it at the threshold of being up.
        None => (1, 0, if is_out { 0 } else { 2 }),
        Some(check) if report.status.is_empty() => (
            1,
            0,
            if is_out || server.health() == Health::Down {
                0
            } else {
                check.rise
            },
        ),
        Some(_) => (
            check_status(report.status),
            check_result(server, report.status),
            report.health,
        ),
    };
    let enabled = if server.tuned.checks_stopped() {
        0
    } else {
        ENABLED
    };
    let check_state = match &plan.check {
        Some(_) if is_out => CONFIGURED | enabled | PAUSED,
        Some(_) => CONFIGURED | enabled,
        None if is_out && plan.disabled => PAUSED,
        None => 0,
    };
    let agent = plan.watch.agent.as_ref();
    let asked = if server.tuned.agent_stopped() {
        0
    } else {
        ENABLED
    };
    let agent_state = agent.map_or(0, |_| AGENT | CONFIGURED | asked);
    let tuning = server.tuned.get();
    let check_at = tuning.check_address.as_ref();
    let check_at = check_at.or(plan.check.as_ref().map(|check| &check.address));
    let agent_at = tuning.agent_address.as_ref();
    let agent_at = agent_at.or(agent.map(|agent| &agent.address));
    let (check_address, check_port) = other(check_at, server);
    let (agent_address, _) = other(agent_at, server);
    let agent_port = agent_at.map_or(0, port_of);
    let _ = writeln!(
        text,
        "{} {} {} {} {address} {} {} {} {} {} {status} {result} {health} {check_state} \
         {agent_state} {} {} {} {port} - 0 {check_port} {check_address} {agent_address} \
         {agent_port}",
        proxy.iid,
        proxy.name,
        plan.sid,
        plan.name,
        op_state(backend, server),
        admin_state(shared, server),
        server.weight(),
        plan.weight,
        since_change_s(shared, report.changed_at_s),
        u8::from(proxy.iid_given),
        u8::from(plan.sid_given),
        host_name(&plan.address_text).unwrap_or("-"),
    );
}

/// Stopped, starting (its slow start), running, stopping.
fn op_state(backend: &Backend, server: &Arc<Server>) -> u8 {
    let is_out = server.admin() == Admin::Maintenance || !server.resolved();
    match server.health() {
        _ if is_out => 0,
        Health::Down => 0,
        Health::Stopping => 3,
        Health::Up | Health::NotChecked if backend.throttle(server).is_some() => 1,
        Health::Up | Health::NotChecked => 2,
    }
}

fn admin_state(shared: &Shared, server: &Server) -> u8 {
    let standing = shared.standing_of(server.id, |standing| *standing);
    let own = match standing.own {
        Admin::Ready => 0,
        Admin::Drain => FORCED_DRAIN,
        Admin::Maintenance if server.resolved() => FORCED_MAINTENANCE,
        Admin::Maintenance => UNRESOLVED,
    };
    let inherited = match standing.inherited {
        Admin::Ready => 0,
        Admin::Drain => INHERITED_DRAIN,
        Admin::Maintenance => INHERITED_MAINTENANCE,
    };
    let configured = if server.plan.disabled {
        CONFIGURED_MAINTENANCE
    } else {
        0
    };
    own | inherited | configured
}

/// HAProxy's numbers of what checks find.
fn check_status(status: &str) -> u8 {
    const STATUSES: [&str; 21] = [
        "UNK", "INI", "", "CHECKED", "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK",
        "L6TOUT", "L6RSP", "L7TOUT", "L7RSP", "", "L7OK", "L7OKC", "L7STS", "PROCERR", "PROCTOUT",
        "PROCOK",
    ];
    let found = (0..).zip(STATUSES).find(|(_, name)| *name == status);
    found.map_or(0, |(number, _)| number)
}

/// Failed, passed, conditionally passed.
fn check_result(server: &Server, status: &str) -> u8 {
    match status {
        "L7OKC" => 4,
        "L4OK" | "L6OK" | "L7OK" | "PROCOK" => 3,
        "HANA" if server.health() != Health::Down => 3,
        _ => 2,
    }
}

/// Address and port as they are printed.
fn place(server: &Server) -> (String, u16) {
    match &server.plan.address {
        Target::Fixed(Address::Ip(address)) => (address.ip().to_string(), address.port()),
        Target::OfClient { ip: Some(ip), .. } => (ip.to_string(), 0),
        Target::Fixed(_) | Target::OfClient { ip: None, .. } | Target::Unresolved => {
            ("-".to_owned(), 0)
        }
    }
}

/// What of an address is not the server's own: `-` and 0 where it is.
fn other(address: Option<&Address>, server: &Server) -> (String, u16) {
    let Some(Address::Ip(other)) = address else {
        return ("-".to_owned(), 0);
    };
    let own = match &server.plan.address {
        Target::Fixed(Address::Ip(own)) => Some(*own),
        _ => None,
    };
    let ip = match own {
        Some(own) if own.ip() == other.ip() => "-".to_owned(),
        _ => other.ip().to_string(),
    };
    let port = match own {
        Some(own) if own.port() == other.port() => 0,
        _ => other.port(),
    };
    (ip, port)
}

fn port_of(address: &Address) -> u16 {
    match address {
        Address::Ip(address) => address.port(),
        Address::Unix(_) | Address::Abstract(_) => 0,
    }
}

/// The name in an address, if it was written as one.
fn host_name(text: &str) -> Option<&str> {
    let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    let (host, _) = text.rsplit_once(':').unwrap_or((text, ""));
    let begins = host
        .chars()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric());
    let is_name = begins && !host.contains(':') && host.parse::<IpAddr>().is_err();
    is_name.then_some(host)
}

fn show_conn(call: &mut Call<'_>) -> Answer {
    let backends = match wanted(call) {
        Ok(backends) => backends,
        Err(answer) => return answer,
    };
    let threads = call.shared.world().ports.len();
    let mut text = format!(
        "# bkname/svname bkid/svid addr port - purge_delay served used_cur used_max need_est \
         idle_sess unsafe_nb safe_nb idle_lim idle_cur idle_per_thr[{threads}]\n"
    );
    // Connections are never kept for another client, so nothing is idle.
    let idle = " 0".repeat(threads);
    for backend in &backends {
        let proxy = &backend.proxy;
        for server in backend.servers.iter() {
            let (address, port) = place(server);
            let (active, peak) = (server.active(), server.active_peak());
            let (name, sid) = (&server.plan.name, server.plan.sid);
            let _ = writeln!(
                text,
                "{}/{name} {}/{sid} {address} {port} - 5000 {active} {active} {peak} {peak} 0 0 0 \
                 -1 0{idle}",
                proxy.name, proxy.iid,
            );
        }
    }
    Answer::Text(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_checks_have_their_numbers() {
        let known = [
            ("INI", 1),
            ("L4OK", 6),
            ("L4CON", 8),
            ("L7OK", 15),
            ("L7STS", 17),
        ];
        for (status, number) in known {
            assert_eq!(check_status(status), number, "{status}");
        }
    }

    #[test]
    fn a_name_is_told_from_an_address() {
        assert_eq!(host_name("localhost:80"), Some("localhost"));
        assert_eq!(host_name("ipv4@db.example:80"), Some("db.example"));
        assert_eq!(host_name("db.example"), Some("db.example"));
        for text in [
            "10.0.0.1:80",
            "[::1]:80",
            "::1",
            "*:80",
            ":80",
            "/run/a",
            "0.0.0.0",
        ] {
            assert_eq!(host_name(text), None, "{text}");
        }
    }
}
