//! The directives that the `stream` block and each `server` in it may have, and what of them has
//! no place in HAProxy's language.

use super::syntax::Directive;
use super::units;
use crate::config::diagnostics::Severity;

/// Settings of a server, inherited from the block around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub(super) timeout: String,
    pub(super) timeout_connect: String,
    /// The wait for a PROXY header.
    pub(super) timeout_header: String,
    /// Whether another server is tried, and how many in all; 0 = each once.
    pub(super) next_upstream: bool,
    pub(super) tries: u32,
    pub(super) send_proxy: bool,
    /// Arguments of `source`.
    pub(super) source: Vec<String>,
    pub(super) keepalive: bool,
    pub(super) udp_responses: Option<String>,
    pub(super) udp_requests: Option<String>,
}

impl Default for Settings {
    /// nginx's defaults.
    fn default() -> Self {
        Settings {
            timeout: units::written(600_000),
            timeout_connect: units::written(60_000),
            timeout_header: units::written(30_000),
            next_upstream: true,
            tries: 0,
            send_proxy: false,
            source: Vec::new(),
            keepalive: false,
            udp_responses: None,
            udp_requests: None,
        }
    }
}

/// What has become of a directive.
pub(super) enum Fate {
    Kept,
    LeftOut(Severity, String),
}

const TLS: &str = "TLS is not terminated here, bytes are passed on as they are";
const ACCESS: &str = "access rules are not carried over, everybody may connect";
const LOGS: &str = "not carried over; 'log' and 'option tcplog' log sessions";
const TRUST: &str = "a PROXY header is believed whoever sends it; let nobody else connect, or use \
                     'tcp-request connection expect-proxy' with a condition";
const RATES: &str = "bandwidth is not limited";

/// Directives that are left out. A name that ends in `*` stands for all that begin with it.
const LEFT_OUT: &[(&str, Severity, &str)] = &[
    ("access_log", Severity::Notice, LOGS),
    ("allow", Severity::Alert, ACCESS),
    ("deny", Severity::Alert, ACCESS),
    ("error_log", Severity::Notice, LOGS),
    (
        "include",
        Severity::Warning,
        "not followed; convert that file too",
    ),
    (
        "limit_conn*",
        Severity::Warning,
        "limits per client are not carried over",
    ),
    ("log_format", Severity::Notice, LOGS),
    (
        "proxy_buffer_size",
        Severity::Notice,
        "not needed: buffers are managed by the program",
    ),
    (
        "preread_*",
        Severity::Notice,
        "not needed: nothing is read before a server is chosen",
    ),
    ("proxy_download_rate", Severity::Warning, RATES),
    (
        "proxy_next_upstream_timeout",
        Severity::Warning,
        "only the number of tries is limited",
    ),
    ("proxy_ssl*", Severity::Alert, TLS),
    ("proxy_upload_rate", Severity::Warning, RATES),
    (
        "resolver*",
        Severity::Notice,
        "names are resolved at the start",
    ),
    (
        "return",
        Severity::Warning,
        "not carried over: there is nothing that answers by itself",
    ),
    ("set_real_ip_from", Severity::Warning, TRUST),
    (
        "ssl_preread",
        Severity::Warning,
        "routing by TLS server names is not carried over",
    ),
    ("ssl*", Severity::Alert, TLS),
];

impl Settings {
    /// Takes a directive.
    pub(super) fn take(&mut self, directive: &Directive) -> Fate {
        let value = directive.arg(0);
        let is_time = units::converted(value);
        match (directive.name(), is_time) {
            ("proxy_timeout", Some(time)) => self.timeout = time,
            ("proxy_connect_timeout", Some(time)) => self.timeout_connect = time,
            ("proxy_protocol_timeout", Some(time)) => self.timeout_header = time,
            ("proxy_next_upstream", _) => self.next_upstream = value != "off",
            ("proxy_next_upstream_tries", _) if value.parse::<u32>().is_ok() => {
                self.tries = value.parse().unwrap_or(0);
            }
            ("proxy_protocol", _) => self.send_proxy = value == "on",
            ("proxy_bind", _) => return self.source(directive),
            ("proxy_socket_keepalive", _) => self.keepalive = value == "on",
            ("proxy_responses", Some(_)) => self.udp_responses = Some(value.to_owned()),
            // No bound.
            ("proxy_requests", _) if value == "0" => self.udp_requests = None,
            ("proxy_requests", Some(_)) => self.udp_requests = Some(value.to_owned()),
            // Both are so in any case, or as near as can be.
            ("tcp_nodelay" | "proxy_half_close", _) => {}
            (name, _) => return left_out(name, value),
        }
        Fate::Kept
    }

    /// `proxy_bind ADDRESS [transparent]`.
    fn source(&mut self, directive: &Directive) -> Fate {
        let transparent = directive.arg(1) == "transparent";
        let words = match (directive.arg(0), transparent) {
            ("off", _) => vec![],
            ("$remote_addr", true) => vec!["0.0.0.0", "usesrc", "clientip"],
            ("$remote_addr:$remote_port", true) => vec!["0.0.0.0", "usesrc", "client"],
            (address, _) if address.is_empty() || address.contains('$') => {
                let what = "not carried over: the address is a variable".to_owned();
                return Fate::LeftOut(Severity::Warning, what);
            }
            (address, true) => vec!["0.0.0.0", "usesrc", address],
            (address, false) => vec![address],
        };
        self.source = words.into_iter().map(str::to_owned).collect();
        Fate::Kept
    }

    /// How often another server is tried after the first.
    pub(super) fn retries(&self) -> String {
        match (self.next_upstream, self.tries) {
            (false, _) => "0".to_owned(),
            (true, 0) => "3".to_owned(),
            (true, tries) => (tries - 1).to_string(),
        }
    }
}

fn left_out(name: &str, value: &str) -> Fate {
    // What is switched off is missed by nobody, nor is a limit of 0, which is none.
    let is_limit = ["_rate", "_timeout"].iter().any(|end| name.ends_with(end));
    if value == "off" || (is_limit && value == "0") {
        return Fate::Kept;
    }
    let stands_for = |known: &str| match known.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == known,
    };
    let found = LEFT_OUT.iter().find(|(known, _, _)| stands_for(known));
    let (severity, what) = found.map_or((Severity::Warning, "not carried over"), |(_, s, what)| {
        (*s, *what)
    });
    Fate::LeftOut(severity, what.to_owned())
}
