//! The one vocabulary of change while the program runs.
//!
//! A reload and a runtime command that adds, removes or redefines something both make a new plan;
//! what is different in it is a list of [`Change`]s, one for each object, which is also what is
//! said of it. [`settle`] first takes back what a running process can't change.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::base::ids::{ListenerId, ProxyId, ServerId};

use super::plan::{Back, Front, Global, Listener, Plan, Proxy, ProxyKind, Server};

/// What an operator wants of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminState {
    /// In service, as its health allows.
    Ready,
    /// No new connections; the open ones end by themselves.
    Drain,
    /// In maintenance: no new connections and no checks.
    Maintenance,
}

/// One object that is different.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Which, in words: `server bk/s1`.
    pub subject: String,
    /// Whose log hears of it.
    pub proxy: Option<ProxyId>,
    /// How.
    pub what: What,
}

/// How an object is different.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// It is new.
    Added,
    /// It is no more.
    Removed,
    /// These parts of it are others.
    Changed(Vec<String>),
    /// These parts stay as they are until the next start, and why.
    Kept(Vec<String>, &'static str),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match &self.what {
            What::Added => write!(f, "{subject} added"),
            What::Removed => write!(f, "{subject} removed"),
            What::Changed(parts) => write!(f, "{subject} changed: {}", parts.join(", ")),
            What::Kept(parts, why) => {
                let parts = parts.join(", ");
                write!(f, "{subject} keeps its old {parts} until a restart: {why}")
            }
        }
    }
}

impl Change {
    fn of_process(what: What) -> Change {
        let subject = "global".to_owned();
        Change {
            subject,
            proxy: None,
            what,
        }
    }

    fn new(proxy: &Proxy, subject: String, what: What) -> Change {
        let proxy = Some(proxy.proxy_id);
        Change {
            subject,
            proxy,
            what,
        }
    }

    /// Whether something stays as it was although the configuration says otherwise.
    pub fn is_kept(&self) -> bool {
        matches!(self.what, What::Kept(..))
    }
}

/// The words for those of some fields that are different.
macro_rules! different {
    ($before:expr, $after:expr, $($field:ident: $word:literal),+ $(,)?) => {{
        let mut parts: Vec<String> = Vec::new();
        $(if $before.$field != $after.$field && !parts.iter().any(|part| part == $word) {
            parts.push($word.to_owned());
        })+
        parts
    }};
}

/// Puts the values back that hold from the start of a process to its end, and names them. They are
/// different where `after` doesn't say what `asked`, the configuration that was followed last, has
/// said; what holds is in `before`.
macro_rules! settle {
    (
        $asked:expr, $before:expr, $after:expr, $kept:expr, $why:literal,
        $($field:ident: $word:literal),+ $(,)?
    ) => {{
        let parts = different!($asked, $after, $($field: $word),+);
        $($after.$field = $before.$field.clone();)+
        if !parts.is_empty() {
            $kept.push(Change::of_process(What::Kept(parts, $why)));
        }
    }};
}

/// Takes back what a running process can't change, and says what that is. `asked` is what the
/// configuration before had in its global section, `before` the plan in force. Both plans are
/// numbered alike.
pub fn settle(asked: &Global, before: &Plan, after: &mut Plan) -> Vec<Change> {
    let mut kept = Vec::new();
    settle_global(asked, &before.global, &mut after.global, &mut kept);
    let known = by_listener(before);
    for listener in &mut after.listeners {
        if let Some(before) = known.get(&listener.listener_id) {
            let mut settled = (**listener).clone();
            let parts = different!(before, settled,
                threads: "thread", sockets: "shards", transparent: "transparent",
                v6only: "v6only");
            (settled.threads, settled.sockets) = (before.threads, before.sockets);
            (settled.transparent, settled.v6only) = (before.transparent, before.v6only);
            if !parts.is_empty() {
                let why = "its sockets are bound that way";
                let what = What::Kept(parts, why);
                kept.push(listener_change(&after.proxies, listener, what));
                *listener = settled.into();
            }
        }
    }
    let known = by_proxy(before);
    for proxy in &mut after.proxies {
        let before = known.get(&proxy.proxy_id).and_then(|p| p.front.as_ref());
        let before = before.and_then(|front| front.udp);
        let udp = proxy.front.as_ref().and_then(|front| front.udp);
        let (Some(before), Some(mut udp)) = (before, udp) else {
            continue;
        };
        if before.source_flows_max == 0 && udp.source_flows_max > 0 {
            let why = "the flows there are have not been counted";
            let parts = vec!["udp-source-flows".to_owned()];
            kept.push(Change::new(
                proxy,
                proxy_words(proxy),
                What::Kept(parts, why),
            ));
            udp.source_flows_max = 0;
            let mut settled = (**proxy).clone();
            if let Some(front) = &mut settled.front {
                front.udp = Some(udp);
            }
            *proxy = settled.into();
        }
    }
    kept
}

