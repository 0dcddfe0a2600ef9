//! Where log lines go and what they look like.

use std::path::PathBuf;

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
    /// `sample`: only some of the lines are sent; `None` = all.
    pub sample: Option<LogSample>,
}

/// Which lines are sent: of so many in turn those with these numbers, from 1 on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSample {
    /// First and last number of each range, in their order.
    pub ranges: Vec<(u32, u32)>,
    /// After how many lines it begins anew.
    pub size: u32,
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
