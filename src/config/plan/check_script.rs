//! The steps of a check that does more than connect: those of `tcp-check` and `http-check` lines,
//! and those of a protocol's own check.

use std::net::IpAddr;
use std::sync::Arc;

use super::pattern::{Content, HttpAnswer};
use crate::base::address::Address;
use crate::base::send_proxy::SendProxy;

/// A scripted check with its bounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scripted {
    /// What is done.
    pub script: Arc<Script>,
    /// Bound of each connect: min(`timeout connect`, `inter`), or `inter` without `timeout check`.
    pub timeout_connect_ms: u32,
    /// `timeout check`: bound of what follows a connect. Where it isn't set, `inter` bounds the
    /// whole.
    pub timeout_check_ms: Option<u32>,
    /// The PROXY header of steps that ask for one: the server's, else of version 1.
    pub send_proxy: SendProxy,
}

/// What a check does, one step after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// How it tells what it found.
    pub manner: Manner,
    /// The first one connects.
    pub steps: Vec<Step>,
    /// How a connection ends once the last step has passed.
    pub ending: Ending,
}

/// How findings are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// By the step at which it ended.
    Steps,
    /// By what the server answered to requests of HTTP.
    Http,
    /// By what the server said, message by message.
    Protocol,
}

/// How a connection ends. Everything but a reset leaves a connection in TIME_WAIT if the server
/// doesn't close first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By a reset.
    Reset,
    /// By a FIN, so that the server sees an orderly end.
    Close,
    /// These bytes take leave, and the server ends the connection.
    Goodbye(Vec<u8>),
}

/// A step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// As it is counted in messages; 0 = nobody has written it.
    pub number: u16,
    /// What it does.
    pub action: Action,
    /// What its author says of it.
    pub comment: String,
}

/// What a step does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connects; the connection before it ends.
    Connect(ConnectStep),
    /// Sends.
    Send(Vec<u8>),
    /// Waits for an answer.
    Expect(Expect),
}

/// Where a step connects to, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectStep {
    /// `addr`: where to, if not to the check's address; its port may be 0, which is the check's.
    pub address: Option<Address>,
    /// `port`: of whatever address.
    pub port: Option<u16>,
    /// `send-proxy`: a PROXY header comes before everything else.
    pub send_proxy: bool,
    /// Written without `default`: what the server's parameters say of its checks doesn't count.
    pub is_its_own: bool,
    /// `linger`: the connection ends by a FIN, not by a reset.
    pub linger: bool,
}

impl ConnectStep {
    /// The PROXY header that it begins with: `own` if it asks for one, else that of the `check`, if
    /// it takes what that has.
    pub fn header(&self, own: SendProxy, check: Option<SendProxy>) -> Option<SendProxy> {
        if self.send_proxy {
            return Some(own);
        }
        check.filter(|_| !self.is_its_own)
    }

    /// The address for a check of `check`.
    pub fn target(&self, check: &Address) -> Address {
        let check_port = match check {
            Address::Ip(check) => check.port(),
            Address::Unix(_) | Address::Abstract(_) => 0,
        };
        match self.address.as_ref().unwrap_or(check) {
            Address::Ip(address) => {
                let own = Some(address.port()).filter(|port| *port > 0);
                let port = self.port.or(own).unwrap_or(check_port);
                Address::Ip((address.ip(), port).into())
            }
            unix => unix.clone(),
        }
    }

    /// Whether it needs no port of the check's address.
    pub fn knows_port(&self) -> bool {
        self.port.is_some()
            || match &self.address {
                None => false,
                Some(Address::Ip(address)) => address.port() > 0,
                Some(Address::Unix(_) | Address::Abstract(_)) => true,
            }
    }

    /// An address without a port of its own.
    pub fn at(ip: IpAddr) -> Address {
        Address::Ip((ip, 0).into())
    }
}

