//! What becomes of edits when the files are read again.

use std::collections::{HashMap, HashSet};

use super::outside::AtRuntime;
use super::{Written, displace, key, proxy_mut, texts};
use crate::config::diagnostics::{Diagnostic, Report};
use crate::config::draft::{Draft, ServerDraft};
use crate::config::environment::Environment;
use crate::config::plan::{Plan, ServerOrigin};
use crate::config::resolve;

/// Has the plan of a reload keep what commands have changed of servers that it has, as far as the
/// files say the same of them as before. What commands have added or deleted is as the files have
/// it. Says what is not as it was.
pub fn carry_over(before: &Plan, after: &mut Plan, environment: &dyn Environment) -> Vec<String> {
    let (old, new) = (&before.written.draft, &after.written.draft);
    let known: HashMap<_, &ServerDraft> = servers(new).collect();
    let mut said = Vec::new();
    let mut moved = Vec::new();
    for (of, server) in servers(old) {
        let (backend, name) = of;
        match (known.get(&of), server.origin, &server.moved_from) {
            (None, ServerOrigin::Command { .. }, _) => said.push(format!(
                "server {backend}/{name} was added by a command and is not in the files: it is \
                 removed"
            )),
            (Some(next), _, Some(from)) if next.address == *from => {
                moved.push((key(backend, name), server.address.clone()));
            }
            (Some(next), _, Some(_)) if next.address != server.address => said.push(format!(
                "server {backend}/{name} was at {}, by a command, and the files have a new address \
                 for it",
                server.address
            )),
            _ => {}
        }
    }
    let present: HashSet<_> = servers(old).map(|(of, _)| of).collect();
    for (backend, name) in &old.deleted {
        let of = (backend.as_str(), name.as_str());
        if known.contains_key(&of) && !present.contains(&of) {
            said.push(format!(
                "server {backend}/{name} was deleted by a command and is in the files: it is back"
            ));
        }
    }
    if moved.is_empty() {
        return said;
    }
    let mut draft = (**new).clone();
    for ((backend, name), to) in moved {
        let of = proxy_mut(&mut draft, &backend);
        let server = of.ok().and_then(|proxy| {
            let mut servers = proxy.servers.iter_mut();
            servers.find(|server| server.name == name)
        });
        if let Some(server) = server {
            displace(server, to);
        }
    }
    let outside = AtRuntime::new(environment, after.written.options);
    let mut report = Report::new(false);
    let plan = resolve::stateless(&draft, &outside, &mut report);
    let faults = texts(report.finish(), None, Diagnostic::is_fatal);
    if faults.is_empty() {
        let global = after.global.clone();
        // The servers are the same ones, in their order.
        let saved = std::mem::take(&mut after.saved);
        *after = Plan {
            global,
            saved,
            written: Written::new(draft, after.written.options),
            ..plan
        };
    } else {
        said.extend(faults.into_iter().map(|fault| {
            format!("addresses that were set by commands don't fit what the files say now: {fault}")
        }));
    }
    said
}

/// All servers by backend and name.
fn servers(draft: &Draft) -> impl Iterator<Item = ((&str, &str), &ServerDraft)> {
    draft.proxies.iter().flat_map(|proxy| {
        let servers = proxy.servers.iter();
        servers.map(move |server| ((proxy.name.as_str(), server.name.as_str()), server))
    })
}
