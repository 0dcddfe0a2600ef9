//! The configuration while its lines are read: values typed, names not yet looked up.
//!
//! A `Settings` is what a proxy may inherit from `defaults`; it starts as a clone of the defaults
//! it inherits and is then overwritten line by line. `resolve` turns the whole into a `Plan`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostics::Place;
use super::draft_check::CheckDraft;
use super::draft_udp::UdpSettings;
use super::parse::acl::Acl;
use super::plan::{
    Endpoint, Expression, Global, HashMethod, InitState, KeepAlive, LogTarget, OnError, Pages,
    ProxyKind, ServerKey, ServerOrigin, Sockets, SourceCondition, SpliceOptions, Target,
};
use super::raw::token::Word;
use super::values::address::Family;
use super::values::threads::ThreadSet;
use crate::base::address::Address;
use crate::base::source::{ShortName, Source};

/// Everything read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) global: Global,
    /// `unix-bind`: what Unix sockets of later `bind` lines begin with.
    pub(super) unix_bind: UnixBind,
    /// `tune.listener.default-shards`
    pub(super) default_sockets: Option<Sockets>,
    pub(super) proxies: Vec<ProxyDraft>,
    /// `server-state-file`
    pub(super) server_state_file: Option<String>,
    /// `server-state-base`
    pub(super) server_state_base: Option<String>,
    /// Servers of the files that runtime commands have deleted, by backend and name.
    pub(super) deleted: Vec<(String, String)>,
}

/// A proxy, or the `defaults` section at hand.
#[derive(Clone, Debug)]
pub(super) struct ProxyDraft {
    pub(super) name: String,
    pub(super) kind: ProxyKind,
    pub(super) place: Place,
    /// `id`, and where it was given.
    pub(super) id: Option<(u32, Place)>,
    /// `guid`, and where it was given.
    pub(super) guid: Option<(String, Place)>,
    pub(super) description: String,
    pub(super) settings: Settings,
    pub(super) binds: Vec<BindDraft>,
    pub(super) servers: Vec<ServerDraft>,
}

/// What is inherited. `None` = not set.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) timeouts: Timeouts,
    pub(super) maxconn: Option<u32>,
    pub(super) backlog: Option<u32>,
    pub(super) session_rate: u32,
    pub(super) retries: Option<u16>,
    pub(super) redispatch: Option<i16>,
    pub(super) tcplog: bool,
    /// `option httplog` or `option httpslog`, which ask for a full line too.
    pub(super) http_log: bool,
    pub(super) smart_accept: bool,
    pub(super) dontlognull: bool,
    pub(super) socket_stats: bool,
    pub(super) dontlog_normal: bool,
    pub(super) log_separate_errors: bool,
    pub(super) log_health_checks: bool,
    /// `log-format` and what else is said of log lines.
    pub(super) lines: LineWords,
    /// What kind of check it is, and its lines.
    pub(super) check_kind: CheckDraft,
    pub(super) allbackups: bool,
    /// 0 = not set.
    pub(super) fullconn: u32,
    /// `option tcpka`: both sides.
    pub(super) keepalive_both: bool,
    pub(super) keepalive_client: bool,
    pub(super) keepalive_server: bool,
    pub(super) keepalive_client_values: KeepAlive,
    pub(super) keepalive_server_values: KeepAlive,
    pub(super) balance: Option<BalanceWord>,
    pub(super) hash_method: Option<HashMethod>,
    /// `hash-balance-factor`, 0 = none.
    pub(super) hash_factor: u32,
    pub(super) default_backend: Option<(String, Place)>,
    /// The first `use_backend` without a condition.
    pub(super) use_backend: Option<(String, Place)>,
    pub(super) logs: Vec<LogEntry>,
    pub(super) server: ServerSettings,
    pub(super) disabled: bool,
    pub(super) nolinger: bool,
    pub(super) independent_streams: bool,
    pub(super) abortonclose: bool,
    pub(super) smart_connect: bool,
    /// What only `mode udp` has.
    pub(super) udp: UdpSettings,
    pub(super) splice: SpliceOptions,
    /// `source` of the proxy.
    pub(super) source: Option<Source>,
    /// What a proxy in `mode http` answers with; times are set when the plan is made.
    pub(super) pages: Pages,
    /// `acl`, by name.
    pub(super) acls: BTreeMap<String, Acl>,
    /// `tcp-request connection expect-proxy layer4`.
    pub(super) expect_proxy: Vec<SourceCondition>,
    /// `load-server-state-from-file`
    pub(super) state_source: StateSource,
    /// `server-state-file-name`; `None` = the backend's name.
    pub(super) state_file_name: Option<String>,
}

