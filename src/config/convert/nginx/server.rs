//! A `server` block: the frontends that are made of it, and what its backends need.

use super::output::{Output, Section};
use super::settings::{Fate, Settings};
use super::syntax::Directive;
use super::units;
use crate::config::diagnostics::Severity;

const ACCEPT_PROXY: &str = "accept-proxy";

/// What a frontend carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Mode {
    Tcp,
    Udp,
}

impl Mode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Tcp => "tcp",
            Mode::Udp => "udp",
        }
    }
}

/// A `server` block in its parts.
pub(super) struct Server<'a> {
    pub(super) settings: Settings,
    /// The lines of its listeners by their kind: `bind` and what belongs to it.
    binds: Vec<(Mode, Vec<String>)>,
    /// A name of its first listener, for the frontend.
    port: String,
    pub(super) pass: Option<&'a Directive>,
    /// What is left out of it.
    comments: Vec<String>,
}

impl<'a> Server<'a> {
    /// Reads a block; `outer` has the settings of the block around it.
    pub(super) fn read(block: &'a Directive, outer: &Settings, output: &mut Output) -> Server<'a> {
        let (settings, comments) = (outer.clone(), Vec::new());
        let (binds, port) = (Vec::new(), String::new());
        let mut server = Server {
            settings,
            binds,
            port,
            pass: None,
            comments,
        };
        for directive in block.inside() {
            match directive.name() {
                "listen" => server.listen(directive, output),
                "proxy_pass" => server.pass = Some(directive),
                _ => {
                    if let Fate::LeftOut(severity, what) = server.settings.take(directive) {
                        server
                            .comments
                            .push(output.note(severity, directive, &what));
                    }
                }
            }
        }
        server
    }

    pub(super) fn modes(&self) -> Vec<Mode> {
        let has = |mode: &Mode| self.binds.iter().any(|(other, _)| other == mode);
        [Mode::Tcp, Mode::Udp].into_iter().filter(has).collect()
    }

    /// The name that the frontend of a mode should have.
    pub(super) fn name(&self, mode: Mode) -> String {
        format!("{}_{}", mode.name(), self.port)
    }

    fn listen(&mut self, directive: &Directive, output: &mut Output) {
        let has = |word: &str| directive.args().iter().any(|arg| arg == word);
        let mode = if has("udp") { Mode::Udp } else { Mode::Tcp };
        let address = directive.arg(0);
        let is_port = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let (bind, port) = match (address.strip_prefix("unix:"), address.rsplit_once(':')) {
            (Some(path), _) => (
                format!("unix@{path}"),
                path.rsplit('/').next().unwrap_or(path),
            ),
            (None, None) if is_port(address) => (format!(":{address}"), address),
            (None, Some((_, port))) if is_port(port) => (address.to_owned(), port),
            _ => {
                let what = "not carried over: no port";
                return self
                    .comments
                    .push(output.note(Severity::Warning, directive, what));
            }
        };
        if self.port.is_empty() {
            self.port = port.trim_end_matches(".sock").to_owned();
        }
        let mut line = vec!["bind".to_owned(), bind];
        // An IPv6 wildcard of nginx takes IPv6 alone unless told otherwise.
        if address.starts_with("[::]:") {
            line.push(
                if has("ipv6only=off") {
                    "v4v6"
                } else {
                    "v6only"
                }
                .to_owned(),
            );
        }
        for parameter in directive.args().iter().skip(1) {
            self.listen_parameter(directive, parameter, mode, &mut line, output);
        }
        self.binds.push((mode, line));
    }

    fn listen_parameter(
        &mut self,
        directive: &Directive,
        parameter: &str,
        mode: Mode,
        line: &mut Vec<String>,
        output: &mut Output,
    ) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let is_number = value.parse::<u32>().is_ok();
        let (severity, what) = match name {
            "backlog" | "deferred" | "fastopen" | "so_keepalive" if mode == Mode::Udp => {
                (Severity::Warning, "it means nothing to datagrams")
            }
            "rcvbuf" if mode == Mode::Udp => (
                Severity::Notice,
                "'tune.udp.rcvbuf' sets it for all listeners of datagrams",
            ),
            "udp" | "reuseport" | "bind" | "default_server" | "ipv6only" => return,
            "backlog" if is_number => return line.extend(["backlog".to_owned(), value.to_owned()]),
            "proxy_protocol" => return line.push(ACCEPT_PROXY.to_owned()),
            "deferred" => return line.push("defer-accept".to_owned()),
            "fastopen" => return line.push("tfo".to_owned()),
            "so_keepalive" if value == "off" => return,
            "so_keepalive" => return self.binds.extend(keepalive(mode, value)),
            "rcvbuf" => (
                Severity::Notice,
                "'tune.rcvbuf.client' sets it for all listeners",
            ),
            "sndbuf" => (
                Severity::Notice,
                "'tune.sndbuf.client' sets it for all listeners",
            ),
            "ssl" => (Severity::Alert, "TLS is not terminated here"),
            _ => (Severity::Warning, "this parameter is not carried over"),
        };
        let what = format!("'{parameter}': {what}");
        self.comments.push(output.note(severity, directive, &what));
    }

