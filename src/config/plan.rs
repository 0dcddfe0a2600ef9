//! The validated configuration: resolved, immutable, shared by `Arc`. All times are milliseconds.
//!
//! Identity is by name (proxy, server) and address, never by the position in a file: positions
//! (`ProxyId`, `ListenerId`, `ServerId`) only index this one plan.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use super::threads::{CpuMap, ThreadSet};
use crate::base::address::Address;
use crate::base::ids::{ListenerId, ProxyId, ServerId};
use crate::base::receive::ReceiveStep;
use crate::base::source::{ShortName, Source};

/// A whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Settings of the process.
    pub global: Global,
    /// Frontends, backends and listens in the order of the files.
    pub proxies: Vec<Arc<Proxy>>,
    /// Every listening address of every frontend; `Front::listeners` indexes it.
    pub listeners: Vec<Arc<Listener>>,
    /// How many server slots the plan uses: `ServerId`s are `0..servers_count`.
    pub servers_count: u32,
}

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct Global {
    /// `maxconn`: connections of the process; `None` = computed from the descriptor limit.
    pub maxconn: Option<u32>,
    /// `maxconnrate`: new connections of the process per second, 0 = any number.
    pub connection_rate: u32,
    /// `maxsessrate`: new sessions of the process per second, 0 = any number.
    pub session_rate: u32,
    /// `nbthread`: shards; `None` = computed from CPUs and cgroup quota.
    pub nbthread: Option<u16>,
    /// `thread-hard-limit`: most shards, however many are asked for or computed.
    pub thread_hard_limit: Option<u16>,
    /// `cpu-map` lines in order; a later one wins.
    pub cpu_maps: Vec<CpuMap>,
    /// `noreuseport` (or `-dR`): every listener has one socket, which its shards share.
    pub noreuseport: bool,
    /// `tune.maxaccept`: connections that a shard takes from a listener per turn; `u32::MAX` =
    /// unlimited, `None` = not set: unlimited on a socket of the shard's own, 4 on a shared one.
    pub maxaccept: Option<u32>,
    /// `log` lines of the global section (proxies refer to them by `log global`).
    pub logs: Vec<LogTarget>,
    /// `log-tag`, `tidegate` by default.
    pub log_tag: String,
    /// `pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `daemon`.
    pub daemon: bool,
    /// `hard-stop-after`: bound of a soft stop.
    pub hard_stop_after_ms: Option<u32>,
    /// `stats socket` lines.
    pub stats_sockets: Vec<StatsSocket>,
    /// `stats timeout`, 10,000 by default.
    pub stats_timeout_ms: u32,
    /// `stats maxconn`, 10 by default.
    pub stats_maxconn: u32,
    /// `tune.rcvbuf.client`, bytes; `None` = the kernel's autotuning.
    pub rcvbuf_client: Option<u32>,
    /// `tune.sndbuf.client`, bytes.
    pub sndbuf_client: Option<u32>,
    /// `tune.rcvbuf.server`, bytes.
    pub rcvbuf_server: Option<u32>,
    /// `tune.sndbuf.server`, bytes.
    pub sndbuf_server: Option<u32>,
    /// Ours, `tune.ring.receive auto|limit|incremental|bundle|plain`: the receive step (debugging).
    pub receive_step: Option<ReceiveStep>,
    /// Ours, `tune.ring.buffers N`: buffers in each of a shard's two rings, a power of two 2..=256,
    /// 8 by default.
    pub ring_buffers: u16,
    /// Ours, `tune.memory SIZE`: budget of private relay memory of the process in bytes; `None` =
    /// computed from RAM and the cgroup's `memory.max`.
    pub memory_bytes: Option<u64>,
    /// `tune.idletimer`: silence after which a direction counts as bulk no more, 0 = never.
    pub idle_timer_ms: u32,
    /// Public seed of hash balancing; `0` unless configured.
    pub hash_seed: u64,
    /// `spread-checks`: percent of the interval by which a check may come sooner or later, 0..=50.
    pub spread_checks_percent: u8,
    /// `max-spread-checks`: longest time between the first and the last of the first checks.
    pub max_spread_checks_ms: Option<u32>,
    /// `log-send-hostname`: the host in the headers of log lines.
    pub log_host: LogHost,
    /// What the process is and may do.
    pub process: ProcessSettings,
}