/// Where the state of a backend's servers comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum StateSource {
    /// Nowhere.
    #[default]
    None,
    /// The file of all backends.
    Global,
    /// A file of its own.
    Local,
}

/// What a proxy carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Mode {
    #[default]
    Tcp,
    Udp,
    /// Requests, which are only answered: a proxy that has any to pass on isn't read.
    Http,
}

impl Mode {
    /// The mode of a word, if it is one of them.
    pub(super) fn named(word: &str) -> Option<Mode> {
        match word {
            "tcp" => Some(Mode::Tcp),
            "udp" => Some(Mode::Udp),
            "http" => Some(Mode::Http),
            _ => None,
        }
    }

    /// Its word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Tcp => "tcp",
            Mode::Udp => "udp",
            Mode::Http => "http",
        }
    }
}

/// The `timeout` lines, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeouts {
    pub(super) client: Option<u32>,
    pub(super) client_fin: Option<u32>,
    pub(super) client_hs: Option<u32>,
    pub(super) connect: Option<u32>,
    pub(super) server: Option<u32>,
    pub(super) server_fin: Option<u32>,
    pub(super) queue: Option<u32>,
    pub(super) check: Option<u32>,
    pub(super) tunnel: Option<u32>,
    pub(super) udp: Option<u32>,
    pub(super) udp_unconfirmed: Option<u32>,
    pub(super) udp_mapping: Option<u32>,
    pub(super) http_request: Option<u32>,
    pub(super) http_keep_alive: Option<u32>,
}

/// `balance` without its hash type, which has a line of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BalanceWord {
    RoundRobin,
    StaticRr,
    LeastConn,
    First,
    PeakEwma,
    /// So many draws.
    Random(u32),
    Source,
    Hash(Expression),
}

/// A `log` line of a proxy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LogEntry {
    /// `log global`
    Global,
    Target(Arc<LogTarget>),
}

/// What is said of the lines of sessions beyond options.
#[derive(Clone, Debug, Default)]
pub(super) struct LineWords {
    /// `log-format`.
    pub(super) line: Option<FormatWord>,
    /// `log-format-sd`.
    pub(super) structured: Option<FormatWord>,
    /// `error-log-format`.
    pub(super) error: Option<FormatWord>,
    /// `unique-id-format`.
    pub(super) unique_id: Option<FormatWord>,
    /// `option logasap`.
    pub(super) asap: bool,
    /// `log-tag`.
    pub(super) tag: Option<String>,
}

/// The form of a line, as it is written.
#[derive(Clone, Debug)]
pub(super) struct FormatWord {
    pub(super) word: Word,
    pub(super) place: Place,
}

/// A `bind` line.
#[derive(Clone, Debug)]
pub(super) struct BindDraft {
    pub(super) place: Place,
    /// The addresses as they are written.
    pub(super) addresses: String,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) settings: BindSettings,
}

/// The parameters of a `bind` line.
#[derive(Clone, Debug, Default)]
pub(super) struct BindSettings {
    pub(super) name: String,
    pub(super) socket_id: Option<u32>,
    pub(super) threads: Option<ThreadSet>,
    pub(super) sockets: Option<Sockets>,
    pub(super) interface: Option<String>,
    pub(super) transparent: bool,
    pub(super) fast_open: bool,
    pub(super) mss: u16,
    pub(super) congestion: Option<String>,
    pub(super) nice: i16,
    pub(super) backlog: Option<u32>,
    pub(super) maxconn: u32,
    pub(super) defer_accept: bool,
    pub(super) v6only: Option<bool>,
    pub(super) tcp_user_timeout_ms: u32,
    pub(super) accept_proxy: bool,
    pub(super) owner: Owner,
}

/// The `unix-bind` lines.
#[derive(Clone, Debug, Default)]
pub(super) struct UnixBind {
    /// Stands before every path.
    pub(super) prefix: String,
    pub(super) owner: Owner,
}

/// Mode and owner of a Unix socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owner {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A `server` line.
#[derive(Clone, Debug)]
pub(super) struct ServerDraft {
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) address: Target,
    pub(super) address_text: String,
    /// Whether it is in the files.
    pub(super) origin: ServerOrigin,
    /// What the files say of its address, where a runtime command has said something else.
    pub(super) moved_from: Option<Target>,
    pub(super) settings: ServerSettings,
}

