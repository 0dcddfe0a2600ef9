//! Every bound of the process, in one place, with the arithmetic behind it.
//!
//! Queues, tables and buffers outside the rings take their size from here; what must fit into what
//! is asserted at compile time. Sizes that the configuration decides are not here, their defaults
//! are. May be used by every layer above `base`.

/// Shards at most: a bit per shard in the limit table's waker set, and `ShardId` is 16 bits wide.
pub const SHARDS_MAX: u16 = 256;

/// Descriptors a shard holds beside sockets: its ring, its wake-up eventfd, and two spare for a
/// timer and a registered file table.
pub const DESCRIPTORS_PER_SHARD: u64 = 4;

/// Descriptors of the control, probe and log threads: for each of the two runtimes an epoll, its
/// wake-up, a clone of the epoll and a ring; the wake-up of the control thread, twice; the log
/// thread's; the signal thread has none.
pub const DESCRIPTORS_OF_THREADS: u64 = 2 * 4 + 3;

/// Standard input, output and error.
pub const DESCRIPTORS_STANDARD: u64 = 3;

/// Kept free for what opens for a moment: `/proc` files, the time-zone database, a client over a
/// limit that is accepted only to be closed.
pub const DESCRIPTORS_RESERVE: u64 = 64;

/// Descriptors of a session: the client's socket and the server's.
pub const DESCRIPTORS_PER_SESSION: u64 = 2;

/// Most descriptors that a computed `maxconn` counts on. Containers often come with a limit of
/// 2^30, and tables sized from that would not fit into memory.
pub const DESCRIPTORS_DEFAULT_MAX: u64 = 1 << 20;

/// Messages a shard's port holds beyond one grant per session of the process.
pub const PORT_RESERVE: usize = 1024;

/// Records between the shards and the log thread: 0.8 s at 20,000 lines a second. A record is about
/// 200 bytes, so the queue takes 3 MiB.
pub const LOG_RECORDS_MAX: usize = 16 * 1024;

/// Text messages (state changes) between the control thread and the log thread.
pub const LOG_MESSAGES_MAX: usize = 4096;

/// Lines that wait for one log target: while a syslog daemon is busy they wait here, and the
/// 8,193rd is dropped and counted. At 200 bytes a line this is 1.6 MiB per target.
pub const LOG_LINES_PENDING_MAX: usize = 8 * 1024;

/// Lines sent to one UDP log target per millisecond: 32,000 a second. A receiver with the kernel's
/// default buffer (212,992 bytes, 277 small datagrams) then survives eight milliseconds without its
/// CPU even while a backlog is being sent.
pub const LOG_UDP_LINES_PER_MS: u64 = 32;

/// Lines sent at once to a UDP log target after a pause: what a default buffer takes twice.
pub const LOG_UDP_BURST_MAX: usize = 128;

/// Lines written to a stream log target with one call.
pub const LOG_WRITE_LINES_MAX: usize = 32;

/// Records taken from the queue between two looks at the sinks.
pub const LOG_TURN_RECORDS_MAX: usize = 512;

/// How long the log thread goes on flushing when the process ends, milliseconds.
pub const LOG_FLUSH_MS: u64 = 500;

/// Probe results between the probe thread and the control thread.
pub const CHANGES_MAX: usize = 1024;

/// What shards have seen of servers and the control thread has not looked at yet: 160 KiB. It takes
/// about a microsecond for each; what comes on top is dropped and counted.
pub const OBSERVATIONS_MAX: usize = 4096;

/// Actions of `on-error` on their way to the checks of one server: the checks take them at once,
/// and those that don't fit would do nothing more.
pub const ERROR_ACTIONS_MAX: usize = 8;

/// Longest line a client of the runtime socket may send, bytes.
pub const API_LINE_MAX: usize = 16 * 1024;

/// Largest payload behind such a line, bytes: HAProxy's bound.
pub const API_PAYLOAD_MAX: usize = 128 * 1024;

/// Longest mark that ends a payload, bytes: HAProxy's bound.
pub const API_PAYLOAD_MARK_MAX: usize = 64;

/// Longest PROXY header of version 2, bytes: HAProxy's bound is its buffer, which is as large. It
/// is looked at in the socket's own buffer, where it has to fit.
pub const PROXY_HEADER_MAX: usize = 16 * 1024;

/// How long a PROXY header is waited for where no timeout says, milliseconds: as nginx does.
pub const PROXY_HEADER_WAIT_MS: u64 = 30_000;

/// Backlog of a listening socket where nothing is configured; the kernel caps it by `somaxconn`.
pub const BACKLOG_DEFAULT: u32 = 4096;

