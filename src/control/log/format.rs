//! What stands before the message of a log line, byte for byte as HAProxy writes it, and the times
//! that lines show. Local time is computed once per second.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::io::Write;

use crate::config::plan::LogFormat;
use crate::sys::clock;

/// Local time as text, remembered for the second it was made for.
#[derive(Debug)]
pub(super) struct LocalTime {
    zone: TimeZone,
    /// `Feb  6 12:12:09` for a Unix second.
    header: (u64, String),
    /// `06/Feb/2009:12:12:09` for a Unix second.
    stamp: (u64, String),
    /// `2009-02-06T12:12:09` for a Unix second.
    iso: (u64, String),
    /// `+01:00` for a Unix second.
    offset: (u64, String),
    /// `06/Feb/2009:12:12:09 +0100` for a Unix second.
    local: (u64, String),
    /// The same in UTC.
    utc: (u64, String),
}

/// Who speaks, in the headers of lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    /// `log-send-hostname`.
    pub(super) host: Option<&'a str>,
    /// `log-tag`.
    pub(super) tag: &'a str,
    pub(super) pid: u32,
    /// Structured data, empty = none.
    pub(super) structured: &'a [u8],
}

impl LocalTime {
    pub(super) fn new() -> LocalTime {
        LocalTime::with_zone(TimeZone::system())
    }

    pub(super) fn with_zone(zone: TimeZone) -> LocalTime {
        LocalTime {
            zone,
            header: (u64::MAX, String::new()),
            stamp: (u64::MAX, String::new()),
            iso: (u64::MAX, String::new()),
            offset: (u64::MAX, String::new()),
            local: (u64::MAX, String::new()),
            utc: (u64::MAX, String::new()),
        }
    }

    fn header(&mut self, unix_s: u64) -> &str {
        refresh(&mut self.header, &self.zone, unix_s, "%b %e %H:%M:%S")
    }

    /// `06/Feb/2009:12:12:09`.
    pub(super) fn stamp(&mut self, unix_s: u64) -> &str {
        refresh(&mut self.stamp, &self.zone, unix_s, "%d/%b/%Y:%H:%M:%S")
    }

    /// Writes `06/Feb/2009:12:12:09 +0100`.
    pub(super) fn write_local(&mut self, out: &mut Vec<u8>, unix_s: u64) {
        let text = refresh(&mut self.local, &self.zone, unix_s, "%d/%b/%Y:%H:%M:%S %z");
        out.extend_from_slice(text.as_bytes());
    }

    /// Writes `06/Feb/2009:11:12:09 +0000`.
    pub(super) fn write_utc(&mut self, out: &mut Vec<u8>, unix_s: u64) {
        let text = refresh(
            &mut self.utc,
            &TimeZone::UTC,
            unix_s,
            "%d/%b/%Y:%H:%M:%S %z",
        );
        out.extend_from_slice(text.as_bytes());
    }

    /// Writes `2009-02-06T12:12:09.443123+01:00`.
    fn write_iso(&mut self, out: &mut Vec<u8>, unix_us: u64) {
        let (unix_s, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
        let offset = refresh(&mut self.offset, &self.zone, unix_s, "%:z");
        let time = refresh(&mut self.iso, &self.zone, unix_s, "%Y-%m-%dT%H:%M:%S");
        let _ = write!(out, "{time}.{us:06}{offset}");
    }
}

fn refresh<'a>(cached: &'a mut (u64, String), zone: &TimeZone, unix_s: u64, form: &str) -> &'a str {
    if cached.0 != unix_s {
        let seconds = i64::try_from(unix_s).unwrap_or(0);
        let time = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let text = time.to_zoned(zone.clone()).strftime(form).to_string();
        *cached = (unix_s, text);
    }
    &cached.1
}

