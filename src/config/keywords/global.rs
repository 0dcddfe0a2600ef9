//! The keywords of the `global` section, and those that stand everywhere.

use super::Side::{Everywhere, Global};
use super::keyword::{later, needed, never, no_effect, works};
use super::{CHOSEN, HTTP_ONLY, Keyword, MANY, NO_CHILDREN, QUIC_ONLY, TLS_ONLY};
use crate::config::parse::{
    bind, global, log, process, proxy, source_ports, state_file, threads, udp,
};

const SINGLE: &str = "there is one engine, io_uring";
const PINNED: &str = "shards are pinned in the order of the CPUs, or as 'cpu-map' says";
const ONE_GROUP: &str = "there is one thread group, number 1";
const DEBUGGING: &str = "it concerns HAProxy's own debugging";
const NO_LUA: &str = "Lua is not supported";

#[rustfmt::skip]
pub(super) static GLOBAL: &[Keyword] = &[
    works("busy-polling", Global, 0, "", "Shards never sleep: lowest latency, and every CPU of a shard is always busy.", global::busy_polling)
        .default("off"),
    works("chroot", Global, 1, "<directory>|auto", "Confines the process to a directory once everything is bound; 'auto' makes an empty one.", process::chroot)
        .default("none"),
    works("daemon", Global, 0, "", "Run in the background.", global::daemon)
        .default("off"),
    works("default-path", Global, 2, "current|config|parent|origin <path>", "Where the relative names of files that are read while parsing begin; the files of -f begin where the program was started.", global::default_path)
        .default("current"),
    works("description", Global, MANY, "<text>", "What the instance is, for 'show info'.", process::description),
    works("fd-hard-limit", Global, 1, "<number>", "Most descriptors that a computed 'maxconn' counts on.", process::descriptors)
        .default("1048576"),
    works("gid", Global, 1, "<number>", "The group the process takes once everything is bound.", process::user)
        .default("the starter's"),
    works("group", Global, 1, "<name>", "The group the process takes once everything is bound.", process::user)
        .default("the starter's"),
    works("hard-stop-after", Global, 1, "<time>", "Longest time a soft stop may take.", global::hard_stop_after)
        .default("no bound"),
    works("log-send-hostname", Global, 1, "[<name>]", "Send the machine's name, or this one, in headers of the formats rfc3164 and rfc5424.", global::log_send_hostname)
        .default("no host; '-' in rfc5424"),
    works("log-tag", Global, 1, "<tag>", "Program name in log lines.", global::log_tag)
        .default("tidegate"),
    works("max-spread-checks", Global, 1, "<time>", "Longest time between the first and the last of the first checks.", global::max_spread_checks)
        .default("the smallest interval of all servers"),
    works("nbthread", Global, 1, "<number>", "Number of shards, 1 to 256.", threads::nbthread)
        .default("one per usable CPU"),
    works("thread-hard-limit", Global, 1, "<number>", "Most shards, whether counted or computed, 1 to 256.", threads::thread_hard_limit)
        .default("none"),
    works("cpu-map", Global, MANY, "[auto:]1[/<threads>] <cpus>...", "The CPUs that shards run on: '1/1-4 0-3' lets each of four use four, 'auto:1/1-4 0-3' gives each its own. A later line wins.", threads::cpu_map)
        .default("one CPU each in order where there are enough; none for shards that no line maps"),
    works("noreuseport", Global, 0, "", "Listeners have one socket each, shared by their shards.", threads::noreuseport),
    works("unix-bind", Global, MANY, "[prefix <path>] [mode <octal>] [user <name>] [uid <n>] [group <name>] [gid <n>]", "Defaults of Unix listeners on later 'bind' lines.", bind::unix_bind),
    works("tune.listener.default-shards", Global, 1, "by-process|by-thread|by-group", "Sockets of listeners without 'shards': one for each thread, or one for all.", threads::default_shards)
        .default("by-thread"),
    works("tune.listener.multi-queue", Global, 1, "on|fair|off", "Which shard serves a connection: the one that accepts it or a clearly less loaded one, one after the other, or the one that accepts it.", threads::multi_queue)
        .default("on"),
    works("tune.maxaccept", Global, 1, "<number>", "Connections that a shard takes from a listener per turn; negative = unlimited.", threads::maxaccept)
        .default("unlimited on a socket of its own, 4 on a shared one"),
    works("master-worker", Global, 1, "[no-exit-on-failure]", "Ends as HAProxy's master does (130 after SIGINT); there is no second process.", process::master_worker)
        .default("off"),
    works("node", Global, 1, "<name>", "The instance's name, for 'show info'.", process::node)
        .default("the host's name"),
    works("pidfile", Global, 1, "<path>", "File that holds the process id.", global::pidfile),
    works("presetenv", Global, MANY, "<name> <value>", "Sets a variable that isn't set, from the next line on.", global::variables),
    works("resetenv", Global, MANY, "[<name>...]", "Removes all variables but those named, from the next line on.", global::variables),
    works("setenv", Global, MANY, "<name> <value>", "Sets a variable, from the next line on.", global::variables),
    works("unsetenv", Global, MANY, "<name>...", "Removes variables, from the next line on.", global::variables),
    works("spread-checks", Global, 1, "<0..50>", "Percent of its interval by which a check may come sooner or later.", global::spread_checks)
        .default("0"),
    works("quiet", Global, 0, "", "Prints no messages once the file is read, as -q.", process::flag)
        .default("off"),
    works("stats maxconn", Global, 1, "<number>", "Connections to the runtime sockets.", global::stats_maxconn)
        .default("10"),
    works("stats socket", Global, MANY, "<address> [mode <octal>] [user <name>|uid <n>] [group <name>|gid <n>] [level user|operator|admin] [expose-fd listeners]",
        "A socket for runtime commands; with 'expose-fd listeners' a successor may take the listening sockets (-x).", global::stats_socket),
    works("stats timeout", Global, 1, "<time>", "Idle time of a connection to a runtime socket.", global::stats_timeout)
        .default("10s"),
    works("strict-limits", Global, 0, "", "A limit that can't be set, or is too low for 'maxconn', is an error; 'no strict-limits' makes it a warning.", process::flag)
        .default("on"),
    works("tune.source-ports", Global, 2, "auto|always|off [<low>-<high>]", "The balancer chooses the ports of its connections to servers itself: where a 'source' is set or ended connections make the system search, always, or never. docs/source-ports.md has more.", source_ports::source_ports)
        .default("auto, the upper half of the system's ports").ours(),
    works("tune.rcvbuf.client", Global, 1, "<bytes>", "Receive buffer of client sockets; 0 leaves it to the kernel.", global::buffers)
        .default("0"),
    works("tune.rcvbuf.server", Global, 1, "<bytes>", "Receive buffer of server sockets; 0 leaves it to the kernel.", global::buffers)
        .default("0"),
    works("tune.sndbuf.client", Global, 1, "<bytes>", "Send buffer of client sockets; 0 leaves it to the kernel.", global::buffers)
        .default("0"),
    works("tune.sndbuf.server", Global, 1, "<bytes>", "Send buffer of server sockets; 0 leaves it to the kernel.", global::buffers)
        .default("0"),
    works("maxconnrate", Global, 1, "<number>", "New connections of the process per second; more wait to be accepted.", global::rate)
        .default("0: any number"),
    works("maxsessrate", Global, 1, "<number>", "New sessions of the process per second; each connection is one.", global::rate)
        .default("0: any number"),
    works("maxpipes", Global, 1, "<number>", "Most pipes of the process, for bytes that are spliced; 0 = none.", global::maxpipes)
        .default("a quarter of 'maxconn', at most 64 where no proxy asks for splicing; fewer where descriptors, memory or the kernel's limits say so"),
    works("memory-limit", Global, 1, "<size>", "Most memory of the process; at the bound clients wait to be accepted and directions to be read from. -m goes before it. docs/memory.md has more.", global::memory)
        .default("half of the machine's or the cgroup's memory").ours(),
    works("nosplice", Global, 0, "", "Nothing is spliced, whatever proxies ask for; as -dS.", global::nosplice)
        .default("off"),
    works("tune.pipesize", Global, 1, "<size>", "Size of pipes; 0 = the kernel's own, 64k. More than /proc/sys/fs/pipe-max-size is only for the privileged.", global::pipe_size)
        .default("1m"),
    works("tune.first-checks-wait", Global, 1, "<time>", "How long clients wait at the start for the first check of every server; 0 = not at all.", global::first_checks_wait)
        .default("1s").ours(),
    works("tune.idletimer", Global, 1, "<time>", "Rest after which a direction is no bulk transfer any more; 0 = never.", global::idle_timer)
        .default("1s"),
    works("tune.memory", Global, 1, "<size>", "Budget of the bytes that wait for slow readers, a part of 'memory-limit'.", global::memory)
        .default("what 'memory-limit' leaves").ours(),
    works("tune.ring.buffers", Global, 1, "<number>", "Buffers in each of a shard's rings, a power of two from 2 to 256.", global::ring_buffers)
        .default("8").ours(),
    works("tune.spin-us", Global, 1, "<0..1000>|auto", "Longest time that a shard with a CPU of its own looks for work before it sleeps, while that pays; 0 = not at all.", global::spin)
        .default("auto: 50, without a CPU quota; else 0").ours(),
    works("tune.ring.receive", Global, 1, "auto|limit|incremental|bundle|plain", "How shards receive.", global::ring_receive)
        .default("auto").ours(),
    works("tune.ring.without", Global, MANY, "<capability> ...",
        "What to leave out though the kernel has it, to debug: 'limit', 'incremental', 'bundle', 'plain', 'deferred-work', 'registered-ring', 'multishot-accept', 'gso', 'gro', 'steering'.", global::ring_without)
        .default("nothing").ours(),
    works("tune.udp.maxflows", Global, 1, "<number>", "Most flows of datagrams of the process. docs/udp.md has more.", udp::most)
        .default("what an eighth of the memory holds at 512 bytes each, at most 1048576").ours(),
    works("tune.udp.rcvbuf", Global, 1, "<size>", "Receive buffer of each socket of a listener of datagrams, where the kernel allows it (net.core.rmem_max, or CAP_NET_ADMIN).", udp::receive_buffer)
        .default("4m").ours(),
    works("tune.udp.sockets", Global, 1, "<number>", "Most sockets that servers of datagrams are spoken to from.", udp::most)
        .default("a quarter of the descriptors that are left, or half of what 'maxconn' leaves; at most 65536").ours(),
    works("uid", Global, 1, "<number>", "The user the process becomes once everything is bound.", process::user)
        .default("the starter"),
    works("ulimit-n", Global, 1, "<number>", "Descriptors of the process.", process::descriptors)
        .default("what 'maxconn' needs, else the hard limit"),
    works("server-state-file", Global, 1, "<path>", "File that backends with 'load-server-state-from-file global' take their servers' state from at the start.", state_file::place),
    works("server-state-base", Global, 1, "<directory>", "Directory of the state files whose names don't begin at the root.", state_file::place),
    works("user", Global, 1, "<name>", "The user the process becomes once everything is bound.", process::user)
        .default("the starter"),
    works("zero-warning", Global, 0, "", "Warnings are errors, as -dW.", process::flag)
        .default("off"),

    works("log", Everywhere, MANY, "global | <target> [len <n>] [format <format>] [sample <ranges>:<size>] <facility> [<level> [<minimum>]]",
        "Where log lines go.", log::log)
        .lacks(&["profile", "ring@", "backend@", "tcp@"]).also_requests(),
    works("maxconn", Everywhere, 1, "<number>", "Most connections at a time, of the process or of a frontend.", proxy::maxconn)
        .default("from the descriptor limit").also_requests(),

    later("grace", Global, "<time>", "Time between a soft stop and the end of listening."),
    later("localpeer", Global, "<name>", "Which peer of a 'peers' section this process is."),
    later("cluster-secret", Global, "<secret>", "A secret shared by a cluster."),
    later("stats-file", Global, "<path>", "File to take counters from at the start."),
    later("shm-stats-file", Global, "<name>", "Counters that several processes share."),
    later("shm-stats-file-max-objects", Global, "<number>", "Size of such a file."),
    later("dns-accept-family", Global, "auto|ipv4|ipv6[,...]", "Families of addresses that are taken of a name."),
    later("pp2-never-send-local", Global, "", "Checks send full PROXY headers of version 2."),
    later("external-check", Global, "[preserve-env]", "Allows checks by a program."),
    later("cpu-set", Global, "reset|drop-*|only-*", "Which CPUs are used."),
    needed("harden.reject-privileged-ports.*", Global, "on|off", "Refuses clients whose port is privileged."),
    later("set-dumpable", Global, "on|off|libs", "Core dumps."),
    later("setcap", Global, "<capability>...", "Capabilities kept after privileges are dropped."),
    later("set-var", Global, "<name> <expression>", "Sets a variable of rules."),
    later("set-var-fmt", Global, "<name> <format>", "Sets a variable of rules."),
    never("nbproc", Global, "<number>", "one process runs all shards; use 'nbthread'"),
    no_effect("lua-prepend-path", Global, "<path> [<type>]", NO_LUA),
    never("lua-*", Global, "", NO_LUA),
    no_effect("maxsslrate", Global, "<number>", TLS_ONLY),
    no_effect("maxsslconn", Global, "<number>", TLS_ONLY),
    no_effect("insecure-fork-wanted", Global, "", NO_CHILDREN),
    no_effect("insecure-setuid-wanted", Global, "", NO_CHILDREN),
    no_effect("cpu-policy", Global, "<policy>", PINNED),
    no_effect("cpu-affinity", Global, "<affinity>", PINNED),
    no_effect("numa-cpu-mapping", Global, "", PINNED),
    no_effect("thread-group", Global, "<group> <threads>", ONE_GROUP),
    no_effect("thread-groups", Global, "<number>", ONE_GROUP),
    no_effect("max-threads-per-group", Global, "<number>", ONE_GROUP),
    no_effect("stats bind-process", Global, "", "there is one process"),
    no_effect("prealloc-fd", Global, "", CHOSEN),
    no_effect("mworker-max-reloads", Global, "<number>", "there is no master process"),
    no_effect("force-cfg-parser-pause", Global, "<time>", DEBUGGING),
    no_effect("no-memory-trimming", Global, "", CHOSEN),
    no_effect("profiling.*", Global, "", DEBUGGING),
    no_effect("warn-blocked-traffic-after", Global, "<time>", DEBUGGING),
    no_effect("anonkey", Global, "<key>", "it concerns HAProxy's dumps"),
    no_effect("expose-experimental-directives", Global, "", "no directive needs it"),
    no_effect("expose-deprecated-directives", Global, "", "no directive needs it"),
    no_effect("noepoll", Global, "", SINGLE),
    no_effect("nopoll", Global, "", SINGLE),
    no_effect("nokqueue", Global, "", SINGLE),
    no_effect("noevports", Global, "", SINGLE),
    no_effect("nogetaddrinfo", Global, "", CHOSEN),
    no_effect("noktls", Global, "", TLS_ONLY),
    no_effect("no-quic", Global, "", QUIC_ONLY),
    no_effect("limited-quic", Global, "", QUIC_ONLY),
    no_effect("acme.*", Global, "", TLS_ONLY),
    no_effect("ocsp-update.*", Global, "", TLS_ONLY),
    no_effect("ssl-*", Global, "", TLS_ONLY),
    no_effect("ca-base", Global, "<directory>", TLS_ONLY),
    no_effect("crt-base", Global, "<directory>", TLS_ONLY),
    no_effect("key-base", Global, "<directory>", TLS_ONLY),
    no_effect("issuers-chain-path", Global, "<directory>", TLS_ONLY),
    no_effect("h1-*", Global, "", HTTP_ONLY),
    no_effect("h2-*", Global, "", HTTP_ONLY),
    no_effect("httpclient.*", Global, "", HTTP_ONLY),
    no_effect("51degrees-*", Global, "", HTTP_ONLY),
    no_effect("deviceatlas-*", Global, "", HTTP_ONLY),
    no_effect("wurfl-*", Global, "", HTTP_ONLY),
    no_effect("close-spread-time", Global, "<time>|infinite", HTTP_ONLY),
    no_effect("maxcompcpuusage", Global, "<percent>", HTTP_ONLY),
    no_effect("maxcomprate", Global, "<number>", HTTP_ONLY),
    no_effect("maxzlibmem", Global, "<number>", HTTP_ONLY),
    no_effect("http-err-codes", Global, "", HTTP_ONLY),
    no_effect("http-fail-codes", Global, "", HTTP_ONLY),
    no_effect("tune.h1.*", Global, "", HTTP_ONLY),
    no_effect("tune.h2.*", Global, "", HTTP_ONLY),
    no_effect("tune.http.*", Global, "", HTTP_ONLY),
    no_effect("tune.quic.*", Global, "", HTTP_ONLY),
    no_effect("tune.comp.*", Global, "", HTTP_ONLY),
    no_effect("tune.zlib.*", Global, "", HTTP_ONLY),
    no_effect("tune.maxrewrite", Global, "<bytes>", HTTP_ONLY),
    no_effect("tune.idle-pool.*", Global, "", HTTP_ONLY),
    no_effect("tune.lua.*", Global, "", NO_LUA),
    no_effect("tune.ssl.*", Global, "", TLS_ONLY),
    no_effect("tune.bufsize", Global, "<bytes>", "buffers belong to the rings; see 'tune.ring.buffers'"),
    no_effect("tune.bufsize.*", Global, "<bytes>", "buffers belong to the rings; see 'tune.ring.buffers'"),
    no_effect("tune.buffers.*", Global, "<number>", "see 'tune.memory'"),
    no_effect("tune.maxpollevents", Global, "<number>", CHOSEN),
    no_effect("tune.recv_enough", Global, "<bytes>", CHOSEN),
    no_effect("tune.pool-*", Global, "", CHOSEN),
    no_effect("tune.memory.*", Global, "", CHOSEN),
    no_effect("tune.runqueue-depth", Global, "<number>", CHOSEN),
    no_effect("tune.sched.*", Global, "", CHOSEN),
    no_effect("tune.fd.*", Global, "", SINGLE),
    no_effect("tune.epoll.*", Global, "", SINGLE),
    no_effect("tune.disable-fast-forward", Global, "", CHOSEN),
    no_effect("tune.disable-zero-copy-forwarding", Global, "", CHOSEN),
    no_effect("tune.applet.*", Global, "", CHOSEN),
    no_effect("tune.chksize", Global, "<bytes>", "checks read nothing yet"),
    no_effect("tune.cli.*", Global, "", CHOSEN),
    no_effect("tune.defaults.*", Global, "", CHOSEN),
    no_effect("tune.events.*", Global, "", CHOSEN),
    no_effect("tune.fail-alloc", Global, "<percent>", DEBUGGING),
    no_effect("tune.glitches.*", Global, "", HTTP_ONLY),
    later("tune.max-checks-per-thread", Global, "<number>", "Most checks of a shard at a time."),
    no_effect("tune.max-rules-at-once", Global, "<number>", "there are no rules"),
    later("tune.notsent-lowat.client", Global, "<bytes>", "Unsent bytes up to which a client's socket takes more."),
    later("tune.notsent-lowat.server", Global, "<bytes>", "Unsent bytes up to which a server's socket takes more."),
    no_effect("tune.pt.*", Global, "", CHOSEN),
    later("tune.renice.runtime", Global, "<number>", "Priority of the process once it runs."),
    later("tune.renice.startup", Global, "<number>", "Priority of the process while it starts."),
    no_effect("tune.ring.queues", Global, "<number>", "it concerns HAProxy's rings of log lines"),
    no_effect("tune.takeover-other-tg-connections", Global, "none|restricted|full", HTTP_ONLY),
    no_effect("tune.vars.*", Global, "", "there are no variables of rules"),
    no_effect("tune.pattern.*", Global, "", "there are no patterns"),
    no_effect("tune.peers.*", Global, "", "there are no peers"),
    no_effect("tune.stick-counters", Global, "<number>", "there are no stick tables"),
    no_effect("tune.rcvbuf.frontend", Global, "<bytes>", "it concerns datagram sockets only"),
    no_effect("tune.rcvbuf.backend", Global, "<bytes>", "it concerns datagram sockets only"),
    no_effect("tune.sndbuf.frontend", Global, "<bytes>", "it concerns datagram sockets only"),
    no_effect("tune.sndbuf.backend", Global, "<bytes>", "it concerns datagram sockets only"),
];