    /// Writes what the accepting side of a mode has.
    pub(super) fn write_front(&self, mode: Mode, outer: &Settings, section: &mut Section) {
        self.comments
            .iter()
            .for_each(|comment| section.comment(comment));
        if mode == Mode::Udp {
            section.add(&["mode", "udp"]);
        }
        for (_, line) in self.binds.iter().filter(|(other, _)| *other == mode) {
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            section.add(&words);
        }
        if self.settings.timeout != outer.timeout {
            section.add(&["timeout", "client", &self.settings.timeout]);
        }
        if mode == Mode::Udp {
            // Those who never get an answer stay with their server as long as the others.
            section.add(&["timeout", "udp-unconfirmed", &self.settings.timeout]);
        }
        let is_proxied = |(other, line): &(Mode, Vec<String>)| {
            *other == mode && line.iter().any(|word| word == ACCEPT_PROXY)
        };
        if mode == Mode::Tcp && self.binds.iter().any(is_proxied) {
            section.add(&["timeout", "client-hs", &self.settings.timeout_header]);
        }
        if mode == Mode::Udp {
            let requests = ("udp-requests", &self.settings.udp_requests);
            let responses = ("udp-responses", &self.settings.udp_responses);
            for (keyword, value) in [requests, responses] {
                value
                    .iter()
                    .for_each(|value| section.add(&[keyword, value]));
            }
        }
    }

    /// The lines of the connecting side, apart from its servers.
    pub(super) fn back_lines(&self, mode: Mode, outer: &Settings) -> Vec<Vec<String>> {
        let own = &self.settings;
        let mut lines: Vec<Vec<String>> = Vec::new();
        let mut add = |line: &[&str]| lines.push(line.iter().map(|w| (*w).to_owned()).collect());
        let connects = mode == Mode::Tcp;
        if connects && own.timeout_connect != outer.timeout_connect {
            add(&["timeout", "connect", &own.timeout_connect]);
        }
        if own.timeout != outer.timeout {
            add(&["timeout", "server", &own.timeout]);
        }
        if connects && own.retries() != outer.retries() {
            add(&["retries", &own.retries()]);
        }
        match (own.next_upstream, outer.next_upstream) {
            (true, false) if connects => add(&["option", "redispatch", "1"]),
            (false, true) if connects => add(&["no", "option", "redispatch"]),
            _ => {}
        }
        if connects && own.keepalive {
            add(&["option", "srvtcpka"]);
        }
        if !own.source.is_empty() {
            let source = own.source.iter().map(String::as_str);
            add(&std::iter::once("source").chain(source).collect::<Vec<_>>());
        }
        lines
    }

    /// What each server line has beside its own parameters.
    pub(super) fn server_parameters(&self, mode: Mode) -> Vec<String> {
        let word = match mode {
            Mode::Tcp => "send-proxy",
            // Version 1 knows no datagrams.
            Mode::Udp => "send-proxy-v2",
        };
        let send_proxy = self.settings.send_proxy.then(|| word.to_owned());
        send_proxy.into_iter().collect()
    }
}

/// `so_keepalive=on` or `so_keepalive=IDLE:INTERVAL:COUNT`, each of which may be left out.
fn keepalive(mode: Mode, value: &str) -> Vec<(Mode, Vec<String>)> {
    let mut lines = vec![vec!["option".to_owned(), "clitcpka".to_owned()]];
    if value != "on" {
        let mut parts = value.split(':');
        for keyword in ["clitcpka-idle", "clitcpka-intvl", "clitcpka-cnt"] {
            let part = parts.next().unwrap_or_default();
            let value = match keyword {
                "clitcpka-cnt" => part.parse::<u32>().ok().map(|count| count.to_string()),
                _ => units::converted(part),
            };
            lines.extend(value.map(|value| vec![keyword.to_owned(), value]));
        }
    }
    lines.into_iter().map(|line| (mode, line)).collect()
}
