//! Writes HAProxy's metrics: the tables of `haproxy`, and states, which are a series each.

use std::collections::HashMap;
use std::fmt;

use super::exposition::{Kind, Number, Writer};
use super::haproxy::{BACKEND, FRONTEND, LISTENER, Metric, PROCESS, Place, SERVER};
use super::query::Query;
use super::rows::{Object, Of, objects};
use crate::base::ids::ProxyId;
use crate::control::Shared;
use crate::control::runtime_api::info;
use crate::control::runtime_api::table::place;
use crate::lb::Admin;

/// Labels, and the number.
pub(super) type Sample<'s> = (Vec<(&'s str, &'s str)>, Number);

/// States of frontends and backends.
const PROXY_STATES: &[&str] = &["DOWN", "UP"];
/// States of listeners.
const LISTENER_STATES: &[&str] = &["WAITING", "OPEN", "FULL"];
/// States of servers.
const SERVER_STATES: &[&str] = &["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];
/// What the last check or agent said.
const CHECK_STATES: &[&str] = &[
    "HANA", "SOCKERR", "L4OK", "L4TOUT", "L4CON", "L6OK", "L6TOUT", "L6RSP", "L7TOUT", "L7RSP",
    "L7OK", "L7OKC", "L7STS", "PROCERR", "PROCTOUT", "PROCOK",
];

/// The rows of an answer, by what they are of.
pub(super) struct Rows {
    pub(super) frontends: Vec<Object>,
    pub(super) listeners: Vec<Object>,
    pub(super) backends: Vec<Object>,
    pub(super) servers: Vec<Object>,
    /// How many servers of a proxy are in a state, and how many checks have said something.
    counts: HashMap<(ProxyId, &'static str), u64>,
}

impl Rows {
    /// Those that are asked for.
    pub(super) fn read(shared: &Shared, query: &Query) -> Rows {
        let mut rows = Rows {
            frontends: Vec::new(),
            listeners: Vec::new(),
            backends: Vec::new(),
            servers: Vec::new(),
            counts: HashMap::new(),
        };
        let scope = query.scope;
        if !(scope.frontend || scope.listener || scope.backend || scope.server) {
            return rows;
        }
        for object in objects(shared, |_| true) {
            if let Of::Server(_) = &object.of {
                let said = object.row.value("check_status").trim_start_matches("* ");
                let said = CHECK_STATES.iter().find(|state| **state == said);
                let state = server_state(object.row.value("status"));
                for name in said.into_iter().copied().chain([state]) {
                    let key = (object.proxy.proxy_id, name);
                    *rows.counts.entry(key).or_default() += 1;
                }
            }
            match &object.of {
                Of::Frontend if scope.frontend => rows.frontends.push(object),
                Of::Listener if scope.listener => rows.listeners.push(object),
                Of::Backend(_) if scope.backend => rows.backends.push(object),
                Of::Server(server) if scope.server => {
                    let is_out = server.admin() == Admin::Maintenance;
                    if !(query.no_maintenance && is_out) {
                        rows.servers.push(object);
                    }
                }
                Of::Frontend | Of::Listener | Of::Backend(_) | Of::Server(_) => {}
            }
        }
        rows
    }

    /// How many servers, or checks, of a backend are in each of some states.
    fn counted<'s>(&'s self, names: &'static [&'static str]) -> impl Iterator<Item = Sample<'s>> {
        self.backends.iter().flat_map(move |object| {
            let id = object.proxy.proxy_id;
            states(object, names, move |name| {
                names
                    .iter()
                    .find(|known| **known == name)
                    .and_then(|known| self.counts.get(&(id, *known)))
                    .copied()
                    .unwrap_or(0)
            })
        })
    }
}

/// Writes what is asked for.
pub(super) fn write(
    shared: &Shared,
    query: &Query,
    rows: &Rows,
    writer: &mut Writer<'_, '_>,
) -> fmt::Result {
    if query.scope.global {
        process(shared, writer)?;
    }
    table(writer, "haproxy_frontend_", FRONTEND, &rows.frontends)?;
    let status = rows.frontends.iter().flat_map(|object| {
        let state = match object.row.value("status") {
            "STOP" => "DOWN",
            _ => "UP",
        };
        states(object, PROXY_STATES, move |wanted| {
            u64::from(wanted == state)
        })
    });
    let help = "1 = it is in this state";
    writer.family("haproxy_frontend_status", Kind::Gauge, help, status)?;
    table(writer, "haproxy_listener_", LISTENER, &rows.listeners)?;
    let status = rows.listeners.iter().flat_map(|object| {
        let state = object.row.value("status");
        states(object, LISTENER_STATES, move |wanted| {
            u64::from(wanted == state)
        })
    });
    writer.family("haproxy_listener_status", Kind::Gauge, help, status)?;
    backends(rows, writer)?;
    table(writer, "haproxy_server_", SERVER, &rows.servers)?;
    let status = rows.servers.iter().flat_map(|object| {
        let state = server_state(object.row.value("status"));
        states(object, SERVER_STATES, move |wanted| {
            u64::from(wanted == state)
        })
    });
    writer.family("haproxy_server_status", Kind::Gauge, help, status)?;
    for (name, column, help) in [
        (
            "haproxy_server_check_status",
            "check_status",
            "1 = its last check said this",
        ),
        (
            "haproxy_server_agent_status",
            "agent_status",
            "1 = its agent's last answer was this",
        ),
    ] {
        let known = rows
            .servers
            .iter()
            .filter(|object| !object.row.value(column).is_empty());
        let samples = known.flat_map(|object| {
            let said = object.row.value(column).trim_start_matches("* ");
            states(object, CHECK_STATES, move |wanted| {
                u64::from(wanted == said)
            })
        });
        writer.family(name, Kind::Gauge, help, samples)?;
    }
    Ok(())
}

