//! What a shard counts about datagrams. Plain numbers, written to the gauges once per turn.

/// An index of [`crate::shard::Gauges::datagrams`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum DatagramCount {
    /// Flows open now.
    Flows,
    /// Sockets towards servers now.
    Sockets,
    /// Mappings now: clients without a flow that a server may still speak to.
    Mappings,
    /// Datagrams of clients that have come.
    FromClients,
    /// Datagrams that were sent to servers.
    ToServers,
    /// Datagrams of servers that have come.
    FromServers,
    /// Datagrams that were sent to clients.
    ToClients,
    /// Calls that have sent them.
    Sends,
    /// Datagrams that left together with others, by one call.
    Merged,
    /// Datagrams without a byte, passed on as any other.
    Empty,
    /// Dropped: did not fit into a buffer.
    Truncated,
    /// Dropped: a listener's socket was full, by the kernel.
    Overflowed,
    /// Dropped: the sending socket had no room.
    Unsent,
    /// Dropped: over the path MTU, where nothing may be fragmented, or longer than any datagram.
    TooLarge,
    /// Dropped: refused by the network twice in a row.
    Undeliverable,
    /// Dropped: from a server, and nobody's.
    Unknown,
    /// Dropped: its PROXY header is missing or wrong.
    HeadersMalformed,
    /// Dropped: of a client that no flow could begin for; why is counted by flow below.
    Refused,
    /// What the network has said of datagrams that a server did not get.
    Refusals,
    /// Destinations that can't be sent several datagrams with one call.
    SegmentsRefused,
    /// Receives that found no buffer; what comes waits in the socket.
    InboxesExhausted,
    /// Flows given up for newer ones, without a reply until then.
    Evicted,
    /// Flows that went to another server.
    Moved,
    /// Flows opened by a datagram of a server.
    Reopened,
    /// New flows refused: a limit.
    RefusedLimit,
    /// New flows refused: too many of one client address.
    RefusedSource,
    /// New flows refused: `rate-limit sessions` or `maxsessrate`.
    RefusedRate,
    /// New flows refused: no server, or none with room.
    RefusedServer,
    /// New flows refused: no socket towards the server is free.
    RefusedSocket,
    /// New flows refused: the process drains.
    RefusedDraining,
}

impl DatagramCount {
    /// How many there are.
    pub const COUNT: usize = DatagramCount::RefusedDraining as usize + 1;
}

/// The numbers of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts([u64; DatagramCount::COUNT]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; DatagramCount::COUNT])
    }
}

impl Counts {
    /// One more.
    pub(super) fn one(&mut self, count: DatagramCount) {
        self.add(count, 1u64);
    }

    /// So many more.
    pub(super) fn add(&mut self, count: DatagramCount, n: impl Into<u64>) {
        self.0[count as usize] += n.into();
    }

    /// As many as there are now.
    pub(super) fn set(&mut self, count: DatagramCount, n: usize) {
        self.0[count as usize] = n as u64;
    }

    /// All of them.
    pub(super) fn all(&self) -> &[u64; DatagramCount::COUNT] {
        &self.0
    }
}