fn settle_global(asked: &Global, before: &Global, after: &mut Global, kept: &mut Vec<Change>) {
    settle!(asked, before, after, kept, "threads and their rings are made at the start",
        nbthread: "nbthread", thread_hard_limit: "thread-hard-limit", cpu_maps: "cpu-map",
        receive_step: "tune.ring.receive", ring_without: "tune.ring.without",
        ring_buffers: "tune.ring.buffers", spin_us: "tune.spin-us",
        busy_polling: "busy-polling", noreuseport: "noreuseport");
    settle!(asked, before, after, kept, "memory is divided at the start",
        memory_limit: "memory-limit", memory_bytes: "tune.memory", pipe_size: "tune.pipesize",
        maxpipes: "maxpipes", udp_flows_max: "tune.udp.maxflows",
        udp_sockets_max: "tune.udp.sockets");
    settle!(asked, before, after, kept, "it is in use by connections there are",
        source_ports: "tune.source-ports");
    settle!(asked, before, after, kept, "the process has become what it is",
        pidfile: "pidfile", daemon: "daemon");
    let (mut process, node) = (before.process.clone(), after.process.node.clone());
    process.node = node;
    process.description.clone_from(&after.process.description);
    let parts = different!(asked.process, after.process,
        user_id: "user", group_id: "group", chroot: "chroot", descriptors: "ulimit-n",
        descriptors_max: "fd-hard-limit", strict_limits: "strict-limits",
        master_worker: "master-worker", quiet: "quiet");
    process.zero_warning = after.process.zero_warning;
    after.process = process;
    if !parts.is_empty() {
        let why = "the process has become what it is";
        kept.push(Change::of_process(What::Kept(parts, why)));
    }
}

/// What is different in a plan, in its order. Both are numbered alike. Ids that nobody has written
/// follow the order of the file, and are no change.
pub fn differences(before: &Plan, after: &Plan) -> Vec<Change> {
    let mut changes = Vec::new();
    let parts = global_parts(&before.global, &after.global);
    if !parts.is_empty() {
        changes.push(Change::of_process(What::Changed(parts)));
    }
    let (known, listening) = (by_proxy(before), by_listener(before));
    let (next, next_listening) = (by_proxy(after), by_listener(after));
    for proxy in &after.proxies {
        let Some(before) = known.get(&proxy.proxy_id) else {
            changes.push(Change::new(proxy, proxy_words(proxy), What::Added));
            continue;
        };
        let parts = proxy_parts(before, proxy);
        if !parts.is_empty() {
            changes.push(Change::new(proxy, proxy_words(proxy), What::Changed(parts)));
        }
        server_changes(before, proxy, &mut changes);
    }
    for listener in &after.listeners {
        let change = |what| listener_change(&after.proxies, listener, what);
        match listening.get(&listener.listener_id) {
            None => changes.push(change(What::Added)),
            Some(before) => {
                let parts = listener_parts(before, listener);
                if !parts.is_empty() {
                    changes.push(change(What::Changed(parts)));
                }
            }
        }
    }
    for listener in &before.listeners {
        if !next_listening.contains_key(&listener.listener_id) {
            changes.push(listener_change(&before.proxies, listener, What::Removed));
        }
    }
    for proxy in &before.proxies {
        if !next.contains_key(&proxy.proxy_id) {
            changes.push(Change::new(proxy, proxy_words(proxy), What::Removed));
        }
    }
    changes
}

