//! Log lines and their headers, byte for byte as HAProxy writes them.
//!
//! `Connect from ...` at the accept, or the `option tcplog` line at the end of a session: `%ci:%cp
//! [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq`. Lines are written into a reused
//! buffer; local time is computed once per second.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::io::Write;
use std::net::SocketAddr;

use crate::config::plan::LogFormat;
use crate::flow::udp::Reason;
use crate::shard::{FlowPart, Refusal, Refused, SessionRecord};
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
}

/// Who speaks, in the headers of lines.
#[derive(Debug)]
pub(super) struct Origin {
    /// `log-send-hostname`.
    pub(super) host: Option<String>,
    /// `log-tag`.
    pub(super) tag: String,
    pub(super) pid: u32,
}

impl LocalTime {
    pub(super) fn new() -> LocalTime {
        LocalTime::with_zone(TimeZone::system())
    }

    fn with_zone(zone: TimeZone) -> LocalTime {
        LocalTime {
            zone,
            header: (u64::MAX, String::new()),
            stamp: (u64::MAX, String::new()),
            iso: (u64::MAX, String::new()),
            offset: (u64::MAX, String::new()),
        }
    }

    fn header(&mut self, unix_s: u64) -> &str {
        refresh(&mut self.header, &self.zone, unix_s, "%b %e %H:%M:%S")
    }