/// Writes what stands before the message. Writing to a vector can't fail.
pub(super) fn write_header(
    out: &mut Vec<u8>,
    format: LogFormat,
    facility: u8,
    level: u8,
    time: &mut LocalTime,
    origin: Origin<'_>,
) {
    let priority = u32::from(facility) * 8 + u32::from(level);
    let Origin { host, tag, pid, .. } = origin;
    match format {
        LogFormat::Rfc3164 | LogFormat::Local => {
            let now = time.header(clock::unix_ms() / 1000);
            let _ = write!(out, "<{priority}>{now} ");
            if let (Some(host), LogFormat::Rfc3164) = (host, format) {
                let _ = write!(out, "{host} ");
            }
            let _ = write!(out, "{tag}[{pid}]: ");
        }
        LogFormat::Rfc5424 => {
            let _ = write!(out, "<{priority}>1 ");
            time.write_iso(out, clock::unix_us());
            let host = host.unwrap_or("-");
            let _ = write!(out, " {host} {tag} {pid} - ");
            match origin.structured {
                [] => out.push(b'-'),
                structured => out.extend_from_slice(structured),
            }
            out.push(b' ');
        }
        LogFormat::Iso => {
            time.write_iso(out, clock::unix_us());
            out.push(b' ');
        }
        LogFormat::Timed => {
            let _ = write!(out, "<{level}>");
            time.write_iso(out, clock::unix_us());
            out.push(b' ');
        }
        LogFormat::Priority => {
            let _ = write!(out, "<{priority}>");
        }
        LogFormat::Short => {
            let _ = write!(out, "<{level}>");
        }
        LogFormat::Raw => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn times_of_iso_8601() {
        let mut time = LocalTime::with_zone(TimeZone::fixed(jiff::tz::offset(-3)));
        let mut out = Vec::new();
        time.write_iso(&mut out, 1_233_922_329_000_123);
        assert_eq!(out, b"2009-02-06T09:12:09.000123-03:00");
    }

    #[test]
    fn headers() {
        let mut time = LocalTime::with_zone(TimeZone::UTC);
        assert_eq!(time.header(1_233_922_329), "Feb  6 12:12:09");
        let mut header = |format, host| {
            let mut out = Vec::new();
            let origin = Origin {
                host,
                tag: "tidegate",
                pid: 42,
                structured: b"",
            };
            write_header(&mut out, format, 16, 5, &mut time, origin);
            String::from_utf8(out).unwrap()
        };
        let named = header(LogFormat::Rfc3164, Some("balancer.example"));
        let end = " balancer.example tidegate[42]: ";
        assert!(
            named.starts_with("<133>") && named.ends_with(end),
            "{named}"
        );
        let local = header(LogFormat::Local, Some("balancer.example"));
        assert!(
            local.ends_with(" tidegate[42]: ") && !local.contains("balancer"),
            "{local}"
        );
        let iso = "2009-02-06T12:12:09.443123+00:00".len();
        let new = header(LogFormat::Rfc5424, None);
        assert!(
            new.starts_with("<133>1 2") && new.ends_with("+00:00 - tidegate 42 - - "),
            "{new}"
        );
        assert!(header(LogFormat::Rfc5424, Some("h")).ends_with("+00:00 h tidegate 42 - - "));
        assert_eq!(header(LogFormat::Iso, Some("h")).len(), iso + 1);
        let timed = header(LogFormat::Timed, None);
        assert!(
            timed.starts_with("<5>2") && timed.len() == iso + 4,
            "{timed}"
        );
        let mut header = |format| header(format, None);
        let full = header(LogFormat::Rfc3164);
        assert!(
            full.starts_with("<133>") && full.ends_with(" tidegate[42]: "),
            "{full}"
        );
        assert_eq!(full.len(), "<133>Feb  6 12:12:09 tidegate[42]: ".len());
        assert_eq!(header(LogFormat::Priority), "<133>");
        assert_eq!(header(LogFormat::Short), "<5>");
        assert_eq!(header(LogFormat::Raw), "");
    }
}
