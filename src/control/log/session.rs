//! Lines of sessions: a form filled in from a record.
//!
//! There is one path for all of them: `log-format`, `option tcplog` and the short line are forms.
//! Nothing here fails: what a record doesn't have is shown as `-`, or `null` in JSON.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use super::encode::{self, Kind};
use super::format::LocalTime;
use crate::base::address::Address;
use crate::config::plan::{Endpoint, Item, LineFormat, Piece, Target, Value};
use crate::flow::proxy_protocol::tlv;
use crate::flow::udp::Reason;
use crate::lb::{Sampled, sampled};
use crate::shard::{Refusal, SessionRecord};

/// What lines show that is not of their session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker<'a> {
    /// The name of this machine.
    pub(super) host: &'a str,
    pub(super) pid: u32,
    /// Lines of the proxy before this one.
    pub(super) lines: u64,
}

/// Fills in forms; what it needs on the way is kept between lines.
#[derive(Debug)]
pub(super) struct Filler {
    pub(super) time: LocalTime,
    /// The value at hand, as text.
    text: Vec<u8>,
    /// The id of the session at hand.
    unique_id: Vec<u8>,
}

impl Filler {
    pub(super) fn new(time: LocalTime) -> Filler {
        Filler {
            time,
            text: Vec::new(),
            unique_id: Vec::new(),
        }
    }

    /// Writes the line of a session.
    pub(super) fn line(&mut self, out: &mut Vec<u8>, record: &SessionRecord, by: Speaker<'_>) {
        let Some(front) = &record.frontend.proxy.front else {
            return;
        };
        let lines = &front.lines;
        self.unique_id.clear();
        if let Some(form) = &lines.unique_id {
            let mut id = Vec::new();
            self.fill(&mut id, form, record, by);
            self.unique_id = id;
        }
        match (record.refused, &lines.error) {
            (Some(refusal), None) => self.refusal(out, record, refusal),
            (Some(_), Some(form)) => self.fill(out, form, record, by),
            // The short line of a client without an address has a form of its own.
            (None, _) if lines.unix_line.pieces.is_empty() || !is_unix(record) => {
                self.fill(out, &lines.line, record, by);
            }
            (None, _) => self.fill(out, &lines.unix_line, record, by),
        }
    }

    /// Writes the structured data of that line, which has to be written before. As HAProxy, none
    /// of a connection that never became a session.
    pub(super) fn structured(
        &mut self,
        out: &mut Vec<u8>,
        record: &SessionRecord,
        by: Speaker<'_>,
    ) {
        let lines = record
            .frontend
            .proxy
            .front
            .as_ref()
            .map(|front| &front.lines);
        let is_short = lines.is_some_and(|lines| !lines.unix_line.pieces.is_empty());
        let form = lines.and_then(|lines| lines.structured.as_ref());
        if let Some(form) = form.filter(|_| record.refused.is_none() && !is_short) {
            self.fill(out, form, record, by);
        }
    }

