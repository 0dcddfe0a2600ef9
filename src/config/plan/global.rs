//! Settings of the process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Endpoint;
use super::LogHost;
use super::LogTarget;
use super::SourcePorts;
use crate::base::receive::{Capability, ReceiveStep};
use crate::config::values::threads::CpuMap;

/// Settings of the process.
#[derive(Clone, PartialEq, Debug)]
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
    /// `tune.listener.multi-queue`: which shard serves a connection.
    pub multi_queue: MultiQueue,
    /// `log` lines of the global section (proxies refer to them by `log global`).
    pub logs: Vec<Arc<LogTarget>>,
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
    /// Ours, `tune.ring.without`: what counts as missing in this kernel (debugging).
    pub ring_without: Vec<Capability>,
    /// Ours, `tune.ring.buffers N`: buffers in each of a shard's two rings, a power of two 2..=256,
    /// 8 by default.
    pub ring_buffers: u16,
    /// Ours, `tune.source-ports auto|always|off [LOW-HIGH]`: the ports that the balancer chooses.
    pub source_ports: SourcePorts,
    /// Ours, `tune.spin-us <us>|auto`: longest look for work before a sleep; `None` = `auto`.
    pub spin_us: Option<u16>,
    /// `busy-polling`: shards never sleep.
    pub busy_polling: bool,
    /// Ours, `memory-limit SIZE` (or `-m`): bound of the memory of the process in bytes; `None` =
    /// computed from RAM and the cgroup's `memory.max`.
    pub memory_limit: Option<u64>,
    /// Ours, `tune.memory SIZE`: budget of private relay memory of the process in bytes; `None` =
    /// what the bound leaves.
    pub memory_bytes: Option<u64>,
    /// False = `nosplice` (or `-dS`): nothing is spliced, whatever proxies ask for.
    pub splice: bool,
    /// `tune.pipesize`: bytes a pipe is asked to hold, 1 MiB by default; the process lowers it to
    /// what it may ask for.
    pub pipe_size: u32,
    /// `maxpipes`: pipes of the process, 0 = none; `None` = computed.
    pub maxpipes: Option<u32>,
    /// `tune.idletimer`: silence after which a direction counts as bulk no more, 0 = never.
    pub idle_timer_ms: u32,
    /// Ours, `tune.udp.maxflows N`: flows of the process; `None` = computed from memory.
    pub udp_flows_max: Option<u32>,
    /// Ours, `tune.udp.rcvbuf BYTES`: receive buffer of each listening socket of datagrams.
    pub udp_rcvbuf: u32,
    /// Ours, `tune.udp.sockets N`: pool sockets of the process; `None` = computed from the
    /// descriptors.
    pub udp_sockets_max: Option<u32>,
    /// Public seed of hash balancing; `0` unless configured.
    pub hash_seed: u64,
    /// `spread-checks`: percent of the interval by which a check may come sooner or later, 0..=50.
    pub spread_checks_percent: u8,
    /// `max-spread-checks`: longest time between the first and the last of the first checks.
    pub max_spread_checks_ms: Option<u32>,
    /// Ours, `tune.first-checks-wait TIME`: how long clients wait at the start for the first
    /// checks, 1,000 by default; 0 = not at all.
    pub first_checks_wait_ms: u32,
    /// `log-send-hostname`: the host in the headers of log lines.
    pub log_host: LogHost,
    /// What `setenv` and its like have made of the environment.
    pub variables: Variables,
    /// What the process is and may do.
    pub process: ProcessSettings,
}

/// Variables that differ from the environment of the process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Variables {
    /// Set (`Some`) or removed (`None`).
    pub changed: BTreeMap<String, Option<String>>,
    /// `resetenv`: those of the environment are gone.
    pub is_reset: bool,
}

/// Which of the shards that serve a listener gets a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MultiQueue {
    /// The one that accepts it, or the least loaded one if that has clearly less to do.
    On,
    /// One after the other.
    Fair,
    /// The one that accepts it.
    Off,
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
            multi_queue: MultiQueue::On,
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
            ring_without: Vec::new(),
            ring_buffers: 8,
            source_ports: SourcePorts::default(),
            spin_us: None,
            busy_polling: false,
            memory_limit: None,
            memory_bytes: None,
            splice: true,
            pipe_size: 1 << 20,
            maxpipes: None,
            idle_timer_ms: 1_000,
            udp_flows_max: None,
            udp_rcvbuf: 4 << 20,
            udp_sockets_max: None,
            hash_seed: 0,
            spread_checks_percent: 0,
            max_spread_checks_ms: None,
            first_checks_wait_ms: 1_000,
            log_host: LogHost::None,
            variables: Variables::default(),
            process: ProcessSettings::default(),
        }
    }
}

/// One `stats socket`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatsSocket {
    /// Unix path, TCP address or inherited descriptor.
    pub endpoint: Endpoint,
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
    /// `severity-output`: how messages are marked.
    pub severity_output: SeverityOutput,
    /// Stands for the socket of HAProxy's master (`-S`).
    pub is_master: bool,
}

/// How messages on a runtime socket are marked with their severity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeverityOutput {
    /// Not at all.
    None,
    /// By syslog's number.
    Number,
    /// By its name.
    Name,
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
