//! The end of a flow: what it held is given back, exactly once, and it is told of.

use std::sync::Arc;

use super::flow_data::FlowData;
use super::origin::Ends;
use super::{Shard, Udp};
use crate::base::limits::LimitId;
use crate::config::plan::Stage;
use crate::flow::udp::{Closed, Flow, FlowId, FlowKey, Reason};
use crate::flow::{Cause, Close, Phase, Who};
use crate::lb::{Outcome, ServerCounter};
use crate::ring::Kernel;
use crate::shard::record::{FlowPart, SessionRecord};
use crate::shard::world::FrontCounter;

impl<K: Kernel> Shard<K> {
    /// Ends the flows whose time has come, and those that have had all they may.
    pub(super) fn end_due(&mut self, udp: &mut Udp) {
        let mut ending = std::mem::take(&mut udp.ending);
        udp.flows.expire(self.now, &mut ending);
        for (id, reason) in ending.drain(..) {
            self.end_flow(udp, id, reason, who(reason));
        }
        udp.ending = ending;
    }

    /// Ends a flow, if it is still there.
    pub(super) fn end_flow(&mut self, udp: &mut Udp, id: FlowId, reason: Reason, who: Who) {
        let Some(Closed { flow, reason }) = udp.flows.close(id, reason) else {
            return;
        };
        let now = self.now;
        let listener = &udp.listeners[usize::from(flow.key().listener())];
        let ends = udp.ends_of(&flow);
        let upstream = udp.upstreams.at(flow.upstream());
        let (backend, server) = (Arc::clone(&upstream.backend), Arc::clone(&upstream.server));
        let frontend = Arc::clone(&listener.frontend);
        let (limits, number) = (listener.limits, usize::from(flow.key().listener()));
        let total_ms = now.ms_since(flow.started());
        for counters in [&*frontend.counters, self.world.counters_of(&backend)] {
            // Minus one, modulo 2^64.
            counters.add(self.id, FrontCounter::Active as usize, u64::MAX);
            counters.add(self.id, FrontCounter::SessionTimeMs as usize, total_ms);
        }
        let total = ServerCounter::SessionTimeMs as usize;
        server.counters.add(self.id, total, total_ms);
        let longest = ServerCounter::SessionTimeMaxMs as usize;
        server.counters.raise(self.id, longest, total_ms);
        server.timings.session_ms.record(self.id, total_ms);
        if listener.rules.log {
            self.log_flow(udp, &flow, &ends, reason, who);
        }
        let rest = Udp::rest_of(&upstream.rules, flow.key(), flow.upstream(), flow.last());
        self.leave_socket(udp, flow.pair(), flow.data.socket, rest);
        backend.leave();
        let outcome = match reason {
            Reason::ServerDown => Outcome::ServerAborted,
            Reason::Refused | Reason::Evicted | Reason::SocketLost => Outcome::Abandoned,
            Reason::Idle
            | Reason::Unconfirmed
            | Reason::Responses
            | Reason::Requests
            | Reason::Shutdown => Outcome::Completed,
        };
        self.release_server(&backend, &server, outcome);
        self.give_source(&frontend, &ends);
        self.give_flow_limits(limits);
        udp.listeners[number].flows -= 1;
    }

    /// Gives back what a flow counts in, in the reverse of the order of taking: whoever gets the
    /// process's unit must find the frontend's given back before, as its peak is shown.
    pub(super) fn give_flow_limits(&mut self, limits: [LimitId; 3]) {
        for id in limits.into_iter().rev() {
            let woken = self.world.limits.give(id);
            self.wake_shards(woken);
        }
    }