    fn fill(
        &mut self,
        out: &mut Vec<u8>,
        form: &LineFormat,
        record: &SessionRecord,
        by: Speaker<'_>,
    ) {
        if form.json {
            return self.object(out, form, record, by);
        }
        for piece in &form.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Space => out.push(b' '),
                Piece::Item(item) => {
                    let kind = self.value(&item.value, record, by);
                    if item.json {
                        encode::json(out, kind, &self.text, item.cast);
                    } else {
                        if is_unfinished(&item.value, record) {
                            out.push(b'+');
                        }
                        self.plain(out, item, kind);
                    }
                }
            }
        }
    }

    /// Writes a JSON object of the values that have a name.
    fn object(
        &mut self,
        out: &mut Vec<u8>,
        form: &LineFormat,
        record: &SessionRecord,
        by: Speaker<'_>,
    ) {
        out.push(b'{');
        let mut first = true;
        for item in form.items().filter(|item| !item.name.is_empty()) {
            if !std::mem::take(&mut first) {
                out.extend_from_slice(b", ");
            }
            encode::json_text(out, item.name.as_bytes());
            out.extend_from_slice(b": ");
            let kind = self.value(&item.value, record, by);
            if item.hexadecimal && matches!(kind, Kind::Number(_) | Kind::Address(_)) {
                let mut text = Vec::new();
                self.plain(&mut text, item, kind);
                self.text = text;
                encode::json(out, Kind::Text, &self.text, item.cast);
            } else {
                encode::json(out, kind, &self.text, item.cast);
            }
        }
        out.push(b'}');
    }

    /// Writes a value as it is in a line of text.
    fn plain(&self, out: &mut Vec<u8>, item: &Item, kind: Kind) {
        if item.quote {
            out.push(b'"');
        }
        match kind {
            // Where something is captured, and nothing was, HAProxy shows nothing.
            Kind::Missing if item.quote || item.value == Value::Captures => {}
            Kind::Missing => out.push(b'-'),
            Kind::Number(number) => encode::number(out, number, digits(item)),
            Kind::Boolean(boolean) => out.push(if boolean { b'1' } else { b'0' }),
            Kind::Address(address) => encode::address(out, address, item.hexadecimal),
            Kind::Text => encode::text(out, &self.text, item.escape, false),
            Kind::Foreign => encode::text(out, &self.text, item.escape, true),
        }
        if item.quote {
            out.push(b'"');
        }
    }

    /// What a value is; where it is text, it is in `self.text` then.
    fn value(&mut self, value: &Value, record: &SessionRecord, by: Speaker<'_>) -> Kind {
        let [process, frontend, backend, server] = record.counts;
        let proxy = &record.frontend.proxy;
        let back = record.backend.as_ref().map(|backend| &backend.proxy);
        let listener = &record.listener;
        let kept = record.server.as_ref().map(|server| &server.plan);
        match value {
            Value::ProcessSessions => number(process),
            Value::FrontendSessions => number(frontend),
            Value::BackendSessions => number(backend),
            Value::ServerSessions => number(server),
            Value::ServerQueue => number(record.queued_before[0]),
            Value::BackendQueue => number(record.queued_before[1]),
            Value::FrontendName => self.own(&proxy.name),
            Value::BackendShown => self.own(back.map_or(&proxy.name, |back| &back.name)),
            Value::BackendName => self.own_if(back.map(|back| &*back.name)),
            Value::ServerShown => self.own(kept.map_or("<NOSRV>", |server| &*server.name)),
            Value::ServerName => self.own_if(kept.map(|server| &*server.name)),
            Value::FrontendId => number(proxy.iid),
            Value::BackendId => back.map_or(Kind::Missing, |back| number(back.iid)),
            Value::ServerId => kept.map_or(Kind::Missing, |server| number(server.sid)),
            Value::ListenerId => number(listener.socket_id),
            Value::ListenerName => self.own_if(Some(&*listener.name).filter(|n| !n.is_empty())),
            Value::ClientAddress => self.address_or_unix(record.client, record),
            Value::ClientPort => port_or_number(record.client, record),
            Value::LocalAddress => self.address_or_unix(record.local, record),
            Value::LocalPort => port_or_number(record.local, record),
            Value::SourceAddress => address(source(record)),
            Value::SourcePort => port(source(record)),
            Value::ServerAddress => self.server_address(record),
            Value::ServerPort => match server_address(record) {
                Some(Address::Ip(address)) => port(Some(address)),
                _ => Kind::Missing,
            },
            Value::Expression(expression) => {
                match sampled(expression, record.client, record.local) {
                    None => Kind::Missing,
                    Some(Sampled::Address(address)) => Kind::Address(address),
                    Some(Sampled::Number(number)) => Kind::Number(number),
                }
            }
            Value::Date => self.date(record),
            Value::DateLocal => self.begin(|text, time| time.write_local(text, seconds(record))),
            Value::DateUtc => self.begin(|text, time| time.write_utc(text, seconds(record))),
            Value::UnixTime => number(seconds(record)),
            Value::Milliseconds => number(record.accepted_unix_ms % 1000),
            Value::HandshakeTime => number(record.handshake_ms),
            Value::QueueTime => Kind::Number(record.queue_ms),
            Value::ConnectTime => Kind::Number(record.connect_ms),
            Value::DataTime => Kind::Number(data_ms(record)),
            Value::TotalTime => Kind::Number(record.total_ms),
            Value::BytesOut => number(record.bytes_out),
            Value::BytesIn => number(record.bytes_in),
            Value::Termination => self.begin(|text, _| text.extend(record.termination)),
            Value::TerminationCookie => self.begin(|text, _| {
                text.extend(record.termination);
                text.extend(b"--");
            }),
            Value::FlowRequests => record
                .flow
                .map_or(Kind::Missing, |flow| number(flow.requests)),
            Value::FlowReplies => record
                .flow
                .map_or(Kind::Missing, |flow| number(flow.replies)),
            Value::FlowReason => self.own_if(record.flow.map(|flow| reason_text(flow.reason))),
            Value::Retries => number(record.retries),
            Value::Number => number(record.number),
            Value::UniqueId if self.unique_id.is_empty() => Kind::Missing,
            Value::UniqueId => {
                self.text.clone_from(&self.unique_id);
                Kind::Text
            }
            Value::LineNumber => number(by.lines),
            Value::ProcessId => number(by.pid),
            Value::Hostname => self.own(by.host),
            Value::Status => Kind::Number(0),
            Value::Absent | Value::Captures => Kind::Missing,
            Value::Text(text) => self.own_if(Some(text.as_str()).filter(|text| !text.is_empty())),
            Value::Integer(number) => Kind::Number(*number),
            Value::Boolean(boolean) => Kind::Boolean(*boolean),
            Value::ErrorNumber => number(record.refused.map_or(0, error_number)),
            Value::ErrorText => self.own(record.refused.map_or("Success", error_text)),
            Value::HeaderField(kind) => {
                let beyond = record.beyond.as_ref();
                let tlvs = beyond.and_then(|beyond| beyond.tlvs.as_deref());
                match tlv::value(tlvs.unwrap_or_default(), *kind) {
                    [] => Kind::Missing,
                    bytes => {
                        self.begin(|text, _| text.extend(bytes));
                        Kind::Foreign
                    }
                }
            }
        }
    }

    fn begin(&mut self, write: impl FnOnce(&mut Vec<u8>, &mut LocalTime)) -> Kind {
        self.text.clear();
        write(&mut self.text, &mut self.time);
        Kind::Text
    }

    fn own(&mut self, text: &str) -> Kind {
        self.begin(|out, _| out.extend(text.as_bytes()))
    }

    fn own_if(&mut self, text: Option<&str>) -> Kind {
        text.map_or(Kind::Missing, |text| self.own(text))
    }

    fn date(&mut self, record: &SessionRecord) -> Kind {
        let ms = record.accepted_unix_ms % 1000;
        self.begin(|text, time| {
            let _ = write!(text, "{}.{ms:03}", time.stamp(seconds(record)));
        })
    }

    fn address_or_unix(&mut self, end: Option<SocketAddr>, record: &SessionRecord) -> Kind {
        match end {
            None if is_unix(record) => self.own("unix"),
            end => address(end),
        }
    }

    fn server_address(&mut self, record: &SessionRecord) -> Kind {
        match server_address(record) {
            None => Kind::Missing,
            Some(Address::Ip(end)) => address(Some(end)),
            Some(_) => self.own("unix"),
        }
    }

    /// The line of a connection that never became a session, as HAProxy has it.
    fn refusal(&mut self, out: &mut Vec<u8>, record: &SessionRecord, refusal: Refusal) {
        let listener = &record.listener;
        match record.client {
            Some(client) => {
                let ip = client.ip().to_canonical();
                let _ = write!(out, "{ip}:{}", client.port());
            }
            None => drop(write!(out, "unix:{}", listener.socket_id)),
        }
        self.date(record);
        out.extend_from_slice(b" [");
        out.extend_from_slice(&self.text);
        let _ = write!(out, "] {}/", record.frontend.proxy.name);
        match listener.name.as_str() {
            "" => drop(write!(out, "{}", listener.socket_id)),
            name => encode::text(out, name.as_bytes(), false, false),
        }
        let _ = write!(out, ": {}", error_text(refusal));
    }
}