/// The parameters of a `server` or `default-server` line.
#[derive(Clone, Debug)]
pub(super) struct ServerSettings {
    pub(super) weight: u16,
    pub(super) maxconn: u32,
    pub(super) minconn: u32,
    pub(super) maxqueue: u32,
    pub(super) backup: bool,
    pub(super) disabled: bool,
    pub(super) check: bool,
    pub(super) inter_ms: u32,
    pub(super) fast_inter_ms: Option<u32>,
    pub(super) down_inter_ms: Option<u32>,
    pub(super) fall: u16,
    pub(super) rise: u16,
    /// `slowstart`, 0 = none.
    pub(super) slow_start_ms: u32,
    /// `slowstart-steps`; empty = not set.
    pub(super) slow_start_steps: Vec<u8>,
    /// `slowstart-connrate`, 0 = not set.
    pub(super) slow_start_rate: u32,
    pub(super) check_port: Option<u16>,
    pub(super) check_address: Option<Address>,
    /// The port of `addr`, which `port` overrules.
    pub(super) check_address_port: Option<u16>,
    pub(super) init_state: InitState,
    pub(super) agent: AgentSettings,
    /// `track`: the backend, if it is named, and the server.
    pub(super) tracks: Option<(Option<String>, String)>,
    /// `on-marked-down shutdown-sessions`
    pub(super) ends_sessions: bool,
    /// `on-marked-up shutdown-backup-sessions`
    pub(super) ends_backup_sessions: bool,
    pub(super) passive: PassiveSettings,
    pub(super) tcp_user_timeout_ms: u32,
    /// Its own `source`; the proxy's holds where it has none.
    pub(super) source: Option<Source>,
    /// `send-proxy` and what belongs to it.
    pub(super) send_proxy: SendProxyWords,
    /// `resolve-prefer`.
    pub(super) family_preferred: Option<Family>,
    /// `cc`.
    pub(super) congestion: Option<ShortName>,
    /// `init-addr`; empty = not set.
    pub(super) init_addr: Vec<InitAddr>,
    /// `id`.
    pub(super) sid: Option<u32>,
    /// `guid`.
    pub(super) guid: Option<String>,
    pub(super) hash_key: ServerKey,
    /// `quic-id`; empty = not set.
    pub(super) quic_id: Vec<u8>,
    /// Whether the file has it resolved by `resolvers`.
    pub(super) has_resolvers: bool,
}

/// `agent-check` and its like.
#[derive(Clone, Debug, Default)]
pub(super) struct AgentSettings {
    pub(super) asked: bool,
    pub(super) address: Option<std::net::IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) inter_ms: Option<u32>,
    pub(super) question: String,
}

/// The words about PROXY headers: each switches something on or off by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct SendProxyWords {
    /// `send-proxy`.
    pub(super) first: bool,
    /// `send-proxy-v2` and its longer forms.
    pub(super) second: bool,
    /// `send-proxy-v2-ssl`, `send-proxy-v2-ssl-cn`, and the options that speak of TLS.
    pub(super) tls: bool,
    pub(super) checksum: bool,
    pub(super) unique_id: bool,
    pub(super) authority: bool,
    /// `check-send-proxy`.
    pub(super) checks: bool,
}

/// What traffic may say of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct PassiveSettings {
    pub(super) observe: Observed,
    pub(super) error_limit: u32,
    pub(super) on_error: OnError,
    /// `max-fails`; 0 turns an inherited one off.
    pub(super) max_fails: Option<u16>,
    pub(super) fail_timeout_ms: Option<u32>,
}

impl Default for PassiveSettings {
    fn default() -> Self {
        PassiveSettings {
            observe: Observed::Nothing,
            error_limit: 10,
            on_error: OnError::default(),
            max_fails: None,
            fail_timeout_ms: None,
        }
    }
}

/// `observe`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Observed {
    Nothing,
    /// Connections.
    Layer4,
    /// What HTTP servers answer: nothing that is seen here.
    Layer7,
}

/// A way to a server's first address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InitAddr {
    /// The one of a state file, of which none is taken.
    Last,
    /// The C library's resolver.
    Libc,
    /// None: it starts without.
    None,
    /// This one.
    Ip(std::net::IpAddr),
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            weight: 1,
            maxconn: 0,
            minconn: 0,
            maxqueue: 0,
            backup: false,
            disabled: false,
            check: false,
            inter_ms: 2_000,
            fast_inter_ms: None,
            down_inter_ms: None,
            fall: 3,
            rise: 2,
            slow_start_ms: 0,
            slow_start_steps: Vec::new(),
            slow_start_rate: 0,
            check_port: None,
            check_address: None,
            check_address_port: None,
            init_state: InitState::Up,
            agent: AgentSettings::default(),
            tracks: None,
            ends_sessions: false,
            ends_backup_sessions: false,
            passive: PassiveSettings::default(),
            tcp_user_timeout_ms: 0,
            source: None,
            send_proxy: SendProxyWords::default(),
            family_preferred: None,
            congestion: None,
            init_addr: Vec::new(),
            sid: None,
            guid: None,
            hash_key: ServerKey::default(),
            quic_id: Vec::new(),
            has_resolvers: false,
        }
    }
}
