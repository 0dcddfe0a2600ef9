//! What table and pool promise, kept plainly beside them.

use super::{Balancer, key_of};
use crate::base::time::Moment;
use crate::flow::udp::simulation::client_address;
use crate::flow::udp::{FlowId, PairAt, Refusal};

/// Whose a pair is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) client: u32,
    pub(super) flow: Option<FlowId>,
    /// When the last flow let go of it, and how long it is kept then.
    pub(super) released: Moment,
    /// Until when it is nobody else's, at no price.
    pub(super) kept_until: Moment,
    /// Until when late replies for others may come: it was given away before it had rested.
    pub(super) hasty_until: Moment,
}

/// What a flow should have counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    pub(super) client: u32,
    pub(super) started: Moment,
    pub(super) last: Moment,
    pub(super) requests: u64,
    pub(super) replies: u64,
}

impl Balancer {
    /// The model of the pool: whose a pair may be.
    pub(super) fn own(
        &mut self,
        pair: PairAt,
        upstream: u32,
        client: u32,
        id: FlowId,
        may_grow: bool,
        now: Moment,
    ) {
        let server = self.upstreams[upstream as usize].address;
        let (mut hasty, mut hasty_until) = (false, now);
        if let Some(before) = self.pairs.get(&(self.sockets[&pair.socket], server)) {
            assert_eq!(before.flow, None, "a pair has two flows");
            let same = before.client == client;
            assert!(
                same || before.kept_until <= now,
                "a server may still speak first"
            );
            let quarantine_ms = self.settings.pool.quarantine_ms.into();
            let rested = before.released.after_ms(quarantine_ms);
            hasty = !same && now < rested;
            hasty_until = before.hasty_until.max(if same { now } else { rested });
            self.summary.own += u64::from(same && now < before.kept_until);
            self.summary.hasty += u64::from(hasty);
        }
        let cap = !may_grow || self.pool.sockets() == self.settings.pool.sockets_max;
        assert!(!hasty || cap, "it had not rested");
        let owner = Owner {
            client,
            flow: Some(id),
            released: now,
            kept_until: now,
            hasty_until,
        };
        self.pairs
            .insert((self.sockets[&pair.socket], server), owner);
    }

    pub(super) fn check_refusal(
        &mut self,
        why: Refusal,
        upstream: u32,
        may_grow: bool,
        now: Moment,
    ) {
        let server = self.upstreams[upstream as usize].address;
        let owners = || {
            self.sockets
                .values()
                .map(|socket| self.pairs.get(&(*socket, server)))
        };
        let taken = |owner: Option<&Owner>| owner.is_some_and(|owner| owner.flow.is_some());
        let kept = |owner: Option<&Owner>| owner.is_some_and(|owner| now < owner.kept_until);
        let cap = self.pool.sockets() == self.settings.pool.sockets_max;
        match why {
            Refusal::Full => {
                assert!(cap || !may_grow);
                assert!(owners().all(taken), "a pair was free");
            }
            Refusal::Mapped => {
                assert!(cap || !may_grow);
                // One that is kept may stand before one that is not, for an idle time at most.
                assert!(owners().any(|owner| !taken(owner) && kept(owner)));
                self.summary.kept_for_servers += 1;
            }
            Refusal::Growth => assert!(self.settings.pool.growth_max <= 2 && !cap),
            Refusal::Unknown => panic!("a server that is there"),
        }
    }

    pub(super) fn model(&mut self, id: FlowId) -> &mut Model {
        self.flows.get_mut(&key_of(id)).expect("it began")
    }

    pub(super) fn time_ms(&self, confirmed: bool) -> u64 {
        let rules = self.settings.rules;
        match confirmed {
            true => rules.idle_ms.into(),
            false => rules.unconfirmed_ms.min(rules.idle_ms).into(),
        }
    }

    /// Every sum there is, against the model.
    pub(super) fn compare(&self) {
        assert_eq!(self.table.len(), self.flows.len());
        assert_eq!(self.pool.flows() as usize, self.flows.len());
        assert_eq!(usize::from(self.pool.sockets()), self.sockets.len());
        assert!(self.sockets.len() <= usize::from(self.settings.pool.sockets_max));
        let unconfirmed = self.flows.values().filter(|model| model.replies == 0);
        assert_eq!(self.table.unconfirmed() as usize, unconfirmed.count());
        let mut of_upstreams = 0;
        for upstream in 0..self.upstreams.len() as u32 {
            let all = self.table.of_upstream(upstream);
            let count = all.inspect(|id| {
                let flow = self.table.get(*id).expect("listed flows are live");
                assert_eq!(flow.upstream(), upstream);
            });
            let count = count.count();
            assert_eq!(self.table.count_of(upstream) as usize, count);
            of_upstreams += count;
        }
        assert_eq!(of_upstreams, self.flows.len());
        if let Some(model) = self.flows.values().next() {
            let of_client = self
                .flows
                .values()
                .filter(|other| other.client == model.client);
            let counted = self.counts.count(client_address(model.client).ip());
            assert_eq!(counted as usize, of_client.count());
        }
    }
}