/// Whether the value goes on after the line: HAProxy puts a `+` before it.
fn is_unfinished(value: &Value, record: &SessionRecord) -> bool {
    let front = record.frontend.proxy.front.as_ref();
    match value {
        Value::TotalTime | Value::BytesOut => front.is_some_and(|front| front.lines.asap),
        // Here it says that one of them went to another server.
        Value::Retries => record.redispatched,
        _ => false,
    }
}

/// How many digits a number has at least, in hexadecimal; `None` = it is decimal. HAProxy knows
/// it of these only.
fn digits(item: &Item) -> Option<usize> {
    let digits = match &item.value {
        Value::ClientPort | Value::LocalPort | Value::SourcePort | Value::ServerPort => 4,
        Value::UnixTime | Value::ProcessId | Value::LineNumber | Value::Number => 4,
        Value::Milliseconds => 2,
        _ => return None,
    };
    item.hexadecimal.then_some(digits)
}

fn number(number: impl TryInto<i64>) -> Kind {
    Kind::Number(number.try_into().unwrap_or(i64::MAX))
}

fn seconds(record: &SessionRecord) -> u64 {
    record.accepted_unix_ms / 1000
}

fn address(end: Option<SocketAddr>) -> Kind {
    end.map_or(Kind::Missing, |end| {
        let ip: IpAddr = end.ip().to_canonical();
        Kind::Address(ip)
    })
}

