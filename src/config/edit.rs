//! What runtime commands change in the plan in force: servers that are added, deleted or moved.
//!
//! A plan keeps what it was made of. An edit changes a copy of that, and the whole plan is made of
//! it again: all that is checked of a file is checked of what comes out, with the same messages,
//! and what the other lines of a section say of their servers holds for one that comes later. What
//! is new is put in force like the plan of a reload. No file is read for it and no name is looked
//! up, because whoever edits must not wait.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Place, Report};
use super::draft::{Draft, ProxyDraft, ServerDraft, ServerSettings};
use super::environment::{Environment, Options, Resolver};
use super::keywords::{SERVER, Status};
use super::parse::{Parser, parameters};
use super::plan::{LocalPorts, Plan, PortRule, Proxy, ProxyKind, Server, ServerOrigin, Target};
use super::raw::token::{WORDS_MAX, Word};
use super::raw::{Line, Prefix, SectionKind};
use super::resolve::{self, knows_ports};
use super::values::server_address::target;

/// Servers that a process may have by commands: as many as one `server-template` makes.
const ADDED_MAX: usize = 16_384;
/// What stands for the file in messages about what commands have brought.
const PLACE: &str = "runtime command";
/// What only the files may say of a server, as HAProxy has it: it is about names that are looked
/// up, about HTTP, or about what there is at the start.
const REFUSED: [&str; 11] = [
    "cookie",
    "init-addr",
    "namespace",
    "no-check",
    "non-stick",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "stick",
];
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

/// The words that a server which is added may have.
pub fn words_of_servers() -> impl Iterator<Item = &'static str> {
    let working = SERVER
        .iter()
        .filter(|word| matches!(word.status, Status::Works(_)));
    let names = working.map(|word| word.help.name);
    names.filter(|name| !REFUSED.contains(name))
}

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
        *after = Plan {
            global,
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

fn displace(server: &mut ServerDraft, to: Target) {
    let from = server.moved_from.take();
    let from = from.unwrap_or_else(|| server.address.clone());
    server.address_text = to.to_string();
    server.moved_from = (server.origin == ServerOrigin::Files && from != to).then_some(from);
    server.address = to;
}

/// Reads the line of a server. What `default-server` says is for the servers of the files.
fn read(
    proxy: &ProxyDraft,
    environment: &AtRuntime<'_>,
    name: &str,
    words: &[&str],
) -> Result<(ServerDraft, Vec<String>), String> {
    let mut column = 0;
    let mut word = |text: &str| {
        let at = column;
        column += u32::try_from(text.len()).unwrap_or(0) + 1;
        let text = text.to_owned();
        Word {
            text,
            column: at,
            lines_below: 0,
        }
    };
    let written = ["server", name].into_iter().chain(words.iter().copied());
    let line: Vec<Word> = written.map(&mut word).collect();
    if line.len() > WORDS_MAX {
        return Err(format!("A server has at most {WORDS_MAX} words."));
    }
    let given = line.get(3..).unwrap_or_default();
    let named = |wanted: &[&str]| {
        let names = parameters::names(SERVER, given);
        let found = names.filter(|word| wanted.contains(&word.text.as_str()));
        found.last().map(|word| word.text.clone())
    };
    if let Some(refused) = named(&REFUSED) {
        return Err(format!(
            "'{refused}' option is not accepted for dynamic server"
        ));
    }
    let enabled = named(&["enabled", "disabled"]).is_some_and(|last| last == "enabled");
    let mut report = Report::new(false);
    let mut parser = Parser::new(environment, &mut report);
    parser.kind = match proxy.kind {
        ProxyKind::Frontend => SectionKind::Frontend,
        ProxyKind::Backend => SectionKind::Backend,
        ProxyKind::Listen => SectionKind::Listen,
    };
    parser.mode = proxy.settings.mode;
    parser.current = ProxyDraft {
        servers: Vec::new(),
        ..proxy.clone()
    };
    parser.current.settings.server = ServerSettings::default();
    parser.line(&Line {
        place: Place {
            file: PLACE.into(),
            line: 1,
        },
        prefix: Prefix::Set,
        words: line,
    });
    let server = parser.current.servers.pop();
    let (own, said) = (subject(&proxy.name, name), report.finish());
    if let Some(asked) = environment.first_name() {
        return Err(format!(
            "'{asked}' is no address, and no name is looked up for a command."
        ));
    }
    let faults = texts(said.clone(), Some(&own), Diagnostic::is_fatal);
    match (server, faults.is_empty()) {
        (Some(server), true) => {
            let said = texts(said, Some(&own), |one| !one.is_fatal());
            let origin = ServerOrigin::Command { enabled };
            Ok((ServerDraft { origin, ..server }, said))
        }
        (_, true) => Err("It is not known what is wrong with it.".to_owned()),
        (_, false) => Err(faults.join("\n")),
    }
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

/// All servers by backend and name.
fn servers(draft: &Draft) -> impl Iterator<Item = ((&str, &str), &ServerDraft)> {
    draft.proxies.iter().flat_map(|proxy| {
        let servers = proxy.servers.iter();
        servers.map(move |server| ((proxy.name.as_str(), server.name.as_str()), server))
    })
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

/// The outside world as it is while the program runs: no name is looked up and no file read.
struct AtRuntime<'a> {
    outside: &'a dyn Environment,
    options: Options,
    /// The first name that was asked for.
    name: RefCell<Option<String>>,
}

impl<'a> AtRuntime<'a> {
    /// `options` = those that the files were read with.
    fn new(outside: &'a dyn Environment, options: Options) -> AtRuntime<'a> {
        // A name without an address would be a server without one.
        let options = Options {
            ignore_resolution_failures: false,
            ..options
        };
        AtRuntime {
            outside,
            options,
            name: RefCell::default(),
        }
    }

    fn first_name(&self) -> Option<String> {
        self.name.borrow().clone()
    }
}

impl Resolver for AtRuntime<'_> {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        self.name
            .borrow_mut()
            .get_or_insert_with(|| host.to_owned());
        Err("no name is looked up for a command".to_owned())
    }
}

impl Environment for AtRuntime<'_> {
    fn options(&self) -> Options {
        self.options
    }

    fn local_peer(&self) -> String {
        self.outside.local_peer()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.outside.variable(name)
    }

    fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        self.outside.user_id(name)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.outside.group_id(name)
    }

    fn local_addresses(&self) -> &[IpAddr] {
        self.outside.local_addresses()
    }

    fn local_ports(&self) -> LocalPorts {
        LocalPorts::default()
    }
}