fn by_proxy(plan: &Plan) -> HashMap<ProxyId, &Proxy> {
    let proxies = plan.proxies.iter();
    proxies.map(|proxy| (proxy.proxy_id, &**proxy)).collect()
}

fn by_listener(plan: &Plan) -> HashMap<ListenerId, &Listener> {
    let listeners = plan.listeners.iter();
    listeners.map(|one| (one.listener_id, &**one)).collect()
}

fn proxy_words(proxy: &Proxy) -> String {
    let kind = match proxy.kind {
        ProxyKind::Frontend => "frontend",
        ProxyKind::Backend => "backend",
        ProxyKind::Listen => "listen",
    };
    format!("{kind} {}", proxy.name)
}

fn listener_change(proxies: &[Arc<Proxy>], listener: &Listener, what: What) -> Change {
    let mut proxies = proxies.iter();
    let owner = proxies.find(|proxy| proxy.proxy_id == listener.proxy_id);
    let owner = owner.map_or("?", |proxy| &proxy.name);
    Change {
        subject: format!("listener {owner}/{}", listener.endpoint),
        proxy: Some(listener.proxy_id),
        what,
    }
}

fn global_parts(before: &Global, after: &Global) -> Vec<String> {
    let mut parts = different!(before, after,
        maxconn: "maxconn", connection_rate: "maxconnrate", session_rate: "maxsessrate",
        maxaccept: "tune.maxaccept", multi_queue: "tune.listener.multi-queue", logs: "log",
        log_tag: "log-tag", log_host: "log-send-hostname",
        hard_stop_after_ms: "hard-stop-after", stats_sockets: "stats socket",
        stats_timeout_ms: "stats timeout", stats_maxconn: "stats maxconn",
        spread_checks_percent: "spread-checks", max_spread_checks_ms: "max-spread-checks",
        rcvbuf_client: "tune.rcvbuf.client", sndbuf_client: "tune.sndbuf.client",
        rcvbuf_server: "tune.rcvbuf.server", sndbuf_server: "tune.sndbuf.server",
        udp_rcvbuf: "tune.udp.rcvbuf", splice: "nosplice", idle_timer_ms: "tune.idletimer",
        hash_seed: "hash seed");
    parts.extend(different!(before.process, after.process,
        node: "node", description: "description"));
    parts
}

fn proxy_parts(before: &Proxy, after: &Proxy) -> Vec<String> {
    let mut parts = different!(before, after, description: "description", guid: "guid", logs: "log", log_tag: "log-tag",
        splice: "option splice");
    if let (Some(before), Some(after)) = (&before.front, &after.front) {
        parts.extend(front_parts(before, after));
    }
    if let (Some(before), Some(after)) = (&before.back, &after.back) {
        let more = back_parts(before, after);
        parts.extend(
            more.into_iter()
                .filter(|part| !parts.contains(part))
                .collect::<Vec<_>>(),
        );
    }
    if parts.is_empty() && !is_same_itself(before, after) {
        parts.push("settings".to_owned());
    }
    parts
}

/// Whether two proxies say the same, their servers and listeners aside.
fn is_same_itself(before: &Proxy, after: &Proxy) -> bool {
    let (mut before, mut after) = (before.without_servers(), after.without_servers());
    for proxy in [&mut before, &mut after] {
        if let Some(front) = &mut proxy.front {
            front.listeners.clear();
        }
        proxy.iid = 0;
    }
    before == after
}

