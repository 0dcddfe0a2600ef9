//! What runtime commands change in the plan in force: servers that are added, deleted or moved.
//!
//! A plan keeps what it was made of. An edit changes a copy of that, and the whole plan is made of
//! it again: all that is checked of a file is checked of what comes out, with the same messages,
//! and what the other lines of a section say of their servers holds for one that comes later. What
//! is new is put in force like the plan of a reload. No file is read for it and no name is looked
//! up, because whoever edits must not wait.

mod line;
mod outside;
mod reload;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Report};
use super::draft::{Draft, ProxyDraft, ServerDraft};
use super::environment::{Environment, Options};
use super::plan::{Plan, PortRule, Proxy, ProxyKind, Server, ServerOrigin, Target};
use super::resolve::{self, knows_ports};
use super::values::server_address::target;
use line::read;
pub use line::words_of_servers;
use outside::AtRuntime;
pub use reload::carry_over;

/// Servers that a process may have by commands: as many as one `server-template` makes.
const ADDED_MAX: usize = 16_384;
/// Why a server's port can't depend on the client's.
pub const NO_PORT_MAP: &str = "can't change <port> to port map because it is incompatible with \
                               current health check port configuration (use 'port' statement \
                               from the 'server' directive.";
const GONE: &str = "No such server.";
const NO_BACKEND: &str = "No such backend.";

/// What a plan was made of. It says nothing that the plan doesn't.
#[derive(Clone, Default)]
pub struct Written {
    draft: Arc<Draft>,
    options: Options,
}

impl Written {
    pub(super) fn new(draft: Draft, options: Options) -> Written {
        let draft = Arc::new(draft);
        Written { draft, options }
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written")
    }
}

/// A plan that was edited, with what there is to say of it.
pub type Edited = Result<(Plan, Vec<String>), String>;

/// Adds a server to a backend: `words` are those of its line behind its name.
pub fn add_server(
    before: &Plan,
    environment: &dyn Environment,
    backend: &str,
    name: &str,
    words: &[&str],
) -> Edited {
    let mut draft = (*before.written.draft).clone();
    let all = draft.proxies.iter().flat_map(|proxy| &proxy.servers);
    let added = all.filter(|server| server.origin != ServerOrigin::Files);
    if added.count() >= ADDED_MAX {
        return Err(format!(
            "There are {ADDED_MAX} servers of commands already."
        ));
    }
    if is_static(before, backend)? {
        let text = "Backend must use a dynamic load balancing to support dynamic servers.";
        return Err(text.to_owned());
    }
    let proxy = proxy_mut(&mut draft, backend)?;
    if proxy.servers.iter().any(|server| server.name == name) {
        return Err("Already exists a server with the same name in backend.".to_owned());
    }
    let outside = AtRuntime::new(environment, before.written.options);
    let (server, said) = read(proxy, &outside, name, words)?;
    proxy.servers.push(server);
    let (plan, more) = remade(before, draft, &outside, Some(&subject(backend, name)))?;
    Ok((plan, [said, more].concat()))
}

/// Takes a server out of its backend.
pub fn delete_server(
    before: &Plan,
    environment: &dyn Environment,
    backend: &str,
    name: &str,
) -> Edited {
    let mut draft = (*before.written.draft).clone();
    let proxy = proxy_mut(&mut draft, backend)?;
    let index = proxy.servers.iter().position(|server| server.name == name);
    let gone = proxy.servers.remove(index.ok_or(GONE)?);
    if gone.origin == ServerOrigin::Files {
        draft.deleted.push(key(backend, name));
    }
    let outside = AtRuntime::new(environment, before.written.options);
    remade(before, draft, &outside, None)
}

/// Gives a server another address, and its checks and its agent as far as they have none of their
/// own.
pub fn move_server(
    before: &Plan,
    environment: &dyn Environment,
    backend: &str,
    name: &str,
    ip: IpAddr,
    port: PortRule,
) -> Edited {
    let mut draft = (*before.written.draft).clone();
    let proxy = proxy_mut(&mut draft, backend)?;
    let mut servers = proxy.servers.iter_mut();
    let server = servers.find(|server| server.name == name).ok_or(GONE)?;
    let to = match ip.is_unspecified() {
        true => Target::OfClient { ip: None, port },
        false => target(ip, port),
    };
    let settings = &server.settings;
    let own_port = settings
        .check_port
        .or(settings.check_address_port)
        .is_some();
    let is_map = matches!(port, PortRule::Offset(_));
    if is_map && settings.check && !own_port && !knows_ports(&proxy.settings.check_kind) {
        return Err(NO_PORT_MAP.to_owned());
    }
    displace(server, to);
    let outside = AtRuntime::new(environment, before.written.options);
    remade(before, draft, &outside, Some(&subject(backend, name)))
}