/// What the process is and may do, beside its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessSettings {
    /// `user` or `uid`, resolved: who it becomes once everything is bound.
    pub user_id: Option<u32>,
    /// `group` or `gid`, resolved.
    pub group_id: Option<u32>,
    /// `chroot`: the directory it is confined to.
    pub chroot: Option<Jail>,
    /// `ulimit-n`: open descriptors.
    pub descriptors: Option<u64>,
    /// `fd-hard-limit`: most descriptors that a computed limit counts on.
    pub descriptors_max: Option<u64>,
    /// `strict-limits`: a limit that can't be set is an error.
    pub strict_limits: bool,
    /// `zero-warning`: warnings are errors.
    pub zero_warning: bool,
    /// `quiet`: no messages.
    pub quiet: bool,
    /// `master-worker`: ends as HAProxy's master does.
    pub master_worker: bool,
    /// `node`: the instance's name; empty = the host's.
    pub node: String,
    /// `description` of the instance.
    pub description: String,
}

/// What `chroot` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Jail {
    /// An empty directory that is made for it and removed at once.
    Auto,
    /// A directory.
    Directory(PathBuf),
}

impl Default for ProcessSettings {
    fn default() -> Self {
        ProcessSettings {
            user_id: None,
            group_id: None,
            chroot: None,
            descriptors: None,
            descriptors_max: None,
            strict_limits: true,
            zero_warning: false,
            quiet: false,
            master_worker: false,
            node: String::new(),
            description: String::new(),
        }
    }
}

impl Default for Global {
    fn default() -> Self {
        Global {
            maxconn: None,
            connection_rate: 0,
            session_rate: 0,
            nbthread: None,
            thread_hard_limit: None,
            cpu_maps: Vec::new(),
            noreuseport: false,
            maxaccept: None,
            logs: Vec::new(),
            log_tag: "tidegate".to_owned(),
            pidfile: None,
            daemon: false,
            hard_stop_after_ms: None,
            stats_sockets: Vec::new(),
            stats_timeout_ms: 10_000,
            stats_maxconn: 10,
            rcvbuf_client: None,
            sndbuf_client: None,
            rcvbuf_server: None,
            sndbuf_server: None,
            receive_step: None,
            ring_buffers: 8,
            memory_bytes: None,
            idle_timer_ms: 1_000,
            hash_seed: 0,
            spread_checks_percent: 0,
            max_spread_checks_ms: None,
            log_host: LogHost::None,
            process: ProcessSettings::default(),
        }
    }
}

impl Global {
    /// The lower one of the two rates, 0 = none: every connection is a session.
    pub fn rate_max(&self) -> u32 {
        let rates = [self.connection_rate, self.session_rate];
        let set = rates.into_iter().filter(|rate| *rate > 0);
        set.min().unwrap_or(0)
    }
}

/// One `stats socket`.
#[derive(Clone, Debug)]
pub struct StatsSocket {
    /// Unix path or TCP address.
    pub address: Address,
    /// `mode`, as an octal file mode.
    pub mode: Option<u32>,
    /// Owner (`uid` or `user`), resolved.
    pub uid: Option<u32>,
    /// Group (`gid` or `group`), resolved.
    pub gid: Option<u32>,
    /// `level`, `Operator` by default.
    pub level: Level,
    /// `expose-fd listeners`: a successor may take the listening sockets (`-x`).
    pub exposes_listeners: bool,
    /// Stands for the socket of HAProxy's master (`-S`).
    pub is_master: bool,
}

