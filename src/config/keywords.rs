//! The keyword table: every word of the configuration that does something, as data.
//!
//! The parser, "did you mean", and the reference documentation are made from it. Adding a keyword
//! is one entry here and one function in a `parse_*` file. Words of HAProxy that are known and not
//! implemented are in `refused`.

use super::parse_bind as bind;
use super::parse_global as global;
use super::parse_log as log;
use super::parse_proxy as proxy;
use super::parse_server as server;
use super::parser::{Call, Outcome, Parser};
use super::raw::SectionKind;
use super::refused::{self, Verdict};
use super::token::Word;

/// Whose word it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// HAProxy's, with its meaning.
    HaProxy,
    /// Tidegate's own.
    Tidegate,
}

/// Where a keyword has a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The `global` section.
    Global,
    /// Proxies that accept: `frontend`, `listen`.
    Front,
    /// Proxies that connect: `backend`, `listen`.
    Back,
    /// All proxies.
    Both,
    /// The `global` section and all proxies.
    Everywhere,
}

/// One keyword.
pub struct Keyword {
    /// The word, or two words of a family (`timeout client`).
    pub name: &'static str,
    /// Where it has a meaning.
    pub side: Side,
    /// Whether `defaults` may hold it.
    pub in_defaults: bool,
    /// Most arguments.
    pub args_max: usize,
    /// Its arguments, for the reference.
    pub syntax: &'static str,
    /// What it does, for the reference.
    pub help: &'static str,
    /// Whose word it is.
    pub origin: Origin,
    pub(super) parse: fn(&mut Parser<'_>, &Call<'_>) -> Outcome,
}

impl std::fmt::Debug for Keyword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyword")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One parameter of `bind` or `server`, for the reference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParameterHelp {
    /// The word.
    pub name: &'static str,
    /// Its value; empty = it takes none.
    pub syntax: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Whose word it is.
    pub origin: Origin,
}

/// The parameters of `bind` lines.
pub fn bind_parameters() -> impl Iterator<Item = ParameterHelp> {
    bind::PARAMETERS.iter().map(|parameter| parameter.help)
}

/// The parameters of `server` and `default-server` lines.
pub fn server_parameters() -> impl Iterator<Item = ParameterHelp> {
    server::PARAMETERS.iter().map(|parameter| parameter.help)
}

/// First words of keywords that consist of two.
const FAMILIES: &[&str] = &["option", "timeout", "stats"];

/// No bound of its own: the words of a line are bounded.
const MANY: usize = usize::MAX;

/// An entry for a word of HAProxy; `ours` makes it Tidegate's.
const fn entry(
    name: &'static str,
    side: Side,
    args_max: usize,
    syntax: &'static str,
    help: &'static str,
    parse: fn(&mut Parser<'_>, &Call<'_>) -> Outcome,
) -> Keyword {
    let in_defaults = !matches!(side, Side::Global);
    Keyword {
        name,
        side,
        in_defaults,
        args_max,
        syntax,
        help,
        origin: Origin::HaProxy,
        parse,
    }
}

const fn ours(keyword: Keyword) -> Keyword {
    Keyword {
        origin: Origin::Tidegate,
        ..keyword
    }
}

const fn not_in_defaults(keyword: Keyword) -> Keyword {
    Keyword {
        in_defaults: false,
        ..keyword
    }
}

use Side::{Back, Both, Everywhere, Front, Global};

