//! An `upstream` block: what stands in the backends that are made of it.

use super::output::{Names, Output, Section};
use super::server::Mode;
use super::syntax::Directive;
use super::units;
use crate::config::diagnostics::Severity;
use crate::config::parse::passive::MAX_FAILS_MAX;

/// Largest weight of HAProxy's language.
const WEIGHT_MAX: u32 = 256;
/// The words of a server line before its parameters: the keyword, a name, an address.
const SERVER_WORDS: usize = 3;
/// What ends an address whose port is the one that the client has connected to.
pub(super) const SERVER_PORT: &str = ":$server_port";

/// A line of a backend.
#[derive(Debug)]
enum Line {
    Comment(String),
    Words(Vec<String>),
    /// A `server`, which gets the parameters that `proxy_*` asks for.
    Server(Vec<String>),
}

/// What nginx takes of servers of which nothing is said, where there are several.
const FAILS_DEFAULT: &str = "default-server max-fails 1 fail-timeout 10s";
/// What is different about it here.
const FAILS_NOTE_UDP: &str = "Servers that refuse datagrams are out; nginx takes out those that \
                              stay silent as well, here checks tell ('option udp-check').";
const FAILS_NOTE: &str = "When all servers are out nginx tries them all, here clients are refused \
                          until one can be connected to, which is tried every second.";

/// The lines of an upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    lines: Vec<Line>,
    /// It has one server at most: nginx never counts its failures.
    is_single: bool,
}

impl Upstream {
    /// Reads a block.
    pub(super) fn read(block: &Directive, output: &mut Output) -> Upstream {
        let mut balance: [Vec<String>; 2] = [words("balance roundrobin"), Vec::new()];
        let mut names = Names::default();
        let mut lines = Vec::new();
        let servers = block
            .inside()
            .iter()
            .filter(|inside| inside.name() == "server");
        let is_single = servers.count() <= 1;
        for directive in block.inside() {
            let method = match directive.name() {
                "server" => {
                    server(directive, is_single, &mut names, &mut lines, output);
                    continue;
                }
                "least_conn" => Ok([words("balance leastconn"), Vec::new()]),
                "hash" => hash(directive),
                "random" => {
                    if directive.arg(1).starts_with("least_time") {
                        let what = "of two servers the one with fewer connections is taken, not \
                                    the quicker one";
                        let comment = output.note(Severity::Notice, directive, what);
                        lines.push(Line::Comment(comment));
                    }
                    Ok([words(random(directive)), Vec::new()])
                }
                "ip_hash" => {
                    let what = "nginx hashes the first three bytes of an IPv4 address, 'balance \
                                source' the whole of it";
                    lines.push(Line::Comment(output.note(
                        Severity::Notice,
                        directive,
                        what,
                    )));
                    Ok([words("balance source"), Vec::new()])
                }
                name => Err(left_out(name)),
            };
            match method {
                Ok(method) => balance = method,
                Err((severity, what)) => {
                    lines.push(Line::Comment(output.note(severity, directive, what)));
                }
            }
        }
        let balance = balance
            .into_iter()
            .filter(|line| !line.is_empty())
            .map(Line::Words);
        Upstream {
            lines: balance.chain(lines).collect(),
            is_single,
        }
    }

    /// How many lines it has.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether a server has a parameter with this value; empty = one that has none.
    fn has(&self, name: &str, value: &str) -> bool {
        self.lines.iter().any(|line| {
            let Line::Server(words) = line else {
                return false;
            };
            let mut words = words.iter().skip(SERVER_WORDS);
            let found = words.any(|word| word == name);
            found && (value.is_empty() || words.next().is_some_and(|word| word == value))
        })
    }

    /// Whether nothing is said of some server's failures.
    fn leaves_fails_open(&self) -> bool {
        self.lines.iter().any(|line| {
            let Line::Server(words) = line else {
                return false;
            };
            let says = |word: &String| ["max-fails", "fail-timeout"].contains(&word.as_str());
            !words.iter().skip(SERVER_WORDS).any(says)
        })
    }

    /// Writes the lines into a backend.
    pub(super) fn write(&self, mode: Mode, parameters: &[String], section: &mut Section) {
        let mut parameters = parameters.to_vec();
        if self.has("backup", "") && self.has("max-fails", "0") {
            section.comment("nginx takes a backup server when connections fail, here checks tell.");
            parameters.push("check".to_owned());
        }
        if !self.is_single {
            section.comment(match mode {
                Mode::Tcp => FAILS_NOTE,
                Mode::Udp => FAILS_NOTE_UDP,
            });
            if self.leaves_fails_open() {
                add(section, &words(FAILS_DEFAULT), &[]);
            }
        }
        for line in &self.lines {
            match line {
                Line::Comment(comment) => section.comment(comment),
                Line::Words(words) => add(section, words, &[]),
                Line::Server(words) => add(section, words, &parameters),
            }
        }
    }
}