/// What a runtime socket's client may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Reads non-sensitive state.
    User,
    /// Reads everything.
    Operator,
    /// Changes things.
    Admin,
}

/// Where log lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogTarget {
    /// The sink.
    pub sink: LogSink,
    /// Longest line in bytes, 1024 by default.
    pub length_max: u16,
    /// Line header.
    pub format: LogFormat,
    /// Syslog facility, 0..=23.
    pub facility: u8,
    /// Highest severity number that is sent (7 = debug, the default).
    pub level_max: u8,
    /// Lowest severity number; more urgent ones are sent with this one (0 = emerg, the default).
    pub level_min: u8,
}

/// A log destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogSink {
    /// UDP syslog, port 514 by default.
    Udp(std::net::SocketAddr),
    /// Unix datagram socket (`/dev/log`).
    UnixDatagram(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// An inherited descriptor (`fd@N`).
    Descriptor(i32),
}

/// Which host log lines come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogHost {
    /// Not said.
    None,
    /// The name of this machine.
    System,
    /// This name.
    Named(String),
}

/// What stands before the message of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// RFC 3164, the default: `<PRI>Mmm dd hh:mm:ss [host ]tag[pid]: `. The host is there with
    /// `log-send-hostname` only.
    Rfc3164,
    /// The same without a host in any case (`local`).
    Local,
    /// RFC 5424: `<PRI>1 time host tag pid - - `, with `-` for a host that isn't sent.
    Rfc5424,
    /// The time as ISO 8601 has it and nothing else.
    Iso,
    /// `<LEVEL>` and that time.
    Timed,
    /// `<PRI>` alone.
    Priority,
    /// `<LEVEL>` in angle brackets, for a supervisor's journal (`short`).
    Short,
    /// Nothing (`raw`).
    Raw,
}

/// A frontend, a backend, or a listen (both).
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its place in `Plan::proxies`.
    pub proxy_id: ProxyId,
    /// HAProxy's numeric id (`iid`): that of the `id` line, else the next free one from 2 on.
    pub iid: u32,
    /// `description`, empty = none.
    pub description: String,
    /// Unique name.
    pub name: Arc<str>,
    /// The section it was written as.
    pub kind: ProxyKind,
    /// The accepting side, of `frontend` and `listen`.
    pub front: Option<Front>,
    /// The connecting side, of `backend` and `listen`.
    pub back: Option<Back>,
    /// Resolved log targets (`log global` expanded).
    pub logs: Vec<LogTarget>,
}

/// The section a proxy was written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyKind {
    /// `frontend`
    Frontend,
    /// `backend`
    Backend,
    /// `listen`
    Listen,
}

/// The accepting side of a proxy.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// Its listeners, indices of `Plan::listeners`.
    pub listeners: Vec<ListenerId>,
    /// Where its connections go; a `listen` without `default_backend` names itself. `None` =
    /// refused with `SC` and `<NOSRV>` as HAProxy does.
    pub default_backend: Option<ProxyId>,
    /// `maxconn`, 0 = only the process's limit.
    pub maxconn: u32,
    /// `rate-limit sessions`: new sessions per second, 0 = any number.
    pub session_rate: u32,
    /// `timeout client`, 0 = infinite.
    pub timeout_client_ms: u32,
    /// `timeout client-fin`, 0 = not set.
    pub timeout_client_fin_ms: u32,
    /// `option tcpka` or `clitcpka`.
    pub keepalive: Option<KeepAlive>,
    /// `option tcplog`.
    pub tcplog: bool,
    /// `option dontlognull`: sessions without a byte from the client are not logged.
    pub dontlognull: bool,
    /// `option dontlog-normal`: nor are those that went well.
    pub dontlog_normal: bool,
    /// `option log-separate-errors`: those that didn't are logged with the level `err`.
    pub log_separate_errors: bool,
    /// `option nolinger`: client connections end by a reset.
    pub nolinger: bool,
    /// `option independent-streams`: what is sent to a client does not show that it is alive.
    pub independent_streams: bool,
}