/// All keywords, by section and name.
#[rustfmt::skip]
pub static KEYWORDS: &[Keyword] = &[
    entry("daemon", Global, 0, "", "Run in the background.", global::daemon),
    entry("hard-stop-after", Global, 1, "<time>", "Longest time a soft stop may take.", global::hard_stop_after),
    entry("log-tag", Global, 1, "<tag>", "Program name in log lines.", global::log_tag),
    entry("nbthread", Global, 1, "<number>", "Number of shards; one per usable CPU by default.", global::nbthread),
    entry("pidfile", Global, 1, "<path>", "File that holds the process id.", global::pidfile),
    entry("stats maxconn", Global, 1, "<number>", "Connections to the runtime sockets.", global::stats_maxconn),
    entry("stats socket", Global, MANY, "<address> [mode <octal>] [user <name>|uid <n>] [group <name>|gid <n>] [level user|operator|admin]",
        "A socket for runtime commands.", global::stats_socket),
    entry("stats timeout", Global, 1, "<time>", "Idle time of a connection to a runtime socket.", global::stats_timeout),
    entry("tune.rcvbuf.client", Global, 1, "<bytes>", "Receive buffer of client sockets.", global::buffers),
    entry("tune.rcvbuf.server", Global, 1, "<bytes>", "Receive buffer of server sockets.", global::buffers),
    entry("tune.sndbuf.client", Global, 1, "<bytes>", "Send buffer of client sockets.", global::buffers),
    entry("tune.sndbuf.server", Global, 1, "<bytes>", "Send buffer of server sockets.", global::buffers),
    ours(entry("tune.memory", Global, 1, "<size>", "Budget of the relay's private memory.", global::memory)),
    ours(entry("tune.ring.buffers", Global, 1, "<number>", "Buffers in each of a shard's rings, a power of two from 2 to 256.", global::ring_buffers)),
    ours(entry("tune.ring.receive", Global, 1, "auto|limit|incremental|bundle|plain", "How shards receive.", global::ring_receive)),

    entry("log", Everywhere, MANY, "global | <target> [len <n>] [format <format>] <facility> [<level> [<minimum>]]",
        "Where log lines go.", log::log),
    entry("maxconn", Everywhere, 1, "<number>", "Most connections at a time, of the process or of a frontend.", proxy::maxconn),

    entry("mode", Both, 1, "tcp", "What the proxy carries.", proxy::mode),
    entry("disabled", Both, 0, "", "The proxy is read and not started.", proxy::disabled),
    entry("enabled", Both, 0, "", "Undoes an inherited 'disabled'.", proxy::enabled),
    entry("option tcpka", Both, 0, "", "TCP keep-alive on both sides.", proxy::option),

    not_in_defaults(entry("bind", Front, MANY, "<address>[,...] [<parameter>...]", "Addresses to listen on.", bind::bind)),
    entry("backlog", Front, 1, "<number>", "Length of the kernel's accept queue.", proxy::backlog),
    entry("clitcpka-cnt", Front, 1, "<number>", "Keep-alive probes before a client is given up.", proxy::keepalive_value),
    entry("clitcpka-idle", Front, 1, "<time>", "Idle time before the first keep-alive probe to a client.", proxy::keepalive_value),
    entry("clitcpka-intvl", Front, 1, "<time>", "Time between keep-alive probes to a client.", proxy::keepalive_value),
    entry("default_backend", Front, 1, "<backend>", "Where connections go.", proxy::default_backend),
    entry("option clitcpka", Front, 0, "", "TCP keep-alive towards clients.", proxy::option),
    entry("option dontlognull", Front, 0, "", "Don't log connections without data.", proxy::option),
    entry("option tcplog", Front, 0, "", "Log a full line at the end of a session.", proxy::option),
    entry("timeout client", Front, 1, "<time>", "Longest silence of a client.", proxy::timeout),
    entry("timeout client-fin", Front, 1, "<time>", "The same once one direction is closed.", proxy::timeout),

    entry("balance", Back, MANY, "roundrobin | leastconn | source", "How a server is chosen.", proxy::balance),
    entry("default-server", Back, MANY, "<parameter>...", "Parameters of the servers that follow.", server::default_server),
    entry("hash-type", Back, 3, "map-based | consistent [sdbm]", "How a hash finds a server.", proxy::hash_type),
    entry("option redispatch", Back, 1, "[<interval>]", "Retries may go to another server.", proxy::option),
    entry("option srvtcpka", Back, 0, "", "TCP keep-alive towards servers.", proxy::option),
    entry("retries", Back, 1, "<number>", "Connection attempts after the first.", proxy::retries),
    not_in_defaults(entry("server", Back, MANY, "<name> <address>:<port> [<parameter>...]", "A server.", server::server)),
    entry("srvtcpka-cnt", Back, 1, "<number>", "Keep-alive probes before a server is given up.", proxy::keepalive_value),
    entry("srvtcpka-idle", Back, 1, "<time>", "Idle time before the first keep-alive probe to a server.", proxy::keepalive_value),
    entry("srvtcpka-intvl", Back, 1, "<time>", "Time between keep-alive probes to a server.", proxy::keepalive_value),
    entry("timeout check", Back, 1, "<time>", "Longest time of a health check.", proxy::timeout),
    entry("timeout connect", Back, 1, "<time>", "Longest time of a connection attempt.", proxy::timeout),
    entry("timeout queue", Back, 1, "<time>", "Longest wait for a free server.", proxy::timeout),
    entry("timeout server", Back, 1, "<time>", "Longest silence of a server.", proxy::timeout),
    entry("timeout server-fin", Back, 1, "<time>", "The same once one direction is closed.", proxy::timeout),
];

