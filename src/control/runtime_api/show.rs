//! Commands that show what the process is made of: its version, environment, listeners, errors,
//! what its start has said, and the schema of what is printed as JSON.

use std::collections::BTreeMap;

use super::command::{Answer, Call, Command, Run};
use super::{activity, errors, listening, schema};
use crate::base::address::Address;
use crate::config::plan::{Endpoint, Level};
use crate::control::Shared;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "activity"], level: Level::Operator, usage: "show activity",
        help: "what the shards and the process hold and do",
        run: Run::Now(|call| Answer::Text(activity::show(call.shared))) },
    Command { words: &["show", "env"], level: Level::Operator, usage: "show env [<name>]",
        help: "list the environment variables of the process", run: Run::Now(show_env) },
    Command { words: &["show", "errors"], level: Level::Operator,
        usage: "show errors [<iid>|<proxy>]",
        help: "report what clients sent that broke a protocol", run: Run::Now(errors::show) },
    Command { words: &["show", "listeners"], level: Level::Operator, usage: "show listeners",
        help: "list the listening sockets with their queues and drops",
        run: Run::Now(|call| Answer::Text(listening::show(call.shared))) },
    Command { words: &["show", "schema", "json"], level: Level::User, usage: "show schema json",
        help: "report the schema of answers in JSON",
        run: Run::Now(|_| Answer::Text(schema::text())) },
    Command { words: &["show", "startup-logs"], level: Level::Operator,
        usage: "show startup-logs", help: "report what was said while the process started",
        run: Run::Now(|call| Answer::Text(call.shared.startup.text())) },
    Command { words: &["show", "table"], level: Level::User, usage: "show table [<table>]",
        help: "list stick tables, of which there are none", run: Run::Now(show_table) },
    Command { words: &["show", "version"], level: Level::User, usage: "show version",
        help: "report the version of this program",
        run: Run::Now(|_| Answer::info(env!("CARGO_PKG_VERSION"))) },
];

fn show_env(call: &mut Call<'_>) -> Answer {
    let variables = variables(call.shared);
    let line = |name: &str, value: &str| format!("{name}={value}\n");
    match call.words.first() {
        None => {
            let lines = variables.iter().map(|(name, value)| line(name, value));
            Answer::Text(lines.collect())
        }
        Some(name) => match variables.get(*name) {
            Some(value) => Answer::Text(line(name, value)),
            None => Answer::error("Variable not found"),
        },
    }
}

/// The environment of the process, with what the configuration has made of it.
fn variables(shared: &Shared) -> BTreeMap<String, String> {
    let world = shared.world();
    let global = &world.plan.global;
    let own = std::env::vars_os().filter(|_| !global.variables.is_reset);
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let mut variables: BTreeMap<String, String> =
        own.map(|(name, value)| (text(name), text(value))).collect();
    for (name, value) in &global.variables.changed {
        match value {
            Some(value) => variables.insert(name.clone(), value.clone()),
            None => variables.remove(name),
        };
    }
    let sockets = global
        .stats_sockets
        .iter()
        .map(|socket| endpoint_text(&socket.endpoint));
    let sockets: Vec<String> = sockets.collect();
    variables.insert("HAPROXY_CLI".to_owned(), sockets.join(";"));
    variables
}

/// A runtime socket's address with its family, as HAProxy writes it.
pub(super) fn endpoint_text(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Address(Address::Ip(address)) if address.is_ipv4() => format!("ipv4@{address}"),
        Endpoint::Address(Address::Ip(address)) => {
            format!("ipv6@{}:{}", address.ip(), address.port())
        }
        other => other.to_string(),
    }
}

fn show_table(call: &mut Call<'_>) -> Answer {
    match call.words.first() {
        None => Answer::Nothing,
        Some(_) => Answer::error("No such table"),
    }
}