fn process(shared: &Shared, writer: &mut Writer<'_, '_>) -> fmt::Result {
    let fields = info::fields(shared);
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| *name == wanted);
        found.map_or("", |(_, value)| value.as_str())
    };
    for metric in PROCESS {
        let (Place::Count(name) | Place::Millis(name)) = metric.from;
        let sample = Number::parse(field(name)).map(|number| (Vec::new(), number));
        let whole = format!("haproxy_process_{}", metric.name);
        writer.family(&whole, metric.kind, metric.help, sample)?;
    }
    let texts = [
        (
            "haproxy_process_build_info",
            "version",
            field("Version"),
            "Version of the program",
        ),
        (
            "haproxy_process_node",
            "node",
            field("node"),
            "Name of the instance",
        ),
        (
            "haproxy_process_description",
            "desc",
            field("description"),
            "Description of the instance",
        ),
    ];
    for (name, label, text, help) in texts {
        let sample = (!text.is_empty()).then(|| (vec![(label, text)], Number::Whole(1)));
        writer.family(name, Kind::Gauge, help, sample)?;
    }
    Ok(())
}

fn table(
    writer: &mut Writer<'_, '_>,
    prefix: &str,
    metrics: &[Metric],
    objects: &[Object],
) -> fmt::Result {
    for metric in metrics {
        let (Place::Count(column) | Place::Millis(column)) = metric.from;
        let at = place(column);
        let samples = objects.iter().filter_map(|object| {
            let number = Number::parse(object.row.at(at))?;
            let number = match metric.from {
                Place::Count(_) => number,
                Place::Millis(_) => number.divided(1000.0),
            };
            Some((labels(object), number))
        });
        let name = format!("{prefix}{}", metric.name);
        writer.family(&name, metric.kind, metric.help, samples)?;
    }
    Ok(())
}

fn backends(rows: &Rows, writer: &mut Writer<'_, '_>) -> fmt::Result {
    table(writer, "haproxy_backend_", BACKEND, &rows.backends)?;
    let status = rows.backends.iter().flat_map(|object| {
        let state = object.row.value("status");
        states(object, PROXY_STATES, move |wanted| {
            u64::from(wanted == state)
        })
    });
    writer.family(
        "haproxy_backend_status",
        Kind::Gauge,
        "1 = it is in this state",
        status,
    )?;
    let help = "Servers in this state";
    for name in [
        "haproxy_backend_agg_server_status",
        "haproxy_backend_agg_server_check_status",
    ] {
        writer.family(name, Kind::Gauge, help, rows.counted(SERVER_STATES))?;
    }
    let (name, help) = (
        "haproxy_backend_agg_check_status",
        "Servers whose last check said this",
    );
    writer.family(name, Kind::Gauge, help, rows.counted(CHECK_STATES))
}

/// A series for each state.
fn states<'s>(
    object: &'s Object,
    names: &'static [&'static str],
    value: impl Fn(&str) -> u64 + 's,
) -> impl Iterator<Item = Sample<'s>> {
    names.iter().map(move |name| {
        let mut labels = labels(object);
        labels.push(("state", name));
        (labels, Number::Whole(value(name)))
    })
}

/// HAProxy's labels of an object.
pub(super) fn labels(object: &Object) -> Vec<(&str, &str)> {
    let proxy = ("proxy", &*object.proxy.name);
    match &object.of {
        Of::Server(server) => vec![proxy, ("server", &*server.plan.name)],
        Of::Listener => vec![proxy, ("listener", object.row.value("svname"))],
        Of::Frontend | Of::Backend(_) => vec![proxy],
    }
}

/// The state that a server's status names: `UP 1/3` and `no check` are up.
pub(super) fn server_state(status: &str) -> &'static str {
    let begins = |state: &&&str| status.starts_with(**state);
    SERVER_STATES.iter().find(begins).copied().unwrap_or("UP")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_of_five_states() {
        for (status, state) in [
            ("UP", "UP"),
            ("UP 1/3", "UP"),
            ("no check", "UP"),
            ("DOWN 1/2", "DOWN"),
            ("DOWN (agent)", "DOWN"),
            ("MAINT (via a/b)", "MAINT"),
            ("DRAIN (agent)", "DRAIN"),
            ("NOLB", "NOLB"),
        ] {
            assert_eq!(server_state(status), state, "{status}");
        }
    }
}