/// What the words of a line turn out to be.
pub(super) enum Found {
    /// A keyword and of how many words.
    Keyword(&'static Keyword, usize),
    /// A word of HAProxy that is not implemented.
    Refused(String, Verdict),
    /// None; with a message where the family has one of its own.
    Unknown(Option<String>),
}

/// Finds a line's keyword among those of a section.
pub(super) fn find(words: &[Word], section: SectionKind) -> Found {
    let first = words.first().map_or("", |word| word.text.as_str());
    let second = words.get(1).map_or("", |word| word.text.as_str());
    let family = FAMILIES.contains(&first);
    let name = if family {
        format!("{first} {second}")
    } else {
        first.to_owned()
    };
    let known = KEYWORDS
        .iter()
        .find(|keyword| keyword.name == name && belongs(keyword, section));
    if let Some(keyword) = known {
        return Found::Keyword(keyword, 1 + usize::from(family));
    }
    if let Some(verdict) = refused::find(&name, section) {
        return Found::Refused(name, verdict);
    }
    let in_family = |prefix: &str| {
        KEYWORDS
            .iter()
            .any(|k| k.name.starts_with(prefix) && belongs(k, section))
    };
    Found::Unknown(
        (family && in_family(&format!("{first} "))).then(|| match first {
            "option" if second.is_empty() => "'option' expects an option name.".to_owned(),
            "option" => {
                let near = did_you_mean(closest_of_family(first, second, section));
                let end = if near.is_empty() { "." } else { near.as_str() };
                format!("unknown option '{second}'{end}")
            }
            _ => format!(
                "'{first}' only supports {} (got '{second}')",
                members(first, section)
            ),
        }),
    )
}

fn belongs(keyword: &Keyword, section: SectionKind) -> bool {
    match keyword.side {
        Everywhere => true,
        Global => section == SectionKind::Global,
        Front | Back | Both => section != SectionKind::Global,
    }
}

/// The second words of a family's keywords in a section.
fn family_words(family: &str, section: SectionKind) -> impl Iterator<Item = &'static str> {
    let prefix = format!("{family} ");
    let here = KEYWORDS
        .iter()
        .filter(move |keyword| belongs(keyword, section));
    here.filter_map(move |keyword| keyword.name.strip_prefix(prefix.as_str()))
}

/// `'client', 'connect' and 'server'`
fn members(family: &str, section: SectionKind) -> String {
    let words: Vec<String> = family_words(family, section)
        .map(|w| format!("'{w}'"))
        .collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

fn closest_of_family(family: &str, word: &str, section: SectionKind) -> Option<&'static str> {
    closest(word, family_words(family, section))
}

/// The keyword of a section that is most like `name`.
pub(super) fn closest_keyword(name: &str, section: SectionKind) -> Option<&'static str> {
    let here = KEYWORDS.iter().filter(|keyword| {
        let backend_only = section == SectionKind::Frontend && keyword.side == Back;
        let frontend_only = section == SectionKind::Backend && keyword.side == Front;
        belongs(keyword, section) && !backend_only && !frontend_only
    });
    closest(name, here.map(|keyword| keyword.name))
}

/// The end of a message about an unknown word.
pub(super) fn did_you_mean(candidate: Option<&str>) -> String {
    candidate.map_or_else(String::new, |word| {
        format!("; did you mean '{word}' maybe ?")
    })
}

/// The candidate most like `word`, if any is like it at all.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Keywords are short: a longer word is no typing error, and the distance takes quadratic time.
    if word.is_empty() || word.len() > 40 {
        return None;
    }
    let distances = candidates.map(|candidate| (distance(word, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.len() / 4).then_some(candidate)
}

/// Insertions, deletions, replacements and exchanges of neighbours that turn one word into the
/// other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}