    fn stamp(&mut self, unix_s: u64) -> &str {
        refresh(&mut self.stamp, &self.zone, unix_s, "%d/%b/%Y:%H:%M:%S")
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
    origin: &Origin,
) {
    let priority = u32::from(facility) * 8 + u32::from(level);
    let Origin { host, tag, pid } = origin;
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
            let host = host.as_deref().unwrap_or("-");
            let _ = write!(out, " {host} {tag} {pid} - - ");
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

/// Writes the line of a session.
pub(super) fn write_session(out: &mut Vec<u8>, record: &SessionRecord, time: &mut LocalTime) {
    let front = &*record.frontend.proxy.name;
    if record.at_accept {
        out.extend_from_slice(b"Connect from ");
        write_address(out, record.client);
        out.extend_from_slice(b" to ");
        write_address(out, record.local);
        let _ = write!(out, " ({front}/TCP)");
        return;
    }
    let (seconds, ms) = (
        record.accepted_unix_ms / 1000,
        record.accepted_unix_ms % 1000,
    );
    if let Some(Refused { listener, refusal }) = &record.refused {
        match record.client {
            Some(_) => write_address(out, record.client),
            None => drop(write!(out, "unix:{}", listener.socket_id)),
        }
        let _ = write!(out, " [{}.{ms:03}] {front}/", time.stamp(seconds));
        match listener.name.as_str() {
            "" => drop(write!(out, "{}", listener.socket_id)),
            name => out.extend_from_slice(name.as_bytes()),
        }
        let _ = write!(out, ": {}", refusal_text(*refusal));
        return;
    }
    write_address(out, record.client);
    // A session that reached no backend is logged with the frontend in its place.
    let back = record
        .backend
        .as_ref()
        .map_or(front, |backend| &*backend.proxy.name);
    let server = record
        .server
        .as_ref()
        .map_or("<NOSRV>", |server| &*server.plan.name);
    let _ = write!(
        out,
        " [{}.{ms:03}] {front} {back}/{server} ",
        time.stamp(seconds)
    );
    let (queue, connect, total) = (record.queue_ms, record.connect_ms, record.total_ms);
    let _ = write!(out, "{queue}/{connect}/{total} {} ", record.bytes_out);
    out.extend_from_slice(&record.termination);
    let [process, frontend, backend, on_server] = record.counts;
    let again = if record.redispatched { "+" } else { "" };
    let [server_queue, backend_queue] = record.queued_before;
    let _ = write!(
        out,
        " {process}/{frontend}/{backend}/{on_server}/{again}{} {server_queue}/{backend_queue}",
        record.retries
    );
    if let Some(flow) = record.flow {
        write_flow(out, record.bytes_in, flow);
    }
}

/// What the line of a flow adds: bytes of the client, datagrams of both sides, why it ended.
fn write_flow(out: &mut Vec<u8>, bytes_in: u64, flow: FlowPart) {
    let reason = match flow.reason {
        Reason::Idle => "idle",
        Reason::Unconfirmed => "unconfirmed",
        Reason::Responses => "responses",
        Reason::Requests => "requests",
        Reason::Evicted => "evicted",
        Reason::ServerDown => "server-down",
        Reason::SocketLost => "socket-lost",
        Reason::Shutdown => "shutdown",
        Reason::Refused => "refused",
    };
    let FlowPart {
        requests, replies, ..
    } = flow;
    let _ = write!(out, " {bytes_in} {requests}/{replies} {reason}");
}

/// What HAProxy says of such a connection.
fn refusal_text(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NotProxy => "Received something which does not look like a PROXY protocol header",
        Refusal::Invalid => "Received an invalid PROXY protocol header",
        Refusal::Protocol => "Received an unhandled protocol in the PROXY protocol header",
        Refusal::TimedOut { .. } => "Timeout while waiting for PROXY protocol header",
        Refusal::CutOff => "Truncated PROXY protocol header received",
        Refusal::Closed => "Connection closed while waiting for PROXY protocol header",
        Refusal::Broken => "Connection error while waiting for PROXY protocol header",
    }
}

/// `ip:port`, without brackets as HAProxy has it, or `unix:1`.
fn write_address(out: &mut Vec<u8>, address: Option<SocketAddr>) {
    let _ = match address {
        Some(address) => write!(out, "{}:{}", address.ip().to_canonical(), address.port()),
        None => write!(out, "unix:1"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::control::log::testing::record;
    use crate::control::resolve::SystemEnvironment;

    fn line(record: &SessionRecord) -> String {
        let mut out = Vec::new();
        write_session(&mut out, record, &mut LocalTime::with_zone(TimeZone::UTC));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_tcplog_line() {
        let mut record = record();
        assert_eq!(
            line(&record),
            "10.0.1.2:33313 [06/Feb/2009:12:12:09.443] fe bk/s1 0/5/5007 212 -- 1/2/3/4/+3 5/6"
        );
        record.server = None;
        record.client = None;
        record.redispatched = false;
        record.retries = 0;
        (record.queue_ms, record.connect_ms, record.total_ms) = (-1, -1, 0);
        record.termination = *b"SC";
        assert_eq!(
            line(&record),
            "unix:1 [06/Feb/2009:12:12:09.443] fe bk/<NOSRV> -1/-1/0 212 SC 1/2/3/4/0 5/6"
        );
        record.backend = None;
        assert!(line(&record).contains(" fe fe/<NOSRV> "));
    }

    #[test]
    fn the_line_of_a_flow() {
        let mut record = record();
        (record.retries, record.redispatched) = (0, false);
        (record.queue_ms, record.connect_ms, record.queued_before) = (0, 0, [0; 2]);
        record.flow = Some(FlowPart {
            requests: 2,
            replies: 3,
            reason: Reason::Idle,
        });
        assert_eq!(
            line(&record),
            "10.0.1.2:33313 [06/Feb/2009:12:12:09.443] fe bk/s1 0/0/5007 212 -- 1/2/3/4/0 0/0 7 \
             2/3 idle"
        );
    }

    #[test]
    fn the_line_at_accept() {
        let mut record = record();
        record.at_accept = true;
        assert_eq!(
            line(&record),
            "Connect from 10.0.1.2:33313 to 10.0.0.1:80 (fe/TCP)"
        );
        record.client = Some("[::1]:5".parse().unwrap());
        record.local = Some("[::ffff:10.0.0.1]:80".parse().unwrap());
        assert_eq!(line(&record), "Connect from ::1:5 to 10.0.0.1:80 (fe/TCP)");
    }

    #[test]
    fn the_line_of_a_refused_connection() {
        let text = "listen l\n bind 127.0.0.1:1 name in\n bind 127.0.0.1:2\n";
        let environment = SystemEnvironment::new();
        let listeners = config::load_text("t.cfg", text, &environment).0.unwrap();
        let mut record = record();
        let refused = |listener: usize, refusal| {
            let listener = listeners.listeners[listener].clone();
            Some(Refused { listener, refusal })
        };
        record.refused = refused(0, Refusal::NotProxy);
        assert_eq!(
            line(&record),
            "10.0.1.2:33313 [06/Feb/2009:12:12:09.443] fe/in: Received something which does not \
             look like a PROXY protocol header"
        );
        // Neither has a name or an address.
        record.refused = refused(1, Refusal::TimedOut { began: false });
        record.client = None;
        assert_eq!(
            line(&record),
            "unix:2 [06/Feb/2009:12:12:09.443] fe/2: Timeout while waiting for PROXY protocol \
             header"
        );
        assert!(!record.is_normal());
    }

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
        let mut origin = Origin {
            host: None,
            tag: "tidegate".to_owned(),
            pid: 42,
        };
        let mut header = |format, host: Option<&str>| {
            let mut out = Vec::new();
            origin.host = host.map(str::to_owned);
            write_header(&mut out, format, 16, 5, &mut time, &origin);
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
