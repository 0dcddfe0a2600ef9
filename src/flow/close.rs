//! How a session ended: a value, not an error. It maps onto HAProxy's two termination letters.

/// Who ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Nobody: both sides finished.
    Nobody,
    /// The client.
    Client,
    /// The server, or its absence.
    Server,
    /// The proxy, by a rule or limit.
    Proxy,
    /// A resource of the proxy ran out (descriptors, ports, memory).
    Resource,
    /// A fault of the proxy.
    Internal,
    /// An operator's command or the end of the process.
    Killed,
    /// The proxy, because the server was marked down.
    MarkedDown,
    /// The proxy, because a server came up that this backup server stood in for.
    MarkedUp,
}

impl Who {
    /// Whether somebody beside the session has ended it.
    fn is_told(self) -> bool {
        matches!(self, Who::Killed | Who::MarkedDown | Who::MarkedUp)
    }
}

/// How far it had come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Before a server was asked for.
    Request,
    /// Waiting for a server.
    Queue,
    /// Connecting to it.
    Connect,
    /// Relaying.
    Data,
}

/// What ended it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Both directions came to their end.
    Finished,
    /// A reset, an error or a refusal.
    Aborted,
    /// A timeout.
    TimedOut,
}

/// The end of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Close {
    /// Who ended it.
    pub who: Who,
    /// How far it had come.
    pub phase: Phase,
    /// What ended it.
    pub cause: Cause,
}

impl Close {
    /// The end of a session that both sides finished.
    pub const FINISHED: Close = Close {
        who: Who::Nobody,
        phase: Phase::Data,
        cause: Cause::Finished,
    };

    /// The two letters of a log line (HAProxy's session state at disconnection).
    pub fn letters(self) -> [u8; 2] {
        let timed_out = self.cause == Cause::TimedOut;
        let first = match self.who {
            Who::Nobody => return *b"--",
            Who::Client if timed_out => b'c',
            Who::Client => b'C',
            Who::Server if timed_out => b's',
            Who::Server => b'S',
            Who::Proxy => b'P',
            Who::Resource => b'R',
            Who::Internal => b'I',
            Who::Killed => b'K',
            Who::MarkedDown => b'D',
            Who::MarkedUp => b'U',
        };
        let second = match self.phase {
            Phase::Request => b'R',
            Phase::Queue => b'Q',
            Phase::Connect => b'C',
            // As HAProxy has it: nothing was wrong with the transfer.
            Phase::Data if self.who.is_told() => b'-',
            Phase::Data => b'D',
        };
        [first, second]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_haproxy() {
        let letters = |who, phase, cause| {
            String::from_utf8(Close { who, phase, cause }.letters().to_vec()).expect("ASCII")
        };
        assert_eq!(letters(Who::Nobody, Phase::Data, Cause::Finished), "--");
        assert_eq!(letters(Who::Client, Phase::Data, Cause::Aborted), "CD");
        assert_eq!(letters(Who::Client, Phase::Data, Cause::TimedOut), "cD");
        assert_eq!(letters(Who::Client, Phase::Connect, Cause::Aborted), "CC");
        assert_eq!(letters(Who::Client, Phase::Queue, Cause::Aborted), "CQ");
        assert_eq!(letters(Who::Server, Phase::Connect, Cause::Aborted), "SC");
        assert_eq!(letters(Who::Server, Phase::Connect, Cause::TimedOut), "sC");
        assert_eq!(letters(Who::Server, Phase::Queue, Cause::TimedOut), "sQ");
        assert_eq!(letters(Who::Server, Phase::Data, Cause::Aborted), "SD");
        assert_eq!(letters(Who::Server, Phase::Data, Cause::TimedOut), "sD");
        assert_eq!(letters(Who::Resource, Phase::Connect, Cause::Aborted), "RC");
        assert_eq!(letters(Who::Killed, Phase::Data, Cause::Aborted), "K-");
        assert_eq!(letters(Who::MarkedDown, Phase::Data, Cause::Aborted), "D-");
        assert_eq!(
            letters(Who::MarkedDown, Phase::Connect, Cause::Aborted),
            "DC"
        );
        assert_eq!(letters(Who::MarkedUp, Phase::Data, Cause::Aborted), "U-");
    }
}