    fn log_flow(
        &mut self,
        udp: &Udp,
        flow: &Flow<FlowData>,
        ends: &Ends,
        reason: Reason,
        who: Who,
    ) {
        let upstream = udp.upstreams.at(flow.upstream());
        let bytes_in = flow.requests().1;
        let backend_now = {
            let counters = self.world.counters_of(&upstream.backend);
            u32::try_from(counters.sum(FrontCounter::Active as usize)).unwrap_or(0)
        };
        let total_ms = self.now.ms_since(flow.started());
        let (phase, cause) = (Phase::Data, cause(reason));
        let record = SessionRecord {
            accepted_unix_ms: self.unix_ms() - total_ms,
            backend: Some(Arc::clone(&upstream.backend)),
            server: Some(Arc::clone(&upstream.server)),
            queue_ms: 0,
            connect_ms: 0,
            total_ms: i64::try_from(total_ms).unwrap_or(i64::MAX),
            bytes_in,
            bytes_out: flow.replies().1,
            termination: Close { who, phase, cause }.letters(),
            counts: self.counts_now(udp, flow.key(), backend_now, upstream.server.active()),
            redispatched: flow.data.moved,
            flow: Some(FlowPart {
                requests: flow.requests().0,
                replies: flow.replies().0,
                reason,
            }),
            ..self.flow_record(udp, ends)
        };
        self.log_unless_quiet(udp, flow.key(), record);
    }

    /// A flow could not begin: there is no server for it.
    pub(super) fn log_refused(&mut self, udp: &Udp, ends: &Ends, bytes: u32) {
        let key = &ends.key;
        let listener = &udp.listeners[usize::from(key.listener())];
        if !listener.rules.log {
            return;
        }
        let close = Close {
            who: Who::Server,
            phase: Phase::Connect,
            cause: Cause::Aborted,
        };
        let backend = listener.backend.clone();
        let record = SessionRecord {
            backend,
            bytes_in: bytes.into(),
            termination: close.letters(),
            counts: self.counts_now(udp, key, 0, 0),
            flow: Some(FlowPart {
                requests: 1,
                replies: 0,
                reason: Reason::Refused,
            }),
            ..self.flow_record(udp, ends)
        };
        self.log_unless_quiet(udp, key, record);
    }

    fn counts_now(&self, udp: &Udp, key: &FlowKey, backend: u32, server: u32) -> [u32; 4] {
        let listener = &udp.listeners[usize::from(key.listener())];
        let limits = &self.world.limits;
        [
            limits.current(self.world.flows_limit),
            limits.current(listener.frontend.limit),
            backend,
            server.saturating_sub(1),
        ]
    }

    fn log_unless_quiet(&mut self, udp: &Udp, key: &FlowKey, record: SessionRecord) {
        let listener = &udp.listeners[usize::from(key.listener())];
        let front = listener.frontend.proxy.front.as_ref().expect("a frontend");
        let silent =
            listener.frontend.proxy.logs.is_empty() || (front.dontlognull && record.bytes_in == 0);
        if !silent {
            self.log(record);
        }
    }

    /// The record of a flow of which nothing is known but its key.
    fn flow_record(&self, udp: &Udp, ends: &Ends) -> SessionRecord {
        let listener = &udp.listeners[usize::from(ends.key.listener())];
        SessionRecord {
            accepted_unix_ms: self.unix_ms(),
            client: Some(ends.client),
            local: ends.local,
            ..SessionRecord::new(&listener.frontend, &listener.plan, Stage::Ended)
        }
    }
}

/// Who ends a flow for a reason.
pub(super) fn who(reason: Reason) -> Who {
    match reason {
        Reason::Idle | Reason::Responses | Reason::Requests => Who::Nobody,
        Reason::Unconfirmed | Reason::Refused => Who::Server,
        Reason::Evicted | Reason::SocketLost => Who::Resource,
        Reason::ServerDown => Who::MarkedDown,
        Reason::Shutdown => Who::Killed,
    }
}

fn cause(reason: Reason) -> Cause {
    match reason {
        Reason::Unconfirmed => Cause::TimedOut,
        Reason::Idle | Reason::Responses | Reason::Requests => Cause::Finished,
        Reason::Refused
        | Reason::Evicted
        | Reason::SocketLost
        | Reason::ServerDown
        | Reason::Shutdown => Cause::Aborted,
    }
}