/// Longest head of a request to a frontend in `mode http`, bytes; the least that hyper takes.
pub const PAGE_REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Most headers of such a request.
pub const PAGE_HEADERS_MAX: usize = 64;

/// Answers of such frontends that are made or under way at a time. One of metrics has about 9 KiB
/// for each server, so with 1,000 servers they take 75 MiB.
pub const PAGE_ANSWERS_MAX: usize = 8;

/// Descriptors of the thread that serves them: an epoll, its wake-up, a clone of the epoll.
pub const DESCRIPTORS_OF_PAGES: u64 = 3;

/// Backlog of a runtime socket.
pub const API_BACKLOG: i32 = 64;

/// A probe that was seen to end this much later than its deadline says nothing about the server:
/// the probe thread itself was not running.
pub const PROBE_LATE_MS: u64 = 25;

/// How long a check that waits for no answer waits for the network to refuse its datagram: longer
/// than any path takes there and back.
pub const PROBE_SILENCE_MS: u32 = 300;

/// How long a check that takes leave waits for the server to close.
pub const PROBE_FAREWELL_MS: u64 = 200;

/// Private relay memory of the process above what its directions own, at the least: 16 bulk
/// receives, which may take twice their 256 KiB.
pub const MEMORY_MIN: u64 = 8 << 20;

/// The computed bound of memory is this part of the RAM or of the cgroup's limit: the other half is
/// for the kernel's buffers and whatever else runs.
pub const MEMORY_DIVISOR: u64 = 2;

/// What a computed bound leaves for sessions at the least: some 3,000 of them.
pub const MEMORY_FLOOR: u64 = 32 << 20;

/// The process without shards: program text and libraries 7 MiB, log queue and lines that wait for
/// targets 5 MiB, the control and probe threads, the configuration.
pub const MEMORY_OF_PROCESS: u64 = 20 << 20;

/// A shard beside its rings' buffers: free chunks that are kept 1.5 MiB, submission and completion
/// queues, a chunk of the slab, lists of a turn.
pub const MEMORY_PER_SHARD: u64 = 2560 << 10;

/// A buffer of the small ring and one of the bulk ring.
pub const MEMORY_PER_RING_BUFFER: u64 = (32 << 10) + (256 << 10);

/// A session without its bytes: its slot (528 bytes at most), its timer (32), its places in queues
/// and lists, all of which double when they grow.
pub const MEMORY_PER_SESSION: u64 = 1024;

/// A message of a shard's port; every port holds one for each session of the process.
pub const MEMORY_PER_MESSAGE: u64 = 64;

/// What a direction may hold without asking, at the least: a page.
pub const MEMORY_PER_DIRECTION_MIN: u64 = 4096;

/// A flow of datagrams: its slot, its places in the index, the timer and the lists, its part of a
/// pair and of what counts by client address, all of which double when they grow.
pub const MEMORY_PER_FLOW: u64 = 512;

/// What a shard has for datagrams: two inboxes of 128 buffers, each of which holds the longest
/// datagram with what the kernel says of it, and an entry of 16 bytes for each; some pages to begin
/// on. `process::memory` asserts that they fit.
pub const MEMORY_OF_DATAGRAMS: u64 = 2 * (128 * (69_952 + 16) + 4 * 4096);

/// The part of the memory that a computed number of flows may take.
pub const FLOWS_MEMORY_DIVISOR: u64 = 8;

/// Most flows where nobody says how many: half a gigabyte.
pub const FLOWS_COMPUTED_MAX: u32 = 1 << 20;

/// Sockets towards servers of datagrams that are counted on in any case.
pub const FLOW_SOCKETS_MIN: u32 = 64;

/// Most of them where nobody says how many: each serves as many flows as there are servers.
pub const FLOW_SOCKETS_COMPUTED_MAX: u32 = 1 << 16;

/// Descriptors of a pipe.
pub const DESCRIPTORS_PER_PIPE: u64 = 2;

const _: () = assert!(LOG_UDP_BURST_MAX < LOG_LINES_PENDING_MAX);
const _: () = assert!(LOG_TURN_RECORDS_MAX < LOG_LINES_PENDING_MAX);
const _: () = assert!(LOG_TURN_RECORDS_MAX < LOG_RECORDS_MAX);
const _: () = assert!(
    LOG_WRITE_LINES_MAX <= 1024,
    "writev takes at most IOV_MAX pieces"
);
const _: () = assert!(API_LINE_MAX >= 1024);
const _: () = assert!(DESCRIPTORS_RESERVE + DESCRIPTORS_OF_THREADS + DESCRIPTORS_STANDARD < 256);