/// TCP keep-alive settings; `None` = the kernel's own value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeepAlive {
    /// Seconds before the first probe (`clitcpka-idle`, `srvtcpka-idle`).
    pub idle_s: Option<u32>,
    /// Seconds between probes (`-intvl`).
    pub interval_s: Option<u32>,
    /// Probes before giving up (`-cnt`).
    pub count: Option<u32>,
}

/// One listening address.
#[derive(Clone, PartialEq, Debug)]
pub struct Listener {
    /// Its place in `Plan::listeners`.
    pub listener_id: ListenerId,
    /// The frontend it belongs to.
    pub proxy_id: ProxyId,
    /// What it listens on.
    pub endpoint: Endpoint,
    /// HAProxy's numeric id (`so_id`): `id` of the bind line, else the lowest free number from 1
    /// on; unique in its frontend.
    pub socket_id: u32,
    /// `name`, for statistics; empty = unnamed.
    pub name: String,
    /// `thread`: the shards that serve it.
    pub threads: ThreadSet,
    /// `shards`: how many sockets those share.
    pub sockets: Sockets,
    /// `interface`: only what comes in there.
    pub interface: Option<String>,
    /// `transparent`: addresses that are not the machine's.
    pub transparent: bool,
    /// `tfo`: data in the SYN is accepted.
    pub fast_open: bool,
    /// `mss`: TCP_MAXSEG in bytes, 0 = the kernel's.
    pub mss: u16,
    /// `cc`: the congestion control algorithm.
    pub congestion: Option<String>,
    /// `option tcp-smart-accept`: the first data is not acknowledged at once.
    pub delayed_ack: bool,
    /// `nice`, -1024..=1024: a higher one leaves others a larger share of a turn's bulk bytes.
    pub nice: i16,
    /// `backlog`: of the bind line, else of the proxy, else its maxconn; 0 = the program's default.
    pub backlog: u32,
    /// `maxconn` of the bind line, 0 = none.
    pub maxconn: u32,
    /// `defer-accept`.
    pub defer_accept: bool,
    /// `v6only` (`Some(true)`), `v4v6` (`Some(false)`), or neither.
    pub v6only: Option<bool>,
    /// `tcp-ut`: TCP_USER_TIMEOUT in milliseconds, 0 = none.
    pub tcp_user_timeout_ms: u32,
    /// Unix socket: `mode`.
    pub unix_mode: Option<u32>,
    /// Unix socket: owner.
    pub unix_uid: Option<u32>,
    /// Unix socket: group.
    pub unix_gid: Option<u32>,
    /// `file:line` of the bind, for messages.
    pub place: String,
}

impl Listener {
    /// How many sockets serve `shards` shards, and which of the shards have a part in it: the
    /// shard at position `n` of the set accepts from socket `n` modulo the number.
    pub fn spread(&self, shards: u16, global: &Global) -> (ThreadSet, u16) {
        let threads = self.threads.and(ThreadSet::first(shards));
        // Only an address that is ours to bind can have several sockets.
        let one = global.noreuseport || !matches!(self.endpoint, Endpoint::Address(Address::Ip(_)));
        let sockets = match self.sockets {
            _ if one => 1,
            Sockets::ByThread => threads.len(),
            Sockets::Number(number) => number.min(threads.len()),
        };
        (threads, sockets)
    }
}

/// How many sockets a listening address has (`shards`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sockets {
    /// One for each shard that serves it; the kernel spreads the connections.
    ByThread,
    /// So many, shared evenly; 1 also for `by-group` and `by-process`, as there is one group.
    Number(u16),
}

/// What a listener listens on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Endpoint {
    /// An address to bind.
    Address(Address),
    /// A listening socket inherited as a descriptor (`fd@N`).
    Descriptor(i32),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Address(address) => address.fmt(f),
            Endpoint::Descriptor(number) => write!(f, "fd@{number}"),
        }
    }
}

