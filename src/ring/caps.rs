//! What this kernel can do, probed and self-tested at start.

use std::fmt;

use crate::base::receive::ReceiveStep;

/// What the data plane uses of this kernel.
#[derive(Clone, Debug)]
pub struct Caps {
    /// The receive step.
    pub receive: ReceiveStep,
    /// One line per finding, for `-vv`.
    pub findings: Vec<String>,
}

/// Why no ring can be used here, and what allows it.
#[derive(Clone, Debug)]
pub struct SetupError(pub String);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Caps {
    /// Probes the kernel: sets up a ring, sends a known pattern through each receive step from the best
    /// (or from `forced` alone) and takes the first that returns it unchanged.
    pub fn probe(forced: Option<ReceiveStep>) -> Result<Caps, SetupError> {
        let _ = forced;
        Err(SetupError("not built yet".into()))
    }
}