fn front_parts(before: &Front, after: &Front) -> Vec<String> {
    different!(before, after,
        default_backend: "default_backend", maxconn: "maxconn",
        session_rate: "rate-limit sessions", timeout_client_ms: "timeout client",
        timeout_client_fin_ms: "timeout client-fin", timeout_client_hs_ms: "timeout client-hs",
        expect_proxy: "tcp-request connection", keepalive: "option clitcpka",
        lines: "log-format", dontlognull: "option dontlognull",
        dontlog_normal: "option dontlog-normal",
        log_separate_errors: "option log-separate-errors", nolinger: "option nolinger",
        independent_streams: "option independent-streams", udp: "udp settings",
        pages: "pages")
}

fn back_parts(before: &Back, after: &Back) -> Vec<String> {
    different!(before, after,
        balance: "balance", quic_lb: "quic-lb", timeout_connect_ms: "timeout connect",
        timeout_server_ms: "timeout server", timeout_server_fin_ms: "timeout server-fin",
        timeout_queue_ms: "timeout queue", timeout_tunnel_ms: "timeout tunnel",
        retries: "retries", redispatch: "option redispatch", allbackups: "option allbackups",
        log_health_checks: "option log-health-checks", fullconn: "fullconn",
        keepalive: "option srvtcpka", nolinger: "option nolinger",
        independent_streams: "option independent-streams", abortonclose: "option abortonclose",
        smart_connect: "option tcp-smart-connect", udp: "udp settings")
}

fn server_changes(before: &Proxy, after: &Proxy, changes: &mut Vec<Change>) {
    let servers = |proxy: &Proxy| {
        proxy
            .back
            .as_ref()
            .map_or(Vec::new(), |b| b.servers.clone())
    };
    let (old, new) = (servers(before), servers(after));
    let known: HashMap<ServerId, _> = old.iter().map(|s| (s.server_id, s)).collect();
    let words = |server: &Server| format!("server {}/{}", after.name, server.name);
    for server in &new {
        match known.get(&server.server_id) {
            None => changes.push(Change::new(after, words(server), What::Added)),
            Some(before) if is_same_but_id(before, server) => {}
            Some(before) => {
                let parts = server_parts(before, server);
                changes.push(Change::new(after, words(server), What::Changed(parts)));
            }
        }
    }
    for server in &old {
        if !new.iter().any(|next| next.server_id == server.server_id) {
            changes.push(Change::new(after, words(server), What::Removed));
        }
    }
}

fn is_same_but_id(before: &Server, after: &Server) -> bool {
    let sid = after.sid;
    before.is_same(after)
        || after.is_same(&Server {
            sid,
            ..before.clone()
        })
}

fn server_parts(before: &Server, after: &Server) -> Vec<String> {
    let mut parts = Vec::new();
    if before.address != after.address {
        parts.push(format!("address {} -> {}", before.address, after.address));
    }
    let numbers = [
        ("weight", u32::from(before.weight), u32::from(after.weight)),
        ("maxconn", before.maxconn, after.maxconn),
    ];
    for (word, before, after) in numbers {
        if before != after {
            parts.push(format!("{word} {before} -> {after}"));
        }
    }
    parts.extend(
        different!(before, after, minconn: "minconn", maxqueue: "maxqueue", backup: "backup",
        disabled: "disabled", check: "check", watch: "agent, track or on-marked",
        slow_start: "slowstart", passive: "observe", tcp_user_timeout_ms: "tcp-ut",
        congestion: "cc", source: "source", hash_key: "hash-key", guid: "guid",
        quic_id: "quic-id", send_proxy: "send-proxy"),
    );
    if parts.is_empty() {
        parts.push("settings".to_owned());
    }
    parts
}

fn listener_parts(before: &Listener, after: &Listener) -> Vec<String> {
    different!(before, after, name: "name", has_stats: "option socket-stats", fast_open: "tfo", mss: "mss", congestion: "cc",
        delayed_ack: "quickack", nice: "nice", backlog: "backlog", maxconn: "maxconn",
        accept_proxy: "accept-proxy", defer_accept: "defer-accept",
        tcp_user_timeout_ms: "tcp-ut", unix_mode: "mode", unix_uid: "user",
        unix_gid: "group")
}
