//! The log thread: takes records from the shards' queue and messages from the control thread,
//! formats them and ships them to the log targets.
//!
//! It is the only thread that writes to a log target or, after the start, to standard error. Every
//! target is non-blocking and has a bounded backlog of its own, so a blocked one costs its own
//! lines (dropped and counted) and nobody else's. Nothing waits for this thread.

mod encode;
mod format;
mod outlet;
mod recent;
mod session;
mod sink;
#[cfg(test)]
mod testing;

use crossbeam::queue::ArrayQueue;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::thread::JoinHandle;

use super::Shared;
use super::messages::{Severity, format as message_line};
use crate::base::ids::ProxyId;
use crate::base::time::Moment;
use crate::config::plan::{LogHost, LogSink, LogTarget, Plan, Stage};
use crate::limits;
use crate::shard::{LogQueue, SessionRecord};
use crate::sys::lines::{PollItem, poll};
use crate::sys::{clock, process};
use format::LocalTime;
use outlet::{Message as Line, Outlet};
pub(super) use recent::Recent;
use session::{Filler, Speaker};
use sink::Sink;

/// Syslog level of session lines.
const INFO: u8 = 6;
/// The same for those of sessions that went wrong, where they are kept apart.
const ERROR: u8 = 3;

/// A text on its way to the log thread.
#[derive(Debug)]
struct Message {
    /// Whose log targets get it; `None` = nobody's, it is for standard error alone.
    proxy: Option<ProxyId>,
    /// Syslog level.
    level: u8,
    /// How it is labelled on standard error; `None` = it doesn't go there if it is for a proxy, and
    /// is labelled already if it is not.
    severity: Option<Severity>,
    text: String,
}

/// Messages on their way to the log thread, and what became of lines.
#[derive(Debug)]
pub struct Messages {
    queue: ArrayQueue<Message>,
    records: Arc<LogQueue>,
    dropped: AtomicU64,
    sent: AtomicU64,
    /// The last of them, for those who ask.
    pub(super) recent: Recent,
    stop: AtomicBool,
}

/// `06/Feb/2009:12:12:09.443123` of a Unix time in milliseconds, as the host counts hours.
pub fn local_date(unix_ms: u64) -> String {
    let mut time = LocalTime::new();
    let stamp = time.stamp(unix_ms / 1000);
    format!("{stamp}.{:03}000", unix_ms % 1000)
}

