//! How a shard receives: chosen at start from what the kernel can do, or forced by the config.

/// How a shard receives, from the best to the most widely available.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ReceiveStep {
    /// Incremental ring with multishot and a byte limit (Linux 6.17).
    Limit,
    /// Incremental ring, one receive at a time (6.12).
    Incremental,
    /// Bundles over small buffers (6.10).
    Bundle,
    /// One provided buffer per receive (6.0).
    Plain,
}

impl ReceiveStep {
    /// All steps, best first.
    pub const ALL: [ReceiveStep; 4] = [
        ReceiveStep::Limit,
        ReceiveStep::Incremental,
        ReceiveStep::Bundle,
        ReceiveStep::Plain,
    ];

    /// The word for it in the config and in `-vv`.
    pub fn name(self) -> &'static str {
        match self {
            ReceiveStep::Limit => "limit",
            ReceiveStep::Incremental => "incremental",
            ReceiveStep::Bundle => "bundle",
            ReceiveStep::Plain => "plain",
        }
    }
}
