//! Relaying datagrams: receive, flow, pick, pair, send, reply, expire.

use super::Shard;
use crate::ring::{Completion, Inbox, Kernel};

impl<K: Kernel> Shard<K> {
    /// Datagrams have come, or a socket has to be looked after.
    pub(super) fn on_datagrams(&mut self, inbox: Inbox, completion: Completion) {
        let Some(arrival) = self.kernel.arrival(inbox, &completion) else {
            return;
        };
        self.kernel.return_buffer(inbox, arrival.payload.buffer);
    }
}
