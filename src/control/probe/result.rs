//! What a probe found, in HAProxy's words.

use crate::base::ids::ServerId;
use crate::health::{Answer, Rules};

/// What the probe thread tells the control thread.
#[derive(Clone, Debug)]
pub enum Finding {
    /// A check has ended.
    Probe(ProbeResult),
    /// An agent was asked.
    Agent(AgentResult),
    /// The first attempt of a server's checks, or of its agent, is over; what it found was told
    /// before.
    First,
}

/// What a probe found, and what follows from it.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The server.
    pub server: ServerId,
    /// `L4OK`, `L4TOUT`, `L4CON`, `SOCKERR`, what a script found, or `HANA` for what traffic has
    /// shown.
    pub status: &'static str,
    /// The server's own code; `None` of statuses that have none.
    pub code: Option<u16>,
    /// How long it took.
    pub duration_ms: u64,
    /// What there is to say of it: the error's text, the server's words.
    pub description: String,
    /// Whether the failure counted (`chkfail`).
    pub counted_failure: bool,
    /// Where the checks are between up and down, by the counts that they have.
    pub rules: Rules,
    /// How often the server's checks had begun anew before it.
    pub restarts: u32,
}

/// What asking an agent has brought.
#[derive(Clone, Debug)]
pub struct AgentResult {
    /// The server.
    pub server: ServerId,
    /// `L7OK`, `L7STS`, `CHECKED`, `L7RSP`, `L7TOUT`, `L4TOUT`, `L4CON` or `SOCKERR`.
    pub status: &'static str,
    /// How long it took.
    pub duration_ms: u64,
    /// The error's text, or what the answer says to people.
    pub description: String,
    /// What was answered, if it was an answer.
    pub answer: Option<Answer>,
}

impl ProbeResult {
    /// Whether the server answered.
    pub fn passed(&self) -> bool {
        matches!(self.status, "L4OK" | "L6OK" | "L7OK")
    }

    /// The status in words.
    pub fn reason(&self) -> &'static str {
        status_text(self.status)
    }
}

/// A check status in HAProxy's words.
pub fn status_text(status: &str) -> &'static str {
    match status {
        "L4OK" => "Layer4 check passed",
        "L4TOUT" => "Layer4 timeout",
        "L4CON" => "Layer4 connection problem",
        "L6OK" => "Layer6 check passed",
        "L6TOUT" => "Layer6 timeout",
        "L6RSP" => "Layer6 invalid response",
        "L7OK" => "Layer7 check passed",
        "L7STS" => "Layer7 wrong status",
        "L7RSP" => "Layer7 invalid response",
        "L7TOUT" => "Layer7 timeout",
        "CHECKED" => "No status change",
        "SOCKERR" => "Socket error",
        "HANA" => "Health analyze",
        "INI" => "Initializing",
        _ => "Unknown",
    }
}