fn add(section: &mut Section, words: &[String], more: &[String]) {
    let words: Vec<&str> = words.iter().chain(more).map(String::as_str).collect();
    section.add(&words);
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Why a directive of an upstream is left out.
fn left_out(name: &str) -> (Severity, &'static str) {
    match name {
        "zone" => (
            Severity::Notice,
            "not needed: the state of servers is shared anyway",
        ),
        "keepalive" | "keepalive_requests" | "keepalive_time" | "keepalive_timeout" => (
            Severity::Notice,
            "connections to servers are not kept: each serves one client",
        ),
        "sticky" => (
            Severity::Warning,
            "not carried over: sessions stick by 'balance source'",
        ),
        "least_time" => (
            Severity::Warning,
            "not carried over; 'balance leastconn' is the nearest",
        ),
        "resolver" | "resolver_timeout" => (Severity::Notice, "names are resolved at the start"),
        _ => (Severity::Warning, "not carried over"),
    }
}

/// `hash KEY [consistent]`, where HAProxy's language has the key.
fn hash(directive: &Directive) -> Result<[Vec<String>; 2], (Severity, &'static str)> {
    let balance = match directive.arg(0).replace(['{', '}'], "").as_str() {
        "$remote_addr" | "$binary_remote_addr" => "balance source",
        "$remote_port" => "balance hash src_port",
        "$remote_addr$remote_port"
        | "$remote_addr:$remote_port"
        | "$binary_remote_addr$remote_port" => "balance hash src+port",
        "$server_addr" => "balance hash dst",
        "$server_port" => "balance hash dst_port",
        "$ssl_preread_server_name" => "balance hash req.ssl_sni",
        _ => {
            let what = "not carried over: there is no such key to hash by";
            return Err((Severity::Warning, what));
        }
    };
    let consistent = directive.arg(1) == "consistent";
    let kind = if consistent {
        words("hash-type consistent")
    } else {
        Vec::new()
    };
    Ok([words(balance), kind])
}

/// Without `two` nginx draws one server; the one of two that has fewer connections otherwise.
fn random(directive: &Directive) -> &'static str {
    if directive.arg(0) == "two" {
        "balance random(2)"
    } else {
        "balance random(1)"
    }
}

/// A `server` line.
fn server(
    directive: &Directive,
    is_single: bool,
    names: &mut Names,
    lines: &mut Vec<Line>,
    output: &mut Output,
) {
    let Some(target) = Target::parse(directive.arg(0)) else {
        let what = "not carried over: no address";
        return lines.push(Line::Comment(output.note(
            Severity::Warning,
            directive,
            what,
        )));
    };
    if target.port_missing {
        let what = "without a port nginx takes 80 (in 'http')";
        lines.push(Line::Comment(output.note(
            Severity::Notice,
            directive,
            what,
        )));
    }
    let mut line = vec!["server".to_owned(), target.name(names), target.address];
    for parameter in directive.args().iter().skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let time = || units::converted(value);
        let number = |max: u32| {
            value
                .parse()
                .ok()
                .map(|number: u32| number.min(max).to_string())
        };
        let pair = match name {
            "max_fails" | "fail_timeout" if is_single => {
                let what = format!("'{name}' means nothing to nginx where there is one server");
                lines.push(Line::Comment(output.note(
                    Severity::Notice,
                    directive,
                    &what,
                )));
                continue;
            }
            "weight" => number(WEIGHT_MAX).map(|weight| ("weight", weight)),
            "max_conns" => number(u32::MAX).map(|number| ("maxconn", number)),
            "max_fails" => number(u32::from(MAX_FAILS_MAX)).map(|number| ("max-fails", number)),
            // A server that is out for no time is never out.
            "fail_timeout" if units::time(value) == Some(0) => Some(("max-fails", "0".to_owned())),
            "fail_timeout" => time().map(|time| ("fail-timeout", time)),
            "slow_start" => time().map(|time| ("slowstart", time)),
            "backup" => Some(("backup", String::new())),
            "down" => Some(("disabled", String::new())),
            _ => None,
        };
        match pair {
            Some((name, value)) => {
                line.push(name.to_owned());
                line.extend(Some(value).filter(|value| !value.is_empty()));
            }
            None => {
                let what = format!("'{name}' is not carried over");
                lines.push(Line::Comment(output.note(
                    Severity::Warning,
                    directive,
                    &what,
                )));
            }
        }
    }
    lines.push(Line::Server(line));
}

/// Where to connect to.
pub(super) struct Target {
    /// As HAProxy writes it.
    pub(super) address: String,
    host: String,
    port: String,
    port_missing: bool,
}

impl Target {
    /// Reads an address; `None` = there is none.
    pub(super) fn parse(text: &str) -> Option<Target> {
        if let Some(path) = text.strip_prefix("unix:") {
            let name = path.rsplit('/').next().unwrap_or(path);
            return (!path.is_empty()).then(|| Target {
                address: format!("unix@{path}"),
                host: name.trim_end_matches(".sock").to_owned(),
                port: String::new(),
                port_missing: false,
            });
        }
        if text.is_empty() || text.starts_with('$') {
            return None;
        }
        if let Some(host) = text.strip_suffix(SERVER_PORT) {
            return Some(Target {
                address: format!("{host}:"),
                host: host.trim_matches(['[', ']']).to_owned(),
                port: String::new(),
                port_missing: false,
            });
        }
        let numeric = |port: &&str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let split = text.rsplit_once(':').filter(|(_, port)| numeric(port));
        let (host, port) = split.unwrap_or((text, "80"));
        Some(Target {
            address: format!("{host}:{port}"),
            host: host.trim_matches(['[', ']']).to_owned(),
            port: port.to_owned(),
            port_missing: split.is_none(),
        })
    }

    /// A name for the server: its host, with the port where the host has several.
    pub(super) fn name(&self, names: &mut Names) -> String {
        if names.is_free(&self.host) || self.port.is_empty() {
            return names.unique(&self.host);
        }
        names.unique(&format!("{}_{}", self.host, self.port))
    }
}