/// What is waited for, and what follows from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expect {
    /// The answer that is wanted.
    pub answer: Answer,
    /// The status if it is the last step and passes.
    pub ok: CheckStatus,
    /// The status of another answer; `None` = what that answer is, L7RSP where it isn't one.
    pub error: Option<CheckStatus>,
    /// The status if no answer comes in time.
    pub timeout: CheckStatus,
    /// Told in place of the usual text.
    pub on_success: Option<String>,
    /// The same of another answer.
    pub on_error: Option<String>,
}

impl Expect {
    /// An expectation with the usual statuses.
    pub fn of(answer: Answer) -> Expect {
        Expect {
            answer,
            ok: CheckStatus::L7Ok,
            error: None,
            timeout: CheckStatus::L7Timeout,
            on_success: None,
            on_error: None,
        }
    }
}

/// Answers that can be waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Bytes with this in them.
    Content(Content),
    /// An HTTP response.
    Http(HttpAnswer),
    /// `+PONG` (RESP).
    Redis,
    /// A positive reply, RFC 5321.
    Smtp,
    /// The greeting of a MySQL server.
    MysqlGreeting,
    /// What it says to a login.
    MysqlLogin,
    /// What a PostgreSQL server says to a start-up message.
    Pgsql,
    /// The result of an LDAP bind, RFC 4511.
    Ldap,
    /// A handshake message or an alert of TLS.
    Tls,
}

/// What a check found, in HAProxy's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckStatus {
    /// Connected.
    L4Ok,
    /// No connection in time.
    L4Timeout,
    /// The connection failed.
    L4Failed,
    /// The connection broke.
    SocketError,
    /// The layer between answered.
    L6Ok,
    /// It didn't in time.
    L6Timeout,
    /// Its answer is not one.
    L6Response,
    /// The program answered.
    L7Ok,
    /// It didn't in time.
    L7Timeout,
    /// Its answer is not one.
    L7Response,
    /// Its answer says that something is wrong.
    L7Status,
}

impl CheckStatus {
    /// HAProxy's word.
    pub fn name(self) -> &'static str {
        match self {
            CheckStatus::L4Ok => "L4OK",
            CheckStatus::L4Timeout => "L4TOUT",
            CheckStatus::L4Failed => "L4CON",
            CheckStatus::SocketError => "SOCKERR",
            CheckStatus::L6Ok => "L6OK",
            CheckStatus::L6Timeout => "L6TOUT",
            CheckStatus::L6Response => "L6RSP",
            CheckStatus::L7Ok => "L7OK",
            CheckStatus::L7Timeout => "L7TOUT",
            CheckStatus::L7Response => "L7RSP",
            CheckStatus::L7Status => "L7STS",
        }
    }

    /// Whether the server is well.
    pub fn is_pass(self) -> bool {
        matches!(
            self,
            CheckStatus::L4Ok | CheckStatus::L6Ok | CheckStatus::L7Ok
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_connects_where_its_words_say() {
        let check = Address::Ip("10.0.0.1:80".parse().unwrap());
        let at = |address: Option<&str>, port| {
            let address = address.map(|text| Address::Ip(text.parse().unwrap()));
            let step = ConnectStep {
                address,
                port,
                ..ConnectStep::default()
            };
            (step.target(&check).to_string(), step.knows_port())
        };
        assert_eq!(at(None, None), ("10.0.0.1:80".to_owned(), false));
        assert_eq!(at(None, Some(8)), ("10.0.0.1:8".to_owned(), true));
        let other = Some("10.0.0.2:0");
        assert_eq!(at(other, None), ("10.0.0.2:80".to_owned(), false));
        assert_eq!(at(other, Some(8)), ("10.0.0.2:8".to_owned(), true));
        let whole = Some("10.0.0.2:9");
        assert_eq!(at(whole, None), ("10.0.0.2:9".to_owned(), true));
        assert_eq!(at(whole, Some(8)), ("10.0.0.2:8".to_owned(), true));
    }
}
