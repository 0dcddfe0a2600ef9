//! Forms of log lines (`log-format` and its like), and when a session's line is written.
//!
//! A form is a list of pieces that the log thread fills in from a session's record. What a shard
//! has to ask the kernel for, because a form shows it, is gathered here when the form is read.

use super::Expression;

/// What is logged of a frontend's sessions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionLines {
    /// The form of a session's line.
    pub line: LineFormat,
    /// That of the short line of a client without an address; empty where there is no short line.
    pub unix_line: LineFormat,
    /// `error-log-format`: of connections that never became a session.
    pub error: Option<LineFormat>,
    /// `log-format-sd`: structured data in front of lines in the format `rfc5424`.
    pub structured: Option<LineFormat>,
    /// `unique-id-format`: what `%ID` stands for.
    pub unique_id: Option<LineFormat>,
    /// When the line is written.
    pub stage: Stage,
    /// `option logasap`: lines are written when what they tell of has hardly begun.
    pub asap: bool,
    /// What the forms show that has to be asked for.
    pub reads: Reads,
}

/// A moment in the life of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    /// It has been accepted.
    #[default]
    Accepted,
    /// It is connected to a server. One that never is has its line at the end.
    Connected,
    /// It has ended.
    Ended,
}

/// Values that cost a system call or memory, and are kept only where something shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reads {
    /// The address that the client connected to.
    pub destination: bool,
    /// The address that the connection to the server comes from.
    pub source: bool,
    /// The number of the session.
    pub number: bool,
    /// What the client's PROXY header says beyond addresses.
    pub header: bool,
}

impl Reads {
    /// What either of two shows.
    #[must_use]
    pub fn or(self, other: Reads) -> Reads {
        Reads {
            destination: self.destination || other.destination,
            source: self.source || other.source,
            number: self.number || other.number,
            header: self.header || other.header,
        }
    }
}

/// The form of a line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LineFormat {
    /// Its pieces in order.
    pub pieces: Vec<Piece>,
    /// Whether the whole is a JSON object of the values that have a name.
    pub json: bool,
}

impl LineFormat {
    /// The values that it shows.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Item(item) => Some(item),
            Piece::Text(_) | Piece::Space => None,
        })
    }

    /// Whether it shows something that is known only at the end of a session.
    pub fn needs_end(&self) -> bool {
        self.items().any(|item| item.value.is_of_end())
    }

    /// What it shows that has to be asked for.
    pub fn reads(&self) -> Reads {
        let all = self.items().map(|item| item.value.reads());
        all.fold(Reads::default(), Reads::or)
    }
}

/// A piece of a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Text without blanks.
    Text(String),
    /// A blank. Several in turn are one, and a line doesn't begin with one.
    Space,
    /// A value.
    Item(Item),
}

/// A value and how it is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Its key in a JSON object, empty = none.
    pub name: String,
    /// What it is in JSON, whatever it was.
    pub cast: Option<Cast>,
    /// `Q`: in double quotes.
    pub quote: bool,
    /// `X`: in hexadecimal.
    pub hexadecimal: bool,
    /// `E`: quotes, backslashes and closing brackets are escaped.
    pub escape: bool,
    /// `json`: as a JSON value.
    pub json: bool,
    /// The value.
    pub value: Value,
}

/// A type of JSON values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cast {
    /// `str`
    Text,
    /// `sint`
    Number,
    /// `bool`
    Boolean,
}

