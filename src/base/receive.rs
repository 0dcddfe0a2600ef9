//! What kernels differ in: how a shard receives, and what else its ring may do. Chosen at start
//! from what the kernel can do; debug settings force a step or leave something out.

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

    /// The first Linux that has it.
    pub fn since(self) -> &'static str {
        match self {
            ReceiveStep::Limit => "6.17",
            ReceiveStep::Incremental => "6.12",
            ReceiveStep::Bundle => "6.10",
            ReceiveStep::Plain => "6.0",
        }
    }
}

/// What a kernel may lack. The data plane needs one receive step; everything else is worked around.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// A receive step.
    Receive(ReceiveStep),
    /// Receive work runs only inside the shard's own turn (Linux 6.1). Without it the work runs at
    /// any system call of the shard.
    DeferredWork,
    /// The ring is named by an index of the thread. Without it each turn looks its descriptor up.
    RegisteredRing,
    /// One accept brings many connections. Without it each has an operation of its own.
    MultishotAccept,
    /// One call sends several datagrams. Without it they are sent one by one.
    Gso,
    /// One receive brings several datagrams. Without it they come one by one.
    Gro,
    /// Clients of UDP are led to shards by their address and port. Without it the kernel chooses
    /// by a hash of its own, and moves clients when a process takes the place of another.
    Steering,
}

impl Capability {
    /// All of them.
    pub const ALL: [Capability; 10] = [
        Capability::Receive(ReceiveStep::Limit),
        Capability::Receive(ReceiveStep::Incremental),
        Capability::Receive(ReceiveStep::Bundle),
        Capability::Receive(ReceiveStep::Plain),
        Capability::DeferredWork,
        Capability::RegisteredRing,
        Capability::MultishotAccept,
        Capability::Gso,
        Capability::Gro,
        Capability::Steering,
    ];

    /// The word for it in the config.
    pub fn name(self) -> &'static str {
        match self {
            Capability::Receive(step) => step.name(),
            Capability::DeferredWork => "deferred-work",
            Capability::RegisteredRing => "registered-ring",
            Capability::MultishotAccept => "multishot-accept",
            Capability::Gso => "gso",
            Capability::Gro => "gro",
            Capability::Steering => "steering",
        }
    }
}