impl Messages {
    /// No messages yet; the log thread is woken through the records' queue.
    pub fn new(records: Arc<LogQueue>) -> Messages {
        Messages {
            queue: ArrayQueue::new(limits::LOG_MESSAGES_MAX),
            records,
            dropped: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            recent: Recent::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Sends a text to a proxy's log targets and, labelled, to standard error.
    pub fn for_proxy(&self, proxy: ProxyId, level: u8, severity: Severity, text: String) {
        self.push(Message {
            proxy: Some(proxy),
            level,
            severity: Some(severity),
            text,
        });
    }

    /// Sends a text to a proxy's log targets alone.
    pub fn for_logs(&self, proxy: ProxyId, level: u8, text: String) {
        self.push(Message {
            proxy: Some(proxy),
            level,
            severity: None,
            text,
        });
    }

    /// Sends a line that is labelled already to standard error.
    pub fn line(&self, line: &str) {
        self.push(Message {
            proxy: None,
            level: INFO,
            severity: None,
            text: line.to_owned(),
        });
    }

    /// Sends a text to standard error alone.
    pub fn console(&self, severity: Severity, text: &str) {
        self.push(Message {
            proxy: None,
            level: INFO,
            severity: Some(severity),
            text: text.to_owned(),
        });
    }

    fn push(&self, message: Message) {
        if let Some(severity) = message.severity {
            self.recent.note(clock::unix_ms(), severity, &message.text);
        }
        if self.queue.push(message).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        self.records.notify();
    }

    /// Lines that were dropped: at a full queue, or at a target that was full or refused them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed) + self.records.dropped()
    }

    /// Lines handed to targets.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Records waiting in the queue, and messages.
    pub fn queued(&self) -> usize {
        self.queue.len() + self.records.len()
    }
}

/// The running log thread.
#[derive(Debug)]
pub struct LogThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts it. With `console` messages go to standard error too; without `standard` (a daemon)
    /// the targets `stdout` and `stderr` lead nowhere, for their terminal is left.
    pub fn start(shared: Arc<Shared>, console: bool, standard: bool) -> io::Result<LogThread> {
        let mut shipper = Shipper::new(Arc::clone(&shared), console, standard);
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shipper.run())?;
        Ok(LogThread {
            shared,
            thread: Some(thread),
        })
    }

    /// Ships what is queued, within a bound of time, and ends the thread.
    pub fn stop(&mut self) {
        self.shared.messages.stop.store(true, SeqCst);
        self.shared.world().log_queue.notify();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the log thread knows of a proxy.
#[derive(Debug, Default)]
struct Voice {
    routes: Vec<outlet::Route>,
    /// `log-tag`.
    tag: String,
    /// Lines of its sessions so far.
    lines: u64,
}

/// The log thread's state.
struct Shipper {
    shared: Arc<Shared>,
    /// The world whose proxies and targets it knows.
    generation: u64,
    outlet: Outlet,
    /// What the outlet's sinks lead to, in its order.
    wanted: Vec<LogSink>,
    /// Whether this process has standard output and standard error.
    standard: bool,
    /// By `ProxyId`.
    voices: Vec<Voice>,
    /// Standard error for messages.
    console: Option<usize>,
    filler: Filler,
    /// The line at hand and its structured data, reused.
    body: Vec<u8>,
    structured: Vec<u8>,
}

impl Shipper {
    fn new(shared: Arc<Shared>, console: bool, standard: bool) -> Shipper {
        let world = shared.world();
        let mut wanted: Vec<LogSink> = Vec::new();
        let voices = voices(&world.plan, &mut wanted);
        let console = console.then(|| console_of(&mut wanted));
        let sinks = wanted.iter().map(|sink| Sink::open(sink, standard));
        Shipper {
            generation: world.generation,
            voices,
            outlet: Outlet::new(sinks.collect(), host_of(&world.plan)),
            wanted,
            standard,
            console,
            filler: Filler::new(LocalTime::new()),
            body: Vec::new(),
            structured: Vec::new(),
            shared,
        }
    }

    /// Takes up the proxies and targets of the present world, if it is another one. Targets that
    /// stay are not opened again, and lose nothing; what others still hold is tried once more.
    fn follow(&mut self) {
        let world = self.shared.world();
        if world.generation == self.generation {
            return;
        }
        self.generation = world.generation;
        let mut wanted: Vec<LogSink> = Vec::new();
        let voices = voices(&world.plan, &mut wanted);
        let before = std::mem::replace(&mut self.voices, voices);
        for (voice, before) in self.voices.iter_mut().zip(before) {
            voice.lines = before.lines;
        }
        self.console = self.console.map(|_| console_of(&mut wanted));
        self.flush(clock::now());
        let sinks = std::mem::take(&mut self.outlet.sinks);
        let mut known: Vec<(LogSink, Sink)> = self.wanted.drain(..).zip(sinks).collect();
        let standard = self.standard;
        let sink = |wanted: &LogSink| match known.iter().position(|(sink, _)| sink == wanted) {
            Some(at) => known.swap_remove(at).1,
            None => Sink::open(wanted, standard),
        };
        self.outlet.sinks = wanted.iter().map(sink).collect();
        self.outlet.host = host_of(&world.plan);
        self.wanted = wanted;
    }

    fn run(&mut self) {
        let queue = Arc::clone(&self.shared.world().log_queue);
        let mut flush_until: Option<Moment> = None;
        loop {
            let _ = queue.wake().take();
            self.follow();
            let now = clock::now();
            let emptied = self.take_queued(&queue);
            self.flush(now);
            if self.shared.messages.stop.load(SeqCst) {
                let until = *flush_until.get_or_insert(now.after_ms(limits::LOG_FLUSH_MS));
                let idle = emptied && self.outlet.sinks.iter().all(|sink| !sink.has_pending());
                if idle || now >= until {
                    return;
                }
            }
            self.wait(&queue, emptied, flush_until.is_some());
        }
    }

    /// Formats what is queued, up to a bound; true if the queues are empty now. While a target that
    /// takes lines at a measured pace has a long backlog, records stay in the queue: they would
    /// only be dropped at the target.
    fn take_queued(&mut self, queue: &LogQueue) -> bool {
        while let Some(message) = self.shared.messages.queue.pop() {
            // It may be for a proxy that has just come.
            self.follow();
            self.message(&message);
        }
        for _ in 0..limits::LOG_TURN_RECORDS_MAX {
            if self.outlet.sinks.iter().any(Sink::wants_pause) {
                return queue.is_empty();
            }
            let Some(record) = queue.pop() else {
                return true;
            };
            self.record(&record);
        }
        false
    }

    fn record(&mut self, record: &SessionRecord) {
        let proxy = &record.frontend.proxy;
        let Some(voice) = self.voices.get_mut(usize::from(proxy.proxy_id.0)) else {
            return;
        };
        let front = proxy.front.as_ref();
        let is_normal = record.is_normal();
        let is_short = record.stage == Stage::Accepted;
        let unlogged = !is_short && front.is_some_and(|f| f.dontlog_normal) && is_normal;
        if voice.routes.is_empty() || unlogged {
            return;
        }
        let apart = front.is_some_and(|front| front.log_separate_errors);
        let by = Speaker {
            host: process::host_name(),
            pid: self.outlet.pid,
            lines: voice.lines,
        };
        voice.lines += 1;
        self.body.clear();
        self.filler.line(&mut self.body, record, by);
        self.structured.clear();
        self.filler.structured(&mut self.structured, record, by);
        let line = Line {
            level: if apart && !is_normal { ERROR } else { INFO },
            tag: &voice.tag,
            structured: &self.structured,
            body: &self.body,
        };
        self.outlet
            .send(&mut voice.routes, line, &mut self.filler.time);
    }

    fn message(&mut self, message: &Message) {
        // What is for nobody's log and has no label has one already.
        let line = match (message.severity, message.proxy) {
            (Some(severity), _) => Some(message_line(severity, &message.text)),
            (None, None) => Some(message.text.clone()),
            (None, Some(_)) => None,
        };
        if let (Some(console), Some(line)) = (self.console, line) {
            self.outlet.sinks[console].push(line.as_bytes());
        }
        let Some(proxy) = message.proxy else { return };
        let Some(voice) = self.voices.get_mut(usize::from(proxy.0)) else {
            return;
        };
        let line = Line {
            level: message.level,
            tag: &voice.tag,
            structured: b"",
            body: message.text.as_bytes(),
        };
        self.outlet
            .send(&mut voice.routes, line, &mut self.filler.time);
    }

    fn flush(&mut self, now: Moment) {
        let messages = &self.shared.messages;
        for sink in &mut self.outlet.sinks {
            sink.flush(now);
            let (sent, dropped) = sink.take_counts();
            if sent > 0 {
                messages.sent.fetch_add(sent, Relaxed);
            }
            if dropped > 0 {
                messages.dropped.fetch_add(dropped, Relaxed);
            }
        }
    }

    /// Waits until something is queued or a blocked target takes lines again.
    fn wait(&self, queue: &LogQueue, emptied: bool, stopping: bool) {
        let mut items = vec![PollItem {
            descriptor: queue.wake().raw(),
            write: false,
            ready: false,
        }];
        let mut timeout_ms = if stopping { 10 } else { -1 };
        let mut held = false;
        for sink in &self.outlet.sinks {
            if let Some(descriptor) = sink.waits_for() {
                items.push(PollItem {
                    descriptor,
                    write: true,
                    ready: false,
                });
            }
            if let Some(ms) = sink.retry_in_ms() {
                timeout_ms = if timeout_ms < 0 {
                    ms
                } else {
                    timeout_ms.min(ms)
                };
            }
            held |= sink.wants_pause();
        }
        if !emptied && !held {
            // More is queued: only look whether a blocked target has room.
            timeout_ms = 0;
        }
        poll(&mut items, timeout_ms);
    }
}

/// What every proxy says and where to, with sinks that several name merged into `sinks`.
fn voices(plan: &Plan, sinks: &mut Vec<LogSink>) -> Vec<Voice> {
    let mut route = |target: &Arc<LogTarget>| {
        let found = sinks.iter().position(|sink| *sink == target.sink);
        let sink = found.unwrap_or_else(|| {
            sinks.push(target.sink.clone());
            sinks.len() - 1
        });
        outlet::Route::new(sink, Arc::clone(target))
    };
    let mut voices = Vec::new();
    for proxy in &plan.proxies {
        let index = usize::from(proxy.proxy_id.0);
        if voices.len() <= index {
            voices.resize_with(index + 1, Voice::default);
        }
        let tag = proxy.log_tag.as_ref().unwrap_or(&plan.global.log_tag);
        voices[index] = Voice {
            routes: proxy.logs.iter().map(&mut route).collect(),
            tag: tag.clone(),
            lines: 0,
        };
    }
    voices
}

/// The sink of messages for standard error.
fn console_of(wanted: &mut Vec<LogSink>) -> usize {
    let at = wanted.iter().position(|sink| *sink == LogSink::Stderr);
    at.unwrap_or_else(|| {
        wanted.push(LogSink::Stderr);
        wanted.len() - 1
    })
}

/// `log-send-hostname`.
fn host_of(plan: &Plan) -> Option<String> {
    match &plan.global.log_host {
        LogHost::None => None,
        LogHost::System => Some(process::host_name().to_owned()).filter(|n| !n.is_empty()),
        LogHost::Named(name) => Some(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::LogFormat;
    use crate::control::Facts;
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// Datagrams that didn't fit into the buffer of a UDP socket, because its reader had no CPU:
    /// the last column of its line in the kernel's table.
    fn lost_in_kernel(port: u16) -> usize {
        let table = std::fs::read_to_string("/proc/net/udp").unwrap();
        let local = format!("0100007F:{port:04X}");
        let line = table.lines().find(|line| line.contains(&local)).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    }

    /// Twenty thousand records as fast as they are read, to a live UDP and a live Unix syslog: all
    /// are handed to the kernel.
    #[test]
    fn twenty_thousand_lines_arrive() {
        const LINES: usize = 20_000;
        /// Lines that the Unix syslog may be behind: no queue between is that short.
        const BEHIND_MAX: usize = 500;
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let path = std::env::temp_dir().join(format!("tidegate-rate-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let unix = UnixDatagram::bind(&path).unwrap();
        let target = |sink| LogTarget {
            sink,
            length_max: 1024,
            format: LogFormat::Rfc3164,
            facility: 16,
            level_max: 7,
            level_min: 0,
            sample: None,
        };
        let logs = vec![
            target(LogSink::Udp(udp.local_addr().unwrap())),
            target(LogSink::UnixDatagram(path.clone())),
        ];
        let facts = Facts {
            started: clock::now(),
            started_unix_s: 0,
            descriptors_max: 0,
            descriptors_needed: 0,
            memory_limit: 0,
            caps: crate::ring::Caps::least(8),
        };
        let shared = Arc::new(Shared::new(testing::world(logs), facts));
        let record = testing::record_in(&shared.world());
        let wait = Some(Duration::from_millis(50));
        udp.set_read_timeout(wait).unwrap();
        unix.set_read_timeout(wait).unwrap();
        let done = AtomicBool::new(false);
        let [by_udp, by_unix] = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let count = |receive: &dyn Fn(&mut [u8]) -> io::Result<usize>, received: &AtomicUsize| {
            let mut line = [0u8; 2048];
            loop {
                let is_last = done.load(Relaxed);
                match receive(&mut line) {
                    Ok(_) => received.fetch_add(1, Relaxed),
                    Err(_) if is_last => return,
                    Err(_) => 0,
                };
            }
        };
        let port = udp.local_addr().unwrap().port();
        std::thread::scope(|scope| {
            scope.spawn(|| count(&|line| udp.recv(line), &by_udp));
            scope.spawn(|| count(&|line| unix.recv(line), &by_unix));
            let mut log = LogThread::start(Arc::clone(&shared), false, true).unwrap();
            let until = clock::now().after_ms(120_000);
            for sent in 0..LINES {
                while sent > by_unix.load(Relaxed) + BEHIND_MAX && clock::now() < until {
                    shared.world().log_queue.notify();
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                shared.world().log_queue.push(record.clone());
            }
            shared.world().log_queue.notify();
            log.stop();
            done.store(true, Relaxed);
        });
        assert_eq!(shared.messages.dropped(), 0);
        assert_eq!(by_unix.load(Relaxed), LINES);
        assert_eq!(by_udp.load(Relaxed) + lost_in_kernel(port), LINES);
        let _ = std::fs::remove_file(&path);
    }
}