/// The connecting side of a proxy.
#[derive(Clone, Debug, Default)]
pub struct Back {
    /// `balance` with its hash type.
    pub balance: Balance,
    /// `server` lines in order.
    pub servers: Vec<Arc<Server>>,
    /// `timeout connect`, 0 = infinite.
    pub timeout_connect_ms: u32,
    /// `timeout server`, 0 = infinite.
    pub timeout_server_ms: u32,
    /// `timeout server-fin`, 0 = not set.
    pub timeout_server_fin_ms: u32,
    /// `timeout queue`, 0 = as `timeout connect`.
    pub timeout_queue_ms: u32,
    /// `retries`, 3 by default.
    pub retries: u16,
    /// `option redispatch [interval]`: `None` = off; negative = counted from the last retry.
    pub redispatch: Option<i16>,
    /// `option allbackups`: all usable backup servers share the load, not only the first.
    pub allbackups: bool,
    /// `option log-health-checks`: a line per check that changes something.
    pub log_health_checks: bool,
    /// `fullconn`: sessions of the backend at which its servers reach their `maxconn`; 0 = a tenth
    /// of what its frontends may bring.
    pub fullconn: u32,
    /// `option tcpka` or `srvtcpka`.
    pub keepalive: Option<KeepAlive>,
    /// `timeout tunnel`: in place of `timeout client` and `timeout server` once the server is
    /// connected; 0 = not set.
    pub timeout_tunnel_ms: u32,
    /// `option nolinger`: server connections end by a reset.
    pub nolinger: bool,
    /// `option independent-streams`: what is sent to a server does not show that it is alive.
    pub independent_streams: bool,
    /// `option abortonclose`: a client that closes before it has a server is given up.
    pub abortonclose: bool,
    /// `option tcp-smart-connect`: the handshake's last ACK leaves with the first data.
    pub smart_connect: bool,
}

/// How a server is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// Fewest active connections per weight.
    LeastConn,
    /// Hash of the client's address.
    Source(HashType),
}

/// How a hash finds a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HashType {
    /// Modulo over the usable weight.
    MapBased,
    /// A ring of points: when a server goes, only its own clients move.
    Consistent,
}

/// One `server`.
#[derive(Clone, PartialEq, Debug)]
pub struct Server {
    /// Its slot in the process.
    pub server_id: ServerId,
    /// HAProxy's numeric id (`sid`), from 1 on in each backend.
    pub sid: u32,
    /// Name, unique in its backend.
    pub name: Arc<str>,
    /// Where to connect, resolved.
    pub address: Target,
    /// The address as it was written.
    pub address_text: String,
    /// `weight` 0..=256.
    pub weight: u16,
    /// `maxconn`, 0 = unlimited.
    pub maxconn: u32,
    /// `minconn`: what `maxconn` shrinks to while the backend has few sessions; 0 = it doesn't.
    /// Always below `maxconn`.
    pub minconn: u32,
    /// `maxqueue`: most sessions that wait for this server alone, 0 = unlimited.
    pub maxqueue: u32,
    /// `backup`: used only when no other server is usable.
    pub backup: bool,
    /// `disabled`: starts in maintenance.
    pub disabled: bool,
    /// `check` with its settings.
    pub check: Option<Check>,
    /// `tcp-ut`: TCP_USER_TIMEOUT in milliseconds, 0 = none.
    pub tcp_user_timeout_ms: u32,
    /// `cc`: its congestion control.
    pub congestion: Option<ShortName>,
    /// `source`, its own or its backend's.
    pub source: Option<Source>,
    /// `file:line`, for messages.
    pub place: String,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// At one address.
    Fixed(Address),
    /// Where the client meant to go, in whole or in part: taken from the address and port that it
    /// connected to.
    OfClient {
        /// The server's address; `None` = the client's destination.
        ip: Option<IpAddr>,
        /// Its port.
        port: PortRule,
    },
    /// Nowhere: its name did not resolve, and its `init-addr` allows that. It stays in maintenance.
    Unresolved,
}