/// Something that is known of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// `%ac`: sessions of the process.
    ProcessSessions,
    /// `%fc`: of the frontend.
    FrontendSessions,
    /// `%bc`: of the backend.
    BackendSessions,
    /// `%sc`: of the server.
    ServerSessions,
    /// `%bq`: who waited before it in the backend's queue.
    BackendQueue,
    /// `%sq`: the same of the server's.
    ServerQueue,
    /// `%f`, `%ft`, `%[fe_name]`
    FrontendName,
    /// `%b`: the frontend's name where there is no backend.
    BackendShown,
    /// `%[be_name]`
    BackendName,
    /// `%s`: `<NOSRV>` where there is no server.
    ServerShown,
    /// `%[srv_name]`
    ServerName,
    /// `%[fe_id]`
    FrontendId,
    /// `%[be_id]`
    BackendId,
    /// `%[srv_id]`
    ServerId,
    /// `%[so_id]`
    ListenerId,
    /// `%[so_name]`
    ListenerName,
    /// `%ci`: `unix` of a client without an address.
    ClientAddress,
    /// `%cp`: the listener's number of a client without an address.
    ClientPort,
    /// `%fi`: `unix` of a listener without an address.
    LocalAddress,
    /// `%fp`: the listener's number of a listener without an address.
    LocalPort,
    /// `%bi`, `%[bc_src]`
    SourceAddress,
    /// `%bp`, `%[bc_src_port]`
    SourcePort,
    /// `%si`, `%[bc_dst]`
    ServerAddress,
    /// `%sp`, `%[bc_dst_port]`
    ServerPort,
    /// `%[src,...]` and other addresses of the client's connection, with converters.
    Expression(Expression),
    /// `%t`: when it was accepted, local time with milliseconds.
    Date,
    /// `%Tl`: the same with the offset of the local time.
    DateLocal,
    /// `%T`: the same in UTC.
    DateUtc,
    /// `%Ts`: the same in seconds since 1970.
    UnixTime,
    /// `%ms`: its milliseconds.
    Milliseconds,
    /// `%Th`: how long its PROXY header took.
    HandshakeTime,
    /// `%Tw`: how long it waited for a server.
    QueueTime,
    /// `%Tc`: how long it took to connect.
    ConnectTime,
    /// `%Td`: from then to the end.
    DataTime,
    /// `%Tt` and `%Tu`: from the accept to the end.
    TotalTime,
    /// `%B`, `%[bytes_out]`: bytes to the client.
    BytesOut,
    /// `%U`, `%[bytes_in]`: bytes from the client.
    BytesIn,
    /// `%ts`: how it ended.
    Termination,
    /// `%tsc`: the same, with what became of cookies.
    TerminationCookie,
    /// Datagrams of a flow's client.
    FlowRequests,
    /// Datagrams of a flow's servers.
    FlowReplies,
    /// Why a flow has ended.
    FlowReason,
    /// `%rc`: attempts after the first.
    Retries,
    /// `%rt`: its number.
    Number,
    /// `%ID`, `%[unique-id]`
    UniqueId,
    /// `%lc`: the number of the proxy's line.
    LineNumber,
    /// `%pid`
    ProcessId,
    /// `%H`, `%[hostname]`
    Hostname,
    /// `%ST`: 0, there is no status.
    Status,
    /// `%sslv`, `%sslc`: there is no TLS.
    Absent,
    /// `%hr` and its like: nothing is captured.
    Captures,
    /// `%[str(...)]`
    Text(String),
    /// `%[int(...)]`
    Integer(i64),
    /// `%[bool(...)]`, `%[always_true]`, `%[always_false]`
    Boolean(bool),
    /// `%[fc_err]`: the number of what went wrong before the session.
    ErrorNumber,
    /// `%[fc_err_str]`: the same in words.
    ErrorText,
    /// `%[fc_pp_tlv(...)]` and its like: a field of its PROXY header.
    HeaderField(u8),
}

impl Value {
    /// Whether it is known only at the end of a session.
    fn is_of_end(&self) -> bool {
        matches!(
            self,
            Value::ProcessSessions
                | Value::FrontendSessions
                | Value::BackendSessions
                | Value::ServerSessions
                | Value::BackendQueue
                | Value::ServerQueue
                | Value::HandshakeTime
                | Value::QueueTime
                | Value::ConnectTime
                | Value::DataTime
                | Value::TotalTime
                | Value::BytesOut
                | Value::BytesIn
                | Value::Termination
                | Value::TerminationCookie
                | Value::Retries
                | Value::UniqueId
        )
    }

    fn reads(&self) -> Reads {
        let none = Reads::default();
        match self {
            Value::LocalAddress | Value::LocalPort => Reads {
                destination: true,
                ..none
            },
            Value::Expression(expression) => Reads {
                destination: expression.fetch.is_destination(),
                ..none
            },
            Value::SourceAddress | Value::SourcePort => Reads {
                source: true,
                ..none
            },
            Value::Number => Reads {
                number: true,
                ..none
            },
            Value::HeaderField(_) => Reads {
                header: true,
                ..none
            },
            _ => none,
        }
    }
}