fn port(end: Option<SocketAddr>) -> Kind {
    end.map_or(Kind::Missing, |end| number(end.port()))
}

fn port_or_number(end: Option<SocketAddr>, record: &SessionRecord) -> Kind {
    match end {
        None if is_unix(record) => number(record.listener.socket_id),
        end => port(end),
    }
}

/// Whether its client came through a Unix socket.
fn is_unix(record: &SessionRecord) -> bool {
    let of_unix = match &record.listener.endpoint {
        Endpoint::Address(Address::Ip(_)) | Endpoint::Datagram(_) => false,
        Endpoint::Address(_) | Endpoint::Descriptor(_) => true,
    };
    of_unix && record.client.is_none()
}

fn source(record: &SessionRecord) -> Option<SocketAddr> {
    record.beyond.as_ref().and_then(|beyond| beyond.source)
}

fn server_address(record: &SessionRecord) -> Option<Address> {
    match &record.server.as_ref()?.plan.address {
        Target::Fixed(address) => Some(address.clone()),
        target => target.of_client(record.local?),
    }
}

/// From the connect to the end; -1 where there was none.
fn data_ms(record: &SessionRecord) -> i64 {
    if record.connect_ms < 0 {
        return -1;
    }
    let before = i64::from(record.handshake_ms) + record.queue_ms.max(0) + record.connect_ms;
    (record.total_ms - before).max(0)
}

/// Why a flow has ended.
fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Idle => "idle",
        Reason::Unconfirmed => "unconfirmed",
        Reason::Responses => "responses",
        Reason::Requests => "requests",
        Reason::Evicted => "evicted",
        Reason::ServerDown => "server-down",
        Reason::SocketLost => "socket-lost",
        Reason::Shutdown => "shutdown",
        Reason::Refused => "refused",
    }
}

/// What HAProxy says of such a connection.
fn error_text(refusal: Refusal) -> &'static str {
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

/// HAProxy's number of it.
fn error_number(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Closed => 11,
        Refusal::Broken => 12,
        Refusal::TimedOut { .. } => 13,
        Refusal::CutOff => 14,
        Refusal::NotProxy => 15,
        Refusal::Invalid => 16,
        Refusal::Protocol => 17,
    }
}

#[cfg(test)]
mod tests;