/// A port that may depend on the client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortRule {
    /// One port.
    Fixed(u16),
    /// The port that the client connected to, plus so many.
    Offset(i32),
}

impl Target {
    /// The address for a client that connected to `destination`; `None` if that gives no port.
    pub fn of_client(&self, destination: SocketAddr) -> Option<Address> {
        match self {
            Target::Fixed(address) => Some(address.clone()),
            Target::OfClient { ip, port } => {
                let port = port.of_client(destination.port())?;
                let ip = ip.unwrap_or(destination.ip());
                Some(Address::Ip((ip, port).into()))
            }
            Target::Unresolved => None,
        }
    }
}

impl PortRule {
    /// The port for a client that connected to `port`.
    fn of_client(self, port: u16) -> Option<u16> {
        let port = match self {
            PortRule::Fixed(port) => port,
            PortRule::Offset(offset) => u16::try_from(i32::from(port) + offset).ok()?,
        };
        (port > 0).then_some(port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Fixed(address) => address.fmt(f),
            Target::OfClient { ip, port } => {
                match ip {
                    None => f.write_str("*")?,
                    Some(IpAddr::V4(ip)) => ip.fmt(f)?,
                    Some(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
                }
                match port {
                    PortRule::Fixed(port) => write!(f, ":{port}"),
                    PortRule::Offset(offset) => write!(f, ":{offset:+}"),
                }
            }
            Target::Unresolved => f.write_str("-"),
        }
    }
}

/// An active TCP-connect check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Where to connect (`port` applied).
    pub address: Address,
    /// `inter`, 2,000 by default: time between checks while the server is up and nothing points
    /// to a change.
    pub inter_ms: u32,
    /// `fastinter`: the same while it is on its way up or down, or was never checked.
    pub fast_inter_ms: u32,
    /// `downinter`: the same while it is down.
    pub down_inter_ms: u32,
    /// `fall`, 3 by default.
    pub fall: u16,
    /// `rise`, 2 by default.
    pub rise: u16,
    /// Bound of one probe: min(`timeout connect`, `inter`) as HAProxy has it, `timeout check` where
    /// set.
    pub timeout_ms: u32,
    /// The server's `source`.
    pub source: Option<Source>,
}

impl Plan {
    /// Whether anything would listen.
    pub fn has_listener(&self) -> bool {
        !self.listeners.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_targets_parts_come_from_the_clients_destination() {
        let client: SocketAddr = "192.0.2.7:8000".parse().unwrap();
        let of = |ip: Option<&str>, port| {
            let ip = ip.map(|ip| ip.parse().unwrap());
            let target = Target::OfClient { ip, port };
            let address = target.of_client(client).map(|address| address.to_string());
            (target.to_string(), address)
        };
        let found = |text: &str, address: &str| (text.to_owned(), Some(address.to_owned()));
        let none = |text: &str| (text.to_owned(), None);
        let (own, ip) = (PortRule::Offset(0), Some("10.0.0.1"));
        assert_eq!(of(None, own), found("*:+0", "192.0.2.7:8000"));
        assert_eq!(of(None, PortRule::Fixed(80)), found("*:80", "192.0.2.7:80"));
        assert_eq!(of(ip, own), found("10.0.0.1:+0", "10.0.0.1:8000"));
        let least = PortRule::Offset(-7999);
        assert_eq!(of(ip, least), found("10.0.0.1:-7999", "10.0.0.1:1"));
        assert_eq!(of(ip, PortRule::Offset(-8000)), none("10.0.0.1:-8000"));
        let most = PortRule::Offset(57_535);
        assert_eq!(of(Some("::1"), most), found("[::1]:+57535", "[::1]:65535"));
        assert_eq!(of(ip, PortRule::Offset(57_536)), none("10.0.0.1:+57536"));
        assert_eq!(Target::Unresolved.of_client(client), None);
    }
}
