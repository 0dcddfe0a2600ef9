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
    /// `L4OK`, `L4TOUT`, `L4CON` or `SOCKERR`.
    pub status: &'static str,
    /// How long it took.
    pub duration_ms: u64,
    /// The error's text, empty after a success or a timeout.
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
        self.status == "L4OK"
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
        "INI" => "Initializing",
        _ => "Unknown",
    }
}
