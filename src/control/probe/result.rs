//! What a probe found, in HAProxy's words.

use crate::base::ids::ProxyId;
use crate::lb::Health;

/// What a probe found, and what follows from it.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// The backend.
    pub proxy: ProxyId,
    /// The server's place in it.
    pub server_index: usize,
    /// `L4OK`, `L4TOUT`, `L4CON`, `SOCKERR`, or what a script found.
    pub status: &'static str,
    /// The server's own code; `None` of statuses that have none.
    pub code: Option<u16>,
    /// How long it took.
    pub duration_ms: u64,
    /// What there is to say of it: the error's text, the server's words.
    pub description: String,
    /// Whether the failure counted (`chkfail`).
    pub counted_failure: bool,
    /// Position of the rise/fall machine.
    pub health: u16,
    /// The server's new health, if it changed.
    pub transition: Option<Health>,
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
        "SOCKERR" => "Socket error",
        "L6OK" => "Layer6 check passed",
        "L6TOUT" => "Layer6 timeout",
        "L6RSP" => "Layer6 invalid response",
        "L7OK" => "Layer7 check passed",
        "L7TOUT" => "Layer7 timeout",
        "L7RSP" => "Layer7 invalid response",
        "L7STS" => "Layer7 wrong status",
        "INI" => "Initializing",
        _ => "Unknown",
    }
}