fn displace(server: &mut ServerDraft, to: Target) {
    let from = server.moved_from.take();
    let from = from.unwrap_or_else(|| server.address.clone());
    server.address_text = to.to_string();
    server.moved_from = (server.origin == ServerOrigin::Files && from != to).then_some(from);
    server.address = to;
}

/// The plan of a draft that was edited. What it warns of is said where it is about `about`.
fn remade(before: &Plan, draft: Draft, environment: &AtRuntime<'_>, about: Option<&str>) -> Edited {
    let mut report = Report::new(false);
    let mut plan = resolve::stateless(&draft, environment, &mut report);
    let list = report.finish();
    let faults = texts(list.clone(), about, Diagnostic::is_fatal);
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    let of_it = |one: &Diagnostic| about.is_some_and(|about| one.text.starts_with(about));
    let said = texts(list, about, of_it);
    plan.global = before.global.clone();
    keep_numbers(before, &mut plan)?;
    plan.written = Written::new(draft, before.written.options);
    Ok((plan, said))
}

/// HAProxy's numbers of servers are those of positions in the files; what is there keeps its own,
/// and what is new gets the lowest that is free.
fn keep_numbers(before: &Plan, after: &mut Plan) -> Result<(), String> {
    let before: HashMap<&str, &Proxy> = before.proxies.iter().map(|p| (&*p.name, &**p)).collect();
    for proxy in &mut after.proxies {
        let known = before
            .get(&*proxy.name)
            .and_then(|known| known.back.as_ref());
        let (Some(known), Some(back)) = (known, &proxy.back) else {
            continue;
        };
        let known: HashMap<&str, &Server> =
            known.servers.iter().map(|s| (&*s.name, &**s)).collect();
        let stays = |server: &Arc<Server>| known.get(&*server.name).copied();
        let mut taken: HashMap<u32, &Server> = HashMap::new();
        taken.extend(back.servers.iter().filter_map(stays).map(|s| (s.sid, s)));
        let mut free = (1..).filter(|sid| !taken.contains_key(sid));
        let mut numbers = Vec::new();
        for server in &back.servers {
            let given = server.sid_given.then_some(server.sid);
            numbers.push(match (stays(server), given) {
                (Some(known), _) => known.sid,
                (None, Some(sid)) => match taken.get(&sid) {
                    None => sid,
                    Some(first) => {
                        return Err(format!(
                            "'id' : custom id {sid} already used at {} ('server {}').",
                            first.place, first.name
                        ));
                    }
                },
                (None, None) => free.next().unwrap_or(u32::MAX),
            });
        }
        let same = back
            .servers
            .iter()
            .map(|server| server.sid)
            .eq(numbers.iter().copied());
        if same {
            continue;
        }
        if let Some(back) = &mut Arc::make_mut(proxy).back {
            for (server, sid) in back.servers.iter_mut().zip(numbers) {
                Arc::make_mut(server).sid = sid;
            }
        }
    }
    Ok(())
}

/// Whether a backend's algorithm knows no servers but those of the files.
fn is_static(plan: &Plan, backend: &str) -> Result<bool, String> {
    let mut proxies = plan.proxies.iter();
    let proxy = proxies.find(|proxy| *proxy.name == *backend);
    let back = proxy.and_then(|proxy| proxy.back.as_ref());
    let back = back.ok_or(NO_BACKEND)?;
    Ok(back.balance.is_static())
}

fn proxy_mut<'a>(draft: &'a mut Draft, backend: &str) -> Result<&'a mut ProxyDraft, String> {
    let mut proxies = draft.proxies.iter_mut();
    let is_it =
        |proxy: &&mut ProxyDraft| proxy.name == backend && proxy.kind != ProxyKind::Frontend;
    proxies.find(is_it).ok_or_else(|| NO_BACKEND.to_owned())
}

fn key(backend: &str, name: &str) -> (String, String) {
    (backend.to_owned(), name.to_owned())
}

/// How messages about a server begin.
fn subject(backend: &str, name: &str) -> String {
    format!("'server {backend}/{name}' : ")
}

/// The texts of those that are wanted, each once, without what they are about.
fn texts(
    list: Vec<Diagnostic>,
    about: Option<&str>,
    wanted: impl Fn(&Diagnostic) -> bool,
) -> Vec<String> {
    let mut seen = HashSet::new();
    let place = |one: &Diagnostic| one.place.as_ref().is_some_and(|place| place.line > 0);
    let list = list.into_iter().filter(|one| wanted(one) && place(one));
    let bare = |one: Diagnostic| match about.and_then(|about| one.text.strip_prefix(about)) {
        Some(bare) => bare.to_owned(),
        None => one.text,
    };
    list.map(bare)
        .filter(|text| seen.insert(text.clone()))
        .collect()
}
